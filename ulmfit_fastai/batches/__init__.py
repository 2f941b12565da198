"""Numbers and labels to fastai's `TextDataLoaders`, every token and every text exactly once."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
