"""Language-model weights in and out: safetensors beside their vocabulary, never a pickle that can run code.

A weights file holds a fastai language model's state dict (the keys of stock `SequentialRNN(AWD_LSTM, LinearDecoder)`),
so stock fastai loads it too. The vocabulary travels with it by hash: two vocabularies of the same size are no longer
taken for one another (fastai accepts any, since sizes are padded to multiples of 8).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .._errors import UlmfitError
from .._files import read_json, write_bytes_atomic, write_json_atomic
from ..tokens.ids import vocab_hash
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import model_of

log = logging.getLogger(__name__)

_TIED = ("0.encoder_dp.emb.weight", "1.decoder.weight")  # copies of 0.encoder.weight, not stored
_EMBEDDING = "0.encoder.weight"
_CLASSIFIER_COPY = "0.module.encoder_dp.emb.weight"


class VocabularyMismatch(UlmfitError):
    """The weights were made with another vocabulary than the one they are loaded into."""


@dataclass(frozen=True, eq=False)
class LMWeights:
    """A language model's weights with the words they belong to.

    `state` has stock fastai's keys (`0.encoder.weight` of shape (words, emb_sz), `0.rnns.N...`, `1.decoder...`).
    """

    name: str
    direction: str
    vocab: list[str]
    state: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def vocab_hash(self) -> str:
        return vocab_hash(self.vocab)

    @property
    def emb_sz(self) -> int:
        return self.state[_EMBEDDING].shape[1]

    @property
    def n_layers(self) -> int:
        return sum(1 for key in self.state if key.endswith("weight_hh_l0_raw"))

    @property
    def n_hid(self) -> int:
        return self.state["0.rnns.0.weight_hh_l0_raw"].shape[1] if self.n_layers > 1 else self.emb_sz

    @property
    def lang(self) -> str:
        """What splits texts for these weights: a language's code, or the SentencePiece model beside their file."""
        if model_of(self.vocab) and "path" in self.meta:
            return str(Path(self.meta["path"]).parent / PIECES_FILE)
        return str(self.meta.get("lang", "en"))

    @property
    def tied(self) -> bool:
        return bool(self.meta.get("tied", True))

    def full_state(self) -> dict[str, Tensor]:
        """The state dict with the tied copies that stock fastai expects."""
        state = dict(self.state)
        state["0.encoder_dp.emb.weight"] = state[_EMBEDDING]
        if self.tied:
            state["1.decoder.weight"] = state[_EMBEDDING]
        return state

    def for_vocab(self, vocab: list[str]) -> LMWeights:
        """These weights for another vocabulary: known words keep their rows, new words get the mean row.

        The arithmetic is fastai's `match_embeds`; the number of words kept is in `meta['words_kept']`. For their own
        vocabulary the weights stay as they are. Pieces of words are known under their own SentencePiece model only:
        `VocabularyMismatch` for others.
        """
        if model_of(vocab) != model_of(self.vocab):
            raise VocabularyMismatch(f"weights {self.name!r}: expected texts split by {_splitter(self.vocab)}, found "
                                     f"{_splitter(vocab)}; give lang={self.lang!r}")
        place = {word: row for row, word in enumerate(self.vocab) if word != "xxfake"}
        rows = torch.tensor([place.get(word, -1) for word in vocab])
        known = rows >= 0
        kept = int(known.sum())
        if list(vocab) == self.vocab:  # then the padding words keep theirs too, and nothing changes at all
            rows, known = torch.arange(len(vocab)), torch.ones(len(vocab), dtype=torch.bool)
        state = dict(self.state)
        for key in (_EMBEDDING, "1.decoder.weight", "1.decoder.bias"):
            if key in state:
                old = state[key].float()
                new = old.mean(0).expand(len(vocab), *old.shape[1:]).clone()
                new[known] = old[rows[known]]
                state[key] = new
        meta = {**self.meta, "words_kept": kept, "words": len(vocab)}
        return LMWeights(self.name, self.direction, list(vocab), state, meta)

    def check_shape(self, *, emb_sz: int, n_hid: int, n_layers: int) -> None:
        """Refuse weights of another size than the recipe's model, naming both."""
        found = (self.emb_sz, self.n_hid, self.n_layers)
        if found != (emb_sz, n_hid, n_layers):
            raise UlmfitError(
                f"weights {self.name!r} have embedding/hidden/layers {found}, the recipe's model has "
                f"{(emb_sz, n_hid, n_layers)}; set model.emb_sz, model.n_hid and model.n_layers to the weights' sizes"
            )


def _splitter(vocab: Sequence[str]) -> str:
    digest = model_of(vocab)
    return f"the SentencePiece model {digest}" if digest else "spaCy into words"


def check_vocab(expected: str, found: str, where: str) -> None:
    """Raise `VocabularyMismatch` unless both vocabulary hashes are the same."""
    if expected != found:
        raise VocabularyMismatch(
            f"{where}: expected the vocabulary {expected}, found {found}; the rows of an embedding mean nothing under "
            "another vocabulary. Load the vocab.json saved beside the weights, or match them with LMWeights.for_vocab"
        )


def from_model(model: torch.nn.Module, vocab: list[str], *, name: str, direction: str, **meta: Any) -> LMWeights:
    """The weights of a fastai language model (`learn.model`), copied to the CPU."""
    full = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
    embedding = full[_EMBEDDING]
    tied = "1.decoder.weight" in full and torch.equal(full["1.decoder.weight"], embedding)
    drop = _TIED if tied else _TIED[:1]
    # nn.LSTM keeps the dropped-out copy of weight_hh beside the raw one in some versions: only the raw one counts
    raw = [key for key in full if key.endswith("_raw")]
    copies = {key.replace("_raw", "").replace(".weight_hh", ".module.weight_hh") for key in raw}
    state = {key: value for key, value in full.items() if key not in drop and key not in copies}
    return LMWeights(name, direction, list(vocab), state, {**meta, "tied": tied})


