"""A few training steps of a Learner, timed and told apart: used for the language model and for the classifier."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from fastai.callback.core import Callback

from .measure import Record, synchronize

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


class Clock(Callback):
    """Wall seconds of all training batches of a fit, and the loss of each when asked for."""

    order = 200

    def __init__(self, device: torch.device, *, losses: bool = False) -> None:
        self.device, self.keep, self.seconds, self.losses = device, losses, 0.0, list[float]()

    def before_train(self) -> None:
        synchronize(self.device)
        self.started = time.perf_counter()

    def after_batch(self) -> None:
        if self.keep and self.learn.training:
            self.losses.append(float(self.learn.loss.detach()))

    def after_train(self) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self.started


def fit(learn: Any, device: torch.device, *, cbs: tuple[Callback, ...] = (), losses: bool = False) -> Clock:
    """Train on the Learner's batches once: forward, loss, AR and TAR, backward, optimiser, recorder, as a user does."""
    clock = Clock(device, losses=losses)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3, cbs=[clock, *cbs])
    return clock


def own_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """A clock for `alternate` that believes the function's own count."""
    return float(function())


def profile(function: Callable[[], Any], device: torch.device, *, most: int = 12) -> list[Record]:
    """Where the time goes: the operations with the largest share of their own time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with record(activities=activities) as recorded:
        function()
        synchronize(device)
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [(event.key, float(getattr(event, field)), event.count) for event in recorded.key_averages()]
    total = sum(spent for _, spent, _ in events) or 1.0
    return [{"operation": name, "share": spent / total, "ms": spent / 1000, "calls": calls}
            for name, spent, calls in sorted(events, key=lambda event: -event[1])[:most]]


def shares_of_peak(median: dict[str, float], operations: float, device: torch.device) -> dict[str, float]:
    """How near each side of a comparison comes to a large matrix product in its own number format.

    `median`: seconds of the sides, of which "ours bf16" computes in bf16 and those without a format in fp32;
    `operations`: of the matrix products of one repeat.
    """
    kinds = {side: side.rpartition(" ")[2] if side.rpartition(" ")[2] in FORMATS else "fp32" for side in median}
    peaks = {kind: matmul_peak(device, FORMATS[kind]) for kind in sorted(set(kinds.values()))}
    return {side: operations / seconds / peaks[kinds[side]] for side, seconds in median.items()}


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a large square matrix product: the most a step could reach."""
    a, b = ((10 * torch.randn(size, size, device=device)).to(dtype) for _ in range(2))
    product, best = torch._int_mm if dtype == torch.int8 else torch.matmul, float("inf")
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        product(a, b)
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
