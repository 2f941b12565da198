"""Which of the processes of a run this one is: `torchrun` and `accelerate launch` say it in the environment."""

from __future__ import annotations

import os


def several() -> bool:
    """Whether a launcher started several processes, this one among them."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def leads() -> bool:
    """Whether this process speaks and writes: the first of several, or the only one."""
    return not several() or int(os.environ["RANK"]) == 0
