"""Everything a run depends on, in one frozen `Recipe` that prints, compares and round-trips through JSON.

    recipe = preset("fastai")                                    # presets.py
    recipe.replace(**{"classifier.bs": 32, "seed": 1})           # fields by their dotted names
    recipe.diff(preset("paper"))                                 # [(field, ours, theirs), ...]
    Recipe.from_json(recipe.to_json()) == recipe
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .fields import build, diff, expect, plain, set_at
from .freezing import Stage

DIRECTIONS = ("forward", "backward")
PHASES = ("pretrain", "lm", "classifier")
NAMED_WEIGHTS = ("wt103", "wiki-small", "none", "pretrain")
WT103_SHAPE = {"emb_sz": 400, "n_hid": 1152, "n_layers": 3}
"""fastai's WikiText-103 weights; the paper's models had 1150 hidden units, so its shape cannot take them."""


@dataclass(frozen=True)
class Dropouts:
    """AWD-LSTM's five dropouts, under fastai's names (Merity et al. 2017)."""

    embed: float
    """Whole words' embeddings."""
    input: float
    """The embedded input of the first LSTM layer."""
    hidden: float
    """Between the LSTM layers."""
    weight: float
    """The hidden-to-hidden matrices."""
    output: float
    """After the last LSTM layer in a language model; before the head's first linear layer in a classifier."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            expect(0.0 <= getattr(self, item.name) < 1.0, f"dropouts.{item.name}", getattr(self, item.name),
                    "at least 0 and less than 1")

    def scaled(self, multiplier: float) -> Dropouts:
        """All five multiplied by the same number: fastai's `drop_mult`."""
        return Dropouts(**{f.name: getattr(self, f.name) * multiplier for f in dataclasses.fields(self)})


AWD_LM = Dropouts(embed=0.02, input=0.25, hidden=0.15, weight=0.2, output=0.1)
"""The language model's dropouts in the authors' scripts and in fastai at drop_mult=1."""
AWD_CLASSIFIER = Dropouts(embed=0.05, input=0.4, hidden=0.3, weight=0.5, output=0.4)
"""The paper's one line of dropouts (section 4.1), which the scripts and fastai use for the classifier."""


