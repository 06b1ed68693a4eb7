"""Occlusion: captum's FeatureAblation and Occlusion are the oracle; then tokens, backgrounds, windows and counts."""

import captum.attr
import numpy as np
import pytest
import torch

from gatelens.explainers import Occlusion, Players
from gatelens.models import InvalidInputError, Predictor
from helpers.explained import LENGTHS, Linear, linear_function, lstm, sequences, token_ids


@pytest.mark.parametrize("players", ["timestep", "segment", "feature", "cell"])
@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_players_equal_captum_s_feature_ablation(players, baseline):
    """Each player gets what captum's ablation of its cells gives, shared equally among them; padding is cut off."""
    model, inputs = lstm(bidirectional=True), sequences(3, 6, 3)
    result = Occlusion(model, players=players, segments=2, baseline=baseline).explain(inputs, lengths=LENGTHS)
    ablation = captum.attr.FeatureAblation(lambda values: model(values)[:, 0])
    for row, length in enumerate(LENGTHS):
        labels = Players.make(players, length, 3, segments=2).labels
        mask = torch.tensor(labels)[None]
        expected = ablation.attribute(inputs[row : row + 1, :length], baselines=baseline, feature_mask=mask)[0].numpy()
        shared = expected / np.bincount(labels.ravel())[labels]
        np.testing.assert_allclose(result.values[row, :length], shared, rtol=0, atol=1e-6)
        assert not result.values[row, length:].any()
        assert np.abs(expected).max() > 0.01
    assert result.resolution == players


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (7, 1), (7, 5)])
def test_sliding_windows_equal_captum_s_occlusion(window, stride):
    """A timestep gets the mean effect of the windows over it, as captum has it, the last window cut off at the end."""
    model, inputs = lstm(), sequences(2, 7, 3)
    found = Occlusion(model, window=window, stride=stride, baseline=0.2).explain(inputs)
    expected = captum.attr.Occlusion(lambda values: model(values)[:, 0]).attribute(
        inputs, sliding_window_shapes=(window, 3), strides=(stride, 3), baselines=0.2
    )
    np.testing.assert_allclose(found.timesteps, expected[..., 0].numpy(), rtol=0, atol=1e-6)
    assert found.resolution == "timestep"


def test_a_window_longer_than_a_sequence_takes_all_of_it():
    """A window that a shorter sequence of the batch does not fill takes the whole sequence away."""
    result = Occlusion(lstm(), window=5).explain(sequences(3, 6, 3), lengths=LENGTHS)
    explained = result.prediction - result.baseline_prediction
    np.testing.assert_allclose(result.timesteps[2, :2], explained[2], rtol=0, atol=1e-6)
    assert not result.timesteps[2, 2:].any()
    assert np.ptp(result.timesteps[0]) > 1e-3


@pytest.mark.parametrize(
    ("count", "window", "stride", "begins"),
    [(5, 2, 1, [0, 1, 2, 3]), (5, 2, 2, [0, 2, 4]), (5, 9, 1, [0]), (1, 1, 1, [0]), (6, 3, 3, [0, 3])],
)
def test_windows_cover_every_timestep(count, window, stride, begins):
    """Windows begin a stride apart until the end is reached, and leave no timestep out."""
    from gatelens.explainers.occlusion import _windows

    windows = _windows(count, window, stride)
    expected = [[begin <= time < begin + window for time in range(count)] for begin in begins]
    assert windows.tolist() == expected
    assert windows.any(axis=0).all()


def test_each_player_costs_one_evaluation():
    """Beside prediction and baseline there is one evaluation for each player, or window."""
    for options, players in (
        ({}, 6 + 4 + 2),
        ({"players": "cell"}, 3 * (6 + 4 + 2)),
        ({"players": "feature"}, 9),
        ({"window": 3}, 4 + 2 + 1),
    ):
        result = Occlusion(lstm(), **options).explain(sequences(3, 6, 3), lengths=LENGTHS)
        assert result.attrs["forward_evaluations"] == 2 * 3 + players
        assert result.attrs["backward_evaluations"] == 0


def test_a_background_is_averaged_over():
    """With a background set it is f(x) minus the mean over its sequences of f with the part taken from them."""
    model, inputs, background = lstm(), sequences(1, 5, 3), sequences(4, 5, 3, seed=8)
    result = Occlusion(model, background=background).explain(inputs)
    for time in range(5):
        mixed = inputs.repeat(4, 1, 1)
        mixed[:, time] = background[:, time]
        with torch.no_grad():
            expected = float(model(inputs) - model(mixed).mean())
        assert result.timesteps[0, time] == pytest.approx(expected, abs=1e-6)


