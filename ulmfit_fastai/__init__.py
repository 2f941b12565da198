"""ULMFiT (Howard & Ruder 2018) on fastai v2: the whole paper, from texts to a checked result.

>>> from ulmfit_fastai import reproduce_imdb
>>> result = reproduce_imdb()          # data, weights, both directions, every stage, with progress
>>> result                             # error with its interval beside the paper's, and the verdict

The names below are loaded when they are first used, so that `import ulmfit_fastai` and `ulmfit-fastai --help`
take no time: torch, fastai and spaCy are imported by the modules that need them.
"""

import os

import lazy_loader

from ._version import __version__

# Between the thousands of small operations of a training step OpenMP's threads wait for each other; where they wait by
# turning, other programs on the same cores slow a step seven- to tenfold. torch reads this when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
