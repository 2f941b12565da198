"""Texts to numbers: fastai's tokens, one for one, in a store on disk, in any vocabulary."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
