"""The paper's ways of fine-tuning on fastai's own Learners and DataLoaders, and on ours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler  # noqa: F401 - patches plot_sched
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.metrics import accuracy
from fastai.text.data import TextBlock
from matplotlib.figure import Figure
from some_ids import some_ids, tiny_classifier, tiny_lm
from some_texts import reviews

from ulmfit_fastai import classifier_dataloaders, fit_gradual, fit_stlr, lm_dataloaders
from ulmfit_fastai.recipe.freezing import chain_thaw, gradual
from ulmfit_fastai.recipe.schedules import one_cycle, stlr
from ulmfit_fastai.training.any_learner import fit_stages


@pytest.fixture(scope="module")
def frame():
    texts, labels = reviews(48)
    return pd.DataFrame({"text": texts, "label": labels})


@pytest.fixture(scope="module")
def stock_classes(frame):
    block = DataBlock(blocks=(TextBlock.from_df("text", seq_len=20, n_workers=0, min_freq=1), CategoryBlock),
                      get_x=ColReader("text"), get_y=ColReader("label"), splitter=RandomSplitter(seed=0))
    return block.dataloaders(frame, bs=8, seq_len=20, num_workers=0)


@pytest.fixture(scope="module")
def stock_lm(frame):
    block = DataBlock(blocks=TextBlock.from_df("text", is_lm=True, n_workers=0, min_freq=1), get_x=ColReader("text"),
                      splitter=RandomSplitter(seed=0))
    return block.dataloaders(frame, bs=4, seq_len=6, num_workers=0)


@pytest.fixture(scope="module")
def our_classes():
    labels = ["a", "b"] * 20
    return classifier_dataloaders(some_ids(range(3, 43)), labels, classes=["a", "b"], train=range(32),
                                  valid=range(32, 40), bs=8, bptt=70, device="cpu")


@pytest.fixture(scope="module")
def our_lm():
    return lm_dataloaders(some_ids(range(3, 43)), train=range(32), valid=range(32, 40), bs=4, bptt=10, device="cpu")


class Watch(Callback):
    """Notes each group's rate as the optimiser steps, and the weights before each fit."""

    order = 200

    def __init__(self):
        self.rates, self.weights, self.moms = [], [], []

    def before_fit(self):
        self.weights.append({name: value.clone() for name, value in self.learn.model.state_dict().items()})

    def before_step(self):
        self.rates.append([hyper["lr"] for hyper in self.learn.opt.hypers])
        self.moms.append(self.learn.opt.hypers[0]["mom"])



def expected(stages, n_groups, steps):
    return [[rate * stage.factor(t / (steps * stage.epochs)) for rate in stage.rates(n_groups)]
            for stage in stages for t in range(steps * stage.epochs)]


@pytest.mark.parametrize("data", ["stock_classes", "our_classes"])
def test_gradual_unfreezing_on_a_stock_classifier_has_the_papers_rates(data, request):
    learn, watch = tiny_classifier(request.getfixturevalue(data), metrics=accuracy), Watch()
    n_groups, steps = len(learn.splitter(learn.model)), len(learn.dls.train)
    with learn.no_bar(), learn.no_logging():
        fit_gradual(learn, n_groups + 1, 0.01, cbs=[watch])
    np.testing.assert_allclose(watch.rates, expected(gradual(n_groups, n_groups + 1, 0.01, schedule=stlr()), n_groups,
                                                     steps), atol=1e-12)
    assert max(rate[-1] for rate in watch.rates) > 0.009  # and not a 32nd of it throughout
    assert watch.rates[-1][-1] / watch.rates[-1][-2] == pytest.approx(2.6)
    names = [name for name in watch.weights[0] if name.startswith("0.module.encoder.")]
    for before, after in zip(watch.weights, watch.weights[1:]):
        assert all(torch.equal(before[name], after[name]) for name in names)  # the last group to be opened


@pytest.mark.parametrize("data", ["stock_lm", "our_lm"])
def test_slanted_triangular_rates_on_a_stock_language_model(data, request):
    learn, watch = tiny_lm(request.getfixturevalue(data)), Watch()
    steps = len(learn.dls.train)
    with learn.no_bar(), learn.no_logging():
        fit_stlr(learn, 2, 0.004, cbs=watch)
    assert len(watch.rates) == 2 * steps and len(watch.rates[0]) == 3
    peak = max(watch.rates)
    assert watch.rates.index(peak) == pytest.approx(0.1 * 2 * steps, abs=1.0)
    assert watch.rates[0][-1] == pytest.approx(0.004 / 32) and peak[1] / peak[0] == pytest.approx(2.6)
    assert set(watch.moms) == {0.9}  # the optimiser's own


def test_the_recorder_keeps_every_step_of_unfreezing(our_classes):
    learn = tiny_classifier(our_classes, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        fit_gradual(learn, 5, 0.01)
    recorder, steps = learn.recorder, len(our_classes.train)
    assert len(recorder.losses) == len(recorder.hps["lr"]) == 5 * steps and len(recorder.values) == 5
    assert recorder.iters == [steps * epoch for epoch in range(1, 6)]
    assert len(recorder.plot_loss(skip_start=0, ax=Figure().subplots()).lines[0].get_xdata()) == 5 * steps
    recorder.plot_sched()


def test_any_stages_run_on_any_learner(our_classes):
    learn, watch = tiny_classifier(our_classes), Watch()
    n, steps = len(learn.splitter(learn.model)), len(our_classes.train)
    thaw = chain_thaw(n, n + 1, schedule=one_cycle())
    with learn.no_bar(), learn.no_logging():
        fit_stages(learn, thaw, cbs=watch)
    np.testing.assert_allclose(watch.rates, expected(thaw, n, steps), atol=1e-12)


def test_a_fit_of_no_epochs_is_refused(our_classes):
    with pytest.raises(ValueError, match="epochs is 0"):
        fit_gradual(tiny_classifier(our_classes), 0, 0.01)
