"""A whole run: texts to tokens, the three phases in each direction, predictions, and the run folder that holds them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.torch_core import default_device

from ..batches.dataloaders import classifier_dataloaders, inference_loader, lm_dataloaders
from ..batches.targets import Targets, joined, outputs_of
from ..experiments.baselines import tfidf_baseline
from ..model import weights as weight_files
from ..model.learners import classifier_learner, lm_learner
from ..model.precision import autocast_of, compute_dtype, precision_callbacks
from ..model.weights import LMWeights
from ..recipe.recipe import Phase, Recipe
from ..results.folder import RunFolder, RunMismatch, command_line, describe_device, now, versions
from ..results.predictions import write_predictions
from ..texts.sources import Dataset, Splits, split_validation
from ..tokens.store import TokenIds, TokenStore
from .callbacks import Budget, derived_seed
from .corpus import Corpus, GeneralText, general_lm, general_text, save_pretrained
from .estimate import Plan, estimate
from .loop import PhaseFit, minutes
from .sharing import adopt_language_model, language_model_in

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The time budget ended, or the run was interrupted, after the state was written; run again to go on."""


@dataclass
class Prepared:
    """What every phase of a run shares: rows, numericalised texts and labels."""

    dataset: Dataset
    splits: Splits
    ids: TokenIds
    targets: Targets  # the label of each row as the classifier learns it
    general: GeneralText | None = None  # what stage 1 reads, in a vocabulary of its own


VALIDATION_SEED = 0
"""Draws the validation part, whatever the run's seed: so seeds differ in their training and not in what they are
measured on."""


def rows_for(recipe: Recipe, dataset: Dataset) -> Splits:
    """The rows that each phase of a run reads."""
    splits = split_validation(
        dataset, fraction=recipe.valid_fraction, seed=recipe.seed, protocol=recipe.protocol, n_labels=recipe.n_labels,
        valid_seed=VALIDATION_SEED, lm_seed=recipe.language_seed,
    )
    if recipe.lm_texts == "labelled":  # the paper's supervised low-shot setting: the LM reads what the classifier reads
        splits = replace(splits, lm_train=splits.train, lm_valid=np.setdiff1d(splits.lm_valid, splits.train))
    return splits


def prepare(recipe: Recipe, dataset: Dataset, *, ids: TokenIds | None = None, cache: Path | None = None,
            progress: bool = True) -> Prepared:
    """Split, tokenise (from the cache when nothing changed) and numericalise with the vocabulary of the LM's texts.

    `ids` are the texts already numericalised, one document a row (from a pack); their vocabulary is taken as it is.
    """
    splits = rows_for(recipe, dataset)
    if ids is None:
        store = TokenStore.make(dataset.df["text"].tolist(), cache=cache, progress=progress)
        vocab = store.vocab(splits.lm_train, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq)
        ids = store.numericalize(vocab)
    elif len(ids) != len(dataset):
        raise ValueError(f"ids: expected one document for each of the {len(dataset):,} rows, found {len(ids):,}")
    targets = Targets.of(dataset, splits.train)
    if targets.kind != "single" and recipe.evaluate == "test" and len(splits.test):
        raise ValueError(f"{dataset.name}: a run measures labels of several classes or numbers on its validation part "
                         "only; use evaluate='validation', and ULMFiT.evaluate for other texts")
    return Prepared(dataset, splits, ids, targets)


def some_rows(rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    """At most `most` of the rows, drawn once for the seed, ascending."""
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(derived_seed(seed, "rows")).choice(rows, most, replace=False))


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
            loaded = weight_files.load(self.recipe.weights, direction)
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

    def finish(self, *, baseline: bool) -> None:
        dataset, rows, targets = self.data.dataset, self.data.splits, self.data.targets
        metrics: dict[str, Any] = {"validation": {}}
        for part, numbers in (("validation", rows.valid), ("test", self.test_rows)):
            files = {d: self.folder.path / "state" / f"{part}_{d}.npy" for d in self.recipe.directions}
            if not len(numbers) or not all(path.exists() for path in files.values()):
                continue
            probs = {d: np.load(path) for d, path in files.items()}
            every = {**probs, "averaged": joined(probs, targets.kind)} if len(probs) > 1 else probs
            found = {d: targets.metrics(p, numbers) for d, p in every.items()}
            if part == "validation":
                metrics["validation"] = found
            else:
                metrics.update(found)
                ids = dataset.df["id"].iloc[numbers].tolist()
                labels = targets.values[numbers]
                write_predictions(self.folder.path / "predictions.csv", ids, labels, dataset.classes, probs)
        self.folder.run["metrics"] = metrics
        if baseline and len(self.test_rows) and not self.folder.run["baselines"]:
            train = some_rows(rows.train, self.recipe.classifier.max_docs, self.recipe.seed)
            if self.recipe.n_labels is None:  # a bag of words needs no texts held out: all labels, as the run has them
                train = np.setdiff1d(np.union1d(train, rows.valid), self.test_rows)  # 'tutorial' validates on the test
            try:
                self.folder.run["baselines"] = [tfidf_baseline(dataset, train, self.test_rows)]
            except ValueError as error:  # texts without a word that it counts: the run is none the worse
                self.folder.run["warnings"].append(f"the TF-IDF baseline could not be made: {error}")
        self.folder.run["status"], self.folder.run["finished"], self.folder.run["until"] = "finished", now(), self.until
        self.folder.save_tables()
        self.folder.save()


