"""Figures of a run: rates with the unfreezing, losses, confusion, calibration, the result among others.

Plain matplotlib Figures, without pyplot and its global state. Each `draw_*` fills axes it is given, so that the same
drawing serves a notebook, a page and a phone. Colours come from a `Palette`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from .drawing import LIGHT, Palette, Shown, plain_axes, power_of_ten, shortened, style, thousands
from .intervals import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..recipe.parts import Phase

PHASES = {"pretrain": "1 · Pretraining", "lm": "2 · Language model fine-tuning", "classifier": "3 · Classifier"}


def group_names(phase: str, n_groups: int) -> list[str]:
    """fastai's layer groups by name, the input's first: n_layers + 1 in a language model, + 2 in the classifier."""
    if phase == "classifier":
        return ["embedding", *(f"LSTM {i + 1}" for i in range(n_groups - 2)), "head"]
    return [*(f"LSTM {i + 1}" for i in range(n_groups - 1)), "emb. + decoder"]


def show_name(phase: str) -> str:
    """A phase as people call it, with its number in the paper."""
    return PHASES.get(phase, phase)


def draw_rates(rates: pd.DataFrame, phase: str, curves: Axes, strip: Axes, palette: Palette = LIGHT,
               title: str | None = None) -> None:
    """Above, every group's rate over the steps while it trains; below, when it trains: one bar a group, head on top."""
    groups = sorted(rates["group"].unique(), key=int)
    names = group_names(phase, len(groups))
    last = float(rates["step"].max())
    starts = rates.groupby("stage", sort=False)["step"].min().sort_values()
    for number, group in enumerate(groups):
        rows = rates[rates["group"] == group].sort_values("step")
        on = rows["trainable"].to_numpy(bool) & (rows["lr"].to_numpy(float) > 0)
        step, colour = rows["step"].to_numpy(float), palette.group(number, len(groups))
        curves.plot(step, np.where(on, rows["lr"].to_numpy(float), np.nan), color=colour, zorder=3,
                    solid_capstyle="round")
        spans = _spans(step, on, last)
        strip.broken_barh(spans, (number - 0.34, 0.68), color=colour, zorder=3, linewidth=0)
        if on.any() and spans[0][0] > 0:  # where it is unfrozen
            curves.plot(spans[0][0], rows["lr"].to_numpy(float)[on][0], "o", color=colour, markersize=4.5, zorder=4)
    for start in starts.iloc[1:]:
        for axes in (curves, strip):
            axes.axvline(start, color=palette.muted, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    curves.set_yscale("log")
    curves.yaxis.set_major_locator(LogLocator(numticks=6))
    curves.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    curves.yaxis.set_minor_formatter(NullFormatter())
    curves.set_ylabel("learning rate")
    curves.set_title(show_name(phase) if title is None else title, color=palette.ink)
    curves.tick_params(labelbottom=False)
    strip.set_yticks(range(len(groups)), names)
    strip.set_ylim(-0.6, len(groups) - 0.4)
    strip.set_xlim(0, max(last, 1))
    strip.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    strip.xaxis.set_major_formatter(FuncFormatter(thousands))
    strip.set_xlabel("training step")
    plain_axes(curves, palette)
    plain_axes(strip, palette, grid=False)
    strip.tick_params(axis="y", length=0)


def rates_figure(rates: pd.DataFrame, phase: str, *, palette: Palette = LIGHT, size: tuple[float, float] = (5.4, 3.9),
                 title: str | None = None) -> Figure:
    """Rates of one phase of one direction (rows of rates.csv, or of `rates.simulate`)."""
    n_groups = max(rates["group"].nunique(), 1)
    with style():
        figure = Shown(figsize=size, layout="constrained")
        curves, strip = figure.subplots(2, 1, sharex=True, height_ratios=[1, 0.12 + 0.1 * n_groups])
        draw_rates(rates, phase, curves, strip, palette, title)
    return figure


def plot_schedule(phase: Phase, n_groups: int, steps_per_epoch: int, *, name: str = "classifier",
                  size: tuple[float, float] = (6.4, 4.2)) -> Figure:
    """A phase's rates and unfreezing before anything is trained; `name` is 'pretrain', 'lm' or 'classifier'."""
    from ..recipe.rates import simulate

    return rates_figure(simulate(phase, n_groups, steps_per_epoch), name, size=size)


def _spans(step: np.ndarray, on: np.ndarray, last: float) -> list[tuple[float, float]]:
    """(start, length) of each stretch in which a group trains; a stretch reaches to the next sample's step."""
    ends = np.append(step[1:], last)
    spans: list[tuple[float, float]] = []
    for start, end, trains in zip(step, ends, on, strict=True):
        if not trains:
            continue
        if spans and spans[-1][0] + spans[-1][1] >= start:
            spans[-1] = (spans[-1][0], end - spans[-1][0])
        else:
            spans.append((start, end - start))
    return spans or [(0.0, 0.0)]


def draw_losses(history: pd.DataFrame, phase: str, axes: Axes, palette: Palette = LIGHT,
                title: str | None = None) -> None:
    """Training and validation loss per epoch; the directions side by side, backward dashed."""
    directions = list(dict.fromkeys(history["direction"]))
    for direction in directions:
        rows = history[history["direction"] == direction]
        epochs = np.arange(1, len(rows) + 1)
        dashes: Any = "-" if direction == "forward" or len(directions) == 1 else (0, (4, 2))
        suffix = f", {direction}" if len(directions) > 1 else ""
        for column, colour, name in (("train_loss", palette.muted, "training"),
                                     ("valid_loss", palette.accent, "validation")):
            values = pd.to_numeric(rows[column], errors="coerce").to_numpy(float)
            if np.isfinite(values).any():
                axes.plot(epochs, values, color=colour, linestyle=dashes, marker="o", markersize=3.2, zorder=3,
                          label=f"{name}{suffix}")
    stages = history[history["direction"] == directions[0]]["stage"].to_numpy()
    for epoch in np.flatnonzero(stages[1:] != stages[:-1]) + 1:
        axes.axvline(epoch + 0.5, color=palette.muted, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    axes.set_title(show_name(phase) if title is None else title, color=palette.ink)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats a word)" if phase != "classifier" else "loss (nats a text)")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.margins(x=0.06, y=0.12)
    legend = axes.legend(loc="best", handlelength=2.2, labelspacing=0.3)
    for text in legend.get_texts():
        text.set_color(palette.muted)
    plain_axes(axes, palette)


def losses_figure(history: pd.DataFrame, phase: str, *, palette: Palette = LIGHT,
                  size: tuple[float, float] = (5.4, 2.9), title: str | None = None) -> Figure:
    """Losses of one phase (rows of history.csv), all directions in one drawing."""
    with style():
        figure = Shown(figsize=size, layout="constrained")
        draw_losses(history, phase, figure.subplots(), palette, title)
    return figure


def draw_confusion(counts: pd.DataFrame, axes: Axes, palette: Palette = LIGHT) -> None:
    """Counts, shaded by their share of the row (the true class)."""
    values = counts.to_numpy(float)
    share = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    shade = matplotlib.colors.LinearSegmentedColormap.from_list("share", ["#ffffff", palette.accent])
    axes.imshow(share, cmap=shade, vmin=0, vmax=1, aspect="auto")
    if len(counts) <= 14:
        for row, column in np.ndindex(values.shape):
            axes.text(column, row, f"{values[row, column]:,.0f}", ha="center", va="center",
                      color="white" if share[row, column] > 0.55 else palette.ink)
    names = [shortened(name, 14) for name in counts.index]
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 7 else 60)
    axes.set_yticks(range(len(names)), names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a class may be called $, and these axes be of another style
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title("Confusion", color=palette.ink)
    plain_axes(axes, palette, grid=False)
    axes.tick_params(length=0)


def draw_reliability(table: pd.DataFrame, error: float, bars: Axes, counts: Axes, palette: Palette = LIGHT) -> None:
    """Above, accuracy at each confidence against the diagonal; below, how many texts have that confidence."""
    low = float(table["low"].min()) if len(table) else 0.0
    bars.plot([low, 1], [low, 1], color=palette.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    for _, row in table.iterrows():
        ends = [end / 100 for end in wilson_interval(int(row["n"] - row["wrong"]), int(row["n"]))]
        bars.plot([row["confidence"]] * 2, ends, color=palette.accent, linewidth=3, alpha=0.3, zorder=3)
    bars.plot(table["confidence"], table["accuracy"], "o-", color=palette.accent, markersize=4, zorder=4)
    bars.text(0.98, 0.06, f"ECE {100 * error:.1f} %", transform=bars.transAxes, ha="right", color=palette.ink)
    bars.set_ylim(top=1.03)
    bars.set_ylabel("share right")
    bars.tick_params(labelbottom=False)
    counts.bar(table["low"], table["n"], width=table["high"] - table["low"], align="edge", color=palette.accent,
               alpha=0.35, zorder=3, linewidth=0)
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.8)
    counts.yaxis.set_major_locator(LogLocator(numticks=3))
    counts.yaxis.set_minor_formatter(NullFormatter())
    counts.yaxis.set_major_formatter(FuncFormatter(thousands))
    counts.set_ylabel("texts")
    counts.set_xlabel("probability of the predicted class")
    counts.set_xlim(low, 1)
    for axis in (bars.yaxis, counts.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    plain_axes(bars, palette)
    plain_axes(counts, palette)


def reliability_figure(table: pd.DataFrame, error: float, *, palette: Palette = LIGHT,
                       size: tuple[float, float] = (5.4, 3.6)) -> Figure:
    """Reliability diagram from `Result.calibration()` and `Result.calibration_error()`."""
    with style():
        figure = Shown(figsize=size, layout="constrained")
        bars, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        draw_reliability(table, error, bars, counts, palette)
    return figure


def comparison_figure(table: pd.DataFrame, *, palette: Palette = LIGHT, width: float = 7.6) -> Figure:
    """Errors of `Result.table()` on one axis, best on top, with 95 % intervals; this run in colour."""
    rows = table.sort_values("error", ascending=False, kind="stable").reset_index(drop=True)
    with style():
        figure = Shown(figsize=(width, 0.75 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, row in rows.iterrows():
            ours = row["kind"] == "this run"
            colour = palette.accent if ours else palette.second if row["kind"] == "paper" else palette.muted
            if np.isfinite(row["low"]):
                axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=4, alpha=0.3, zorder=2,
                          solid_capstyle="round")
            axes.plot(row["error"], y, "o" if row["kind"] != "paper" else "D", color=colour,
                      markersize=7 if ours else 5.5, zorder=3)
            axes.annotate(f"{row['error']:.2f}", (np.nanmax([row["error"], row["high"]]), y), xytext=(7, 0),
                          textcoords="offset points", va="center", color=colour,
                          fontweight="bold" if ours else "normal")
        axes.set_yticks(range(len(rows)), [shortened(name, 36) for name in rows["what"]])
        for label, kind in zip(axes.get_yticklabels(), rows["kind"], strict=True):
            label.set_fontweight("bold" if kind == "this run" else "normal")
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(0, float(np.nanmax(rows[["error", "high"]].to_numpy(float))) * 1.12 + 0.1)
        axes.set_xlabel("error, %")
        axes.xaxis.set_major_locator(MaxNLocator(8 if width > 6 else 5, steps=[1, 2, 5, 10]))
        plain_axes(axes, palette)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        for label, kind in zip(axes.get_yticklabels(), rows["kind"], strict=True):
            label.set_color(palette.ink if kind == "this run" else palette.muted)
    return figure


def run_figure(rates: pd.DataFrame, history: pd.DataFrame, confusion: pd.DataFrame | None = None, *,
               palette: Palette = LIGHT) -> Figure:
    """Rates with unfreezing (first direction), losses (all), confusion: what `Result.plot()` shows.

    `rates` and `history` are those of a run folder, with a row or more; `confusion`: true classes by predicted ones.
    """
    phases = [p for p in PHASES if p in set(rates["phase"]) | set(history["phase"])]
    direction = next(iter(dict.fromkeys(rates["direction"])), None)
    with style():
        figure = Shown(figsize=(5.2 * len(phases) + (3.6 if confusion is not None else 0), 6.6), layout="constrained")
        widths = [5.2] * len(phases) + ([3.6] if confusion is not None else [])
        grid = figure.add_gridspec(3, len(widths), width_ratios=widths, height_ratios=[1.5, 0.9, 1.5])
        for column, phase in enumerate(phases):
            part = rates[(rates["phase"] == phase) & (rates["direction"] == direction)]
            if len(part):
                strip = figure.add_subplot(grid[1, column])
                draw_rates(part, phase, figure.add_subplot(grid[0, column], sharex=strip), strip, palette)
            if (history["phase"] == phase).any():
                losses = figure.add_subplot(grid[2, column])
                draw_losses(history[history["phase"] == phase], phase, losses, palette, "Losses")
        if confusion is not None:
            draw_confusion(confusion, figure.add_subplot(grid[0:2, -1]), palette)
    return figure
