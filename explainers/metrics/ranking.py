"""Attributions as rankings of parts: the parts they have in common, their order, and how alike two orders are."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from ...models.errors import nearest_name
from ..attribution import Attribution
from ..players import Players

Parts = Literal["timestep", "cell", "feature"]

NOISE = 0.01  # of the largest attribution
MOST_COMPARED = 10  # of the largest parts
TENTH = 10  # of all parts, at most, are among the largest


def choose_parts(attributions: Mapping[str, Attribution], parts: Parts | None) -> Parts:
    """Return what is ranked: what was asked for, or timesteps, or features where some explainer knows these alone.

    Raises:
        InvalidInputError: An explainer does not tell these parts apart.
    """
    if parts is not None and parts not in get_args(Parts):
        raise InvalidInputError(f"parts is {parts!r}; {nearest_name(str(parts), get_args(Parts))}")
    tokens = next(iter(attributions.values())).of_tokens
    if parts is None:
        in_time = all(attribution.resolves_time for attribution in attributions.values())
        parts = "timestep" if in_time else "feature"
    if tokens:
        if parts == "feature":
            raise InvalidInputError("parts='feature' has no meaning for token ids; use 'timestep'.")
        return "timestep"
    known = {"timestep": ("cell", "timestep", "segment"), "feature": ("cell", "feature"), "cell": ("cell",)}[parts]
    for name, attribution in attributions.items():
        if attribution.resolution not in known:
            raise InvalidInputError(
                f"{name} explained by {attribution.resolution}, which does not tell parts={parts!r} apart; measure it "
                "by itself, or explain with other players, e.g. players='cell'."
            )
    return parts


def part_values(attribution: Attribution, sample: int, players: Players) -> NDArray[np.float64]:
    """Return the attribution (n,) of each part of a sample, the sum over its cells; padding belongs to none."""
    labels = players.labels  # (L, D)
    cells = attribution.values[sample, : len(labels)].astype(np.float64)
    return np.bincount(labels.ravel(), weights=cells.ravel(), minlength=players.count).astype(np.float64)


def random_numbers(attribution: Attribution, sample: int, seed: int, purpose: str) -> np.random.Generator:
    """Return random numbers that depend on the seed, the sample's input and the purpose alone, not on the explainer."""
    valid = np.ascontiguousarray(attribution.inputs[sample, : int(attribution.lengths[sample])])
    return np.random.default_rng([seed, zlib.crc32(valid.tobytes()), zlib.crc32(purpose.encode())])


def descending(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the parts (n,), the largest value first; equal ones in a random order that only the generator decides."""
    shuffled = generator.permutation(len(values))
    return np.asarray(shuffled[np.argsort(-values[shuffled], kind="stable")])


def largest_count(parts: int) -> int:
    """Return how many of the largest parts are compared: a tenth of all, 1 to 10."""
    return max(1, min(MOST_COMPARED, -(-parts // TENTH)))


def without_noise(values: NDArray[Any], share: float = NOISE) -> NDArray[Any]:
    """Return values with those below a share of the largest set to 0: their order is rounding, not opinion."""
    return np.where(np.abs(values) < share * np.abs(values).max(initial=0), 0, values)


def rank_correlation(left: NDArray[Any], right: NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation; None where one side does not vary or there are fewer than three values."""
    from scipy.stats import spearmanr

    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(spearmanr(left, right).statistic)


def kendall(left: NDArray[Any], right: NDArray[Any]) -> float | None:
    """Return Kendall's tau-b, under the same conditions."""
    from scipy.stats import kendalltau

    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(kendalltau(left, right).statistic)


def likeness(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Return the rank correlation; where there is none, 1 for the same values and 0 for others."""
    correlation = rank_correlation(left, right)
    return float(np.allclose(left, right, rtol=1e-6, atol=0)) if correlation is None else correlation


def pearson(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return Pearson's correlation; 0 where one side does not vary beyond rounding."""
    if any(np.ptp(side) <= 1e-9 * np.abs(side).max(initial=0) for side in (left, right)):
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
