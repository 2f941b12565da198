"""The report of one's own texts: where the model errs, for every kind of label, and several runs on one page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from fake_run import write_fake_run
from some_texts import reviews, tiny

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai._files import digests_of, read_json, write_json_atomic
from ulmfit_fastai.cli.app import main
from ulmfit_fastai.predict.explanation import Explanation, Word
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.report.report import report_html, write_report
from ulmfit_fastai.report.several_runs import write_comparison
from ulmfit_fastai.results.held_out import TRUTH, write_truth
from ulmfit_fastai.results.metrics import metrics_of
from ulmfit_fastai.results.ranking import ranking, thresholds_of_class
from ulmfit_fastai.results.recorder import record_file, save_record
from ulmfit_fastai.results.result import Result

ODD = ("$0-$10_$20^{", "<b>bold</b>")
N = 120


def outputs_and_truth(kind: str, n_classes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are mostly right, and what is right."""
    if kind == "regression":
        truth = rng.normal(3, 1, N)
        return (truth + rng.normal(0.2, 0.4, N))[:, None], truth
    if kind == "multi":
        truth = (rng.random((N, n_classes)) < 0.4).astype(np.float32)
        return 1 / (1 + np.exp(-(4 * truth - 2 + rng.normal(0, 1.5, truth.shape)))), truth
    truth = rng.integers(0, n_classes, N)
    odds = np.exp(2 * (np.arange(n_classes) == truth[:, None]) + rng.normal(0, 1, (N, n_classes)))
    return odds / odds.sum(axis=1, keepdims=True), truth


def own_run(folder: Path, kind: str = "single", classes: tuple[str, ...] = ODD, seed: int = 0, **options) -> Path:
    """The folder that a training on one's own texts leaves, without the training."""
    write_fake_run(folder, task="custom", directions=("forward",), recipe=preset("tiny"), curves=False,
                   classes=classes or ODD, n=N, **options)
    (folder / "predictions.csv").unlink()
    outputs, truth = outputs_and_truth(kind, len(classes), np.random.default_rng(seed))
    (folder / "state").mkdir()
    np.save(folder / "state" / "validation_forward.npy", outputs)
    write_truth(folder, [f"row {i}" for i in range(N)], truth)
    run = read_json(folder / "run.json")
    run["recipe"]["evaluate"] = "validation"
    run["data"] |= {"classes": [] if kind == "regression" else list(classes), "labels": {"kind": kind}}
    run["metrics"] = {"validation": {"forward": metrics_of(kind, outputs, truth)}}
    run["digests"] = digests_of(folder, (TRUTH, "state/validation_forward.npy"))
    if kind == "regression":
        run["baselines"] = [{"name": "TF-IDF(1,2) + ridge regression", "mae": 0.75, "n": N}]
    write_json_atomic(folder / "run.json", run)
    return folder


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S))


def by_hand(text: str, target: str | None) -> Explanation:
    return Explanation((Word("boring", 1.0, ("boring",)),), "single", str(target), str(target), {}, 0.0, 0.0)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_run(tmp_path_factory.mktemp("own") / "single")


def test_the_held_out_texts_are_analysed_as_imdbs_test_texts_are(single):
    result, page = Result.load(single), report_html(Result.load(single))
    words = words_of(page)
    for said in ("held-out error, forward", "Confusion", "How far to trust the probabilities",
                 "Most confident mistakes", "ROC", "Precision and recall", "Thresholds of", "MCC",
                 "Answering only when sure", "TF-IDF(1,2) + logistic regression, same labels"):
        assert said in words, said
    assert result.confusion().to_numpy().sum() == N and result.error == result.scores["forward"]["error"]
    first = result.mistakes(1).iloc[0]
    assert first["id"] in words


def test_there_is_nothing_of_the_paper_in_it(single):
    words = words_of(report_html(Result.load(single)))
    assert "No claim" not in words and "The paper has" not in words
    assert "no claim" not in repr(Result.load(single)) and "no claim" not in Result.load(single)._repr_html_()


def test_classes_of_any_name_are_drawn_and_written_as_they_are(single):
    page = report_html(Result.load(single), texts={f"row {i}": "<i>x</i>" for i in range(N)}, explain=by_hand)
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold&lt;/b&gt;" in page and "<i>x" not in page
    assert "$0-$10_$20^{" in page and "boring" in page


def test_auc_average_precision_and_mcc_are_scikit_learns():
    from sklearn.metrics import average_precision_score, matthews_corrcoef, precision_score, roc_auc_score

    outputs, truth = outputs_and_truth("single", 2, np.random.default_rng(1))
    found, scores = ranking(truth == 1, outputs[:, 1]), outputs[:, 1]
    assert found.auc == roc_auc_score(truth, scores)
    assert found.average_precision == average_precision_score(truth, scores)
    row = thresholds_of_class(truth == 1, scores, [0.7]).iloc[0]
    assert row["mcc"] == pytest.approx(matthews_corrcoef(truth, scores >= 0.7))
    assert row["precision"] == pytest.approx(precision_score(truth, scores >= 0.7))
    assert ranking(np.ones(5), np.ones(5)) is None, "nothing to tell apart"


def test_several_classes_a_text_have_their_scores_and_thresholds(tmp_path):
    folder = own_run(tmp_path / "m", "multi", ("a", *ODD))
    words = words_of(report_html(Result.load(folder), texts={f"row {i}": "x" for i in range(N)}))
    for said in ("Averaged precision", "By class", "best threshold", "One threshold for all classes", "micro F1",
                 "Most confident mistakes", "ROC"):
        assert said in words, said
    assert "No claim" not in words and "Confusion" not in words


