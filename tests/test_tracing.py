"""Traces and gate saliency laid along the inputs' timesteps: padded batches, cells in loops, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import GateSaliency
from gatelens.models import InvalidInputError, ModelError, Predictor
from gatelens.models.trace import QUANTITIES, LayerTrace
from gatelens.models.tracing import check_layout, join, join_layers, trace_of
from helpers.lstm_loop import run_lstm


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Fused(nn.Module):
    """Two stacked nn.LSTM and a head on the last hidden state; it takes no lengths."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.LSTM(2, 3, batch_first=True).double()
            self.second = nn.LSTM(3, 4, batch_first=True).double()
            self.head = nn.Linear(4, 2).double()

    def forward(self, inputs):
        return self.head(self.second(self.first(inputs)[0])[0][:, -1])


class Looped(nn.Module):
    """The same numbers from nn.LSTMCell in the user's own loop, which may read in other ways."""

    def __init__(self, reading: str = "in order") -> None:
        super().__init__()
        fused = Fused()
        self.first, self.second = nn.LSTMCell(2, 3).double(), nn.LSTMCell(3, 4).double()
        self.head = fused.head
        for cell, lstm in ((self.first, fused.first), (self.second, fused.second)):
            cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
        self.reading = reading

    def forward(self, inputs):
        order = list(range(inputs.shape[1]))
        if self.reading == "reversed":
            order.reverse()
        elif self.reading == "every other":
            order = order[::2]
        elif self.reading == "twice":
            order += order
        if self.reading == "scaled":
            inputs = inputs * 2
        lower = upper = None
        for t in order:
            lower = self.first(inputs[:, t], lower)
            upper = self.second(lower[0], upper)
        return self.head(upper[0])


def of(model):
    return Predictor(model)


# -- trace_of ----------------------------------------------------------------------------------------------------------


def test_a_padded_batch_of_a_model_without_lengths():
    """Sequences of other lengths are run apart; the trace lies along the inputs' timesteps, each row the loop's."""
    model, inputs, lengths = Fused(), random(4, 6, 2), torch.tensor([6, 2, 6, 3])
    trace = trace_of(of(model), inputs, lengths)
    assert list(trace) == ["first.0", "second.0"]
    assert trace.lengths.tolist() == [6, 2, 6, 3]
    for row, length in enumerate(lengths.tolist()):
        alone = inputs[row : row + 1, :length]
        hidden, _, _, first = run_lstm(model.first, alone, path="first")
        for name, layer in {**first, **run_lstm(model.second, hidden, path="second")[3]}.items():
            for quantity in QUANTITIES:
                found = getattr(trace[name], quantity)[row]
                torch.testing.assert_close(found[:length], layer[quantity][0], rtol=0, atol=1e-12)
                assert not found[length:].any()


def test_chosen_quantities():
    """Only what is asked for is there, the same numbers."""
    model, inputs, lengths = Fused(), random(3, 5, 2), torch.tensor([5, 2, 5])
    whole = trace_of(of(model), inputs, lengths)
    some = trace_of(of(model), inputs, lengths, quantities=("cell_state",))
    for name, layer in some.items():
        assert list(layer.quantities()) == ["cell_state"]
        torch.testing.assert_close(layer.cell_state, whole[name].cell_state, rtol=0, atol=1e-14)


