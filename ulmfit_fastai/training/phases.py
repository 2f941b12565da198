"""The phases of one run, in order: pretraining, language model, classifier, predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.text.learner import LMLearner, TextLearner

from .._files import atomic_file, disk_full_is_said
from ..batches.classifier import ClassifierLoader
from ..batches.dataloaders import classifier_dataloaders, lm_dataloaders
from ..batches.documents import TokenDataset
from ..model.autocast import autocast_of, precision_callbacks
from ..model.learners import classifier_learner, lm_learner
from ..model.precision import compute_dtype
from ..model.weights import Classifier, LMWeights
from ..predict.outputs import pooled_rows, predict_rows
from ..recipe.parts import Phase
from ..recipe.recipe import Recipe
from ..results.environment import now
from ..results.folder import RunFolder
from ..results.held_out import TRUTH, write_truth
from ..results.metrics import mean_over_directions, metrics_of
from ..results.predictions import write_predictions
from ..texts.dataset import Dataset
from .adversarial import AdversarialTraining
from .callbacks import derived_seed
from .estimate import Plan
from .precise_batch_norm import PreciseBatchNorm
from .prepare import Prepared, pretraining_left, some_rows
from .processes import processes
from .sample_weights import SampleWeights
from .session import Conditions, Stopped
from .starting import OpenedWeights, about_start
from .work import Work

Baseline = Callable[[Dataset, np.ndarray, np.ndarray], dict[str, Any]]
"""Something simpler on the same rows, for comparison: (data set, rows to train on, test rows) -> a record with 'name',
'error' (%), 'n' and whatever else it has to say, as `baseline.tfidf_baseline`."""


class Run(Work):
    """The phases of one run, in order; each is skipped when the folder already has its weights."""

    def __init__(self, recipe: Recipe, data: Prepared, folder: RunFolder, conditions: Conditions, *,
                 plan: Plan | None = None, until: str | None = None, opened: OpenedWeights | None = None) -> None:
        super().__init__(recipe, folder, conditions, general=data.general, plan=plan)
        self.data, self.until, self.opened = data, until, opened or OpenedWeights()
        self.vocab_file = folder.path / "vocab.json"
        self.outputs: dict[tuple[str, str], np.ndarray] = {}  # (part, direction) -> what was predicted

    @property
    def test_rows(self) -> np.ndarray:
        """The rows that the run ends on; none for recipes that must leave the test set alone (the paper's analyses)."""
        return self.data.splits.test if self.recipe.evaluate == "test" else self.data.splits.test[:0]

    @property
    def measured(self) -> np.ndarray:
        """The rows that the run's error is of: the test's, or the validation part's where the test is left alone."""
        return self.test_rows if self.recipe.evaluate == "test" else self.data.splits.valid

    # Learners

    def build_lm(self, phase: Phase, direction: str, weights: LMWeights | None) -> LMLearner:
        """The Learner of LM fine-tuning; random weights where there are none to start from."""
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

    def build_classifier(self, direction: str, encoder: LMWeights | None) -> TextLearner:
        """The classifier's Learner; its encoder is random where there is none to start from."""
        phase, rows = self.recipe.classifier, self.data.splits
        chosen = some_rows(rows.train, phase.max_docs, self.recipe.seed)
        dls = classifier_dataloaders(
            self.data.ids, self.data.targets, train=chosen,
            valid=some_rows(rows.valid, phase.valid_docs, self.recipe.seed), direction=direction,
            bs=phase.bs, bptt=phase.bptt, device=self.device,
            seed=derived_seed(self.recipe.seed, direction, "classifier"),
        )
        weighs = [SampleWeights(self.data.sample_weight[chosen])] if self.data.sample_weight is not None else []
        beyond: list[Callback] = [self._adversarial(direction)] if self.recipe.adversarial.is_on else []
        if phase.precise_batch_norm is not None:
            beyond.append(self._precise_batch_norm(some_rows(chosen, phase.precise_batch_norm, self.recipe.seed),
                                                   direction))
        torch.manual_seed(derived_seed(self.recipe.seed, direction, "classifier", "init"))
        dtype = compute_dtype(self.recipe.precision, self.device)
        return classifier_learner(dls, self.recipe.model, phase, encoder=encoder, fast=self.recipe.fast,
                                  loss_func=self.data.targets.target.loss(self.recipe.class_weights, self.device),
                                  compute_dtype=dtype, cbs=[*precision_callbacks(self.recipe.precision, self.device),
                                                           *weighs, *beyond])

    def _adversarial(self, direction: str) -> AdversarialTraining:
        """The recipe's adversarial training, with texts that need no label; none of the test's, in any protocol."""
        phase, asked, more = self.recipe.classifier, self.recipe.adversarial, None
        if asked.virtual_weight and asked.unlabelled:
            rows = np.setdiff1d(self.data.splits.lm_train, self.data.splits.test)
            dataset = TokenDataset.from_ids(self.data.ids, rows, direction=direction, target=self.data.targets.target)
            more = ClassifierLoader(dataset, bs=phase.bs, bptt=phase.bptt, shuffle=True, device=self.device,
                                    seed=derived_seed(self.recipe.seed, direction, "unlabelled"))
        return AdversarialTraining(asked.epsilon, weight=asked.weight, virtual_weight=asked.virtual_weight,
                                   unlabelled=more, finite_difference=asked.finite_difference)

    def _precise_batch_norm(self, rows: np.ndarray, direction: str) -> PreciseBatchNorm:
        """Batch norm's statistics of these training rows, of which each process reads its share."""
        def pooled(model: torch.nn.Module) -> np.ndarray:
            return processes().dealt(rows, partial(pooled_rows, model, self.data.ids, direction=direction,
                                                   bptt=self.recipe.classifier.bptt, device=self.device))

        return PreciseBatchNorm(pooled=pooled)

    # Phases

    def train_direction(self, direction: str) -> None:
        """Everything of one direction that the folder doesn't have yet, or up to the phase `until`."""
        if pretraining_left(self.recipe, self.folder, direction):
            self.pretrain(direction)
        if self.until == "pretrain":
            return
        if self.recipe.lm is not None and not self.folder.phase_done(direction, "lm"):
            self.fine_tune(self.recipe.lm, direction)
        if self.until == "lm":
            return
        if not self.folder.phase_done(direction, "classifier"):
            self.train_classifier(direction)
        if not self.folder.phase_done(direction, "predict"):
            self.predict(direction)
            self.folder.mark_phase(direction, "predict")

    def is_trained(self, direction: str) -> bool:
        """Whether the folder has all of a direction, or all up to the phase `until`."""
        return self.folder.phase_done(direction, self.until or "predict")

    def fine_tune(self, phase: Phase, direction: str) -> None:
        """Stage 2: the general-domain language model learns these texts."""
        learn = self.build_lm(phase, direction, self.match_starting_weights(direction))
        self.fit(learn, phase, "lm", direction)
        tuned = LMWeights.from_model(learn.model, self.data.ids.vocab, name=self.recipe.name, direction=direction,
                                     recipe_hash=self.recipe.hash)
        tuned.save(self.folder.weights_file("lm", direction), vocab_path=self.vocab_file)
        self.folder.mark_phase(direction, "lm")
        self.forget(learn)

    def train_classifier(self, direction: str) -> None:
        """Stage 3: a classifier on the language model's encoder."""
        learn = self.build_classifier(direction, self.load_encoder(direction))
        self.fit(learn, self.recipe.classifier, "classifier", direction)
        model = Classifier.from_model(
            learn.model, self.data.ids.vocab, self.data.dataset.classes, direction=direction,
            meta={"name": self.recipe.name, "recipe_hash": self.recipe.hash},
        )
        model.save(self.folder.weights_file("classifier", direction), vocab_path=self.vocab_file)
        self.folder.mark_phase(direction, "classifier")
        self.forget(learn)

    def match_starting_weights(self, direction: str) -> LMWeights | None:
        """Stage 1: the general-domain language model, matched to the words of these texts."""
        if self.recipe.weights == "pretrain":
            self.folder.refuse_damaged(f"pretrain_{direction}.safetensors", f"pretrain_{direction}.vocab.json")
            loaded: LMWeights | None = LMWeights.load(self.folder.weights_file("pretrain", direction))
        else:
            loaded = self.opened.take(self.recipe.weights, direction)
        if loaded is None:
            return None
        matched = loaded.for_vocab(self.data.ids.vocab)
        self.folder.run.setdefault("weights", {})[direction] = about_start(loaded, matched)
        return matched

    def load_encoder(self, direction: str) -> LMWeights | None:
        """What the classifier starts from: the fine-tuned language model, or where none is fine-tuned, the general one.
        """
        if self.recipe.lm is None:
            return self.match_starting_weights(direction)
        self.folder.refuse_damaged(f"lm_{direction}.safetensors", "vocab.json")
        return LMWeights.load(self.folder.weights_file("lm", direction), vocab=self.vocab_file)

    def predict(self, direction: str) -> None:
        """Outputs for the validation and test rows; the only place where the test set is read."""
        targets = self.data.targets
        started = time.monotonic()
        learn = self.build_classifier(direction, None)
        self.folder.refuse_damaged(f"classifier_{direction}.safetensors", "vocab.json")
        saved = Classifier.load(self.folder.weights_file("classifier", direction), vocab=self.vocab_file)
        learn.model.load_state_dict(saved.state)
        for part, rows in self.held_out.items():
            if len(rows):
                with autocast_of(learn):  # in the types it was trained in
                    found = processes().dealt(rows, partial(
                        predict_rows, learn.model, self.data.ids, direction=direction, bptt=self.recipe.classifier.bptt,
                        device=self.device, target=targets.target, before_batch=self._stop_if_asked))
                self._keep(part, direction, found)
        self.folder.run.setdefault("seconds", {})[f"predict_{direction}"] = round(time.monotonic() - started, 1)
        self.forget(learn)

    def _stop_if_asked(self) -> None:
        """SIGTERM ends the predicting too, which is begun anew; a time budget that ends meanwhile lets it be finished,
        so that any budget comes to the end of a run. Of several processes, none ends before the others.
        """
        if self.conditions.budget.stopped and processes().world == 1:
            raise Stopped

    @property
    def held_out(self) -> dict[str, np.ndarray]:
        """The rows that are predicted, by the part they are of."""
        return {"validation": self.data.splits.valid, "test": self.test_rows}

    def _keep(self, part: str, direction: str, outputs: np.ndarray) -> None:
        """Hold outputs for the end of the run, and write them for a run that is killed before it."""
        self.outputs[part, direction] = outputs
        path = self.folder.path / "state" / f"{part}_{direction}.npy"
        with disk_full_is_said(self.folder.path), atomic_file(path) as file:
            np.save(file, outputs)

    def _outputs_of(self, part: str) -> dict[str, np.ndarray] | None:
        """What every direction predicted, here or in an earlier session; None where one of them is missing."""
        found = {}
        for direction in self.recipe.directions:
            path = self.folder.path / "state" / f"{part}_{direction}.npy"
            if (part, direction) in self.outputs:
                found[direction] = self.outputs[part, direction]
            elif path.exists():
                self.folder.refuse_damaged(f"state/{path.name}")
                found[direction] = np.load(path)
            else:
                return None
        return found

    # The end

    def finish(self, *, baseline: Baseline | None = None) -> None:
        """Measure what was predicted, and beside it something simpler; the run is finished then."""
        self.folder.run["metrics"] = self.measure()
        if baseline is not None and len(self.measured) and not self.folder.run["baselines"]:
            self.compare_with(baseline)
        self.folder.run["status"], self.folder.run["finished"], self.folder.run["until"] = "finished", now(), self.until
        self.folder.save_tables()
        self.folder.note_digests("predictions.csv", "history.csv", "rates.csv", TRUTH)
        self.folder.save()

    def measure(self) -> dict[str, Any]:
        """Metrics of each direction and of both, on validation and test rows; writes the test's predictions."""
        dataset, targets = self.data.dataset, self.data.targets
        metrics: dict[str, Any] = {"validation": {}}
        for part, rows in self.held_out.items():
            outputs = self._outputs_of(part) if len(rows) else None
            if outputs is None:
                continue
            every = dict(outputs)
            if len(outputs) > 1:
                every["averaged"] = mean_over_directions(outputs, targets.target.kind)
            found = {d: metrics_of(targets.target.kind, o, targets.truth(rows)) for d, o in every.items()}
            if part == "validation":
                metrics["validation"] = found
                if not len(self.test_rows):  # then these are what the run ends on
                    write_truth(self.folder.path, dataset.df["id"].iloc[rows].tolist(), targets.truth(rows))
            else:
                metrics.update(found)
                ids = dataset.df["id"].iloc[rows].tolist()
                write_predictions(self.folder.path / "predictions.csv", ids, targets.values[rows], dataset.classes,
                                  outputs)
        return metrics

    def compare_with(self, baseline: Baseline) -> None:
        """Measure something simpler on the run's own rows."""
        rows = self.data.splits
        train = some_rows(rows.train, self.recipe.classifier.max_docs, self.recipe.seed)
        if self.recipe.n_labels is None:  # a bag of words needs no texts held out: all labels, as the run has them
            train = np.setdiff1d(np.union1d(train, rows.valid), self.measured)  # 'tutorial' validates on the test
        try:
            self.folder.run["baselines"] = [baseline(self.data.dataset, train, self.measured)]
        except ValueError as error:  # texts without a word that it counts: the run is none the worse
            self.folder.run["warnings"].append(f"the TF-IDF baseline could not be made: {error}")
