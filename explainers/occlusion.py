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
from .base import Completeness, PlayerExplainer, check_positive
from .players import CoalitionMatrix, Game
from .prefix_engine import shares_prefixes
from .temporal_game import TemporalGame

LONG = 256  # timesteps from which sharing beginnings is faster than the fused kernel on whole sequences (measured)
MEMORY_BYTES = 2**30


class Occlusion(PlayerExplainer):
    """f(x) minus f(x with one player replaced by the baseline), a player at a time: positive where the part raised it.

    One evaluation a player (and reference of a background set); of long sequences, an `LSTMModel` that reads forwards
    reads the timesteps before what is taken away only once (`prefix_engine.py`), which is half of the work.

    What two players only do together is counted for both of them, or, where each stands in for the other, for neither;
    so the sum means nothing.

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
    linearity = "exact"
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

    @property
    def _of_players(self) -> Completeness:
        """A player in a window is credited with what its neighbours do."""
        return "exact" if self.window is None else "none"

    dummy_player = missingness = symmetry = _of_players

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        hidden = _windows(game.players.count, self.window or 1, self.stride)  # (N, n)
        shared = len(game.players.labels) >= LONG and shares_prefixes(game)
        full = game.problem.prediction[game.sample]
        effect = _shared_effect(game, hidden) if shared else full - game(~hidden)  # (N,)
        return effect @ hidden / hidden.sum(axis=0), {"prefix_shared": float(shared)}


def _shared_effect(game: Game, hidden: CoalitionMatrix) -> NDArray[np.float64]:
    """Return what taking each window away does, (N,), from coalitions that share their beginnings."""
    played = TemporalGame(game, memory_bytes=MEMORY_BYTES)
    taken = hidden[:, played.active]
    some = taken.any(axis=1)  # the others do nothing
    effect = np.zeros(len(hidden))
    values = played.values(np.concatenate([np.ones((1, taken.shape[1]), dtype=bool), ~taken[some]]))
    effect[some] = values[0] - values[1:]
    return effect


def _windows(count: int, window: int, stride: int) -> CoalitionMatrix:
    """Return bool (N, n), the players that each window takes away; every player is in at least one."""
    moves = math.ceil(max(count - window, 0) / stride) + 1
    begin = np.arange(moves)[:, None] * stride  # (N, 1)
    player = np.arange(count)  # (n,)
    windows: CoalitionMatrix = (player >= begin) & (player < begin + window)
    return windows
