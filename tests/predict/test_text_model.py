"""Saved models: a folder without code that predicts the same bits, says what it is, and refuses what isn't whole."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.learner import load_learner
from some_texts import reviews, tiny

from ulmfit_fastai import ULMFiT
from ulmfit_fastai._files import read_json, sealed, write_json_atomic
from ulmfit_fastai.batches.targets import Target
from ulmfit_fastai.predict.config import Config
from ulmfit_fastai.predict.text_model import TextModel, chunks
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.ids import Vocabulary, VocabularyMismatch
from ulmfit_fastai.training.runs import run

TEXTS, LABELS = reviews(24)


@pytest.fixture(scope="module")
def model():
    return tiny(epochs=1, directions="both").fit(TEXTS, [7 if label == "good" else 3 for label in LABELS])


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return model.save(tmp_path / "model")


# ------------------------------------------------------------------------------------------------------- there and back
def test_a_reloaded_model_gives_the_same_bits(model, folder):
    loaded = ULMFiT.load(folder)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert loaded.predict(TEXTS).tolist() == model.predict(TEXTS).tolist() and loaded.classes_.tolist() == [3, 7]
    assert loaded.metrics_ == model.metrics_ and loaded.recipe_ == model.recipe_


@pytest.mark.parametrize("labels", [
    [1.5 * len(text) for text in TEXTS], [["a"] * (i % 2) + ["b"] * (i % 3 == 0) for i in range(24)],
])
def test_numbers_and_several_classes_come_back_too(labels, tmp_path):
    made = tiny(epochs=1).fit(TEXTS, labels)
    loaded = ULMFiT.load(made.save(tmp_path / "model"))
    assert loaded.predict(TEXTS).tolist() == made.predict(TEXTS).tolist()
    np.testing.assert_array_equal(loaded.model_.outputs(TEXTS), made.model_.outputs(TEXTS))
    assert loaded.task == made.model_.target.task == ("regression" if isinstance(labels[0], float) else "multilabel")


def test_int8_predicts_nearly_the_same_and_refuses_what_needs_the_weights(model, folder, tmp_path):
    small = ULMFiT.load(folder, int8=True)
    assert not any(name.endswith("weight_hh_l0_raw") for m in small.model_.models.values() for name, _ in
                   m.named_parameters())
    expected, found = model.predict_proba(TEXTS), small.predict_proba(TEXTS)
    assert 0 < np.abs(found - expected).max() < 0.02
    for use in (lambda: small.explain("a fine film"), lambda: small.save(tmp_path / "again"), lambda: small.learner,
                lambda: small.export(tmp_path / "x.pkl")):
        with pytest.raises(ValueError, match="load the model without int8"):
            use()
    assert not (tmp_path / "again").exists()
    with pytest.raises(ValueError, match="int8 is for prediction on the CPU"):
        ULMFiT.load(folder, int8=True, device=torch.device("meta"))


def test_loading_executes_nothing(folder, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert len(ULMFiT.load(folder).predict(TEXTS)) == 24


def test_the_folder_holds_what_it_says_and_none_of_the_texts(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "recipe.json", "vocab.json", "metrics.json", "README.md",
                     "classifier_forward.safetensors", "classifier_backward.safetensors"}
    said = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(text.split(".")[0].encode() in said for text in TEXTS)


def test_the_card_has_what_the_hub_reads_and_people_ask(model, tmp_path):
    card = (model.save(tmp_path / "mood", license="apache-2.0") / "README.md").read_text()
    front = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines() if ": " in line)
    assert front["license"] == "apache-2.0" and front["pipeline_tag"] == "text-classification"
    assert front["library_name"] == "ulmfit_fastai" and "\n- ulmfit\n" in card and "\n# mood\n" in card
    error = model.metrics_["averaged"]["error"]
    for said in ("`3`, `7`", "22 labelled texts, 2 held out", f"error {error:.2f} %", 'ULMFiT.load("',
                 "AWD-LSTM 32/48/2"):
        assert said in card, said
    assert "license field above is yours" in (model.save(tmp_path / "other") / "README.md").read_text()


def test_the_license_may_be_spelt_as_licence(model, tmp_path):
    assert "\nlicense: mit\n" in (model.save(tmp_path / "mood", licence="mit") / "README.md").read_text()


@pytest.mark.parametrize("config", [
    Config(Target("multi", (True, False)), ("backward",), ("a", "b"), "y", "de", True, {"name": "x"}),
    Config(Target("regression", mean=3.5, scale=0.25)), Config(Target("single", (1.0, 2.5, "x"))),
])
def test_a_config_comes_back_from_its_json(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict())), "here") == config


# ---------------------------------------------------------------------------------------------------------- run folders
def test_a_run_kept_by_out_is_a_model(tmp_path):
    made = tiny(epochs=1, out=tmp_path / "run").fit(TEXTS, [label == "good" for label in LABELS])
    loaded = ULMFiT.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), made.predict_proba(TEXTS))
    assert loaded.classes_.tolist() == [False, True]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "# run\n" in card
    for path in (tmp_path / "run").iterdir():
        kind = path.name.replace("forward", "*").replace("backward", "*")
        assert f"`{kind}{'/' * path.is_dir()}`" in card or path.name == "README.md", path.name


def test_a_finished_run_of_any_command_predicts_what_it_predicted(tmp_path):
    data = synthetic_reviews(n_train=40, n_test=20, n_unsup=10)
    recipe = preset("tiny").replace(precision="fp32", directions=("forward", "backward"), lm=None)
    run(recipe, data, tmp_path / "run", progress=False, cache=tmp_path / "cache")
    loaded, result = ULMFiT.load(tmp_path / "run"), Result.load(tmp_path / "run")
    texts = data.df["text"][data.rows("test")].tolist()
    np.testing.assert_allclose(loaded.predict_proba(texts), result.probabilities(), atol=1e-6)
    found = loaded.evaluate(texts, data.df["label"][data.rows("test")].tolist())
    assert found["error"] == pytest.approx(result.error)
    saved = ULMFiT.load(loaded.save(tmp_path / "saved"))
    np.testing.assert_array_equal(saved.predict_proba(texts), loaded.predict_proba(texts))
    assert "| test set, averaged |" in (tmp_path / "saved" / "README.md").read_text()


def test_an_unfinished_run_and_one_without_weights_are_refused(folder, tmp_path):
    part = tmp_path / "part"
    record = {"schema": 1, "status": "stopped", "recipe": preset("tiny").to_dict(), "data": {"classes": ["a", "b"]},
              "command": "ulmfit-fastai imdb"}
    write_json_atomic(part / "run.json", record)
    with pytest.raises(ValueError, match=r"not finished \(status: stopped\); run its command again.*imdb"):
        ULMFiT.load(part)
    write_json_atomic(part / "run.json", {**record, "status": "finished"})
    with pytest.raises(ValueError, match="lacks classifier_forward.safetensors"):
        ULMFiT.load(part)


# -------------------------------------------------------------------------------------------------------- broken models
def test_what_is_no_model_is_refused_in_words(tmp_path, folder):
    with pytest.raises(ValueError, match="no folder; expected a saved model"):
        ULMFiT.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected config.json .* found nothing"):
        ULMFiT.load(tmp_path / "empty")
    (folder / "recipe.json").unlink()
    with pytest.raises(ValueError, match="lacks recipe.json"):
        ULMFiT.load(folder)


@pytest.mark.parametrize(("name", "change", "said"), [
    ("config.json", {"format": "ulmfit_fastai model 9"}, "use the version of ulmfit_fastai that wrote it"),
    ("config.json", {"kind": "other"}, "expected one of single, multi, regression"),
    ("config.json", {"classes": [3, 8]}, "has the classes 3, 7, config.json has 3, 8"),
    ("config.json", {"directions": ["sideways"]}, "directions is .*'sideways'"),
    ("recipe.json", {"max_vocab": "many"}, "max_vocab"),
])
def test_files_of_another_model_are_refused(folder, name, change, said):
    values = {**read_json(folder / name), **change}
    write_json_atomic(folder / name, sealed(values) if name == "config.json" else values)
    with pytest.raises(ValueError, match=said):
        ULMFiT.load(folder)


def test_another_vocabulary_and_another_size_are_refused(folder):
    words = read_json(folder / "vocab.json")["words"]
    swapped = [*words[:9], words[10], words[9], *words[11:]]
    Vocabulary(swapped).save(folder / "vocab.json")
    with pytest.raises(VocabularyMismatch):
        ULMFiT.load(folder)
    Vocabulary(words).save(folder / "vocab.json")
    recipe = read_json(folder / "recipe.json")
    recipe["model"]["n_hid"] = 64
    write_json_atomic(folder / "recipe.json", recipe)
    with pytest.raises(ValueError, match="don't fit the model of recipe.json: .* more differ") as said:
        ULMFiT.load(folder)
    assert "\n" not in str(said.value)  # one tensor says it; torch lists them all


def test_saving_over_a_model_is_fine_and_over_other_files_is_not(model, folder, tmp_path):
    model.save(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    with pytest.raises(ValueError, match="found thesis.doc; choose another folder"):
        model.save(tmp_path / "mine")
    with pytest.raises(ValueError, match="found a file"):
        model.save(tmp_path / "mine" / "thesis.doc")


# --------------------------------------------------------------------------------------------------------------- fastai
def test_an_exported_learner_loads_in_fastai_and_predicts_the_same(folder, tmp_path):
    loaded = ULMFiT.load(folder)
    with pytest.warns(UserWarning, match="loading a pickle runs the code in it"):
        path = loaded.export(tmp_path / "out" / "export.pkl", direction="backward")
    learn = load_learner(path)
    with learn.no_bar(), learn.no_logging():
        probs, _ = learn.get_preds(dl=learn.dls.test_dl(TEXTS[:6]))
    expected = loaded.model_.outputs_of_ids(loaded.model_.numbers(TEXTS[:6]), "backward")
    np.testing.assert_allclose(probs.numpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="this model has forward, backward, found 'up'"):
        loaded.learner_for("up")


def test_chunks_are_bounded_in_texts_and_characters(monkeypatch):
    from ulmfit_fastai.predict import text_model as saved_model

    monkeypatch.setattr(saved_model, "CHUNK_TEXTS", 3)
    monkeypatch.setattr(saved_model, "CHUNK_CHARS", 10)
    assert [len(part) for part in chunks(["aa"] * 7)] == [3, 3, 1]
    assert [len(part) for part in chunks(["a" * 50] * 3)] == [1, 1, 1] and list(chunks([])) == []


def test_a_model_can_be_moved(folder, model, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert TextModel.load(tmp_path / "elsewhere").vocab == model.model_.vocab
