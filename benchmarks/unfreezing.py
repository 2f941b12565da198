"""How a small language model wants its classifier trained: everything at once or gradually, and at which rates.

    python -m benchmarks.unfreezing --data imdb.tgz --out runs/unfreezing [--language-model runs/imdb-few-labels]

One language model, fine-tuned as the preset `few-labels` has it (or that of a finished run of the preset), then a
classifier for each way of training, all measured on the same 2,500 held-out reviews. Resumable: the same command goes
on. Writes data/results/imdb-unfreezing.json.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.recipe.fitting import with_epochs
from ulmfit_fastai.recipe.freezing import Stage
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.environment import command_line, versions
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.texts.imdb import load_imdb
from ulmfit_fastai.training.runs import run
from ulmfit_fastai.training.sharing import language_model_recipe

ROOT = Path(__file__).parents[1]
WAYS = (("gradually", 1.0), ("gradually", 2.6), ("at once", 1.0), ("at once", 1.6))
"""Unfreezing, and the ratio between the rates of neighbouring groups."""
LABELS = {500: 15, 2_000: 4}
"""Labels -> epochs of the classifier."""


def recipe_of(way: str, ratio: float, n_labels: int, epochs: int, base: Recipe) -> Recipe:
    """The base with its classifier trained this way: stages of `quick`, or the last of them alone, for `epochs`."""
    stages: tuple[Stage, ...] = preset("quick").classifier.stages
    if way == "at once":
        stages = stages[-1:]
    stages = tuple(replace(stage, discriminative=ratio) for stage in stages)
    phase = with_epochs(replace(base.classifier, stages=stages, bs=16 if n_labels <= 1_000 else 32),
                        epochs - len(stages) + 1)
    return replace(base, name=f"{way}, {ratio}", n_labels=n_labels, evaluate="validation", classifier=phase)


def measure(dataset: Dataset, out: Path, *, base: Recipe, language_model: Path | None = None,
            labels: dict[int, int] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Train what is missing and return a record for each way and number of labels."""
    if language_model is None:
        language_model = out / "lm"
        run(language_model_recipe(base, "forward"), dataset, language_model, until="lm", plan=False, **options)
    found = []
    for n_labels, epochs in (labels or LABELS).items():
        for way, ratio in WAYS:
            recipe = recipe_of(way, ratio, n_labels, epochs, base)
            folder = out / f"{way.replace(' ', '-')}-{ratio}-{n_labels}"
            run(recipe, dataset, folder, lm_from={"forward": language_model}, plan=False, **options)
            result = Result.load(folder)
            found.append({"unfreezing": way, "ratio": ratio, "labels": n_labels, "epochs": epochs,
                          "error": result.error, "interval": result.interval, "n": result.n_test,
                          "recipe_hash": recipe.hash, "classifier": recipe.to_dict()["classifier"],
                          "seconds": sum(stage["seconds"] for stage in result.run["stages"]
                                         if stage["phase"] == "classifier"), "versions": result.run["versions"]})
            print(f"{n_labels:,} labels, {way}, ratio {ratio}: {result.error:.2f} %", flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="IMDb, a folder or a .tgz")
    parser.add_argument("--out", type=Path, default=Path("runs/unfreezing"))
    parser.add_argument("--language-model", type=Path, help="a finished run of the preset few-labels, to save its time")
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results" / "imdb-unfreezing.json")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    base = preset("few-labels")
    found = measure(load_imdb(args.data), args.out, base=base, language_model=args.language_model, progress=False)
    write_json_atomic(args.results, {"command": command_line(), "versions": versions(), "seed": base.seed,
                                     "language_model": language_model_recipe(base, "forward").to_dict(),
                                     "records": found})


if __name__ == "__main__":
    main()
