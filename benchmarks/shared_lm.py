"""Ten fits with one language model and with ten: `python -m benchmarks.shared_lm --data trec6.csv`.

A cross-validation in which every fold fine-tunes a language model of its own, beside one whose folds share a language
model of all the texts (`ULMFiT.fit_language_model`, which reads no labels). In turns, by CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_score

from ulmfit_fastai import ULMFiT
from ulmfit_fastai.texts.sources import load_task


@dataclass(frozen=True)
class Task:
    """What is cross-validated: some questions of TREC-6 with their classes, and more that have none."""

    texts: list[str]
    labels: list[str]
    more: list[str]
    folds: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, args: argparse.Namespace) -> Task:
        """Training questions in a random order, alike in every call."""
        frame = load_task("trec6", args.data).df
        frame = frame[frame["split"] == "train"].sample(frac=1.0, random_state=0)
        chosen, more = frame[: args.texts], frame[args.texts : args.texts + args.unlabelled]
        settings = {"preset": args.preset, "epochs": args.epochs, "lm_epochs": args.lm_epochs, "progress": False}
        return cls(chosen["text"].tolist(), chosen["label"].tolist(), more["text"].tolist(), args.folds, settings)

    def scores(self, more: list[str] | None = None, **changes: Any) -> np.ndarray:
        """Accuracies of the folds."""
        model = ULMFiT(**{**self.settings, **changes})
        return cross_val_score(model, self.texts, self.labels, cv=self.folds, params={"unlabelled": more})


def apart(task: Task) -> np.ndarray:
    """Folds that each fine-tune a language model."""
    return task.scores(task.more or None)


def shared(task: Task) -> np.ndarray:
    """Folds on one language model, which is made here too."""
    with tempfile.TemporaryDirectory() as folder:
        lm = ULMFiT(**task.settings).fit_language_model([*task.texts, *task.more], Path(folder) / "lm")
        return task.scores(lm=lm, lm_epochs=None)


def timed(work: Callable[[Task], np.ndarray], task: Task) -> tuple[float, float]:
    """CPU seconds of this process, and the mean accuracy."""
    started = time.process_time()
    scores = work(task)
    return time.process_time() - started, float(scores.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="TREC-6, as `load_task` reads it")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="few-labels")
    parser.add_argument("--unlabelled", type=int, default=0, help="more questions, for the language model")
    parser.add_argument("--epochs", type=int, help="of the classifier's last stage; default: the preset's")
    parser.add_argument("--lm-epochs", type=int, help="of the language model; default: the preset's")
    task = Task.of(args := parser.parse_args())
    rows = []
    for _ in range(args.repeats):
        (one, accuracy_one), (ten, accuracy_ten) = timed(shared, task), timed(apart, task)
        rows.append({"shared": one, "apart": ten, "ratio": one / ten, "accuracy_shared": accuracy_one,
                     "accuracy_apart": accuracy_ten})
        print(json.dumps({name: round(value, 3) for name, value in rows[-1].items()}), flush=True)
    print(pd.DataFrame(rows).describe().loc[["min", "50%", "max"]].round(3).to_string())
    print(f"median ratio {statistics.median(row['ratio'] for row in rows):.3f}")


if __name__ == "__main__":
    main()
