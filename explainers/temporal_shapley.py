"""Shapley values over time: exact up to 20 players, whose coalitions share what an LSTM computes; estimates beyond.

Source: Shapley 1953, "A value for n-person games"; Bento et al. 2021, "TimeSHAP: Explaining recurrent models through
sequence perturbations", for the game of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError, LSTMModel
from ..models.errors import nearest_name
from ..models.opened import opens_compiled
from .base import Completeness, PlayerExplainer, check_positive
from .guess import guess_contributions
from .opened import predict_opened
from .players import Game, PlayerKind
from .prefix_engine import EXACT_PLAYERS
from .problem import Contribution, Problem
from .pruning import check_pruning, pruned_steps
from .shapiq_estimates import ESTIMATORS
from .shapiq_estimates import estimate as estimate_by_shapiq
from .shapley_estimates import Pairs, PairSampler, estimate
from .temporal_game import TemporalGame, shapley_values

FEW = 2**12  # coalitions that are all evaluated, also where an estimate would be good enough
MOST = 2**16  # coalitions evaluated for a tolerance, where `evaluations` names no other number
PAIRS = "pairs"


@dataclass(frozen=True, eq=False)
class Estimate:
    """Shapley values of the players that may change something.

    Attributes:
        values: (n,).
        errors: Standard errors (n,); 0 where the values are exact, or none are known.
        exhaustive: Whether all coalitions were evaluated, and the values are exact.
        missing: What the values fell short of adding up, before they were made to.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    exhaustive: bool
    missing: float = 0.0


