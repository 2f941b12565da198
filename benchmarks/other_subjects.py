"""Sets beside the paper's for few labels: other subjects, short texts, unequal classes, made of those at hand.

    dataset = other_subject("yelp-sentences", "../shared/data/yelp_reviews_10k")

    dbpedia         14,000 DBpedia abstracts of 14 classes, 4,000 of them to test on
    yelp            10,000 Yelp reviews with 1 to 5 stars, in the frequencies of life; half of them to test on
    yelp-sentences  a single sentence of each of those reviews: 1 and 2 stars, or 4 and 5

None of them is the benchmark of that name, whose files have other rows.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ulmfit_fastai.texts.dataset import Dataset, from_frame

DBPEDIA_TEST = 4_000
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
SENTENCE_WORDS = range(5, 41)
"""Words of a sentence that is taken."""


def table(folder: str | Path) -> pd.DataFrame:
    """The one Parquet file of a folder, or the file itself."""
    path = Path(folder)
    return pd.read_parquet(path if path.is_file() else next(iter(sorted(path.glob("*.parquet")))))


def yelp(folder: str | Path) -> pd.DataFrame:
    """The reviews, with the split that they are used in."""
    frame = table(folder)
    return frame.assign(split=frame["split"].map({"dev": "train", "test": "test"}))


def sentences(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A sentence drawn from each review that is not of three stars, with what its review says: neg or pos."""
    rng, rows = np.random.default_rng(seed), []
    for text, stars, split in frame[["text", "label", "split"]].itertuples(index=False):
        fit = [one.strip() for one in SENTENCE_END.split(text) if len(one.split()) in SENTENCE_WORDS]
        if fit and str(stars) != "3":
            rows.append((fit[rng.integers(len(fit))], "neg" if str(stars) in "12" else "pos", split))
    return pd.DataFrame(rows, columns=["text", "label", "split"])


def other_subject(name: str, folder: str | Path) -> Dataset:
    """The set of that name.

    Raises:
        KeyError: there is none.
    """
    if name == "dbpedia":
        frame = table(folder)[["text", "label"]]
        return from_frame(frame, text="text", label="label", test=DBPEDIA_TEST / len(frame), name=name)
    frame = {"yelp": lambda: yelp(folder), "yelp-sentences": lambda: sentences(yelp(folder))}[name]()
    return from_frame(frame[["text", "label", "split"]], text="text", label="label", split="split", name=name)


NAMES = ("dbpedia", "yelp", "yelp-sentences")
