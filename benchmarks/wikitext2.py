"""What pretraining on Wikipedia buys: `wiki-small` beside the same model trained from scratch on WikiText-2.

    python -m benchmarks.wikitext2 --data ../shared/data --out runs/wikitext2-small

Both have the bundled vocabulary and are measured on the same held-out texts, so their perplexities per token compare.
Resumable: the same command goes on. Writes data/results/wiki-small/wikitext2.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.results.environment import command_line, versions
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.training.corpus import GeneralText
from ulmfit_fastai.training.pretraining import perplexity, pretrain_on
from ulmfit_fastai.training.session import Conditions
from ulmfit_fastai.training.stage_one import pretraining

from .bundle_weights import ROOT, held_out


def train(corpus: dict[str, list[str]], bundled: LMWeights, out: Path, **settings: Any) -> Path:
    """A language model of the bundled one's size and vocabulary, from random weights, on the texts of `corpus`."""
    texts = corpus["train"] + corpus["valid"]
    store, rows = TokenStore.make(texts, progress=False), np.arange(len(texts))
    model = replace(pretraining("small").model, emb_sz=bundled.emb_sz, n_hid=bundled.n_hid, n_layers=bundled.n_layers)
    fingerprint = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    text = GeneralText(store.numericalize(bundled.vocab), rows[: len(corpus["train"])], rows[len(corpus["train"]) :],
                       {"name": "WikiText-2", "fingerprint": fingerprint})
    return pretrain_on(text, pretraining("small", model=model, **settings), out, Conditions.of())


def compare(trained: LMWeights, bundled: LMWeights, texts: dict[str, list[str]]) -> dict[str, Any]:
    """Perplexity of both on each of the held-out texts."""
    if trained.vocab != bundled.vocab:
        raise ValueError("expected two models of one vocabulary: perplexities per token of others don't compare")
    return {name: {key: perplexity(each, Model(emb_sz=each.emb_sz, n_hid=each.n_hid, n_layers=each.n_layers),
                                   articles, bs=32)
                   for key, each in (("from scratch on WikiText-2", trained), ("wiki-small", bundled))}
            for name, articles in texts.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True,
                        help="folder with wikitext2/, wikipedia_en/ and wikitext103_eval/")
    parser.add_argument("--out", type=Path, default=Path("runs/wikitext2-small"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results" / "wiki-small")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    bundled = pretrained.load("wiki-small", "forward")
    assert bundled is not None
    file = args.data / "wikitext2" / "wikitext2.parquet"
    corpus = {split: list(read_corpus(file, split=split)) for split in ("train", "valid")}
    run = train(corpus, bundled, args.out, epochs=args.epochs, bs=32, sampled_words=2048)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    trained = LMWeights.load(run / "pretrain_forward.safetensors")
    found = compare(trained, bundled, held_out(args.data))
    write_json_atomic(args.results / "wikitext2.json", {
        "command": command_line(), "perplexity": found,
        "per": "fastai's token, words outside the bundled vocabulary counted as xxunk", "versions": versions(),
        "pretraining": {key: record[key] for key in ("recipe", "recipe_hash", "data", "device", "sessions", "stages")}})
    for name, both in found.items():
        print(f"{name}: " + ", ".join(f"{key} {each['perplexity']:.1f}" for key, each in both.items()))


if __name__ == "__main__":
    main()
