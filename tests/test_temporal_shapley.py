"""TemporalShapley: the formula over all orders of players, on the model itself, is the oracle."""

import itertools
import math

import numpy as np
import pytest
import torch

from gatelens.explainers import TemporalShapley
from gatelens.explainers.checks import check_explainer
from gatelens.explainers.shapley_estimates import least_squares
from gatelens.explainers.temporal_game import TemporalGame, shapley_values
from gatelens.models import InvalidInputError
from helpers.explained import LENGTHS, Foreign, Linear, linear_function, lstm, sequences, token_ids

POOLINGS = ["last", "mean", "max", "attention", "dot_attention"]


def by_orders(value, count):
    """Return the Shapley values (n,) as the mean gain over all orders in which players may come."""
    result = np.zeros(count)
    for order in itertools.permutations(range(count)):
        coalitions = np.array([[player in order[:size] for player in range(count)] for size in range(count + 1)])
        result[list(order)] += np.diff(value(coalitions))
    return result / math.factorial(count)


def by_subsets(value, count):
    """Return the Shapley values (n,) by the formula over all coalitions without a player."""
    coalitions = np.array(list(itertools.product([False, True], repeat=count)))
    worth = dict(zip(map(tuple, coalitions.tolist()), value(coalitions), strict=True))
    result = np.zeros(count)
    for player in range(count):
        for coalition in coalitions[~coalitions[:, player]]:
            with_player = coalition.copy()
            with_player[player] = True
            size = int(coalition.sum())
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            result[player] += weight * (worth[tuple(with_player.tolist())] - worth[tuple(coalition.tolist())])
    return result


def masked(model, inputs, labels=None, reference=None):
    """Return the game on the model itself: inputs (1, T, ...) where a player is on, else the reference."""
    labels = np.arange(inputs.shape[1]) if labels is None else labels
    reference = torch.zeros_like(inputs) if reference is None else reference

    @torch.no_grad()
    def value(coalitions):
        on = torch.as_tensor(coalitions)[:, labels]
        on = on[..., None] if inputs.ndim == 3 and on.ndim == 2 else on
        return model(torch.where(on, inputs, reference))[:, 0].double().numpy()

    return value


# -- exact values ----------------------------------------------------------------------------------------------------


def test_the_aggregation_is_the_formula():
    """Halving sums give the values of both textbook formulas, for every number of players."""
    rng = np.random.default_rng(0)
    for count in range(1, 7):
        values = rng.normal(size=2**count) + 100

        def value(coalitions, values=values):
            return values[coalitions @ 2 ** np.arange(coalitions.shape[1])]

        found = shapley_values(values)
        np.testing.assert_allclose(found, by_orders(value, count), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found, by_subsets(value, count), rtol=0, atol=1e-12)
    assert shapley_values(np.ones(1)).shape == (0,)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [(5,), (6, 4)])
def test_timesteps_equal_the_mean_over_all_orders(layers, pooling, double):
    """For seven timesteps the values are the mean gain over all 5,040 orders, for all poolings, one layer or two."""
    exact = lstm(strength=3.0, hidden_sizes=layers, pooling=pooling, double=True)
    inputs = sequences(1, 7, 3, double=True)
    expected = by_orders(masked(exact, inputs), 7)
    model = exact if double else exact.float()
    result = TemporalShapley(model).explain(inputs if double else inputs.float())
    tolerance = 1e-10 if double else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(result.timesteps[0], expected, rtol=0, atol=tolerance)
    assert result.std_error is None
    for name, number in (("players", 7), ("coalitions", 128), ("exhaustive", 1)):
        assert result.diagnostic(name) == [number]
    assert result.diagnostic("prefix_shared") == [pooling != "dot_attention"]  # whose weights the last state makes


@pytest.mark.parametrize("pooling", [*POOLINGS, "none"])
def test_variable_lengths(pooling):
    """Each sample has the players of its own length, and padding gets 0."""
    model, inputs = lstm(double=True, pooling=pooling), sequences(3, 6, 3, double=True)
    result = TemporalShapley(model).explain(inputs, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        inner = inputs[row : row + 1, :length]
        read = (lambda part: model(part)[:, -1]) if pooling == "none" else model
        expected = by_subsets(masked(read, inner), length)
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-10)
        assert (result.values[row, length:] == 0).all()
    np.testing.assert_array_equal(result.diagnostic("coalitions"), 2 ** np.array(LENGTHS))


