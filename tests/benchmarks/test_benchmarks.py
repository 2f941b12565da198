"""The benchmark at tiny size: it runs whole, goes on where it was, and refuses sides that give different numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import bag_of_words, classifier, lm, measure, report, tokens, unfreezing  # noqa: E402
from benchmarks.material import QUICK, Setup  # noqa: E402
from ulmfit_fastai.batches.classifier import ClassifierLoader
from ulmfit_fastai.batches.documents import TokenDataset
from ulmfit_fastai.experiments import baselines
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.training.baseline import tfidf_baseline

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def same_weights_each_time():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return Setup(QUICK, tmp_path_factory.mktemp("work"))


# --- how it is measured -------------------------------------------------------------------------------------------
def test_sides_take_turns_and_the_first_changes():
    calls: list[str] = []
    times = measure.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, device=CPU)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # a warm round first
    assert [len(values) for values in times.values()] == [3, 3]


def test_a_ratio_is_the_median_over_pairs_and_says_whether_the_target_is_reached():
    made = measure.row("x", {"stock": [2.0, 9.0, 4.0], "ours": [1.0, 3.0, 4.0]}, target={"ours": 2.0}, work=10)
    assert made["ratios"]["ours"] == {"median": 2.0, "low": 1.0, "high": 3.0, "repeats": 3, "target": 2.0,
                                      "reached": True}
    assert made["rate"]["ours"] == pytest.approx(10 / 3)
    missed = measure.row("x", {"stock": [1.0], "ours": [1.0]}, target={"ours": 2.0})
    assert not missed["ratios"]["ours"]["reached"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak of a process")
def test_the_peak_of_memory_is_that_of_the_measured_part():
    np.ones(40_000_000, np.uint8).sum()  # 40 MB that are gone before
    measure.forget_peak()
    before = measure.memory_now()
    np.ones(20_000_000, np.uint8).sum()
    assert 15 < measure.peak_memory() - before < 35


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells the memory of other processes")
def test_the_memory_of_child_processes_counts_too():
    code = "x = bytearray(60_000_000); import sys, time; print(1, flush=True); sys.stdin.read()"
    with measure.TreePeak(0.02) as alone:
        time.sleep(0.1)
    with measure.TreePeak(0.02) as tree:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.1)
        child.communicate()
    assert tree.peak - alone.peak > 50


# --- the comparisons refuse what differs --------------------------------------------------------------------------
def test_tokens_that_differ_in_one_place_are_refused(setup, tmp_path):
    texts = setup.some_texts(20)
    stock, ours = tokens.stock_numbers(texts), tokens.our_numbers(texts, tmp_path)
    assert "20 documents" in tokens.same_numbers(stock, ours) and "20 documents" in tokens.same_words(stock, ours)
    ids = ours.ids.copy()
    ids[100] = (ids[100] + 1) % len(ours.vocab)
    other_word = TokenIds(ids, ours.offsets, ours.vocab)
    other_vocab = TokenIds(ours.ids, ours.offsets, [*ours.vocab[:-1], "other"])
    for compare in (tokens.same_numbers, tokens.same_words):
        with pytest.raises(measure.NotTheSame, match="document"):
            compare(stock, other_word)
        with pytest.raises(measure.NotTheSame, match="vocabular"):
            compare(stock, other_vocab)


def test_batches_that_differ_in_one_word_or_one_batch_are_refused():
    batches = [(torch.arange(6).view(2, 3) + i, torch.arange(6).view(2, 3) + i + 1) for i in range(3)]
    assert "3 batches" in lm.same_batches(batches, batches)
    with pytest.raises(measure.NotTheSame, match="3 and 2 batches"):
        lm.same_batches(batches, batches[:2])
    other = [(x.clone(), y.clone()) for x, y in batches]
    other[1][1][1, 2] += 1
    with pytest.raises(measure.NotTheSame, match="batch 1"):
        lm.same_batches(batches, other)


def test_losses_over_a_hundred_thousandth_apart_are_refused(setup, monkeypatch):
    vocab, batches = lm.step_batches(setup, 300, count=2)
    model = setup.sizes.models[0][1]
    said = lm.same_losses(setup, vocab, model, batches, steps=6)
    assert "6 steps" in said["fp32"] and ("from stock's fp32" in said.get("bf16", "")) is ("bf16" in setup.formats)
    real = lm.same_weights

    def perturbed(stock, *ours):
        real(stock, *ours)
        with torch.no_grad():
            ours[0].model[1].decoder.bias[5] += 0.1

    monkeypatch.setattr(lm, "same_weights", perturbed)
    with pytest.raises(measure.NotTheSame, match="losses"):
        lm.same_losses(setup, vocab, model, batches, steps=6)


def test_gradients_of_another_model_are_refused(setup, monkeypatch):
    ids = classifier.documents(setup, 8)
    said = classifier.same_gradients(setup, ids)
    assert "identical" in said["ours"] or "within" in said["ours"]
    assert ("from stock's fp32" in said.get("ours bf16", "")) is ("bf16" in setup.formats)
    real = classifier.same_weights

    def perturbed(stock, *ours):
        real(stock, *ours)
        with torch.no_grad():
            ours[0].model[0].module.rnns[1].weight_hh_l0_raw.mul_(1.1)

    monkeypatch.setattr(classifier, "same_weights", perturbed)
    with pytest.raises(measure.NotTheSame):
        classifier.same_gradients(setup, ids)


def test_predictions_may_differ_only_where_stock_loses_the_end_of_a_text():
    torch.manual_seed(0)
    stock = torch.rand(40, 2)
    ours = stock.clone()
    ours[7] += 0.3
    truth = {7: ours[7]}
    assert "39 of 40" in classifier.same_predictions(stock, ours, alone=truth.__getitem__)
    with pytest.raises(measure.NotTheSame, match="text 7"):
        classifier.same_predictions(stock, ours, alone=stock.__getitem__)
    with pytest.raises(measure.NotTheSame, match="40 of 40"):
        classifier.same_predictions(stock, 1 - stock, alone=lambda i: 1 - stock[i])
    with pytest.raises(measure.NotTheSame):
        classifier.close_enough(stock[0], stock[0] + 0.01)


# --- the whole command --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every stage at tiny size but those that start processes for each number."""
    folder = tmp_path_factory.mktemp("benchmark")
    words = ["--quick", "--out", str(folder / "out"), "--work", str(folder / "work")]
    for stage in ("second", "batches", "lm", "classifier", "evaluation", "predict"):
        words += ["--only", stage]
    assert command.main(words) == 0
    return folder, words


