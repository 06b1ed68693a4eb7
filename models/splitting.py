"""Training, validation and test: which windows go where, so that no row is in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError

Split = Literal["chronological", "random", "grouped"]
PARTS = ("training", "validation", "test")
LEFT_OUT = -1


@dataclass(frozen=True, eq=False)
class Footprints:
    """The rows that each of N windows is made of, targets and held values included.

    Attributes:
        series: Int64 (N,), the series that a window is cut from.
        begin: Int64 (N,), place in the series of its first input row.
        reach: Int64 (N,), place of the oldest row whose values stand in it: `begin`, or earlier where values are held.
        end: Int64 (N,), place of its last row, of input or target.
        earliest: (N,), where `reach` stands in the order of all series: a time, or a row of the file.
        latest: (N,), where `end` stands.
    """

    series: NDArray[np.int64]
    begin: NDArray[np.int64]
    reach: NDArray[np.int64]
    end: NDArray[np.int64]
    earliest: NDArray[Any]
    latest: NDArray[Any]

    def __len__(self) -> int:
        return len(self.series)


def checked_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Return the shares of training, validation and test, or refuse."""
    try:
        shares = tuple(float(share) for share in fractions)
    except (TypeError, ValueError):
        shares = ()
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise InvalidInputError(
            f"fractions is {fractions!r}; expected the shares of training, validation and test that sum to 1, "
            "e.g. (0.7, 0.15, 0.15), or (0.8, 0, 0.2) for no validation part."
        )
    if not shares[0]:
        raise InvalidInputError(f"fractions is {fractions!r}; the training part cannot be empty.")
    return shares[0], shares[1], shares[2]


def fractions_of(borders: Any, order: NDArray[Any]) -> tuple[float, float, float]:
    """Return the shares of rows that borders in time cut off.

    Args:
        borders: Where validation and test begin, as anything pandas reads as a time; or one: where test begins.
        order: Times of all rows, sorted, datetime64 (N,).

    Raises:
        InvalidInputError: They are no times, not in order, or leave a part without a row.
    """
    import pandas as pd

    try:
        given = [borders] if isinstance(borders, (str, np.datetime64, pd.Timestamp)) else list(borders)
        times = [pd.Timestamp(border).tz_localize(None).to_datetime64() for border in given]
    except (ValueError, TypeError):
        times = []
    if len(times) not in (1, 2) or any(np.isnat(time) for time in times):
        raise InvalidInputError(
            f"borders is {borders!r}; expected the times at which validation and test begin, e.g. "
            "('2024-06-01', '2024-09-01'), or one time at which test begins."
        )
    edges = [int(np.searchsorted(order, time)) for time in times]
    steps = np.diff([0, *edges, len(order)])
    if (steps <= 0).any():
        raise InvalidInputError(
            f"borders is {borders!r}, which leaves a part without a row; the rows are from {_place(order[0])} to "
            f"{_place(order[-1])}."
        )
    shares = [float(step) / len(order) for step in steps]
    return (shares[0], shares[1], shares[2]) if len(shares) == 3 else (shares[0], 0.0, shares[1])


def split_windows(
    windows: Footprints,
    split: Split,
    fractions: tuple[float, float, float],
    *,
    seed: int,
    guard: int,
    order: NDArray[Any],
    whole: bool,
    apart: int,
    notes: list[str],
) -> NDArray[np.int64]:
    """Return the part of each window, (N,): a place in `PARTS`, or `LEFT_OUT`; `notes` grows.

    See `chronological`, `random` and `grouped` for the arguments.

    Raises:
        InvalidInputError: A part would be empty, or windows share rows that a random split would spread.
    """
    told = ""
    if split == "chronological":
        part, borders = chronological(windows, order, fractions, guard)
        left = int((part == LEFT_OUT).sum())
        told = f" ({borders})"
        if left:
            guarded = " or stand in its guard" if guard else ""
            notes.append(f"{left} windows cross a border{guarded} and are left out")
    elif split == "random":
        part, left = random(windows, fractions, seed, whole=whole, apart=apart)
        if left:
            notes.append(f"{left} windows hold a value of the window before them and are left out")
    else:
        part = grouped(windows, fractions, seed)
    sizes = [int((part == number).sum()) for number in range(len(PARTS))]
    for number, share in enumerate(fractions):
        if share and not sizes[number]:
            raise InvalidInputError(
                f"the {PARTS[number]} part, {share:g} of the rows, holds no whole window of the {len(windows)}; use a "
                "shorter window or horizon, a smaller guard, or other fractions."
            )
    listed = ", ".join(f"{size} {name}" for size, name in zip(sizes, PARTS, strict=True) if size)
    notes.append(f"{split} split of {len(windows)} windows: {listed}{told}")
    return part


