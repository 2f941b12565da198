"""Named recipes: the paper's, its authors' scripts', the one that works best on fastai v2, and small ones.

    paper        section 4.1 to the letter, stage 1 included: it needs WikiText-103
    paper-wt103  the same with fastai's WikiText-103 weights, hence 1152 hidden units instead of 1150
    scripts      what the authors' released code does (archived fastai v0.7 course, courses/dl2/imdb_scripts)
    fastai       what has given the best published results on fastai v2, both directions
    paper-small  the paper's method with the small model that comes with the package, for a CPU
    quick        real data, the same small model, both directions, an evening on two CPU cores
    few-labels   the same with 500 labels, in minutes: what the package's own weights are for
    quick-adversarial  quick with adversarial training: beyond the paper
    night        a wider model, stage 1 included, and five epochs of the reviews: a night or two on two CPU cores
    night-adversarial  night with adversarial training: beyond the paper
    demo         both directions on a few thousand short texts, minutes on a CPU
    tiny         seconds, for tests
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._errors import UlmfitError
from ..paper import stated, stated_whole
from .freezing import DISCRIMINATIVE, Stage, Steps, by_hand, full, gradual
from .parts import AWD_CLASSIFIER, AWD_LM, DIRECTIONS, Adversarial, Model, Optimizer, Phase
from .recipe import Recipe
from .schedules import one_cycle, stlr

MOMS = (0.8, 0.7, 0.8)
"""fastai's cycled momentum."""

LM_EPOCHS = {"imdb": 50, "ag": 25}
"""Epochs of LM fine-tuning in the paper's presets, where they are not TREC-6's. The paper gives 15 for TREC-6 and
"longer" for larger sets; 50 is what the authors' README says for IMDb, 25 the default of their script. An epoch of Yelp
or DBpedia has a hundred times TREC-6's steps or more, so 15 of them are longer too."""


def lm_epochs(task: str) -> int:
    """Epochs of LM fine-tuning in the paper's presets."""
    return LM_EPOCHS.get(task, stated_whole("epochs lm"))


def preset(name: str, /, task: str = "imdb", **overrides: Any) -> Recipe:
    """The named recipe for a task.

    Args:
        name: one of `PRESETS`.
        task: matters to recipes whose epochs or sizes depend on it: all but `fastai`, `demo` and `tiny`.
        overrides: fields by dotted name, as `Recipe.replace` takes them.

    Raises:
        UlmfitError: there is no such preset or field.
    """
    if name not in PRESETS:
        raise UlmfitError(f"preset {name!r} does not exist; expected one of {', '.join(PRESETS)}.")
    recipe = PRESETS[name](task)
    return recipe.replace(**overrides) if overrides else recipe


def paper(task: str = "imdb") -> Recipe:
    """Section 4.1 to the letter; where the paper is silent, its sources.

    Stated: embedding 400, 3 layers of 1150, bptt 70 of variable length, the dropouts (one line for all models), a head
    with one hidden layer of 50, Adam with betas 0.7 and 0.99, batches of 64, rates 0.004 and 0.01, 2.6 between
    layers, STLR with cut_frac 0.1 and ratio 32 over all the epochs (T counts every iteration), gradual unfreezing, 50
    classifier epochs. Not stated, and taken from elsewhere:

    - Adam's eps: 1e-8, Adam's own default and the scripts'.
    - Weight decay and clipping of the language model: 1.2e-6 (as L2) and 0.25, Merity et al. 2017, whose practices
      section 4.1 says it follows. Of the classifier, which Merity does not have: 1e-6 (L2) and 25, the scripts.
    - AR 2 and TAR 1: Merity and the scripts.
    - Dropout before the head's last layer 0.1, texts pooled over their last 20 chunks (1,400 tokens): the scripts.
    - Vocabulary: 60,000 words seen at least 3 times, as fastai. The scripts have 30,000, but their IMDb results are no
      evidence for the other tasks.
    - Epochs of LM fine-tuning: `LM_EPOCHS`.
    - Pretraining: the scripts' rates, schedule and halved dropouts, 12 epochs (the README's example).
    """
    lm = Phase(
        stages=full(lm_epochs(task), stated("lr lm"), schedule=stlr()),
        optimizer=Optimizer(eps=1e-8, wd=1.2e-6, decoupled_wd=False, clip=0.25),
        variable_bptt=True,
    )
    classifier = Phase(
        stages=gradual(5, stated_whole("epochs classifier"), stated("lr classifier"), schedule=stlr()),
        optimizer=Optimizer(eps=1e-8, wd=1e-6, decoupled_wd=False, clip=25.0),
        max_len=1400,
    )
    model = Model(n_hid=stated_whole("n_hid"), lm_dropouts=AWD_CLASSIFIER, classifier_dropouts=AWD_CLASSIFIER)
    return Recipe(name="paper", weights="pretrain", pretrain=_scripts_pretraining(), lm=lm, classifier=classifier,
                  model=model, directions=DIRECTIONS)


