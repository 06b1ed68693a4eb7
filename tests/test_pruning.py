"""Temporal pruning: the cut of a loop over two-player games, and the Shapley values of the game that it leaves."""

import itertools
import math

import numpy as np
import pytest
import torch

from gatelens.explainers import Players, TemporalShapley
from gatelens.explainers.checks import check_explainer
from gatelens.explainers.pruning import pruned_steps
from gatelens.explainers.temporal_game import TemporalGame
from gatelens.models import InvalidInputError
from helpers.explained import LENGTHS, Foreign, linear_function, lstm, sequences, token_ids

STEPS = 7
SHARES = (0.02, 0.1, 0.3, 0.6, 0.95)


def forgetful(**config):
    """Return a model of small forget gates, which only the last few timesteps move."""
    model = lstm(double=True, **config)
    with torch.no_grad():
        for layer in model.lstm:
            for name, parameter in layer.named_parameters():
                if name.startswith("bias_ih"):
                    parameter.view(4, -1)[1] -= 3  # torch's order: i, f, g, o
    return model


def masked(read, inputs, reference=None):
    """Return the value of cells (L, D) or (L,) that are on, on the model itself: inputs (1, L, ...), else reference."""
    reference = torch.zeros_like(inputs) if reference is None else reference

    @torch.no_grad()
    def value(on):
        on = torch.tensor(np.asarray(on))
        return float(read(torch.where(on, inputs[0], reference[0])[None]).ravel()[0])

    return value


def naive_cut(value, length, share, shape):
    """Return the cut of algorithm 1: from the end to the beginning, the first whose old timesteps matter little."""
    time = np.arange(length).reshape(-1, *[1] * (len(shape) - 1))
    everything, nothing = (value(np.full(shape, on)) for on in (True, False))
    for cut in range(length - 1, 0, -1):
        old, recent = (value(np.broadcast_to(on, shape)) for on in (time < cut, time >= cut))
        if abs((old - nothing) + (everything - recent)) / 2 <= share * abs(everything - nothing):
            return cut
    return 0


def by_subsets(value, labels):
    """Return the Shapley values (n,) of the players of labelled cells, by the formula over all coalitions."""
    count = labels.max() + 1
    worth = {
        coalition: value(np.isin(labels, coalition))
        for size in range(count + 1)
        for coalition in itertools.combinations(range(count), size)
    }
    result = np.zeros(count)
    for coalition, without in worth.items():
        for player in set(range(count)) - set(coalition):
            gain = worth[tuple(sorted((*coalition, player)))] - without
            result[player] += gain / (count * math.comb(count - 1, len(coalition)))
    return result


# -- where the cut is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shared"),
    [
        (lambda: forgetful(pooling="last"), True),
        (lambda: forgetful(hidden_sizes=(4, 3), pooling="mean"), True),
        (lambda: lstm(double=True, pooling="attention"), True),
        (lambda: forgetful(bidirectional=True), False),
        (lambda: Foreign().double(), False),
        (lambda: linear_function(sequences(STEPS, 3, double=True)), False),
    ],
)
def test_the_cut_is_that_of_a_loop(make, shared):
    """For every share, and every kind of model, as many timesteps are pruned as by a loop over all cuts."""
    model, inputs = make(), sequences(3, STEPS, 3, double=True)
    read = model if isinstance(model, torch.nn.Module) else lambda part: torch.as_tensor(model(part.numpy()))
    cuts = []
    for share in SHARES:
        result = TemporalShapley(model, pruning=share).explain(inputs)
        expected = [naive_cut(masked(read, row[None]), STEPS, share, (STEPS, 3)) for row in inputs]
        assert result.diagnostic("pruned").tolist() == expected
        assert (result.diagnostic("prefix_shared") == shared).all()
        np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)
        cuts.append(expected)
    assert len(np.unique(cuts)) > 1  # else the test would see little


def test_all_cuts_are_asked_for_at_once(monkeypatch):
    """The values of all cuts come from one call, and are counted."""
    calls, values = [], TemporalGame.values
    monkeypatch.setattr(TemporalGame, "values", lambda self, rows: calls.append(len(rows)) or values(self, rows))
    model, inputs = forgetful(), sequences(1, STEPS, 3, double=True)
    result = TemporalShapley(model, pruning=0.05).explain(inputs)
    assert calls == [2 * (STEPS - 1)]
    left = STEPS - result.diagnostic("pruned")[0] + 1
    assert result.diagnostic("players") == [left]
    assert result.diagnostic("coalitions") == [2**left + 2 * (STEPS - 1)]


def test_the_share_has_no_scale():
    """A model whose scores are 1,000 times as large, or turned round, is cut at the same timestep."""
    inputs, cuts = sequences(4, 9, 3, double=True), []
    for factor in (1, 1000, -1):
        model = forgetful()
        with torch.no_grad():
            model.head.weight.mul_(factor)
        cuts.append(TemporalShapley(model, pruning=0.05).explain(inputs).diagnostic("pruned").tolist())
    assert cuts[0] == cuts[1] == cuts[2]
    assert max(cuts[0]) > 2


