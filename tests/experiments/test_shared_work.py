"""Several processes at one table: each run is made once, all end with the whole, what one leaves is taken on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ulmfit_fastai.experiments import grid
from ulmfit_fastai.experiments.tables import ablate
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.folder import FolderInUse, RunFolder
from ulmfit_fastai.texts.synthetic import synthetic_reviews

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = ["from_scratch", "full", "last", "freez"]

PROGRAM = """
import json, sys
from dataclasses import replace
import torch
torch.set_num_threads(1)
from ulmfit_fastai.experiments.tables import ablate
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import work

made, original = [], work.PhaseFit
def counted(*args, name, **settings):
    made.append(name)
    return original(*args, name=name, **settings)
work.PhaseFit = counted
reviews = replace(synthetic_reviews(n_train=60, n_test=20, n_unsup=20, seed=3), name="imdb")
print("ready", flush=True)
input()
table = ablate("table7", reviews, base=preset("tiny").replace(**{"precision": "fp32", "lm.max_docs": 30}),
               rows=json.loads(sys.argv[1]), out=sys.argv[2], cache=sys.argv[3], progress=False)
print(json.dumps({"made": made, "errors": table.errors, "missing": table.missing}))
"""

HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    input()
"""


@pytest.fixture(scope="module")
def reviews():
    return replace(synthetic_reviews(n_train=60, n_test=20, n_unsup=20, seed=3), name="imdb")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    base = preset("tiny").replace(**{"precision": "fp32", "lm.max_docs": 30})
    return {"base": base, "cache": tmp_path_factory.mktemp("cache"), "progress": False, "rows": ROWS}


@pytest.fixture(scope="module")
def alone(reviews, options, tmp_path_factory):
    """The table as one process makes it."""
    return ablate("table7", reviews, out=tmp_path_factory.mktemp("alone"), **options)


@pytest.fixture
def copy(alone, tmp_path):
    return Path(shutil.copytree(alone.folder, tmp_path / "copy"))


class Holder:
    """Another process that works in a run folder, until it is told to leave."""

    def __init__(self, folder: Path) -> None:
        (folder / "state").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen([sys.executable, "-c", HOLDER, str((folder / "state" / "lock").resolve())],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stdout.readline() == "held\n"

    def leave(self) -> None:
        self.process.communicate("\n")


def test_two_processes_share_the_runs_of_a_table(alone, options, tmp_path):
    command = [sys.executable, "-c", PROGRAM, json.dumps(ROWS), str(tmp_path / "out"), str(options["cache"])]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    found = [json.loads(out) for out, _ in answers]
    for one in found:  # each has the whole, and the numbers of one process
        assert one["missing"] == {} and one["errors"] == {row: {str(seed): error for seed, error in errors.items()}
                                                          for row, errors in alone.errors.items()}
    assert Counter(found[0]["made"] + found[1]["made"]) == {"lm": 1, "classifier": 4}
    assert all("classifier" in one["made"] for one in found)  # none has only waited


def test_a_run_in_other_hands_is_waited_for_within_the_time(copy, reviews, options, caplog):
    shutil.rmtree(copy / "table7.last-seed0")
    holder, begun = Holder(copy / "table7.last-seed0"), time.monotonic()
    with caplog.at_level("INFO", logger="ulmfit_fastai"):
        table = ablate("table7", reviews, out=copy, time_budget=1.5, **options)
    assert 1.5 <= time.monotonic() - begun < 60
    assert table.missing == {"table7.last-seed0": "not run yet"} and table.errors["full"] and not table.errors["last"]
    assert caplog.text.count("waiting for other processes, which are making ") == 1
    assert "stopped with 1 runs missing" in caplog.text
    holder.leave()


def test_others_are_made_first_and_what_another_process_leaves_unfinished_after_them(
        copy, alone, reviews, options, caplog, monkeypatch):
    monkeypatch.setattr(grid, "LOOK_EVERY", 0.05)
    for row in ("from_scratch", "last"):
        shutil.rmtree(copy / f"table7.{row}-seed0")
    holder = Holder(copy / "table7.from_scratch-seed0")
    made = []
    original = grid.run

    def leaves_after_the_other(recipe, *args, **settings):
        done = original(recipe, *args, **settings)
        made.append(recipe.name)
        if recipe.name == "table7.last":
            threading.Timer(0.5, holder.leave).start()
        return done

    monkeypatch.setattr(grid, "run", leaves_after_the_other)
    table = ablate("table7", reviews, out=copy, **options)
    assert made == ["table7.last", "table7.from_scratch"]
    assert table.finished and table.errors == alone.errors


def test_rows_wait_for_a_language_model_that_another_process_fine_tunes(copy, alone, reviews, options, monkeypatch):
    monkeypatch.setattr(grid, "LOOK_EVERY", 0.05)
    for row in ("full", "last"):
        shutil.rmtree(copy / f"table7.{row}-seed0")
    model = next((copy / "shared").glob("lm-forward-*"))
    away = model.rename(copy / "kept")
    holder = Holder(model)

    def finished():
        holder.leave()
        shutil.rmtree(model)
        away.rename(model)

    looks = []

    def look(seconds, sleep=time.sleep):
        looks.append(seconds)
        if len(looks) == 3:
            finished()
        sleep(seconds)

    monkeypatch.setattr(grid.time, "sleep", look)
    table = ablate("table7", reviews, out=copy, **options)
    assert len(looks) == 3 and table.errors == alone.errors


def test_a_folder_says_whether_another_process_works_in_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_in_use and not (tmp_path / "run").exists()  # and makes nothing
    holder = Holder(tmp_path / "run")
    header = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}
    assert folder.is_in_use
    with pytest.raises(FolderInUse, match="another process is running in this folder; wait for it to end"):
        folder.open(header)
    holder.leave()
    assert not folder.is_in_use
    Holder(tmp_path / "run").leave()  # asking holds nothing
    folder.open(header)
    assert not folder.is_in_use and not RunFolder(tmp_path / "run").is_in_use  # this process itself is no other
    program = "import sys\nfrom filelock import FileLock\nFileLock(sys.argv[1]).acquire(blocking=False)"
    with pytest.raises(subprocess.CalledProcessError):  # and asking has not let go of it
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "run" / "state" / "lock")], check=True,
                       capture_output=True)


def test_a_run_that_another_process_begins_in_the_same_moment_is_its_own(tmp_path, monkeypatch):
    header = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}
    holders, original = [], RunFolder._alone

    def late(self):
        original(self)
        if not holders:  # nothing was there yet: now another process makes it
            monkeypatch.undo()
            made = RunFolder(tmp_path / "run")
            made.open(header)
            made.release()
            holders.append(Holder(tmp_path / "run"))

    monkeypatch.setattr(RunFolder, "_alone", late)
    with pytest.raises(FolderInUse):
        RunFolder(tmp_path / "run").open(header)
    holders[0].leave()
