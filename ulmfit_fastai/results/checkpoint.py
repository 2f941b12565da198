"""The checkpoint of a phase, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from .._errors import UlmfitError
from .._files import disk_full_is_said


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint to a temporary name and rename it; a reader sees the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with disk_full_is_said(path):
        try:
            with open(temporary, "wb") as handle:
                torch.save(state, handle)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


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
