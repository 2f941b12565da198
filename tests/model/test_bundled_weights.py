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
from ulmfit_fastai.recipe.recipe import BUNDLED_WEIGHTS
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.training.pretraining import perplexity

RESULTS = Path(__file__).parents[2] / "data" / "results"
BUNDLED = [(name, d) for name in BUNDLED_WEIGHTS for d in DIRECTIONS if pretrained.bundled(name, d).exists()]


@pytest.mark.parametrize(("name", "direction"), BUNDLED)
def test_it_has_the_shape_that_the_presets_expect_and_few_megabytes(name, direction):
    weights = pretrained.load(name, direction)
    assert weights.direction == direction and weights.name == name
    found = (weights.emb_sz, weights.n_hid, weights.n_layers)
    assert found == (WIKI_SMALL.emb_sz, WIKI_SMALL.n_hid, WIKI_SMALL.n_layers)
    assert WIKI_SMALL.max_vocab == 30_000 <= len(weights.vocab) <= 30_016  # special ones, padded to 8s
    assert pretrained.bundled(name, direction).stat().st_size < 12e6


def test_both_directions_of_both_are_there_and_the_small_presets_start_from_the_one_that_has_read_no_reviews():
    assert len(BUNDLED) == 4
    for name in ("quick", "few-labels", "paper-small", "quick-adversarial"):
        assert preset(name).weights == "wiki-small"


@pytest.mark.parametrize(("name", "direction"), BUNDLED)
def test_its_perplexity_on_held_out_text_is_the_committed_one(name, direction, test_data):
    """On ten of the articles, within a third: articles differ, but a damaged file is off by a factor."""
    record = json.loads((RESULTS / name / f"{direction}.json").read_text())
    committed = record["perplexity"]["wikipedia_en/valid"]["int8"]
    articles = list(read_corpus(test_data / "wikipedia_en" / "valid.jsonl.xz"))[:10]
    weights = pretrained.load(name, direction)
    model = Model(emb_sz=weights.emb_sz, n_hid=weights.n_hid, n_layers=weights.n_layers)
    found = perplexity(weights, model, [article[:3000] for article in articles])["perplexity"]
    assert committed["perplexity"] / 1.33 < found < committed["perplexity"] * 1.33


def test_the_comparison_with_wikitext_2_trains_the_same_size_on_the_same_words_and_measures_both(tmp_path):
    sys.path.insert(0, str(RESULTS.parents[1]))
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
