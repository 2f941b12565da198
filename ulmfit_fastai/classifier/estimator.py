"""Your own texts: `ULMFiT`, a scikit-learn estimator over the three stages of the paper.

    model = ULMFiT().fit(df, text="review", label="sentiment")
    model.predict(["a film to remember", "two hours I won't get back"])
    model.save("my-model");  ULMFiT.load("my-model")
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._errors import UlmfitError
from .._files import expanded
from ..predict.config import Config
from ..predict.hub import fetch
from ..predict.model_card import model_card
from ..predict.text_model import TextModel
from ..recipe.presets import PRESETS
from ..recipe.recipe import Recipe
from ..texts.dataset import from_frame
from ..training.baseline import tfidf_baseline
from ..training.prepare import rows_for
from ..training.processes import join
from ..training.runs import plan_run, refuse_another_run, run
from ..training.starting import OpenedWeights
from .doubts import unknown_words
from .fitted import Work, records_of, refuse_unfinished, report_of, trained_model
from .frames import as_frame
from .labels import aligned, read_labels
from .settings import Settings
from .start import refuse_no_validation, vocabulary, words_of_lm
from .texts import is_frame, labels_of, own_dataset, text_frame
from .weights import weights_of_rows

if TYPE_CHECKING:
    from ..training.estimate import Plan

log = logging.getLogger(__name__)


class ULMFiT(Settings):
    """Text classifier by ULMFiT: a language model is fine-tuned on your texts, then a classifier on your labels.

    A scikit-learn estimator: it can be cloned, searched and put at the end of a pipeline. Texts are a list, a Series,
    or columns of a DataFrame; labels are one class a text (text or numbers), several (multilabel: a list a text, or
    rows of 0 and 1), or a number (regression).

    Args:
        preset: 'few-labels' or 'quick' (a small model, for CPUs), 'fastai' (what works best, for a GPU), 'tiny' (to see
            it turn), or another of `presets.PRESETS`; or a `Recipe`, a JSON file of one or a run's folder, taken as it
            is. None: 'few-labels' below 2,000 labelled texts, otherwise 'quick': name one in a search, whose folds are
            smaller than its refit. Batches and epochs of a preset are fitted to how many texts there are (see
            recipe/fitting.py).
        weights: the language model to start from: 'english-small' (bundled; Wikipedia, then reviews), 'wiki-small'
            (bundled; Wikipedia), 'wt103' (fastai's, downloaded if need be), a run folder or weights file of your own,
            or 'none'. None: 'english-small' for English, otherwise none, with a warning. The model takes the weights'
            sizes.
        directions: ('forward',), ('backward',) or both, whose outputs are averaged; None: the preset's.
        task: 'classification', 'multilabel', 'regression', or 'auto': by the labels' form.
        lang: spaCy's code of the texts' language.
        class_weight: 'balanced', a mapping from class to weight, or None.
        epochs, lm_epochs: of the last stage of the classifier, and of the language model (0: no fine-tuning of the
            language model); None: the preset's.
        settings: more fields of the recipe by dotted name, as in {"classifier.bs": 32}; one without effect is refused.
        validation_fraction: share of the labelled texts held out to measure the model; None: the recipe's, 0.1 in every
            preset.
        drop_missing: leave out rows without text and use those without label for the language model, instead of
            refusing them.
        out: the run folder, kept, from which `fit` goes on after an interruption; it is a saved model too, once
            finished, and holds `report.html`, which shows some of the held-out texts. None: a temporary one.
        resume: False moves an earlier run in `out` aside and starts anew.
        time_budget: seconds after which `fit` stops in good order; needs `out`, to go on from.
        random_state: seed of everything random; None: the recipe's, 0 in every preset.
        device: 'cpu', 'cuda', 'mps'; None: the best there is.
        progress: show progress bars.
        cbs: fastai callbacks, which run beside ours in every stage of every phase (docs/callbacks.md).
        lm: a folder of `fit_language_model`, whose language model is taken as it is, with its words, instead of
            fine-tuning one in each fit: one for a whole search or cross-validation.
        baseline: where there is an `out`, train a bag of words on the same labels too, so that the report says what the
            easy way gives.

    Attributes:
        classes_: the classes in the order of the probabilities, (classes,); not there for regression. Like all that
            follow, after `fit` or `load`.
        n_features_in_, feature_names_in_: how many columns are read, and which; only there where texts came in a frame.
        metrics_: of the held-out texts, by direction.
        recipe_: the recipe that was trained.
        model_: the `TextModel`.

    Source: Howard & Ruder 2018, section 3.
    """

    def __init__(
        self,
        preset: str | Path | Recipe | None = None,
        *,
        weights: str | Path | None = None,
        directions: Sequence[str] | None = None,
        task: str = "auto",
        lang: str = "en",
        class_weight: str | Mapping[Any, float] | None = None,
        epochs: int | None = None,
        lm_epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        validation_fraction: float | None = None,
        drop_missing: bool = False,
        out: str | Path | None = None,
        resume: bool = True,
        time_budget: float | None = None,
        random_state: int | None = None,
        device: str | None = None,
        progress: bool = True,
        cbs: Any = None,
        lm: str | Path | None = None,
        baseline: bool = True,
    ) -> None:
        self.preset = preset
        self.weights = weights
        self.directions = directions
        self.task = task
        self.lang = lang
        self.class_weight = class_weight
        self.epochs = epochs
        self.lm_epochs = lm_epochs
        self.settings = settings
        self.validation_fraction = validation_fraction
        self.drop_missing = drop_missing
        self.out = out
        self.resume = resume
        self.time_budget = time_budget
        self.random_state = random_state
        self.device = device
        self.progress = progress
        self.cbs = cbs
        self.lm = lm
        self.baseline = baseline

    # Training

    def fit(self, X: Any, y: Any = None, *, sample_weight: Any = None, text: Any = None, label: Any = None,
            unlabelled: Any = None) -> ULMFiT:
        """Train on texts `X` with labels `y`, or on the columns `text` and `label` of the DataFrame `X`.

        Args:
            X: texts: a list, array or Series (texts,), or a table, a row a text: a DataFrame, a `datasets.Dataset`, an
                Arrow table.
            y: a label a text: a class, a list of classes, a row of 0 and 1 (texts, classes; sparse too), or a number;
                None or NaN where it is missing. Where both `X` and `y` are of pandas, labels with the texts' index in
                another order are put into theirs; a plain count of rows stands for the order. A class is kept as text,
                number or truth value; a date, an interval or an Enum by its name.
            sample_weight: how much each text counts in the classifier's loss, (texts,), 0 or more; only ratios matter.
                The language model reads all texts alike, and what is held out is measured without weights.
            text: the column, or columns, of the texts (whatever names a column); without it the only one, or the one
                called 'text'.
            label: the column of the labels, instead of `y`; without both, the one called 'label'.
            unlabelled: more texts for the language model: a list, or a frame with the text columns.

        Returns:
            Itself, trained.

        Raises:
            UlmfitError: missing texts or labels (with their rows), fewer than two classes, fewer than four texts,
                settings that are wrong or would have no effect, or an `out` that holds another run.
            Unfinished: the time budget ended first; the same call goes on.
        """
        if self.time_budget is not None and self.out is None:
            raise UlmfitError("a time budget needs a folder from which the next call goes on", field="out",
                              advice="give `out=`")
        with tempfile.TemporaryDirectory(prefix="ulmfit-", ignore_cleanup_errors=True) as temporary:
            with join(self.device).first():
                work = self._prepare(X, y, text, label, unlabelled, Path(temporary))
                weights = None if sample_weight is None else weights_of_rows(
                    aligned(sample_weight, X), as_frame(X), text, work.dataset)
            folder = Path(temporary) / "run" if self.out is None else expanded(self.out)
            folder = run(work.recipe, work.dataset, folder, ids=work.ids, device=self.device, progress=self.progress,
                         time_budget=self.time_budget, resume=self.resume, opened=work.opened,
                         lang=self.lang, cbs=self.cbs, sample_weight=weights,
                         baseline=tfidf_baseline if self.baseline and self.out is not None else None)
            self._take(trained_model(folder, work, device=self.device, kept=self.out is not None))
            self._data, self._records = (work.dataset, work.ids), records_of(folder, work.config.directions)
            if self.out is not None:
                self.model_.describe(folder, card=model_card(self.model_, name=folder.resolve().name,
                                                              run_folder=True))
                report_of(folder, work.dataset)
        return self

    def fit_language_model(self, X: Any, out: str | Path, *, text: Any = None) -> Path:
        """Fine-tune the language model alone, to be shared by many fits: `ULMFiT(lm=folder)`.

        It reads the texts and no label. If a search or a cross-validation scores on texts that it read, their words are
        known to it, as the unlabelled texts of the paper's section 4 are; for an estimate on texts that nothing
        has read, leave those out of `X`.

        Args:
            X: texts, as in `fit`.
            out: the run folder; called again after an interruption it goes on.
            text: the column, or columns, of the texts.

        Returns:
            The path of the folder, for `lm`.

        Raises:
            UlmfitError: as `fit`, or `lm` or `lm_epochs=0` leave no language model to fine-tune.
            Unfinished: the time budget ended first; the same call goes on.
        """
        self.check_settings()
        frame, columns = text_frame(as_frame(X), text)
        dataset = from_frame(frame, text=columns, label=None, drop_missing=self.drop_missing)
        with tempfile.TemporaryDirectory(prefix="ulmfit-", ignore_cleanup_errors=True) as temporary:
            with join(self.device).first():
                store, opened = self._store(dataset, Path(temporary)), OpenedWeights()
                recipe = self._settled(self._language(dataset, opened, n_tokens=int(store.offsets[-1])))
                if recipe.lm is None:
                    raise UlmfitError("there is no language model to fine-tune", field="lm_epochs",
                                      advice="leave out `lm_epochs=` and `lm=`")
                ids = store.numericalize(vocabulary(recipe, store, rows_for(recipe, dataset).lm_train, opened))
            folder = run(recipe, dataset, expanded(out), ids=ids, device=self.device, progress=self.progress,
                         time_budget=self.time_budget, resume=self.resume, until="lm", opened=opened, lang=self.lang,
                         cbs=self.cbs)
        refuse_unfinished(folder, kept=True)
        return folder

    def plan(self, X: Any, y: Any = None, *, text: Any = None, label: Any = None,
             unlabelled: Any = None) -> Plan:
        """How long `fit` with these arguments would take here, measured on a few batches.

        Returns:
            The phases with their seconds; `print` shows them.

        Raises:
            UlmfitError: where `fit` would.
        """
        with tempfile.TemporaryDirectory(prefix="ulmfit-", ignore_cleanup_errors=True) as temporary:
            work = self._prepare(X, y, text, label, unlabelled, Path(temporary))
            if self.out is not None and self.resume:
                refuse_another_run(work.recipe, work.dataset, expanded(self.out), lang=self.lang)
            return plan_run(work.recipe, work.dataset, ids=work.ids, device=self.device)

    def _prepare(self, X: Any, y: Any, text: Any, label: Any, unlabelled: Any,
                 temporary: Path) -> Work:
        """Check and number the texts, and settle the recipe; without `out`, nothing of them stays on the disk."""
        self.check_settings()
        X, unlabelled = as_frame(X), as_frame(unlabelled)
        frame, columns = text_frame(X, text)
        label, y = labels_of(X, y, label)
        if label is not None and label in columns:
            raise UlmfitError(f"column {label} is given as text and as label", field="label",
                              advice="name the columns by `text=` and `label=`")
        labels = read_labels(aligned(y, X), self.task)
        attrs = X.attrs if isinstance(X, pd.DataFrame) else {}  # what the command line knows of the file
        dataset = own_dataset(frame, labels, columns=columns, unlabelled=unlabelled, drop_missing=self.drop_missing,
                              source=attrs.get("source"), lang=self.lang)
        store, opened = self._store(dataset, temporary), OpenedWeights()
        recipe = self._recipe(dataset, labels, opened, n_tokens=int(store.offsets[-1]))
        rows = rows_for(recipe, dataset)
        refuse_no_validation(rows.valid)
        ids = store.numericalize(vocabulary(recipe, store, rows.lm_train, opened) if self.lm is None
                                 else words_of_lm(recipe, opened))
        for doubt in unknown_words(ids, rows):
            log.warning("%s", doubt)
        config = Config(labels.target, directions=recipe.directions, label=label,
                        text=tuple(columns) if is_frame(X) else None, lang=self.lang, indicator=labels.indicator,
                        label_delim=attrs.get("label_delim"), encoding=attrs.get("encoding"))
        return Work(dataset, ids, recipe, config, opened)

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None, int8: bool = False,
             precision: str = "fp32") -> ULMFiT:
        """Read what `save` wrote, or a finished run folder of any command; executes nothing that is in it.

        On the same kind of device, its probabilities are those of the model that was saved, bit for bit.

        Args:
            device: 'cpu', 'cuda', 'mps'; None: the best there is.
            int8: predict on the CPU with LSTMs in 8-bit integers, faster, at nearly the same probabilities; such a
                model can't explain, save or export.
            precision: what it predicts in: 'fp32', 'bf16', on GPUs 'fp16', or 'auto', see `TextModel`; `predict` and
                `predict_proba` take another.

        Raises:
            UlmfitError: the folder is no model and no finished run, or its files don't belong together.
        """
        model = TextModel.load(folder, device=device, int8=int8, precision=precision)
        recipe, config = model.recipe, model.config
        loaded = cls(preset=recipe.name if recipe.name in PRESETS else recipe, directions=recipe.directions,
                     task=model.target.task, lang=config.lang, random_state=recipe.seed, device=device)
        loaded._take(model)
        loaded._records = records_of(expanded(folder), config.directions)
        return loaded

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, token: str | bool | None = None,
                        device: str | None = None, int8: bool = False, precision: str = "fp32") -> ULMFiT:
        """Read a model from Hugging Face's hub, or from a folder, which `load` does.

        Needs the extra `hub`. Files are kept in the hub's cache; like `load`, it executes nothing that is in them.

        Args:
            name: 'user/name', as given to `push_to_hub`; or a folder that is there.
            revision: a branch, a tag or a commit; None: the newest.
            token: for a private one; None: the one that `hf auth login` kept.
            device, int8, precision: as in `load`.

        Raises:
            UlmfitError: the model can't be had, the extra is not installed, or what was fetched is no model.
        """
        there = expanded(name)
        folder = there if there.is_dir() else fetch(str(name), revision=revision, token=token)
        return cls.load(folder, device=device, int8=int8, precision=precision)

    # As scikit-learn sees it

    @property
    def _estimator_type(self) -> str:
        return "regressor" if self.task == "regression" else "classifier"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        from sklearn.utils import ClassifierTags, RegressorTags

        tags.estimator_type = self._estimator_type
        tags.classifier_tags = ClassifierTags(multi_label=True) if self.task != "regression" else None
        tags.regressor_tags = RegressorTags() if self.task == "regression" else None
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        tags.target_tags.required, tags.non_deterministic = True, False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_data", None)  # a model that is passed on carries no texts
        return state
