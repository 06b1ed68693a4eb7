"""A random attribution, to see which numbers an explanation that knows nothing gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..attribution import Attribution
from .ranking import random_numbers

RANDOM = "random"
KEPT = ("input", "baseline", "prediction", "baseline_prediction", "length", "target_output", "target_timestep",
        "target_last", "scores", "timestamp", "token")  # fmt: skip


def random_reference(attribution: Attribution, seed: int = 0) -> Attribution:
    """Return an attribution of the same predictions that knows nothing: normal numbers, each part's its own.

    It tells the same parts apart (a random number a timestep where timesteps alone are known), and each sample's sizes
    have the sum that they have in `attribution`.

    Args:
        attribution: Of the predictions.
        seed: Of the random numbers, which also depend on each sample's input.

    Example:
        >>> measure(model, {**found, "random": random_reference(found["deeplift"])})
    """
    values = random_values(attribution, seed)
    total = np.abs(attribution.values).sum(axis=(1, 2), dtype=np.float64)
    values *= (np.where(total > 0, total, 1) / np.abs(values).sum(axis=(1, 2)))[:, None, None]
    dataset = attribution.dataset[[name for name in KEPT if name in attribution.dataset]].copy(deep=True)
    gap = attribution.prediction - attribution.baseline_prediction - values.sum(axis=(1, 2))
    dataset = dataset.assign(attribution=(("sample", "time", "feature"), values), completeness_gap=("sample", gap))
    resolution = "timestep" if attribution.resolution == "segment" else attribution.resolution
    dataset.attrs |= {
        "method": RANDOM, "options": "{}", "completeness": "none",
        "measures": "contribution", "resolution": resolution, "source": "", "seed": seed, "seconds": 0.0,
        "forward_evaluations": 0, "backward_evaluations": 0,
    }  # fmt: skip
    return Attribution(dataset)


def random_values(attribution: Attribution, seed: int) -> NDArray[np.float64]:
    """Return normal numbers (B, T, D), 0 at padding, one a part that the attribution tells apart."""
    batch, steps, features = attribution.values.shape
    values = np.zeros((batch, steps, features))
    for sample, length in enumerate(attribution.lengths):
        shape = {"cell": (length, features), "feature": (1, features)}.get(attribution.resolution, (length, 1))
        values[sample, :length] = random_numbers(attribution, sample, seed, RANDOM).standard_normal(shape)
    return values
