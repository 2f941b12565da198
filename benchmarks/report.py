"""What the benchmark found: one JSON, one table, a figure of ratios and a figure of growth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ulmfit_fastai._files import write_json_atomic, write_text_atomic
from ulmfit_fastai.experiments.figures import save_figure
from ulmfit_fastai.results.drawing import LIGHT, Palette, plain_axes, style

from .measure import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (0.5, 1, 2, 5, 10, 20, 50, 200, 1000)


def write(found: Record, out: Path) -> None:
    """benchmark.json, benchmark.md, and the figures of what was measured."""
    write_json_atomic(out / "benchmark.json", found)
    write_text_atomic(out / "benchmark.md", table(found) + "\n")
    bars = ratios(found)
    if bars:
        save_figure(ratio_figure(bars, title=subtitle(found)), out / "benchmark")
    if "scale" in found["stages"]:
        save_figure(scale_figure(found["stages"]["scale"]["rows"]), out / "scale")


def subtitle(found: Record) -> str:
    device = found["device"]
    where = device["name"] if device["type"] == "cuda" else f"{device['name']}, {device['cores']} cores"
    texts = "made-up reviews" if found["data"] == "synthetic" else "IMDb"
    return f"{where} · {texts}" + (" · tiny sizes, no measure of speed" if found["quick"] else "")


def rows(found: Record) -> list[Record]:
    """The lines of all stages that compare sides."""
    return [row for stage, part in found["stages"].items() if stage not in ("scale", "precision")
            for row in part["rows"]]


def ratios(found: Record) -> list[Record]:
    """Every ratio over stock with its spread and target, the bare floor left out."""
    return [{"label": row["name"] + ("" if side == "ours" else f" · {side.removeprefix('ours').strip(' ,')}"), **ratio}
            for row in rows(found) for side, ratio in row["ratios"].items() if side != "floor"]


def table(found: Record) -> str:
    """Markdown: what was measured, stock, ours, how many times better (least to most of the repeats), target."""
    wall = found.get("wall_seconds")
    spent = f" Measured in {wall / 60:.0f} minutes." if wall else ""
    lines = [f"Stock fastai {found['versions'].get('fastai')} and this package on {subtitle(found)}.{spent}", "",
             "| what | stock | ours | ratio (spread) | target | same numbers |", "|---|---|---|---|---|---|"]
    for row in rows(found):
        sides = [side for side in row["measured"] if side not in ("stock", "floor")]
        for side in sides:
            lines.append(_line(row, side))
    lines += _floors(found) + _formats(found)
    return "\n".join(lines)


def _line(row: Record, side: str) -> str:
    name = row["name"] + ("" if side == "ours" else f", {side.removeprefix('ours').strip(' ,')}")
    stock, ours = row["median"].get("stock"), row["median"][side]
    ratio = row["ratios"].get(side)
    if ratio is None:
        limit = row.get("limit_s")
        target = "" if limit is None else f"{limit:g} s {'✓' if ours <= limit else '✗'}"
        return f"| {name} | | {_amount(ours, row)} | | {target} | {row['check']} |"
    spread = f" ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio["repeats"] > 1 else ""
    target = "" if ratio["target"] is None else f"{ratio['target']:g} {'✓' if ratio['reached'] else '✗'}"
    return (f"| {name} | {_amount(stock, row)} | {_amount(ours, row)} | **{ratio['median']:.2f}**{spread} | {target} | "
            f"{row.get('checks', {}).get(side, row['check'])} |")


def _amount(value: float, row: Record) -> str:
    """Seconds, with the rate where there is one; or MB."""
    if row["unit"] == "MB":
        return f"{value:,.0f} MB"
    text = f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"
    return text + (f" ({row['work'] / value:,.0f} {row['work_unit']}/s)" if row.get("work", 1) > 1 else "")


def _floors(found: Record) -> list[str]:
    lines = []
    for row in rows(found):
        if "share_of_peak" in row:
            bare = (f"ours takes {row['over_floor']:.2f} times the bare kernels "
                    f"({_amount(row['median']['floor'], row)}); ") if "over_floor" in row else ""
            share = ", ".join(f"{side} {100 * value:.0f} %" for side, value in row["share_of_peak"].items())
            lines.append(f"- {row['name']}: {bare}share of a large matrix product's speed: {share}")
        if "profile" in row:
            for side, top in row["profile"].items():
                most = ", ".join(f"{op['operation'].removeprefix('aten::')} {100 * op['share']:.0f} %"
                                 for op in top[:6])
                lines.append(f"- {row['name']}, where {'our' if side == 'ours' else side} time goes: {most}")
    return ["", *lines] if lines else []


def _formats(found: Record) -> list[str]:
    lines = []
    for row in found["stages"].get("precision", {}).get("rows", []):
        lines += ["", f"Cost of a number format: {row['run']} on {row['n']:,} test reviews.", "",
                  "| format | error | points more | other class | mean change of a probability | seconds |",
                  "|---|---|---|---|---|---|"]
        for kind, one in row["formats"].items():
            lines.append(f"| {kind} | {one['error']:.2f} % | {one['points_more']:+.2f} | {one['other_classes']} | "
                         f"{one['mean_change']:.1e} | {one['seconds']:.1f} |")
    return lines


def ratio_figure(bars: list[Record], *, title: str, palette: Palette = LIGHT, width: float = 7.6) -> Figure:
    """A bar for each ratio over stock on a log scale, its spread a line, its target a mark."""
    bars = bars[::-1]
    with style():
        figure = Figure(figsize=(width, 1.1 + 0.27 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for y, bar in enumerate(bars):
            colour = palette.muted if bar["target"] is None else palette.accent if bar["reached"] else palette.second
            axes.barh(y, bar["median"] - 1, left=1, height=0.55, color=colour, alpha=0.85, zorder=2)
            axes.plot([bar["low"], bar["high"]], [y, y], color=palette.ink, linewidth=1.2, zorder=3)
            if bar["target"] is not None:
                axes.plot([bar["target"]] * 2, [y - 0.42, y + 0.42], color=palette.ink, linewidth=2, zorder=4)
            shown = f"{bar['median']:.0f}×" if bar["median"] >= 100 else f"{bar['median']:.2f}×"
            axes.annotate(shown, (max(bar["median"], bar["high"], bar["target"] or 0, 1), y),
                          xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=colour)
        axes.set_xscale("log")
        axes.set_yticks(range(len(bars)), [bar["label"] for bar in bars])
        axes.set_ylim(-0.7, len(bars) - 0.3)
        least, most = min(1.0, *(b["low"] for b in bars)), max(b["high"] for b in bars)
        axes.set_xlim(0.9 * least, 1.6 * max(most, 2))
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if 0.8 * least <= tick <= 1.6 * most]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        meanings = {palette.accent: "target reached", palette.second: "target missed", palette.muted: "no target set"}
        figure.legend([Patch(color=colour, alpha=0.85) for colour in meanings], list(meanings.values()),
                      loc="outside lower center", ncols=3, fontsize=8.5)
        axes.set_xlabel("time or memory of stock, over ours\n(thin line: spread of the repeats; upright mark: target)",
                        fontsize=8.5, color=palette.muted)
        figure.suptitle(f"Times better than stock fastai\n{title}", fontsize=10)
        plain_axes(axes, palette)
        axes.grid(axis="y", visible=False)
        axes.axvline(1, color=palette.muted, linewidth=1, zorder=1)
    return figure


def scale_figure(rows: list[Record], *, palette: Palette = LIGHT) -> Figure:
    """Seconds and memory against the number of documents and against their length, on log scales."""
    with style():
        figure = Figure(figsize=(7.6, 5.6), layout="constrained")
        grid = figure.subplots(2, 2)
        for column, (what, label) in enumerate((("documents", "documents tokenised"), ("tokens", "tokens of a text"))):
            here = [row for row in rows if row["what"] == what]
            for axes, field, unit in ((grid[0][column], "seconds", "s"), (grid[1][column], "peak_mb", "MB")):
                _growth(axes, here, field, palette)
                shared = "\n(one process, all models)" if what == "tokens" else ""
                axes.set_ylabel(f"peak memory, {unit}{shared}" if field == "peak_mb" else f"time, {unit}")
                axes.set_xlabel(label)
                plain_axes(axes, palette)
        grid[0][0].legend()
        grid[0][1].legend()
        figure.suptitle("Growth with the number of documents (left) and with their length (right)", fontsize=10.5)
    return figure


def _growth(axes: Axes, rows: list[Record], field: str, palette: Palette) -> None:
    colours = {"stock": palette.second, "ours": palette.accent, "ours bf16": palette.groups[1],
               "ours int8": palette.groups[2]}
    for side, colour in colours.items():
        points: list[tuple[int, Any]] = [(row["n"], row[side][field]) for row in rows if side in row]
        if points:
            axes.plot(*zip(*points), "o-", color=colour, markersize=4, label=side)
    axes.set_xscale("log")
    if field == "seconds":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, *([axes.yaxis] if field == "seconds" else [])):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
