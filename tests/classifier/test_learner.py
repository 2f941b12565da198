"""The fastai Learner of a fitted model: what fastai's documentation shows on one."""

from __future__ import annotations

import pandas as pd
import pytest
from fastai.interpret import ClassificationInterpretation
from some_texts import reviews, tiny


@pytest.fixture(scope="module")
def model():
    texts, labels = reviews()
    return tiny().fit(pd.DataFrame({"review": texts, "mood": labels}), text="review", label="mood")


def test_fastais_classification_report_names_the_classes(model, capsys):
    ClassificationInterpretation.from_learner(model.learner).print_classification_report()
    assert "bad" in (said := capsys.readouterr().out) and "good" in said and "f1-score" in said


def test_the_classes_are_in_a_category_map(model):
    words, classes = model.learner.dls.vocab
    assert list(classes) == ["bad", "good"] and dict(classes.o2i) == {"bad": 0, "good": 1} and "xxbos" in words


def test_a_frame_goes_into_a_test_loader(model):
    texts, _ = reviews(6, seed=1)
    learn = model.learner
    for frame in (pd.DataFrame({"id": range(6), "review": texts}), pd.DataFrame({"review": texts})):
        found = learn.get_preds(dl=learn.dls.test_dl(frame))[0]
        assert found.numpy() == pytest.approx(model.predict_proba(texts), abs=1e-6)
    with pytest.raises(ValueError, match="No review in id, body.*dls.test_dl"):
        learn.dls.test_dl(pd.DataFrame({"id": range(6), "body": texts}))


def test_test_time_augmentation_is_refused_in_words(model):
    with pytest.raises(ValueError, match="tta has nothing to average over"):
        model.learner.tta()
