"""The processes of one run, each with a part of every batch: who they are, and what they tell each other.

`torchrun` and `accelerate launch` start them; Accelerate, the engine that fastai uses, brings them together. The first
leads: it alone writes into the run folder. The others work in a copy of it that nobody else sees, so that a run is the
same code in every process. One process alone is `ALONE`, for which nothing of this is imported.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import _processes
from .._errors import UlmfitError
from .._files import expanded

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: they may tokenise a large corpus. One that ended is noticed at once."""
SILENCE = 1.0
"""Seconds in which it shows whether the others can still be reached."""


class LostProcess(UlmfitError):
    """Another process of the run ended in the middle of it."""


class Alone:
    """One process, which has nobody to ask."""

    rank, world, leads = 0, 1, True

    def any(self, *flags: bool) -> list[bool]:
        """For each question, whether it is so in any process."""
        return list(flags)

    def total(self, *numbers: Any) -> list[Any]:
        """Each number, summed over the processes."""
        return list(numbers)

    def rows(self, part: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """The parts of a tensor that the processes have, joined in their order."""
        return part

    def same(self, **what: Any) -> None:
        """Refuse processes that were given different things, by name."""

    def place(self, out: str | Path) -> Path:
        """Where this process has the run folder: the leader at `out`, the others a copy of what is there."""
        return expanded(out)

    def dealt(self, rows: np.ndarray, outputs: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Outputs of rows, each computed in one process, in their order."""
        return outputs(rows)

    @contextmanager
    def first(self) -> Iterator[None]:
        """One process of a machine does this before the others, which find it done."""
        yield

    @contextmanager
    def kept(self) -> Iterator[None]:
        """An error in here that comes of the end of another process says so."""
        yield


ALONE = Alone()


class Several(Alone):
    """This process among several."""

    def __init__(self, device: torch.device | None) -> None:
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise UlmfitError("several processes need Accelerate, which is not installed: "
                              "pip install 'ulmfit-fastai[several]'") from error
        import torch.distributed as dist

        self.state = PartialState(cpu=device is not None and device.type == "cpu", timeout=PATIENCE)
        # Accelerate calls it cpu:0, which torch.load doesn't know.
        self.device = torch.device("cpu") if self.state.device.type == "cpu" else self.state.device
        if self.device.type not in ("cpu", "cuda"):
            raise UlmfitError(f"several processes train on a CPU or on CUDA's GPUs, found {self.device.type}",
                              field="device", found=self.device.type, advice="give `device='cpu'`")
        self.dist, self.rank, self.world = dist, self.state.process_index, self.state.num_processes
        self.leads = self.rank == 0
        # What is asked goes its own way, by the CPU, so that no question waits for a GPU, and none gets between the
        # gradients of DDP or the sums of batch norm, whose order must be the same everywhere.
        self.control = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.sums = dist.new_group(timeout=PATIENCE)
        self.lost = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._end)
        self.places: dict[Path, Path] = {}
        self.folders: list[tempfile.TemporaryDirectory] = []
        if not self.leads:
            logging.getLogger(__package__.partition(".")[0]).setLevel(logging.ERROR)

    def _end(self, *_: Any) -> None:
        """SIGTERM ends this process, as ever, unless it is about to say that another one ended.

        A launcher sends it as soon as one process has ended, when the others are just noticing that.
        """
        if not self.lost:
            raise SystemExit(128 + signal.SIGTERM)

    def any(self, *flags: bool) -> list[bool]:
        """For each question, whether it is so in any process."""
        asked = torch.tensor(flags, dtype=torch.int32)
        with self.kept():
            self.dist.all_reduce(asked, op=self.dist.ReduceOp.MAX, group=self.control)
        return [bool(answer) for answer in asked]

    def total(self, *numbers: Any) -> list[Any]:
        """Each number, summed over the processes, in float64."""
        with self.kept():
            summed = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
            self.dist.all_reduce(summed, group=self.control)
        return [type(n)(s) if isinstance(n, (int, float)) else s for n, s in zip(numbers, summed.tolist(), strict=True)]

    def add(self, part: torch.Tensor) -> None:
        """Add up a tensor over all processes, in place, on its device."""
        self.dist.all_reduce(part, group=self.sums)

    def rows(self, part: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """The parts of a tensor that the processes have, joined in their order."""
        return torch.cat([each.to(part.device) for each in self._all(part.cpu())], dim)

    def same(self, **what: Any) -> None:
        """Refuse processes that were given different things, by name."""
        every = self._all(what)
        for name, value in what.items():
            if any(each.get(name) != value for each in every):
                raise UlmfitError(f"expected {self.world} processes with one run, found different ones ({name}); start "
                                  "them with the same command")

    def _all(self, value: Any) -> list[Any]:
        every: list[Any] = [None] * self.world
        with self.kept():
            self.dist.all_gather_object(every, value, group=self.control)
        return every

    def _told(self, value: Any) -> Any:
        """What the leader has."""
        told = [value]
        with self.kept():
            self.dist.broadcast_object_list(told, src=0, group=self.control)
        return told[0]

    def place(self, out: str | Path) -> Path:
        """Where this process has the run folder: the leader at `out`, the others a copy of what is there.

        A machine need not see the disk of another.
        """
        out = expanded(out)
        if out in self.places.values():
            return out
        if out not in self.places:
            self.places[out] = out if self.leads else self._hidden() / "run"
        place = self.places[out]
        if not self.leads:
            shutil.rmtree(place, ignore_errors=True)
        names = sorted(path.relative_to(out) for path in [*out.glob("*"), *out.glob("state/*")] if _of_a_run(path)
                       ) if self.leads and (out / "run.json").exists() else []
        for name in self._told(names):
            content = self._told((out / name).read_bytes() if self.leads else None)
            if not self.leads:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        return place

    def _hidden(self) -> Path:
        self.folders.append(tempfile.TemporaryDirectory(prefix=f"ulmfit-process{self.rank}-",
                                                        ignore_cleanup_errors=True))
        return Path(self.folders[-1].name)

    def dealt(self, rows: np.ndarray, outputs: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Outputs of rows, each computed in one process, in their order."""
        if len(rows) < self.world:
            return outputs(rows)
        parts = self._all(outputs(rows[self.rank::self.world]))
        out = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        for rank, part in enumerate(parts):
            out[rank::self.world] = part
        return out

    @contextmanager
    def first(self) -> Iterator[None]:
        """One process of a machine does this before the others, which find it done."""
        leads = self.state.is_local_main_process
        if not leads:
            self.any()
        try:
            yield
        finally:  # what fails in one fails in all: each says it itself
            if leads:
                self.any()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """An error in here that comes of the end of another process says so.

        Raises:
            LostProcess: the others can't be reached any more.
        """
        try:
            yield
        except RuntimeError as error:
            if not self._others_are_lost():
                raise
            self.lost = True
            raise LostProcess(f"one of the {self.world} processes ended, so the others did too; what it had is in the "
                              "last checkpoint, and the same command goes on from there") from error

    def _others_are_lost(self) -> bool:
        """Whether a question fails at once; if the others are there, they don't know of it and it stays open."""
        try:
            asked = self.dist.all_reduce(torch.zeros(1), group=self.control, async_op=True)
            until = time.monotonic() + SILENCE
            while not asked.is_completed():
                if time.monotonic() > until:
                    return False
                time.sleep(0.02)
            asked.wait()
        except RuntimeError:
            return True
        return False

    def speaks(self) -> bool:
        """Whether this process is the first that has an error to report."""
        try:
            store = self.dist.distributed_c10d._get_default_store()
            return store.compare_set("ulmfit/failed", "", str(self.rank)) == str(self.rank).encode()
        except (RuntimeError, ValueError):  # what the store was in has ended too
            return True


def _of_a_run(path: Path) -> bool:
    return path.is_file() and path.name != "lock" and not path.name.startswith(".")


_joined: list[Several] = []


def processes() -> Alone:
    """The processes that this one has joined, or `ALONE`."""
    return _joined[0] if _joined else ALONE


def join(device: str | torch.device | None = None) -> Alone:
    """Join the other processes of this run, if a launcher started several.

    Args:
        device: 'cpu', 'cuda'; None: a GPU for each process where there are any.

    Raises:
        UlmfitError: Accelerate isn't installed, or the device is none that several processes train on.
    """
    if _joined or not _processes.several():
        return processes()
    wanted = None if device is None else torch.device(device)
    if wanted is not None and (wanted.type not in ("cpu", "cuda") or wanted.index is not None):
        raise UlmfitError(f"several processes take a GPU each, or the CPU, found the device {device}", field="device",
                          found=str(device), advice="give `device='cpu'` or `device='cuda'`, or start one process")
    _joined.append(Several(wanted))
    return processes()


def refuse_several(what: str) -> None:
    """UlmfitError where several processes would do at once what one has to do alone."""
    if _processes.several():
        raise UlmfitError(f"{what}: expected one process, found {os.environ['WORLD_SIZE']}; several train one run "
                          "together, and do nothing else")


def speaks() -> bool:
    """Whether this process is the one that reports its error."""
    if _joined:
        return _joined[0].speaks()
    return _processes.leads()
