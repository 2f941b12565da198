"""Where things lie: on the device meta, which has no numbers, so that what was left on the CPU shows at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training.callbacks import widest
from ulmfit_fastai.training.corpus import general_text
from ulmfit_fastai.training.phases import Run
from ulmfit_fastai.training.prepare import Prepared, prepare
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
