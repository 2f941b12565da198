"""What fastai's Recorder saw of a phase, step by step, as a run folder keeps it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from .._files import atomic_file, disk_full_is_said

log = logging.getLogger(__name__)


def record_file(folder: Path, phase: str, direction: str) -> Path:
    """Where a run folder keeps what was recorded of a finished phase."""
    return folder / "state" / f"recorder_{phase}_{direction}.npz"


def save_record(path: Path, state: dict[str, Any]) -> None:
    """Write what a Recorder recorded, whole or not at all."""
    values = np.array(state["values"], dtype=np.float64)  # None, where there is no such number, becomes NaN
    with disk_full_is_said(path), atomic_file(path) as file:
        np.savez_compressed(file, losses=np.float32(state["losses"]), lrs=np.float64(state["lrs"]),
                            moms=np.float64(state["moms"]), iters=np.int64(state["iters"]), values=values,
                            names=np.array(state["names"], dtype=str))


def read_record(path: Path) -> dict[str, Any] | None:
    """What `save_record` wrote; None where it isn't there or can't be read: no number depends on it."""
    if not path.exists():
        return None
    try:
        with np.load(path) as found:
            return {name: found[name].tolist() for name in ("losses", "lrs", "moms", "iters", "values", "names")}
    except Exception as error:  # numpy raises many types for a damaged file
        log.warning("%s can't be read (%s): the Recorder stays empty", path, error)
        return None
