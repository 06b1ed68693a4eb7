"""How far explainers agree about the same predictions: ranks, and the largest parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from ..attribution import Attribution
from ..players import Players
from .base import Case, Computed, OfValues, Unit
from .predictions import check_same_predictions
from .ranking import (
    Parts,
    choose_parts,
    descending,
    kendall,
    largest_count,
    part_values,
    random_numbers,
    rank_correlation,
    without_noise,
)
from .reference import RANDOM

if TYPE_CHECKING:
    import xarray as xr

MEASURES = ("spearman", "kendall", "top_k")
_CANNOT = (
    "Explainers can agree and all be wrong, the more so the more alike they are made; and a sensitivity need not agree "
    "with a contribution."
)


class Agreement(OfValues):
    """Mean rank correlation (Spearman) with what each other explainer says; random references are left out.

    What is below 1 % of an explainer's largest part counts as 0. Where a correlation is not defined (fewer than three
    parts, or all the same) it is 1 for the same values and 0 for others.

    Source: Krishna et al. 2022, "The Disagreement Problem in Explainable Machine Learning", section 3.
    """

    name = "agreement"
    source = "Krishna et al. 2022"
    range = (-1.0, 1.0)
    direction = "none"
    unit: ClassVar[Unit] = "correlation"
    cannot = _CANNOT
    measure: ClassVar[str] = "spearman"

    def compute(self, case: Case) -> Computed:
        """Return the mean over the other explainers, (B,)."""
        others = [other for name, other in case.attributions.items() if name != case.name and other.method != RANDOM]
        if not others:
            raise InvalidInputError(f"{self.name} compares explainers, and there is only one; pass two or more.")
        alike = [_alike(case.attribution, other, case.parts, self.measure, case.predictions.seed) for other in others]
        return Computed(np.mean(alike, axis=0))


class AgreementKendall(Agreement):
    """The same by Kendall's tau-b: the share of pairs of parts in the same order, minus that in the other.

    Source: Krishna et al. 2022, section 3 (pairwise rank agreement).
    """

    name = "agreement_kendall"
    measure = "kendall"


class AgreementTopK(Agreement):
    """Mean share of the largest parts that each other explainer has among its largest too.

    The largest are a tenth of the parts, 1 to 10 of them; equal parts are taken in one random order, the same for all.

    Source: Krishna et al. 2022, section 3 (feature agreement).
    """

    name = "agreement_top_k"
    range = (0.0, 1.0)
    unit = "share"
    measure = "top_k"


def agreement(attributions: Mapping[str, Attribution], *, parts: Parts | None = None, seed: int = 0) -> xr.Dataset:
    """Return how far every two explainers agree, prediction by prediction.

    Args:
        attributions: Name -> result, of the same predictions.
        parts: "timestep", "cell" or "feature"; None: timesteps, or features where some explainer knows these alone.
        seed: Of the order of equal parts.

    Returns:
        "spearman", "kendall" and "top_k" (explainer, other, sample), as the metrics of these names define them.

    Raises:
        InvalidInputError: The attributions are of different predictions, or tell different parts apart.
    """
    import xarray as xr

    if not attributions:
        raise InvalidInputError("there is no attribution; pass name -> attribution.")
    check_same_predictions(attributions)
    chosen = choose_parts(attributions, parts)
    names = list(attributions)
    found = {
        measure: [
            [_alike(one, other, chosen, measure, seed) for other in attributions.values()]
            for one in attributions.values()
        ]
        for measure in MEASURES
    }
    samples = list(next(iter(attributions.values())).sample_names)
    dims = ("explainer", "other", "sample")
    return xr.Dataset(
        {measure: (dims, np.array(values)) for measure, values in found.items()},
        {"explainer": names, "other": names, "sample": samples},
        {"parts": chosen, "seed": seed},
    )


def _alike(one: Attribution, other: Attribution, parts: Parts, measure: str, seed: int) -> NDArray[np.float64]:
    """Return how alike two results are, (B,)."""
    found = np.zeros(len(one))
    for sample, length in enumerate(one.lengths):
        players = Players.make(parts, int(length), one.values.shape[2])
        left, right = (without_noise(part_values(result, sample, players)) for result in (one, other))
        if measure == "top_k":
            count = largest_count(len(left))
            tops = [
                descending(np.abs(values), random_numbers(one, sample, seed, "ties"))[:count]
                for values in (left, right)
            ]
            found[sample] = len(set(tops[0]) & set(tops[1])) / count
            continue
        correlation = (rank_correlation if measure == "spearman" else kendall)(left, right)
        same = float(np.allclose(left, right, rtol=1e-6, atol=0))
        found[sample] = same if correlation is None else correlation
    return found
