"""The loss over a sample of the vocabulary: exact where it can be, right on average elsewhere, and only in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from some_ids import some_ids

from ulmfit_fastai.batches.dataloaders import lm_dataloaders
from ulmfit_fastai.model.fast.sampled_softmax import sampled_cross_entropy
from ulmfit_fastai.model.learners import lm_learner
from ulmfit_fastai.model.losses import FusedCrossEntropy
from ulmfit_fastai.recipe.freezing import full
from ulmfit_fastai.recipe.parts import Model, Optimizer, Phase
from ulmfit_fastai.training.callbacks import Position, SampledLoss


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    make = {"dtype": torch.float64, "requires_grad": True}
    return torch.randn(30, 8, **make), torch.randn(50, 8, **make), torch.randn(50, **make), torch.randint(0, 50, (30,))


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize(("frequent", "drawn"), [(20, 30), (0, 50), (50, 1), (70, 70)])
@pytest.mark.parametrize("chunk", [7, 512])
def test_with_all_words_in_the_sample_loss_and_gradients_are_exact(tensors, frequent, drawn, chunk):
    hidden, weight, bias, target = tensors
    expected = F.cross_entropy(hidden @ weight.T + bias, target)
    found = sampled_cross_entropy(hidden, weight, bias, target, frequent=frequent, drawn=drawn, chunk=chunk)
    assert torch.isclose(found, expected, atol=1e-12)
    for a, b in zip(gradients(found, hidden, weight, bias), gradients(expected, hidden, weight, bias), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_without_bias_it_is_exact_too(tensors):
    hidden, weight, _, target = tensors
    found = sampled_cross_entropy(hidden, weight, None, target, frequent=10, drawn=40)
    assert torch.isclose(found, F.cross_entropy(hidden @ weight.T, target), atol=1e-12)


def test_a_sampled_loss_is_that_of_the_competitors_weighted_by_what_they_stand_for(tensors):
    """Against a plain computation with the same draw: each drawn word counts (50 - 15) / 20 times."""
    hidden, weight, bias, target = tensors
    torch.manual_seed(3)
    drawn = (15 + torch.randperm(35)[:20]).tolist()
    logits, losses = hidden @ weight.T + bias, []
    for row, own in enumerate(target.tolist()):
        total = logits[row, own].exp()
        total = total + sum(logits[row, w].exp() for w in range(15) if w != own)
        total = total + sum(logits[row, w].exp() * 35 / 20 for w in drawn if w != own)
        losses.append(total.log() - logits[row, own])
    expected = torch.stack(losses).mean()
    torch.manual_seed(3)
    found = sampled_cross_entropy(hidden, weight, bias, target, frequent=15, drawn=20)
    assert torch.isclose(found, expected, atol=1e-12)
    for a, b in zip(gradients(found, hidden, weight, bias), gradients(expected, hidden, weight, bias), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_the_sampled_sum_of_exponentials_is_right_on_average(tensors):
    """exp(loss) of one token is the sum of exponentials over its own: no drift however few words are drawn."""
    hidden, weight, bias, target = (t.detach() for t in tensors)
    one, own = hidden[:1] * 0.3, target[:1].fill_(40)
    exact = F.cross_entropy(one @ weight.T + bias, own).exp()
    torch.manual_seed(1)
    found = torch.stack([sampled_cross_entropy(one, weight, bias, own, frequent=15, drawn=20).exp()
                         for _ in range(4000)])
    assert abs(found.mean() - exact) < 4 * found.std() / len(found) ** 0.5


def test_bf16_products_stay_near_the_exact_loss(tensors):
    hidden, weight, bias, target = (t.detach().float() if t.is_floating_point() else t for t in tensors)
    exact = F.cross_entropy(hidden @ weight.T + bias, target)
    found = sampled_cross_entropy(hidden, weight, bias, target, frequent=20, drawn=30, matmul_dtype=torch.bfloat16)
    assert found.dtype == torch.float32
    assert abs(found - exact) < 0.02 * exact


def test_wrong_sizes_are_refused(tensors):
    hidden, weight, bias, target = tensors
    with pytest.raises(ValueError, match="drawn >= 1, found frequent=3, drawn=0"):
        sampled_cross_entropy(hidden, weight, bias, target, frequent=3, drawn=0)


def test_it_can_be_back_propagated_once(tensors):
    hidden, weight, bias, target = tensors
    loss = sampled_cross_entropy(hidden, weight, bias, target, frequent=3, drawn=5)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="back-propagated twice"):
        loss.backward()


def learner(**kwargs):
    ids = some_ids([20] * 40, n_words=60)
    rows = np.arange(40)
    dls = lm_dataloaders(ids, train=rows[:32], valid=rows[32:], bs=4, bptt=10)
    phase = Phase(stages=full(1, 1e-3), optimizer=Optimizer(), bs=4, bptt=10, **kwargs)
    return lm_learner(dls, Model(emb_sz=8, n_hid=12, n_layers=2), phase), phase


def test_words_are_sampled_until_the_last_tenth_of_a_stage_and_never_in_validation():
    learn, phase = learner(sampled_words=5)
    stage, position, seen = phase.stages[0], Position(), []
    callback = SampledLoss(stage, position, 5)
    callback.learn = learn
    steps = len(learn.dls.train)
    for batch in range(steps):
        position.batch = batch
        callback.before_batch()
        seen.append(learn.loss_func.sampled_words)
    assert seen == [5 if batch / steps < 0.9 else None for batch in range(steps)]
    assert None in seen and 5 in seen
    callback.after_fit()
    assert learn.loss_func.sampled_words is None


def test_the_loss_samples_only_in_training():
    learn, _ = learner()
    loss, net = learn.loss_func, learn.model
    assert isinstance(loss, FusedCrossEntropy)
    loss.decoder.fused, loss.sampled_words = True, 5
    x, y = learn.dls.train.one_batch()
    net.eval()
    with torch.no_grad():
        hidden = net(x)[0]
        exact = F.cross_entropy((hidden @ loss.decoder.decoder.weight.T + loss.decoder.decoder.bias).flatten(0, 1),
                                y.flatten())
        assert torch.isclose(loss(hidden, y), exact, atol=1e-5)
    net.train()
    assert not torch.isclose(loss(net(x)[0], y).detach(), exact, atol=1e-5)