def test_nothing_is_pruned_without_a_difference():
    """Where f(x) = f(baseline) there is nothing to be a share of, and nothing is pruned."""

    def products(values):
        return values[:, 0, 0] * 3 - values[:, 1, 0] * 3

    result = TemporalShapley(products, pruning=0.5).explain(torch.ones(1, 5, 2))
    assert result.diagnostic("pruned") == [0]
    np.testing.assert_allclose(result.timesteps, [[3, -3, 0, 0, 0]], atol=1e-6)


def test_timesteps_that_change_nothing_make_no_cut():
    """Timesteps that equal the reference go with what is before them; alone they are not pruned."""
    model, inputs = forgetful(), torch.zeros(1, 9, 3, dtype=torch.float64)
    inputs[:, [2, 4, 8]] = sequences(1, 3, 3, double=True)
    result = TemporalShapley(model, pruning=0.05).explain(inputs)
    assert result.diagnostic("pruned") == [8]
    assert result.diagnostic("players") == [2]
    assert TemporalShapley(model, pruning=1e-9).explain(inputs).diagnostic("pruned") == [0]
    nothing = TemporalShapley(model, pruning=0.5).explain(torch.zeros_like(inputs))
    assert nothing.diagnostic("pruned") == nothing.diagnostic("pruned_contribution") == [0]


def test_pruned_steps_alone():
    """The function gives the cut and what it cost; one timestep cannot be cut."""
    games = []

    class Keeping(TemporalShapley):
        def game(self, problem, sample):
            found = super().game(problem, sample)
            games.append(found[0])
            return found

    inputs = sequences(2, STEPS, 3, double=True)
    Keeping(forgetful()).explain(inputs, lengths=[STEPS, 1])
    cut = naive_cut(masked(forgetful(), inputs[:1]), STEPS, 0.05, (STEPS, 3))
    assert pruned_steps(games[0], 0.05, memory_bytes=2**20) == (cut, 2 * (STEPS - 1))
    assert pruned_steps(games[1], 0.05, memory_bytes=2**20) == (0, 0)


# -- the game that is left -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "options"),
    [
        ("timestep", {}),
        ("segment", {"segments": 2}),
        ("segment", {"segments": 2, "segmentation": "change_point"}),
        ("feature", {}),
        ("cell", {}),
    ],
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_values_are_those_of_the_pruned_game(players, options, bidirectional):
    """Old timesteps are one player beside those of the level: the values by the formula, shared by their cells."""
    model, inputs = forgetful(bidirectional=bidirectional), sequences(1, STEPS, 3, double=True, seed=8)
    result = TemporalShapley(model, players=players, pruning=0.1, **options).explain(inputs)
    cut = int(result.diagnostic("pruned")[0])
    assert cut >= 4
    starts = None
    if options.get("segmentation"):
        level = np.zeros(STEPS - cut, dtype=int)
        whole = TemporalShapley(model, players=players, **options).explain(inputs[:, cut:])
        level[1:] = np.cumsum(np.abs(np.diff(whole.values[0, :, 0])) > 1e-12)
        starts = np.flatnonzero(np.diff(level, prepend=-1))
    rest = Players.make(players, STEPS - cut, 3, segments=2, starts=starts)
    labels = np.concatenate([np.zeros((cut, 3), dtype=int), rest.labels + 1])
    expected = by_subsets(masked(model, inputs), labels)
    shared = (expected / np.bincount(labels.ravel()))[labels]
    np.testing.assert_allclose(result.values[0], shared, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.diagnostic("pruned_contribution"), expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)
    assert result.diagnostic("players") == [len(expected)]
    assert result.resolution == players


def test_a_tiny_share_prunes_nothing():
    """The values are then those without pruning."""
    model, inputs = lstm(double=True), sequences(2, 8, 3, double=True)
    for players in ("timestep", "feature"):
        result = TemporalShapley(model, players=players, pruning=1e-12).explain(inputs)
        plain = TemporalShapley(model, players=players).explain(inputs)
        assert result.diagnostic("pruned").tolist() == [0, 0]
        assert result.diagnostic("pruned_contribution").tolist() == [0, 0]
        np.testing.assert_array_equal(result.values, plain.values)
        assert plain.diagnostic("pruned") is None


def test_what_a_model_forgets_is_pruned_at_little_cost():
    """Of a model that forgets, old timesteps are pruned, and the others keep nearly their exact values."""
    model, inputs = forgetful(), sequences(5, 16, 3, double=True)
    exact = TemporalShapley(model).explain(inputs)
    result = TemporalShapley(model, pruning=0.01).explain(inputs)
    pruned = result.diagnostic("pruned").astype(int)
    assert (pruned >= 6).all()
    assert (result.diagnostic("coalitions") < exact.diagnostic("coalitions") / 16).all()
    scale = np.abs(exact.timesteps).max(axis=1)
    for row, cut in enumerate(pruned):
        off = np.abs(result.timesteps[row, cut:] - exact.timesteps[row, cut:]).max()
        assert off <= 0.02 * scale[row]
        np.testing.assert_allclose(
            result.diagnostic("pruned_contribution")[row], exact.timesteps[row, :cut].sum(), atol=0.05 * scale[row]
        )


