"""Runs made apart, in one direction each or in both, as the one run that averages them.

    average_runs(["runs/imdb-forward", "runs/imdb-backward"], "runs/imdb-both")
    average_runs(["runs/imdb-both", "runs/imdb-both-seed-1"], "runs/imdb-two-seeds")

A run with both directions averages them by itself. This is for directions trained on two machines or in two sittings,
and for more than the paper's two models: other seeds of the same recipe.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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

MAY_DIFFER = ("directions", "weights", "seed", "lm_seed")
"""Fields of the recipe in which the runs may differ: stage 1 too may have a folder for each direction."""
FILES_OF_ITS_OWN = ("phases_done", "digests", "digest")
"""Fields of a run.json that tell of files which are not in the average's folder."""
FILES = {"run.json", "history.csv", "rates.csv", "predictions.csv", "report.html"}


class Member(NamedTuple):
    """One model of an average: a direction of a run."""

    direction: str
    result: Result

    @property
    def seeds(self) -> tuple[int, int]:
        """What tells it from the others of its direction: seeds of classifier and language model."""
        recipe = self.result.recipe
        return recipe.seed, recipe.language_seed


def average_runs(runs: Sequence[str | os.PathLike], out: str | os.PathLike) -> Result:
    """Average the test probabilities of two or more finished runs of one recipe into a run folder.

    Probabilities are averaged over the seeds of each direction, then over the directions. The folder can be shown,
    checked and reported like any run's, but holds no weights. The runs stay as they are; the same call again makes the
    average anew.

    Args:
        runs: run folders in any order, in one direction each or in both; those of one direction differ in their seed.
        out: a new folder, or an average to be made anew.

    Returns:
        The averaged run, whose `error` (%) is that of the mean probabilities.

    Raises:
        UlmfitError: fewer than two models, the same one twice, runs that are not finished, not of the same texts,
            recipe and start, or an `out` that holds something else.

    Source: Howard & Ruder 2018, section 3.4, Bidirectional language model; several seeds are not the paper's.
    """
    results = [_finished(Result.load(run)) for run in runs]
    members = sorted((Member(direction, result) for result in results for direction in result.directions),
                     key=lambda member: (DIRECTIONS.index(member.direction), member.seeds))
    out = expanded(out)
    if len(members) < 2:
        raise UlmfitError(f"expected two runs at least, found {len(results)}")
    for one, other in zip(members, members[1:]):
        if (one.direction, one.seeds) == (other.direction, other.seeds):
            raise UlmfitError(f"{one.result.folder} and {other.result.folder} are both {one.direction} of seed "
                              f"{one.seeds[0]}; expected another direction or another seed")
    for result in results[1:]:
        _refuse_different(results[0], result)
    _refuse_another_folder(out)
    first = members[0].result
    assert first.predictions is not None
    probs = {d: np.mean([m.result.probs[d] for m in members if m.direction == d], axis=0)
             for d in dict.fromkeys(member.direction for member in members)}
    record = _record(members, probs, out)
    (out / "run.json").unlink(missing_ok=True)  # it is written last: a folder that has it is whole
    write_predictions(out / "predictions.csv", first.predictions["id"].tolist(), first.labels, first.classes, probs)
    for name in ("history", "rates"):
        tables = [rows for member in _first_of_each(members) if len(rows := _rows(member, name))]
        if tables:
            write_text_atomic(out / f"{name}.csv", pd.concat(tables).to_csv(index=False, lineterminator="\n"))
    record["digests"] = digests_of(out, ("predictions.csv", "history.csv", "rates.csv"))
    write_json_atomic(out / "run.json", sealed(record))
    return Result.load(out)


def _finished(result: Result) -> Result:
    """A finished run with test predictions; UlmfitError for any other."""
    if result.error is None or result.predictions is None or "averaged" in result.run:
        what = "an average of others" if "averaged" in result.run else f"status {result.status!r}"
        raise UlmfitError(f"{result.folder}: expected a finished run with test predictions of its own, found {what}")
    return result


def _first_of_each(members: Sequence[Member]) -> list[Member]:
    """The first member of each direction."""
    return list({member.direction: member for member in reversed(members)}.values())[::-1]


def _rows(member: Member, name: str) -> pd.DataFrame:
    """A member's rows of 'history' or 'rates'."""
    table: pd.DataFrame = getattr(member.result, name)
    return table[table["direction"] == member.direction] if len(table) else table


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


