"""Tables of other libraries as DataFrames: a `datasets.Dataset`, an Arrow table, a polars frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .._errors import UlmfitError
from .._words import shown


def as_frame(table: Any) -> Any:
    """Whatever has columns with names and a `to_pandas` as a DataFrame; anything else as it is.

    No such library is imported for it.

    Raises:
        UlmfitError: several tables in one, as a `datasets.DatasetDict`.
    """
    if isinstance(table, pd.DataFrame):
        return table
    named = hasattr(table, "column_names") or hasattr(table, "columns")
    if isinstance(table, Mapping) and named:
        raise UlmfitError(f"expected one table, found {shown(list(table))} in one: give one of them, as in "
                          f"data[{next(iter(table), 'train')!r}]")
    return table.to_pandas() if named and hasattr(table, "to_pandas") else table
