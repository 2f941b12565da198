"""Tables 4 to 7 of the paper: every row run with one or several seeds, beside the paper's errors.

    table = ablate("table7", "trec6", base="quick", seeds=3, data="trec6/")
    print(table)                 # mean, spread, the paper's error, rank correlation with the paper's order
    table.plot()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from .. import paper
from .._errors import UlmfitError
from ..model.devices import named_device
from ..recipe.ablations import ROWS, ablation, full_method, in_directions
from ..recipe.recipe import Recipe
from ..results.environment import command_line, describe_device, versions
from ..results.intervals import interval
from ..results.result import Result
from ..texts.dataset import Dataset
from ..texts.sources import load_task
from ..tokens.ids import TokenIds
from ..training.corpus import Corpus
from .ablation_table import COLUMNS, AblationTable
from .base import base_recipe, refuse_early, refuse_lost_settings, taken
from .figures import save_figure
from .grid import Cell, GridPlan, cell, distinct, plan_grid, result_of, run_grid
from .notes import notes_of

DIRECTION_ROWS = {"forward": ("Forward only", paper.ONE_DIRECTION.value), "backward": ("Backward only", None),
                  "both": ("Both averaged", paper.BOTH_DIRECTIONS.value)}
"""Section 5, Impact of bidirectionality: no table of the paper's, and IMDb only."""


def ablate(
    table: str,
    task: str | Dataset,
    *,
    base: str | Path | Recipe | None = None,
    rows: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 1,
    directions: Sequence[str] | None = None,
    data: str | Path | None = None,
    verify: bool = True,
    train: str | None = None,
    corpus: Corpus | None = None,
    out: str | Path | None = None,
    lm_from: str | Path | Sequence[str | Path] = (),
    time_budget: float | None = None,
    device: str | None = None,
    progress: bool = True,
    dry_run: bool = False,
    cache: Path | None = None,
    ids: TokenIds | None = None,
    **overrides: Any,
) -> AblationTable | GridPlan:
    """Run every row of one of the paper's analyses and put the errors beside the paper's.

    Rows that share a language model share its fine-tuning; finished runs are kept in `out`, and the same call makes
    those that are missing; several processes may make it at once, and share the runs. Errors are of a tenth of the
    training set, the same for all rows and seeds, as in the paper.

    Args:
        table: 'table4' to 'table7', or 'direction' (forward, backward, both; its errors are of the test set).
        task: 'imdb', 'trec6', 'ag', ... or a `Dataset`.
        base: preset, file or Recipe that gives the sizes (model, vocabulary, batches, epochs); the method is the
            paper's. None: 'paper-wt103', the paper's own sizes.
        rows: some of the table's rows; None: all.
        seeds: how many (3: 0, 1, 2), or which.
        directions: of the language models; None: forward, as in the paper.
        data: path of the data set; like `verify` and `train` as in `load_task`.
        corpus: general text, for a base with weights 'pretrain' and for table5, which pretrains both its models unless
            the base starts from nothing. Stage 1 is run for each seed; a run folder as `weights` saves that.
        out: folder of the runs, which may be shared by the tables of a task; <table>.csv, .json, .png and .svg end up
            there. None: runs/ablations/<task>.
        lm_from: folders of other runs: rows whose language model would be one of theirs take it instead of making the
            same again. Refused where it would be no row's.
        time_budget: seconds for all of it.
        dry_run: train nothing, only measure how long what is missing would take here.
        ids: the texts already numericalised (from a pack), for a machine without them.
        overrides: fields of the base by dotted name: `**{"classifier.bs": 32}`; those that no row would have are
            refused. `valid_fraction`, `n_labels`, `lm_texts` and `classifier.early_stopping` are taken over too.

    Returns:
        AblationTable: `.rows`, `.rank_correlation`, `.plot()`; `.missing` names the runs that are not finished. With
        `dry_run` the `GridPlan`: what would be run, and how long that takes.

    Raises:
        UlmfitError: an unknown table, row or data set, settings that are wrong or that no row would have, or an `out`
            that holds other runs.

    Source: Howard & Ruder 2018, section 5.
    """
    refuse_early(device, out)
    name = task.name if isinstance(task, Dataset) else task
    recipe = base_recipe(base, name, overrides)
    cells = table_cells(table, name, base=recipe, rows=rows, seeds=seed_list(seeds), directions=directions,
                        asked=overrides)
    dataset = task if isinstance(task, Dataset) else load_task(task, data, verify=verify, train=train)
    folder = Path(out or Path("runs") / "ablations" / dataset.name)
    if dry_run:
        return plan_grid(cells, dataset, folder, corpus=corpus, lm_from=lm_from, ids=ids, device=device, cache=cache,
                         progress=progress)

    def so_far(missing: dict[str, str] | None = None) -> AblationTable:
        found = collect(table, cells, dataset, folder, missing=missing or {}, device=device,
                        method=taken(full_method(name, recipe), overrides))
        found.save()
        return found

    missing = run_grid(cells, dataset, folder, corpus=corpus, lm_from=lm_from, time_budget=time_budget, device=device,
                       progress=progress, cache=cache, ids=ids, after_cell=so_far)
    result = so_far(missing)
    save_figure(result.plot(), folder / table)
    return result


MOST_SEEDS = 1000


