"""The rivals train on the labels of a low-shot run, and are written down one by one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import other_subjects, rivals, rivals_figure
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
    names = rivals.methods(["guess", "tf-idf"])
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


def test_on_a_part_of_the_test_texts_all_have_the_same_and_ours_reads_no_other(reviews, tmp_path, monkeypatch):
    import ulmfit_fastai

    predicted, read = [], []

    class Constant:
        def __init__(self, **options):
            pass

        def fit(self, texts, labels, *, unlabelled):
            read.extend([*texts, *unlabelled])
            return self

        def predict(self, texts):
            predicted.append(texts)
            return np.full(len(texts), "pos", dtype=object)

        def save(self, folder):
            folder.mkdir()

    monkeypatch.setattr(ulmfit_fastai, "ULMFiT", Constant)
    names = rivals.methods(["tf-idf", "ulmfit"], own=("wiki-small",))
    found = rivals.measure(reviews, tmp_path, numbers=[20], seeds=2, names=names, test_texts=15)
    assert [one["n"] for one in found["records"]] == [15] * 4 and predicted[0] == predicted[1]
    texts = reviews.df["text"].to_numpy()
    test = set(texts[reviews.rows("test")])
    assert len(predicted[0]) == 15 and set(predicted[0]) < test and not set(read) & test
    assert set(read) == set(texts) - test
    assert rivals.table(found).startswith("| method, 15 test texts | 20 labels |")
    with pytest.raises(ValueError, match="figures on 15 test texts, not all"):
        rivals.measure(reviews, tmp_path, numbers=[20], seeds=2, names=names)


def test_a_rival_that_is_not_installed_is_left_out_and_said(monkeypatch, caplog):
    monkeypatch.setattr(rivals, "RIVALS", {"other": (("no_such_module",), None), "here": (("json",), None)})
    assert rivals.methods(None, own=("wiki-small",)) == [*rivals.BAGS, "here", "ULMFiT, wiki-small"]
    assert rivals.methods(["ulmfit"], own=("wiki-small",), both=True) == [
        "ULMFiT, wiki-small", "ULMFiT, wiki-small, both directions"]
    assert "other is left out: no_such_module isn't installed" in caplog.text


def test_sentences_are_drawn_from_reviews_that_take_a_side(tmp_path):
    told = "It was good. The room was clean and the staff were kind! Short one."
    frame = pd.DataFrame({"text": [told, told, told, told, told, "Too short. No."], "label": [1, 2, 3, 4, 5, 5],
                          "split": ["dev", "dev", "dev", "dev", "test", "test"]})
    frame.to_parquet(tmp_path / "yelp.parquet")
    found = other_subjects.other_subject("yelp-sentences", tmp_path)
    assert found.df["text"].tolist() == ["The room was clean and the staff were kind!"] * 4
    assert found.df["label"].tolist() == ["neg", "neg", "pos", "pos"]
    assert found.df["split"].tolist() == ["train", "train", "train", "test"]


@pytest.mark.parametrize("name, folder, counts, classes", [
    ("dbpedia", "dbpedia14_subset", {"train": 10_000, "test": 4_000}, 14),
    ("yelp", "yelp_reviews_10k", {"train": 5_000, "test": 5_000}, 5)])
def test_the_real_sets_have_their_rows(name, folder, counts, classes):
    if not (data := os.environ.get("ULMFIT_TEST_DATA")):
        pytest.skip("ULMFIT_TEST_DATA is not set")
    found = other_subjects.other_subject(name, Path(data) / folder)
    assert {split: n for split, n in found.counts.items() if n} == counts and len(found.classes) == classes
    test = set(found.df["text"].iloc[found.rows("test")])
    assert not test & set(found.df["text"].iloc[found.rows("train")])


def test_the_figure_and_the_table_hold_what_was_measured(tmp_path, capsys):
    def summary(name, labels, error, sd, seconds):
        return {"name": name, "labels": labels, "error": error, "sd": sd, "seeds": 3, "seconds": seconds,
                "megabytes": None}

    bag = next(iter(rivals.BAGS))
    for task, error in (("trec6", 31.26), ("ag", 20.0)):
        rows = [summary(bag, 200, error, 1.25, 0.4), summary(bag, 500, 1.0, None, 1.0)]
        rows += [summary("ULMFiT, english-small", 200, 12.0, 0.5, 150.0)] if task == "ag" else []
        (tmp_path / f"rivals-{task}.json").write_text(json.dumps({"summary": rows}))
    rivals_figure.main(["--folder", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[:4] == [
        "| | TREC-6 | AG |", "|---|---|---|", f"| {bag} | 31.3 (1.2), 0 s | 20.0 (1.2), 0 s |",
        "| ULMFiT, english-small |  | 12.0 (0.5), 150 s |"]
    first, second = rivals_figure.figure(rivals_figure.summaries(tmp_path, 200), 200).axes
    drawn = [[float(bars[0].get_xdata()[0]) for bars in axes.containers] for axes in (first, second)]
    assert drawn == [[31.26], [12.0, 20.0]]  # from below: ours last in the table, lowest in the figure
    assert (tmp_path / "rivals-200.png").stat().st_size > 5000 and (tmp_path / "rivals-200.svg").exists()
    assert not any("test texts" in title for title in rivals_figure.summaries(tmp_path, 200))
    kept = json.loads((tmp_path / "rivals-ag.json").read_text()) | {"test_texts": 2500}
    (tmp_path / "rivals-ag.json").write_text(json.dumps(kept))
    assert list(rivals_figure.summaries(tmp_path, 200)) == ["TREC-6", "AG, 2,500 test texts"]
    with pytest.raises(SystemExit, match="expected rivals-TASK.json with 100 labels"):
        rivals_figure.main(["--folder", str(tmp_path), "--labels", "100"])
