"""Language-model weights in and out: safetensors beside their vocabulary, never a pickle that can run code.

A weights file holds a fastai language model's state dict (the keys of stock `SequentialRNN(AWD_LSTM, LinearDecoder)`),
so stock fastai loads it too. The vocabulary travels with it by hash: two vocabularies of the same size are no longer
taken for one another (fastai accepts any, since sizes are padded to multiples of 8).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .._errors import UlmfitError
from .._files import write_bytes_atomic
from ..recipe.parts import DIRECTIONS
from ..tokens.ids import Vocabulary, VocabularyMismatch
from ..tokens.pieces import FILE_NAME as PIECES_FILE

_TIED = ("0.encoder_dp.emb.weight", "1.decoder.weight")  # copies of 0.encoder.weight, not stored
EMBEDDING = "0.encoder.weight"
_CLASSIFIER_COPY = "0.module.encoder_dp.emb.weight"
_CLASSIFIER_EMBEDDING = "0.module.encoder.weight"


@dataclass(frozen=True, eq=False)
class LMWeights:
    """A language model's weights with the words they belong to.

    Attributes:
        name: what they are called.
        direction: 'forward' or 'backward'.
        vocab: the words of the embedding's rows; a list of words becomes one.
        state: stock fastai's keys (`0.encoder.weight` of shape (words, emb_sz), `0.rnns.N...`, `1.decoder...`).
        meta: what else is known of them, as JSON has it.
    """

    name: str
    direction: str
    vocab: Vocabulary
    """A list of words becomes one."""
    state: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocab", Vocabulary(self.vocab))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], vocab: Sequence[str], *, name: str, direction: str,
                   **meta: Any) -> LMWeights:
        """The weights in a fastai language model's state dict, each once.

        Args:
            state: with the keys of stock `SequentialRNN(AWD_LSTM, LinearDecoder)`.
            vocab: the words of the embedding's rows.
            meta: what else is to be kept with them.
        """
        embedding = state[EMBEDDING]
        tied = "1.decoder.weight" in state and torch.equal(state["1.decoder.weight"], embedding)
        drop = set(_TIED if tied else _TIED[:1])
        # nn.LSTM keeps the dropped-out copy of weight_hh beside the raw one in some versions: only the raw one counts
        raw = (key for key in state if key.endswith("_raw"))
        drop |= {key.replace("_raw", "").replace(".weight_hh", ".module.weight_hh") for key in raw}
        kept = {key: value for key, value in state.items() if key not in drop}
        return cls(name, direction, Vocabulary(vocab), kept, {**meta, "tied": tied})

    @classmethod
    def from_model(cls, model: torch.nn.Module, vocab: Sequence[str], *, name: str, direction: str,
                   **meta: Any) -> LMWeights:
        """The weights of a fastai language model (`learn.model`), copied to the CPU."""
        full = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        return cls.from_state(full, vocab, name=name, direction=direction, **meta)

    @property
    def emb_sz(self) -> int:
        """Size of a word's embedding."""
        return self.state[EMBEDDING].shape[1]

    @property
    def n_layers(self) -> int:
        """LSTM layers."""
        return sum(1 for key in self.state if key.endswith("weight_hh_l0_raw"))

    @property
    def n_hid(self) -> int:
        """Hidden units of an LSTM layer."""
        return self.state["0.rnns.0.weight_hh_l0_raw"].shape[1] if self.n_layers > 1 else self.emb_sz

    @property
    def lang(self) -> str:
        """What splits texts for these weights: a language's code, or the SentencePiece model beside their file."""
        if self.vocab.pieces and "path" in self.meta:
            return str(Path(self.meta["path"]).parent / PIECES_FILE)
        return str(self.meta.get("lang", "en"))

    @property
    def tied(self) -> bool:
        """Whether embedding and decoder share their matrix."""
        return bool(self.meta.get("tied", True))

    def full_state(self) -> dict[str, Tensor]:
        """The state dict with the tied copies that stock fastai expects."""
        state = dict(self.state)
        state["0.encoder_dp.emb.weight"] = state[EMBEDDING]
        if self.tied:
            state["1.decoder.weight"] = state[EMBEDDING]
        return state

    def for_vocab(self, vocab: Sequence[str]) -> LMWeights:
        """These weights for another vocabulary: known words keep their rows, new words get the mean row.

        The arithmetic is fastai's `match_embeds`; the number of words kept is in `meta['words_kept']`. For their own
        vocabulary the weights stay as they are.

        Raises:
            VocabularyMismatch: one of the two holds pieces of words, and the other words, or another model's pieces.

        Source: paper, section 3.2.
        """
        vocab, own = Vocabulary(vocab), self.vocab.numbers
        if vocab.pieces != self.vocab.pieces:
            raise VocabularyMismatch(f"weights {self.name!r}: expected texts split by {_splitter(self.vocab)}, found "
                                     f"{_splitter(vocab)}; give lang={self.lang!r}")
        rows = torch.tensor([own.get(word, -1) for word in vocab])
        known = rows >= 0
        kept = int(known.sum())
        if vocab == self.vocab:  # then the padding words keep theirs too, and nothing changes at all
            rows, known = torch.arange(len(vocab)), torch.ones(len(vocab), dtype=torch.bool)
        state = dict(self.state)
        for key in (EMBEDDING, "1.decoder.weight", "1.decoder.bias"):
            if key in state:
                old = state[key].float()
                new = old.mean(0).expand(len(vocab), *old.shape[1:]).clone()
                new[known] = old[rows[known]]
                state[key] = new
        meta = {**self.meta, "words_kept": kept, "words": len(vocab)}
        return LMWeights(self.name, self.direction, vocab, state, meta)

    def check_shape(self, *, emb_sz: int, n_hid: int, n_layers: int) -> None:
        """Refuse weights of another size than the recipe's model.

        Raises:
            UlmfitError: a size differs; the message names both.
        """
        found = (self.emb_sz, self.n_hid, self.n_layers)
        if found != (emb_sz, n_hid, n_layers):
            raise UlmfitError(
                f"weights {self.name!r} have embedding/hidden/layers {found}, the recipe's model has "
                f"{(emb_sz, n_hid, n_layers)}; set model.emb_sz, model.n_hid and model.n_layers to the weights' sizes"
            )

    def save(self, path: str | Path, *, dtype: str = "float32", vocab_path: str | Path | None = None) -> Path:
        """Write a .safetensors file and its vocabulary, each to a temporary name first.

        Args:
            dtype: 'float32', 'float16', or 'int8' (matrices as int8 with one float16 scale a row: a quarter of the
                size).
            vocab_path: None: `<stem>.vocab.json` beside `path`.

        Raises:
            UlmfitError: `dtype` is none of these.
        """
        if dtype not in ("float32", "float16", "int8"):
            raise UlmfitError(f"dtype: expected 'float32', 'float16' or 'int8', found {dtype!r}")
        tensors: dict[str, Tensor] = {}
        for key, value in self.state.items():
            if dtype == "int8" and value.ndim == 2:
                scale = (value.abs().amax(1, keepdim=True) / 127).clamp_min(1e-7).half()
                tensors[key] = (value / scale.float()).round().clamp(-127, 127).to(torch.int8)
                tensors[key + ".scale"] = scale
            else:
                tensors[key] = value.to(torch.float32 if dtype == "float32" else torch.float16)
        return _write(Path(path), tensors, self.vocab, vocab_path, name=self.name, direction=self.direction,
                      meta=json.dumps(self.meta, default=str))

    @classmethod
    def load(cls, path: str | Path, *, vocab: str | Path | None = None) -> LMWeights:
        """Read what `save` wrote, as float32.

        Args:
            vocab: its vocabulary; None: `<stem>.vocab.json` beside `path`, else `vocab.json`.

        Raises:
            UlmfitError: it is no language model's file, or its vocabulary is missing.
            VocabularyMismatch: the vocabulary is another one.
        """
        header, tensors, words = _read(Path(path), vocab)
        if EMBEDDING not in tensors:
            found = "a classifier" if "classes" in header else "other tensors"
            raise UlmfitError(f"{path}: expected a language model, found {found}; give an lm_<direction>.safetensors")
        state: dict[str, Tensor] = {}
        if "0.rnns.0.weight_hh_l0_raw" not in tensors:
            raise UlmfitError(f"{path}: expected a language model, found no LSTM in it", path=Path(path))
        for key, value in tensors.items():
            if key.endswith(".scale"):
                continue
            state[key] = value.float() * tensors[key + ".scale"].float() if value.dtype == torch.int8 else value.float()
        meta = {**_json_of(header, "meta", dict, Path(path), "{}"), "path": str(path)}
        return cls(header.get("name", Path(path).stem), header.get("direction", "forward"), words, state, meta)


