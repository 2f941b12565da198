"""Where things lie: on the device meta, which has no numbers, so that what was left on the CPU shows at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ulmfit_fastai.model.precision import resolve, wait_for
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.checkpoint import random_state, set_random_state
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training.callbacks import LossScale, widest
from ulmfit_fastai.training.corpus import general_text
from ulmfit_fastai.training.phases import Run
from ulmfit_fastai.training.prepare import Prepared, prepare
from ulmfit_fastai.training.runs import run
from ulmfit_fastai.training.session import Conditions

META = torch.device("meta")


def tiny(**changes: Any) -> tuple[Recipe, Prepared]:
    recipe = preset("tiny").replace(precision="fp32", **changes)
    data = prepare(recipe, synthetic_reviews(n_train=60, n_test=30, n_unsup=40), progress=False)
    texts = data.dataset.df["text"].tolist()
    data.general = general_text(texts, max_vocab=recipe.max_vocab, min_freq=1, progress=False)
    return recipe, data


def work_on(device: torch.device, recipe: Recipe, data: Prepared) -> Run:
    return Run(recipe, data, RunFolder("unused"), Conditions(device))


def learners(work: Run) -> dict[str, Any]:
    """Every learner that a run makes, with and without weights to start from."""
    lm = work.recipe.lm
    assert lm is not None
    return {f"{name} {direction}": learn for direction in ("forward", "backward") for name, learn in {
        "pretraining": work.build_general_lm(lm, direction),
        "language model": work.build_lm(lm, direction, None),
        "classifier": work.build_classifier(direction, None),
    }.items()}


@pytest.mark.parametrize("fast", [True, False])
def test_the_weights_of_every_learner_lie_on_the_run_s_device(fast: bool) -> None:
    recipe, data = tiny(fast=fast)
    for name, learn in learners(work_on(META, recipe, data)).items():
        where = {key for key, tensor in learn.model.state_dict().items() if tensor.device != META}
        assert not where, f"{name}: not on the device: {sorted(where)}"
        assert learn.dls.device == META, name
        for loader in learn.dls.loaders:
            for tensor in loader.one_batch():
                assert tensor.device == META, name


def test_the_classifier_that_predicts_has_its_weights_where_its_batches_are(tmp_path: Path) -> None:
    recipe, data = tiny()
    learn = work_on(META, recipe, data).build_classifier("forward", None)
    assert {p.device for p in learn.model.parameters()} == {META}


def test_apple_s_gpus_are_asked_for_no_float64() -> None:
    assert widest(torch.device("mps")) == torch.float32
    assert widest(torch.device("cpu")) == widest(torch.device("cuda")) == torch.float64


# A resume on another device than before


def test_random_numbers_go_on_where_they_were_and_on_fewer_gpus(monkeypatch):
    torch.manual_seed(3)
    torch.rand(5)
    state = random_state(torch.device("cpu"))
    expected = torch.rand(4)
    torch.manual_seed(9)
    set_random_state(state, torch.device("cpu"))
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)
    put: list[tuple[torch.Tensor, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put.append((state, device)))
    first, second = torch.tensor([1], dtype=torch.uint8), torch.tensor([2], dtype=torch.uint8)
    for device in ("cuda", "cuda:1", "cuda:3"):  # a checkpoint of the first version, from a machine with two
        set_random_state({"cpu": state["cpu"], "cuda": [first, second]}, torch.device(device))
    set_random_state({"cpu": state["cpu"], "device": second}, torch.device("cuda"))
    assert [int(state) for state, _ in put] == [1, 2, 2]


def test_the_loss_scale_goes_on_from_stage_to_stage():
    scale, fits = LossScale(), []
    for _ in range(2):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        scale.learn = SimpleNamespace(scaler=scaler)
        scale.before_fit()
        fits.append(scaler.get_scale())
        scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
        scaler.update(new_scale=1024.0)
        assert scale.now()["scale"] == 1024.0
        scale.after_epoch()
    assert fits == [2.0**16, 1024.0]
    scale.learn = SimpleNamespace()
    scale.before_fit()  # a fit without scaling is left alone


@pytest.mark.parametrize(("asked", "device", "given"), [
    ("fp16", "cpu", False), ("bf16", "mps", False), ("fp16", "mps", False), ("fp32", "mps", True),
    ("auto", "mps", True),
    ("bf16", "cpu", True), ("fp16", "cuda", True), ("bf16", "cuda:1", True)])
def test_a_precision_that_is_asked_for_by_name_is_given_or_refused(asked, device, given, tmp_path):
    if given:
        assert resolve(asked, torch.device(device)) in (asked, "fp32")
        return
    with pytest.raises(ValueError, match=f"precision is '{asked}', but on the device {device}"):
        resolve(asked, torch.device(device))
    reviews = synthetic_reviews(n_train=4, n_test=2, n_unsup=2)
    with pytest.raises(ValueError, match=f"precision is '{asked}'"):
        run(preset("tiny").replace(precision=asked), reviews, tmp_path / "run", device=torch.device(device),
            progress=False)
    assert not (tmp_path / "run").exists()


def test_a_plan_waits_for_the_very_device_that_it_times(monkeypatch):
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda:1", "mps"):
        wait_for(torch.device(device))
    assert waited == ["cuda:1", "mps"]
