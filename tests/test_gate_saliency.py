"""Gate saliency: finite differences on a hand-written loop are the oracle; then sums, shapes and other modules."""

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import GateSaliency
from gatelens.models import InvalidInputError, ModelError
from gatelens.models.trace import GATES
from helpers.explained import LENGTHS, Foreign, ForeignWithLengths, Linear, lstm, sequences, token_ids


def score_by_hand(model, sequence, nudge=None):
    """Return the score of one sequence (L, D) by a plain loop, and gate values (layer, L, gate, unit).

    `nudge` is (layer, t, gate, unit, eps): what is added to one gate value on the way.
    """
    values, below = [], sequence
    for index, layer in enumerate(model.lstm):
        width = layer.hidden_size
        h, c = torch.zeros(width, dtype=sequence.dtype), torch.zeros(width, dtype=sequence.dtype)
        outputs, rows = [], []
        for t, x in enumerate(below):
            pre = layer.weight_ih_l0 @ x + layer.bias_ih_l0 + layer.weight_hh_l0 @ h + layer.bias_hh_l0
            gates = [pre[:width].sigmoid(), pre[width : 2 * width].sigmoid()]
            gates += [pre[2 * width : 3 * width].tanh(), pre[3 * width :].sigmoid()]
            if nudge is not None and nudge[:2] == (index, t):
                gates[nudge[2]] = gates[nudge[2]].clone()
                gates[nudge[2]][nudge[3]] += nudge[4]
            c = gates[1] * c + gates[0] * gates[2]
            h = gates[3] * c.tanh()
            outputs.append(h)
            rows.append(torch.stack(gates))
        below = torch.stack(outputs)
        values.append(torch.stack(rows))
    return (model.head.weight @ below[-1] + model.head.bias)[0], values


@pytest.fixture
def model():
    """A float64 model with layers of different widths."""
    return lstm(hidden_sizes=(3, 2), strength=1.5, double=True)


@torch.no_grad()
def test_the_loop_of_this_file_is_the_model(model):
    """The oracle computes the model's own score."""
    inputs = sequences(1, 4, 3, double=True)
    torch.testing.assert_close(score_by_hand(model, inputs[0])[0], model(inputs)[0, 0])


@torch.no_grad()
def test_every_gate_equals_finite_differences(model):
    """The gradient of every layer, timestep, gate and unit is what nudging that value does; so is the product."""
    inputs, eps = sequences(1, 4, 3, double=True), 1e-6
    values = score_by_hand(model, inputs[0])[1]
    expected = np.full((2, 4, 4, 3), np.nan)
    product = expected.copy()
    for layer, width in enumerate((3, 2)):
        for t in range(4):
            for gate in range(4):
                for unit in range(width):
                    up, down = (
                        score_by_hand(model, inputs[0], (layer, t, gate, unit, e))[0].item() for e in (eps, -eps)
                    )
                    expected[layer, t, gate, unit] = (up - down) / (2 * eps)
                    product[layer, t, gate, unit] = expected[layer, t, gate, unit] * values[layer][t, gate, unit]
    padded = torch.cat([inputs, torch.full((1, 2, 3), 9.0, dtype=torch.float64)], dim=1)
    for mode, oracle in (("gradient", expected), ("gate_x_gradient", product)):
        found = GateSaliency(model, mode=mode).explain(padded, lengths=[4]).gates
        assert found.dims == ("sample", "layer", "time", "gate", "unit")
        np.testing.assert_allclose(found[0, :, :4], oracle, rtol=1e-5, atol=1e-7)
        assert not np.nan_to_num(found[0, :, 4:]).any()
    assert np.nanmin(expected) < -1e-3
    assert np.nanmax(expected) > 1e-3


def test_timesteps_are_sums_over_gates_units_and_layers(model):
    """A timestep's value is the sum of what the full array holds there, shared equally by the features."""
    inputs = sequences(3, 6, 3, double=True)
    result = GateSaliency(model).explain(inputs, lengths=LENGTHS)
    sums = np.nansum(result.gates.to_numpy(), axis=(1, 3, 4))
    np.testing.assert_allclose(result.timesteps, sums, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.values, np.repeat(result.timesteps[..., None] / 3, 3, axis=2), atol=1e-12)
    assert result.resolution == "timestep"
    assert result.timesteps.min() < 0 < result.timesteps.max()


def test_gradient_mode_is_not_negative(model):
    """The sensitivity of a timestep is the sum of absolute gradients; the full array keeps their signs."""
    result = GateSaliency(model, mode="gradient").explain(sequences(2, 5, 3, double=True))
    gates = result.gates.to_numpy()
    assert result.values.min() > 0
    assert np.nanmin(gates) < 0
    np.testing.assert_allclose(result.timesteps, np.nansum(np.abs(gates), axis=(1, 3, 4)), rtol=1e-6)


