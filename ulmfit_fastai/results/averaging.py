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

from .._errors import UlmfitError
from .._files import digests_of, expanded, sealed, write_json_atomic, write_text_atomic
from .._schema import RUN, read_checked
from ..recipe.parts import DIRECTIONS
from ..recipe.recipe import NAMED_WEIGHTS
from .environment import command_line, versions
from .metrics import average, error_metrics
from .predictions import write_predictions
from .result import Result

MAY_DIFFER = ("directions", "weights")
"""Fields of the recipe in which the two runs may differ: stage 1 too may have a folder for each direction."""
FILES_OF_ITS_OWN = ("phases_done", "digests", "digest")
"""Fields of a run.json that tell of files which are not in the average's folder."""
FILES = {"run.json", "history.csv", "rates.csv", "predictions.csv", "report.html"}


def average_runs(runs: Sequence[str | os.PathLike], out: str | os.PathLike) -> Result:
    """Average the test probabilities of two finished runs, a forward and a backward one, into a run folder.

    The folder can be shown, checked and reported like any run's, but holds no weights. Both runs stay as they are; the
    same call again makes the average anew.

    Args:
        runs: two run folders, in either order.
        out: a new folder, or an average to be made anew.

    Returns:
        The averaged run, whose `error` (%) is that of the mean of both directions' probabilities.

    Raises:
        UlmfitError: runs that are not finished, not one of each direction, not of the same texts, recipe and start, or
            an `out` that holds something else.

    Source: Howard & Ruder 2018, section 3.4, Bidirectional language model.
    """
    results = sorted((Result.load(run) for run in runs), key=lambda result: DIRECTIONS.index(_direction(result)))
    if [_direction(result) for result in results] != list(DIRECTIONS):
        raise UlmfitError(f"expected two runs, a forward and a backward one, found "
                          f"{', '.join(_direction(result) for result in results) or 'none'}")
    first, out = results[0], expanded(out)
    _refuse_different(*results)
    _refuse_another_folder(out)
    assert first.predictions is not None
    probs = {_direction(result): result.probabilities() for result in results}
    record = _record(results, probs, out)
    (out / "run.json").unlink(missing_ok=True)  # it is written last: a folder that has it is whole
    write_predictions(out / "predictions.csv", first.predictions["id"].tolist(), first.labels, first.classes, probs)
    for name in ("history", "rates"):
        tables = [table for result in results if len(table := getattr(result, name))]
        if tables:
            write_text_atomic(out / f"{name}.csv", pd.concat(tables).to_csv(index=False, lineterminator="\n"))
    record["digests"] = digests_of(out, ("predictions.csv", "history.csv", "rates.csv"))
    write_json_atomic(out / "run.json", sealed(record))
    return Result.load(out)


def _direction(result: Result) -> str:
    """The one direction of a finished run with predictions; ValueError for any other run."""
    if result.error is None or result.predictions is None or len(result.directions) != 1:
        raise UlmfitError(f"{result.folder}: expected a finished run in one direction with test predictions, found "
                          f"status {result.status!r} and {' and '.join(result.directions) or 'no'} directions")
    return result.directions[0]


def _refuse_another_folder(out: Path) -> None:
    """ValueError unless `out` is free, or holds an average (also one that was stopped half-way) and nothing else."""
    if not out.exists():
        return
    inside = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    runs_own = "run.json" in inside and "averaged" not in read_checked(out / "run.json", RUN)
    others = inside - FILES or ({"run.json"} if runs_own else set())
    if others:
        raise UlmfitError(f"{out}: expected an empty folder, or a place for one, found {sorted(others)[0]}",
                          path=out, found=sorted(others)[0], advice="choose another `out=`")


def _refuse_different(forward: Result, backward: Result) -> None:
    """ValueError unless both runs are one experiment but for the direction."""
    assert forward.predictions is not None and backward.predictions is not None
    names = f"{forward.folder} and {backward.folder}"
    differences = [name for name, *_ in forward.recipe.diff(backward.recipe) if name not in MAY_DIFFER]
    if differences:
        raise UlmfitError(f"{names} are of different recipes: they differ in {', '.join(differences[:4])}")
    starts = {result.recipe.weights for result in (forward, backward)}
    if len(starts) > 1 and starts & set(NAMED_WEIGHTS):
        raise UlmfitError(f"{names} start from different weights ({', '.join(sorted(starts))}): expected the same "
                          "for both")
    if forward.run.get("corpus") != backward.run.get("corpus"):
        raise UlmfitError(f"{names} were pretrained on different corpora: expected the same for both")
    columns = ["id", "label"]
    if (forward.task, forward.data.get("fingerprint"), forward.classes) != (
            backward.task, backward.data.get("fingerprint"), backward.classes) or not (
            forward.predictions[columns].equals(backward.predictions[columns])):
        raise UlmfitError(f"{names} are of different texts: expected the same data set, classes and test texts in the "
                          "same order")


def _record(results: Sequence[Result], probs: dict[str, Any], out: Path) -> dict[str, Any]:
    """run.json of the average: the runs' own records side by side; `averaged` says what each was made with."""
    first = results[0].run
    recipe = results[0].recipe.replace(directions=DIRECTIONS)
    every = {**probs, "averaged": average(probs)}
    each = [{"run": os.path.relpath(result.folder, out), "direction": _direction(result),
             **{key: result.run[key] for key in ("recipe_hash", "command", "versions", "device") if key in result.run}}
            for result in results]
    validation = {d: score for result in results
                  for d, score in (result.run["metrics"].get("validation") or {}).items()}
    lm_of = {d: os.path.relpath(result.folder / path, out) for result in results
             for d, path in (result.run.get("language_model_of") or {}).items()}
    warnings = [text for result in results for text in result.run.get("warnings", [])]
    for key in ("versions", "device"):
        if results[0].run.get(key) != results[1].run.get(key):
            warnings.append(f"both directions were trained apart, with different {key}; shown are the forward run's")
    return {
        **{key: value for key, value in first.items() if key not in FILES_OF_ITS_OWN},
        "recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "command": command_line(),
        "started": min(result.run["started"] for result in results),
        "finished": max(result.run["finished"] for result in results),
        "averaged": {"versions": versions(), "of": each},
        **{name: [item for result in results for item in result.run.get(name, [])] for name in ("stages", "sessions")},
        **{name: {key: value for result in results for key, value in (result.run.get(name) or {}).items()}
           for name in ("weights", "seconds", "language_model_phases")},
        "language_model_of": lm_of, "warnings": list(dict.fromkeys(warnings)),
        "baselines": next((result.run["baselines"] for result in results if result.run.get("baselines")), []),
        "metrics": {"validation": validation,
                    **{name: error_metrics(p, results[0].labels) for name, p in every.items()}},
    }
