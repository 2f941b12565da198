"""How several processes train one model: a part of every batch each, one gradient for all, by fastai callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.awdlstm import WeightDropout
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .._errors import UlmfitError
from ..batches.loader import TokenLoader
from ..model.batch_norm import SharedBatchNorm
from ..model.fast.awd_lstm import FastWeightDropout
from ..model.fast.draws import draw_alone, draw_in_common
from .adversarial import AdversarialTraining
from .callbacks import Position, derived_seed
from .processes import Alone, Several


@contextmanager
def together(learn: Learner, group: Alone, position: Position, seed_of: Callable[[int], int]
             ) -> Iterator[list[Callback]]:
    """The callbacks for a stage that the processes train together, with what they need in its place; alone: none.

    The numbers are those of one process, but for the dropouts of single rows, which each process draws for its own.
    """
    if not isinstance(group, Several):
        yield []
        return
    _refuse(learn, group)
    for loader in learn.dls.loaders:
        loader.share = group.rank, group.world
    SharedBatchNorm.put_in(learn.model, group.add)
    try:
        with group.kept():
            # Anew for every stage: what is frozen is left out.
            wrapped = DistributedDataParallel(learn.model)
            yield [ThroughDDP(wrapped), BackToTheModel(), Weighted(group.world), Seeds(group.rank, position, seed_of)]
    finally:
        draw_alone()
        SharedBatchNorm.take_out(learn.model)
        for loader in learn.dls.loaders:
            loader.share = TokenLoader.share


def _refuse(learn: Learner, group: Several) -> None:
    if any(isinstance(m, WeightDropout) and not isinstance(m, FastWeightDropout) for m in learn.model.modules()):
        raise UlmfitError("fastai's own layers (fast=False) train in one process only; take fast=True", field="fast")
    if learn._grab_cbs(AdversarialTraining):
        raise UlmfitError("adversarial training runs in one process only; start one, or leave it out",
                          field="adversarial")
    if learn.dls.train.bs < group.world:
        raise UlmfitError(f"batches of {learn.dls.train.bs} rows can't be dealt out to {group.world} processes; start "
                          "fewer, or give larger batches (bs)", field="bs")


class ThroughDDP(Callback):
    """Sends a training batch through DDP, which averages the gradients; `learn.model` is the model itself but then."""

    order = 1000  # after all others, which look at the model

    def __init__(self, wrapped: nn.Module) -> None:
        self.wrapped = wrapped

    def before_batch(self) -> None:
        if self.learn.training:
            self.learn.model = self.wrapped


class BackToTheModel(Callback):
    """Takes `ThroughDDP` back."""

    order = -1000  # before all others

    def after_pred(self) -> None:
        if isinstance(self.learn.model, DistributedDataParallel):
            self.learn.model = self.learn.model.module


class Weighted(Callback):
    """Weighs the loss of a process's part of a batch, so that the mean over processes is the mean over the batch."""

    order = 0  # before AR and TAR are added, and before the loss is counted

    def __init__(self, world: int) -> None:
        self.world = world

    def after_loss(self) -> None:
        """Where classes have weights, a mean is one over weights: let it count as one over texts."""
        by_class = getattr(getattr(self.learn.loss_func, "func", None), "weight", None)
        if by_class is None or not isinstance(self.learn.loss_func, CrossEntropyLossFlat):
            return
        targets = self.learn.dl.dataset.targets[self.learn.dl.batch].to(by_class.device)
        factor = by_class[self.learn.yb[0]].mean() / by_class[targets].mean()
        self.learn.loss_grad = self.learn.loss_grad * factor
        self.learn.loss = self.learn.loss * factor

    def before_backward(self) -> None:
        self.learn.loss_grad = self.learn.loss_grad * (self.world * len(self.learn.xb[0])
                                                       / self.learn.dls.train.rows_of_batch)


class Seeds(Callback):
    """Seeds every training step: alike in all processes for what is drawn for a batch, apart for the rows of each.

    So a checkpoint holds no state of random numbers, and any number of processes goes on from it.
    """

    order = 75  # after ResumeEpoch, which seeds an epoch and puts random states back

    def __init__(self, rank: int, position: Position, seed_of: Callable[[int], int]) -> None:
        self.rank, self.position, self.seed_of = rank, position, seed_of

    def before_batch(self) -> None:
        if self.learn.training:
            step = self.seed_of(self.learn.epoch), self.position.batch
            draw_in_common(derived_seed(*step), self.learn.dls.device)
            torch.manual_seed(derived_seed(*step, "process", self.rank))
