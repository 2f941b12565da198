"""Texts through a classifier: probabilities, or numbers, in the order of the rows; and what its head reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..batches.dataloaders import inference_loader
from ..batches.targets import Target
from ..model.batch_norm import inputs_of
from ..tokens.ids import TokenIds

ONE_CLASS = Target("single")


def predict_rows(model: torch.nn.Module, ids: TokenIds | Sequence[Sequence[int] | np.ndarray], rows: np.ndarray, *,
                 direction: str, bptt: int, device: torch.device, target: Target = ONE_CLASS,
                 before_batch: Callable[[], None] | None = None) -> np.ndarray:
    """Class probabilities, or numbers for regression, of texts that are word numbers already.

    Args:
        model: a classifier as `build_classifier` or fastai makes it; it is left in evaluation mode.
        ids: the texts, each as the numbers of its words in reading order.
        rows: the numbers of the texts to predict, int64 (rows,).
        direction: 'forward' or 'backward', which reads each text from its end.
        bptt: tokens of a chunk.
        target: what the model's outputs are; by default one class a text.
        before_batch: called before each batch; what it raises ends the work.

    Returns:
        float32 (rows, outputs), of numbers float64, in the order of `rows`.
    """
    def outputs(out: Any) -> np.ndarray:
        return target.outputs(out[0] if isinstance(out, tuple) else out)

    return _read(model, ids, rows, outputs, direction=direction, bptt=bptt, device=device, before_batch=before_batch)


def pooled_rows(model: torch.nn.Module, ids: TokenIds | Sequence[Sequence[int] | np.ndarray], rows: np.ndarray, *,
                direction: str, bptt: int, device: torch.device) -> np.ndarray:
    """What the head of a classifier reads of each text: its states after concat pooling, before batch norm.

    Args as `predict_rows`.

    Returns:
        (rows, features), in the order of `rows`; float32, or the model's own type where that is wider.
    """
    def last(_: Any) -> np.ndarray:
        found = read.pop()
        return found.to(torch.promote_types(found.dtype, torch.float32)).cpu().numpy()

    with inputs_of(model[1].layers) as read:  # type: ignore[index]
        return _read(model, ids, rows, last, direction=direction, bptt=bptt, device=device)


def _read(model: torch.nn.Module, ids: TokenIds | Sequence[Sequence[int] | np.ndarray], rows: np.ndarray,
          take: Callable[[Any], np.ndarray], *, direction: str, bptt: int, device: torch.device,
          before_batch: Callable[[], None] | None = None) -> np.ndarray:
    """What `take` makes of the model's answers to each batch, in the order of the rows."""
    loader = inference_loader(ids, rows=rows, direction=direction, bptt=bptt, device=device)
    model.eval()
    parts = []
    with torch.inference_mode():
        for (batch,) in loader:
            if before_batch is not None:
                before_batch()
            parts.append(take(model(batch.to(device))))
    out = np.empty((len(rows), parts[0].shape[1]), parts[0].dtype)
    out[np.asarray(loader.order)] = np.concatenate(parts)
    return out
