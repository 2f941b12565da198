"""How things are measured: sides take turns, every repeat is kept, ratios are made pair by pair."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Record = dict[str, Any]


class NotTheSame(ValueError):
    """Stock and ours gave different numbers, so their times mean nothing."""


def expect(condition: bool, what: str) -> None:
    """Raise `NotTheSame` unless the condition holds: a comparison of unequal things is none."""
    if not condition:
        raise NotTheSame(f"stock and ours differ: {what}")


def close(stock: torch.Tensor, ours: torch.Tensor, what: str, *, tolerance: float) -> float:
    """The largest difference of two tensors, refused above `tolerance` times the spread of stock's numbers."""
    expect(stock.shape == ours.shape, f"{what}: shapes {tuple(stock.shape)} and {tuple(ours.shape)}")
    difference = float((stock.double() - ours.double()).abs().max())
    scale = float(stock.double().std()) if stock.numel() > 1 else float(stock.double().abs().max())
    expect(difference <= tolerance * scale, f"{what}: {difference:.3g} apart, spread {scale:.3g}")
    return difference / scale


def within(difference: float) -> str:
    """A largest difference in words."""
    return f"within {difference:.0e}" if difference else "identical to the last bit"


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, so that a clock reads what was done and not what was asked for."""
    if device.type == "cuda":
        import torch  # late: a process that only tokenises has no torch, and is measured without it

        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Wall seconds of one call."""
    synchronize(device)
    started = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - started


def alternate(sides: dict[str, Callable[[], Any]], *, repeats: int, device: torch.device, warm: bool = True,
              clock: Callable[[Callable[[], Any], torch.device], float] = seconds) -> dict[str, list[float]]:
    """Seconds of every side in turn, A B A B ..., after one untimed round (`warm`); the order turns round each time.

    `clock` says how long a side took: by default the wall seconds of calling it.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    gc.collect()
    gc.freeze()  # what is there stays: so the collection before each turn is short
    if warm:
        for function in sides.values():
            clock(function, device)
    for repeat in range(repeats):
        order = list(sides) if repeat % 2 == 0 else list(reversed(sides))
        for name in order:
            gc.collect()
            times[name].append(clock(sides[name], device))
    gc.unfreeze()
    return times


def row(name: str, measured: Mapping[str, list[float]], *, base: str = "stock",
        target: Mapping[str, float] | None = None, work: float | None = None, unit: str = "s", check: str = "",
        **more: Any) -> Record:
    """A line of the table: what each side took, and how many times less than `base` took in the same repeat.

    `target`: side -> the ratio wanted. `work`: units of work of a repeat (documents, tokens), for a rate. `unit` of
    the measured numbers: 's' or 'MB'. `check`: how it was seen that the sides give the same numbers.
    """
    ratios: dict[str, Record] = {}
    for side, values in measured.items():
        if side == base or base not in measured:
            continue
        each = [b / max(v, 1e-9) for b, v in zip(measured[base], values, strict=True)]
        ratios[side] = {"median": median(each), "low": min(each), "high": max(each), "repeats": len(each),
                        "target": (target or {}).get(side)}
        if ratios[side]["target"] is not None:
            ratios[side]["reached"] = ratios[side]["median"] >= ratios[side]["target"]
    record: Record = {"name": name, "unit": unit, "base": base, "measured": {s: list(v) for s, v in measured.items()},
                      "median": {side: median(values) for side, values in measured.items()}, "ratios": ratios,
                      "check": check, **more}
    if work is not None:
        record["work"], record["rate"] = work, {s: work / v for s, v in record["median"].items()}
    return record


# -- memory ---------------------------------------------------------------------------------------------------------
def _status(field: str, pid: int | str = "self", file: str = "status") -> float:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0.0)


def memory_now() -> float:
    """MB of this process in RAM; 0 where there is no /proc."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let the high-water mark start again from what is in RAM now (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # then the mark stands since the start of the process


def peak_memory() -> float:
    """The high-water mark of this process's RAM in MB."""
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if os.uname().sysname == "Darwin" else peak / 2**10


class TreePeak:
    """The peak of this process's and its children's memory together (MB), read every `interval` seconds.

    Shared pages count once (PSS), so a forked child is not taken for a second copy of its parent.
    """

    def __init__(self, interval: float = 0.1) -> None:
        self.interval, self.peak = interval, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreePeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._read()

    def _read(self) -> None:
        family = family_of(os.getpid())
        total = sum(_status("Pss", pid, "smaps_rollup") for pid in family)
        self.peak = max(self.peak, total or peak_memory())


def family_of(pid: int) -> set[int]:
    """A process and all that came from it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*") if Path("/proc").is_dir() else ():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    family, grown = {pid}, True
    while grown:
        children = {child for child, parent in parents.items() if parent in family} - family
        family, grown = family | children, bool(children)
    return family
