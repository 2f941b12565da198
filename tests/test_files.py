"""Files and folders that are either whole or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ulmfit_fastai import _files as files
from ulmfit_fastai._files import (
    atomic_file,
    clear_left_behind,
    link_atomic,
    move,
    read_json,
    temporary_folder,
    write_json_atomic,
    write_text_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_text_atomic(tmp_path / "file.txt", "old")

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_json_takes_numpy_and_paths_and_writes_nan_as_null(tmp_path):
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": tmp_path, "d": float("nan"), 1: (True, None)}
    path = write_json_atomic(tmp_path / "x.json", value)
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [0, 1], "c": str(tmp_path), "d": None, "1": [True, None]}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = write_json_atomic(tmp_path / "x.json", {"good": 1})
    with pytest.raises(TypeError):
        write_json_atomic(path, {"bad": object()})
    assert read_json(path) == {"good": 1}


def test_until_the_end_of_the_block_a_reader_sees_the_old_file(tmp_path):
    path = write_text_atomic(tmp_path / "file.txt", "old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old" and len(names(tmp_path)) == 2
    assert path.read_text() == "new" and names(tmp_path) == ["file.txt"]
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "new" and names(tmp_path) == ["file.txt"]


def test_a_process_that_is_killed_leaves_the_old_file_and_a_name_that_is_cleared(tmp_path):
    path = write_text_atomic(tmp_path / "file.txt", "old")
    script = f"""
import os, signal
from ulmfit_fastai._files import atomic_file
with atomic_file({str(path)!r}) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL and path.read_text() == "old"
    (left,) = (name for name in names(tmp_path) if name != "file.txt")
    clear_left_behind(tmp_path)
    assert left in names(tmp_path), "it might be at work still"
    os.utime(tmp_path / left, (time.time() - 7200,) * 2)
    clear_left_behind(tmp_path)
    assert names(tmp_path) == ["file.txt"]


def test_what_is_left_is_cleared_whether_file_or_folder_and_nothing_else_is(tmp_path):
    for name in (".a.txt.01234567.part", ".hidden", "b.part"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".store.01234567.part").mkdir()
    (tmp_path / ".store.01234567.part" / "tokens.npy").write_text("half")
    clear_left_behind(tmp_path, seconds=0)
    assert names(tmp_path) == [".hidden", "b.part"]


def test_a_folder_appears_whole_in_the_place_of_the_old_one(tmp_path):
    for content in ("old", "new"):
        with temporary_folder(tmp_path, "store") as temporary:
            (temporary / "file").write_text(content)
            assert temporary.parent == tmp_path and temporary.name != "store"
            move(temporary, tmp_path / "store")
    assert names(tmp_path) == ["store"] and (tmp_path / "store" / "file").read_text() == "new"
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path, "store") as temporary:
        (temporary / "file").write_text(str(1 // 0))
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("links", [True, False])
def test_a_link_or_a_copy_takes_the_place_of_what_is_there(links, tmp_path, monkeypatch):
    def none(*args, **kwargs):
        raise PermissionError("no links here")

    source, target = write_text_atomic(tmp_path / "a", "new"), write_text_atomic(tmp_path / "b", "old")
    if not links:
        monkeypatch.setattr(files.os, "link", none)
    for _ in range(2):  # the second time it is the same file already
        link_atomic(source, target)
        assert target.read_text() == "new" and names(tmp_path) == ["a", "b"]
    assert source.samefile(target) is links
