"""The run folder, written and read: record, predictions, metrics, intervals, and the verdict beside the paper."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
