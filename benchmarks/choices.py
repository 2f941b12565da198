"""How the numbers of `quick` were chosen: settings beside each other by their loss on the same held-out reviews.

    python -m benchmarks.choices lm --data imdb.tgz --out runs/choices
    python -m benchmarks.choices short --task trec6 --data trec6.parquet --out runs/choices-trec6
    python -m benchmarks.choices classifier --data imdb.tgz --out runs/choices --language-model runs/imdb-quick
    python -m benchmarks.choices few --data imdb.tgz --out runs/choices --language-model runs/imdb-quick --labels 500

`lm` fine-tunes a language model for each way on the same texts, once; `short` does so on a set of short texts, 200 of
them with labels, as often as the preset for few labels reads them. `classifier` trains classifiers on one language
model, that of a run; `few` does so with few labels, drawn as often as `--seeds` says, beside the preset for them. Each
is measured on a fifth of the training set (`few`: a tenth; language models: 1,200 texts of it at most) that none of
them learns from; the test set is never read. Losses are paired: differences text by text (language models: in
blocks of 50 texts), with their standard error. Resumable: the same command goes on. Writes
data/results/choices/TASK-PHASE.json, `few` TASK-few-LABELS-RUN.json.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals import TASKS_AT_HAND, dataset_of
from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.fitting import FEW_LABELS, classifier_for, fitted, with_epochs
from ulmfit_fastai.recipe.freezing import Steps, by_hand, full
from ulmfit_fastai.recipe.parts import AWD_CLASSIFIER, AWD_LM
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.recipe.schedules import one_cycle
from ulmfit_fastai.results.environment import command_line, versions
from ulmfit_fastai.results.held_out import read_held_out
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.training.prepare import prepare, rows_for
from ulmfit_fastai.training.pretraining import perplexity
from ulmfit_fastai.training.runs import run
from ulmfit_fastai.training.sharing import language_model_recipe

ROOT = Path(__file__).parents[1]
VALID_FRACTION = 0.2
"""Of the 25,000 labelled reviews: 5,000."""
BLOCK, BLOCKS = 50, 24
"""Held-out texts whose loss is one number in a comparison of language models, and so many such numbers."""


@dataclass(frozen=True)
class Fitting:
    """How a language model is fine-tuned: batch, rate, what its dropouts are multiplied by, AR and TAR; epochs."""

    bs: int
    lr: float
    drop: float
    alpha: float
    beta: float
    epochs: int | None = None
    """None: the preset's."""

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with its language model fine-tuned so."""
        assert recipe.lm is not None
        epochs = self.epochs or recipe.lm.epochs
        lm = replace(recipe.lm, bs=self.bs, alpha=self.alpha, beta=self.beta,
                     stages=full(epochs, self.lr, discriminative=1.0, schedule=one_cycle(div=10.0)))
        return replace(recipe, lm=lm, model=replace(recipe.model, lm_dropouts=AWD_LM.scaled(self.drop)))


FITTINGS = {
    "batch 32, 5e-3, dropout 0.2, AR and TAR": Fitting(32, 5e-3, 0.2, 2.0, 1.0),
    "batch 64, 5e-3, dropout 0.1": Fitting(64, 5e-3, 0.1, 0.0, 0.0),
    "batch 64, 8e-3, dropout 0.1": Fitting(64, 8e-3, 0.1, 0.0, 0.0),
    "batch 64, 5e-3, no dropout": Fitting(64, 5e-3, 0.0, 0.0, 0.0),
    "batch 64, 8e-3, no dropout": Fitting(64, 8e-3, 0.0, 0.0, 0.0),
    "batch 64, 1.2e-2, no dropout": Fitting(64, 1.2e-2, 0.0, 0.0, 0.0),
}
"""The first is what the preset had before; each other way is compared with it."""
REPEATED = {
    "batch 32, 5e-3, dropout 0.2, AR and TAR": Fitting(32, 5e-3, 0.2, 2.0, 1.0),
    "the same, 4 epochs": Fitting(32, 5e-3, 0.2, 2.0, 1.0, 4),
    "the same, dropout 0.6": Fitting(32, 5e-3, 0.6, 2.0, 1.0),
    "the same, dropout 1": Fitting(32, 5e-3, 1.0, 2.0, 1.0),
    "the same, 4 epochs, dropout 0.6": Fitting(32, 5e-3, 0.6, 2.0, 1.0, 4),
    "the same, 2 epochs": Fitting(32, 5e-3, 0.2, 2.0, 1.0, 2),
    "the same, 4 epochs, no dropout, AR or TAR": Fitting(32, 5e-3, 0.0, 0.0, 0.0, 4),
    "the same, 4 epochs, 2.5e-3": Fitting(32, 2.5e-3, 0.2, 2.0, 1.0, 4),
    "the same, 4 epochs, 1e-2": Fitting(32, 1e-2, 0.2, 2.0, 1.0, 4),
}
"""For few texts, which a language model may read several times: the first has as many epochs as `fitted` gave once."""


@dataclass(frozen=True)
class Training:
    """How a classifier is trained: ratio between neighbouring groups' rates, rate and epochs of its last stage, what
    the paper's dropouts are multiplied by, and steps of unfreezing instead of the preset's; None: the preset's."""

    ratio: float | None = None
    lr: float | None = None
    epochs: int | None = None
    drop: float | None = None
    steps: Steps | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with its classifier trained so."""
        stages = recipe.classifier.stages
        if self.steps is not None:
            stages = by_hand(recipe.model.n_groups, self.steps, stages[-1].discriminative)
        if self.ratio is not None:
            stages = tuple(replace(stage, discriminative=self.ratio) for stage in stages)
        last = stages[-1] if self.lr is None else replace(stages[-1], lr=self.lr)
        phase = replace(recipe.classifier, stages=(*stages[:-1], last))
        model = recipe.model if self.drop is None else replace(
            recipe.model, classifier_dropouts=AWD_CLASSIFIER.scaled(self.drop))
        return replace(recipe, model=model, classifier=with_epochs(phase, self.epochs or last.epochs))


TRAININGS = {
    "one rate, 5e-3, 3 epochs, dropout 0.5": Training(1.0, 5e-3, 3, 0.5),
    "2.6 between groups": Training(2.6, 5e-3, 3, 0.5),
    "2.6, 2e-3": Training(2.6, 2e-3, 3, 0.5),
    "2.6, dropout 1": Training(2.6, 5e-3, 3, 1.0),
    "one rate, 1e-3": Training(1.0, 1e-3, 3, 0.5),
    "2.6, 2 epochs": Training(2.6, 5e-3, 2, 0.5),
}
"""The first is what the preset had before."""
TRAININGS_FEW = {
    "5e-3, 15 epochs": Training(lr=5e-3, epochs=15),
    "2e-3, 15 epochs": Training(lr=2e-3, epochs=15),
    "1e-3, 15 epochs": Training(lr=1e-3, epochs=15),
    "2e-3, 6 epochs": Training(lr=2e-3, epochs=6),
    "1e-3, 6 epochs": Training(lr=1e-3, epochs=6),
    "5e-4, 6 epochs": Training(lr=5e-4, epochs=6),
    "1e-3, 4 epochs": Training(lr=1e-3, epochs=4),
    "head first, 2.6, 5e-3": Training(2.6, steps=((5, 2e-2), (2, 1e-2), (8, 5e-3))),
    "head first, one rate, 1e-3": Training(1.0, steps=((3, 2e-2), (5, 1e-3))),
}
"""For few labels; the first is the preset's."""


