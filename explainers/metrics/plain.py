"""Metrics of the attribution by itself: whether it adds up, how concentrated it is, and what it cost."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .base import Case, Computed, OfValues

ROUNDING = 1e-9  # of the numbers: a change below it is none


class Completeness(OfValues):
    """|f(x) - f(baseline) - sum of attributions|, as a share of |f(x) - f(baseline)|; of the explainer's own baseline.

    Where the baseline gives the input's number, as a share of the sum of the attributions' sizes.

    Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks", section 3 (completeness).
    """

    name = "completeness"
    source = "Sundararajan et al. 2017"
    range = (0.0, math.inf)
    direction = "lower"
    unit = "share"
    cannot = "Adding up is not being right: any values add up once what is missing is spread over them."

    def compute(self, case: Case) -> Computed:
        """Return the share of the change that is missing, (B,)."""
        found = case.attribution
        gap = np.abs(found.completeness_gap)
        change = np.abs(found.prediction - found.baseline_prediction)
        none = change <= ROUNDING * (np.abs(found.prediction) + np.abs(found.baseline_prediction))
        whole = np.where(none, np.abs(found.values).sum(axis=(1, 2), dtype=np.float64), change)
        return Computed(np.where(whole > 0, gap / np.where(whole > 0, whole, 1), 0.0))


class Gini(OfValues):
    """Gini index of the sizes of the parts' attributions: 0 where all are equal, near 1 where one has all.

    Source: Chalasani et al. 2020, "Concise Explanations of Neural Networks using Adversarial Training", section 4
    (after Hurley & Rickard 2009). The largest value of n parts is 1 - 1/n.
    """

    name = "gini"
    source = "Chalasani et al. 2020"
    range = (0.0, 1.0)
    direction = "none"
    unit = "share"
    cannot = "A short explanation is easier to read, not more right: one part picked at random is as sparse as can be."

    def compute(self, case: Case) -> Computed:
        """Return the index, (B,); 0 where all attributions are 0."""
        return Computed(np.array([_gini(np.abs(values)) for values in case.every()]))


class EffectiveParts(OfValues):
    """How many parts of equal size would be as spread out: exp of the entropy of the shares of the sizes.

    1 where one part has all, n where all n are equal, 0 where all are 0.

    Source: Hill 1973, "Diversity and evenness", the number of order 1.
    """

    name = "effective_parts"
    source = "Hill 1973"
    range = (0.0, math.inf)
    direction = "none"
    unit = "parts"
    cannot = "As gini: it tells of how many parts an explanation speaks, not whether they are the right ones."

    def compute(self, case: Case) -> Computed:
        """Return the number, (B,)."""
        return Computed(np.array([_effective(np.abs(values)) for values in case.every()]))


class Evaluations(OfValues):
    """Forward and backward evaluations of the model that the explanation took, a sample."""

    name = "evaluations"
    source = "counted by gatelens"
    range = (0.0, math.inf)
    direction = "lower"
    unit = "evaluations"
    cannot = "It counts rows through the model, not the work around them; and a batch may share some of its cost."

    def compute(self, case: Case) -> Computed:
        """Return the batch's cost, shared equally, (B,)."""
        attrs = case.attribution.attrs
        total = float(attrs["forward_evaluations"]) + float(attrs["backward_evaluations"])
        return Computed(np.full(len(case.attribution), total / len(case.attribution)))


class Seconds(OfValues):
    """Seconds that the explanation took, a sample."""

    name = "seconds"
    source = "measured by gatelens"
    range = (0.0, math.inf)
    direction = "lower"
    unit = "seconds"
    cannot = "It was measured once, on the machine and in the batch that explained, with whatever ran beside it."

    def compute(self, case: Case) -> Computed:
        """Return the batch's time, shared equally, (B,)."""
        count = len(case.attribution)
        return Computed(np.full(count, float(case.attribution.attrs["seconds"]) / count))


def _gini(sizes: NDArray[np.float64]) -> float:
    total, count = float(sizes.sum()), len(sizes)
    if total == 0:
        return 0.0
    weights = (count - np.arange(count) - 0.5) / count  # of the smallest first
    return float(1 - 2 * (np.sort(sizes) / total) @ weights)


def _effective(sizes: NDArray[np.float64]) -> float:
    shares = sizes[sizes > 0] / max(float(sizes.sum()), 1e-300)
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0
