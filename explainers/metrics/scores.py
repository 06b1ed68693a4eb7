"""`Scores`: what a metric says of one explainer, a number a sample, with the samples' mean and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["higher", "lower", "none"]

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Scores:
    """The values of one metric for one explainer.

    Attributes:
        name: The metric.
        direction: "higher" or "lower" is better, or "none": it describes.
        values: (B,), one a sample; of several baselines their mean.
        cannot: What the metric cannot tell.
        seed: Of the bootstrap.
        each: Baseline -> its own scores, where the metric depends on a baseline.
    """

    name: str
    direction: Direction
    values: NDArray[np.float64]
    cannot: str = ""
    seed: int = 0
    each: Mapping[str, Scores] = field(default_factory=dict)

    def __repr__(self) -> str:
        interval = self.interval
        between = "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"
        return f"Scores({self.name}: {self.mean:.3g}{between}, {len(self.values)} samples)"

    @property
    def mean(self) -> float:
        """The mean over samples."""
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float] | None:
        """Between which numbers the mean lies, 95 % bootstrap over samples; None for a single sample."""
        return bootstrap_interval(self.values, seed=self.seed)


def bootstrap_interval(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of the mean of values (B,); None where B is 1.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    count = len(values)
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    means = np.array([values[generator.integers(count, size=count)].mean() for _ in range(DRAWS)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
