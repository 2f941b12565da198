"""One page for several runs: their errors with intervals, losses, recipes where they differ, seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from .._errors import UlmfitError
from .._files import expanded, write_text_atomic
from .._words import duration
from ..recipe.find import completed
from ..results import figures
from ..results.comparison import title_of
from ..results.curve_figures import MOST_LINES, several_losses_figure
from ..results.result import Result
from .page import IN_PAGE, figure_html, number, render
from .several_classes import mean_error_interval

MOST_FIELDS = 60
"""Of the recipes, where they differ: more would be a list of two recipes."""


def write_comparison(runs: Sequence[str | os.PathLike], out: str | os.PathLike) -> Path:
    """Compare runs on one page that opens offline, and return its path.

    Args:
        runs: two run folders or more, in the order in which they are shown; those that aren't finished have no error.
        out: the page, an .html file.

    Raises:
        UlmfitError: fewer than two folders, one named twice, one that is no run, or an `out` that is a folder.
    """
    folders = [expanded(run) for run in runs]
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise UlmfitError(f"expected two runs or more, each once, found {', '.join(map(str, folders)) or 'none'}",
                          field="runs")
    page = expanded(out)
    if page.is_dir():
        raise UlmfitError(f"{page} is a folder: expected a file for the page", path=page, advice="give another `out=`")
    page.parent.mkdir(parents=True, exist_ok=True)
    return write_text_atomic(page, comparison_html([Result.load(folder) for folder in folders]))


def comparison_html(results: Sequence[Result]) -> str:
    """The page as a string."""
    names = _names(results)
    return render("several_runs.html.jinja", rows=[_row(name, one) for name, one in zip(names, results)],
                  drawings=_errors_drawn(names, results), losses=_losses(names, results), names=names,
                  recipes=_recipes(results), seconds=_seconds(results), pairs=_pairs(names, results),
                  doubts=_doubts(results))


def _names(results: Sequence[Result]) -> list[str]:
    """What the runs are called: their folders, with as much of the path as tells them apart."""
    for depth in range(1, 12):
        names = ["/".join(result.folder.resolve().parts[-depth:]) for result in results]
        if len(set(names)) == len(names):
            break
    return names


def _row(name: str, result: Result) -> tuple[str, ...]:
    """name, data, preset, result, its interval, texts, macro F1, time."""
    main = result.scores[result.headline] if result.headline else {}
    low, high = _interval(result) or (float("nan"), float("nan"))
    said = f"{main['error']:.2f} %" if "error" in main else f"{main['mae']:.4g} off (MAE)" if main else result.status
    digits = 2 if "error" in main else 4
    between = f"{number(low, digits)} to {number(high, digits)}" if low == low else ""
    return (name, title_of(result.task), str(result.recipe_dict.get("name", "?")), said, between,
            f"{main['n']:,}" if main else "", number(main.get("macro_f1"), 4), duration(result.seconds))


def _interval(result: Result) -> tuple[float, float] | None:
    """95 %, of the error, or of the mean absolute error."""
    held = result.held_out
    return mean_error_interval(held) if held is not None and held.kind == "regression" else result.interval


def _errors_drawn(names: Sequence[str], results: Sequence[Result]) -> list[Markup]:
    """Errors on one axis, for wide and for narrow windows; nothing without two of them."""
    rows = [(name, result.error, *(result.interval or (np.nan, np.nan)), "this run")
            for name, result in zip(names, results) if result.error is not None]
    if len(rows) < 2:
        return []
    table = pd.DataFrame(rows, columns=["what", "error", "low", "high", "kind"])
    alt = "; ".join(f"{name}: {error:.2f} %" for name, error, *_ in rows)
    return [figure_html(figures.comparison_figure(table, palette=IN_PAGE, width=width), f"errors-{css}", alt=alt,
                        css=css) for width, css in ((8.6, "wide-only"), (4.3, "narrow-only"))]


def _losses(names: Sequence[str], results: Sequence[Result]) -> list[tuple[str, Markup]]:
    """Validation losses of each phase and direction, of the first runs."""
    cards, order = [], names[:MOST_LINES]
    more = f", the first {MOST_LINES} runs" if len(names) > MOST_LINES else ""
    for phase in figures.PHASES:
        for direction in ("forward", "backward"):
            every = {name: _epochs(result, phase, direction) for name, result in zip(order, results)}
            kinds = {name: result.kind if phase == "classifier" else "" for name, result in zip(order, results)}
            for kind in dict.fromkeys(kinds.values()):  # losses of another kind are no smaller or larger
                found = {name: rows for name, rows in every.items() if len(rows) and kinds[name] == kind}
                if found:
                    ends = "; ".join(f"{name} ends at {number(rows['valid_loss'].iloc[-1], 3)}"
                                     for name, rows in found.items())
                    drawn = several_losses_figure(found, phase, order, palette=IN_PAGE)
                    title = f"{direction}{_KINDS[kind] if len({*kinds.values()}) > 1 else ''}{more}"
                    cards.append((title, figure_html(drawn, f"losses-{phase}-{direction}-{kind}", alt=ends)))
    return cards


_KINDS = {"": "", "single": ", one class a text", "multi": ", several classes a text", "regression": ", numbers"}


def _epochs(result: Result, phase: str, direction: str) -> pd.DataFrame:
    history = result.history
    return history[(history["phase"] == phase) & (history["direction"] == direction)]


def _recipes(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Fields in which the recipes differ, with each run's value."""
    flat = [_flat(completed(result.recipe_dict)) for result in results]
    fields = [name for name in dict.fromkeys(name for one in flat for name in one)
              if len({repr(one.get(name)) for one in flat}) > 1]
    return [(name, *(_short(one.get(name)) for one in flat)) for name in fields[:MOST_FIELDS]]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: one for part, inner in value.items()
                for key, one in _flat(inner, f"{name}.{part}".strip(".")).items()}
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return {key: one for i, inner in enumerate(value) for key, one in _flat(inner, f"{name}.{i}").items()}
    return {name: value}


