"""A whole run: texts to tokens, the three phases in each direction, predictions, and the run folder that holds them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fastai.torch_core import default_device

from .._errors import UlmfitError
from .._words import duration
from ..model import pretrained
from ..recipe.recipe import Recipe
from ..results.environment import command_line, describe_device, now, versions
from ..results.folder import RunFolder, RunMismatch
from ..texts.dataset import Dataset
from ..tokens.ids import TokenIds
from .callbacks import Budget
from .corpus import Corpus
from .estimate import Plan, estimate
from .phases import Baseline, Run, Stopped
from .prepare import prepare, pretraining_left, read_general
from .sharing import adopt_language_model, language_model_in

log = logging.getLogger(__name__)


def predictions_are_gone(folder: RunFolder) -> bool:
    """Whether the run was measured on test texts, but what was predicted for them is not there."""
    measured = any(name in folder.run.get("metrics", {}) for name in ("forward", "backward"))
    return folder.run["status"] == "finished" and measured and not (folder.path / "predictions.csv").exists()


def borrowed_phases(folder: RunFolder, recipe: Recipe, direction: str, source: str | Path,
                    fingerprint: str | None) -> tuple[str, ...]:
    """The phases that a run will take from another; ValueError, before anything is written, where it cannot."""
    if folder.phase_done(direction, "lm"):
        return ()
    if Path(source).resolve() == folder.path.resolve():
        raise UlmfitError(f"{source}: the language model would come from the run's own folder; choose another --out, "
                          "so that both are kept")
    _, last = language_model_in(source, recipe, direction, fingerprint)
    return recipe.phases[: recipe.phases.index(last) + 1]


def refuse_other_models(lm_from: Mapping[str, str | Path], recipe: Recipe, out: str | Path, *, resume: bool) -> None:
    """ValueError for language models of other runs that a run in `out` can't take, as far as is known without texts."""
    folder = RunFolder(out)
    if resume and (folder.path / "run.json").exists():
        folder.read()
    for direction, source in lm_from.items():
        borrowed_phases(folder, recipe, direction, source, None)


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
    baseline: Baseline | None = None,
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
    `baseline` measures something simpler on the same rows, for comparison, when the run ends.
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
            pretrained.load(recipe.weights, direction)
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
            work.finish(baseline=baseline if until is None else None)
    except Stopped:
        folder.run["status"] = "stopped"
        spent = duration(time.monotonic() - started)
        log.warning("stopped in good order after %s; run the same command again to go on", spent)
    except BaseException:  # an error or Ctrl-C: the folder says so, and the same command goes on from the checkpoint
        folder.run["status"] = "stopped"
        raise
    finally:
        session["seconds"] = round(time.monotonic() - started, 1)
        folder.save()
    return folder.path
