"""What the estimator's arguments come to: checked, and made into a recipe for the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._files import expanded
from ..recipe.find import find_recipe, is_name
from ..recipe.fitting import DEFAULT_PRESETS, default_preset, fitted, regularised, with_epochs
from ..recipe.recipe import Recipe
from ..recipe.settings import check_for, with_settings
from ..texts.dataset import Dataset
from ..tokens.store import TokenStore
from ..training.beside import as_callbacks
from ..training.starting import OpenedWeights
from .labels import OwnLabels, class_weights
from .start import refuse_no_language_model, refuse_twice, refuse_wrong_types, valid_fraction, with_weights
from .trained import Trained


class Settings(Trained):
    """The arguments of `ULMFiT`, which says what they mean."""

    preset: str | Path | Recipe | None
    weights: str | Path | None
    directions: Sequence[str] | None
    lang: str
    class_weight: str | Mapping[Any, float] | None
    epochs: int | None
    lm_epochs: int | None
    settings: Mapping[str, Any] | None
    validation_fraction: float | None
    out: str | Path | None
    random_state: int | None
    progress: bool
    cbs: Any
    lm: str | Path | None
    baseline: bool

    def _store(self, dataset: Dataset, temporary: Path) -> TokenStore:
        """The texts' tokens; without `out`, nothing of them stays on the disk."""
        return TokenStore.make(dataset.df["text"].tolist(), cache=temporary if self.out is None else None,
                               progress=self.progress, lang=self.lang)

    def _language(self, dataset: Dataset, opened: OpenedWeights, *, n_tokens: int) -> Recipe:
        """The preset with its starting weights, fitted to the texts."""
        labelled = dataset.counts["train"]
        name = default_preset(labelled or len(dataset)) if self.preset is None else self.preset
        weights = self.weights if self.lm is None else self.lm
        recipe = with_weights(self._directed(find_recipe(name, dataset.name)), weights, self.lang, opened,
                              as_it_is=not is_name(name))
        if is_name(name):
            recipe = replace(recipe, n_labels=None)  # all the labels that are given
            recipe = fitted(recipe, n_train=labelled, n_tokens=n_tokens)
        return recipe if self.lm is None else replace(recipe, lm=None)

    def _settled(self, recipe: Recipe) -> Recipe:
        """The recipe with the arguments that are fields of it, measured on texts that are held out."""
        if self.epochs is not None:
            recipe = replace(recipe, classifier=with_epochs(recipe.classifier, self.epochs))
        if self.lm_epochs is not None and recipe.lm is not None:
            recipe = (replace(recipe, **regularised(recipe, with_epochs(recipe.lm, self.lm_epochs)))
                      if self.lm_epochs else replace(recipe, lm=None))
        recipe = replace(recipe, evaluate="validation", protocol="clean",
                         seed=recipe.seed if self.random_state is None else int(self.random_state))
        return with_settings(recipe, self.settings or {})

    def _recipe(self, dataset: Dataset, labels: OwnLabels, opened: OpenedWeights, *, n_tokens: int) -> Recipe:
        """The preset with everything asked for, fitted to the texts."""
        recipe = self._language(dataset, opened, n_tokens=n_tokens)
        asked = recipe.valid_fraction if self.validation_fraction is None else self.validation_fraction
        recipe = replace(recipe, valid_fraction=valid_fraction(asked, dataset),
                         class_weights=class_weights(self.class_weight, labels) or recipe.class_weights)
        return self._settled(recipe)

    def _directed(self, recipe: Recipe) -> Recipe:
        """The recipe with the directions asked for."""
        if self.directions is None:
            return recipe
        given = (self.directions,) if isinstance(self.directions, str) else tuple(self.directions)
        return recipe.replace(directions=("forward", "backward") if given == ("both",) else given)

    def check_settings(self) -> None:
        """Refuse what is wrong in the settings before any text is read.

        Raises:
            UlmfitError: a preset that isn't there, or settings that are wrong or would have no effect.
        """
        refuse_wrong_types(self.get_params(deep=False))
        as_callbacks(self.cbs)
        for place in (self.out, self.lm):
            if place is not None:
                expanded(place)
        if self.lm is not None:
            refuse_no_language_model(self.lm, {"weights": self.weights, "lm_epochs": self.lm_epochs})
        settings = dict(self.settings or {})
        refuse_twice(settings, self.get_params(deep=False), lang=self.lang)
        names = DEFAULT_PRESETS if self.preset is None else (self.preset,)
        recipes = [self._directed(find_recipe(name, "custom")) for name in names]
        seed = {} if self.random_state is None else {"seed": int(self.random_state)}
        check_for([replace(recipe, weights="none") for recipe in recipes], {**seed, **settings})
