"""Numericalised texts in a few compressed files: to train on a machine that has neither the texts nor spaCy.

A pack is a folder: `ids.000.xz`, `ids.001.xz`, ... (the flat ids in order, each part small enough to be sent on its
own), `offsets.npy`, `vocab.json`, `rows.csv` (id, label, split of every text, without the texts) and `pack.json`, which
is written last.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ulmfit_fastai._files import atomic_file, read_json, write_bytes_atomic, write_json_atomic, write_text_atomic
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.tokens.ids import TokenIds, Vocabulary

FORMAT = 1
PART_TOKENS = 16_000_000
"""Tokens of a part: IMDb in 60,000 words takes a byte a token, so a part has some 16 MB."""


@dataclass(frozen=True, eq=False)
class WithoutTexts(Dataset):
    """A data set whose texts stayed behind: ids, labels and splits, and the fingerprint that it had with its texts."""

    known_fingerprint: str = ""

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return self.known_fingerprint


def write_pack(folder: str | Path, ids: TokenIds, *, dataset: Dataset | None = None, part_tokens: int = PART_TOKENS,
               **about: Any) -> Path:
    """Write a pack of `ids`, with the rows of `dataset` (labels, splits) when it is given; returns the folder.

    `about` goes into pack.json and must be JSON: the corpus, the row numbers of its parts.
    """
    folder = Path(folder)
    flat = np.ascontiguousarray(ids.ids)
    parts = [flat[at : at + part_tokens] for at in range(0, len(flat), part_tokens)]
    names = [f"ids.{number:03d}.xz" for number in range(len(parts))]
    with ThreadPoolExecutor() as pool:  # lzma lets go of the interpreter's lock
        for name, packed in zip(names, pool.map(lambda part: lzma.compress(part.tobytes(), preset=6), parts)):
            write_bytes_atomic(folder / name, packed)
    with atomic_file(folder / "offsets.npy") as file:
        np.save(file, np.asarray(ids.offsets))
    ids.vocab.save(folder / "vocab.json")
    described = {"format": FORMAT, "dtype": str(flat.dtype), "tokens": len(flat), "parts": names, **about}
    if dataset is not None:
        rows = dataset.df[["id", "label", "split"]]
        write_text_atomic(folder / "rows.csv", rows.to_csv(index=False, lineterminator="\n"))
        described["dataset"] = {
            "name": dataset.name, "classes": list(dataset.classes), "source": Path(dataset.source).name,
            "synthetic": dataset.synthetic, "notes": list(dataset.notes), "fingerprint": dataset.fingerprint,
        }
    write_json_atomic(folder / "pack.json", described)
    return folder


def read_pack(folder: str | Path) -> tuple[TokenIds, Dataset | None, dict[str, Any]]:
    """The ids, the data set without its texts (None for a plain corpus) and pack.json; ValueError for a broken pack."""
    folder = Path(folder)
    if not (folder / "pack.json").exists():
        raise ValueError(f"{folder}: expected a pack (pack.json), found none; write one with packs.write_pack")
    about = read_json(folder / "pack.json")
    if about.get("format") != FORMAT:
        raise ValueError(f"{folder}: expected a pack of format {FORMAT}, found {about.get('format')!r}")
    missing = [name for name in about["parts"] if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder}: expected {len(about['parts'])} parts, missing are {', '.join(missing[:3])}")
    flat = np.empty(about["tokens"], about["dtype"])
    at = 0
    with ThreadPoolExecutor() as pool:
        for content in pool.map(lambda name: _unpacked(folder / name), about["parts"]):
            part = np.frombuffer(content, about["dtype"])
            flat[at : at + len(part)] = part
            at += len(part)
    if at != len(flat):
        raise ValueError(f"{folder}: expected {len(flat):,} tokens, found {at:,}; the parts are not of one pack")
    ids = TokenIds(flat, np.load(folder / "offsets.npy"), Vocabulary.load(folder / "vocab.json"))
    return ids, _dataset(folder, about), about


def _unpacked(file: Path) -> bytes:
    try:
        return lzma.decompress(file.read_bytes())
    except lzma.LZMAError as error:
        raise ValueError(f"{file}: expected a whole xz file, found {error}; copy it again") from error


def _dataset(folder: Path, about: dict[str, Any]) -> Dataset | None:
    if "dataset" not in about:
        return None
    known = about["dataset"]
    rows = pd.read_csv(folder / "rows.csv", dtype=object, keep_default_na=False)
    labels = [label if label != "" else None for label in rows["label"]]
    rows["label"] = pd.Series(labels, dtype=object)  # pandas would make a missing label nan
    rows["text"] = ""
    return WithoutTexts(known["name"], rows[["id", "text", "label", "split"]], tuple(known["classes"]), known["source"],
                        known["synthetic"], tuple(known["notes"]), known_fingerprint=known["fingerprint"])


def smaller_vocab(ids: TokenIds, most: int, rows: Sequence[int] | np.ndarray | None = None) -> TokenIds:
    """The same texts with only the first `most` words of their vocabulary; the others become 0 (xxunk).

    A vocabulary is sorted by frequency, so these are the most frequent ones. The size is kept a multiple of 8.
    """
    most -= most % 8
    if most >= len(ids.vocab):
        return ids
    flat = np.where(ids.ids < most, ids.ids, 0).astype(np.uint16 if most <= 1 << 16 else np.uint32)
    return TokenIds(flat, ids.offsets, ids.vocab[:most])
