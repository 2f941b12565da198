"""What a run came to: the numbers of a run folder, checked, in a form to look at and to compute with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._files import read_json
from ..recipe.parts import DIRECTIONS
from ..recipe.recipe import Recipe
from . import comparison as tables
from . import verdict
from .folder import HISTORY, RATES, SCHEMA
from .intervals import wilson_interval
from .metrics import average, calibration_table, confusion_counts, error_metrics, scores_per_class
from .predictions import read_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One run, read from its folder: errors with their intervals, predictions, curves, and what made them.

    Shown in a notebook as a table beside the paper; `print(result)` gives the same as text, `.plot()` the figures.
    A run that is not finished has `status` 'running' or 'stopped', and no `error` yet.
    """

    folder: Path
    run: dict[str, Any]
    predictions: pd.DataFrame | None = None
    """id, label, predicted, prob_<class>, <direction>_prob_<class>: one row a test text, in the order of the set"""
    classes: tuple[str, ...] = ()
    probs: dict[str, np.ndarray] = field(default_factory=dict)
    """direction -> (texts, classes)"""
    history: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(HISTORY)))
    """one row an epoch"""
    rates: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(RATES)))
    """learning rate of every layer group, sampled over the steps"""

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Result:
        """Read a run folder; one that is not a run, or is damaged, is a ValueError that says what is wrong.

        A run that goes on, or was interrupted, is read as far as it got: see `status`.
        """
        folder = Path(folder)
        run = _read_run(folder)
        predictions: pd.DataFrame | None = None
        classes: list[str] = []
        probs: dict[str, np.ndarray] = {}
        if (folder / "predictions.csv").exists():
            predictions, classes, probs = read_predictions(folder / "predictions.csv")
            _check_predictions(folder, run, predictions, probs)
        elif run["status"] == "finished" and _scores(run) and _evaluates_test(run):
            raise UlmfitError(f"{folder}: run.json says the run is finished, but predictions.csv is missing. "
                              "Restore the file, or run the same command again.")
        return cls(folder=folder, run=run, predictions=predictions, classes=tuple(classes), probs=probs,
                   history=_read_table(folder / "history.csv", HISTORY),
                   rates=_read_table(folder / "rates.csv", RATES))

    # What ran

    @property
    def status(self) -> str:
        """'finished', 'running' or 'stopped'."""
        return self.run["status"]

    @property
    def task(self) -> str:
        return self.run.get("task") or self.data.get("name", "custom")

    @property
    def data(self) -> dict[str, Any]:
        """Name, fingerprint, counts, source and notes of the data set; `synthetic` when the project made it up."""
        return self.run.get("data") or {}

    @property
    def recipe_dict(self) -> dict[str, Any]:
        return self.run.get("recipe") or {}

    @cached_property
    def recipe(self) -> Recipe:
        """The run's Recipe: what `preset()` made and every override."""
        return Recipe.from_json(self.recipe_dict)

    @property
    def protocol(self) -> str:
        """'clean', or 'tutorial': test texts in the LM fine-tuning, and the test set as validation set."""
        return self.recipe_dict.get("protocol", "clean")

    @property
    def evaluated(self) -> str:
        """'test', or 'validation' for runs that leave the test set alone (the paper's analyses, Tables 4 to 7)."""
        return "validation" if self.recipe_dict.get("evaluate") == "validation" else "test"

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions that have an error, forward first."""
        return tuple(name for name in DIRECTIONS if name in self.scores)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said beside the number: made-up data, another protocol, an unfinished run, warnings."""
        found = []
        if self.status != "finished":
            found.append(f"This run is not finished (status: {self.status}); the same command goes on with it.")
        if self.data.get("synthetic"):
            found.append("Synthetic data, made by this project: the error says that the method runs, "
                         "not how well it does on real texts.")
        if self.protocol == "tutorial":
            found.append("Protocol 'tutorial': the test texts (without labels) were in the language model's training, "
                         "and the test set served as validation, as in published notebooks.")
        notes = [str(note) for note in (*self.data.get("notes", ()), *self.run.get("warnings", ()))]
        found += [n for n in notes if not (self.data.get("synthetic") and n.lower().startswith("synthetic"))]  # said
        return tuple(dict.fromkeys(found))

    @property
    def seconds(self) -> float:
        """How long the run took, with the language models that it took from other runs."""
        return seconds_of(self.run)

    # What came out

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """error (%), n, wrong, macro_f1, loss of each direction, and of 'averaged' when there are two."""
        return _scores(self.run)

    @property
    def errors(self) -> dict[str, float]:
        """Error in % (of the test set, see `evaluated`) of each direction, and 'averaged' when there are two."""
        return {name: metrics["error"] for name, metrics in self.scores.items()}

    @property
    def headline(self) -> str | None:
        """Which of `errors` is the result: 'averaged' with two directions, else the one; None before there is any."""
        if self.status != "finished":
            return None
        return "averaged" if "averaged" in self.errors else next(iter(self.errors), None)

    @property
    def error(self) -> float | None:
        """Error in %: both directions averaged, or the only one; None while the run is unfinished."""
        return self.errors[self.headline] if self.headline else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of `error` in % (Wilson): sampling of the test set only, not the spread over seeds."""
        return self.interval_of(self.headline) if self.headline else None

    def interval_of(self, name: str) -> tuple[float, float]:
        """95 % interval in % of one of `errors`."""
        return wilson_interval(self.scores[name]["wrong"], self.scores[name]["n"])

    @property
    def n_test(self) -> int | None:
        """How many texts `error` was measured on."""
        return self.n_of(self.headline) if self.headline else None

    def n_of(self, name: str) -> int:
        """How many texts one of `errors` was measured on."""
        return self.scores[name]["n"]

    @cached_property
    def verdict(self) -> verdict.Verdict:
        """The result against the paper's, see `verdict.check`."""
        return verdict.check(self)

    def probabilities(self, name: str | None = None) -> np.ndarray:
        """Probabilities (texts, classes) of a direction or 'averaged' (the default: what the headline is made of)."""
        if not self.probs:
            raise UlmfitError(f"{self.folder} has no predictions yet (status: {self.status}).")
        name = name or self.headline or "averaged"
        return self.probs[name] if name in self.probs else average(self.probs)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class numbers of the test texts, into `classes`."""
        if self.predictions is None:
            raise UlmfitError(f"{self.folder} has no predictions yet (status: {self.status}).")
        return pd.Categorical(self.predictions["label"], categories=list(self.classes)).codes.astype(np.int64)

    def confusion(self, name: str | None = None) -> pd.DataFrame:
        """Counts: row = true class, column = predicted class."""
        predicted = self.probabilities(name).argmax(axis=1)
        counts = confusion_counts(self.labels, predicted, n_classes=len(self.classes))
        return pd.DataFrame(counts, index=pd.Index(self.classes, name="label"),
                            columns=pd.Index(self.classes, name="predicted"))

    def per_class(self, name: str | None = None) -> pd.DataFrame:
        """Precision, recall, f1 (0 to 1) and n, a row a class."""
        predicted = self.probabilities(name).argmax(axis=1)
        return pd.DataFrame(scores_per_class(self.labels, predicted, n_classes=len(self.classes)),
                            index=list(self.classes))

    def macro_f1(self, name: str | None = None) -> float:
        """Mean F1 over the classes (0 to 1)."""
        return error_metrics(self.probabilities(name), self.labels)["macro_f1"]

    def calibration(self, name: str | None = None, *, bins: int = 15) -> pd.DataFrame:
        """A row a bin of confidence: low, high, n, confidence, accuracy, wrong."""
        return calibration_table(self.probabilities(name), self.labels, bins=bins)[0]

    def calibration_error(self, name: str | None = None, *, bins: int = 15) -> float:
        """Expected calibration error (0 to 1): mean distance of confidence from accuracy."""
        return calibration_table(self.probabilities(name), self.labels, bins=bins)[1]

    def mistakes(self, n: int | None = None) -> pd.DataFrame:
        """The wrong predictions, most confident first: id, label, predicted, confidence, row (in the test set)."""
        probs = self.probabilities()
        predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
        rows = np.flatnonzero(predicted != self.labels)
        rows = rows[np.argsort(-confidence[rows], kind="stable")][:n]
        names = np.array(self.classes, dtype=object)
        assert self.predictions is not None
        return pd.DataFrame({"id": self.predictions["id"].to_numpy()[rows], "label": names[self.labels[rows]],
                             "predicted": names[predicted[rows]], "confidence": confidence[rows], "row": rows})

    # How it is shown

    def table(self) -> pd.DataFrame:
        """This run, its baselines, the paper and other fastai v2 runs, each a row: what, error, low, high, n, kind.

        Errors and their 95 % intervals are in %. kind: 'this run', 'baseline', 'paper', 'elsewhere'.
        """
        return tables.comparison(self)

    def __repr__(self) -> str:
        return tables.as_text(self)

    def _repr_html_(self) -> str:
        return tables.as_html(self)

    def plot(self) -> Figure:
        """Rates of each layer group with the unfreezing, losses, and the confusion matrix, as one matplotlib Figure."""
        from .figures import run_figure

        if self.rates.empty and self.history.empty:
            raise UlmfitError(f"{self.folder}: nothing to plot yet (status: {self.status}).")
        return run_figure(self.rates, self.history, self.confusion() if self.probs else None)


def seconds_of(run: dict[str, Any]) -> float:
    """Seconds of all sessions of the run of a run.json, and of the language models that it took from other runs."""
    taken = dict.fromkeys(run.get("language_model_of") or {}, ("pretrain", "lm"))
    taken |= run.get("language_model_phases") or {}
    others = sum(stage["seconds"] for stage in run.get("stages", [])
                 if stage["phase"] in taken.get(stage["direction"], ()))
    return sum(session.get("seconds", 0.0) for session in run.get("sessions", [])) + others


def _read_run(folder: Path) -> dict[str, Any]:
    """run.json, checked as far as everything else relies on it."""
    if not folder.is_dir():
        raise UlmfitError(f"{folder} is no folder: expected a run folder, as `ulmfit-fastai imdb --out "
                          f"{folder}` makes.")
    path = folder / "run.json"
    if not path.exists():
        raise UlmfitError(f"{folder} is not a run folder: it holds no run.json. Found: "
                          f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}.")
    run = read_json(path)
    if not isinstance(run, dict) or "schema" not in run:
        raise UlmfitError(f"{path} is not the record of a run: expected an object with 'schema'.")
    if run["schema"] != SCHEMA:
        raise UlmfitError(f"{path} has schema {run['schema']!r}, this version of ulmfit_fastai reads {SCHEMA}: "
                          "use the version that made the run (see 'versions' in the file).")
    if run.get("status") not in ("finished", "running", "stopped"):
        raise UlmfitError(f"{path}: expected status finished, running or stopped, found {run.get('status')!r}.")
    return run


def _scores(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Metrics of the evaluated set: each direction's, and the average's when there are two."""
    metrics = run.get("metrics") or {}
    if (run.get("recipe") or {}).get("evaluate") == "validation":
        metrics = metrics.get("validation") or {}
    names = [name for name in DIRECTIONS if name in metrics]
    if len(names) > 1 and "averaged" in metrics:
        names.append("averaged")
    return {name: metrics[name] for name in names}


