"""Callbacks of the user's: what they see of a run, what is kept of them, and what the run says of them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.learner import Recorder
from matplotlib.figure import Figure
from some_texts import reviews, tiny
from stops import StopAt

from ulmfit_fastai import ULMFiT, pretrain, reproduce
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.recorder import read_record, record_file
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import runs, session
from ulmfit_fastai.training.beside import as_callbacks, memory_of


@pytest.fixture(scope="module")
def texts():
    return synthetic_reviews(n_train=80, n_test=40, n_unsup=40, seed=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def recipe():
    return preset("tiny").replace(precision="fp32")


class Notes(Callback):
    """Notes every event's place, as a log to Weights & Biases would."""

    order, only_watches = 60, True  # after the Recorder

    def __init__(self):
        self.batches, self.epochs, self.shares, self.smooth, self.logs = [], [], [], [], []

    def after_batch(self):
        if self.learn.training:
            self.batches.append([self.learn.epoch, self.learn.iter, self.learn.train_iter])
            self.shares.append(round(float(self.learn.pct_train), 6))
            self.smooth.append(float(self.learn.smooth_loss))

    def after_epoch(self):
        self.epochs.append([self.learn.epoch, len(self.learn.recorder.values),
                            *map(float, self.learn.recorder.values[-1])])
        self.logs.append(list(self.learn.recorder.metric_names[:-1]))
        assert len(self.learn.recorder.log) == len(self.learn.recorder.metric_names)  # what W&B and TensorBoard pair


class Stops(Callback):
    """Ends a fit after its second epoch, before or after the run has counted it."""

    def __init__(self, order):
        self.order = order

    def after_epoch(self):
        if self.learn.epoch == 1:
            raise CancelFitException


def train(recipe, texts, out, cache, *cbs):
    runs.run(recipe, texts, out, cache=cache, progress=False, cbs=list(cbs))
    return json.loads((out / "run.json").read_text())


def numbers(out):
    return {path.name: path.read_bytes() for path in [*out.glob("*.safetensors"), out / "predictions.csv"]}


@pytest.fixture(scope="module")
def whole(recipe, texts, cache, tmp_path_factory):
    out, seen = tmp_path_factory.mktemp("whole") / "run", Notes()
    train(recipe, texts, out, cache, seen)
    return out, seen


def test_a_callback_sees_every_batch_and_epoch_of_every_stage(whole, recipe):
    out, seen = whole
    run = json.loads((out / "run.json").read_text())
    assert len(seen.epochs) == sum(stage["epochs"] for stage in run["stages"]) == len(pd.read_csv(out / "history.csv"))
    history = pd.read_csv(out / "history.csv")
    np.testing.assert_allclose([row[3] for row in seen.epochs], history["valid_loss"], rtol=1e-9)
    assert seen.batches[0] == [0, 0, 1] and max(seen.shares) == 1
    assert seen.logs[0] == ["epoch", "train_loss", "valid_loss", "perplexity"] and seen.logs[-1][-1] == "accuracy"
    assert len(seen.smooth) == len(seen.batches) and seen.smooth[-1] != seen.smooth[-2]


def test_what_only_watches_changes_no_number(whole, recipe, texts, cache, tmp_path):
    train(recipe, texts, tmp_path / "without", cache)
    assert numbers(whole[0]) == numbers(tmp_path / "without")


@pytest.mark.parametrize("stops", [(3,), (1, 30, 7), (47, 2)])
def test_a_resumed_run_shows_a_callback_what_one_sitting_shows_it(stops, whole, recipe, texts, cache, tmp_path,
                                                                  monkeypatch):
    out = tmp_path / "run"
    for n in stops:
        monkeypatch.setattr(session, "Budget", lambda *_, n=n: StopAt(n))
        assert train(recipe, texts, out, cache, Notes())["status"] == "stopped"  # a new one, as in a new process
    monkeypatch.undo()
    seen = Notes()
    train(recipe, texts, out, cache, seen)
    assert seen.batches == whole[1].batches and seen.epochs == whole[1].epochs
    np.testing.assert_allclose(seen.shares, whole[1].shares, atol=1e-5)
    assert numbers(out) == numbers(whole[0])


def test_the_recorder_of_a_resumed_phase_is_that_of_one_sitting(whole, recipe, texts, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(7))
    train(recipe, texts, tmp_path / "run", cache)
    monkeypatch.undo()
    train(recipe, texts, tmp_path / "run", cache)
    for phase in ("lm", "classifier"):
        once, twice = (read_record(record_file(out, phase, "forward")) for out in (whole[0], tmp_path / "run"))
        assert once == twice and len(once["losses"]) == len(once["lrs"]) == once["iters"][-1] > len(once["iters"])


def test_a_csv_log_goes_on_over_stages_and_a_resume(recipe, texts, cache, tmp_path, monkeypatch):
    log = tmp_path / "log.csv"
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(40))
    train(recipe, texts, tmp_path / "run", cache, CSVLogger(log))
    monkeypatch.undo()
    train(recipe, texts, tmp_path / "run", cache, CSVLogger(log))
    rows = [row for row in csv.reader(log.open()) if row[0] != "epoch"]
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    np.testing.assert_allclose([float(row[2]) for row in rows], history["valid_loss"], rtol=1e-9)


@pytest.mark.parametrize("order", [0, 9000])
def test_a_callback_may_end_a_stage_and_the_run_says_so(order, recipe, texts, cache, tmp_path):
    longer = recipe.replace(**{"classifier.stages.-1.epochs": 4})
    run = train(longer, texts, tmp_path / "run", cache, Stops(order))
    last = run["stages"][-1]
    assert run["status"] == "finished" and (last["status"], last["epochs_done"]) == ("stopped early", 2)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert len(history[(history["phase"] == "classifier") & (history["stage"] == "all")]) == 2
    caveats = "\n".join(Result.load(tmp_path / "run").caveats)
    assert "stage all: a callback ended it after 2 of 4 epochs" in caveats and "may have changed" in caveats


