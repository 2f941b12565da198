"""The command `cache`: which tokens are kept on this machine, and to be rid of them."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from .._files import read_json
from .._words import megabytes
from .options import say


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
    for path in found:
        say(f"{path.name:<28} {megabytes(sizes[path]):>10}  {documents(path):>16}  "
            f"{time.strftime('%Y-%m-%d', time.localtime(path.lstat().st_mtime))}")
        if args.clear:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    say(f"{root}: {len(found)} token caches, {megabytes(sum(sizes.values()))}{', cleared' if args.clear else ''}")
    return 0


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else (path,)
    return sum(file.lstat().st_size for file in inside)


def documents(path: Path) -> str:
    """How many texts a token store says it holds; nothing for what is none, or is damaged."""
    try:
        return f"{read_json(path / 'meta.json')['documents']:,} texts"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
