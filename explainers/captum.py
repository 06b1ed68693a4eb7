"""Gradient methods by captum: integrated gradients, saliency, input x gradient, SmoothGrad.

captum is called in batches that fit the predictor's budget. Token ids are explained at what comes out of their
embedding, and summed over its width.
Sources: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks"; Simonyan, Vedaldi & Zisserman 2014,
"Deep Inside Convolutional Networks"; Shrikumar et al. 2016, "Not Just a Black Box"; Smilkov et al. 2017, "SmoothGrad".
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models import InvalidInputError
from ..models.state import seeded
from .base import Completeness, Explainer, check_positive
from .problem import Continuous, Contribution, Problem

FIRST_STEPS = 64
MOST_STEPS = 1024
MOST_GIVEN_STEPS = 4096
COMPLETE_WITHIN = 0.005  # of |f(x) - f(baseline)|

NOISY_AT_ONCE = 25  # draws a pass, whatever the budget allows beyond: how many are drawn at once changes what is drawn


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
    dummy_player = missingness = symmetry = "exact"
    linearity = "converges"  # each output takes the steps that its own sum asks for
    needs = "gradient"
    concurrent = True
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
        chunk = problem.predictor.quick_rows(continuous.inputs, copies=3)
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


class _OneGradient(Explainer):
    """A method that differentiates once, at the input itself; a subclass writes `_differentiate`."""

    dummy_player = symmetry = linearity = "exact"
    needs = "gradient"
    concurrent = True
    library = "captum"

    def _attribute(self, problem: Problem) -> Contribution:
        continuous = problem.continuous()
        batch = len(problem.lengths)
        values = torch.zeros(batch, problem.inputs.shape[1], problem.features, dtype=continuous.inputs.dtype)
        parts = torch.arange(batch).split(problem.predictor.quick_rows(continuous.inputs, copies=3))
        for rows in problem.track(parts, len(parts), self.name):
            inputs = continuous.inputs[rows].requires_grad_()  # (N, T, E)
            with problem.predictor.differentiation():
                attribution = self._differentiate(continuous, inputs, continuous.arguments(rows))
            values[rows] = continuous.to_input_space(attribution.detach()).to(values)
        return Contribution(values)

    @abstractmethod
    def _differentiate(self, continuous: Continuous, inputs: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        """Return captum's attribution (N, T, E) of inputs (N, T, E)."""


