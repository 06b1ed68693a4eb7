"""Shapley values over time: exact up to 20 players, whose coalitions share what an LSTM computes; estimates beyond.

Source: Shapley 1953, "A value for n-person games"; Bento et al. 2021, "TimeSHAP: Explaining recurrent models through
sequence perturbations", for the game of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from .base import PlayerExplainer, check_positive
from .players import Game, PlayerKind
from .prefix_engine import EXACT_PLAYERS
from .problem import Contribution, Problem
from .shapley_estimates import Pairs, PairSampler, estimate
from .temporal_game import TemporalGame, shapley_values

FEW = 2**12  # coalitions that are all evaluated, also where an estimate would be good enough
MOST = 2**16  # coalitions evaluated for a tolerance, where `evaluations` names no other number


@dataclass(frozen=True, eq=False)
class Estimate:
    """Shapley values of the players that may change something.

    Attributes:
        values: (n,).
        errors: Standard errors (n,); 0 where the values are exact.
        exhaustive: Whether all coalitions were evaluated.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    exhaustive: bool


class TemporalShapley(PlayerExplainer):
    """Shapley values of timesteps, segments, features or cells.

    Exact while there are 20 players or fewer that may change anything: all 2^n coalitions are evaluated. Where the
    model is an `LSTMModel` that reads forwards and the players are timesteps or segments, coalitions share the states
    of equal beginnings (`prefix_engine.py`): 2^(n+1) cell steps, a second or two for n = 20. Everything else (features,
    cells, bidirectional and foreign models, functions, the baseline "hold_last") is asked coalition by coalition.

    With more players, or where `evaluations` or `tolerance` ask for less, values are estimated from antipodal pairs, by
    a Gaussian process or, where there are many more than one can be fitted to, by least squares; both give standard
    errors, and always add up (see `shapley_estimates.py`).

    Args:
        model: Anything callable (see `Explainer`).
        players: "timestep", "segment", "feature" or "cell".
        background: Sequences (R, T, D) that stand for "absent", averaged over; None: the baseline. Costs R times more.
        tolerance: Largest standard error of a player, as a share of |f(x) - f(baseline)| or of the largest Shapley
            value, whichever is more; pairs are drawn until it is reached. Exact values are given where they are cheap.
        evaluations: The most coalitions that may be evaluated a sample; None: 2^20 for exact values, 65,536 for a
            tolerance, and otherwise 2 n + 2048.
        segments: Number of segments, with players="segment".
        memory_bytes: Budget for the states of coalitions.
        options: `segmentation` of `PlayerExplainer`; `baseline`, `output`, `task`, `seed` of `Explainer`.

    The result carries `players`, `coalitions` (how many were evaluated), `exhaustive` (1 where these were all that
    differ, and the values are exact) and `prefix_shared` (1 where beginnings were shared); and standard errors where
    values are estimates.
    """

    name = "temporal_shapley"
    summary = "Shapley values over time, exact up to 20 timesteps or segments"
    completeness = "exact"
    source = "Shapley 1953; Bento et al. 2021"
    takes_background = True

    def __init__(
        self,
        model: Any,
        *,
        tolerance: float | None = None,
        evaluations: int | None = None,
        memory_bytes: int = 2**30,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        check_positive("memory_bytes", memory_bytes)
        if evaluations is not None:
            check_positive("evaluations", evaluations, least=8)
        if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 < tolerance < 1):
            raise InvalidInputError(f"tolerance is {tolerance!r}; expected a share between 0 and 1, e.g. 0.02.")
        self.tolerance = tolerance
        self.evaluations = evaluations
        self.memory_bytes = memory_bytes

    def _attribute(self, problem: Problem) -> Contribution:
        if problem.reads_tokens and self.players == "feature":
            raise InvalidInputError("players='feature' has no meaning for token ids; use 'timestep' or 'segment'.")
        batch, steps = problem.inputs.shape[:2]
        values = np.zeros((batch, steps, problem.features))
        errors = np.zeros_like(values)
        diagnostics: dict[str, NDArray[Any]] = {}
        for sample in problem.track(range(batch), batch, self.name):
            players = problem.game(sample, self.players, segments=self.segments, segmentation=self.segmentation)
            game = TemporalGame(players, memory_bytes=self.memory_bytes)
            found = self._estimate(game)
            values[sample], errors[sample] = game.spread(found.values), game.spread(found.errors)
            for name, number in _numbers(game, found).items():
                diagnostics.setdefault(name, np.zeros(batch))[sample] = number
        resolution: PlayerKind = "timestep" if problem.reads_tokens and self.players == "cell" else self.players
        exact = bool(diagnostics["exhaustive"].all())
        return Contribution(values, resolution=resolution, std_error=None if exact else errors, diagnostics=diagnostics)

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        played = TemporalGame(game, memory_bytes=self.memory_bytes)
        found = self._estimate(played)
        values = np.zeros(played.count)
        values[played.active] = found.values
        return values, _numbers(played, found)

    def _estimate(self, game: TemporalGame) -> Estimate:
        count = len(game.active)
        if self._is_exact(game):
            return Estimate(shapley_values(game.every()), np.zeros(count), exhaustive=True)
        most = self._most(count)
        if most < 2 * count + 2:
            raise InvalidInputError(
                f"evaluations is {self.evaluations}, too few to tell {count} players apart; give {2 * count + 2} or "
                "more, or explain fewer players, e.g. players='segment'."
            )
        sampler = PairSampler(count, self.seed)
        coalitions, odd = np.zeros((0, count), dtype=bool), np.zeros(0)
        pairs = most // 2 - 1 if self.tolerance is None else min(most // 2 - 1, 2 * count + 64)
        while True:
            fresh = sampler.grow(pairs)
            on, off = np.split(game.values(np.concatenate([fresh, ~fresh])), 2)
            coalitions = np.concatenate([coalitions, fresh])
            odd = np.concatenate([odd, (on - off) / 2])
            evaluated = Pairs(coalitions, odd, (game.full - game.empty) / 2, *sampler.weigh(coalitions))
            exhaustive = len(odd) == 2 ** (count - 1) - 1
            values, errors = estimate(evaluated)
            values += (game.full - game.empty - values.sum()) / count
            if self.tolerance is None or exhaustive or pairs >= most // 2 - 1:
                break
            if errors.max() <= self.tolerance * max(abs(game.full - game.empty), np.abs(values).max()):
                break
            pairs = min(2 * pairs, most // 2 - 1)
        game.evaluated += 2  # all and none, which came with the problem
        return Estimate(values, errors, exhaustive)

    def _is_exact(self, game: TemporalGame) -> bool:
        """Whether all coalitions are to be evaluated."""
        count = len(game.active)
        if count > EXACT_PLAYERS or (self.evaluations is not None and 2**count > self.evaluations):
            return False
        return game.shared or self.tolerance is None or 2**count <= FEW

    def _most(self, count: int) -> int:
        """Return the most coalitions that may be evaluated."""
        if self.evaluations is not None:
            return self.evaluations
        return 2 * count + 2048 if self.tolerance is None else MOST


def _numbers(game: TemporalGame, found: Estimate) -> dict[str, float]:
    return {
        "players": game.count,
        "coalitions": game.evaluated,
        "exhaustive": found.exhaustive,
        "prefix_shared": game.shared,
    }