def test_numbers_have_residuals_and_no_error_rate(tmp_path):
    folder = own_run(tmp_path / "n", "regression", ())
    result = Result.load(folder)
    words = words_of(report_html(result))
    for said in ("mean absolute error, forward", "95 % interval", "Residuals", "Predicted and label", "Farthest off",
                 "root mean squared error", "R²", f"{result.scores['forward']['mae']:.4g}", "0.75"):
        assert said in words, said
    assert result.error is None and result.errors == {} and "mean absolute error" in repr(result)
    assert result.verdict.status == "no claim" and "not finished" not in str(result.verdict)


def test_losses_are_drawn_by_step_with_the_perplexity_of_the_language_model(tmp_path):
    folder = own_run(tmp_path / "r")
    header = "direction,phase,stage,epoch,train_loss,valid_loss,accuracy,seconds,lr_last\n"
    rows = "forward,lm,all,0,4.1,4.0,,1,0.1\nforward,classifier,all,0,0.5,0.4,0.8,1,0.1\n"
    (folder / "history.csv").write_text(header + rows)
    for phase in ("lm", "classifier"):
        save_record(record_file(folder, phase, "forward"), {
            "losses": np.linspace(5, 4, 900), "lrs": [0.1] * 900, "moms": [0.9] * 900, "iters": [900],
            "values": [[4.1, 4.0, 54.6]], "names": ["epoch", "train_loss", "valid_loss", "x"], "smooth": 4.0})
    page = report_html(Result.load(folder))
    assert "Of every step" in words_of(page) and "perplexity 54.6" in page
    assert "Language model fine-tuning: perplexity" in words_of(page)


def test_a_folder_without_its_held_out_labels_is_reported_without_them(tmp_path):
    folder = own_run(tmp_path / "r")
    (folder / TRUTH).unlink()
    assert "Confusion" not in words_of(report_html(Result.load(folder)))


def test_damaged_or_foreign_held_out_predictions_are_refused(tmp_path):
    folder = own_run(tmp_path / "r")
    (folder / TRUTH).write_bytes(b"half")
    with pytest.raises(UlmfitError, match="validation_truth"):
        Result.load(folder)
    run = read_json(folder / "run.json")
    write_json_atomic(folder / "run.json", {**run, "digests": {}})
    with pytest.raises(UlmfitError, match="can't be read"):
        Result.load(folder)
    write_truth(folder, ["x"] * 3, np.zeros(3))
    with pytest.raises(UlmfitError, match="not of one run"):
        Result.load(folder)


def test_several_runs_stand_on_one_page(tmp_path, single, capsys):
    other = own_run(tmp_path / "other", seed=3)
    run = read_json(other / "run.json")
    run["recipe"]["classifier"]["bs"] = 7
    write_json_atomic(other / "run.json", run)
    assert main(["report", str(single), str(other), "--out", str(tmp_path / "two.html")]) == 0
    assert "two.html" in capsys.readouterr().out
    page = (tmp_path / "two.html").read_text("utf8")
    words = words_of(page)
    for folder in (single, other):
        low, high = Result.load(folder).interval
        assert folder.name in words and f"{low:.2f} to {high:.2f}" in words
    assert "classifier.bs" in words and "the whole run" in words and "<script" not in page


def test_runs_of_different_kinds_have_their_losses_apart_and_their_measures_named(tmp_path):
    folders = [own_run(tmp_path / name, kind) for name, kind in (("classes", "single"), ("numbers", "regression"))]
    for folder in folders:
        (folder / "history.csv").write_text(
            "direction,phase,stage,epoch,train_loss,valid_loss,accuracy,seconds,lr_last\n"
            "forward,classifier,all,1,0.9,0.8,,1,0.01\nforward,classifier,all,2,0.7,0.6,,1,0.01\n")
    numbers = folders[1]
    words = words_of(write_comparison(folders, tmp_path / "two.html").read_text("utf8"))
    assert f"{Result.load(numbers).scores['forward']['mae']:.4g} off (MAE)" in words
    assert "forward, one class a text" in words and "forward, numbers" in words


def test_one_run_twice_or_a_page_for_one_is_refused(single, tmp_path, capsys):
    with pytest.raises(UlmfitError, match="each once"):
        write_comparison([single, single], tmp_path / "x.html")
    assert main(["report", str(single), "--out", str(tmp_path / "x.html")]) == 2
    assert "several runs" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_a_fit_that_is_kept_has_its_report_beside_a_bag_of_words(tmp_path, kind):
    texts, labels = reviews(40)
    given = {"single": labels, "multi": [[w for w in ("film", "plot") if w in text] for text in texts],
             "regression": [len(text) + 0.5 for text in texts]}[kind]
    tiny(out=tmp_path / "m", epochs=1, validation_fraction=0.4).fit(texts, given)
    words = words_of((tmp_path / "m" / "report.html").read_text("utf8"))
    assert "Where it errs" in words and "TF-IDF(1,2)" in words and "No claim" not in words
    held = Result.load(tmp_path / "m").held_out
    assert held.kind == kind and set(held.ids) <= {str(i) for i in range(40)}
    np.testing.assert_array_equal(held.outputs, np.load(tmp_path / "m" / "state" / "validation_forward.npy"))
    run = read_json(tmp_path / "m" / "run.json")
    assert run["baselines"][0]["n"] == len(held.truth) and run["baselines"][0]["n_train"] == 40 - len(held.truth)
    before = (tmp_path / "m" / "report.html").stat().st_mtime_ns
    tiny(out=tmp_path / "m", epochs=1, validation_fraction=0.4).fit(texts, given)
    assert (tmp_path / "m" / "report.html").stat().st_mtime_ns == before, "the same fit again changes nothing"
    write_report(tmp_path / "m")
    assert not any(text in (tmp_path / "m" / "report.html").read_text("utf8") for text in texts), "to be passed on"
