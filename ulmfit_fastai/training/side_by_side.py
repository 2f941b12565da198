"""Both directions of a run at once on a CPU: the second one in a process of its own, each with its share of the cores.

A language model's step is thousands of small operations, in which two threads wait for each other more than they work:
two processes of one thread are faster than one of two. The second direction works in a run folder within the run's, so
that either may be killed and goes on; what it made moves into the run's folder when it is done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import _progress
from .._errors import UlmfitError
from .._progress import Bar
from ..recipe.recipe import Recipe
from ..results.folder import FolderInUse, RunFolder
from ..results.recorder import record_file
from ..tokens.stream import cores
from .phases import Run
from .prepare import Prepared
from .processes import processes
from .session import Conditions, Stopped, interruptible
from .starting import OpenedWeights

log = logging.getLogger(__name__)

WORTH = 3_000_000
"""Tokens that a direction trains on from which a second process, some ten seconds in coming, is worth its while."""
PHASES = ("pretrain", "lm", "classifier")
START = "import sys; sys.path[:] = {path!r}; from ulmfit_fastai.training.side_by_side import serve; serve()"


@dataclass(frozen=True)
class Job:
    """What the other process has to know: the arguments of `Run` for its direction."""

    direction: str
    recipe: Recipe
    data: Prepared
    folder: Path
    header: dict[str, Any]
    until: str | None
    opened: OpenedWeights
    threads: int
    seconds_left: float | None
    checkpoint_every: float
    progress: bool


def is_worth_it(recipe: Recipe, data: Prepared, conditions: Conditions) -> bool:
    """Whether two processes are the faster way: a CPU with two cores and threads to share, and minutes rather than
    seconds of work."""
    if conditions.parallel is not None:
        return conditions.parallel
    return can(recipe, conditions) and min(cores(), torch.get_num_threads()) > 1 and _tokens(recipe, data) > WORTH


def refuse_one_at_a_time(recipe: Recipe, conditions: Conditions) -> None:
    """UlmfitError where both directions at once are asked for and can't be had."""
    if conditions.parallel and not can(recipe, conditions):
        raise UlmfitError(f"both directions at once: expected two directions and a CPU, found "
                          f"{' and '.join(recipe.directions)} on {conditions.device}", field="parallel",
                          advice="leave out `parallel=`")


def can(recipe: Recipe, conditions: Conditions) -> bool:
    """Whether there are two directions, a CPU, a Python to start, and no launcher that has started others."""
    startable = bool(sys.executable) and not getattr(sys, "frozen", False)
    return len(recipe.directions) > 1 and conditions.device.type == "cpu" and processes().world == 1 and startable


def _tokens(recipe: Recipe, data: Prepared) -> float:
    rows = {"lm": (data.ids, data.splits.lm_train), "classifier": (data.ids, data.splits.train)}
    if data.general is not None:  # it isn't read again once stage 1 is done
        rows["pretrain"] = data.general.ids, data.general.train
    total = 0.0
    for name, (ids, chosen) in rows.items():
        phase = recipe.phase(name)
        if phase is not None and len(chosen):
            share = min(1.0, (phase.max_docs or len(chosen)) / len(chosen))
            total += float(ids.lengths[chosen].sum()) * share * sum(stage.epochs for stage in phase.stages)
    return total


