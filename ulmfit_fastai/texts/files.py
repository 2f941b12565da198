"""Files in, compressed or not: opened by their names, and a damaged one is named instead of read in part."""

from __future__ import annotations

import bz2
import codecs
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
from .._files import expanded

# suffix -> opener of a path or of a file object
OPENERS: dict[str, Callable[[Any], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.open(file, "rb")),
    ".bz2": lambda file: cast(IO[bytes], bz2.open(file, "rb")),
    ".xz": lambda file: cast(IO[bytes], lzma.open(file, "rb")),
    ".zst": lambda file: _open_zstd(file),
}

DAMAGE = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, gzip.BadGzipFile)


MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",  # first: UTF-16's mark begins UTF-32's
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


def existing(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path`, home folder expanded, or refuse it by name when nothing is there."""
    found = expanded(path)
    if not found.exists():
        raise UlmfitError(f"no such file or folder: {found} (looked from {Path.cwd()})")
    if not (found.is_file() or found.is_dir()):
        raise UlmfitError(f"{found} is a pipe or a device; expected a file or a folder", path=found)
    return found


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


def marked_encoding(start: bytes) -> str | None:
    """The encoding that the mark at a file's start tells, if one stands there: utf-16, utf-32 or utf-8-sig."""
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            return encoding
    return None


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


def decode(content: bytes, name: str, encoding: str = "utf-8") -> str:
    """Decode a text file as Python's own text mode does (line ends become `\\n`), or name the file in a ValueError."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UlmfitError(f"{name} is not {encoding} text: {error}. Give its encoding, or convert it.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
