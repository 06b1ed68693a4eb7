"""LIME: lime's own tabular explainer, called by hand on the on/off problem, is the oracle."""

import numpy as np
import pytest
import torch
from lime.lime_tabular import LimeTabularExplainer

from gatelens.explainers import LIME
from gatelens.models import InvalidInputError
from helpers.explained import Linear, lstm, sequences, token_ids


def by_hand(predict, count, *, samples, seed, kernel_width=None):
    """Return lime's coefficients (n,), R^2 and intercept for a function of on/off rows (N, n)."""
    explainer = LimeTabularExplainer(
        np.array([[0.0] * count, [1.0] * count]),
        mode="regression",
        categorical_features=list(range(count)),
        discretize_continuous=False,
        feature_selection="none",
        kernel_width=kernel_width,
        random_state=seed,
    )
    explanation = explainer.explain_instance(np.ones(count), predict, num_features=count, num_samples=samples)
    weights = dict(explanation.local_exp[1])
    return np.array([weights[player] for player in range(count)]), explanation.score, explanation.intercept[1]


@pytest.mark.parametrize(("players", "seed", "kernel_width"), [("timestep", 0, None), ("cell", 7, 2.0)])
def test_equals_lime_called_by_hand(players, seed, kernel_width):
    """Coefficients, R^2 and intercept are those of lime on the flattened problem with the same seed."""
    model, inputs, baseline = lstm(double=True), sequences(1, 5, 3, double=True), sequences(5, 3, seed=4, double=True)
    shape, count = ((5, 1), 5) if players == "timestep" else ((5, 3), 15)

    @torch.no_grad()
    def predict(rows):
        on = torch.tensor(rows).reshape(-1, *shape) == 1
        return model(torch.where(on, inputs, baseline))[:, 0].numpy()

    weights, score, intercept = by_hand(predict, count, samples=400, seed=seed, kernel_width=kernel_width)
    explainer = LIME(model, players=players, samples=400, seed=seed, baseline=baseline, kernel_width=kernel_width)
    result = explainer.explain(inputs)
    found = result.timesteps[0] if players == "timestep" else result.values[0].ravel()
    np.testing.assert_allclose(found, weights, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.diagnostic("surrogate_r2"), [score], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.diagnostic("surrogate_intercept"), [intercept], rtol=0, atol=1e-9)
    assert np.ptp(weights) > 0.01


def test_a_padded_sequence_equals_lime_on_its_valid_part():
    """Padding makes no players: lime sees as many as there are valid timesteps."""
    model, inputs = lstm(double=True), sequences(1, 7, 3, double=True)

    @torch.no_grad()
    def predict(rows):
        return model(inputs[:, :4] * torch.tensor(rows)[..., None])[:, 0].numpy()

    weights, _, _ = by_hand(predict, 4, samples=200, seed=0)
    found = LIME(model, samples=200).explain(inputs, lengths=[4]).timesteps[0]
    np.testing.assert_allclose(found, [*weights, 0, 0, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("players", ["timestep", "segment", "feature", "cell"])
def test_a_linear_model_is_its_own_surrogate(players):
    """On a linear model the surrogate fits (R^2 = 1) and finds weight x input for each player, up to its ridge."""
    weight, inputs = sequences(6, 3, seed=3, double=True), sequences(2, 6, 3, double=True)
    result = LIME(Linear(weight), players=players, segments=3, samples=3000).explain(inputs)
    cells = (weight * inputs).numpy()
    expected = {
        "timestep": cells.sum(2),
        "segment": cells.sum(2).reshape(2, 3, 2).sum(2),
        "feature": cells.sum(1),
        "cell": cells,
    }[players]
    found = {
        "timestep": result.timesteps,
        "segment": result.timesteps.reshape(2, 3, 2).sum(2),
        "feature": result.values.sum(1),
        "cell": result.values,
    }[players]
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())
    np.testing.assert_allclose(result.diagnostic("surrogate_r2"), 1, atol=1e-3)


def test_another_seed_draws_other_perturbations():
    """The seed decides what is drawn: another one gives other numbers, the same one the same."""
    model, inputs = lstm(), sequences(1, 12, 3)
    first, again, other = (LIME(model, samples=100, seed=seed).explain(inputs).values for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


def test_tokens_are_replaced_by_the_baseline_token():
    """Of token ids lime switches between the token and the pad token."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, double=True), token_ids(1, 5)

    @torch.no_grad()
    def predict(rows):
        return model(torch.where(torch.tensor(rows) == 1, ids, 0))[:, 0].numpy()

    weights, _, _ = by_hand(predict, 5, samples=300, seed=0)
    result = LIME(model, samples=300).explain(ids)
    np.testing.assert_allclose(result.values[0, :, 0], weights, rtol=0, atol=1e-9)
    assert result.resolution == "timestep"


@pytest.mark.parametrize("samples", [9, 0, 2.0, False])
def test_samples_are_checked(samples):
    """Too few samples, or no whole number, are refused."""
    with pytest.raises(InvalidInputError, match="samples is"):
        LIME(lstm(), samples=samples)


@pytest.mark.parametrize("width", [0, -1.0, "wide", float("nan"), float("inf")])
def test_the_kernel_width_is_checked(width):
    """A kernel width that is no positive number is refused before lime divides by it."""
    with pytest.raises(InvalidInputError, match="kernel_width is"):
        LIME(lstm(), kernel_width=width)