def test_only_the_chosen_gates_are_summed(model):
    """`gates` chooses what is summed into timesteps; the parts add up to the whole, and the full array stays whole."""
    inputs = sequences(2, 5, 3, double=True)
    whole = GateSaliency(model).explain(inputs)
    parts = [GateSaliency(model, gates=(gate,)).explain(inputs) for gate in GATES]
    np.testing.assert_allclose(sum(part.timesteps for part in parts), whole.timesteps, rtol=0, atol=1e-12)
    for position, part in enumerate(parts):
        expected = np.nansum(whole.gates.to_numpy()[:, :, :, position], axis=(1, 3))
        np.testing.assert_allclose(part.timesteps, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(part.gates, whole.gates)


def test_the_full_array_is_labelled(model):
    """Layers, gates and NaN where a layer has fewer units: each can be found by name."""
    gates = GateSaliency(model).explain(sequences(2, 5, 3, double=True)).gates
    assert gates.shape == (2, 2, 5, 4, 3)
    assert list(gates["layer"].to_numpy()) == ["lstm.0", "lstm.1"]
    assert tuple(gates["gate"].to_numpy()) == GATES
    assert bool(gates.sel(layer="lstm.1").isel(unit=2).isnull().all())
    assert bool(gates.sel(layer="lstm.1").isel(unit=slice(2)).notnull().all())
    assert bool(gates.sel(layer="lstm.0").notnull().all())


def test_a_bidirectional_model_has_both_directions():
    """Reverse directions are layers of their own."""
    result = GateSaliency(lstm(bidirectional=True)).explain(sequences(2, 5, 3))
    assert list(result.gates["layer"].to_numpy()) == ["lstm.0", "lstm.0.reverse"]
    assert np.abs(result.gates.sel(layer="lstm.0.reverse")).max() > 0


@pytest.mark.parametrize("kind", [Foreign, ForeignWithLengths])
def test_any_module_with_an_lstm_is_explained(kind):
    """A stranger's stacked `nn.LSTM` gives its layers by the module's own names, and padded = trimmed alone."""
    module = kind()
    result = GateSaliency(module).explain(sequences(3, 6, 3), lengths=LENGTHS)
    assert list(result.gates["layer"].to_numpy()) == ["encoder.0", "encoder.1"]
    for row, length in enumerate(LENGTHS):
        alone = GateSaliency(module).explain(sequences(3, 6, 3)[row : row + 1, :length])
        np.testing.assert_allclose(result.timesteps[row, :length], alone.timesteps[0], rtol=0, atol=1e-6)


def test_batches_of_one_give_the_same(model):
    """What fits the memory budget changes nothing."""
    from gatelens.models import Predictor

    inputs = sequences(3, 6, 3, double=True)
    small = GateSaliency(Predictor(model, memory_bytes=1)).explain(inputs, lengths=LENGTHS)
    np.testing.assert_allclose(
        small.gates, GateSaliency(model).explain(inputs, lengths=LENGTHS).gates, rtol=0, atol=1e-7
    )


def test_tokens_have_gates_too():
    """Of token ids a timestep's value stands at the token."""
    result = GateSaliency(lstm(vocab_size=9, embedding_dim=4)).explain(token_ids(2, 5))
    assert result.values.shape == (2, 5, 1)
    np.testing.assert_allclose(result.timesteps, np.nansum(result.gates.to_numpy(), axis=(1, 3, 4)), rtol=0, atol=1e-6)


def test_a_module_without_an_lstm_is_refused():
    """A module without gates is refused when the explainer is made, with the explainers that still work on it."""
    with pytest.raises(ModelError, match=r"Linear holds no nn\.LSTM.*integrated_gradients.*kernel_shap, lime"):
        GateSaliency(Linear(sequences(5, 3)))


def test_a_function_is_refused():
    """A plain function has no gates: it is refused with the explainers that work on functions."""
    with pytest.raises(ModelError, match=r"gate_saliency needs a torch module.*lime, kernel_shap"):
        GateSaliency(lambda inputs: inputs.sum((1, 2)))


def test_a_detached_score_is_refused():
    """A model that cuts the graph has no gradient, and says so."""

    class Detached(Foreign):
        def forward(self, inputs):
            with torch.no_grad():
                return super().forward(inputs)

    with pytest.raises(ModelError, match="does not depend on the LSTM differentiably"):
        GateSaliency(Detached()).explain(sequences(1, 5, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "gradients"}, "mode is 'gradients'.*Did you mean 'gradient'"),
        ({"gates": ("forget",)}, "gates holds 'forget'.*Did you mean 'forget_gate'"),
        ({"gates": ()}, "gates is empty"),
    ],
)
def test_options_are_checked(options, message):
    """An unknown mode or gate is refused with the nearest name, and no gate at all too."""
    with pytest.raises(InvalidInputError, match=message):
        GateSaliency(lstm(), **options)


def test_an_lstm_inside_a_sequential_is_found():
    """The path of the layer is that inside the user's module, however deep."""

    class Last(nn.Module):
        def forward(self, output):
            return output[0][:, -1]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.LSTM(3, 4, batch_first=True), Last(), nn.Linear(4, 1))
    result = GateSaliency(module).explain(sequences(2, 5, 3))
    assert list(result.gates["layer"].to_numpy()) == ["0"]
