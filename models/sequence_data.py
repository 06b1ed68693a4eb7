"""From a table to what a model reads: `SequenceData` cuts a CSV into windows, derives features and scales them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .cleaning import Cleaner, Counts, NotInOrderError, Table
from .data_spec import DataSpec
from .errors import InvalidInputError, nearest_name
from .newest import newest_window
from .series import grouped, needed_columns, no_rows, require_columns
from .table import NOTES, PARQUET, read_header, read_table, spec_of_columns
from .windows import Piece, piece_of, span_that_ends_at, window_spans

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
        targets: What came of them, as `Examples` takes it; None where it is not known.
        last: The last known value of a forecast's target, shaped like `targets`; None where there is none.
        table_rows: Int64 (B,), position in the table as it was given of each sequence's last timestep.
    """

    inputs: NDArray[Any]
    lengths: NDArray[np.int64]
    sample_names: tuple[str, ...]
    times: NDArray[np.datetime64] | None
    rows: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    targets: Any = None
    last: NDArray[np.float32] | None = None
    table_rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.sample_names)

    def take(self, rows: Sequence[int] | NDArray[Any]) -> SequenceData:
        """Return some of the sequences: their numbers, from 0, or which of them, as (B,) of True and False."""
        which = np.arange(len(self))[np.asarray(rows)]
        arrays = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        chosen = {name: values[which] for name, values in arrays.items() if isinstance(values, np.ndarray)}
        return replace(self, **chosen, sample_names=tuple(self.sample_names[row] for row in which))

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
            spec: Features, scaling and window of the model, and what it does about missing values.
            windows: "last": the newest window (of each id); "all": every `stride`-th one.
            stride: Rows between the windows of "all".
            end: The window that ends at this time, or in this minute, instead (anything pandas reads as a time).
            id_column: Column that tells sequences apart; None: the table is one series.
            source: What errors call the table.

        Raises:
            InvalidInputError: A column is missing or holds no numbers, or no window fits.
        """
        _check_options(windows, stride)
        notes, counts = list(frame.attrs.get(NOTES, ())), Counts()
        pieces: list[Piece] = []
        later, short = [], []
        groups = grouped(frame, spec, id_column, source)
        for name, group in groups:
            called = source if not name else f"{source}, {id_column} {name}"
            table = Cleaner(spec, called, counts).whole(group)
            found = _cut(table, spec, name, windows, stride, end)
            pieces += found
            if not found and end is None:
                short.append(name)
            elif windows == "last" and end is None and found[0].row != len(table) - 1:
                later.append(_follow_a_pause(name, len(table) - 1 - found[0].row, found[0]))
        counts.refuse_empty(source)
        notes += [*counts.notes(spec), *later]
        if short and pieces:
            names = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
            notes.append(f"{len(short)} of {len(groups)} sequences are too short for a window and left out: {names}")
        if not pieces:
            raise InvalidInputError(_no_window(len(frame), spec, source, end))
        return cls.of_pieces(pieces, spec, tuple(notes))

    @classmethod
    def of_pieces(cls, pieces: list[Piece], spec: DataSpec, notes: tuple[str, ...] = ()) -> SequenceData:
        """Return pieces side by side, padded at the end."""
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
        rows, table_rows = (
            np.array([getattr(piece, kind) for piece in pieces], dtype=np.int64) for kind in ("row", "file_row")
        )
        names = tuple(piece.name for piece in pieces)
        return cls(inputs, lengths, names, times, rows, notes, table_rows=table_rows)


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

    Without a spec (a model that names no features) the number columns are the features, as they are. Only the columns
    of the features are read; for the newest window of one series the file goes by in pieces and is never whole in
    memory, unless it is out of time order.

    Raises:
        InvalidInputError: The file is missing, empty or no CSV, lacks a column, or no window fits.
    """
    source, wanted = str(path), None
    if spec is None:
        frame = read_table(path)
        spec = spec_of_columns(frame, None, source)
    else:
        _check_options(windows, stride)
        if spec.features:
            wanted = needed_columns(spec, id_column)
            require_columns(read_header(path), wanted, id_column, source)
            in_pieces = Path(path).suffix.lower() not in PARQUET and spec.window.length is not None
            if in_pieces and windows == "last" and end is None and id_column is None:
                try:
                    return _newest(path, spec)
                except NotInOrderError:
                    pass  # the newest window may be anywhere
        frame = read_table(path, wanted)
    return SequenceData.from_frame(
        frame, spec, windows=windows, stride=stride, end=end, id_column=id_column, source=source
    )


def _newest(path: str | Path, spec: DataSpec) -> SequenceData:
    piece, rows, kept, notes = newest_window(path, spec)
    if rows == 0:
        raise InvalidInputError(no_rows(str(path)))
    if piece is None:
        raise InvalidInputError(_no_window(rows, spec, str(path), None))
    if piece.row != kept - 1:
        notes = (*notes, _follow_a_pause("", kept - 1 - piece.row, piece))
    return SequenceData.of_pieces([piece], spec, notes)


def _check_options(windows: str, stride: int) -> None:
    if windows not in ("last", "all"):
        raise InvalidInputError(f"windows is {windows!r}; {nearest_name(str(windows), ('last', 'all'))}")
    if stride < 1:
        raise InvalidInputError(f"stride is {stride}; expected 1 or more rows.")


def _cut(table: Table, spec: DataSpec, name: str, windows: Windows, stride: int, end: str | None) -> list[Piece]:
    """Cut one series into pieces; newest only for "last", or the one that ends at `end`."""
    found = window_spans(table, spec, stride) if end is None else span_that_ends_at(table, spec, end)
    return [piece_of(table, spec, name, *span) for span in (found[-1:] if windows == "last" else found)]


def _follow_a_pause(name: str, left: int, newest: Piece) -> str:
    return (
        f"{f'{name}: ' if name else ''}the newest {left} rows follow a pause and are too few for a window; "
        f"the newest whole window ends before it, {newest.name}"
    )


def _no_window(rows: int, spec: DataSpec, source: str, end: str | None) -> str:
    length, pause = spec.window.length, spec.window.max_gap_seconds
    if end is not None:
        return (
            f"{source} has no window of {length or 'any'} timesteps that ends at {end}; choose the time of a row "
            "that has enough rows before it since the last pause."
        )
    unbroken = "" if pause is None else f" with no pause over {pause / 60:g} minutes"
    return f"{source} has {rows} rows; the model reads {length} timesteps{unbroken}, and no such stretch is in it."