def _short(value: Any) -> str:
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _seconds(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Time of each direction's phases, run by run, and of the whole runs."""
    sums: list[dict[tuple[str, str], float]] = []
    for result in results:
        found: dict[tuple[str, str], float] = {}
        for stage in result.run.get("stages") or []:
            key = stage["direction"], stage["phase"]
            found[key] = found.get(key, 0.0) + (stage.get("seconds") or 0.0)
        sums.append(found)
    rows = [(f"{direction}, {figures.show_name(phase).split(' · ')[-1]}",
             *(duration(one[direction, phase]) if (direction, phase) in one else "" for one in sums))
            for direction, phase in dict.fromkeys(key for one in sums for key in one)]
    return [*rows, ("the whole run", *(duration(result.seconds) for result in results))]


def _pairs(names: Sequence[str], results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Of two runs on the same texts: on how many only one is right, and McNemar's exact test of that."""
    from scipy.stats import binomtest

    right = {name: _right(result) for name, result in zip(names, results)}
    rows: list[tuple[str, ...]] = []
    for (a, one), (b, other) in combinations(((n, r) for n, r in right.items() if r is not None), 2):
        if not one.index.equals(other.index):
            continue
        only_a, only_b = int((one & ~other).sum()), int((other & ~one).sum())
        p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        rows.append((a, b, f"{only_a:,}", f"{only_b:,}", f"{p:.2g}"))
    return rows


def _right(result: Result) -> pd.Series | None:
    """Whether each text was right, by its id and label; None where a run has no predictions of classes."""
    if result.predictions is None:
        return None
    frame = result.predictions
    right = (result.probabilities().argmax(axis=1) == result.labels)
    return pd.Series(right, index=pd.MultiIndex.from_frame(frame[["id", "label"]])).sort_index()


def _doubts(results: Sequence[Result]) -> list[str]:
    """What must be said before the runs are compared."""
    said = []
    if len({result.data.get("fingerprint") for result in results}) > 1:
        said.append("The runs are of different texts: their errors are not of the same thing.")
    elif len({(result.evaluated, result.n_test) for result in results if result.headline}) > 1:
        said.append("The runs are measured on different parts of the data, or on different numbers of texts.")
    if len({result.kind for result in results}) > 1:
        said.append("The runs have labels of different kinds.")
    return said