def paper_wt103(task: str = "imdb") -> Recipe:
    """The paper's recipe from fastai's WikiText-103 weights: no pretraining to pay for, 1152 hidden units."""
    return paper(task).replace(**{"name": "paper-wt103", "weights": "wt103", "model.n_hid": 1152})


def scripts(task: str = "imdb") -> Recipe:
    """The authors' released scripts: finetune_lm.py and train_clas.py with their defaults and the README's epochs.

    They halve the classifier's batch (`bs//2`), give every unfreezing step a schedule of its own, open only the last
    two groups one by one, and decay weights as L2. `use_clr=(a, b)` is STLR with ratio a and cut_frac 1/b. The backward
    classifier has half the rate, as the README advises.
    """
    lm = Phase(
        stages=full(lm_epochs(task), 0.004, discriminative=(1 / 6, 1 / 3, 1.0, 1 / 2), schedule=stlr()),
        optimizer=Optimizer(moms=(0.8,), eps=1e-8, wd=1e-7, decoupled_wd=False, clip=0.3),
        variable_bptt=True,
    )
    start, end = stlr(cut_frac=1 / 3, ratio=8.0), stlr(cut_frac=1 / 8, ratio=8.0)
    classifier = Phase(
        stages=(Stage("last 1", 1, 0.01, (-1,), schedule=start), Stage("last 2", 1, 0.01, (-2, -1), schedule=start),
                Stage("all", 50, 0.01, schedule=end)),
        optimizer=Optimizer(moms=(0.8,), eps=1e-8, wd=1e-6, decoupled_wd=False, clip=25.0),
        bs=32,
        max_len=1400,
        backward_factor=0.5,
    )
    return Recipe(name="scripts", weights="pretrain", pretrain=_scripts_pretraining(), lm=lm, classifier=classifier,
                  model=Model(n_hid=stated_whole("n_hid")), directions=DIRECTIONS, max_vocab=30000, min_freq=2)


def fastai(task: str = "imdb") -> Recipe:
    """What has given the best published IMDb results on fastai v2: WikiText-103 weights, one-cycle throughout.

    Language model: one epoch of its last group (embedding and decoder, where the new words are) at 2e-2, ten of
    everything at 2e-3 (example notebook and book). Classifier: 1 + 1 + 1 + 2 epochs at 2e-2, 1e-2, 5e-3, 1e-3 with 2.6
    between groups (text tutorial). Dropouts halved in both; weight decay 0.1 and clipping 0.1 as in the example
    notebook. `task` changes nothing.
    """
    optimizer = Optimizer(moms=MOMS, wd=0.1, clip=0.1)
    lm = Phase(
        stages=(Stage("last 1", 1, 2e-2, (-1,), 1.0, one_cycle()), Stage("all", 10, 2e-3, None, 1.0, one_cycle())),
        optimizer=optimizer, bs=128, bptt=80,
    )
    model = Model(lm_dropouts=AWD_LM.scaled(0.5), classifier_dropouts=AWD_CLASSIFIER.scaled(0.5),
                  pretrain_dropouts=AWD_LM.scaled(0.2))
    pretrain = Phase(stages=full(10, 5e-3, discriminative=1.0, schedule=one_cycle(div=10.0)),
                     optimizer=Optimizer(moms=MOMS, wd=0.01, clip=0.1), bs=128, bptt=80)
    classifier = Phase(stages=by_hand(5, ((1, 2e-2), (1, 1e-2), (1, 5e-3), (2, 1e-3))), optimizer=optimizer,
                       bs=64, bptt=72, max_len=1440)
    return Recipe(name="fastai", weights="wt103", pretrain=pretrain, lm=lm, classifier=classifier, model=model,
                  directions=DIRECTIONS)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and its vocabulary."""

    emb_sz: int
    n_hid: int
    n_layers: int
    max_vocab: int


WIKI_SMALL = Shape(emb_sz=256, n_hid=640, n_layers=2, max_vocab=30000)
"""The shape of the weights `wiki-small`, which come with the package."""
WIKI_BASE = Shape(emb_sz=400, n_hid=1152, n_layers=2, max_vocab=30000)
"""The shape of `night`: the paper's width with a layer less."""


