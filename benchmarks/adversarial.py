"""What adversarial training of the classifier is worth, and what it costs.

    python -m benchmarks.adversarial choose --language-model runs/imdb-quick --data imdb.tgz --labels 500 \\
        --set classifier.stages.0.epochs=6 --set classifier.stages.0.lr=1e-3
    python -m benchmarks.adversarial cost --language-model runs/imdb-quick --data imdb.tgz

`choose` trains classifiers on one language model, that of a run, with the same labels, seeds and order of texts:
without, and with each weight and epsilon; as the preset has it, but for what --set changes. They are measured on the
same held-out reviews, by paired differences of their losses; the test set is never read; the same command goes on.
`cost` times batches without, with the adversarial loss, the virtual one and both, in turn, on the same texts in one
process: CPU seconds, with the median and spread of the ratios. They write
data/results/adversarial/TASK-LABELS-RUN.json (or --name) and cost.json.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException

from benchmarks.choices import on_language_model, side_by_side
from benchmarks.rivals import TASKS_AT_HAND, dataset_of
from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.cli.options import setting
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.parts import Adversarial
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.recipe.settings import with_settings
from ulmfit_fastai.results.environment import command_line, versions
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.training.callbacks import Budget
from ulmfit_fastai.training.phases import Run
from ulmfit_fastai.training.prepare import prepare
from ulmfit_fastai.training.session import Conditions

ROOT = Path(__file__).parents[1]
WAYS = {
    "without": Adversarial(),
    "adversarial, 1": Adversarial(weight=1.0, epsilon=1.0),
    "adversarial, 2.5": Adversarial(weight=1.0, epsilon=2.5),
    "adversarial, 5": Adversarial(weight=1.0, epsilon=5.0),
    "adversarial, 10": Adversarial(weight=1.0, epsilon=10.0),
    "virtual, 2.5": Adversarial(virtual_weight=1.0, epsilon=2.5),
    "virtual, 5": Adversarial(virtual_weight=1.0, epsilon=5.0),
    "both, 5": Adversarial(weight=1.0, virtual_weight=1.0, epsilon=5.0),
}
"""Each is compared with the first."""
COSTS = {"without": Adversarial(), "adversarial": Adversarial(weight=1.0), "virtual": Adversarial(virtual_weight=1.0),
         "virtual, the labelled batch": Adversarial(virtual_weight=1.0, unlabelled=False),
         "both": Adversarial(weight=1.0, virtual_weight=1.0)}


def choose(ways: dict[str, Adversarial], base: Recipe, dataset: Dataset, out: Path, language_model: Path,
           seeds: range) -> list[dict[str, Any]]:
    """Each way beside the first, on the same held-out texts."""
    recipes = {way: replace(base, adversarial=asked) for way, asked in ways.items()}
    return [{**record, "adversarial": vars(ways[record["way"]])}
            for record in side_by_side(recipes, dataset, out, language_model, seeds)]


def cost(base: Recipe, dataset: Dataset, language_model: Path, *, batches: int, repeats: int) -> list[dict[str, Any]]:
    """CPU seconds of training batches each way, in turn; `batches` of them, from all over an epoch."""
    data = prepare(base, dataset, progress=False)
    encoder = LMWeights.load(language_model / "lm_forward.safetensors").for_vocab(data.ids.vocab)
    seconds: dict[str, list[float]] = {way: [] for way in COSTS}
    for number in range(repeats + 1):  # the first warms up
        for way, asked in COSTS.items():
            work = Run(replace(base, adversarial=asked), data, RunFolder(Path("cost")),
                       Conditions(torch.device("cpu"), Budget()))
            learn = work.build_classifier("forward", encoder)
            seconds[way].append(_seconds(learn, batches))
        if number == 0:
            seconds = {way: [] for way in COSTS}
    plain = np.array(seconds["without"])
    return [{"way": way, "seconds": found, "ratio": float(np.median(np.array(found) / plain)),
             "lowest": float(np.min(np.array(found) / plain)), "highest": float(np.max(np.array(found) / plain))}
            for way, found in seconds.items()]


def _seconds(learn: Any, batches: int) -> float:
    """CPU seconds of so many batches of a fit, every group open."""
    loader = learn.dls.train
    plan = loader.batches(0)[:: max(1, len(loader) // batches)][:batches]
    loader.batches = lambda epoch=None: plan
    learn.unfreeze()
    watch = Stopwatch()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3, cbs=watch)
    return watch.seconds


class Stopwatch(Callback):
    """CPU seconds of an epoch's training, which is all there is: nothing is validated."""

    def before_train(self) -> None:
        self.started = time.process_time()

    def after_train(self) -> None:
        self.seconds = time.process_time() - self.started
        raise CancelFitException


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choose", "cost"))
    parser.add_argument("--task", choices=TASKS_AT_HAND, default="imdb")
    parser.add_argument("--data", type=Path, required=True, help="the set's folder or file")
    parser.add_argument("--language-model", type=Path, required=True, help="a run that has it")
    parser.add_argument("--labels", type=int, help="default: all that are not held out")
    parser.add_argument("--seeds", type=int, default=1, help="draws of the labels")
    parser.add_argument("--ways", nargs="*", choices=[*WAYS], default=[*WAYS], help="the first is always there")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                        help="what all of them have otherwise than the preset")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/adversarial"))
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results" / "adversarial")
    parser.add_argument("--name", help="of the file that `choose` writes (default: TASK-LABELS-RUN)")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    base = with_settings(on_language_model(args.language_model, args.labels, args.task), dict(map(setting, args.set)))
    dataset = dataset_of(args.task, args.data, verify=False)
    if args.what == "cost":
        records, name = cost(base, dataset, args.language_model, batches=6, repeats=args.repeats), "cost"
    else:
        ways = {way: asked for way, asked in WAYS.items() if way in (next(iter(WAYS)), *args.ways)}
        records = choose(ways, base, dataset, args.out / args.task, args.language_model, range(args.seeds))
        name = args.name or f"{args.task}-{args.labels or 'all'}-{args.language_model.name}"
    write_json_atomic(args.results / f"{name}.json", {
        "command": command_line(), "versions": versions(), "seeds": args.seeds, "recipe": base.to_dict(),
        "records": records})


if __name__ == "__main__":
    main()
