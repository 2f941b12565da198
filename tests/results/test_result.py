"""Reading a run folder: what a Result says, and what it refuses to read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import write_fake_run

from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.metrics import average, calibration_table, error_metrics
from ulmfit_fastai.results.predictions import read_predictions, write_predictions
from ulmfit_fastai.results.result import Result

PROBS = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])


@pytest.fixture(scope="module")
def run_of_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("runs") / "both")


def change_run(folder: Path, **changes: object) -> None:
    write_json_atomic(folder / "run.json", {**read_json(folder / "run.json"), **changes})


# -------------------------------------------------------------------------------------------------------------- metrics
def test_error_metrics_count_by_hand():
    metrics = error_metrics(PROBS, [0, 1, 0, 0])
    assert (metrics["error"], metrics["n"], metrics["wrong"]) == (25.0, 4, 1)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["loss"] == pytest.approx(-np.log([0.9, 0.6, 0.2, 0.7]).mean())


def test_error_metrics_take_names_of_classes():
    assert error_metrics(PROBS, ["neg", "pos", "neg", "neg"], classes=["neg", "pos"])["wrong"] == 1


def test_a_class_that_never_occurs_does_not_lower_macro_f1():
    probs = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert error_metrics(probs, [0, 1])["macro_f1"] == 1.0


@pytest.mark.parametrize(("probs", "labels", "said"), [
    (np.array([[2.0, -1.0], [0.3, 5.0]]), [0, 1], "logits"),
    (np.array([[np.nan, 0.5]]), [0], "diverged"),
    (PROBS, [0, 1], "4 predictions for 2 labels"),
    (PROBS, [0, 1, 2, 0], "Class numbers"),
    (PROBS, [0, 1, -1, 0], "no label"),
    (PROBS[:, :1], [0, 0, 0, 0], "shape"),
    (PROBS[:0], [], "empty"),
])
def test_error_metrics_refuse_what_they_cannot_count(probs, labels, said):
    with pytest.raises(ValueError, match=said):
        error_metrics(probs, labels)


def test_average_is_the_mean_and_refuses_other_shapes():
    assert np.allclose(average({"forward": PROBS, "backward": PROBS[:, ::-1]}), 0.5)
    with pytest.raises(ValueError, match="different sets"):
        average({"forward": PROBS, "backward": PROBS[:2]})


def test_calibration_of_a_perfectly_calibrated_classifier_has_no_error():
    probs = np.tile([0.8, 0.2], (1000, 1))
    labels = np.array([0] * 800 + [1] * 200)
    table, error = calibration_table(probs, labels)
    assert error == pytest.approx(0, abs=1e-12)
    assert table[["n", "confidence", "accuracy", "wrong"]].to_numpy().tolist() == [[1000, 0.8, 0.8, 200]]


def test_calibration_error_is_the_distance_of_confidence_from_accuracy():
    _, error = calibration_table(np.tile([0.9, 0.1], (10, 1)), np.array([0] * 5 + [1] * 5))
    assert error == pytest.approx(0.4)


# ---------------------------------------------------------------------------------------------------------- predictions
def test_predictions_come_back_as_they_were_written(tmp_path):
    classes = ["NA", "null", 'with "quotes", a comma']  # names that pandas would take for missing values
    rng = np.random.default_rng(0)
    probs = {d: rng.dirichlet(np.ones(3), 20) for d in ("forward", "backward")}
    labels = rng.integers(0, 3, 20)
    ids = [f"00{i}" for i in range(20)]
    path = write_predictions(tmp_path / "predictions.csv", ids, labels, classes, probs)
    frame, found, by_direction = read_predictions(path)
    assert found == classes and frame["id"].tolist() == ids
    assert frame["label"].tolist() == [classes[i] for i in labels]
    assert frame["predicted"].tolist() == [classes[i] for i in average(probs).argmax(axis=1)]
    assert list(by_direction) == ["forward", "backward"]
    assert np.allclose(by_direction["backward"], probs["backward"], atol=1e-7)
    assert np.allclose(frame["prob_null"], average(probs)[:, 1], atol=1e-7)


def test_predictions_of_unlabelled_texts_have_an_empty_label(tmp_path):
    path = write_predictions(tmp_path / "p.csv", ["a", "b"], [-1, 1], ["neg", "pos"], {"forward": PROBS[:2]})
    assert read_predictions(path)[0]["label"].tolist() == ["", "pos"]


def test_predictions_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 ids, 4 labels, 4 predictions"):
        write_predictions(tmp_path / "p.csv", ["a", "b", "c"], [0, 1, 1, 0], ["neg", "pos"], {"forward": PROBS})
    with pytest.raises(ValueError, match="not among the classes"):
        write_predictions(tmp_path / "p.csv", list("abcd"), ["neg", "pos", "odd", "neg"], ["neg", "pos"],
                          {"forward": PROBS})
    assert not (tmp_path / "p.csv").exists()


# --------------------------------------------------------------------------------------------------------------- Result
def test_a_result_with_both_directions_has_the_averaged_error(run_of_both):
    result = Result.load(run_of_both)
    metrics = read_json(run_of_both / "run.json")["metrics"]
    assert list(result.errors) == ["forward", "backward", "averaged"]
    assert result.error == metrics["averaged"]["error"] and result.headline == "averaged"
    assert result.n_test == 400 and result.directions == ("forward", "backward")
    low, high = result.interval
    assert low < result.error < high
    assert result.macro_f1() == pytest.approx(metrics["averaged"]["macro_f1"])


def test_the_error_can_be_counted_again_from_the_predictions(run_of_both):
    result = Result.load(run_of_both)
    confusion = result.confusion()
    assert confusion.to_numpy().sum() == 400
    assert 100 * (1 - np.trace(confusion.to_numpy()) / 400) == pytest.approx(result.error)
    for direction in ("forward", "backward"):
        counts = result.confusion(direction).to_numpy()
        assert 100 * (1 - np.trace(counts) / 400) == pytest.approx(result.errors[direction])


def test_mistakes_are_wrong_and_the_surest_comes_first(run_of_both):
    mistakes = Result.load(run_of_both).mistakes()
    assert len(mistakes) == read_json(run_of_both / "run.json")["metrics"]["averaged"]["wrong"]
    assert (mistakes["label"] != mistakes["predicted"]).all()
    assert mistakes["confidence"].is_monotonic_decreasing
    first = Result.load(run_of_both).predictions.set_index("id").loc[mistakes["id"].iloc[0]]
    assert first["label"] == mistakes["label"].iloc[0] and first["predicted"] == mistakes["predicted"].iloc[0]


def test_a_single_direction_is_the_result_itself(tmp_path):
    result = Result.load(write_fake_run(tmp_path / "r", directions=("backward",)))
    assert list(result.errors) == ["backward"]
    assert result.error == result.errors["backward"]


def test_the_table_holds_this_run_the_paper_others_and_the_baseline(run_of_both):
    result = Result.load(run_of_both)
    table = result.table()
    assert set(table["kind"]) == {"this run", "baseline", "paper", "elsewhere"}
    paper_rows = table[table["kind"] == "paper"]["error"].tolist()
    assert paper_rows == [4.6, 5.3]
    assert table[table["kind"] == "baseline"]["error"].tolist() == [11.25]
    ours = table.iloc[0]
    assert ours["error"] == result.error and ours["low"] < ours["error"] < ours["high"] and ours["n"] == 400


def test_synthetic_data_is_said_aloud_and_not_put_beside_the_paper(tmp_path):
    result = Result.load(write_fake_run(tmp_path / "r", synthetic=True, task="imdb"))
    assert "Synthetic data" in repr(result) and "Synthetic data" in result._repr_html_()
    assert set(result.table()["kind"]) == {"this run", "baseline"}
    assert result.verdict.status == "no claim"


def test_the_tutorial_protocol_is_said_aloud(tmp_path):
    result = Result.load(write_fake_run(tmp_path / "r", protocol="tutorial"))
    assert "Protocol 'tutorial'" in repr(result) and "Protocol &#x27;tutorial&#x27;" in result._repr_html_()


def test_text_and_html_say_the_error_its_interval_and_the_verdict(run_of_both):
    result = Result.load(run_of_both)
    low, high = result.interval
    for shown in (repr(result), re.sub("<[^>]+>", "", result._repr_html_())):
        assert f"{result.error:.2f}" in shown and f"{low:.2f} to {high:.2f}" in shown
        assert result.verdict.status in shown and "4.60" in shown


def test_html_of_a_result_escapes_what_users_named(tmp_path):
    result = Result.load(write_fake_run(tmp_path / "r", task="<script>alert(1)</script>", warnings=("<b>bold</b>",)))
    assert "<script>" not in result._repr_html_() and "<b>bold" not in result._repr_html_()


def test_the_recipe_comes_back_equal(tmp_path):
    recipe = preset("fastai").replace(seed=7)
    result = Result.load(write_fake_run(tmp_path / "r", recipe=recipe, directions=("forward",)))
    assert result.recipe == recipe.replace(directions=("forward",))


def test_a_validation_run_reports_its_validation_error_and_no_claim(tmp_path):
    recipe = preset("fastai").replace(evaluate="validation")
    folder = write_fake_run(tmp_path / "r", recipe=recipe, directions=("forward",))
    metrics = read_json(folder / "run.json")["metrics"]
    result = Result.load(folder)
    assert result.error == metrics["validation"]["forward"]["error"] != metrics["forward"]["error"]
    assert "validation error" in repr(result) and result.verdict.status == "no claim"


# ------------------------------------------------------------------------------------------ folders that aren't results
@pytest.mark.parametrize("status", ["stopped", "running"])
def test_an_unfinished_run_is_read_as_far_as_it_got(tmp_path, status):
    result = Result.load(write_fake_run(tmp_path / "r", status=status))
    assert result.status == status and result.error is None and result.interval is None
    assert len(result.history) > 0 and len(result.rates) > 0
    assert "not finished" in repr(result) and result.verdict.status == "no claim"
    with pytest.raises(ValueError, match="no predictions yet"):
        result.confusion()


def test_a_run_killed_before_its_first_epoch_is_read(tmp_path):
    folder = write_fake_run(tmp_path / "r", status="running", curves=False)
    change_run(folder, stages=[])
    result = Result.load(folder)
    assert result.history.empty and result.rates.empty and "not finished" in repr(result)
    with pytest.raises(ValueError, match="nothing to plot yet"):
        result.plot()


def test_what_is_no_run_folder_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        Result.load(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"no run\.json. Found: notes\.txt"):
        Result.load(tmp_path)


def test_half_a_run_json_is_refused(run_of_both, tmp_path):
    folder = shutil.copytree(run_of_both, tmp_path / "r")
    whole = (folder / "run.json").read_text()
    (folder / "run.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half written"):
        Result.load(folder)


@pytest.mark.parametrize(("change", "said"), [({"schema": 2}, "schema 2"), ({"status": "odd"}, "found 'odd'")])
def test_another_schema_or_status_is_refused(run_of_both, tmp_path, change, said):
    folder = shutil.copytree(run_of_both, tmp_path / "r")
    change_run(folder, **change)
    with pytest.raises(ValueError, match=said):
        Result.load(folder)


def test_a_finished_run_without_predictions_is_refused(run_of_both, tmp_path):
    folder = shutil.copytree(run_of_both, tmp_path / "r")
    (folder / "predictions.csv").unlink()
    with pytest.raises(ValueError, match=r"predictions\.csv is missing"):
        Result.load(folder)


def test_half_a_predictions_file_is_refused(run_of_both, tmp_path):
    folder = shutil.copytree(run_of_both, tmp_path / "r")
    lines = (folder / "predictions.csv").read_text().splitlines(keepends=True)
    (folder / "predictions.csv").write_text("".join(lines[:200]))
    with pytest.raises(ValueError, match="199 rows"):
        Result.load(folder)
    (folder / "predictions.csv").write_text("".join(lines[:200]) + lines[200][:20])  # cut within a line
    with pytest.raises(ValueError, match="damaged"):
        Result.load(folder)


def test_predictions_of_another_run_are_refused(run_of_both, tmp_path):
    folder = shutil.copytree(run_of_both, tmp_path / "r")
    frame = pd.read_csv(folder / "predictions.csv")
    frame.loc[frame["label"] == frame["predicted"], "predicted"] = "pos"
    frame.to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(ValueError, match="not of one run"):
        Result.load(folder)


# -------------------------------------------------------------------------------------------------------------- figures
def test_plot_is_a_figure_that_notebooks_can_show_without_pyplot(run_of_both):
    figure = Result.load(run_of_both).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert {"2 · Language model fine-tuning", "3 · Classifier", "Confusion"} <= set(titles)


def test_plot_draws_each_group_from_the_step_where_it_is_unfrozen(run_of_both):
    result = Result.load(run_of_both)
    rates = result.rates[(result.rates["phase"] == "classifier") & (result.rates["direction"] == "forward")]
    axes = next(a for a in result.plot().axes if a.get_title(loc="left") == "3 · Classifier")
    curves = [line for line in axes.lines if len(line.get_xdata()) > 10]
    assert len(curves) == 5
    for group, line in enumerate(curves):
        drawn = np.asarray(line.get_xdata(), float)[np.isfinite(np.asarray(line.get_ydata(), float))]
        opened = rates[(rates["group"] == group) & rates["trainable"] & (rates["lr"] > 0)]["step"]
        assert drawn.min() == opened.min()
