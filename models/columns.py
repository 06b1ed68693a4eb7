"""One column of a table as numbers or as times, with errors that count what is wrong and show the first."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .data_spec import TIME_TRANSFORMS, DataSpec
from .errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

PLACEHOLDERS = {"", "-", "--", "–", "—", ".", "?", "n/a", "na", "nan", "null", "none", "missing", "#n/a"}  # noqa: RUF001


def number_columns(spec: DataSpec) -> tuple[str, ...]:
    """Return the columns of numbers that a spec's features are made from."""
    return tuple(dict.fromkeys(feature.source for feature in spec.features if feature.transform not in TIME_TRANSFORMS))


def read_numbers(
    frame: pd.DataFrame, column: str, source: str, *, refuse: bool
) -> tuple[NDArray[np.float64], Counter[str]]:
    """Return a column as numbers (rows,), NaN where one is missing; text that is no number is refused.

    Args:
        frame: The table; its index is the rows' place in the file.
        column: Its name.
        source: What errors call the table.
        refuse: Whether a missing value is refused, too.

    Returns:
        The numbers, and how often which text stands for a missing one ("" for none).
    """
    import pandas as pd

    given = frame[column]
    numbers = given.dtype.kind in "fiub"
    parsed = pd.to_numeric(given if numbers else given.astype(object), errors="coerce")
    values = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if not bad.any():
        return values, Counter()
    absent, texts = given.isna().to_numpy(copy=True), []
    if not numbers:
        rest = np.flatnonzero(bad & ~absent)
        words = given.iloc[rest].astype(str).str.strip()
        placeholder = words.str.lower().isin(PLACEHOLDERS).to_numpy()
        texts = words[placeholder].tolist()
        absent[rest[placeholder]] = True
    wrong = bad if refuse else bad & ~absent
    if wrong.any():
        if absent.all():
            raise InvalidInputError(empty_column(column, len(given), source))
        row = int(wrong.argmax())
        what = "missing or no finite number" if refuse else "no finite number"
        mend = (
            "fill or drop them first, or train with missing='drop', 'hold' or 'interpolate', which every later table "
            "is then read with"
            if absent[wrong].all()
            else "correct them, leave the column out, or write nothing where a value is missing"
        )
        raise InvalidInputError(
            f"{source}: column {column!r} has {int(wrong.sum())} values that are {what}, the first in data row "
            f"{frame.index[row] + 1} ({given.iloc[row]!r}); {mend}."
        )
    blank = int(absent.sum()) - len(texts)
    return values, Counter([*texts, *[""] * blank])


def read_times(frame: pd.DataFrame, column: str, source: str) -> NDArray[np.datetime64]:
    """Return the times of a column, datetime64[ns] (rows,); of times with a zone, what the clock there shows."""
    import pandas as pd

    try:
        texts = frame[column]
        stamps = pd.to_datetime(
            texts.astype(str) if texts.dtype.kind in "fiub" else texts, errors="coerce", format="ISO8601"
        )
        stamps = (stamps if stamps.dt.tz is None else stamps.dt.tz_localize(None)).dt.as_unit("ns")
    except (ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"{source}: the times in {column!r} cannot be read together ({error}); write all of them in one time zone "
            "and between the years 1678 and 2261."
        ) from None
    bad = stamps.isna().to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInputError(
            f"{source}: data row {frame.index[row] + 1} has {column} {frame[column].iloc[row]!r}; "
            "expected a time such as 2010-09-12 14:20."
        )
    return stamps.to_numpy()


def empty_column(column: str, rows: int, source: str) -> str:
    """Return what is said of a column that holds nothing."""
    return (
        f"{source}: column {column!r} is empty, all of its {rows} values are missing; fill it, or leave it out of the "
        "features."
    )
