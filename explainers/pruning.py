"""Temporal pruning: old timesteps that matter little together become one player.

Source: Bento et al. 2021, "TimeSHAP: Explaining recurrent models through sequence perturbations", algorithm 1, where
the tolerance is in units of the score; here it is a share of the difference that is explained.
"""

from __future__ import annotations

import numpy as np

from ..models import InvalidInputError
from .players import Game
from .temporal_game import TemporalGame


def check_pruning(pruning: float | None) -> None:
    """Refuse a `pruning` that is no share."""
    if pruning is not None and not (isinstance(pruning, (int, float)) and 0 < pruning < 1):
        raise InvalidInputError(
            f"pruning is {pruning!r}; expected a share between 0 and 1, e.g. 0.025, or None to prune nothing."
        )


def pruned_steps(game: Game, share: float, *, memory_bytes: int) -> tuple[int, int]:
    """Return how many of the first timesteps may become one player, and how many coalitions were evaluated.

    A cut makes a game of two players, the timesteps before it (old) and those from it on, and

        phi(old) = [v(old) - v(none) + v(all) - v(recent)] / 2.

    Of all cuts it is the last, the first that going from the end of the sequence to its beginning meets, with
    |phi(old)| <= share |v(all) - v(none)|; none where the input and the reference give the same. The values of all cuts
    are asked for at once: they share most of their beginnings.

    Args:
        game: Its players are the timesteps.
        share: 0..1.
        memory_bytes: Budget for states.
    """
    played = TemporalGame(game, memory_bytes=memory_bytes)
    count = len(played.active)
    change = played.full - played.empty
    if count < 2 or change == 0:
        return 0, 0
    old = np.arange(count) < np.arange(1, count)[:, None]  # (n - 1, n); what never matters makes no cut of its own
    without_recent, without_old = np.split(played.values(np.concatenate([old, ~old])), 2)
    contributions = (without_recent - played.empty + played.full - without_old) / 2  # (n - 1,)
    small = np.flatnonzero(np.abs(contributions) <= share * abs(change))
    return (played.active[small[-1] + 1] if len(small) else 0), played.evaluated
