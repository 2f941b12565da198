"""The GPU jobs at small size on the CPU: packed texts in, weights and results out, stopped and gone on with."""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu.packs import read_pack, write_pack
from ulmfit_fastai import reproduce
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.splits import split_validation
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.training.corpus import GeneralText

STAGES = json.dumps({"classifier.stages": [dataclasses.asdict(stage) | {"epochs": 1 + 2 * (i == 3)}
                                           for i, stage in enumerate(preset("tiny").classifier.stages)]})
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def call(script: str, *args: object, code: int = 0) -> str:
    command = [sys.executable, "-m", f"benchmarks.gpu.{script}", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code, done.stderr[-2000:]
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    reviews = synthetic_reviews(n_train=100, n_test=40, n_unsup=60)
    store = TokenStore.make(reviews.df["text"].tolist(), cache=folder / "cache", progress=False)
    vocab = store.vocab(split_validation(reviews).lm_train, max_vocab=1500, min_freq=1)
    write_pack(folder / "imdb", store.numericalize(vocab), dataset=reviews)
    lines = [json.dumps({"text": text}) + "\n" for text in reviews.df["text"]]
    (folder / "articles.jsonl").write_text("".join(lines), "utf8")
    call("pack", "wiki", folder / "articles.jsonl", "--out", folder / "wiki", "--vocab", 1500, "--held-out", 10)
    return folder


@pytest.fixture
def jobs():
    return importlib.import_module("benchmarks.gpu.jobs")


def job(packs, tmp_path, name, *more):
    return call("jobs", *arguments(packs, tmp_path, name), *more)


def arguments(packs, tmp_path, name):
    return (name, "--tiny", "--bs", 8, "--packs", packs, "--work", tmp_path / "work", "--out", tmp_path / "out",
            "--device", "cpu", "--precision", "fp32")


def test_a_stopped_job_goes_on_and_the_next_one_starts_from_its_weights(packs, tmp_path):
    job(packs, tmp_path, "full-forward", "--minutes", 0)
    assert json.loads((tmp_path / "work" / "full-forward" / "run.json").read_text())["status"] == "stopped"
    job(packs, tmp_path, "full-forward", "--weights")
    call("jobs", "join", tmp_path / "out")
    back = pretrained.load(tmp_path / "out" / "full-forward", "forward")
    assert back is not None and back.emb_sz == 16 and len(back.vocab) <= 1000
    job(packs, tmp_path, "imdb-forward")
    run = json.loads((tmp_path / "out" / "imdb-forward" / "run.json").read_text())
    assert run["status"] == "finished" and run["metrics"]["forward"]["n"] == 40
    assert run["weights"]["forward"]["words_kept"] > 100
    predictions = (tmp_path / "out" / "imdb-forward" / "predictions.csv").read_text().splitlines()
    assert len(predictions) == 41 and "word" not in predictions[0]


@pytest.mark.parametrize("name", ["full-forward", "imdb-forward"])
def test_a_job_killed_at_a_random_moment_goes_on_to_the_same_numbers(name, packs, tmp_path):
    if name == "imdb-forward":
        job(packs, tmp_path, "full-forward")  # which it starts from
        shutil.copytree(tmp_path / "work" / "full-forward", tmp_path / "killed" / "work" / "full-forward")
    whole, killed = tmp_path / "work" / name, tmp_path / "killed" / "work" / name
    job(packs, tmp_path, name)
    line = [sys.executable, "-m", "benchmarks.gpu.jobs", *map(str, arguments(packs, tmp_path / "killed", name))]
    after = random.Random(time.time()).uniform(0.1, 1.5)  # another moment each time, from when it has begun
    while not kill_when_begun(line, killed / "run.json", after):
        shutil.rmtree(killed)  # the job had ended before, on a fast machine: kill it earlier
        after /= 2
    job(packs, tmp_path / "killed", name)
    for path in whole.glob("*.safetensors"):
        ours, theirs = load_file(killed / path.name), load_file(path)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), f"killed after {after:.2f} s: {path.name}"
    if name == "imdb-forward":
        assert (killed / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()


def kill_when_begun(line, sign, after):
    """Start a job and kill it `after` seconds from when `sign` lies there; whether it was still running then."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not sign.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(after)
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL), "the job failed by itself"
    return process.returncode != 0


def test_a_direction_fits_into_a_box_and_goes_on_with_what_it_chose(packs, tmp_path):
    said = job(packs, tmp_path, "forward", "--minutes", 0)
    chosen = json.loads((tmp_path / "work" / "box-forward.json").read_text())
    assert chosen == {"seconds": chosen["seconds"], "articles": 20, "pretrain_epochs": 1}, "as little as can be"
    assert "too small a box" in said and not (tmp_path / "out" / "imdb-forward").exists()
    said = job(packs, tmp_path, "forward", "--minutes", 5, "--set", STAGES)
    found = json.loads((tmp_path / "out" / "box-forward.json").read_text())
    assert found == {**chosen, "lm_epochs": 1, "classifier_epochs": found["classifier_epochs"]} and "test error" in said
    assert 1 <= found["classifier_epochs"] <= 3
    found = Result.load(tmp_path / "out" / "imdb-forward")
    assert found.n_test == 40 and found.run["language_model_phases"] == {"forward": ["lm"]}
    assert json.loads((tmp_path / "out" / "full-forward" / "run.json").read_text())["status"] == "finished"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) <= 8 and not list((tmp_path / "out").rglob("*.safetensors*")), "what may come back from there"


def test_both_language_models_come_home_and_a_cpu_makes_classifiers_of_them(packs, tmp_path, monkeypatch):
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    job(packs, tmp_path, "both-lms", "--minutes", 20, "--most", 1)
    call("jobs", "join", tmp_path / "out")
    reviews = synthetic_reviews(n_train=100, n_test=40, n_unsup=60)
    for direction in ("forward", "backward"):
        home = tmp_path / "out" / f"lm-{direction}"
        assert all(path.stat().st_size <= 15 * 2**20 for path in home.iterdir())
        made = reproduce(reviews, Recipe.load(home / "recipe.json"), out=tmp_path / direction, device="cpu",
                         progress=False, lm_from={direction: home})
        assert made.n_test == 40 and made.run["language_model_phases"] == {direction: ["lm"]}


@pytest.mark.parametrize(("seconds", "epochs"), [(1000, 10), (110, 10), (100, 9), (65, 5), (20, 1), (-5, 1)])
def test_as_many_epochs_are_chosen_as_fit(seconds, epochs, jobs):
    phase = preset("fastai").lm  # an epoch of the last group, then ten of all
    assert jobs.fitting(seconds, (110, 10), phase) == epochs


@pytest.mark.parametrize(("seconds", "articles", "epochs"), [(0, 20, 1), (30, 30, 1), (99, 99, 1), (100, 100, 1),
                                                            (250, 100, 2)])
def test_as_many_articles_are_chosen_as_fit(seconds, articles, epochs, jobs, monkeypatch):
    ids = TokenIds(np.zeros(1010, np.uint16), np.arange(0, 1020, 10), ["xxunk", "xxpad"])
    text = GeneralText(ids, np.arange(100), np.arange(100, 101), {})
    monkeypatch.setattr(jobs, "general_lm", lambda *_, **__: None)
    monkeypatch.setattr(jobs, "time_phase", lambda *_: [{"seconds": 300.0}])  # for three epochs: ten tokens a second
    found = jobs.what_fits(jobs.pretraining("small", epochs=3), text, "forward", torch.device("cpu"), seconds)
    assert found == {"articles": articles, "pretrain_epochs": epochs}


def test_smoke_tells_what_half_precision_costs(tmp_path):
    call("jobs", "smoke", "--tiny", "--out", tmp_path / "out", "--device", "cpu")
    found = json.loads((tmp_path / "out" / "smoke.json").read_text())
    assert found["stock fp32"]["worst"] < 1e-4 < found["ours bf16"]["worst"] < 0.02


def test_smoke_fails_where_gradients_are_not_finite(tmp_path, jobs, monkeypatch):
    def broken(*_, dtype, **__):
        return {"a": torch.ones(2), "b": torch.full((2,), 1.0 if dtype is None else torch.nan)}

    monkeypatch.setattr(jobs, "gradients", broken)
    monkeypatch.setattr(sys, "argv", ["jobs.py", "smoke", "--tiny", "--out", str(tmp_path), "--device", "cpu"])
    with pytest.raises(SystemExit, match="look at smoke.json"):
        jobs.main()
    assert json.loads((tmp_path / "smoke.json").read_text())["ours bf16"] == {"worst": None, "of": "b", "not finite": 1}


def test_throughput_measures_stock_ours_and_the_floor(packs, tmp_path):
    job(packs, tmp_path, "throughput")
    rows = json.loads((tmp_path / "out" / "throughput.json").read_text())["rows"]
    assert {row["what"] for row in rows} == {"stock fp32", "ours fp32", "bare LSTMs"}
    assert all(row["tokens_a_second"] > 0 for row in rows)


def test_both_directions_are_averaged_and_a_table_stops_and_goes_on(packs, tmp_path):
    for direction in ("forward", "backward"):
        job(packs, tmp_path, f"full-{direction}")
        job(packs, tmp_path, f"imdb-{direction}")
    job(packs, tmp_path, "imdb-both")
    both = Result.load(tmp_path / "out" / "imdb-both")
    assert both.directions == ("forward", "backward") and both.headline == "averaged" and both.n_test == 40
    rows = ("tables-imdb", "--tables", "table4")
    job(packs, tmp_path, *rows, "--minutes", 0)
    table = json.loads((tmp_path / "out" / "tables-imdb" / "table4.json").read_text())
    assert len(table["missing"]) == 2
    job(packs, tmp_path, *rows)
    table = json.loads((tmp_path / "out" / "tables-imdb" / "table4.json").read_text())
    assert not table["missing"] and all(len(found) == 1 for found in table["errors"].values())


def test_a_pack_of_trec6_keeps_its_rows_and_rare_words(tmp_path):
    lines = [{"split": split, "label": label, "text": f"question {split} {label} {i} ?"}
             for split, n in (("train", 8), ("test", 2)) for label in range(6) for i in range(n)]
    (tmp_path / "trec6.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    call("pack", "trec6", tmp_path / "trec6.jsonl", "--out", tmp_path / "pack", "--no-verify")
    ids, dataset, _ = read_pack(tmp_path / "pack")
    assert dataset is not None and dataset.counts["train"] == 48 and len(ids) == 60 and "question" in ids.vocab
