"""Attributions of every output timestep are those of explaining each by itself, and none looks ahead."""

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import GateSaliency, KernelSHAP, explain_over_time
from gatelens.explainers.deeplift import DeepLIFT
from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel
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


def test_refusals():
    """One output a sequence, a timestep that is not there: errors that say what there is."""
    with pytest.raises(InvalidInputError, match=r"one a sequence; explain_over_time needs one a timestep"):
        explain_over_time(DeepLIFT(make_model(pooling="last")), random(2, 5, 3))
    with pytest.raises(InvalidInputError, match=r"output timestep 9 is not there.*0 to 4"):
        explain_over_time(DeepLIFT(make_model()), random(2, 5, 3), timesteps=[9])
    with pytest.raises(InvalidInputError, match=r"\[4\] is before the end of any"):
        explain_over_time(DeepLIFT(make_model()), random(2, 5, 3), timesteps=[4], lengths=[3, 2])
