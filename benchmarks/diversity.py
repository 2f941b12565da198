"""What averaging with a second run is worth, beside averaging with the other direction.

    python -m benchmarks.diversity runs/imdb-quick runs/imdb-quick-seed-1

Takes the predictions of finished runs on the same texts, in one direction or both, which may differ in anything. Every
model's error, then that of the mean of every two: one direction of two runs, both directions of one run, or of two; at
the end that of all. With each pair the gain over the mean of its two, and on how many texts both are wrong, which no
average of the two can mend. Writes data/results/diversity/TASK.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.results.environment import command_line, now, versions
from ulmfit_fastai.results.metrics import error_metrics
from ulmfit_fastai.results.result import Result

ROOT = Path(__file__).parents[1]
Name = tuple[str, str]
"""A model: its direction and its run."""


def models_of(results: Sequence[Result]) -> tuple[dict[Name, np.ndarray], np.ndarray]:
    """Each model's probabilities, its rows those of the first run; and the class of each text."""
    rows: pd.MultiIndex | None = None
    found: dict[Name, np.ndarray] = {}
    labels = np.empty(0, int)
    for result in results:
        if result.predictions is None or result.kind != "single":
            raise SystemExit(f"{result.folder}: expected a finished run with one class a text")
        here = pd.MultiIndex.from_frame(result.predictions[["id", "label"]])
        if rows is None:
            rows, labels = here, np.asarray(result.labels)
        order = here.get_indexer(rows) if len(here) == len(rows) and here.is_unique else np.array([-1])
        if (order < 0).any():
            raise SystemExit(f"{result.folder}: its {len(here):,} texts are not the {len(rows):,} of "
                             f"{results[0].folder}; expected runs on the same")
        for direction in result.directions:
            found[direction, str(result.folder)] = result.probabilities(direction)[order]
    return found, labels


def kind_of(one: Name, other: Name) -> str:
    """How two models differ."""
    if one[0] == other[0]:
        return "one direction, two runs"
    return "both directions, one run" if one[1] == other[1] else "both directions, two runs"


def pairs_of(models: Mapping[Name, np.ndarray], labels: np.ndarray) -> list[dict[str, Any]]:
    """The mean of every two models. Errors and shares in % of the texts."""
    wrong = {name: probs.argmax(axis=1) != labels for name, probs in models.items()}
    pairs = []
    for one, other in combinations(models, 2):
        error = error_metrics((models[one] + models[other]) / 2, labels)["error"]
        pairs.append({"kind": kind_of(one, other), "models": [one, other], "error": error,
                      "gain": 50 * (wrong[one].mean() + wrong[other].mean()) - error,
                      "both_wrong": 100 * float((wrong[one] & wrong[other]).mean())})
    return pairs


def table(found: dict[str, Any]) -> str:
    """Markdown: a line for each model, each kind of pair in the mean, and all."""
    lines = ["| | error, % | gain over the mean of its two | both wrong, % |", "|---|---|---|---|"]
    lines += [f"| {one['direction']}, {Path(one['run']).name} | {one['error']:.2f} | | |" for one in found["models"]]
    for kind in dict.fromkeys(pair["kind"] for pair in found["pairs"]):
        some = [pair for pair in found["pairs"] if pair["kind"] == kind]
        mean = {key: fmean(pair[key] for pair in some) for key in ("error", "gain", "both_wrong")}
        lines.append(f"| {kind} ({len(some)}) | {mean['error']:.2f} | {mean['gain']:.2f} | "
                     f"{mean['both_wrong']:.2f} |")
    return "\n".join([*lines, f"| all {len(found['models'])} | {found['all']:.2f} | | |"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "results" / "diversity")
    args = parser.parse_args(arguments)
    results = [Result.load(run) for run in args.runs]
    models, labels = models_of(results)
    if len(models) < 2:
        raise SystemExit("expected two models at least: runs in both directions, or several runs")
    differences = [{"run": str(result.folder),
                    "fields": [[field, was, here] for field, was, here in results[0].recipe.diff(result.recipe)]}
                   for result in results[1:]]
    found = {"command": command_line(), "date": now(), "versions": versions(), "texts": len(labels),
             "differences": differences,
             "models": [{"direction": direction, "run": run, "error": error_metrics(probs, labels)["error"]}
                        for (direction, run), probs in models.items()],
             "pairs": pairs_of(models, labels),
             "all": error_metrics(np.mean([*models.values()], axis=0), labels)["error"]}
    write_json_atomic(args.out / f"{results[0].task}.json", found)
    print(table(found))


if __name__ == "__main__":
    main()
