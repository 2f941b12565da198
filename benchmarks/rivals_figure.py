"""One table and one figure of what `benchmarks.rivals` has measured: error by method, a panel a data set.

    python -m benchmarks.rivals_figure --labels 200

Reads data/results/rivals/rivals-*.json, writes rivals-LABELS.png, .svg and .md (the table) beside them. A method that
was measured on no set is left out; one that is missing on some has a gap there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.rivals import BAGS, OURS, RIVALS, Record, predicted
from ulmfit_fastai._files import read_json, write_text_atomic
from ulmfit_fastai.experiments.figures import save_figure

FOLDER = Path(__file__).parents[1] / "data" / "results" / "rivals"
TITLES = {"imdb": "IMDb", "trec6": "TREC-6", "ag": "AG", "dbpedia": "DBpedia", "yelp": "Yelp, 5 stars",
          "yelp-sentences": "Yelp sentences"}
OWN, OTHER = "#b3261e", "#5f6368"


def summaries(folder: Path, labels: int) -> dict[str, dict[str, Record]]:
    """{title of a data set: {method: its summary at so many labels}}, for the sets that have any.

    Where only a part of the test texts was predicted, the title says how many.
    """
    found = {}
    for name, title in TITLES.items():
        path = folder / f"rivals-{name}.json"
        if path.exists():
            kept = read_json(path)
            rows = {one["name"]: one for one in kept["summary"] if one["labels"] == labels}
            found |= {title + predicted(kept): rows} if rows else {}
    return found


def methods_of(found: dict[str, dict[str, Record]]) -> list[str]:
    """The methods that were measured on some set, the bags of words first and ours last."""
    return [name for name in (*BAGS, *RIVALS, *OURS) if any(name in rows for rows in found.values())]


def table(found: dict[str, dict[str, Record]]) -> str:
    """Markdown: a line a method; error, its standard deviation over the draws, and seconds on each set."""
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for method in methods_of(found):
        cells = []
        for rows in found.values():
            one = rows.get(method)
            spread = f" ({one['sd']:.1f})" if one and one["sd"] is not None else ""
            cells.append(f"{one['error']:.1f}{spread}, {one['seconds']:,.0f} s" if one else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(found: dict[str, dict[str, Record]], labels: int) -> Figure:
    """Mean error of each method, with the standard deviation over the draws of the labels as a bar."""
    names = methods_of(found)[::-1]
    drawn = Figure(figsize=(2.6 + 1.9 * len(found), 1.0 + 0.32 * len(names)), layout="constrained")
    panels: Any = drawn.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(panels, found.items(), strict=True):
        for y, name in enumerate(names):
            if one := rows.get(name):
                axes.errorbar(one["error"], y, xerr=one["sd"] or 0.0, fmt="o", capsize=2,
                              color=OWN if name in OURS else OTHER)
        axes.set(title=title, xlim=(0, None), xlabel="test error, %")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    drawn.suptitle(f"{labels:,} labels, the same for all; mean and standard deviation over the draws", fontsize=9)
    return drawn


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals_figure", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="(default: data/results/rivals)")
    args = parser.parse_args(given)
    found = summaries(args.folder, args.labels)
    if not found:
        raise SystemExit(f"{args.folder}: expected rivals-TASK.json with {args.labels} labels; "
                         "`python -m benchmarks.rivals` makes them")
    write_text_atomic(args.folder / f"rivals-{args.labels}.md", table(found))
    save_figure(figure(found, args.labels), args.folder / f"rivals-{args.labels}")
    print(table(found))


if __name__ == "__main__":
    main()