def test_tokens_are_replaced_by_the_pad_token():
    """A token's value is the change when the padding token, or the id given, stands in its place."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, padding_index=2), token_ids(2, 5)
    for baseline, stands_in in (("pad", 2), (7, 7)):
        result = Occlusion(model, baseline=baseline).explain(ids)
        for row in range(2):
            for time in range(5):
                other = ids[row : row + 1].clone()
                other[0, time] = stands_in
                with torch.no_grad():
                    expected = float(model(ids[row : row + 1]) - model(other))
                assert result.values[row, time, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"window": 3, "stride": 2}, {"players": "cell"}, {"baseline": "hold_last"}])
def test_shared_beginnings_change_no_number(options, monkeypatch):
    """Long sequences, whose beginnings are shared, get the numbers of whole passes; what equals the baseline gets 0."""
    model, inputs = lstm(double=True, pooling="mean"), sequences(2, 9, 3, double=True)
    inputs[:, 4:6] = 0.0
    expected = Occlusion(model, **options).explain(inputs, lengths=[9, 7])
    monkeypatch.setattr("gatelens.explainers.occlusion.LONG", 8)
    found = Occlusion(model, **options).explain(inputs, lengths=[9, 7])
    assert found.diagnostic("prefix_shared").tolist() == [1, 0]
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-12)
    if options == {}:
        assert not found.values[:, 4:6].any()


def test_shared_beginnings_are_read_once(monkeypatch):
    """Taking timesteps away one by one costs half of what whole passes cost, and is counted so."""
    monkeypatch.setattr("gatelens.explainers.occlusion.LONG", 8)
    monkeypatch.setattr("gatelens.explainers.prefix_engine.SPARED", 0)
    model, inputs = lstm(), sequences(1, 60, 3)
    assert Occlusion(model).explain(inputs).attrs["forward_evaluations"] < 40
    assert Occlusion(model, players="feature").explain(inputs).diagnostic("prefix_shared").tolist() == [0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 3, "stride": 2},
        {"players": "cell"},
        {"players": "feature", "baseline": "hold_last"},
        {"baseline": "hold_last"},
        {"players": "segment", "segments": 3, "segmentation": "change_point"},
        {"background": sequences(3, 6, 3, seed=8, double=True)},
    ],
)
@pytest.mark.parametrize("budget", [1, 20_000, 2**29])
def test_samples_together_equal_singles(options, budget):
    """A sample gets what it gets alone, whatever is explained beside it and however many rows fit the budget."""
    model, inputs = lstm(double=True, output_size=2, task="multiclass"), sequences(5, 6, 3, double=True)
    inputs[1, 2:4], inputs[3] = inputs[1, :1], 0.0
    lengths, target = [6, 4, 6, 2, 4], [0, 1, 1, 0, 1]
    found = Occlusion(Predictor(model, memory_bytes=budget), **options).explain(inputs, lengths=lengths, target=target)
    for row in range(5):
        alone = Occlusion(model, **options)
        expected = alone.explain(inputs[row : row + 1], lengths=lengths[row : row + 1], target=target[row])
        np.testing.assert_allclose(found.values[row], expected.values[0], rtol=0, atol=1e-12, err_msg=f"row {row}")
    assert np.abs(found.values).max() > 0.01


def test_a_linear_function_gives_weight_times_difference():
    """On a linear function, a black box, every cell gets w (x - b), and a feature the sum of its cells."""
    weight, inputs = sequences(4, 3, seed=5), sequences(2, 4, 3)
    expected = (weight * (inputs - 0.5)).numpy()
    cells = Occlusion(linear_function(weight), players="cell", baseline=0.5).explain(inputs)
    np.testing.assert_allclose(cells.values, expected, rtol=0, atol=1e-5)
    features = Occlusion(Linear(weight), players="feature", baseline=0.5).explain(inputs).features
    np.testing.assert_allclose(features, expected.sum(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window is 0"),
        ({"window": 2.0}, "window is 2.0"),
        ({"window": 2, "stride": 0}, "stride is 0"),
        ({"window": 2, "stride": 3}, "stride is 3; expected at most window=2"),
        ({"stride": 2}, "no window to move"),
        ({"window": 2, "players": "cell"}, "players is 'cell'; use players='timestep'"),
        ({"players": "timesteps"}, "Did you mean 'timestep'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    """An option that makes no sense is refused when the explainer is made."""
    with pytest.raises(InvalidInputError, match=message):
        Occlusion(lstm(), **options)
