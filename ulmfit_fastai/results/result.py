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
from .._files import expanded
from ..recipe.parts import DIRECTIONS
from ..recipe.recipe import Recipe
from . import comparison, verdict
from .folder import HISTORY, RATES
from .held_out import HeldOut, read_held_out
from .intervals import wilson_interval
from .metrics import average, calibration_table, confusion_counts, error_metrics, scores_per_class
from .predictions import predictions_frame, read_predictions
from .record import check_predictions, evaluates_test, read_run, read_table, scores_of, seconds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One run, read from its folder: errors with their intervals, predictions, curves, and what made them.

    Shown in a notebook as a table beside the paper; `print(result)` gives the same as text, `.plot()` the figures.
    A run that is not finished has `status` 'running' or 'stopped', and no `error` yet. Where a method takes a `name`,
    that is 'forward', 'backward' or 'averaged'; None: the one that `error` is of.
    """

    folder: Path
    run: dict[str, Any]
    predictions: pd.DataFrame | None = None
    """id, label, predicted, prob_<class>, <direction>_prob_<class>: one row a test text, in the order of the set; of a
    run of your own texts, one a text that was held out. None where a text may have several classes, or has a number."""
    classes: tuple[str, ...] = ()
    probs: dict[str, np.ndarray] = field(default_factory=dict)
    """direction -> (texts, classes)"""
    history: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(HISTORY)))
    """one row an epoch"""
    rates: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(RATES)))
    """learning rate of every layer group, sampled over the steps"""
    held_out: HeldOut | None = None
    """of a run that leaves the test set alone, as those of your own texts do: labels and predictions, of any kind"""

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Result:
        """Read a run folder; one that goes on, or was interrupted, is read as far as it got: see `status`.

        Raises:
            UlmfitError: the folder is no run, is damaged, or its files are not of one run.
        """
        folder = expanded(folder)
        run = read_run(folder)
        predictions: pd.DataFrame | None = None
        classes: list[str] = []
        probs: dict[str, np.ndarray] = {}
        if (folder / "predictions.csv").exists():
            predictions, classes, probs = read_predictions(folder / "predictions.csv")
            check_predictions(folder, run, predictions, probs)
        elif run["status"] == "finished" and scores_of(run) and evaluates_test(run):
            raise UlmfitError(f"{folder}: run.json says the run is finished, but predictions.csv is missing. "
                              "Restore the file, or run the same command again.")
        held_out = read_held_out(folder, run)
        if held_out is not None and held_out.kind == "single":
            classes, probs = list(held_out.classes), held_out.by_direction
            predictions = predictions_frame(held_out.ids, held_out.truth, classes, probs)
        return cls(folder=folder, run=run, predictions=predictions, classes=tuple(classes), probs=probs,
                   held_out=held_out,
                   history=read_table(folder / "history.csv", HISTORY),
                   rates=read_table(folder / "rates.csv", RATES))

    # What ran

    @property
    def status(self) -> str:
        """'finished', 'running' or 'stopped'."""
        return self.run["status"]

    @property
    def task(self) -> str:
        """The paper's name of the data set, or the name of yours."""
        return self.run.get("task") or self.data.get("name", "custom")

    @property
    def kind(self) -> str:
        """'single' (one class a text), 'multi' (any number of them) or 'regression' (a number)."""
        return (self.data.get("labels") or {}).get("kind", "single")

    @property
    def data(self) -> dict[str, Any]:
        """Name, fingerprint, counts, source and notes of the data set; `synthetic` when the project made it up."""
        return self.run.get("data") or {}

    @property
    def recipe_dict(self) -> dict[str, Any]:
        """The recipe as run.json has it: also one that this version can't read."""
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
        """How long the run took in all its sessions, with the language models that it took from other runs."""
        return seconds_of(self.run)

    # What came out

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """error (%), n, wrong, macro_f1, loss of each direction, and of 'averaged' when there are two.

        Of numbers mae, rmse, r2 and n.
        """
        return scores_of(self.run)

    @property
    def errors(self) -> dict[str, float]:
        """Error in % (of the test set, see `evaluated`) of each direction, and 'averaged' when there are two.

        Empty where labels are numbers: see `scores`.
        """
        return {name: metrics["error"] for name, metrics in self.scores.items() if "error" in metrics}

    @property
    def headline(self) -> str | None:
        """Which of `scores` is the result: 'averaged' with two directions, else the one; None before there is any."""
        if self.status != "finished":
            return None
        return "averaged" if "averaged" in self.scores else next(iter(self.scores), None)

    @property
    def error(self) -> float | None:
        """Error in %: both directions averaged, or the only one; None while the run is unfinished, and for numbers."""
        return self.errors.get(self.headline) if self.headline else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of `error` in % (Wilson): sampling of the test set only, not the spread over seeds."""
        return self.interval_of(self.headline) if self.headline and self.errors else None

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
        """Probabilities of a direction, or the mean of both.

        Returns:
            (texts, classes), in the order of `predictions` and of `classes`.

        Raises:
            UlmfitError: there are no predictions yet, as in all methods that need them.
        """
        if not self.probs:
            raise UlmfitError(f"{self.folder} has no predictions yet (status: {self.status}).")
        name = name or self.headline or "averaged"
        return self.probs[name] if name in self.probs else average(self.probs)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class numbers of the test texts, int64 (texts,), into `classes`."""
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
        """Precision, recall, f1 (0 to 1) and n (support), a row a class."""
        predicted = self.probabilities(name).argmax(axis=1)
        return pd.DataFrame(scores_per_class(self.labels, predicted, n_classes=len(self.classes)),
                            index=list(self.classes))

    def macro_f1(self, name: str | None = None) -> float:
        """Mean F1 over the classes (0 to 1)."""
        return error_metrics(self.probabilities(name), self.labels)["macro_f1"]

    def calibration(self, name: str | None = None, *, bins: int = 15) -> pd.DataFrame:
        """How often predictions of a confidence are right.

        Args:
            bins: of equal width, over all probabilities that the predicted class can have.

        Returns:
            A row a bin that holds texts: low, high (its ends), n, confidence (mean), accuracy, wrong.
        """
        return calibration_table(self.probabilities(name), self.labels, bins=bins)[0]

    def calibration_error(self, name: str | None = None, *, bins: int = 15) -> float:
        """Expected calibration error (0 to 1): mean distance of confidence from accuracy."""
        return calibration_table(self.probabilities(name), self.labels, bins=bins)[1]

    def mistakes(self, n: int | None = None) -> pd.DataFrame:
        """The wrong predictions, most confident first.

        Args:
            n: how many at most; None: all.

        Returns:
            A row a text: id, label, predicted, confidence (0 to 1), row (its number in the test set).
        """
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
        """This run, its baselines, the paper and other fastai v2 runs, each a row.

        Returns:
            Columns: what, error (%), low, high (its 95 % interval in %), n (texts), and kind: 'this run', 'baseline',
            'paper' or 'elsewhere'.
        """
        return comparison.comparison(self)

    def __repr__(self) -> str:
        return comparison.as_text(self)

    def _repr_html_(self) -> str:
        return comparison.as_html(self)

    def plot(self) -> Figure:
        """Rates of each layer group with the unfreezing, losses, and the confusion matrix, as one matplotlib Figure.

        Raises:
            UlmfitError: nothing was trained yet.
        """
        from .figures import run_figure

        if self.rates.empty and self.history.empty:
            raise UlmfitError(f"{self.folder}: nothing to plot yet (status: {self.status}).")
        return run_figure(self.rates, self.history, self.confusion() if self.probs else None)
