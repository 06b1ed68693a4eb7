"""Gate statistics against numbers counted by hand from the trace."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.models import ModelError, from_keras, gate_statistics
from gatelens.models.trace import GATES
from helpers.draws import make_inputs, make_model
from helpers.keras_made import keras, saved, sequential


@pytest.mark.parametrize("budget", [None, 1])
def test_numbers_are_those_of_the_trace(budget):
    """Shares, half-lives and ranges are those of the valid timesteps of the whole batch, however it is split."""
    model = make_model(3, input_size=3, hidden_sizes=(6, 4), bidirectional=True)
    with torch.no_grad():
        for parameter in model.lstm.parameters():
            parameter.mul_(4)
    inputs, lengths = make_inputs(model, 5, 9), torch.tensor([9, 4, 1, 7, 9])
    if budget is None:
        found = gate_statistics(model, inputs, lengths=lengths)
    else:  # one sequence a batch
        from gatelens.models import Predictor

        found = gate_statistics(Predictor(model, memory_bytes=budget), inputs, lengths=lengths)
    trace = model.trace(inputs, lengths)
    valid = torch.arange(9) < lengths[:, None]
    assert list(found) == list(trace)
    for name, layer in trace.items():
        statistics = found[name]
        assert statistics.timesteps == 30
        for gate in GATES:
            values = getattr(layer, gate)[valid].abs()
            assert statistics.open_share[gate] == pytest.approx(float((values > 0.95).double().mean()))
            if gate != "candidate":
                assert statistics.closed_share[gate] == pytest.approx(float((values < 0.05).double().mean()))
                assert statistics.saturated_share[gate] == pytest.approx(
                    float(((values > 0.95) | (values < 0.05)).double().mean())
                )
        rates = -layer.forget_gate[valid].log().mean(dim=0)
        np.testing.assert_allclose(statistics.half_lives, math.log(2) / rates.numpy(), rtol=1e-12)
        assert statistics.half_life == pytest.approx(float(np.median(statistics.half_lives)))
        assert statistics.mean_half_life == pytest.approx(math.log(2) / float(rates.mean()))
        hidden = layer.hidden_state[valid]
        np.testing.assert_allclose(statistics.unit_ranges, (hidden.amax(0) - hidden.amin(0)).numpy())
    assert any(sum(found[name].saturated_share.values()) > 0.2 for name in found)


def test_half_life_of_a_known_forget_gate():
    """A forget gate of 0.5 forgets half in 1 timestep, of 2^(-1/8) in 8, of 1 never: whatever flows in."""
    model = make_model(0, input_size=1, hidden_sizes=(3,))
    layer = model.lstm[0]
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.weight_hh_l0.zero_()
        layer.bias_hh_l0.zero_()
        forget = torch.tensor([0.5, 2 ** (-1 / 8), 1.0], dtype=torch.float64)
        layer.bias_ih_l0[3:6] = torch.logit(forget).clamp(max=800)
    found = gate_statistics(model, make_inputs(model, 2, 5))["lstm.0"]
    np.testing.assert_allclose(found.half_lives[:2], [1, 8], rtol=1e-9)
    assert found.half_lives[2] == math.inf
    assert found.half_life == pytest.approx(8)
    assert found.mean_half_life == pytest.approx(3 / (1 + 1 / 8))
    assert found.to_dict()["half_lives"] == [pytest.approx(1), pytest.approx(8), None]
    json.dumps(found.to_dict(), allow_nan=False)


def test_dead_units():
    """A unit whose output never moves is dead; in a layer where none moves, all are."""
    model = make_model(0, input_size=2, hidden_sizes=(4,))
    layer = model.lstm[0]
    with torch.no_grad():
        for unit in (1, 3):
            for gate in range(4):
                row = gate * 4 + unit
                layer.weight_ih_l0[row] = layer.weight_hh_l0[row] = 0
                layer.bias_ih_l0[row] = layer.bias_hh_l0[row] = 0
        layer.bias_ih_l0[2 * 4 + 1] = 0
    inputs = make_inputs(model, 3, 6)
    assert gate_statistics(model, inputs)["lstm.0"].resting_units == (1, 3)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.weight_hh_l0.zero_()
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.zero_()
    assert gate_statistics(model, inputs)["lstm.0"].resting_units == (0, 1, 2, 3)


def test_a_single_timestep_shows_no_dead_units():
    """What moves is seen from two timesteps on, of one sequence or of two; padding is none."""
    model = make_model(0, input_size=2, hidden_sizes=(3,))
    layer = model.lstm[0]
    with torch.no_grad():
        layer.weight_ih_l0[7] = layer.weight_hh_l0[7] = layer.bias_ih_l0[7] = layer.bias_hh_l0[7] = 0  # g of unit 1
    for batch, steps, lengths, resting in ((1, 1, None, ()), (1, 4, [1], ()), (2, 1, None, (1,)), (1, 2, None, (1,))):
        found = gate_statistics(model, make_inputs(model, batch, steps), lengths=lengths)["lstm.0"]
        assert found.resting_units == resting
        assert found.to_dict()["resting_units"] == list(resting)


def test_foreign_modules_and_those_without_gates():
    """Any module with an LSTM has statistics, at lengths it does not take too; one without says what works instead."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 3, batch_first=True)

        def forward(self, inputs):
            return self.lstm(inputs)[0][:, -1]

    inputs = torch.randn(3, 5, 2)
    found = gate_statistics(Last(), inputs, lengths=[5, 2, 5])
    assert found["lstm.0"].timesteps == 12
    with pytest.raises(ModelError, match=r"no nn\.LSTM.*integrated_gradients"):
        gate_statistics(nn.Flatten(), inputs)
    with pytest.raises(ModelError, match="plain function"):
        gate_statistics(lambda a: a.sum(axis=(1, 2)), inputs)


def test_masked_timesteps_count_for_nothing(tmp_path):
    """What a Keras model skips is no gate that is shut: statistics are those of the timesteps it reads."""
    made = sequential(
        keras.Input((6,), dtype="int32"), keras.layers.Embedding(9, 3, mask_zero=True), keras.layers.LSTM(4),
        keras.layers.Dense(1),
    )  # fmt: skip
    model = from_keras(saved(made, tmp_path))
    padded, bare = torch.tensor([[0, 0, 3, 5, 0, 7]]), torch.tensor([[3, 5, 7]])
    (found,), (expected,) = gate_statistics(model, padded).values(), gate_statistics(model, bare).values()
    assert found.timesteps == 3
    assert found.half_life == pytest.approx(expected.half_life, rel=1e-6)
    assert found.closed_share == pytest.approx(expected.closed_share)
    with pytest.raises(ModelError, match="reads no timestep of these inputs"):
        gate_statistics(model, torch.zeros(1, 6, dtype=torch.long))
