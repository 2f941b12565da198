"""Files that are fetched once and kept in fastai's cache."""

from __future__ import annotations

import errno
import hashlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from .._errors import UlmfitError
from .._words import megabytes

log = logging.getLogger(__name__)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def cached_or_downloaded(url: str, size: int) -> Path:
    """Return fastai's cached copy of the data set at `url`, its folder or its archive; download it if there is neither.

    The cache is fastai's: `FASTAI_HOME` (default `~/.fastai`) with `data/` and `archive/`. An archive put there by
    hand is used as it is; fastai itself would fetch it again unless its checksum were the one on its list.

    Args:
        size: of the archive, in bytes.

    Raises:
        UlmfitError: it could not be had; says what to fetch and where to put it.
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
        return Path(download_url(url, target, show_progress=False))  # written under another name, then renamed

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
            raise UlmfitError(
                f"the disk is full: {url} is {megabytes(size)}, and several times that unpacked below "
                f"{target.parents[1]}. Make room, or point FASTAI_HOME to another disk.") from error
        raise UlmfitError(
            f"{target.name} is not in fastai's cache and could not be downloaded ({type(error).__name__}: {error}).\n"
            f"  address: {url}\n  size:    {megabytes(size)}\nFetch it on another machine and put it at {target}, "
            "or give the file's own path.") from error
    finally:
        socket.setdefaulttimeout(patience)
