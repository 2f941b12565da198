"""Schedules against the paper's formula and against fastai's own functions."""

from __future__ import annotations

import math

import pytest

from ulmfit_fastai.recipe.schedules import (
    KINDS,
    Schedule,
    constant,
    cosine,
    one_cycle,
    stlr,
    stlr_as_printed,
    stlr_factor,
)


@pytest.mark.parametrize("cut_frac, ratio", [(0.1, 32.0), (0.25, 8.0), (0.5, 10.0)])
def test_stlr_is_the_printed_formula_wherever_the_cut_is_a_whole_step(cut_frac, ratio):
    totals = [t for t in range(4, 600) if abs(t * cut_frac - round(t * cut_frac)) < 1e-9 and t * cut_frac >= 1]
    assert len(totals) > 50
    for total in totals:
        for t in range(total):
            printed = stlr_as_printed(t, total, cut_frac=cut_frac, ratio=ratio)
            assert stlr_factor(t / total, cut_frac=cut_frac, ratio=ratio) == pytest.approx(printed, abs=1e-12)


@pytest.mark.parametrize("total, negative", [(15, 4), (19, 8), (99, 6)])
def test_the_printed_formula_goes_below_zero_and_stlr_does_not(total, negative):
    assert sum(stlr_as_printed(t, total) < 0 for t in range(total)) == negative
    assert min(stlr_factor(t / total) for t in range(total)) >= 1 / 32


def test_the_printed_formula_divides_by_zero_below_ten_steps_and_stlr_does_not():
    with pytest.raises(ZeroDivisionError):
        stlr_as_printed(0, 9)
    for total in range(1, 10):
        assert all(1 / 32 <= stlr_factor(t / total) <= 1 for t in range(total))


@pytest.mark.parametrize("cut_frac", [0.1, 1 / 3, 1 / 8, 0.9])
@pytest.mark.parametrize("ratio", [1.0, 8.0, 32.0])
def test_stlr_rises_to_one_at_the_cut_and_falls_to_one_over_ratio(cut_frac, ratio):
    schedule = stlr(cut_frac=cut_frac, ratio=ratio)
    assert schedule.factor(0.0) == pytest.approx(1 / ratio)
    assert schedule.factor(cut_frac) == pytest.approx(1.0)
    assert schedule.factor(1.0) == pytest.approx(1 / ratio)
    xs = [i / 500 for i in range(501)]
    values = [schedule.factor(x) for x in xs]
    rising = [b >= a - 1e-12 for x, a, b in zip(xs[1:], values, values[1:], strict=False) if x <= cut_frac]
    falling = [b <= a + 1e-12 for x, a, b in zip(xs, values, values[1:], strict=False) if x >= cut_frac]
    assert all(rising) and all(falling) and rising and falling


def test_the_authors_own_clr_with_div_and_cut_div_is_stlr_with_ratio_and_cut_frac():
    # fastai 0.7's use_clr=(div, cut_div): after the cut it divides by (steps - cut), which is the safe denominator.
    div, cut_div, steps = 8, 8, 320
    cut = steps // cut_div
    schedule = stlr(cut_frac=1 / cut_div, ratio=div)
    for t in range(steps):
        p = t / cut if t <= cut else 1 - (t - cut) / (steps - cut)
        assert schedule.factor(t / steps) == pytest.approx((1 + p * (div - 1)) / div)


@pytest.mark.parametrize("div, div_final, pct_start", [(25.0, 1e5, 0.25), (10.0, 100.0, 0.4)])
def test_one_cycle_is_fastais_combined_cosine(div, div_final, pct_start):
    from fastai.callback.schedule import combined_cos

    theirs = combined_cos(pct_start, 1 / div, 1.0, 1 / div_final)
    momentum = combined_cos(pct_start, 0.95, 0.85, 0.95)
    schedule = one_cycle(div=div, div_final=div_final, pct_start=pct_start)
    for i in range(1000):
        assert schedule.factor(i / 1000) == pytest.approx(theirs(i / 1000), abs=1e-6)  # fastai computes in fp32
        assert schedule.momentum(i / 1000, (0.95, 0.85, 0.95)) == pytest.approx(momentum(i / 1000), abs=1e-6)


def test_one_cycle_is_what_fit_one_cycle_sets_at_every_step():
    import fastai.callback.progress  # noqa: F401  (gives Learner its no_bar)
    import torch
    from fastai.callback.schedule import Learner
    from fastai.data.core import DataLoaders
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.randn(40, 3), torch.randn(40, 1))
    dls = DataLoaders(DataLoader(data, batch_size=4), DataLoader(data, batch_size=4), device="cpu")
    learn = Learner(dls, torch.nn.Linear(3, 1), loss_func=torch.nn.functional.mse_loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, lr_max=0.02, moms=(0.8, 0.7, 0.8))
    schedule, steps = one_cycle(), 30
    assert len(learn.recorder.hps["lr"]) == steps
    for t in range(steps):
        assert 0.02 * schedule.factor(t / steps) == pytest.approx(learn.recorder.hps["lr"][t], rel=1e-4)
        ours = schedule.momentum(t / steps, (0.8, 0.7, 0.8))
        assert ours == pytest.approx(learn.recorder.hps["mom"][t], abs=1e-6)


def test_cosine_anneals_from_the_full_rate_to_nothing_as_fastais_schedcos():
    from fastai.callback.schedule import SchedCos

    theirs = SchedCos(1.0, 0.0)
    assert cosine().factor(0.0) == 1.0
    assert cosine().factor(0.5) == pytest.approx(0.5)
    assert cosine().factor(1.0) == pytest.approx(0.0, abs=1e-12)
    for i in range(101):
        assert cosine().factor(i / 100) == pytest.approx(theirs(i / 100), abs=1e-12)


def test_constant_stays_where_it_is():
    assert {constant().factor(i / 10) for i in range(11)} == {1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_no_schedule_ever_gives_a_negative_or_infinite_rate_however_short_the_run(kind):
    schedule = Schedule(kind)
    for total in range(1, 40):
        for t in range(total):
            assert 0 < schedule.factor(t / total) <= 1 and math.isfinite(schedule.factor(t / total))


@pytest.mark.parametrize("kind", KINDS)
def test_one_momentum_is_constant_under_every_schedule(kind):
    assert {Schedule(kind).momentum(i / 10, (0.7,)) for i in range(10)} == {0.7}


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "one_cycle"])
def test_momentum_cycles_under_one_cycle_only(kind):
    with pytest.raises(ValueError, match="one_cycle only"):
        Schedule(kind).momentum(0.5, (0.8, 0.7, 0.8))


def test_two_momentum_values_are_refused():
    with pytest.raises(ValueError, match="2 values"):
        one_cycle().momentum(0.5, (0.8, 0.7))


@pytest.mark.parametrize("fields, message", [
    ({"kind": "linear"}, "'linear'; expected one of constant, stlr, one_cycle, cosine"),
    ({"cut_frac": 0.0}, "schedule.cut_frac is 0.0"), ({"cut_frac": 1.0}, "schedule.cut_frac"),
    ({"pct_start": 1.5}, "schedule.pct_start"), ({"ratio": 0.5}, "schedule.ratio"), ({"div": 0.0}, "schedule.div is"),
    ({"div_final": math.inf}, "schedule.div_final"),
])
def test_impossible_schedules_are_refused_by_the_fields_name(fields, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**fields)


@pytest.mark.parametrize("x", [-0.1, 1.01])
def test_a_moment_outside_training_is_refused(x):
    with pytest.raises(ValueError, match="from 0 to 1"):
        stlr().factor(x)
