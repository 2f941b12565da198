"""Many runs that belong together: every cell of a table or a curve, with the language models they share made once.

    out/shared/<direction>-<hash>/     language models, each a run folder of its own
    out/<recipe>-seed<N>/              the cells, each a run folder

Cells with equal recipes are one run: the full method's, for one, serves Tables 4, 6 and 7. Whatever is finished is
kept, so that the same call, after a kill or at the end of a time budget, makes what is missing and comes to the same
numbers.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .datasets import Dataset
from .recipe import Recipe
from .results import Result
from .runs import plan_run, run
from .sharing import is_finished, language_model_recipe
from .training import minutes

log = logging.getLogger(__name__)


class OutOfTime(Exception):
    """The time budget ended, or the run was interrupted; what is finished is kept."""


@dataclass(frozen=True)
class Cell:
    """One run of a table: a row (or a point of a curve) with one seed."""

    row: str
    seed: int
    recipe: Recipe
    score: str | None = None
    """Which of the run's errors counts ("forward", "backward"); None: its headline."""

    @property
    def folder(self) -> str:
        """The name of the cell's run folder."""
        return f"{self.recipe.name}-seed{self.seed}"


def cell(row: str, recipe: Recipe, seed: int, *, score: str | None = None) -> Cell:
    """The cell of a recipe and a seed."""
    return Cell(row, seed, replace(recipe, seed=seed), score)


def distinct(cells: Sequence[Cell]) -> list[Cell]:
    """The runs of these cells, each once, in order."""
    return list({cell.folder: cell for cell in reversed(cells)}.values())[::-1]


def result_of(cell: Cell, dataset: Dataset, out: str | Path) -> Result | None:
    """The finished run of a cell, None while it is missing."""
    folder = Path(out) / cell.folder
    return Result.load(folder) if is_finished(folder, cell.recipe, dataset.fingerprint) else None


def run_grid(
    cells: Sequence[Cell],
    dataset: Dataset,
    out: str | Path,
    *,
    time_budget: float | None = None,
    after_cell: Callable[[], Any] = lambda: None,
    **options: Any,
) -> dict[str, str]:
    """Make the runs of all cells that `out` does not hold yet; returns {folder name: why} of those that are missing.

    They run in the order given. `time_budget` (seconds) is for all of them together. A run whose loss is no longer a
    number is reported and left, the others go on; the next call tries it again. `after_cell` is called after each
    finished run. `options` are those of `runs.run`.
    """
    out, todo = Path(out), distinct(cells)
    deadline = None if time_budget is None else time.monotonic() + time_budget
    missing = {c.folder: "not run yet" for c in todo if not is_finished(out / c.folder, c.recipe, dataset.fingerprint)}
    log.info("%d of %d runs in %s are finished", len(todo) - len(missing), len(todo), out)
    for number, current in enumerate([c for c in todo if c.folder in missing], start=1):
        log.info("run %d of %d: %s", number, len(missing), current.folder)
        try:
            _run_cell(current, dataset, out, deadline, options)
            missing.pop(current.folder)
            after_cell()
        except OutOfTime:
            log.warning("stopped with %d runs missing; the same command goes on", len(missing))
            break
        except FloatingPointError as error:
            log.warning("%s: %s", current.folder, error)
            missing[current.folder] = f"diverged: {error}"
    return missing


def _run_cell(cell: Cell, dataset: Dataset, out: Path, deadline: float | None, options: dict[str, Any]) -> None:
    sources = {}
    if cell.recipe.lm is not None:
        for direction in cell.recipe.directions:
            recipe = language_model_recipe(cell.recipe, direction)
            sources[direction] = out / "shared" / f"{direction}-{recipe.hash}"
            _run_to_the_end(recipe, dataset, sources[direction], deadline, {**options, "until": "lm"})
    _run_to_the_end(cell.recipe, dataset, out / cell.folder, deadline, {**options, "lm_from": sources})


def _run_to_the_end(recipe: Recipe, dataset: Dataset, folder: Path, deadline: float | None,
                    options: dict[str, Any]) -> None:
    """Run in what is left of the time; OutOfTime unless the run is finished then."""
    if is_finished(folder, recipe, dataset.fingerprint):
        return
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise OutOfTime
    run(recipe, dataset, folder, time_budget=left, baseline=False, plan=False, **options)
    if not is_finished(folder, recipe, dataset.fingerprint):
        raise OutOfTime


@dataclass(frozen=True)
class GridPlan:
    """What a grid would run here and how long that takes; `print(plan)` shows it."""

    rows: tuple[tuple[str, int, float], ...]
    """(what, how many of them, seconds of one)"""

    @property
    def seconds(self) -> float:
        return sum(number * each for _, number, each in self.rows)

    def __str__(self) -> str:
        width = max((len(what) for what, *_ in self.rows), default=0)
        lines = ["what is still to be run, and how long that takes on this machine (measured on a few batches; less "
                 "where a row stops early):"]
        lines += [f"  {what:<{width}}  {number:3} x {minutes(each):>12}" for what, number, each in self.rows]
        return "\n".join([*lines, f"  in all about {minutes(self.seconds)}"])


def plan_grid(cells: Sequence[Cell], dataset: Dataset, out: str | Path, *, device: Any = None,
              cache: Path | None = None, progress: bool = True) -> GridPlan:
    """Time what `run_grid` would run: each kind of run on a few batches of its first seed."""
    out = Path(out)
    kinds: dict[str, tuple[str, Recipe, list[str]]] = {}
    count: Counter[str] = Counter()
    models: set[str] = set()

    def note(what: str, recipe: Recipe, skip: list[str]) -> None:
        key = replace(recipe, seed=0).hash + " ".join(skip)
        kinds.setdefault(key, (what, recipe, skip))
        count[key] += 1

    for current in distinct(cells):
        if is_finished(out / current.folder, current.recipe, dataset.fingerprint):
            continue
        directions = current.recipe.directions
        for direction in directions if current.recipe.lm is not None else ():
            recipe = language_model_recipe(current.recipe, direction)
            made = is_finished(out / "shared" / f"{direction}-{recipe.hash}", recipe, dataset.fingerprint)
            if not made and recipe.hash not in models:
                models.add(recipe.hash)
                note(f"{direction} language model of {current.recipe.name}", recipe, [f"{direction}/classifier"])
        note(current.recipe.name, current.recipe, [f"{direction}/lm" for direction in directions])
    rows = [(what, count[key], plan_run(recipe, dataset, device=device, cache=cache, progress=progress,
                                        skip=skip).seconds) for key, (what, recipe, skip) in kinds.items()]
    return GridPlan(tuple(rows))
