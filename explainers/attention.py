"""Attention weights of a model that pools by attention: where it looked, not what that did.

Sources: Bahdanau, Cho & Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate"; Luong,
Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation"; on what the weights do and do
not explain: Jain & Wallace 2019, "Attention is not Explanation".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..models import LSTMModel, ModelError, Predictor
from ..models.pooling import WeightedPooling
from .base import Explainer
from .problem import Contribution, Problem


class Attention(Explainer):
    """The attention weight of each timestep; over a sequence they sum to 1.

    A weight has no sign and no unit of the explained number, is the same for every target and baseline, and belongs to
    the hidden state of a timestep, which has read the timesteps before it too (both ways in a bidirectional model). It
    is shared equally by the timestep's features (resolution "timestep").

    Args:
        model: An `LSTMModel` with pooling "attention" (additive) or "dot_attention" (dot-product).
        options: `baseline` (for the completeness line only), `output`, `task`, `seed` of `Explainer`.

    Raises:
        ModelError: The model is another, or pools in another way.
    """

    name = "attention"
    measures = "sensitivity"
    summary = "attention weights of the timesteps, for models that pool by attention"
    completeness = "none"
    symmetry = "exact"
    needs = "attention"
    source = "Bahdanau, Cho & Bengio 2015; Luong, Pham & Manning 2015"

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        attention_pooling(self.predictor)

    def _attribute(self, problem: Problem) -> Contribution:
        batch, steps = problem.inputs.shape[:2]
        weights = torch.zeros(batch, steps, dtype=torch.float64)
        parts = list(problem.predictor.batches(problem.inputs))
        with torch.no_grad():
            for rows in problem.track(parts, len(parts), self.name):
                with _weights_of(attention_pooling(problem.predictor)) as found:
                    problem.predictor.scores(problem.inputs[rows], problem.lengths[rows])
                weights[rows] = found[0].to(weights)
        shared = weights[..., None] / problem.features  # (B, T, 1)
        return Contribution(shared.expand(-1, -1, problem.features), resolution="timestep")


def attention_pooling(predictor: Predictor) -> WeightedPooling:
    """Return the pooling of a model that pools by attention.

    Raises:
        ModelError: It does not.
    """
    module = predictor.module
    if isinstance(module, LSTMModel) and isinstance(module.pooling, WeightedPooling):
        return module.pooling
    what = (
        f"is an LSTMModel with pooling {module.config.pooling!r}"
        if isinstance(module, LSTMModel)
        else (f"is a {type(module).__name__}")
    )
    raise ModelError(
        f"attention explains an LSTMModel with pooling='attention' or 'dot_attention', and this model {what}, without "
        "weights. "
        "Explainers of timesteps that work on it: kernel_shap, occlusion, integrated_gradients, lime."
    )


@contextmanager
def _weights_of(pooling: WeightedPooling) -> Iterator[list[Tensor]]:
    """Collect the weights (N, T) of each call of the pooling."""
    found: list[Tensor] = []

    def keep(_module: torch.nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        found.append(pooling.weights(*arguments))

    hook = pooling.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