def test_the_command_leaves_numbers_a_table_and_a_figure(finished):
    folder, _ = finished
    found = json.loads((folder / "out" / "benchmark.json").read_text())
    assert found["quick"] and found["data"] == "synthetic" and found["versions"]["fastai"] and found["commit"]
    assert found["device"]["cores"] and all(part["load_before"] is not None for part in found["stages"].values())
    names = [row["name"] for row in report.rows(found)]
    assert {"language-model batches", "classifier step, frozen", "one prediction, small 16/24/2"} <= set(names)
    for row in report.rows(found):
        assert row["check"] or "limit_s" in row, row["name"]
        assert all(len(values) >= 1 for values in row["measured"].values())
    step = next(row for row in report.rows(found) if row["name"] == "LM step, paper 20/32/3, fp32")
    assert step["over_floor"] > 0 and step["profile"]["ours"][0]["share"] > 0
    for name in ("classifier step, frozen", "classifier step, all open", "evaluation of 16 reviews, paper 20/32/3"):
        shares = next(row for row in report.rows(found) if row["name"] == name)["share_of_peak"]
        assert {"stock", "ours"} <= set(shares) and all(0 < share < 1.2 for share in shares.values())
    text = (folder / "out" / "benchmark.md").read_text()
    assert "| evaluation of 16 reviews, paper 20/32/3, int8 |" in text and "made-up reviews" in text
    assert (folder / "out" / "benchmark.svg").stat().st_size > 5000


def test_a_finished_stage_is_not_measured_again_unless_asked(finished, monkeypatch):
    _, words = finished
    monkeypatch.setitem(command.STAGES, "batches", lambda setup: pytest.fail("measured again"))
    assert command.main(words) == 0
    monkeypatch.setitem(command.STAGES, "batches", lambda setup: [])
    assert command.main([*words[:5], "--only", "batches", "--fresh"]) == 0


