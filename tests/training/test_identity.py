"""A run is another one where its language, its kind of labels or the content of its starting weights is another."""

from __future__ import annotations

import json

import numpy as np
import pytest
from some_texts import reviews, tiny

from ulmfit_fastai.classifier.fitted import Unfinished
from ulmfit_fastai.model.pretrained import content_of
from ulmfit_fastai.predict.text_model import TextModel
from ulmfit_fastai.results.folder import RunMismatch
from ulmfit_fastai.training.pretraining import pretrain

TEXTS, LABELS = reviews(24)
NUMBERS = [str(i % 3) for i in range(24)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "a.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 3), encoding="utf-8")
    return file


def test_another_language_or_kind_of_labels_is_refused_and_changes_nothing(tmp_path):
    tiny(out=tmp_path / "m", epochs=1).fit(TEXTS, NUMBERS)
    before = (tmp_path / "m" / "config.json").read_bytes()
    with pytest.raises(RunMismatch, match="another lang: .* 'en' there, 'de' here"):
        tiny(out=tmp_path / "m", epochs=1, lang="de").fit(TEXTS, NUMBERS)
    with pytest.raises(RunMismatch, match="another kind: .* 'single' there, 'multi' here"):
        tiny(out=tmp_path / "m", epochs=1).fit(TEXTS, [[label] for label in NUMBERS])
    with pytest.raises(RunMismatch, match="another kind"):
        tiny(out=tmp_path / "m", epochs=1).plan(TEXTS, [[label] for label in NUMBERS])
    assert (tmp_path / "m" / "config.json").read_bytes() == before


def test_a_run_that_was_stopped_does_not_go_on_in_another_language(tmp_path):
    with pytest.raises(Unfinished):
        tiny(out=tmp_path / "m", epochs=50, time_budget=0.01).fit(TEXTS, LABELS)
    with pytest.raises(RunMismatch, match="another lang"):
        tiny(out=tmp_path / "m", epochs=50, time_budget=0.01, lang="de").fit(TEXTS, LABELS)


def test_a_german_model_stays_german_without_its_config(tmp_path):
    made = tiny(out=tmp_path / "m", epochs=1, lang="de").fit(TEXTS, LABELS)
    (tmp_path / "m" / "config.json").unlink()
    assert TextModel.load(tmp_path / "m").config.lang == "de"
    np.testing.assert_array_equal(TextModel.load(tmp_path / "m").outputs(TEXTS), made.model_.outputs(TEXTS))


def test_weights_of_another_content_under_the_same_name_are_another_run(tmp_path, corpus):
    settings = {"epochs": 1, "bs": 4, "bptt": 10, "progress": False}
    pretrain(corpus, out=tmp_path / "lm", **settings)
    first = content_of(tmp_path / "lm")
    tiny(out=tmp_path / "m", epochs=1, weights=str(tmp_path / "lm")).fit(TEXTS, LABELS)
    assert json.loads((tmp_path / "m" / "run.json").read_text())["identity"]["weights"] == {"forward": first}
    pretrain(corpus, out=tmp_path / "lm", resume=False, seed=1, **settings)
    assert content_of(tmp_path / "lm") != first
    with pytest.raises(RunMismatch, match="another weights: the starting weights"):
        tiny(out=tmp_path / "m", epochs=1, weights=str(tmp_path / "lm")).fit(TEXTS, LABELS)


def test_weights_without_files_have_no_content(tmp_path):
    assert [content_of(name) for name in ("none", "pretrain", tmp_path / "nothing")] == [None] * 3
