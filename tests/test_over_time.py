"""Attributions of every output timestep, and of windows of them, are those of each by itself, and none looks ahead."""

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import GateSaliency, KernelSHAP, explain, explain_over_time, get
from gatelens.explainers.deeplift import DeepLIFT
from gatelens.explainers.registry import BUILT_IN
from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel
from helpers.explained import token_ids
from helpers.lstm_loop import random


def make_model(**options):
    torch.manual_seed(0)
    config = LSTMConfig(**{"input_size": 3, "hidden_sizes": (6,), "output_size": 2, "pooling": "none", **options})
    model = LSTMModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@pytest.mark.parametrize("explainer", [DeepLIFT, GateSaliency, KernelSHAP])
def test_each_output_timestep_is_explained(explainer):
    """(sample, output_time, time, feature) is what `explain` gives with target=(timestep, output)."""
    model, inputs, lengths = make_model(), random(3, 5, 3), torch.tensor([5, 2, 4])
    found = explain_over_time(explainer(model), inputs, output=1, lengths=lengths)
    assert found["attribution"].shape == (3, 5, 5, 3)
    for step in range(5):
        rows = np.flatnonzero(lengths.numpy() > step)
        single = explainer(model).explain(inputs[rows], target=(step, 1), lengths=lengths[rows])
        np.testing.assert_allclose(found["attribution"].values[rows, step], single.values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["prediction"].values[rows, step], single.prediction, rtol=0, atol=1e-12)
        assert np.isnan(found["attribution"].values[np.setdiff1d(range(3), rows), step]).all()
    assert found.attrs["method"] == explainer.name


@pytest.mark.parametrize("explainer", [DeepLIFT, GateSaliency])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_nothing_looks_ahead(explainer, bidirectional):
    """A model that reads forwards gives nothing to timesteps after the output's; one that reads backwards does."""
    found = explain_over_time(explainer(make_model(bidirectional=bidirectional)), random(2, 6, 3))
    later = np.arange(6)[None] > found["output_time"].values[:, None]  # (output_time, time)
    ahead = found["attribution"].values[:, later]
    assert ahead.any() == bidirectional
    assert found["attribution"].values[:, ~later].any()


def test_chosen_timesteps():
    """Some timesteps, negative ones from the end, in the order asked for."""
    model, inputs = make_model(), random(2, 6, 3)
    found = explain_over_time(DeepLIFT(model), inputs, timesteps=[-1, 2])
    assert found["output_time"].values.tolist() == [5, 2]
    whole = explain_over_time(DeepLIFT(model), inputs)
    np.testing.assert_allclose(found["attribution"].values, whole["attribution"].values[:, [5, 2]], rtol=0, atol=1e-12)