@pytest.mark.slow
def test_stages_that_start_processes_measure_memory_imports_and_growth(tmp_path):
    words = ["--quick", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--only", "memory", "--only",
             "imports", "--only", "scale"]
    assert command.main(words) == 0
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    for row in report.rows(found):
        assert row["median"]["stock"] > 0 and row["median"]["ours"] > 0
    growth = found["stages"]["scale"]["rows"]
    assert [row["n"] for row in growth if row["what"] == "documents"] == [20, 40]
    assert [row["n"] for row in growth if row["what"] == "tokens"] == [8, 16, 32]
    assert (tmp_path / "out" / "scale.png").stat().st_size > 5000


def test_the_texts_of_a_step_are_a_batch_of_the_loader_as_long_as_the_mean_text(setup):
    ids = setup.ids(60, 300)
    docs = classifier.usual_batch(ids, 4, 8)
    lengths = sorted((len(doc) for doc in docs), reverse=True)
    assert lengths == [len(doc) for doc in docs] and 4 <= len(docs) <= 5
    loader = ClassifierLoader(TokenDataset.from_ids(ids, np.arange(60)), bs=4, bptt=8, shuffle=True)
    away = [abs(ids.lengths[rows].max() - ids.lengths.mean()) for rows in loader.batches(0)]
    assert abs(lengths[0] - ids.lengths.mean()) == min(away)


def test_the_operations_of_a_classifier_step_are_those_of_its_products():
    model = Model(emb_sz=2, n_hid=3, n_layers=2)  # one LSTM of 2 -> 3, one of 3 -> 2
    forward = 8 * 3 * (2 + 3) + 8 * 2 * (3 + 2)
    above = 8 * 2 * (3 + 2) + 8 * 2 * 2  # its weights and its state
    below = 8 * 3 * (2 + 3) + 8 * 3 * 3
    found = [classifier.step_operations(model, opened) for opened in (1, 2, 3, 4)]
    assert found == [forward, forward + above, forward + above + 8 * 2 * 3 + below,
                     forward + above + 8 * 2 * 3 + below + 8 * 3 * 2]


# --- bags of words ------------------------------------------------------------------------------------------------
def test_bags_of_words_from_counts_are_the_baselines(tmp_path):
    reviews = synthetic_reviews(n_train=120, n_test=80, n_unsup=0)
    found = bag_of_words.measure(reviews, tmp_path, numbers=[40, 120], seeds=2)
    for one in found["records"]:
        train = bag_of_words.training_rows(reviews, one["labels"], one["seed"])
        assert len(train) == one["n_train"] == one["labels"] and one["n"] == 80
        baseline = {"TF-IDF(1,2) + logistic regression": tfidf_baseline,
                    "NB-SVM(1,2)": baselines.nbsvm_baseline}.get(one["name"])
        if baseline is not None:
            assert one["error"] == pytest.approx(baseline(reviews, train, reviews.rows("test"))["error"])
    assert len({(one["name"], one["labels"], one["seed"]) for one in found["records"]}) == 2 * 2 + 5
    again = bag_of_words.measure(reviews, tmp_path, numbers=[40, 120], seeds=2)
    assert again["records"] == found["records"]
    assert "40 labels" in bag_of_words.table(found)
    with pytest.raises(ValueError, match="other texts"):
        bag_of_words.measure(synthetic_reviews(n_train=100, n_test=80, n_unsup=0), tmp_path, numbers=[40], seeds=1)


# --- ways of unfreezing -------------------------------------------------------------------------------------------
def test_ways_of_unfreezing_share_a_language_model_and_differ_in_the_classifiers_stages(tmp_path, capsys):
    reviews = synthetic_reviews(n_train=80, n_test=4, n_unsup=20)
    base = replace(preset("tiny"), weights="none")
    found = unfreezing.measure(reviews, tmp_path, base=base, labels={20: 4}, progress=False, device="cpu")
    stages = {(one["unfreezing"], one["ratio"]): one["classifier"]["stages"] for one in found}
    assert [one["labels"] for one in found] == [20] * 4 and {one["n"] for one in found} == {8}
    assert [len(stages[way]) for way in unfreezing.WAYS] == [3, 3, 1, 1]
    for (way, ratio), each in stages.items():
        assert sum(stage["epochs"] for stage in each) == 4, way
        assert {stage["discriminative"] for stage in each} == {ratio}
    weights = [(folder / "lm_forward.safetensors").stat().st_ino for folder in tmp_path.iterdir()]
    assert len(weights) == 5 and len(set(weights)) == 1  # one file, linked
    capsys.readouterr()
    assert unfreezing.measure(reviews, tmp_path, base=base, labels={20: 4}, progress=False, device="cpu") == found
