"""Everything a run depends on, as frozen data: model, phases, stages, schedules; presets and ablations by name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
