"""The held-out texts that a run of one's own data is measured on: their labels beside what was predicted for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import UlmfitError
from .._files import atomic_file, disk_full_is_said, refuse_damaged
from .metrics import mean_over_directions, metrics_of
from .record import evaluates_test, scores_of

TRUTH = "state/validation_truth.npz"
"""Ids and labels of the texts whose predictions lie in state/validation_<direction>.npy."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What was predicted for the texts that a run kept from its training, and what their labels are.

    Attributes:
        kind: 'single' (one class a text), 'multi' (any number of them) or 'regression' (a number).
        classes: their names, in the order of the outputs; empty for numbers.
        ids: (texts,).
        truth: class numbers (texts,); 0 and 1 (texts, classes) for 'multi'; numbers (texts,) for 'regression'.
        by_direction: outputs of each direction, (texts, classes), of numbers (texts, 1).
    """

    kind: str
    classes: tuple[str, ...]
    ids: np.ndarray
    truth: np.ndarray
    by_direction: dict[str, np.ndarray]

    @property
    def outputs(self) -> np.ndarray:
        """The mean over the directions, (texts, classes), of numbers (texts, 1)."""
        return mean_over_directions(self.by_direction, self.kind)


def write_truth(folder: Path, ids: Sequence[str], truth: np.ndarray) -> None:
    """Keep the labels of the held-out texts in a run folder, whole or not at all; the texts themselves stay out."""
    with disk_full_is_said(folder), atomic_file(folder / TRUTH) as file:
        np.savez_compressed(file, ids=np.array(ids, dtype=str), truth=truth)


def read_held_out(folder: Path, run: dict[str, Any]) -> HeldOut | None:
    """What a finished run predicted for its held-out texts.

    None for a run that is measured on a test set, one of an earlier version, or one whose folder `state` is gone.

    Raises:
        UlmfitError: the files are damaged, or not those that run.json counted.
    """
    scores = scores_of(run)
    files = {d: folder / "state" / f"validation_{d}.npy" for d in scores if d != "averaged"}
    if run["status"] != "finished" or evaluates_test(run) or not files:
        return None
    if not all(path.is_file() for path in (folder / TRUTH, *files.values())):
        return None
    refuse_damaged(folder, run.get("digests"), "run.json", (TRUTH, *(f"state/{path.name}" for path in files.values())))
    try:
        with np.load(folder / TRUTH) as kept:
            ids, truth = kept["ids"], kept["truth"]
        outputs = {direction: np.load(path) for direction, path in files.items()}
    except Exception as error:  # numpy raises many types for a damaged file
        raise UlmfitError(f"{folder / 'state'}: the predictions of the held-out texts can't be read ({error})",
                          path=folder / "state", advice="delete validation_truth.npz there: only the error analysis "
                                                        "needs it") from error
    data = run.get("data") or {}
    kind = (data.get("labels") or {}).get("kind", "single")
    found = HeldOut(kind, tuple(map(str, data.get("classes") or ())), ids.astype(object), truth, outputs)
    _refuse_another(folder, found, scores)
    return found


def _refuse_another(folder: Path, found: HeldOut, scores: dict[str, dict[str, Any]]) -> None:
    """UlmfitError unless these are the predictions that run.json counted."""
    n, width = len(found.truth), len(found.classes) or 1
    counted = scores["averaged"] if "averaged" in scores else next(iter(scores.values()))
    shape = (n,) if found.kind in ("single", "regression") else (n, width)
    fits = len(found.ids) == n and found.truth.shape == shape and all(
        one.shape == (n, width) for one in found.by_direction.values())
    if not fits or metrics_of(found.kind, found.outputs, found.truth).get("wrong") != counted.get("wrong"):
        raise UlmfitError(f"{folder / 'state'}: the predictions of the held-out texts are not those that run.json "
                          "counted; the files are not of one run", path=folder / "state",
                          advice="delete validation_truth.npz there: only the error analysis needs it")
