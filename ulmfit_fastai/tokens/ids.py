"""The vocabulary: the words that numbers stand for; and texts as such numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from .._errors import UlmfitError
from .._files import move, read_json, write_json_atomic
from .._schema import VOCABULARY, checked
from .store_files import finish, load_array, read_meta, token_folder, write_json

UNK, PAD = 0, 1  # xxunk and xxpad: the first two words of every fastai vocabulary
FILLER = "xxfake"
"""What fastai fills a vocabulary up with, to a multiple of 8 words."""
_PIECES = "xxpieces-"


class VocabularyMismatch(UlmfitError):
    """Numbers or weights were made with another vocabulary than the one they are to be read with."""


class Vocabulary(Sequence[str]):
    """The words that numbers stand for: word i is `vocab[i]`. It never changes, and equals a list of the same words.

    `xxfake` fills it up and is nobody's number: a text that holds the word is read as xxunk there, as any unknown one
    (in fastai it has a number when a vocabulary is given to Numericalize).

    Args:
        words: in the order of their numbers; a `Vocabulary` comes back as it is.
    """

    _words: tuple[str, ...]

    def __new__(cls, words: Iterable[str] = ()) -> Vocabulary:
        if isinstance(words, cls):
            return words
        made = super().__new__(cls)
        made._words = tuple(words)
        return made

    @classmethod
    def filled(cls, words: Iterable[str]) -> Vocabulary:
        """These words, filled up with `xxfake` to a multiple of 8, as fastai's vocabularies are."""
        every = tuple(words)
        return cls((*every, *[FILLER] * (-len(every) % 8)))

    @classmethod
    def of_pieces(cls, pieces: Iterable[str], digest: str) -> Vocabulary:
        """The pieces of a SentencePiece model as a vocabulary that names the model.

        The last word but the filling holds the model's digest, so that the vocabulary's own hash, which guards weights,
        changes with the model.

        Args:
            digest: of the model's file, as `pieces.model_digest` has it.
        """
        return cls.filled((*pieces, f"{_PIECES}{digest}"))

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each word, in their order; filling has none."""
        return {word: i for i, word in enumerate(self._words) if word != FILLER}

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The number of each token; 0 (xxunk) for one that isn't a word of this vocabulary."""
        numbers = self.numbers
        return [numbers.get(token, UNK) for token in tokens]

    @cached_property
    def hash(self) -> str:
        """16 hex characters that change with any word or their order (sha256 of the JSON list)."""
        return hashlib.sha256(json.dumps(self._words, ensure_ascii=False).encode("utf8")).hexdigest()[:16]

    @property
    def pieces(self) -> str | None:
        """The digest of the SentencePiece model whose pieces these are; None for words."""
        marked = [word for word in self._words[-8:] if word.startswith(_PIECES)]
        return marked[0][len(_PIECES):] if marked else None

    def check(self, expected: str, where: str) -> None:
        """Refuse to go on unless this is the vocabulary with the hash `expected`.

        Args:
            where: what the hash was written with, for the message.

        Raises:
            VocabularyMismatch: it is another one.
        """
        if self.hash != expected:
            raise VocabularyMismatch(
                f"{where}: expected the vocabulary {expected}, found {self.hash}; the rows of an embedding mean "
                "nothing under another vocabulary. Load the vocab.json saved beside the weights, or match them with "
                "LMWeights.for_vocab"
            )

    def to_dict(self) -> dict[str, Any]:
        """What a vocab.json holds: the words, and the hash that guards them."""
        return {"hash": self.hash, "words": list(self._words)}

    def save(self, path: str | Path) -> Path:
        """Write a vocab.json, whole or not at all."""
        return write_json_atomic(path, self.to_dict(), indent=None)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a vocab.json, verified against the hash written with its words.

        Raises:
            UlmfitError: it holds no words with their hash.
            VocabularyMismatch: the words are others than those it was written with.
        """
        data = read_json(path)
        if not isinstance(data, dict) or not {"hash", "words"} <= set(data):
            raise UlmfitError(f"{path}: expected an object with 'hash' and 'words', found something else; copy the "
                              "vocabulary saved beside the weights there")
        vocab = cls(checked(data, VOCABULARY, path)["words"])
        vocab.check(data["hash"], str(path))
        return vocab

    def __len__(self) -> int:
        return len(self._words)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Vocabulary: ...
    def __getitem__(self, i: int | slice) -> str | Vocabulary:
        return Vocabulary(self._words[i]) if isinstance(i, slice) else self._words[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self.numbers or (word == FILLER and word in self._words)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Vocabulary):
            return self._words == other._words
        return self._words == tuple(other) if isinstance(other, (list, tuple)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} words, {self.hash})"

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[tuple[str, ...]]]:  # the look-up is made again where needed
        return Vocabulary, (self._words,)


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Documents as numbers into `vocab`: all that training needs.

    Document i is `ids[offsets[i]:offsets[i + 1]]`.

    Attributes:
        ids: (tokens,) uint16, or uint32 for more than 65,536 words: the documents one after another.
        offsets: (documents + 1,) int64.
        vocab: what the numbers stand for; a list of words becomes one.
    """

    ids: np.ndarray
    offsets: np.ndarray
    vocab: Vocabulary

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocab", Vocabulary(self.vocab))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, (documents,) int64."""
        return np.diff(self.offsets)

    def doc(self, i: int) -> np.ndarray:
        """Ids of document `i`, (tokens of it,).

        Raises:
            IndexError: there is no such document.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def save(self, folder: str | Path) -> Path:
        """Write to `folder` (replaced if it is there); `TokenIds.open` reads it back, memory-mapped."""
        folder = Path(folder)
        with token_folder(folder.parent, folder.name) as temporary:
            np.save(temporary / "ids.npy", self.ids)
            np.save(temporary / "offsets.npy", self.offsets)
            write_json(temporary / "vocab.json", self.vocab.to_dict())
            finish(temporary, ("ids.npy", "offsets.npy", "vocab.json"), {"kind": "ids"})
            move(temporary, folder)
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> TokenIds:
        """Open what `save` wrote, memory-mapped, without spaCy or a store.

        Raises:
            UlmfitError: the folder is not there or not whole.
        """
        folder = Path(folder)
        read_meta(folder, "ids")
        vocab = Vocabulary.load(folder / "vocab.json")
        return cls(load_array(folder / "ids.npy", mmap_mode="r"), load_array(folder / "offsets.npy"), vocab)