def save(
    weights: LMWeights, path: str | Path, *, dtype: str = "float32", vocab_path: str | Path | None = None
) -> Path:
    """Write `path` (.safetensors) and its vocabulary beside it (`<stem>.vocab.json` unless `vocab_path` is given).

    Both are written to temporary names and renamed. `dtype`: 'float32', 'float16', or 'int8' (matrices as int8 with one
    float16 scale a row: a quarter of the size).
    """
    if dtype not in ("float32", "float16", "int8"):
        raise UlmfitError(f"dtype: expected 'float32', 'float16' or 'int8', found {dtype!r}")
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for key, value in weights.state.items():
        if dtype == "int8" and value.ndim == 2:
            scale = (value.abs().amax(1, keepdim=True) / 127).clamp_min(1e-7).half()
            tensors[key] = (value / scale.float()).round().clamp(-127, 127).to(torch.int8)
            tensors[key + ".scale"] = scale
        else:
            tensors[key] = value.to(torch.float32 if dtype == "float32" else torch.float16)
    _write(path, tensors, weights.vocab, vocab_path, name=weights.name, direction=weights.direction,
           meta=json.dumps(weights.meta, default=str))
    return path


def _write(path: Path, tensors: dict[str, Tensor], vocab: list[str], vocab_path: str | Path | None,
           **header: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    vocab_path = Path(vocab_path) if vocab_path else path.parent / f"{path.stem}.vocab.json"
    digest = vocab_hash(vocab)
    write_json_atomic(vocab_path, {"hash": digest, "words": vocab}, indent=None)
    whole = {key: value.contiguous() for key, value in tensors.items()}
    write_bytes_atomic(path, to_bytes(whole, metadata={"format": "ulmfit_fastai 1", "vocab_hash": digest, **header}))


def read_vocab(path: str | Path) -> list[str]:
    """The words of a vocab.json, verified against the hash written with them."""
    data = read_json(path)
    if not isinstance(data, dict) or not {"hash", "words"} <= set(data):
        raise UlmfitError(f"{path}: expected an object with 'hash' and 'words', found something else; copy the "
                          "vocabulary saved beside the weights there")
    check_vocab(data["hash"], vocab_hash(data["words"]), str(path))
    return data["words"]


def load_file(path: str | Path, *, vocab: str | Path | None = None) -> LMWeights:
    """Read weights written by `save`, with the vocabulary beside them (`<stem>.vocab.json`, else `vocab.json`)."""
    header, tensors, words = _read(Path(path), vocab)
    if _EMBEDDING not in tensors:
        found = "a classifier" if "classes" in header else "other tensors"
        raise UlmfitError(f"{path}: expected a language model, found {found}; give an lm_<direction>.safetensors")
    state = {}
    for key, value in tensors.items():
        if key.endswith(".scale"):
            continue
        state[key] = value.float() * tensors[key + ".scale"].float() if value.dtype == torch.int8 else value.float()
    meta = {**json.loads(header.get("meta", "{}")), "path": str(path)}
    return LMWeights(header.get("name", Path(path).stem), header.get("direction", "forward"), words, state, meta)


def _read(path: Path, vocab: str | Path | None) -> tuple[dict[str, str], dict[str, Tensor], list[str]]:
    """Header, tensors and words of a file of ours, the vocabulary verified against the hash in the header."""
    candidates = [Path(vocab)] if vocab else [path.parent / f"{path.stem}.vocab.json", path.parent / "vocab.json"]
    vocab_path = next((c for c in candidates if c.exists()), None)
    if vocab_path is None:
        raise UlmfitError(f"{path}: expected its vocabulary at {' or '.join(map(str, candidates))}, found no such "
                          "file; copy it there")
    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}
    except (OSError, SafetensorError) as error:
        raise UlmfitError(f"{path}: expected a safetensors file written by this package, found {error}") from error
    words = read_vocab(vocab_path)
    check_vocab(header.get("vocab_hash", "none written"), vocab_hash(words), f"{path} with {vocab_path.name}")
    return header, tensors, words


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier's state dict (stock fastai's keys) with its words and classes."""

    direction: str
    vocab: list[str]
    classes: tuple[str, ...]
    state: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_model(cls, model: torch.nn.Module, vocab: list[str], classes: Sequence[str], *, direction: str,
                   meta: dict[str, Any]) -> Classifier:
        """Copy a classifier's weights to the CPU."""
        state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        return cls(direction, list(vocab), tuple(classes), state, meta)

    def save(self, path: str | Path, *, vocab_path: str | Path | None = None) -> Path:
        """Write a .safetensors file with the vocabulary beside it; the embedding's second name is not stored twice."""
        tensors = {key: value for key, value in self.state.items() if key != _CLASSIFIER_COPY}
        _write(Path(path), tensors, self.vocab, vocab_path, direction=self.direction,
               classes=json.dumps(self.classes), meta=json.dumps(self.meta, default=str))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, vocab: str | Path | None = None) -> Classifier:
        """Read what `save` wrote; ValueError for a file that isn't one, VocabularyMismatch for other words."""
        header, tensors, words = _read(Path(path), vocab)
        if "classes" not in header:
            raise UlmfitError(f"{path}: expected a classifier, found weights without classes")
        state = {**tensors, _CLASSIFIER_COPY: tensors["0.module.encoder.weight"]}
        return cls(header["direction"], words, tuple(json.loads(header["classes"])), state, json.loads(header["meta"]))
