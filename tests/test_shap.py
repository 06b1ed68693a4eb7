"""KernelSHAP and GradientSHAP: shap called by hand, and Shapley's formula itself, are the oracles."""

import itertools
import math

import numpy as np
import pytest
import shap
import torch
from torch import nn

from gatelens.explainers import GradientSHAP, KernelSHAP
from gatelens.models import InvalidInputError
from helpers.explained import LENGTHS, Linear, lstm, sequences, token_ids


def shapley(value, count):
    """Return the Shapley values (n,) of a game, by the formula, from the value of every coalition (rows of bool)."""
    coalitions = np.array(list(itertools.product([False, True], repeat=count)))  # (2^n, n)
    worth = value(coalitions)
    powers = 2 ** np.arange(count)[::-1]
    sizes = coalitions.sum(1)
    weights = np.array(
        [math.factorial(s) * math.factorial(count - s - 1) / math.factorial(count) for s in range(count)]
    )
    result = np.zeros(count)
    for player in range(count):
        without = np.flatnonzero(~coalitions[:, player])
        result[player] = (weights[sizes[without]] * (worth[without + powers[player]] - worth[without])).sum()
    return result


def test_the_formula_is_right():
    """The formula of this file gives the textbook's glove game: the one left glove gets 2/3, each right one 1/6."""

    def value(coalitions):
        return (coalitions[:, 0] & (coalitions[:, 1] | coalitions[:, 2])).astype(float)

    np.testing.assert_allclose(shapley(value, 3), [2 / 3, 1 / 6, 1 / 6])


# -- KernelSHAP ------------------------------------------------------------------------------------------------------


def test_ten_timesteps_equal_the_shapley_formula():
    """For ten timesteps all 1,024 coalitions are evaluated, and the values are Shapley's."""
    model, inputs = lstm(strength=4.0, hidden_sizes=(8, 6), double=True), sequences(1, 10, 3, double=True)

    @torch.no_grad()
    def value(coalitions):
        return model(inputs * torch.tensor(coalitions)[..., None])[:, 0].numpy()

    expected = shapley(value, 10)
    found = KernelSHAP(model).explain(inputs).timesteps[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    additive = value(np.eye(10, dtype=bool)) - value(np.zeros((1, 10), dtype=bool))
    assert np.abs(expected - additive).max() > 0.05 * np.abs(expected).max()  # no game that any method would get right


@pytest.mark.parametrize(
    ("players", "segments", "labels"),
    [
        ("segment", 3, [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2]]),
        ("feature", 10, [[0, 1, 2]] * 7),
        ("segment", 50, [[step] * 3 for step in range(7)]),
    ],
)
def test_segments_and_features_equal_the_shapley_formula(players, segments, labels):
    """Segments (as many as fit) and features are players too, and get the Shapley values of their games."""
    model, inputs = lstm(double=True), sequences(1, 7, 3, double=True)
    labels = np.array(labels)
    count = labels.max() + 1

    @torch.no_grad()
    def value(coalitions):
        return model(inputs * torch.tensor(coalitions[:, labels]))[:, 0].numpy()

    result = KernelSHAP(model, players=players, segments=segments).explain(inputs)
    found = np.bincount(labels.ravel(), weights=result.values[0].ravel())
    np.testing.assert_allclose(found, shapley(value, count), rtol=0, atol=1e-9)
    assert result.resolution == players


