"""What chance explains: differences between groups' means, with intervals that hold together.

Of many comparisons some look large by chance alone, and samples cut from one series are less evidence than as many
series. So whole units (all samples of a series) are drawn again, and the intervals are as wide as the largest of all
studentised differences needs: with 95 % confidence all of them hold at once (Efron & Tibshirani 1993, chapters 12 and
16; the largest one: Westfall & Young 1993). Then a difference may be named whose interval leaves out 0, also the
largest of many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_UNITS = 20  # of a group, for a mean to be compared
DRAWS = 2000
CONFIDENCE = 0.95
BLOCK = 200  # draws at once
MOST_WEIGHTS = 2**21  # numbers at once: of many units fewer draws are


@dataclass(frozen=True)
class Difference:
    """The first group's mean of a quantity less the second's, and the interval that goes with it.

    Attributes:
        quantity: Column of the values.
        first: Number of a group.
        second: Number of another group.
        size: Difference of the means.
        low: Lower end of its interval.
        high: Upper end.
    """

    quantity: int
    first: int
    second: int
    size: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of each unit of a group (U rows), for each quantity (M columns): its count, sum, and products of the two."""

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    is_share: NDArray[np.bool_]

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Which quantities are known of enough units, (M,)."""
        return np.asarray((self.count > 0).sum(axis=0) >= FEWEST_UNITS)

    def mean_and_variance(self, weight: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each draw's means and the variances of these means, (R, M) each, from unit weights (R, U).

        A mean over units of different sizes is a ratio of two sums, and its variance that of the ratio's linear part.
        Shares of 0 or 1 do not vary in the sample, and still could: they get the variance of one more hit and miss.
        """
        count = np.maximum(weight @ self.count, 1)  # where nothing is known, nothing is compared
        mean = weight @ self.total / count
        square = weight @ self.total**2 - 2 * mean * (weight @ (self.total * self.count))
        square += mean**2 * (weight @ self.count**2)
        units = weight @ (self.count > 0)
        variance = np.maximum(square, 0) / count**2 * units / np.maximum(units - 1, 1)
        likely = (units * mean + 1) / (units + 2)
        least = np.where(self.is_share, likely * (1 - likely) / (units + 2), 0)
        return mean, np.maximum(variance, least)


def group_means(values: NDArray[Any], groups: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return the mean of each quantity in each group, (G, M); NaN where nothing is known of it.

    Args:
        values: (N, M), NaN where a quantity has no meaning for a sample.
        groups: (N,), 0 to count - 1; below 0: none.
        count: G.
    """
    result = np.full((count, values.shape[1]), np.nan)
    for group in range(count):
        part = values[groups == group]
        known = np.isfinite(part).sum(axis=0)
        result[group] = np.where(known > 0, np.nansum(part, axis=0) / np.maximum(known, 1), np.nan)
    return result


def unit_counts(values: NDArray[Any], groups: NDArray[np.int64], units: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return of how many units each quantity is known in each group, (G, M)."""
    found = [(_sums(values, groups == group, units).count > 0).sum(axis=0) for group in range(count)]
    return np.array(found, dtype=np.int64).reshape(count, values.shape[1])


def compare_means(
    values: NDArray[Any],
    groups: NDArray[np.int64],
    units: NDArray[Any],
    count: int,
    *,
    is_share: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> list[Difference]:
    """Return the differences of all pairs of groups in all quantities that are known of enough units.

    Args:
        values: (N, M), NaN where a quantity has no meaning for a sample.
        groups: (N,), 0 to count - 1; below 0: compared with none.
        units: (N,), samples of one unit are drawn together.
        count: Number of groups.
        is_share: (M,), quantities that are 0 or 1.
        seed: Of the draws.
    """
    shares = np.zeros(values.shape[1], dtype=bool) if is_share is None else is_share
    sums = [_sums(values, groups == group, units, shares) for group in range(count)]
    pairs = [(one, two) for one, two in combinations(range(count), 2)
             if (sums[one].comparable & sums[two].comparable).any()]  # fmt: skip
    if not pairs:
        return []
    known = np.array([sums[one].comparable & sums[two].comparable for one, two in pairs])  # (P, M)
    means, variances = zip(*(part.mean_and_variance(np.ones((1, len(part.count)))) for part in sums), strict=True)
    size = np.array([means[one][0] - means[two][0] for one, two in pairs])  # (P, M)
    error = np.sqrt([variances[one][0] + variances[two][0] for one, two in pairs])  # (P, M)
    largest = [
        _largest(pairs, drawn, size, error, known) for drawn in _draws(sums, np.random.default_rng(seed))
    ]  # of each draw
    reach = float(np.quantile(np.concatenate(largest), CONFIDENCE))
    return [
        Difference(int(quantity), one, two, float(size[pair, quantity]),
                   float(size[pair, quantity] - reach * error[pair, quantity]),
                   float(size[pair, quantity] + reach * error[pair, quantity]))
        for pair, (one, two) in enumerate(pairs)
        for quantity in np.flatnonzero(known[pair])
    ]  # fmt: skip


def _sums(
    values: NDArray[Any], member: NDArray[np.bool_], units: NDArray[Any], is_share: NDArray[np.bool_] | None = None
) -> _Sums:
    part = values[member].astype(np.float64)
    _, place = np.unique(units[member], return_inverse=True)
    known = np.isfinite(part)
    count, total = (np.zeros((int(place.max(initial=-1)) + 1, values.shape[1])) for _ in range(2))
    np.add.at(count, place, known)
    np.add.at(total, place, np.where(known, part, 0))
    return _Sums(count, total, np.zeros(values.shape[1], dtype=bool) if is_share is None else is_share)


def _draws(
    sums: list[_Sums], generator: np.random.Generator
) -> Iterator[list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Yield, block by block, the means and variances (R, M) of each group's units drawn again."""
    for _ in range(DRAWS // BLOCK):
        drawn = []
        for part in sums:
            units = len(part.count)  # 0 of a group that is compared with none
            at_once = max(1, min(BLOCK, MOST_WEIGHTS // max(units, 1)))
            found = []
            for first in range(0, BLOCK, at_once):
                weight: NDArray[Any] = np.zeros((min(at_once, BLOCK - first), 0))
                if units:
                    weight = generator.multinomial(units, np.full(units, 1 / units), size=len(weight))
                found.append(part.mean_and_variance(weight.astype(np.float64)))
            means, variances = zip(*found, strict=True)
            drawn.append((np.concatenate(means), np.concatenate(variances)))
        yield drawn


def _largest(
    pairs: list[tuple[int, int]],
    drawn: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    size: NDArray[np.float64],
    error: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the largest studentised distance of each draw's differences from the differences found, (R,)."""
    largest = np.zeros(BLOCK)
    for pair, (one, two) in enumerate(pairs):
        distance = np.abs(drawn[one][0] - drawn[two][0] - size[pair])  # (R, M)
        spread = np.sqrt(drawn[one][1] + drawn[two][1])
        spread = np.where(spread > 0, spread, error[pair])
        ratio = np.divide(distance, spread, out=np.zeros_like(distance), where=known[pair] & (spread > 0))
        largest = np.maximum(largest, ratio.max(axis=1))
    return largest
