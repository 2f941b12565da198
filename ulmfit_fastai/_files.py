"""Files and folders that are either whole or absent: made under a temporary name, then renamed.

A run is killed at any moment (a notebook session ends, a disk fills up), so nothing another module reads is ever
written in place. Every temporary name begins with a dot and ends in `.part`; what a killed process left of them goes
with `clear_left_behind`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ._errors import UlmfitError
from ._words import shown

LEFT_BEHIND = 3600
"""Seconds without a write after which what has a temporary name is taken for a killed process's."""


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A free name beside `path` to make a file at, which takes the name `path` at the end of the block.

    Until then a reader sees the old file, and an error leaves that as it was and nothing else. The temporary name lies
    in the same folder, which is made if need be: a rename is atomic only within a file system.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:  # a full disk says so of no file
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, which is flushed to the disk and takes the name `path` at the end: whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_bytes_atomic(path: str | os.PathLike, data: bytes) -> Path:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part."""
    with atomic_file(path) as file:
        file.write(data)
    return Path(path)


def write_text_atomic(path: str | os.PathLike, text: str) -> Path:
    """Write `text` as UTF-8 with its line ends kept, whole or not at all."""
    return write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | os.PathLike, value: Any, *, indent: int | None = 2) -> Path:
    """Write `value` as JSON, whole or not at all; a value that cannot be written leaves the old file untouched.

    NumPy numbers and arrays, paths and tuples become plain JSON. NaN and infinity become null: they are not JSON.
    """
    return write_text_atomic(path, json.dumps(plain(value), indent=indent, ensure_ascii=False) + "\n")


def link_atomic(source: Path, target: Path) -> Path:
    """Put a hard link to `source` at `target`, or a copy where there can be no link, in the place of what is there."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            with open(source, "rb") as old, open(temporary, "xb") as new:
                shutil.copyfileobj(old, new)
                new.flush()
                os.fsync(new.fileno())
    return target


@contextmanager
def temporary_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder in `root` to fill, removed at the end of the block whatever happens: `move` it before."""
    temporary = _temporary_name(root / name)
    try:
        temporary.mkdir(parents=True)
        clear_left_behind(root)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(temporary: Path, folder: Path) -> None:
    """Give a finished temporary folder its name, in the place of what stands there."""
    if os.path.lexists(folder):  # a link that leads nowhere stands in the way too
        aside = _temporary_name(folder)
        os.replace(folder, aside)
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink()
    os.replace(temporary, folder)


def clear_left_behind(root: Path, *, seconds: float = LEFT_BEHIND) -> None:
    """Remove what killed processes left half written in `root`: files and folders nobody has written to for `seconds`.

    0: all of them, for a folder in which nobody else is at work.
    """
    for path in root.glob(".*.part"):
        try:
            newest = max(entry.stat().st_mtime for entry in [path, *(path.iterdir() if path.is_dir() else ())])
            if seconds and time.time() - newest <= seconds:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            continue  # gone meanwhile, as its process has ended, or not ours to remove


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        UlmfitError: it is not whole JSON; the message names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # an editor may have put a mark at its start
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UlmfitError(f"{path} is damaged or half written: expected JSON, found {error}.") from error
    except RecursionError:
        raise UlmfitError(f"{path} is damaged: expected JSON, found lists within lists, too deep to read") from None


def expanded(path: str | os.PathLike) -> Path:
    """A path with its `~` expanded; UlmfitError where there is no such user, or it can be no path, as a long text."""
    try:
        found = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(found)
    except (TypeError, RuntimeError, ValueError, OSError) as error:
        why = (error.strerror or error) if isinstance(error, OSError) else error
        given = repr(os.fspath(path) if isinstance(path, os.PathLike) else path)
        raise UlmfitError(f"expected the path of a file or folder, found {shown([given])}: {why}") from None
    return found


def digest_of(path: str | os.PathLike) -> str:
    """32 hexadecimal characters that change with any bit of a file's content (blake2b)."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """name -> `digest_of` of the files of a folder that are there."""
    return {name: digest_of(folder / name) for name in names if (folder / name).is_file()}


def refuse_damaged(folder: Path, digests: Mapping[str, str] | None, record: str, names: Iterable[str] | None = None
                   ) -> None:
    """UlmfitError naming the file whose content isn't what it was when its digest was written into `record`.

    Files without a digest, as of earlier versions, and files that aren't there pass: who reads them says so.

    Args:
        names: the files to compare; None: all that have a digest.
    """
    for name in (digests or {}) if names is None else names:
        expected = (digests or {}).get(name)
        path = folder / name
        if expected is not None and path.is_file() and digest_of(path) != expected:
            raise UlmfitError(f"{path} is damaged, or was changed: its content is not that which {record} has the "
                              "digest of", path=path, expected=expected,
                              advice="restore the file, or make it anew with `resume=False`")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record, to be written as JSON, with a digest of its own: `checked` compares it when the file is read."""
    content = {key: value for key, value in record.items() if key != "digest"}
    return {**content, "digest": _digest_of_record(content)}


def has_changed(record: Mapping[str, Any]) -> bool:
    """Whether a record that was read isn't what `sealed` made; one without a digest, of earlier versions, passes."""
    content = {key: value for key, value in record.items() if key != "digest"}
    return "digest" in record and record["digest"] != _digest_of_record(content)


def _digest_of_record(content: Mapping[str, Any]) -> str:
    text = json.dumps(plain(content), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def plain(value: Any) -> Any:
    """`value` with NumPy, path and tuple parts replaced by what JSON has; not-a-number becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    import numpy as np  # here, since the command line's help needs these files and no arrays

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
    except OSError as error:
        raise OSError(
            f"could not write to {path}: {error}. The last whole state is still there: free some space and run the "
            "same command again to go on"
        ) from error
