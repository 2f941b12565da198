"""What bags of words reach on IMDb: `python -m benchmarks.bag_of_words --data imdb.tgz`.

At 100 to 5,000 labels the very subsets that the low-shot curves train on (`split_validation(n_labels=...)`, several
seeds), at the end all 25,000; always tested on the whole test set. Written to --out after every figure, and gone on
with from there.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.experiments.baselines import nbsvm_baseline, nbsvm_scores
from ulmfit_fastai.results.environment import now, versions
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.texts.imdb import load_imdb
from ulmfit_fastai.texts.splits import split_validation
from ulmfit_fastai.training.baseline import tfidf_baseline

log = logging.getLogger("bag_of_words")
Record = dict[str, Any]
WORDS_AND_SIGNS = r"(?u)\b\w+\b|[^\w\s]"


def training_rows(dataset: Dataset, n_labels: int, seed: int) -> np.ndarray:
    """The rows a low-shot run of this seed trains on; all of the training set when so many are asked for."""
    if n_labels >= len(dataset.rows("train")):
        return dataset.rows("train")
    return split_validation(dataset, seed=seed, valid_seed=0, n_labels=n_labels).train


# -- few labels: every text is counted once, and each subset takes the columns that it knows --------------------------
class Counted:
    """How often each word and word pair occurs in each labelled text: (texts, all words and pairs), sparse."""

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        rows = np.concatenate([dataset.rows("train"), dataset.rows("test")])
        self.place = {int(row): i for i, row in enumerate(rows)}
        texts = dataset.df["text"].to_numpy()[rows]
        self.counts = CountVectorizer(ngram_range=(1, 2), dtype=np.float32, **options).fit_transform(texts).tocsr()

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
        """Counts of the training and of the test texts, in the words and pairs of the training texts."""
        seen = self.counts[[self.place[int(row)] for row in train]]
        known = np.unique(seen.indices)
        return seen[:, known], self.counts[[self.place[int(row)] for row in test]][:, known]


def tfidf_from_counts(counted: Counted, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """`tfidf_baseline`'s predictions from counts."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    seen, unseen = counted.split(train, test)
    weigh = TfidfTransformer().fit(seen)
    model = LogisticRegression(max_iter=1000).fit(weigh.transform(seen), labels[train])
    return model.predict(weigh.transform(unseen))