def _refuse_different(one: Result, other: Result) -> None:
    """UlmfitError unless both runs are one experiment but for direction and seeds."""
    assert one.predictions is not None and other.predictions is not None
    names = f"{one.folder} and {other.folder}"
    differences = [name for name, *_ in one.recipe.diff(other.recipe) if name not in MAY_DIFFER]
    if differences:
        raise UlmfitError(f"{names} are of different recipes: they differ in {', '.join(differences[:4])}")
    starts = {result.recipe.weights for result in (one, other)}
    if len(starts) > 1 and starts & set(NAMED_WEIGHTS):
        raise UlmfitError(f"{names} start from different weights ({', '.join(sorted(starts))}): expected the same "
                          "for both")
    if one.run.get("corpus") != other.run.get("corpus"):
        raise UlmfitError(f"{names} were pretrained on different corpora: expected the same for both")
    columns = ["id", "label"]
    if (one.task, one.data.get("fingerprint"), one.classes) != (
            other.task, other.data.get("fingerprint"), other.classes) or not (
            one.predictions[columns].equals(other.predictions[columns])):
        raise UlmfitError(f"{names} are of different texts: expected the same data set, classes and test texts in the "
                          "same order")


def _record(members: Sequence[Member], probs: dict[str, Any], out: Path) -> dict[str, Any]:
    """run.json of the average: the runs' own records side by side; `averaged` says what each was made with."""
    firsts, results = _first_of_each(members), [member.result for member in members]
    first = results[0].run
    recipe = results[0].recipe.replace(directions=tuple(probs))
    every = {**probs, "averaged": average(probs)} if len(probs) > 1 else probs
    each = [{"run": os.path.relpath(member.result.folder, out), "direction": member.direction,
             "seed": member.seeds[0], "error": member.result.errors[member.direction],
             **{key: member.result.run[key] for key in ("recipe_hash", "command", "versions", "device")
                if key in member.result.run}} for member in members]
    alone = [d for d in probs if sum(member.direction == d for member in members) == 1]
    validation = {member.direction: score for member in firsts if member.direction in alone
                  and (score := (member.result.run["metrics"].get("validation") or {}).get(member.direction))}
    lm_of = {member.direction: os.path.relpath(member.result.folder / path, out) for member in firsts
             if (path := (member.result.run.get("language_model_of") or {}).get(member.direction))}
    seconds: dict[str, float] = {}
    for result in dict.fromkeys(results):
        for name, taken in (result.run.get("seconds") or {}).items():
            seconds[name] = round(seconds.get(name, 0.0) + taken, 1)
    return {
        **{key: value for key, value in first.items() if key not in FILES_OF_ITS_OWN},
        "recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "command": command_line(),
        "started": min(result.run["started"] for result in results),
        "finished": max(result.run["finished"] for result in results),
        "averaged": {"versions": versions(), "of": each}, "seconds": seconds, "seeds": sorted({
            member.seeds[0] for member in members}),
        "stages": [stage for member in members for stage in _stages(member, shared=member not in firsts)],
        "sessions": [session for result in dict.fromkeys(results) for session in result.run.get("sessions", [])],
        **{name: {member.direction: (member.result.run.get(name) or {})[member.direction] for member in firsts
                  if member.direction in (member.result.run.get(name) or {})}
           for name in ("weights", "language_model_phases")},
        "language_model_of": lm_of, "warnings": _warnings(members, alone),
        "baselines": next((result.run["baselines"] for result in results if result.run.get("baselines")), []),
        "metrics": {"validation": validation,
                    **{name: error_metrics(p, results[0].labels) for name, p in every.items()}},
    }


def _stages(member: Member, *, shared: bool) -> list[dict[str, Any]]:
    """A member's stages; without those of a language model that it took over, where another member `shared` it."""
    run = member.result.run
    taken = (run.get("language_model_phases") or {}).get(member.direction, ()) if shared else ()
    return [stage for stage in run.get("stages", []) if stage["direction"] == member.direction
            and stage["phase"] not in taken]


def _warnings(members: Sequence[Member], alone: Sequence[str]) -> list[str]:
    """What the runs say, and what has to be said of their average."""
    results = [member.result for member in members]
    warnings = [text for result in results for text in result.run.get("warnings", [])]
    for key in ("versions", "device"):
        if any(result.run.get(key) != results[0].run.get(key) for result in results):
            warnings.append(f"the models were trained apart, with different {key}; shown are the first run's")
    if any(member.direction not in alone for member in members):
        warnings.append(f"{len(members)} models averaged, several seeds of a direction among them, where the paper has "
                        "one; curves are the first seed's")
    return list(dict.fromkeys(warnings))
