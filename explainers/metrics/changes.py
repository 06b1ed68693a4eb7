"""Whether attributions say what the model does when parts are taken away: random subsets, or one part at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models import InvalidInputError
from ..base import check_positive
from ..players import CoalitionMatrix
from .base import OfCoalitions, Row
from .masking import checked_shares
from .ranking import pearson, rank_correlation, without_noise

ROUNDING = 1e-6  # of the largest change: below it the order is that of rounding


class SensitivityN(OfCoalitions):
    """Correlation between the attribution of a random subset and the change when the subset is replaced.

    Source: Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods for deep neural
    networks", section 3.4; the mean over several sizes n of the subset, each a share of the parts.

    Args:
        shares: Sizes of the subsets, each between 0 and 1.
        subsets: Random subsets of each size, the same for every explainer.

    Its details are the correlation (Pearson) at each size; 0 where one side does not vary.
    """

    name = "sensitivity_n"
    source = "Ancona et al. 2018"
    range = (-1.0, 1.0)
    direction = "higher"
    unit = "correlation"
    detail = "share"
    cannot = (
        "It asks for a sum of parts, so what parts only do together counts against every explainer; and it does not "
        "see a wrong scale."
    )

    def __init__(self, shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7), subsets: int = 50) -> None:
        self.shares = checked_shares(shares, most=1.0)
        check_positive("subsets", subsets, least=2)
        self.subsets = subsets

    def labels(self) -> list[Any]:
        """Return the shares."""
        return list(self.shares)

    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (shares x subsets, n)."""
        generator, count = row.generator(self.name), len(row)
        sizes = [min(max(round(share * count), 1), max(count - 1, 1)) for share in self.shares]
        rank = generator.permuted(np.tile(np.arange(count), (len(sizes) * self.subsets, 1)), axis=1)
        return np.asarray(rank >= np.repeat(sizes, self.subsets)[:, None])

    def details(self, row: Row, coalitions: CoalitionMatrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the correlation at each size, (shares,)."""
        sums = (~coalitions @ row.values).reshape(-1, self.subsets)
        changes = (row.full - numbers).reshape(-1, self.subsets)
        return np.array([pearson(one, other) for one, other in zip(sums, changes, strict=True)])


class Monotonicity(OfCoalitions):
    """Rank correlation between the size of a part's attribution and the size of the change when it alone is replaced.

    Source: Nguyen & Martinez 2020, "On quantitative aspects of model interpretability", section 3.2 (there the mean
    squared change over random replacements; here the replacement is the baseline, and several baselines are averaged).
    Arya et al. 2019 call another thing monotonicity: whether adding parts in order of importance always raises a
    class's probability.

    0 where one side does not vary, or there are fewer than three parts.
    """

    name = "monotonicity"
    source = "Nguyen & Martinez 2020"
    range = (-1.0, 1.0)
    direction = "higher"
    unit = "correlation"
    cannot = (
        "It takes one part away at a time: parts that stand in for one another seem to do nothing, and occlusion, "
        "which does the same, is always best."
    )

    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (n, n), all but one."""
        return ~np.eye(len(row), dtype=bool)

    def details(self, row: Row, coalitions: CoalitionMatrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rank correlation, (1,)."""
        del coalitions
        change = without_noise(np.abs(row.full - numbers), ROUNDING)
        return np.array([rank_correlation(np.abs(row.values), change) or 0.0])


class Infidelity(OfCoalitions):
    """Mean squared difference between the attribution of a random subset and the change when the subset is replaced.

    Computed by `captum.metrics.infidelity`, with a random subset of the parts as the perturbation: how many are
    replaced is drawn evenly from 1 to all, and which ones too.

    Source: Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", definition 2.1 and proposition 2.1.

    Args:
        subsets: Random subsets, the same for every explainer.
        normalize: Whether the attribution may be multiplied by the number that fits best (captum's `normalize`), as in
            the paper's comparisons: values that are not in units of the explained number can then be compared.
    """

    name = "infidelity"
    source = "Yeh et al. 2019, by captum"
    range = (0.0, math.inf)
    direction = "lower"
    unit = "squared explained number"
    cannot = (
        "It asks for a sum of parts, so what parts only do together counts against every explainer; it is in squared "
        "units of this model, not comparable with another's."
    )

    def __init__(self, subsets: int = 100, *, normalize: bool = True) -> None:
        check_positive("subsets", subsets)
        if not isinstance(normalize, bool):
            raise InvalidInputError(f"normalize is {normalize!r}; expected True or False.")
        self.subsets = subsets
        self.normalize = normalize

    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (subsets, n)."""
        generator, count = row.generator(self.name), len(row)
        rank = generator.permuted(np.tile(np.arange(count), (self.subsets, 1)), axis=1)
        return np.asarray(rank >= generator.integers(1, count + 1, size=self.subsets)[:, None])

    def details(self, row: Row, coalitions: CoalitionMatrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return captum's infidelity, (1,)."""
        from captum.metrics import infidelity

        numbers_of = {kept.tobytes(): number for kept, number in zip(coalitions, numbers, strict=True)}
        numbers_of[np.ones(len(row), dtype=bool).tobytes()] = row.full
        kept = torch.as_tensor(coalitions, dtype=torch.float64)  # (N, n)

        def forward(inputs: Tensor) -> Tensor:
            return torch.tensor([numbers_of[part.tobytes()] for part in inputs.numpy() > 0.5], dtype=torch.float64)

        found = infidelity(
            forward,
            lambda _: (1 - kept, kept),
            torch.ones(1, len(row), dtype=torch.float64),
            torch.as_tensor(row.values)[None],
            n_perturb_samples=len(kept),
            normalize=self.normalize,
        )
        return np.asarray(found.clamp(min=0).numpy())  # captum expands the square