def nbsvm_from_counts(counted: Counted, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """`nbsvm_baseline`'s predictions from counts of two classes."""
    seen, unseen = counted.split(train, test)
    classes = sorted(set(labels[train]))
    scores = nbsvm_scores(seen, labels[train] == classes[1], unseen)
    return np.array(classes, dtype=object)[(scores > 0).astype(int)]


METHODS: dict[str, tuple[Callable[..., np.ndarray], dict[str, Any]]] = {
    "TF-IDF(1,2) + logistic regression": (tfidf_from_counts, {}),
    "NB-SVM(1,2)": (nbsvm_from_counts, {"binary": True, "token_pattern": WORDS_AND_SIGNS}),
}


def few_labels(dataset: Dataset, numbers: list[int], seeds: int, keep: Callable[[Record], None],
               known: set[tuple]) -> None:
    """The error of each method, number of labels and seed that is not known yet."""
    labels, test = dataset.df["label"].to_numpy(), dataset.rows("test")
    for name, (method, options) in METHODS.items():
        todo = [(n, seed) for n in numbers for seed in range(seeds) if (name, n, seed) not in known]
        if not todo:
            continue
        counted = Counted(dataset, **options)
        for n, seed in todo:
            train = training_rows(dataset, n, seed)
            wrong = method(counted, labels, train, test) != labels[test]
            keep({"name": name, "error": 100 * float(wrong.mean()), "n": len(test), "n_train": len(train), "labels": n,
                  "seed": seed})


# -- all labels: as a user would, timed --------------------------------------------------------------------------------
def _tuned(texts: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(words, LogisticRegression(C=10, max_iter=1000)).fit(texts, labels).predict(unseen)


def _svm(texts: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC(random_state=0))
    return model.fit(texts, labels).predict(unseen)


def _nbsvm3(texts: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(ngram_range=(1, 3), binary=True, token_pattern=WORDS_AND_SIGNS, dtype=np.float32)
    classes = sorted(set(labels))
    scores = nbsvm_scores(words.fit_transform(texts), labels == classes[1], words.transform(unseen))
    return np.array(classes, dtype=object)[(scores > 0).astype(int)]


VARIANTS = {"TF-IDF(1,2) sublinear, min_df 2 + logistic regression, C 10": _tuned, "TF-IDF(1,2) + linear SVM": _svm,
            "NB-SVM(1,3)": _nbsvm3}


def all_labels(dataset: Dataset, keep: Callable[[Record], None], known: set[tuple]) -> None:
    """The baselines and three stronger variants on the whole training set, with their seconds."""
    train, test = dataset.rows("train"), dataset.rows("test")
    texts, labels = dataset.df["text"].to_numpy(), dataset.df["label"].to_numpy()
    for name, baseline in zip(METHODS, (tfidf_baseline, nbsvm_baseline)):
        if (name, len(train), 0) not in known:
            keep({**baseline(dataset, train, test), "labels": len(train), "seed": 0})
    for name, variant in VARIANTS.items():
        if (name, len(train), 0) not in known:
            started = time.perf_counter()
            wrong = variant(texts[train], labels[train], texts[test]) != labels[test]
            keep({"name": name, "error": 100 * float(wrong.mean()), "n": len(test), "n_train": len(train),
                  "seconds": round(time.perf_counter() - started, 1), "labels": len(train), "seed": 0})


def summary(records: list[Record]) -> list[Record]:
    """Mean, standard deviation and seeds of each method at each number of labels."""
    groups: dict[tuple[str, int], list[float]] = {}
    for one in records:
        groups.setdefault((one["name"], one["labels"]), []).append(one["error"])
    return [{"name": name, "labels": n, "error": fmean(errors), "sd": stdev(errors) if len(errors) > 1 else None,
             "seeds": len(errors)} for (name, n), errors in sorted(groups.items())]


def table(found: Record) -> str:
    """Markdown: a line for each method, a column for each number of labels."""
    numbers = sorted({one["labels"] for one in found["summary"]})
    cells = {(one["name"], one["labels"]): one for one in found["summary"]}
    lines = ["| method | " + " | ".join(f"{n:,} labels" for n in numbers) + " |", "|---" * (len(numbers) + 1) + "|"]
    for name in dict.fromkeys(one["name"] for one in found["records"]):
        row = []
        for n in numbers:
            one = cells.get((name, n))
            row.append("" if one is None else f"{one['error']:.2f} %" + (f" ± {one['sd']:.2f}" if one["sd"] else ""))
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def measure(dataset: Dataset, out: Path, *, numbers: list[int], seeds: int) -> Record:
    """Everything that `out`/bag-of-words.json doesn't hold yet."""
    path = out / "bag-of-words.json"
    found: Record = read_json(path) if path.exists() else {"records": []}
    if found.setdefault("fingerprint", dataset.fingerprint) != dataset.fingerprint:
        raise ValueError(f"{path} holds other texts' figures ({found['fingerprint']}, not {dataset.fingerprint}); "
                         "choose another --out")
    found |= {"schema": 1, "data": dataset.name, "synthetic": dataset.synthetic, "versions": versions()}

    def keep(record: Record) -> None:
        found["records"].append(record)
        found["summary"], found["made"] = summary(found["records"]), now()
        write_json_atomic(path, found)
        log.info("%s, %d labels, seed %d: %.2f %%", *(record[key] for key in ("name", "labels", "seed", "error")))

    def known() -> set[tuple]:
        return {(one["name"], one["labels"], one["seed"]) for one in found["records"]}

    few_labels(dataset, [n for n in numbers if n < len(dataset.rows("train"))], seeds, keep, known())
    if max(numbers) >= len(dataset.rows("train")):
        all_labels(dataset, keep, known())
    return found


def main(given: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bag_of_words", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="IMDb, a folder or a .tgz; default: fastai's cache or its download")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 500, 1000, 5000, 25_000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("data/results/bag-of-words"))
    args = parser.parse_args(given)
    print(table(measure(load_imdb(args.data), args.out, numbers=args.labels, seeds=args.seeds)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
