"""Where the results that were committed with the code are, which a clone has and a wheel leaves out."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def committed_results() -> Path:
    """The folder of the committed results: that of the clone, or one below the working folder or beside it.

    Returns:
        The folder. Where there is none, the place where it was expected, and a warning says what to do.
    """
    own = Path(__file__).resolve().parents[2] / "data" / "results"
    places = (own, Path("data/results"), Path("../data/results"))
    found = next((place for place in places if any(place.glob("*/run.json"))), None)
    if found is None:
        log.warning("the committed results are not in this installation, since wheels leave them out: work in a clone "
                    "of the repository, or copy its folder data/results into this folder as data/results")
        return Path("data/results")
    return found