def seed_list(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """3 as (0, 1, 2); a sequence as it is. ValueError for none, or one twice."""
    if isinstance(seeds, int) and not 0 < seeds <= MOST_SEEDS:
        raise UlmfitError(f"seeds: expected a number of 1 to {MOST_SEEDS:,}, found {seeds:,}", field="seeds")
    found = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not found or len(set(found)) < len(found):
        raise UlmfitError(f"seeds: expected a number above zero, or distinct seeds, found {seeds!r}")
    return found


def table_cells(table: str, task: str, *, base: Recipe, rows: Sequence[str] | None = None, seeds: Sequence[int] = (0,),
                directions: Sequence[str] | None = None, asked: Mapping[str, Any] | None = None) -> list[Cell]:
    """The cells of a table, all rows of the first seed first, so that a table in the making has every row.

    A row that is the full method itself has its recipe under the name `ulmfit`, by which the tables share it. `asked`
    are the settings that the base has got; those that would be lost in the rows are refused.
    """
    if table not in ROWS:
        raise UlmfitError(f"there is no table {table!r}; expected one of {', '.join(ROWS)}.")
    unknown = [row for row in rows or () if row not in ROWS[table]]
    if unknown:
        raise UlmfitError(f"{table} has no row {unknown[0]!r}; expected some of {', '.join(ROWS[table])}.")
    if table == "direction" and directions is not None:
        raise UlmfitError("table 'direction' compares the directions: leave directions out.")
    asked = asked or {}
    method = taken(full_method(task, base), asked)
    cells = []
    for seed in seeds:
        for row in rows or ROWS[table]:
            if table == "direction":  # one run has all three errors
                score = None if row == "both" else row
                cells.append(cell(row, taken(ablation("direction.both", task, base), asked), seed, score=score))
                continue
            recipe = taken(ablation(f"{table}.{row}", task, base), asked)
            if recipe.hash == method.hash:
                recipe = replace(recipe, name=method.name)
            cells.append(cell(row, in_directions(recipe, directions), seed))
    refuse_lost_settings(asked, base, method, cells)
    return cells


def collect(table: str, cells: Sequence[Cell], dataset: Dataset, folder: Path, *, method: Recipe,
            missing: dict[str, str] | None = None, device: Any = None) -> AblationTable:
    """The table of all cells that are finished."""
    results = {c.folder: result_of(c, dataset, folder) for c in distinct(cells)}
    missing = {name: (missing or {}).get(name, "not run yet") for name, found in results.items() if found is None}
    errors: dict[str, dict[int, float]] = {c.row: {} for c in cells}
    n_texts: dict[str, int] = {}
    for c in cells:
        result = results[c.folder]
        if result is not None:
            score = c.score or result.headline
            assert score is not None
            errors[c.row][c.seed], n_texts[c.row] = result.errors[score], result.n_of(score)
    rows = [_row(table, row, dataset.name, list(found.values()), n_texts.get(row)) for row, found in errors.items()]
    known = paper.TABLES.get(table)
    record = record_of(cells, results, dataset, method=method, device=device)
    return AblationTable(
        table, dataset.name, known.title if known else "Section 5: both directions against one",
        known.measured_on if known else "test", pd.DataFrame(rows, columns=COLUMNS), errors, missing,
        notes_of(method, record), record, folder)


def record_of(cells: Sequence[Cell], results: dict[str, Result | None], dataset: Dataset, *, method: Recipe,
              device: Any = None) -> dict[str, Any]:
    """How the numbers of an experiment were made; `results` by folder name, None where one is missing."""
    return {
        "command": command_line(), "seeds": sorted({c.seed for c in cells}), "versions": versions(),
        "device": describe_device(named_device(device)),
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "counts": dataset.counts,
                 "synthetic": dataset.synthetic, "notes": list(dataset.notes)},
        "full_method": {"hash": method.hash, "recipe": method.to_dict()},
        "recipe_hashes": {c.folder: c.recipe.hash for c in distinct(cells)},
        "runs": {name: _run_record(found) for name, found in results.items() if found is not None},
    }


def _run_record(result: Result) -> dict[str, Any]:
    """What a table keeps of each of its runs: epochs and seconds of every stage, and how the classifier ended."""
    stages = [{key: stage[key] for key in ("direction", "phase", "stage", "status", "epochs_done", "epochs", "seconds")}
              for stage in result.run["stages"]]
    return {"stages": stages, "errors": result.errors, "weights": result.run.get("weights", {}),
            "language_model_of": result.run.get("language_model_of", {})}


def _row(table: str, row: str, task: str, errors: list[float], n_texts: int | None) -> tuple[Any, ...]:
    label, theirs = _papers(table, row, task)
    mean = fmean(errors) if errors else math.nan
    sd = stdev(errors) if len(errors) > 1 else math.nan
    low, high = interval(errors, n_texts) if errors and n_texts else (math.nan, math.nan)
    return row, label, theirs, mean, sd, low, high, len(errors), n_texts or 0


def _papers(table: str, row: str, task: str) -> tuple[str, float]:
    """The row's name and error in the paper; NaN where the paper has none."""
    if table == "direction":
        label, value = DIRECTION_ROWS[row]
        return label, value if value is not None and task == "imdb" else math.nan
    known = paper.TABLES[table]
    return known.label(row), known.error(row, task).value if task in known.tasks else math.nan
