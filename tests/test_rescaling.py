"""Temporal saliency rescaling: the paper's algorithm, looped by hand around captum, is the oracle; closed forms."""

import captum.attr
import numpy as np
import pytest
import torch

from gatelens.explainers import IntegratedGradients, Occlusion, TemporalSaliencyRescaling
from gatelens.models import InvalidInputError, InvalidTypeError, ModelError, Predictor
from helpers.explained import LENGTHS, Linear, linear_function, lstm, sequences, token_ids


def by_hand(saliency, inputs, baseline, threshold):
    """Return algorithm 1 of Ismail et al. 2020 for one sequence (1, L, D), a map at a time, and the number of maps."""
    original, (_, length, features) = saliency(inputs), inputs.shape
    maps, of_time, importance = 1, np.zeros(length), np.zeros((length, features))
    for time in range(length):
        masked = inputs.clone()
        masked[0, time] = baseline[time]
        of_time[time] = np.abs(original - saliency(masked)).sum()
        maps += 1
    for time in range(length):
        if of_time[time] < np.quantile(of_time, threshold):
            continue
        for feature in range(features):
            masked = inputs.clone()
            masked[0, time, feature] = baseline[time, feature]
            importance[time, feature] = of_time[time] * np.abs(original - saliency(masked)).sum()
            maps += 1
    return importance, maps


