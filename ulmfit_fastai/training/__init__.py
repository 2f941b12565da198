"""The one training loop, and the run around it: prepare, phases, resume, plan, sharing of language models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
