"""Both directions at once, in two processes: the numbers of one after the other, whatever is killed in between."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback

from ulmfit_fastai import _progress
from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai._files import read_json
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.folder import FolderInUse, RunFolder
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import side_by_side
from ulmfit_fastai.training.estimate import Plan
from ulmfit_fastai.training.prepare import prepare
from ulmfit_fastai.training.runs import run
from ulmfit_fastai.training.session import Conditions

RECIPE = preset("tiny").replace(**{"directions": ("forward", "backward"), "precision": "fp32", "weights": "pretrain",
                                   "pretrain.bs": 4, "lm.stages.-1.epochs": 2})
CORPUS = synthetic_reviews(n_train=2, n_test=2, n_unsup=30, seed=2).df["text"].tolist()
REVIEWS = synthetic_reviews(n_train=90, n_test=30, n_unsup=40, seed=1)
CODE = """
import sys; sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
from test_side_by_side import CORPUS, RECIPE, REVIEWS, run
run(RECIPE, REVIEWS, {out!r}, corpus=CORPUS, device="cpu", progress=False, parallel=True, checkpoint_every=0.2)
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory, one_thread) -> Path:
    return run(RECIPE, REVIEWS, tmp_path_factory.mktemp("a") / "run", corpus=CORPUS, device="cpu", progress=False,
               parallel=False)


def at_once(out: Path, **more) -> Path:
    how = {"parallel": True, "checkpoint_every": 0.2, **more}
    return run(RECIPE, REVIEWS, out, corpus=CORPUS, device="cpu", progress=False, **how)


def assert_the_same(out: Path, expected: Path) -> None:
    names = sorted(path.name for path in expected.iterdir() if path.name not in ("run.json", "history.csv"))
    assert sorted(path.name for path in out.iterdir() if path.name not in ("run.json", "history.csv")) == names
    state = [str(path.relative_to(expected)) for path in (expected / "state").glob("*.np[yz]")]
    assert len(state) == 10 and "state/recorder_lm_backward.npz" in state
    for name in [*names, *state]:
        if (expected / name).is_file():
            assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    history, wanted = (pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (out, expected))
    pd.testing.assert_frame_equal(history, wanted)
    one, other = read_json(out / "run.json"), read_json(expected / "run.json")
    for name in ("metrics", "status", "data", "recipe_hash"):
        assert one[name] == other[name], name
    assert {**one["digests"], "history.csv": ""} == {**other["digests"], "history.csv": ""}
    assert set(one["weights"]) == {"forward", "backward"} and one["weights"] == other["weights"]
    assert sorted(one["phases_done"]) == sorted(other["phases_done"])
    assert [(s["direction"], s["phase"], s["epochs_done"], s["status"]) for s in one["stages"]] == [
        (s["direction"], s["phase"], s["epochs_done"], s["status"]) for s in other["stages"]]
    assert set(one["seconds"]) == set(other["seconds"])
    assert not (out / "state" / "backward").exists()


def test_both_at_once_have_the_numbers_of_one_after_the_other(one_after_the_other, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ulmfit_fastai")
    assert_the_same(at_once(tmp_path / "run"), one_after_the_other)
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("backward classifier") for line in said)  # the other process is heard here
    assert any(line.startswith("forward classifier") for line in said)


def started(out: Path) -> subprocess.Popen:
    code = CODE.format(tests=str(Path(__file__).parent), out=str(out))
    root = str(Path(__file__).parents[2])
    settings = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], env=settings)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [True, False])
def test_a_killed_run_goes_on_to_the_same_numbers_in_either_way(parallel, one_after_the_other, tmp_path):
    process = started(tmp_path / "run")
    wait_for(tmp_path / "run" / "state" / "backward" / "state" / "state.pt", process)
    process.kill()
    process.wait()
    assert read_json(tmp_path / "run" / "run.json")["status"] == "running"
    assert_the_same(at_once(tmp_path / "run", parallel=parallel), one_after_the_other)


@pytest.mark.slow
def test_the_other_process_killed_its_work_goes_on_here(one_after_the_other, tmp_path, monkeypatch, caplog):
    made = side_by_side.Other.__init__

    def make(self, work, header, direction, threads):
        made(self, work, header, direction, threads)
        state = side_by_side.part_of(work.folder, direction).state_file

        def kill_once_it_trains() -> None:
            wait_for(state, self.process)
            self.process.kill()

        threading.Thread(target=kill_once_it_trains, daemon=True).start()

    monkeypatch.setattr(side_by_side.Other, "__init__", make)
    assert_the_same(at_once(tmp_path / "run"), one_after_the_other)
    assert "the process that trained backward ended (exit code -9); this one goes on with it" in caplog.text