def paper_small(task: str = "imdb") -> Recipe:
    """The paper's method (rates, schedules, unfreezing, 50 classifier epochs) with the package's own `wiki-small`.

    For a CPU, so: a model of 256/640/2; less dropout, which suits its size; batches of 32 in the classifier where texts
    are long, and in the language model where they are few; the language model is fine-tuned on 25,000 texts at most,
    where the paper takes all, for one epoch where that is many (TREC-6: 15, AG: 5); and only a sample of the words
    compete in its loss (`Phase.sampled_words`). TREC-6 keeps words that it has once.
    """
    few = task == "trec6"
    whole = paper(task)
    assert whole.lm is not None
    epochs = {"trec6": lm_epochs("trec6"), "ag": 5}.get(task, 1)
    lm = replace(whole.lm, stages=full(epochs, stated("lr lm"), schedule=stlr()), bs=32 if few else whole.lm.bs,
                 max_docs=None if few else 25_000, sampled_words=None if few else 2048, valid_docs=500)
    classifier = replace(whole.classifier, bs=64 if few else 32, valid_docs=500)
    model = Model(emb_sz=WIKI_SMALL.emb_sz, n_hid=WIKI_SMALL.n_hid, n_layers=WIKI_SMALL.n_layers,
                  lm_dropouts=AWD_LM.scaled(0.7 if few else 0.3),
                  classifier_dropouts=AWD_CLASSIFIER.scaled(0.5),
                  pretrain_dropouts=AWD_LM.scaled(0.2))
    return replace(whole, name="paper-small", weights="wiki-small", pretrain=_once_through(), lm=lm,
                   classifier=classifier, model=model, directions=("forward",), max_vocab=WIKI_SMALL.max_vocab,
                   min_freq=1 if few else 3)


@dataclass(frozen=True)
class Small:
    """The numbers of a recipe for a small model: one-cycle throughout, with little dropout."""

    shape: Shape
    lm_lr: float
    classifier_steps: Steps
    lm_epochs: int = 1
    lm_docs: int | None = None
    """Texts that the language model is fine-tuned on; None: all."""
    lm_valid_docs: int | None = None
    classifier_valid_docs: int | None = None
    sampled_words: int | None = None
    discriminative: float = DISCRIMINATIVE
    """Ratio between neighbouring groups' rates in the classifier."""
    lm_drop: float = 0.2
    """What the authors' dropouts of the language model are multiplied by."""
    classifier_drop: float = 0.5
    """What the paper's dropouts are multiplied by in the classifier."""
    alpha: float = 2.0
    beta: float = 1.0
    """AR and TAR of the language model."""
    bs: int = 32
    classifier_bs: int = 32
    bptt: int = 70
    min_freq: int = 3

    def recipe(self, name: str, **fields: Any) -> Recipe:
        """The recipe with these numbers; `fields` are more of `Recipe`."""
        optimizer = Optimizer(moms=MOMS, wd=0.01, clip=0.25)
        stages = full(self.lm_epochs, self.lm_lr, discriminative=1.0, schedule=one_cycle(div=10.0))
        language = Phase(stages=stages, optimizer=optimizer, bs=self.bs, bptt=self.bptt)
        lm = replace(language, max_docs=self.lm_docs, valid_docs=self.lm_valid_docs, sampled_words=self.sampled_words,
                     alpha=self.alpha, beta=self.beta)
        classifier = Phase(
            stages=by_hand(self.shape.n_layers + 2, self.classifier_steps, self.discriminative), optimizer=optimizer,
            bs=self.classifier_bs, bptt=self.bptt, max_len=20 * self.bptt, valid_docs=self.classifier_valid_docs)
        model = Model(emb_sz=self.shape.emb_sz, n_hid=self.shape.n_hid, n_layers=self.shape.n_layers,
                      lm_dropouts=AWD_LM.scaled(self.lm_drop),
                      classifier_dropouts=AWD_CLASSIFIER.scaled(self.classifier_drop),
                      pretrain_dropouts=AWD_LM.scaled(0.2))
        return Recipe(name=name, pretrain=language, lm=lm, classifier=classifier, model=model,
                      max_vocab=self.shape.max_vocab, min_freq=self.min_freq, **fields)


