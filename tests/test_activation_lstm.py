"""`ActivationLSTM` against the equations with every pair of activations, and against `nn.LSTM` in everything else."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gatelens.models import InvalidInputError
from gatelens.models.activation_lstm import ActivationLSTM, make_lstm

CELLS = {
    "tanh": torch.tanh,
    "relu": lambda x: x.clamp(min=0),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "linear": lambda x: x,
}
GATES = {
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_sigmoid_keras2": lambda x: (0.2 * x + 0.5).clamp(0, 1),
}
PAIRS = list(itertools.product(CELLS, GATES))


def made(seed=0, **options):
    torch.manual_seed(seed)
    return ActivationLSTM(2, 3, batch_first=True, **options).double()


def by_the_equations(module, inputs, *, reverse=False):
    """Hochreiter & Schmidhuber 1997 with Gers' forget gate, one sequence (T, D) -> (T, H) and the last c."""
    suffix = "_l0_reverse" if reverse else "_l0"
    gate, cell = GATES[module.gate_activation], CELLS[module.activation]
    h, c = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    outputs = []
    for x in inputs.flip(0) if reverse else inputs:
        drive = getattr(module, "weight_ih" + suffix) @ x + getattr(module, "weight_hh" + suffix) @ h
        if module.bias:
            drive = drive + getattr(module, "bias_ih" + suffix) + getattr(module, "bias_hh" + suffix)
        i, f, g, o = drive.chunk(4)
        c = gate(f) * c + gate(i) * cell(g)
        h = gate(o) * cell(c)
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs), c


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("activation", "gate_activation"), PAIRS)
def test_outputs_are_those_of_the_equations(activation, gate_activation, bias):
    """For every pair of activations, outputs and final states of both directions are the equations' to 1e-12."""
    module = made(activation=activation, gate_activation=gate_activation, bidirectional=True, bias=bias)
    inputs = 3 * torch.randn(4, 6, 2, dtype=torch.float64)
    output, (last_h, last_c) = module(inputs)
    for b in range(4):
        for direction, reverse in enumerate((False, True)):
            wanted, c = by_the_equations(module, inputs[b], reverse=reverse)
            found = output[b].chunk(2, dim=1)[direction]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
            torch.testing.assert_close(last_h[direction, b], wanted[0 if reverse else -1], rtol=0, atol=1e-12)
            torch.testing.assert_close(last_c[direction, b], c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_with_torchs_activations_it_is_torchs_lstm(bidirectional):
    """With sigmoid and tanh, outputs, states and gradients are those of nn.LSTM with the same weights, to 1e-12."""
    module = made(bidirectional=bidirectional)
    plain = nn.LSTM(2, 3, batch_first=True, bidirectional=bidirectional).double()
    plain.load_state_dict(module.state_dict())
    inputs = torch.randn(4, 6, 2, dtype=torch.float64, requires_grad=True)
    found, wanted = module(inputs), plain(inputs)
    for one, other in ((found[0], wanted[0]), (found[1][0], wanted[1][0]), (found[1][1], wanted[1][1])):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found[0].square().sum(), inputs)
    (expected,) = torch.autograd.grad(wanted[0].square().sum(), inputs)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_it_continues_from_an_initial_state():
    """Two runs, the second from the first's states, are one longer run."""
    module = made(activation="relu")
    inputs = torch.randn(4, 6, 2, dtype=torch.float64)
    output, (final_h, final_c) = module(inputs)
    _, state = module(inputs[:, :2])
    rest, (last_h, last_c) = module(inputs[:, 2:], state)
    torch.testing.assert_close(rest, output[:, 2:], rtol=0, atol=1e-12)
    torch.testing.assert_close(last_h, final_h, rtol=0, atol=1e-12)
    torch.testing.assert_close(last_c, final_c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", CELLS)
def test_packed_equals_singles(activation):
    """A packed batch gives each sequence the outputs and final states it has alone."""
    module = made(1, activation=activation, gate_activation="hard_sigmoid", bidirectional=True)
    inputs, lengths = torch.randn(3, 5, 2, dtype=torch.float64), [2, 5, 3]
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    output, (final_h, final_c) = module(packed)
    padded = pad_packed_sequence(output, batch_first=True)[0]
    for b, length in enumerate(lengths):
        alone, (h, c) = module(inputs[b : b + 1, :length])
        torch.testing.assert_close(padded[b : b + 1, :length], alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(final_h[:, b : b + 1], h, rtol=0, atol=1e-12)
        torch.testing.assert_close(final_c[:, b : b + 1], c, rtol=0, atol=1e-12)


def test_it_refuses_a_state_with_unsorted_packing():
    """An initial state would meet the wrong rows of an unsorted PackedSequence, so it is refused."""
    module = ActivationLSTM(2, 3, batch_first=True)
    packed = pack_padded_sequence(torch.zeros(2, 3, 2), [1, 3], batch_first=True, enforce_sorted=False)
    with pytest.raises(ValueError, match="no initial state with an unsorted PackedSequence"):
        module(packed, (torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relux"}, "'relux'; known: .*Did you mean 'relu'"),
        ({"gate_activation": "tanh"}, "activation 'tanh'; known: sigmoid"),
        ({"num_layers": 2}, "num_layers=2.*Stack several"),
        ({"batch_first": False}, "batch_first=False"),
        ({"proj_size": 1}, "proj_size=1"),
    ],
)
def test_it_refuses_what_it_cannot_compute(options, message):
    """Unknown activations, several layers and other layouts are refused when it is made."""
    with pytest.raises(InvalidInputError, match=message):
        ActivationLSTM(2, 3, **{"batch_first": True, **options})


@pytest.mark.parametrize(("activation", "gate_activation"), PAIRS)
def test_torchs_own_lstm_where_that_is_enough(activation, gate_activation):
    """make_lstm takes the fused nn.LSTM for sigmoid and tanh, and says by attributes what others use."""
    module = make_lstm(2, 3, bias=False, bidirectional=True, activation=activation, gate_activation=gate_activation)
    assert (module.bias, module.bidirectional, module.batch_first, module.hidden_size) == (False, True, True, 3)
    if (activation, gate_activation) == ("tanh", "sigmoid"):
        assert type(module) is nn.LSTM
    else:
        assert isinstance(module, ActivationLSTM)
        assert (module.activation, module.gate_activation) == (activation, gate_activation)
        assert f"activation={activation}, gate_activation={gate_activation}" in repr(module)
