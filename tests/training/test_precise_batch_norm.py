"""Batch norm's statistics from a sample of texts: beside a computation text by text, and what it leaves alone."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.text.data import TextBlock
from fastai.text.learner import text_classifier_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config
from safetensors.torch import load_file
from some_ids import some_ids, tiny_lm
from some_texts import reviews as some_reviews
from stops import StopAt
from torch import nn

from ulmfit_fastai import lm_dataloaders
from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.model.batch_norm import set_statistics
from ulmfit_fastai.model.learners import FrozenBatchNorm, set_trainable
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.results.verdict import differences_in_scale
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import estimate, session
from ulmfit_fastai.training.callbacks import Budget
from ulmfit_fastai.training.phases import Run
from ulmfit_fastai.training.precise_batch_norm import PreciseBatchNorm
from ulmfit_fastai.training.prepare import prepare, some_rows
from ulmfit_fastai.training.runs import plan_run, run
from ulmfit_fastai.training.session import Conditions

MEANS = ("1.layers.0.0.running_mean", "1.layers.1.0.running_mean")
VARIANCES = ("1.layers.0.0.running_var", "1.layers.1.0.running_var")


def by_hand(net: nn.Module, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean and variance of what each batch norm reads of these texts, in float64 and without its module."""
    head, found, x = copy.deepcopy(net[1].layers).double(), {}, pooled.double()
    for name, layer in head.named_modules():
        if isinstance(layer, nn.BatchNorm1d):
            mean = x.mean(0)
            variance = (x - mean).square().sum(0) / (len(x) - 1)
            found[f"1.layers.{name}.running_mean"], found[f"1.layers.{name}.running_var"] = mean, variance
            x = (x - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias
        elif isinstance(layer, nn.Linear):
            x = x @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
        else:
            assert isinstance(layer, (nn.Dropout, nn.Sequential))
    assert set(found) == {*MEANS, *VARIANCES}
    return found


def same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(state[name].numpy(), value.detach().numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


def head() -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4), nn.ReLU()),
                           nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)))
    with torch.no_grad():
        for p in layers.parameters():
            p.uniform_(0.3, 1.5)
    return layers


def test_the_statistics_are_those_of_all_rows_in_every_layer():
    layers = nn.Sequential(nn.Identity(), nn.Module())
    layers[1].layers = head()
    rows = torch.randn(50, 6) * 3 + 2
    before = {k: v.clone() for k, v in layers[1].layers.named_parameters()}
    layers[1].layers[0][1].eval()
    set_statistics(layers[1].layers, rows)
    same(layers.state_dict(), by_hand(layers, rows))
    assert all(torch.equal(before[k], v) for k, v in layers[1].layers.named_parameters())
    assert [m.training for m in layers[1].layers.modules()] == [True, True, True, False, *[True] * 6]


def test_what_is_frozen_or_can_not_be_known_stays():
    layers, rows = head(), torch.randn(9, 6)
    before = copy.deepcopy(layers.state_dict())
    set_statistics(layers, rows[:1])
    layers[0][0].weight.requires_grad_(False)
    layers[1][0].weight.requires_grad_(False)
    set_statistics(layers, rows)
    assert all(torch.equal(before[k], v) for k, v in layers.state_dict().items())
    layers[1][0].weight.requires_grad_(True)
    set_statistics(layers, rows)
    assert torch.equal(before["0.0.running_mean"], layers[0][0].running_mean)
    assert not torch.equal(before["1.0.running_mean"], layers[1][0].running_mean)


# In a recipe


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=60, n_test=20, n_unsup=20, seed=3)


def recipe(texts: int | None = 25, **changes):
    return preset("tiny").replace(**{"precision": "fp32", "classifier.precise_batch_norm": texts, **changes})


def work(asked, reviews, out) -> Run:
    folder = RunFolder(out)
    folder.open({"recipe": asked.to_dict(), "recipe_hash": asked.hash, "data": {"fingerprint": "x"}})
    return Run(asked, prepare(asked, reviews, cache=None, progress=False), folder,
               Conditions(torch.device("cpu"), Budget()))


def outcome(out) -> tuple[dict, pd.DataFrame, dict]:
    record = json.loads((out / "run.json").read_text())
    history = pd.read_csv(out / "history.csv").drop(columns="seconds")
    return record["metrics"], history, load_file(out / "classifier_forward.safetensors")


