"""How much each text counts in a classifier's loss."""

from __future__ import annotations

import numpy as np
import torch
from fastai.callback.core import Callback


class SampleWeights(Callback):
    """Weighs every text's loss in training, so that a text of weight 2 counts as two texts of weight 1.

    Args:
        weights: of the training loader's texts, (texts,); they are divided by their mean.
    """

    order = -1  # before AR and TAR are added, and before the loss is counted

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = torch.from_numpy(weights / weights.mean()).float()

    def after_loss(self) -> None:
        if not self.learn.training:
            return
        (number, of), (part, parts) = self.learn.dl.share, getattr(self.learn, "part", (0, 1))
        chosen = torch.from_numpy(np.asarray(self.learn.dl.batch)[number::of][part::parts].copy())
        with self.learn.loss_not_reduced():
            each = self.learn.loss_func(self.learn.pred, *self.learn.yb)
        each = each.view(len(chosen), -1).mean(1)
        by_class = getattr(getattr(self.learn.loss_func, "func", None), "weight", None)
        mean = 1.0 if by_class is None else by_class[self.learn.yb[0]].mean()  # as the loss without weights has it
        self.learn.loss_grad = (each * self.weights[chosen].to(each.device)).mean() / mean
        self.learn.loss = self.learn.loss_grad.clone()
