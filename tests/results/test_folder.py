"""The run folder's lock: one process at a time, as long as that lives."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from ulmfit_fastai.results.folder import RunFolder

HEADER = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}
PROGRAM = f"""
import sys, time
from ulmfit_fastai.results.folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.open({HEADER!r})
print("opened", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True,
                             cwd=Path(__file__).parents[2])
    try:
        assert first.stdout is not None and first.stdout.readline() == "opened\n"
        with pytest.raises(ValueError, match="another process is running in this folder; wait for it to end, or "):
            RunFolder(tmp_path / "run").open(HEADER)
        with pytest.raises(ValueError, match="another process is running in this folder"):
            RunFolder(tmp_path / "run").open(HEADER, resume=False)
    finally:
        first.kill()
        first.wait()
    assert RunFolder(tmp_path / "run").open(HEADER)


def test_the_same_process_may_open_its_folder_again_by_any_of_its_names(tmp_path, monkeypatch):
    held = RunFolder(tmp_path / "run")
    held.open(HEADER)
    monkeypatch.chdir(tmp_path)
    assert RunFolder("run").open(HEADER) and RunFolder(tmp_path / "run").open(HEADER)


def test_a_run_moved_aside_leaves_a_folder_to_lock_anew(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.open(HEADER)
    first.open(HEADER, resume=False)
    assert len(list(tmp_path.iterdir())) == 2
    again = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True,
                           cwd=Path(__file__).parents[2])
    assert "another process is running in this folder" in again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has locks on all its file systems")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_error(number, tmp_path, monkeypatch):
    def none(*args):
        raise OSError(number, "no locks here")

    RunFolder(tmp_path / "run").open(HEADER)
    monkeypatch.setattr("fcntl.flock", none)
    for _ in range(2):
        assert RunFolder(tmp_path / "run").open(HEADER)
    assert {path.name for path in (tmp_path / "run" / "state").iterdir()} == {"lock"}


def test_a_half_written_state_of_a_killed_process_is_cleared_away(tmp_path):
    RunFolder(tmp_path / "run").open(HEADER)
    (tmp_path / "run" / "state" / ".state.pt.0d39daa0.part").write_text("half")
    assert RunFolder(tmp_path / "run").open(HEADER)
    assert not list((tmp_path / "run").rglob(".*.part"))
    (tmp_path / "run" / "run.json").rename(tmp_path / "run" / ".run.json.0d39daa0.part")  # killed in its first save
    assert not RunFolder(tmp_path / "run").open(HEADER)
    assert not list((tmp_path / "run").rglob(".*.part"))
