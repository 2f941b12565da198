"""Two runs made apart, one in each direction, as the one run that the paper averages.

    average_runs(["runs/imdb-forward", "runs/imdb-backward"], "runs/imdb-both")

A run with both directions does this by itself. This is for directions trained on two machines, or in two sittings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .files import write_json_atomic, write_text_atomic
from .predictions import average, error_metrics, write_predictions
from .recipe import DIRECTIONS
from .results import Result
from .runfolder import command_line, versions

MAY_DIFFER = ("directions", "weights")
"""Fields of the recipe in which the two runs may differ; `weights` since stage 1 too is made for each direction."""


def average_runs(runs: Sequence[str | os.PathLike], out: str | os.PathLike) -> Result:
    """Average the test probabilities of two finished runs, a forward and a backward one, into a run folder.

    The folder can be shown, checked and reported like any run's, but holds no weights. Both runs stay as they are.

    Raises:
        ValueError: runs that are not finished, not one of each direction, not of the same texts and recipe, or a
            folder that is not empty.

    Source: Howard & Ruder 2018, section 3.4, Bidirectional language model.
    """
    results = sorted((Result.load(run) for run in runs), key=lambda result: DIRECTIONS.index(_direction(result)))
    if [_direction(result) for result in results] != list(DIRECTIONS):
        raise ValueError(f"expected two runs, a forward and a backward one, found "
                         f"{', '.join(_direction(result) for result in results) or 'none'}")
    _refuse_different(*results)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: expected an empty folder, or a place for one; choose another --out")
    first = results[0]
    assert first.predictions is not None
    probs = {_direction(result): result.probabilities() for result in results}
    write_predictions(out / "predictions.csv", first.predictions["id"].tolist(), first.labels, first.classes, probs)
    for name in ("history", "rates"):
        tables = [table for result in results if len(table := getattr(result, name))]
        if tables:
            write_text_atomic(out / f"{name}.csv", pd.concat(tables).to_csv(index=False, lineterminator="\n"))
    write_json_atomic(out / "run.json", _record(results, probs, out))  # last: a folder with it is whole
    return Result.load(out)


def _direction(result: Result) -> str:
    """The one direction of a finished run with predictions; ValueError for any other run."""
    if result.error is None or result.predictions is None or len(result.directions) != 1:
        raise ValueError(f"{result.folder}: expected a finished run in one direction with test predictions, found "
                         f"status {result.status!r} and {' and '.join(result.directions) or 'no'} directions")
    return result.directions[0]


def _refuse_different(forward: Result, backward: Result) -> None:
    """ValueError unless both runs are one experiment but for the direction."""
    assert forward.predictions is not None and backward.predictions is not None
    differences = [name for name, *_ in forward.recipe.diff(backward.recipe) if name not in MAY_DIFFER]
    if differences:
        raise ValueError(f"{forward.folder} and {backward.folder} are of different recipes: they differ in "
                         f"{', '.join(differences[:4])}")
    columns = ["id", "label"]
    if (forward.task, forward.data.get("fingerprint"), forward.classes) != (
            backward.task, backward.data.get("fingerprint"), backward.classes) or not (
            forward.predictions[columns].equals(backward.predictions[columns])):
        raise ValueError(f"{forward.folder} and {backward.folder} are of different texts: expected the same data set, "
                         "classes and test texts in the same order")


def _record(results: Sequence[Result], probs: dict[str, Any], out: Path) -> dict[str, Any]:
    """run.json of the average: the runs' own records side by side."""
    first, *_ = results
    recipe = first.recipe.replace(directions=DIRECTIONS)
    every = {**probs, "averaged": average(probs)}
    validation = {d: score for result in results
                  for d, score in (result.run["metrics"].get("validation") or {}).items()}
    return {
        **first.run, "recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "command": command_line(),
        "versions": versions(), "started": min(result.run["started"] for result in results),
        "finished": max(result.run["finished"] for result in results),
        "averaged_of": [os.path.relpath(result.folder, out) for result in results],
        **{name: [item for result in results for item in result.run.get(name, [])]
           for name in ("stages", "sessions", "phases_done")},
        **{name: {key: value for result in results for key, value in (result.run.get(name) or {}).items()}
           for name in ("weights", "seconds", "language_model_of")},
        "warnings": list(dict.fromkeys(text for result in results for text in result.run.get("warnings", []))),
        "metrics": {"validation": validation, **{name: error_metrics(p, first.labels) for name, p in every.items()}},
    }