@pytest.fixture(scope="module")
def whole(reviews, tmp_path_factory):
    """A run of it in one sitting, and one without it on the same language model."""
    out = tmp_path_factory.mktemp("whole")
    run(recipe(), reviews, out / "with", cache=None, progress=False)
    run(recipe(None), reviews, out / "without", cache=None, progress=False)
    return out


@pytest.mark.parametrize("texts", [25, 1000])
def test_a_runs_statistics_are_those_of_its_training_texts_read_one_by_one(texts, reviews, tmp_path):
    asked = recipe(texts, **{"model.classifier_dropouts.hidden": 0.4})
    one = work(asked, reviews, tmp_path)
    learn = one.build_classifier("forward", None)
    one.fit(learn, asked.classifier, "classifier", "forward")
    net, train = learn.model.eval(), one.data.splits.train
    assert len(train) > 25
    pooled = {}
    for row in train:
        start, stop = one.data.ids.offsets[row : row + 2]
        x = torch.from_numpy(one.data.ids.ids[start:stop].astype(np.int64))[None]
        net.reset()
        with torch.no_grad():
            states = net[0].module(x)[0]
        pooled[int(row)] = torch.cat([states[-1], states.amax(0), states.mean(0)])
    chosen = some_rows(train, texts, asked.seed)
    assert len(chosen) == min(texts, len(train)) and set(chosen) <= set(train)
    same(net.state_dict(), by_hand(net, torch.stack([pooled[int(row)] for row in chosen])))


def test_weights_and_training_losses_stay_and_what_is_measured_changes(whole):
    (found, history, state), (plain, before, old) = outcome(whole / "with"), outcome(whole / "without")
    changed = {name for name in state if not torch.equal(state[name], old[name])}
    assert changed == {*MEANS, *VARIANCES}
    classifier = history.phase == "classifier"
    assert (history.train_loss == before.train_loss).all()
    assert (history.valid_loss == before.valid_loss)[~classifier].all()
    assert (history.valid_loss != before.valid_loss)[classifier].all() and found != plain


def test_the_last_epoch_is_measured_with_what_is_saved(whole):
    metrics, history, _ = outcome(whole / "with")
    assert metrics["validation"]["forward"]["error"] == pytest.approx(100 * (1 - history.accuracy.iloc[-1]))


@pytest.mark.parametrize("stops", [(17,), (20,), (9, 5, 3)])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(stops, whole, reviews, tmp_path, monkeypatch):
    out = tmp_path / "run"
    for n in stops:
        monkeypatch.setattr(session, "Budget", lambda *_, n=n: StopAt(n))
        run(recipe(), reviews, out, cache=None, progress=False)
    monkeypatch.undo()
    run(recipe(), reviews, out, cache=None, progress=False)
    metrics, history, state = outcome(out)
    expected = outcome(whole / "with")
    assert metrics == expected[0]
    pd.testing.assert_frame_equal(history, expected[1], check_exact=True)
    assert all(torch.equal(state[name], value) for name, value in expected[2].items())


@pytest.mark.parametrize(("name", "value", "said"), [
    ("lm", 100, "only the classifier has batch norm"), ("pretrain", 100, "only the classifier has batch norm"),
    ("classifier", 1, "at least 2, or None"), ("classifier", 0, "at least 2, or None")])
def test_a_wrong_number_or_phase_is_refused_by_name(name, value, said):
    with pytest.raises(UlmfitError, match=f"precise_batch_norm.*{said}"):
        preset("tiny").replace(**{f"{name}.precise_batch_norm": value})


def test_it_is_off_in_what_reproduces_the_paper_and_changes_no_hash_where_it_is_off():
    for name in ("paper", "paper-wt103", "scripts", "fastai", "paper-small"):
        assert preset(name).classifier.precise_batch_norm is None
    assert recipe(None).hash == preset("tiny").replace(precision="fp32").hash != recipe().hash


def test_a_recipe_and_a_result_say_that_it_is_beyond_the_paper():
    asked = recipe(4000)
    assert "beyond     batch norm's statistics from 4,000 training texts" in repr(asked)
    assert "batch norm" not in repr(recipe(None))
    said = [differences_in_scale("imdb", each.to_dict(), {}) for each in (asked, recipe(None))]
    assert [sum("batch norm's statistics" in why for why in each) for each in said] == [1, 0]


