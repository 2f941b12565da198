"""The loop: rates as the closed form says, frozen means frozen, and a resumed run ends with the same numbers."""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from stops import StopAt

from ulmfit_fastai.model.learners import group_table, set_trainable
from ulmfit_fastai.recipe.freezing import chain_thaw, gradual
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.rates import simulate
from ulmfit_fastai.recipe.schedules import cosine, one_cycle, stlr
from ulmfit_fastai.results.folder import RunFolder, RunMismatch
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import estimate, progress, runs, session
from ulmfit_fastai.training.baseline import tfidf_baseline
from ulmfit_fastai.training.callbacks import Budget, derived_seed
from ulmfit_fastai.training.loop import PhaseFit
from ulmfit_fastai.training.session import Conditions


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=80, n_test=40, n_unsup=40, seed=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def recipe(**changes):
    return preset("tiny").replace(**{"precision": "fp32", **changes})


def work(recipe_, reviews, cache, out, **budget):
    folder = RunFolder(out)
    folder.open({"recipe": recipe_.to_dict(), "recipe_hash": recipe_.hash, "data": {"fingerprint": "x"}})
    data = runs.prepare(recipe_, reviews, cache=cache, progress=False)
    return runs.Run(recipe_, data, folder, Conditions(torch.device("cpu"), Budget(**budget)))


def fit(learn, phase, folder, *, name="classifier", classifies=True, callbacks=(), progress=False, **budget):
    return PhaseFit(learn, phase, folder, name=name, direction="forward", seed=0, classifies=classifies,
                    budget=Budget(**budget), progress=progress, extra_callbacks=tuple(callbacks)).fit()


class Watch(Callback):
    """Notes the rates and momenta that the optimiser has when it steps."""

    order = 200

    def __init__(self):
        self.rows = []

    def before_step(self):
        self.rows.append([(h["lr"], h["mom"]) for h in self.learn.opt.hypers])


STAGES = {
    "gradual stlr over all": gradual(4, 6, 0.01, schedule=stlr()),
    "gradual stlr per step": gradual(4, 6, 0.01, schedule=stlr(), one_schedule=False),
    "gradual cosine": gradual(4, 5, 0.01, schedule=cosine()),
    "one cycle": gradual(4, 5, 0.01, schedule=one_cycle(), one_schedule=False),
    "chain-thaw": chain_thaw(4, 6),
}


@pytest.mark.parametrize("name", STAGES)
def test_every_group_has_the_rate_of_the_closed_form_at_every_step(name, reviews, cache, tmp_path):
    r = recipe()
    r = r.replace(**{"classifier.stages": STAGES[name], "classifier.optimizer.moms": (0.7,)})
    w = work(r, reviews, cache, tmp_path / "run")
    learn, watch = w.build_classifier("forward", None), Watch()
    fit(learn, r.classifier, w.folder, callbacks=[watch])
    expected = simulate(r.classifier, 4, len(learn.dls.train))
    assert len(watch.rows) == len(expected) // 4
    for (_, group), part in expected.groupby(["step", "group"]):
        lr, mom = watch.rows[part["step"].iloc[0]][group]
        assert lr == pytest.approx(part["lr"].iloc[0], rel=1e-9, abs=1e-15)
        assert mom == pytest.approx(part["momentum"].iloc[0])


def test_cycled_momentum_reaches_the_optimiser(reviews, cache, tmp_path):
    r = recipe()
    w = work(r, reviews, cache, tmp_path / "run")
    learn, watch = w.build_classifier("forward", None), Watch()
    fit(learn, r.classifier, w.folder, callbacks=[watch])
    assert {round(row[0][1], 3) for row in watch.rows} >= {0.8} and min(row[0][1] for row in watch.rows) < 0.75


