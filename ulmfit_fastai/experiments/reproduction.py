"""One call from texts to a checked result: reproduce_imdb(), any task of the paper, and the demo."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe.find import find_recipe
from ..recipe.recipe import Recipe
from ..recipe.settings import LostSetting, with_settings
from ..report.report import write_report
from ..results.result import Result
from ..texts.dataset import Dataset
from ..texts.sources import load_task
from ..texts.synthetic import synthetic_reviews
from ..training.baseline import tfidf_baseline
from ..training.corpus import Corpus
from ..training.processes import join, processes
from ..training.runs import refuse_other_models, run
from ..training.sharing import LmFrom, by_direction
from .base import refuse_early

log = logging.getLogger(__name__)


def reproduce_imdb(
    preset: str | Path | Recipe = "fastai",
    *,
    data: str | Path | None = None,
    corpus: Corpus | None = None,
    out: str | Path = "runs/imdb",
    directions: Sequence[str] | None = None,
    lm_from: LmFrom | None = None,
    device: str | None = None,
    resume: bool = True,
    time_budget: float | None = None,
    dry_run: bool = False,
    progress: bool = True,
    parallel: bool | None = None,
    cbs: Any = None,
    **overrides: Any,
) -> Result | None:
    """Reproduce the paper's IMDb experiment and return the test error beside the paper's 4.6 %.

    Loads the 100,000 reviews, starts from a language model of general text, fine-tunes it on the reviews' texts,
    fine-tunes the classifier with gradual unfreezing, in each direction, averages the two, and predicts the 25,000 test
    reviews once, at the end.

    Args:
        preset: 'fastai' (what works best on fastai v2, for a GPU), 'paper' (section 4.1 to the letter), 'scripts' (the
            authors' code), 'quick' (a small model, an evening on two CPU cores), 'tiny' (to see it turn); or a
            `Recipe`, a JSON file of one, or the folder of a run whose recipe to follow.
        data: the IMDb set: a folder or .tgz in fastai's or Stanford's layout. None: fastai's cache, or a download.
        corpus: general text for a recipe that pretrains (weights 'pretrain', as in 'paper' and 'scripts'): a file or
            folder of articles, 'wikitext-103' from fastai's cache, or texts in a list.
        out: the run folder: everything the run makes. The same folder again goes on where it stopped.
        directions: ('forward',), ('backward',) or both; None: the preset's.
        lm_from: another run's folder whose fine-tuned language models to take instead of making the same again, or
            several, of which each direction takes the first that has one, or {direction: folder}; refused where they
            are others than this recipe would lead to.
        device: 'cpu', 'cuda', 'mps'; None: the best there is.
        resume: False moves an earlier run in `out` aside and starts anew.
        time_budget: seconds after which to stop in good order; call again to go on.
        dry_run: only print what would be done and how long it would take here.
        progress: show progress bars and, first, the plan.
        parallel: train both directions at once on a CPU, in two processes; None: where there are cores for it.
        cbs: fastai callbacks, which run beside ours in every stage of every phase (docs/callbacks.md).
        overrides: recipe fields by dotted name, as in `**{"classifier.bs": 32, "seed": 1}`; one without effect is
            refused.

    Returns:
        Result: `.error` (%), `.interval` (95 %), `.predictions`, `.plot()`; it displays as a table beside the paper's
        numbers, and `check` gives the verdict. A run stopped by its time budget has status 'stopped' and no error yet.
        None for a dry run.

    Raises:
        UlmfitError: data or weights that are missing or broken (with what to fetch and where to put it), settings that
            are wrong or would have no effect, or a folder that holds another run.

    Source: Howard & Ruder 2018, sections 3 and 4, Table 2.
    """
    return reproduce("imdb", preset, data=data, corpus=corpus, out=out, directions=directions, lm_from=lm_from,
                     device=device, resume=resume, time_budget=time_budget, dry_run=dry_run, progress=progress,
                     parallel=parallel, cbs=cbs, **overrides)


def reproduce(
    task: str | Dataset,
    preset: str | Path | Recipe = "fastai",
    *,
    data: str | Path | None = None,
    verify: bool = True,
    train: str | None = None,
    corpus: Corpus | None = None,
    out: str | Path | None = None,
    directions: Sequence[str] | None = None,
    lm_from: LmFrom | None = None,
    device: str | None = None,
    resume: bool = True,
    time_budget: float | None = None,
    dry_run: bool = False,
    progress: bool = True,
    parallel: bool | None = None,
    cbs: Any = None,
    **overrides: Any,
) -> Result | None:
    """What `reproduce_imdb` does, for any data set of the paper or one of yours.

    Args:
        task: 'imdb', 'trec6', 'ag', 'dbpedia', 'yelp-bi', 'yelp-full' or a `Dataset`.
        verify: False takes a data set that isn't the published one, as in `load_task`; the result says so.
        train: the part to train on, as in `load_task`.
        out: the run folder; None: runs/<task>.
        overrides: these and all other arguments, what is returned and what is raised as in `reproduce_imdb`.

    Source: Howard & Ruder 2018, sections 3 and 4, Tables 2 and 3.
    """
    refuse_early(device, out)
    name = task.name if isinstance(task, Dataset) else task
    recipe = settled_recipe(preset, name, directions, overrides)
    if corpus is not None and recipe.weights != "pretrain":
        raise LostSetting(f"corpus: no effect on recipe {recipe.name!r}, whose weights are {recipe.weights!r}: only "
                          "'pretrain' reads one", field="corpus", advice="leave it out")
    borrowed = by_direction(lm_from, recipe.directions)
    if borrowed:  # what is wrong with it is said before a download
        refuse_other_models(borrowed, recipe, out or Path("runs") / name, resume=resume)
    with join(device).first():
        dataset = task if isinstance(task, Dataset) else load_task(task, data, verify=verify, train=train)
    folder = run_with_baseline(
        recipe, dataset, out or Path("runs") / dataset.name, corpus=corpus, lm_from=borrowed, device=device,
        resume=resume, time_budget=time_budget, dry_run=dry_run, progress=progress, parallel=parallel, cbs=cbs)
    if dry_run:
        smaller = {"paper": "fastai", "paper-wt103": "fastai", "scripts": "fastai", "fastai": "quick",
                   "quick": "tiny"}
        if recipe.name in smaller:
            log.info("a smaller preset: %s", smaller[recipe.name])
        return None
    if processes().leads:
        write_report(folder, dataset=dataset)
    return Result.load(folder)


def settled_recipe(preset: str | Path | Recipe, task: str, directions: Sequence[str] | None,
                   overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of a run; settings that are wrong or would have no effect are refused by name."""
    recipe = find_recipe(preset, task)
    if directions is not None:
        recipe = recipe.replace(directions=tuple(directions))
    return with_settings(recipe, overrides)


def run_with_baseline(recipe: Recipe, dataset: Dataset, out: str | Path, *, baseline: bool = True,
                      **options: Any) -> Path:
    """`training.run` with a bag of words on the same labels beside it, so that a result says what the easy way gives.

    Args:
        baseline: False leaves the bag of words out.
        options: those of `training.run`.

    Returns:
        Path: the run's folder.
    """
    return run(recipe, dataset, out, baseline=tfidf_baseline if baseline else None, **options)


def demo(*, out: str | Path = "runs/demo", device: str | None = None, progress: bool = True) -> Result:
    """The whole method, forward and backward, on synthetic reviews made by this package; minutes on two cores, offline.

    The reviews are built so that word order carries the label: a bag of words falls short. They are synthetic, and so
    is the error, of which 4 % can't be learnt: so many labels are wrong on purpose. Stage 1 reads other texts of the
    same generator, without labels.

    Args:
        out: the run folder; the report is report.html in it.
        device: 'cpu', 'cuda', 'mps'; None: the best there is.
        progress: show progress bars.
    """
    general = synthetic_reviews(n_train=2, n_test=2, n_unsup=3000, seed=1, plain=0.5)
    corpus = general.df["text"][general.rows("unsup")].tolist()
    reviews = synthetic_reviews(n_train=4000, n_test=1000, n_unsup=2000, plain=0.5, mistaken=0.04)
    result = reproduce(reviews, "demo", corpus=corpus, out=out, device=device, progress=progress)
    assert result is not None
    return result
