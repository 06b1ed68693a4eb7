"""Cleaning a series: time order, repeated rows, pauses and missing values, each counted (`Cleaner` -> `Table`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .columns import empty_column, number_columns, read_numbers, read_times
from .data_spec import DataSpec
from .errors import InvalidInputError
from .table import TOKEN_COLUMN
from .tokens import UNKNOWN, token_ids

if TYPE_CHECKING:
    import pandas as pd

SECOND = np.timedelta64(1, "s")
MOST_REPEATED = 0.1  # share of rows; more are not slips but another sequence


@dataclass(frozen=True, eq=False)
class Table:
    """The cleaned columns of one series.

    Attributes:
        columns: Numbers by column name, (rows,) each; NaN only where the window is to interpolate.
        times: datetime64 (rows,), or None.
        run: Int64 (rows,), number of the run that a row is of; a pause begins a new one.
        rows: Int64 (rows,), each row's place in the file, from 0.
        reach: Int64 (rows,), the oldest row, as an index of this table, whose values stand in a row: itself, but for
            values that are held.
    """

    columns: dict[str, NDArray[np.float64]]
    times: NDArray[np.datetime64] | None
    run: NDArray[np.int64]
    rows: NDArray[np.int64]
    reach: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of each run."""
        borders = np.flatnonzero(np.diff(self.run)) + 1
        edges = [0, *borders.tolist(), len(self)] if len(self) else []
        yield from pairwise(edges)

    def part(self, start: int, stop: int) -> Table:
        """Return some rows that follow one another."""
        take = slice(start, stop)
        return Table(
            {name: values[take] for name, values in self.columns.items()},
            None if self.times is None else self.times[take],
            self.run[take], self.rows[take], self.reach[take] - start,
        )  # fmt: skip

    def followed_by(self, other: Table) -> Table:
        """Return these rows and those of the next piece of the same series."""
        times = None
        if self.times is not None and other.times is not None:
            times = np.concatenate([self.times, other.times])
        pairs = ((self.run, other.run), (self.rows, other.rows), (self.reach, other.reach + len(self)))
        columns = {name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()}
        return Table(columns, times, *(np.concatenate(pair) for pair in pairs))


@dataclass
class Counts:
    """What cleaning did, over all series of a table."""

    rows: int = 0
    unsorted: int = 0
    repeated: int = 0
    crowded: int = 0
    dropped: int = 0
    leading: int = 0
    unknown: int = 0
    missing: Counter[str] = field(default_factory=Counter)  # by column
    placeholders: Counter[tuple[str, str]] = field(default_factory=Counter)  # by column and text

    def notes(self, spec: DataSpec) -> tuple[str, ...]:
        """Return sentences with counts."""
        notes = []
        if self.unsorted:
            notes.append("the rows were not in time order and have been sorted")
        for (column, text), count in self.placeholders.items():
            notes.append(f"{count} values of {column!r} are written {text!r} and count as missing")
        if self.dropped:
            notes.append(f"{self.dropped} of {self.rows} rows lack a value{_by_column(self.missing)} and were dropped")
        if self.repeated:
            notes.append(f"{self.repeated} rows with a time already seen were dropped")
        if self.crowded:
            notes.append(f"{self.crowded} rows less than {spec.window.min_gap_seconds:g} s after another were dropped")
        total = sum(self.missing.values())
        if total and spec.window.missing == "hold":
            left = f"; {self.leading} rows before the first known value were dropped" if self.leading else ""
            notes.append(f"of {total} missing values{_by_column(self.missing)} each holds the one before{left}")
        if total and spec.window.missing == "interpolate":
            notes.append(f"{total} missing values{_by_column(self.missing)} are interpolated inside their windows")
        if self.unknown:
            notes.append(f"{self.unknown} of {self.rows} tokens are not in the vocabulary and read as {UNKNOWN}")
        return tuple(notes)

    def refuse_empty(self, source: str) -> None:
        """Refuse a column that holds nothing at all."""
        for column, count in self.missing.items():
            if count and count == self.rows:
                raise InvalidInputError(empty_column(column, count, source))


class NotInOrderError(Exception):
    """A piece of a series begins before the one read before it ends."""