def test_long_sequences_become_exact():
    """A sequence of 200 timesteps of which fewer than 20 matter has exact values instead of estimates."""
    result = TemporalShapley(forgetful(), pruning=0.01).explain(sequences(2, 200, 3, double=True))
    assert (result.diagnostic("pruned") > 180).all()
    assert (result.diagnostic("exhaustive") == 1).all()
    assert result.std_error is None
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


# -- inputs of all kinds ---------------------------------------------------------------------------------------------


def test_every_sample_has_its_own_cut():
    """Of sequences of different length each is cut as if it were alone; padding gets 0."""
    model, inputs = forgetful(), sequences(3, 6, 3, double=True)
    result = TemporalShapley(model, pruning=0.3).explain(inputs, lengths=LENGTHS)
    assert len(set(result.diagnostic("pruned"))) > 1
    for row, length in enumerate(LENGTHS):
        alone = TemporalShapley(model, pruning=0.3).explain(inputs[row : row + 1, :length])
        assert result.diagnostic("pruned")[row] == alone.diagnostic("pruned")[0]
        np.testing.assert_allclose(result.values[row, :length], alone.values[0], rtol=0, atol=1e-12)
        assert (result.values[row, length:] == 0).all()


def test_tokens():
    """Token ids are cut against the pad token, or against a background."""
    model, ids = forgetful(vocab_size=9, embedding_dim=4), token_ids(1, 6)
    for background in (None, token_ids(3, 6, seed=5)):
        references = torch.zeros(1, 6, dtype=torch.long) if background is None else background
        games = [masked(model, ids, row[None]) for row in references]

        def value(on, games=games):
            return np.mean([game(on) for game in games])

        result = TemporalShapley(model, pruning=0.2, background=background).explain(ids)
        cut = int(result.diagnostic("pruned")[0])
        assert cut == naive_cut(value, 6, 0.2, (6,)) > 0
        labels = np.maximum(np.arange(6) - cut + 1, 0)
        expected = by_subsets(value, labels)
        found = np.bincount(labels, weights=result.values[0, :, 0])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"baseline": "hold_last"}, {"background": sequences(4, 9, 3, seed=7, double=True)}]
)
def test_other_references(options):
    """With the last value held, or a background, the cut is that of the game's own values, and completeness exact."""
    model, inputs = forgetful(), sequences(2, 9, 3, double=True)
    result = TemporalShapley(model, pruning=0.2, **options).explain(inputs)
    games = []

    class Keeping(TemporalShapley):
        def game(self, problem, sample):
            games.append(problem.game(sample, "timestep", segments=1))
            return super().game(problem, sample)

    explainer = Keeping(model, **options)
    explainer.explain(inputs)
    with explainer.predictor.evaluation():
        expected = [
            naive_cut(lambda on, game=game: float(game(np.asarray(on)[None])[0]), 9, 0.2, (9,)) for game in games
        ]
    assert result.diagnostic("pruned").tolist() == expected
    assert max(expected) > 0
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_output_before_the_end(bidirectional):
    """Timesteps after the explained one do not matter to a model that reads forwards, and are not what old ones are."""
    model = forgetful(pooling="none", output_size=2, bidirectional=bidirectional)
    inputs = sequences(1, 9, 3, double=True)
    result = TemporalShapley(model, pruning=0.2).explain(inputs, target=(4, 1))
    value = masked(lambda part: model(part)[:, 4, 1], inputs)
    assert result.diagnostic("pruned") == [naive_cut(value, 9, 0.2, (9, 3))]
    assert 0 < result.diagnostic("pruned")[0] <= 4
    assert (result.values[0, 5:] != 0).any() == bidirectional
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


def test_estimates_of_a_pruned_game():
    """What is left may be estimated as well; the values add up and the pruned player has its error."""
    result = TemporalShapley(forgetful(), pruning=0.02, players="cell", evaluations=60).explain(
        sequences(1, 12, 3, double=True)
    )
    cut = int(result.diagnostic("pruned")[0])
    assert cut > 0
    assert (result.std_error > 0).all()
    assert np.ptp(result.values[0, :cut]) == 0
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


@pytest.mark.parametrize("pruning", [0, 1, 1.5, -0.1, True, "0.1", float("nan")])
def test_no_share_is_refused(pruning):
    """Something that is no share between 0 and 1 is refused."""
    with pytest.raises(InvalidInputError, match=r"pruning is .*; expected a share between 0 and 1"):
        TemporalShapley(lstm(), pruning=pruning)


def test_pruning_keeps_the_contract():
    """An explainer that prunes keeps the contract; of single players it promises nothing."""
    check_explainer(TemporalShapley, pruning=0.05)
