"""Texts through a classifier: probabilities, or numbers, in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..batches.dataloaders import inference_loader
from ..batches.targets import Target
from ..tokens.ids import TokenIds

ONE_CLASS = Target("single")


def predict_rows(model: torch.nn.Module, ids: TokenIds | Sequence[Sequence[int] | np.ndarray], rows: np.ndarray, *,
                 direction: str, bptt: int, device: torch.device, target: Target = ONE_CLASS) -> np.ndarray:
    """Class probabilities, or numbers for regression, of texts that are word numbers already.

    Args:
        model: a classifier as `build_classifier` or fastai makes it; it is left in evaluation mode.
        ids: the texts, each as the numbers of its words in reading order.
        rows: the numbers of the texts to predict, int64 (rows,).
        direction: 'forward' or 'backward', which reads each text from its end.
        bptt: tokens of a chunk.
        target: what the model's outputs are; by default one class a text.

    Returns:
        float32 (rows, outputs), of numbers float64, in the order of `rows`.
    """
    loader = inference_loader(ids, rows=rows, direction=direction, bptt=bptt, device=device)
    model.eval()
    parts = []
    with torch.inference_mode():
        for (batch,) in loader:
            logits = model(batch.to(device))
            parts.append(target.outputs(logits[0] if isinstance(logits, tuple) else logits))
    out = np.empty((len(rows), parts[0].shape[1]), parts[0].dtype)
    out[np.asarray(loader.order)] = np.concatenate(parts)
    return out