@contextmanager
def fewer_threads() -> Iterator[int]:
    """Half of torch's threads within it."""
    every = torch.get_num_threads()
    torch.set_num_threads(max(1, every // 2))
    try:
        yield max(1, every // 2)
    finally:
        torch.set_num_threads(every)


# What one direction has made, in one folder and in the other


def part_of(folder: RunFolder, direction: str) -> RunFolder:
    """The run folder within a run's folder in which one of its directions works by itself."""
    return RunFolder(folder.path / "state" / direction)


def hand_over(direction: str, source: RunFolder, target: RunFolder) -> None:
    """Move what a direction has made so far, files and records, from one folder of the run to another.

    Called again after it was cut short, it does what is left: files first, then the records, both whole at any moment.
    """
    names = [f"{phase}_{direction}.{ending}" for phase in PHASES for ending in ("safetensors", "vocab.json")]
    names += [f"state/{part}_{direction}.npy" for part in ("validation", "test")]
    names += [str(record_file(Path(), phase, direction)) for phase in PHASES]
    for name in names:
        if (source.path / name).exists():
            os.replace(source.path / name, target.path / name)
    if (source.path / "vocab.json").exists() and not (target.path / "vocab.json").exists():
        shutil.copy2(source.path / "vocab.json", target.path / "vocab.json")
    copy_records(direction, source, target, names)
    target.save_tables()
    target.save()


def copy_records(direction: str, source: RunFolder, target: RunFolder, names: list[str]) -> None:
    """In place of what `target` says of a direction, what `source` says."""
    run, other = target.run, source.run
    run["stages"] = [*(s for s in run["stages"] if s["direction"] != direction),
                     *(s for s in other["stages"] if s["direction"] == direction)]
    done = [name for name in run.get("phases_done", []) if not name.startswith(f"{direction}/")]
    run["phases_done"] = [*done, *(n for n in other.get("phases_done", []) if n.startswith(f"{direction}/"))]
    kept = {"digests": {*names, "vocab.json"}, "weights": {direction}, "seconds": {f"predict_{direction}"},
            "language_model_of": {direction}, "language_model_phases": {direction}}
    for field, keys in kept.items():
        found = {key: value for key, value in (other.get(field) or {}).items() if key in keys}
        if found:
            run[field] = {**(run.get(field) or {}), **found}
    run["warnings"] = list(dict.fromkeys([*run["warnings"], *other["warnings"]]))
    for table in ("history", "rates"):
        rows = [row for row in getattr(target, table) if row["direction"] != direction]
        setattr(target, table, [*rows, *(row for row in getattr(source, table) if row["direction"] == direction)])


def open_part(work: Run, header: dict[str, Any], direction: str) -> RunFolder:
    """The part of a direction, with what the run's folder has of it already."""
    part = part_of(work.folder, direction)
    begun = (part.path / "run.json").exists()
    open_patiently(part, header)
    if not begun:
        hand_over(direction, work.folder, part)
    return part


def open_patiently(folder: RunFolder, header: dict[str, Any], seconds: float = 60.0) -> RunFolder:
    """Open a part, also one whose process outlived a killed run by the time that its last batch and its state take."""
    patience = time.monotonic() + seconds
    while True:
        try:
            folder.open(header)
            return folder
        except FolderInUse:
            if time.monotonic() > patience:
                raise
            time.sleep(0.5)


def take_back(work: Run, direction: str) -> None:
    """What a part holds moves into the run's folder, and the part is gone."""
    part = part_of(work.folder, direction)
    if (part.path / "run.json").exists():
        hand_over(direction, part.read(), work.folder)
        shutil.rmtree(part.path)


# The directions of a run


def train_directions(work: Run, header: dict[str, Any]) -> None:
    """Train every direction of a run to its end, two at once where that is faster; `Stopped` before."""
    left = [direction for direction in work.recipe.directions if not work.is_trained(direction)]
    if len(left) < 2 or not is_worth_it(work.recipe, work.data, work.conditions):
        for direction in left:
            train_here(work, header, direction)
        return
    first, second = left
    with fewer_threads() as threads:
        other = Other(work, header, second, threads)
        try:
            train_here(work, header, first)
            other.wait(work.conditions)
        finally:
            other.stop()
    if part_is_done(work, second):
        take_back(work, second)
    elif work.conditions.budget.over():
        raise Stopped
    else:
        log.warning("the process that trained %s ended (%s); this one goes on with it", second, other.said())
        train_here(work, header, second)


def train_here(work: Run, header: dict[str, Any], direction: str) -> None:
    """Train a direction in this process: in its part where it has begun there."""
    if not (part_of(work.folder, direction).path / "run.json").exists():
        work.train_direction(direction)
        return
    part = open_part(work, header, direction)
    try:
        Run(work.recipe, work.data, part, work.conditions, plan=work.plan, until=work.until, opened=work.opened
            ).train_direction(direction)
    finally:
        part.save_tables()
        part.save()
        part.release()
    take_back(work, direction)


def part_is_done(work: Run, direction: str) -> bool:
    """Whether the part of a direction holds all that is asked for."""
    part = part_of(work.folder, direction)
    if not (part.path / "run.json").exists():
        return False
    return Run(work.recipe, work.data, part.read(), work.conditions, until=work.until).is_trained(direction)


class Other:
    """The process that trains the other direction, as the run's own process sees it."""

    def __init__(self, work: Run, header: dict[str, Any], direction: str, threads: int) -> None:
        from ..tokens.workers import import_path

        self.words, self.error, self.alone = direction, "", False
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen([sys.executable, "-c", START.format(path=import_path())], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        open_part(work, header, direction).release()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        with contextlib.suppress(OSError):  # it has ended: whoever waits for it sees that
            pickle.dump(job_of(work, header, direction, threads), self.process.stdin)  # type: ignore[arg-type]
            self.process.stdin.flush()  # type: ignore[union-attr]
        log.info("%s trains in a process of its own (%d), %d of the threads each", direction, self.process.pid, threads)

    def _listen(self) -> None:
        """Take over what it says: lines of the log, how far it is, an error."""
        assert self.process.stdout is not None
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                kind, *said = pickle.load(self.process.stdout)
                if kind == "log":
                    logging.getLogger(said[0]).log(said[1], "%s", said[2])
                elif kind == "bar":
                    label, share, words = said
                    self.words = f"{label}: {'' if share is None else f'{share:.0%} '}{words}".strip()
                    _progress.beside = "" if self.alone else self.words
                elif kind == "error":
                    self.error = said[0]
        _progress.beside = ""

    def wait(self, conditions: Conditions) -> None:
        """Return when it has ended, or the time is over."""
        self.alone, _progress.beside = True, ""
        with closing(Bar("the other direction is done", None, shown=conditions.progress)) as bar:
            while self.process.poll() is None and not conditions.budget.over():
                time.sleep(0.2)
                bar.show(0, self.words)
        if self.process.poll() is not None:  # its last words
            self.listener.join(timeout=5)

    def stop(self) -> None:
        """End it in good order, with its state written; no matter how this process ends, that is what it does."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _progress.beside = ""

    def said(self) -> str:
        """Why it ended."""
        return self.error or f"exit code {self.process.returncode}"


def job_of(work: Run, header: dict[str, Any], direction: str, threads: int) -> Job:
    """The texts stay here: a direction is trained on their numbers."""
    dataset, budget = work.data.dataset, work.conditions.budget
    numbers = replace(work.data, dataset=replace(dataset, df=dataset.df.assign(text="")))
    left = None if budget.deadline is None else budget.deadline - time.monotonic()
    return Job(direction, work.recipe, numbers, part_of(work.folder, direction).path, header, work.until, work.opened,
               threads, left, budget.checkpoint_every, work.conditions.progress)


# In the other process


def serve() -> None:
    """What the other process does, from the job on its standard input to the end of its direction."""
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not speak into the answers
    lock = threading.Lock()

    def tell(*said: Any) -> None:
        with lock, contextlib.suppress(OSError):
            pickle.dump(said, outgoing)
            outgoing.flush()

    logging.getLogger("ulmfit_fastai").setLevel(logging.INFO)
    logging.getLogger("ulmfit_fastai").addHandler(_Telling(tell))
    logging.getLogger("ulmfit_fastai").propagate = False
    _progress.reporter = lambda label, share, said: tell("bar", label, share, said)
    job: Job = pickle.load(incoming)
    torch.set_num_threads(job.threads)
    conditions = Conditions.of(device="cpu", time_budget=job.seconds_left, checkpoint_every=job.checkpoint_every,
                               progress=job.progress)

    def stop_at_the_end_of_input() -> None:
        os.read(incoming.fileno(), 1)  # and not the buffered reader, whose lock would be held when Python ends
        conditions.budget.stopped = True

    threading.Thread(target=stop_at_the_end_of_input, daemon=True).start()
    try:
        train_part(job, conditions)
    except Exception as error:
        tell("error", f"{type(error).__name__}: {error}")
        sys.exit(2)


def train_part(job: Job, conditions: Conditions) -> None:
    """Train a direction in its own folder."""
    folder = open_patiently(RunFolder(job.folder), job.header)
    work = Run(job.recipe, job.data, folder, conditions, until=job.until, opened=job.opened)
    try:
        with contextlib.suppress(Stopped), interruptible(conditions.budget):
            work.train_direction(job.direction)
    finally:
        folder.save_tables()
        folder.save()


class _Telling(logging.Handler):
    def __init__(self, tell: Any) -> None:
        super().__init__()
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self.tell("log", record.name, record.levelno, record.getMessage())
