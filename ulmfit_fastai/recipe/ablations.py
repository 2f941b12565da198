"""Every row of the paper's Tables 4 to 7, and its low-shot settings, as recipes.

    ablation_names("table7")                        # ["table7.from_scratch", "table7.full", ...]
    ablation("table7.chain_thaw", "trec6")          # at the paper's size
    ablation("table7.chain_thaw", "trec6", base=preset("quick"))
    ablation("table7.chain_thaw").diff(full_method("imdb"))

All rows are made from one recipe, the full method as the paper analyses it, and differ from it in what their name says
and nothing else. `base` gives the sizes: model, vocabulary, batches, number of epochs; the method is the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .._errors import UlmfitError
from ..paper import stated
from .fitting import classifier_for, with_epochs
from .freezing import DISCRIMINATIVE, Stage, chain_thaw, full, gradual, last
from .parts import Dropouts, Phase
from .presets import preset
from .recipe import Recipe
from .schedules import Schedule, constant, cosine, stlr

LM_LR = stated("lr lm")
"""Section 4.1. Table 6 does not say that its rows have other rates, so they all have this one."""
DISCR_LR = stated("lr classifier")
"""The last group's rate in rows with discr (section 5)."""
PLAIN_LR = stated("lr without discr")
"""The rate in all other rows but chain-thaw (section 5)."""
PATIENCE = 5
"""Epochs without a better validation loss before a stage ends. The paper says only "early stopping"; this is the
default of the authors' LM script."""
NO_DROPOUT = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
LOW_SHOT = ("from_scratch", "supervised", "semi_supervised")
"""The three curves of Figure 3."""
TRAINING = ("paper", "preset")
"""Who says how the runs of Figure 3 are trained."""


def full_method(task: str = "imdb", base: Recipe | None = None) -> Recipe:
    """ULMFiT as the paper analyses it in section 5: forward only, measured on a tenth of the training set held out.

    LM fine-tuning with discriminative rates and STLR; classifier with gradual unfreezing, discriminative rates and one
    STLR over all epochs. Model, vocabulary, batches and epochs are those of `base` (default: the preset `paper-wt103`),
    save that the classifier gets at least the epochs that chain-thaw takes, one a layer group and one for all.
    """
    base = base or preset("paper-wt103", task)
    n_groups = base.model.n_groups("classifier")
    epochs = max(base.classifier.epochs, n_groups + 1)
    lm = None if base.lm is None else _by_paper(base.lm, full(base.lm.epochs, LM_LR, schedule=stlr()))
    classifier = _by_paper(base.classifier, gradual(n_groups, epochs, DISCR_LR, schedule=stlr()))
    return replace(_measured_on_validation(base), lm=lm, classifier=classifier)


def ablation(name: str, task: str = "imdb", base: Recipe | None = None) -> Recipe:
    """The recipe of one row, named `table.row` as in `ablation_names`.

    Raises:
        UlmfitError: for an unknown name, and for a base on which the row would be no different from the full method.
    """
    table, _, row = name.partition(".")
    if table not in ROWS or row not in ROWS[table]:
        raise UlmfitError(f"there is no recipe {name!r}; expected one of {', '.join(ablation_names())}.")
    return replace(ROWS[table][row](full_method(task, base)), name=name)


def ablation_names(table: str | None = None) -> list[str]:
    """Names of the rows of a table ("table4" to "table7", "direction"), or of all, in the paper's order."""
    if table is not None and table not in ROWS:
        raise UlmfitError(f"there is no table {table!r}; expected one of {', '.join(ROWS)}.")
    return [f"{t}.{row}" for t in ([table] if table else ROWS) for row in ROWS[t]]


