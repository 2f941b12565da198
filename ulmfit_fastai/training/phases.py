"""The phases of one run, in order: pretraining, language model, classifier, predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..batches.dataloaders import classifier_dataloaders, lm_dataloaders
from ..model import pretrained
from ..model import weights as weight_files
from ..model.learners import classifier_learner, lm_learner
from ..model.precision import autocast_of, compute_dtype, precision_callbacks
from ..model.weights import LMWeights
from ..predict.outputs import predict_rows
from ..recipe.parts import Phase
from ..recipe.recipe import Recipe
from ..results.environment import now
from ..results.folder import RunFolder
from ..results.metrics import joined, metrics_of
from ..results.predictions import write_predictions
from ..texts.dataset import Dataset
from .callbacks import Budget, derived_seed
from .corpus import general_lm, save_pretrained
from .estimate import Plan
from .loop import PhaseFit
from .prepare import Prepared, pretraining_left, some_rows

Baseline = Callable[[Dataset, np.ndarray, np.ndarray], dict[str, Any]]
"""Something simpler on the same rows, for comparison: (data set, rows to train on, test rows) -> a record with 'name',
'error' (%), 'n' and whatever else it has to say, as `experiments.baselines.tfidf_baseline`."""


class Stopped(Exception):
    """The time budget ended, or the run was interrupted, after the state was written; run again to go on."""


class Run:
    """The phases of one run, in order; each is skipped when the folder already has its weights."""

    def __init__(self, recipe: Recipe, data: Prepared, folder: RunFolder, *, device: torch.device, budget: Budget,
                 progress: bool, plan: Plan | None, until: str | None = None) -> None:
        self.recipe, self.data, self.folder, self.device, self.until = recipe, data, folder, device, until
        self.budget, self.progress, self.plan = budget, progress, plan
        self.vocab_file = folder.path / "vocab.json"

    @property
    def test_rows(self) -> np.ndarray:
        """The rows that the run ends on; none for recipes that must leave the test set alone (the paper's analyses)."""
        return self.data.splits.test if self.recipe.evaluate == "test" else self.data.splits.test[:0]

    # -- learners -------------------------------------------------------------------------------------------------

    def general_lm(self, phase: Phase, direction: str) -> Any:
        assert self.data.general is not None, "run() asks for a corpus when the recipe pretrains"
        text = self.data.general
        text = replace(text, train=some_rows(text.train, phase.max_docs, self.recipe.language_seed))
        return general_lm(text, self.recipe.model_for("pretrain"), phase, direction, seed=self.recipe.language_seed,
                          precision=self.recipe.precision, device=self.device, fast=self.recipe.fast)

    def lm(self, phase: Phase, direction: str, weights: LMWeights | None) -> Any:
        rows = self.data.splits
        dls = lm_dataloaders(
            self.data.ids, train=some_rows(rows.lm_train, phase.max_docs, self.recipe.language_seed),
            valid=some_rows(rows.lm_valid, phase.valid_docs, self.recipe.language_seed),
            direction=direction, bs=phase.bs, bptt=phase.bptt, device=self.device,
            seed=derived_seed(self.recipe.language_seed, direction, "lm"), variable_bptt=phase.variable_bptt,
        )
        torch.manual_seed(derived_seed(self.recipe.language_seed, direction, "lm", "init"))
        dtype = compute_dtype(self.recipe.precision, self.device)
        return lm_learner(dls, self.recipe.model, phase, weights=weights, fast=self.recipe.fast, compute_dtype=dtype,
                          cbs=precision_callbacks(self.recipe.precision, self.device))

    def classifier(self, direction: str, encoder: LMWeights | None) -> Any:
        phase, rows = self.recipe.classifier, self.data.splits
        dls = classifier_dataloaders(
            self.data.ids, self.data.targets.values, classes=list(self.data.dataset.classes) or None,
            train=some_rows(rows.train, phase.max_docs, self.recipe.seed),
            valid=some_rows(rows.valid, phase.valid_docs, self.recipe.seed), direction=direction,
            bs=phase.bs, bptt=phase.bptt, device=self.device,
            seed=derived_seed(self.recipe.seed, direction, "classifier"),
        )
        torch.manual_seed(derived_seed(self.recipe.seed, direction, "classifier", "init"))
        dtype = compute_dtype(self.recipe.precision, self.device)
        return classifier_learner(dls, self.recipe.model, phase, encoder=encoder, fast=self.recipe.fast,
                                  loss_func=self.data.targets.loss(self.recipe.class_weights, self.device),
                                  compute_dtype=dtype, cbs=precision_callbacks(self.recipe.precision, self.device))

    # -- phases ---------------------------------------------------------------------------------------------------

    def direction(self, direction: str) -> None:
        if pretraining_left(self.recipe, self.folder, direction):
            self.pretrain(direction)
        if self.until == "pretrain":
            return
        if self.recipe.lm is not None and not self.folder.phase_done(direction, "lm"):
            start = self.starting_weights(direction)
            learn = self.lm(self.recipe.lm, direction, start)
            self.fit(learn, self.recipe.lm, "lm", direction, classifies=False)
            tuned = weight_files.from_model(learn.model, self.data.ids.vocab, name=self.recipe.name,
                                            direction=direction, recipe_hash=self.recipe.hash)
            weight_files.save(tuned, self.folder.weights_file("lm", direction), vocab_path=self.vocab_file)
            self.folder.mark_phase(direction, "lm")
            self._forget(learn)
        if self.until == "lm":
            return
        if not self.folder.phase_done(direction, "classifier"):
            learn = self.classifier(direction, self.encoder(direction))
            self.fit(learn, self.recipe.classifier, "classifier", direction, classifies=True)
            model = weight_files.Classifier.from_model(
                learn.model, self.data.ids.vocab, self.data.dataset.classes, direction=direction,
                meta={"name": self.recipe.name, "recipe_hash": self.recipe.hash},
            )
            model.save(self.folder.weights_file("classifier", direction), vocab_path=self.vocab_file)
            self.folder.mark_phase(direction, "classifier")
            self._forget(learn)
        if not self.folder.phase_done(direction, "predict"):
            self.predict(direction)
            self.folder.mark_phase(direction, "predict")

    def pretrain(self, direction: str) -> None:
        """Stage 1 on the corpus, in the corpus's own vocabulary."""
        phase, text = self.recipe.pretrain, self.data.general
        assert phase is not None and text is not None
        learn = self.general_lm(phase, direction)
        self.fit(learn, phase, "pretrain", direction, classifies=False)
        save_pretrained(learn, text, self.folder, direction, name=f"pretrained on {text.about['name']}",
                        epochs=phase.epochs, recipe_hash=self.recipe.hash)
        self._forget(learn)

    def starting_weights(self, direction: str) -> LMWeights | None:
        """Stage 1: the general-domain language model, matched to the words of these texts."""
        if self.recipe.weights == "pretrain":
            loaded: LMWeights | None = weight_files.load_file(self.folder.weights_file("pretrain", direction))
        else:
            loaded = pretrained.load(self.recipe.weights, direction)
        if loaded is None:
            return None
        matched = loaded.for_vocab(self.data.ids.vocab)
        self.folder.run["weights"] = {
            **self.folder.run.get("weights", {}),
            direction: {"name": loaded.name, "vocab_hash": loaded.vocab_hash, "words_kept": matched.meta["words_kept"],
                        "words": matched.meta["words"], **{k: v for k, v in loaded.meta.items() if k != "path"}},
        }
        return matched

    def encoder(self, direction: str) -> LMWeights | None:
        if self.recipe.lm is None:
            return self.starting_weights(direction)
        return weight_files.load_file(self.folder.weights_file("lm", direction), vocab=self.vocab_file)

    def fit(self, learn: Any, phase: Phase, name: str, direction: str, *, classifies: bool) -> None:
        def rest(stage: int, left: float) -> float | None:
            return None if self.plan is None else self.plan.rest_of_run(direction, name, stage, left)

        seed = self.recipe.seed if classifies else self.recipe.language_seed
        done = PhaseFit(
            learn, phase.for_direction(direction), self.folder, name=name, direction=direction, seed=seed,
            classifies=classifies, budget=self.budget, progress=self.progress, rest_of_run=rest,
        ).fit()
        if not done:
            raise Stopped
        self.folder.save_tables()

    def predict(self, direction: str) -> None:
        """Class probabilities of the validation and test rows; the only place where the test set is read."""
        rows, targets = self.data.splits, self.data.targets
        started = time.monotonic()
        learn = self.classifier(direction, None)
        saved = weight_files.Classifier.load(self.folder.weights_file("classifier", direction),
                                             vocab=self.vocab_file)
        learn.model.load_state_dict(saved.state)
        for part, numbers in (("validation", rows.valid), ("test", self.test_rows)):
            if len(numbers):
                with autocast_of(learn):  # in the types it was trained in
                    probs = predict_rows(learn.model, self.data.ids, numbers, direction=direction,
                                         bptt=self.recipe.classifier.bptt, device=self.device, kind=targets.kind,
                                         centre=targets.centre, spread=targets.spread)
                with open(self.folder.path / "state" / f"{part}_{direction}.npy.tmp", "wb") as handle:
                    np.save(handle, probs)
                Path(handle.name).replace(self.folder.path / "state" / f"{part}_{direction}.npy")
        self.folder.run.setdefault("seconds", {})[f"predict_{direction}"] = round(time.monotonic() - started, 1)
        self._forget(learn)

    def _forget(self, learn: Any) -> None:
        """Free a learner's memory before the next phase builds its own."""
        learn.dls, learn.model, learn.opt = None, None, None
        self.folder.state_file.unlink(missing_ok=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(self, *, baseline: Baseline | None) -> None:
        dataset, rows, targets = self.data.dataset, self.data.splits, self.data.targets
        metrics: dict[str, Any] = {"validation": {}}
        for part, numbers in (("validation", rows.valid), ("test", self.test_rows)):
            files = {d: self.folder.path / "state" / f"{part}_{d}.npy" for d in self.recipe.directions}
            if not len(numbers) or not all(path.exists() for path in files.values()):
                continue
            probs = {d: np.load(path) for d, path in files.items()}
            every = {**probs, "averaged": joined(probs, targets.kind)} if len(probs) > 1 else probs
            found = {d: metrics_of(targets.kind, p, targets.truth(numbers)) for d, p in every.items()}
            if part == "validation":
                metrics["validation"] = found
            else:
                metrics.update(found)
                ids = dataset.df["id"].iloc[numbers].tolist()
                labels = targets.values[numbers]
                write_predictions(self.folder.path / "predictions.csv", ids, labels, dataset.classes, probs)
        self.folder.run["metrics"] = metrics
        if baseline is not None and len(self.test_rows) and not self.folder.run["baselines"]:
            train = some_rows(rows.train, self.recipe.classifier.max_docs, self.recipe.seed)
            if self.recipe.n_labels is None:  # a bag of words needs no texts held out: all labels, as the run has them
                train = np.setdiff1d(np.union1d(train, rows.valid), self.test_rows)  # 'tutorial' validates on the test
            try:
                self.folder.run["baselines"] = [baseline(dataset, train, self.test_rows)]
            except ValueError as error:  # texts without a word that it counts: the run is none the worse
                self.folder.run["warnings"].append(f"the TF-IDF baseline could not be made: {error}")
        self.folder.run["status"], self.folder.run["finished"], self.folder.run["until"] = "finished", now(), self.until
        self.folder.save_tables()
        self.folder.save()