def test_a_run_killed_after_a_callback_ended_a_stage_does_not_train_it_on(recipe, texts, cache, tmp_path, monkeypatch):
    longer = recipe.replace(**{"classifier.stages.0.epochs": 4})
    expected = train(longer, texts, tmp_path / "once", cache, Stops(0))

    class Killed(Stops):
        def before_batch(self):
            if self.learn.opt.hypers[0]["lr"] > 0 and self.learn.dls.train.epoch == 4:  # in the next stage
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(longer, texts, tmp_path / "run", cache, Killed(0))
    found = train(longer, texts, tmp_path / "run", cache, Stops(0))
    assert [s["epochs_done"] for s in found["stages"]] == [s["epochs_done"] for s in expected["stages"]]
    assert numbers(tmp_path / "run") == numbers(tmp_path / "once")


def test_early_stopping_of_fastais_resumes_with_what_it_knew(recipe, texts, cache, tmp_path, monkeypatch):
    long = recipe.replace(**{"classifier.stages.-1.epochs": 9, "classifier.stages.-1.lr": 0.3})
    notes = Notes()
    once = train(long, texts, tmp_path / "once", cache, notes, EarlyStoppingCallback(patience=2))
    stop = len(notes.batches) + len(notes.epochs) - 4  # in the stage's last epoch, when it has waited for one
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(stop))
    assert train(long, texts, tmp_path / "run", cache, EarlyStoppingCallback(patience=2))["status"] == "stopped"
    monkeypatch.undo()
    twice = train(long, texts, tmp_path / "run", cache, EarlyStoppingCallback(patience=2))
    assert once["stages"][-1]["status"] == "stopped early"
    assert [s["epochs_done"] for s in twice["stages"]] == [s["epochs_done"] for s in once["stages"]]
    assert twice["callbacks"] == ["fastai.callback.tracker.EarlyStoppingCallback"]
    assert not any("may have changed" in text for text in twice["warnings"])


def test_what_a_callback_does_to_the_weights_at_a_stages_end_is_kept(recipe, texts, cache, tmp_path):
    best = SaveModelCallback(fname=str(tmp_path / "best"))
    run = train(recipe, texts, tmp_path / "run", cache, best)
    assert any("SaveModelCallback" in text for text in run["warnings"])


def test_a_run_without_callbacks_says_nothing_of_them(recipe, texts, cache, tmp_path):
    run = train(recipe, texts, tmp_path / "run", cache)
    assert "callbacks" not in run and run["warnings"] == []


def test_a_language_model_that_is_taken_over_brings_what_is_said_of_its_callbacks(recipe, texts, cache, tmp_path):
    train(recipe, texts, tmp_path / "first", cache, Stops(0))
    runs.run(recipe, texts, tmp_path / "second", cache=cache, progress=False, lm_from={"forward": tmp_path / "first"})
    run = json.loads((tmp_path / "second" / "run.json").read_text())
    assert run["callbacks"] and any("Stops" in text for text in run["warnings"])


def test_every_door_takes_callbacks(recipe, texts, tmp_path, monkeypatch):
    seen = Notes()
    result = reproduce(texts, recipe, out=tmp_path / "run", progress=False, cbs=seen)
    assert result is not None and len(seen.epochs) == len(result.history)
    lines = (json.dumps({"text": f"The film {i} was fine and the plot was not ."}) for i in range(60))
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    seen = Notes()
    pretrain(tmp_path / "corpus.jsonl", out=tmp_path / "lm", size="small", bs=2, bptt=8, min_freq=1, progress=False,
             cbs=[seen], model={"emb_sz": 8, "n_hid": 8, "n_layers": 1})
    assert seen.batches
    assert "test_beside.Notes" in json.loads((tmp_path / "lm" / "run.json").read_text())["callbacks"][0]


def test_the_learner_of_a_fitted_model_shows_its_training(tmp_path):
    model = tiny(cbs=Notes, out=tmp_path / "run").fit(*reviews())
    steps = len(model.learner.recorder.losses)
    assert steps and model.learner.recorder.hps["lr"][0] != model.learner.recorder.hps["lr"][-1]
    assert len(model.learner.recorder.plot_loss(skip_start=0, ax=Figure().subplots()).lines[0].get_xdata()) == steps
    model.learner.recorder.plot_sched()
    assert len(ULMFiT.load(tmp_path / "run").learner.recorder.losses) == steps
    (tmp_path / "run" / "state" / "recorder_classifier_forward.npz").write_bytes(b"half a file")
    assert isinstance(ULMFiT.load(tmp_path / "run").learner.recorder, Recorder)


def test_only_callbacks_are_taken():
    assert as_callbacks(None) == () and isinstance(as_callbacks(Notes)[0], Notes)
    with pytest.raises(ValueError, match="expected fastai callbacks, found 'csv'"):
        tiny(cbs=["csv"]).fit(*reviews())


def test_a_memory_is_what_a_checkpoint_can_hold():
    seen = Notes()
    seen.best, seen.file, seen.tensors = np.float64(0.5), open, [torch.ones(2)]
    memory = memory_of(seen)
    assert memory["best"] == 0.5 and type(memory["best"]) is float and "file" not in memory and "learn" not in memory
    assert torch.equal(memory["tensors"][0], torch.ones(2))
    assert "patience" not in memory_of(EarlyStoppingCallback(patience=3))