@pytest.mark.parametrize("background", [None, 3])
def test_tokens(background):
    """Tokens are replaced by the pad token, or by those of a background."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, double=True), token_ids(1, 6)
    references = torch.zeros(1, 6, dtype=torch.long) if background is None else token_ids(background, 6, seed=5)
    games = [masked(model, ids, reference=row) for row in references]
    expected = by_subsets(lambda z: np.mean([game(z) for game in games], axis=0), 6)
    for players in ("timestep", "cell"):
        result = TemporalShapley(model, players=players, background=None if background is None else references)
        result = result.explain(ids)
        np.testing.assert_allclose(result.values[0, :, 0], expected, rtol=0, atol=1e-10)
        assert result.diagnostic("prefix_shared") == [1]


def test_segments_baselines_and_backgrounds():
    """Segments are players; the reference may be any sequence, or several whose games are averaged."""
    model, inputs = lstm(double=True, pooling="mean"), sequences(1, 8, 3, double=True)
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    reference = sequences(8, 3, seed=4, double=True)
    result = TemporalShapley(model, players="segment", segments=3, baseline=reference).explain(inputs)
    found = np.bincount(labels, weights=result.timesteps[0])
    np.testing.assert_allclose(found, by_orders(masked(model, inputs, labels, reference), 3), rtol=0, atol=1e-10)
    assert result.resolution == "segment"
    background = sequences(4, 8, 3, seed=9, double=True)
    games = [masked(model, inputs, reference=row) for row in background]
    expected = by_subsets(lambda z: np.mean([game(z) for game in games], axis=0), 8)
    result = TemporalShapley(model, background=background).explain(inputs)
    np.testing.assert_allclose(result.timesteps[0], expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_classes_and_probabilities(output):
    """The score of any class, or its probability, is explained."""
    model, inputs = lstm(double=True, output_size=3, task="multiclass"), sequences(1, 5, 3, double=True)
    result = TemporalShapley(model, output=output).explain(inputs, target=2)

    def read(part):
        scores = model(part)
        return (scores.softmax(1) if output == "probability" else scores)[:, 2:]

    np.testing.assert_allclose(result.timesteps[0], by_subsets(masked(read, inputs), 5), rtol=0, atol=1e-10)
    assert result.diagnostic("prefix_shared") == [1]


@pytest.mark.parametrize(
    ("make", "options", "shared"),
    [
        (lambda: lstm(double=True), {"players": "feature"}, 0),
        (lambda: lstm(double=True), {"players": "cell"}, 1),
        (lambda: lstm(double=True), {"baseline": "hold_last"}, 1),
        (lambda: lstm(double=True, bidirectional=True), {}, 0),
        (lambda: Foreign().double(), {}, 0),
        (lambda: Linear(sequences(4, 3, double=True)), {}, 0),
        (lambda: linear_function(sequences(4, 3, double=True)), {}, 0),
    ],
)  # fmt: skip
def test_other_players_and_models(make, options, shared):
    """Other players, models and functions get the values of the game played on the model, and the result says how."""
    inputs = sequences(2, 4, 3, double=True)
    explainer = TemporalShapley(make(), **options)
    result = explainer.explain(inputs)
    assert (result.diagnostic("prefix_shared") == shared).all()
    assert (result.diagnostic("exhaustive") == 1).all()
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)
    games = []
    explainer._estimate, estimate = lambda game, guess=None: games.append(game) or estimate(game), explainer._estimate
    explainer.explain(inputs)
    for row, game in enumerate(games):
        labels = game._game.players.labels
        found = np.bincount(labels.ravel(), weights=result.values[row].ravel())
        with explainer.predictor.evaluation():
            np.testing.assert_allclose(found, by_subsets(game._game, game.count), rtol=0, atol=1e-10)


def test_both_ways_agree(monkeypatch):
    """Shared prefixes and coalition by coalition give the same values, in float32 to 1e-6 of the largest."""
    model, inputs = lstm(hidden_sizes=(12, 7), pooling="attention"), sequences(1, 11, 3)
    shared = TemporalShapley(model).explain(inputs)
    monkeypatch.setattr("gatelens.explainers.temporal_game.shares_prefixes", lambda _: False)
    single = TemporalShapley(model).explain(inputs)
    assert (shared.diagnostic("prefix_shared"), single.diagnostic("prefix_shared")) == ([1], [0])
    assert shared.attrs["forward_evaluations"] < single.attrs["forward_evaluations"] / 4
    np.testing.assert_allclose(shared.values, single.values, rtol=0, atol=2e-6 * np.abs(single.values).max())


def test_a_prediction_the_engine_does_not_know_is_not_believed():
    """Where the model's own numbers are others than the engine's, coalitions are asked of the model."""
    model, inputs = lstm(double=True), sequences(1, 5, 3, double=True)
    model.head.forward = lambda hidden: 3 * torch.nn.functional.linear(hidden, model.head.weight)
    result = TemporalShapley(model).explain(inputs)
    assert result.diagnostic("prefix_shared") == [0]
    np.testing.assert_allclose(result.timesteps[0], by_subsets(masked(model, inputs), 5), rtol=0, atol=1e-10)


def test_players_that_change_nothing_are_not_played():
    """Timesteps that equal the reference get exactly 0 and cost nothing, so that 30 of them may be exact."""
    model, inputs = lstm(double=True), torch.zeros(1, 30, 3, dtype=torch.float64)
    inputs[:, [3, 11, 29]] = sequences(1, 3, 3, double=True)
    result = TemporalShapley(model).explain(inputs)
    assert result.diagnostic("coalitions") == [8]
    assert np.flatnonzero(result.timesteps[0]).tolist() == [3, 11, 29]
    chosen = np.full(30, 3)
    chosen[[3, 11, 29]] = range(3)
    value = masked(model, inputs, chosen)
    expected = by_subsets(lambda z: value(np.column_stack([z, np.zeros(len(z), dtype=bool)])), 3)
    np.testing.assert_allclose(result.timesteps[0, [3, 11, 29]], expected, rtol=0, atol=1e-10)
    nothing = TemporalShapley(model).explain(torch.zeros(1, 4, 3, dtype=torch.float64))
    assert (nothing.values == 0).all()


def test_only_timesteps_up_to_the_explained_one_are_played():
    """Of outputs at each timestep, later timesteps get exactly 0."""
    model, inputs = lstm(double=True, pooling="none", output_size=2), sequences(1, 9, 3, double=True)
    result = TemporalShapley(model).explain(inputs, target=(3, 1))
    expected = by_subsets(masked(lambda part: model(part)[:, 3, 1:], inputs[:, :4].clone()), 4)
    np.testing.assert_allclose(result.timesteps[0, :4], expected, rtol=0, atol=1e-10)
    assert (result.values[0, 4:] == 0).all()
    assert result.diagnostic("coalitions") == [16]


# -- known games -----------------------------------------------------------------------------------------------------


def test_an_additive_game_is_exact_also_when_sampled():
    """On a linear model every timestep gets its term, exactly, and from few pairs with an error that is told small."""
    weight, inputs = sequences(24, 3, seed=3, double=True), sequences(1, 24, 3, double=True)
    expected = (weight * inputs[0]).sum(1).numpy()
    short = TemporalShapley(Linear(weight)).explain(inputs[:, :8])
    np.testing.assert_allclose(short.timesteps[0], expected[:8], rtol=0, atol=1e-12)
    result = TemporalShapley(Linear(weight), evaluations=120).explain(inputs)
    np.testing.assert_allclose(result.timesteps[0], expected, rtol=0, atol=2e-2 * np.abs(expected).max())
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)
    assert (np.abs(result.timesteps[0] - expected) <= 4 * result.std_error.sum(axis=2)[0] + 1e-12).all()


def test_all_pairs_are_exact():
    """Where the pairs that are asked for are all there are, the values are exact, and called so."""
    weight, inputs = sequences(5, 2, seed=3, double=True), sequences(1, 5, 2, double=True)

    def function(values):
        return np.sign(np.sin(9 * (values * weight.numpy()).sum((1, 2))))

    truth = TemporalShapley(function, players="cell").explain(inputs)
    result = TemporalShapley(function, players="cell", tolerance=1e-9).explain(inputs)
    assert result.diagnostic("exhaustive") == truth.diagnostic("exhaustive") == [1]
    explainer = TemporalShapley(function, players="cell", tolerance=1e-9)
    explainer._is_exact = lambda _: False
    result = explainer.explain(inputs)
    assert result.diagnostic("exhaustive") == [1]
    assert result.diagnostic("coalitions") == [1024]
    assert result.std_error is None
    np.testing.assert_allclose(result.values, truth.values, rtol=0, atol=1e-10)


def test_players_that_do_the_same_get_the_same():
    """Two equal features get equal values, and a feature that is not read gets 0."""
    model = lstm(double=True)
    with torch.no_grad():
        model.lstm[0].weight_ih_l0[:, 1] = model.lstm[0].weight_ih_l0[:, 0]
        model.lstm[0].weight_ih_l0[:, 2] = 0
    inputs = sequences(1, 5, 3, double=True)
    inputs[..., 1] = inputs[..., 0]
    result = TemporalShapley(model, players="feature").explain(inputs)
    np.testing.assert_allclose(result.features[0, 0], result.features[0, 1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.features[0, 2], 0, atol=1e-12)
    assert abs(result.features[0, 0]) > 0.01


# -- estimates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["last", "attention"])
def test_estimates_are_calibrated(pooling):
    """Over samples, seeds and numbers of evaluations the truth lies within two standard errors 95 times in 100."""
    model = lstm(strength=3.0, hidden_sizes=(12,), pooling=pooling)
    inputs = sequences(10, 13, 3)
    truth = TemporalShapley(model).explain(inputs).timesteps
    within, ratios, errors = [], [], []
    for evaluations in (64, 128, 256, 512):
        for seed in range(3):
            result = TemporalShapley(model, evaluations=evaluations, seed=seed).explain(inputs)
            assert (result.diagnostic("coalitions") <= evaluations).all()
            off, told = result.timesteps - truth, result.std_error.sum(axis=2)
            within.append(np.abs(off) <= 2 * told)
            ratios.append(np.sqrt((off**2).mean() / (told**2).mean()))
            errors.append(np.linalg.norm(off) / np.linalg.norm(truth))
            np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-6)
    assert 0.92 <= np.mean(within) <= 0.985
    assert 0.6 < np.mean(ratios) < 1.3, ratios
    assert np.mean(errors[-3:]) < np.mean(errors[:3]) / 3


def test_estimates_of_other_players_and_models():
    """Cells and black boxes are estimated the same way, within their errors of the exact values."""
    weight, inputs = sequences(6, 3, seed=3, double=True), sequences(2, 6, 3, double=True)

    def function(values):
        return np.tanh((values * weight.numpy()).sum((1, 2))) + 0.2 * values[:, 1, 0] * values[:, 4, 2]

    truth = TemporalShapley(function, players="cell").explain(inputs)
    result = TemporalShapley(function, players="cell", evaluations=400).explain(inputs)
    assert truth.std_error is None
    assert (result.diagnostic("exhaustive") == 0).all()
    assert (np.abs(result.values - truth.values) <= 4 * result.std_error + 1e-9).all()
    assert np.abs(result.values - truth.values).max() < 0.05 * np.abs(truth.values).max()


def test_least_squares_is_calibrated(monkeypatch):
    """Where least squares takes over, it gives values and calibrated errors as well."""
    model, inputs = lstm(strength=3.0, hidden_sizes=(12,)), sequences(10, 13, 3)
    truth = TemporalShapley(model).explain(inputs).timesteps
    monkeypatch.setattr("gatelens.explainers.temporal_shapley.estimate", lambda pairs, guess: least_squares(pairs))
    within = []
    for seed in range(6):
        result = TemporalShapley(model, evaluations=400, seed=seed).explain(inputs)
        within.append(np.abs(result.timesteps - truth) <= 2 * result.std_error.sum(axis=2))
        np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-6)
        assert np.linalg.norm(result.timesteps - truth) < 0.2 * np.linalg.norm(truth)
    assert 0.92 <= np.mean(within) <= 0.99


def test_the_tolerance_is_reached():
    """Pairs are drawn until every standard error is within the tolerance, or `evaluations` are spent."""
    model, inputs = lstm(strength=3.0, hidden_sizes=(12,)), sequences(2, 30, 3)
    spent = []
    for tolerance in (0.05, 0.002):
        result = TemporalShapley(model, tolerance=tolerance).explain(inputs)
        change = np.abs(result.prediction - result.baseline_prediction)
        scale = np.maximum(change, np.abs(result.timesteps).max(axis=1))
        assert (result.std_error.sum(axis=2).max(axis=1) <= tolerance * scale).all()
        spent.append(result.diagnostic("coalitions"))
    assert (spent[1] >= spent[0]).all()
    assert spent[1].max() > spent[0].max()
    few = TemporalShapley(model, tolerance=1e-6, evaluations=300).explain(inputs)
    assert (few.diagnostic("coalitions") == 300).all()


def test_the_default_beyond_twenty_players():
    """More than 20 players are estimated from 2 n + 2,048 coalitions; 20 are exact."""
    model = lstm(hidden_sizes=(2,))
    result = TemporalShapley(model).explain(sequences(1, 21, 3))
    assert result.diagnostic("coalitions") == [2 * 21 + 2048]
    assert result.diagnostic("exhaustive") == [0]
    assert result.diagnostic("prefix_shared") == [1]
    assert result.std_error is not None


def test_options_are_checked():
    """Options that make no sense are refused, and too few evaluations say how many are enough."""
    for options, message in (
        ({"tolerance": 0.0}, "tolerance is 0.0; expected a share"),
        ({"tolerance": 2}, "tolerance is 2"),
        ({"evaluations": 7}, "evaluations is 7"),
        ({"memory_bytes": 0}, "memory_bytes is 0"),
        ({"players": "event"}, "players is 'event'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            TemporalShapley(lstm(), **options)
    for model, least in ((lstm(), 11), (Foreign(), 20)):  # with DeepLIFT's guess, and without
        with pytest.raises(InvalidInputError, match=f"too few to tell 9 players apart; give {least} or more"):
            TemporalShapley(model, evaluations=least - 1).explain(sequences(1, 9, 3))
        result = TemporalShapley(model, evaluations=least).explain(sequences(1, 9, 3))
        assert result.diagnostic("coalitions") <= least
        assert (result.std_error.sum(axis=2) > 0).all()
    with pytest.raises(InvalidInputError, match="players='feature' has no meaning for token ids"):
        TemporalShapley(lstm(vocab_size=9, embedding_dim=2), players="feature").explain(token_ids(1, 3))


@pytest.mark.parametrize(
    "options", [{"players": "segment", "segments": 3}, {"evaluations": 26}, {"players": "cell", "evaluations": 60}]
)
def test_other_options_keep_the_contract(options):
    """With other players, and where values are estimates, the contract holds as well."""
    check_explainer(TemporalShapley, **options)


def test_solve_gives_the_contributions_alone():
    """`_solve`, as `PlayerExplainer` asks for it, gives every player's value."""
    model, inputs = lstm(double=True), sequences(1, 5, 3, double=True)
    explainer = TemporalShapley(model)
    games = []
    explainer._estimate, estimate = lambda game, guess=None: games.append(game) or estimate(game), explainer._estimate
    result = explainer.explain(inputs)
    assert isinstance(games[0], TemporalGame)
    values, numbers = explainer._solve(games[0]._game)
    np.testing.assert_allclose(values, result.timesteps[0], rtol=0, atol=1e-12)
    assert numbers["players"] == 5


