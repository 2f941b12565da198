"""A whole run: texts to tokens, the three phases in each direction, predictions, and the run folder that holds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.learner import Learner

from .._errors import UlmfitError
from .._files import write_bytes_atomic
from ..batches.targets import kind_of
from ..model.precision import resolve
from ..model.pretrained import content_of
from ..recipe.recipe import Recipe
from ..results.checkpoint import digest_of_array
from ..results.environment import command_line, describe_device, versions
from ..results.folder import ANOTHER_PLACE, RunFolder, RunMismatch, refuse_other_identity
from ..texts.dataset import Dataset
from ..tokens.ids import TokenIds
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model, model_digest
from .corpus import Corpus, GeneralText
from .estimate import Plan, estimate
from .phases import Baseline, Run
from .prepare import prepare, pretraining_left, read_general
from .processes import processes
from .session import Conditions, alone, session
from .sharing import adopt_language_model, language_model_in
from .side_by_side import fewer_threads, is_worth_it, refuse_one_at_a_time, train_directions
from .starting import OpenedWeights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is to be run, on what and where to: the arguments of `run` that its steps share."""

    recipe: Recipe
    dataset: Dataset
    folder: RunFolder
    conditions: Conditions
    corpus: Corpus | None
    ids: TokenIds | None
    lm_from: Mapping[str, str | Path]
    until: str | None
    opened: OpenedWeights
    lang: str = "en"
    sample_weight: np.ndarray | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What the run depends on besides its recipe and its texts."""
        data, recipe, pieces = self.dataset, self.recipe, is_model(self.lang)
        weights = {d: content_of(recipe.weights, d) for d in recipe.directions if d not in self.lm_from}
        return {"lang": PIECES_FILE if pieces else self.lang, "pieces": model_digest(self.lang) if pieces else None,
                "kind": kind_of(classes=bool(data.classes), several=bool(data.label_delim)),
                "label_delim": data.label_delim, "weights": {d: found for d, found in weights.items() if found},
                "sample_weight": None if self.sample_weight is None else digest_of_array(self.sample_weight)}

    def compare(self) -> None:
        """RunMismatch where the folder holds another run."""
        self.folder.compare(self.header)

    @property
    def header(self) -> dict[str, Any]:
        """What run.json says of a run from its start."""
        data = self.dataset
        return {
            "task": data.name, "recipe": self.recipe.to_dict(), "recipe_hash": self.recipe.hash,
            "seeds": [self.recipe.seed],
            "data": {"name": data.name, "fingerprint": data.fingerprint, "counts": data.counts,
                     "classes": list(data.classes), "synthetic": data.synthetic, "notes": list(data.notes),
                     "source": data.source},
            "identity": self.identity, "versions": versions(), "device": describe_device(self.conditions.device),
            "command": command_line(),
        }


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
    baseline: Baseline | None = None,
    cache: Path | None = None,
    checkpoint_every: float = 300.0,
    lm_from: Mapping[str, str | Path] | None = None,
    until: str | None = None,
    plan: bool = True,
    opened: OpenedWeights | None = None,
    lang: str = "en",
    parallel: bool | None = None,
    cbs: Any = None,
    sample_weight: np.ndarray | None = None,
) -> Path:
    """Run a recipe on a dataset and leave everything in the folder `out`.

    Interrupted and called again with the same arguments it goes on where it was, to the same numbers on a CPU.

    Args:
        out: the run folder.
        corpus: what a recipe with weights 'pretrain' learns in stage 1: a path that `read_corpus` reads, or texts in a
            list.
        ids: the texts already numericalised (from a pack), for a machine without them.
        resume: False moves an earlier run in `out` aside and starts anew.
        time_budget: seconds after which it stops in good order: run.json then says 'stopped'.
        device: 'cpu', 'cuda', 'mps'; None: the best there is.
        progress: show progress bars and, first, the plan.
        dry_run: say what would be done and how long it would take on this machine, measured on a few batches, and
            train nothing.
        baseline: measures something simpler on the same rows, for comparison, when the run ends.
        checkpoint_every: seconds between two checkpoints within an epoch.
        lm_from: direction -> run folder: takes the language models of other runs, fine-tuned or pretrained, which must
            be what this run would make itself (see sharing.py).
        until: 'pretrain' or 'lm' ends with the language models.
        plan: False leaves out the measuring of a few batches, from which the progress bars know the time left in the
            run.
        opened: starting weights that are in memory already.
        lang: what split the texts of `ids`: a language's code, or the file of a SentencePiece model.
        parallel: train both directions at once on a CPU, each in a process with half of the threads; None: where there
            are cores for it and enough to do. With the same number of threads the numbers are the same.
        cbs: fastai callbacks, which run beside ours in every stage of every phase (docs/callbacks.md).
        sample_weight: how much each row's text counts in the classifier's loss, float64 (rows of `dataset`,), 0 or
            more; only their ratios matter. None: all alike. The language model and what is measured don't know of it.

    Returns:
        The path of the run folder.

    Raises:
        UlmfitError: a folder that holds another run, or weights, corpus or language models that can't be had.
        OSError: the disk is full; what was written stays.

    Source: Howard & Ruder 2018, section 3.
    """
    conditions = Conditions.of(device=device, time_budget=time_budget, checkpoint_every=checkpoint_every,
                               progress=progress, cache=cache, parallel=parallel, cbs=cbs)
    refuse_one_at_a_time(recipe, conditions)
    processes().same(recipe=recipe.hash, texts=dataset.fingerprint)
    order = Order(recipe, dataset, RunFolder(processes().place(out)), conditions, corpus, ids, lm_from or {}, until,
                  opened or OpenedWeights(), lang, sample_weight)
    try:
        return _run(order, baseline, resume=resume, dry_run=dry_run, plan=plan)
    finally:
        order.folder.release()


def _run(order: Order, baseline: Baseline | None, *, resume: bool, dry_run: bool, plan: bool) -> Path:
    general = _look_ahead(order, resume=resume)
    if dry_run and resume:
        order.compare()
    if not dry_run and _open(order, general, resume=resume):
        return order.folder.path
    work = _prepare(order, general)
    if dry_run or (order.conditions.progress and plan):
        work.plan = plan_of(work, skip=_not_planned(order))
        log.info("%s", work.plan)
    if not dry_run:
        _train(work, order.header, baseline)
    return order.folder.path


def _look_ahead(order: Order, *, resume: bool) -> GeneralText | None:
    """Read what else the run needs, and return the corpus of stage 1 if it needs one.

    What cannot be had is a ValueError now, before the folder is touched and the texts are tokenised.
    """
    recipe, folder = order.recipe, order.folder
    resolve(recipe.precision, order.conditions.device)
    given, classes = recipe.class_weights, order.dataset.classes
    if given is not None and len(given) != len(classes):
        raise UlmfitError(f"class_weights: expected one number for each of the {len(classes)} classes, found "
                          f"{len(given)}", field="class_weights", expected=len(classes), found=len(given))
    if resume and (folder.path / "run.json").exists():
        folder.read()
    general = None
    if any(pretraining_left(recipe, folder, d) for d in recipe.directions if d not in order.lm_from):
        with processes().first():
            general = read_general(recipe, order.corpus, cache=order.conditions.cache,
                                   progress=order.conditions.progress)
    if recipe.weights != "pretrain":
        for direction in recipe.directions:
            if direction not in order.lm_from and not _has_started(recipe, folder, direction):
                order.opened.look_at(recipe.weights, direction)
    for direction, source in order.lm_from.items():
        borrowed_phases(folder, recipe, direction, source, order.dataset.fingerprint, order.identity)
    return general


def _has_started(recipe: Recipe, folder: RunFolder, direction: str) -> bool:
    """Whether a direction needs its starting weights no more."""
    return folder.phase_done(direction, "classifier" if recipe.lm is None else "lm")


def _open(order: Order, general: GeneralText | None, *, resume: bool) -> bool:
    """Open the run folder and put the borrowed language models into it; True when there is nothing left to do."""
    folder = order.folder
    folder.open(order.header, resume=resume)
    keep_identity(folder, order)
    if predictions_are_gone(folder):  # then they are made again, from the classifiers
        log.warning("%s: predictions.csv is missing; predicting again", folder.path)
        done = folder.run.get("phases_done", [])
        folder.run["phases_done"] = [name for name in done if not name.endswith("/predict")]
    elif folder.run["status"] == "finished" and folder.run.get("until") in (None, order.until):
        log.info("%s holds this very run, finished on %s", folder.path, folder.run["finished"])
        return True
    if general is not None and folder.run.setdefault("corpus", general.about) != general.about:
        raise RunMismatch(f"{folder.path} was pretrained on another corpus ({folder.run['corpus']['name']}, not "
                          f"{general.about['name']} as it is now)", path=folder.path, advice=ANOTHER_PLACE)
    for direction, source in order.lm_from.items():
        adopt_language_model(folder, order.recipe, direction, source)
    return False


def keep_identity(folder: RunFolder, order: Order) -> None:
    """Put the SentencePiece model into the folder, and into run.json the weights that weren't there at its start."""
    if is_model(order.lang) and Path(order.lang).resolve() != (folder.path / PIECES_FILE).resolve():
        write_bytes_atomic(folder.path / PIECES_FILE, Path(order.lang).read_bytes())
    if "identity" in folder.run and folder.run["status"] != "finished":
        folder.run["identity"]["weights"] = {**order.identity["weights"], **folder.run["identity"].get("weights", {})}


