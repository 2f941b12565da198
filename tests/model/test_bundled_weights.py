"""The language model that comes with the package: small, whole, and as good as its README says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.layers import build_language_model
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.parts import DIRECTIONS, Model
from ulmfit_fastai.recipe.presets import WIKI_SMALL, preset
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.training.pretraining import perplexity

RESULTS = Path(__file__).parents[2] / "data" / "results" / "wiki-small"
BUNDLED = [d for d in DIRECTIONS if (pretrained.BUNDLED / f"wiki-small-{d}.safetensors").exists()]


@pytest.mark.parametrize("direction", BUNDLED)
def test_it_has_the_shape_that_the_presets_expect_and_few_megabytes(direction):
    weights = pretrained.load("wiki-small", direction)
    assert weights.direction == direction and weights.name == "wiki-small"
    found = (weights.emb_sz, weights.n_hid, weights.n_layers)
    assert found == (WIKI_SMALL.emb_sz, WIKI_SMALL.n_hid, WIKI_SMALL.n_layers)
    assert WIKI_SMALL.max_vocab == 30_000 <= len(weights.vocab) < 30_016  # padded to a multiple of 8
    assert (pretrained.BUNDLED / f"wiki-small-{direction}.safetensors").stat().st_size < 12e6


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
    weights = pretrained.load("wiki-small", direction)
    model = Model(emb_sz=weights.emb_sz, n_hid=weights.n_hid, n_layers=weights.n_layers)
    found = perplexity(weights, model, [article[:3000] for article in articles])["perplexity"]
    assert committed["perplexity"] / 1.33 < found < committed["perplexity"] * 1.33


def test_the_comparison_with_wikitext_2_trains_the_same_size_on_the_same_words_and_measures_both(tmp_path):
    sys.path.insert(0, str(RESULTS.parents[2]))
    from benchmarks import wikitext2

    bundled = pretrained.load("wiki-small", "forward")
    model = build_language_model(400, Model(emb_sz=16, n_hid=24, n_layers=2))
    small = LMWeights.from_model(model, bundled.vocab[:400], name="wiki-small", direction="forward")
    corpus = {"train": ["The city of London is in the south of England . "] * 40, "valid": ["London . "] * 4}
    run = wikitext2.train(corpus, small, tmp_path / "run", epochs=2, bs=4, precision="fp32")
    trained = LMWeights.load(run / "pretrain_forward.safetensors")
    assert trained.vocab == small.vocab and (trained.emb_sz, trained.n_hid, trained.n_layers) == (16, 24, 2)
    assert json.loads((run / "run.json").read_text())["data"]["counts"]["articles"] == 44
    both = wikitext2.compare(trained, small, {"held out": ["London is in the south of England ."] * 3})["held out"]
    ours, theirs = both["from scratch on WikiText-2"], both["wiki-small"]
    assert ours["tokens"] == theirs["tokens"] > 0 and 1 < ours["perplexity"] < theirs["perplexity"]  # that is random
    with pytest.raises(ValueError, match="one vocabulary"):
        wikitext2.compare(trained, replace(small, vocab=small.vocab[::-1]), {})
