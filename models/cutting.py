"""Windows with their targets: which rows each one reads and asks for (`Aim`, `Cut`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .answers import Answers, class_numbers, number_targets
from .cleaning import Cleaner, Counts, Table
from .config import Task
from .data_spec import DataSpec
from .errors import InvalidInputError, InvalidTypeError
from .sequence_data import SequenceData
from .series import grouped
from .splitting import Footprints
from .windows import piece_of, raw_features, window_spans

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Aim:
    """Where the targets of a window stand: `horizons` rows after its last timestep, or after each one."""

    names: tuple[str, ...]
    horizons: tuple[int, ...]
    each_timestep: bool

    @classmethod
    def of(cls, names: Sequence[str], horizon: int | Sequence[int], *, each_timestep: bool) -> Aim:
        """Check what a user said."""
        given = tuple(horizon) if isinstance(horizon, (list, tuple, range, np.ndarray)) else (horizon,)
        for rows in given:
            if isinstance(rows, bool) or not isinstance(rows, (int, np.integer)):
                raise InvalidTypeError(f"horizon is {horizon!r}; expected whole numbers of rows, 0 or more.")
        if not given or min(given) < 0 or len(set(given)) < len(given):
            raise InvalidInputError(f"horizon is {horizon!r}; expected rows after the window, 0 or more, each once.")
        if not names or len(set(names)) < len(names):
            raise InvalidInputError(f"target is {list(names)!r}; expected column names, each once.")
        return cls(tuple(names), tuple(int(rows) for rows in given), each_timestep)

    @property
    def ahead(self) -> int:
        """Rows that must follow a window."""
        return max(self.horizons)

    @property
    def outputs(self) -> int:
        """Numbers K that are asked for at once."""
        return len(self.names) * len(self.horizons)

    def rows(self, table: Table, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows of the file that hold a window's targets, (horizons,) or (L, horizons)."""
        last = np.arange(start, stop)[:, None] if self.each_timestep else np.array(stop - 1)
        return np.asarray(table.rows[last + np.array(self.horizons)])