QUICK = Small(WIKI_SMALL, lm_valid_docs=500, lm_lr=8e-3, lm_drop=0.0, alpha=0.0, beta=0.0, bs=64, sampled_words=2048,
              classifier_steps=((1, 2e-2), (1, 1e-2), (3, 5e-3)))
"""The numbers of `quick` on IMDb. Its language model reads every text once, so there is nothing to overfit and no
dropout, AR or TAR; batch, rate and dropout each lowered the loss on held-out reviews after 8,000 of them
(data/results/choices; this rate without any dropout was not among those compared). In the classifier the paper's ratio
between groups: with one rate for all of them three epochs overfit all labels of IMDb, and with 10,000 of them its loss
on held-out reviews was higher too, though its error was lower (data/results/choices)."""
SHORT = replace(QUICK, lm_lr=5e-3, lm_drop=0.2, alpha=2.0, beta=1.0, bs=32)
"""Where texts are short they are read several times."""
QUICK_TASKS = {
    "trec6": replace(SHORT, lm_valid_docs=None, lm_epochs=4, sampled_words=None, min_freq=1,
                     classifier_steps=((2, 2e-2), (2, 1e-2), (16, 5e-3))),
    "ag": replace(SHORT, lm_docs=25000, lm_valid_docs=None, lm_epochs=3,
                  classifier_steps=((1, 2e-2), (1, 1e-2), (4, 5e-3))),
}
"""Where texts are short or few, more epochs: minutes all the same. The ratio is that of the committed results."""


def quick(task: str = "imdb") -> Recipe:
    """A small model on the real data, an evening on two CPU cores: `QUICK` holds its numbers.

    On IMDb both directions, which train side by side; on other texts forward, in a fraction of the time.
    """
    directions = DIRECTIONS if task == "imdb" else DIRECTIONS[:1]
    return QUICK_TASKS.get(task, QUICK).recipe("quick", weights="wiki-small", directions=directions)


ADVERSARIAL = Adversarial(weight=1.0)
"""Adversarial training as the named recipes have it: weight and epsilon of Miyato et al. 2017."""


def quick_adversarial(task: str = "imdb") -> Recipe:
    """`quick` with adversarial training of the classifier: beyond the paper, and twice the classifier's work."""
    return replace(quick(task), name="quick-adversarial", adversarial=ADVERSARIAL)


FEW_LABELS_EPOCHS, FEW_LABELS_LR = 15, 5e-3
"""The classifier of `few-labels`: everything at once and one rate for all groups, which with 500 labels of IMDb was
better on held-out reviews than gradual unfreezing, a little with one rate and far with a ratio of 2.6 (one seed). From
a language model that has read more, `quick`'s, it overfits, and six epochs at 1e-3 are far better; from its own they
are wrong on 21.5 % where these are on 17.2 (data/results/choices/imdb-few-500-imdb-quick-forward.json and
-imdb-few-labels.json)."""


def few_labels(task: str = "imdb") -> Recipe:
    """`quick` with 500 labels and more unlabelled texts than that, in minutes on two CPU cores.

    The labels are balanced over the classes; the language model is fine-tuned on 12,000 texts without theirs. The
    validation part, a tenth of the training set, is watched and not learnt from.
    """
    numbers = replace(QUICK_TASKS.get(task, QUICK), lm_docs=None if task == "trec6" else 12000, lm_valid_docs=500,
                      classifier_steps=((FEW_LABELS_EPOCHS, FEW_LABELS_LR),), discriminative=1.0, classifier_bs=16,
                      classifier_valid_docs=500)
    return numbers.recipe("few-labels", weights="wiki-small", n_labels=500)


