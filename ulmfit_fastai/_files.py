"""Files that are either whole or absent: written under a temporary name, then renamed.

A run is killed at any moment (a notebook session ends, a disk fills up), so nothing another module reads is ever
written in place.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ._errors import UlmfitError


def write_bytes_atomic(path: str | os.PathLike, data: bytes) -> Path:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    The temporary file lies in the same folder (a rename is atomic only within a file system) and is removed when
    writing fails, for instance on a full disk, which leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_text_atomic(path: str | os.PathLike, text: str) -> Path:
    """Write `text` as UTF-8 with its line ends kept, whole or not at all."""
    return write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | os.PathLike, value: Any, *, indent: int | None = 2) -> Path:
    """Write `value` as JSON, whole or not at all; a value that cannot be written leaves the old file untouched.

    NumPy numbers and arrays, paths and tuples become plain JSON. NaN and infinity become null: they are not JSON.
    """
    return write_text_atomic(path, json.dumps(plain(value), indent=indent, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file; ValueError naming the file when it is not whole JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UlmfitError(f"{path} is damaged or half written: expected JSON, found {error}.") from error


def plain(value: Any) -> Any:
    """`value` with NumPy, path and tuple parts replaced by what JSON has; not-a-number becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value


@contextmanager
def disk_full_is_said(path: Path) -> Iterator[None]:
    """Turn a failed write into a message that says what was kept and what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        said = ("write", "unexpected pos")  # torch's words for a file that could not be written whole
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in said):
            raise
        raise OSError(
            f"could not write to {path}: {error}. The last whole state is still there: free some space and run the "
            "same command again to go on"
        ) from error


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy, under a temporary name that is then renamed."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


_LEFT_BEHIND = 3600  # seconds without a write after which a temporary folder is taken for a killed run's
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), "utf8")


@contextmanager
def temporary_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder in `root` that is removed at the end, whatever happens: `move` it before."""
    temporary = root / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.mkdir(parents=True)
        _remove_left_behind(root)
        yield temporary
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(
                error.errno,
                f"no space left while writing tokens to {root}, about 6 bytes a word. Free some, or take another "
                "folder (cache=, or the environment variable ULMFIT_CACHE). What had been written was removed",
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(temporary: Path, folder: Path) -> None:
    """Give a finished temporary folder its name, in the place of what stands there."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
        os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
    os.replace(temporary, folder)


def _remove_left_behind(root: Path) -> None:
    """Remove temporary folders of runs that were killed: those nobody has written to for an hour."""
    for path in root.glob(".*.tmp"):
        try:
            newest = max(entry.stat().st_mtime for entry in [path, *path.iterdir()])
        except OSError:
            continue  # gone meanwhile: its run has ended
        if time.time() - newest > _LEFT_BEHIND:
            shutil.rmtree(path, ignore_errors=True)
