"""Saliency, input x gradient and SmoothGrad: captum called by hand, finite differences and closed forms."""

import captum.attr
import numpy as np
import pytest
import torch

from gatelens.explainers import InputXGradient, Saliency, SmoothGrad
from gatelens.explainers.captum import NOISY_AT_ONCE
from gatelens.models import InvalidInputError, ModelError, Predictor
from helpers.explained import LENGTHS, Linear, linear_function, lstm, sequences, token_ids

ALL = [Saliency, InputXGradient, SmoothGrad]
WEIGHT = sequences(5, 3, seed=5)


def by_captum(method, model, inputs, output=0, **options):
    """Return what captum's own method gives for one output."""
    function = getattr(captum.attr, method)(lambda values: model(values)[:, output])
    return function.attribute(inputs.clone().requires_grad_(), **options).detach().numpy()


class Cubes(torch.nn.Module):
    """f(x) = sum of x^3 / 3, whose gradient x^2 has the mean x^2 + s^2 under noise of standard deviation s."""

    def forward(self, inputs):
        return inputs.pow(3).sum((1, 2))[:, None] / 3


# -- captum by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    ("explainer", "options", "method", "theirs"),
    [
        (Saliency, {}, "Saliency", {"abs": True}),
        (Saliency, {"absolute": False}, "Saliency", {"abs": False}),
        (InputXGradient, {}, "InputXGradient", {}),
    ],
)
def test_features_equal_captum(explainer, options, method, theirs, double):
    """The attribution is captum's, for a class of its own for each sample."""
    model = lstm(hidden_sizes=(6, 4), double=double, output_size=3, task="multiclass")
    inputs = sequences(3, 6, 3, double=double)
    found = explainer(model, **options).explain(inputs, target=[2, 0, 1]).values
    for row, target in enumerate([2, 0, 1]):
        expected = by_captum(method, model, inputs[row : row + 1], target, **theirs)[0]
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-12 if double else 1e-6)
        assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("explainer", "method"), [(Saliency, "Saliency"), (InputXGradient, "InputXGradient")])
def test_variable_lengths_equal_trimmed_singles(explainer, method, bidirectional):
    """A padded sequence gets what captum finds for the same sequence without its padding."""
    model, inputs = lstm(bidirectional=bidirectional, pooling="mean"), sequences(3, 6, 3)
    found = explainer(model).explain(inputs, lengths=LENGTHS).values
    for row, length in enumerate(LENGTHS):
        expected = by_captum(method, model, inputs[row : row + 1, :length])[0]
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=1e-6)
        assert not found[row, length:].any()


@pytest.mark.parametrize("absolute", [False, True])
def test_smooth_grad_equals_captum(absolute):
    """With its seed, SmoothGrad is captum's NoiseTunnel with one standard deviation a feature, also when padded."""
    model, inputs = lstm(), sequences(3, 6, 3)
    found = SmoothGrad(model, samples=30, noise=0.2, absolute=absolute, seed=4).explain(inputs, lengths=LENGTHS).values
    for row, length in enumerate(LENGTHS):
        features = inputs[row : row + 1, :length].split(1, dim=2)
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(lambda *parts: model(torch.cat(parts, dim=2))[:, 0]))
        with torch.random.fork_rng():
            torch.manual_seed(4)
            expected = tunnel.attribute(
                features,
                nt_type="smoothgrad",
                nt_samples=30,
                nt_samples_batch_size=NOISY_AT_ONCE,
                stdevs=tuple(0.2 * float(part.max() - part.min()) for part in features),
                abs=absolute,
            )
        np.testing.assert_allclose(found[row, :length], torch.cat(expected, dim=2)[0].detach(), rtol=0, atol=1e-6)
        assert not found[row, length:].any()
    assert (found >= 0).all() == absolute


@pytest.mark.parametrize("absolute", [False, True])
def test_tokens_are_explained_at_their_embedding(absolute):
    """Of a token, each method gives the sum over what it is for the token's embedding."""
    model, ids = lstm(vocab_size=9, embedding_dim=4), token_ids(3, 6)
    options = {"absolute": absolute}
    found = Saliency(model, **options).explain(ids, lengths=LENGTHS).values[..., 0]
    product = InputXGradient(model).explain(ids, lengths=LENGTHS).values[..., 0]
    layer = captum.attr.LayerGradientXActivation(lambda values: model(values)[:, 0], model.embedding)
    alone = captum.attr.LayerGradientXActivation(
        lambda values: model(values)[:, 0], model.embedding, multiply_by_inputs=False
    )
    for row, length in enumerate(LENGTHS):
        trimmed = ids[row : row + 1, :length]
        gradient = alone.attribute(trimmed).detach()[0]  # (L, E)
        expected = (gradient.abs() if absolute else gradient).sum(1)
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            product[row, :length], layer.attribute(trimmed).detach()[0].sum(1), rtol=0, atol=1e-6
        )


# -- other oracles ---------------------------------------------------------------------------------------------------


def test_signed_saliency_is_a_difference_quotient():
    """The gradient is what a small change of a cell does, over its size."""
    model, inputs, step = lstm(double=True), sequences(1, 4, 3, double=True), 1e-5
    found = Saliency(model, absolute=False).explain(inputs).values[0]
    for time in range(4):
        for feature in range(3):
            change = torch.zeros_like(inputs)
            change[0, time, feature] = step
            with torch.no_grad():
                quotient = float(model(inputs + change) - model(inputs - change)) / (2 * step)
            assert found[time, feature] == pytest.approx(quotient, abs=1e-8)


