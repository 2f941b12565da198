"""Many runs that belong together: every cell of a table or a curve, with the language models they share made once.

    out/shared/lm-<direction>-<hash>/         fine-tuned language models, each a run folder of its own
    out/shared/pretrain-<direction>-<hash>/   pretrained ones, for recipes that pretrain
    out/<recipe>-seed<N>/                     the cells, each a run folder

Cells with equal recipes are one run: the full method's, for one, serves Tables 4, 6 and 7. Whatever is finished is
kept, so that the same call, after a kill or at the end of a time budget, makes what is missing and comes to the same
numbers. Several processes may be given the same call at once, and share the work: each takes the next run that no
other is making, and all of them end with the whole.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import expanded
from .._words import duration
from ..recipe.recipe import Recipe
from ..results.folder import ANOTHER_PLACE, FolderInUse, RunFolder, RunMismatch
from ..results.result import Result
from ..texts.dataset import Dataset
from ..tokens.ids import TokenIds
from ..training.corpus import Corpus, source_of
from ..training.processes import refuse_several
from ..training.runs import plan_run, run
from ..training.session import Stopped
from ..training.sharing import (
    folders,
    is_finished,
    language_model_in,
    language_model_recipe,
    pretraining_recipe,
)

log = logging.getLogger(__name__)

NAMES = {"pretrain": "pretraining", "lm": "language model"}
LOOK_EVERY = 2.0
"""Seconds after which it is seen that another process has left a run."""


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


def shared_runs(recipe: Recipe, out: str | Path) -> dict[str, list[tuple[str, Recipe, Path]]]:
    """The runs that a recipe's own starts from: {direction: [(phase it ends with, its recipe, its folder), ...]}."""
    found: dict[str, list[tuple[str, Recipe, Path]]] = {}
    for direction in recipe.directions:
        reduced = [("pretrain", pretraining_recipe(recipe, direction))] if recipe.weights == "pretrain" else []
        reduced += [("lm", language_model_recipe(recipe, direction))] if recipe.lm is not None else []
        found[direction] = [(phase, r, Path(out) / "shared" / f"{phase}-{direction}-{r.hash}") for phase, r in reduced]
    return found


def run_grid(
    cells: Sequence[Cell],
    dataset: Dataset,
    out: str | Path,
    *,
    time_budget: float | None = None,
    lm_from: str | Path | Sequence[str | Path] = (),
    after_cell: Callable[[], Any] = lambda: None,
    **options: Any,
) -> dict[str, str]:
    """Make the runs of all cells that `out` does not hold yet; returns {folder name: why} of those that are missing.

    They run in the order given. One that another process is making is left to it; at the end it is waited for, and
    made here if that process has left it unfinished. `time_budget` (seconds) is for all of them together. A run whose
    loss is no longer a number is reported and left, the others go on; the next call tries it again. `after_cell` is
    called after each run that is finished. `options` are those of `runs.run`.

    `lm_from` are folders of other runs: cells whose language model would be one of theirs take it instead of making
    the same again. RunMismatch where it would be no cell's.
    """
    refuse_several("a table or figure of many runs")
    out, todo = expanded(out), distinct(cells)
    given = folders(lm_from)
    refuse_useless(given, todo, dataset, out)
    runs = _Runs(dataset, None if time_budget is None else time.monotonic() + time_budget, options, given)
    missing = {c.folder: "not run yet" for c in todo if not runs.finished(c.recipe, out / c.folder)}
    log.info("%d of %d runs in %s are finished", len(todo) - len(missing), len(todo), out)
    left = [c for c in todo if c.folder in missing]
    numbers, elsewhere = {c.folder: n for n, c in enumerate(left, start=1)}, dict[str, Path]()
    while left:
        try:
            current = runs.next_of(left, elsewhere)
            log.info("run %d of %d: %s", numbers[current.folder], len(numbers), current.folder)
            runs.make(current, out)
            left.remove(current)
            missing.pop(current.folder)
            after_cell()
        except FolderInUse as error:
            log.info("%s: another process is making it", error.path)
            elsewhere[current.folder] = Path(error.path)
        except Stopped:
            log.warning("stopped with %d runs missing; the same command goes on", len(missing))
            break
        except FloatingPointError as error:
            log.warning("%s: %s", current.folder, error)
            left.remove(current)
            missing[current.folder] = f"diverged: {error}"
    return missing


def refuse_useless(sources: Sequence[str | Path], cells: Sequence[Cell], dataset: Dataset, out: str | Path) -> None:
    """RunMismatch for a run whose language models no cell would lead to."""
    wanted = {(direction, recipe.hash): recipe for c in cells
              for direction, shared in shared_runs(c.recipe, out).items()
              for phase, recipe, _ in shared if phase == "lm"}
    for source in sources:
        why: UlmfitError | None = None
        for (direction, _), recipe in wanted.items():
            try:
                if language_model_in(source, recipe, direction, dataset.fingerprint)[1] == "lm":
                    break
                why = RunMismatch(f"{source}: expected a fine-tuned {direction} language model, found a pretrained one",
                                  path=source)
            except UlmfitError as error:
                why = why or error
        else:
            raise why or RunMismatch(f"{source}: no run here fine-tunes a language model", path=source)


def fitting_model(sources: Sequence[str | Path], recipe: Recipe, direction: str, dataset: Dataset) -> str | Path | None:
    """The first of these runs whose fine-tuned language model is the one that a recipe leads to; None if none is."""
    for source in sources:
        try:
            if language_model_in(source, recipe, direction, dataset.fingerprint)[1] == "lm":
                return source
        except UlmfitError:
            continue
    return None


