"""Random numbers that are drawn once for a whole batch, also where several processes have a part of it each.

Which weights are dropped, which words of the vocabulary, which words compete in a sampled loss: in one process these
come from torch's own generator, as ever. Several processes draw all else apart, and these from generators that are
seeded alike in each.
"""

from __future__ import annotations

import torch

_common: dict[torch.device, torch.Generator] = {}


def of_the_batch(device: torch.device) -> torch.Generator | None:
    """The generator of what is drawn for a whole batch; None, which is torch's own, in one process."""
    return _common.get(device)


def draw_in_common(seed: int, device: torch.device) -> None:
    """From now on processes that give the same seed draw the same for a batch."""
    for each in {device, torch.device("cpu")}:
        _common.setdefault(each, torch.Generator(each)).manual_seed(seed)


def draw_alone() -> None:
    """Draw everything from torch's own generator again."""
    _common.clear()
