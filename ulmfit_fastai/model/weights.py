"""Language-model weights in and out: safetensors beside their vocabulary, never a pickle that can run code.

A weights file holds a fastai language model's state dict (the keys of stock `SequentialRNN(AWD_LSTM, LinearDecoder)`),
so stock fastai loads it too. The vocabulary travels with it by hash: two vocabularies of the same size are no longer
taken for one another (fastai accepts any, since sizes are padded to multiples of 8).
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .._files import read_json, write_bytes_atomic, write_json_atomic
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import model_of
from ..tokens.store import vocab_hash

log = logging.getLogger(__name__)

DIRECTIONS = ("forward", "backward")
BUNDLED = Path(__file__).parents[1] / "data"
_TIED = ("0.encoder_dp.emb.weight", "1.decoder.weight")  # copies of 0.encoder.weight, not stored
_EMBEDDING = "0.encoder.weight"
_CLASSIFIER_COPY = "0.module.encoder_dp.emb.weight"


class VocabularyMismatch(ValueError):
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
            raise ValueError(
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
        raise ValueError(f"dtype: expected 'float32', 'float16' or 'int8', found {dtype!r}")
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
        raise ValueError(f"{path}: expected an object with 'hash' and 'words', found something else; copy the "
                         "vocabulary saved beside the weights there")
    check_vocab(data["hash"], vocab_hash(data["words"]), str(path))
    return data["words"]


def load_file(path: str | Path, *, vocab: str | Path | None = None) -> LMWeights:
    """Read weights written by `save`, with the vocabulary beside them (`<stem>.vocab.json`, else `vocab.json`)."""
    header, tensors, words = _read(Path(path), vocab)
    if _EMBEDDING not in tensors:
        found = "a classifier" if "classes" in header else "other tensors"
        raise ValueError(f"{path}: expected a language model, found {found}; give an lm_<direction>.safetensors")
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
        raise ValueError(f"{path}: expected its vocabulary at {' or '.join(map(str, candidates))}, found no such "
                         "file; copy it there")
    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a safetensors file written by this package, found {error}") from error
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
            raise ValueError(f"{path}: expected a classifier, found weights without classes")
        state = {**tensors, _CLASSIFIER_COPY: tensors["0.module.encoder.weight"]}
        return cls(header["direction"], words, tuple(json.loads(header["classes"])), state, json.loads(header["meta"]))


def load(source: str | Path, direction: str = "forward", *, allow_pickle: bool = False) -> LMWeights | None:
    """Weights by name or place: 'none', 'wiki-small', 'wt103', a run folder, a .safetensors or a fastai pair.

    `wt103` goes through fastai's cache and URLs. A fastai pair is `<name>.pth` with `<name or itos>.pkl`; the `.pth` is
    read with `weights_only=True` and the `.pkl` by a reader that accepts a plain list of words and nothing else;
    `allow_pickle=True` lifts both for files that you made yourself.
    Raises ValueError when nothing usable is there, with what to put where.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {DIRECTIONS}, found {direction!r}")
    if str(source) == "none":
        return None
    if str(source) == "wt103":
        return _load_wt103(direction)
    if str(source) == "wiki-small":
        path = BUNDLED / f"wiki-small-{direction}.safetensors"
        if not path.exists():
            raise ValueError(f"weights 'wiki-small' {direction}: expected {path}, not in this installation")
        return load_file(path, vocab=BUNDLED / "wiki-small.vocab.json")
    path = Path(source)
    if path.is_file() and path.suffix == ".safetensors":
        return _same_direction(load_file(path), direction)
    if path.is_file() and path.suffix == ".pth":
        return load_fastai_pair(path, direction=direction, allow_pickle=allow_pickle)
    if path.is_dir():
        for name in (f"pretrain_{direction}.safetensors", f"lm_{direction}.safetensors"):
            if (path / name).exists():
                return _same_direction(load_file(path / name), direction)
        pth = sorted(path.glob("*.pth"))
        if pth:
            return load_fastai_pair(pth[0], direction=direction, allow_pickle=allow_pickle)
        raise ValueError(
            f"{path}: expected lm_{direction}.safetensors (a run folder) or a .pth with its itos .pkl, found neither"
        )
    raise ValueError(
        "weights: expected 'wt103', 'wiki-small', 'none', a run folder, a .safetensors or a .pth that exists; found "
        f"{str(source)!r}"
    )


