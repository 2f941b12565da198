"""Figures of the experiments: a table's errors beside the paper's, error against labels, error per epoch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .._files import write_bytes_atomic
from ..results.drawing import LIGHT, Palette, Shown, plain_axes, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as `path`.png and `path`.svg, each whole or not at all; the same figure gives the same files."""
    written = []
    for kind in ("png", "svg"):
        data = io.BytesIO()
        # Without a date, and with its ids drawn from a fixed word, an SVG is the same each time.
        with style():
            import matplotlib

            matplotlib.rcParams["svg.hashsalt"] = "ulmfit_fastai"
            figure.savefig(data, format=kind, dpi=144, metadata={"Date": None} if kind == "svg" else None)
        written.append(write_bytes_atomic(Path(f"{path}.{kind}"), data.getvalue()))
    return written


def table_figure(rows: pd.DataFrame, errors: Mapping[str, Mapping[int, float]], *, title: str, measured_on: str,
                 palette: Palette = LIGHT, width: float = 7.2) -> Figure:
    """The rows in the paper's order: the paper's error a diamond, our mean a dot with its spread, seeds small dots.

    `rows` and `errors` are those of an `AblationTable`: a row each, and its error by seed.
    """
    rows = rows.iloc[::-1].reset_index(drop=True)
    with style():
        figure = Shown(figsize=(width, 1.1 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, row in rows.iterrows():
            for error in errors[row["row"]].values():
                axes.plot(error, y, "o", color=palette.accent, markersize=3, alpha=0.45, zorder=3, linewidth=0)
            if np.isfinite(row["sd"]):
                axes.plot([row["error"] - row["sd"], row["error"] + row["sd"]], [y, y], color=palette.accent,
                          linewidth=4, alpha=0.3, zorder=2, solid_capstyle="round")
            axes.plot(row["error"], y, "o", color=palette.accent, markersize=7, zorder=4,
                      label="ours, mean ± sd over seeds" if y == 0 else None)
            axes.plot(row["paper"], y, "D", color=palette.second, markersize=5.5, zorder=4,
                      label="paper" if y == 0 else None)
        axes.set_yticks(range(len(rows)), rows["label"])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{measured_on} error, %")
        axes.set_title(title, color=palette.ink)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        plain_axes(axes, palette)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        _legend(axes, palette, loc="lower right")
    return figure


def labels_figure(points: pd.DataFrame, names: Mapping[str, str], *, title: str, palette: Palette = LIGHT,
                  size: tuple[float, float] = (6.6, 4.4)) -> Figure:
    """Figure 3: error against the number of labels, both logarithmic; rows of `LowShot.points`, a line for each kind.

    `names` maps kinds to what the legend calls them, in its order. Baselines (bags of words) are dashed.
    """
    colours = [palette.muted, palette.groups[3], palette.accent, palette.groups[4], palette.groups[2]]
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        for (kind, name), colour in zip(names.items(), colours):
            rows = points[(points["kind"] == kind) & points["error"].notna()].sort_values("labels")
            if not len(rows):
                continue
            x, y, sd = (rows[column].to_numpy(float) for column in ("labels", "error", "sd"))
            dashes: Any = (0, (4, 2)) if kind in ("tfidf", "nbsvm") else "-"
            axes.plot(x, y, color=colour, linestyle=dashes, marker="o", markersize=5, zorder=4, label=name)
            spread = np.where(np.isfinite(sd), sd, 0.0)
            axes.fill_between(x, np.maximum(y - spread, 0.05), y + spread, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted(points["labels"].unique())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(_ticks(points["error"].dropna()))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("labelled training texts")
        axes.set_ylabel("validation error, %")
        axes.set_title(title, color=palette.ink)
        plain_axes(axes, palette)
        _legend(axes, palette)
    return figure


def epochs_figure(curves: Mapping[str, Sequence[pd.DataFrame]], *, title: str, palette: Palette = LIGHT,
                  size: tuple[float, float] = (6.6, 4.0)) -> Figure:
    """Figure 4: validation error per epoch; {name: one frame (epoch, error) a seed}, the mean of the seeds thick."""
    with style():
        figure = Shown(figsize=size, layout="constrained")
        axes = figure.subplots()
        for (name, seeds), colour in zip(curves.items(), (palette.second, palette.accent, palette.muted)):
            for frame in seeds if len(seeds) > 1 else ():
                axes.plot(frame["epoch"], frame["error"], color=colour, linewidth=0.8, alpha=0.4, zorder=2)
            if seeds:
                mean = pd.concat(list(seeds)).groupby("epoch")["error"].mean()
                axes.plot(mean.index, mean, color=colour, marker="o", markersize=3.5, zorder=4, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation error, %")
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_title(title, color=palette.ink)
        plain_axes(axes, palette)
        _legend(axes, palette)
    return figure


def _ticks(errors: pd.Series) -> list[float]:
    """Round numbers that span the errors, for a logarithmic axis."""
    low, high = float(errors.min()), float(errors.max())
    steps = [step * 10.0**power for power in (-1, 0, 1, 2) for step in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    chosen = [tick for tick in steps if low * 0.85 <= tick <= min(high * 1.15, 100)]
    return chosen or [low]


def _legend(axes: Axes, palette: Palette, **where: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        for text in axes.legend(**{"loc": "best", **where}).get_texts():
            text.set_color(palette.muted)
