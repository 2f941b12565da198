"""Files in: compressed text, tables, members of a folder or an archive, and fastai's download cache.

Everything here only reads. Archives are read as one stream, never unpacked, so nothing an archive contains can
land on the disk, and a cut-off archive ends in a `ValueError` instead of a short data set.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from .._errors import UlmfitError

# suffix -> opener of a path or of a file object
OPENERS: dict[str, Callable[[Any], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.open(file, "rb")),
    ".bz2": lambda file: cast(IO[bytes], bz2.open(file, "rb")),
    ".xz": lambda file: cast(IO[bytes], lzma.open(file, "rb")),
    ".zst": lambda file: _open_zstd(file),
}
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
ARCHIVES = (".tgz", ".tar.gz", ".tar", ".tar.xz", ".tar.bz2", ".txz", ".tbz2")


DAMAGE = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, gzip.BadGzipFile)


def existing(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path`, home folder expanded, or refuse it by name when nothing is there."""
    found = Path(path).expanduser()
    if not found.exists():
        raise UlmfitError(f"no such file or folder: {found} (looked from {Path.cwd()})")
    return found


def is_archive(path: Path) -> bool:
    """Say whether `path` is named like a tar archive, compressed or not."""
    return path.name.lower().endswith(ARCHIVES)


def bare_suffix(path: Path) -> str:
    """Return the suffix that tells the format: `.csv` of `reviews.csv.gz`."""
    name = path.name.lower()
    for compression in OPENERS:
        name = name.removesuffix(compression)
    return Path(name).suffix


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn the many errors of a damaged or cut-off file into one `ValueError` that names the file."""
    try:
        yield
    except DAMAGE as error:
        size = path.stat().st_size if path.is_file() else 0
        raise UlmfitError(f"{path} ({size:,} bytes) is damaged or was cut off while it was written: {error}. "
                          "Fetch or write the file again.") from error
    except OSError as error:
        # bz2 reports bad data as a plain OSError without a number; a real disk error has one
        if error.errno is None:
            raise UlmfitError(f"{path} is damaged or not what its name says: {error}. Fetch it again.") from error
        raise


def open_bytes(path: Path, content: bytes | None = None) -> IO[bytes]:
    """Open a file (or its bytes) for reading, decompressed by its suffix: .gz, .bz2, .xz, .zst or none."""
    opener = OPENERS.get(path.suffix.lower())
    if opener:
        return opener(path if content is None else io.BytesIO(content))
    return open(path, "rb") if content is None else io.BytesIO(content)


def open_text(path: Path, encoding: str = "utf-8-sig") -> IO[str]:
    """Open a text file, decompressed by its suffix; a byte-order mark is skipped."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding)


def _open_zstd(file: Any) -> IO[bytes]:
    try:
        import zstandard
    except ImportError:
        pass
    else:
        return cast(IO[bytes], zstandard.open(file, "rb"))
    try:
        import pyarrow
    except ImportError:
        raise UlmfitError("Zstandard files need a package: `pip install zstandard`; or decompress the file") from None
    source = pyarrow.OSFile(str(file)) if isinstance(file, (str, os.PathLike)) else pyarrow.PythonFile(file, "r")
    return cast(IO[bytes], io.BufferedReader(pyarrow.CompressedInputStream(source, "zstd")))


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
            if wanted(name):
                with open(os.path.join(parent, file), "rb") as handle:
                    yield name, handle.read()


def _tar_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    # `.tgz` and friends have no suffix of their own in OPENERS; the first bytes tell the compression
    with _open_by_content(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() and wanted(name):
                content = archive.extractfile(member)
                assert content is not None, "a regular member has content"
                yield name, content.read()
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all 100,000 headers
        while stream.read(1 << 20):
            pass  # the checksum stands at the end of the stream: read up to it


def _open_by_content(path: Path) -> IO[bytes]:
    with open(path, "rb") as handle:
        start = handle.read(6)
    for magic, suffix in MAGIC.items():
        if start.startswith(magic):
            return OPENERS[suffix](path)
    return open(path, "rb")


def decode(content: bytes, name: str, encoding: str = "utf-8") -> str:
    """Decode a text file as Python's own text mode does (line ends become `\\n`), or name the file in a ValueError."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UlmfitError(f"{name} is not {encoding} text: {error}. Give its encoding, or convert it.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
