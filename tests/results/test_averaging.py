"""A forward and a backward run made apart, averaged into one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_run import write_fake_run

from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.cli.app import main
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.averaging import average_runs
from ulmfit_fastai.results.metrics import error_metrics
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.results.verdict import check


@pytest.fixture
def apart(tmp_path):
    return [write_fake_run(tmp_path / d, directions=(d,), sharpness=2.0, noise_seed=i + 1)
            for i, d in enumerate(("forward", "backward"))]


def test_the_average_is_the_mean_of_both_runs_probabilities(apart, tmp_path):
    both = average_runs(apart, tmp_path / "both")
    forward, backward = (Result.load(run) for run in apart)
    mean = (forward.probabilities() + backward.probabilities()) / 2
    assert len({both.errors["averaged"], forward.error, backward.error}) == 3  # else it could be any of them
    assert np.array_equal(both.probs["backward"], backward.probabilities())
    assert np.allclose(both.probabilities(), mean, atol=1e-6)
    assert both.errors["averaged"] == error_metrics(mean, forward.labels)["error"]
    assert both.errors["forward"] == forward.error and both.errors["backward"] == backward.error
    assert both.error == both.errors["averaged"] and both.directions == ("forward", "backward")
    assert len(both.run["stages"]) == len(forward.run["stages"]) + len(backward.run["stages"])
    assert set(both.history["direction"]) == set(both.run["weights"]) == {"forward", "backward"}
    assert both.recipe.directions == ("forward", "backward") and both.run["recipe_hash"] == both.recipe.hash


def test_the_order_of_the_runs_makes_no_difference(apart, tmp_path):
    one, other = average_runs(apart, tmp_path / "a"), average_runs(apart[::-1], tmp_path / "b")
    assert np.array_equal(one.probabilities(), other.probabilities())
    assert one.run["metrics"] == other.run["metrics"] and one.run["averaged"]["of"] == other.run["averaged"]["of"]


def test_the_command_line_averages_writes_a_report_and_check_reads_it(apart, tmp_path, capsys):
    assert main(["average", *map(str, apart), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "report.html").exists() and "averaged" in capsys.readouterr().out
    main(["check", str(tmp_path / "both")])
    assert "both directions averaged" in capsys.readouterr().out


def test_what_is_not_one_experiment_is_refused(apart, tmp_path):
    forward, backward = apart
    with pytest.raises(ValueError, match="are both forward of seed 0; expected another direction or another seed"):
        average_runs([forward, forward], tmp_path / "both")
    with pytest.raises(ValueError, match="are both forward of seed 0"):
        average_runs([forward, write_fake_run(tmp_path / "whole")], tmp_path / "both")
    with pytest.raises(ValueError, match="expected two runs at least, found 1"):
        average_runs([forward], tmp_path / "both")
    with pytest.raises(ValueError, match="'stopped'"):
        average_runs([forward, write_fake_run(tmp_path / "half", directions=("backward",), status="stopped")],
                     tmp_path / "both")
    strangers = {"other-texts": {"fingerprint": "00"}, "other-rows": {"ids": [f"x/{i}" for i in range(400)]}}
    for name, changes in strangers.items():
        other = write_fake_run(tmp_path / name, directions=("backward",), sharpness=2.0, noise_seed=2, **changes)
        with pytest.raises(ValueError, match="different texts"):
            average_runs([forward, other], tmp_path / "both")
    run = read_json(backward / "run.json")
    run["recipe"]["classifier"]["bs"] = 7
    write_json_atomic(backward / "run.json", run)
    with pytest.raises(ValueError, match="classifier.bs"):
        average_runs(apart, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_different_starts_are_not_averaged(apart, tmp_path):
    def start(run, weights, corpus=None):
        record = read_json(run / "run.json")
        record["recipe"]["weights"], record["corpus"] = weights, corpus
        write_json_atomic(run / "run.json", record)

    start(apart[0], "none")
    with pytest.raises(ValueError, match="start from different weights"):
        average_runs(apart, tmp_path / "both")
    for run, corpus in zip(apart, ("wikitext-103", "wikitext-2")):
        start(run, "pretrain", {"name": corpus})
    with pytest.raises(ValueError, match="different corpora"):
        average_runs(apart, tmp_path / "both")
    for run in apart:
        start(run, f"full-{run.name}")  # stage 1 in a folder for each direction
    assert average_runs(apart, tmp_path / "both").errors


def test_what_each_direction_was_made_with_is_kept_and_paths_lead_where_they_did(apart, tmp_path):
    for run, device in zip(apart, ("cpu", "cuda")):
        record = read_json(run / "run.json")
        record.update(device={"type": device}, language_model_of={run.name: "../lm"}, phases_done=[f"{run.name}/lm"])
        write_json_atomic(run / "run.json", record)
    both = average_runs(apart, tmp_path / "deep" / "er" / "both")
    assert [one["device"]["type"] for one in both.run["averaged"]["of"]] == ["cpu", "cuda"]
    assert any("different device" in said for said in both.caveats) and "phases_done" not in both.run
    assert set(both.run["language_model_of"].values()) == {"../../../lm"}


def test_the_same_call_goes_on_after_a_kill_and_makes_the_same_again(apart, tmp_path):
    first = average_runs(apart, tmp_path / "both")
    (tmp_path / "both" / "run.json").unlink()  # as after a kill: it is written last
    again = average_runs(apart, tmp_path / "both")
    once_more = average_runs(apart, tmp_path / "both")
    assert first.errors == again.errors == once_more.errors


def test_a_folder_that_holds_something_is_left_alone(apart, tmp_path):
    with pytest.raises(ValueError, match="empty folder"):
        average_runs(apart, apart[0])
    assert json.loads((apart[0] / "run.json").read_text())["recipe"]["directions"] == ["forward"]


def seeded(path, seed, **changes):
    """A finished run of another seed."""
    run = write_fake_run(path, noise_seed=seed + 5, **changes)
    record = read_json(run / "run.json")
    record["recipe"].update(seed=seed, lm_seed=0)
    record["recipe_hash"], record["seeds"] = Recipe.from_dict(record["recipe"]).hash, [seed]
    record["language_model_of"] = dict.fromkeys(record["recipe"]["directions"], "../seed-0")
    record["language_model_phases"] = {d: ["lm"] for d in record["recipe"]["directions"]}
    write_json_atomic(run / "run.json", record)
    return run


def test_seeds_of_both_directions_are_averaged_and_it_is_said(tmp_path):
    runs = [seeded(tmp_path / f"seed-{seed}", seed, sharpness=1.0) for seed in (0, 1, 2)]
    every = average_runs(runs, tmp_path / "all")
    results = [Result.load(run) for run in runs]
    mean = np.mean([result.probabilities() for result in results], axis=0)
    assert np.allclose(every.probabilities(), mean, atol=1e-6) and every.directions == ("forward", "backward")
    assert every.error == error_metrics(mean, results[0].labels)["error"]
    assert [one["seed"] for one in every.run["averaged"]["of"]] == [0, 1, 2, 0, 1, 2]
    assert [one["error"] for one in every.run["averaged"]["of"][:3]] == [result.errors["forward"] for result in results]
    assert any("6 models averaged, several seeds" in said for said in every.caveats)
    assert not every.history.duplicated(["direction", "phase", "epoch"]).any() and every.run["seeds"] == [0, 1, 2]
    of_lm = [stage for stage in every.run["stages"] if stage["phase"] == "lm"]
    assert len(of_lm) == len([s for s in results[0].run["stages"] if s["phase"] == "lm"])  # counted once
    assert main(["report", str(tmp_path / "all")]) == 0
    assert "6 models were averaged" in check(every).text and check(every).status == "no claim"


def test_seeds_of_one_direction_are_one_model(tmp_path):
    runs = [seeded(tmp_path / f"seed-{seed}", seed, directions=("forward",)) for seed in (0, 1)]
    every = average_runs(runs, tmp_path / "all")
    assert every.directions == ("forward",) and "averaged" not in every.errors
    assert np.allclose(every.probabilities(), np.mean([Result.load(run).probabilities() for run in runs], axis=0),
                       atol=1e-6)


def test_an_average_is_no_model_of_another(apart, tmp_path):
    both = average_runs(apart, tmp_path / "both").folder
    with pytest.raises(ValueError, match="found an average of others"):
        average_runs([both, seeded(tmp_path / "seed-1", 1)], tmp_path / "all")
