"""What each cell gives to the score of a `RETAIN`: read off the model itself, exact, in one pass.

Source: Choi, Bahadori, Sun, Kulas, Schuetz & Stewart 2016, "RETAIN: An Interpretable Predictive Model for Healthcare
using Reverse Time Attention Mechanism", section 2.3 and equation 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..models import InvalidInputError, ModelError
from ..models.retain import RETAIN
from .base import Explainer
from .problem import Contribution, Problem


class RetainContributions(Explainer):
    """The contribution of each timestep and feature that RETAIN's attentions leave it with.

    With baseline "zero", the default, a sample's contributions sum to its score less the head's bias, which is the
    score of a sequence of zeros (of token ids: of padding). With another baseline they are what the sequence's cells
    give less what the baseline's do, and sum to f(x) - f(baseline), as exactly. The attentions themselves count as
    given: that a value also moved the weights of other timesteps is told by no cell.

    Args:
        model: A `RETAIN`.
        options: `baseline`, `task`, `seed` of `Explainer`.

    Raises:
        ModelError: The model is another.
        InvalidInputError: output="probability".
    """

    name = "retain"
    summary = "what each cell gives to the score of a RETAIN, by its own two attentions"
    completeness = "exact"
    dummy_player = symmetry = linearity = "exact"
    needs = "retain"
    source = "Choi et al. 2016"

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        self._retain()
        if self.predictor.output == "probability":
            raise InvalidInputError(
                "retain takes the raw score apart, and has no rule for the sigmoid or softmax behind it; pass "
                "output='logit' (--output logit on the command line). Explainers of probabilities: "
                "integrated_gradients, kernel_shap, lime."
            )

    def _retain(self) -> RETAIN:
        module = self.predictor.module
        if isinstance(module, RETAIN):
            return module
        raise ModelError(
            f"retain explains a RETAIN, and this model is a {type(module).__name__}, whose score is no sum over cells. "
            "Explainers with exact sums for an LSTMModel: deeplift, temporal_shapley; for any torch module: "
            "integrated_gradients."
        )

    def _attribute(self, problem: Problem) -> Contribution:
        model, predictor = self._retain(), problem.predictor
        values = torch.zeros(*problem.inputs.shape[:2], problem.features, dtype=torch.float64)
        parts = list(predictor.batches(problem.inputs))
        with torch.no_grad():
            for rows in problem.track(parts, len(parts), self.name):
                lengths, outputs = problem.lengths[rows], problem.target.output[rows]
                own, other = (
                    model.contributions(given[rows], lengths, output=outputs)
                    for given in (problem.inputs, problem.baseline)
                )
                predictor.forward_evaluations += 2 * len(rows)
                values[rows] = (own - other).to(values)
        self._check(problem, values.sum(dim=(1, 2)).numpy())
        return Contribution(values)

    def _check(self, problem: Problem, sums: Any) -> None:
        """Refuse a model whose forward pass is not RETAIN's own (a subclass, a hook)."""
        explained = problem.prediction - problem.baseline_prediction
        largest = max(1.0, float(np.abs(problem.prediction).max()), float(np.abs(problem.baseline_prediction).max()))
        off = float(np.abs(sums - explained).max())
        if off > 1e-3 * largest:
            raise ModelError(
                f"retain computes contributions from the model's weights, and they miss its scores by up to {off:.2g}: "
                "its forward pass does something else. Explainers that take any module: integrated_gradients, "
                "kernel_shap, lime."
            )
