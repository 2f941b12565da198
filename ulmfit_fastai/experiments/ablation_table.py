"""One of the paper's Tables 4 to 7 beside ours: errors, their spread over seeds, and how far the order agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from .._errors import UlmfitError
from .._files import read_json, write_json_atomic, write_text_atomic
from ..results.comparison import title_of
from .figures import table_figure
from .notes import said_once

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = 1  # of <table>.json
COLUMNS = ["row", "label", "paper", "error", "sd", "low", "high", "n_seeds", "n_texts"]


@dataclass(frozen=True, eq=False, repr=False)
class AblationTable:
    """One of the paper's tables beside ours, as far as its runs are finished.

    `rows` has a row for each of the table's: row, label, paper (error in %, NaN where the paper has none), error (ours,
    the mean over seeds), sd (over seeds), low and high (95 %, see `interval`), n_seeds, n_texts.
    """

    table: str
    task: str
    title: str
    measured_on: str
    rows: pd.DataFrame
    errors: dict[str, dict[int, float]]
    """row -> seed -> error in %"""
    missing: dict[str, str] = field(default_factory=dict)
    """Runs that are not finished, and why."""
    notes: tuple[str, ...] = ()
    """In what this is not the paper's experiment."""
    record: dict[str, Any] = field(default_factory=dict)
    """How it was made: command, seeds, recipes, versions, device, data."""
    folder: Path = Path()

    @property
    def finished(self) -> bool:
        """Whether every run is there."""
        return not self.missing

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of our mean errors with the paper's; None for fewer than three rows that have both."""
        return spearman(self.rows["paper"], self.rows["error"])

    @property
    def rank_correlation_by_seed(self) -> dict[int, float]:
        """The same for each seed alone, of the rows that it has finished."""
        seeds = sorted({seed for errors in self.errors.values() for seed in errors})
        found = {s: spearman(self.rows["paper"], [self.errors[row].get(s, math.nan) for row in self.rows["row"]])
                 for s in seeds}
        return {seed: value for seed, value in found.items() if value is not None}

    def __repr__(self) -> str:
        width = max(len(label) for label in self.rows["label"])
        lines = [f"{self.title} · {title_of(self.task)} · {self.measured_on} error in %",
                 f"  {'':<{width}}  {'paper':>6}  {'ours':>6}  {'sd':>5}  seeds  95 % interval"]
        for row in cast(Any, self.rows.itertuples()):
            interval = "" if math.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
            lines.append(f"  {row.label:<{width}}  {_number(row.paper):>6}  {_number(row.error):>6}  "
                         f"{_number(row.sd):>5}  {row.n_seeds:>5}  {interval}".rstrip())
        lines.append(self.agreement)
        lines += [f"! {note}" for note in said_once(self.notes)]
        lines += [f"! missing: {name} ({why})" for name, why in self.missing.items()]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        shown = self.rows.drop(columns="row").to_html(index=False, float_format=lambda x: f"{x:.2f}", na_rep="")
        notes = "".join(f"<p>{note}</p>" for note in (self.agreement, *said_once(self.notes), *self.missing))
        return f"<div><p><strong>{self.title}</strong> · {title_of(self.task)}</p>{shown}{notes}</div>"

    @property
    def agreement(self) -> str:
        """How far our order of the rows is the paper's, in words; empty where there is nothing to compare."""
        both = self.rows.dropna(subset=["paper", "error"])
        if len(both) < 2:
            return ""
        if self.rank_correlation is None:
            same = both.sort_values("paper")["error"].is_monotonic_increasing
            return f"the order of the rows is {'the' if same else 'not the'} paper's"
        seeds = self.rank_correlation_by_seed
        spread = f"; single seeds {min(seeds.values()):.2f} to {max(seeds.values()):.2f}" if len(seeds) > 1 else ""
        return f"rank correlation with the paper's order: {self.rank_correlation:.2f} ({len(both)} rows{spread})"

    def plot(self) -> Figure:
        """Our errors with every seed's and the paper's, row by row."""
        return table_figure(self.rows, self.errors, title=f"{self.title} · {title_of(self.task)}",
                            measured_on=self.measured_on)

    def save(self) -> Path:
        """Write <table>.csv and <table>.json; returns the path of the latter."""
        write_text_atomic(self.folder / f"{self.table}.csv", self.rows.to_csv(index=False, float_format="%.6g"))
        values = {
            "schema": SCHEMA, "table": self.table, "task": self.task, "title": self.title,
            "measured_on": self.measured_on, "rank_correlation": self.rank_correlation,
            "rank_correlation_by_seed": self.rank_correlation_by_seed,
            "rows": self.rows.to_dict("records"), "errors": self.errors, "missing": self.missing, "notes": self.notes,
            "record": self.record,
        }
        return write_json_atomic(self.folder / f"{self.table}.json", values)

    @classmethod
    def load(cls, path: str | Path) -> AblationTable:
        """Read <table>.json."""
        path = Path(path)
        values = read_json(path)
        if values.get("schema") != SCHEMA or "errors" not in values:
            raise UlmfitError(f"{path} is no table of this version: expected schema {SCHEMA}")
        errors = {row: {int(seed): error for seed, error in found.items()} for row, found in values["errors"].items()}
        rows = pd.DataFrame(values["rows"], columns=COLUMNS).astype(dict.fromkeys(COLUMNS[2:7], float))
        return cls(values["table"], values["task"], values["title"], values["measured_on"], rows, errors,
                   values["missing"], tuple(values["notes"]), values["record"], path.parent)


def spearman(theirs: Sequence[float] | pd.Series, ours: Sequence[float] | pd.Series) -> float | None:
    """Rank correlation of the pairs that have both numbers, ties at their mean rank.

    None for fewer than three pairs, or where one side is the same everywhere: there is no order to compare then.
    """
    from scipy.stats import spearmanr

    pairs = [(a, b) for a, b in zip(theirs, ours) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs)):
        return None
    return float(spearmanr(*zip(*pairs)).statistic)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


