"""Figure 4: how the validation error moves from epoch to epoch while the classifier is trained.

    curves = figure4("trec6", base="quick", data="trec6/")
    curves.plot()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._files import write_json_atomic, write_text_atomic
from ..recipe.ablations import ablation, full_method
from ..recipe.recipe import Recipe
from ..results.comparison import title_of
from ..results.result import Result
from ..texts.dataset import Dataset
from ..texts.sources import load_task
from ..training.corpus import Corpus
from .ablation_table import SCHEMA
from .base import base_recipe, refuse_early, refuse_lost_settings, taken
from .figures import epochs_figure, save_figure
from .grid import GridPlan, cell, plan_grid, result_of, run_grid
from .notes import notes_of, said_once
from .tables import record_of, seed_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class EpochCurves:
    """Figure 4: validation error in % after every epoch of the classifier, a frame (epoch, error) for each seed."""

    task: str
    curves: dict[str, list[pd.DataFrame]]
    missing: dict[str, str]
    folder: Path
    notes: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    """How the runs were made, as in `AblationTable.record`."""

    def __repr__(self) -> str:
        lines = [f"Figure 4 on {title_of(self.task)}: validation error in % by epoch (mean over seeds)"]
        for name, seeds in self.curves.items():
            if not seeds:
                continue
            mean = pd.concat(seeds).groupby("epoch")["error"].mean()
            lines.append(f"  {name}: {mean.iloc[0]:.2f} after epoch 1, best {mean.min():.2f} after epoch "
                         f"{mean.idxmin()}, {mean.iloc[-1]:.2f} after epoch {mean.index[-1]}")
        lines += [f"! {note}" for note in said_once(self.notes)]
        return "\n".join([*lines, *(f"! missing: {name} ({why})" for name, why in self.missing.items())])

    def plot(self) -> Figure:
        """The curves, the mean of the seeds thick, as a matplotlib Figure."""
        return epochs_figure(self.curves, title=f"Fine-tuning the classifier · {title_of(self.task)}")


def figure4(
    task: str | Dataset,
    *,
    base: str | Path | Recipe | None = None,
    seeds: int | Sequence[int] = 1,
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
    **overrides: Any,
) -> EpochCurves | GridPlan:
    """Figure 4: how the validation error moves while the classifier is trained, all at once ("Full") and as ULMFiT.

    Full is Table 7's row, but trained to its last epoch, without early stopping, as the figure shows it. The ULMFiT
    runs and all language models are those of the tables in the same `out`. Writes figure4.csv, .json (how the runs were
    made), .png and .svg.

    Args:
        overrides: these and all other arguments as in `experiments.ablate`.

    Returns:
        EpochCurves: `.curves`, `.plot()`; with `dry_run` the `GridPlan`.

    Raises:
        UlmfitError: as `experiments.ablate`.

    Source: Howard & Ruder 2018, section 5, Figure 4.
    """
    refuse_early(device, out)
    name = task.name if isinstance(task, Dataset) else task
    recipe = base_recipe(base, name, overrides)
    kinds = figure4_recipes(name, recipe, overrides)
    cells = [cell(row, kind, seed) for seed in seed_list(seeds) for row, kind in kinds.items()]
    refuse_lost_settings(overrides, recipe, kinds["ULMFiT"], cells)
    dataset = task if isinstance(task, Dataset) else load_task(task, data, verify=verify, train=train)
    folder = Path(out or Path("runs") / "ablations" / dataset.name)
    if dry_run:
        return plan_grid(cells, dataset, folder, corpus=corpus, lm_from=lm_from, device=device, cache=cache,
                         progress=progress)
    missing = run_grid(cells, dataset, folder, corpus=corpus, lm_from=lm_from, time_budget=time_budget, device=device,
                       progress=progress, cache=cache)
    results = {current.folder: result_of(current, dataset, folder) for current in cells}
    frames = [(current, _errors_by_epoch(result)) for current in cells
              if (result := results[current.folder]) is not None]
    curves = {row: [frame for current, frame in frames if current.row == row] for row in kinds}
    record = record_of(cells, results, dataset, method=kinds["ULMFiT"], device=device)
    found = EpochCurves(dataset.name, curves, missing, folder, notes_of(kinds["ULMFiT"], record), record)
    if frames:
        _save(found, pd.concat([frame.assign(row=current.row, seed=current.seed) for current, frame in frames]))
    return found


def _errors_by_epoch(result: Result) -> pd.DataFrame:
    """Validation error in % after each epoch of the classifier, counted from 1."""
    history = result.history[result.history["phase"] == "classifier"]
    return pd.DataFrame({"epoch": range(1, len(history) + 1),
                         "error": 100 * (1 - history["accuracy"].to_numpy(float))})


def _save(found: EpochCurves, rows: pd.DataFrame) -> None:
    table = rows[["row", "seed", "epoch", "error"]]
    write_text_atomic(found.folder / "figure4.csv", table.to_csv(index=False, float_format="%.6g"))
    write_json_atomic(found.folder / "figure4.json", {"schema": SCHEMA, "task": found.task, "missing": found.missing,
                                                      "notes": found.notes, "record": found.record})
    save_figure(found.plot(), found.folder / "figure4")


def figure4_recipes(task: str, base: Recipe, asked: Mapping[str, Any]) -> dict[str, Recipe]:
    """The two curves' recipes: everything trained at once, and ULMFiT."""
    whole = ablation("table7.full", task, base)
    whole = replace(whole, name="figure4.full", classifier=replace(whole.classifier, early_stopping=None))
    return {"Full": taken(whole, asked), "ULMFiT": taken(full_method(task, base), asked)}