@dataclass(frozen=True, eq=False)
class Cut:
    """All windows of a table that have a target.

    Attributes:
        tables: The series, cleaned.
        names: What each is called.
        windows: Int64 (N, 3): series, first row and the row after the last, as places in the cleaned series.
        aim: Where the targets stand.
        answers: The target columns.
    """

    tables: tuple[Table, ...]
    names: tuple[str, ...]
    windows: NDArray[np.int64]
    aim: Aim
    answers: Answers

    @classmethod
    def of(
        cls, frame: pd.DataFrame, spec: DataSpec, aim: Aim, answers: Answers, *,
        stride: int, id_column: str | None, source: str, notes: list[str],
    ) -> Cut:  # fmt: skip
        """Clean a table and cut its series; `notes` grows by what was done."""
        counts, tables, short = Counts(), list[Table](), 0
        names: list[str] = []
        windows: list[tuple[int, int, int]] = []
        for name, group in grouped(frame, spec, id_column, source):
            table = Cleaner(spec, f"{source}, {id_column} {name}" if name else source, counts).whole(group)
            found = window_spans(table, spec, stride, aim.ahead)
            short += not found
            windows += [(len(tables), *span) for span in found]
            tables.append(table)
            names.append(name)
        counts.refuse_empty(source)
        notes += counts.notes(spec)
        if not windows:
            raise InvalidInputError(_no_window(counts.rows, spec, aim, source))
        if short:
            notes.append(f"{short} of {len(tables)} sequences are too short for a window and left out")
        cut = cls(tuple(tables), tuple(names), np.array(windows, dtype=np.int64), aim, answers)
        known = np.array([answers.known[rows].all() for rows in cut.target_rows()])
        if not known.any():
            raise InvalidInputError(
                f"{source}: no window has a target; {aim.names[0]!r} is missing wherever one stands."
            )
        if not known.all():
            notes.append(f"{int((~known).sum())} of {len(known)} windows have no target and are left out")
        return cut.take(known)

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, which: NDArray[np.bool_]) -> Cut:
        """Return some of the windows, (N,) of True and False."""
        return replace(self, windows=self.windows[which])

    def target_rows(self) -> list[NDArray[np.int64]]:
        """Return the rows of the file with the targets of each window."""
        return [self.aim.rows(self.tables[series], start, stop) for series, start, stop in self.windows.tolist()]

    def footprints(self) -> Footprints:
        """Return what each window is made of."""
        series, begin, stop = self.windows.T
        end = stop - 1 + self.aim.ahead
        reach, earliest, latest = [], [], []
        for number, first, past, final in zip(series, begin, stop, end, strict=True):
            table = self.tables[number]
            place = table.rows if table.times is None else table.times
            reach.append(table.reach[first:past].min())
            earliest.append(place[reach[-1]])
            latest.append(place[final])
        return Footprints(series, begin, np.array(reach), end, np.array(earliest), np.array(latest))

    def training_rows(self, spec: DataSpec) -> NDArray[np.float64]:
        """Return the features before scaling of all rows of these windows, (rows, D), each row once."""
        found = []
        for number, table in enumerate(self.tables):
            spans = self.windows[self.windows[:, 0] == number, 1:].tolist()
            for start, stop in _merged(spans):
                found.append(raw_features(table, spec, start, stop))
        return np.concatenate(found)

    def data(self, spec: DataSpec, task: Task, part: str) -> SequenceData:
        """Return the windows as sequences with their targets."""
        pieces = [
            piece_of(self.tables[series], spec, self.names[series], start, stop)
            for series, start, stop in self.windows.tolist()
        ]
        rows = self.target_rows()
        last = self._last(rows) if task == "regression" and min(self.aim.horizons) > 0 else None
        return replace(
            SequenceData.of_pieces(pieces, spec),
            targets=self._targets(rows, spec, task, part),
            last=None if last is None else _padded(last),
        )

    def _targets(self, rows: list[NDArray[np.int64]], spec: DataSpec, task: Task, part: str) -> NDArray[Any]:
        """Return the targets of the windows: numbers (B, K) or (B, T, K), or numbers of classes (B,) or (B, T)."""
        together = np.concatenate([one.reshape(-1, len(self.aim.horizons)) for one in rows])  # (targets, horizons)
        if spec.classes:
            found: NDArray[Any] = class_numbers(self.answers, together[:, 0], spec.classes, part)
        else:
            found = _side_by_side(number_targets(self.answers, together, task))
        if not self.aim.each_timestep:
            return found
        return _padded(np.split(found, np.cumsum([len(one) for one in rows])[:-1]))

    def _last(self, rows: list[NDArray[np.int64]]) -> list[NDArray[np.float32]] | None:
        """Return the last known target values of each window, (K,) or (L, K); None where one has none."""
        assert self.answers.numbers is not None
        found = []
        for (series, start, stop), wanted in zip(self.windows.tolist(), rows, strict=True):
            values = self.answers.numbers[self.tables[series].rows[start:stop]]  # (L, C)
            place = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
            source = np.maximum.accumulate(place, axis=0)
            source = source if self.aim.each_timestep else source[-1]
            if (source < 0).any():
                return None
            known = np.take_along_axis(values, source.reshape(-1, values.shape[1]), axis=0).reshape(source.shape)
            stays = np.repeat(known[..., None, :], len(self.aim.horizons), axis=-2)  # (..., horizons, C)
            assert stays.shape[:-1] == wanted.shape
            found.append(_side_by_side(stays.astype(np.float32)))
        return found


def _side_by_side(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (..., horizons, C) as (..., C * horizons): all horizons of one target next to each other."""
    return np.swapaxes(values, -1, -2).reshape(*values.shape[:-2], -1)


def _padded(values: list[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays side by side; those with a time axis of different lengths are padded with 0."""
    shapes = {value.shape for value in values}
    if len(shapes) == 1:
        return np.stack(values)
    longest = max(len(value) for value in values)
    result = np.zeros((len(values), longest, *values[0].shape[1:]), dtype=values[0].dtype)
    for row, value in enumerate(values):
        result[row, : len(value)] = value
    return result


def _merged(spans: list[list[int]]) -> list[tuple[int, int]]:
    """Return spans (start, stop), in time order, with those that touch or overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _no_window(rows: int, spec: DataSpec, aim: Aim, source: str) -> str:
    window = spec.window
    length = "one timestep or more" if window.length is None else f"{window.length} timesteps"
    target = f" and the target {aim.ahead} rows later" if aim.ahead else ""
    pause = "" if window.max_gap_seconds is None else f", with no pause over {window.max_gap_seconds / 60:g} minutes"
    return (
        f"{source} has {rows} rows; a sequence needs {length}{target}{pause}, and no such stretch is in it. Use a "
        "shorter window, or a longer max_gap_seconds."
    )
