"""Texts through a classifier: probabilities, or numbers, in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batches.dataloaders import inference_loader
from ..tokens.ids import TokenIds


def predict_rows(model: torch.nn.Module, ids: TokenIds | Sequence[Any], rows: np.ndarray, *, direction: str, bptt: int,
                 device: torch.device, kind: str = "single", centre: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """Class probabilities (or numbers, see `outputs_of`), float32 of shape (rows, classes), in the order of `rows`."""
    loader = inference_loader(ids, rows=rows, direction=direction, bptt=bptt, device=device)
    model.eval()
    parts = []
    with torch.inference_mode():
        for (batch,) in loader:
            logits = model(batch.to(device))
            logits = logits[0] if isinstance(logits, tuple) else logits
            parts.append(outputs_of(logits, kind, centre=centre, spread=spread))
    out = np.empty((len(rows), parts[0].shape[1]), np.float32)
    out[np.asarray(loader.order)] = np.concatenate(parts)
    return out


def outputs_of(logits: Tensor, kind: str, *, centre: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """What a batch's last layer says (texts, outputs): probabilities, or the number in its own unit; float32."""
    values = logits.float()
    if kind == "regression":
        values = values * spread + centre
    else:
        values = torch.softmax(values, -1) if kind == "single" else torch.sigmoid(values)
    return values.cpu().numpy()