def predictions_are_gone(folder: RunFolder) -> bool:
    """Whether the run was measured on test texts, but what was predicted for them is not there."""
    measured = any(name in folder.run.get("metrics", {}) for name in ("forward", "backward"))
    return folder.run["status"] == "finished" and measured and not (folder.path / "predictions.csv").exists()


def _prepare(order: Order, general: GeneralText | None) -> Run:
    """Texts and labels in numbers, and the phases over them."""
    conditions = order.conditions
    with processes().first():
        data = prepare(order.recipe, order.dataset, ids=order.ids, cache=conditions.cache, progress=conditions.progress)
    data.general, data.sample_weight = general, order.sample_weight
    return Run(order.recipe, data, order.folder, conditions, until=order.until, opened=order.opened)


def _not_planned(order: Order) -> list[str]:
    """The phases that take no time any more, or aren't asked for."""
    recipe, folder = order.recipe, order.folder
    borrowed = [f"{direction}/{name}" for direction, source in order.lm_from.items()
                for name in borrowed_phases(folder, recipe, direction, source, order.dataset.fingerprint)]
    unwanted = [f"{direction}/classifier" for direction in recipe.directions if order.until is not None]
    return [*folder.run.get("phases_done", []), *borrowed, *unwanted]


def _train(work: Run, header: dict[str, Any], baseline: Baseline | None) -> None:
    """The session: every phase that is left, to the end or until it is stopped."""
    data, record = work.data, work.folder.run["data"]
    record["splits"] = {name: len(rows) for name, rows in vars(data.splits).items()}
    record["vocabulary"] = len(data.ids.vocab)
    record["labels"] = data.targets.target.to_record()
    with session(work.folder, work.conditions):
        train_directions(work, header)
        work.finish(baseline=baseline if work.until is None and processes().leads else None)


