"""Which rows train, which validate, which test, and which the language model sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .._errors import UlmfitError
from .dataset import Dataset
from .sampling import balanced, stratified

PROTOCOLS = ("clean", "tutorial")
LM_VALID_FRACTION = 0.1
LM_VALID_MOST = 5000  # texts: about 1.3M tokens of IMDb, enough for a perplexity to three digits
FEWEST_TEXTS = 4


@dataclass(frozen=True, eq=False)
class Splits:
    """Row numbers into `Dataset.df`, each an ascending int64 array.

    Attributes:
        train: what the classifier learns from.
        valid: what it is validated on.
        test: what it is tested on.
        lm_train: what the language model is fine-tuned on.
        lm_valid: what that is validated on.
    """
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    lm_train: np.ndarray
    lm_valid: np.ndarray

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in vars(self).items())
        return f"Splits({sizes})"


def split_validation(dataset: Dataset, *, fraction: float = 0.1, seed: int = 0, protocol: str = "clean",
                     n_labels: int | None = None, valid_seed: int | None = None,
                     lm_seed: int | None = None) -> Splits:
    """Draw the validation part and say what the language model may read; a pure function of its arguments.

    Args:
        fraction: of the training rows, 0 to 0.5; 0 leaves `valid` empty.
        seed: draws everything that has no seed of its own.
        protocol: 'clean': `valid` is `fraction` of the training rows, the classes in proportion. The language model
            reads training and unlabelled texts, never a test text, and is validated on a tenth of them (5,000 at
            most), among which the classifier's validation texts come first: so no stage has trained on a text it is
            judged by. Validation texts beyond the 5,000 are read by no stage. 'tutorial', as published notebooks do
            it: the language model reads every text, those of the test set too, and the test set is the validation
            set. A report has to say so.
        n_labels: train on this many labels, the classes balanced as far as they reach. The validation part does not
            depend on it, a larger subset contains the smaller ones, and the texts whose labels are not used stay
            in the language model's part.
        valid_seed: draws `valid`; None: `seed`. With the same one, runs of other seeds are measured on the same texts.
        lm_seed: draws `lm_valid`; None: `seed`.

    Raises:
        UlmfitError: an argument is out of range, or the data set has too few texts to train on some and validate on
            others.

    Source: paper, section 5 (a tenth of the training set; low-shot learning and Figure 3 for `n_labels`).
    """
    if protocol not in PROTOCOLS:
        raise UlmfitError(f"protocol must be one of {', '.join(PROTOCOLS)}; found {protocol!r}")
    if not 0 <= fraction <= 0.5:
        raise UlmfitError(f"fraction must lie between 0 and 0.5, found {fraction}")
    labelled, test, unsup = (dataset.rows(split) for split in ("train", "test", "unsup"))
    labels = dataset.df["label"].to_numpy()
    _check_enough(dataset, len(labelled) + len(unsup), len(labelled))
    if protocol == "tutorial":
        if not len(test):
            raise UlmfitError("the protocol 'tutorial' validates on the test set, and there are no test rows")
        train, valid = labelled, test
    else:
        rng = np.random.default_rng([seed if valid_seed is None else valid_seed, 0])
        drawn = stratified(strata(labels[labelled], dataset), fraction, rng)
        train, valid = np.delete(labelled, drawn), labelled[drawn]
    lm_train, lm_valid = _lm_rows(labelled, valid, unsup, test, seed if lm_seed is None else lm_seed, protocol)
    if n_labels is not None:
        train = balanced(train, labels, n_labels, np.random.default_rng([seed, 1]))
    return Splits(train, valid, test, lm_train, lm_valid)


def strata(labels: np.ndarray, dataset: Dataset) -> list[str]:
    """What the validation part is drawn in proportion to: the class; of several, a text's rarest; of a number, nothing.

    So a class with few texts keeps some in training whatever else its texts are.
    """
    if not dataset.classes:
        return [""] * len(labels)
    if dataset.label_delim is None:
        return labels.tolist()
    several = [label.split(dataset.label_delim) for label in labels]
    counts = Counter(name for names in several for name in names)
    return [min(names, key=lambda name: (counts[name], name)) for names in several]


def _check_enough(dataset: Dataset, texts: int, labelled: int) -> None:
    if texts < FEWEST_TEXTS or 0 < labelled < FEWEST_TEXTS:
        raise UlmfitError(f"{dataset.name} has {labelled} labelled and {texts - labelled} unlabelled training texts; "
                          f"at least {FEWEST_TEXTS} are needed to train on some and validate on others")


def _lm_rows(labelled: np.ndarray, valid: np.ndarray, unsup: np.ndarray, test: np.ndarray, seed: int,
             protocol: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 2])
    pool = [labelled, unsup, test] if protocol == "tutorial" else [labelled, unsup]
    rows = np.sort(np.concatenate(pool))
    wanted = min(max(1, round(len(rows) * LM_VALID_FRACTION)), LM_VALID_MOST)
    if protocol == "tutorial":
        lm_valid = rng.permutation(rows)[:wanted]
        return np.setdiff1d(rows, lm_valid), np.sort(lm_valid)
    free = np.setdiff1d(rows, valid)
    lm_valid = np.concatenate([rng.permutation(valid)[:wanted], rng.permutation(free)[:max(0, wanted - len(valid))]])
    return np.setdiff1d(free, lm_valid), np.sort(lm_valid)
