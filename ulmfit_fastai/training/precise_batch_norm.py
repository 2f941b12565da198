"""Batch norm's statistics of a text classifier from a whole sample of texts, as a fastai callback: beyond the paper.

    learn = text_classifier_learner(dls, AWD_LSTM, metrics=accuracy)
    learn.fit_one_cycle(4, 1e-2, cbs=PreciseBatchNorm())

The classifier's batches hold texts alike in length, and batch norm's running mean and variance are those of the last
twenty batches or so: what it predicts with depends on which lengths came last.

Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 3 (PreciseBN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.torch_core import no_random
from torch import Tensor, nn

from .._errors import UlmfitError
from ..model.autocast import autocast_of
from ..model.batch_norm import inputs_of, set_statistics

TEXTS = 4_000
"""Texts that are read for it where nothing else is said."""


class PreciseBatchNorm(Callback):
    """After each epoch of training, before it is validated, take batch norm's statistics from training texts.

    They are read as when predicting, without dropout; weights, gradients and random numbers stay as they are. What is
    frozen stays too.

    Args:
        texts: how many, drawn from the training batches (whole batches until there are as many); None: all.
        pooled: (model) -> what its head reads of some texts, (texts, features), instead of those of the Learner's
            training batches.

    Raises:
        UlmfitError: `texts` is below 2; or, when it trains, the model has no head as fastai's text classifiers have.

    Source: Wu & Johnson 2021, section 3.
    """

    order = 5  # before the epoch's sums are closed

    def __init__(self, texts: int | None = TEXTS, *, pooled: Callable[[nn.Module], np.ndarray] | None = None) -> None:
        if texts is not None and texts < 2:
            raise UlmfitError(f"texts: expected at least 2, or None for all, found {texts}", field="texts",
                              found=texts)
        self.texts, self.pooled = texts, pooled

    def before_fit(self) -> None:
        """Refuse a model without such a head before anything is trained."""
        head_of(self.learn.model)

    def after_train(self) -> None:
        """Put the statistics in place of the running ones."""
        model = self.learn.model
        layers = head_of(model)
        modes = [(module, module.training) for module in model.modules()]
        try:
            with autocast_of(self.learn):
                rows = torch.from_numpy(self.pooled(model)) if self.pooled is not None else self._read(layers)
            set_statistics(layers, rows.to(next(layers.parameters())))
        finally:
            for module, mode in modes:
                module.training = mode

    @torch.no_grad()
    def _read(self, layers: nn.Sequential) -> Tensor:
        """What the head reads of texts from the training batches."""
        model, loader, count = self.learn.model.eval(), self.learn.dls.train, 0
        with no_random(reproducible=False), order_kept(loader), inputs_of(layers) as read:
            for batch in loader:
                model(*batch[: self.learn.dls.n_inp])
                count += len(read[-1])
                if self.texts is not None and count >= self.texts:
                    break
        return torch.cat([part.float() for part in read]) if read else torch.empty(0)


@contextmanager
def order_kept(loader: Any) -> Iterator[None]:
    """Within it a loader can be read once more: its next epoch is the one that it would have been."""
    rng = getattr(loader, "rng", None)
    state = None if rng is None else rng.getstate()
    try:
        yield
    finally:
        if rng is not None:
            rng.setstate(state)
            loader.rng = rng


def head_of(model: Any) -> nn.Sequential:
    """The layers of a classifier that come after pooling.

    Raises:
        UlmfitError: it has none where fastai's text classifiers have them.
    """
    model = getattr(model, "module", model)
    layers = getattr(model[1], "layers", None) if isinstance(model, nn.Sequential) and len(model) > 1 else None
    if not isinstance(layers, nn.Sequential):
        raise UlmfitError("expected a text classifier as fastai builds it, whose second part has `layers`, found "
                          f"{type(model).__name__}", field="model", found=type(model).__name__,
                          advice="leave `PreciseBatchNorm` out")
    return layers
