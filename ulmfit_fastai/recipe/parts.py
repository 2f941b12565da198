"""The parts of a recipe: dropouts, model, optimiser, phase."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .._errors import UlmfitError
from ..paper import stated, stated_whole
from .fields import expect
from .freezing import Stage

DIRECTIONS = ("forward", "backward")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
PHASES = ("pretrain", "lm", "classifier")


@dataclass(frozen=True)
class Dropouts:
    """AWD-LSTM's five dropouts, as probabilities, under fastai's names.

    Source: Merity et al. 2017, sections 2 and 4; values: paper, section 4.1.
    """

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
AWD_CLASSIFIER = Dropouts(
    embed=stated("dropout embedding"), input=stated("dropout input embedding"), hidden=stated("dropout RNN layers"),
    weight=stated("weight dropout"), output=stated("dropout layers"))
"""The paper's one line of dropouts (section 4.1), which the scripts and fastai use for the classifier."""


MOST_UNITS, MOST_LAYERS, MOST_WEIGHTS = 65_536, 64, 1_000_000_000
"""What a model may have at most: fifty times the paper's, and less than what a slip of the hand asks for."""


@dataclass(frozen=True)
class Model:
    """AWD-LSTM and the classifier's head."""

    emb_sz: int = stated_whole("emb_sz")
    """Size of a word's embedding (paper: 400)."""
    n_hid: int = 1152
    """Hidden units of an LSTM layer: 1150 in the paper, 1152 in fastai and its weights."""
    n_layers: int = stated_whole("n_layers")
    """LSTM layers (paper: 3)."""
    lm_dropouts: Dropouts = AWD_LM
    """In LM fine-tuning."""
    classifier_dropouts: Dropouts = AWD_CLASSIFIER
    """In the classifier."""
    pretrain_dropouts: Dropouts = AWD_LM.scaled(0.5)
    """In stage 1. Half, as in the authors' scripts: a large corpus needs little regularisation."""
    head_hidden: int = stated_whole("head_hidden")
    """Hidden units of the classifier's head (paper: 50)."""
    head_dropout: float = 0.1
    """Before the head's last linear layer. Not in the paper; 0.1 in the scripts and in fastai."""
    tie_weights: bool = True
    """Embedding and decoder share their matrix."""
    pooling: str = "concat"
    """concat: the last state, the maximum and the mean over the text (paper, section 3.3)."""

    def __post_init__(self) -> None:
        for name in ("emb_sz", "n_hid", "n_layers", "head_hidden"):
            most = MOST_LAYERS if name == "n_layers" else MOST_UNITS
            expect(1 <= getattr(self, name) <= most, f"model.{name}", getattr(self, name), f"1 to {most:,}")
        units = [self.emb_sz, *[self.n_hid] * (self.n_layers - 1), self.emb_sz]
        weights = sum(4 * hidden * (size + hidden) for size, hidden in zip(units, units[1:]))
        if weights > MOST_WEIGHTS:
            raise UlmfitError(f"model.emb_sz, n_hid and n_layers are {self.emb_sz}, {self.n_hid} and {self.n_layers}: "
                              f"{weights / 1e9:.1f} billion weights in the LSTMs; expected at most "
                              f"{MOST_WEIGHTS / 1e9:g} billion", field="model.n_hid")
        expect(0.0 <= self.head_dropout < 1.0, "model.head_dropout", self.head_dropout, "at least 0 and less than 1")
        expect(self.pooling == "concat", "model.pooling", self.pooling, "'concat'")

    def n_groups(self, phase: str) -> int:
        """Number of layer groups, which have learning rates of their own and are unfrozen one by one.

        Returns:
            n_layers + 2 for the phase 'classifier', n_layers + 1 for a language model.

        Source: paper, sections 3.2 and 3.3; groups as fastai's.
        """
        return self.n_layers + (2 if phase == "classifier" else 1)