def test_variable_length_batches_rescale_the_rate(reviews, cache, tmp_path):
    r = recipe(**{"lm.variable_bptt": True})
    w = work(r, reviews, cache, tmp_path / "run")
    learn = w.build_lm(r.lm, "forward", None)
    seen = []

    class Lengths(Callback):
        order = 200

        def before_step(self):
            seen.append((self.learn.xb[0].shape[1], self.learn.opt.hypers[-1]["lr"]))

    fit(learn, r.lm, w.folder, name="lm", classifies=False, callbacks=[Lengths()])
    steps = len(learn.dls.train)
    assert len({length for length, _ in seen}) > 3
    for t, (length, lr) in enumerate(seen[:steps]):
        stage = r.lm.stages[0]
        assert lr == pytest.approx(stage.lr * stage.factor(t / (steps * stage.epochs)) * length / r.lm.bptt)


@pytest.mark.parametrize("name", ["lm", "classifier"])
def test_gradients_are_clipped_to_the_norm_of_the_recipe_and_keep_their_direction(name, reviews, cache, tmp_path):
    limit = 0.05
    r = recipe(**{f"{name}.optimizer.clip": limit})
    w = work(r, reviews, cache, tmp_path / "run")
    learn = w.build_lm(r.lm, "forward", None) if name == "lm" else w.build_classifier("forward", None)
    pairs = []

    def gradients():
        return torch.cat([p.grad.flatten() for p in learn.model.parameters() if p.grad is not None]).clone()

    class Before(Callback):
        order = 5  # fastai's GradientClip has 11

        def before_step(self):
            self.found = gradients()

    class After(Callback):
        order = 200

        def before_step(self):
            pairs.append((before.found, gradients()))

    before = Before()
    phase = r.phase(name)
    phase = r.replace(**{f"{name}.stages": (phase.stages[-1],)}).phase(name)
    fit(learn, phase, w.folder, name=name, classifies=name == "classifier", callbacks=[before, After()])
    assert pairs and max(float(raw.norm()) for raw, _ in pairs) > limit
    for raw, clipped in pairs:
        torch.testing.assert_close(clipped, raw * min(1.0, limit / (float(raw.norm()) + 1e-6)))


@pytest.mark.parametrize("fast", [True, False])
def test_what_is_frozen_stays_bit_for_bit(fast, reviews, cache, tmp_path):
    r = recipe(fast=fast, **{"classifier.optimizer.wd": 0.1, "classifier.optimizer.moms": (0.7,)})
    w = work(r, reviews, cache, tmp_path / "run")
    learn = w.build_classifier("forward", None)
    whole = r.classifier.stages[-1]
    fit(learn, r.replace(**{"classifier.stages": (whole,)}).classifier, w.folder)  # gives Adam momentum to go on with
    groups = learn.splitter(learn.model)
    for trainable in ((3,), (0,), (1, 2)):
        before = {name: value.clone() for name, value in learn.model.state_dict().items()}
        only = whole.__class__(f"only {trainable}", 1, 0.01, trainable)
        fit(learn, r.replace(**{"classifier.stages": (only,)}).classifier, fresh(w.folder, tmp_path / str(trainable)))
        names = {p: n for n, p in learn.model.named_parameters()}
        moving = {names[p] for g in trainable for p in groups[g]}
        for name, value in learn.model.state_dict().items():
            if "encoder_dp" in name:
                continue  # the embedding's second name
            buffer = "running" in name or "num_batches" in name
            frozen = name not in moving and not (buffer and 3 in trainable)
            assert torch.equal(value, before[name]) == frozen, (trainable, name)


def fresh(folder, path):
    other = RunFolder(path)
    other.open({key: folder.run[key] for key in ("recipe", "recipe_hash", "data")})
    return other


def test_the_group_table_shows_layers_parameters_and_rates(reviews, cache, tmp_path):
    w = work(recipe(), reviews, cache, tmp_path / "run")
    learn = w.build_classifier("forward", None)
    set_trainable(learn, (2, 3))
    table = group_table(learn)
    assert table["layers"].tolist() == ["embedding", "LSTM 1", "LSTM 2", "head"]
    assert table["trainable"].tolist() == [False, False, True, True]
    assert table["parameters"].sum() == sum(p.numel() for p in learn.model.parameters())
    lm_table = group_table(w.build_lm(recipe().lm, "forward", None))
    assert lm_table["layers"].tolist()[:2] == ["LSTM 1", "LSTM 2"] and "embedding" in lm_table["layers"][2]
    with pytest.raises(ValueError, match="from 0 to 3, found"):
        set_trainable(learn, (4,))


