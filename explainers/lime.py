"""LIME over time: lime's own perturbation and surrogate, on timesteps, segments, features or cells.

The library is asked about n yes/no features, "player j keeps its input" (the rest take the baseline). It draws the
perturbations, weights them by distance, and fits its ridge regression; the coefficients are the attributions.
Source: Ribeiro, Singh & Guestrin 2016, "Why Should I Trust You?".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from .base import PlayerExplainer, check_positive
from .players import Game


class LIME(PlayerExplainer):
    """A local linear surrogate, fitted by lime on perturbed sequences.

    Args:
        model: Anything callable (see `Explainer`).
        players: "timestep", "segment", "feature" or "cell".
        samples: Perturbed sequences drawn a sample.
        segments: Number of segments, with players="segment".
        kernel_width: Width of lime's exponential kernel over the distance to the input; None: lime's 0.75 sqrt(n).
        options: `baseline`, `output`, `task`, `seed` of `Explainer`.

    The result carries `surrogate_r2` (weighted R^2 of the surrogate on the perturbations) and `surrogate_intercept`.
    """

    name = "lime"
    summary = "local linear surrogate on perturbed sequences"
    completeness = "none"
    missingness = symmetry = "converges"
    linearity = "exact"
    library = "lime"
    source = "Ribeiro, Singh & Guestrin 2016"

    def __init__(self, model: Any, *, samples: int = 2000, kernel_width: float | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        check_positive("samples", samples, least=10)
        if kernel_width is not None and not (isinstance(kernel_width, (int, float)) and 0 < kernel_width < math.inf):
            raise InvalidInputError(f"kernel_width is {kernel_width!r}; expected a positive number, or None.")
        self.samples = samples
        self.kernel_width = kernel_width

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        from lime.lime_tabular import LimeTabularExplainer

        count = game.players.count
        tabular = LimeTabularExplainer(
            np.array([[0] * count, [1] * count]),  # both states of each player, equally often
            mode="regression",
            categorical_features=range(count),
            discretize_continuous=False,
            feature_selection="none",
            kernel_width=self.kernel_width,
            random_state=np.random.RandomState(self.seed),
        )
        explanation = tabular.explain_instance(
            np.ones(count), lambda z: game(z == 1), num_features=count, num_samples=self.samples
        )
        contributions = np.zeros(count)
        for player, weight in explanation.local_exp[1]:
            contributions[player] = weight
        return contributions, {
            "surrogate_r2": float(explanation.score),
            "surrogate_intercept": float(explanation.intercept[1]),
        }
