"""Which number format a run computes in, on which hardware."""

from __future__ import annotations

from pathlib import Path

import torch

from .._errors import UlmfitError
from ..recipe.parts import PRECISIONS
from .devices import cudnn_has_bf16_lstm

GIVEN = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16"), "meta": ("fp32", "bf16")}
"""The types that a device computes in when they are asked for; elsewhere (mps) fp32 only."""


CPUINFO = Path("/proc/cpuinfo")


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices faster than fp32 ones: it has AMX, or is AMD's with AVX512_BF16.

    Intel's AVX512_BF16 alone multiplies no more numbers in a cycle than fp32 does, and bf16 has to be converted: there
    a step of the language model took 1.4 times as long (256/640/2, an Emerald Rapids whose AMX was hidden).
    """
    try:
        words = CPUINFO.read_text().split()
    except OSError:  # not Linux: no cheap way to know, so the safe answer
        return False
    return "amx_bf16" in words or ("avx512_bf16" in words and "AuthenticAMD" in words)


def resolve(precision: str, device: torch.device) -> str:
    """'auto' made definite: bf16 where the hardware is faster in it (CPU or GPU), fp16 on other GPUs, fp32 otherwise.

    A GPU needs an LSTM in bf16 too (`cudnn_has_bf16_lstm`): older ones are fp16 or fp32 only. fp16 comes with a scaled
    loss.

    On a CPU bf16 means the matrix products of LSTMs and decoder only (1.4 to 1.9 times the speed of fp32 on an AMD EPYC
    with AVX512_BF16); weights, softmax and losses stay fp32. Autocast, which casts more, is slower than fp32 there.

    Returns:
        'fp32', 'bf16' or 'fp16'.

    Raises:
        UlmfitError: `precision` is none of `PRECISIONS`, or the device computes in no such type: what is asked for by
            name is given or refused.
    """
    if precision not in PRECISIONS:
        raise UlmfitError(f"precision: expected one of {PRECISIONS}, found {precision!r}")
    if precision != "auto":
        given = GIVEN.get(device.type, ("fp32",))
        if precision not in given:
            raise UlmfitError(f"precision is {precision!r}, but on the device {device.type} this package computes in "
                              f"{' or '.join(given)} only", field="precision", expected=given, found=precision,
                              advice="give `precision='auto'`, or another `device=`")
        return precision
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False) and cudnn_has_bf16_lstm(device)
        return "bf16" if able else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def compute_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products on a CPU when bf16 is asked for; None leaves everything in fp32 (or to autocast)."""
    if device.type == "cpu" and resolve(precision, device) == "bf16":
        return torch.bfloat16
    return None
