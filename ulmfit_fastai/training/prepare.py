"""What every phase of a run shares: which rows are for what, texts as numbers, labels as targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .._errors import UlmfitError
from ..batches.targets import Targets
from ..recipe.recipe import Recipe
from ..results.folder import RunFolder
from ..texts.dataset import Dataset
from ..texts.splits import Splits, split_validation
from ..tokens.ids import TokenIds
from ..tokens.store import TokenStore
from .callbacks import derived_seed
from .corpus import Corpus, GeneralText, general_text


@dataclass
class Prepared:
    """What every phase of a run shares: rows, numericalised texts and labels."""

    dataset: Dataset
    splits: Splits
    ids: TokenIds
    targets: Targets  # the label of each row as the classifier learns it
    general: GeneralText | None = None  # what stage 1 reads, in a vocabulary of its own
    sample_weight: np.ndarray | None = None  # how much each row counts in the classifier's loss


VALIDATION_SEED = 0
"""Draws the validation part, whatever the run's seed: so seeds differ in their training and not in what they are
measured on."""


def rows_for(recipe: Recipe, dataset: Dataset) -> Splits:
    """The rows that each phase of a run reads."""
    splits = split_validation(
        dataset, fraction=recipe.valid_fraction, seed=recipe.seed, protocol=recipe.protocol, n_labels=recipe.n_labels,
        valid_seed=VALIDATION_SEED, lm_seed=recipe.language_seed,
    )
    if recipe.lm_texts == "labelled":  # the paper's supervised low-shot setting: the LM reads what the classifier reads
        splits = replace(splits, lm_train=splits.train, lm_valid=np.setdiff1d(splits.lm_valid, splits.train))
    return splits


def prepare(recipe: Recipe, dataset: Dataset, *, ids: TokenIds | None = None, cache: Path | None = None,
            progress: bool = True) -> Prepared:
    """Split, tokenise (from the cache when nothing changed) and numericalise with the vocabulary of the LM's texts.

    `ids` are the texts already numericalised, one document a row (from a pack); their vocabulary is taken as it is.
    """
    splits = rows_for(recipe, dataset)
    if ids is None:
        store = TokenStore.make(dataset.df["text"].tolist(), cache=cache, progress=progress)
        vocab = store.vocab(splits.lm_train, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq)
        ids = store.numericalize(vocab)
    elif len(ids) != len(dataset):
        raise UlmfitError(f"ids: expected one document for each of the {len(dataset):,} rows, found {len(ids):,}")
    targets = Targets.of(dataset, splits.train)
    if targets.target.kind != "single" and recipe.evaluate == "test" and len(splits.test):
        raise UlmfitError(f"{dataset.name}: a run measures labels of several classes or numbers on its validation part "
                          "only; use evaluate='validation', and ULMFiT.evaluate for other texts")
    return Prepared(dataset, splits, ids, targets)


def some_rows(rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    """At most `most` of the rows, drawn once for the seed, ascending."""
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(derived_seed(seed, "rows")).choice(rows, most, replace=False))


def pretraining_left(recipe: Recipe, folder: RunFolder, direction: str) -> bool:
    """Whether stage 1 of a direction is still to be done, and needs the corpus."""
    return recipe.weights == "pretrain" and not any(folder.phase_done(direction, name) for name in recipe.phases)


def read_general(recipe: Recipe, corpus: Corpus | None, *, cache: Path | None, progress: bool) -> GeneralText:
    """The corpus of stage 1 in numbers; ValueError when there is none."""
    if corpus is None:
        raise UlmfitError(
            f"recipe {recipe.name!r} pretrains (its weights are 'pretrain') and needs general text", field="corpus",
            advice="give `corpus=`, a file or folder of articles, 'wikitext-103', or texts in a list; or other "
                   "weights, such as 'wt103'")
    return general_text(corpus, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq, cache=cache, progress=progress)
