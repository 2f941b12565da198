"""A few training steps of a Learner, timed and told apart: used for the language model and for the classifier."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from fastai.callback.core import Callback

from .measure import Record, synchronize


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


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations a second of a large square matrix product: the most a step could reach."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
