"""Attributions with values of our own, of real predictions, for the tests of metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gatelens.explainers import Attribution, Occlusion
from helpers.explained import Linear


def with_values(attribution: Attribution, values: Any, **attrs: Any) -> Attribution:
    """Return the attribution with other values (B, T, D), 0 at padding, and attrs."""
    steps = attribution.values.shape[1]
    valid = np.arange(steps) < attribution.lengths[:, None]
    cells = np.where(valid[..., None], np.broadcast_to(values, attribution.values.shape), 0.0).astype(np.float64)
    gap = attribution.prediction - attribution.baseline_prediction - cells.sum(axis=(1, 2))
    dataset = attribution.dataset.assign(
        attribution=(("sample", "time", "feature"), cells), completeness_gap=("sample", gap)
    )
    return Attribution(dataset.assign_attrs(resolution="cell", **attrs))


def linear(contributions: Any, *, batch: int = 1) -> tuple[Linear, Attribution]:
    """Return a model (float64) of inputs that are all 1 and give these contributions (T, D), and their attribution."""
    weight = torch.tensor(contributions, dtype=torch.float64)
    model = Linear(weight).double()
    inputs = torch.ones(batch, *weight.shape, dtype=torch.float64)
    return model, Occlusion(model, players="cell").explain(inputs)
