"""Integrated gradients by captum, with internal batches and as many steps as completeness asks for.

Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models import InvalidInputError
from .base import Explainer, check_positive
from .problem import Continuous, Contribution, Problem

FIRST_STEPS = 64
MOST_STEPS = 1024
MOST_GIVEN_STEPS = 4096
COMPLETE_WITHIN = 0.005  # of |f(x) - f(baseline)|


class IntegratedGradients(Explainer):
    """The gradient, averaged along the straight line from the baseline to the input, times their difference.

    Args:
        model: A torch module.
        baseline: Where the line starts (see `resolve_baseline`).
        steps: Points of the Gauss-Legendre rule. None: 64, doubled for the samples whose sum still misses
            f(x) - f(baseline) by more than 0.5 %, up to 1,024.
        options: `output`, `task`, `seed` of `Explainer`.

    The result carries `steps`, the points used for each sample.
    """

    name = "integrated_gradients"
    summary = "average gradient on the way from the baseline to the input"
    completeness = "converges"
    needs = "gradient"
    library = "captum"
    source = "Sundararajan, Taly & Yan 2017"

    def __init__(self, model: Any, *, steps: int | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        if steps is not None:
            check_positive("steps", steps)
            if steps > MOST_GIVEN_STEPS:  # finding the points of the rule costs steps^3
                raise InvalidInputError(f"steps is {steps}; expected at most {MOST_GIVEN_STEPS}.")
        self.steps = steps

    def _attribute(self, problem: Problem) -> Contribution:
        continuous = problem.continuous()
        batch = len(problem.lengths)
        values = torch.zeros(batch, problem.inputs.shape[1], problem.features, dtype=continuous.inputs.dtype)
        used = np.zeros(batch)
        difference = torch.as_tensor(problem.prediction - problem.baseline_prediction)  # (B,)
        chunk = problem.predictor.batch_rows(continuous.inputs, copies=3)
        parts = torch.arange(batch).split(chunk)
        for part in problem.track(parts, len(parts), self.name):
            rows, steps = part, self.steps or FIRST_STEPS
            while True:
                values[rows] = _integrate(continuous, rows, steps, chunk).to(values)
                used[rows.numpy()] = steps
                missing = (difference[rows] - values[rows].double().sum((1, 2))).abs()
                rows = rows[missing > COMPLETE_WITHIN * difference[rows].abs()]
                steps *= 2
                if self.steps is not None or steps > MOST_STEPS or len(rows) == 0:
                    break
        return Contribution(values, diagnostics={"steps": used})


def _integrate(continuous: Continuous, rows: Tensor, steps: int, chunk: int) -> Tensor:
    """Return the integrated gradients (N, T, D) of the samples in `rows`."""
    from captum.attr import IntegratedGradients as CaptumIntegratedGradients

    problem = continuous.problem
    with problem.predictor.differentiation():
        attribution = CaptumIntegratedGradients(continuous.forward).attribute(
            continuous.inputs[rows],
            baselines=continuous.baseline[rows],
            additional_forward_args=continuous.arguments(rows),
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(chunk, len(rows)),
        )
    return continuous.to_input_space(attribution.detach())