def test_the_model_is_left_as_found():
    """Mode, flags and hooks are as before; the trace needs no gradient, and dropout is off meanwhile."""
    model = nn.Sequential(nn.Dropout(0.5), Fused()).train()
    first, second = (trace_of(of(model), random(2, 4, 2), torch.tensor([4, 4])) for _ in range(2))
    assert torch.equal(first["1.first.0"].cell_state, second["1.first.0"].cell_state)
    assert not first["1.first.0"].cell_state.requires_grad
    assert all(part.training and not part._forward_hooks for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_function_has_no_trace():
    """A plain function is refused, with the explainers that work on it."""
    with pytest.raises(ModelError, match=r"plain function.*lime, kernel_shap"):
        trace_of(of(lambda inputs: inputs.sum((1, 2))), random(2, 4, 2), torch.tensor([4, 4]))


def test_layers_of_other_layouts_are_refused():
    """Another batch or other timesteps than allowed are refused, with both shapes."""
    layer = LayerTrace(cell_state=torch.zeros(4, 3, 2))
    check_layout("a", layer, 4, (3, 5), 5)
    with pytest.raises(ModelError, match="a ran over 4 sequences of 3 timesteps, and the inputs are 2 of 5"):
        check_layout("a", layer, 2, (3, 5), 5)
    with pytest.raises(ModelError, match="4 sequences of 3 timesteps, and the inputs are 4 of 5"):
        check_layout("a", layer, 4, (5, 4), 5)


def test_join():
    """Blocks of rows take their places; where one is shorter there is 0; a single whole block is not copied."""
    parts = [torch.ones(2, 2, 1), 2 * torch.ones(1, 3, 1)]
    rows = [torch.tensor([2, 0]), torch.tensor([1])]
    assert join(parts, rows, 3, 4)[..., 0].tolist() == [[1, 1, 0, 0], [2, 2, 2, 0], [1, 1, 0, 0]]
    assert join(parts[1:], [torch.tensor([0])], 1, 3) is parts[1]
    joined = join_layers([LayerTrace(candidate=part) for part in parts], rows, 3, 3)
    assert list(joined.quantities()) == ["candidate"]
    assert joined.candidate[:, 2, 0].tolist() == [0, 2, 0]


# -- gate saliency of cells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["gate_x_gradient", "gradient"])
@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
def test_gate_saliency_of_cells_is_that_of_the_equal_lstm(mode, lengths):
    """Cells in a loop and nn.LSTM with the same weights have the same gates, saliency and score."""
    inputs = random(3, 5, 2)
    fused = GateSaliency(Fused(), mode=mode).explain(inputs, target=1, lengths=lengths)
    looped = GateSaliency(Looped(), mode=mode).explain(inputs, target=1, lengths=lengths)
    np.testing.assert_allclose(looped.timesteps, fused.timesteps, rtol=0, atol=1e-12)
    np.testing.assert_allclose(looped.gates.to_numpy(), fused.gates.to_numpy(), rtol=0, atol=1e-7)
    assert list(looped.gates["layer"].to_numpy()) == ["first", "second"]
    assert np.abs(fused.timesteps).max() > 1e-3


@pytest.mark.parametrize("reading", ["reversed", "every other", "twice", "scaled"])
def test_cells_that_do_not_read_the_inputs_in_order_are_refused(reading):
    """Where calls cannot be shown to be the inputs' timesteps first to last, the error says so and what works."""
    with pytest.raises(ModelError, match=r"ran over|first does not read the inputs' timesteps.*integrated_gradients"):
        GateSaliency(Looped(reading)).explain(random(2, 4, 2), target=0)


@pytest.mark.parametrize("inputs", [torch.ones(2, 4, 2), torch.tensor([1.0, 2, 2, 1])[None, :, None].expand(2, 4, 2)])
def test_reading_order_that_the_inputs_do_not_show(inputs):
    """Inputs that are the same backwards do not show the order: a reversed loop is refused, or laid from its end."""
    model = Looped("reversed")
    try:
        found = GateSaliency(model).explain(inputs.double(), target=0)
    except ModelError:
        return
    forward = GateSaliency(Looped()).explain(inputs.double(), target=0)
    np.testing.assert_allclose(found.timesteps, forward.timesteps[:, ::-1], rtol=0, atol=1e-12)


def test_quantities_of_cells_are_checked_like_any():
    """An unknown quantity is refused before the model runs."""
    with pytest.raises(InvalidInputError, match="quantities holds 'cell'"):
        trace_of(of(Looped()), random(2, 4, 2), torch.tensor([4, 4]), quantities=("cell",))
