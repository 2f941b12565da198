"""What a trained classifier does: predict, be judged, explain, be saved and exported."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from fastai.text.learner import TextLearner
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if

from .._errors import UlmfitError
from ..batches.targets import TASKS
from ..predict.hub import library, push
from ..predict.model_card import model_card
from ..predict.text_model import TextModel
from ..recipe.recipe import Recipe
from ..results.evaluation import Evaluation
from ..texts.classes import Spellings, class_name
from ..texts.dataset import Dataset
from ..texts.values import mended
from ..tokens.ids import TokenIds
from ..training.beside import show_record
from .frames import as_frame
from .labels import aligned, known_values, read_labels
from .learner import fastai_learner
from .texts import is_frame, labels_of, plain_texts
from .weights import checked_weights, weighted_score

if TYPE_CHECKING:
    from ..predict.explanation import Explanation


_LEAST = 1e-15
"""What a probability is at least, and at most short of 1, before its logarithm is taken."""


def _gives_probabilities(estimator: Trained) -> bool:
    """Whether there are classes: otherwise the estimator has no `predict_proba`, as scikit-learn wants it."""
    kind = estimator.model_.target.kind if hasattr(estimator, "model_") else TASKS.get(estimator.task)
    if kind == "regression":
        raise AttributeError("a model of numbers has no predict_proba; use predict")
    return True


class Trained(BaseEstimator):
    """A classifier that was fitted or loaded; `ULMFiT` adds how it comes to that, and says what the attributes are.

    All methods raise scikit-learn's NotFittedError before that. Their texts `X` are a list, array or Series (texts,),
    or a table, as in `fit`, with the columns that the model was trained on; `text` names others.
    """

    task: str
    model_: TextModel
    recipe_: Recipe
    metrics_: dict[str, Any]
    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    _data: tuple[Dataset, TokenIds]
    _records: dict[str, dict[str, Any]]

    def _take(self, model: TextModel) -> None:
        self.model_ = model
        self.recipe_ = model.recipe
        self.metrics_ = model.metrics.get("validation") or model.metrics
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        if model.config.text is not None:
            self.n_features_in_ = len(model.config.text)
            self.feature_names_in_ = np.array(model.config.text, dtype=object)
        if model.target.kind != "regression":
            classes = model.target.classes
            self.classes_ = np.array(classes, dtype=None if _alike(classes) else object)
        elif hasattr(self, "classes_"):
            del self.classes_

    # Predicting

    def predict(self, X: Any, *, text: Any = None, strict: bool = False, precision: str | None = None) -> np.ndarray:
        """The class of each text, or its number for regression, in the order of `X`.

        Args:
            strict: refuse empty and missing texts; otherwise nothing is predicted for them, and a warning counts them.
            precision: 'fp32', 'bf16', 'fp16' or 'auto', as in `load`; None: the model's, fp32 after `fit`.

        Returns:
            (texts,): classes as in `classes_`; for multilabel tuples of classes, or int64 rows of 0 and 1
            (texts, classes) if it was fitted with those; for regression float64. Where a text is missing, None (then
            the array is one of objects), or NaN among numbers and rows (then float64).

        Raises:
            UlmfitError: a column that isn't there, cells that are no text, or with `strict` empty texts (with their
                rows).
        """
        return self.decide(self._outputs(X, text, strict=strict, precision=precision))

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any, *, text: Any = None, strict: bool = False,
                      precision: str | None = None) -> np.ndarray:
        """Probabilities of the classes; not there for regression.

        Args:
            precision: as in `predict`.

        Returns:
            float64 (texts, classes), columns as in `classes_`. For one class a text, rows sum to 1; for multilabel,
            each is the probability that the class applies. NaN where a text is missing.

        Raises:
            UlmfitError: as for `predict`.
        """
        return self._outputs(X, text, strict=strict, precision=precision)

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X: Any, *, text: Any = None) -> np.ndarray:
        """Logarithms of what `predict_proba` gives, float64 (texts, classes); not there for regression."""
        return np.log(np.clip(self._outputs(X, text, strict=False), _LEAST, None))

    @available_if(_gives_probabilities)
    def decision_function(self, X: Any, *, text: Any = None) -> np.ndarray:
        """Scores whose order is that of the probabilities; not there for regression.

        Returns:
            float64: of two classes (texts,), the log-odds of `classes_[1]`, above 0 where it is predicted; of more
            (texts, classes), the log-probabilities; for multilabel (texts, classes), each class's log-odds.
        """
        outputs = np.clip(self._outputs(X, text, strict=False), _LEAST, 1 - _LEAST)
        if self.model_.target.kind == "multi":
            return np.log(outputs) - np.log1p(-outputs)
        if len(self.classes_) > 2:
            return np.log(outputs)
        return np.log(outputs[:, 1]) - np.log(outputs[:, 0])

    def predict_stream(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Probabilities of any number of texts, or numbers for regression, in their order and in bounded memory.

        Yields:
            float64 (texts, outputs) of the next texts, some thousands at a time, NaN where one is empty or missing;
            `decide` makes classes of them.

        Raises:
            UlmfitError: a single string instead of texts.
        """
        if isinstance(texts, str):
            raise UlmfitError("expected many texts, found one string: put it in a list")
        return self._model().stream(texts)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """What `predict` gives, from outputs that are there already.

        Args:
            outputs: of `predict_proba` or `predict_stream`, (texts, outputs).
        """
        config, target = self._model().config, self.model_.target
        if np.ndim(outputs) != 2 or np.shape(outputs)[1] != target.n_out:
            raise UlmfitError(f"expected outputs of the shape (texts, {target.n_out}), found {np.shape(outputs)}")
        if target.kind == "regression":
            return outputs[:, 0]
        missing = np.isnan(outputs).any(axis=1)
        if target.kind == "single":
            return _with_gaps(self.classes_[outputs.argmax(axis=1)], missing)
        chosen = outputs >= 0.5
        if config.indicator:
            return np.where(missing[:, None], np.nan, chosen) if missing.any() else chosen.astype(np.int64)
        lists = np.empty(len(outputs), dtype=object)
        lists[:] = [tuple(target.classes[i] for i in np.flatnonzero(row)) for row in chosen]
        return _with_gaps(lists, missing)

    def _outputs(self, X: Any, text: Any, *, strict: bool, precision: str | None = None) -> np.ndarray:
        X = as_frame(X)
        return self._model().outputs(plain_texts(X, self.columns(X, text), strict=strict), precision=precision)

    def columns(self, X: Any, text: Any) -> Any:
        """The columns of `X` that texts are read from: those asked for, else the model's own."""
        own = self._model().config.text
        if text is not None or own is None:
            return text
        if isinstance(X, pd.Series) and X.index.isin([name for name in own if isinstance(name, (str, tuple))]).any():
            raise UlmfitError("expected many texts, found one row of a frame as a Series: give df.iloc[[0]], a frame "
                              "of one row, instead of df.iloc[0]")
        if is_frame(X) and len(own) == 1 and own[0] not in X and X.shape[1] == 1:
            return None
        return list(own)

    def _model(self) -> TextModel:
        if not hasattr(self, "model_"):
            raise NotFittedError("this ULMFiT is not fitted yet: call fit, or ULMFiT.load(folder)")
        return self.model_

    # Judging

    def _judged(self, X: Any, y: Any, text: Any, label: Any) -> tuple[np.ndarray, list[Any], tuple[Any, ...]]:
        """Outputs for texts whose labels are known, with these and all the classes."""
        X, config, target = as_frame(X), self._model().config, self.model_.target
        own = config.label if y is None and label is None and is_frame(X) and config.label in X else label
        _, y = labels_of(X, y, own)
        values, classes = known_values(read_labels(aligned(y, X), target.task), target)
        outputs = self._outputs(X, text, strict=True)
        if len(values) != len(outputs):
            raise UlmfitError(f"expected one label for each of the {len(outputs):,} texts, found {len(values):,}")
        return np.pad(outputs, ((0, 0), (0, len(classes) - len(target.classes)))), values, classes

    def evaluate(self, X: Any, y: Any = None, *, text: Any = None, label: Any = None) -> Evaluation:
        """Error with its interval, F1 and confusion on texts whose labels are known.

        A class that the model doesn't know counts as wrong. The arguments are those of `fit`.

        Raises:
            UlmfitError: missing texts or labels (with their rows), or none of the model's classes among the labels.
        """
        outputs, values, classes = self._judged(X, y, text, label)
        return Evaluation.of(self.model_.target.kind, outputs, values, classes)

    def held_out(self) -> str:
        """How well it did on the texts that `fit` held out, in a line."""
        return Evaluation.summary_of(self.metrics_.get("averaged") or next(iter(self.metrics_.values())))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy, 0 to 1 (multilabel: texts with all classes right), or R² for regression, as in scikit-learn.

        Args:
            sample_weight: how much each text counts, (texts,); None: all alike.
        """
        if sample_weight is None:
            found = self.evaluate(X, y)
            return found["r2"] if self.model_.target.kind == "regression" else found["accuracy"]
        outputs, values, _ = self._judged(X, y, None, None)
        weights = checked_weights(sample_weight, len(values))
        return weighted_score(self.model_.target.kind, outputs, values, weights)

    def explain(self, text: str | Mapping[str, str], *, target: Any = None, steps: int = 32) -> Explanation:
        """Which words moved the decision on one text.

        Args:
            text: the text, or a mapping from column to text where the model reads several.
            target: the class to explain; None: the predicted one.
            steps: points of the integral: more are slower and more exact, see `Explanation.gap`.

        Raises:
            UlmfitError: an empty text, an unknown class, or a model in int8.

        Source: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks.
        """
        model = self._model()
        if not isinstance(text, str):
            text = plain_texts(pd.DataFrame([text]), self.columns(None, None))[0]
        number = None if target is None else Spellings(model.target.classes).find(target)
        towards = None if target is None else class_name(target) if number is None else model.target.names[number]
        return model.explain(mended(text), towards=towards, steps=steps)

    # Files

    def save(self, folder: str | Path, *, license: str = "unknown", licence: str | None = None) -> Path:
        """Write the model to a folder of safetensors and JSON with a model card, as Hugging Face's hub takes it.

        The folder holds no texts.

        Args:
            folder: a new or empty folder, or an earlier model's, which is replaced.
            license: goes into the card: an identifier of the hub's, such as 'apache-2.0'.
            licence: another spelling of `license`.

        Returns:
            The path of the folder.

        Raises:
            UlmfitError: the folder holds something else, or the model is in int8.
        """
        model = self._model()
        card = model_card(model, name=Path(folder).resolve().name, license=license if licence is None else licence)
        return model.save(folder, card=card)

    def push_to_hub(self, name: str, *, private: bool | None = None, token: str | bool | None = None,
                    message: str | None = None, license: str = "unknown", base_model: str | None = None,
                    datasets: Sequence[str] = ()) -> str:
        """Upload the model to Hugging Face's hub: the folder that `save` writes, with results in its card.

        Needs the extra `hub`. It holds no texts; look at the card before others do.

        Args:
            name: 'user/name'; the repository is made if it isn't there.
            private: whether only you can see it; None: as your account has it.
            token: one that may write; None: the one that `hf auth login` kept.
            message: what the commit says.
            license: as in `save`.
            base_model: the language model it came from, by its name on the hub.
            datasets: what it was trained on, by names on the hub; those of the paper are known.

        Returns:
            The address of the model.

        Raises:
            UlmfitError: the hub refuses, the extra is not installed, or the model is in int8.
        """
        model = self._model()
        library()
        card = model_card(model, name=name.rpartition("/")[2], license=license, base_model=base_model,
                          datasets=datasets)
        with tempfile.TemporaryDirectory(prefix="ulmfit-") as temporary:
            folder = model.save(Path(temporary) / "model", card=card)
            return push(folder, name, private=private, token=token, message=message)

    def export(self, path: str | Path, *, direction: str | None = None) -> Path:
        """Write one direction as fastai's own pickle, for `load_learner`.

        Whoever loads a pickle runs what is in it: pass such a file on only to those who trust you, and load only your
        own. `save` writes a folder that is safe to load.

        Args:
            direction: 'forward' or 'backward'; None: the model's first.

        Returns:
            The path of the file.

        Raises:
            UlmfitError: the model lacks that direction, or is in int8.
        """
        learn = self.learner_for(direction or next(iter(self._model().models)))
        warnings.warn("export writes a pickle, and loading a pickle runs the code in it: load only files that you "
                      "trust. save() writes a folder that is safe to load", UserWarning, stacklevel=2)
        path = Path(path).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        learn.export(path)
        return path

    @property
    def learner(self) -> TextLearner:
        """The fastai Learner of the first direction, with the model's weights; `learner_for` gives the other."""
        return self.learner_for(next(iter(self._model().models)))

    def learner_for(self, direction: str) -> TextLearner:
        """A fastai Learner of one direction, sharing the model's weights, on the texts of `fit`.

        Its Recorder has the classifier's training: `recorder.plot_loss()`, `recorder.plot_sched()`.

        After `load`, its DataLoaders hold two empty texts in place of those: `predict`, `test_dl` and `export` work,
        further training needs DataLoaders of your own.

        Raises:
            UlmfitError: the model lacks that direction, or is in int8.
        """
        learn = fastai_learner(self._model(), direction, *getattr(self, "_data", (None, None)))
        record = getattr(self, "_records", {}).get(direction)
        if record is not None:
            show_record(learn, record)
        return learn


def _with_gaps(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The values, None where they are missing."""
    if missing.any():
        values = values.astype(object)
        values[missing] = None
    return values


def _alike(values: Sequence[Any]) -> bool:
    """Whether the classes are all text, all numbers or all truth values: then numpy has a type for them."""
    kinds = {str if isinstance(v, str) else bool if isinstance(v, bool) else float for v in values}
    return len(kinds) == 1