def test_a_plan_counts_its_time(reviews, monkeypatch):
    monkeypatch.setattr(estimate, "_seconds_a_batch", lambda *_: 1.0)
    without, some, every = (plan_run(recipe(texts), reviews, cache=None).frame() for texts in (None, 25, 1000))
    classifier = without.phase == "classifier"
    more = (some.seconds - without.seconds)[classifier] / without.epochs[classifier]
    assert more.tolist() == pytest.approx([estimate.FORWARD_SHARE * 25 / 16] * classifier.sum())
    assert (every.seconds > some.seconds)[classifier].all() and (some.seconds == without.seconds)[~classifier].all()


# On fastai's own Learners


@pytest.fixture(scope="module")
def stock():
    texts, labels = some_reviews(48)
    block = DataBlock(blocks=(TextBlock.from_df("text", seq_len=20, n_workers=0, min_freq=1), CategoryBlock),
                      get_x=ColReader("text"), get_y=ColReader("label"), splitter=RandomSplitter(seed=0))
    return block.dataloaders(pd.DataFrame({"text": texts, "label": labels}), bs=8, seq_len=20, num_workers=0)


def stock_learner(dls):
    torch.manual_seed(0)
    config = {**awd_lstm_clas_config, "emb_sz": 12, "n_hid": 16, "n_layers": 2}
    return text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False, seq_len=20, max_len=400)


def fitted(dls, cbs):
    learn = stock_learner(dls)
    dls.train.rng = random.Random(5)
    with learn.no_bar(), learn.no_logging():
        torch.manual_seed(2)
        np.random.seed(2)
        random.seed(2)
        learn.fit(2, 1e-2, cbs=cbs)
    return learn


def test_a_stock_learner_has_the_statistics_of_its_training_texts_and_else_the_same_weights(stock):
    plain, learn = fitted(stock, []), fitted(stock, PreciseBatchNorm(None))
    state, before = learn.model.state_dict(), plain.model.state_dict()
    assert {name for name in state if not torch.equal(state[name], before[name])} == {*MEANS, *VARIANCES}
    pooled, net = [], learn.model.eval()
    for words, _ in [stock.train.dataset[i] for i in range(len(stock.train.dataset))]:
        net.reset()
        with torch.no_grad():
            states = net[0].module(torch.as_tensor(words)[None])[0]
        pooled.append(torch.cat([states[-1], states.amax(0), states.mean(0)]))
    expected = by_hand(net, torch.stack(pooled))
    # fastai's loader drops the texts of a last batch that isn't full, and its encoder the ends of some
    for name in MEANS:
        assert (state[name] - expected[name]).abs().max() < (before[name] - expected[name]).abs().max()


def test_what_it_reads_is_measured_in_the_same_epoch_and_draws_no_random_number(stock):
    class Look(Callback):
        order = 100

        def __init__(self):
            self.drawn, self.modes = [], []

        def after_train(self):
            self.modes.append(self.learn.model.training)

        def before_validate(self):
            self.drawn.append((torch.rand(1).item(), np.random.rand(), self.learn.dls.train.rng.getstate()))
            self.modes.append(self.learn.model.training)
            self.mean = self.learn.model.state_dict()[MEANS[0]].clone()

    looks = []
    for cbs in ([], [PreciseBatchNorm(16)]):
        look = Look()
        learn = fitted(stock, [*cbs, look])
        looks.append(look)
    assert looks[0].drawn == looks[1].drawn and looks[1].modes == [True, False] * 2
    assert torch.equal(looks[1].mean, learn.model.state_dict()[MEANS[0]])


def test_a_frozen_head_keeps_its_statistics(stock):
    learn = stock_learner(stock)
    before = copy.deepcopy(learn.model.state_dict())
    set_trainable(learn, (0, 1, 2))
    with learn.no_bar(), learn.no_logging():
        learn.create_opt()
        learn.fit(1, 1e-2, cbs=[PreciseBatchNorm(), FrozenBatchNorm()])
    after = learn.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in (*MEANS, *VARIANCES))


def test_a_model_without_such_a_head_and_a_wrong_number_are_refused_before_anything_is_trained():
    some_lm = lm_dataloaders(some_ids([60, 80, 90, 70]), bs=2, bptt=10, valid=[3], train=[0, 1, 2], device="cpu")
    with pytest.raises(UlmfitError, match="texts: expected at least 2"):
        PreciseBatchNorm(1)
    learn = tiny_lm(some_lm)
    state = copy.deepcopy(learn.model.state_dict())
    with learn.no_bar(), learn.no_logging(), pytest.raises(UlmfitError, match="whose second part has `layers`"):
        learn.fit(1, 1e-2, cbs=PreciseBatchNorm())
    assert all(torch.equal(state[name], value) for name, value in learn.model.state_dict().items())
