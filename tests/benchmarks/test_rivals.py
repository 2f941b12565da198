"""The rivals train on the labels of a low-shot run, and are written down one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import rivals
from ulmfit_fastai.texts.splits import split_validation
from ulmfit_fastai.texts.synthetic import synthetic_reviews


@pytest.fixture
def reviews():
    return synthetic_reviews(n_train=200, n_test=40, n_unsup=10, seed=2)


def test_each_method_has_the_same_rows_and_the_command_goes_on(reviews, tmp_path, monkeypatch):
    seen = []

    def guess(texts, labels, folder, seed):
        (folder / "model").write_bytes(b"x" * 2_000_000)
        seen.append((texts, list(labels), seed))
        return (lambda unseen: np.full(len(unseen), labels[0], dtype=object)), rivals.size_of(folder)

    monkeypatch.setattr(rivals, "RIVALS", {"guess": ((), guess)})
    names = rivals.methods(["guess", "tf-idf"], with_ours=False)
    found = rivals.measure(reviews, tmp_path, numbers=[20], seeds=2, names=names)
    expected = [split_validation(reviews, seed=seed, valid_seed=0, n_labels=20).train for seed in (0, 1)]
    texts = reviews.df["text"].to_numpy()
    assert [one[0] for one in seen] == [texts[rows].tolist() for rows in expected]
    assert [one["seed"] for one in found["records"]] == [0, 0, 1, 1] and all(one["n"] == 40 for one in found["records"])
    truth = reviews.df["label"].to_numpy()[reviews.rows("test")]
    guessed = next(one for one in found["records"] if one["name"] == "guess")
    assert guessed["error"] == pytest.approx(100 * np.mean(truth != seen[0][1][0])) and guessed["megabytes"] == 2.0
    kept = json.loads((tmp_path / f"rivals-{reviews.name}.json").read_text())
    assert rivals.measure(reviews, tmp_path, numbers=[20], seeds=2, names=names)["records"] == kept["records"]
    assert len(seen) == 2  # and not trained again
    shown = rivals.table(found)
    assert "| guess |" in shown and "20 labels" in shown and shown.rstrip().endswith("|")
    with pytest.raises(ValueError, match="other texts"):
        rivals.measure(synthetic_reviews(n_train=50, n_test=9, n_unsup=2, seed=9), tmp_path, numbers=[20], seeds=1,
                       names=names)


def test_a_rival_that_is_not_installed_is_left_out_and_said(monkeypatch, caplog):
    monkeypatch.setattr(rivals, "RIVALS", {"other": (("no_such_module",), None), "here": (("json",), None)})
    assert rivals.methods(None, with_ours=True) == [*rivals.BAGS, "here", rivals.OURS]
    assert "other is left out: no_such_module isn't installed" in caplog.text
