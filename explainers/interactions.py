"""`temporal_interactions`: what two timesteps do together beyond what each does, as Shapley interactions of order 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from ..models.errors import nearest_name
from .base import Completeness, Explainer
from .interaction_indices import SOURCES, Index, exact_pairs
from .players import Game, Players
from .prefix_engine import EXACT_PLAYERS
from .problem import Contribution, Problem
from .shapiq_estimates import Approximator
from .temporal_game import TemporalGame
from .temporal_shapley import PAIRS, TemporalShapley

if TYPE_CHECKING:
    import xarray as xr

ADDS_UP = ("k-SII", "STII", "FSII")
KEPT_VARIABLES = ("prediction", "baseline_prediction", "length", "target_output", "target_timestep", "target_last")
KEPT_ATTRS = ("options", "baseline_name", "output", "output_unit", "task", "model", "seed", "seconds",
              "forward_evaluations", "versions")  # fmt: skip


IN_PAIRS = {"pairing_trick": True}


def _enough(count: int) -> int:
    return count * (count + 1) + 4  # two for each number that is sought, and for none and all


_OF_ALL = {
    "svarm_iq": Approximator("SVARMIQ", _enough, options=IN_PAIRS),
    "shap_iq": Approximator("SHAPIQ", _enough, options=IN_PAIRS),
}
ESTIMATORS: dict[str, dict[str, Approximator]] = {  # of each index; the first is taken without being asked for
    "SII": {
        "kernel_shap_iq": Approximator("KernelSHAPIQ", _enough, options=IN_PAIRS),
        "permutation": Approximator("PermutationSamplingSII", lambda n: n * (6 * n - 4) + 1, draws_sets=False),
        **_OF_ALL,
    },
    "STII": {
        "permutation": Approximator("PermutationSamplingSTII", lambda n: 2 * n * (n - 1) + n + 2, draws_sets=False),
        **_OF_ALL,
    },
    "FSII": {"regression": Approximator("RegressionFSII", _enough, options=IN_PAIRS)},
}
ESTIMATORS["k-SII"] = ESTIMATORS["SII"]


def temporal_interactions(
    model: Any,
    inputs: Any,
    *,
    index: Index = "k-SII",
    estimator: str | None = None,
    target: Any = None,
    lengths: Any = None,
    progress: bool = False,
    sample_names: Any = None,
    times: Any = None,
    **options: Any,
) -> xr.Dataset:
    """Explain predictions by what timesteps (or segments, features, cells) give alone and in pairs.

    The indices differ in how they share what more than two do together:

    - "SII" is the mean gain of a pair beyond its members' own, over all orders in which they, as one, may come. It does
      not add up; its main effects are Shapley values.
    - "k-SII" has the same pairs and takes half of each off its members' main effects, which adds up: a player's main
      effect and half of its pairs are its Shapley value.
    - "STII" leaves everything that is not a player's gain as the first comer to the pairs; adds up.
    - "FSII" is the game of single players and pairs that comes nearest to the model's; adds up.

    Exact for 20 players or fewer that may change anything, unless `evaluations` is less than 2^n. Otherwise estimated
    by shapiq's approximators from `evaluations` coalitions, which are then to be given: there are no standard errors.

    Args:
        model: A `TemporalShapley`, whose options hold; or a model, with the `options` to make one.
        inputs: Float (B, T, D), token ids (B, T), or a `SequenceData`.
        index: "k-SII", "SII", "STII" or "FSII".
        estimator: Of "k-SII" and "SII": "kernel_shap_iq" (the default, and by far the nearest); of "STII":
            "permutation" (the default); of "FSII": "regression". Of the first three also "permutation" (of SII it
            leaves pairs that it never draws at 0), "svarm_iq" and "shap_iq". All draw coalitions in antipodal pairs but
            the permutations.
        target: See `Explainer.explain`.
        lengths: Long (B,).
        progress: Show a progress bar.
        sample_names: (B,) names.
        times: (B, T) datetimes.
        options: Of `TemporalShapley`: `players`, `evaluations`, `baseline`, `background`, `segments`, `pruning`,
            `output`, `seed`, ...; `tolerance` and its `estimator` have no meaning here.

    Returns:
        A dataset with "interaction" (sample, player, other), in units of the explained number: symmetric, a pair's
        value at both of its places, main effects on the diagonal. Player p of a sample is the timesteps from "start" to
        before "stop" (sample, player); with players="timestep" and no pruning it is timestep p. Players that change
        nothing, and those that a shorter sequence does not have (start = stop), have 0. "completeness_gap" (sample) is
        f(x) - f(baseline) - main effects - pairs, each pair once. "players", "coalitions" and "exact" (sample) tell how
        many there were, were evaluated, and whether these were all; "prediction" and others are those of an
        `Attribution`. attrs: method, index, estimator, players, completeness, seed, versions, and more.

    Raises:
        InvalidInputError: Too many players for exact values and no `evaluations`, or too few of these; or what
            `explain` would refuse.

    Example:
        >>> found = temporal_interactions(model, inputs, players="segment", segments=6)
        >>> found["interaction"].sel(player=2, other=5)  # (sample,)
    """
    if isinstance(model, TemporalShapley) and options:
        raise InvalidInputError(
            f"{', '.join(sorted(options))} stand beside a TemporalShapley, which has options of its own; give them "
            "there: TemporalShapley(model, ...)."
        )
    shapley = model if isinstance(model, TemporalShapley) else TemporalShapley(model, **options)
    explainer = _PairExplainer(shapley, index, estimator)
    explained = explainer.explain(
        inputs, target=target, lengths=lengths, progress=progress, sample_names=sample_names, times=times
    )
    return explainer.dataset(explained.to_xarray())


class _PairExplainer(Explainer):
    """Lets the base check, resolve and call, and keeps what it finds of pairs."""

    name = "temporal_interactions"
    summary = "what two timesteps do together beyond what each does"
    takes_background = True

    def __init__(self, shapley: TemporalShapley, index: Index, estimator: str | None) -> None:
        super().__init__(shapley.predictor, baseline=shapley.baseline, background=shapley.background, seed=shapley.seed)
        if index not in tuple(ESTIMATORS):
            raise InvalidInputError(f"index is {index!r}; {nearest_name(str(index), ESTIMATORS)}")
        known = ESTIMATORS[index]
        if estimator is not None and estimator not in tuple(known):
            raise InvalidInputError(f"estimator is {estimator!r}; of {index}, {nearest_name(str(estimator), known)}")
        if shapley.tolerance is not None or shapley.estimator != PAIRS:
            raise InvalidInputError(
                "temporal_interactions has no standard errors to compare with a tolerance, and estimators of its own; "
                "make the TemporalShapley without tolerance and estimator, and give estimator= beside it."
            )
        self.index = index
        self.estimator = estimator or next(iter(known))
        self._shapley = shapley
        self._matrices: list[NDArray[np.float64]] = []
        self._players: list[Players] = []
        self._exact: list[bool] = []
        self._coalitions: list[int] = []

    def options(self) -> dict[str, Any]:
        """Return the options of the method, and those of the game."""
        return {**self._shapley.options(), "index": self.index, "estimator": self.estimator}

    def _attribute(self, problem: Problem) -> Contribution:
        if problem.reads_tokens and self._shapley.players == "feature":
            raise InvalidInputError("players='feature' has no meaning for token ids; use 'timestep' or 'segment'.")
        batch, steps = problem.inputs.shape[:2]
        for sample in problem.track(range(batch), batch, self.name):
            players, _, evaluated = self._shapley.game(problem, sample)
            self._take(players, evaluated)
        return Contribution(np.zeros((batch, steps, problem.features)))

    def _take(self, players: Game, evaluated: int) -> None:
        """Keep the interactions of one sample's players."""
        game = TemporalGame(players, memory_bytes=self._shapley.memory_bytes)
        game.evaluated += evaluated
        count = len(game.active)
        exact = self._is_exact(count)
        whole = np.zeros((game.count, game.count))
        whole[np.ix_(game.active, game.active)] = exact_pairs(game.every(), self.index) if exact else self._some(game)
        self._matrices.append(whole)
        self._players.append(players.players)
        self._exact.append(exact)
        self._coalitions.append(game.evaluated)

    def _is_exact(self, count: int) -> bool:
        evaluations = self._shapley.evaluations
        if count <= EXACT_PLAYERS and (evaluations is None or 2**count <= evaluations):
            return True
        if evaluations is None:
            raise InvalidInputError(
                f"{count} players have 2^{count} coalitions, and interactions are exact up to {EXACT_PLAYERS} players. "
                f"Give evaluations= ({_enough(count)} or more) for an estimate, or explain fewer players: "
                "players='segment', or pruning=0.02."
            )
        return False

    def _some(self, game: TemporalGame) -> NDArray[np.float64]:
        """Return the interactions (n, n) that shapiq estimates."""
        vars(self).update(library="shapiq")
        approximator, count = ESTIMATORS[self.index][self.estimator], len(game.active)
        evaluations = self._shapley.evaluations
        assert evaluations is not None
        approximator.check(self.estimator, count, evaluations)
        found = approximator.run(game, evaluations, self.seed, index=self.index, max_order=2)
        result = np.diag([found[player,] for player in range(count)])
        for one in range(count):
            for other in range(one):
                result[one, other] = result[other, one] = found[other, one]
        return result

    def dataset(self, explained: xr.Dataset) -> xr.Dataset:
        """Return what was found of all samples, beside the predictions of what `explain` gave."""
        import xarray as xr

        kind, batch = self._shapley.players, len(self._matrices)
        steps, features = explained.sizes["time"], explained.sizes["feature"]
        pruned = self._shapley.pruning is not None
        count = max(players.count for players in self._players)
        if not pruned:
            count = {"timestep": steps, "cell": steps * features}.get(kind, count)
        matrices = np.zeros((batch, count, count))
        spans = np.zeros((2, batch, count), dtype=np.int64)
        for row, (matrix, players) in enumerate(zip(self._matrices, self._players, strict=True)):
            matrices[row, : len(matrix), : len(matrix)] = matrix
            spans[:, row] = len(players.labels)
            spans[:, row, : players.count] = _spans(players)
        change = (explained["prediction"] - explained["baseline_prediction"]).to_numpy()
        main = np.trace(matrices, axis1=1, axis2=2)
        variables: dict[str, Any] = {
            "interaction": (("sample", "player", "other"), matrices),
            "start": (("sample", "player"), spans[0]),
            "stop": (("sample", "player"), spans[1]),
            "completeness_gap": ("sample", change - (main + matrices.sum(axis=(1, 2))) / 2),
            "players": ("sample", [players.count for players in self._players]),
            "coalitions": ("sample", self._coalitions),
            "exact": ("sample", np.array(self._exact, dtype=np.int64)),
        }
        variables |= {name: explained[name].variable for name in KEPT_VARIABLES if name in explained}
        names: Any = np.arange(count)
        if kind in ("feature", "cell") and not pruned and str(explained.attrs["inputs"]) != "tokens":
            features_named = explained["feature"].to_numpy()
            cells = [f"{name} @ {time}" for time in range(steps) for name in features_named]
            names = np.array(features_named if kind == "feature" else cells, dtype=object)
        elif kind != "segment" and not pruned:
            of_time = [name for name in ("token", "timestamp") if name in explained]
            variables |= {name: (("sample", "player"), explained[name].to_numpy()) for name in of_time}
        attrs = {name: explained.attrs[name] for name in KEPT_ATTRS}
        exact = all(self._exact)
        attrs |= {
            "method": self.name,
            "index": self.index,
            "estimator": "exact" if exact else self.estimator,
            "players": kind,
            "evaluations": self._shapley.evaluations or "all",
            "exact": int(exact),
            "completeness": self._promise(exact=exact),
            "source": SOURCES[self.index],
        }
        coordinates = {"sample": explained["sample"].to_numpy(), "player": names, "other": names}
        return xr.Dataset(variables, coordinates, attrs)

    def _promise(self, *, exact: bool) -> Completeness:
        if self.index not in ADDS_UP:
            return "none"
        return "exact" if exact else "converges"


def _spans(players: Players) -> NDArray[np.int64]:
    """Return the first timestep of each player, and the one after its last, (2, n)."""
    labels = players.labels
    time = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    spans = np.stack([np.full(players.count, len(labels)), np.zeros(players.count, dtype=np.int64)])
    np.minimum.at(spans[0], labels, time)
    np.maximum.at(spans[1], labels, time + 1)
    return spans
