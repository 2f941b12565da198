"""Stages: which groups train, how fast, in which order; and what a run's rates will be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ulmfit_fastai.recipe.freezing import Stage, chain_thaw, full, gradual, last
from ulmfit_fastai.recipe.parts import Optimizer, Phase
from ulmfit_fastai.recipe.rates import simulate
from ulmfit_fastai.recipe.schedules import constant, cosine, one_cycle, stlr

SCHEDULES = [constant(), stlr(), one_cycle(), cosine()]


def phase(*stages: Stage, moms: tuple[float, ...] = (0.7,)) -> Phase:
    return Phase(stages=stages, optimizer=Optimizer(moms=moms))


def test_full_trains_every_group_from_the_start():
    (stage,) = full(3, 0.01)
    assert stage.groups(5) == (0, 1, 2, 3, 4) and stage.epochs == 3


def test_last_trains_the_head_alone():
    (stage,) = last(4, 0.001)
    assert stage.groups(5) == (4,)
    assert stage.rates(5) == [0, 0, 0, 0, 0.001]


def test_gradual_opens_one_group_an_epoch_from_the_top_and_then_trains_all():
    stages = gradual(5, 50, 0.01)
    assert [stage.groups(5) for stage in stages] == [(4,), (3, 4), (2, 3, 4), (1, 2, 3, 4), (0, 1, 2, 3, 4)]
    assert [stage.epochs for stage in stages] == [1, 1, 1, 1, 46]
    assert len({stage.name for stage in stages}) == 5


@pytest.mark.parametrize("epochs, opened", [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (5, [1, 2, 3, 4, 5])])
def test_gradual_with_few_epochs_leaves_the_lowest_groups_closed(epochs, opened):
    stages = gradual(5, epochs, 0.01)
    assert [len(stage.groups(5)) for stage in stages] == opened
    assert sum(stage.epochs for stage in stages) == epochs


@pytest.mark.parametrize("epochs", [3, 5, 7, 50])
def test_gradual_with_one_schedule_lays_it_over_all_epochs_without_a_seam(epochs):
    stages, steps = gradual(5, epochs, 0.01, schedule=stlr()), 20
    ours = [stage.factor(t / (stage.epochs * steps)) for stage in stages for t in range(stage.epochs * steps)]
    whole = [stlr().factor(t / (epochs * steps)) for t in range(epochs * steps)]
    assert ours == pytest.approx(whole, abs=1e-9)


def test_gradual_with_a_schedule_per_step_starts_it_anew_each_time():
    stages = gradual(3, 6, 0.01, schedule=stlr(), one_schedule=False)
    assert [stage.factor(0.0) for stage in stages] == pytest.approx([1 / 32] * 3)
    assert [stage.factor(0.1) for stage in stages] == pytest.approx([1.0] * 3)


def test_chain_thaw_trains_the_head_then_each_group_alone_from_the_first_then_all():
    stages = chain_thaw(5, 50)
    assert [stage.groups(5) for stage in stages] == [(4,), (0,), (1,), (2,), (3,), (0, 1, 2, 3, 4)]
    assert [stage.epochs for stage in stages] == [1, 1, 1, 1, 1, 45]


def test_chain_thaw_has_felbos_rates():
    stages = chain_thaw(5, 50)
    assert stages[0].rates(5) == pytest.approx([0, 0, 0, 0, 0.001])
    assert stages[1].rates(5) == pytest.approx([0.0001, 0, 0, 0, 0])
    assert stages[-1].rates(5) == pytest.approx([0.0001] * 4 + [0.001])


def test_chain_thaw_without_an_epoch_for_all_is_refused():
    with pytest.raises(ValueError, match="epochs is 5, expected at least 6"):
        chain_thaw(5, 5)


def test_the_ratio_between_neighbouring_groups_is_2_6_in_both_models():
    for n_groups in (4, 5):  # the language model's and the classifier's
        (stage,) = full(1, 0.01)
        rates = stage.rates(n_groups)
        assert rates[-1] == pytest.approx(0.01)
        ratios = [high / low for low, high in zip(rates, rates[1:], strict=False)]
        assert ratios == pytest.approx([2.6] * (n_groups - 1))


def test_explicit_multipliers_are_used_as_they_are():
    (stage,) = full(1, 0.006, discriminative=(1 / 6, 1 / 3, 1.0, 1 / 2))  # the authors' LM script
    assert stage.rates(4) == pytest.approx([0.001, 0.002, 0.006, 0.003])


def test_multipliers_for_another_number_of_groups_are_refused():
    (stage,) = full(1, 0.01, discriminative=(1.0, 1.0))
    with pytest.raises(ValueError, match="2 multipliers, but the model has 5"):
        stage.rates(5)


def test_a_group_that_the_model_lacks_is_refused():
    with pytest.raises(ValueError, match="trains group -6, but the model has 5 groups"):
        Stage("s", 1, 0.01, (-6,)).groups(5)
    with pytest.raises(ValueError, match="trains group 5, but"):
        Stage("s", 1, 0.01, (5,)).groups(5)


def test_negative_and_positive_group_numbers_may_name_the_same_group():
    assert Stage("s", 1, 0.01, (-1, 4, 0)).groups(5) == (0, 4)


@pytest.mark.parametrize("fields, message", [
    ({"epochs": 0}, "epochs is 0"), ({"lr": 0.0}, "lr is 0.0"), ({"lr": float("nan")}, "lr is nan"),
    ({"trainable": ()}, "trainable is"), ({"trainable": (1, 1)}, "distinct"), ({"name": ""}, "name is empty"),
    ({"discriminative": 0.0}, "discriminative"), ({"discriminative": (1.0, -1.0)}, "discriminative"),
    ({"span": (0.5, 0.5)}, "span"), ({"span": (0.0, 1.5)}, "span"),
])
def test_impossible_stages_are_refused_by_the_fields_name(fields, message):
    with pytest.raises(ValueError, match=message):
        Stage(**{"name": "s", "epochs": 1, "lr": 0.01, **fields})


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("one_schedule", [True, False])
def test_simulate_gives_each_groups_closed_form_at_every_step(schedule, one_schedule):
    n_groups, epochs, steps, lr = 4, 6, 5, 0.01
    stages = gradual(n_groups, epochs, lr, schedule=schedule, one_schedule=one_schedule)
    frame = simulate(phase(*stages), n_groups, steps)
    assert len(frame) == epochs * steps * n_groups
    for row in frame.itertuples():
        opened = min(row.step // steps + 1, n_groups)
        first, length = (opened - 1) * steps, steps if opened < n_groups else (epochs - n_groups + 1) * steps
        x = row.step / (epochs * steps) if one_schedule else (row.step - first) / length
        trains = row.group >= n_groups - opened
        expected = lr / 2.6 ** (n_groups - 1 - row.group) * schedule.factor(x) if trains else 0.0
        assert row.lr == pytest.approx(expected, abs=1e-12) and row.trainable == trains


def test_simulate_shows_the_cycled_momentum():
    frame = simulate(phase(*full(2, 0.01, schedule=one_cycle()), moms=(0.8, 0.7, 0.8)), 4, 50)
    momentum = frame.groupby("step")["momentum"].first()
    assert momentum.iloc[0] == pytest.approx(0.8) and momentum.min() == pytest.approx(0.7)
    assert momentum.idxmin() == 25  # where the rate peaks


def test_simulate_without_a_step_is_refused():
    with pytest.raises(ValueError, match="steps_per_epoch is 0"):
        simulate(phase(*full(1, 0.01)), 4, 0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_optimiser_really_has_the_simulated_rates_at_every_step_of_a_run(schedule):
    import fastai.callback.progress  # noqa: F401  (gives Learner its no_bar)
    import torch
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch.utils.data import DataLoader, TensorDataset

    from ulmfit_fastai.training.callbacks import StageSchedule

    data = TensorDataset(torch.randn(24, 3), torch.randn(24, 1))
    dls = DataLoaders(DataLoader(data, batch_size=4), DataLoader(data, batch_size=4), device="cpu")
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
    learn = Learner(dls, net, loss_func=torch.nn.functional.mse_loss,
                    splitter=lambda model: [list(layer.parameters()) for layer in model])
    moms = (0.8, 0.7, 0.8) if schedule.kind == "one_cycle" else (0.7,)
    plan = phase(*gradual(3, 4, 0.01, schedule=schedule), moms=moms)
    seen: list[tuple[int, str, int, float, float]] = []

    class Watch(Callback):
        """Reads the optimiser just before it steps."""

        order = 75

        def before_step(self):
            for group, hypers in enumerate(self.learn.opt.hypers):
                seen.append((len(seen) // 3, stage.name, group, hypers["lr"], hypers["mom"]))

    for stage in plan.stages:
        with learn.no_bar(), learn.no_logging():
            learn.fit(stage.epochs, cbs=[StageSchedule(stage, plan), Watch()])
    expected = simulate(plan, 3, 6)
    assert len(seen) == len(expected) == 4 * 6 * 3
    for (step, name, group, lr, mom), row in zip(seen, expected.itertuples(), strict=True):
        assert (step, name, group) == (row.step, row.stage, row.group)
        assert lr == pytest.approx(row.lr, abs=1e-12) and mom == pytest.approx(row.momentum, abs=1e-12)


def test_a_stage_can_be_changed_with_dataclasses_replace_and_is_checked_again():
    (stage,) = full(1, 0.01)
    assert replace(stage, lr=0.1).lr == 0.1
    with pytest.raises(ValueError, match="lr is -1"):
        replace(stage, lr=-1)
