"""fastai Learners for the two models of ULMFiT, with the recipe's layer groups, dropouts, optimiser and weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.callback.rnn import RNNRegularizer
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.data import TextDataLoaders
from fastai.text.learner import LMLearner, TextLearner
from fastai.text.models.awdlstm import awd_lstm_clas_split, awd_lstm_lm_split
from torch import Tensor, nn

from .._errors import UlmfitError
from ..recipe.parts import Model, Phase
from ..tokens.ids import Vocabulary
from .fast.optimizers import adam
from .layers import build_classifier, build_language_model
from .losses import FusedCrossEntropy, FusedLoss
from .weights import LMWeights

Loss = Callable[[Tensor, Tensor], Tensor]
"""(a batch's outputs, its targets) -> the mean loss."""


def words_of(dls: TextDataLoaders) -> Vocabulary:
    """The words of a TextDataLoaders, for the language model (a list) and for the classifier (words, classes)."""
    vocab = dls.vocab
    return Vocabulary(vocab if isinstance(vocab[0], str) else vocab[0])


def lm_learner(
    dls: TextDataLoaders,
    model: Model,
    phase: Phase,
    *,
    weights: LMWeights | None = None,
    fast: bool = True,
    compute_dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> LMLearner:
    """A language-model Learner with the paper's layer groups: one per LSTM layer, then embedding with tied decoder.

    Args:
        dls: language-model batches, from `lm_dataloaders` or fastai.
        phase: gives the optimiser, AR and TAR; its stages are not read here.
        weights: matched to the words of `dls` (new words get the mean row, as fastai does); None: random.
        fast: False builds stock fastai's modules and loss.
        compute_dtype: torch.bfloat16 does the matrix products of the LSTM and decoder in bf16 (on CPUs that have it in
            hardware) with fp32 weights and loss.
        kwargs: of fastai's `Learner`.

    Raises:
        UlmfitError: `weights` are of another size than `model`.
        VocabularyMismatch: they belong to another SentencePiece model.

    Source: paper, section 3.2; groups as fastai's `awd_lstm_lm_split`.
    """
    vocab = words_of(dls)
    net = build_language_model(len(vocab), model, fast=fast, compute_dtype=compute_dtype)
    if weights is not None:
        weights.check_shape(emb_sz=model.emb_sz, n_hid=model.n_hid, n_layers=model.n_layers)
        state = weights.for_vocab(vocab).full_state()
        net.load_state_dict({key: value for key, value in state.items() if key in net.state_dict()})
    net.to(dls.device)  # fastai does so when it fits, too late for what predicts or measures without fitting
    loss = FusedCrossEntropy(net[1]) if fast else CrossEntropyLossFlat()
    learn = LMLearner(dls, net, loss_func=loss, splitter=awd_lstm_lm_split, alpha=0.0, beta=0.0,
                      **_options(phase, fast), **kwargs)
    return learn.add_cbs([MaskedRNNRegularizer(phase.alpha, phase.beta), FusedLoss()])


def classifier_learner(
    dls: TextDataLoaders,
    model: Model,
    phase: Phase,
    *,
    n_out: int | None = None,
    encoder: LMWeights | None = None,
    loss_func: Loss | None = None,
    fast: bool = True,
    compute_dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> TextLearner:
    """A text-classifier Learner with five layer groups at three LSTM layers: embedding, each LSTM, head.

    Args:
        dls: classifier batches, from `classifier_dataloaders` or fastai.
        phase: gives bptt, max_len, the optimiser, AR and TAR; its stages are not read here.
        n_out: outputs; None: as many as `dls` says.
        encoder: must have the very words of `dls` (its hash is compared, not its size): fine-tune the language model on
            the same vocabulary, or match it first with `LMWeights.for_vocab`. None: random.
        loss_func: (logits, targets) -> mean loss; None: cross entropy.
        fast: draw the weight-dropout masks once for a batch (as Merity et al. 2017 do for a pass); False, and stock:
            anew for every chunk of a text.
        compute_dtype: as in `lm_learner`.
        kwargs: of fastai's `Learner`.

    Raises:
        VocabularyMismatch: `encoder` has other words.
        UlmfitError: it is of another size than `model`.

    Source: paper, section 3.3; concat pooling and BPT3C by fastai's classifier, corrected for padding.
    """
    vocab = words_of(dls)
    if n_out is None:
        n_out = dls.c
    net = build_classifier(len(vocab), n_out, model, bptt=phase.bptt, max_len=phase.max_len, fast=fast,
                           mask_per_chunk=not fast, compute_dtype=compute_dtype)
    if encoder is not None:
        encoder.vocab.check(vocab.hash, f"encoder {encoder.name!r}")
        encoder.check_shape(emb_sz=model.emb_sz, n_hid=model.n_hid, n_layers=model.n_layers)
        state = {key[2:]: value for key, value in encoder.full_state().items() if key.startswith("0.")}
        net[0].module.load_state_dict(state)
    net.to(dls.device)
    learn = TextLearner(dls, net, loss_func=loss_func or CrossEntropyLossFlat(), splitter=awd_lstm_clas_split,
                        alpha=0.0, beta=0.0, **_options(phase, fast), **kwargs)
    return learn.add_cb(MaskedRNNRegularizer(phase.alpha, phase.beta))


def _options(phase: Phase, fast: bool) -> dict[str, Any]:
    opt = phase.optimizer
    moms = opt.moms if len(opt.moms) == 3 else (opt.moms[0],) * 3
    make = partial(adam, mom=moms[0], sqr_mom=opt.sqr_mom, eps=opt.eps, wd=opt.wd, decouple_wd=opt.decoupled_wd,
                   fused=fast)
    return {"opt_func": make, "wd": opt.wd, "moms": moms}


def set_trainable(learn: Learner, groups: tuple[int, ...]) -> None:
    """Train some layer groups and leave every other bit for bit as it is.

    Stock `freeze_to` leaves zero gradients behind, which momentum and decoupled decay turn into updates, and batch norm
    goes on counting in frozen groups. Here frozen parameters have no gradient and frozen batch norm is in eval mode.

    Args:
        groups: numbers of those that train, 0 the first.

    Raises:
        UlmfitError: there is no such group, or none is given.

    Source: paper, section 3.3 (gradual unfreezing).
    """
    lists = learn.splitter(learn.model)
    wrong = [g for g in groups if not 0 <= g < len(lists)]
    if wrong or not groups:
        raise UlmfitError(f"trainable groups: expected numbers from 0 to {len(lists) - 1}, found {tuple(groups)}")
    for number, group in enumerate(lists):
        for parameter in group:
            parameter.requires_grad_(number in groups)
            if number not in groups:
                parameter.grad = None


class FrozenBatchNorm(Callback):
    """Keeps batch norm whose parameters are frozen in eval mode, so that its running statistics stay as they are."""

    order = -5  # right after TrainEvalCallback put the model into training mode

    def before_train(self) -> None:
        """Put frozen batch norm into eval mode, all other batch norm into training mode."""
        for module in self.learn.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                frozen = module.weight is not None and not module.weight.requires_grad
                module.train(not frozen)


def group_table(learn: Learner) -> pd.DataFrame:
    """The layer groups of a Learner: number, layers, parameters, whether they train, and their current rate."""
    names = {parameter: name for name, parameter in learn.model.named_parameters()}
    rates: list[float | None] = [h["lr"] for h in learn.opt.hypers] if learn.opt is not None else []
    rows = []
    for number, group in enumerate(learn.splitter(learn.model)):
        layers = sorted({_layer(names[p]) for p in group})
        rows.append({
            "group": number,
            "layers": ", ".join(layers),
            "parameters": sum(p.numel() for p in group),
            "trainable": all(p.requires_grad for p in group),
            "lr": rates[number] if rates else None,
        })
    return pd.DataFrame(rows)


def _layer(name: str) -> str:
    parts = [part for part in name.split(".") if part != "module"]
    if parts[1] == "rnns":
        return f"LSTM {int(parts[2]) + 1}"
    return {"encoder": "embedding", "encoder_dp": "embedding", "decoder": "decoder", "layers": "head"}[parts[1]]


def hidden_state(learn: Learner) -> list[list[Tensor]]:
    """The LSTM state a language model carries from batch to batch, for a checkpoint.

    Returns:
        A copy of (h, c) for each layer, both (1, batch, units of the layer).
    """
    return [[part.detach().clone() for part in layer] for layer in learn.model[0].hidden]


def set_hidden_state(learn: Learner, hidden: list[list[Tensor]]) -> None:
    """Go on from the state that `hidden_state` gave.

    Args:
        hidden: (h, c) for each layer, both (1, batch, units of the layer).
    """
    encoder = learn.model[0]
    encoder.hidden = [tuple(part.clone() for part in layer) for layer in hidden]
    encoder.bs = hidden[0][0].shape[1]


class MaskedRNNRegularizer(RNNRegularizer):
    """fastai's AR and TAR, which can leave padding out of their means.

    Nothing is added when the encoder is frozen: the penalty would be a constant. TAR needs two words, not two texts:
    stock leaves it out of a batch of one text, and makes NaN of a batch one word long.

    Args:
        alpha: factor of AR.
        beta: factor of TAR.
        pad_idx: the number of padding; None: padding that the encoder reads is counted, as in stock.

    Source: Merity et al. 2017, section 4.6.
    """

    order = RNNRegularizer.order

    def __init__(self, alpha: float = 0.0, beta: float = 0.0, *, pad_idx: int | None = None):
        super().__init__(alpha=alpha, beta=beta)
        self.pad_idx = pad_idx

    def after_loss(self) -> None:
        """Add the penalties to what is differentiated; the loss that is shown stays the model's."""
        raw, dropped = self.learn.rnn.raw_out, self.learn.rnn.out
        if not self.learn.training or not dropped.requires_grad:
            return
        real = pairs = None
        if self.pad_idx is not None:
            words = self.learn.xb[0].as_subclass(Tensor) != self.pad_idx
            end = int(words.any(0).nonzero()[-1]) + 1  # the encoder reads no further
            real = words[:, end - dropped.shape[1] : end]
            pairs = real[:, 1:] & real[:, :-1]
        if self.alpha:
            self.learn.loss_grad += self.alpha * _mean_square(dropped, real)
        if self.beta and raw.shape[1] > 1:
            self.learn.loss_grad += self.beta * _mean_square(raw[:, 1:] - raw[:, :-1], pairs)


def _mean_square(x: Tensor, real: Tensor | None) -> Tensor:
    squares = x.float().pow(2)
    if real is None:
        return squares.mean()
    return (squares * real[..., None]).sum() / (real.sum().clamp(min=1) * x.shape[-1])
