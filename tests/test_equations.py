"""The oracle itself: the equations against `nn.LSTM` and against a loop over single numbers."""

import math

import pytest
import torch
from torch import nn

from gatelens.models.config import LSTMConfig
from gatelens.models.equations import lstm_layer, lstm_step, pool

QUANTITIES = ("input_gate", "forget_gate", "candidate", "output_gate", "cell_state", "hidden_state")


def weights_of(module: nn.LSTM, suffix: str = "") -> dict[str, torch.Tensor]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {name: getattr(module, f"{name}_l0{suffix}").detach() for name in names}


def make_lstm(size: int, hidden: int, *, bidirectional: bool = False) -> nn.LSTM:
    torch.manual_seed(size * 10 + hidden)
    return nn.LSTM(size, hidden, batch_first=True, bidirectional=bidirectional).double()


def unit_loop(inputs, lengths, weights, *, reverse, activation):
    """The formulas, one unit and one number at a time, in Python floats: name -> nested lists (B, T, H)."""
    x = inputs.tolist()
    w_ih, w_hh = weights["weight_ih"].tolist(), weights["weight_hh"].tolist()
    b_ih, b_hh = weights["bias_ih"].tolist(), weights["bias_hh"].tolist()
    size = len(w_hh[0])

    def sigma(z):
        return 1 / (1 + math.exp(-z))

    def phi(z):
        return math.tanh(z) if activation == "tanh" else max(z, 0.0)

    result = {name: [[[0.0] * size for _ in row] for row in x] for name in QUANTITIES}
    for b, row in enumerate(x):
        h, c = [0.0] * size, [0.0] * size
        order = range(int(lengths[b]))
        for t in reversed(order) if reverse else order:
            new_h, new_c = [], []
            for unit in range(size):
                z = []
                for gate in range(4):  # i, f, g, o
                    k = gate * size + unit
                    total = b_ih[k] + b_hh[k]
                    total += sum(w_ih[k][d] * value for d, value in enumerate(row[t]))
                    total += sum(w_hh[k][other] * value for other, value in enumerate(h))
                    z.append(total)
                i, f, g, o = sigma(z[0]), sigma(z[1]), phi(z[2]), sigma(z[3])
                cell = f * c[unit] + i * g
                new_c.append(cell)
                new_h.append(o * phi(cell))
                for name, value in zip(QUANTITIES, (i, f, g, o, cell, new_h[-1]), strict=True):
                    result[name][b][t][unit] = value
            h, c = new_h, new_c
    return result


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 9, 4, 5), (2, 30, 1, 7)])
def test_layer_equals_torch(shape):
    """Hidden states of both directions are nn.LSTM's, and so are the final states, to 1e-12."""
    batch, steps, size, hidden = shape
    module = make_lstm(size, hidden, bidirectional=True)
    inputs = torch.randn(batch, steps, size, dtype=torch.float64)
    lengths = torch.full((batch,), steps)
    expected, (final_h, final_c) = module(inputs)
    forward = lstm_layer(inputs, lengths, weights_of(module))
    reverse = lstm_layer(inputs, lengths, weights_of(module, "_reverse"), reverse=True)
    found = torch.cat([forward.hidden_state, reverse.hidden_state], dim=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for layer, last, direction in ((forward, -1, 0), (reverse, 0, 1)):
        torch.testing.assert_close(layer.hidden_state[:, last], final_h[direction], rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.cell_state[:, last], final_c[direction], rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("reverse", [False, True])
def test_layer_equals_a_loop_over_units(activation, reverse):
    """All six quantities are those of the formulas evaluated a number at a time, and 0 at padding."""
    module = make_lstm(3, 4)
    inputs = torch.randn(3, 6, 3, dtype=torch.float64) * 2
    lengths = torch.tensor([6, 1, 4])
    layer = lstm_layer(inputs, lengths, weights_of(module), reverse=reverse, activation=activation)
    expected = unit_loop(inputs, lengths, weights_of(module), reverse=reverse, activation=activation)
    for name, value in layer.quantities().items():
        wanted = torch.tensor(expected[name], dtype=torch.float64)
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_step_by_hand():
    """One unit with weights 1, bias 0, x = 1 and h = c = 0.5 gives the numbers worked out on paper."""
    one = torch.ones(4, 1, dtype=torch.float64)
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    i, f, g, o, c, h = (
        float(value)
        for value in lstm_step(torch.ones(1, 1, dtype=torch.float64), half, half, one, one, torch.zeros(4).double())
    )
    gate = 1 / (1 + math.exp(-1.5))
    assert (i, f, o) == pytest.approx((gate, gate, gate), abs=1e-15)
    assert g == pytest.approx(math.tanh(1.5), abs=1e-15)
    assert c == pytest.approx(gate * 0.5 + gate * math.tanh(1.5), abs=1e-15)
    assert h == pytest.approx(gate * math.tanh(c), abs=1e-15)


def test_pool_by_hand():
    """Each pooling of a sequence of two valid timesteps and one of padding gives the numbers worked out by hand."""
    hidden = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [9.0, 9.0]]], dtype=torch.float64)
    lengths = torch.tensor([2])

    def pooled(pooling, *, bidirectional=False, weights=None):
        sizes = (1,) if bidirectional else (2,)
        config = LSTMConfig(input_size=1, hidden_sizes=sizes, pooling=pooling, bidirectional=bidirectional)
        return pool(config, weights or {}, hidden, lengths)[0].tolist()

    assert pooled("last") == [3.0, -4.0]
    assert pooled("last", bidirectional=True) == [3.0, -2.0]
    assert pooled("mean") == [2.0, -3.0]
    assert pooled("max") == [3.0, -2.0]
    weights = {
        "pooling.key.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64),
        "pooling.key.bias": torch.zeros(2, dtype=torch.float64),
        "pooling.query": torch.tensor([2.0, 5.0], dtype=torch.float64),
    }
    first, second = math.exp(2 * math.tanh(1)), math.exp(2 * math.tanh(3))
    share = first / (first + second)
    assert pooled("attention", weights=weights) == pytest.approx([3 - 2 * share, -4 + 2 * share], abs=1e-12)
