"""SHAP's estimators over time: KernelSHAP on players, and expected gradients.

Source: Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions"; Erion et al. 2021, "Improving
performance of deep learning models with axiomatic attribution priors and expected gradients".
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError
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

    The result carries `players`, `coalitions` (how many were evaluated) and `exhaustive` (1 where these were all there
    are). The values always add up, also where they are a rough estimate: that they do proves nothing.
    """

    name = "kernel_shap"
    summary = "Shapley values by weighted regression over coalitions"
    completeness = linearity = "exact"
    missingness = symmetry = "converges"  # exact while all coalitions are evaluated
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
        if self.samples is not None and self.samples < min(2 * count, 2**count - 2):
            raise InvalidInputError(
                f"samples is {self.samples}, too few to tell {count} players apart; give {2 * count} or more, or "
                "explain fewer players, e.g. players='segment'."
            )
        problem, sample = game.problem, game.sample
        known = {1.0: problem.prediction[sample], 0.0: problem.baseline_prediction[sample]}

        def value(coalitions: NDArray[Any]) -> NDArray[np.float64]:
            if len(coalitions) == 1 and (coalitions == coalitions[0, 0]).all():  # all, or none
                return np.array([known[float(coalitions[0, 0])]])
            return game(coalitions == 1)

        # shap draws from numpy's global generator, and prints to standard output where the model raises
        with seeded(self.seed), contextlib.redirect_stdout(sys.stderr):
            kernel = shap.KernelExplainer(value, np.zeros((1, count)))
            values = kernel.shap_values(
                np.ones((1, count)),
                nsamples="auto" if self.samples is None else self.samples,
                l1_reg=False,
                silent=True,
            )
        every = 2**count - 2
        used = min(every, 2 * count + 2048 if self.samples is None else self.samples)
        diagnostics = {"players": count, "coalitions": used, "exhaustive": used == every}
        return np.asarray(values, dtype=np.float64).reshape(count), diagnostics


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
    dummy_player = missingness = symmetry = linearity = "exact"
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
        batch_size = problem.predictor.quick_rows(continuous.inputs, copies=3)
        batch = len(problem.lengths)
        for sample in problem.track(range(batch), batch, self.name):
            length = int(problem.lengths[sample])
            references = self._references(problem, sample, length)
            inputs = continuous.inputs[sample : sample + 1, :length]  # (1, L, E)
            model: torch.nn.Module = _ForShap(continuous.arguments(torch.tensor([sample])), continuous, length)
            if problem.reads_tokens:
                model = _Switched(model, references, inputs)
                references, inputs = model.begin, model.end  # (R, L + R), (1, L + R)
            if inputs.dtype not in (torch.float32, torch.float64):  # shap goes through numpy, which knows no bfloat16
                references, inputs = references.float(), inputs.float()
            with seeded(self.seed), problem.predictor.differentiation():
                gradients = shap.GradientExplainer(model, references, batch_size=batch_size)
                found, spread = gradients.shap_values(
                    inputs, nsamples=self.samples, rseed=self.seed, return_variances=True
                )
            cells = length * problem.features
            attribution = np.asarray(found).ravel()[:cells].reshape(length, -1)  # (L, D)
            # shap returns variance / sqrt(samples); the standard error of a mean is sqrt(variance / samples)
            squared = np.asarray(spread).ravel()[:cells].reshape(length, -1) / np.sqrt(self.samples)  # (L, D)
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


class _Switched(torch.nn.Module):
    """A model of embedded tokens (N, L, E) as one of L switches, each blending a reference's token into the input's.

    A token's gradient is then one number, so that its sampling variance is known; those of its embedding's parts vary
    together, and could not be added up. The R numbers behind the switches tell the reference: they begin one-hot.

    Attributes:
        begin: (R, L + R), switches 0.
        end: (1, L + R), switches 1.
    """

    def __init__(self, model: torch.nn.Module, references: Tensor, inputs: Tensor) -> None:
        super().__init__()
        self._model = model
        self._references = references  # (R, L, E)
        self._inputs = inputs  # (1, L, E)
        count, length = references.shape[:2]
        self.begin = torch.cat([references.new_zeros(count, length), torch.eye(count).to(references)], dim=1)
        self.end = torch.cat([references.new_ones(1, length), references.new_zeros(1, count)], dim=1)

    def forward(self, values: Tensor) -> Tensor:
        """Return (N, 1)."""
        length = self._inputs.shape[1]
        switches, which = values.to(self._inputs.dtype).split([length, values.shape[1] - length], dim=1)
        references = self._references[which.argmax(dim=1)]  # (N, L, E)
        return self._model(references + switches[..., None] * (self._inputs - references))  # type: ignore[no-any-return]