@dataclass
class _Runs:
    """Runs of one data set, each to its end, in what is left of the time."""

    dataset: Dataset
    deadline: float | None
    options: dict[str, Any]
    lm_from: Sequence[str | Path] = ()

    def finished(self, recipe: Recipe, folder: Path) -> bool:
        corpus = self.options.get("corpus")
        return is_finished(folder, recipe, self.dataset.fingerprint, corpus=source_of(corpus) if corpus else None)

    def make(self, cell: Cell, out: Path) -> None:
        """A cell's run, after those that it shares with others."""
        sources: dict[str, Path] = {}
        for direction, shared in shared_runs(cell.recipe, out).items():
            given = [fitting_model(self.lm_from, recipe, direction, self.dataset) for phase, recipe, _ in shared
                     if phase == "lm"]
            if given and given[0] is not None:
                shared, sources[direction] = shared[-1:], Path(given[0])
            for phase, recipe, folder in shared:
                start = {direction: sources[direction]} if direction in sources else None
                self.to_the_end(recipe, folder, until=phase, lm_from=start)
                sources[direction] = folder
        self.to_the_end(cell.recipe, out / cell.folder, lm_from=sources)

    def next_of(self, cells: Sequence[Cell], elsewhere: Mapping[str, Path]) -> Cell:
        """The first of these that no other process is making, waited for; Stopped where the time is up before.

        `elsewhere` has the folders in which others were seen at work, by the cell that needs them.
        """
        said = False
        while True:
            for one in cells:
                if one.folder not in elsewhere or not RunFolder(elsewhere[one.folder]).is_in_use:
                    return one
            left = LOOK_EVERY if self.deadline is None else min(LOOK_EVERY, self.deadline - time.monotonic())
            if left <= 0:
                raise Stopped
            if not said:
                log.warning("waiting for other processes, which are making %s",
                            ", ".join(sorted({str(elsewhere[one.folder]) for one in cells})))
                said = True
            time.sleep(left)

    def to_the_end(self, recipe: Recipe, folder: Path, **how: Any) -> None:
        """Run; Stopped unless the run is finished then."""
        if self.finished(recipe, folder):
            return
        if is_finished(folder, recipe, self.dataset.fingerprint):  # but for what stage 1 has read
            raise RunMismatch(f"{folder} was pretrained on another corpus than {source_of(self.options['corpus'])}",
                              path=folder, advice=ANOTHER_PLACE)
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise Stopped
        try:
            run(recipe, self.dataset, folder, time_budget=left, plan=False, **how, **self.options)
        except RunMismatch as error:  # to start a single run anew is no way out of a grid
            raise RunMismatch(error.message, path=error.path, expected=error.expected, found=error.found,
                              advice=ANOTHER_PLACE) from None
        if not self.finished(recipe, folder):
            raise Stopped


@dataclass(frozen=True)
class GridPlan:
    """What a grid would run here and how long that takes; `print(plan)` shows it."""

    rows: tuple[tuple[str, int, float], ...]
    """(what, how many of them, seconds of one)"""

    @property
    def seconds(self) -> float:
        """Of all runs together."""
        return sum(number * each for _, number, each in self.rows)

    def __str__(self) -> str:
        width = max((len(what) for what, *_ in self.rows), default=0)
        lines = ["what is still to be run, and how long that takes on this machine (measured on a few batches; less "
                 "where a row stops early):"]
        lines += [f"  {what:<{width}}  {number:3} x {duration(each):>12}" for what, number, each in self.rows]
        return "\n".join([*lines, f"  in all about {duration(self.seconds)}"])


def plan_grid(cells: Sequence[Cell], dataset: Dataset, out: str | Path, *, corpus: Corpus | None = None,
              ids: TokenIds | None = None, device: Any = None, cache: Path | None = None,
              lm_from: str | Path | Sequence[str | Path] = (), progress: bool = True) -> GridPlan:
    """Time what `run_grid` would run: each kind of run on a few batches of its first seed."""
    out = expanded(out)
    kinds: dict[str, tuple[str, Recipe, list[str]]] = {}
    count: Counter[str] = Counter()
    given = folders(lm_from)
    refuse_useless(given, distinct(cells), dataset, out)
    noted: set[Path] = set()

    def note(what: str, recipe: Recipe, folder: Path, skip: list[str]) -> None:
        if folder not in noted and not is_finished(folder, recipe, dataset.fingerprint):
            noted.add(folder)
            key = replace(recipe, seed=0).hash + " ".join(skip)
            kinds.setdefault(key, (what, recipe, skip))
            count[key] += 1

    for current in distinct(cells):
        if is_finished(out / current.folder, current.recipe, dataset.fingerprint):
            continue
        done: list[str] = []
        for direction, shared in shared_runs(current.recipe, out).items():
            if any(fitting_model(given, recipe, direction, dataset) for phase, recipe, _ in shared if phase == "lm"):
                done += [f"{direction}/{phase}" for phase, *_ in shared]
                continue
            for phase, recipe, folder in shared:
                before = [f"{direction}/pretrain"] if phase == "lm" else []
                note(f"{direction} {NAMES[phase]} of {current.recipe.name}", recipe, folder,
                     [*before, f"{direction}/classifier"])
                done.append(f"{direction}/{phase}")
        note(current.recipe.name, current.recipe, out / current.folder, done)
    rows: list[tuple[str, int, float]] = []
    for key, (what, recipe, skip) in kinds.items():
        log.info("timing %s (%d of %d)", what, len(rows) + 1, len(kinds))
        plan = plan_run(recipe, dataset, corpus=corpus, ids=ids, device=device, cache=cache, progress=progress,
                        skip=skip)
        rows.append((what, count[key], plan.seconds))
    return GridPlan(tuple(rows))
