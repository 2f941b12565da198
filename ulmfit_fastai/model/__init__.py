"""AWD-LSTM, losses and optimiser as fastai `Learner`s, weights in and out; `fast/` is what is faster than fastai."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
