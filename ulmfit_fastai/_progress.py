"""Bars and lines that say how much is done."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from ._words import duration

log = logging.getLogger(__name__)


def can_show_bars() -> bool:
    """Whether output goes to a notebook or a terminal, where a bar can grow."""
    from fastprogress.fastprogress import IN_NOTEBOOK

    return IN_NOTEBOOK or sys.stdout.isatty()


def _bar(total: int | None, progress: bool) -> Any:
    """A function that shows how many texts are done."""
    if not progress or not can_show_bars():
        return lambda done: None
    from fastprogress.fastprogress import progress_bar

    bar = progress_bar(None, total="noinfer" if total is None else total, leave=False)
    bar.update(0)
    return bar.update


class Progress:
    """How much is done and the time left: a line that changes on a screen, one a minute where stderr is a file."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()
        self.on_screen = sys.stderr.isatty()

    def show(self, done: int, share: float) -> None:
        """`done` rows, which are `share` of all."""
        now = time.monotonic()
        if now - self.shown < (1 if self.on_screen else 60) or share <= 0:
            return
        self.shown = now
        line = f"{done:,} texts, {share:.0%}, {duration((now - self.started) * (1 - share) / share)} left"
        if self.on_screen:
            print(f"\r{line}   ", end="", file=sys.stderr, flush=True)
        else:
            log.info("%s", line)

    def end(self, done: int) -> None:
        if self.on_screen and self.shown > self.started:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        log.debug("%s texts in %.1f s", f"{done:,}", time.monotonic() - self.started)