load_file = LMWeights.load
"""A file of language-model weights, by the name that notebooks and scripts know."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier's weights with its words and classes.

    Attributes:
        direction: 'forward' or 'backward'.
        vocab: the words of the embedding's rows.
        classes: in the order of the outputs; empty where these are numbers.
        state: stock fastai's keys.
        meta: what else is known of it, as JSON has it.
    """

    direction: str
    vocab: Vocabulary
    classes: tuple[str, ...]
    state: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_model(cls, model: torch.nn.Module, vocab: Sequence[str], classes: Sequence[str], *, direction: str,
                   meta: dict[str, Any]) -> Classifier:
        """Copy a classifier's weights to the CPU."""
        state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        return cls(direction, Vocabulary(vocab), tuple(classes), state, meta)

    def save(self, path: str | Path, *, vocab_path: str | Path | None = None) -> Path:
        """Write a .safetensors file with the vocabulary beside it; the embedding's second name is not stored twice.

        Args:
            vocab_path: None: `<stem>.vocab.json` beside `path`.
        """
        tensors = {key: value for key, value in self.state.items() if key != _CLASSIFIER_COPY}
        return _write(Path(path), tensors, self.vocab, vocab_path, direction=self.direction,
                      classes=json.dumps(self.classes), meta=json.dumps(self.meta, default=str))

    @classmethod
    def load(cls, path: str | Path, *, vocab: str | Path | None = None) -> Classifier:
        """Read what `save` wrote.

        Args:
            vocab: its vocabulary; None: `<stem>.vocab.json` beside `path`, else `vocab.json`.

        Raises:
            UlmfitError: it is no classifier's file, or its vocabulary is missing.
            VocabularyMismatch: the vocabulary is another one.
        """
        header, tensors, words = _read(Path(path), vocab)
        if "classes" not in header:
            raise UlmfitError(f"{path}: expected a classifier, found weights without classes")
        if _CLASSIFIER_EMBEDDING not in tensors or "direction" not in header:
            raise UlmfitError(f"{path}: expected a classifier, found a file without its embedding or direction",
                              path=path)
        state = {**tensors, _CLASSIFIER_COPY: tensors[_CLASSIFIER_EMBEDDING]}
        classes = tuple(str(name) for name in _json_of(header, "classes", list, Path(path)))
        return cls(header["direction"], words, classes, state, _json_of(header, "meta", dict, Path(path)))


