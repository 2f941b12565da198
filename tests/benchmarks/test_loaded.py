"""What a busy machine costs: the others run while one is measured, and the ratio is of neighbours."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from benchmarks import loaded


def spinning() -> int:
    mine = psutil.Process().children()
    return sum(loaded.FOREVER in child.cmdline() for child in mine if child.status() != psutil.STATUS_ZOMBIE)


def test_the_others_run_while_a_training_is_measured_and_are_gone_after_it(tmp_path, monkeypatch):
    seconds = iter([9.0, 10.0, 15.0, 20.0, 24.0])  # tokens; as it is, with the others; the same again
    seen = []

    def measured(args, cache):
        seen.append(spinning())
        return {"cpu_seconds": next(seconds), "seconds": 1.0}

    monkeypatch.setattr(loaded, "in_a_process", measured)
    loaded.main(["--data", "imdb.tgz", "--others", "2", "--repeats", "2", "--results", str(tmp_path)])
    found = json.loads((tmp_path / "loaded.json").read_text("utf8"))
    assert seen == [0, 0, 2, 0, 2] and spinning() == 0
    assert found["ratios"] == [1.5, 1.2] and found["ratio"] == pytest.approx(1.35)


def test_a_path_is_looked_up_where_the_command_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def run(command, **more):
        asked.append(command[command.index("--data") + 1])
        return subprocess.CompletedProcess(command, 0, stdout='{"cpu_seconds": 1.0, "seconds": 1.0}\n')

    monkeypatch.setattr(loaded.subprocess, "run", run)
    loaded.main(["--data", "imdb.tgz", "--others", "0", "--repeats", "1", "--results", str(tmp_path)])
    assert set(asked) == {str(tmp_path / "imdb.tgz")}


def test_cpu_seconds_are_those_of_this_process_and_of_children_that_have_ended():
    before = loaded.cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert loaded.cpu_seconds() - before > 0.02
