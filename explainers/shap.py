"""SHAP's estimators over time: KernelSHAP on players, and expected gradients.

Source: Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions"; Erion et al. 2021, "Improving
performance of deep learning models with axiomatic attribution priors and expected gradients".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.state import seeded
from .base import Explainer, PlayerExplainer, check_positive
from .players import Game
from .problem import Contribution, Problem


class KernelSHAP(PlayerExplainer):
    """Shapley values of timesteps, segments, features or cells, by shap's weighted regression over coalitions.

    Exact (all 2^n coalitions) while 2^n - 2 <= samples; a least-squares estimate beyond. shap's default of keeping
    only ten players (l1_reg) is off, so every player gets its value.

    Args:
        model: Anything callable (see `Explainer`).
        players: "timestep", "segment", "feature" or "cell".
        background: Sequences (R, T, D) that stand for "absent", averaged over; None: the baseline. Costs R times more.
        samples: Coalitions evaluated a sample; None: shap's 2 n + 2048.
        segments: Number of segments, with players="segment".
        options: `baseline`, `output`, `task`, `seed` of `Explainer`.
    """

    name = "kernel_shap"
    summary = "Shapley values by weighted regression over coalitions"
    completeness = "exact"
    library = "shap"
    source = "Lundberg & Lee 2017"
    takes_background = True

    def __init__(self, model: Any, *, samples: int | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        if samples is not None:
            check_positive("samples", samples, least=10)
        self.samples = samples

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        import shap

        count = game.players.count
        with seeded(self.seed):  # shap draws from numpy's global generator
            kernel = shap.KernelExplainer(lambda z: game(z == 1), np.zeros((1, count)))
            values = kernel.shap_values(
                np.ones((1, count)),
                nsamples="auto" if self.samples is None else self.samples,
                l1_reg=False,
                silent=True,
            )
        return np.asarray(values, dtype=np.float64).reshape(count), {}


class GradientSHAP(Explainer):
    """Expected gradients: gradients at random points between the input and background sequences, by shap.

    Args:
        model: A torch module.
        background: Sequences (R, T, D) to start from; None: the baseline.
        samples: Random points a sample.
        options: `baseline`, `output`, `task`, `seed` of `Explainer`.

    The result carries the standard error of the sampling.
    """

    name = "gradient_shap"
    summary = "gradients at random points between background and input"
    completeness = "converges"
    needs = "gradient"
    library = "shap"
    source = "Erion et al. 2021"
    takes_background = True

    def __init__(self, model: Any, *, samples: int = 200, **options: Any) -> None:
        super().__init__(model, **options)
        check_positive("samples", samples, least=2)
        self.samples = samples

    def _attribute(self, problem: Problem) -> Contribution:
        import shap

        continuous = problem.continuous()
        values = np.zeros((*problem.inputs.shape[:2], problem.features))
        errors = np.zeros_like(values)
        batch_size = problem.predictor.batch_rows(continuous.inputs, copies=3)
        batch = len(problem.lengths)
        for sample in problem.track(range(batch), batch, self.name):
            length = int(problem.lengths[sample])
            references = self._references(problem, sample, length)
            inputs = continuous.inputs[sample : sample + 1, :length]  # (1, L, E)
            model = _ForShap(continuous.arguments(torch.tensor([sample])), continuous, length)
            with seeded(self.seed), problem.predictor.differentiation():
                gradients = shap.GradientExplainer(model, references, batch_size=batch_size)
                found, spread = gradients.shap_values(
                    inputs, nsamples=self.samples, rseed=self.seed, return_variances=True
                )
            attribution = np.asarray(found).reshape(length, -1)  # (L, E)
            # shap returns variance / sqrt(samples); the standard error of a mean is sqrt(variance / samples)
            squared = np.asarray(spread).reshape(length, -1) / np.sqrt(self.samples)  # (L, E)
            if problem.reads_tokens:
                attribution, squared = attribution.sum(1, keepdims=True), squared.sum(1, keepdims=True)
            values[sample, :length], errors[sample, :length] = attribution, np.sqrt(squared)
        return Contribution(values, std_error=errors)

    def _references(self, problem: Problem, sample: int, length: int) -> Tensor:
        """Return the start points in the space of gradients, (R, L, E)."""
        references = problem.references(sample)[:, :length]
        if problem.reads_tokens:
            with torch.no_grad():
                return problem.predictor.embedding()(references)  # type: ignore[no-any-return]
        return references


class _ForShap(torch.nn.Module):
    """The explained number as shap wants it: a module (N, L, E) -> (N, 1) that holds no parameters of the user's."""

    def __init__(self, arguments: tuple[Tensor, ...], continuous: Any, length: int) -> None:
        super().__init__()
        self._arguments = arguments
        self._forward = continuous.forward
        self._length = length
        self._dtype = continuous.inputs.dtype

    def forward(self, values: Tensor) -> Tensor:
        """Return (N, 1)."""
        count = values.shape[0]
        ids, output, timestep, _ = (part.expand(count, *part.shape[1:]) for part in self._arguments)
        lengths = torch.full((count,), self._length)
        scores = self._forward(values.to(self._dtype), ids[:, : self._length], output, timestep, lengths)
        return scores[:, None]  # type: ignore[no-any-return]