@pytest.mark.parametrize(
    ("explainer", "options", "expected"),
    [
        (Saliency, {}, lambda inputs: WEIGHT.abs().expand(inputs.shape)),
        (Saliency, {"absolute": False}, lambda inputs: WEIGHT.expand(inputs.shape)),
        (SmoothGrad, {}, lambda inputs: WEIGHT.expand(inputs.shape)),
        (SmoothGrad, {"absolute": True}, lambda inputs: WEIGHT.abs().expand(inputs.shape)),
        (InputXGradient, {}, lambda inputs: WEIGHT * inputs),
    ],
)
def test_a_linear_model_gives_its_weights(explainer, options, expected):
    """Gradients of a linear model are its weights, with or without noise; times the input they add up from zero."""
    inputs = sequences(2, 5, 3)
    result = explainer(Linear(WEIGHT), **options).explain(inputs)
    np.testing.assert_allclose(result.values, expected(inputs), rtol=0, atol=1e-5)
    if explainer is InputXGradient:
        np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-5)


def test_noise_follows_each_feature_s_own_range():
    """The noise's standard deviation is `noise` times the feature's range over valid timesteps; constants get none."""
    inputs = torch.zeros(1, 4, 3)
    inputs[0, :, 0] = torch.tensor([1.0, 3.0, 2.0, 99.0])  # the last is padding
    inputs[0, :, 1] = torch.tensor([0.0, 0.0, 20.0, 99.0])
    inputs[0, :, 2] = 5.0
    found = SmoothGrad(Cubes(), samples=4000, noise=0.1).explain(inputs, lengths=[3]).values[0, :3]
    added = found - inputs[0, :3].numpy() ** 2  # s^2 and 2 x times a mean noise
    for feature, deviation in enumerate([0.2, 2.0, 0.0]):
        allowed = 5 * (2 * np.abs(inputs[0, :3, feature].numpy()) * deviation + 1.5 * deviation**2) / np.sqrt(4000)
        assert (np.abs(added[:, feature] - deviation**2) <= allowed + 1e-5).all()
    assert added[:, 1].min() > 3


@pytest.mark.parametrize("explainer", ALL)
def test_batches_of_one_give_the_same_numbers(explainer):
    """A budget for one row at a time changes nothing; of SmoothGrad not either, while its 25 draws fit."""
    model, inputs = lstm(), sequences(4, 6, 3)
    row_bytes = 3 * 4 * 6 * (3 + 8 * 5 + 1)  # three copies of T timesteps of inputs, gates and output, float32
    small = (
        explainer(Predictor(model, memory_bytes=row_bytes * (25 if explainer is SmoothGrad else 1)))
        .explain(inputs)
        .values
    )
    np.testing.assert_allclose(small, explainer(model).explain(inputs).values, rtol=0, atol=1e-6)


def test_a_small_budget_draws_other_noise_as_good():
    """Where fewer than 25 draws fit at once SmoothGrad draws anew: other numbers, the same mean."""
    model, inputs = lstm(), sequences(1, 5, 3)
    options = {"samples": 400, "noise": 0.05}
    small = SmoothGrad(Predictor(model, memory_bytes=1), **options).explain(inputs).values
    large = SmoothGrad(model, **options).explain(inputs).values
    difference = np.abs(small - large).max()
    assert 0 < difference < 0.02 * np.abs(large).max()


@pytest.mark.parametrize(("explainer", "passes"), [(Saliency, 1), (InputXGradient, 1), (SmoothGrad, 30)])
def test_evaluations_are_counted(explainer, passes):
    """One gradient a sample, and one for each noisy copy."""
    options = {"samples": 30} if explainer is SmoothGrad else {}
    result = explainer(lstm(), **options).explain(sequences(4, 6, 3))
    assert result.attrs["backward_evaluations"] == 4 * passes
    assert result.attrs["forward_evaluations"] == 4 * (passes + 1) + 1  # predictions, and the baseline they share


def test_seeds_and_samples_matter_to_smooth_grad():
    """Another seed draws other noise; the result carries the options."""
    first, second = (SmoothGrad(lstm(), seed=seed, samples=10).explain(sequences(1, 5, 3)) for seed in (0, 1))
    assert np.abs(first.values - second.values).max() > 1e-4
    assert first.options == {"samples": 10, "noise": 0.15, "absolute": False}


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("explainer", "options", "message"),
    [
        (Saliency, {"absolute": 1}, "absolute is 1; expected True or False"),
        (SmoothGrad, {"absolute": None}, "absolute is None"),
        (SmoothGrad, {"samples": 0}, "samples is 0"),
        (SmoothGrad, {"noise": 0}, "noise is 0; expected a positive number"),
        (SmoothGrad, {"noise": float("nan")}, "noise is nan"),
        (SmoothGrad, {"noise": True}, "noise is True"),
        (SmoothGrad, {"noise": "0.1"}, "noise is '0.1'"),
    ],
)
def test_wrong_options_are_refused(explainer, options, message):
    """An option that makes no sense is refused when the explainer is made."""
    with pytest.raises(InvalidInputError, match=message):
        explainer(lstm(), **options)


@pytest.mark.parametrize("explainer", ALL)
def test_functions_and_backgrounds_are_refused(explainer):
    """They need a module, and know no background."""
    with pytest.raises(ModelError, match=f"{explainer.name} needs a torch module"):
        explainer(linear_function(WEIGHT))
    with pytest.raises(InvalidInputError, match="not with a background set"):
        explainer(lstm(), background=sequences(2, 6, 3))
