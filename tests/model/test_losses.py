"""The language model's chunked loss and its callbacks against fastai's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from fastai.callback import progress  # noqa: F401  (gives Learner its no_bar)
from fastai.callback.rnn import ModelResetter, RNNCallback, RNNRegularizer
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import Perplexity, accuracy
from fastai.text.models.awdlstm import awd_lstm_lm_split
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ulmfit_fastai.model.fast.optimizers import adam
from ulmfit_fastai.model.layers import build_classifier, build_language_model
from ulmfit_fastai.model.learners import MaskedRNNRegularizer
from ulmfit_fastai.model.losses import FusedCrossEntropy, FusedDecoder, FusedLoss, linear_cross_entropy
from ulmfit_fastai.recipe.parts import Dropouts, Model

TOKENS, HIDDEN, VOCAB = 150, 24, 300
SMALL = Model(emb_sz=10, n_hid=14, lm_dropouts=Dropouts(0.0, 0.0, 0.0, 0.0, 0.0))


def inputs(bias: bool = True, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(TOKENS, HIDDEN, generator=g), torch.randn(VOCAB, HIDDEN, generator=g)
    b = torch.randn(VOCAB, generator=g).requires_grad_() if bias else None
    return hidden.requires_grad_(), weight.requires_grad_(), b, torch.randint(VOCAB, (TOKENS,), generator=g)


def run(function, bias: bool = True, scale: float = 1.0) -> list[Tensor]:
    hidden, weight, b, target = inputs(bias)
    loss = function(hidden, weight, b, target)
    (loss * scale).sum().backward()
    return [loss.detach(), *(t.grad for t in (hidden, weight, b) if t is not None and t.grad is not None)]


def reference(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias), target, reduction=reduction)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor any operation makes; views of its inputs don't count."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in given:
                self.numel = max(self.numel, t.numel())
        return out


@pytest.mark.parametrize("chunk", [1, 64, 70, 150, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradients_are_those_of_all_logits_at_once(chunk, bias):
    ours = run(lambda *args: linear_cross_entropy(*args, chunk=chunk), bias)
    torch.testing.assert_close(ours, run(reference, bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_each_reduction_and_an_outer_factor_reach_the_gradients(reduction):
    ours = run(lambda *args: linear_cross_entropy(*args, reduction=reduction, chunk=40), scale=-2.5)
    theirs = run(lambda *args: reference(*args, reduction=reduction), scale=-2.5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyOptions"), reason="torch has no chunked loss of its own")
def test_torchs_own_chunked_loss_agrees():
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=64)
    theirs = run(lambda h, w, b, t: F.linear_cross_entropy(h, w, t, linear_bias=b, options=options))
    torch.testing.assert_close(run(linear_cross_entropy), theirs, rtol=1e-5, atol=1e-6)


def test_large_logits_neither_overflow_nor_lose_the_loss():
    hidden, weight, bias, target = inputs()
    ours = linear_cross_entropy(hidden * 100, weight, bias, target)
    assert math.isfinite(ours.item())
    torch.testing.assert_close(ours, reference(hidden * 100, weight, bias, target), rtol=1e-5, atol=0)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen):
    grads = []
    for function in (linear_cross_entropy, reference):
        tensors = list(inputs())
        tensors[frozen].requires_grad_(False)
        function(*tensors).backward()
        grads.append([t.grad for t in tensors[:3]])
    assert grads[0][frozen] is None
    for a, b in zip(*grads, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_frozen_decoder_costs_no_gradient_of_its_size():
    hidden, weight, bias, target = inputs()
    with LargestTensor() as seen:
        linear_cross_entropy(hidden, weight.requires_grad_(False), bias, target, chunk=10).backward()
    assert seen.numel < VOCAB * HIDDEN


def test_without_gradients_wanted_none_are_made():
    hidden, weight, bias, target = inputs()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, bias, target)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, reference(hidden, weight, bias, target).detach(), rtol=1e-6, atol=0)


def test_a_second_backward_is_refused_instead_of_doubled():
    hidden, weight, bias, target = inputs()
    loss = linear_cross_entropy(hidden, weight, bias, target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="back-propagated twice"):
        loss.backward()


def test_bf16_products_keep_the_loss_to_a_thousandth_and_the_gradients_direction():
    exact = run(reference)
    half = run(lambda *args: linear_cross_entropy(*args, matmul_dtype=torch.bfloat16, chunk=64))
    assert half[0].dtype == torch.float32
    assert half[0].item() != exact[0].item() and half[0].item() == pytest.approx(exact[0].item(), rel=1e-3)
    for a, b in zip(half[1:], exact[1:], strict=True):
        assert a.dtype == torch.float32
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() > 0.9999


def test_fp64_stays_fp64():
    hidden, weight, bias, target = (t.detach() for t in inputs())
    tensors = hidden.double(), weight.double(), bias.double(), target
    torch.testing.assert_close(linear_cross_entropy(*tensors), reference(*tensors), rtol=1e-12, atol=0)


def test_autocast_chooses_the_type_of_the_products():
    hidden, weight, bias, target = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, bias, target)
    asked = linear_cross_entropy(hidden, weight, bias, target, matmul_dtype=torch.bfloat16)
    assert loss.dtype == torch.float32 and loss.item() == asked.item()


def test_no_tensor_of_tokens_by_vocabulary_is_ever_made():
    sizes = {}
    for name, function in (("ours", lambda *args: linear_cross_entropy(*args, chunk=16)), ("stock", reference)):
        with LargestTensor() as seen:
            run(function)
        sizes[name] = seen.numel
    assert sizes["stock"] == TOKENS * VOCAB
    assert sizes["ours"] == VOCAB * HIDDEN  # the weight's gradient; the logits are 16 x 300


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none'"):
        linear_cross_entropy(*inputs(), reduction="max")


# --- the decoder and a fastai Learner -----------------------------------------------------------------------------

def test_the_decoder_is_stock_until_it_is_told_to_be_fused():
    decoder = FusedDecoder(VOCAB, HIDDEN, output_p=0.3)
    hidden = torch.randn(2, 5, HIDDEN)
    torch.manual_seed(0)
    logits, raw, dropped = decoder(hidden)
    assert torch.equal(logits, decoder.decoder(dropped)) and raw is hidden
    decoder.fused = True
    torch.manual_seed(0)
    first, raw, second = decoder(hidden)
    assert first is second and torch.equal(first, dropped) and raw is hidden


def test_the_loss_takes_logits_as_fastais_does_and_refuses_what_does_not_fit():
    decoder = FusedDecoder(VOCAB, HIDDEN)
    loss = FusedCrossEntropy(decoder)
    logits, target = torch.randn(2, 5, VOCAB), torch.randint(VOCAB, (2, 5))
    assert loss(logits, target).item() == CrossEntropyLossFlat()(logits, target).item()
    assert torch.equal(loss.activation(logits), logits.softmax(-1))
    assert torch.equal(loss.decodes(logits), logits.argmax(-1))
    decoder.fused = True
    with pytest.raises(ValueError, match="24 features, found 300"):
        loss(logits, target)


class Batches(torch.utils.data.Dataset):
    """Next-word pairs over a small made-up language."""

    def __init__(self, n: int):
        walk = torch.randint(2, 40, (n, 9), generator=torch.Generator().manual_seed(1)).cumsum(1) % 40
        self.rows = walk

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.rows[i, :-1], self.rows[i, 1:]


def lm_learner(*, fast: bool, metrics=None, regularizer=None) -> Learner:
    loaders = DataLoaders.from_dsets(Batches(48), Batches(16), bs=8, shuffle=False, num_workers=0)
    torch.manual_seed(0)
    model = build_language_model(40, SMALL, fast=fast)
    regularizer = regularizer or (MaskedRNNRegularizer(2.0, 1.0) if fast else RNNRegularizer(2.0, 1.0))
    callbacks = [ModelResetter(), RNNCallback(), regularizer, *([FusedLoss()] if fast else [])]
    learn = Learner(loaders, model, loss_func=FusedCrossEntropy(model[1]) if fast else CrossEntropyLossFlat(),
                    opt_func=adam, splitter=awd_lstm_lm_split, metrics=metrics, cbs=callbacks, lr=0.01)
    return learn


def fitted(epochs: int = 2, **kwargs) -> Learner:
    learn = lm_learner(**kwargs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs)
    return learn


def test_a_learner_trains_and_validates_as_with_fastais_loss():
    ours, theirs = fitted(fast=True, metrics=Perplexity()), fitted(fast=False, metrics=Perplexity())
    for mine, other in zip(ours.recorder.values, theirs.recorder.values, strict=True):
        assert list(mine) == pytest.approx(list(other), abs=1e-5, rel=1e-5)
    losses = [loss.item() for loss in ours.recorder.losses]
    assert losses == pytest.approx([loss.item() for loss in theirs.recorder.losses], abs=1e-5)
    assert losses[-1] < losses[0]


def test_the_loss_is_fused_in_training_and_validation_and_never_afterwards():
    learn = lm_learner(fast=True)
    seen: dict[bool, set[bool]] = {True: set(), False: set()}
    learn.model[1].register_forward_hook(lambda m, i, out: seen[learn.training].add(m.fused))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert seen == {True: {True}, False: {True}}
    assert learn.model[1].fused is False
    with learn.no_bar():
        learn.validate()
    assert seen == {True: {True}, False: {True}} and learn.model[1].fused is False
    assert learn.model(torch.zeros(1, 3, dtype=torch.long))[0].shape == (1, 3, 40)


def test_metrics_that_need_logits_get_them():
    ours, theirs = fitted(fast=True, metrics=accuracy), fitted(fast=False, metrics=accuracy)
    assert ours.recorder.values[-1][2] == pytest.approx(theirs.recorder.values[-1][2])
    with ours.no_bar():
        assert list(ours.validate()) == pytest.approx(list(theirs.validate()), abs=1e-5)


def test_predictions_are_probabilities_over_the_vocabulary():
    ours, theirs = fitted(fast=True), fitted(fast=False)
    x = Batches(16).rows[:, :-1]
    results = []
    for learn in (ours, theirs):
        with learn.no_bar():
            results.append(learn.get_preds(dl=[(x,)])[0])
    assert results[0].shape == (16, 8, 40)
    torch.testing.assert_close(results[0].sum(-1), torch.ones(16, 8))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


def test_after_a_fit_that_failed_predictions_are_over_the_vocabulary_again():
    learn = lm_learner(fast=True)
    hook = learn.model[1].register_forward_hook(lambda m, i, out: 1 / 0)
    with learn.no_bar(), learn.no_logging(), pytest.raises(ZeroDivisionError):
        learn.fit(1)
    hook.remove()
    with learn.no_bar():
        assert learn.get_preds(dl=[(Batches(2).rows,)])[0].shape == (2, 9, 40)
    assert learn.model[1].fused is False


def test_a_copied_learner_has_its_own_decoder_in_its_loss():
    learn = fitted(fast=True)
    twin = copy.deepcopy(learn)
    assert twin.loss_func.decoder is twin.model[1] is not learn.model[1]


# --- AR and TAR ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (2.0, 0.0), (0.0, 1.0)])
def test_regularisation_is_fastais(alpha, beta):
    ours = fitted(fast=False, regularizer=MaskedRNNRegularizer(alpha, beta))
    theirs = fitted(fast=False, regularizer=RNNRegularizer(alpha, beta))
    without = fitted(fast=False, regularizer=RNNRegularizer(0.0, 0.0))
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(without.model[0].encoder.weight, ours.model[0].encoder.weight)


class OneBatch:
    """The part of a Learner that the regulariser sees."""

    def __init__(self, x: Tensor, raw: Tensor, dropped: Tensor):
        self.training, self.xb, self.loss_grad = True, (x,), torch.zeros(())
        self.rnn = type("Rnn", (), {"raw_out": raw, "out": dropped})


def penalty(x: Tensor, raw: Tensor, dropped: Tensor, **kwargs) -> float:
    callback = MaskedRNNRegularizer(**kwargs)
    callback.learn = OneBatch(x, raw, dropped)
    callback.after_loss()
    return callback.learn.loss_grad.item()


def test_padding_can_be_left_out_of_both_means():
    x = torch.tensor([[5, 6, 7, 8, 9, 4], [1, 1, 1, 5, 6, 1]])
    raw, dropped = torch.randn(2, 4, 3), torch.randn(2, 4, 3).requires_grad_()  # the pooled tail of six words
    rows = [(0, [0, 1, 2, 3]), (1, [1, 2])]
    squares = [dropped[r, t, k].item() ** 2 for r, times in rows for t in times for k in range(3)]
    steps = [(raw[r, t] - raw[r, t - 1])[k].item() ** 2 for r, times in rows for t in times[1:] for k in range(3)]
    assert penalty(x, raw, dropped, alpha=2.0, pad_idx=1) == pytest.approx(2 * sum(squares) / len(squares), rel=1e-5)
    assert penalty(x, raw, dropped, beta=3.0, pad_idx=1) == pytest.approx(3 * sum(steps) / len(steps), rel=1e-5)
    assert penalty(x, raw, dropped, alpha=2.0) == pytest.approx(2 * dropped.pow(2).mean().item(), rel=1e-5)


def test_a_frozen_encoder_is_not_regularised():
    x, raw = torch.full((2, 4), 5), torch.randn(2, 4, 3)
    assert penalty(x, raw, raw, alpha=2.0, beta=1.0) == 0
    assert penalty(x, raw, raw.clone().requires_grad_(), alpha=2.0, beta=1.0) > 0


def test_temporal_regularisation_needs_two_words_but_not_two_texts():
    word, text = torch.randn(2, 1, 3).requires_grad_(), torch.randn(1, 2, 3).requires_grad_()
    for pad_idx in (None, 1):
        assert penalty(torch.full((2, 1), 5), word, word, beta=1.0, pad_idx=pad_idx) == 0
        step = (text[:, 1] - text[:, 0]).pow(2).mean().item()
        assert penalty(torch.full((1, 2), 5), text, text, beta=1.0, pad_idx=pad_idx) == pytest.approx(step)


def test_a_classifiers_penalty_counts_its_pooled_words_only():
    model = build_classifier(40, 2, Model(emb_sz=10, n_hid=14), bptt=4, max_len=8)
    x = torch.randint(2, 40, (3, 12))
    x[1, :4], x[2, :8], x[:, -1] = 1, 1, 1
    _, raw, dropped = model(x)
    words = torch.cat([dropped[0, :7], dropped[1, :7], dropped[2, 4:7]])
    assert penalty(x, raw, dropped, alpha=1.0, pad_idx=1) == pytest.approx(words.pow(2).mean().item(), rel=1e-5)
