"""Tokenising in a process that imports only what it needs: seconds, and the peak of its and its workers' memory.

"ours" imports what it uses within its seconds; the other two have loaded all of fastai before.

    python -m benchmarks.token_child SIDE TEXTS CACHE      SIDE: stock, ours, or "ours, fastai loaded"
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from .measure import TreePeak, memory_now
from .tokens import our_numbers, stock_numbers


def main(side: str, source: str, cache: str) -> None:
    """Tokenise the texts of a file, one JSON string a line."""
    if side != "ours":
        import fastai.text.all  # noqa: F401
    with open(source, encoding="utf8") as lines:
        texts = [json.loads(line) for line in lines]
    shutil.rmtree(cache, ignore_errors=True)
    before, started = memory_now(), time.perf_counter()
    with TreePeak() as tree:
        kept = stock_numbers(texts) if side == "stock" else our_numbers(texts, Path(cache))
    spent = time.perf_counter() - started
    print(json.dumps({"seconds": spent, "peak_mb": tree.peak, "before_mb": before, "documents": len(kept[0])
                      if isinstance(kept, tuple) else len(kept)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
