"""The device that is meant by a name: one that this machine has, or words about why not."""

from __future__ import annotations

import torch
from fastai.torch_core import default_device

from .._errors import UlmfitError

EXPECTED = "cpu, cuda, cuda:1 or mps"


def named_device(given: str | torch.device | None) -> torch.device:
    """The device of a name that a user gave; None: the best there is. A `torch.device` is taken as it is.

    Raises:
        UlmfitError: there is no such device, or not here.
    """
    if given is None:
        return default_device()
    if isinstance(given, torch.device):
        return given
    try:
        device = torch.device(given) if isinstance(given, str) else None
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UlmfitError(f"device is {given!r}; expected {EXPECTED}", field="device", expected=EXPECTED, found=given,
                          advice="give another `device=`, or none for the best there is")
    why = _lacking(device)
    if why:
        raise UlmfitError(f"device is {given!r}, but {why}", field="device", found=given,
                          advice="give another `device=`, or none for the best there is")
    return device


def _lacking(device: torch.device) -> str:
    """Why this machine can't compute there; nothing where it can."""
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return "torch finds no CUDA on this machine (`ulmfit-fastai doctor` says more)"
        return "" if (device.index or 0) < count else f"this machine has the GPUs 0 to {count - 1}"
    if device.type == "mps":
        return "" if torch.backends.mps.is_available() else "torch finds no MPS on this machine"
    return "" if not device.index else "this machine has one CPU device, cpu"
