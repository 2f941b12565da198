"""Every way to get texts, in one place to import from."""
from __future__ import annotations

from .frames import Dataset, from_file, from_folder, from_frame, join_fields
from .imdb import load_imdb
from .splits import Splits, split_validation

__all__ = ["Dataset", "Splits", "from_file", "from_folder", "from_frame", "join_fields", "load_imdb", "split_validation"]