def chronological(
    windows: Footprints, order: NDArray[Any], fractions: tuple[float, float, float], guard: int
) -> tuple[NDArray[np.int64], str]:
    """Return each window's part, (N,), and where the borders are; windows that cross one are left out.

    Args:
        windows: What each window is made of.
        order: Times of all rows, or their numbers, sorted: a border stands at a share of the rows, whatever they hold.
        fractions: Shares of the rows.
        guard: So many distinct times (or rows) after each border are in no part.
    """
    distinct = np.unique(order)
    part = np.full(len(windows), LEFT_OUT)
    told, done = [], 0.0
    first = order[0]
    for number, share in enumerate(fractions):
        done += share
        edge = round(done * len(order))
        inside = windows.earliest >= first if first is not None else np.zeros(len(windows), dtype=bool)
        if edge < len(order):
            inside &= windows.latest < order[edge]
        if share:
            part[inside] = number
        if share and first is not None:
            told.append(f"{PARTS[number]} from {_place(first)}")
        if edge < len(order) and share:
            after = int(np.searchsorted(distinct, order[edge])) + guard
            first = distinct[after] if after < len(distinct) else None
    return part, "; ".join(told)


def random(
    windows: Footprints, fractions: tuple[float, float, float], seed: int, *, whole: bool, apart: int
) -> tuple[NDArray[np.int64], int]:
    """Return each window's part, (N,), and how many are left out because they hold a value of the one before.

    Args:
        windows: What each window is made of.
        fractions: Shares of the windows.
        seed: Of the shuffling.
        whole: Whether each window is a whole sequence: then all of one series stay together.
        apart: Rows from one window to the next that share none.
    """
    if whole:
        return grouped(windows, fractions, seed), 0
    order = np.lexsort((windows.begin, windows.series))
    same = np.diff(windows.series[order]) == 0
    shared = same & (windows.begin[order][1:] <= windows.end[order][:-1])
    if shared.any():
        raise InvalidInputError(
            f"{int(shared.sum()) + 1} windows share rows with another, and a random split would put the same rows into "
            f"training and test; use stride={apart} (windows that share no row), split='chronological', or "
            "split='grouped' with an id column."
        )
    holding = order[1:][same & (windows.reach[order][1:] <= windows.end[order][:-1])]
    free = np.setdiff1d(np.arange(len(windows)), holding)
    part = np.full(len(windows), LEFT_OUT)
    part[free] = deal(len(free), fractions, seed, "windows")
    return part, len(holding)


def grouped(windows: Footprints, fractions: tuple[float, float, float], seed: int) -> NDArray[np.int64]:
    """Return each window's part, (N,): all windows of a series are in the same one."""
    series, place = np.unique(windows.series, return_inverse=True)
    return deal(len(series), fractions, seed, "sequences")[place]


def deal(count: int, fractions: tuple[float, float, float], seed: int, what: str) -> NDArray[np.int64]:
    """Return the part of each of so many things, (count,), at random; a share above 0 gets at least one."""
    shares = np.array(fractions)
    wanted = int((shares > 0).sum())
    if count < wanted:
        raise InvalidInputError(
            f"there are {count} {what} for {wanted} parts; expected at least one for each. Set fractions to 0 for "
            "parts you do not need, or give more data."
        )
    borders = np.round(np.cumsum(shares) * count).astype(np.int64)
    sizes = np.diff(borders, prepend=0)
    for number in np.flatnonzero((shares > 0) & (sizes == 0)):
        sizes[sizes.argmax()] -= 1
        sizes[number] = 1
    part = np.empty(count, dtype=np.int64)
    part[np.random.default_rng(seed).permutation(count)] = np.repeat(np.arange(3), sizes)
    return part


def _place(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value, unit="m")).replace("T", " ")
    return f"row {int(value) + 1}"
