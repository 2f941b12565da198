"""Runs against directions: the texts are matched by name, and a pair's figures are those of its mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_run import write_fake_run

from benchmarks import diversity
from ulmfit_fastai._files import read_json
from ulmfit_fastai.results.result import Result


def shuffled(folder):
    """The same predictions in another order."""
    frame = pd.read_csv(folder / "predictions.csv", dtype=str)
    frame.sample(frac=1, random_state=1).to_csv(folder / "predictions.csv", index=False)
    return folder


def test_every_pair_has_the_error_of_its_mean_whatever_the_order_of_the_rows(tmp_path):
    one = write_fake_run(tmp_path / "one", curves=False)
    other = shuffled(write_fake_run(tmp_path / "other", noise_seed=3, curves=False))
    diversity.main([str(one), str(other), "--out", str(tmp_path)])
    found = read_json(tmp_path / "imdb.json")
    assert [pair["kind"] for pair in found["pairs"]] == [
        "both directions, one run", "one direction, two runs", "both directions, two runs",
        "both directions, two runs", "one direction, two runs", "both directions, one run"]
    first, second = Result.load(one), Result.load(other)
    assert found["pairs"][0]["error"] == pytest.approx(first.error)
    assert found["pairs"][5]["error"] == pytest.approx(second.error)
    place = {name: number for number, name in enumerate(second.predictions["id"])}
    order = [place[name] for name in first.predictions["id"]]
    assert order != sorted(order)
    forward = [first.probabilities("forward"), second.probabilities("forward")[order]]
    wrong = [probs.argmax(axis=1) != first.labels for probs in forward]
    pair = found["pairs"][1]
    assert pair["error"] == pytest.approx(100 * np.mean(np.mean(forward, axis=0).argmax(axis=1) != first.labels))
    assert pair["gain"] == pytest.approx(100 * np.mean(wrong) - pair["error"])
    assert pair["both_wrong"] == pytest.approx(100 * np.mean(wrong[0] & wrong[1]))
    everything = [result.probabilities(d)[order if result is second else slice(None)]
                  for result in (first, second) for d in ("forward", "backward")]
    assert found["all"] == pytest.approx(100 * np.mean(np.mean(everything, axis=0).argmax(axis=1) != first.labels))


def test_what_differs_between_the_recipes_is_kept(tmp_path):
    from ulmfit_fastai.recipe.presets import preset

    one = write_fake_run(tmp_path / "one", curves=False)
    other = write_fake_run(tmp_path / "other", recipe=preset("fastai").replace(seed=4), curves=False)
    diversity.main([str(one), str(other), "--out", str(tmp_path)])
    (difference,) = read_json(tmp_path / "imdb.json")["differences"]
    assert ["seed", 0, 4] in difference["fields"]


def test_other_texts_and_a_lonely_model_are_refused(tmp_path):
    one = write_fake_run(tmp_path / "one", curves=False)
    fewer = write_fake_run(tmp_path / "fewer", n=300, curves=False)
    with pytest.raises(SystemExit, match="its 300 texts are not the 400 of"):
        diversity.main([str(one), str(fewer), "--out", str(tmp_path)])
    named = write_fake_run(tmp_path / "named", ids=[f"other/{n}" for n in range(400)], curves=False)
    with pytest.raises(SystemExit, match="expected runs on the same"):
        diversity.main([str(one), str(named), "--out", str(tmp_path)])
    alone = write_fake_run(tmp_path / "alone", directions=("forward",), curves=False)
    with pytest.raises(SystemExit, match="two models at least"):
        diversity.main([str(alone), "--out", str(tmp_path)])
