"""The one progress bar: in place on a terminal or in a notebook, and a line of the log now and then anywhere else."""

from __future__ import annotations

import html
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

from ._words import duration

log = logging.getLogger(__name__)

SCREEN_EVERY = 1.0  # seconds between two drawings
hidden = False
"""Whether no bar shows itself on a screen: `without_bars` says so."""
beside = ""
"""What another process that works for the same run is at; every bar says it after its own words."""
reporter: Callable[[str, float | None, str], None] | None = None
"""Takes label, share and words of every bar instead of a screen: in such a process."""


class Bar:
    """How much of some work is done, and the time left; `contextlib.closing` takes it away, whatever happens.

    On a terminal it is the last line, gone when it is closed, and lines of the log come out whole above it. In a
    notebook it is one bar in a cell's output. Where neither can be seen, in a file or a pipe, it is a line of the log.

    Args:
        label: what is being done.
        total: when it is done, in any unit; None where nobody knows, and then there is no share and no time left.
        first: what was done before, when resumed.
        rest_of_run: seconds left in the whole run, from those left here.
        log_every: seconds between two lines of the log.
        shown: False says nothing, anywhere.
    """

    def __init__(self, label: str, total: float | None, *, first: float = 0,
                 rest_of_run: Callable[[float], float | None] = lambda left: None, log_every: float = 180.0,
                 shown: bool = True) -> None:
        self.label, self.total, self.first, self.rest_of_run = label, total, first, rest_of_run
        self.started = self.drawn = time.monotonic()
        self.face = _face(label, None if total is None else first / max(total, 1e-9), log_every) if shown else None

    def show(self, done: float, said: str = "") -> None:
        """`done` of the total; `said`: the same in words, where the share and the time left are not enough."""
        now = time.monotonic()
        if self.face is None or now - self.drawn < self.face.every:
            return
        self.drawn = now
        share = None if self.total is None else min(done / max(self.total, 1e-9), 1.0)
        said = ", ".join(filter(None, [said, *self._left(done, now - self.started)]))
        self.face.draw(share, " | ".join(filter(None, [said, beside])))

    def _left(self, done: float, spent: float) -> list[str]:
        if self.total is None or done <= self.first:
            return []
        left = spent / (done - self.first) * max(self.total - done, 0)
        rest = self.rest_of_run(left)
        return [f"{duration(left)} left", f"run {duration(rest)} left" if rest else ""]

    def close(self) -> None:
        """Take the bar away; it may be closed twice."""
        if self.face is not None:
            self.face.close()
            self.face = None
            log.debug("%s: ended after %s", self.label, duration(time.monotonic() - self.started))


class _Face(Protocol):
    """What a bar looks like at one place; `share` is None where nobody knows it."""

    every: float

    def draw(self, share: float | None, said: str) -> None: ...
    def close(self) -> None: ...


@contextmanager
def without_bars(wanted: bool = True) -> Iterator[None]:
    """No bars while this lasts, whoever makes them; `wanted=False` changes nothing."""
    global hidden
    before, hidden = hidden, hidden or wanted
    try:
        yield
    finally:
        hidden = before


def _face(label: str, share: float | None, log_every: float) -> _Face | None:
    if reporter is not None:
        return _Reported(label, reporter)
    if hidden:
        return None
    if in_notebook():
        return _Notebook(label, share)
    return _Terminal(label, share) if sys.stderr is not None and sys.stderr.isatty() else _Log(label, log_every)


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose front end shows HTML and replaces it in place."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class _Reported:
    def __init__(self, label: str, report: Callable[[str, float | None, str], None]) -> None:
        self.label, self.report, self.every = label, report, SCREEN_EVERY

    def draw(self, share: float | None, said: str) -> None:
        self.report(self.label, share, said)

    def close(self) -> None:
        pass


class _Log:
    def __init__(self, label: str, every: float) -> None:
        self.label, self.every = label, every

    def draw(self, share: float | None, said: str) -> None:
        log.info("%s: %s%s", self.label, said, "" if share is None else f" ({100 * share:.0f} % done)")

    def close(self) -> None:
        pass


class _Terminal:
    def __init__(self, label: str, share: float | None) -> None:
        from tqdm import tqdm  # here, since help and errors of the command line need no bar

        self.every = SCREEN_EVERY
        self.bar = tqdm(desc=label, total=None if share is None else 1.0, initial=share or 0.0, leave=False,
                        file=sys.stderr, dynamic_ncols=True, bar_format=self._format(share, ""))
        self.handlers = [*logging.root.handlers, *logging.getLogger(__package__).handlers]
        if logging.lastResort is not None:  # speaks where nobody set up a log
            self.handlers.append(logging.lastResort)
        for handler in self.handlers:
            handler.addFilter(self._make_room)

    def _make_room(self, record: logging.LogRecord) -> bool:
        """Asked by a handler about every line: the bar goes away first, and is back when it is next drawn."""
        self.bar.clear()
        return True

    def draw(self, share: float | None, said: str) -> None:
        self.bar.n, self.bar.bar_format = share or 0.0, self._format(share, said)
        self.bar.refresh()

    @staticmethod
    def _format(share: float | None, said: str) -> str:
        return "{desc}: " + ("" if share is None else "{percentage:3.0f}%|{bar}| ") + said

    def close(self) -> None:
        for handler in self.handlers:
            handler.removeFilter(self._make_room)
        self.bar.close()


class _Notebook:
    """IPython's own display handle, since tqdm's bar needs ipywidgets and warns where there are none."""

    def __init__(self, label: str, share: float | None) -> None:
        from IPython import get_ipython

        self.every, self.label = SCREEN_EVERY, label
        self.handle = _handle(get_ipython().execution_count)
        self.draw(share, "")

    def draw(self, share: float | None, said: str) -> None:
        value = "" if share is None else f' value="{share:.4f}"'
        said = f"{self.label}: {'' if share is None else f'{share:.0%} '}{said}".rstrip(": ")
        self._update(f'<progress{value} style="width: 20em"></progress> {html.escape(said)}', said)

    def close(self) -> None:
        self._update("", "")

    def _update(self, page: str, text: str) -> None:
        self.handle.update({"text/html": page, "text/plain": text}, raw=True)


@lru_cache(maxsize=1)
def _handle(cell: int) -> Any:
    """The place of the bars in the output of the cell that runs: one, however many bars come one after another."""
    from IPython.display import display

    return display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)
