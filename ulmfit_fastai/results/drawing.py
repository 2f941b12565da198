"""What every figure shares: colours, axes, numbers on them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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


class Shown(Figure):
    """A Figure that a notebook shows by itself; without pyplot nothing else would have told it how."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=144)
        return data.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Our drawing defaults, whatever the user's matplotlib style is (a dark one would give white text on white)."""
    ours: dict[Any, Any] = {
        "font.size": 9.5, "font.family": ["sans-serif"], "axes.titlesize": 10.5, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5, "legend.frameon": False, "axes.unicode_minus": False, "lines.linewidth": 1.7,
        "text.parse_math": False,  # a class may be called $
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in ours.items():
            matplotlib.rcParams[name] = value
        yield


def plain_axes(axes: Axes, palette: Palette, *, grid: bool = True) -> None:
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


def thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 and value % 100 == 0 else f"{value:g}"


def power_of_ten(value: float, _: Any = None) -> str:
    """0.01 as it is, smaller as 10⁻⁴: in plain characters, since matplotlib's own are drawings in an SVG."""
    power = round(np.log10(value))
    return f"{value:g}" if power >= -2 else "10⁻" + str(-power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def shortened(name: Any, length: int) -> str:
    text = str(name)
    return text if len(text) <= length else text[: length - 1] + "…"
