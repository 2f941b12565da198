"""Make the packs that the GPU jobs train on: general text (stage 1), IMDb and TREC-6, as compressed word numbers.

    python -m benchmarks.gpu.pack wiki PATH_TO_ARTICLES --out .gpu/wiki [--valid FILE] [--vocab 60000]
    python -m benchmarks.gpu.pack imdb PATH_TO_IMDB --out .gpu/imdb [--vocab 60000]
    python -m benchmarks.gpu.pack trec6 PATH_TO_TREC6 --out .gpu/trec6

A pack has about a byte a token (IMDb 33 MB), in parts of 16 million tokens, so that it can be sent in several goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.gpu.packs import write_pack
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.texts.sources import load_task
from ulmfit_fastai.texts.splits import split_validation
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.training.corpus import corpus_store, joined


def pack_articles(corpus: list[str], out: str, valid: str | None, max_vocab: int, held_out: int) -> None:
    train = corpus_store(corpus)
    rows = np.arange(len(train) if valid else len(train) - held_out)
    vocab = train.vocab(rows, max_vocab=max_vocab, min_freq=3)
    ids, valid_rows = train.numericalize(vocab), np.arange(len(rows), len(train))
    if valid:
        ids, valid_rows = joined(ids, corpus_store([valid]).numericalize(vocab))
    write_pack(out, ids, corpus=[Path(c).name for c in corpus], fingerprint=train.fingerprint, train=len(rows),
               valid=[int(valid_rows[0]), int(valid_rows[-1]) + 1])


def pack_task(task: str, path: str, out: str, max_vocab: int, verify: bool) -> None:
    dataset = load_task(task, path, verify=verify)
    store = TokenStore.make(dataset.df["text"].tolist())
    vocab = store.vocab(split_validation(dataset).lm_train, max_vocab=max_vocab,
                        min_freq=preset("paper-small", task).min_freq)  # of TREC-6's few texts every word is kept
    write_pack(out, store.numericalize(vocab), dataset=dataset)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("wiki", "imdb", "trec6"))
    parser.add_argument("path", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--valid")
    parser.add_argument("--vocab", type=int, default=60_000)
    parser.add_argument("--held-out", type=int, default=200, help="articles held out when --valid is not given")
    parser.add_argument("--no-verify", action="store_true", help="take a data set as it is, be it a part of it")
    args = parser.parse_args(argv)
    if args.what == "wiki":
        pack_articles(args.path, args.out, args.valid, args.vocab, args.held_out)
    else:
        pack_task(args.what, args.path[0], args.out, args.vocab, not args.no_verify)


if __name__ == "__main__":
    main()
