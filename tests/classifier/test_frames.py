"""Tables of other libraries, wherever a DataFrame is taken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from some_texts import reviews, tiny

from ulmfit_fastai.classifier.frames import as_frame

TEXTS, LABELS = reviews(24)


class Table:
    """What a `datasets.Dataset` has of its own: names of columns, and a way to a DataFrame; rows are dicts."""

    def __init__(self, **columns):
        self._columns = columns

    @property
    def column_names(self):
        return list(self._columns)

    def to_pandas(self):
        return pd.DataFrame(self._columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __iter__(self):
        return iter(self.to_pandas().to_dict("records"))


def datasets_own(**columns):
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


def arrows(**columns):
    return pytest.importorskip("pyarrow").table(columns)


@pytest.mark.parametrize("table", [Table, datasets_own, arrows])
def test_a_table_with_names_is_taken_wherever_a_frame_is(table):
    data = table(review=TEXTS, mood=LABELS)
    model = tiny().fit(data, text="review", label="mood", unlabelled=table(review=TEXTS[:4]))
    frame = tiny().fit(pd.DataFrame({"review": TEXTS, "mood": LABELS}), text="review", label="mood",
                       unlabelled=TEXTS[:4])
    np.testing.assert_array_equal(model.predict_proba(data), frame.predict_proba(TEXTS))
    assert model.evaluate(data)["n"] == 24 and model.score(data, LABELS) == model.evaluate(data)["accuracy"]
    assert model.feature_names_in_.tolist() == ["review"]


def test_weights_and_a_language_model_take_one_too(tmp_path):
    data = Table(text=TEXTS, label=LABELS)
    lm = tiny(lm_epochs=None).fit_language_model(data, tmp_path / "lm")
    model = tiny(lm=lm, lm_epochs=None).fit(data, sample_weight=np.ones(24))
    assert model.predict(data).shape == (24,)


def test_several_tables_in_one_are_refused():
    class Tables(dict):
        column_names = {"train": ["text"]}

    with pytest.raises(ValueError, match=r"expected one table, found train, test in one.*data\['train'\]"):
        tiny().fit(Tables(train=Table(text=TEXTS), test=Table(text=TEXTS)), text="text")


def test_what_is_no_table_stays_as_it_is():
    for given in (TEXTS, np.array(TEXTS), pd.Series(TEXTS), {"a": 1}, None):
        assert as_frame(given) is given