class Cleaner:
    """Cleans one series, whole or in pieces that follow one another: the rows kept are the same either way.

    Args:
        spec: Columns, and what to do about pauses and missing values.
        source: What errors call the series.
        counts: Where it counts what it did.
    """

    def __init__(self, spec: DataSpec, source: str, counts: Counts) -> None:
        self.spec, self.source, self.counts = spec, source, counts
        self.seen, self.repeated, self.run = 0, 0, 0
        self.last: dict[str, float] | None = None  # values of the row before, held ones included
        self.last_time: np.datetime64 | None = None  # of the last row kept
        self.last_complete: np.datetime64 | None = None  # of the last row that was not dropped for a missing value
        self.newest: np.datetime64 | None = None  # of the last row seen

    def whole(self, frame: pd.DataFrame) -> Table:
        """Return a series that is there at once, cleaned."""
        table = self.feed(frame)
        self.finish()
        return table

    def feed(self, frame: pd.DataFrame) -> Table:
        """Return the next piece, cleaned; the table's index is the rows' place in the file.

        Raises:
            NotInOrderError: It begins before the piece before it ends.
        """
        window = self.spec.window
        self.seen += len(frame)
        self.counts.rows += len(frame)
        times: NDArray[np.datetime64] | None = None
        if window.time_column is not None:
            times = read_times(frame, window.time_column, self.source)
            if (np.diff(times) < np.timedelta64(0)).any():
                self.counts.unsorted += 1
                order = np.argsort(times, kind="stable")
                frame, times = frame.iloc[order], times[order]
            if self.newest is not None and (times < self.newest).any():
                raise NotInOrderError
            self.newest = times[-1] if len(times) else self.newest
        columns = self._columns(frame)
        rows = frame.index.to_numpy(dtype=np.int64)
        keep = self._known(columns, len(rows))
        if times is not None:
            keep[keep] = self._apart(times[keep])
        columns, rows = {name: values[keep] for name, values in columns.items()}, rows[keep]
        times = None if times is None else times[keep]
        table = Table(columns, times, self._runs(times, len(rows)), rows, np.arange(len(rows)))
        if times is not None and len(times):
            self.last_time = times[-1]
        return self._held(table) if window.missing == "hold" and len(table) else table

    def finish(self) -> None:
        """Refuse what only the whole series shows."""
        if self.repeated > max(3, MOST_REPEATED * self.seen):
            raise InvalidInputError(
                f"{self.source}: {self.repeated} of {self.seen} rows repeat a time; if the table holds several "
                "sequences, name the column that tells them apart (id_column, --id-column)."
            )

    def _columns(self, frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        columns: dict[str, NDArray[np.float64]] = {}
        for name in number_columns(self.spec):
            columns[name], absent = read_numbers(frame, name, self.source, refuse=self.spec.window.missing == "refuse")
            self.counts.missing[name] += absent.total()
            self.counts.placeholders.update({(name, text): count for text, count in absent.items() if text})
        if self.spec.vocabulary is not None:
            tokens = frame[TOKEN_COLUMN].astype(str)
            columns[TOKEN_COLUMN], unknown = token_ids(tokens, self.spec, self.source, frame.index)
            self.counts.unknown += unknown
        return columns

    def _known(self, columns: dict[str, NDArray[np.float64]], count: int) -> NDArray[np.bool_]:
        """Return the rows to keep, (count,): where incomplete ones are dropped, the others."""
        keep = np.ones(count, dtype=bool)
        if self.spec.window.missing == "drop":
            for values in columns.values():
                keep &= ~np.isnan(values)
            self.counts.dropped += int((~keep).sum())
        return keep

    def _apart(self, times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        """Return which rows to keep so that none repeats a time, or follows another too soon."""
        keep = np.ones(len(times), dtype=bool)
        if not len(times):
            return keep
        keep[1:] = np.diff(times) > np.timedelta64(0)
        keep[0] = self.last_complete is None or times[0] > self.last_complete
        self.last_complete = times[-1]
        repeated = int((~keep).sum())
        self.repeated += repeated
        self.counts.repeated += repeated
        if self.spec.window.min_gap_seconds is not None:
            spaced = _spaced(times[keep], self.spec.window.min_gap_seconds, self.last_time)
            self.counts.crowded += int((~spaced).sum())
            keep[keep] = spaced
        return keep

    def _runs(self, times: NDArray[np.datetime64] | None, count: int) -> NDArray[np.int64]:
        """Return the number of each row's run; it goes on from the piece before."""
        pauses = np.zeros(count, dtype=np.int64)
        longest = self.spec.window.max_gap_seconds
        if longest is not None and times is not None and count:
            pauses[1:] = np.diff(times) / SECOND > longest
            pauses[0] = self.last_time is not None and (times[0] - self.last_time) / SECOND > longest
        run = self.run + np.cumsum(pauses)
        if count:
            if pauses[0]:
                self.last = None
            self.run = int(run[-1])
        return run

    def _held(self, table: Table) -> Table:
        """Return the rows with each missing value replaced by the one before it in the same run.

        Rows before the first known value of a run are dropped.
        """
        place, keep = np.arange(len(table)), np.ones(len(table), dtype=bool)
        begin = np.zeros(len(table), dtype=np.int64)
        for start, stop in table.runs():
            begin[start:stop] = start
        reach, columns, last = place.copy(), {}, {}
        for name, values in table.columns.items():
            source = np.maximum.accumulate(np.where(np.isnan(values), -1, place))  # last row with a value, in any run
            source = np.where(source < begin, -1, source)
            earlier = self.last[name] if self.last is not None else np.nan
            held = np.where(source >= 0, values[source], np.where(begin == 0, earlier, np.nan))
            columns[name], last[name] = held, float(held[-1])
            keep &= ~np.isnan(held)
            reach = np.minimum(reach, np.where(source >= 0, source, 0))
        self.last = last
        self.counts.leading += int((~keep).sum())
        position = np.cumsum(keep) - 1  # of each row among those kept
        reached = position[reach] + ~keep[reach]  # where a value's own row was dropped, the first of its run
        return Table(
            {name: values[keep] for name, values in columns.items()},
            None if table.times is None else table.times[keep],
            table.run[keep], table.rows[keep], reached[keep],
        )  # fmt: skip


def _spaced(times: NDArray[np.datetime64], seconds: float, last: np.datetime64 | None) -> NDArray[np.bool_]:
    """Return which rows to keep so that none follows the kept one before sooner than `seconds`."""
    keep = np.ones(len(times), dtype=bool)
    least = np.timedelta64(round(seconds * 1e9), "ns")
    kept = times[0] - least if last is None else last
    for row in np.flatnonzero(np.diff(times, prepend=kept) < least):  # the others follow late enough in any case
        if row > 0 and keep[row - 1]:
            kept = times[row - 1]
        keep[row] = times[row] - kept >= least
    return keep


def _by_column(missing: Counter[str]) -> str:
    columns: Iterable[str] = (f"{column}: {count}" for column, count in missing.items() if count)
    return f" ({', '.join(columns)})" if missing else ""