@pytest.mark.slow
def test_sigterm_stops_both_in_good_order(one_after_the_other, tmp_path):
    process = started(tmp_path / "run")
    wait_for(tmp_path / "run" / "state" / "backward" / "state" / "state.pt", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert read_json(tmp_path / "run" / "run.json")["status"] == "stopped"
    assert not (tmp_path / "run" / "state" / "backward" / "state" / "lock").exists() or at_once(tmp_path / "run")
    assert_the_same(at_once(tmp_path / "run"), one_after_the_other)


def test_an_error_of_the_other_process_is_this_ones_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(side_by_side, "START", side_by_side.START.replace(
        "serve()", "from ulmfit_fastai.training import phases; "
                   "phases.Run.fine_tune = lambda *a: 1 / 0; serve()"))
    out = at_once(tmp_path / "run")  # the fault is the other process's alone
    assert "ended (ZeroDivisionError: division by zero)" in caplog.text
    assert read_json(out / "run.json")["status"] == "finished"


def test_a_direction_moves_between_folders_once_however_often_it_is_cut_short(one_after_the_other, tmp_path):
    import shutil

    whole = Path(shutil.copytree(one_after_the_other, tmp_path / "run"))
    (whole / "state" / "backward" / "state").mkdir(parents=True)
    source, part = RunFolder(whole).read(), RunFolder(whole / "state" / "backward")
    part.run = {**read_json(whole / "run.json"), "stages": [], "phases_done": [], "digests": {}, "weights": {}}
    side_by_side.hand_over("backward", source, part)
    assert not list(whole.glob("*_backward.safetensors")) and len(list(part.path.glob("*_backward.safetensors"))) == 3
    os.replace(part.path / "lm_backward.safetensors", whole / "lm_backward.safetensors")  # killed at this moment
    for _ in range(2):
        side_by_side.hand_over("backward", RunFolder(part.path).read(), source)
    source.refuse_damaged()
    shutil.rmtree(part.path)
    source.save_tables()
    assert_the_same(whole, one_after_the_other)


@pytest.mark.parametrize(("asked", "threads", "tokens", "device", "expected"), [
    (None, 2, 10**9, "cpu", True), (None, 1, 10**9, "cpu", False), (None, 2, 1000, "cpu", False),
    (None, 2, 10**9, "meta", False), (True, 1, 1000, "cpu", True), (False, 2, 10**9, "cpu", False)])
def test_two_processes_are_taken_where_they_are_faster(asked, threads, tokens, device, expected, monkeypatch):
    monkeypatch.setattr(side_by_side, "_tokens", lambda recipe, data: tokens)
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    conditions = Conditions(torch.device(device), parallel=asked)
    assert side_by_side.is_worth_it(RECIPE, None, conditions) == expected


@pytest.mark.parametrize(("directions", "device"), [(("forward",), "cpu"), (("forward", "backward"), "meta")])
def test_both_at_once_are_had_or_refused(directions, device):
    recipe = RECIPE.replace(directions=directions)
    assert not side_by_side.can(recipe, Conditions(torch.device(device)))
    with pytest.raises(UlmfitError, match="expected two directions and a CPU, found forward"):
        side_by_side.refuse_one_at_a_time(recipe, Conditions(torch.device(device), parallel=True))
    side_by_side.refuse_one_at_a_time(recipe, Conditions(torch.device(device)))


def test_work_is_counted_in_tokens_also_when_stage_1_is_done(tmp_path):
    data = prepare(RECIPE, REVIEWS, cache=tmp_path, progress=False)
    rows, epochs = data.splits, RECIPE.classifier.epochs
    expected = 2 * data.ids.lengths[rows.lm_train].sum() + epochs * data.ids.lengths[rows.train].sum()
    assert side_by_side._tokens(RECIPE, data) == expected


def test_callbacks_see_one_training(tmp_path):
    class Mine(Callback):
        only_watches = True

    assert Conditions.of(device="cpu", cbs=Mine()).parallel is False
    with pytest.raises(UlmfitError, match="callbacks see one training"):
        at_once(tmp_path / "run", cbs=Mine())


def test_a_plan_of_both_at_once_is_as_long_as_the_longer():
    stages = [{"direction": d, "phase": "lm", "stage": s, "seconds": n} for d, s, n in (
        ("forward", "a", 10.0), ("forward", "b", 20.0), ("backward", "a", 15.0), ("backward", "b", 25.0))]
    assert Plan(stages, 8.0).seconds == 78 and Plan(stages, 8.0, parallel=True).seconds == 44
    assert Plan(stages, 8.0, parallel=True).rest_of_run("forward", "lm", 0, 3.0) == 27
    assert Plan(stages, 8.0).rest_of_run("forward", "lm", 0, 3.0) == 71


def test_a_bar_says_what_the_other_process_is_at(monkeypatch):
    shown = []
    monkeypatch.setattr(_progress, "reporter", lambda *said: shown.append(said))
    monkeypatch.setattr(_progress, "SCREEN_EVERY", 0.0)
    monkeypatch.setattr(_progress, "beside", "backward lm: 40 %")
    bar = _progress.Bar("forward lm", 10)
    bar.show(5, "half")
    assert shown[0][:2] == ("forward lm", 0.5) and shown[0][2].endswith(" | backward lm: 40 %")


def test_a_part_in_other_hands_is_waited_for_and_then_refused(tmp_path, monkeypatch):
    def busy(self, header):
        raise FolderInUse(f"{self.path}: another process is running in this folder")

    monkeypatch.setattr(RunFolder, "open", busy)
    started_at = time.monotonic()
    with pytest.raises(FolderInUse, match="another process"):
        side_by_side.open_patiently(RunFolder(tmp_path), {}, seconds=1.0)
    assert time.monotonic() - started_at >= 1.0