def test_deeplift_is_where_estimates_begin(monkeypatch):
    """Of an `LSTMModel`, DeepLIFT's contributions are the estimate's mean: it is nearer to the truth than without."""
    model, inputs = lstm(hidden_sizes=(16,), double=True), sequences(4, 18, 3, double=True)
    exact = TemporalShapley(model).explain(inputs).timesteps
    seeds = range(5)
    with_guess = [TemporalShapley(model, evaluations=60, seed=seed).explain(inputs) for seed in seeds]
    monkeypatch.setattr("gatelens.explainers.temporal_shapley.guess_contributions", lambda problem: None)
    without = [TemporalShapley(model, evaluations=60, seed=seed).explain(inputs) for seed in seeds]
    off, off_without = (np.mean([np.linalg.norm(one.timesteps - exact) for one in part])
                        for part in (with_guess, without))  # fmt: skip
    assert off < 0.8 * off_without
    shares = np.array([(one.timesteps - exact) / one.std_error.sum(axis=2) for one in with_guess])
    assert (np.abs(shares) <= 3).mean() > 0.95
    assert (np.abs(shares) <= 2).mean() > 0.9


def test_nothing_is_guessed_of_what_deeplift_does_not_know():
    """Foreign models, a held last value and a forward pass of the user's own are estimated without a guess."""
    from gatelens.explainers.guess import guess_contributions

    class Doubled(type(lstm())):
        def forward(self, inputs, lengths=None):
            return 2 * super().forward(inputs, lengths)

    seen = []

    def spy(problem):
        seen.append(guess_contributions(problem))
        return seen[-1]

    inputs = sequences(1, 22, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatelens.explainers.temporal_shapley.guess_contributions", spy)
        for model, baseline in ((Foreign(), "zero"), (lstm(), "hold_last"), (Doubled(lstm().config), "zero")):
            result = TemporalShapley(model.eval(), evaluations=60, baseline=baseline).explain(inputs)
            assert np.abs(result.completeness_gap).max() < 1e-5
        TemporalShapley(lstm(), evaluations=60).explain(inputs)
    assert [guess is None for guess in seen] == [True, True, True, False]
