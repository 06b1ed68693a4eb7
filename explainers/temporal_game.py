"""A coalition game of one sample, played the cheapest way there is: on shared prefixes, or batch by batch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .players import CoalitionMatrix, Game
from .prefix_engine import PrefixEngine, shares_prefixes

CHUNK = 8192  # coalitions asked of a game at once
AGREEMENT = 1e-3  # how far the engine's prediction may be from the model's own, beside 1 or the prediction


class TemporalGame:
    """A game as estimators see it: only the players that may change something, and `values` of coalitions of them.

    Args:
        game: The game of all players.
        memory_bytes: Budget for the engine's states.

    Attributes:
        active: The players that may change something; the others get 0.
        shared: Whether prefixes are shared (see `PrefixEngine`); else each coalition is a pass of the model.
        empty: The explained number of the reference, all players off.
        full: The explained number of the input.
        evaluated: Coalitions evaluated so far.
    """

    def __init__(self, game: Game, *, memory_bytes: int) -> None:
        problem, sample = game.problem, game.sample
        self._game = game
        self.count = game.players.count
        self.empty = float(problem.baseline_prediction[sample])
        self.full = float(problem.prediction[sample])
        self.evaluated = 0
        labels = game.players.labels
        changed = np.bincount(labels.ravel(), weights=game.changed.ravel(), minlength=self.count) > 0
        self.active = np.flatnonzero(changed).tolist()
        self._engines: list[PrefixEngine] = []
        if shares_prefixes(game):
            references = len(problem.references(sample))
            self._engines = [
                PrefixEngine(game, number, self.active, memory_bytes=memory_bytes) for number in range(references)
            ]
            self.active = self._engines[0].active
        self.shared = bool(self._engines)
        self._compared = False
        self._counted = 0

    def _agree(self, ends: NDArray[np.float64]) -> bool:
        """Whether the engines gave the model's own numbers of the reference and the input; if not, they are left."""
        expected = np.array([self.empty, self.full])
        self._compared = True
        self.shared = bool((np.abs(ends - expected) <= AGREEMENT * (1 + np.abs(expected))).all())
        return self.shared

    def every(self) -> NDArray[np.float64]:
        """Return the value of every coalition of the active players, (2^n,); player k is bit k of its index."""
        count = len(self.active)
        if self.shared:
            values = self._engines[0].all_values()
            for engine in self._engines[1:]:
                values += engine.all_values()
            values /= len(self._engines)
        if not self.shared or not self._agree(values[[0, -1]]):
            values = np.empty(2**count)
            for first in range(0, len(values), CHUNK):
                index = np.arange(first, min(first + CHUNK, len(values)))
                values[index] = self._ask((index[:, None] >> np.arange(count)) % 2 == 1)
        values[0], values[-1] = self.empty, self.full
        self.evaluated += len(values)
        self._count_passes()
        return values

    def values(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the value of coalitions of the active players, (N,), from bool (N, n)."""
        if self.shared and not self._compared:  # the ends go along with the first coalitions
            ends = np.repeat([[False], [True]], len(self.active), axis=1)
            values = np.mean([engine.values(np.concatenate([ends, coalitions])) for engine in self._engines], axis=0)
            self._agree(values[:2])
            values = values[2:]
        elif self.shared:
            values = np.mean([engine.values(coalitions) for engine in self._engines], axis=0)
        if not self.shared:
            values = self._ask(coalitions)
        self.evaluated += len(coalitions)
        self._count_passes()
        return np.asarray(values)

    def spread(self, contributions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return contributions of the active players (n,) as cells (T, D), 0 for all others."""
        whole = np.zeros(self.count)
        whole[self.active] = contributions
        return self._game.spread(whole)

    def gather(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums (n,) over the cells of each active player, from cells (T, D)."""
        labels = self._game.players.labels
        sums = np.zeros(self.count)
        np.add.at(sums, labels.ravel(), cells[: len(labels)].ravel())
        return sums[self.active]

    def _ask(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        whole = np.zeros((len(coalitions), self.count), dtype=bool)
        whole[:, self.active] = coalitions
        return self._game(whole)

    def _count_passes(self) -> None:
        """Count the engine's work as what it is worth in forward evaluations of this sequence."""
        steps = sum(engine.cell_steps for engine in self._engines)
        length = self._engines[0].steps if self._engines else 1
        worth = math.ceil(steps / length)
        self._game.problem.predictor.forward_evaluations += worth - self._counted
        self._counted = worth


def shapley_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Shapley values (n,) of a game from the value of every coalition, (2^n,); player k is bit k.

    phi_i = sum over S with i of v(S) w(|S| - 1) - sum over S without i of v(S) w(|S|), w(s) = s! (n - s - 1)! / n!
    (Shapley 1953). The sums for all players come from halving: fold the last player's half onto the other, and go on.
    """
    count = len(values).bit_length() - 1
    if count == 0:
        return np.zeros(0)
    weights = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])  # w
    gains = values - values[0]
    sums = (np.append(weights, 0) + np.insert(weights, 0, 0))[_sizes(count)] * gains
    result = np.zeros(count)
    for player in reversed(range(count)):
        without, with_player = sums.reshape(2, -1)
        result[player] = with_player.sum()
        sums = without + with_player
    result += (gains[-1] - result.sum()) / count  # what all share, the sum over all S of v(S) w(|S|), is so found
    return result


def _sizes(count: int) -> NDArray[np.int64]:
    """Return how many players each of the 2^n coalitions has."""
    sizes = np.zeros(1, dtype=np.int64)
    for _ in range(count - count // 2):
        sizes = np.concatenate([sizes, sizes + 1])
    return np.add.outer(sizes[: 2 ** (count // 2)], sizes).ravel()
