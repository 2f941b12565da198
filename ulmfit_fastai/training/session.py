"""A session of a run: on what it trains and for how long, what run.json says of it, and how it stops in good order."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback

from .._errors import UlmfitError
from .._words import duration
from ..model.devices import named_device
from ..results.environment import describe_device, now, versions
from ..results.folder import RunFolder
from .beside import as_callbacks
from .callbacks import Budget
from .processes import Several, join, processes

log = logging.getLogger(__name__)

_training = threading.RLock()
"""Held by the thread that trains: torch draws random numbers from one state for the whole process, and two trainings
at once would take them from each other."""
if hasattr(os, "register_at_fork"):  # a child of a process that trains has no thread that would give it back
    os.register_at_fork(after_in_child=lambda: globals().update(_training=threading.RLock()))


class Stopped(Exception):
    """The time ended, or the work was interrupted, with everything so far kept: the same call goes on with it."""


@dataclass(frozen=True)
class Conditions:
    """On what a run trains, for how long, and what is seen of it; but for the device, and what callbacks do, no number
    depends on these."""

    device: torch.device
    budget: Budget = field(default_factory=Budget)
    progress: bool = False
    cache: Path | None = None
    """Where tokens are kept; None: the user's cache."""
    started: float = field(default_factory=time.monotonic)
    """When the call began, in seconds of `time.monotonic`: tokenising counts too."""
    parallel: bool | None = None
    """Whether both directions train at once, in two processes; None: where that is faster."""
    cbs: tuple[Callback, ...] = ()
    """The user's callbacks, which run beside ours in every stage of every phase."""

    @classmethod
    def of(cls, *, device: str | torch.device | None = None, time_budget: float | None = None,
           checkpoint_every: float = 300.0, progress: bool = True, cache: Path | None = None,
           parallel: bool | None = None, cbs: Any = None) -> Conditions:
        """From what a user says: a device by name (None: the best there is), seconds to stop after and to save after,
        callbacks.
        """
        started, callbacks = time.monotonic(), as_callbacks(cbs)
        budget = Budget(started + time_budget if time_budget is not None else None, checkpoint_every)
        group = join(device)
        if isinstance(group, Several):
            return cls(group.device, budget, progress and group.leads, cache, started, False, callbacks)
        if callbacks and parallel:
            raise UlmfitError("callbacks see one training, in this process: found both directions at once asked for",
                              field="cbs", advice="leave out `parallel=`, or the callbacks")
        parallel = False if callbacks else parallel
        return cls(named_device(device), budget, progress, cache, started, parallel, callbacks)


@contextmanager
def alone() -> Iterator[float]:
    """Train within it, one thread of this process at a time; gives the seconds that it waited for another one."""
    started, lock = time.monotonic(), _training
    if not lock.acquire(blocking=False):
        log.warning("another training is at work in this process; this one waits for its end")
        lock.acquire()
    try:
        yield time.monotonic() - started
    finally:
        lock.release()


@contextmanager
def session(folder: RunFolder, conditions: Conditions) -> Iterator[None]:
    """Train within it, and run.json says when, on what and how long; the status is 'stopped' however it is left early.

    `Stopped` ends here. Any other error, and Ctrl-C, go on to the caller; the same command goes on from the checkpoint.
    Who comes to the end says 'finished' himself.
    """
    device = describe_device(conditions.device)
    record: dict[str, Any] = {"started": now(), "device": device, "versions": versions()}
    if processes().world > 1:
        record["processes"] = processes().world
    folder.run["status"] = "running"
    folder.run["sessions"].append(record)
    folder.save()
    try:
        with alone() as waited, interruptible(conditions.budget):
            conditions.budget.wait(waited)
            yield
    except Stopped:
        folder.run["status"] = "stopped"
        log.warning("stopped in good order after %s; run the same command again to go on",
                    duration(time.monotonic() - conditions.started))
    except BaseException:
        folder.run["status"] = "stopped"
        raise
    finally:
        record["seconds"] = round(time.monotonic() - conditions.started, 1)
        folder.save()


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
