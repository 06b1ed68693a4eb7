"""A table with one row a timestep, read and cleaned: `read_table` from a CSV, `Table` as columns of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .data_spec import DataSpec, FeatureSpec
from .errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

SECOND = np.timedelta64(1, "s")
MOST_REPEATED = 0.1  # share of rows; more are not slips but another sequence
TIME_TRANSFORMS = ("day_sine", "day_cosine")
TOKEN_COLUMN = "token"  # noqa: S105 - a column's name


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file as a DataFrame, with errors that help."""
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"{path} {kind}; expected a CSV file, one row a timestep.")
    try:
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise InvalidInputError(f"{path} is empty; expected a CSV with a header and one row a timestep.") from None
    except Exception as error:  # noqa: BLE001 - whatever pandas and the decompressors make of a stranger's bytes
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        hint = " Save it as UTF-8." if isinstance(error, UnicodeDecodeError) else ""
        raise InvalidInputError(f"{path} is not a readable CSV: {reason}.{hint}") from None
    if not frame.index.equals(pd.RangeIndex(len(frame))):  # pandas has taken the first column for row labels
        raise InvalidInputError(
            f"{path} has rows with more values than the header has names ({len(frame.columns)}: "
            f"{', '.join(str(name) for name in frame.columns)}); give every column a name."
        )
    if TOKEN_COLUMN in frame.columns and frame[TOKEN_COLUMN].dtype.kind not in "fiu":  # "NA" and "null" are words, too
        words = pd.read_csv(path, usecols=[TOKEN_COLUMN], dtype=str, keep_default_na=False)
        frame[TOKEN_COLUMN] = words[TOKEN_COLUMN]
    return frame


def spec_of_columns(frame: pd.DataFrame, features: int | None, source: str) -> DataSpec:
    """Return a spec for a model that names no features: the table's number columns (that many), in their order."""
    numbers = [str(name) for name in frame.columns if frame[name].dtype.kind in "fiu"]
    if features is not None and len(numbers) != features:
        raise InvalidInputError(
            f"{source} has {len(numbers)} number columns ({', '.join(numbers) or 'none'}); the model reads {features} "
            "features and names none of them, so the table must hold just those, in the order of training."
        )
    return DataSpec(features=tuple(FeatureSpec(name=name) for name in numbers))


@dataclass(frozen=True, eq=False)
class Table:
    """The cleaned columns of one series: numbers by column name, times, and where a pause ends a run."""

    columns: dict[str, NDArray[np.float64]]
    times: NDArray[np.datetime64] | None
    starts: NDArray[np.int64]  # first row of each run without a pause
    notes: tuple[str, ...]

    @classmethod
    def read(cls, frame: pd.DataFrame, spec: DataSpec, source: str) -> Table:
        """Return the cleaned columns that `spec` asks for."""
        notes: list[str] = []
        times: NDArray[np.datetime64] | None = None
        starts = np.zeros(1, dtype=np.int64)
        if spec.window.time_column is not None:
            frame, times, starts = _order_by_time(frame, spec, source, notes)
        columns: dict[str, NDArray[np.float64]] = {}
        for feature in spec.features:
            if feature.source not in columns and feature.transform not in TIME_TRANSFORMS:
                columns[feature.source] = _numbers(frame, feature.source, source)
        if spec.vocabulary is not None:
            columns[TOKEN_COLUMN] = _token_ids(frame, spec.vocabulary, source)
        return cls(columns, times, starts, tuple(notes))

    def __len__(self) -> int:
        return (
            len(next(iter(self.columns.values())))
            if self.columns
            else len(self.times if self.times is not None else ())
        )

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of each run."""
        yield from zip(self.starts, [*self.starts[1:], len(self)], strict=True)


def _order_by_time(
    frame: pd.DataFrame, spec: DataSpec, source: str, notes: list[str]
) -> tuple[pd.DataFrame, NDArray[np.datetime64], NDArray[np.int64]]:
    assert spec.window.time_column is not None
    times = _times(frame, spec.window.time_column, source)
    if (np.diff(times) < np.timedelta64(0)).any():
        notes.append("the rows were not in time order and have been sorted")
        order = np.argsort(times, kind="stable")
        frame, times = frame.iloc[order], times[order]
    keep = np.ones(len(times), dtype=bool)
    keep[1:] = np.diff(times) > np.timedelta64(0)
    if not keep.all():
        repeated = int((~keep).sum())
        if repeated > max(3, MOST_REPEATED * len(times)):
            raise InvalidInputError(
                f"{source}: {repeated} of {len(times)} rows repeat a time; if the table holds several sequences, "
                "name the column that tells them apart (id_column, --id-column)."
            )
        notes.append(f"{repeated} rows with a time already seen were dropped")
        frame, times = frame[keep], times[keep]
    if spec.window.min_gap_seconds is not None:
        keep = _spaced(times, spec.window.min_gap_seconds)
        if not keep.all():
            notes.append(
                f"{int((~keep).sum())} rows less than {spec.window.min_gap_seconds:g} s after another were dropped"
            )
            frame, times = frame[keep], times[keep]
    starts = np.zeros(1, dtype=np.int64)
    if spec.window.max_gap_seconds is not None:
        pauses = np.diff(times) / SECOND > spec.window.max_gap_seconds
        starts = np.concatenate([starts, np.flatnonzero(pauses) + 1])
    return frame, times, starts


def _times(frame: pd.DataFrame, column: str, source: str) -> NDArray[np.datetime64]:
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


def _spaced(times: NDArray[np.datetime64], seconds: float) -> NDArray[np.bool_]:
    """Return which rows to keep so that none follows the kept one before sooner than `seconds`."""
    keep = np.ones(len(times), dtype=bool)
    last = times[0]
    for row in range(1, len(times)):
        if (times[row] - last) / SECOND < seconds:
            keep[row] = False
        else:
            last = times[row]
    return keep


def _numbers(frame: pd.DataFrame, column: str, source: str) -> NDArray[np.float64]:
    import pandas as pd

    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInputError(
            f"{source}: column {column!r} has {int(bad.sum())} values that are missing or no finite number, "
            f"the first in data row {frame.index[row] + 1} ({frame[column].iloc[row]!r}); fill or drop them first."
        )
    return values


def _token_ids(frame: pd.DataFrame, vocabulary: tuple[str, ...], source: str) -> NDArray[np.float64]:
    known = {token: index for index, token in enumerate(vocabulary)}
    tokens = frame[TOKEN_COLUMN].astype(str)
    for row, token in enumerate(tokens):
        if token not in known:
            raise InvalidInputError(
                f"{source}: data row {frame.index[row] + 1} has the token {token!r}, not in the vocabulary."
            )
    return np.array([known[token] for token in tokens], dtype=np.float64)
