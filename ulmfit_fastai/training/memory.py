"""When a device has too little memory for a batch: it is cut into parts, whose gradients add up to the batch's."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.learner import CancelBackwardException, CancelStepException, Learner
from torch import Tensor

from .._errors import UlmfitError
from ..batches.classifier import Reads
from ..model.learners import hidden_state, set_hidden_state, set_trainable
from ..recipe.parts import Phase
from ..results.checkpoint import random_state, set_random_state
from .estimate import forward_and_backward

log = logging.getLogger(__name__)

class OutOfMemory(UlmfitError):
    """A device that hasn't the memory for the smallest part of a batch."""


def may_run_out(device: torch.device) -> bool:
    """Whether a device says when its memory runs out; a CPU's system swaps, or ends the process."""
    return device.type != "cpu"


class SplitBatches:
    """Makes a Learner's training step in as many parts as the device has memory for, which is found by trying.

    With one part (the start) the step is fastai's own. Where memory runs out the step is made again in twice as many;
    nothing of the failed one is left. A part has every n-th row, and its loss counts by its share of the batch, so that
    the gradients are the whole batch's. Batch norm sees a part at a time, and dropout draws anew for each.

    Args:
        learn: its `_do_one_batch` is replaced.
        name: 'pretrain', 'lm' or 'classifier': what rows are.
        parts: to begin with, from an earlier session.
        tell: called with the number of parts when it changes.
    """

    def __init__(self, learn: Learner, name: str, *, parts: int = 1, tell: Callable[[int], None] = lambda parts: None):
        self.learn, self.name, self.parts, self.tell = learn, name, parts, tell
        self.classifies, self.fewest = name == "classifier", 2 if name == "classifier" else 1  # batch norm needs two
        self.whole_step, self.optimizer_step, self.stepping = learn._do_one_batch, learn._step, False
        learn._do_one_batch, learn._step = self.step, self._step

    def step(self) -> None:
        """One batch, in fastai's place.

        Raises:
            OutOfMemory: there is not enough memory for the smallest part.
        """
        learn = self.learn
        if not learn.training:
            self.whole_step()
            return
        xb, yb, hidden = learn.xb, learn.yb, [] if self.classifies else list(learn.model[0].hidden)
        while True:
            try:
                self.whole_step() if self.parts == 1 else self._in_parts()
                return
            except RuntimeError as error:
                failed = _lacks_memory(error)
                if failed is None or self.stepping:
                    raise
            learn.xb, learn.yb = xb, yb
            self._forget(hidden)
            self.halve(len(xb[0]), failed)

    def try_longest(self, phase: Phase) -> None:
        """Before hours of training: the first batch, which has the longest text, with all groups that will ever train.

        Nothing is changed by it but the number of parts, where memory runs out.
        """
        learn, model = self.learn, self.learn.model
        random, buffers = random_state(learn.dls.device), {k: v.clone() for k, v in model.named_buffers()}
        groups = {g for stage in phase.stages for g in stage.groups(len(learn.splitter(model)))}
        set_trainable(learn, tuple(sorted(groups)))
        loader = learn.dls.train
        loader.epoch, loader.start_batch = 0, 0
        x, y = next(iter(loader))
        moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]  # that the optimiser will want
        model.train()
        model.reset()
        failed: str | None = ""
        while failed is not None:
            n = self._parts_of(len(x))
            try:
                forward_and_backward(learn, rows_of(x, 0, n), y[::n])
                failed = None
            except RuntimeError as error:
                failed = _lacks_memory(error)
                if failed is None:
                    raise
            self._forget([])
            if failed is not None:
                self.halve(len(x), failed)
        del moments
        for key, buffer in model.named_buffers():
            buffer.copy_(buffers[key])
        set_random_state(random, learn.dls.device)

    def halve(self, rows: int, failed: str) -> None:
        """Twice as many parts, or OutOfMemory when a part of a batch of so many rows can't be halved."""
        what = "texts" if self.classifies else "streams of text"
        if rows // (2 * self.parts) < self.fewest:
            setting = "classifier.max_len" if self.classifies else f"{self.name}.bptt"
            raise OutOfMemory(
                f"{self.learn.dls.device} has too little memory even for {-(-rows // self.parts)} {what} at a time "
                f"({failed})", field=f"{self.name}.bs",
                advice=f"free it of other programs, or take a lower {setting}, a smaller model, precision 'fp16' or "
                       "another `device=`; what is finished stays")
        self.parts *= 2
        log.warning("%s has too little memory for a batch of %d %s: it is made in %d parts, to the same gradients",
                    self.learn.dls.device, rows, what, self.parts)
        self.tell(self.parts)

    def _parts_of(self, rows: int) -> int:
        return max(1, min(self.parts, rows // self.fewest))

    def _step(self) -> None:
        self.stepping = True  # half a step can't be made again
        self.optimizer_step()
        self.stepping = False

    def _forget(self, hidden: list[Any]) -> None:
        """Leave nothing of a step that failed."""
        learn = self.learn
        learn.pred = learn.loss = learn.loss_grad = None
        learn.part, learn.share = (0, 1), 1.0
        learn.rnn.raw_out = learn.rnn.out = None
        for amp in learn._grab_cbs(MixedPrecision):
            if torch.is_autocast_enabled("cuda"):  # an error leaves it on, for whatever is computed next
                amp.autocast.__exit__(None, None, None)
        learn.model.zero_grad(set_to_none=True)
        learn.model.reset()
        if hidden:
            set_hidden_state(learn, hidden)
        if learn.dls.device.type == "cuda":
            torch.cuda.empty_cache()

    def _in_parts(self) -> None:
        learn, (x,), yb = self.learn, self.learn.xb, self.learn.yb
        n = self._parts_of(len(x))
        before = [] if self.classifies else self._hidden_of(len(x))
        done: list[tuple[Tensor, Any, list[list[Tensor]]]] = []
        for part in range(n):
            learn.xb, learn.yb, learn.part = (rows_of(x, part, n),), tuple(y[part::n] for y in yb), (part, n)
            if before:
                set_hidden_state(learn, [[one[:, part::n] for one in layer] for layer in before])
            loss = self._backward(share_of(learn.loss_func, learn.yb[0], yb[0]))
            done.append((loss, learn.pred, [] if self.classifies else hidden_state(learn)))
        learn.xb, learn.yb, learn.part, learn.share = (x,), yb, (0, 1), 1.0
        learn.loss = torch.stack([loss for loss, _, _ in done]).sum()
        if self.classifies:
            learn.pred = dealt_back([pred.detach() for _, pred, _ in done])
        else:
            set_hidden_state(learn, [[dealt_back([state[layer][i] for _, _, state in done], dim=1) for i in (0, 1)]
                                     for layer in range(len(before))])
        learn._with_events(learn._step, "step", CancelStepException)
        learn.opt.zero_grad()

    def _hidden_of(self, rows: int) -> list[list[Tensor]]:
        if self.learn.model[0].bs != rows:  # as its forward does
            self.learn.model[0]._change_hidden(rows)
        return hidden_state(self.learn)

    def _backward(self, share: Tensor | float) -> Tensor:
        """Forward and backward of the part that is the Learner's batch now; its share of the batch's loss."""
        learn = self.learn
        for amp in learn._grab_cbs(MixedPrecision):
            if not torch.is_autocast_enabled("cuda"):  # it leaves it after the loss, before backward
                amp.autocast.__enter__()
        learn.pred = learn.model(*learn.xb)
        learn("after_pred")
        learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
        learn.loss = learn.loss_grad.clone()
        learn("after_loss")
        learn.loss_grad, learn.share = learn.loss_grad * share, share
        learn._with_events(learn._backward, "backward", CancelBackwardException)
        return learn.loss.detach() * share


def _lacks_memory(error: RuntimeError) -> str | None:
    """The first line of an error that says so, as CUDA, cuDNN, cuBLAS and mps word it; None for another error."""
    words = str(error).splitlines()[0] if str(error) else ""
    return words if "out of memory" in words.lower() or "ALLOC_FAILED" in words else None


def share_of(loss_func: Any, part: Tensor, whole: Tensor) -> Tensor | float:
    """What a part's mean loss counts in the batch's: by rows, or by the weights of its classes."""
    weight = getattr(getattr(loss_func, "func", loss_func), "weight", None)
    if weight is None or part.is_floating_point():
        return len(part) / len(whole)
    return weight[part.flatten()].sum() / weight[whole.flatten()].sum()


def rows_of(x: Tensor, part: int, parts: int) -> Tensor:
    """Every `parts`-th row of a batch, with what its encoder reads of it; chunks before its first text are cut off."""
    few = x[part::parts]
    reads: Reads | None = getattr(x, "reads", None)
    if reads is None:
        return few
    started = [max(0, -(-(n - part) // parts)) for n in reads.rows]
    empty = sum(n == 0 for n in started)
    few = few[:, empty * reads.bptt :]
    few.reads = Reads(reads.bptt, started[empty:], reads.end - empty * reads.bptt)  # type: ignore[attr-defined]
    return few


def dealt_back(parts: list[Tensor], dim: int = 0) -> Tensor:
    """The rows that `rows_of` dealt out, in their order."""
    rows, n = sum(part.shape[dim] for part in parts), len(parts)
    shape = list(parts[0].shape)
    shape[dim] = rows
    whole = parts[0].new_empty(shape)
    for number, part in enumerate(parts):
        whole[(slice(None),) * dim + (slice(number, None, n),)] = part
    return whole


def give_memory_back() -> None:
    """Return freed pages to the system: glibc keeps them, and an hour of CPU training then holds 13 GB for 16 MB."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            pass  # not glibc: nothing to trim
