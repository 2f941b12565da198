"""fastai's Adam in one fused call: same arithmetic, same hyperparameters and state, frozen weights left alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from fastai.optimizer import (
    Optimizer,
    adam_step,
    average_grad,
    average_sqr_grad,
    l2_reg,
    step_stat,
    weight_decay,
)
from fastcore.foundation import L
from torch import Tensor, nn

FUSED_DEVICES = ("cpu", "cuda")
"""Where the fused kernel is known to give fastai's numbers; elsewhere fastai's own step is taken."""


class FusedAdam(Optimizer):
    """fastai's Adam whose step is one fused kernel call for each layer group instead of ten calls a parameter.

    It is a fastai Optimizer: `hypers` (lr, mom, sqr_mom, eps, wd) are scheduled as ever, `state` holds fastai's
    `grad_avg`, `sqr_avg`, `step` and `do_wd`, and its state dict and that of `fastai.optimizer.Adam` are each other's.

    What `freeze_to` froze, or whose `requires_grad` is False, is not touched: its gradient is dropped, so neither
    momentum nor decoupled weight decay moves it (in stock both do, on gradients that were zeroed but are still there).
    """

    def __init__(self, params: Any, *, decouple_wd: bool, fused: bool, **hypers: float):
        decay = weight_decay if decouple_wd else l2_reg
        steps = [decay, partial(average_grad, dampening=True), average_sqr_grad, step_stat, adam_step]
        super().__init__(params, steps, **hypers)
        self.decouple_wd, self.fused = decouple_wd, fused

    def freeze_to(self, n: int) -> None:
        """Freeze the groups before `n`, as fastai does, and drop their gradients."""
        super().freeze_to(n)
        self._drop_frozen_gradients()

    def zero_grad(self) -> None:
        """Drop all gradients, those of frozen parameters too."""
        for group in self.param_lists:
            for p in group:
                p.grad = None

    def _drop_frozen_gradients(self) -> None:
        for group in self.param_lists:
            for p in group:
                if not p.requires_grad:
                    p.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move what has a gradient: fused where the device can, otherwise by fastai's own steps."""
        self._drop_frozen_gradients()
        if not self.fused or self.param_lists[0][0].device.type not in FUSED_DEVICES:
            super().step(closure)
            return
        if closure is not None:
            raise NotImplementedError("fastai's optimizers do not support a closure")
        for group, hyper in zip(self.param_lists, self.hypers, strict=True):
            for (step, decays, _, _), params in self._alike(group).items():
                self._fused_step(params, step, hyper, hyper["wd"] if decays else 0.0)

    def _alike(self, group: Iterable[Tensor]) -> dict[tuple, list[Tensor]]:
        """The parameters of a group with a gradient, by what a kernel call must have in common."""
        alike: dict[tuple, list[Tensor]] = defaultdict(list)
        for p in group:
            if p.grad is None:
                continue
            state = self.state[p]
            if "step" not in state:
                state.update(grad_avg=torch.zeros_like(p), sqr_avg=torch.zeros_like(p), step=0)
            state["step"] += 1
            alike[state["step"], state.get("do_wd", True), p.device, p.dtype].append(p)
        return alike

    def _fused_step(self, params: list[Tensor], step: int, hyper: dict[str, float], wd: float) -> None:
        kernel = torch._fused_adamw_ if self.decouple_wd else torch._fused_adam_
        states = [self.state[p] for p in params]
        count = torch.full((), float(step), device=params[0].device)  # made on the device: nothing waits for it
        kernel(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["grad_avg"] for state in states],
            [state["sqr_avg"] for state in states],
            [],
            [count] * len(params),
            lr=hyper["lr"], beta1=hyper["mom"], beta2=hyper["sqr_mom"], weight_decay=wd, eps=hyper["eps"],
            amsgrad=False, maximize=False,
        )

    def load_state_dict(self, sd: dict[str, Any]) -> None:
        """Take over a state dict of this optimizer or of fastai's Adam; as in fastai, its tensors are not copied."""
        super().load_state_dict({"hypers": L(map(dict, sd["hypers"])), "state": list(map(dict, sd["state"]))})
        self.state: dict = defaultdict(dict, self.state)


def adam(
    params: Any,
    lr: float = 1e-3,
    mom: float = 0.9,
    sqr_mom: float = 0.99,
    eps: float = 1e-5,
    wd: float = 0.01,
    decouple_wd: bool = True,
    *,
    fused: bool = True,
) -> FusedAdam:
    """fastai's Adam, fused; give it (or a `partial` of it) to a Learner as `opt_func`.

    `params`: one list of parameters, or one list for each layer group. `decouple_wd`: weight decay beside Adam
    (p -= lr * wd * p) or, if False, L2 through the gradient. `fused=False` takes fastai's own step.
    """
    hypers = dict(lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
    return FusedAdam(params, decouple_wd=decouple_wd, fused=fused, **hypers)


def lstm_biases(model: nn.Module) -> list[nn.Parameter]:
    """The biases of all LSTMs: fastai means to leave biases out of weight decay, but misses these."""
    return [
        parameter
        for module in model.modules() if isinstance(module, nn.RNNBase)
        for name, parameter in module.named_parameters() if name.startswith("bias")
    ]


def skip_decay(opt: Optimizer, params: Iterable[nn.Parameter]) -> None:
    """Leave these parameters out of weight decay from now on (also after `clear_state`)."""
    for p in params:
        opt.state[p]["do_wd"] = False
