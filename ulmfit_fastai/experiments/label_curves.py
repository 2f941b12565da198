"""Figure 3: how the error falls with the number of labels.

    curves = lowshot("imdb", (100, 500, 1000, 5000), base="quick", seeds=2)
    print(curves)                # errors, spread, and how many labels training from scratch would need
    curves.plot()
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from .. import paper
from .._errors import UlmfitError
from .._files import read_json, write_json_atomic, write_text_atomic
from ..recipe.ablations import LOW_SHOT
from ..recipe.recipe import Recipe
from ..results.comparison import title_of
from ..results.intervals import interval
from ..texts.dataset import Dataset
from ..texts.sources import load_task
from ..training.baseline import tfidf_baseline
from ..training.corpus import Corpus
from ..training.prepare import rows_for
from .ablation_table import SCHEMA
from .base import base_recipe, refuse_early
from .baselines import nbsvm_baseline
from .figures import labels_figure, save_figure
from .grid import Cell, GridPlan, distinct, plan_grid, result_of, run_grid
from .label_points import SOME, lowshot_cells, point_cells, varied
from .labels_needed import labels_needed
from .notes import notes_of, said_once
from .tables import record_of, seed_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

BASELINES: dict[str, Callable[..., dict[str, Any]]] = {"tfidf": tfidf_baseline, "nbsvm": nbsvm_baseline}
NAMES = {"from_scratch": "from scratch", "supervised": "ULMFiT, supervised",
         "semi_supervised": "ULMFiT, semi-supervised", "tfidf": "TF-IDF + logistic regression", "nbsvm": "NB-SVM"}
COLUMNS = ["kind", "labels", "error", "sd", "low", "high", "n_seeds", "n_texts"]


@dataclass(frozen=True, eq=False, repr=False)
class LowShot:
    """The curves of Figure 3, as far as their runs are finished."""

    task: str
    points: pd.DataFrame
    """kind, labels, error (% of the validation set, mean over seeds), sd, low, high, n_seeds, n_texts"""
    errors: dict[str, dict[int, float]]
    """"kind/labels" -> seed -> error in %"""
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    by_direction: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    """"kind/labels" -> 'forward' or 'backward' -> seed -> error in %, where both are averaged"""

    @property
    def finished(self) -> bool:
        """Whether every run is there."""
        return not self.missing

    def curve(self, kind: str) -> dict[int, float]:
        """{labels: mean error in %} of a kind, as far as it is known."""
        rows = self.points[(self.points["kind"] == kind) & self.points["error"].notna()]
        return dict(zip(rows["labels"].astype(int), rows["error"].astype(float)))

    @property
    def needed(self) -> pd.DataFrame:
        """For every other point: the labels that training from scratch needs for the same error.

        Returns:
            Columns: kind, labels, error (%), needed (NaN where only a bound is known), factor (needed / labels), text,
            paper (the paper's factor, with 100 labels).
        """
        scratch, rows = self.curve("from_scratch"), []
        for point in cast(Any, self.points.itertuples()):
            if point.kind == "from_scratch" or math.isnan(point.error) or not scratch:
                continue
            found = labels_needed(scratch, point.error)
            labels = math.nan if found.labels is None else found.labels
            theirs = paper.LOW_SHOT.get((self.task, point.kind.replace("_", "-"))) if point.labels == 100 else None
            rows.append((point.kind, point.labels, point.error, labels, labels / point.labels, found.text,
                         theirs.value if theirs else math.nan))
        return pd.DataFrame(rows, columns=["kind", "labels", "error", "needed", "factor", "text", "paper"])

    def __repr__(self) -> str:
        table = self.points.pivot(index="labels", columns="kind", values="error")
        spread = self.points.pivot(index="labels", columns="kind", values="sd")
        kinds = [kind for kind in NAMES if kind in table]
        lines = [f"Figure 3 on {title_of(self.task)}: validation error in % (mean, sd over seeds)"]
        lines.append(f"  {'labels':>8}" + "".join(f"  {NAMES[kind]:>24}" for kind in kinds))
        for labels in table.index:
            cells = [_with_spread(table.loc[labels, kind], spread.loc[labels, kind]) for kind in kinds]
            lines.append(f"  {labels:>8,}" + "".join(f"  {text:>24}" for text in cells))
        for row in cast(Any, self.needed[self.needed["kind"].isin(LOW_SHOT)].itertuples()):
            theirs = f"; the paper: {row.paper * row.labels:,.0f}" if row.paper == row.paper else ""
            lines.append(f"{NAMES[row.kind]} with {row.labels:,} labels is as good as training from scratch with "
                         f"{row.text}{theirs}")
        lines += self._each_direction()
        lines += [f"! {note}" for note in said_once(self.notes)]
        lines += [f"! missing: {name} ({why})" for name, why in self.missing.items()]
        return "\n".join(lines)

    def _each_direction(self) -> list[str]:
        """What the directions have alone, where the curves are of both averaged."""
        lines = []
        for row, directions in self.by_direction.items():
            kind, labels = row.split("/")
            alone = [f"{name} alone {_with_spread(*_mean_and_spread(list(by_seed.values())))}"
                     for name, by_seed in directions.items() if by_seed]
            if alone:
                lines.append(f"{NAMES[kind]} with {int(labels):,} labels: {', '.join(alone)}")
        return lines

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def plot(self) -> Figure:
        """Figure 3: error against labels, both on logarithmic axes."""
        return labels_figure(self.points, NAMES, title=f"Low-shot learning · {title_of(self.task)}")

    def save(self) -> Path:
        """Write lowshot.csv and lowshot.json; returns the path of the latter."""
        write_text_atomic(self.folder / "lowshot.csv", self.points.to_csv(index=False, float_format="%.6g"))
        values = {"schema": SCHEMA, "task": self.task, "points": self.points.to_dict("records"),
                  "errors": self.errors, "by_direction": self.by_direction, "needed": self.needed.to_dict("records"),
                  "missing": self.missing, "notes": self.notes, "record": self.record}
        return write_json_atomic(self.folder / "lowshot.json", values)


def lowshot(
    task: str | Dataset,
    labels: Sequence[int | None] = (100, 500, 1000, 5000),
    *,
    kinds: Sequence[str] = LOW_SHOT,
    most_texts: int | None = None,
    training: str = "paper",
    directions: Sequence[str] | None = None,
    base: str | Path | Recipe | None = None,
    seeds: int | Sequence[int] = 1,
    data: str | Path | None = None,
    verify: bool = True,
    train: str | None = None,
    corpus: Corpus | None = None,
    out: str | Path | None = None,
    baselines: bool = True,
    lm_from: str | Path | Sequence[str | Path] = (),
    time_budget: float | None = None,
    device: str | None = None,
    progress: bool = True,
    dry_run: bool = False,
    cache: Path | None = None,
    **overrides: Any,
) -> LowShot | GridPlan:
    """Figure 3: the error with few labels, from scratch, supervised and semi-supervised, beside bags of words.

    The labels are balanced over the classes as far as these reach, a larger set contains the smaller ones of its seed,
    and all runs are measured on the same validation set, a tenth of the training set. Supervised: the language model is
    fine-tuned on the labelled texts alone; semi-supervised: on all texts, once for all numbers of labels.

    Args:
        labels: numbers of labels; None in it: all there are beside the validation set.
        kinds: of 'from_scratch', 'supervised', 'semi_supervised'.
        most_texts: labelled texts that a classifier reads, all epochs together: fewer epochs with many labels (as in
            `ablations.low_shot`). None: the same epochs for all, as in the paper.
        training: 'paper': gradual unfreezing, STLR and rates as in section 5; 'preset': stages and rates of `base`.
        directions: of the language models, averaged where there are two; None: forward, as in the paper.
        baselines: train TF-IDF with logistic regression, and NB-SVM, on the same labels of every seed.
        overrides: these and all other arguments as in `experiments.ablate`.

    Returns:
        LowShot: `.points`, `.needed` (labels that training from scratch needs for the same error), `.plot()`; with
        `dry_run` the `GridPlan`.

    Raises:
        UlmfitError: as `experiments.ablate`.

    Source: Howard & Ruder 2018, section 5, Low-shot learning.
    """
    started = time.monotonic()
    few = [n for n in labels if n is not None and n < 2]
    if few or not len(labels):
        raise UlmfitError(f"labels: expected numbers of at least 2, found {few[0] if few else 'none'}", field="labels")
    refuse_early(device, out)
    name = task.name if isinstance(task, Dataset) else task
    recipe = base_recipe(base, name, overrides)
    how: dict[str, Any] = {"kinds": kinds, "base": recipe, "seeds": seed_list(seeds), "most_texts": most_texts,
                           "training": training, "directions": directions, "asked": overrides}
    point_cells(name, [max(n or SOME, 2) for n in labels], **how)  # wrong settings are refused before a download
    dataset = task if isinstance(task, Dataset) else load_task(task, data, verify=verify, train=train)
    folder = Path(out or Path("runs") / "ablations" / dataset.name)
    cells = lowshot_cells(dataset, labels, **how)
    if dry_run:
        return plan_grid(cells, dataset, folder, corpus=corpus, lm_from=lm_from, device=device, cache=cache,
                         progress=progress)
    bags = _baselines(cells, dataset, folder) if baselines else {}

    def so_far(missing: dict[str, str] | None = None) -> LowShot:
        method = varied(name, recipe, training, overrides)
        found = collect_lowshot(cells, dataset, folder, bags=bags, missing=missing or {}, method=method, device=device)
        found = replace(found, notes=(*found.notes, *_notes(recipe, training, most_texts, directions)))
        found.save()
        return found

    left = None if time_budget is None else max(time_budget - (time.monotonic() - started), 0.0)
    missing = run_grid(cells, dataset, folder, corpus=corpus, lm_from=lm_from, time_budget=left, device=device,
                       progress=progress, cache=cache, after_cell=so_far)
    result = so_far(missing)
    if result.points["error"].notna().any():
        save_figure(result.plot(), folder / "lowshot")
    return result


def _notes(base: Recipe, training: str, most_texts: int | None, directions: Sequence[str] | None) -> list[str]:
    """In what the training differs from the paper's, in words."""
    notes = [f"trained as the preset {base.name} has it, not as in the paper"] if training == "preset" else []
    if most_texts is not None:
        notes.append(f"a classifier reads {most_texts:,} labelled texts at most, all epochs together")
    if directions is not None and tuple(directions) != ("forward",):
        notes.append(f"{' and '.join(directions)} language model, the paper's forward")
    return notes


def _baselines(cells: Sequence[Cell], dataset: Dataset, folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """{"tfidf/100": {seed: record}} on the rows that the cells train and validate on; kept in `folder`."""
    path = folder / "lowshot-baselines.json"
    kept: dict[str, Any] = read_json(path) if path.exists() else {}
    if kept.get("fingerprint") != dataset.fingerprint:
        kept = {"fingerprint": dataset.fingerprint, "records": {}}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for current in {(c.row.split("/")[1], c.seed): c for c in cells}.values():
        rows = rows_for(current.recipe, dataset)
        for name, baseline in BASELINES.items():
            key = f"{name}/{current.row.split('/')[1]}"
            where = f"{key}/{current.seed}/{current.recipe.valid_fraction:g}"
            if where not in kept["records"]:
                kept["records"][where] = baseline(dataset, rows.train, rows.valid)
                write_json_atomic(path, kept)
                log.info("%s, %s labels, seed %d: %.2f %%", NAMES[name], key.split("/")[1], current.seed,
                         kept["records"][where]["error"])
            found.setdefault(key, {})[current.seed] = kept["records"][where]
    return found


def collect_lowshot(cells: Sequence[Cell], dataset: Dataset, folder: Path, *, method: Recipe,
                    bags: dict[str, dict[int, dict[str, Any]]], missing: dict[str, str],
                    device: Any = None) -> LowShot:
    """The curves of all cells that are finished, and of the baselines."""
    results = {c.folder: result_of(c, dataset, folder) for c in distinct(cells)}
    missing = {name: missing.get(name, "not run yet") for name, found in results.items() if found is None}
    errors: dict[str, dict[int, float]] = {c.row: {} for c in cells}
    n_texts: dict[str, int] = {}
    alone: dict[str, dict[str, dict[int, float]]] = {}
    for c in cells:
        result = results[c.folder]
        if result is not None and result.error is not None:
            errors[c.row][c.seed], n_texts[c.row] = result.error, result.n_test or 0
            if len(c.recipe.directions) > 1:
                for direction in c.recipe.directions:
                    alone.setdefault(c.row, {}).setdefault(direction, {})[c.seed] = result.errors[direction]
    for key, records in bags.items():
        errors[key] = {seed: record["error"] for seed, record in records.items()}
        n_texts[key] = next(iter(records.values()))["n"]
    points = []
    for key, by_seed in errors.items():
        kind, n = key.split("/")
        values = list(by_seed.values())
        low, high = interval(values, n_texts[key]) if values else (math.nan, math.nan)
        points.append((kind, int(n), *_mean_and_spread(values), low, high, len(values), n_texts.get(key, 0)))
    record = record_of(cells, results, dataset, method=method, device=device)
    order = {kind: place for place, kind in enumerate(NAMES)}
    frame = pd.DataFrame(points, columns=COLUMNS)
    frame = frame.sort_values(["kind", "labels"], key=lambda column: column.map(order) if column.name == "kind"
                              else column, ignore_index=True)
    return LowShot(dataset.name, frame, errors, missing, notes_of(method, record), record, folder, alone)


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, NaN where there are too few."""
    return fmean(values) if values else math.nan, stdev(values) if len(values) > 1 else math.nan


def _with_spread(error: float, sd: float) -> str:
    if math.isnan(error):
        return "missing"
    return f"{error:.2f}" if math.isnan(sd) else f"{error:.2f} ({sd:.2f})"
