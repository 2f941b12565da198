"""Batch norm: over a batch of which several processes have a part each, and with the statistics of a whole sample.

torch's `SyncBatchNorm` is for GPUs only; `SharedBatchNorm` gives the numbers of one process on a CPU too, where they
can be tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

Add = Callable[[Tensor], None]
"""Adds up a tensor over all processes, in place."""


class SharedBatchNorm(nn.BatchNorm1d):
    """torch's BatchNorm1d whose mean and variance are those of all processes' rows; same parameters, same state dict.

    Outside of training it is BatchNorm1d.
    """

    add: Add

    @classmethod
    def put_in(cls, model: nn.Module, add: Add) -> None:
        """Make every BatchNorm1d of a model one of these, with the parameters and statistics it has."""
        for module in model.modules():
            if type(module) is nn.BatchNorm1d:
                module.__class__ = cls
                cast(SharedBatchNorm, module).add = add

    @classmethod
    def take_out(cls, model: nn.Module) -> None:
        """Make them plain again."""
        for module in model.modules():
            if isinstance(module, cls):
                del module.add
                cast(nn.Module, module).__class__ = nn.BatchNorm1d

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each feature of the rows (rows, features)."""
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        count = x.new_tensor([float(len(x))])
        self.add(count)
        mean = _Total.apply(x.sum(0), self.add) / count
        centred = x - mean
        variance = _Total.apply(centred.pow(2).sum(0), self.add) / count
        self._remember(mean.detach(), variance.detach(), count)
        normal = centred * (variance + self.eps).rsqrt()
        return (normal * self.weight + self.bias if self.affine else normal).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), share)


class _Total(torch.autograd.Function):
    """The sum over all processes; what each has adds to the loss of all of them."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, add: Add) -> Tensor:
        ctx.add, total = add, part.clone()
        add(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        total = grad_outputs[0].clone()
        ctx.add(total)
        return total, None


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Within it the list gets what the module reads, call by call."""
    read: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    try:
        yield read
    finally:
        handle.remove()


@torch.no_grad()
def set_statistics(layers: nn.Sequential, rows: Tensor) -> None:
    """Give batch norm the mean and variance of these rows, through all the layers before it, without dropout.

    What is frozen, or keeps no running statistics, stays as it is.

    Args:
        layers: of a classifier's head; left in the mode in which they were.
        rows: what the first of them reads, (texts, features); with less than two there is nothing to be known.

    Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 3: PreciseBN, here over
        all rows at once.
    """
    if len(rows) < 2:
        return
    modes = [(module, module.training) for module in layers.modules()]
    try:
        _pass_on(layers.eval(), rows)
    finally:
        for module, mode in modes:
            module.training = mode


def _pass_on(layers: nn.Sequential, rows: Tensor) -> Tensor:
    """What the layers make of the rows, each batch norm by the statistics of those that it reads."""
    for module in layers:
        if isinstance(module, nn.Sequential):
            rows = _pass_on(module, rows)
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = module.weight is not None and not module.weight.requires_grad
            if module.running_mean is not None and module.running_var is not None and not frozen:
                variance, mean = torch.var_mean(rows.double(), 0)
                module.running_mean.copy_(mean)
                module.running_var.copy_(variance)
        rows = module(rows)
    return rows
