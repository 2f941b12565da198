"""Where a language model starts: the bundled weights, fastai's WikiText-103, a run folder, a file."""

from __future__ import annotations

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import UlmfitError
from .._files import expanded, refuse_damaged
from .._schema import RUN, read_checked, said
from ..recipe.parts import DIRECTIONS
from ..recipe.recipe import BUNDLED_WEIGHTS
from .weights import EMBEDDING, LMWeights

BUNDLED = Path(__file__).parents[1] / "data"
"""Where the weights lie that come with the package."""


def load(source: str | Path, direction: str = "forward", *, allow_pickle: bool = False) -> LMWeights | None:
    """Weights by name or place: 'none', one of `BUNDLED_WEIGHTS`, 'wt103', a run folder, a .safetensors, a fastai pair.

    Args:
        source: 'wt103' goes through fastai's cache and URLs. A fastai pair is `<name>.pth` with `<name or itos>.pkl`.
        direction: 'forward' or 'backward', which the weights have to be.
        allow_pickle: for files that you made yourself. Otherwise a `.pth` is read with `weights_only=True` and a `.pkl`
            by a reader that accepts a plain list of words and nothing else.

    Returns:
        The weights; None for 'none'.

    Raises:
        UlmfitError: nothing usable is there; says what to put where.
    """
    if direction not in DIRECTIONS:
        raise UlmfitError(f"direction: expected one of {DIRECTIONS}, found {direction!r}")
    if str(source) == "none":
        return None
    if str(source) == "wt103":
        return _load_wt103(direction)
    if str(source) in BUNDLED_WEIGHTS:
        return _load_bundled(str(source), direction)
    return _load_path(source, direction, allow_pickle)


def bundled(name: str, direction: str) -> Path:
    """Where weights of the package lie, if this installation has them."""
    return BUNDLED / f"{name}-{direction}.safetensors"


def _load_bundled(name: str, direction: str) -> LMWeights:
    path = bundled(name, direction)
    if not path.exists():
        raise UlmfitError(f"weights {name!r} {direction}: expected {path}, not in this installation")
    return LMWeights.load(path, vocab=BUNDLED / f"{name}.vocab.json")


def _load_path(source: str | Path, direction: str, allow_pickle: bool) -> LMWeights:
    path = expanded(source)
    if path.is_file() and path.suffix == ".safetensors":
        return _same_direction(LMWeights.load(path), direction)
    if path.is_file() and path.suffix == ".pth":
        return load_fastai_pair(path, direction=direction, allow_pickle=allow_pickle)
    if path.is_dir():
        for name in (f"pretrain_{direction}.safetensors", f"lm_{direction}.safetensors"):
            if (path / name).exists():
                _refuse_damaged(path, name)
                return _same_direction(LMWeights.load(path / name), direction)
        pth = sorted(path.glob("*.pth"))
        if pth:
            return load_fastai_pair(pth[0], direction=direction, allow_pickle=allow_pickle)
        other = any([*path.glob("pretrain_*ward.safetensors"), *path.glob("lm_*ward.safetensors")])
        raise UlmfitError(f"{path}: expected pretrain_{direction}.safetensors or lm_{direction}.safetensors (a run "
                          "folder) or a .pth with its itos .pkl, found "
                          f"{'a language model of the other direction only' if other else 'none of them'}", path=path)
    own = "".join(f"{name!r}, " for name in BUNDLED_WEIGHTS if bundled(name, direction).exists())
    raise UlmfitError(f"weights: expected 'wt103', {own}'none', a run folder, a .safetensors or a .pth that exists; "
                      f"found {str(source)!r}")


def _refuse_damaged(folder: Path, name: str) -> None:
    """Compare weights with the digest that the record of their run holds, if it holds one."""
    if (folder / "run.json").is_file():
        refuse_damaged(folder, read_checked(folder / "run.json", RUN).get("digests"), "run.json", [name])


def _same_direction(weights: LMWeights, direction: str) -> LMWeights:
    if weights.direction != direction:
        raise UlmfitError(f"{weights.meta.get('path')}: expected {direction} weights, found {weights.direction} ones")
    return weights


def content_of(source: str | Path, direction: str = "forward") -> str | None:
    """A digest of the files that `load` would read, so that other weights under an old name are noticed.

    Returns:
        16 hexadecimal characters; None where there are no files, or none yet.
    """
    files = _files_of(source, direction)
    if not files:
        return None
    return _content(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=64)
