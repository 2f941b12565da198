"""Error against hours: what counts as time, and what goes beyond the paper."""

from __future__ import annotations

import pytest
from fake_run import write_fake_run

from benchmarks import hours
from ulmfit_fastai import paper
from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.results.result import Result


def timed(folder, seconds, **recipe):
    run = read_json(folder / "run.json")
    done = {"phase": "lm", "stage": "all", "epochs": 1, "epochs_done": 1, "status": "finished", "metrics": {}}
    run["stages"] = [{"direction": direction, "seconds": taken, **done} for direction, taken in seconds.items()]
    run["seconds"] = {f"predict_{d}": 360.0 for d in seconds}
    run["recipe"].update(recipe)
    write_json_atomic(folder / "run.json", run)
    return folder


def test_the_longer_direction_counts_with_its_predictions(tmp_path):
    folder = timed(write_fake_run(tmp_path / "run"), {"forward": 3600.0, "backward": 6840.0})
    assert hours.hours_of(Result.load(folder)) == pytest.approx(2.0)


def test_adversarial_runs_are_drawn_apart_and_the_lines_are_the_papers(tmp_path):
    plain = timed(write_fake_run(tmp_path / "plain"), {"forward": 3600.0, "backward": 3600.0}, name="quick")
    beyond = timed(write_fake_run(tmp_path / "beyond", noise_seed=3), {"forward": 7200.0, "backward": 7200.0},
                   name="quick-adversarial", adversarial={"weight": 1.0})
    hours.main([str(beyond), str(plain), "--out", str(tmp_path)])
    found = read_json(tmp_path / "imdb-hours.json")
    assert [(one["name"], one["beyond"]) for one in found["points"]] == [("quick", False), ("quick-adversarial", True)]
    assert found["lines"]["the paper, both directions"] == paper.BOTH_DIRECTIONS.value
    assert found["lines"]["fastbook (fastai v2), both directions"] == pytest.approx(4.9)
    assert found["points"][0]["error"] == Result.load(plain).error
    assert (tmp_path / "imdb-hours.png").stat().st_size > 9_000


def test_another_task_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="IMDb's test set"):
        hours.main([str(write_fake_run(tmp_path / "run", task="trec6"))])