def predictions_are_gone(folder: RunFolder) -> bool:
    """Whether the run was measured on test texts, but what was predicted for them is not there."""
    measured = any(name in folder.run.get("metrics", {}) for name in ("forward", "backward"))
    return folder.run["status"] == "finished" and measured and not (folder.path / "predictions.csv").exists()


def pretraining_left(recipe: Recipe, folder: RunFolder, direction: str) -> bool:
    """Whether stage 1 of a direction is still to be done, and needs the corpus."""
    return recipe.weights == "pretrain" and not any(folder.phase_done(direction, name) for name in recipe.phases)


def borrowed_phases(folder: RunFolder, recipe: Recipe, direction: str, source: str | Path,
                    fingerprint: str | None) -> tuple[str, ...]:
    """The phases that a run will take from another; ValueError, before anything is written, where it cannot."""
    if folder.phase_done(direction, "lm"):
        return ()
    if Path(source).resolve() == folder.path.resolve():
        raise ValueError(f"{source}: the language model would come from the run's own folder; choose another --out, so "
                         "that both are kept")
    _, last = language_model_in(source, recipe, direction, fingerprint)
    return recipe.phases[: recipe.phases.index(last) + 1]


def refuse_other_models(lm_from: Mapping[str, str | Path], recipe: Recipe, out: str | Path, *, resume: bool) -> None:
    """ValueError for language models of other runs that a run in `out` can't take, as far as is known without texts."""
    folder = RunFolder(out)
    if resume and (folder.path / "run.json").exists():
        folder.read()
    for direction, source in lm_from.items():
        borrowed_phases(folder, recipe, direction, source, None)


def read_general(recipe: Recipe, corpus: Corpus | None, *, cache: Path | None, progress: bool) -> GeneralText:
    """The corpus of stage 1 in numbers; ValueError when there is none."""
    if corpus is None:
        raise ValueError(
            f"recipe {recipe.name!r} pretrains (its weights are 'pretrain') and needs general text: pass corpus= "
            "(--corpus), a file or folder of articles, 'wikitext-103', or texts in a list; or choose other weights, "
            "such as weights='wt103'"
        )
    return general_text(corpus, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq, cache=cache, progress=progress)


def plan_run(recipe: Recipe, dataset: Dataset, *, corpus: Corpus | None = None, ids: TokenIds | None = None,
             device: str | torch.device | None = None, cache: Path | None = None, progress: bool = False,
             skip: Sequence[str] = ()) -> Plan:
    """How long a run would take here, measured on a few batches; `skip` names phases to leave out ("forward/lm")."""
    data = prepare(recipe, dataset, ids=ids, cache=cache, progress=progress)
    if recipe.weights == "pretrain":
        data.general = read_general(recipe, corpus, cache=cache, progress=progress)
    work = Run(recipe, data, RunFolder("unused"), device=torch.device(device) if device else default_device(),
               budget=Budget(), progress=False, plan=None)
    return estimate(work, skip=list(skip))


