"""Figures of a run: rates with the unfreezing, losses, confusion, calibration, the result among others.

Plain matplotlib Figures, without pyplot and its global state. Each `draw_*` fills axes it is given, so that the same
drawing serves a notebook, a page and a phone. Colours come from a `Palette`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from .verdict import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..recipe.recipe import Phase
    from .result import Result

__all__ = ["LIGHT", "Palette", "comparison_figure", "group_names", "losses_figure", "plot_schedule", "rates_figure",
           "reliability_figure", "run_figure", "show_name"]

PHASES = {"pretrain": "1 · Pretraining", "lm": "2 · Language model fine-tuning", "classifier": "3 · Classifier"}


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for; `groups` runs from the input's group (cool) to the last (warm)."""

    ink: str = "#1c2430"
    muted: str = "#667085"
    grid: str = "#dfe3ea"
    accent: str = "#1d5fbf"
    second: str = "#c2571a"
    groups: tuple[str, ...] = ("#3b5ba9", "#2a8c9e", "#5a9e4b", "#c99417", "#c9482f")

    def group(self, number: int, n_groups: int) -> str:
        """Colour of a layer group, spread over the palette so that the last group always has the last colour."""
        if n_groups <= 1:
            return self.groups[-1]
        return self.groups[round(number * (len(self.groups) - 1) / (n_groups - 1))]


LIGHT = Palette()


