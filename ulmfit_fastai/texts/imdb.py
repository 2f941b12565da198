"""IMDb, the paper's main data set: 25,000 training, 25,000 test, 50,000 unlabelled reviews (Maas et al. 2011)."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from .._errors import UlmfitError
from .._words import shown
from .archives import is_archive, read_members
from .dataset import Dataset, build
from .downloads import cached_or_downloaded
from .files import decode, existing
from .tasks import TASKS, has_tables, load_table_task

log = logging.getLogger(__name__)

# part -> number of reviews; their file names are <number>_<stars>.txt, numbered from 0
EXPECTED = {"train/neg": 12500, "train/pos": 12500, "test/neg": 12500, "test/pos": 12500, "unsup": 50000}
MARKER = "SYNTHETIC.txt"  # in a folder of made-up reviews: whoever reads it later still knows what they are
LAYOUT = ("expected {train,test}/{neg,pos}/*.txt with the unlabelled reviews in unsup/ (fastai's layout) or "
          "train/unsup/ (Stanford's aclImdb)")
REVIEW = re.compile(r"(?:^|/)(?:(train|test)/(pos|neg)|(?:train/)?(unsup))/([^/.][^/]*)\.txt$")
BREAK = "<br />"
SYNTHETIC_NOTE = "synthetic reviews made by a generator: no measure of quality on real texts"


def load_imdb(path: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Dataset:
    """Read the IMDb reviews from fastai's cache (downloaded once through `URLs.IMDB`), or from a path.

    Args:
        path: a folder or a tar archive (.tgz) in fastai's layout (`imdb/unsup`) or Stanford's (`aclImdb/train/unsup`);
            the folder may also be the one that holds either. An archive is read as it is, without unpacking. Or
            tables as on Hugging Face (Parquet, CSV or JSON lines; see `load_task`).
        verify: refuse a set that is not whole, saying what is missing. With False a part of it is accepted and noted.

    Returns:
        The 'train', 'test' and 'unsup' reviews, labels 'neg' and 'pos'. Ids such as 'train/pos/0_9' are the same for
        every layout, and so is the fingerprint. A note (and a warning in the log) names parts that were cleaned
        differently, as in copies that circulate.

    Raises:
        UlmfitError: no reviews are there, they are not whole (with `verify`), one is empty, or the download fails.

    Source: Maas et al. 2011; paper, Table 1.
    """
    if path is None:
        from fastai.data.external import URLs
        place = cached_or_downloaded(URLs.IMDB, TASKS["imdb"].size)
    else:
        place = _find(existing(path))
        if has_tables(place):
            return _from_tables(place, verify)
    reviews = dict(_reviews(place))  # as in unpacking, the last file of a name counts
    synthetic = reviews.pop(("", MARKER), None) is not None
    found = Counter(part for part, _ in reviews)
    if not found:
        raise UlmfitError(f"no reviews in {place}: {LAYOUT}")
    notes = _check_counts(reviews, place, verify)
    _refuse_empty(reviews, place)
    notes += _cleaned_differently((part, text) for (part, _), text in reviews.items())
    for note in notes:
        log.warning("%s: %s", place, note)
    order = sorted(reviews, key=_place_in_set)
    if synthetic:
        notes.insert(0, SYNTHETIC_NOTE)
    return build("synthetic" if synthetic else "imdb", {
        "id": [f"{part}/{stem}" for part, stem in order],
        "text": [reviews[key] for key in order],
        "label": [part.partition("/")[2] or None for part, _ in order],
        "split": [part.partition("/")[0] for part, _ in order],
    }, str(place), synthetic=synthetic, notes=notes)


def _from_tables(place: Path, verify: bool) -> Dataset:
    made = load_table_task(TASKS["imdb"], place, verify=verify)
    parts = (split if label is None else f"{split}/{label}" for split, label in zip(made.df["split"], made.df["label"]))
    found = _cleaned_differently(zip(parts, made.df["text"]))
    for note in found:
        log.warning("%s: %s", place, note)
    return replace(made, notes=(*made.notes, *found))


def _find(path: Path) -> Path:
    """Find the set below a path: in the folder itself, in `imdb` or `aclImdb`, or in an archive so named."""
    if path.is_file():
        if not is_archive(path) and not has_tables(path):
            raise UlmfitError(f"{path} is neither a folder nor a .tgz: {LAYOUT}")
        return path
    for folder in (path, path / "imdb", path / "aclImdb", path / "data" / "imdb"):
        if any((folder / part).is_dir() for part in EXPECTED):
            return folder
    archives = [file for file in sorted(path.iterdir())
                if is_archive(file) and file.name.lower().startswith(("imdb.", "aclimdb"))]
    if archives:
        return archives[0]
    if has_tables(path):
        return path
    here = shown(sorted(file.name for file in path.iterdir())) or "nothing"
    raise UlmfitError(f"no IMDb set in {path}: {LAYOUT}; found {here}")


def _reviews(place: Path) -> Iterator[tuple[tuple[str, str], str]]:
    for name, content in read_members(place, lambda name: name.endswith(MARKER) or REVIEW.search(name) is not None):
        match = REVIEW.search(name)
        if match is None:
            yield ("", MARKER), ""
        else:
            split, label, unsup, stem = match.groups()
            yield (unsup or f"{split}/{label}", stem), decode(content, f"{place}: {name}")


def _place_in_set(key: tuple[str, str]) -> tuple[int, int, str]:
    part, stem = key
    number = stem.partition("_")[0]
    return list(EXPECTED).index(part), int(number) if number.isdecimal() else -1, stem


def _check_counts(reviews: dict[tuple[str, str], str], place: Path, verify: bool) -> list[str]:
    wrong = []
    for part, expected in EXPECTED.items():
        stems = [stem for p, stem in reviews if p == part]
        if len(stems) != expected:
            here = {int(stem.partition("_")[0]) for stem in stems if stem.partition("_")[0].isdecimal()}
            gone = [f"{part}/{number}_*.txt" for number in range(expected) if number not in here]
            which = f" (missing: {shown(gone, 3)})" if 0 < len(gone) < expected else ""
            wrong.append(f"{part}: expected {expected} reviews, found {len(stems)}{which}")
    if wrong and verify:
        raise UlmfitError(f"the IMDb set in {place} is not whole:\n  " + "\n  ".join(wrong) +
                          "\nDelete it and fetch it again, or accept it as it is with verify=False "
                          "(`ulmfit-fastai reproduce imdb --no-verify`).")
    if not verify and not all(any(p == part for p, _ in reviews) for part in ("train/neg", "train/pos")):
        raise UlmfitError(f"{place} has no training reviews of both classes: {LAYOUT}")
    return [f"not the whole IMDb set: {'; '.join(wrong)}"] if wrong else []


def _refuse_empty(reviews: dict[tuple[str, str], str], place: Path) -> None:
    empty = sorted(f"{part}/{stem}.txt" for (part, stem), text in reviews.items() if not text.strip())
    if empty:
        raise UlmfitError(f"{place}: expected a text in every review, found {len(empty):,} empty: {shown(empty)}. "
                          "Fetch the set again, or delete these and accept it as it is with verify=False")


def _cleaned_differently(reviews: Iterable[tuple[str, str]]) -> list[str]:
    """Name parts where `<br />` is far rarer than in others; in the original 58 to 59 % of the reviews have it."""
    total: Counter[str] = Counter()
    tagged: Counter[str] = Counter()
    for part, text in reviews:
        total[part] += 1
        tagged[part] += BREAK in text
    share = {part: tagged[part] / total[part] for part in EXPECTED if total[part] >= 50}  # fewer tell nothing
    if not share or min(share.values()) >= max(share.values()) / 2:
        return []
    bare = [part for part in share if share[part] < max(share.values()) / 2]
    shares = ", ".join(f"{part} {value:.0%}" for part, value in share.items())
    return [f"{shown(bare)} cleaned differently from the rest: share of reviews with {BREAK}: {shares} (the original "
            "has 58 to 59 % in each). Sentences may be glued together there, and results are not comparable"]
