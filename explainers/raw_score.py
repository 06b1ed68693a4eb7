"""What methods share that take one run's score apart: they have no rule for the sigmoid or softmax behind it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError
from .opened import OpenedExplainer, Part
from .problem import Problem


class RawScoreExplainer(OpenedExplainer):
    """An explainer that opens the model and explains the raw score only; a subclass writes `_take_apart`.

    Args:
        model: `LSTMModel`, or a module that `from_torch` can rewrite as one.
        options: `task`, `seed` of `Explainer`; `baseline` changes only what the result is shown beside.

    Raises:
        InvalidInputError: output="probability".
    """

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        if self.predictor.output == "probability":
            raise InvalidInputError(
                f"{self.name} takes the raw score apart, and has no rule for the sigmoid or softmax behind it; pass "
                "output='logit' (--output logit on the command line). Exact methods that explain probabilities: "
                "deeplift, deep_shap."
            )

    def _explain_part(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        found, numbers = self._take_apart(problem, trimmed(part))
        padding = part.values.shape[1] - found.shape[1]
        return torch.nn.functional.pad(found, (0, 0, 0, padding)), numbers

    @abstractmethod
    def _take_apart(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        """Return contributions (b, T, D or E), and numbers (b,) about them; the longest sample has T timesteps."""


def trimmed(part: Part) -> Part:
    """Return a part without the timesteps that are padding in every sample."""
    steps = int(part.lengths.max())
    return replace(part, values=part.values[:, :steps], baseline=part.baseline[:, :steps])
