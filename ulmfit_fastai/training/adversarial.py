"""Adversarial and virtual adversarial training of a text classifier, as a fastai callback: beyond the paper.

    learn = text_classifier_learner(dls, AWD_LSTM, metrics=accuracy)
    learn.fit_one_cycle(4, 1e-2, cbs=AdversarialTraining(epsilon=5))

Each text is learnt a second time with its embeddings shifted to where its loss rises most. Virtually: to where the
model's answer changes most, for which a text needs no label.

Source: Miyato, Dai & Goodfellow, "Adversarial Training Methods for Semi-Supervised Text Classification", ICLR 2017
(arXiv 1605.07725).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.rnn import RNNCallback, RNNRegularizer
from fastai.callback.training import GradientAccumulation
from fastai.data.load import DataLoader
from fastai.torch_core import to_float
from torch import Tensor, nn

from .._errors import UlmfitError
from ..batches.loader import TokenLoader
from ..model.autocast import autocast_of
from ..recipe.parts import Adversarial
from .memory import rows_of
from .perturbed import Perturbed, Shifts, deviation, embedding_of, held_still, of_norm, weight_of, word_counts
from .sample_weights import SampleWeights


class AdversarialTraining(Callback):
    """Trains a text classifier on shifted embeddings too, in every training batch in which no layer is frozen.

    The shift of a text is over all its words, and its norm is counted in standard deviations of the embeddings'
    components over the training texts' words: as if the embeddings were normalised, without changing what a pretrained
    model reads. It is taken with the dropouts of the ordinary pass. Where an encoder reads a long text in chunks and
    gives gradients to the last of them only (BPT3C), those are what is shifted.

    Counted in passes, a batch is twice the work (adversarial), three times (virtual, with as many unlabelled texts) or
    four times (both); `python -m benchmarks.adversarial cost` measures it.

    Args:
        epsilon: norm of a text's shift, in standard deviations; Miyato et al. took 5 on IMDb.
        weight: of the adversarial loss, which is added to the ordinary one; 0: none. AR and TAR, if there are any, are
            taken from the shifted pass then, so that they have no part in the direction.
        virtual_weight: of the virtual adversarial loss; 0: none.
        unlabelled: batches of texts for the virtual loss, (x,) or (x, y), where y is not read; they should have all
            texts at hand, those with a label too. None: the batch that is being learnt.
        finite_difference: norm of the random shift from which the virtual direction is found.
        embedding: the module of the model that embeds words; None: fastai's `EmbeddingDropout`, or the only
            `nn.Embedding`.
        pad_idx: the number of padding.

    Raises:
        UlmfitError: a number is out of range; or, when it trains, the model has no embedding, or several.

    Source: Miyato, Dai & Goodfellow 2017, equations 1 to 7, with one power iteration.
    """

    order = 90  # after whatever seeds a batch or puts random numbers back
    run_valid = False

    def __init__(self, epsilon: float = 5.0, *, weight: float = 1.0, virtual_weight: float = 0.0,
                 unlabelled: DataLoader | None = None, finite_difference: float = 0.1,
                 embedding: nn.Module | None = None, pad_idx: int = 1) -> None:
        self.asked = Adversarial(weight=weight, virtual_weight=virtual_weight, epsilon=epsilon,
                                 finite_difference=finite_difference)
        self.unlabelled, self.embedding, self.pad_idx = unlabelled, embedding, pad_idx
        self.at_work = False

    def before_fit(self) -> None:
        """Find the embeddings, and count the words that are trained on."""
        model, dls = self.learn.model, self.learn.dls
        self.perturbed = Perturbed(model, self.embedding or embedding_of(model), self.pad_idx)
        weight = weight_of(self.perturbed.embedding)
        sets = [dls.train.dataset, *([self.unlabelled.dataset] if self.unlabelled is not None else [])]
        self.counts = word_counts(sets, len(weight)).to(weight.device)
        self.endless = None if self.unlabelled is None else Endless(self.unlabelled)
        self.kind = getattr(self.learn.loss_func, "func", self.learn.loss_func)

    def before_batch(self) -> None:
        """Begin to listen, unless a part of the model is frozen."""
        self.at_work = self.asked.is_on and all(p.requires_grad for p in self.learn.model.parameters())
        if not self.at_work:
            return
        self.perturbed.listen()
        self.deviation = deviation(weight_of(self.perturbed.embedding).detach(), self.counts)
        if self.endless is not None and self.asked.virtual_weight:
            self.more = self.endless.batch(self.learn.epoch * len(self.learn.dls.train) + self.learn.iter)
        self.penalties = [cb for cb in self.learn.cbs if isinstance(cb, RNNRegularizer) and cb.run]
        if self.asked.weight:
            for cb in self.penalties:
                cb.run = False

    def after_backward(self) -> None:
        """Add the gradients of the other losses."""
        if not self.at_work:
            return
        kept = self.learn.pred, self.learn.loss, self.learn.loss_grad
        share = getattr(self.learn, "share", 1.0)  # of the batch, where it is trained in parts
        try:
            if self.asked.weight:
                self._adversarial_loss(of_norm(self.perturbed.gradients(self.deviation), self.asked.epsilon))
                self._backward(self.learn.loss_grad * share)
            if self.asked.virtual_weight:
                self._backward(self.asked.virtual_weight * share * self._virtual_loss(kept[0].detach()))
        finally:
            self.learn.pred, self.learn.loss, self.learn.loss_grad = kept

    def after_batch(self) -> None:
        """Leave the Learner as it was."""
        if self.at_work:
            self.at_work = False
            self.perturbed.stop()
            for cb in self.penalties:
                cb.run = True

    def after_fit(self) -> None:
        """Leave the model as it was."""
        self.perturbed.stop()
        self.endless = None

    def _backward(self, loss: Tensor) -> None:
        scaler = getattr(self.learn, "scaler", None)
        (loss if scaler is None else scaler.scale(loss)).backward()

    def _outputs(self, xb: tuple[Tensor, ...], shift: Shifts) -> Any:
        """What the model makes of the texts it has just read, shifted."""
        with self.perturbed.shifted(shift, self.deviation), autocast_of(self.learn):
            return self.learn.model(*xb)

    def _adversarial_loss(self, shift: Shifts) -> None:
        """Leave the loss of the shifted batch, its weights and penalties, in `learn.loss_grad`."""
        learn = self.learn
        learn.pred = self._outputs(learn.xb, shift)
        others = [cb for cb in learn.cbs.sorted("order") if isinstance(cb, (RNNCallback, SampleWeights))]
        for cb in others:
            cb("after_pred")
        learn.pred = to_float(learn.pred[0] if isinstance(learn.pred, tuple) else learn.pred)
        learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
        learn.loss = learn.loss_grad.clone()
        for cb in others:
            cb("after_loss")
        learn.loss_grad = self.asked.weight * learn.loss_grad
        for penalty in self.penalties:
            penalty.after_loss()
        for cb in learn._grab_cbs(GradientAccumulation):
            cb.after_loss()

    def _virtual_loss(self, answers: Tensor) -> Tensor:
        """How far the answers move when texts are shifted to where they move most.

        Args:
            answers: of the batch that is being learnt.
        """
        xb = self.learn.xb
        if self.endless is not None:
            number, of = getattr(self.learn, "part", (0, 1))
            xb = (rows_of(self.more, number, of),)
            with held_still(self.learn.model), autocast_of(self.learn):
                answers = first_of(self.learn.model(*xb)).detach()
        seed = int(torch.randint(2**62, ()))
        start = [None if each is None else each.requires_grad_()
                 for each in of_norm(self.perturbed.directions(seed), self.asked.finite_difference)]
        asked = [each for each in start if each is not None]
        with held_still(self.learn.model):
            moved = divergence(self.kind, answers, first_of(self._outputs(xb, start)))
            scaler = getattr(self.learn, "scaler", None)
            found = iter(torch.autograd.grad(moved if scaler is None else scaler.scale(moved), asked,
                                             allow_unused=True))
        towards = [None if each is None else next(found) for each in start]
        shift = of_norm(self.perturbed.real(towards), self.asked.epsilon)
        return divergence(self.kind, answers, first_of(self._outputs(xb, shift)))


def first_of(outputs: Any) -> Tensor:
    """A model's logits, (texts, outputs), in fp32."""
    return to_float(outputs[0] if isinstance(outputs, tuple) else outputs)


