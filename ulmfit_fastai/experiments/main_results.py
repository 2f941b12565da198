"""Tables 2 and 3 of the paper: the test error on each of its six data sets, for those whose data can be had."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, cast

import pandas as pd

from .. import paper
from .._errors import UlmfitError
from .._files import expanded, write_json_atomic, write_text_atomic
from ..recipe.recipe import Recipe
from ..results import verdict
from ..results.environment import command_line, versions
from ..results.result import Result
from ..texts.dataset import Dataset
from ..texts.sources import load_task
from ..training.processes import refuse_several
from .reproduction import reproduce, settled_recipe

log = logging.getLogger(__name__)

COLUMNS = ["task", "where", "paper", "error", "low", "high", "n_texts", "directions", "status", "note"]


@dataclass(frozen=True, eq=False, repr=False)
class MainResults:
    """Tables 2 and 3 beside ours."""

    rows: pd.DataFrame
    """task, where (the paper's table), paper (error in %, both directions), error (ours, NaN where there is none), low,
    high (95 %), n_texts, directions, status (the verdict of `check`, or 'stopped', 'skipped'), note (why)"""
    results: dict[str, Result] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def exit_code(self) -> int:
        """1 if a result falls short of the paper, else 0."""
        return int((self.rows["status"] == "short").any())

    def __repr__(self) -> str:
        lines = ["Tables 2 and 3: test error in %", f"  {'':<10} {'paper':>6}  {'ours':>6}  95 % interval"]
        for row in cast(Any, self.rows.itertuples()):
            error = "" if math.isnan(row.error) else f"{row.error:.2f}"
            interval = "" if math.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
            lines.append(f"  {paper.TASKS[row.task].title:<10} {row.paper:>6.2f}  {error:>6}  {interval:<16} "
                         f"{row.status}{': ' + row.note if row.note else ''}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.rows.to_html(index=False, float_format=lambda x: f"{x:.2f}", na_rep="")

    def save(self) -> Path:
        """Write tables2and3.csv and .json; returns the path of the latter."""
        write_text_atomic(self.folder / "tables2and3.csv", self.rows.to_csv(index=False, float_format="%.6g"))
        values = {"command": command_line(), "versions": versions(), "rows": self.rows.to_dict("records")}
        return write_json_atomic(self.folder / "tables2and3.json", values)


def reproduce_all(
    tasks: Sequence[str] | None = None,
    preset: str | Path | Recipe = "fastai",
    *,
    data: str | Path | Mapping[str, str | Path | Dataset] | None = None,
    out: str | Path = "runs",
    time_budget: float | None = None,
    dry_run: bool = False,
    **options: Any,
) -> MainResults:
    """Run the method on every data set of the paper that can be had, and put the errors beside Tables 2 and 3.

    A data set that can't be read or fetched is skipped, and the table says why. Each task's run folder is `out`/<task>;
    the same call goes on with what is missing.

    Args:
        tasks: some of 'imdb', 'trec6', 'ag', 'dbpedia', 'yelp-bi', 'yelp-full'; None: all.
        data: a folder with one folder or file for each task, named after it (imdb/, trec6/, ag.parquet, ...), or a
            mapping of tasks to paths or `Dataset`s. None, and for tasks that are not in it: fastai's cache, or a
            download.
        out: the folder of all run folders; tables2and3.csv and .json end up there.
        time_budget: seconds for all of it.
        dry_run: only print what would be done and how long it would take here.
        options: those of `reproduce`, overrides of the recipe included.

    Returns:
        MainResults: `.rows`, `.results` (task -> `Result`), `.exit_code`.

    Raises:
        UlmfitError: an unknown task, or settings that are wrong or would have no effect.

    Source: Howard & Ruder 2018, section 4, Tables 2 and 3.
    """
    refuse_several("several data sets, one after another")
    names = list(tasks or paper.TASKS)
    unknown = [name for name in names if name not in paper.TASKS]
    if unknown:
        raise UlmfitError(f"the paper has no data set {unknown[0]!r}; expected some of {', '.join(paper.TASKS)}.")
    changes = {name: value for name, value in options.items() if name not in signature(reproduce).parameters}
    for name in names:  # what is wrong with the recipe is said before any data is read
        settled_recipe(preset, name, options.get("directions"), changes)
    deadline = None if time_budget is None else time.monotonic() + time_budget
    folder = expanded(out)
    found = [(name, *_reproduced(name, preset, data, folder / name, deadline, dry_run=dry_run, **options))
             for name in names]
    results = {name: result for name, result, *_ in found if result is not None}
    rows = [_row(*outcome) for outcome in found]
    table = MainResults(pd.DataFrame(rows, columns=COLUMNS), results, folder)
    if not dry_run:
        table.save()
    return table


def _reproduced(name: str, preset: str | Path | Recipe, data: str | Path | Mapping[str, str | Path | Dataset] | None,
                out: Path, deadline: float | None, *, dry_run: bool, **options: Any) -> tuple[Result | None, str, str]:
    """A task's result, its status and why, or in which way, it is so; without a result where none could be had."""
    try:
        dataset = _dataset(name, data)
    except (ValueError, OSError) as error:  # OSError: no network, or no right to read
        log.warning("%s skipped: %s", name, error)
        return None, "skipped", str(error)
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        return None, "stopped", "the time budget ended before it"
    log.info("%s", paper.TASKS[name].title)
    found = reproduce(dataset, preset, out=out, time_budget=left, dry_run=dry_run, **options)
    if found is None:
        return None, "dry run", ""
    return found, found.verdict.status if found.error is not None else found.status, "; ".join(dataset.notes)


def _dataset(name: str, data: str | Path | Mapping[str, str | Path | Dataset] | None) -> Dataset:
    """The data set of a task from what the user gave, else from fastai's cache or its address."""
    if isinstance(data, Mapping):
        given = data.get(name)
        return given if isinstance(given, Dataset) else load_task(name, given)
    if data is None:
        return load_task(name)
    if not Path(data).is_dir():
        raise UlmfitError(f"data: expected a folder that holds a folder or file for each task, found {data}")
    places = sorted(path for path in Path(data).iterdir() if path.name.split(".")[0] == name)
    return load_task(name, places[0] if places else None)


def _row(name: str, result: Result | None, status: str, note: str = "") -> tuple[Any, ...]:
    theirs = verdict.reference(name, both=True)
    if result is None or result.error is None or result.interval is None:
        return name, theirs.where, theirs.value, math.nan, math.nan, math.nan, 0, "", status, note
    low, high = result.interval
    return (name, theirs.where, theirs.value, result.error, low, high, result.n_test, " + ".join(result.directions),
            status, note)
