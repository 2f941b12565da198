"""ULMFiT (Howard & Ruder 2018) on fastai v2: the whole paper, from texts to a checked result.

>>> from ulmfit_fastai import reproduce_imdb
>>> result = reproduce_imdb()          # data, weights, both directions, every stage, with progress
>>> result                             # error with its interval beside the paper's, and the verdict

The names below are loaded when they are first used, so that `import ulmfit_fastai` and `ulmfit-fastai --help`
take no time: torch, fastai and spaCy are imported by the modules that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that defines it. The function `reproduce` is not among them: the module of that name would
# take its place as soon as it is imported. Write `from ulmfit_fastai.experiments.reproduction import reproduce`.
_EXPORTS = {
    "Dataset": "texts.sources",
    "from_file": "texts.sources",
    "from_folder": "texts.sources",
    "from_frame": "texts.sources",
    "load_imdb": "texts.sources",
    "load_task": "texts.sources",
    "TokenIds": "tokens.store",
    "TokenStore": "tokens.store",
    "classifier_dataloaders": "batches.dataloaders",
    "lm_dataloaders": "batches.dataloaders",
    "Recipe": "recipe.recipe",
    "preset": "recipe.presets",
    "Result": "results.result",
    "ULMFiT": "classifier.estimator",
    "check": "results.verdict",
    "demo": "experiments.reproduction",
    "reproduce_imdb": "experiments.reproduction",
    "reproduce_all": "experiments.main_results",
    "ablate": "experiments.tables",
    "lowshot": "experiments.label_curves",
    "figure4": "experiments.epoch_curves",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from .batches.dataloaders import classifier_dataloaders, lm_dataloaders
    from .classifier.estimator import ULMFiT
    from .experiments.epoch_curves import figure4
    from .experiments.label_curves import lowshot
    from .experiments.main_results import reproduce_all
    from .experiments.reproduction import demo, reproduce_imdb
    from .experiments.tables import ablate
    from .recipe.presets import preset
    from .recipe.recipe import Recipe
    from .results.result import Result
    from .results.verdict import check
    from .texts.sources import Dataset, from_file, from_folder, from_frame, load_imdb, load_task
    from .tokens.store import TokenIds, TokenStore


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use (PEP 562) and remember what it gave."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
