"""The device that is meant by a name: one that this machine has, or words about why not; and what it can do."""

from __future__ import annotations

from functools import cache

import torch

from .._errors import UlmfitError

EXPECTED = "cpu, cuda, cuda:1 or mps"


def best_device() -> torch.device:
    """What fastai takes where nobody names a device, unless it was told otherwise; asked without importing fastai."""
    if torch.cuda.is_available():
        return torch.device(torch.cuda.current_device())
    return torch.device("mps", 0) if torch.backends.mps.is_available() else torch.device("cpu")


def named_device(given: str | torch.device | None) -> torch.device:
    """The device of a name that a user gave; None: the best there is. A `torch.device` is taken as it is.

    Raises:
        UlmfitError: there is no such device, or not here.
    """
    if given is None:
        from fastai.torch_core import default_device

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


@cache
def cudnn_has_bf16_lstm(device: torch.device) -> bool:
    """Whether this GPU's own library, and not torch's slow loop over the steps, trains an LSTM in bf16.

    cuDNN does since 9.13, in a torch that knows (pull request 164411 of October 2025).
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            x = torch.zeros(1, 1, 8, device=device, dtype=torch.bfloat16)
            weights = [torch.zeros(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
                       for shape in ((32, 8), (32, 8), (32,), (32,))]
            output = torch.lstm(x, (x, x), weights, True, 1, 0.0, True, False, False)[0]
            output.sum().backward()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return False
    return output.grad_fn is not None and output.grad_fn.name().startswith(("CudnnRnn", "MiopenRnn"))