def divergence(loss: Any, answers: Tensor, others: Tensor) -> Tensor:
    """Mean divergence of a model's answers from others for the same texts, as a loss of this kind reads them.

    Args:
        loss: a module. Binary cross entropy: the Kullback-Leibler divergences of the classes added up; squared
            errors: half the squared distance; others: the Kullback-Leibler divergence of softmax.
        answers: (texts, outputs), or (texts,) numbers.
        others: the same shape; what is differentiated.
    """
    n = len(answers)
    if isinstance(loss, nn.BCEWithLogitsLoss):
        chances = answers.sigmoid()
        least = F.binary_cross_entropy_with_logits(answers, chances, reduction="sum")
        return (F.binary_cross_entropy_with_logits(others, chances, reduction="sum") - least) / n
    if isinstance(loss, nn.MSELoss):
        return F.mse_loss(others, answers, reduction="sum") / (2 * n)
    return F.kl_div(others.log_softmax(-1), answers.log_softmax(-1), reduction="batchmean", log_target=True)


class Endless:
    """A loader's batches over and over: at each step of a fit the same ones, whatever was read before."""

    def __init__(self, loader: DataLoader) -> None:
        if not len(loader):
            raise UlmfitError("unlabelled: expected batches of texts, found none", field="unlabelled")
        self.loader, self.next_step = loader, -1
        self.batches: Iterator[Any] = iter(())

    def batch(self, step: int) -> Tensor:
        """The texts of a step, counted from 0."""
        n = len(self.loader)
        if step != self.next_step or step % n == 0:
            if isinstance(self.loader, TokenLoader):
                self.loader.epoch, self.loader.start_batch = step // n, step % n
            self.batches = iter(self.loader)
        self.next_step = step + 1
        return next(self.batches)[0]
