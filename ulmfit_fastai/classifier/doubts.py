"""What is odd about texts that can be learnt from all the same: said in a line each, before the training."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..texts.splits import Splits
from ..tokens.ids import UNK, TokenIds
from ..tokens.languages import unspaced

SAMPLE, MOST = 1_000, 2_000  # texts looked at, and characters of each
AN_ID = re.compile(r"(?=\S*\d)[\w.:/#-]+")


def doubts(texts: Sequence[str], lang: str, where: str) -> list[str]:
    """What to ask about texts; the answers are warnings.

    Args:
        texts: none of them empty.
        where: the columns they are from.
    """
    some = [text[:MOST] for text in texts[::max(1, len(texts) // SAMPLE)]]
    found = []
    if not any(letter.isalpha() for text in some for letter in text):
        found.append(f"no row of column {where} has a letter in it: are these the texts?")
    elif sum(AN_ID.fullmatch(text.strip()) is not None for text in some) > 0.9 * len(some):
        found.append(f"most rows of column {where} are single words with digits, as ids are: are these the texts?")
    return found + unspaced(" ".join(some), lang)


def unknown_words(ids: TokenIds, rows: Splits) -> list[str]:
    """The doubt about held-out texts whose words the training texts hardly have."""
    held = [np.asarray(ids.ids[ids.offsets[row]:ids.offsets[row + 1]]) for row in rows.valid.tolist()[:SAMPLE]]
    unknown, words = sum(int((text == UNK).sum()) for text in held), sum(len(text) - 1 for text in held)  # less xxbos
    if unknown <= words / 2:
        return []
    return [f"{100 * unknown / words:.0f} % of the words of the held-out texts are unknown to the model, which then "
            "answers them all alike: is lang right, are these the texts, and are there enough of them?"]