class Saliency(_OneGradient):
    """The gradient of the explained number: by how much it changes for one unit of change of a cell.

    A sensitivity, not a contribution: it is in units of the explained number for one unit of the input, and knows no
    baseline. Of a token it is the sum over its embedding.

    Args:
        model: A torch module.
        absolute: True (captum's default): the size of each gradient, 0 or more. False: with its sign; positive where a
            larger value of the cell would raise the explained number.
        options: `baseline` (for the completeness line only), `output`, `task`, `seed` of `Explainer`.
    """

    name = "saliency"
    measures = "sensitivity"
    summary = "gradient of the explained number, its size alone or with its sign"
    source = "Simonyan, Vedaldi & Zisserman 2014"

    def __init__(self, model: Any, *, absolute: bool = True, **options: Any) -> None:
        super().__init__(model, **options)
        _check_flag("absolute", absolute)
        self.absolute = absolute

    @property
    def linearity(self) -> Completeness:  # type: ignore[override]
        """Sizes of gradients are not those of a sum."""
        return "none" if self.absolute else "exact"

    def _differentiate(self, continuous: Continuous, inputs: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        from captum.attr import Saliency as CaptumSaliency

        saliency = CaptumSaliency(continuous.forward)
        found: Tensor = saliency.attribute(inputs, abs=self.absolute, additional_forward_args=arguments)
        return found


class InputXGradient(_OneGradient):
    """Each cell's value times its gradient: what a straight continuation of the model down to 0 would give it.

    Gradients only: it is always relative to 0, whatever the baseline; on a linear model it then adds up exactly.

    Args:
        model: A torch module.
        options: `baseline` (for the completeness line only), `output`, `task`, `seed` of `Explainer`.
    """

    name = "input_x_gradient"
    summary = "value of each cell times its gradient"
    source = "Shrikumar et al. 2016"

    def _differentiate(self, continuous: Continuous, inputs: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        from captum.attr import InputXGradient as CaptumInputXGradient

        product = CaptumInputXGradient(continuous.forward)
        found: Tensor = product.attribute(inputs, additional_forward_args=arguments)
        return found


class SmoothGrad(Explainer):
    """The gradient, averaged over noisy copies of the input: captum's NoiseTunnel around its Saliency.

    The noise of a feature is normal, with a standard deviation of `noise` times the feature's range (largest minus
    smallest value) over the sequence's own valid timesteps: a feature that stays constant gets none. Of tokens the
    embedding gets it, with the range of all its numbers in the sequence. Each sample draws as if it were alone.

    Args:
        model: A torch module.
        samples: Noisy copies a sample.
        noise: Standard deviation, as a part of the range; the paper advises 0.1 to 0.2.
        absolute: Average the sizes of the gradients, not the gradients with their signs (the paper's, and default).
        options: `baseline` (for the completeness line only), `output`, `task`, `seed` of `Explainer`.
    """

    name = "smooth_grad"
    measures = "sensitivity"
    summary = "gradient averaged over noisy copies of the input"
    dummy_player = "exact"
    symmetry = "converges"
    needs = "gradient"
    library = "captum"
    source = "Smilkov et al. 2017"

    def __init__(
        self, model: Any, *, samples: int = 50, noise: float = 0.15, absolute: bool = False, **options: Any
    ) -> None:
        super().__init__(model, **options)
        check_positive("samples", samples)
        if isinstance(noise, bool) or not (isinstance(noise, (int, float)) and 0 < noise < math.inf):
            raise InvalidInputError(f"noise is {noise!r}; expected a positive number, a part of the feature's range.")
        _check_flag("absolute", absolute)
        self.samples = samples
        self.noise = noise
        self.absolute = absolute

    @property
    def linearity(self) -> Completeness:  # type: ignore[override]
        """Sizes of gradients are not those of a sum."""
        return "none" if self.absolute else "exact"

    def _attribute(self, problem: Problem) -> Contribution:
        continuous = problem.continuous()
        batch = len(problem.lengths)
        values = torch.zeros(batch, problem.inputs.shape[1], problem.features, dtype=continuous.inputs.dtype)
        for sample in problem.track(range(batch), batch, self.name):
            length = int(problem.lengths[sample])
            attribution = self._smooth(continuous, sample, length)  # (1, L, E)
            values[sample, :length] = continuous.to_input_space(attribution)[0].to(values)
        return Contribution(values)

    def _smooth(self, continuous: Continuous, sample: int, length: int) -> Tensor:
        """Return the mean gradient (1, L, E) of one sample."""
        from captum.attr import NoiseTunnel
        from captum.attr import Saliency as CaptumSaliency

        problem = continuous.problem
        inputs = continuous.inputs[sample : sample + 1, :length]  # (1, L, E)
        # captum takes one standard deviation an input, so each feature is an input of its own
        parts = (inputs,) if problem.reads_tokens else inputs.split(1, dim=2)  # (1, L, E) or D times (1, L, 1)
        ids, output, timestep, lengths = continuous.arguments(torch.tensor([sample]))

        def forward(*arguments: Tensor) -> Tensor:
            joined = torch.cat(arguments[: len(parts)], dim=2).to(inputs.dtype)  # captum's noise is float32
            return continuous.forward(joined, *arguments[len(parts) :])

        with seeded(self.seed), problem.predictor.differentiation():
            attribution = NoiseTunnel(CaptumSaliency(forward)).attribute(
                parts,
                nt_type="smoothgrad",
                nt_samples=self.samples,
                nt_samples_batch_size=min(NOISY_AT_ONCE, problem.predictor.batch_rows(inputs, copies=3)),
                stdevs=tuple(self.noise * float(part.max() - part.min()) for part in parts),
                abs=self.absolute,
                additional_forward_args=(ids[:, :length], output, timestep, lengths),
            )
        return torch.cat(attribution, dim=2).detach()


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} is {value!r}; expected True or False.")
