"""An explainer that another package brings: how the prediction moves as the timesteps arrive.

The value of timestep t is f(first t timesteps, then the baseline) - f(first t - 1 timesteps, then the baseline). The
values add up to f(x) - f(baseline) exactly, because all but the ends cancel.
"""

from __future__ import annotations

import numpy as np
import torch

from gatelens.explainers import Contribution, Explainer, Problem


class PrefixDifference(Explainer):
    """Differences of the prediction as timesteps are read one after the other; T + 1 evaluations a sample."""

    name = "prefix_difference"
    summary = "how the prediction moves as the timesteps arrive"
    completeness = dummy_player = missingness = linearity = "exact"  # not symmetry: the order decides
    needs = "function"

    def _attribute(self, problem: Problem) -> Contribution:
        batch, steps = problem.inputs.shape[:2]
        values = np.zeros((batch, steps, problem.features))
        for sample in problem.track(range(batch), batch, self.name):
            length = int(problem.lengths[sample])
            inputs, baseline = problem.inputs[sample, :length], problem.baseline[sample, :length]  # (L, D) or (L,)
            arrived = torch.ones(length + 1, length, dtype=torch.bool).tril(-1)  # (L + 1, L): row t has the first t
            arrived = arrived.view(length + 1, length, *[1] * (inputs.ndim - 1)).to(inputs.device)
            moves = np.diff(problem.evaluate(torch.where(arrived, inputs, baseline), sample))  # (L,)
            values[sample, :length] = moves[:, None] / problem.features
        return Contribution(values, resolution="timestep")