@pytest.mark.parametrize("threshold", [0.0, 0.55, 0.9])
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients"])
def test_the_paper_s_algorithm_by_hand(method, threshold):
    """The importance is that of the paper's two loops over captum's maps, for each padded sequence as if alone."""
    model, inputs, baseline = lstm(double=True), sequences(3, 6, 3, double=True), sequences(6, 3, seed=7, double=True)

    def saliency(values):
        function = lambda changed: model(changed)[:, 0]  # noqa: E731
        if method == "saliency":
            return captum.attr.Saliency(function).attribute(values.clone().requires_grad_()).detach().numpy()
        steps = {"n_steps": 8, "method": "gausslegendre"}
        reference = baseline[None, : values.shape[1]]
        return (
            captum.attr.IntegratedGradients(function).attribute(values, baselines=reference, **steps).detach().numpy()
        )

    options = {"steps": 8} if method == "integrated_gradients" else {}
    explainer = TemporalSaliencyRescaling(
        model, method=method, method_options=options, threshold=threshold, baseline=baseline
    )
    result = explainer.explain(inputs, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        expected, maps = by_hand(saliency, inputs[row : row + 1, :length], baseline, threshold)
        np.testing.assert_allclose(result.values[row, :length], expected, rtol=0, atol=1e-10)
        assert not result.values[row, length:].any()
        assert result.diagnostic("maps")[row] == maps
        assert (expected.sum(1) > 0).sum() == max(1, length - int(np.ceil(threshold * (length - 1))))


def test_maps_of_a_linear_model_in_closed_form():
    """On a linear model masking takes |w x| out of input x gradient's map: the importance is that times its row's."""
    weight, inputs = sequences(4, 3, seed=5), sequences(2, 4, 3)
    result = TemporalSaliencyRescaling(Linear(weight), method="input_x_gradient", threshold=0).explain(inputs)
    size = (weight * inputs).abs().numpy()
    np.testing.assert_allclose(result.values, size * size.sum(axis=2, keepdims=True), rtol=1e-5)


def test_a_map_that_never_moves_gives_nothing():
    """The gradients of a linear model are the same everywhere, so saliency's map tells of no timestep."""
    result = TemporalSaliencyRescaling(Linear(sequences(4, 3, seed=5))).explain(sequences(2, 4, 3))
    np.testing.assert_allclose(result.values, 0, atol=1e-12)


def test_tokens_are_masked_by_the_pad_token():
    """Of a token the timestep is the feature: its importance is the squared relevance, at 1 + L maps."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, padding_index=0), token_ids(1, 5)
    result = TemporalSaliencyRescaling(model, method="occlusion", baseline="pad", threshold=0).explain(ids)
    occlusion = Occlusion(model, baseline="pad")
    original = occlusion.explain(ids).values
    for time in range(5):
        masked = ids.clone()
        masked[0, time] = 0
        moved = np.abs(original - occlusion.explain(masked).values).sum()
        assert result.values[0, time, 0] == pytest.approx(moved**2, rel=1e-3, abs=1e-7)
    assert result.diagnostic("maps")[0] == 6


def test_coarse_maps_are_compared_as_coarse():
    """A map of timesteps, shared among features, is compared by timestep: how a share is split moves nothing."""
    model = lstm()
    with torch.no_grad():
        model.get_parameter("lstm.0.weight_ih_l0")[:, -1] = 0
    inputs, occlusion = sequences(1, 4, 3), Occlusion(model)
    result = TemporalSaliencyRescaling(model, method="occlusion", threshold=0).explain(inputs)

    def moved(time, which):
        masked = inputs.clone()
        masked[0, time, which] = 0
        return np.abs(occlusion.explain(inputs).timesteps - occlusion.explain(masked).timesteps).sum()

    for time in range(4):
        for feature in range(3):
            expected = moved(time, slice(None)) * moved(time, feature)
            assert result.values[0, time, feature] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(result.values[..., 2], 0, atol=1e-6)
    features = TemporalSaliencyRescaling(model, method="occlusion", method_options={"players": "feature"})
    assert features.explain(inputs).values[..., :2].any()
    segments = TemporalSaliencyRescaling(model, method="occlusion", method_options={"players": "segment"})
    with pytest.raises(InvalidInputError, match="its map is of segments"):
        segments.explain(inputs)


def test_hold_last_masks_by_the_timestep_before():
    """With the baseline "hold_last" a masked timestep repeats the one before it."""
    weight, inputs = sequences(4, 3, seed=5), sequences(1, 4, 3)
    result = TemporalSaliencyRescaling(
        Linear(weight), method="input_x_gradient", threshold=0, baseline="hold_last"
    ).explain(inputs)
    moved = np.zeros((4, 3))
    moved[1:] = (weight[1:] * (inputs[0, 1:] - inputs[0, :-1])).abs().numpy()
    np.testing.assert_allclose(result.values[0], moved * moved.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_a_class_and_a_function_work_too():
    """The method may be a class; with one that needs no gradients, the model may be a function."""
    weight, inputs = sequences(4, 3, seed=5), sequences(2, 4, 3)
    options = {"method_options": {"players": "cell"}, "threshold": 0}
    function = TemporalSaliencyRescaling(linear_function(weight), method="occlusion", **options).explain(inputs)
    module = TemporalSaliencyRescaling(Linear(weight), method=Occlusion, **options).explain(inputs)
    size = (weight * inputs).abs().numpy()
    for result in (function, module):
        np.testing.assert_allclose(result.values, size * size.sum(axis=2, keepdims=True), rtol=1e-3, atol=1e-5)
    with pytest.raises(ModelError, match="temporal_saliency_rescaling needs a torch module"):
        TemporalSaliencyRescaling(linear_function(weight))


def test_small_batches_give_the_same_numbers():
    """How many maps fit the budget changes nothing."""
    model, inputs = lstm(double=True), sequences(2, 6, 3, double=True)
    small = TemporalSaliencyRescaling(Predictor(model, memory_bytes=1)).explain(inputs).values
    np.testing.assert_allclose(small, TemporalSaliencyRescaling(model).explain(inputs).values, rtol=0, atol=1e-12)


def test_what_made_it_is_recorded():
    """The result names the method in it, its options and its library."""
    explainer = TemporalSaliencyRescaling(
        lstm(), method="integrated_gradients", method_options={"steps": 5}, threshold=0.2, seed=3
    )
    result = explainer.explain(sequences(1, 4, 3))
    assert result.options == {
        "method": "integrated_gradients",
        "method_options": {"steps": 5},
        "threshold": 0.2,
    }
    assert "captum" in result.versions
    assert result.attrs["seed"] == 3


def test_the_seed_reaches_the_method():
    """Another seed gives another map of a method that draws, the same seed the same."""
    first, again, other = (
        TemporalSaliencyRescaling(
            lstm(), method="smooth_grad", method_options={"samples": 3}, threshold=0, seed=seed
        ).explain(sequences(1, 4, 3))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.values, again.values)
    assert np.abs(first.values - other.values).max() > 1e-4 * np.abs(first.values).max()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "salency"}, InvalidInputError, "no explainer 'salency'.*'saliency'"),
        ({"method": TemporalSaliencyRescaling}, InvalidTypeError, "the class of another explainer"),
        ({"method": "temporal_saliency_rescaling"}, InvalidTypeError, "the class of another explainer"),
        ({"method": IntegratedGradients(lstm())}, InvalidTypeError, "the name or the class"),
        ({"method_options": {"stepz": 1}}, InvalidTypeError, "do not fit saliency.*stepz"),
        ({"method_options": {"absolute": 1}}, InvalidInputError, "absolute is 1"),
        ({"method_options": {"baseline": 0}}, InvalidInputError, "holds 'baseline'"),
        ({"method": "kernel_shap", "method_options": {"background": 0}}, InvalidInputError, "holds 'background'"),
        ({"method": "attention"}, ModelError, "without weights"),
        ({"threshold": 1}, InvalidInputError, "threshold is 1; expected a quantile"),
        ({"threshold": -0.1}, InvalidInputError, "threshold is -0.1"),
        ({"threshold": float("nan")}, InvalidInputError, "threshold is nan"),
        ({"threshold": True}, InvalidInputError, "threshold is True"),
        ({"background": sequences(2, 4, 3)}, InvalidInputError, "not with a background set"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    """An option that makes no sense is refused when the explainer is made."""
    with pytest.raises(error, match=message):
        TemporalSaliencyRescaling(lstm(), **options)
