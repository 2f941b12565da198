"""A result in rows and in words: beside the paper, beside what others published, beside its own baselines."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Protocol

import pandas as pd

from .. import paper
from .evaluation import Evaluation
from .intervals import interval
from .verdict import Outcome, Verdict, reference

NAN = float("nan")
COLUMNS = ["what", "error", "low", "high", "n", "kind"]
NAMES = {"averaged": "forward and backward averaged", "forward": "forward", "backward": "backward"}

SHORT = {**NAMES, "averaged": "both averaged"}


class Shown(Outcome, Protocol):
    """What of a run is shown in rows and words; `results.Result` is one."""

    @property
    def status(self) -> str: ...
    @property
    def scores(self) -> dict[str, dict[str, Any]]: ...
    @property
    def errors(self) -> dict[str, float]: ...
    @property
    def evaluated(self) -> str: ...
    @property
    def headline(self) -> str | None: ...
    @property
    def interval(self) -> tuple[float, float] | None: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def caveats(self) -> tuple[str, ...]: ...
    def interval_of(self, name: str) -> tuple[float, float]: ...
    def n_of(self, name: str) -> int: ...


def title_of(task: str) -> str:
    """The data set's name as people write it."""
    return paper.TASKS[task].title if task in paper.TASKS else "your own texts" if task == "custom" else task


def meets_the_paper(result: Shown) -> bool:
    """Whether the paper has anything to say of such a run: it has of its own data sets, and not of anyone's own."""
    return result.task in paper.TASKS


def comparison(result: Shown) -> pd.DataFrame:
    """This run, its baselines, the paper, other people's runs: what, error, low, high (95 %), n, kind; errors in %."""
    frame = pd.DataFrame(rows_of(result), columns=COLUMNS)
    return frame.astype({"error": float, "low": float, "high": float, "n": "Int64"})


def rows_of(result: Shown) -> list[tuple[Any, ...]]:
    """The rows of `comparison`, in COLUMNS' order."""
    rows = [_ours(result, name) for name in reversed(result.errors)]
    rows += [_baseline(record) for record in result.run.get("baselines") or [] if "error" in record]
    if result.evaluated == "test" and not result.data.get("synthetic"):
        rows += _elsewhere(result)
    return rows


def _ours(result: Shown, name: str) -> tuple[Any, ...]:
    low, high = result.interval_of(name)
    return f"this run, {SHORT[name]}", result.errors[name], low, high, result.n_of(name), "this run"


def _baseline(record: dict[str, Any]) -> tuple[Any, ...]:
    n, error = record.get("n"), record["error"]
    low, high = interval(error, n) if n else (NAN, NAN)
    return record["name"], error, low, high, n, "baseline"


def _elsewhere(result: Shown) -> list[tuple[Any, ...]]:
    """The paper's rows for this task and these directions, and for IMDb what others published on fastai v2."""
    rows: list[tuple[Any, ...]] = []
    for table in (t for t in paper.TABLES.values() if t.measured_on == "test" and result.task in t.tasks):
        for key in table.rows:
            if key == table.ours:
                number = table.error(key, result.task)
                rows.append((f"paper, both directions ({number.where})", number.value, NAN, NAN, None, "paper"))
    if result.task in paper.TASKS and (result.task == "imdb" or len(result.directions) == 1):
        one = reference(result.task, both=False)
        where = "derived" if one.mark == "D" else one.where.split(",")[0]
        rows.append((f"paper, one direction ({where})", one.value, NAN, NAN, None, "paper"))
    if result.task == "imdb":
        directions = [*result.directions, *(["both"] if len(result.directions) > 1 else [])]
        for published in (p for p in paper.PUBLISHED if p.fastai_v2):
            for direction in directions:
                error = published.error(direction)
                if error is not None:
                    rows.append((f"{published.source}, {direction}", error, NAN, NAN, None, "elsewhere"))
    return rows


def headline(result: Shown) -> str:
    """The result in one line: '5.36 % test error on IMDb (95 % interval 5.09 to 5.65), forward'."""
    if result.headline is not None and not result.errors:
        said = Evaluation.summary_of(result.scores[result.headline])
        return f"{said} of {title_of(result.task)}, {NAMES[result.headline]}"
    if result.error is None or result.interval is None or result.headline is None:
        return f"{title_of(result.task)}: no error yet, the run is not finished (status: {result.status})"
    low, high = result.interval
    return (f"{result.error:.2f} % {result.evaluated} error on {title_of(result.task)} (95 % interval {low:.2f} to "
            f"{high:.2f}), {NAMES[result.headline]}")


def _cells(result: Shown) -> list[tuple[str, str, str, str]]:
    """(what, error, interval, kind) of each row of the table, as text."""
    return [(what, f"{error:.2f}", "" if math.isnan(low) else f"{low:.2f} to {high:.2f}", kind)
            for what, error, low, high, _, kind in rows_of(result)]


def as_text(result: Shown) -> str:
    """What `print(result)` shows: the line, the table, the verdict and what has to be said beside them."""
    lines = [headline(result)]
    cells = _cells(result)
    width = max((len(what) for what, *_ in cells), default=0)
    lines += [f"  {what:<{width}}  {error:>6} %  {interval}".rstrip() for what, error, interval, _ in cells]
    if result.error is not None and meets_the_paper(result):
        lines.append(str(result.verdict))
    lines += [f"! {caveat}" for caveat in result.caveats]
    lines.append(f"{result.folder}")
    return "\n".join(lines)


def as_html(result: Shown) -> str:
    """What a notebook shows; only inherited colours, so that it is readable in light and dark themes."""
    parts = [f"<p><strong>{escape(headline(result))}</strong></p>"]
    cells = _cells(result)
    if cells:
        body = "".join(
            f'<tr style="{"font-weight:600" if kind == "this run" else ""}">'
            f'<td style="text-align:left">{escape(what)}</td><td style="text-align:right">{error}</td>'
            f'<td style="text-align:left">{interval}</td></tr>' for what, error, interval, kind in cells)
        parts.append(f'<table><thead><tr><th style="text-align:left"></th><th>error, %</th>'
                     f'<th style="text-align:left">95 % interval</th></tr></thead><tbody>{body}</tbody></table>')
    if result.error is not None and meets_the_paper(result):
        verdict = result.verdict
        parts.append(f"<p><strong>{escape(verdict.status)}</strong>: {escape(verdict.text)}</p>")
    parts += [f'<p style="border-left:4px solid #d08700;padding-left:.6em">{escape(caveat)}</p>'
              for caveat in result.caveats]
    return f"<div>{''.join(parts)}</div>"
