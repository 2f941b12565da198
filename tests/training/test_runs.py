"""A run: the rows that each of its phases reads, what it opens and borrows, what it keeps for an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ulmfit_fastai.experiments.reproduction import reproduce
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.predict import outputs
from ulmfit_fastai.predict.outputs import inference_loader
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.results.record import seconds_of
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training.baseline import tfidf_baseline
from ulmfit_fastai.training.phases import Run
from ulmfit_fastai.training.prepare import prepare
from ulmfit_fastai.training.runs import run
from ulmfit_fastai.training.session import Conditions


def test_after_an_epoch_only_so_many_validation_texts_are_read_and_at_the_end_all(tmp_path):
    reviews = synthetic_reviews(n_train=60, n_test=20, n_unsup=40)
    recipe = preset("tiny").replace(**{"valid_fraction": 0.5, "lm.valid_docs": 3, "classifier.valid_docs": 5})
    data = prepare(recipe, reviews, cache=tmp_path, progress=False)
    work = Run(recipe, data, RunFolder(tmp_path), Conditions(torch.device("cpu")))
    assert len(work.build_lm(recipe.lm, "forward", None).dls.valid_ds) == 3
    seen = work.build_classifier("forward", None).dls.valid_ds
    assert len(seen) == 5 and len(data.splits.valid) == 30
    everything = replace(recipe, classifier=replace(recipe.classifier, valid_docs=None))
    work.recipe = everything
    assert len(work.build_classifier("forward", None).dls.valid_ds) == 30


@pytest.mark.parametrize(("n_labels", "protocol", "rows"), [(20, "clean", 20), (None, "clean", 60),
                                                            (None, "tutorial", 60)])
def test_the_bag_of_words_beside_a_run_has_the_labels_that_the_run_has(n_labels, protocol, rows, tmp_path):
    reviews = synthetic_reviews(n_train=60, n_test=20, n_unsup=0)
    recipe = replace(preset("tiny"), lm=None, n_labels=n_labels, protocol=protocol)
    folder = run(recipe.replace(**{"classifier.stages": recipe.classifier.stages[:1]}), reviews, tmp_path / "run",
                 cache=tmp_path, progress=False, baseline=tfidf_baseline)
    record = json.loads((folder / "run.json").read_text())
    assert [(one["n_train"], one["n"]) for one in record["baselines"]] == [(rows, 20)]


def test_a_run_takes_the_language_model_of_another_and_refuses_one_that_it_would_not_make(tmp_path, monkeypatch):
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    reviews = synthetic_reviews(n_train=60, n_test=20, n_unsup=40)
    tiny = preset("tiny").replace(**{"classifier.stages": preset("tiny").classifier.stages[:1]})
    first = reproduce(reviews, tiny, out=tmp_path / "first", progress=False)
    second = reproduce(reviews, tiny, out=tmp_path / "second", lm_from=tmp_path / "first", progress=False,
                       **{"classifier.bs": 4})
    assert second.run["language_model_of"] == {"forward": "../first"}
    models = [(result.folder / "lm_forward.safetensors").read_bytes() for result in (first, second)]
    assert models[0] == models[1] and second.errors and second.recipe.classifier.bs == 4
    stages = [[stage for stage in result.run["stages"] if stage["phase"] == "lm"] for result in (first, second)]
    assert stages[0] == stages[1] and stages[0][0]["seconds"] > 0
    session = second.run["sessions"][0]["seconds"]
    assert second.seconds == pytest.approx(session + stages[0][0]["seconds"])  # the model cost what it cost
    assert first.seconds == first.run["sessions"][0]["seconds"]
    out, how = tmp_path / "third", {"lm_from": tmp_path / "first", "progress": False}
    for dry_run in (False, True):
        with pytest.raises(ValueError, match="lm.bptt"):
            reproduce(reviews, tiny, out=out, dry_run=dry_run, **how, **{"lm.bptt": 7})
    with pytest.raises(ValueError, match="expected a finished backward language model, found that of forward only"):
        reproduce(reviews, tiny, out=out, directions=("forward", "backward"), **how)
    with pytest.raises(ValueError, match="not a run folder"):
        reproduce("imdb", tiny, data=tmp_path / "no reviews", out=out, **{**how, "lm_from": tmp_path / "nowhere"})
    with pytest.raises(ValueError, match="own folder"):
        reproduce(reviews, tiny, out=tmp_path / "first", resume=False, **how)
    assert not out.exists() and (tmp_path / "first" / "classifier_forward.safetensors").exists()
    (tmp_path / "first" / "lm_forward.safetensors").unlink()
    with pytest.raises(ValueError, match="lm_forward.safetensors is not there"):
        reproduce(reviews, tiny, out=out, **how)
    shutil.rmtree(tmp_path / "first")  # a run that has the model already needs its source no more
    assert reproduce(reviews, tiny, out=tmp_path / "second", **how, **{"classifier.bs": 4}).errors == second.errors


def test_only_the_phases_taken_from_another_run_are_added_to_a_runs_time():
    stages = [{"direction": "forward", "phase": phase, "seconds": s} for phase, s in
              (("pretrain", 100.0), ("lm", 30.0), ("classifier", 20.0))]
    run = {"stages": stages, "sessions": [{"seconds": 55.0}]}
    assert seconds_of(run) == 55
    assert seconds_of({**run, "language_model_of": {"forward": "x"}}) == 55 + 130
    taken = {"language_model_of": {"forward": "x"}, "language_model_phases": {"forward": ["pretrain"]}}
    assert seconds_of({**run, **taken}) == 55 + 100


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=60, n_test=20, n_unsup=40)


@pytest.fixture
def opened(monkeypatch):
    """The weights files that are opened, by name, in order."""
    names = []

    class Counted(LMWeights):
        @classmethod
        def load(cls, path, **options):
            names.append(path.name)
            return LMWeights.load(path, **options)

    monkeypatch.setattr(pretrained, "LMWeights", Counted)
    return names


BOTH = ("forward", "backward")


def quick_recipe(**changes):
    return preset("tiny").replace(**{"classifier.stages": preset("tiny").classifier.stages[:1], **changes})


def test_starting_weights_are_opened_once_a_direction_and_not_again_once_they_served(opened, reviews, tmp_path):
    first = run(quick_recipe(directions=BOTH), reviews, tmp_path / "first", cache=tmp_path, progress=False)
    recipe = quick_recipe(directions=BOTH, weights=str(first))
    second = run(recipe, reviews, tmp_path / "second", cache=tmp_path, progress=False)
    assert opened == ["lm_forward.safetensors", "lm_backward.safetensors"]
    shutil.rmtree(first)
    (second / "predictions.csv").unlink()
    run(recipe, reviews, second, cache=tmp_path, progress=False)
    with pytest.raises(ValueError, match="weights: expected"):  # said before anything is written
        run(recipe, reviews, tmp_path / "third", cache=tmp_path, progress=False)
    assert len(opened) == 2 and not (tmp_path / "third").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of a POSIX system")
def test_sigterm_stops_while_the_test_texts_are_predicted(reviews, tmp_path, monkeypatch):
    recipe = replace(preset("tiny"), lm=None)
    recipe = recipe.replace(**{"classifier.stages": recipe.classifier.stages[:1]})
    whole, batches = run(recipe, reviews, tmp_path / "whole", cache=tmp_path, progress=False), []

    class Counted:
        def __init__(self, ids, **how):
            self.loader = inference_loader(ids, **how)
            self.order = self.loader.order

        def __iter__(self):
            for batch in self.loader:
                batches.append(batch)
                if len(batches) == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    monkeypatch.setattr(outputs, "inference_loader", Counted)
    stopped = run(recipe, reviews, tmp_path / "stopped", cache=tmp_path, progress=False)
    record = json.loads((stopped / "run.json").read_text())
    assert record["status"] == "stopped" and record["phases_done"][-1] == "forward/classifier" and len(batches) == 2
    monkeypatch.undo()
    run(recipe, reviews, tmp_path / "stopped", cache=tmp_path, progress=False)
    assert (stopped / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


def test_outputs_are_read_back_by_a_run_that_was_killed_before_its_end(reviews, tmp_path, monkeypatch):
    recipe = quick_recipe(directions=BOTH)
    whole = run(recipe, reviews, tmp_path / "whole", cache=tmp_path, progress=False)
    monkeypatch.setattr(Run, "finish", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(recipe, reviews, tmp_path / "killed", cache=tmp_path, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(Run, "predict", lambda *_: pytest.fail("predicted again"))
    killed = run(recipe, reviews, tmp_path / "killed", cache=tmp_path, progress=False)
    for name in ("predictions.csv", "state/test_forward.npy", "state/validation_backward.npy"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    metrics = [json.loads((folder / "run.json").read_text())["metrics"] for folder in (whole, killed)]
    assert metrics[0] == metrics[1] and metrics[0]["averaged"]["n"] == 20


def test_outputs_stay_in_memory_for_the_end_of_the_same_run(reviews, tmp_path, monkeypatch):
    read, files = np.load, []
    monkeypatch.setattr(np, "load", lambda path, **how: files.append(Path(path).parent.name) or read(path, **how))
    folder = run(quick_recipe(), reviews, tmp_path / "run", cache=tmp_path, progress=False)
    assert json.loads((folder / "run.json").read_text())["metrics"]["forward"]["n"] == 20
    assert (folder / "state" / "test_forward.npy").exists() and files and "state" not in files


def test_each_direction_takes_the_language_model_of_the_run_that_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    reviews = synthetic_reviews(n_train=60, n_test=20, n_unsup=40)
    tiny = preset("tiny").replace(**{"classifier.stages": preset("tiny").classifier.stages[:1]})
    for direction in ("forward", "backward"):
        run(tiny.replace(directions=(direction,)), reviews, tmp_path / direction, until="lm", progress=False)
    both = reproduce(reviews, tiny, out=tmp_path / "both", directions=("forward", "backward"), progress=False,
                     lm_from=[tmp_path / "forward", tmp_path / "backward"], parallel=False)
    assert both.run["language_model_of"] == {"forward": "../forward", "backward": "../backward"}
    with pytest.raises(ValueError, match="expected a finished backward language model, found that of forward only"):
        reproduce(reviews, tiny, out=tmp_path / "other", directions=("forward", "backward"), progress=False,
                  lm_from=[tmp_path / "forward"])