class TemporalShapley(PlayerExplainer):
    """Shapley values of timesteps, segments, features or cells.

    Exact while there are 20 players or fewer that may change anything: all 2^n coalitions are evaluated. Where the
    model is an `LSTMModel` that reads forwards and players begin at different times (timesteps, segments, cells),
    coalitions share the states of equal beginnings (`prefix_engine.py`): for timesteps and segments 2^(n+1) cell steps,
    less than a second for n = 20. Everything else (features, bidirectional and foreign models, functions) is asked
    coalition by coalition.

    With more players, or where `evaluations` or `tolerance` ask for less, values are estimated from antipodal pairs, by
    a Gaussian process that begins with DeepLIFT's contributions (of an `LSTMModel`; of others with 0) or, where there
    are many more than one can be fitted to, by least squares; both give standard errors, and always add up (see
    `shapley_estimates.py`).

    `estimator` names one of shapiq's approximators instead. It estimates whatever the number of players, within
    `evaluations`; only a single player that may change anything is exact anyway. It gives no standard errors. What its
    values miss of f(x) - f(baseline) is spread equally over the players, so that they add up as well.

    `pruning` makes one player of old timesteps (see `pruning.py`), so that a long sequence leaves few. Old is
    everything before the last timestep where what came before gives no more than this share of f(x) - f(baseline), in
    the game of the two parts; where that difference is 0 nothing is pruned. Parts that cancel one another may be pruned
    together, as in TimeSHAP. The other players are what `players` says of the timesteps after it. The pruned player's
    value is spread equally over its cells: what its timesteps and features gave each is not told apart.

    Args:
        model: Anything callable (see `Explainer`).
        players: "timestep", "segment", "feature" or "cell".
        background: Sequences (R, T, D) that stand for "absent", averaged over; None: the baseline. Costs R times more.
        tolerance: Largest standard error of a player, as a share of |f(x) - f(baseline)| or of the largest Shapley
            value, whichever is more; pairs are drawn until it is reached. Exact values are given where they are cheap.
        evaluations: The most coalitions that may be evaluated a sample; None: 2^20 for exact values, 65,536 for a
            tolerance, and otherwise 2 n + 2048. Of shapiq it is the budget, where a coalition that is drawn again
            counts again. Pruning takes up to 2 (L - 1) more.
        estimator: "pairs" (the above), or of shapiq: "kernel_shap" (in pairs), "unbiased_kernel_shap" (in pairs),
            "kadd_shap" (order 2), "svarm", "permutation", "stratified", "owen" (10 anchors, which keep a bias).
        pruning: Share of |f(x) - f(baseline)|, e.g. 0.025; None: nothing is pruned.
        segments: Number of segments, with players="segment"; with pruning, of the timesteps that stay.
        memory_bytes: Budget for the states of coalitions.
        options: `segmentation` of `PlayerExplainer`; `baseline`, `output`, `task`, `seed` of `Explainer`.

    The result carries `players`, `coalitions` (how many were evaluated), `exhaustive` (1 where these were all that
    differ, and the values are exact) and `prefix_shared` (1 where beginnings were shared); and standard errors where
    values are estimates from pairs. With pruning also `pruned` (timesteps) and `pruned_contribution`; with an estimator
    of shapiq `missing` (what was spread over the players).
    """

    name = "temporal_shapley"
    summary = "Shapley values over time, exact up to 20 timesteps or segments"
    completeness = "exact"
    missingness = "exact"
    source = "Shapley 1953; Bento et al. 2021"
    takes_background = True

    def __init__(
        self,
        model: Any,
        *,
        tolerance: float | None = None,
        evaluations: int | None = None,
        estimator: str = PAIRS,
        pruning: float | None = None,
        memory_bytes: int = 2**30,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        check_positive("memory_bytes", memory_bytes)
        if evaluations is not None:
            check_positive("evaluations", evaluations, least=8)
        if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 < tolerance < 1):
            raise InvalidInputError(f"tolerance is {tolerance!r}; expected a share between 0 and 1, e.g. 0.02.")
        if estimator not in (PAIRS, *ESTIMATORS):
            raise InvalidInputError(f"estimator is {estimator!r}; {nearest_name(str(estimator), (PAIRS, *ESTIMATORS))}")
        if tolerance is not None and estimator != PAIRS:
            raise InvalidInputError(
                f"tolerance={tolerance} needs standard errors, and estimator={estimator!r} gives none; give "
                "evaluations= instead, or estimator='pairs'."
            )
        check_pruning(pruning)
        self.tolerance = tolerance
        self.evaluations = evaluations
        self.estimator = estimator
        self.pruning = pruning
        self.memory_bytes = memory_bytes
        if estimator != PAIRS:
            vars(self).update(library="shapiq")

    @property
    def _of_players(self) -> Completeness:
        """What is pruned is one player, and each output may prune elsewhere; only pairs tell standard errors."""
        return "none" if self.pruning is not None else "exact" if self.estimator == PAIRS else "converges"

    dummy_player = symmetry = linearity = _of_players

    def options(self) -> dict[str, Any]:
        """Return the options of the method."""
        return {name: value for name, value in super().options().items() if name != "library"}

    def _predict(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
        """Return scores, and the pass that gave them, opened, where it costs no more and a guess may begin with it."""
        model, opened = self.predictor.model, None
        if inputs.shape[1] > EXACT_PLAYERS and isinstance(model, LSTMModel) and opens_compiled(model):
            opened = predict_opened(self.predictor, inputs, lengths)
        return super()._predict(inputs, lengths) if opened is None else opened

    def _attribute(self, problem: Problem) -> Contribution:
        if problem.reads_tokens and self.players == "feature":
            raise InvalidInputError("players='feature' has no meaning for token ids; use 'timestep' or 'segment'.")
        batch, steps = problem.inputs.shape[:2]
        values = np.zeros((batch, steps, problem.features))
        errors = np.zeros_like(values)
        diagnostics: dict[str, NDArray[Any]] = {}
        guesses: NDArray[np.float64] | None = None
        guessed = False
        for sample in problem.track(range(batch), batch, self.name):
            players, pruned, evaluated = self.game(problem, sample)
            game = TemporalGame(players, memory_bytes=self.memory_bytes)
            game.evaluated += evaluated
            if not guessed and self.estimator == PAIRS and not self._is_exact(game):
                guesses, guessed = guess_contributions(problem), True
            found = self._estimate(game, None if guesses is None else game.gather(guesses[sample]))
            values[sample], errors[sample] = game.spread(found.values), game.spread(found.errors)
            numbers = self._numbers(game, found)
            if self.pruning is not None:
                first = dict(zip(game.active, found.values, strict=True)).get(0, 0.0)
                numbers |= {"pruned": pruned, "pruned_contribution": first if pruned else 0.0}
            for name, number in numbers.items():
                diagnostics.setdefault(name, np.zeros(batch))[sample] = number
        resolution: PlayerKind = "timestep" if problem.reads_tokens and self.players == "cell" else self.players
        exact = bool(diagnostics["exhaustive"].all())
        unknown = exact or self.estimator != PAIRS
        std_error = None if unknown else errors
        return Contribution(values, resolution=resolution, std_error=std_error, diagnostics=diagnostics)

    def game(self, problem: Problem, sample: int) -> tuple[Game, int, int]:
        """Return the game of a sample; how many first timesteps are one player of it; coalitions that took to find."""
        pruned, evaluated = 0, 0
        if self.pruning is not None:
            timesteps = problem.game(sample, "timestep", segments=1)
            pruned, evaluated = pruned_steps(timesteps, self.pruning, memory_bytes=self.memory_bytes)
        game = problem.game(sample, self.players, segments=self.segments, segmentation=self.segmentation, merged=pruned)
        return game, pruned, evaluated

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        played = TemporalGame(game, memory_bytes=self.memory_bytes)
        found = self._estimate(played)
        values = np.zeros(played.count)
        values[played.active] = found.values
        return values, self._numbers(played, found)

    def _estimate(self, game: TemporalGame, guess: NDArray[np.float64] | None = None) -> Estimate:
        """Return the values of a game; `guess` (n,) is what they may be, if that is known."""
        if self.estimator != PAIRS:
            return self._estimate_by_shapiq(game)
        count = len(game.active)
        if self._is_exact(game):
            return Estimate(shapley_values(game.every()), np.zeros(count), exhaustive=True)
        if guess is not None and not guess.any():
            guess = None
        most, least = self._most(count), 2 * count + 2 if guess is None else count + 2
        if most < least:
            raise InvalidInputError(
                f"evaluations is {self.evaluations}, too few to tell {count} players apart; give {least} or "
                "more, or explain fewer players, e.g. players='segment'."
            )
        sampler = PairSampler(count, self.seed, single=guess is None)
        coalitions, odd = np.zeros((0, count), dtype=bool), np.zeros(0)
        first = 2 * count + 64 if guess is None else count // 2 + 32
        pairs = most // 2 - 1 if self.tolerance is None else min(most // 2 - 1, first)
        while True:
            fresh = sampler.grow(pairs)
            on, off = np.split(game.values(np.concatenate([fresh, ~fresh])), 2)
            coalitions = np.concatenate([coalitions, fresh])
            odd = np.concatenate([odd, (on - off) / 2])
            evaluated = Pairs(coalitions, odd, (game.full - game.empty) / 2, *sampler.weigh(coalitions))
            exhaustive = len(odd) == 2 ** (count - 1) - 1
            values, errors = estimate(evaluated, guess)
            values += (game.full - game.empty - values.sum()) / count
            if self.tolerance is None or exhaustive or pairs >= most // 2 - 1:
                break
            if errors.max() <= self.tolerance * max(abs(game.full - game.empty), np.abs(values).max()):
                break
            pairs = min(2 * pairs, most // 2 - 1)
        game.evaluated += 2  # all and none, which came with the problem
        return Estimate(values, errors, exhaustive)

    def _estimate_by_shapiq(self, game: TemporalGame) -> Estimate:
        count = len(game.active)
        if count < 2:
            game.evaluated += 2
            return Estimate(np.full(count, game.full - game.empty), np.zeros(count), exhaustive=True)
        values, missing, exhaustive = estimate_by_shapiq(self.estimator, game, self._most(count), self.seed)
        return Estimate(values, np.zeros(count), exhaustive, missing)

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

    def _numbers(self, game: TemporalGame, found: Estimate) -> dict[str, float]:
        numbers: dict[str, float] = {
            "players": game.count,
            "coalitions": game.evaluated,
            "exhaustive": found.exhaustive,
            "prefix_shared": game.shared,
        }
        return numbers if self.estimator == PAIRS else numbers | {"missing": found.missing}