def _same_direction(weights: LMWeights, direction: str) -> LMWeights:
    if weights.direction != direction:
        raise ValueError(f"{weights.meta.get('path')}: expected {direction} weights, found {weights.direction} ones")
    return weights


class _ListOfWords(pickle.Unpickler):
    """Unpickles lists and strings; anything that would import a name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"expected a plain list of words, found a pickle that imports {module}.{name}")


def load_fastai_pair(
    pth: str | Path, itos: str | Path | None = None, *, direction: str = "forward", allow_pickle: bool = False
) -> LMWeights:
    """A stock fastai language model: `pth` (state dict) and `itos` (pickled list of words, default: beside it)."""
    pth = Path(pth)
    if itos is None:
        found = [p for p in (pth.with_suffix(".pkl"), *sorted(pth.parent.glob("*itos*.pkl"))) if p.exists()]
        found = found or sorted(pth.parent.glob("*.pkl"))
        if not found:
            raise ValueError(f"{pth}: expected its word list {pth.with_suffix('.pkl').name} beside it, found none")
        itos = found[0]
    with open(itos, "rb") as handle:
        try:
            words = list((pickle.Unpickler if allow_pickle else _ListOfWords)(handle).load())
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"{itos}: expected a pickled list of words, found {error}; fetch it again") from error
        except ValueError as error:
            raise ValueError(f"{itos}: {error}; pass allow_pickle=True only if you trust the file") from error
    try:
        state = torch.load(pth, map_location="cpu", weights_only=not allow_pickle)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{pth}: expected a fastai language model's state dict, found {str(error)[:200]}") from error
    state = {key: value for key, value in state.get("model", state).items() if isinstance(value, Tensor)}
    if _EMBEDDING not in state or state[_EMBEDDING].shape[0] != len(words):
        rows = state[_EMBEDDING].shape[0] if _EMBEDDING in state else "no embedding"
        raise ValueError(f"{pth}: expected an embedding of {len(words)} words (as in {itos}), found {rows}")
    raw = {key for key in state if key.endswith("_raw")}
    copies = {key.replace("_raw", "").replace(".weight_hh", ".module.weight_hh") for key in raw}
    tied = "1.decoder.weight" in state and torch.equal(state["1.decoder.weight"], state[_EMBEDDING])
    drop = set(_TIED if tied else _TIED[:1]) | copies
    kept = {key: value.float() for key, value in state.items() if key not in drop}
    return LMWeights(pth.stem, direction, words, kept, {"path": str(pth), "tied": tied})


def _wt103(direction: str) -> tuple[str, Path]:
    """The address of fastai's WikiText-103 weights and their folder in its cache."""
    from fastai.data.external import URLs, fastai_path

    url = URLs.WT103_FWD if direction == "forward" else URLs.WT103_BWD
    return url, fastai_path("model") / Path(url).stem


def have_wt103(direction: str) -> bool:
    """Whether 'wt103' can be loaded without a download."""
    return any(_wt103(direction)[1].glob("*.pth"))


def _load_wt103(direction: str) -> LMWeights:
    from fastai.data.external import untar_data

    url, folder = _wt103(direction)
    if not list(folder.glob("*.pth")):
        try:
            folder = untar_data(url, c_key="model")
        except Exception as error:  # urllib, fastdownload and tarfile raise many types; all mean "not to be had"
            raise ValueError(
                f"weights 'wt103' {direction}: not in {folder} and the download failed ({error}). Fetch {url} (about "
                f"180 MB) and unpack it into {folder.parent}, or use weights='wiki-small', a path, or 'none'"
            ) from error
    pair = sorted(Path(folder).glob("*.pth"))
    if not pair:
        raise ValueError(f"{folder}: expected a .pth and a .pkl in it, found none; delete the folder and try again")
    loaded = load_fastai_pair(pair[0], direction=direction)
    return LMWeights("wt103", direction, loaded.vocab, loaded.state, {**loaded.meta, "url": url})
