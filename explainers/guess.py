"""What Shapley values may be, before anything is evaluated: DeepLIFT's contributions, for a fraction of the cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..models import GatelensError, LSTMModel
from ..models.trace import to_numpy
from .problem import Problem


def guess_contributions(problem: Problem) -> NDArray[np.float64] | None:
    """Return DeepLIFT's contributions (B, T, D), or None where it does not know the model or what is off.

    Args:
        problem: What is explained, while its model is in eval mode.
    """
    from torch import Tensor

    from .deeplift import DeepLIFT

    if not isinstance(problem.predictor.model, LSTMModel) or problem.holds_last:
        return None
    try:
        values = DeepLIFT(problem.predictor)._attribute(problem).values  # noqa: SLF001 - checked, and not for a person
    except GatelensError:  # the model computes something else, or scores that DeepLIFT has no rule for
        return None
    array = (to_numpy(values) if isinstance(values, Tensor) else values).astype(np.float64)
    return array if np.isfinite(array).all() else None
