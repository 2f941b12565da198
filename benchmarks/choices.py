"""How the numbers of `quick` were chosen: settings beside each other by their loss on the same held-out reviews.

    python -m benchmarks.choices lm --data imdb.tgz --out runs/choices
    python -m benchmarks.choices short --task trec6 --data trec6.parquet --out runs/choices-trec6
    python -m benchmarks.choices classifier --data imdb.tgz --out runs/choices --language-model runs/imdb-quick

`lm` fine-tunes a language model for each way on the same texts, once; `short` does so on a set of short texts, 200 of
them with labels, as often as the preset for few labels reads them. `classifier` trains classifiers on one language
model, that of a run. Each is measured on a fifth of the training set (language models: 1,200 texts of it at most) that
none of them learns from; the test set is never read. Losses are paired: differences text by text (language models: in
blocks of 50 texts), with their standard error. Resumable: the same command goes on. Writes
data/results/choices/TASK-PHASE.json.
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
from ulmfit_fastai.recipe.fitting import fitted, with_epochs
from ulmfit_fastai.recipe.freezing import full
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
    the paper's dropouts are multiplied by; None: the preset's."""

    ratio: float | None = None
    lr: float | None = None
    epochs: int | None = None
    drop: float | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with its classifier trained so."""
        stages = tuple(stage if self.ratio is None else replace(stage, discriminative=self.ratio)
                       for stage in recipe.classifier.stages)
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("lm", "short", "classifier"))
    parser.add_argument("--task", choices=TASKS_AT_HAND, default="imdb")
    parser.add_argument("--data", type=Path, required=True, help="the set's folder or file")
    parser.add_argument("--out", type=Path, default=Path("runs/choices"))
    parser.add_argument("--docs", type=int, default=8_000, help="texts that each language model of `lm` is tuned on")
    parser.add_argument("--labels", type=int, help="of `classifier`; default: all that are not held out")
    parser.add_argument("--ways", nargs="*", choices=[*TRAININGS], default=[*TRAININGS],
                        help="of `classifier`; the first is always there")
    parser.add_argument("--weights", help="what they start from; default: the preset's")
    parser.add_argument("--language-model", type=Path, help="a run that has one, for `classifier`")
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
        parser.error("classifier: give --language-model, a run of the preset whose language model is finished")
    else:
        base = replace(base, n_labels=args.labels)
        records = classifiers(base, dataset, args.out, args.language_model, {
            way: training for way, training in TRAININGS.items() if way in (next(iter(TRAININGS)), *args.ways)})
    write_json_atomic(args.results / f"{args.task}-{args.phase}.json", {
        "command": command_line(), "versions": versions(), "seed": base.seed,
        "texts": args.docs if args.phase == "lm" else None, "recipe": base.to_dict(), "records": records})


if __name__ == "__main__":
    main()