@dataclass(frozen=True)
class Model:
    """AWD-LSTM and the classifier's head."""

    emb_sz: int = 400
    n_hid: int = 1152
    """Hidden units of an LSTM layer: 1150 in the paper, 1152 in fastai and its weights."""
    n_layers: int = 3
    lm_dropouts: Dropouts = AWD_LM
    classifier_dropouts: Dropouts = AWD_CLASSIFIER
    pretrain_dropouts: Dropouts = AWD_LM.scaled(0.5)
    """In stage 1. Half, as in the authors' scripts: a large corpus needs little regularisation."""
    head_hidden: int = 50
    head_dropout: float = 0.1
    """Before the head's last linear layer. Not in the paper; 0.1 in the scripts and in fastai."""
    tie_weights: bool = True
    """Embedding and decoder share their matrix."""
    pooling: str = "concat"
    """concat: the last state, the maximum and the mean over the text (paper, section 3.3)."""

    def __post_init__(self) -> None:
        for name in ("emb_sz", "n_hid", "n_layers", "head_hidden"):
            expect(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        expect(0.0 <= self.head_dropout < 1.0, "model.head_dropout", self.head_dropout, "at least 0 and less than 1")
        expect(self.pooling == "concat", "model.pooling", self.pooling, "'concat'")

    def n_groups(self, phase: str) -> int:
        """Layer groups of the model in a phase: n_layers + 2 in a classifier, n_layers + 1 in a language model."""
        return self.n_layers + (2 if phase == "classifier" else 1)


@dataclass(frozen=True)
class Optimizer:
    """Adam and what goes with it."""

    moms: tuple[float, ...] = (0.7,)
    """beta1: one constant, or (start, middle, end), cycled by the schedule one_cycle."""
    sqr_mom: float = 0.99
    """beta2 (paper: 0.99)."""
    eps: float = 1e-5
    wd: float = 0.01
    decoupled_wd: bool = True
    """True: weight decay beside Adam (AdamW, fastai's way). False: L2, through the gradient (fastai 0.7's way)."""
    clip: float | None = None
    """Largest norm of the gradient; None: no clipping."""

    def __post_init__(self) -> None:
        expect(len(self.moms) in (1, 3), "optimizer.moms", self.moms, "one value, or three (start, middle, end)")
        for value in (*self.moms, self.sqr_mom):
            expect(0.0 <= value < 1.0, "optimizer.moms and sqr_mom", value, "at least 0 and less than 1")
        expect(self.eps > 0, "optimizer.eps", self.eps, "a positive number")
        expect(self.wd >= 0, "optimizer.wd", self.wd, "at least 0")
        expect(self.clip is None or self.clip > 0, "optimizer.clip", self.clip, "a positive number, or None")


@dataclass(frozen=True)
class Phase:
    """One of the three trainings of ULMFiT, as stages that run one after the other."""

    stages: tuple[Stage, ...]
    optimizer: Optimizer
    bs: int = 64
    bptt: int = 70
    """Tokens per step of back-propagation through time; in the classifier, per chunk of a text."""
    variable_bptt: bool = False
    """Draw each language-model batch's length around `bptt` and rescale the rate with it (Merity et al. 2017)."""
    alpha: float = 2.0
    """Activation regularisation (AR)."""
    beta: float = 1.0
    """Temporal activation regularisation (TAR)."""
    sampled_words: int | None = None
    """Language model: let only the so many most frequent words, and as many of the others drawn anew for each batch,
    compete in the loss of training (less work for a CPU), all of them in the last tenth of each stage and when
    perplexity is measured; None: all words always, as the paper does. Without effect where `fast` is False."""
    max_len: int | None = None
    """Classifier: tokens of a text, counted from its end, that are pooled and receive gradient, rounded up to whole
    chunks of bptt. None: 20 * bptt."""
    early_stopping: int | None = None
    """End a stage after so many epochs without a better validation loss and go back to its best epoch; None: never."""
    max_docs: int | None = None
    """Use no more than this many training texts (drawn by the seed); None: all."""
    valid_docs: int | None = None
    """Measure after each epoch on no more than this many validation texts (drawn by the seed); None: all. What a run
    reports at its end is measured on all of them in any case."""
    backward_factor: float = 1.0
    """What the backward model's rates are multiplied by: read with `for_direction`."""

    def __post_init__(self) -> None:
        expect(len(self.stages) > 0, "stages", self.stages, "at least one stage")
        names = [stage.name for stage in self.stages]
        expect(len(set(names)) == len(names), "stages", names, "names that differ, since results are filed under them")
        for name in ("bs", "bptt"):
            expect(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("max_len", "early_stopping", "max_docs", "sampled_words", "valid_docs"):
            value = getattr(self, name)
            expect(value is None or value >= 1, name, value, "at least 1, or None")
        for name in ("alpha", "beta"):
            expect(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        expect(self.backward_factor > 0, "backward_factor", self.backward_factor, "a positive number")
        if self.max_len is not None and self.max_len < self.bptt:
            raise ValueError(f"max_len is {self.max_len}, less than one chunk of bptt = {self.bptt} tokens; raise "
                             "max_len or lower bptt.")
        for stage in self.stages:
            if len(self.optimizer.moms) == 3 and stage.schedule.kind != "one_cycle":
                raise ValueError(f"optimizer.moms has three values to cycle, but the schedule of stage {stage.name!r} "
                                 f"is {stage.schedule.kind!r}, and only one_cycle cycles momentum; give one value.")

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def for_direction(self, direction: str) -> Phase:
        """The phase as one direction trains it: its rates times `backward_factor` if that is backward."""
        expect(direction in DIRECTIONS, "direction", direction, "'forward' or 'backward'")
        if direction == "forward" or self.backward_factor == 1.0:
            return self
        stages = tuple(dataclasses.replace(s, lr=s.lr * self.backward_factor) for s in self.stages)
        return dataclasses.replace(self, stages=stages, backward_factor=1.0)


@dataclass(frozen=True, repr=False)
class Recipe:
    """Everything a run depends on except the texts; `preset` makes one, `replace` changes it."""

    name: str
    classifier: Phase
    lm: Phase | None = None
    """Language-model fine-tuning; None: left out (Table 6, "No LM fine-tuning"; Table 7, "From scratch")."""
    pretrain: Phase | None = None
    """How stage 1 is run if `weights` is "pretrain"; not read otherwise."""
    weights: str = "wt103"
    """Where the language model starts: "wt103" (fastai's WikiText-103), "wiki-small" (this project's), "pretrain"
    (stage 1 on a corpus of yours), "none" (random), or the path of a run folder or weights file."""
    model: Model = field(default_factory=Model)
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
    min_freq: int = 3
    """Words seen fewer times than this become xxunk."""
    valid_fraction: float = 0.1
    """Share of the training texts held out for validation under the clean protocol."""
    n_labels: int | None = None
    """Use only this many labels, balanced over the classes; None: all."""
    seed: int = 0
    precision: str = "auto"
    """auto, fp32, bf16 or fp16."""
    fast: bool = True
    """Use this project's faster equivalents of fastai's layers and optimiser; False: fastai's own."""
    class_weights: tuple[float, ...] | None = None
    """How much a text of each class counts in the classifier's loss, in the order of the classes; None: all alike."""
    lm_seed: int | None = None
    """Seed of the language model and of the texts it reads; None: `seed`. With the same one, runs of other seeds share
    a language model, and they differ in the labels drawn and in how the classifier is trained."""

    def __post_init__(self) -> None:
        expect(bool(self.name), "name", self.name, "a name")
        expect(self.protocol in ("clean", "tutorial"), "protocol", self.protocol, "'clean' or 'tutorial'")
        expect(self.lm_texts in ("all", "labelled"), "lm_texts", self.lm_texts, "'all' or 'labelled'")
        expect(self.evaluate in ("test", "validation"), "evaluate", self.evaluate, "'test' or 'validation'")
        expect(self.precision in ("auto", "fp32", "bf16", "fp16"), "precision", self.precision,
                "'auto', 'fp32', 'bf16' or 'fp16'")
        expect(bool(self.directions) and set(self.directions) <= set(DIRECTIONS)
                and len(set(self.directions)) == len(self.directions), "directions", self.directions,
                "('forward',), ('backward',) or both")
        expect(bool(self.weights), "weights", self.weights, f"one of {', '.join(NAMED_WEIGHTS)}, or a path")
        expect(0.0 < self.valid_fraction < 1.0, "valid_fraction", self.valid_fraction, "between 0 and 1")
        expect(self.max_vocab >= 10, "max_vocab", self.max_vocab, "at least 10 (fastai's special tokens take nine)")
        expect(self.min_freq >= 1, "min_freq", self.min_freq, "at least 1")
        expect(self.seed >= 0, "seed", self.seed, "at least 0")
        expect(self.lm_seed is None or self.lm_seed >= 0, "lm_seed", self.lm_seed, "at least 0, or None for seed")
        expect(self.n_labels is None or self.n_labels >= 2, "n_labels", self.n_labels, "at least 2, or None for all")
        expect(self.class_weights is None or min(self.class_weights, default=0) > 0, "class_weights",
               self.class_weights, "a positive number for each class, or None")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.weights == "pretrain" and self.pretrain is None:
            raise ValueError("weights is 'pretrain', but pretrain is None: give the phase, or other weights.")
        if self.weights == "wt103":
            for name, value in WT103_SHAPE.items():
                if getattr(self.model, name) != value:
                    raise ValueError(f"weights is 'wt103', whose {name} is {value}, but model.{name} is "
                                     f"{getattr(self.model, name)}: use model.{name} = {value}, or weights 'pretrain'.")
        if self.protocol == "tutorial" and self.evaluate == "validation":
            raise ValueError("protocol 'tutorial' validates on the test set, and evaluate is 'validation', which must "
                             "not read it: use protocol 'clean'.")
        for name in PHASES:
            phase = self.phase(name)
            if phase is None:
                continue
            n_groups = self.model.n_groups(name)
            for stage in phase.stages:
                try:
                    stage.rates(n_groups)
                except ValueError as error:
                    raise ValueError(f"{name}.stages and model.n_layers = {self.model.n_layers}: {error}") from None
            if name != "classifier" and phase.max_len is not None:
                raise ValueError(f"{name}.max_len is {phase.max_len}, but only the classifier pools a text's tokens; "
                                 "leave it None.")
            if name == "classifier" and phase.sampled_words is not None:
                raise ValueError(f"classifier.sampled_words is {phase.sampled_words}, but only language models predict "
                                 "words; leave it None.")
            if name == "classifier" and phase.variable_bptt:
                raise ValueError("classifier.variable_bptt is True, but the classifier reads texts in chunks of equal "
                                 "length; only language models draw it.")

    def phase(self, name: str) -> Phase | None:
        """The phase of that name ("pretrain", "lm" or "classifier"), or None if it is left out."""
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
        """16 hexadecimal characters that change with any field but the name (1 and 1.0 are the same)."""
        fields = {key: value for key, value in Recipe.from_dict(self.to_dict()).to_dict().items() if key != "name"}
        for later in ("class_weights", "lm_seed"):  # runs without these fields keep their hash; so do those below
            if fields[later] is None:
                del fields[later]
        for phase in filter(None, (fields[name] for name in PHASES)):
            for later in ("sampled_words", "valid_docs"):
                if phase[later] is None:
                    del phase[later]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe of `to_dict`; unknown fields and values of a wrong type are refused by name."""
        return build(cls, values, "")

    def to_json(self) -> str:
        """Indented JSON, the same for equal recipes."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str | dict[str, Any]) -> Recipe:
        """The recipe of `to_json`, or of what a JSON file with a recipe in it was read as."""
        return cls.from_dict(json.loads(text) if isinstance(text, str) else text)

    def save(self, path: str | Path) -> Path:
        """Write the recipe as JSON, to be edited and read again with `Recipe.load`."""
        path = Path(path)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a JSON file."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def replace(self, **changes: Any) -> Recipe:
        """A copy with other values, by dotted names: `recipe.replace(**{"classifier.stages.0.lr": 0.02, "seed": 1})`.

        Two underscores may stand for the dot (`classifier__bs=32`). All changes are made together, so that fields that
        belong together can be changed in one call. Stages are numbered from 0, or from the end with negative numbers.
        """
        values = self.to_dict()
        for dotted, value in changes.items():
            set_at(values, dotted.replace("__", ".").split("."), plain(value))
        return Recipe.from_dict(values)

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


def __getattr__(name: str) -> Any:
    """`preset` and `PRESETS` live in presets.py, which imports this file, and are found here too."""
    if name in ("preset", "PRESETS"):
        from . import presets

        return getattr(presets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