@dataclass(frozen=True)
class Adversarial:
    """Adversarial and virtual adversarial training of the classifier, in stages that train every group.

    Beyond the paper: off unless a weight is above 0.

    Source: Miyato, Dai & Goodfellow 2017 (arXiv 1605.07725).
    """

    weight: float = 0.0
    """Of the loss of texts whose embeddings are shifted to where their loss rises most; 0: none."""
    virtual_weight: float = 0.0
    """Of the divergence between the answers to a text and to the same text shifted to where they change most, for
    which no label is needed; 0: none."""
    epsilon: float = 5.0
    """Norm of a text's shift, in standard deviations of the embeddings' components over the texts' words."""
    unlabelled: bool = True
    """Take the virtual loss on batches of all texts that the language model reads, as large as the classifier's;
    False: on the classifier's own."""
    finite_difference: float = 0.1
    """Norm of the random shift from which the virtual direction is found."""

    def __post_init__(self) -> None:
        for name in ("weight", "virtual_weight"):
            expect(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("epsilon", "finite_difference"):
            expect(getattr(self, name) > 0, name, getattr(self, name), "a positive number")

    @property
    def is_on(self) -> bool:
        """Whether anything is trained by it."""
        return self.weight > 0 or self.virtual_weight > 0

    @property
    def times(self) -> float:
        """How many times as much work as without it a batch is, counted in passes forward and back."""
        virtual = (2.0 if self.unlabelled else 1.7) if self.virtual_weight > 0 else 0.0
        return 1.0 + (self.weight > 0) + virtual


@dataclass(frozen=True)
class Optimizer:
    """Adam and what goes with it."""

    moms: tuple[float, ...] = (stated("beta1"),)
    """beta1: one constant (paper: 0.7), or (start, middle, end), cycled by the schedule one_cycle."""
    sqr_mom: float = stated("beta2")
    """beta2 (paper: 0.99)."""
    eps: float = 1e-5
    """Added to the root of the second moment before it divides; fastai's default."""
    wd: float = 0.01
    """Weight decay; fastai's default."""
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
    """What trains when, and how fast."""
    optimizer: Optimizer
    """Made anew for each stage."""
    bs: int = stated_whole("bs")
    """Texts, or streams of text, in a batch (paper: 64)."""
    bptt: int = stated_whole("bptt")
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
    precise_batch_norm: int | None = None
    """Classifier: after each epoch, before it is measured, take batch norm's means and variances from so many training
    texts (drawn by the seed; all if there are fewer), without dropout, instead of the running ones, which are those of
    the last twenty batches or so (Wu & Johnson 2021, arXiv 2105.07576). None: the running ones, as paper and fastai."""
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
            expect(1 <= getattr(self, name) <= MOST_UNITS, name, getattr(self, name), f"1 to {MOST_UNITS:,}")
        for name in ("max_len", "early_stopping", "max_docs", "sampled_words", "valid_docs"):
            value = getattr(self, name)
            expect(value is None or value >= 1, name, value, "at least 1, or None")
        expect(self.precise_batch_norm is None or self.precise_batch_norm >= 2, "precise_batch_norm",
               self.precise_batch_norm, "at least 2, or None")
        for name in ("alpha", "beta"):
            expect(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        expect(self.backward_factor > 0, "backward_factor", self.backward_factor, "a positive number")
        if self.max_len is not None and self.max_len < self.bptt:
            raise UlmfitError(f"max_len is {self.max_len}, less than one chunk of bptt = {self.bptt} tokens; raise "
                              "max_len or lower bptt.")
        for stage in self.stages:
            if len(self.optimizer.moms) == 3 and stage.schedule.kind != "one_cycle":
                raise UlmfitError(f"optimizer.moms has three values to cycle, but the schedule of stage {stage.name!r} "
                                  f"is {stage.schedule.kind!r}, and only one_cycle cycles momentum; give one value.")

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def for_direction(self, direction: str) -> Phase:
        """The phase as one direction trains it: its rates times `backward_factor` if that is backward.

        Raises:
            UlmfitError: `direction` is neither 'forward' nor 'backward'.
        """
        expect(direction in DIRECTIONS, "direction", direction, "'forward' or 'backward'")
        if direction == "forward" or self.backward_factor == 1.0:
            return self
        stages = tuple(dataclasses.replace(s, lr=s.lr * self.backward_factor) for s in self.stages)
        return dataclasses.replace(self, stages=stages, backward_factor=1.0)
