"""What batch norm's statistics cost a classifier: running ones beside those of a sample of training texts.

    python -m benchmarks.batch_norm trec6 --data trec6.parquet --seeds 3 --out runs/batch-norm
    python -m benchmarks.batch_norm imdb --data imdb.tgz --labels 2000 --set lm.max_docs=3000 --seeds 2 --out runs/bn
    python -m benchmarks.batch_norm imdb --data imdb.tgz --lm-from runs/imdb-quick --set valid_fraction=0.1

The preset `quick`, forward and backward. After each epoch the same weights are measured with either, on the texts held
out (a fifth of the training set, unless --set says otherwise), so that a difference is that of the statistics alone; it
is paired text by text, with its standard error. The training goes on with neither: batch norm trains on its batches.
With --lm-from the language models are those of finished runs of `quick`, whose own part of held-out texts is a tenth.
The test set is not read, unless --set evaluate=test makes a whole run of `quick` of each direction, in
--out/TASK-LABELS-SEED/DIRECTION. Resumable by run and direction: a finished one is not made again. Writes
data/results/batch-norm/TASK-LABELS.json.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from torch.nn.functional import cross_entropy

from benchmarks.rivals import TASKS_AT_HAND, dataset_of
from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.cli.options import setting
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.recipe.settings import with_settings
from ulmfit_fastai.results.environment import command_line, versions
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.training.precise_batch_norm import TEXTS
from ulmfit_fastai.training.runs import run
from ulmfit_fastai.training.sharing import by_direction

ROOT = Path(__file__).parents[1]


class Measure(Callback):
    """Each held-out text's loss, and whether it is right, after an epoch of training; changes nothing.

    Args:
        order: 4, before `PreciseBatchNorm`, or 6, after it.
    """

    only_watches = True

    def __init__(self, order: int) -> None:
        self.order = order
        self.epochs: list[dict[str, list[float]]] = []

    def state_dict(self) -> dict[str, Any]:
        """What was measured; it comes back after an interruption."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]

    @torch.no_grad()
    def after_train(self) -> None:
        if not hasattr(self.learn.model[1], "layers"):  # a language model
            return
        model, losses, right = self.learn.model, [], []
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        for x, y in self.learn.dls.valid:
            logits = model(x)[0].float().as_subclass(torch.Tensor)
            y = y.as_subclass(torch.Tensor)
            losses += cross_entropy(logits, y, reduction="none").tolist()
            right += (logits.argmax(-1) == y).float().tolist()
        for module, mode in modes:
            module.training = mode
        self.epochs.append({"loss": losses, "right": right})


def recipe_of(task: str, labels: int | None, seed: int, settings: dict[str, Any], *, texts: int = TEXTS) -> Recipe:
    """`quick` with these statistics in both directions, measured on a fifth of the labelled texts."""
    base = replace(preset("quick", task), directions=("forward", "backward"), evaluate="validation", n_labels=labels,
                   valid_fraction=0.2, seed=seed)
    classifier = replace(base.classifier, precise_batch_norm=texts, valid_docs=None)
    return with_settings(replace(base, classifier=classifier), settings)


def compared(running: dict[str, list[float]], precise: dict[str, list[float]]) -> dict[str, Any]:
    """Loss and error of both, and the mean difference of the losses with its standard error."""
    difference = np.subtract(precise["loss"], running["loss"])
    return {
        "texts": len(difference), "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
        **{name: {"loss": float(np.mean(found["loss"])), "error": 100 * (1 - float(np.mean(found["right"])))}
           for name, found in (("running", running), ("precise", precise))}}


def measure(dataset: Dataset, out: Path, recipe: Recipe, lm_from: Sequence[Path] = (), **options: Any
            ) -> dict[str, Any]:
    """Train a run, or read what a finished one measured: by direction, the comparison after each epoch."""
    sources, before, after, found = by_direction(lm_from, recipe.directions), Measure(4), Measure(6), {}
    for direction in recipe.directions:  # one after the other, so that each has its own rows
        folder = out / direction
        kept = folder / "batch_norm.json"
        if not kept.exists():
            before.epochs, after.epochs = [], []
            given = {direction: sources[direction]} if sources else None
            one = replace(recipe, directions=(direction,))
            run(one, dataset, folder, cbs=[before, after], lm_from=given, plan=False, **options)
            if json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] != "finished":
                raise SystemExit(f"{folder}: stopped in good order; the same command goes on")
            write_json_atomic(kept, [compared(*pair) for pair in zip(before.epochs, after.epochs, strict=True)])
        found[direction] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS_AT_HAND)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=int, help="(default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="runs (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--lm-from", type=Path, nargs="+", default=[], metavar="RUN",
                        help="runs whose fine-tuned language models to take")
    parser.add_argument("--direction", choices=("forward", "backward"), help="(default: both, one after the other)")
    parser.add_argument("--out", type=Path, default=Path("runs/batch-norm"))
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results" / "batch-norm")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset, settings = dataset_of(args.task, args.data), dict(map(setting, args.set))
    labels = "all" if args.labels is None else args.labels
    rows = []
    for seed in range(args.seeds):
        recipe = recipe_of(args.task, args.labels, seed, settings)
        if args.direction:
            recipe = replace(recipe, directions=(args.direction,))
        found = measure(dataset, args.out / f"{args.task}-{labels}-{seed}", recipe, args.lm_from)
        for direction, epochs in found.items():
            rows.append({"seed": seed, "direction": direction, "epochs": epochs})
            last = epochs[-1]
            print(f"{args.task} {labels} labels, seed {seed}, {direction}: running {last['running']['loss']:.4f} "
                  f"({last['running']['error']:.2f} %), precise {last['precise']['loss']:.4f} "
                  f"({last['precise']['error']:.2f} %), {last['difference']:+.4f} +- {last['standard_error']:.4f}")
    args.results.mkdir(parents=True, exist_ok=True)
    write_json_atomic(args.results / f"{args.task}-{labels}.json", {
        "task": args.task, "labels": args.labels, "texts_of_statistics": TEXTS, "command": command_line(),
        "settings": settings, "recipe_hash": recipe_of(args.task, args.labels, 0, settings).hash,
        "runs": rows, "versions": versions()})


if __name__ == "__main__":
    main()