def refuse_another_run(recipe: Recipe, dataset: Dataset, out: str | Path, *, lang: str = "en") -> None:
    """RunMismatch where the folder `out` holds another run than `run` with these arguments would make."""
    order = Order(recipe, dataset, RunFolder(out), Conditions.of(progress=False), None, None, {}, None, OpenedWeights(),
                  lang)
    identity = {name: value for name, value in order.identity.items() if name != "sample_weight"}  # not asked for here
    order.folder.compare({**order.header, "identity": identity})


def plan_run(recipe: Recipe, dataset: Dataset, *, corpus: Corpus | None = None, ids: TokenIds | None = None,
             device: str | torch.device | None = None, cache: Path | None = None, progress: bool = False,
             skip: Sequence[str] = ()) -> Plan:
    """How long a run would take here, measured on a few batches.

    Args:
        skip: phases to leave out, such as "forward/lm"; the others are those of `run`.

    Returns:
        Seconds for each phase; `print` shows them.
    """
    data = prepare(recipe, dataset, ids=ids, cache=cache, progress=progress)
    if recipe.weights == "pretrain":
        data.general = read_general(recipe, corpus, cache=cache, progress=progress)
    return plan_of(Run(recipe, data, RunFolder("unused"), Conditions.of(device=device, progress=False)), skip=skip)


def plan_of(work: Run, *, skip: Sequence[str] = ()) -> Plan:
    """How long the phases of a run would take on its device."""
    recipe, direction = work.recipe, work.recipe.directions[0]
    learners: dict[str, Callable[[], Learner]] = {"classifier": partial(work.build_classifier, direction, None)}
    if recipe.lm is not None:
        learners["lm"] = partial(work.build_lm, recipe.lm, direction, None)
    if recipe.pretrain is not None:
        learners["pretrain"] = partial(work.build_general_lm, recipe.pretrain, direction)
    predicted = sum(map(len, work.held_out.values()))
    parallel = is_worth_it(recipe, work.data, work.conditions)
    with alone(), fewer_threads() if parallel else nullcontext():
        plan = estimate(recipe, learners, predicted=predicted, skip=skip)
    plan.parallel = parallel and len(plan.directions) > 1
    return plan


def borrowed_phases(folder: RunFolder, recipe: Recipe, direction: str, source: str | Path,
                    fingerprint: str | None, identity: dict[str, Any] | None = None) -> tuple[str, ...]:
    """The phases that a run will take from another; ValueError, before anything is written, where it cannot."""
    if folder.phase_done(direction, "lm"):
        return ()
    if Path(source).resolve() == folder.path.resolve():
        raise UlmfitError(f"{source}: the language model would come from the run's own folder", path=source,
                          advice=f"{ANOTHER_PLACE}, so that both are kept")
    other, last = language_model_in(source, recipe, direction, fingerprint)
    if last == "lm":
        own: dict[str, Any] = {name: (identity or {})[name] for name in ("lang", "pieces") if name in (identity or {})}
        weights = {direction: found} if (found := content_of(recipe.weights, direction)) else {}
        refuse_other_identity(other.path, other.run, {**own, "weights": weights})
    return recipe.phases[: recipe.phases.index(last) + 1]


def refuse_other_models(lm_from: Mapping[str, str | Path], recipe: Recipe, out: str | Path, *, resume: bool) -> None:
    """ValueError for language models of other runs that a run in `out` can't take, as far as is known without texts."""
    folder = RunFolder(out)
    if resume and (folder.path / "run.json").exists():
        folder.read()
    for direction, source in lm_from.items():
        borrowed_phases(folder, recipe, direction, source, None)
