"""Models to and from the hub, by huggingface_hub's own client, against a stand-in of it on the loopback."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("huggingface_hub", reason="the extra `hub`")

import numpy as np  # noqa: E402
from hub_stand_in import serving  # noqa: E402
from some_texts import reviews, tiny  # noqa: E402

from ulmfit_fastai import ULMFiT  # noqa: E402
from ulmfit_fastai._errors import UlmfitError  # noqa: E402

TEXTS, LABELS = reviews(24)


@pytest.fixture(scope="module")
def model() -> ULMFiT:
    return tiny(epochs=1).fit(TEXTS, LABELS)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def test_what_was_pushed_comes_back_and_predicts_the_same(model, hub):
    address = model.push_to_hub("me/mood", private=True, token="hf_mine", message="The first", license="mit",
                                base_model="me/english", datasets=["me/reviews"])
    assert address == f"{hub.address}/me/mood" and hub.messages == ["The first"] and hub.private["me/mood"]
    assert set(hub.repositories["me/mood"]) == {"config.json", "recipe.json", "metrics.json", "vocab.json", "README.md",
                                                "classifier_forward.safetensors"}
    assert "Bearer hf_mine" in hub.tokens
    hub.repositories["me/mood"]["run.py"] = b"raise SystemExit"
    again = ULMFiT.from_pretrained("me/mood")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert not any("run.py" in asked for asked in hub.asked)


def test_the_card_has_its_results_as_the_hub_reads_them(model, hub):
    from huggingface_hub import ModelCard

    model.push_to_hub("me/mood", token="hf_mine", base_model="me/english", datasets=["me/reviews"])
    card = ModelCard(hub.repositories["me/mood"]["README.md"].decode())
    data = card.data
    assert data.model_name == "mood" and data.base_model == "me/english" and data.datasets == ["me/reviews"]
    assert data.language == "en" and data.license == "unknown" and data.library_name == "ulmfit_fastai"
    results = {result.metric_type: result for result in data.eval_results}
    found = model.metrics_["forward"]
    assert results["accuracy"].metric_value == pytest.approx(1 - found["error"] / 100)
    assert results["f1"].metric_value == pytest.approx(found["macro_f1"], abs=1e-6)
    assert results["f1"].dataset_split == "validation" and results["f1"].dataset_type == "me/reviews"
    assert "from_pretrained" in card.text


def test_without_huggingface_hub_the_card_says_the_same_and_the_hub_is_refused_in_words(model, tmp_path, monkeypatch):
    with_it = (model.save(tmp_path / "mood") / "README.md").read_text()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    without = (model.save(tmp_path / "mood") / "README.md").read_text()
    assert without.split("---\n", 2)[2] == with_it.split("---\n", 2)[2]
    for line in without.split("---\n", 2)[1].splitlines():
        assert line in with_it
    for door in (lambda: model.push_to_hub("me/mood"), lambda: ULMFiT.from_pretrained("me/mood")):
        with pytest.raises(UlmfitError, match=r"ulmfit-fastai\[hub\]"):
            door()


@pytest.mark.parametrize(("name", "said"), [("me/nothing", "no model me/nothing"), ("not a name", "user/name")])
def test_a_model_that_cannot_be_had_is_told_in_words(hub, name, said):
    with pytest.raises(UlmfitError, match=said):
        ULMFiT.from_pretrained(name)


def test_a_hub_that_does_not_answer_is_told_in_words(model, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UlmfitError, match="can't be fetched"):
        ULMFiT.from_pretrained("me/mood")
    with pytest.raises(UlmfitError, match="can't be uploaded: the hub does not answer"):
        model.push_to_hub("me/mood", token="hf_mine")


def test_a_folder_that_is_there_is_read_without_any_hub(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = model.save(tmp_path / "mood")
    np.testing.assert_array_equal(ULMFiT.from_pretrained(folder).predict_proba(TEXTS[:3]),
                                  model.predict_proba(TEXTS[:3]))
