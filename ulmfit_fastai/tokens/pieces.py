"""SentencePiece: pieces of words learnt from the texts themselves, for languages that spaCy splits badly or not at all.

A model file (`.model`) stands wherever a language's code may: `TokenStore.make(texts, lang="de/spm.model")`. Texts go
through fastai's rules first, and the special tokens are pieces of their own, as in fastai's `SentencePieceTokenizer`,
whose pieces these are; only `▁xxbos` and its like are called `xxbos` here too.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import expanded, write_bytes_atomic
from .rules import SPECIAL_TOKENS, apply_rules

FILE_NAME = "spm.model"
"""What a model is called in the folder of the weights that were trained with it."""
LINES = 500_000  # most lines a model is trained on, drawn from all of them: bounds memory and time
LONGEST = 4000  # bytes of a line: SentencePiece leaves out longer ones
_EUROPEAN = frozenset("bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv".split())


def is_model(lang: str) -> bool:
    """Is this the file of a SentencePiece model, and not a language's code?"""
    return str(lang).endswith(".model")


def model_digest(path: str | Path) -> str:
    """16 hex characters of a model file's content.

    Raises:
        UlmfitError: there is no such file.
    """
    path = expanded(path)
    if not path.is_file():
        raise UlmfitError(f"expected a SentencePiece model at {path}, found no such file; `ulmfit-fastai pretrain "
                          f"CORPUS --tokenizer sentencepiece` writes one as {FILE_NAME} beside its weights")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def joined_pieces(pieces: Sequence[str]) -> list[str]:
    """Pieces put together to words again; special tokens stay by themselves."""
    words: list[str] = []
    for piece in pieces:
        alone = piece in SPECIAL_TOKENS or not words or words[-1] in SPECIAL_TOKENS
        if alone or piece.startswith("▁"):
            words.append(piece.lstrip("▁"))
        else:
            words[-1] += piece
    return [word for word in words if word]


class Pieces:
    """A model, ready to split texts; `words` are all its pieces, fastai's nine special tokens first."""

    def __init__(self, path: str | Path) -> None:
        self.digest = model_digest(path)
        self._model = _sentencepiece().SentencePieceProcessor()
        try:
            self._model.Load(str(path))
        except RuntimeError as error:
            raise UlmfitError(f"{path}: expected a SentencePiece model, found a file that is none ({error})") from error
        every = [self._model.IdToPiece(i) for i in range(self._model.GetPieceSize())]
        found = [piece.lstrip("▁") for piece in every[: len(SPECIAL_TOKENS)]]
        if found != list(SPECIAL_TOKENS):
            raise UlmfitError(f"{path}: expected the special tokens {', '.join(SPECIAL_TOKENS)} as its first pieces, "
                              f"found {', '.join(found)}; train the model with fastai or with this package")
        self._special = dict(zip(every, SPECIAL_TOKENS))
        self.words = [*SPECIAL_TOKENS, *(piece for i, piece in enumerate(every)
                                         if i >= len(SPECIAL_TOKENS) and not self._model.IsUnknown(i))]

    def split(self, texts: Sequence[str]) -> list[list[str]]:
        """The pieces of texts after fastai's rules; what the model has no piece for stays as it is."""
        special = self._special
        found = self._model.EncodeAsPieces([apply_rules(text) for text in texts])
        return [[special.get(piece, piece) for piece in pieces] for pieces in found]


def train_pieces(texts: Iterable[str], path: str | Path, *, max_vocab: int = 16_000, lang: str = "en") -> Path:
    """Learn pieces of words from texts (unigram model) and write the SentencePiece model to `path`.

    Args:
        texts: of a large corpus `LINES` lines are drawn, always the same ones.
        max_vocab: most pieces to learn.
        lang: decides how rare a character has to be to go without a piece: 1 in 100,000 in European languages, 2 in
            10,000 in others, as in fastai.

    Returns:
        The path of the model.

    Raises:
        UlmfitError: there are no texts, or they hold more characters than `max_vocab` has room for.
        ImportError: SentencePiece is not installed.
    """
    trainer, model = _sentencepiece().SentencePieceTrainer, io.BytesIO()
    lines = _drawn(texts)
    if not lines:
        raise UlmfitError("expected at least one text to learn pieces from, found none")
    try:
        trainer.Train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=max_vocab, model_type="unigram",
            character_coverage=0.99999 if lang in _EUROPEAN else 0.9998, unk_id=len(SPECIAL_TOKENS), pad_id=-1,
            bos_id=-1, eos_id=-1, user_defined_symbols=[f"▁{token}" for token in SPECIAL_TOKENS],
            hard_vocab_limit=False, minloglevel=2, num_threads=os.cpu_count() or 1,
        )
    except (RuntimeError, ValueError) as error:
        raise UlmfitError(f"{len(lines):,} lines of text did not make {max_vocab:,} pieces: {error}. Give more text, "
                          "or another max_vocab") from error
    return write_bytes_atomic(Path(path), model.getvalue())


def _drawn(texts: Iterable[str]) -> list[str]:
    """At most `LINES` of the texts' lines after fastai's rules: every line has the same chance, for a fixed seed."""
    rng, lines = random.Random(0), []
    for number, line in enumerate(_lines(texts)):
        if number < LINES:
            lines.append(line)
        elif (place := rng.randrange(number + 1)) < LINES:
            lines[place] = line
    return lines


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in apply_rules(text).splitlines():
            while len(line.encode("utf8", "ignore")) > LONGEST:
                cut = line.rfind(" ", 0, LONGEST // 4) + 1 or LONGEST // 4
                yield line[:cut]
                line = line[cut:]
            if line.strip():
                yield line


@lru_cache(maxsize=1)
def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError("splitting texts into pieces needs SentencePiece, which could not be imported; "
                          '`pip install "ulmfit-fastai[sentencepiece]"`, or `pip install sentencepiece`') from error
    return sentencepiece
