"""What has to be said beside the numbers of an experiment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import paper
from ..recipe.recipe import Recipe
from ..results import verdict

NOT_THEIRS = "not the paper's experiment: "


def notes_of(method: Recipe, record: dict[str, Any]) -> tuple[str, ...]:
    """What has to be said beside the numbers of an experiment."""
    data = record["data"]
    notes = [f"{NOT_THEIRS}{why}"
             for why in verdict.differences_in_scale(data["name"], method.to_dict(), data)]
    share = paper.stated("analysis valid_fraction")
    if method.valid_fraction != share:
        notes.append(f"measured on {method.valid_fraction:g} of the training set, the paper's on {share:g}")
    if method.classifier.early_stopping is not None:
        notes.append(f"all rows stop after {method.classifier.early_stopping} epochs without a better validation loss")
    if method.lm_seed is not None and len(record["seeds"]) > 1:
        notes.append(f"language models that read all texts are those of seed {method.lm_seed} for all seeds, which "
                     "share them: the spread is that of the labels drawn and of the classifiers")
    return tuple(notes)


def said_once(notes: Iterable[str]) -> list[str]:
    """The notes with all that makes it another experiment than the paper's in the first of them."""
    notes = list(notes)
    why = [note.removeprefix(NOT_THEIRS) for note in notes if note.startswith(NOT_THEIRS)]
    others = [note for note in notes if not note.startswith(NOT_THEIRS)]
    return [NOT_THEIRS + "; ".join(why), *others] if why else others
