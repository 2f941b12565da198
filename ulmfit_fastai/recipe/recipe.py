"""Everything a run depends on, in one frozen `Recipe` that prints, compares and round-trips through JSON.

    recipe = preset("fastai")                                    # presets.py
    recipe.replace(**{"classifier.bs": 32, "seed": 1})           # fields by their dotted names
    recipe.diff(preset("paper"))                                 # [(field, ours, theirs), ...]
    Recipe.from_json(recipe.to_json()) == recipe
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import read_json, write_text_atomic
from .fields import build, diff, expect, plain, set_at
from .hashing import short_hash
from .parts import DIRECTIONS, PHASES, PRECISIONS, Adversarial, Dropouts, Model, Phase

BUNDLED_WEIGHTS = ("wiki-small", "english-small")
"""Language models of the package: of Wikipedia, and the same after some reviews, for texts of one's own."""
NAMED_WEIGHTS = ("wt103", *BUNDLED_WEIGHTS, "none", "pretrain")
WT103_SHAPE = {"emb_sz": 400, "n_hid": 1152, "n_layers": 3}
"""fastai's WikiText-103 weights; the paper's models had 1150 hidden units, so its shape cannot take them."""


@dataclass(frozen=True, repr=False)
class Recipe:
    """Everything a run depends on except the texts; `preset` makes one, `replace` changes it.

    Raises:
        UlmfitError: a field is out of range, or two contradict each other; the message names them.
    """

    name: str
    """What the recipe is called; nothing depends on it."""
    classifier: Phase
    """Fine-tuning the classifier."""
    lm: Phase | None = None
    """Language-model fine-tuning; None: left out (Table 6, "No LM fine-tuning"; Table 7, "From scratch")."""
    pretrain: Phase | None = None
    """How stage 1 is run if `weights` is "pretrain"; not read otherwise."""
    weights: str = "wt103"
    """Where the language model starts: "wt103" (fastai's WikiText-103), "wiki-small" (this project's), "pretrain"
    (stage 1 on a corpus of yours), "none" (random), or the path of a run folder or weights file."""
    model: Model = field(default_factory=Model)
    """AWD-LSTM, its dropouts and the classifier's head."""
    directions: tuple[str, ...] = ("forward",)
    """Models to train; with both, their probabilities are averaged."""
    lm_texts: str = "all"
    """What LM fine-tuning reads: all (training and unlabelled texts) or labelled (only the texts whose labels are used:
    the paper's "supervised" low-shot setting)."""
    protocol: str = "clean"
    """clean: the language model never sees test texts, validation comes out of training. tutorial: as in published
    notebooks, test texts in the language model and the test set as validation set."""
    evaluate: str = "test"
    """test, or validation: the paper's analyses (Tables 4 to 7, Figures 3 and 4) never read the test set."""
    max_vocab: int = 60000
    """Most words that the vocabulary may hold, the most frequent ones."""
    min_freq: int = 3
    """Words seen fewer times than this become xxunk."""
    valid_fraction: float = 0.1
    """Share of the training texts held out for validation under the clean protocol."""
    n_labels: int | None = None
    """Use only this many labels, balanced over the classes; None: all."""
    seed: int = 0
    """Seed of everything random."""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16."""
    fast: bool = True
    """Use this project's faster equivalents of fastai's layers and optimiser; False: fastai's own."""
    class_weights: tuple[float, ...] | None = None
    """How much a text of each class counts in the classifier's loss, in the order of the classes; None: all alike."""
    lm_seed: int | None = None
    """Seed of the language model and of the texts it reads; None: `seed`. With the same one, runs of other seeds share
    a language model, and they differ in the labels drawn and in how the classifier is trained."""
    adversarial: Adversarial = field(default_factory=Adversarial)
    """Adversarial training of the classifier, which is beyond the paper; off unless a weight of it is above 0."""

    def __post_init__(self) -> None:
        expect(bool(self.name), "name", self.name, "a name")
        expect(self.protocol in ("clean", "tutorial"), "protocol", self.protocol, "'clean' or 'tutorial'")
        expect(self.lm_texts in ("all", "labelled"), "lm_texts", self.lm_texts, "'all' or 'labelled'")
        expect(self.evaluate in ("test", "validation"), "evaluate", self.evaluate, "'test' or 'validation'")
        expect(self.precision in PRECISIONS, "precision", self.precision, ", ".join(PRECISIONS))
        expect(bool(self.directions) and set(self.directions) <= set(DIRECTIONS)
                and len(set(self.directions)) == len(self.directions), "directions", self.directions,
                "('forward',), ('backward',) or both")
        expect(bool(self.weights), "weights", self.weights, f"one of {', '.join(NAMED_WEIGHTS)}, or a path")
        expect(0.0 < self.valid_fraction < 1.0, "valid_fraction", self.valid_fraction, "between 0 and 1")
        expect(self.max_vocab >= 10, "max_vocab", self.max_vocab, "at least 10 (fastai's special tokens take nine)")
        expect(self.min_freq >= 1, "min_freq", self.min_freq, "at least 1")
        expect(0 <= self.seed < 2**63, "seed", self.seed, "at least 0, and less than 2**63")
        expect(self.lm_seed is None or 0 <= self.lm_seed < 2**63, "lm_seed", self.lm_seed,
               "at least 0 and less than 2**63, or None for seed")
        expect(self.n_labels is None or self.n_labels >= 2, "n_labels", self.n_labels, "at least 2, or None for all")
        expect(self.class_weights is None or min(self.class_weights, default=0) > 0, "class_weights",
               self.class_weights, "a positive number for each class, or None")
        self._refuse_contradictions()
        for name in PHASES:
            if (phase := self.phase(name)) is not None:
                self._refuse_phase(name, phase)

    def _refuse_contradictions(self) -> None:
        if self.weights == "pretrain" and self.pretrain is None:
            raise UlmfitError("weights is 'pretrain', but pretrain is None: give the phase, or other weights.")
        if self.weights == "wt103":
            for name, value in WT103_SHAPE.items():
                if getattr(self.model, name) != value:
                    raise UlmfitError(f"weights is 'wt103', whose {name} is {value}, but model.{name} is "
                                      f"{getattr(self.model, name)}: use model.{name} = {value}, or weights "
                                      "'pretrain'.")
        if self.protocol == "tutorial" and self.evaluate == "validation":
            raise UlmfitError("protocol 'tutorial' validates on the test set, and evaluate is 'validation', which must "
                              "not read it: use protocol 'clean'.")

    def _refuse_phase(self, name: str, phase: Phase) -> None:
        n_groups = self.model.n_groups(name)
        for stage in phase.stages:
            try:
                stage.rates(n_groups)
            except ValueError as error:
                raise UlmfitError(f"{name}.stages and model.n_layers = {self.model.n_layers}: {error}") from None
        if name != "classifier" and phase.max_len is not None:
            raise UlmfitError(f"{name}.max_len is {phase.max_len}, but only the classifier pools a text's tokens; "
                              "leave it None.")
        if name != "classifier" and phase.precise_batch_norm is not None:
            raise UlmfitError(f"{name}.precise_batch_norm is {phase.precise_batch_norm}, but only the classifier has "
                              "batch norm; leave it None.")
        if name == "classifier" and phase.sampled_words is not None:
            raise UlmfitError(f"classifier.sampled_words is {phase.sampled_words}, but only language models "
                              "predict words; leave it None.")
        if name == "classifier" and phase.variable_bptt:
            raise UlmfitError("classifier.variable_bptt is True, but the classifier reads texts in chunks of equal "
                              "length; only language models draw it.")

    def phase(self, name: str) -> Phase | None:
        """The phase of that name ("pretrain", "lm" or "classifier"), or None if it is left out.

        Raises:
            UlmfitError: there is no phase of that name.
        """
        expect(name in PHASES, "phase", name, ", ".join(PHASES))
        return getattr(self, name)

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that run, in order."""
        names = ["pretrain"] if self.weights == "pretrain" else []
        return (*names, *(["lm"] if self.lm is not None else []), "classifier")

    def model_for(self, phase: str) -> Model:
        """The model as a phase builds it: in stage 1 the language model has the pretraining dropouts."""
        expect(phase in PHASES, "phase", phase, ", ".join(PHASES))
        if phase != "pretrain":
            return self.model
        return dataclasses.replace(self.model, lm_dropouts=self.model.pretrain_dropouts)

    @property
    def language_seed(self) -> int:
        """Seed of everything up to the end of LM fine-tuning."""
        return self.seed if self.lm_seed is None else self.lm_seed

    @property
    def hash(self) -> str:
        """16 hexadecimal characters that change with any field but the name (1 and 1.0 are the same).

        A short name, for folders and reports. Whether two runs are one is decided by their recipes.
        """
        return short_hash(type(self).from_dict(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe of `to_dict`; fields that are not there have their defaults.

        Raises:
            UlmfitError: a field is unknown or its value of a wrong type; the message names it.
        """
        return build(cls, values, "")

    def to_json(self) -> str:
        """Indented JSON, the same for equal recipes."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str | dict[str, Any]) -> Recipe:
        """The recipe of `to_json`, or of what a JSON file with a recipe in it was read as.

        Raises:
            UlmfitError: a field is unknown or its value of a wrong type; the message names it.
        """
        try:
            return cls.from_dict(json.loads(text.removeprefix("\ufeff")) if isinstance(text, str) else text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UlmfitError(f"expected a recipe in JSON, found {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write the recipe as JSON, to be edited and read again with `Recipe.load`."""
        return write_text_atomic(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a JSON file."""
        return cls.from_json(read_json(path))

    def replace(self, **changes: Any) -> Recipe:
        """A copy with other values, by dotted names: `recipe.replace(**{"classifier.stages.0.lr": 0.02, "seed": 1})`.

        All changes are made together, so that fields that belong together can be changed in one call.

        Args:
            changes: dotted name -> value. Two underscores may stand for the dot (`classifier__bs=32`). Stages are
                numbered from 0, or from the end with negative numbers.

        Raises:
            UlmfitError: there is no such field, its value is of a wrong type, or the recipe would contradict itself.
        """
        values = self.to_dict()
        for dotted, value in changes.items():
            set_at(values, dotted.replace("__", ".").split("."), plain(value))
        return type(self).from_dict(values)

    def diff(self, other: Recipe) -> list[tuple[str, Any, Any]]:
        """The fields that differ, as (dotted name, our value, the other's value), in the order of the fields."""
        return diff(self, other, "")

    def __repr__(self) -> str:
        lines = [f"Recipe {self.name!r}  ({self.hash})"]
        m = self.model
        lines.append(f"  model      AWD-LSTM {m.emb_sz}/{m.n_hid}/{m.n_layers}, head {m.head_hidden}, "
                     f"weights {self.weights}, vocabulary {self.max_vocab:,} (min_freq {self.min_freq})")
        evaluated = "" if self.evaluate == "test" else f", evaluated on {self.evaluate}"
        labels = "" if self.n_labels is None else f", {self.n_labels:,} labels"
        lines.append(f"  data       protocol {self.protocol}, {self.valid_fraction:.0%} held out{labels}{evaluated}")
        seed = f"seed {self.seed}" + ("" if self.lm_seed is None else f" (language model: {self.lm_seed})")
        lines.append(f"  run        {' + '.join(self.directions)}, {seed}, precision {self.precision}"
                     f"{'' if self.fast else ', stock layers'}")
        for name in self.phases:
            phase, drops = self.phase(name), self.model_for(name)
            assert phase is not None
            lines += _describe(name, phase, drops.classifier_dropouts if name == "classifier" else drops.lm_dropouts)
        if self.lm is None:
            lines.append("  lm         none")
        if self.classifier.precise_batch_norm is not None:
            texts = self.classifier.precise_batch_norm
            lines.append(f"  beyond     batch norm's statistics from {texts:,} training texts")
        if self.adversarial.is_on:
            a = self.adversarial
            lines.append(f"  beyond     adversarial training: weight {a.weight:g}, virtual {a.virtual_weight:g}, "
                         f"epsilon {a.epsilon:g}")
        return "\n".join(lines)


def _describe(name: str, phase: Phase, drops: Dropouts) -> list[str]:
    """A phase in a few lines, for people."""
    opt = phase.optimizer
    moms = "-".join(f"{m:g}" for m in opt.moms)
    extras = [f"max_len {phase.max_len}"] * (phase.max_len is not None)
    extras += ["variable bptt"] * phase.variable_bptt
    extras += [f"early stopping {phase.early_stopping}"] * (phase.early_stopping is not None)
    extras += [f"at most {phase.max_docs or 0:,} texts"] * (phase.max_docs is not None)
    lines = [
        f"  {name:<10} {phase.epochs} epochs, bs {phase.bs}, bptt {phase.bptt}{''.join(', ' + e for e in extras)}",
        f"    Adam     betas {moms}, {opt.sqr_mom:g}; eps {opt.eps:g}; wd {opt.wd:g} "
        f"{'decoupled' if opt.decoupled_wd else 'L2'}; clip {'none' if opt.clip is None else f'{opt.clip:g}'}; "
        f"AR {phase.alpha:g}, TAR {phase.beta:g}",
        f"    dropout  embed {drops.embed:g}, input {drops.input:g}, hidden {drops.hidden:g}, weight {drops.weight:g}, "
        f"output {drops.output:g}",
    ]
    for stage in phase.stages:
        which = "all groups" if stage.trainable is None else "groups " + ",".join(map(str, stage.trainable))
        rates = (f"/{stage.discriminative:g} per group" if not isinstance(stage.discriminative, tuple)
                 else " x " + ",".join(f"{d:g}" for d in stage.discriminative))
        rates = "" if stage.discriminative == 1.0 else rates
        span = "" if stage.span == (0.0, 1.0) else f" from {stage.span[0]:.3g} to {stage.span[1]:.3g}"
        lines.append(f"    {stage.name:<12} {stage.epochs:>2} x  lr {stage.lr:g}{rates}, {which}, "
                     f"{stage.schedule}{span}")
    return lines
