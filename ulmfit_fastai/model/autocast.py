"""The number format of a run (precision.py) put to work: fastai's mixed precision, autocast, our LSTMs' own type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.learner import Learner
from fastai.text.models.awdlstm import WeightDropout

from .._errors import UlmfitError
from .fast.awd_lstm import FastWeightDropout
from .precision import resolve


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
