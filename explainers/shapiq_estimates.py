"""Estimates by shapiq's approximators, which draw the coalitions; the game stays the house's.

Sources: Muschalik et al. 2024, "shapiq: Shapley interactions for machine learning"; each approximator's own paper is
named by its class in shapiq.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from .players import CoalitionMatrix
from .temporal_game import TemporalGame

MOST_PLAYERS = 1000  # whose coalitions shapiq can count, in floats
ANCHORS = 10  # probabilities at which "owen" draws, as many as shapiq has


@dataclass(frozen=True)
class Approximator:
    """One of shapiq's approximators of order 1 or 2.

    Attributes:
        name: Its class in `shapiq.approximator`.
        least: Coalitions that n players take at least; with fewer, some would never be asked about.
        draws_sets: Whether it draws different coalitions, all 2^n if it may, and asks for them at once; else it asks
            for a few after another, some of them again.
        options: What its class is made with.
    """

    name: str
    least: Callable[[int], int]
    draws_sets: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def budget(self, count: int, evaluations: int) -> int:
        """Return the budget that shapiq gets for `count` players."""
        return min(evaluations, 2**count) if self.draws_sets else evaluations

    def check(self, estimator: str, count: int, evaluations: int) -> None:
        """Refuse too few evaluations, and too many players."""
        if self.draws_sets and count > MOST_PLAYERS:
            raise InvalidInputError(
                f"estimator={estimator!r} of shapiq takes {MOST_PLAYERS} players at most, and {count} may change "
                "something; explain fewer, e.g. players='segment', or draw orders: estimator='permutation'."
            )
        least = min(self.least(count), 2**count) if self.draws_sets else self.least(count)
        if evaluations < least:
            raise InvalidInputError(
                f"{evaluations} evaluations are too few for estimator={estimator!r} and {count} players; give "
                f"evaluations={least} or more, or explain fewer players, e.g. players='segment'."
            )

    def run(self, game: TemporalGame, evaluations: int, seed: int, **options: Any) -> Any:
        """Return shapiq's `InteractionValues` of the active players.

        What comes one coalition after another does not depend on their values; a first run finds out which they are,
        so that they are evaluated together.
        """
        import shapiq.approximator

        count = len(game.active)
        asked = Asked(game)
        made = getattr(shapiq.approximator, self.name)
        budget = self.budget(count, evaluations)

        def approximate(play: Callable[[CoalitionMatrix], NDArray[np.float64]]) -> Any:
            approximator = made(n=count, random_state=seed, **self.options, **options)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sampling might be inefficient", UserWarning)  # most are drawn
                return approximator.approximate(budget, play)

        if not self.draws_sets:
            approximate(asked.note)
            asked.evaluate()
        return approximate(asked)


class Asked:
    """A game as shapiq calls it: each coalition is evaluated once; none and all are known.

    Args:
        game: What is played.
    """

    def __init__(self, game: TemporalGame) -> None:
        count = len(game.active)
        self._game = game
        self._known = {bytes(count): game.empty, bytes([1] * count): game.full}
        self._noted: dict[bytes, CoalitionMatrix] = {}
        game.evaluated += 2

    def __call__(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the values (N,) of coalitions, bool (N, n) or (n,)."""
        self.note(coalitions)
        self.evaluate()
        return np.array([self._known[row.tobytes()] for row in _rows(coalitions)])

    def note(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Note what is to be evaluated; return zeros (N,)."""
        rows = _rows(coalitions)
        for row in rows:
            key = row.tobytes()
            if key not in self._known:
                self._noted[key] = row
        return np.zeros(len(rows))

    def evaluate(self) -> None:
        """Evaluate what was noted."""
        if self._noted:
            values = self._game.values(np.array(list(self._noted.values())))
            self._known.update(zip(self._noted, values.tolist(), strict=True))
            self._noted.clear()


def _rows(coalitions: CoalitionMatrix) -> CoalitionMatrix:
    return np.array(np.atleast_2d(coalitions), dtype=bool)  # a copy: some approximators go on to change theirs


ESTIMATORS = {
    "kernel_shap": Approximator("KernelSHAP", lambda n: 4 * n, options={"pairing_trick": True}),
    "unbiased_kernel_shap": Approximator("UnbiasedKernelSHAP", lambda n: 4 * n, options={"pairing_trick": True}),
    "kadd_shap": Approximator("kADDSHAP", lambda n: n * (n + 1) // 2 + 2),  # it fits so many numbers
    "svarm": Approximator("SVARM", lambda n: 4 * n),
    "permutation": Approximator("PermutationSamplingSV", lambda n: n + 1, draws_sets=False),
    "stratified": Approximator("StratifiedSamplingSV", lambda n: 2 * n * (n - 1) + 2, draws_sets=False),
    "owen": Approximator(
        "OwenSamplingSV", lambda n: 2 * ANCHORS * n + 1, draws_sets=False, options={"n_anchor_points": ANCHORS}
    ),
}


def estimate(
    estimator: str, game: TemporalGame, evaluations: int, seed: int
) -> tuple[NDArray[np.float64], float, bool]:
    """Return Shapley values (n,) that add up, what was missing for that, and whether all coalitions were evaluated.

    What an approximator's values miss of v(all) - v(none) is spread over the players equally, which takes them to the
    nearest values that add up and keeps those unbiased that are (Ruiz, Valenciano & Zarzuelo 1998).

    Args:
        estimator: One of `ESTIMATORS`.
        game: Two active players or more.
        evaluations: The most coalitions to evaluate.
        seed: For the draws.

    Raises:
        InvalidInputError: Too few evaluations, or too many players.
    """
    approximator, count = ESTIMATORS[estimator], len(game.active)
    approximator.check(estimator, count, evaluations)
    found = approximator.run(game, evaluations, seed)
    values = np.array([found[player,] for player in range(count)])
    missing = game.full - game.empty - values.sum()
    return values + missing / count, float(missing), approximator.draws_sets and evaluations >= 2**count
