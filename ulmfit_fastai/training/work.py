"""What the phases of a run have in common, and stage 1, the phase that needs no texts but the corpus's."""

from __future__ import annotations

from dataclasses import replace

import torch
from fastai.learner import Learner
from fastai.text.learner import LMLearner

from ..model.weights import LMWeights
from ..recipe.parts import Phase
from ..recipe.recipe import Recipe
from ..results.folder import RunFolder
from .corpus import GeneralText, general_lm, save_pretrained
from .estimate import Plan
from .loop import PhaseFit
from .memory import SplitBatches, may_run_out
from .prepare import some_rows
from .processes import processes
from .session import Conditions, Stopped
from .starting import OpenedWeights, about_start


class Work:
    """A recipe at work in a run folder: trains phases through the one loop and keeps what comes of them."""

    def __init__(self, recipe: Recipe, folder: RunFolder, conditions: Conditions, *,
                 general: GeneralText | None = None, start: str | None = None, opened: OpenedWeights | None = None,
                 plan: Plan | None = None) -> None:
        self.recipe, self.folder, self.conditions = recipe, folder, conditions
        self.general, self.start, self.opened, self.plan = general, start, opened or OpenedWeights(), plan

    @property
    def device(self) -> torch.device:
        """What it trains on."""
        return self.conditions.device

    def build_general_lm(self, phase: Phase, direction: str) -> LMLearner:
        """The Learner of stage 1 over the corpus, with random weights or those that it goes on from."""
        assert self.general is not None, "run() asks for a corpus when the recipe pretrains"
        rows = some_rows(self.general.train, phase.max_docs, self.recipe.language_seed)
        return general_lm(replace(self.general, train=rows), self.recipe.model_for("pretrain"), phase, direction,
                          seed=self.recipe.language_seed, precision=self.recipe.precision, device=self.device,
                          fast=self.recipe.fast, weights=self._start_of(direction))

    def _start_of(self, direction: str) -> LMWeights | None:
        """The language model that stage 1 goes on from, matched to the corpus's words; run.json says what it was."""
        loaded = None if self.start is None else self.opened.take(self.start, direction)
        if loaded is None or self.general is None:
            return None
        matched = loaded.for_vocab(self.general.ids.vocab)
        self.folder.run.setdefault("weights", {})[direction] = about_start(loaded, matched)
        return matched

    def pretrain(self, direction: str, *, name: str | None = None) -> None:
        """Stage 1 on the corpus, in the corpus's own vocabulary; `name` is that of the weights it leaves."""
        phase, text = self.recipe.pretrain, self.general
        assert phase is not None and text is not None
        learn = self.build_general_lm(phase, direction)
        self.fit(learn, phase, "pretrain", direction)
        save_pretrained(learn, text, self.folder, direction, name=name or f"pretrained on {text.about['name']}",
                        epochs=phase.epochs, recipe_hash=self.folder.run["recipe_hash"])
        self.forget(learn)

    def fit(self, learn: Learner, phase: Phase, name: str, direction: str) -> None:
        """Train a phase to its end, from its checkpoint if there is one; `Stopped` when the time ends before it."""
        def rest(stage: int, left: float) -> float | None:
            return None if self.plan is None else self.plan.rest_of_run(direction, name, stage, left)

        if may_run_out(self.device) and processes().world == 1:
            self._fit_memory(learn, phase, name)
        classifies = name == "classifier"
        done = PhaseFit(
            learn, phase.for_direction(direction), self.folder, name=name, direction=direction,
            seed=self.recipe.seed if classifies else self.recipe.language_seed, classifies=classifies,
            budget=self.conditions.budget, progress=self.conditions.progress, rest_of_run=rest,
            extra_callbacks=self.conditions.cbs,
        ).fit()
        if not done:
            raise Stopped
        self.folder.save_tables()

    def _fit_memory(self, learn: Learner, phase: Phase, name: str) -> None:
        """Find now, and not after hours, how much of a batch the device has memory for, and keep it in run.json."""
        run = self.folder.run

        def tell(parts: int) -> None:
            run.setdefault("batch_parts", {})[name] = parts
            self.folder.save()

        SplitBatches(learn, name, parts=run.get("batch_parts", {}).get(name, 1), tell=tell).try_longest(phase)

    def forget(self, learn: Learner) -> None:
        """Free a learner's memory before the next phase builds its own."""
        learn.dls, learn.model, learn.opt = None, None, None
        self.folder.state_file.unlink(missing_ok=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
