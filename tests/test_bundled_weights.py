"""The language model that comes with the package: small, whole, and as good as its README says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ulmfit_fastai import weights as weight_files
from ulmfit_fastai.corpora import read_corpus
from ulmfit_fastai.presets import WIKI_SMALL, preset
from ulmfit_fastai.pretraining import perplexity
from ulmfit_fastai.recipe import Model

RESULTS = Path(__file__).parents[1] / "data" / "results" / "wiki-small"
BUNDLED = [d for d in weight_files.DIRECTIONS if (weight_files.BUNDLED / f"wiki-small-{d}.safetensors").exists()]


@pytest.mark.parametrize("direction", BUNDLED)
def test_it_has_the_shape_that_the_presets_expect_and_few_megabytes(direction):
    weights = weight_files.load("wiki-small", direction)
    assert weights.direction == direction and weights.name == "wiki-small"
    found = {"emb_sz": weights.emb_sz, "n_hid": weights.n_hid, "n_layers": weights.n_layers}
    assert {**WIKI_SMALL, **found} == WIKI_SMALL and 16_000 <= len(weights.vocab) < 16_016  # padded to a multiple of 8
    assert (weight_files.BUNDLED / f"wiki-small-{direction}.safetensors").stat().st_size < 12e6


def test_the_forward_model_is_there_and_the_small_presets_start_from_it():
    assert "forward" in BUNDLED
    for name in ("quick", "few-labels", "paper-small"):
        recipe = preset(name)
        assert recipe.weights == "wiki-small" and set(recipe.directions) <= set(BUNDLED)


@pytest.mark.parametrize("direction", BUNDLED)
def test_its_perplexity_on_held_out_text_is_the_committed_one(direction, test_data):
    """On ten of the articles, within a third: articles differ, but a damaged file is off by a factor."""
    committed = json.loads((RESULTS / f"{direction}.json").read_text())["perplexity"]["wikipedia_en/valid"]["int8"]
    articles = list(read_corpus(test_data / "wikipedia_en" / "valid.jsonl.xz"))[:10]
    weights = weight_files.load("wiki-small", direction)
    model = Model(emb_sz=weights.emb_sz, n_hid=weights.n_hid, n_layers=weights.n_layers)
    found = perplexity(weights, model, [article[:3000] for article in articles])["perplexity"]
    assert committed["perplexity"] / 1.33 < found < committed["perplexity"] * 1.33