def block_losses(weights: LMWeights, recipe: Recipe, texts: list[str], cache: Path) -> np.ndarray:
    """Loss a token of each block of texts, (blocks,), all words of the vocabulary competing."""
    blocks = [texts[start : start + BLOCK] for start in range(0, min(len(texts), BLOCK * BLOCKS), BLOCK)]
    return np.log([perplexity(weights, recipe.model, block, cache=cache)["perplexity"] for block in blocks])


def text_losses(folder: Path) -> np.ndarray:
    """Loss of each held-out text, (texts,), of a finished run that was measured on its validation part."""
    result = Result.load(folder)
    held = read_held_out(folder, result.run)
    assert held is not None
    return -np.log(np.maximum(held.outputs[np.arange(len(held.truth)), held.truth.astype(int)], 1e-7))


def compared(losses: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Mean loss of each way, and its difference to the first with the standard error of the paired differences."""
    first = next(iter(losses.values()))
    return [{"way": way, "loss": float(found.mean()), "difference": float((found - first).mean()),
             "standard_error": float((found - first).std(ddof=1) / np.sqrt(len(found))), "n": len(found)}
            for way, found in losses.items()]


def asked(trainings: dict[str, Training], names: list[str]) -> dict[str, Training]:
    """The first of the ways, and those that are named."""
    return {way: training for way, training in trainings.items() if way in (next(iter(trainings)), *names)}


def finished(folder: Path) -> Path:
    """The folder of a run that came to its end; the program ends with one that was stopped."""
    if Result.load(folder).status != "finished":
        raise SystemExit(f"{folder}: stopped in good order; the same command goes on")
    return folder


def for_few_labels(dataset: Dataset, base: Recipe, labels: int = 200) -> Recipe:
    """The preset for few labels as `ULMFiT` fits it to these texts, `labels` of them with one."""
    base = replace(base, n_labels=labels)
    tokens = int(prepare(base, dataset, progress=False).ids.offsets[-1])
    return fitted(base, n_train=labels, n_tokens=tokens)


def language_models(base: Recipe, dataset: Dataset, out: Path, docs: int | None, fittings: dict[str, Fitting]
                    ) -> list[dict[str, Any]]:
    """Fine-tune a language model each way on `docs` texts (None: all), and compare their losses."""
    assert base.lm is not None
    base = replace(base, lm=replace(base.lm, max_docs=docs, valid_docs=500))
    texts = dataset.df["text"].iloc[rows_for(base, dataset).valid].tolist()
    losses, seconds = {}, {}
    for number, (way, fitting) in enumerate(fittings.items()):
        recipe = language_model_recipe(fitting.of(base), "forward")
        folder = finished(run(recipe, dataset, out / f"lm-{number}", until="lm", plan=False, progress=False))
        losses[way] = block_losses(LMWeights.load(folder / "lm_forward.safetensors"), recipe, texts, out / "tokens")
        seconds[way] = sum(stage["seconds"] for stage in Result.load(folder).run["stages"])
        print(f"{way}: {losses[way].mean():.4f}, {seconds[way]:.0f} s", flush=True)
    return [{**record, "seconds": seconds[record["way"]]} for record in compared(losses)]


def classifiers(base: Recipe, dataset: Dataset, out: Path, language_model: Path, trainings: dict[str, Training]
                ) -> list[dict[str, Any]]:
    """Train a classifier each way on one language model, and compare their losses.

    The language model may have read the held-out texts, without their labels, as it may in every run.
    """
    losses, more = {}, {}
    base = replace(base, lm=None, weights=str(language_model))
    for way, training in trainings.items():
        recipe = replace(training.of(base), evaluate="validation")
        place = out / f"classifier-{way.replace(', ', '-').replace(' ', '-')}"
        folder = finished(run(recipe, dataset, place, plan=False, progress=False))
        result = Result.load(folder)
        losses[way] = text_losses(folder)
        more[way] = {"error": result.error, "seconds": sum(stage["seconds"] for stage in result.run["stages"]
                                                           if stage["phase"] == "classifier")}
        print(f"{way}: loss {losses[way].mean():.4f}, error {result.error:.2f} %", flush=True)
    return [{**record, **more[record["way"]]} for record in compared(losses)]


def recipe_for(labels: int | None, task: str = "imdb") -> Recipe:
    """`quick`, or with few labels the classifier of `few-labels`, on the language model of `quick`; forward."""
    base = replace(preset("quick", task), directions=("forward",), evaluate="validation", n_labels=labels)
    if labels is None or labels >= FEW_LABELS:
        return base
    few = preset("few-labels", task)
    return replace(base, classifier=classifier_for(replace(few, n_labels=labels), labels))


@dataclass(frozen=True)
class Outcome:
    """What a way of training came to on the held-out texts of all seeds."""

    losses: np.ndarray
    errors: list[float]
    seconds: float


def outcome(recipe: Recipe, dataset: Dataset, folder: Path, language_model: Path, seeds: range) -> Outcome:
    """Train what is missing, a run a seed, and read what it came to."""
    losses, errors, seconds = [], [], 0.0
    for seed in seeds:
        place = folder / f"seed-{seed}"
        finished(run(replace(recipe, seed=seed, lm_seed=0 if seed else None), dataset, place, plan=False,
                     progress=False, lm_from={direction: language_model for direction in recipe.directions}))
        result = Result.load(place)
        losses.append(text_losses(place))
        errors.append(float(result.error or 0.0))
        seconds += sum(stage["seconds"] for stage in result.run["stages"] if stage["phase"] == "classifier")
    return Outcome(np.concatenate(losses), errors, seconds)


def on_language_model(language_model: Path, labels: int | None, task: str) -> Recipe:
    """The recipe of a run that has a language model, with the classifier of `quick` or, with few labels, that of
    `few-labels`; forward."""
    base = recipe_for(labels, task)
    return replace(Result.load(language_model).recipe, classifier=base.classifier, directions=base.directions,
                   evaluate=base.evaluate, n_labels=labels, adversarial=base.adversarial)


def side_by_side(recipes: dict[str, Recipe], dataset: Dataset, out: Path, language_model: Path, seeds: range
                 ) -> list[dict[str, Any]]:
    """Train a classifier by each recipe, once for each draw of the labels, on one language model; compare losses."""
    found = {}
    for way, recipe in recipes.items():
        place = out / f"{recipe.n_labels or 'all'}-{way.replace(', ', '-').replace(' ', '-')}"
        found[way] = outcome(recipe, dataset, place, language_model, seeds)
        print(f"{way}: loss {found[way].losses.mean():.4f}, errors {found[way].errors}, {found[way].seconds:.0f} s",
              flush=True)
    return [{**record, "errors": found[record["way"]].errors, "seconds": found[record["way"]].seconds}
            for record in compared({way: each.losses for way, each in found.items()})]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("lm", "short", "classifier", "few"))
    parser.add_argument("--task", choices=TASKS_AT_HAND, default="imdb")
    parser.add_argument("--data", type=Path, required=True, help="the set's folder or file")
    parser.add_argument("--out", type=Path, default=Path("runs/choices"))
    parser.add_argument("--docs", type=int, default=8_000, help="texts that each language model of `lm` is tuned on")
    parser.add_argument("--labels", type=int, help="of `classifier` and `few`; default: all that are not held out")
    parser.add_argument("--seeds", type=int, default=1, help="draws of the labels of `few`")
    parser.add_argument("--ways", nargs="*", choices=[*TRAININGS, *TRAININGS_FEW],
                        default=[*TRAININGS, *TRAININGS_FEW],
                        help="of `classifier` and `few`; the first of either is always there")
    parser.add_argument("--weights", help="what they start from; default: the preset's")
    parser.add_argument("--language-model", type=Path, help="a run that has one, for `classifier` and `few`")
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results" / "choices")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    base = preset("few-labels" if args.phase == "short" else "quick", "custom", valid_fraction=VALID_FRACTION,
                  **({"weights": args.weights} if args.weights else {}))
    dataset = dataset_of(args.task, args.data, verify=False)
    if args.phase == "lm":
        records = language_models(base, dataset, args.out, args.docs, FITTINGS)
    elif args.phase == "short":
        base = for_few_labels(dataset, base)
        records = language_models(base, dataset, args.out, None, REPEATED)
    elif args.language_model is None:
        parser.error(f"{args.phase}: give --language-model, a run of the preset whose language model is finished")
    elif args.phase == "few":
        if args.labels is None:
            parser.error("few: give --labels")
        base = on_language_model(args.language_model, args.labels, args.task)
        recipes = {way: training.of(base) for way, training in asked(TRAININGS_FEW, args.ways).items()}
        records = side_by_side(recipes, dataset, args.out, args.language_model, range(args.seeds))
    else:
        base = replace(base, n_labels=args.labels)
        records = classifiers(base, dataset, args.out, args.language_model, asked(TRAININGS, args.ways))
    of = f"-{args.labels}-{args.language_model.name}" if args.phase == "few" else ""
    write_json_atomic(args.results / f"{args.task}-{args.phase}{of}.json", {
        "command": command_line(), "versions": versions(), "seed": base.seed,
        "texts": args.docs if args.phase == "lm" else None, "recipe": base.to_dict(), "records": records})


if __name__ == "__main__":
    main()
