"""Folders of token files that are either whole or not there: written under a temporary name, verified when opened."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._errors import UlmfitError
from .._files import digests_of, has_changed, refuse_damaged, sealed, temporary_folder
from .pieces import is_model, model_digest

FORMAT = 2  # of the files, and of the tokeniser: raise it when either changes, and old stores are made anew
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def load_array(path: Path, mmap_mode: str | None = None) -> np.ndarray:
    """An array of a token folder; what numpy can't read, or would run, is said with the file's name."""
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)  # type: ignore[arg-type]
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UlmfitError(f"{path} is damaged: expected an array, found something else; make it anew from the texts",
                          path=path) from error


@contextmanager
def token_folder(root: Path, name: str) -> Iterator[Path]:
    """A temporary folder in `root` for token files: `move` it to its place; a full disk is said."""
    try:
        made = not root.exists()
        with temporary_folder(root, name) as temporary:
            if made:  # tokens are the texts, in order: their owner's to read, and nobody else's
                root.chmod(0o700)
            temporary.chmod(0o700)
            yield temporary
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"no space left while writing tokens to {root}, about 6 bytes a word. Free some, or take another "
            "folder (cache=, or the environment variable ULMFIT_CACHE). What had been written was removed",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write one file of a temporary folder."""
    path.write_text(json.dumps(value, ensure_ascii=False), "utf8")


def cache_root(cache: str | Path | None = None) -> Path:
    """The folder that stores are kept in: `cache`, else `tokens` in $ULMFIT_CACHE or ~/.cache/ulmfit_fastai."""
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("ULMFIT_CACHE") or Path.home() / ".cache" / "ulmfit_fastai") / "tokens"


def writable(root: Path) -> bool:
    """Whether token folders can be made in `root`, which is made if need be; a full disk is another matter."""
    try:
        if not root.exists():
            root.mkdir(parents=True, mode=0o700)
        return os.access(root, os.W_OK | os.X_OK) and root.is_dir()
    except OSError as error:
        return error.errno in _FULL


def settings(lang: str) -> dict[str, Any]:
    """What tokens depend on besides the texts."""
    splitter = "sentencepiece" if is_model(lang) else "spacy"
    found: dict[str, Any] = {"format": FORMAT}
    found |= {"pieces": model_digest(lang)} if is_model(lang) else {"lang": lang}  # the model, wherever it lies
    for package in ("fastai", splitter):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def store_name(content: str, lang: str) -> str:
    """20 hex characters for texts (by their content or a caller's key) and all that their tokens depend on."""
    everything = json.dumps([content, settings(lang)], sort_keys=True)
    return hashlib.sha256(everything.encode("utf8")).hexdigest()[:20]


def write_header(file: BinaryIO, length: int) -> None:
    """A .npy header of 128 bytes for `length` uint32, so that it can be written again when the length is known."""
    text = f"{{'descr': '<u4', 'fortran_order': False, 'shape': ({length},), }}"
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode("ascii") + b"\n")


def finish(folder: Path, files: Sequence[str], meta: dict[str, Any]) -> None:
    """Write meta.json, last of all, with the sizes of the other files."""
    sizes = {name: (folder / name).stat().st_size for name in files}
    digests = digests_of(folder, files)
    write_json(folder / "meta.json", sealed({"format": FORMAT, **meta, "sizes": sizes, "digests": digests}))
    for name in (*files, "meta.json"):  # a rename may outlive a power cut that the content doesn't
        (folder / name).chmod(0o600)
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())


def read_meta(folder: Path, kind: str) -> dict[str, Any]:
    """meta.json of a finished folder, its files' sizes verified.

    Raises:
        UlmfitError: something is missing, cut short or of another format.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text("utf8"))
        found = {name: (folder / name).stat().st_size for name in meta["sizes"]}
        whole = isinstance(meta.get("fingerprint", ""), str) and isinstance(meta.get("digests", {}), dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UlmfitError(f"{folder} holds no finished token {kind} ({error})", path=folder) from error
    if not whole or (kind == "store" and "fingerprint" not in meta):
        raise UlmfitError(f"{folder / 'meta.json'} is damaged: it lacks the fingerprint of the texts", path=folder)
    if meta.get("format") != FORMAT or meta.get("kind") != kind:
        raise UlmfitError(
            f"{folder}: expected a token {kind} of format {FORMAT}, "
            f"found a token {meta.get('kind')} of format {meta.get('format')}; make it anew from the texts"
        )
    if has_changed(meta):
        raise UlmfitError(f"{folder / 'meta.json'} is damaged: its content is not that which its own digest is of",
                          path=folder)
    if found != meta["sizes"]:
        raise UlmfitError(f"{folder} is broken: expected file sizes {meta['sizes']}, found {found}; make it anew")
    refuse_damaged(folder, meta.get("digests"), "meta.json")
    return meta


def is_whole(folder: Path, kind: str) -> bool:
    """Can `folder` be opened?"""
    try:
        read_meta(folder, kind)
    except ValueError:
        return False
    return True
