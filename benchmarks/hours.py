"""IMDb's error against hours on two cores: committed runs as points, the paper and others as lines.

    python -m benchmarks.hours data/results/imdb-few-labels data/results/imdb-quick ...

Hours are those of a run's stages and predictions, its directions side by side, so that the longer one counts; what a
run took over from another (`--lm-from`) is counted too, the bundled weights' own training is not. Writes
data/results/imdb-hours.json and .png: the paper's method and what goes beyond it apart.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ulmfit_fastai import paper
from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.results.drawing import LIGHT, Shown, plain_axes, style
from ulmfit_fastai.results.environment import command_line
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.results.verdict import BEYOND, differences_in_scale

ROOT = Path(__file__).parents[1]
HOURS, ERRORS = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48), (4, 5, 6, 7, 8, 10, 12, 15, 20, 30)
"""Where an axis has a number."""


@dataclass(frozen=True)
class Point:
    """A run: what it took and what it came to."""

    name: str
    hours: float
    error: float
    """In %."""
    low: float
    high: float
    """95 % interval, sampling."""
    beyond: bool
    """Whether it goes beyond the paper: adversarial training, several seeds."""
    cores: int
    """That it had: one for each direction."""


def hours_of(result: Result) -> float:
    """Hours with the directions side by side."""
    seconds = dict.fromkeys(result.directions, 0.0)
    for stage in result.run["stages"]:
        seconds[stage["direction"]] += stage["seconds"]
    for direction in result.directions:
        seconds[direction] += (result.run.get("seconds") or {}).get(f"predict_{direction}", 0.0)
    return max(seconds.values()) / 3600


def point(folder: Path) -> Point:
    """A finished run's place in the figure."""
    result = Result.load(folder)
    if result.error is None or result.interval is None or result.task != "imdb" or result.evaluated != "test":
        raise SystemExit(f"{folder}: expected a finished run on IMDb's test set")
    several = len((result.run.get("averaged") or {}).get("of") or ()) > len(result.directions)
    beyond = several or BEYOND in differences_in_scale("imdb", result.recipe_dict, result.data)
    name = result.recipe.name + (", several seeds" if several else "")
    return Point(name, hours_of(result), result.error, *result.interval, beyond, len(result.directions))


def lines(bag_of_words: float | None) -> dict[str, float]:
    """Errors in % that need no point: the paper's, others', and the bag of words'."""
    found = {"the paper, both directions": paper.BOTH_DIRECTIONS.value}
    for direction, label in (("both", "both directions"), ("forward", "forward")):  # the best of fastai's own
        errors = {each.source: error for each in paper.PUBLISHED
                  if each.fastai_v2 and (error := each.error(direction)) is not None}
        best = min(errors, key=lambda source: errors[source])
        found[f"{best}, {label}"] = errors[best]
    if bag_of_words is not None:
        found["bag of words, all labels"] = bag_of_words
    return found


def figure(points: list[Point], levels: dict[str, float]) -> Figure:
    """Points over hours on a logarithmic axis, levels as lines with their names at the right."""
    with style():
        drawn = Shown(figsize=(7.4, 4.2), layout="constrained")
        axes = drawn.subplots()
        plain_axes(axes, LIGHT)
        for beyond, colour, label in ((False, LIGHT.accent, "the paper's method, smaller"),
                                      (True, LIGHT.second, "beyond the paper")):
            some = [one for one in points if one.beyond == beyond]
            if some:
                axes.errorbar([one.hours for one in some], [one.error for one in some],
                              [[one.error - one.low for one in some], [one.high - one.error for one in some]],
                              fmt="o", color=colour, capsize=2, label=label)
        for one in points:
            axes.annotate(f"{one.name} {one.error:.1f}", (one.hours, one.error), xytext=(7, 4),
                          textcoords="offset points", color=LIGHT.ink, fontsize=8.5)
        lowest = min(levels.values())
        for name, error in levels.items():
            axes.axhline(error, color=LIGHT.muted, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.annotate(f"{name} {error:.1f}", (0.0, error), xycoords=("axes fraction", "data"), ha="left",
                          va="top" if error == lowest else "bottom", color=LIGHT.muted, fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="hours, a core for each direction", ylabel="test error, %",
                 title="IMDb: error against hours on two CPU cores")
        axes.set_xlim(min(one.hours for one in points) / 1.6, max(one.hours for one in points) * 1.9)
        axes.set_ylim(lowest * 0.88, max(max(one.error for one in points), *levels.values()) * 1.15)
        for axis, ticks in ((axes.xaxis, HOURS), (axes.yaxis, ERRORS)):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(loc="upper right")
    return drawn


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "results")
    args = parser.parse_args(arguments)
    points = sorted((point(folder) for folder in args.runs), key=lambda one: one.hours)
    bags = [one["error"] for folder in args.runs if Result.load(folder).recipe.n_labels is None
            for one in Result.load(folder).run.get("baselines") or ()]
    levels = lines(min(bags, default=None))
    figure(points, levels).savefig(args.out / "imdb-hours.png", dpi=144)
    write_json_atomic(args.out / "imdb-hours.json", {
        "command": command_line(), "points": [asdict(one) for one in points], "lines": levels})
    for one in points:
        print(f"{one.hours:6.2f} h  {one.error:5.2f} %  {one.name}{' (beyond the paper)' if one.beyond else ''}")


if __name__ == "__main__":
    main()