def test_an_epochs_loss_counts_every_token_once(reviews, cache, tmp_path):
    r = recipe()
    w = work(r, reviews, cache, tmp_path / "run")
    learn = w.build_lm(r.lm, "forward", None)
    fit(learn, r.lm, w.folder, name="lm", classifies=False)
    model = learn.model.eval()
    model.reset()
    total = count = 0
    with torch.no_grad():
        for x, y in learn.dls.valid:
            logits = model(x)[0]
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
            count += y.numel()
    assert w.folder.history[-1]["valid_loss"] == pytest.approx(total / count, rel=1e-5)


def test_early_stopping_goes_back_to_the_best_epoch(reviews, cache, tmp_path):
    r = recipe()
    stage = r.classifier.stages[-1]
    long = stage.__class__("all", 12, 0.3, None, 1.0)  # a rate at which it gets worse before long
    r = r.replace(**{"classifier.stages": (long,), "classifier.early_stopping": 2, "classifier.optimizer.moms": (0.7,)})
    w = work(r, reviews, cache, tmp_path / "run")
    learn = w.build_classifier("forward", None)
    fit(learn, r.classifier, w.folder)
    losses = [row["valid_loss"] for row in w.folder.history]
    assert len(losses) == int(np.argmin(losses)) + 3 < 12
    assert w.folder.run["stages"][0]["status"] == "stopped early"
    model, total, count = learn.model.eval(), 0.0, 0
    with torch.no_grad():
        for x, y in learn.dls.valid:
            total, count = total + torch.nn.functional.cross_entropy(model(x)[0], y, reduction="sum"), count + len(y)
    assert float(total) / count == pytest.approx(min(losses), rel=1e-4)


def test_a_loss_that_is_no_number_stops_with_a_message(reviews, cache, tmp_path):
    r = recipe()
    w = work(r, reviews, cache, tmp_path / "run")
    learn = w.build_classifier("forward", None)
    with torch.no_grad():
        learn.model[1].layers[0][0].weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="no longer a number.*lower rate"):
        fit(learn, r.classifier, w.folder)


def numbers(folder):
    run = json.loads((folder / "run.json").read_text())
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
    return run["metrics"], history, pd.read_csv(folder / "predictions.csv"), pd.read_csv(folder / "rates.csv")


def same(a, b):
    assert a[0] == b[0]
    for one, other in zip(a[1:], b[1:]):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def uninterrupted(reviews, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    r = recipe(directions=("forward", "backward"), **{"lm.variable_bptt": True})
    runs.run(r, reviews, out, cache=cache, progress=False)
    return r, numbers(out)


@pytest.mark.parametrize("stops", [(3,), (1, 30, 7), (47, 2)])
def test_a_run_stopped_anywhere_goes_on_to_the_same_numbers(
    stops, uninterrupted, reviews, cache, tmp_path, monkeypatch
):
    r, expected = uninterrupted
    for n in stops:
        monkeypatch.setattr(session, "Budget", lambda *_, n=n: StopAt(n))
        runs.run(r, reviews, tmp_path / "run", cache=cache, progress=False)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped"
    monkeypatch.undo()
    runs.run(r, reviews, tmp_path / "run", cache=cache, progress=False)
    same(numbers(tmp_path / "run"), expected)


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.training import runs
from ulmfit_fastai.texts.synthetic import synthetic_reviews
r = preset("tiny").replace(precision="fp32", directions=("forward", "backward"), **{{"lm.variable_bptt": True}})
reviews = synthetic_reviews(n_train=80, n_test=40, n_unsup=40, seed=3)
runs.run(r, reviews, {out!r}, cache=Path({cache!r}), progress=False, checkpoint_every=0.0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_a_run_killed_at_a_random_moment_goes_on_to_the_same_numbers(uninterrupted, reviews, cache, tmp_path):
    r, expected = uninterrupted
    out = tmp_path / "run"
    script = KILLED.format(out=str(out), cache=str(cache))
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    waited = time.monotonic() + 120
    while not (out / "state" / "state.pt").exists() and time.monotonic() < waited and child.poll() is None:
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 3)))
    child.send_signal(signal.SIGKILL)
    error = child.communicate()[1].decode()
    assert (out / "run.json").exists(), error
    json.loads((out / "run.json").read_text())  # whole at any moment
    runs.run(r, reviews, out, cache=cache, progress=False)
    same(numbers(out), expected)


