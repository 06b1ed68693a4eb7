"""Players partition a sequence; a game gives the value of a coalition; spreading gives cells their shares."""

import numpy as np
import pytest
import torch

from gatelens.explainers import KernelSHAP, Players
from gatelens.models import InvalidInputError, Predictor
from helpers.explained import lstm, sequences, token_ids


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("timestep", [[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]]),
        ("feature", [[0, 1]] * 5),
        ("cell", [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]),
        ("segment", [[0, 0], [0, 0], [0, 0], [1, 1], [1, 1]]),
    ],
)
def test_each_kind_partitions_the_cells(kind, labels):
    """Every cell belongs to one player, as its kind says, and the players are numbered without a gap."""
    players = Players.make(kind, 5, 2, segments=2)
    assert players.labels.tolist() == labels
    assert players.count == len(set(np.ravel(labels)))


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("timestep", [[0, 0], [0, 0], [1, 1], [2, 2], [3, 3]]),
        ("feature", [[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]]),
        ("cell", [[0, 0], [0, 0], [1, 2], [3, 4], [5, 6]]),
        ("segment", [[0, 0], [0, 0], [1, 1], [1, 1], [2, 2]]),
    ],
)
def test_merged_timesteps_are_one_player(kind, labels):
    """The first timesteps are player 0, and the others are partitioned as if they were all there is."""
    starts = np.array([0, 2]) if kind == "segment" else None
    players = Players.make(kind, 5, 2, segments=2, merged=2)
    assert players.labels.tolist() == labels
    assert players.count == len(set(np.ravel(labels)))
    assert Players.make(kind, 5, 2, starts=starts, merged=2).labels.tolist() == labels


@pytest.mark.parametrize(("length", "segments"), [(1, 10), (7, 3), (10, 10), (100, 7)])
def test_segments_are_contiguous_and_about_equal(length, segments):
    """Segments follow one another in time, and their sizes differ by at most one."""
    players = Players.make("segment", length, 1, segments=segments)
    sizes = np.bincount(players.labels[:, 0])
    assert (np.diff(players.labels[:, 0]) >= 0).all()
    assert len(sizes) == players.count == min(length, segments)
    assert np.ptp(sizes) <= 1


def test_shares_go_to_the_cells_that_change():
    """A player's contribution is shared equally by those of its cells that differ from the baseline."""
    players = Players.make("timestep", 3, 2)
    changed = np.array([[True, True], [True, False], [False, False]])
    shares = players.spread(np.array([1.0, 2.0, 4.0]), changed)
    assert shares.tolist() == [[0.5, 0.5], [2.0, 0.0], [2.0, 2.0]]


def test_an_unknown_kind_is_refused():
    """An unknown kind of player is refused with the nearest name."""
    with pytest.raises(InvalidInputError, match="Did you mean 'timestep'"):
        KernelSHAP(lstm(), players="timesteps")


@pytest.mark.parametrize("segments", [0, 1.5, True])
def test_segments_are_checked(segments):
    """A number of segments that is no positive whole number is refused."""
    with pytest.raises(InvalidInputError, match="segments is"):
        KernelSHAP(lstm(), players="segment", segments=segments)


def test_tokens_have_no_features_to_switch():
    """players="feature" is refused for token ids."""
    with pytest.raises(InvalidInputError, match="no meaning for token ids"):
        KernelSHAP(lstm(vocab_size=9, embedding_dim=4), players="feature").explain(token_ids(1, 4))


class Recorder(KernelSHAP):
    """Plays nothing, and keeps the games."""

    def _solve(self, game):
        self._games = [*getattr(self, "_games", []), game]
        return np.zeros(game.players.count), {}


def game_of(model, inputs, sample=0, lengths=None, **options):
    """Return the game of one sample."""
    explainer = Recorder(model, **options)
    explainer.explain(inputs, lengths=lengths)
    return explainer._games[sample]


@pytest.mark.parametrize("players", ["timestep", "segment", "feature", "cell"])
def test_the_value_of_a_coalition_is_the_model_on_the_mixture(players):
    """Players of the coalition keep their input, the rest take the baseline; padding is cut off."""
    model, inputs, baseline = lstm(double=True), sequences(2, 6, 3, double=True), sequences(6, 3, seed=3, double=True)
    game = game_of(model, inputs, 1, [6, 4], players=players, segments=2, baseline=baseline)
    generator = np.random.default_rng(0)
    coalitions = generator.random((20, game.players.count)) < 0.5
    found = game(coalitions)
    for row, coalition in enumerate(coalitions):
        on = torch.tensor(coalition[game.players.labels])
        mixed = torch.where(on, inputs[1, :4], baseline[:4])
        np.testing.assert_allclose(found[row], model(mixed[None]).item(), rtol=0, atol=1e-12)


def test_all_and_none_are_input_and_baseline():
    """The full coalition is worth f(x), the empty one f(baseline)."""
    explainer = Recorder(lstm(), baseline=0.3)
    result = explainer.explain(sequences(1, 5, 3))
    ends = explainer._games[0](np.array([[True] * 5, [False] * 5]))
    np.testing.assert_allclose(ends, [result.prediction[0], result.baseline_prediction[0]], rtol=0, atol=1e-6)


def test_equal_coalitions_are_evaluated_once():
    """A coalition asked for again costs nothing; the values come back in the order asked."""
    predictor = Predictor(lstm())
    game = game_of(predictor, sequences(1, 3, 3))
    before = predictor.forward_evaluations
    first, second = [True, False, True], [False, False, True]
    found = game(np.array([first, second, first, first, second]))
    assert predictor.forward_evaluations - before == 2
    np.testing.assert_array_equal(found[[0, 0, 1]], found[[2, 3, 4]])
    assert found[0] != found[1]


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_more_players_than_a_byte_has_bits_are_told_apart(layout):
    """Coalitions of many players that differ in one alone are two, however they lie in memory."""
    predictor = Predictor(lstm(pooling="mean"))
    game = game_of(predictor, sequences(1, 19, 3))
    coalitions = np.concatenate([~np.eye(19, dtype=bool), ~np.eye(19, dtype=bool)[::-1]])
    before = predictor.forward_evaluations
    found = game(layout(coalitions))
    assert predictor.forward_evaluations - before == 19
    alone = [game(coalition[None])[0] for coalition in coalitions]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
    assert len(np.unique(found)) == 19


def test_small_batches_give_the_same_values():
    """How many coalitions fit the memory budget changes nothing."""
    inputs, coalitions = sequences(1, 5, 3, double=True), np.random.default_rng(1).random((30, 5)) < 0.5
    large, small = (
        game_of(Predictor(lstm(double=True), memory_bytes=size), inputs, background=sequences(3, 5, 3, seed=2))
        for size in (2**29, 1)
    )
    np.testing.assert_allclose(small(coalitions), large(coalitions), rtol=0, atol=1e-12)


def test_changed_cells_differ_from_some_reference():
    """A cell is unchanged only where it equals every reference; such a cell gets no share, nor does padding."""
    inputs = torch.ones(1, 4, 3)
    background = torch.ones(2, 4, 3)
    background[1, 0, 0] = background[0, 2, 1] = background[1, 2, 2] = 0
    game = game_of(lstm(), inputs, lengths=[3], background=background)
    assert game.changed.tolist() == [[True, False, False], [False] * 3, [False, True, True]]
    shares = game.spread(np.array([6.0, 3.0, 4.0]))
    assert shares.tolist() == [[6, 0, 0], [1, 1, 1], [0, 2, 2], [0, 0, 0]]
