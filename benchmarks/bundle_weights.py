"""Turn finished pretraining runs into the weights that come with the package, and measure what the size costs.

    python -m benchmarks.bundle_weights runs/wiki-small-forward runs/wiki-small-backward --data ../shared/data

Writes ulmfit_fastai/data/<name>-<direction>.safetensors (int8, one scale a row) with <name>.vocab.json, and
data/results/<name>/<direction>.json: how they were made, and their perplexity as stored, on held-out articles (there as
trained too, in float32) and on WikiText-103's validation and test files; with `--earlier` beside an earlier edition's,
in its vocabulary, or, of `english-small`, beside that of `wiki-small`.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.generate import generate
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.recipe.recipe import BUNDLED_WEIGHTS
from ulmfit_fastai.results.environment import command_line, versions
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.training.pretraining import perplexity

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]


def held_out(data: Path) -> dict[str, list[str]]:
    """The texts to measure on, by name."""
    wikitext = data / "wikitext103_eval" / "wikitext103_eval.parquet"
    return {
        "wikipedia_en/valid": list(read_corpus(data / "wikipedia_en" / "valid.jsonl.xz")),
        "wikitext-103/valid": list(read_corpus(wikitext, split="valid")),
        "wikitext-103/test": list(read_corpus(wikitext, split="test")),
    }


def bundle(run: Path, texts: dict[str, list[str]], *, target: Path, results: Path, earlier: Path | None = None,
           name: str = "wiki-small") -> dict[str, Any]:
    """Store the weights of one finished run, and measure them beside those of an earlier edition; returns the figures.
    """
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    source = next(iter(sorted(run.glob("pretrain_*.safetensors"))))
    trained = LMWeights.load(source)
    trained.meta.pop("path", None)
    named = replace(trained, name=name, meta={**trained.meta, "corpus": record["data"]["name"]})
    path = named.save(target / f"{name}-{named.direction}.safetensors", dtype="int8",
                      vocab_path=target / f"{name}.vocab.json")
    stored = pretrained.load(name if target == pretrained.BUNDLED else path, named.direction)
    assert stored is not None
    model = Model(emb_sz=named.emb_sz, n_hid=named.n_hid, n_layers=named.n_layers)
    before = None if earlier is None else earlier_edition(earlier, named.direction)
    found: dict[str, Any] = {}
    for kind, articles in texts.items():
        as_stored = perplexity(stored, model, articles, bs=32, shared=None if before is None else before.vocab)
        in_its_words = as_stored.pop("shared", None)
        found[kind] = {"int8": as_stored}
        if kind == next(iter(texts)):
            found[kind]["float32"] = perplexity(trained, model, articles, bs=32)
        if before is not None:  # in its vocabulary, the words that only the new one knows added up as unknown
            sizes = Model(emb_sz=before.emb_sz, n_hid=before.n_hid, n_layers=before.n_layers)
            other = "first edition" if name == BUNDLED_WEIGHTS[0] else BUNDLED_WEIGHTS[0]
            found[kind][other] = perplexity(before, sizes, articles, bs=32)
            found[kind]["in the first edition's words" if other == "first edition" else f"in the words of {other}"
                        ] = in_its_words
        log.info("%s %s: %s", named.direction, kind,
                 ", ".join(f"{name} {one['perplexity']:.2f}" for name, one in found[kind].items()))
    about = {
        "direction": named.direction, "command": command_line(), "megabytes": round(path.stat().st_size / 1e6, 2),
        "perplexity": found,
        "per": f"fastai's token, words outside the vocabulary of {len(named.vocab):,} counted as xxunk",
        "samples": generate(stored, ["", "The city of", "In 1914 the"]), "versions": versions(),
        "pretraining": {key: record[key] for key in ("command", "recipe", "recipe_hash", "data", "device", "started",
                                                     "finished", "sessions", "stages", "versions") if key in record},
    }
    about["pretraining"]["data"] = {key: value for key, value in record["data"].items() if key != "source"}
    write_json_atomic(results / f"{named.direction}.json", about)
    return about


def earlier_edition(folder: Path, direction: str) -> LMWeights:
    """The weights that were bundled before, from a copy of the package's data folder."""
    return LMWeights.load(folder / f"wiki-small-{direction}.safetensors", vocab=folder / "wiki-small.vocab.json")


def first_words(texts: list[str], most: int | None) -> list[str]:
    """The first texts, until they have so many words."""
    found, words = [], 0
    for text in texts:
        if most is not None and words >= most:
            break
        found.append(text)
        words += len(text.split())
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished folders of `ulmfit-fastai pretrain`")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikipedia_en/ and wikitext103_eval/")
    parser.add_argument("--target", type=Path, default=pretrained.BUNDLED)
    parser.add_argument("--earlier", type=Path,
                        help="a copy of the data folder of the edition before, to compare with; of english-small: "
                             "ulmfit_fastai/data, where wiki-small is")
    parser.add_argument("--name", choices=BUNDLED_WEIGHTS, default=BUNDLED_WEIGHTS[0])
    parser.add_argument("--reviews", type=Path, help="held-out reviews to measure on too, of `benchmarks.opinions`")
    parser.add_argument("--kinds", nargs="+", help="measure on these only, such as wikipedia_en/valid reviews")
    parser.add_argument("--most-words", type=int, help="of each kind, in whole texts from the first one (default: all)")
    parser.add_argument("--results", type=Path, help="default: data/results/NAME")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    texts = held_out(args.data) | ({} if args.reviews is None else {"reviews": list(read_corpus(args.reviews))})
    texts = {kind: first_words(some, args.most_words) for kind, some in texts.items()
             if not args.kinds or kind in args.kinds}
    results = args.results or ROOT / "data" / "results" / args.name
    for run in args.runs:
        about = bundle(run, texts, target=args.target, results=results, earlier=args.earlier, name=args.name)
        print(f"{about['direction']}: {about['megabytes']} MB")


if __name__ == "__main__":
    main()