def predict_rows(model: torch.nn.Module, ids: TokenIds | Sequence[Any], rows: np.ndarray, *, direction: str, bptt: int,
                 device: torch.device, kind: str = "single", centre: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """Class probabilities (or numbers, see `outputs_of`), float32 of shape (rows, classes), in the order of `rows`."""
    loader = inference_loader(ids, rows=rows, direction=direction, bptt=bptt, device=device)
    model.eval()
    parts = []
    with torch.inference_mode():
        for (batch,) in loader:
            logits = model(batch.to(device))
            logits = logits[0] if isinstance(logits, tuple) else logits
            parts.append(outputs_of(logits, kind, centre=centre, spread=spread))
    out = np.empty((len(rows), parts[0].shape[1]), np.float32)
    out[np.asarray(loader.order)] = np.concatenate(parts)
    return out


@contextmanager
def interruptible(budget: Budget) -> Iterator[None]:
    """SIGTERM (a queue, a container) stops at the next batch with the state written, as a time budget does."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGTERM"):
        yield
        return

    def stop(*_: Any) -> None:
        budget.stopped = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(
    recipe: Recipe,
    dataset: Dataset,
    out: str | Path,
    *,
    corpus: Corpus | None = None,
    ids: TokenIds | None = None,
    resume: bool = True,
    time_budget: float | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    dry_run: bool = False,
    baseline: bool = True,
    cache: Path | None = None,
    checkpoint_every: float = 300.0,
    lm_from: Mapping[str, str | Path] | None = None,
    until: str | None = None,
    plan: bool = True,
) -> Path:
    """Run a recipe on a dataset and leave everything in the folder `out`; returns its path.

    Interrupted and called again with the same arguments it goes on where it was, to the same numbers on a CPU.
    `time_budget` (seconds) stops in good order: run.json then says 'stopped'. `dry_run` says what would be done and how
    long it would take on this machine, measured on a few batches, and trains nothing. `corpus` is what a recipe with
    weights 'pretrain' learns in stage 1: a path that `read_corpus` reads, or texts in a list. `ids` are the texts
    already numericalised (from a pack), for a machine without them.
    `lm_from` (direction -> run folder) takes the language models of other runs, fine-tuned or pretrained, which must be
    what this run would make itself (see sharing.py); `until`, 'pretrain' or 'lm', ends with the language models.
    `plan=False` leaves out the measuring of a few batches, from which the progress bars know the time left in the run.
    Raises ValueError for a folder that holds another run, and OSError when the disk is full (what was written stays).
    """
    started = time.monotonic()
    device = torch.device(device) if device is not None else default_device()
    folder = RunFolder(out)
    header = {
        "task": dataset.name, "recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "seeds": [recipe.seed],
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "counts": dataset.counts,
                 "classes": list(dataset.classes), "synthetic": dataset.synthetic, "notes": list(dataset.notes),
                 "source": dataset.source},
        "versions": versions(), "device": describe_device(device),
        "command": command_line(),
    }
    if resume and (folder.path / "run.json").exists():
        folder.read()
    general = None  # what cannot be had is said now, not after the texts were tokenised
    if any(pretraining_left(recipe, folder, d) for d in recipe.directions if d not in (lm_from or {})):
        general = read_general(recipe, corpus, cache=cache, progress=progress)
    if recipe.weights != "pretrain":
        for direction in recipe.directions:
            weight_files.load(recipe.weights, direction)
    borrowed = {direction: borrowed_phases(folder, recipe, direction, source, dataset.fingerprint)
                for direction, source in (lm_from or {}).items()}
    if not dry_run:
        folder.open(header, resume=resume)
        if predictions_are_gone(folder):  # then they are made again, from the classifiers
            log.warning("%s: predictions.csv is missing; predicting again", folder.path)
            done = folder.run.get("phases_done", [])
            folder.run["phases_done"] = [name for name in done if not name.endswith("/predict")]
        elif folder.run["status"] == "finished" and folder.run.get("until") in (None, until):
            log.info("%s holds this very run, finished on %s", folder.path, folder.run["finished"])
            return folder.path
        if general is not None and folder.run.setdefault("corpus", general.about) != general.about:
            raise RunMismatch(f"{folder.path} was pretrained on another corpus ({folder.run['corpus']['name']}, not "
                              f"{general.about['name']} as it is now); choose another --out")
        for direction, source in (lm_from or {}).items():
            adopt_language_model(folder, recipe, direction, source)
    data = prepare(recipe, dataset, ids=ids, cache=cache, progress=progress)
    data.general = general
    budget = Budget(started + time_budget if time_budget is not None else None, checkpoint_every)
    work = Run(recipe, data, folder, device=device, budget=budget, progress=progress, plan=None, until=until)
    if dry_run or (progress and plan):
        skip = [*folder.run.get("phases_done", []), *(f"{d}/{name}" for d in borrowed for name in borrowed[d]),
                *(f"{d}/classifier" for d in recipe.directions if until is not None)]
        work.plan = estimate(work, skip=skip)
        log.info("%s", work.plan)
        if dry_run:
            return folder.path
    folder.run["data"]["splits"] = {name: len(rows) for name, rows in vars(data.splits).items()}
    folder.run["data"]["vocabulary"] = len(data.ids.vocab)
    folder.run["data"]["labels"] = {"kind": data.targets.kind, "centre": data.targets.centre,
                                    "spread": data.targets.spread}
    folder.run["status"] = "running"
    session: dict[str, Any] = {"started": now(), "device": describe_device(device), "versions": versions()}
    folder.run["sessions"].append(session)
    folder.save()
    try:
        with interruptible(budget):
            for direction in recipe.directions:
                work.direction(direction)
            work.finish(baseline=baseline and until is None)
    except Stopped:
        folder.run["status"] = "stopped"
        spent = minutes(time.monotonic() - started)
        log.warning("stopped in good order after %s; run the same command again to go on", spent)
    except BaseException:  # an error or Ctrl-C: the folder says so, and the same command goes on from the checkpoint
        folder.run["status"] = "stopped"
        raise
    finally:
        session["seconds"] = round(time.monotonic() - started, 1)
        folder.save()
    return folder.path
