"""The texts that `english-small` reads after `wiki-small`: reviews, and some Wikipedia, so as not to forget it.

    python -m benchmarks.opinions --data ../shared/data --out runs/opinions
    ulmfit-fastai pretrain runs/opinions/train.jsonl --valid runs/opinions/valid.jsonl \
        --weights wiki-small --set lr=3e-3 --set sampled_words=2048 --out runs/english-small-forward

The reviews are IMDb's training and unlabelled ones, never its test texts, and the `dev` half of 10,000 of Yelp's; of
each, 500 are held out. The order is drawn, so that all kinds lie beside each other. `--imdb` and `--articles` make it
shorter: the edition that is bundled has read half of IMDb's reviews and 1,000 articles, in 1.4 hours of one core
a direction.
"""

from __future__ import annotations

import argparse
import json
import logging
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from ulmfit_fastai._files import write_text_atomic
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.texts.imdb import load_imdb

log = logging.getLogger(__name__)
HELD_OUT = 500
"""Reviews of each source that are only measured on."""


def reviews_of(data: Path) -> dict[str, list[str]]:
    """The reviews by source, in the order of their sets; no test text is among them."""
    imdb = load_imdb(data / "imdb" / "imdb.tgz").df
    yelp = pd.read_parquet(data / "yelp_reviews_10k" / "yelp_reviews_10k.parquet")
    return {"imdb": imdb[imdb["split"].isin(["train", "unsup"])]["text"].tolist(),
            "yelp": yelp[yelp["split"] == "dev"]["text"].tolist()}


def mixed(reviews: dict[str, list[str]], articles: list[str], *, seed: int = 0, held_out: int = HELD_OUT,
          most: dict[str, int] | None = None) -> tuple[list[str], list[str]]:
    """Texts to learn from and texts to measure on, each in an order drawn by `seed`.

    `most` limits how many of a source are learnt from; those held out stay the same.
    """
    rng = np.random.default_rng(seed)
    train, valid = list(articles), []
    for source, texts in reviews.items():
        drawn = rng.permutation(len(texts))
        valid += [texts[i] for i in drawn[:held_out]]
        train += [texts[i] for i in drawn[held_out:][:(most or {}).get(source)]]
    return [train[i] for i in rng.permutation(len(train))], valid


def write(texts: list[str], path: Path) -> None:
    """JSON lines, as `read_corpus` reads them."""
    write_text_atomic(path, "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True,
                        help="folder with imdb/imdb.tgz, yelp_reviews_10k/ and wikipedia_en/")
    parser.add_argument("--articles", type=int, default=3_000, help="of Wikipedia (default: %(default)s)")
    parser.add_argument("--imdb", type=int, help="of IMDb's reviews to learn from (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/opinions"))
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wiki = [*islice(read_corpus(args.data / "wikipedia_en" / "train-more-00-of-04.jsonl.xz"), args.articles)]
    reviews = reviews_of(args.data)
    train, valid = mixed(reviews, wiki, most={} if args.imdb is None else {"imdb": args.imdb})
    args.out.mkdir(parents=True, exist_ok=True)
    write(train, args.out / "train.jsonl")
    write(valid, args.out / "valid.jsonl")
    counts = {name: len(texts) for name, texts in reviews.items()} | {"wikipedia": len(wiki)}
    words = sum(len(text.split()) for text in train)
    print(f"{len(train):,} texts of {words:,} words to learn from, {len(valid):,} to measure on; drawn of {counts}: "
          f"{args.out}")


if __name__ == "__main__":
    main()
