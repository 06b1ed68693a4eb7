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
from .windows import Piece, piece_name, piece_of, span_that_ends_at, window_spans

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
        cut = TableWindows(
            frame, spec, windows=windows, stride=stride, end=end, id_column=id_column, source=source
        )  # fmt: skip
        return cut.read(0, len(cut))

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


class TableWindows:
    """The sequences of a table, each cut when it is read: what is held is the cleaned table and where windows begin.

    Args: as `SequenceData.from_frame`.

    Attributes:
        notes: What cleaning did, in words, with counts.
        longest: Timesteps of the longest sequence.

    Raises:
        InvalidInputError: A column is missing or holds no numbers, or no window fits.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        spec: DataSpec,
        *,
        windows: Windows = "last",
        stride: int = 1,
        end: str | None = None,
        id_column: str | None = None,
        source: str = "the table",
    ) -> None:
        _check_options(windows, stride)
        notes, counts = list(frame.attrs.get(NOTES, ())), Counts()
        series: list[tuple[str, Table]] = []
        spans: list[NDArray[np.int64]] = []
        later, short = [], []
        groups = grouped(frame, spec, id_column, source)
        for name, group in groups:
            called = source if not name else f"{source}, {id_column} {name}"
            table = Cleaner(spec, called, counts).whole(group)
            found = window_spans(table, spec, stride) if end is None else span_that_ends_at(table, spec, end)
            if windows == "last":
                found = found[-1:]
            if found:
                series.append((name, table))
                spans.append(np.array(found, dtype=np.int64))
            elif end is None:
                short.append(name)
            if found and windows == "last" and end is None and found[0][1] != len(table):
                start, stop = found[0]
                times = None if table.times is None else table.times[start:stop]
                later.append(_follow_a_pause(name, len(table) - stop, piece_name(name, start, stop, times)))
        counts.refuse_empty(source)
        notes += [*counts.notes(spec), *later]
        if short and series:
            names = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
            notes.append(f"{len(short)} of {len(groups)} sequences are too short for a window and left out: {names}")
        if not series:
            raise InvalidInputError(_no_window(len(frame), spec, source, end))
        self.spec, self.notes = spec, tuple(notes)
        self.longest = max(int((found[:, 1] - found[:, 0]).max()) for found in spans)
        self._series, self._spans = series, np.concatenate(spans)  # (B, 2)
        self._ends = np.cumsum([len(found) for found in spans])  # of each series among the spans

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, start: int, stop: int) -> SequenceData:
        """Return the sequences `start` to `stop`, at least one, padded to the longest of them."""
        pieces = []
        for row in range(start, min(stop, len(self))):
            name, table = self._series[np.searchsorted(self._ends, row, side="right")]
            pieces.append(piece_of(table, self.spec, name, *self._spans[row].tolist()))
        return SequenceData.of_pieces(pieces, self.spec, self.notes)


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
    _check_options(windows, stride)
    if spec is not None and spec.features and windows == "last" and end is None and id_column is None:
        in_pieces = Path(path).suffix.lower() not in PARQUET and spec.window.length is not None
        if in_pieces:
            try:
                return _newest(path, spec)
            except NotInOrderError:
                pass  # the newest window may be anywhere
    cut = read_windows(path, spec, windows=windows, stride=stride, end=end, id_column=id_column)
    return cut.read(0, len(cut))


def read_windows(
    path: str | Path,
    spec: DataSpec | None,
    *,
    windows: Windows = "all",
    stride: int = 1,
    end: str | None = None,
    id_column: str | None = None,
) -> TableWindows:
    """Return the sequences of a CSV as `read_csv` reads them, each cut when it is read."""
    source, wanted = str(path), None
    if spec is not None and spec.features:
        wanted = needed_columns(spec, id_column)
        require_columns(read_header(path), wanted, id_column, source)
    frame = read_table(path, wanted)
    return TableWindows(
        frame, spec_of_columns(frame, None, source) if spec is None else spec,
        windows=windows, stride=stride, end=end, id_column=id_column, source=source,
    )  # fmt: skip


def _newest(path: str | Path, spec: DataSpec) -> SequenceData:
    require_columns(read_header(path), needed_columns(spec, None), None, str(path))
    piece, rows, kept, notes = newest_window(path, spec)
    if rows == 0:
        raise InvalidInputError(no_rows(str(path)))
    if piece is None:
        raise InvalidInputError(_no_window(rows, spec, str(path), None))
    if piece.row != kept - 1:
        notes = (*notes, _follow_a_pause("", kept - 1 - piece.row, piece.name))
    return SequenceData.of_pieces([piece], spec, notes)


def _check_options(windows: str, stride: int) -> None:
    if windows not in ("last", "all"):
        raise InvalidInputError(f"windows is {windows!r}; {nearest_name(str(windows), ('last', 'all'))}")
    if stride < 1:
        raise InvalidInputError(f"stride is {stride}; expected 1 or more rows.")


def _follow_a_pause(name: str, left: int, newest: str) -> str:
    return (
        f"{f'{name}: ' if name else ''}the newest {left} rows follow a pause and are too few for a window; "
        f"the newest whole window ends before it, {newest}"
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
