"""The fused Adam against fastai's."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from fastai.callback.schedule import ParamScheduler, SchedCos
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from torch import Tensor, nn

from ulmfit_fastai.model.fast.optimizers import FusedAdam, adam, lstm_biases, skip_decay


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


def groups(model: nn.Sequential) -> list[list[nn.Parameter]]:
    return [list(model[0].parameters()), list(model[1].parameters()) + list(model[3].parameters())]


def give_gradients(model: nn.Module, step: int) -> None:
    """The same gradients whatever the weights are, so that rounding is not fed back."""
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.randn(p.shape, generator=generator)


def train(model: nn.Sequential, opt, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        opt.set_hyper("lr", [0.003 + 0.0001 * step, 0.01])
        opt.set_hyper("mom", 0.8 - 0.002 * step)
        give_gradients(model, step)
        opt.step()
        opt.zero_grad()


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True))


HYPERS = dict(lr=0.01, mom=0.8, sqr_mom=0.97, eps=1e-4, wd=0.2)


@pytest.mark.parametrize("decouple_wd", [True, False])
def test_fifty_steps_give_fastais_weights_while_rates_and_momentum_change(decouple_wd):
    ours, stock = net(), net()
    opt, reference = (f(groups(m), decouple_wd=decouple_wd, **HYPERS) for f, m in ((adam, ours), (Adam, stock)))
    train(ours, opt, 50)
    train(stock, reference, 50)
    assert largest_difference(ours, stock) < 1e-6
    assert largest_difference(ours, net()) > 0.05  # they did move


def test_the_two_kinds_of_decay_differ():
    models = [net(), net()]
    for model, decoupled in zip(models, (True, False), strict=True):
        train(model, adam(groups(model), decouple_wd=decoupled, **HYPERS), 20)
    assert largest_difference(*models) > 1e-3


def test_parameters_marked_do_wd_false_get_no_decay_as_in_fastai():
    ours, stock = net(), net()
    opt, reference = adam(groups(ours), **HYPERS), Adam(groups(stock), **HYPERS)
    skip_decay(opt, [ours[0].bias])
    skip_decay(reference, [stock[0].bias])
    train(ours, opt, 20)
    train(stock, reference, 20)
    assert largest_difference(ours, stock) < 1e-6
    opt.clear_state()
    assert opt.state[ours[0].bias] == {"do_wd": False}


def test_without_the_kernel_it_is_fastais_step_bit_for_bit():
    ours, stock = net(), net()
    train(ours, adam(groups(ours), fused=False, **HYPERS), 10)
    train(stock, Adam(groups(stock), **HYPERS), 10)
    assert largest_difference(ours, stock) == 0


def test_state_goes_over_to_fastais_adam_and_back():
    ours, stock = net(), net()
    opt, reference = adam(groups(ours), **HYPERS), Adam(groups(stock), **HYPERS)
    train(ours, opt, 10)
    train(stock, reference, 10)
    crossed_ours, crossed_stock = adam(groups(ours), lr=1.0), Adam(groups(stock), lr=1.0)
    crossed_ours.load_state_dict(copy.deepcopy(reference.state_dict()))
    crossed_stock.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert crossed_ours.hypers[1]["eps"] == HYPERS["eps"] == crossed_stock.hypers[1]["eps"]
    train(ours, crossed_ours, 10, first=10)
    train(stock, crossed_stock, 10, first=10)
    assert largest_difference(ours, stock) < 1e-6
    assert crossed_ours.state[ours[0].weight]["step"] == 20


def test_frozen_weights_stay_bit_for_bit_after_training_although_stocks_go_on_moving():
    moved = {}
    for name, make in (("ours", adam), ("stock", Adam)):
        model = net()
        opt = make(groups(model), **HYPERS)
        train(model, opt, 5)
        before = [p.detach().clone() for p in groups(model)[0]]
        give_gradients(model, 5)
        opt.freeze_to(1)
        if name == "ours":  # stale gradients would count in gradient clipping
            assert model[0].weight.grad is None and model[3].weight.grad is not None
        train(model, opt, 5, first=5)
        moved[name] = any(not torch.equal(a, b) for a, b in zip(before, groups(model)[0], strict=True))
    assert moved == {"ours": False, "stock": True}


def test_a_group_frozen_by_requires_grad_alone_is_left_alone_and_others_are_trained():
    model = net()
    opt = adam(groups(model), **HYPERS)
    train(model, opt, 3)
    before = copy.deepcopy(model)
    for p in model[3].parameters():
        p.requires_grad_(False)
    give_gradients(model, 3)
    model[3].weight.grad = torch.ones_like(model[3].weight)  # left from before the freezing
    opt.step()
    assert torch.equal(model[3].weight, before[3].weight) and model[3].weight.grad is None
    assert not torch.equal(model[0].weight, before[0].weight)


def test_an_unfrozen_group_goes_on_from_its_own_step_count():
    model = net()
    opt = adam(groups(model), **HYPERS)
    opt.freeze_to(1)
    train(model, opt, 4)
    opt.unfreeze()
    train(model, opt, 2, first=4)
    assert opt.state[model[0].weight]["step"] == 2
    assert opt.state[model[3].weight]["step"] == 6


def learner(opt_func) -> Learner:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    data = list(zip(x, x[:, :3].contiguous(), strict=True))
    loaders = DataLoaders.from_dsets(data, data, bs=16, shuffle=False, num_workers=0)
    model = net()
    return Learner(loaders, model, loss_func=nn.MSELoss(), opt_func=opt_func, splitter=groups, lr=0.01)


def fit(opt_func) -> Learner:
    learn = learner(opt_func)
    schedule = {"lr": SchedCos(0.02, 0.001), "mom": SchedCos(0.9, 0.7), "wd": SchedCos(0.3, 0.1)}
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, wd=0.3, cbs=ParamScheduler(schedule))
    return learn


def test_a_learner_trains_as_with_fastais_adam_schedules_and_bias_exclusion_included():
    ours, stock = fit(partial(adam, eps=1e-3)), fit(partial(Adam, eps=1e-3))
    assert isinstance(ours.opt, FusedAdam)
    assert largest_difference(ours.model, stock.model) < 1e-5
    assert ours.opt.state[ours.model[0].bias]["do_wd"] is False
    assert ours.opt.state[ours.model[0].weight].get("do_wd", True) is True
    assert ours.opt.hypers[0]["wd"] == pytest.approx(stock.opt.hypers[0]["wd"])


def test_a_learner_saves_and_loads_its_state(tmp_path):
    learn = fit(adam)
    learn.path = tmp_path
    learn.save("here")
    fresh = learner(adam)
    fresh.path = tmp_path
    fresh.load("here", with_opt=True)
    for mine, theirs in zip(learn.model.parameters(), fresh.model.parameters(), strict=True):
        a, b = learn.opt.state[mine], fresh.opt.state[theirs]
        assert a["step"] == b["step"] and torch.equal(a["grad_avg"], b["grad_avg"])


def test_lstm_biases_are_decayed_as_in_fastai_unless_skipped():
    norms: list[Tensor] = []
    for skip in (False, True):
        torch.manual_seed(0)
        lstm = nn.LSTM(4, 4)
        assert len(lstm_biases(lstm)) == 2
        opt = adam([list(lstm.parameters())], lr=0.1, wd=0.5)
        if skip:
            skip_decay(opt, lstm_biases(lstm))
        before = lstm.bias_ih_l0.detach().clone()
        for p in lstm.parameters():
            p.grad = torch.zeros_like(p)
        opt.step()
        norms.append(lstm.bias_ih_l0.detach() / before)
    assert torch.allclose(norms[0], torch.tensor(0.95)) and torch.equal(norms[1], torch.ones(16))


def test_a_closure_is_refused():
    opt = adam([[nn.Parameter(torch.ones(1))]])
    with pytest.raises(NotImplementedError):
        opt.step(lambda: None)
