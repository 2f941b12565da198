"""Figures of how a run does and how it got there: ROC, precision and recall, numbers against labels, loss by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from .drawing import LIGHT, Palette, Shown, plain_axes, shortened, style, thousands
from .figures import show_name
from .ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 5
"""Of classes or runs in one drawing: as many as there are colours that are told apart."""
MOST_POINTS = 1500
"""In a cloud or a line: an inline drawing of more would be slow to open."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))
"""Lines are told apart without their colours too."""


def _some(n: int, most: int = MOST_POINTS) -> np.ndarray:
    """Numbers of at most so many of n points, evenly, the last one among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)) if n else np.arange(0)


def _legend(axes: Axes, palette: Palette, place: str = "best") -> None:
    legend = axes.legend(loc=place, handlelength=2.4, labelspacing=0.3)  # type: ignore[call-overload]
    for text in legend.get_texts():
        text.set_color(palette.muted)
        text.set_parse_math(False)  # a class may be called $


def _line(palette: Palette, number: int, of: int) -> dict[str, Any]:
    """Colour and dashes of a line among several."""
    colour = palette.accent if of == 1 else palette.group(number, of)
    return {"color": colour, "linestyle": _DASHES[number % len(_DASHES)], "zorder": 3}


def roc_figure(found: Mapping[str, Ranking], *, palette: Palette = LIGHT,
               size: tuple[float, float] = (4.6, 3.4)) -> Figure:
    """True positives against false ones, a line a class, in a square."""
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=1, linestyle=(0, (1, 2)), zorder=2)
        _curves(axes, {f"{shortened(name, 18)}, AUC {one.auc:.3f}": one.roc for name, one in found.items()}, palette)
        axes.set_xlabel("false positives, of the texts of other classes")
        axes.set_ylabel("true positives")
        _legend(axes, palette, "lower right")
    return figure


def precision_recall_figure(found: Mapping[str, Ranking], *, palette: Palette = LIGHT,
                            size: tuple[float, float] = (4.6, 3.4)) -> Figure:
    """Precision against recall, a line a class; of a single one also what a guess would have."""
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        if len(found) == 1:
            axes.axhline(next(iter(found.values())).share, color=palette.muted, linewidth=1, linestyle=(0, (1, 2)))
        _curves(axes, {f"{shortened(name, 18)}, AP {one.average_precision:.3f}": one.precision_recall
                       for name, one in found.items()}, palette)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        _legend(axes, palette, "lower left")
    return figure


def _curves(axes: Axes, found: Mapping[str, Sequence[np.ndarray]], palette: Palette) -> None:
    """Lines of points (x, y) by what the legend says of them, in the unit square."""
    for number, (said, (x, y)) in enumerate(found.items()):
        kept = _some(len(x), 300)
        axes.plot(x[kept], y[kept], **_line(palette, number, len(found)), label=said)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    plain_axes(axes, palette)


def scatter_figure(truth: np.ndarray, predicted: np.ndarray, *, palette: Palette = LIGHT,
                   size: tuple[float, float] = (4.6, 3.4)) -> Figure:
    """Predicted numbers against the labels; on the diagonal they are right."""
    kept = _some(len(truth))
    low, high = (float(end(np.concatenate([truth, predicted]))) for end in (np.min, np.max))
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=palette.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
        axes.plot(truth[kept], predicted[kept], "o", color=palette.accent, markersize=3.5, alpha=0.45, zorder=3,
                  markeredgewidth=0)
        axes.set_xlabel("label")
        axes.set_ylabel("predicted")
        plain_axes(axes, palette)
    return figure


def residuals_figure(truth: np.ndarray, predicted: np.ndarray, *, palette: Palette = LIGHT,
                     size: tuple[float, float] = (4.6, 3.4)) -> Figure:
    """Above, how far off each prediction is; below, how many are so far off."""
    kept, residuals = _some(len(truth)), predicted - truth
    with style():
        figure = Shown(figsize=size, layout="constrained")
        points, counts = figure.subplots(2, 1, height_ratios=[2, 1])
        points.axhline(0, color=palette.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
        points.plot(predicted[kept], residuals[kept], "o", color=palette.accent, markersize=3.5, alpha=0.45, zorder=3,
                    markeredgewidth=0)
        points.set_xlabel("predicted")
        points.set_ylabel("residual")
        counts.hist(residuals, bins=min(30, max(5, round(len(residuals) ** 0.5))), color=palette.accent, alpha=0.45,
                    zorder=3)
        counts.axvline(0, color=palette.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=4)
        counts.set_xlabel("residual: predicted less label")
        counts.set_ylabel("texts")
        counts.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axes in (points, counts):
            plain_axes(axes, palette)
    return figure


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Losses as fastai's bar shows them, each with what came before it fading by 2 % a step."""
    return pd.Series(losses).ewm(alpha=0.02, adjust=True).mean().to_numpy()


def steps_figure(records: Mapping[str, Mapping[str, Any]], phase: str, *, perplexity: bool = False,
                 training: bool = True, palette: Palette = LIGHT, size: tuple[float, float] = (4.6, 2.9)) -> Figure:
    """Training loss of every step, smoothed, with the validation loss at the end of each epoch.

    Args:
        records: direction -> what `recorder.read_record` gives.
        perplexity: exp(loss) on a logarithmic axis.
        training: False draws the validation texts only, where a step's loss is another quantity.
    """
    shape = np.exp if perplexity else np.asarray
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        for number, (direction, record) in enumerate(records.items()):
            suffix = f", {direction}" if len(records) > 1 else ""
            _draw_steps(axes, record, shape, palette, suffix, _DASHES[number], training=training)
        if perplexity:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(thousands))
        axes.set_ylabel("perplexity" if perplexity else "loss" if phase == "classifier" else "loss (nats a word)")
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(thousands))
        axes.margins(x=0.03, y=0.1)
        plain_axes(axes, palette)
        _legend(axes, palette)
    return figure


def _draw_steps(axes: Axes, record: Mapping[str, Any], shape: Any, palette: Palette, suffix: str, dashes: Any, *,
                training: bool) -> None:
    losses = np.asarray(record["losses"], dtype=float)
    kept = _some(len(losses), 400)
    if training and len(losses):
        axes.plot(kept + 1, shape(smoothed(losses)[kept]), color=palette.muted, linestyle=dashes, linewidth=1.3,
                  label=f"training{suffix}", zorder=2)
    values = np.asarray(record["values"], dtype=float)
    column = [*record["names"]][1:].index("valid_loss") if "valid_loss" in [*record["names"]][1:] else None
    if column is not None and values.ndim == 2 and np.isfinite(values[:, column]).any():
        axes.plot(np.asarray(record["iters"]), shape(values[:, column]), "o", color=palette.accent, linestyle=dashes,
                  markersize=4, label=f"held out{suffix}", zorder=3)


def several_losses_figure(histories: Mapping[str, pd.DataFrame], phase: str, order: Sequence[str], *,
                          palette: Palette = LIGHT, size: tuple[float, float] = (4.6, 3.0)) -> Figure:
    """Validation loss per epoch of several runs, a line a run; `order` gives each name its colour in all drawings."""
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        for name, rows in histories.items():
            values = pd.to_numeric(rows["valid_loss"], errors="coerce").to_numpy(float)
            axes.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3.2, label=shortened(name, 24),
                      **_line(palette, order.index(name), max(2, len(order))))
        axes.set_title(show_name(phase), color=palette.ink)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation loss")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.margins(x=0.06, y=0.12)
        plain_axes(axes, palette)
        _legend(axes, palette)
    return figure
