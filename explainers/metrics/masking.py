"""What happens to the prediction when the parts an explainer calls important are taken away, or are all that is left.

The most important part is the first one of `Row.order`, and what is taken away holds the baseline.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from ..base import check_positive
from ..players import CoalitionMatrix
from .base import OfCoalitions, Row

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # DeYoung et al. 2020
POINTS = 100
OUTSIDE = (
    "A sequence with parts replaced is one that the model may never have seen: a drop can come from its strangeness, "
    "not from what is missing; compare several baselines."
)


class _Curve(OfCoalitions):
    """The explained number while parts are taken away, or put in, one after the other.

    Args:
        points: Steps of the curve. A sequence with fewer parts has one step a part; of a longer one several parts are
            moved at once.

    Its details are the curve, (points + 1,): the explained number from none moved to all moved.
    """

    unit = "explained number"
    range = (-math.inf, math.inf)
    detail = "point"

    def __init__(self, points: int = POINTS) -> None:
        check_positive("points", points)
        self.points = points

    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (N, n), a coalition a point."""
        count = moved_counts(len(row), self.points)  # (N,)
        return self._kept(places(row.order()) < count[:, None])

    @abstractmethod
    def _kept(self, moved: CoalitionMatrix) -> CoalitionMatrix:
        """Return which parts keep their input where these are the moved ones."""

    def details(self, row: Row, coalitions: CoalitionMatrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the curve (N,)."""
        del row, coalitions
        return numbers

    def summary(self, row: Row, details: NDArray[np.float64]) -> float:
        """Return the area between the curve and f(baseline), over the share of parts moved; see the class."""
        share = moved_counts(len(row), self.points) / len(row)
        return float(np.trapezoid(row.sign * (details[: len(share)] - row.empty), share))


class Deletion(_Curve):
    """Area under the curve while parts are replaced by the baseline, the most important first.

    The curve is f(x with k parts replaced) - f(baseline), turned over where f(x) is below f(baseline), so that it
    begins at |f(x) - f(baseline)| and ends at 0. The less area, the sooner the prediction falls. The images' masks of
    the papers are timesteps or cells here, and the number is the explained one, not always a probability.

    Sources: Samek et al. 2017, "Evaluating the Visualization of What a Deep Neural Network Has Learned" (the curve,
    most relevant first); Petsiuk, Das & Saenko 2018, "RISE" (the area).
    """

    name = "deletion"
    source = "Samek et al. 2017; Petsiuk et al. 2018"
    direction = "lower"
    cannot = OUTSIDE

    def _kept(self, moved: CoalitionMatrix) -> CoalitionMatrix:
        return ~moved


class Insertion(_Curve):
    """Area under the curve while the input's parts are put into the baseline, the most important first.

    The curve, turned over where f(x) is below f(baseline), begins at 0 and ends at |f(x) - f(baseline)|. The more area,
    the sooner the prediction is there.

    Source: Petsiuk, Das & Saenko 2018, "RISE".
    """

    name = "insertion"
    source = "Petsiuk et al. 2018"
    direction = "higher"
    cannot = OUTSIDE

    def _kept(self, moved: CoalitionMatrix) -> CoalitionMatrix:
        return moved


class _OfShares(OfCoalitions):
    """A metric of the most important 1, 5, 10, 20 and 50 % of the parts, averaged over these.

    Args:
        shares: Of the parts, each over 0 and at most 1; rounded up to whole parts, so one at least.

    Its details are the drop at each share.
    """

    unit = "explained number"
    range = (-math.inf, math.inf)
    detail = "share"

    def __init__(self, shares: Sequence[float] = SHARES) -> None:
        self.shares = checked_shares(shares, most=1.0)

    def labels(self) -> list[Any]:
        """Return the shares."""
        return list(self.shares)

    def _important(self, row: Row) -> CoalitionMatrix:
        """Return bool (shares, n), the most important parts."""
        count = np.array([math.ceil(share * len(row) - 1e-9) for share in self.shares])
        return np.asarray(places(row.order()) < np.maximum(count, 1)[:, None])

    def details(self, row: Row, coalitions: CoalitionMatrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much the number moved from f(x) towards f(baseline) at each share, (shares,)."""
        del coalitions
        return row.sign * (row.full - numbers)


class Comprehensiveness(_OfShares):
    """How far the number falls from f(x) towards f(baseline) without the most important parts.

    Source: DeYoung et al. 2020, "ERASER", section 4.2 (there of the predicted class's probability, here of the
    explained number).
    """

    name = "comprehensiveness"
    source = "DeYoung et al. 2020"
    direction = "higher"
    cannot = OUTSIDE + " It sees only who is among the first, not in which order nor with what size."

    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (shares, n)."""
        return ~self._important(row)


class Sufficiency(_OfShares):
    """How far the number falls from f(x) towards f(baseline) with the most important parts alone.

    Below 0 where these parts say more than the whole. Source: DeYoung et al. 2020, "ERASER", section 4.2.
    """

    name = "sufficiency"
    source = "DeYoung et al. 2020"
    direction = "lower"
    cannot = OUTSIDE + " It sees only who is among the first, not in which order nor with what size."

    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (shares, n)."""
        return self._important(row)


def moved_counts(parts: int, points: int) -> NDArray[np.int64]:
    """Return how many parts have moved at each point of a curve, ascending from 0 to all."""
    if parts <= points:
        return np.arange(parts + 1)
    return np.round(np.linspace(0, parts, points + 1)).astype(np.int64)


def places(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place (n,) of each part in an order of parts, from 0."""
    found = np.empty_like(order)
    found[order] = np.arange(len(order))
    return found


def checked_shares(shares: Sequence[float], *, most: float) -> tuple[float, ...]:
    """Return shares of the parts as a tuple; refuse what is none."""
    try:
        found = tuple(float(share) for share in shares)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(0 < share <= most for share in found):
        raise InvalidInputError(
            f"shares is {shares!r}; expected one or more numbers over 0, at most {most:g}, e.g. (0.05, 0.2)."
        )
    return found