class Horizons(nn.Module):
    """Three horizons from the last state: outputs that follow no timestep of the inputs."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True).double()
        self.heads = nn.Linear(4, 3).double()

    def forward(self, inputs):
        return self.heads(self.lstm(inputs)[0][:, -1])[..., None]


def test_horizons():
    """Several horizons, (B, T', 1) with a T' of its own, for sequences of different length."""
    found = explain_over_time(KernelSHAP(Horizons()), random(2, 6, 3), lengths=[6, 3])
    assert found["attribution"].shape == (2, 3, 6, 3)
    assert not np.isnan(found["prediction"].values).any()
    assert not found["attribution"].values[1, :, 3:].any()


# -- windows ---------------------------------------------------------------------------------------------------------

RAW_SCORES = ("lrp", "contextual_decomposition", "cell_decomposition")  # of these output="probability" is refused
ALL = [
    (name, output)
    for name in BUILT_IN
    for output in ("logit", "probability")
    if name not in ("attention", "retain") and not (name in RAW_SCORES and output == "probability")
]
OPTIONS = {"lime": {"samples": 100}, "saliency": {"absolute": False}, "gradient_shap": {"samples": 20}}
LINEAR = [pair for pair in ALL if pair[0] != "temporal_saliency_rescaling"]  # in the explained number
ROUNDED = ("lime", "kernel_shap", "temporal_shapley", "occlusion", "temporal_saliency_rescaling")  # else exactly 0


@pytest.mark.parametrize(("name", "output"), LINEAR)
def test_a_window_is_the_sum_of_its_timesteps(name, output):
    """For methods linear in the explained number, of scores and of probabilities, with windows of each sample's own."""
    model = make_model(task="multiclass", output_size=3)
    inputs, lengths, outputs = random(3, 6, 3), torch.tensor([6, 3, 5]), [2, 0, 1]
    explainer = get(name)(model, output=output, **OPTIONS.get(name, {}))
    found = explainer.explain(inputs, target=(slice(1, -1), outputs), lengths=lengths)
    np.testing.assert_array_equal(found.dataset["target_timestep"], [1, 1, 1])
    np.testing.assert_array_equal(found.dataset["target_last"], [4, 1, 3])
    for row, last in enumerate([4, 1, 3]):
        singles = [
            explainer.explain(inputs[[row]], target=(step, outputs[row]), lengths=lengths[[row]])
            for step in range(1, last + 1)
        ]
        values = np.sum([single.values[0] for single in singles], axis=0)
        atol = 1e-7 if name == "gradient_shap" else 1e-11  # shap keeps gradients in float32
        np.testing.assert_allclose(found.values[row], values, rtol=0, atol=atol)
        assert np.abs(values).max() > 1e-3
        for part in ("prediction", "baseline_prediction", "scores"):
            expected = np.sum([single.dataset[part].to_numpy()[0] for single in singles], axis=0)
            np.testing.assert_allclose(found.dataset[part].to_numpy()[row], expected, rtol=0, atol=1e-12)
    if explainer.completeness == "exact":
        assert np.abs(found.completeness_gap).max() < 1e-12


@pytest.mark.parametrize(("name", "output"), ALL)
@pytest.mark.parametrize("step", [2, slice(1, 4), slice(None, -3)], ids=str)
def test_no_explainer_looks_ahead(name, output, step):
    """Of a model that reads forwards, what comes after the explained timestep, or a window's last, gets nothing.

    Methods that follow the graph give exactly 0, those that compare evaluations rounding; LIME's null players get what
    its linear surrogate cannot fit.
    """
    model, inputs = make_model(hidden_sizes=(5, 4), task="multiclass", output_size=3), random(2, 6, 3)
    found = get(name)(model, output=output, **OPTIONS.get(name, {})).explain(inputs, target=(step, 1))
    last = 3 if step == slice(1, 4) else 2
    size = np.abs(found.values[:, : last + 1]).max()
    assert size > 1e-4
    allowed = 0.0 if name not in ROUNDED else 0.2 * size if name == "lime" else 1e-12
    assert np.abs(found.values[:, last + 1 :]).max() <= allowed


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_a_window_sums_what_is_explained_over_time(output):
    """`explain_over_time`, summed over output timesteps, is the explanation of all of them as one window."""
    model, inputs, lengths = make_model(task="binary"), random(3, 5, 3), torch.tensor([5, 2, 4])
    over_time = explain_over_time(DeepLIFT(model, output=output), inputs, output=1, lengths=lengths)
    window = DeepLIFT(model, output=output).explain(inputs, target=(slice(None), 1), lengths=lengths)
    np.testing.assert_allclose(window.values, over_time["attribution"].sum("output_time"), rtol=0, atol=1e-12)
    np.testing.assert_allclose(window.prediction, over_time["prediction"].sum("output_time"), rtol=0, atol=1e-12)


def test_windows_of_tokens_and_of_horizons():
    """Token models, and models with horizons of their own, have windows too; the latter's are not the inputs' time."""
    model = make_model(input_size=None, vocab_size=9, embedding_dim=3, output_size=1)
    ids = token_ids(2, 5)
    for name in ("integrated_gradients", "gradient_shap", "deeplift", "kernel_shap", "smooth_grad"):
        found = get(name)(model, baseline="pad").explain(ids, target=(slice(1, 3), 0))
        assert found.attrs["target_time"] == "inputs"
        assert found.values[:, :3].any()
        assert np.abs(found.values[:, 3:]).max() < 1e-12
        with torch.no_grad():
            np.testing.assert_allclose(found.prediction, model(ids)[:, 1:3, 0].sum(dim=1), rtol=0, atol=1e-12)
    horizons, inputs = Horizons(), random(2, 6, 3)
    found = explain(horizons, inputs, ("kernel_shap", "integrated_gradients"), target=(range(1, 3), 0), lengths=[6, 3])
    for result in found.values():
        assert result.attrs["target_time"] == "own"
        for row, length in enumerate((6, 3)):
            with torch.no_grad():
                expected = horizons(inputs[[row], :length])[0, 1:, 0].sum()
            np.testing.assert_allclose(result.prediction[row], expected, rtol=0, atol=1e-12)


def test_refusals():
    """One output a sequence, a timestep that is not there: errors that say what there is."""
    with pytest.raises(InvalidInputError, match=r"one a sequence; explain_over_time needs one a timestep"):
        explain_over_time(DeepLIFT(make_model(pooling="last")), random(2, 5, 3))
    with pytest.raises(InvalidInputError, match=r"output timestep 9 is not there.*0 to 4"):
        explain_over_time(DeepLIFT(make_model()), random(2, 5, 3), timesteps=[9])
    with pytest.raises(InvalidInputError, match=r"\[4\] is before the end of any"):
        explain_over_time(DeepLIFT(make_model()), random(2, 5, 3), timesteps=[4], lengths=[3, 2])
