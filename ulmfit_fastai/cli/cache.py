"""The command `cache`: which tokens are kept on this machine, and to be rid of them."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from .._files import read_json
from .._words import megabytes
from .records import tell


def cache(args: argparse.Namespace) -> int:
    """List the token caches of this machine, or clear them.

    Tokenised texts are kept so that the next run on them starts at once. They are the texts, in order, to be read by
    their owner only, and stay until they are cleared; whatever still needs them makes them anew. $ULMFIT_CACHE moves
    them.

    examples:
      ulmfit-fastai cache
      ulmfit-fastai cache --clear
    """
    from ..tokens.store_files import cache_root

    root = cache_root()
    found = sorted(path for path in root.iterdir() if path.name != ".lock") if root.is_dir() else []
    sizes = {path: size_of(path) for path in found}
    caches = [{"name": path.name, "bytes": sizes[path], "texts": documents(path),
               "written": time.strftime("%Y-%m-%d", time.localtime(path.lstat().st_mtime))} for path in found]
    if args.clear:
        for path in found:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    tell(args, "\n".join([*map(in_words, caches), f"{root}: {len(found)} token caches, "
                          f"{megabytes(sum(sizes.values()))}{', cleared' if args.clear else ''}"]),
         {"folder": root, "caches": caches, "cleared": args.clear})
    return 0


def in_words(cache: dict[str, Any]) -> str:
    """A cache in a line."""
    texts = "" if cache["texts"] is None else f"{cache['texts']:,} texts"
    return f"{cache['name']:<28} {megabytes(cache['bytes']):>10}  {texts:>16}  {cache['written']}"


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else (path,)
    return sum(file.lstat().st_size for file in inside)


def documents(path: Path) -> int | None:
    """How many texts a token store says it holds; None for what is none, or is damaged."""
    try:
        return int(read_json(path / "meta.json")["documents"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