class _Shown(Figure):
    """A Figure that a notebook shows by itself; without pyplot nothing else would have told it how."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=144)
        return data.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Our drawing defaults, whatever the user's matplotlib style is (a dark one would give white text on white)."""
    ours: dict[Any, Any] = {
        "font.size": 9.5, "font.family": ["sans-serif"], "axes.titlesize": 10.5, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5, "legend.frameon": False, "axes.unicode_minus": False, "lines.linewidth": 1.7,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in ours.items():
            matplotlib.rcParams[name] = value
        yield


def group_names(phase: str, n_groups: int) -> list[str]:
    """fastai's layer groups by name, the input's first: n_layers + 1 in a language model, + 2 in the classifier."""
    if phase == "classifier":
        return ["embedding", *(f"LSTM {i + 1}" for i in range(n_groups - 2)), "head"]
    return [*(f"LSTM {i + 1}" for i in range(n_groups - 1)), "emb. + decoder"]


def show_name(phase: str) -> str:
    """A phase as people call it, with its number in the paper."""
    return PHASES.get(phase, phase)


# ------------------------------------------------------------------------------------------------- rates and unfreezing
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
    curves.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    curves.yaxis.set_minor_formatter(NullFormatter())
    curves.set_ylabel("learning rate")
    curves.set_title(show_name(phase) if title is None else title, color=palette.ink)
    curves.tick_params(labelbottom=False)
    strip.set_yticks(range(len(groups)), names)
    strip.set_ylim(-0.6, len(groups) - 0.4)
    strip.set_xlim(0, max(last, 1))
    strip.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    strip.xaxis.set_major_formatter(FuncFormatter(_thousands))
    strip.set_xlabel("training step")
    _plain(curves, palette)
    _plain(strip, palette, grid=False)
    strip.tick_params(axis="y", length=0)


def rates_figure(rates: pd.DataFrame, phase: str, *, palette: Palette = LIGHT, size: tuple[float, float] = (5.4, 3.9),
                 title: str | None = None) -> Figure:
    """Rates of one phase of one direction (rows of rates.csv, or of `freezing.simulate`)."""
    n_groups = max(rates["group"].nunique(), 1)
    with _style():
        figure = _Shown(figsize=size, layout="constrained")
        curves, strip = figure.subplots(2, 1, sharex=True, height_ratios=[1, 0.12 + 0.1 * n_groups])
        draw_rates(rates, phase, curves, strip, palette, title)
    return figure


def plot_schedule(phase: Phase, n_groups: int, steps_per_epoch: int, *, name: str = "classifier",
                  size: tuple[float, float] = (6.4, 4.2)) -> Figure:
    """A phase's rates and unfreezing before anything is trained; `name` is 'pretrain', 'lm' or 'classifier'."""
    from ..recipe.freezing import simulate

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


# --------------------------------------------------------------------------------------------------------------- losses
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
    _plain(axes, palette)


def losses_figure(history: pd.DataFrame, phase: str, *, palette: Palette = LIGHT,
                  size: tuple[float, float] = (5.4, 2.9), title: str | None = None) -> Figure:
    """Losses of one phase (rows of history.csv), all directions in one drawing."""
    with _style():
        figure = _Shown(figsize=size, layout="constrained")
        draw_losses(history, phase, figure.subplots(), palette, title)
    return figure


# -------------------------------------------------------------------------------------------- confusion and calibration
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
    names = [_short(name, 14) for name in counts.index]
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 7 else 60)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title("Confusion", color=palette.ink)
    _plain(axes, palette, grid=False)
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
    counts.yaxis.set_major_formatter(FuncFormatter(_thousands))
    counts.set_ylabel("texts")
    counts.set_xlabel("probability of the predicted class")
    counts.set_xlim(low, 1)
    for axis in (bars.yaxis, counts.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    _plain(bars, palette)
    _plain(counts, palette)


def reliability_figure(table: pd.DataFrame, error: float, *, palette: Palette = LIGHT,
                       size: tuple[float, float] = (5.4, 3.6)) -> Figure:
    """Reliability diagram from `Result.calibration()` and `Result.calibration_error()`."""
    with _style():
        figure = _Shown(figsize=size, layout="constrained")
        bars, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        draw_reliability(table, error, bars, counts, palette)
    return figure


# ---------------------------------------------------------------------------------------------- the result among others
def comparison_figure(table: pd.DataFrame, *, palette: Palette = LIGHT, width: float = 7.6) -> Figure:
    """Errors of `Result.table()` on one axis, best on top, with 95 % intervals; this run in colour."""
    rows = table.sort_values("error", ascending=False, kind="stable").reset_index(drop=True)
    with _style():
        figure = _Shown(figsize=(width, 0.75 + 0.3 * len(rows)), layout="constrained")
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
        axes.set_yticks(range(len(rows)), [_short(name, 36) for name in rows["what"]])
        for label, kind in zip(axes.get_yticklabels(), rows["kind"], strict=True):
            label.set_fontweight("bold" if kind == "this run" else "normal")
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(0, float(np.nanmax(rows[["error", "high"]].to_numpy(float))) * 1.12 + 0.1)
        axes.set_xlabel("error, %")
        axes.xaxis.set_major_locator(MaxNLocator(8 if width > 6 else 5, steps=[1, 2, 5, 10]))
        _plain(axes, palette)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        for label, kind in zip(axes.get_yticklabels(), rows["kind"], strict=True):
            label.set_color(palette.ink if kind == "this run" else palette.muted)
    return figure


def run_figure(result: Result, *, palette: Palette = LIGHT) -> Figure:
    """Rates with unfreezing (first direction), losses (all), confusion: what `Result.plot()` shows."""
    rates, history = result.rates, result.history
    phases = [p for p in PHASES if p in set(rates["phase"]) | set(history["phase"])]
    if not phases:
        raise ValueError(f"{result.folder}: nothing to plot yet (status: {result.status}).")
    direction = next(iter(dict.fromkeys(rates["direction"])), None)
    with _style():
        figure = _Shown(figsize=(5.2 * len(phases) + (3.6 if result.probs else 0), 6.6), layout="constrained")
        widths = [5.2] * len(phases) + ([3.6] if result.probs else [])
        grid = figure.add_gridspec(3, len(widths), width_ratios=widths, height_ratios=[1.5, 0.9, 1.5])
        for column, phase in enumerate(phases):
            part = rates[(rates["phase"] == phase) & (rates["direction"] == direction)]
            if len(part):
                strip = figure.add_subplot(grid[1, column])
                draw_rates(part, phase, figure.add_subplot(grid[0, column], sharex=strip), strip, palette)
            if (history["phase"] == phase).any():
                losses = figure.add_subplot(grid[2, column])
                draw_losses(history[history["phase"] == phase], phase, losses, palette, "Losses")
        if result.probs:
            draw_confusion(result.confusion(), figure.add_subplot(grid[0:2, -1]), palette)
    return figure


# ----------------------------------------------------------------------------------------------------------- small help
def _plain(axes: Axes, palette: Palette, *, grid: bool = True) -> None:
    """Axes as quiet as they can be: no box, thin lines, labels in the palette's colours."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.grid)
    axes.tick_params(which="both", colors=palette.muted, color=palette.grid, labelcolor=palette.muted, length=3)
    axes.tick_params(which="minor", length=0)
    axes.xaxis.label.set_color(palette.muted)
    axes.yaxis.label.set_color(palette.muted)
    axes.set_axisbelow(True)
    axes.grid(visible=False)
    if grid:
        axes.grid(axis="both", color=palette.grid, linewidth=0.8)


def _thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 and value % 100 == 0 else f"{value:g}"


def _power_of_ten(value: float, _: Any = None) -> str:
    """0.01 as it is, smaller as 10⁻⁴: in plain characters, since matplotlib's own are drawings in an SVG."""
    power = round(np.log10(value))
    return f"{value:g}" if power >= -2 else "10⁻" + str(-power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _short(name: Any, length: int) -> str:
    text = str(name)
    return text if len(text) <= length else text[: length - 1] + "…"
