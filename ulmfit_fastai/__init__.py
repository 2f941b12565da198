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
# take its place as soon as it is imported. Write `from ulmfit_fastai.reproduce import reproduce`.
_EXPORTS = {
    "Dataset": "datasets",
    "from_file": "datasets",
    "from_folder": "datasets",
    "from_frame": "datasets",
    "load_imdb": "datasets",
    "load_task": "datasets",
    "TokenIds": "tokens",
    "TokenStore": "tokens",
    "classifier_dataloaders": "loaders",
    "lm_dataloaders": "loaders",
    "Recipe": "recipe",
    "preset": "presets",
    "Result": "results",
    "ULMFiT": "classifier",
    "check": "paper",
    "demo": "reproduce",
    "reproduce_imdb": "reproduce",
    "reproduce_all": "main_results",
    "ablate": "experiments",
    "lowshot": "label_curves",
    "figure4": "epoch_curves",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from .classifier import ULMFiT
    from .datasets import Dataset, from_file, from_folder, from_frame, load_imdb, load_task
    from .epoch_curves import figure4
    from .experiments import ablate
    from .label_curves import lowshot
    from .loaders import classifier_dataloaders, lm_dataloaders
    from .main_results import reproduce_all
    from .paper import check
    from .presets import preset
    from .recipe import Recipe
    from .reproduce import demo, reproduce_imdb
    from .results import Result
    from .tokens import TokenIds, TokenStore


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use (PEP 562) and remember what it gave."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
