"""Which number format a run computes in, on which hardware."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.learner import Learner
from fastai.text.models.awdlstm import WeightDropout

from .._errors import UlmfitError
from ..recipe.parts import PRECISIONS
from .fast.awd_lstm import FastWeightDropout, cudnn_has_bf16_lstm

GIVEN = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16"), "meta": ("fp32", "bf16")}
"""The types that a device computes in when they are asked for; elsewhere (mps) fp32 only."""


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX512_BF16 or AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: no cheap way to know, so the safe answer
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve(precision: str, device: torch.device) -> str:
    """'auto' made definite: bf16 where the hardware has it (CPU or GPU), fp16 on other GPUs, fp32 otherwise.

    A GPU needs an LSTM in bf16 too (`cudnn_has_bf16_lstm`): older ones are fp16 or fp32 only. fp16 comes with a scaled
    loss.

    On a CPU bf16 means the matrix products of LSTMs and decoder only (1.4 to 1.9 times the speed of fp32 on a CPU with
    AVX512_BF16); weights, softmax and losses stay fp32. Autocast, which casts more, is slower than fp32 there.

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


def precision_callbacks(precision: str, device: torch.device) -> list[Callback]:
    """fastai's mixed-precision callback for a GPU; nothing on the CPU and for fp32."""
    kind = resolve(precision, device)
    if device.type != "cuda" or kind == "fp32":
        return []
    return [MixedPrecision(amp_mode=AMPMode.BF16 if kind == "bf16" else AMPMode.FP16)]


def autocast_of(learn: Learner) -> AbstractContextManager:
    """What a Learner's model and loss run in while it trains: the autocast of its `MixedPrecision`, if it has one."""
    amp = next((cb for cb in learn.cbs if isinstance(cb, MixedPrecision)), None)
    if amp is None:
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16 if amp.amp_mode == AMPMode.BF16 else torch.float16)


@contextmanager
def computing_in(kind: str, model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Within it a model with fp32 weights predicts in this type, 'fp32', 'bf16' or 'fp16': on a GPU by autocast, on a
    CPU, which has bf16 only, in the LSTMs' matrix products.

    Raises:
        UlmfitError: the model has fastai's own LSTMs (`fast=False`), which compute in their weights' type on a CPU.
    """
    if kind == "fp32":
        yield
    elif device.type == "cuda":
        with torch.autocast("cuda", dtype=torch.bfloat16 if kind == "bf16" else torch.float16):
            yield
    else:
        lstms = [module for module in model.modules() if isinstance(module, WeightDropout)]
        ours = [module for module in lstms if isinstance(module, FastWeightDropout)]
        if len(ours) < len(lstms):
            raise UlmfitError("fastai's own layers (fast=False) compute in fp32 on a CPU", field="precision",
                              expected="fp32", found=kind, advice="give `precision='fp32'`")
        before = [module.dtype for module in ours]
        for module in ours:
            module.dtype = torch.bfloat16
        try:
            yield
        finally:
            for module, dtype in zip(ours, before, strict=True):
                module.dtype = dtype
