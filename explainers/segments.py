"""Where to cut a sequence into segments: into equal parts, or where it changes most.

Source of the change points: binary segmentation (Scott & Knott 1974; Truong, Oudre & Vayatis 2020, "Selective review of
offline change point detection methods", section 5.2.2) with the squared error around each segment's mean.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from ..models.errors import nearest_name

Segmentation = Literal["uniform", "change_point"]

NO_GAIN = 1e-9  # of the squared error of the whole sequence: rounding


def check_segmentation(segmentation: str) -> None:
    """Refuse an unknown way of cutting."""
    if segmentation not in get_args(Segmentation):
        raise InvalidInputError(
            f"segmentation is {segmentation!r}; {nearest_name(str(segmentation), get_args(Segmentation))}"
        )


def uniform_starts(length: int, segments: int) -> NDArray[np.int64]:
    """Return the first timesteps of `segments` parts of (nearly) equal length, fewer where the sequence is shorter."""
    count = min(segments, length)
    return -(-np.arange(count, dtype=np.int64) * length // count)


def change_point_starts(values: NDArray[np.floating], segments: int) -> NDArray[np.int64]:
    """Return the first timesteps of at most `segments` parts, cut where the features' level changes most.

    Each feature is standardised over the sequence, so that its unit does not matter. Cuts are made one after another,
    each where it lowers the squared error around the segments' means most; no more are made where none lowers it (a
    sequence in steps has as many segments as steps).

    Args:
        values: (L, D).
        segments: The most there may be.

    Returns:
        Ascending, the first is 0.
    """
    values = np.asarray(values, dtype=np.float64)
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)  # (L, D)
    sums = np.concatenate([np.zeros((1, scaled.shape[1])), scaled.cumsum(axis=0)])  # (L + 1, D)
    starts = [0]
    while len(starts) < segments:
        ends = [*starts[1:], len(values)]
        gain, cut = max(
            (_best_cut(sums, begin, end) for begin, end in zip(starts, ends, strict=True)), key=lambda found: found[0]
        )
        if gain <= NO_GAIN * scaled.size:
            break
        starts = sorted([*starts, cut])
    return np.array(starts, dtype=np.int64)


def _best_cut(sums: NDArray[np.float64], begin: int, end: int) -> tuple[float, int]:
    """Return by how much the best cut of [begin, end) lowers the squared error, and the timestep it is made before."""
    if end - begin < 2:
        return 0.0, begin
    cuts = np.arange(begin + 1, end)
    left, right = sums[cuts] - sums[begin], sums[end] - sums[cuts]  # (N, D)
    whole = ((sums[end] - sums[begin]) ** 2).sum() / (end - begin)
    gains = (left**2).sum(axis=1) / (cuts - begin) + (right**2).sum(axis=1) / (end - cuts) - whole  # (N,)
    best = int(gains.argmax())
    return float(gains[best]), int(cuts[best])