NIGHT = Small(WIKI_BASE, lm_valid_docs=500, lm_lr=5e-3, lm_epochs=5, lm_drop=0.1, alpha=0.0, beta=0.0, bs=64,
              sampled_words=2048, classifier_steps=((1, 2e-2), (1, 1e-2), (3, 5e-3)))
"""The numbers of `night`: not compared with others yet. Its language model reads every text five times, so it has a
little of the dropout that `quick` does without."""


def night(task: str = "imdb") -> Recipe:
    """For two CPU cores and a night or two, as estimated: the paper's width, two layers, both directions side by side.

    Stage 1 included, one epoch of the corpus that is given: 30 to 60 million tokens of Wikipedia are what it is
    made for. Both its language models can be kept and gone on from (`weights`, `lm_from`); `NIGHT` holds its numbers.
    """
    return NIGHT.recipe("night", weights="pretrain", directions=DIRECTIONS).replace(pretrain=_once_through())


def night_adversarial(task: str = "imdb") -> Recipe:
    """`night` with adversarial training of the classifier: beyond the paper, and twice the classifier's work."""
    return replace(night(task), name="night-adversarial", adversarial=ADVERSARIAL)


def demo(task: str = "imdb") -> Recipe:
    """Both directions on a few thousand short texts, in minutes on a CPU: the whole method, to be watched.

    Stage 1 included, so that a corpus has to be given. A model so small and so little pretrained has much to learn yet
    in its lower groups, hence one rate for all of them: on an earlier form of the texts two of five forward classifiers
    (other seeds, other numbers of threads) were still guessing at the end with a ratio of 1.6 between neighbours, with
    one rate none of five. On `demo`'s texts the groups open from 57 and 65 to 93 and 95.5 % right (seed 0, forward).
    """
    numbers = Small(Shape(emb_sz=64, n_hid=128, n_layers=2, max_vocab=5000), lm_lr=1e-2, discriminative=1.0,
                    classifier_steps=((1, 2e-2), (1, 1e-2), (3, 1e-2)), classifier_drop=0.2, min_freq=2)
    return numbers.recipe("demo", weights="pretrain", directions=DIRECTIONS)


def tiny(task: str = "imdb") -> Recipe:
    """Seconds: every mechanism at a size that learns next to nothing, for tests."""
    numbers = Small(Shape(emb_sz=32, n_hid=48, n_layers=2, max_vocab=2000), lm_lr=1e-2,
                    classifier_steps=((1, 2e-2), (1, 2e-2), (1, 2e-2), (1, 1e-2)), bs=16, classifier_bs=16, bptt=20,
                    min_freq=1)
    return numbers.recipe("tiny", weights="none")


PRESETS: dict[str, Callable[[str], Recipe]] = {
    "paper": paper, "paper-wt103": paper_wt103, "scripts": scripts, "fastai": fastai,
    "paper-small": paper_small, "quick": quick, "few-labels": few_labels, "demo": demo,
    "tiny": tiny, "quick-adversarial": quick_adversarial, "night": night, "night-adversarial": night_adversarial,
}


def _once_through() -> Phase:
    """Stage 1 of a small model that reads its corpus once: nothing to overfit, and only a sample of words competes."""
    return Phase(stages=full(1, 5e-3, discriminative=1.0, schedule=one_cycle(div=10.0)),
                 optimizer=Optimizer(moms=MOMS, wd=0.01, clip=0.25), alpha=0.0, beta=0.0, sampled_words=2048)


def _scripts_pretraining() -> Phase:
    """Stage 1 as in the authors' pretraining script: STLR, rates (1/6, 1/3, 1, 1), 12 epochs (the README's example)."""
    return Phase(
        stages=full(12, 1e-3, discriminative=(1 / 6, 1 / 3, 1.0, 1.0), schedule=stlr()),
        optimizer=Optimizer(moms=(0.8,), eps=1e-8, wd=1e-7, decoupled_wd=False, clip=0.3),
        variable_bptt=True,
    )