def _evaluates_test(run: dict[str, Any]) -> bool:
    return (run.get("recipe") or {}).get("evaluate", "test") == "test"


def _check_predictions(folder: Path, run: dict[str, Any], frame: pd.DataFrame, probs: dict[str, np.ndarray]) -> None:
    """Refuse predictions that are not those run.json counted: half a file, or another run's."""
    errors = _scores(run)
    if run["status"] != "finished" or not errors or not _evaluates_test(run):
        return
    metrics = errors["averaged"] if "averaged" in errors else next(iter(errors.values()))
    wrong = int((frame["label"] != frame["predicted"]).sum())
    if (len(frame), wrong) != (metrics["n"], metrics["wrong"]):
        raise UlmfitError(
            f"{folder}: predictions.csv has {len(frame)} rows, {wrong} of them wrong; run.json counted {metrics['n']} "
            f"and {metrics['wrong']}. The files are not of one run, or one was changed or cut short.")
    if set(errors) - {"averaged"} != set(probs):
        raise UlmfitError(f"{folder}: predictions.csv has the directions {sorted(probs)}, run.json {sorted(errors)}.")


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """history.csv or rates.csv; empty with the right columns when it is not there yet."""
    if not path.exists() or path.stat().st_size == 0:
        return pd.DataFrame(columns=list(columns))
    frame = pd.read_csv(path, dtype={"stage": str, "direction": str, "phase": str}, keep_default_na=False,
                        na_values={name: ["", "nan", "None"] for name in columns if name not in ("stage", "group")})
    missing = [name for name in columns if name not in frame]
    if missing:
        raise UlmfitError(f"{path} is damaged: expected the columns {', '.join(columns)}; missing "
                          f"{', '.join(missing)}.")
    if "trainable" in frame:
        frame["trainable"] = frame["trainable"].astype(str).str.lower().isin(("true", "1", "1.0"))
    return frame