def _content(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path, size, _ in files:
        digest.update(size.to_bytes(8, "little"))
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files_of(source: str | Path, direction: str) -> list[Path]:
    if str(source) in ("none", "pretrain"):
        return []
    if str(source) in BUNDLED_WEIGHTS:
        path = bundled(str(source), direction)
    elif str(source) == "wt103":
        path = _wt103(direction)[1]
    else:
        path = expanded(source)
    if path.is_dir():
        own = [path / f"{phase}_{direction}.safetensors" for phase in ("pretrain", "lm")]
        path = next((p for p in (*own, *sorted(path.glob("*.pth"))) if p.is_file()), path)
    words = sorted(path.parent.glob("*.pkl")) if path.suffix == ".pth" else []  # a .safetensors names its words' hash
    return [path, *words] if path.is_file() else []


class _ListOfWords(pickle.Unpickler):
    """Unpickles lists and strings; anything that would import a name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise UlmfitError(f"expected a plain list of words, found a pickle that imports {module}.{name}")


def load_fastai_pair(
    pth: str | Path, itos: str | Path | None = None, *, direction: str = "forward", allow_pickle: bool = False
) -> LMWeights:
    """Read a stock fastai language model.

    Args:
        pth: its state dict.
        itos: its pickled list of words; None: the one beside it.
        direction: what the model was trained on, which the files don't say.
        allow_pickle: as in `load`.

    Raises:
        UlmfitError: one of the two is missing or something else, or they don't belong together.
    """
    pth = Path(pth)
    if itos is None:
        found = [p for p in (pth.with_suffix(".pkl"), *sorted(pth.parent.glob("*itos*.pkl"))) if p.exists()]
        found = found or sorted(pth.parent.glob("*.pkl"))
        if not found:
            raise UlmfitError(f"{pth}: expected its word list {pth.with_suffix('.pkl').name} beside it, found none")
        itos = found[0]
    with open(itos, "rb") as handle:
        try:
            words = (pickle.Unpickler if allow_pickle else _ListOfWords)(handle).load()
        except UlmfitError as error:
            raise UlmfitError(f"{itos}: {error}; pass allow_pickle=True only if you trust the file") from error
        except Exception as error:  # a damaged pickle raises any type
            raise UlmfitError(f"{itos}: expected a pickled list of words, found {str(error) or type(error).__name__}; "
                              "fetch it again") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UlmfitError(f"{itos}: expected a pickled list of words, found {said(words)}", path=itos)
    try:
        state = torch.load(pth, map_location="cpu", weights_only=not allow_pickle)
    except Exception as error:  # as above
        raise UlmfitError(f"{pth}: expected a fastai language model's state dict, found {str(error)[:200]}") from error
    if not isinstance(state, dict) or not isinstance(state.get("model", state), dict):
        raise UlmfitError(f"{pth}: expected a fastai language model's state dict, found {said(state)}", path=pth)
    state = {key: value for key, value in state.get("model", state).items() if isinstance(value, Tensor)}
    if EMBEDDING not in state or state[EMBEDDING].shape[0] != len(words):
        rows = state[EMBEDDING].shape[0] if EMBEDDING in state else "no embedding"
        raise UlmfitError(f"{pth}: expected an embedding of {len(words)} words (as in {itos}), found {rows}")
    if "0.rnns.0.weight_hh_l0_raw" not in state or state[EMBEDDING].ndim != 2:
        raise UlmfitError(f"{pth}: expected a fastai language model's state dict, found no LSTM in it", path=pth)
    kept = {key: value.float() for key, value in state.items()}
    return LMWeights.from_state(kept, words, name=pth.stem, direction=direction, path=str(pth))


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
            raise UlmfitError(
                f"weights 'wt103' {direction}: not in {folder} and the download failed ({error})", path=folder,
                advice=f"fetch {url} (about 180 MB) and unpack it into {folder.parent}, or take other weights: "
                       "'wiki-small', a path, or 'none'") from error
    pair = sorted(Path(folder).glob("*.pth"))
    if not pair:
        raise UlmfitError(f"{folder}: expected a .pth and a .pkl in it, found none; delete the folder and try again")
    loaded = load_fastai_pair(pair[0], direction=direction)
    return LMWeights("wt103", direction, loaded.vocab, loaded.state, {**loaded.meta, "url": url})
