"""Windows of a cleaned table: where they begin and end, and the features that are made from their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cleaning import Table
from .data_spec import TIME_TRANSFORMS, DataSpec
from .errors import InvalidInputError
from .table import TOKEN_COLUMN


@dataclass(frozen=True, eq=False)
class Piece:
    """One sequence: values (L, D) or (L,), times (L,) or None; its last row in the cleaned table and in the file."""

    name: str
    values: NDArray[Any]
    times: NDArray[np.datetime64] | None
    row: int
    file_row: int


def window_spans(table: Table, spec: DataSpec, stride: int = 1, ahead: int = 0) -> list[tuple[int, int]]:
    """Return (start, stop) of every `stride`-th window of each run, the newest among them, in time order.

    A window in which a whole column is missing is left out.

    Args:
        table: The rows.
        spec: Says how long a window is, or that each run is one.
        stride: Rows between one window and the next.
        ahead: Rows of the same run that must follow a window.
    """
    length, found = spec.window.length, []
    for start, stop in table.runs():
        rows = stop - start - ahead if length is None else length
        last = stop - ahead - rows
        if last >= start and rows > 0:
            found += [(first, first + rows) for first in range(last, start - 1, -stride)][::-1]
    return _with_known(table, found)


def span_that_ends_at(table: Table, spec: DataSpec, end: str) -> list[tuple[int, int]]:
    """Return the span (at most one) whose last row has the time `end`, or else is the first of that minute."""
    import pandas as pd

    if table.times is None:
        raise InvalidInputError(f"end={end!r} needs a time column, and the model's window names none.")
    try:
        wanted = pd.Timestamp(end).tz_localize(None).to_datetime64()  # the clock as the table shows it
    except (ValueError, TypeError):
        raise InvalidInputError(f"end is {end!r}; expected a time such as 2010-09-12T14:20.") from None
    minute = wanted.astype("datetime64[m]")  # names of samples are whole minutes
    exact, row = (int(np.searchsorted(table.times, moment)) for moment in (wanted, minute.astype("datetime64[ns]")))
    if exact < len(table.times) and table.times[exact] == wanted:
        row = exact
    if np.isnat(wanted) or row == len(table.times) or table.times[row].astype("datetime64[m]") != minute:
        return []
    stop = row + 1
    for first, last in table.runs():
        if first < stop <= last:
            start = stop - spec.window.length if spec.window.length is not None else first
            return _with_known(table, [(start, stop)]) if start >= first else []
    return []


def _with_known(table: Table, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans in which every column has a value, so that what is missing can be interpolated."""
    counts = [np.concatenate([[0], np.cumsum(~np.isnan(values))]) for values in table.columns.values()]
    return [(start, stop) for start, stop in found if all(count[stop] > count[start] for count in counts)]


def piece_of(table: Table, spec: DataSpec, name: str, start: int, stop: int, offset: int = 0) -> Piece:
    """Return the sequence of these rows; `offset` rows of the series came before the table's first."""
    times = None if table.times is None else table.times[start:stop]
    return Piece(
        piece_name(name, start + offset, stop + offset, times), scaled_features(table, spec, start, stop), times,
        stop - 1 + offset, int(table.rows[stop - 1]),
    )  # fmt: skip


def piece_name(name: str, start: int, stop: int, times: NDArray[np.datetime64] | None) -> str:
    """Return what a sequence is called."""
    if times is not None:
        daily = len(times) > 1 and (times.astype("datetime64[D]") == times).all()
        moment = f"{np.datetime_as_string(times[-1], unit='D' if daily else 'm')}".replace("T", " ")
        return f"{name} until {moment}".strip() if name else moment
    return name or f"rows {start + 1} to {stop}"


def scaled_features(table: Table, spec: DataSpec, start: int, stop: int) -> NDArray[Any]:
    """Return the scaled features of one window, (L, D) float32, or its token ids, (L,)."""
    if spec.vocabulary is not None:
        return table.columns[TOKEN_COLUMN][start:stop].astype(np.int64)
    return ((raw_features(table, spec, start, stop) - spec.center) / spec.scale).astype(np.float32)


def raw_features(table: Table, spec: DataSpec, start: int, stop: int) -> NDArray[np.float64]:
    """Return the features of one window before scaling, (L, D); nothing outside the window is read."""
    result = np.empty((stop - start, len(spec.features)))
    times = None if table.times is None else table.times[start:stop]
    for column, feature in enumerate(spec.features):
        if feature.transform in TIME_TRANSFORMS:
            assert times is not None  # the table's columns have been checked
            day = (times - times.astype("datetime64[D]")) / np.timedelta64(86400, "s")  # fraction of the day
            result[:, column] = (np.sin if feature.transform == "day_sine" else np.cos)(2 * np.pi * day)
            continue
        values = _interpolated(table.columns[feature.source][start:stop], times)
        result[:, column] = np.diff(values, prepend=values[0]) if feature.transform == "difference" else values
    return result


def _interpolated(values: NDArray[np.float64], times: NDArray[np.datetime64] | None) -> NDArray[np.float64]:
    """Return values (L,) with straight lines over what is missing; before the first and after the last it is held."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    place = np.arange(len(values)) if times is None else (times - times[0]).astype(np.float64)
    return np.where(missing, np.interp(place, place[~missing], values[~missing]), values)