def test_a_finished_run_is_not_run_again(uninterrupted, reviews, cache, tmp_path):
    r = recipe()
    runs.run(r, reviews, tmp_path / "run", cache=cache, progress=False)
    before = (tmp_path / "run" / "run.json").read_bytes()
    runs.run(r, reviews, tmp_path / "run", cache=cache, progress=False)
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert not (tmp_path / "run" / "state" / "state.pt").exists()


def test_a_folder_of_another_recipe_or_other_texts_is_refused_and_kept(reviews, cache, tmp_path):
    runs.run(recipe(), reviews, tmp_path / "run", cache=cache, progress=False)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(RunMismatch, match="another recipe.*classifier.bs: 16 there, 8 here"):
        runs.run(recipe(**{"classifier.bs": 8}), reviews, tmp_path / "run", cache=cache, progress=False)
    others = synthetic_reviews(n_train=80, n_test=40, n_unsup=40, seed=4)
    with pytest.raises(RunMismatch, match="other texts"):
        runs.run(recipe(), others, tmp_path / "run", cache=cache, progress=False)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_folder_with_other_things_in_it_is_left_alone(reviews, cache, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected an empty folder or a run of ours, found thesis.txt"):
        runs.run(recipe(), reviews, tmp_path, cache=cache, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_starting_anew_moves_the_earlier_run_aside(reviews, cache, tmp_path):
    runs.run(recipe(), reviews, tmp_path / "run", cache=cache, progress=False)
    runs.run(recipe(seed=1), reviews, tmp_path / "run", cache=cache, progress=False, resume=False)
    kept = [p for p in tmp_path.iterdir() if p.name.startswith("run.before-")]
    assert len(kept) == 1 and (kept[0] / "run.json").exists()


def test_a_full_disk_is_said_and_the_last_state_stays_whole(reviews, cache, tmp_path, monkeypatch):
    from ulmfit_fastai.results import checkpoint

    folder = RunFolder(tmp_path / "run")
    folder.open({"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}})
    checkpoint.save_state(folder.state_file, {"step": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left on device.*free some space and run the same command again"):
        checkpoint.save_state(folder.state_file, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load_state(folder.state_file, torch.device("cpu")) == {"step": 1}
    assert {p.name for p in folder.state_file.parent.iterdir()} == {"state.pt", "lock"}


def test_a_damaged_checkpoint_is_named(tmp_path):
    from ulmfit_fastai.results.checkpoint import load_state

    path = tmp_path / "state.pt"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="state.pt: expected a checkpoint.*delete it and run again"):
        load_state(path, torch.device("cpu"))


def test_seeds_differ_by_place_and_not_by_run():
    assert derived_seed(0, "forward", "lm", 0) == derived_seed(0, "forward", "lm", 0)
    assert len({derived_seed(0, "forward", "lm", e) for e in range(50)} | {derived_seed(1, "forward", "lm", 0)}) == 51


def test_a_dry_run_says_what_it_would_do_and_trains_nothing(reviews, cache, tmp_path, caplog):
    with caplog.at_level("INFO"):
        runs.run(recipe(), reviews, tmp_path / "run", cache=cache, dry_run=True, progress=False)
    assert "in all about" in caplog.text and "classifier" in caplog.text
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_the_words_that_the_loss_samples(reviews, cache, monkeypatch):
    seen = []

    def seconds(learn, batches, groups):
        seen.append(getattr(learn.loss_func, "sampled_words", None))
        return 1.0 if seen[-1] is None else 0.2

    monkeypatch.setattr(estimate, "_seconds_a_batch", seconds)
    fast = recipe(fast=True).replace(**{"lm.sampled_words": 50})
    stage = runs.plan_run(fast, reviews, cache=cache).stages[0]
    assert stage["seconds_a_batch"] == pytest.approx(0.9 * 0.2 + 0.1)
    assert stage["seconds"] > stage["batches"] * 0.28 + 0.3  # validation, with all words
    assert seen[:2] == [None, 50] and seen[2:] == [None] * (len(seen) - 2)
    assert runs.plan_run(recipe(), reviews, cache=cache).stages[0]["seconds_a_batch"] == 1.0


def test_a_plan_times_the_loss_of_training_and_scales_a_batch_to_the_mean_one(reviews, cache, tmp_path, monkeypatch):
    w = work(recipe(fast=True), reviews, cache, tmp_path / "run")
    clock = itertools.count()
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))  # a batch takes a second
    learn = w.build_classifier("forward", None)
    longest = next(iter(learn.dls.train))
    mean, tokens = learn.dls.train_ds.lengths.sum() / len(learn.dls.train), int((longest[0] != 1).sum())
    assert tokens > 1.05 * mean
    assert estimate._seconds_a_batch(learn, [longest], (0, 1, 2, 3)) == pytest.approx(mean / tokens)
    learn, fused = w.build_lm(w.recipe.lm, "forward", None), []
    learn.model[1].register_forward_hook(lambda decoder, *_: fused.append(decoder.fused))
    estimate._seconds_a_batch(learn, [next(iter(learn.dls.train))], (0, 1, 2))
    assert fused == [True, True]


def test_the_time_left_in_a_run_counts_the_stages_to_come():
    stages = [{"direction": direction, "phase": phase, "seconds": seconds}
              for direction in ("forward", "backward") for phase, seconds in
              (("lm", 100), ("classifier", 10), ("classifier", 20), ("classifier", 40))]
    plan = estimate.Plan(stages, test_seconds=3)
    assert plan.rest_of_run("backward", "classifier", 0, 5) == 5 + 20 + 40 + 3
    assert plan.rest_of_run("backward", "classifier", 2, 5) == 5 + 3
    assert plan.rest_of_run("forward", "lm", 0, 50) == 50 + 70 + 170 + 3
    assert plan.rest_of_run("forward", "pretrain", 1, 50) == 50 + 3


def test_a_run_with_bars_stopped_in_mid_epoch_goes_on(reviews, cache, tmp_path):
    r = recipe(directions=("forward", "backward"))
    folder = runs.run(r, reviews, tmp_path / "run", cache=cache, time_budget=1e-6)
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "stopped" and (folder / "state" / "state.pt").exists()
    state = torch.load(folder / "state" / "state.pt", weights_only=True)
    assert state["batch"] > 0
    runs.run(r, reviews, folder, cache=cache)
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_two_processes_never_work_in_one_folder(tmp_path):
    header = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}
    RunFolder(tmp_path / "run").open(header)
    held = RunFolder(tmp_path / "run")
    held.open(header)
    program = ("import sys\nfrom ulmfit_fastai.results.folder import RunFolder\ntry:\n    RunFolder(sys.argv[1]).open("
               "{'recipe': {}, 'recipe_hash': 'a', 'data': {'fingerprint': 'x'}}, resume=sys.argv[2] == 'resume')\n"
               "except ValueError as error:\n    print(error)\nelse:\n    print('opened')\n")

    def other(how):
        return subprocess.run([sys.executable, "-c", program, str(tmp_path / "run"), how], capture_output=True,
                              text=True, check=True).stdout

    assert "another process is running in this folder" in other("resume")
    assert "another process is running in this folder" in other("anew") and len(list(tmp_path.iterdir())) == 1
    del held
    assert "opened" in other("resume")


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    header = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}
    RunFolder(tmp_path / "run").open(header)
    (tmp_path / "run" / ".history.csv.0d39daa0.part").write_text("half")
    RunFolder(tmp_path / "run").open(header)
    assert not list((tmp_path / "run").glob(".*.part"))


@pytest.mark.parametrize("content, said", [("[]", "not the record of a run"), ("{}", "not the record of a run"),
                                           ('{"schema": 1}', "it lacks recipe, recipe_hash, data, status, stages")])
def test_a_run_json_of_something_else_is_named(content, said, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        RunFolder(tmp_path).open({"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}})
    assert (tmp_path / "run.json").read_text() == content


def test_a_history_that_is_no_text_is_named(tmp_path):
    header = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}
    RunFolder(tmp_path / "run").open(header)
    (tmp_path / "run" / "history.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="history.csv is damaged"):
        RunFolder(tmp_path / "run").open(header)


def test_a_file_in_the_place_of_the_run_folder_is_left_alone(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="expected a folder, or a place for one, found a file; choose another out="):
        RunFolder(tmp_path / "run").open({"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}})
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("content", [[1], {"a": 1}])
def test_a_file_that_is_no_checkpoint_is_named(content, reviews, cache, tmp_path):
    w = work(recipe(), reviews, cache, tmp_path / "run")
    torch.save(content, w.folder.state_file)
    with pytest.raises(ValueError, match="state.pt: expected a checkpoint, found .*; delete it and run"):
        fit(w.build_classifier("forward", None), w.recipe.classifier, w.folder)


def test_lost_predictions_are_made_again(reviews, cache, tmp_path):
    folder = runs.run(recipe(), reviews, tmp_path / "run", cache=cache, progress=False)
    before = (folder / "predictions.csv").read_bytes()
    metrics = json.loads((folder / "run.json").read_text())["metrics"]
    (folder / "predictions.csv").unlink()
    for file in (folder / "state").glob("*.npy"):
        file.unlink()
    runs.run(recipe(), reviews, folder, cache=cache, progress=False)
    assert (folder / "predictions.csv").read_bytes() == before
    assert json.loads((folder / "run.json").read_text())["metrics"] == metrics


def test_texts_without_words_still_have_a_result(cache, tmp_path):
    from ulmfit_fastai.texts.dataset import from_frame

    frame = pd.DataFrame({"text": ["...", "!!!", "?", "a"] * 10, "label": ["x", "y"] * 20})
    folder = runs.run(recipe(), from_frame(frame, text="text", label="label", test=0.2), tmp_path / "run", cache=cache,
                      progress=False, baseline=tfidf_baseline)
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "finished" and "baseline could not be made" in run["warnings"][0]


# -- what is shown ----------------------------------------------------------------------------------------------------

def test_without_a_terminal_the_log_says_how_long_it_takes_and_nothing_is_drawn(reviews, cache, tmp_path, monkeypatch,
                                                                                capsys, caplog):
    monkeypatch.setattr("ulmfit_fastai._progress.time", SimpleNamespace(monotonic=itertools.count(0, 200).__next__))
    with caplog.at_level("INFO", logger="ulmfit_fastai"):
        runs.run(recipe(), reviews, tmp_path / "run", cache=cache, progress=True, until="lm")
    assert any(re.fullmatch(r"forward lm, all: .* left.* \(\d+ % done\)", line) for line in caplog.messages)
    assert "|" not in "".join(capsys.readouterr())


def test_an_error_in_a_stage_takes_its_bar_away(reviews, cache, tmp_path, monkeypatch):
    class Fails(Callback):
        def after_batch(self):
            raise ZeroDivisionError("of a batch")

    w = work(recipe(), reviews, cache, tmp_path / "run")
    learn = w.build_lm(recipe().lm, "forward", None)
    closed = []
    monkeypatch.setattr("ulmfit_fastai._progress.Bar.close", lambda bar: closed.append(bar.label))
    with pytest.raises(ZeroDivisionError):
        fit(learn, recipe().lm, w.folder, name="lm", classifies=False, callbacks=[Fails()], progress=True)
    assert closed == ["forward lm, all"]


def test_an_epoch_is_logged_in_words():
    metrics = {"train_loss": 4.01706916, "valid_loss": None, "perplexity": 15.692, "accuracy": 0.91}
    assert progress.in_words(metrics) == "train loss 4.0171, perplexity 15.7, accuracy 91.0%"