def test_a_background_set_is_averaged_over():
    """With a background the game is the mean of the games with each of its sequences."""
    model, inputs = lstm(double=True), sequences(1, 5, 3, double=True)
    background = sequences(4, 5, 3, seed=9, double=True)

    @torch.no_grad()
    def value(coalitions):
        on = torch.tensor(coalitions)[..., None]
        return np.mean([model(torch.where(on, inputs, row))[:, 0].numpy() for row in background], axis=0)

    result = KernelSHAP(model, background=background).explain(inputs)
    np.testing.assert_allclose(result.timesteps[0], shapley(value, 5), rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.baseline_prediction, value(np.zeros((1, 5), dtype=bool)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-9)
    assert result.attrs["baseline_name"] == "mean over 4 background sequences"
    np.testing.assert_allclose(result.dataset["baseline"].to_numpy()[0], background.mean(0).numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("players", "seed"), [("timestep", 0), ("cell", 3)])
def test_equals_shap_called_by_hand(players, seed):
    """Where coalitions are drawn, the values are those of shap's KernelExplainer with the same seed."""
    model, inputs = lstm(double=True), sequences(1, 14, 2, double=True)[..., [0, 1, 1]]
    shape, count = ((14, 1), 14) if players == "timestep" else ((14, 3), 42)

    @torch.no_grad()
    def value(rows):
        on = torch.tensor(rows).reshape(-1, *shape)
        return model(inputs * on)[:, 0].numpy()

    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    expected = (
        shap.KernelExplainer(value, np.zeros((1, count)))
        .shap_values(np.ones((1, count)), nsamples=150, l1_reg=False, silent=True)
        .ravel()
    )
    np.random.set_state(before)  # noqa: NPY002
    result = KernelSHAP(model, players=players, samples=150, seed=seed).explain(inputs)
    found = result.timesteps[0] if players == "timestep" else result.values[0].ravel()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    exact = KernelSHAP(model, players=players).explain(inputs).values
    assert np.abs(result.values - exact).max() > 1e-6  # they were drawn


def test_one_player_gets_everything():
    """A sequence of one timestep is a game of one player, who gets f(x) - f(baseline)."""
    result = KernelSHAP(lstm()).explain(sequences(2, 4, 3), lengths=[1, 4])
    np.testing.assert_allclose(
        result.timesteps[0], [result.prediction[0] - result.baseline_prediction[0], 0, 0, 0], atol=1e-6
    )


@pytest.mark.parametrize("with_background", [False, True])
def test_all_and_none_are_known_before(with_background):
    """The input and what stands for its absence have been evaluated already; only the coalitions between them cost."""
    background = sequences(3, 4, 3, seed=8) if with_background else None
    result = KernelSHAP(lstm(), background=background).explain(sequences(1, 4, 3))
    references = 3 if with_background else 1
    assert result.attrs["forward_evaluations"] == 1 + references + references * (2**4 - 2)


def test_tokens_are_replaced_by_the_pad_token_or_the_background():
    """Of token ids the game switches between the token and the pad token, or those of background sequences."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, double=True), token_ids(1, 6)
    for background in (None, token_ids(2, 6, seed=5)):
        references = torch.zeros(1, 6, dtype=torch.long) if background is None else background

        @torch.no_grad()
        def value(coalitions, references=references):
            on = torch.tensor(coalitions)
            return np.mean([model(torch.where(on, ids, row))[:, 0].numpy() for row in references], axis=0)

        result = KernelSHAP(model, background=background).explain(ids)
        np.testing.assert_allclose(result.values[0, :, 0], shapley(value, 6), rtol=0, atol=1e-9)


def test_too_few_coalitions_are_refused():
    """Fewer coalitions than the regression needs are refused; the least that are allowed give complete values."""
    inputs = sequences(1, 12, 3)
    with pytest.raises(InvalidInputError, match="samples is 20, too few to tell 12 players apart; give 24 or more"):
        KernelSHAP(lstm(), samples=20).explain(inputs)
    np.testing.assert_allclose(KernelSHAP(lstm(), samples=24).explain(inputs).completeness_gap, 0, atol=1e-6)
    KernelSHAP(lstm(), samples=10).explain(inputs[:, :3])  # 2^3 - 2 coalitions are all there are


# -- GradientSHAP ----------------------------------------------------------------------------------------------------


def gradient_by_hand(model, inputs, background, *, samples, seed):
    """Return shap's own expected gradients of one sequence (1, T, D)."""
    explainer = shap.GradientExplainer(model, background, batch_size=50)
    return np.asarray(explainer.shap_values(inputs, nsamples=samples, rseed=seed))[..., 0]


@pytest.mark.parametrize("with_background", [False, True])
def test_equals_gradient_explainer_called_by_hand(with_background):
    """Every sample gets what shap's GradientExplainer finds for it alone, trimmed, with the same seed."""
    model, inputs = lstm(hidden_sizes=(5, 4), pooling="mean"), sequences(3, 6, 3)
    background = sequences(4, 6, 3, seed=2) if with_background else None
    result = GradientSHAP(model, background=background, samples=70, seed=11).explain(inputs, lengths=LENGTHS)
    before = np.random.get_state()  # noqa: NPY002
    for row, length in enumerate(LENGTHS):
        start = torch.zeros(1, length, 3) if background is None else background[:, :length]
        expected = gradient_by_hand(model, inputs[row : row + 1, :length], start, samples=70, seed=11)
        np.testing.assert_allclose(result.values[row, :length], expected[0], rtol=0, atol=1e-5)
        assert np.abs(expected).max() > 0.01
    np.random.set_state(before)  # noqa: NPY002


class Embedded(nn.Module):
    """A token model as one of what its embedding gives."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded):
        """Return (B, 1)."""
        return self.model.head(self.model.lstm[0](embedded)[0][:, -1])


@pytest.mark.parametrize("with_background", [False, True])
def test_tokens_equal_gradient_explainer_on_the_embedding(with_background):
    """Of token ids it is shap's attribution of the embedding, summed over its width."""
    model, ids = lstm(vocab_size=9, embedding_dim=4), token_ids(2, 5)
    background = token_ids(3, 5, seed=6) if with_background else None
    result = GradientSHAP(model, background=background, samples=60, seed=2).explain(ids)
    start = torch.zeros(1, 5, dtype=torch.long) if background is None else background
    before = np.random.get_state()  # noqa: NPY002
    with torch.no_grad():
        embedded, start = model.embedding(ids), model.embedding(start)
    for row in range(2):
        expected = gradient_by_hand(Embedded(model), embedded[row : row + 1], start, samples=60, seed=2)
        np.testing.assert_allclose(result.values[row, :, 0], expected[0].sum(1), rtol=0, atol=1e-5)
    np.random.set_state(before)  # noqa: NPY002


@pytest.mark.parametrize("with_background", [False, True])
@pytest.mark.parametrize("reads_tokens", [False, True])
def test_the_standard_error_is_that_of_the_draws(reads_tokens, with_background):
    """It is the standard deviation of the drawn contributions over the root of their number; of a token, of its sum."""
    samples, seed = 60, 2
    if reads_tokens:
        model = lstm(vocab_size=9, embedding_dim=4)
        inputs, background = token_ids(1, 5), token_ids(3, 5, seed=6)
        network, embed = Embedded(model), model.embedding
    else:
        model = network = lstm()
        inputs, background = sequences(1, 5, 3), sequences(3, 5, 3, seed=6)
        embed = torch.nn.Identity()
    result = GradientSHAP(model, background=background if with_background else None, samples=samples, seed=seed)
    result = result.explain(inputs)
    references = embed(background if with_background else torch.zeros_like(inputs)).detach()
    end, draws = embed(inputs).detach(), np.random.RandomState(seed)
    contributions = []
    for _ in range(samples):
        reference, position = references[draws.choice(len(references))], draws.uniform()
        point = (position * end + (1 - position) * reference).requires_grad_()
        (gradient,) = torch.autograd.grad(network(point).sum(), point)
        contribution = (gradient * (end - reference))[0]  # (T, E)
        contributions.append(contribution.sum(1, keepdim=True) if reads_tokens else contribution)
    drawn = torch.stack(contributions).numpy()  # (samples, T, D)
    np.testing.assert_allclose(result.values[0], drawn.mean(0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.std_error[0], drawn.std(0) / np.sqrt(samples), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("reads_tokens", [False, True])
def test_the_truth_lies_within_four_standard_errors(reads_tokens):
    """Over many seeds the estimates scatter about the truth (a large sample) as far as the standard error says."""
    if reads_tokens:
        model, inputs, background = lstm(strength=3.0, vocab_size=9, embedding_dim=5), token_ids(1, 4), None
    else:
        model, inputs, background = lstm(strength=3.0), sequences(1, 4, 3), sequences(5, 4, 3, seed=2)

    def run(seed, samples):
        return GradientSHAP(model, background=background, samples=samples, seed=seed).explain(inputs)

    truth = run(999, 4000)
    results = [run(seed, 100) for seed in range(40)]
    estimates = np.stack([result.values for result in results])  # (40, 1, T, D)
    error = np.sqrt(np.stack([result.std_error for result in results]) ** 2 + truth.std_error**2)
    assert (np.abs(estimates - truth.values) <= 4 * error + 1e-7).mean() > 0.99
    ratio = np.sqrt(((estimates - truth.values) ** 2).mean(0) / (error**2).mean(0))
    assert ((ratio > 0.6) & (ratio < 1.5)).all(), ratio


def test_sampling_is_exact_on_a_linear_model():
    """On a linear model every gradient is the same: from one baseline there is no sampling error."""
    weight, inputs = sequences(5, 3, seed=3), sequences(2, 5, 3)
    result = GradientSHAP(Linear(weight), baseline=0.5, samples=5).explain(inputs)
    np.testing.assert_allclose(result.values, (weight * (inputs - 0.5)).numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.std_error, 0, atol=1e-6)


@pytest.mark.parametrize(("explainer", "samples"), [(GradientSHAP, 1), (KernelSHAP, 9), (KernelSHAP, 2.5)])
def test_samples_are_checked(explainer, samples):
    """Too few samples, or no whole number, are refused."""
    with pytest.raises(InvalidInputError, match="samples is"):
        explainer(lstm(), samples=samples)