def low_shot(kind: str, n_labels: int, task: str = "imdb", base: Recipe | None = None, *,
             most_texts: int | None = None, training: str = "paper") -> Recipe:
    """A point of Figure 3, with balanced labels.

    Args:
        kind: 'supervised': the language model is fine-tuned on the labelled texts alone; 'semi_supervised': on all the
            task's texts; 'from_scratch': Table 7's row of that name.
        n_labels: labelled texts.
        most_texts: texts that a classifier reads, all epochs together, but at least the epochs of gradual unfreezing.
            None: the same epochs whatever the number of labels, as in the paper.
        training: 'paper', or 'preset': rates, stages and epochs are those of `base`, its classifier fitted to so few
            labels as `ULMFiT` does it; from scratch then differs in nothing but the language model, which it has not.

    Raises:
        UlmfitError: `kind` or `training` is none of those there are.

    Source: paper, section 5, Low-shot learning.
    """
    if kind not in LOW_SHOT:
        raise UlmfitError(f"low-shot kind is {kind!r}; expected one of {', '.join(LOW_SHOT)}.")
    if training not in TRAINING:
        raise UlmfitError(f"training is {training!r}; expected one of {', '.join(TRAINING)}.")
    base = base or preset("paper-wt103", task)
    if training == "preset":
        recipe = _measured_on_validation(replace(base, classifier=_with_labels(base, n_labels, most_texts)))
        recipe = replace(recipe, weights="none", lm=None) if kind == "from_scratch" else recipe
    else:
        if most_texts is not None:
            epochs = min(base.classifier.epochs, max(1, most_texts // n_labels))
            base = replace(base, classifier=_by_paper(base.classifier, full(epochs, DISCR_LR)))
        recipe = full_method(task, base)
        recipe = _from_scratch(recipe) if kind == "from_scratch" else recipe
    texts = "all" if kind == "semi_supervised" else "labelled"
    table = "lowshot" if training == "paper" else "lowshot-preset"
    return replace(recipe, name=f"{table}.{kind}.{n_labels}", n_labels=n_labels, lm_texts=texts)


def in_directions(recipe: Recipe, directions: Sequence[str] | None) -> Recipe:
    """The recipe with these language models, its name saying so; as it is for its own, or None."""
    if directions is None or tuple(directions) == recipe.directions:
        return recipe
    return replace(recipe, directions=tuple(directions), name=recipe.name + "".join(f"-{d}" for d in directions))


def _with_labels(base: Recipe, n_labels: int, most_texts: int | None) -> Phase:
    """A preset's classifier for so many labels; its last stage is shortened to read `most_texts` in all."""
    phase = classifier_for(base, n_labels)
    too_many = 0 if most_texts is None else phase.epochs - max(1, most_texts // n_labels)
    return with_epochs(phase, max(1, phase.stages[-1].epochs - too_many)) if too_many > 0 else phase


def _measured_on_validation(base: Recipe) -> Recipe:
    """The setting of section 5: forward only, measured on a tenth of the training set held out."""
    return replace(base, name="ulmfit", directions=("forward",), protocol="clean", evaluate="validation",
                   valid_fraction=0.1, n_labels=None, lm_texts="all")


def _by_paper(phase: Phase, stages: tuple[Stage, ...]) -> Phase:
    """The phase with other stages, and the paper's constant beta1 if the base cycles it, as only one-cycle can."""
    moms = phase.optimizer.moms if len(phase.optimizer.moms) == 1 else (0.7,)
    return replace(phase, stages=stages, optimizer=replace(phase.optimizer, moms=moms), early_stopping=None)


def _classifier(*, lr: float, unfreezing: str, discr: bool, schedule: Schedule) -> Callable[[Recipe], Recipe]:
    """A row of Table 7: the classifier trained in another way, with early stopping, as all methods but ULMFiT."""

    def change(method: Recipe) -> Recipe:
        n_groups, epochs = method.model.n_groups("classifier"), method.classifier.epochs
        ratio = DISCRIMINATIVE if discr else 1.0
        if unfreezing == "gradual":
            stages = gradual(n_groups, epochs, lr, discriminative=ratio, schedule=schedule)
        elif unfreezing == "last":
            stages = last(epochs, lr, schedule=schedule)
        else:
            stages = full(epochs, lr, discriminative=ratio, schedule=schedule)
        return replace(method, classifier=replace(method.classifier, stages=stages, early_stopping=PATIENCE))

    return change


def _chain_thaw(method: Recipe) -> Recipe:
    stages = chain_thaw(method.model.n_groups("classifier"), method.classifier.epochs)
    return replace(method, classifier=replace(method.classifier, stages=stages, early_stopping=PATIENCE))


def _from_scratch(method: Recipe) -> Recipe:
    """No language model at all, neither pretrained nor fine-tuned; everything trained at once, as in the row Full."""
    plain = _classifier(lr=PLAIN_LR, unfreezing="full", discr=False, schedule=constant())(method)
    return replace(plain, weights="none", lm=None)


def _without_pretraining(method: Recipe) -> Recipe:
    return replace(_with_pretraining(method), weights="none")


def _with_pretraining(method: Recipe) -> Recipe:
    if method.weights == "none":
        raise UlmfitError("the base has weights 'none', so Table 4's two rows would be the same: give a base with "
                          "pretrained weights, or with weights 'pretrain' and a corpus.")
    if method.lm is None:
        raise UlmfitError("lm is None in the base, but without pretraining the language model starts with fine-tuning.")
    return method


def _own_pretraining(method: Recipe) -> Recipe:
    """Table 5 needs a language model without dropout from the start, and there are no such weights to be had."""
    if method.weights == "none":
        return method
    return replace(method, weights="pretrain")


def _vanilla(method: Recipe) -> Recipe:
    """The same language model without any dropout, in every phase; the head keeps its own.

    From memory of the paper's footnote 8, not looked up again: "To avoid overfitting, we only train the vanilla LM
    classifier for 5 epochs and keep dropout of 0.4 in the classifier". Hence the output dropout, which is the head's
    first, stays, and the classifier gets 5 epochs, or one a layer group if that is more.
    """
    method = _own_pretraining(method)
    n_groups = method.model.n_groups("classifier")
    epochs = min(max(5, n_groups), method.classifier.epochs)
    head = replace(NO_DROPOUT, output=method.model.classifier_dropouts.output)
    model = replace(method.model, lm_dropouts=NO_DROPOUT, pretrain_dropouts=NO_DROPOUT, classifier_dropouts=head)
    stages = gradual(n_groups, epochs, DISCR_LR, schedule=stlr())
    return replace(method, model=model, classifier=replace(method.classifier, stages=stages))


def _lm(*, discr: bool) -> Callable[[Recipe], Recipe]:
    """A row of Table 6: the language model fine-tuned at a constant rate."""

    def change(method: Recipe) -> Recipe:
        lm = _lm_of(method)
        stages = full(lm.epochs, LM_LR, discriminative=DISCRIMINATIVE if discr else 1.0, schedule=constant())
        return replace(method, lm=replace(lm, stages=stages))

    return change


def _lm_of(method: Recipe) -> Phase:
    if method.lm is None:
        raise UlmfitError("lm is None in the base, so there is no LM fine-tuning to vary.")
    return method.lm


def _no_lm(method: Recipe) -> Recipe:
    _lm_of(method)
    return replace(method, lm=None)


def _unchanged(method: Recipe) -> Recipe:
    return method


def _directions(*directions: str) -> Callable[[Recipe], Recipe]:
    """Section 5, Impact of bidirectionality: the paper gives test errors there."""
    return lambda method: replace(method, directions=directions, evaluate="test")


_FLAT, _STLR, _COS = constant(), stlr(), cosine()

ROWS: dict[str, dict[str, Callable[[Recipe], Recipe]]] = {
    "table4": {"without": _without_pretraining, "with": _with_pretraining},
    "table5": {"vanilla": _vanilla, "awd": _own_pretraining},
    "table6": {"none": _no_lm, "full": _lm(discr=False), "full_discr": _lm(discr=True),
               "full_discr_stlr": _unchanged},
    "table7": {
        "from_scratch": _from_scratch,
        "full": _classifier(lr=PLAIN_LR, unfreezing="full", discr=False, schedule=_FLAT),
        "full_discr": _classifier(lr=DISCR_LR, unfreezing="full", discr=True, schedule=_FLAT),
        "last": _classifier(lr=PLAIN_LR, unfreezing="last", discr=False, schedule=_FLAT),
        "chain_thaw": _chain_thaw,
        "freez": _classifier(lr=PLAIN_LR, unfreezing="gradual", discr=False, schedule=_FLAT),
        "freez_discr": _classifier(lr=DISCR_LR, unfreezing="gradual", discr=True, schedule=_FLAT),
        "freez_stlr": _classifier(lr=PLAIN_LR, unfreezing="gradual", discr=False, schedule=_STLR),
        "freez_cos": _classifier(lr=PLAIN_LR, unfreezing="gradual", discr=False, schedule=_COS),
        "freez_discr_stlr": _unchanged,
    },
    "direction": {"forward": _directions("forward"), "backward": _directions("backward"),
                  "both": _directions("forward", "backward")},
}
"""table -> row -> what turns the full method into it. Keys are those of `paper.TABLES`."""
