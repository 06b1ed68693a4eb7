"""From a table to what a model reads: `SequenceData` cuts a CSV into windows, derives features and scales them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .data_spec import DataSpec
from .errors import InvalidInputError, nearest_name
from .table import TIME_TRANSFORMS, TOKEN_COLUMN, Table, read_table, spec_of_columns

if TYPE_CHECKING:
    import pandas as pd

Windows = Literal["last", "all"]


@dataclass(frozen=True, eq=False)
class SequenceData:
    """Sequences ready for a model.

    Attributes:
        inputs: Float32 (B, T, D), scaled, or token ids, int64 (B, T); 0 at padding.
        lengths: Int64 (B,).
        sample_names: What each sequence is called.
        times: datetime64 (B, T), where the table has a time column; NaT at padding.
        rows: Int64 (B,), position in the table (after cleaning) of each sequence's last timestep.
        notes: What cleaning did, in words, with counts.
    """

    inputs: NDArray[Any]
    lengths: NDArray[np.int64]
    sample_names: tuple[str, ...]
    times: NDArray[np.datetime64] | None
    rows: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sample_names)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        spec: DataSpec,
        *,
        windows: Windows = "last",
        stride: int = 1,
        end: str | None = None,
        id_column: str | None = None,
        source: str = "the table",
    ) -> SequenceData:
        """Cut a table, one row a timestep in time order, into sequences.

        Args:
            frame: The table.
            spec: Features, scaling and window of the model.
            windows: "last": the newest window (of each id); "all": every `stride`-th one.
            stride: Rows between the windows of "all".
            end: The window that ends at this time, or in this minute, instead (anything pandas reads as a time).
            id_column: Column that tells sequences apart; None: the table is one series.
            source: What errors call the table.

        Raises:
            InvalidInputError: A column is missing or holds no numbers, or no window fits.
        """
        if windows not in ("last", "all"):
            raise InvalidInputError(f"windows is {windows!r}; {nearest_name(str(windows), ('last', 'all'))}")
        if stride < 1:
            raise InvalidInputError(f"stride is {stride}; expected 1 or more rows.")
        if len(frame) == 0:
            raise InvalidInputError(f"{source} has no rows below its header; expected one row a timestep.")
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
        _require_columns(frame, spec, id_column, source)
        groups: list[tuple[str, pd.DataFrame]] = [("", frame)]
        if id_column is not None:
            groups = [(str(name), group) for name, group in frame.groupby(id_column, sort=False)]
        pieces: list[_Piece] = []
        notes: list[str] = []
        short: list[str] = []
        for name, group in groups:
            table = Table.read(group, spec, source if not name else f"{source}, {id_column} {name}")
            notes += table.notes
            found = _cut(table, spec, name, windows, stride, end)
            pieces += found
            if not found and end is None:
                short.append(name)
            elif windows == "last" and end is None and found[0].row != len(table) - 1:
                left = len(table) - 1 - found[0].row
                notes.append(
                    f"{f'{name}: ' if name else ''}the newest {left} rows follow a pause and are too few for a window; "
                    f"the newest whole window ends before it, {found[0].name}"
                )
        if short and pieces:
            names = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
            notes.append(f"{len(short)} of {len(groups)} sequences are too short for a window and left out: {names}")
        if not pieces:
            raise InvalidInputError(_no_window(frame, spec, source, end))
        return cls._join(pieces, spec, tuple(notes))

    @classmethod
    def _join(cls, pieces: list[_Piece], spec: DataSpec, notes: tuple[str, ...]) -> SequenceData:
        lengths = np.array([len(piece.values) for piece in pieces], dtype=np.int64)
        batch, steps = len(pieces), int(lengths.max())
        tokens = spec.vocabulary is not None
        inputs = (
            np.zeros((batch, steps), np.int64) if tokens else np.zeros((batch, steps, len(spec.features)), np.float32)
        )
        times: NDArray[np.datetime64] | None = None
        if pieces[0].times is not None:
            times = np.full((batch, steps), np.datetime64("NaT"), dtype="datetime64[ns]")
        for row, piece in enumerate(pieces):
            inputs[row, : lengths[row]] = piece.values
            if times is not None and piece.times is not None:
                times[row, : lengths[row]] = piece.times
        rows = np.array([piece.row for piece in pieces], dtype=np.int64)
        return cls(inputs, lengths, tuple(piece.name for piece in pieces), times, rows, notes)


def read_csv(
    path: str | Path,
    spec: DataSpec | None,
    *,
    windows: Windows = "last",
    stride: int = 1,
    end: str | None = None,
    id_column: str | None = None,
) -> SequenceData:
    """Read a CSV, one row a timestep in time order, into sequences (see `SequenceData.from_frame`).

    Without a spec (a model that names no features) the number columns are the features, as they are.

    Raises:
        InvalidInputError: The file is missing, empty or no CSV, lacks a column, or no window fits.
    """
    frame = read_table(path)
    if spec is None:
        spec = spec_of_columns(frame, None, str(path))
    return SequenceData.from_frame(
        frame, spec, windows=windows, stride=stride, end=end, id_column=id_column, source=str(path)
    )


@dataclass(frozen=True, eq=False)
class _Piece:
    """One sequence: values (L, D) or (L,), times (L,) or None."""

    name: str
    values: NDArray[Any]
    times: NDArray[np.datetime64] | None
    row: int


def _require_columns(frame: pd.DataFrame, spec: DataSpec, id_column: str | None, source: str) -> None:
    wanted = [feature.source for feature in spec.features if feature.transform not in TIME_TRANSFORMS]
    for feature in spec.features:
        if feature.transform in TIME_TRANSFORMS and spec.window.time_column is None:
            raise InvalidInputError(f"feature {feature.name!r} needs the window's time_column, which is not set.")
    if spec.vocabulary is not None:
        wanted.append(TOKEN_COLUMN)
    wanted += [column for column in (spec.window.time_column, id_column) if column is not None]
    present = [str(name) for name in frame.columns]
    separators = [sign for sign in ";\t|" if len(present) == 1 and sign in present[0]]
    if separators:
        raise InvalidInputError(
            f"{source} has one column, {present[0]!r}; it seems to be separated by {separators[0]!r}. "
            "Save it with commas (and decimal points)."
        )
    if id_column is not None and id_column not in present:
        raise InvalidInputError(
            f"{source} has no column {id_column!r} to tell sequences apart; {nearest_name(id_column, present)}"
        )
    for column in dict.fromkeys(wanted):
        if column not in present:
            raise InvalidInputError(
                f"{source} has no column {column!r}; the model needs {', '.join(dict.fromkeys(wanted))}. "
                f"In the file: {', '.join(present)}."
            )
        if present.count(column) > 1:
            raise InvalidInputError(f"{source} has {present.count(column)} columns called {column!r}; keep one.")
    if id_column is not None and frame[id_column].isna().any():
        row = int(frame[id_column].isna().to_numpy().argmax())
        raise InvalidInputError(f"{source}: data row {row + 1} has no {id_column}; every row needs one.")


def _cut(table: Table, spec: DataSpec, name: str, windows: Windows, stride: int, end: str | None) -> list[_Piece]:
    """Cut one series into pieces; newest only for "last", or the one that ends at `end`."""
    spans: list[tuple[int, int]] = []
    for start, stop in table.runs():
        length = spec.window.length or (stop - start)
        last_start = stop - length
        if last_start >= start:
            spans += [(first, first + length) for first in range(int(last_start), int(start) - 1, -stride)][::-1]
    if end is not None:
        spans = _spans_that_end_at(table, spec, end)
    elif windows == "last":
        spans = spans[-1:]
    pieces = []
    for start, stop in spans:
        times = None if table.times is None else table.times[start:stop]
        pieces.append(
            _Piece(_piece_name(name, start, stop, times), _features(table, spec, start, stop), times, stop - 1)
        )
    return pieces


def _spans_that_end_at(table: Table, spec: DataSpec, end: str) -> list[tuple[int, int]]:
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
            start = stop - spec.window.length if spec.window.length is not None else int(first)
            return [(start, stop)] if start >= first else []
    return []


def _features(table: Table, spec: DataSpec, start: int, stop: int) -> NDArray[Any]:
    """Return the scaled features of one window, (L, D) float32, or its token ids, (L,)."""
    if spec.vocabulary is not None:
        return table.columns[TOKEN_COLUMN][start:stop].astype(np.int64)
    return ((raw_features(table, spec, start, stop) - spec.center) / spec.scale).astype(np.float32)


def raw_features(table: Table, spec: DataSpec, start: int, stop: int) -> NDArray[np.float64]:
    """Return the features of one window before scaling, (L, D)."""
    result = np.empty((stop - start, len(spec.features)))
    for column, feature in enumerate(spec.features):
        if feature.transform in TIME_TRANSFORMS:
            assert table.times is not None  # _require_columns has seen to it
            times = table.times[start:stop]
            day = (times - times.astype("datetime64[D]")) / np.timedelta64(86400, "s")  # fraction of the day
            result[:, column] = (np.sin if feature.transform == "day_sine" else np.cos)(2 * np.pi * day)
            continue
        values = table.columns[feature.source][start:stop]
        result[:, column] = np.diff(values, prepend=values[0]) if feature.transform == "difference" else values
    return result


def _piece_name(name: str, start: int, stop: int, times: NDArray[np.datetime64] | None) -> str:
    if times is not None:
        moment = f"{np.datetime_as_string(times[-1], unit='m')}".replace("T", " ")
        return f"{name} until {moment}".strip() if name else moment
    return name or f"rows {start + 1} to {stop}"


def _no_window(frame: pd.DataFrame, spec: DataSpec, source: str, end: str | None) -> str:
    length, pause = spec.window.length, spec.window.max_gap_seconds
    if end is not None:
        return (
            f"{source} has no window of {length or 'any'} timesteps that ends at {end}; choose the time of a row "
            "that has enough rows before it since the last pause."
        )
    unbroken = "" if pause is None else f" with no pause over {pause / 60:g} minutes"
    return (
        f"{source} has {len(frame)} rows; the model reads {length} timesteps{unbroken}, and no such stretch is in it."
    )
