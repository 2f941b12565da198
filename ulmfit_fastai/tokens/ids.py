"""Texts as word numbers, and the vocabulary that they are numbers of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._files import move
from .store_files import finish, read_meta, token_folder, write_json


def vocab_hash(vocab: Sequence[str]) -> str:
    """16 hex characters that change with any word of `vocab` or their order (sha256 of the JSON list)."""
    return hashlib.sha256(json.dumps(list(vocab), ensure_ascii=False).encode("utf8")).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Documents as numbers into `vocab`: all that training needs.

    `ids`: uint16, or uint32 for more than 65,536 words, the documents one after another; `offsets`: int64, n + 1;
    document i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: np.ndarray
    offsets: np.ndarray
    vocab: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per document (int64)."""
        return np.diff(self.offsets)

    def doc(self, i: int) -> np.ndarray:
        """Ids of document `i`."""
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def save(self, folder: str | Path) -> Path:
        """Write to `folder` (replaced if it is there); `TokenIds.open` reads it back, memory-mapped."""
        folder = Path(folder)
        with token_folder(folder.parent, folder.name) as temporary:
            np.save(temporary / "ids.npy", self.ids)
            np.save(temporary / "offsets.npy", self.offsets)
            write_json(temporary / "vocab.json", {"hash": vocab_hash(self.vocab), "words": list(self.vocab)})
            finish(temporary, ("ids.npy", "offsets.npy", "vocab.json"), {"kind": "ids"})
            move(temporary, folder)
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> TokenIds:
        """Open what `save` wrote, without spaCy or a store; ValueError when it is not whole."""
        folder = Path(folder)
        read_meta(folder, "ids")
        vocab = json.loads((folder / "vocab.json").read_text("utf8"))["words"]
        return cls(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "offsets.npy"), vocab)
