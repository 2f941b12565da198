"""The checkpoint of a phase, written whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from .._errors import UlmfitError
from .._files import atomic_file, disk_full_is_said


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all: a reader sees the old one or the new one, and a full disk is said."""
    with disk_full_is_said(path), atomic_file(path) as file:
        target = _Target(file)
        try:
            torch.save(state, cast(IO[bytes], target))
        except RuntimeError:
            if target.error is not None:
                raise target.error from None
            raise


class _Target:
    """What torch writes to: it keeps the disk's error, in whose place torch raises one about the end of its file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def random_state(device: torch.device) -> dict[str, Any]:
    """States of the random numbers that training on `device` draws from: the CPU's, and its own if it is another."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["device"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `random_state` gave, on this device or another: what that one lacks stays as it is.

    Checkpoints of the first version hold a state for each GPU of their machine under 'cuda'; this device's is taken.
    """
    torch.set_rng_state(state["cpu"].cpu())
    several = state.get("cuda") or []
    number = device.index or 0
    own = state.get("device", several[number] if number < len(several) else None)
    if own is None:
        return
    if device.type == "cuda":
        torch.cuda.set_rng_state(own.cpu(), device)
    elif device.type == "mps" and "device" in state:
        torch.mps.set_rng_state(own.cpu())


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None when there is none."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise UlmfitError(f"a {type(state).__name__}")
        return state
    except Exception as error:  # torch raises many types for a damaged file
        raise UlmfitError(
            f"{path}: expected a checkpoint, found a damaged file ({str(error)[:120]}); delete it and run again: the "
            "run goes on from the last finished phase"
        ) from error


def digest_of_array(values: np.ndarray) -> str:
    """16 hexadecimal digits of a hash of an array's numbers."""
    return hashlib.blake2b(np.ascontiguousarray(values, dtype=np.float64).tobytes(), digest_size=8).hexdigest()
