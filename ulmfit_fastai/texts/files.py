"""Files in: compressed text, tables, members of a folder or an archive, and fastai's download cache.

Everything here only reads. Archives are read as one stream, never unpacked, so nothing an archive contains can
land on the disk, and a cut-off archive ends in a `ValueError` instead of a short data set.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import json
import logging
import lzma
import os
import socket
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd

log = logging.getLogger(__name__)

# suffix -> opener of a path or of a file object
OPENERS: dict[str, Callable[[Any], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.open(file, "rb")),
    ".bz2": lambda file: cast(IO[bytes], bz2.open(file, "rb")),
    ".xz": lambda file: cast(IO[bytes], lzma.open(file, "rb")),
    ".zst": lambda file: _open_zstd(file),
}
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
ARCHIVES = (".tgz", ".tar.gz", ".tar", ".tar.xz", ".tar.bz2", ".txz", ".tbz2")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, gzip.BadGzipFile)


def existing(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path`, home folder expanded, or refuse it by name when nothing is there."""
    found = Path(path).expanduser()
    if not found.exists():
        raise ValueError(f"no such file or folder: {found} (looked from {Path.cwd()})")
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
        raise ValueError(f"{path} ({size:,} bytes) is damaged or was cut off while it was written: {error}. "
                         "Fetch or write the file again.") from error
    except OSError as error:
        # bz2 reports bad data as a plain OSError without a number; a real disk error has one
        if error.errno is None:
            raise ValueError(f"{path} is damaged or not what its name says: {error}. Fetch it again.") from error
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
        raise ValueError("Zstandard files need a package: `pip install zstandard`; or decompress the file") from None
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
        raise ValueError(f"expected a folder or an archive ({', '.join(ARCHIVES)}), found {path}")


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
        raise ValueError(f"{name} is not {encoding} text: {error}. Give its encoding, or convert it.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def other_encoding(path: Path, encoding: str, error: UnicodeDecodeError) -> ValueError:
    """What to say of a file that is not in the encoding it was read in: most often a spreadsheet's, of Windows."""
    return ValueError(f"{path} is not {encoding.removesuffix('-sig')} text ({error.reason}). Give its "
                      "encoding (cp1252, for example), or convert it.")


def read_table(path: Path, content: bytes | None = None, *, encoding: str = "utf-8-sig",
               header: bool = True) -> pd.DataFrame:
    """Read a CSV, TSV, JSON-lines, JSON or Parquet file, compressed or not, into a frame.

    CSV cells come as strings: an empty cell is empty, but `NA` and `null` are words that somebody may have written.
    `header=False` numbers the columns of a CSV file 0, 1, ...; `content` are the bytes of a file in an archive.
    """
    suffix = bare_suffix(path)
    if suffix not in TABLES:
        raise ValueError(f"cannot tell the format of {path}: expected {', '.join(TABLES)}, plain or "
                         f"with {', '.join(OPENERS)}")
    with damage_named(path), open_bytes(path, content) as stream:
        try:
            if suffix in (".parquet", ".pq"):
                return pd.read_parquet(io.BytesIO(stream.read()))
            if suffix in (".csv", ".tsv"):
                return pd.read_csv(stream, sep="\t" if suffix == ".tsv" else ",", header=0 if header else None,
                                   dtype=str, keep_default_na=False, encoding=encoding)
            text = io.TextIOWrapper(stream, encoding)
            return _json(text) if suffix == ".json" else _json_lines(text)
        except ImportError as error:
            raise ValueError(f"reading {path} needs a package that is not installed: {error}") from error
        except UnicodeDecodeError as error:
            raise other_encoding(path, encoding, error) from error
        except ValueError as error:  # the parsers of pandas and pyarrow say what is wrong, but not where
            raise ValueError(f"cannot read {path}: {error}") from error


def _json(file: IO[str]) -> pd.DataFrame:
    """Read a list of objects, one a row, or an object with a list for each column."""
    try:
        given = json.load(file)
    except json.JSONDecodeError as error:
        hint = "; a file with an object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise ValueError(f"{error}{hint}") from error
    try:
        return pd.DataFrame(given)
    except (ValueError, TypeError, AttributeError) as error:  # in pandas' words: about indices and scalars
        found = f"an object with the keys {', '.join(list(given)[:5])}" if isinstance(given, dict) else str(given)[:40]
        raise ValueError("expected a list of objects, one a row, or an object with a list for each column, as a table "
                         f"in JSON is; found {found}") from error


def _json_lines(lines: IO[str]) -> pd.DataFrame:
    """Read one object a line; by json and not pandas, which makes a number of the text "2004" and a date of others."""
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON object ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object but {line.strip()[:40]}")
            rows.append(row)
    return pd.DataFrame(rows)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def cached_or_downloaded(url: str, size: int) -> Path:
    """Return fastai's cached copy of the data set at `url`, its folder or its archive; download it if there is neither.

    The cache is fastai's: `FASTAI_HOME` (default `~/.fastai`) with `data/` and `archive/`. An archive put there by
    hand is used as it is; fastai itself would fetch it again unless its checksum were the one on its list.
    `size` is the archive's in bytes. Raises a ValueError that says what to fetch and where to put it.
    """
    archive = cache_folder("archive") / url.rsplit("/", 1)[1]
    folder = cache_folder("data") / archive.name.removesuffix(".tgz")
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    if archive.is_file():
        return archive

    def fetch() -> Path:
        from fastai.data.external import untar_data
        return Path(untar_data(url))

    return downloaded(fetch, url, size, archive)


def downloaded_file(url: str, size: int, folder: str) -> Path:
    """Return the single file at `url` from the folder of that name in fastai's `data/`, downloaded once."""
    target = cache_folder("data") / folder / url.rsplit("/", 1)[1]
    if target.is_file():
        return target

    def fetch() -> Path:
        from fastdownload import download_url  # type: ignore[import-untyped]
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(download_url(url, target, show_progress=False))

    return downloaded(fetch, url, size, target)


def cache_folder(kind: str) -> Path:
    """Return fastai's folder for 'data' or 'archive'; `FASTAI_HOME` moves them."""
    from fastai.data.external import fastai_path
    return Path(fastai_path(kind))


def downloaded(fetch: Callable[[], Path], url: str, size: int, target: Path) -> Path:
    """Fetch something, or say in a ValueError why it could not be had and where to put it by hand."""
    log.info("downloading %s (%s) to %s", url, megabytes(size), target)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)  # seconds of silence: behind some firewalls a connection never fails by itself
    try:
        return fetch()
    except Exception as error:  # fastdownload raises a plain Exception for a wrong checksum
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ValueError(
                f"the disk is full: {url} is {megabytes(size)}, and several times that unpacked below "
                f"{target.parents[1]}. Make room, or point FASTAI_HOME to another disk.") from error
        raise ValueError(
            f"{target.name} is not in fastai's cache and could not be downloaded ({type(error).__name__}: {error}).\n"
            f"  address: {url}\n  size:    {megabytes(size)}\nFetch it on another machine and put it at {target}, "
            "or give the file's own path.") from error
    finally:
        socket.setdefaulttimeout(patience)


def megabytes(size: int) -> str:
    """Say a size in bytes as people do: '144 MB', '0.3 MB'."""
    return f"{size / 1e6:,.0f} MB" if size > 1e7 else f"{size / 1e6:.1f} MB"