def _splitter(vocab: Vocabulary) -> str:
    return f"the SentencePiece model {vocab.pieces}" if vocab.pieces else "spaCy into words"


def _write(path: Path, tensors: dict[str, Tensor], vocab: Vocabulary, vocab_path: str | Path | None,
           **header: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    vocab_path = Path(vocab_path) if vocab_path else path.parent / f"{path.stem}.vocab.json"
    vocab.save(vocab_path)
    whole = {key: value.contiguous() for key, value in tensors.items()}
    metadata = {"format": "ulmfit_fastai 1", "vocab_hash": vocab.hash, **header}
    return write_bytes_atomic(path, _in_order(to_bytes(whole, metadata=metadata)))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header sorted, which safetensors writes in any order: equal weights, equal bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":"),
                      ensure_ascii=False).encode("utf8")
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + size:]


def _read(path: Path, vocab: str | Path | None) -> tuple[dict[str, str], dict[str, Tensor], Vocabulary]:
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
    except (OSError, ValueError, MemoryError, RecursionError, SafetensorError) as error:
        raise UlmfitError(f"{path}: expected a safetensors file written by this package, found {error}",
                          path=path) from error
    words = Vocabulary.load(vocab_path)
    words.check(header.get("vocab_hash", "none written"), f"{path} with {vocab_path.name}")
    if header.get("direction", "forward") not in DIRECTIONS:
        raise UlmfitError(f"{path}: its header's direction is {header['direction']!r}, expected one of "
                          f"{', '.join(DIRECTIONS)}", path=path, field="direction")
    _refuse_what_are_no_weights(path, tensors, len(words))
    return header, tensors, words


def _refuse_what_are_no_weights(path: Path, tensors: Mapping[str, Tensor], n_words: int) -> None:
    for name, value in tensors.items():
        counts = name.endswith("num_batches_tracked")
        if not (value.is_floating_point() or counts or (value.dtype == torch.int8 and f"{name}.scale" in tensors)):
            raise UlmfitError(f"{path} is damaged: expected {name} in floating point, found {value.dtype}", path=path)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UlmfitError(f"{path} is damaged: {name} holds values that are no numbers (NaN or infinite)",
                              path=path)
    for name in (EMBEDDING, _CLASSIFIER_EMBEDDING):
        if name in tensors and (tensors[name].ndim != 2 or len(tensors[name]) != n_words):
            raise UlmfitError(f"{path}: expected {name} with a row for each of {n_words:,} words, found the shape "
                              f"{tuple(tensors[name].shape)}", path=path)


def _json_of(header: Mapping[str, str], name: str, kind: type, path: Path, default: str | None = None) -> Any:
    """What a header's field says as JSON."""
    text = header.get(name, default)
    try:
        value = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UlmfitError(f"{path} is damaged, or not written by this package: {name} in its header is {text!r:.60}; "
                          f"expected {'a list' if kind is list else 'an object'} in JSON", path=path, field=name)
    return value
