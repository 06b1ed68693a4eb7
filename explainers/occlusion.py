"""Occlusion: how far the explained number moves when a part of the sequence is taken away.

The parts are the house's players, and the evaluations go through the house's `Game`, not through captum's
FeatureAblation and Occlusion: these know one baseline of numbers, where a game also knows token ids, sequences of
different lengths, background sets and a held last value. The numbers are captum's (tests/test_occlusion.py).
Source: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from .base import PlayerExplainer, check_positive
from .players import CoalitionMatrix, Game


class Occlusion(PlayerExplainer):
    """f(x) minus f(x with one player replaced by the baseline), a player at a time: positive where the part raised it.

    One evaluation a player (and reference of a background set). What two players only do together is counted for both
    of them, or, where each stands in for the other, for neither; so the sum means nothing.

    With `window`, a window of timesteps slides over the sequence; a timestep gets the mean over the windows that hold
    it of what taking the whole window away did (captum's definition), the last window cut off at the sequence's end.
    What a window did is credited to all in it: a timestep that does nothing looks as its neighbours do.

    Args:
        model: Anything callable (see `Explainer`).
        players: "timestep", "segment", "feature" or "cell".
        window: Timesteps of a sliding window, with players="timestep"; None: each timestep by itself.
        stride: Timesteps from one window's begin to the next one's, at most `window`.
        background: Sequences (R, T, D) that stand for "absent", averaged over; None: the baseline. Costs R times more.
        options: `segments`, `segmentation` of `PlayerExplainer`; `baseline`, `output`, `task`, `seed` of `Explainer`.
    """

    name = "occlusion"
    summary = "change of the prediction when a part is replaced by the baseline"
    completeness = "none"
    source = "Zeiler & Fergus 2014"
    takes_background = True

    def __init__(self, model: Any, *, window: int | None = None, stride: int = 1, **options: Any) -> None:
        super().__init__(model, **options)
        check_positive("stride", stride)
        if window is None:
            if stride != 1:
                raise InvalidInputError(f"stride is {stride}, and there is no window to move; give window= as well.")
        else:
            check_positive("window", window)
            if self.players != "timestep":
                raise InvalidInputError(
                    f"window={window} slides over timesteps, and players is {self.players!r}; use players='timestep'."
                )
            if stride > window:
                raise InvalidInputError(
                    f"stride is {stride}; expected at most window={window}, or timesteps are left out."
                )
        self.window = window
        self.stride = stride

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        hidden = _windows(game.players.count, self.window or 1, self.stride)  # (N, n)
        effect = game.problem.prediction[game.sample] - game(~hidden)  # (N,)
        return effect @ hidden / hidden.sum(axis=0), {}


def _windows(count: int, window: int, stride: int) -> CoalitionMatrix:
    """Return bool (N, n), the players that each window takes away; every player is in at least one."""
    moves = math.ceil(max(count - window, 0) / stride) + 1
    begin = np.arange(moves)[:, None] * stride  # (N, 1)
    player = np.arange(count)  # (n,)
    windows: CoalitionMatrix = (player >= begin) & (player < begin + window)
    return windows
