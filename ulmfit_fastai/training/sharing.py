"""One language model for many runs: what it depends on, and how a run starts from another run's.

The rows of Table 7 differ in how the classifier is trained, so they share their fine-tuned language model; so do the
numbers of labels in the semi-supervised setting of Figure 3. Recipes that pretrain share the pretrained one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import link_atomic
from .._schema import RUN, read_checked
from ..model.pretrained import content_of
from ..recipe.freezing import full
from ..recipe.parts import Adversarial, Model, Optimizer, Phase
from ..recipe.recipe import Recipe
from ..results.folder import RunFolder, RunMismatch, has_recipe

log = logging.getLogger(__name__)

PHASES = ("pretrain", "lm")
"""What can be shared: everything up to the end of LM fine-tuning."""
LmFrom = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
"""Whose language models to take: a run folder, several, or one for each direction."""
ANY_CLASSIFIER = Phase(stages=full(1, 0.01), optimizer=Optimizer())
"""What stands in a recipe for a classifier that is never trained."""


def language_model_recipe(recipe: Recipe, direction: str) -> Recipe:
    """What the fine-tuned language model of one direction depends on, and nothing else, as a recipe.

    On the same texts, recipes for which this is the same have the same language model. The fields that only the
    classifier reads have a fixed value in it. Raises ValueError for a recipe without LM fine-tuning.
    """
    if recipe.lm is None:
        raise UlmfitError(f"recipe {recipe.name!r} has no LM fine-tuning (lm is None), so there is no language model "
                          "to share.")
    pretrains = recipe.weights == "pretrain"
    model = replace(recipe.model, classifier_dropouts=recipe.model.lm_dropouts, head_hidden=Model.head_hidden,
                    head_dropout=Model.head_dropout,
                    pretrain_dropouts=recipe.model.pretrain_dropouts if pretrains else recipe.model.lm_dropouts)
    seeds: dict[str, Any] = {} if recipe.lm_texts == "labelled" else {"seed": recipe.language_seed, "lm_seed": None}
    return replace(recipe, name="language model", model=model, directions=(direction,), evaluate="test",
                   n_labels=recipe.n_labels if recipe.lm_texts == "labelled" else None,
                   pretrain=recipe.pretrain if pretrains else None, classifier=ANY_CLASSIFIER, class_weights=None,
                   adversarial=Adversarial(), **seeds)


def pretraining_recipe(recipe: Recipe, direction: str) -> Recipe:
    """The same for stage 1: what the pretrained language model depends on, besides its corpus."""
    if recipe.weights != "pretrain":
        raise UlmfitError(f"recipe {recipe.name!r} does not pretrain: its weights are {recipe.weights!r}.")
    drops = recipe.model.pretrain_dropouts
    model = replace(recipe.model, lm_dropouts=drops, classifier_dropouts=drops, head_hidden=Model.head_hidden,
                    head_dropout=Model.head_dropout)
    return replace(recipe, name="pretrained language model", model=model, directions=(direction,), evaluate="test",
                   protocol="clean", valid_fraction=0.1, n_labels=None, lm_texts="all", lm=None,
                   classifier=ANY_CLASSIFIER, class_weights=None, adversarial=Adversarial(), seed=recipe.language_seed,
                   lm_seed=None)


def adopt_language_model(folder: RunFolder, recipe: Recipe, direction: str, source: str | Path) -> None:
    """Give a run the language model of the run in `source`, as if it had made it itself.

    That is the fine-tuned one, or, where `source` has none or the recipe fine-tunes none, the pretrained one. Weights
    and vocabulary are linked (copied where the file system has no links); the records of the phases come along. Nothing
    happens when the run has that phase already. Raises ValueError as `language_model_in` does.
    """
    if folder.phase_done(direction, "lm"):
        return
    other, phase = language_model_in(source, recipe, direction, folder.run["data"]["fingerprint"])
    if folder.phase_done(direction, phase):
        return
    taken = [name for name in recipe.phases[: recipe.phases.index(phase) + 1]]
    for name in taken:
        for path in (other.weights_file(name, direction), other.path / f"{name}_{direction}.vocab.json"):
            if path.exists():
                link_atomic(path, folder.path / path.name)
    if phase == "lm":
        link_atomic(other.path / "vocab.json", folder.path / "vocab.json")
    folder.run["stages"] = _taken(folder.run["stages"], other.run["stages"], direction)
    folder.history = _taken(folder.history, other.history, direction)
    folder.rates = _taken(folder.rates, other.rates, direction)
    if direction in other.run.get("weights", {}):
        folder.run.setdefault("weights", {})[direction] = other.run["weights"][direction]
    if "corpus" in other.run:
        folder.run["corpus"] = other.run["corpus"]
    if "callbacks" in other.run:
        folder.run["callbacks"] = list(dict.fromkeys((*folder.run.get("callbacks", ()), *other.run["callbacks"])))
        folder.run["warnings"] += [text for text in other.run["warnings"] if text not in folder.run["warnings"]]
    folder.run.setdefault("language_model_of", {})[direction] = os.path.relpath(other.path, folder.path)
    folder.run.setdefault("language_model_phases", {})[direction] = taken
    folder.save_tables()
    for name in taken:
        folder.mark_phase(direction, name)
    log.info("%s: the %s language model is that of %s", folder.path, direction, other.path)


def by_direction(lm_from: LmFrom | None, directions: Iterable[str]) -> dict[str, str | Path]:
    """{direction: run folder}: of several folders the first that has a language model of the direction.

    Where none has, it is the first of them, so that what is wrong with it can be said.
    """
    if lm_from is None:
        return {}
    if isinstance(lm_from, Mapping):
        return dict(lm_from)
    sources = folders(lm_from)
    return {direction: next((one for one in sources if _has_one(one, direction)), sources[0])
            for direction in (directions if sources else ())}


def folders(lm_from: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """A run folder, or several, as a list."""
    return [lm_from] if isinstance(lm_from, str | Path) else list(lm_from)


def _has_one(source: str | Path, direction: str) -> bool:
    try:
        return RunFolder(source).read().phase_done(direction, "lm")
    except (UlmfitError, OSError):
        return False


def _taken(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], direction: str) -> list[dict[str, Any]]:
    """Our records with those of the shared phases replaced by theirs (ours may hold some: of a try that was killed)."""
    shared = [(row["direction"] == direction and row["phase"] in PHASES, row) for row in theirs]
    kept = [row for row in ours if not (row["direction"] == direction and row["phase"] in PHASES)]
    return kept + [dict(row) for is_shared, row in shared if is_shared]


def language_model_in(source: str | Path, recipe: Recipe, direction: str, fingerprint: str | None
                      ) -> tuple[RunFolder, str]:
    """The run in `source` and the phase, 'lm' or 'pretrain', that it has done as this recipe would.

    `fingerprint` is that of the data set, or None as long as that has not been read. Raises ValueError where there is
    no run, RunMismatch unless it has a finished language model of the direction that the recipe would lead to, on the
    same texts, with its weights.
    """
    other = RunFolder(source).read()
    lacking = [name for name in ("recipe", "data", "status", "stages") if name not in other.run]
    if lacking:
        raise RunMismatch(f"{other.path}: expected a run with a language model; its run.json lacks {lacking[0]}")
    phase = "lm" if recipe.lm is not None and other.phase_done(direction, "lm") else "pretrain"
    if not other.phase_done(direction, phase):
        phases = (name.split("/") for name in other.run.get("phases_done", []))
        done = sorted({d for d, name in phases if name in PHASES})
        has = f"that of {' and '.join(done)} only" if done else "none"
        raise RunMismatch(f"{other.path}: expected a finished {direction} language model, found {has}; run it to the "
                          "end first, or leave that direction out")
    _refuse_another(other, recipe, direction, phase)
    if phase == "lm" and fingerprint not in (None, other.run["data"]["fingerprint"]):
        raise RunMismatch(f"{other.path}: expected a language model of the same texts, found one of others")
    files = (other.weights_file(phase, direction),
             other.path / ("vocab.json" if phase == "lm" else f"pretrain_{direction}.vocab.json"))
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise RunMismatch(f"{other.path}: expected the language model's files, but {' and '.join(missing)} "
                          f"{'is' if len(missing) == 1 else 'are'} not there")
    other.refuse_damaged(*(path.name for path in files))
    return other, phase


def _refuse_another(other: RunFolder, recipe: Recipe, direction: str, phase: str) -> None:
    """RunMismatch where the other run's language model is not the one that the recipe leads to."""
    reduced = language_model_recipe if phase == "lm" else pretraining_recipe
    differences = reduced(Recipe.from_dict(other.run["recipe"]), direction).diff(reduced(recipe, direction))
    if differences:
        shown = ", ".join(f"{name}: {there!r} there, {here!r} here" for name, there, here in differences[:4])
        raise RunMismatch(f"{other.path}: expected the language model of recipe {recipe.name!r}, found one made in "
                          f"another way ({shown})")


def is_finished(folder: str | Path, recipe: Recipe, fingerprint: str, *, corpus: str | None = None) -> bool:
    """Whether the folder holds this very run, done to its end; `corpus` is the source of what stage 1 read."""
    found = Path(folder) / "run.json"
    if not found.exists():
        return False
    run = read_checked(found, RUN)
    if recipe.weights == "pretrain" and corpus is not None and run.get("corpus", {}).get("source") != corpus:
        return False
    if (run.get("status"), run.get("data", {}).get("fingerprint")) != ("finished", fingerprint):
        return False
    kept = run.get("identity", {}).get("weights", {})  # not there in runs of earlier versions
    other = [d for d in kept if content_of(recipe.weights, d) not in (None, kept[d])]
    return not other and has_recipe(run, recipe.to_dict(), recipe.hash)
