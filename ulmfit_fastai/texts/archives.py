"""Members of a folder or of a tar archive, which is read as one stream and never unpacked.

So nothing an archive contains can land on the disk, and a cut-off one ends in a `ValueError` instead of a short data
set.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from .._errors import UlmfitError
from .._words import megabytes
from .files import OPENERS, damage_named

MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
MOST_BYTES = 16_000_000
"""Of one text: a thousand times a long review, and more than a novel."""
ARCHIVES = (".tgz", ".tar.gz", ".tar", ".tar.xz", ".tar.bz2", ".txz", ".tbz2")


def is_archive(path: Path) -> bool:
    """Say whether `path` is named like a tar archive, compressed or not."""
    return path.name.lower().endswith(ARCHIVES)


def read_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted files below a folder, or in a tar archive read as a stream.

    Names use `/` and are relative to the folder or the archive's root. Order is the disk's or the archive's.
    """
    if path.is_dir():
        yield from _folder_members(path, wanted)
    elif is_archive(path):
        with damage_named(path):
            yield from _tar_members(path, wanted)
    else:
        raise UlmfitError(f"expected a folder or an archive ({', '.join(ARCHIVES)}), found {path}")


def _folder_members(folder: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    for parent, _, files in os.walk(folder):
        prefix = Path(parent).relative_to(folder).as_posix()
        for file in files:
            name = file if prefix == "." else f"{prefix}/{file}"
            path = os.path.join(parent, file)
            if wanted(name) and os.path.isfile(path):  # a pipe or a device would be waited for, or never end
                _refuse_large(name, folder, os.path.getsize(path))
                with open(path, "rb") as handle:
                    yield name, handle.read()


def _tar_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    # `.tgz` and friends have no suffix of their own in OPENERS; the first bytes tell the compression
    with _open_by_content(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() and wanted(name):
                _refuse_large(name, path, member.size)
                content = archive.extractfile(member)
                assert content is not None, "a regular member has content"
                yield name, content.read()
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all 100,000 headers
        while stream.read(1 << 20):
            pass  # the checksum stands at the end of the stream: read up to it


def _refuse_large(name: str, place: Path, size: int) -> None:
    """A text of many megabytes is none: a small archive could fill the memory with it."""
    if size > MOST_BYTES:
        raise UlmfitError(f"{place}: {name} has {megabytes(size)}; expected a text of at most {megabytes(MOST_BYTES)}",
                          path=place, expected=MOST_BYTES, found=size)


def _open_by_content(path: Path) -> IO[bytes]:
    with open(path, "rb") as handle:
        start = handle.read(6)
    for magic, suffix in MAGIC.items():
        if start.startswith(magic):
            return OPENERS[suffix](path)
    return open(path, "rb")
