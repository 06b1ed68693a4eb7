"""Memory flow: what every timestep left in the cell, against a loop and against the last cell state itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from gatelens.models import InvalidInputError, LayerTrace, Trace, memory_flow, record, trace_gradients
from gatelens.models.keras_files import from_keras
from helpers.draws import Case, cases, make_inputs, make_model
from helpers.lstm_loop import make_lstm, random


def looped(layer: LayerTrace, lengths, *, reverse: bool) -> dict[str, np.ndarray]:
    """Return what was written, its share left at the end, and the flow, one number after another."""
    i, f, g = (getattr(layer, name).double().numpy() for name in ("input_gate", "forget_gate", "candidate"))
    found = {name: np.zeros(i.shape) for name in ("written", "survival", "flow")}
    for b, length in enumerate(lengths):
        order = list(range(int(length)))[:: -1 if reverse else 1]
        for place, t in enumerate(order):
            share = np.ones(i.shape[2])
            for later in order[place + 1 :]:
                share = share * f[b, later]
            found["written"][b, t] = i[b, t] * g[b, t]
            found["survival"][b, t] = share
            found["flow"][b, t] = i[b, t] * g[b, t] * share
    return found


def ends(layer: LayerTrace, lengths, *, reverse: bool) -> torch.Tensor:
    """Return the cell state after the timestep that was read last, (B, H)."""
    last = torch.zeros_like(lengths) if reverse else lengths - 1
    return layer.cell_state[torch.arange(len(lengths)), last]


def gates(*shape: int, forget: float = 0.5) -> LayerTrace:
    """Return gates without cell states: 1 is written at every timestep."""
    return LayerTrace(
        input_gate=torch.full(shape, 0.5), forget_gate=torch.full(shape, forget), candidate=torch.full(shape, 2.0)
    )


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_flows_are_those_of_the_loop_and_sum_to_the_last_cell(case: Case) -> None:
    """Of any reference LSTM, with lengths, stacked, in both directions; to 1e-12 in float64, and 0 at padding."""
    trace = case.model.trace(case.inputs, case.lengths)
    flows = memory_flow(trace)
    assert list(flows) == list(trace)
    for name, found in flows.items():
        assert found.reverse is name.endswith(".reverse")
        size = max(1.0, float(trace[name].cell_state.abs().max()))  # relu's cells may be large
        for part, expected in looped(trace[name], case.lengths, reverse=found.reverse).items():
            np.testing.assert_allclose(getattr(found, part), expected, rtol=1e-12, atol=1e-12 * size)
        last = ends(trace[name], case.lengths, reverse=found.reverse)
        torch.testing.assert_close(found.flow.sum(dim=1), last, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_left_of_the_initial_state_is_the_rest(packed: bool) -> None:
    """With an initial state, flows sum to the last cell less f_1 ... f_T c_0, in every layer and direction."""
    module = make_lstm(input_size=2, hidden_size=4, num_layers=2, bidirectional=True, batch_first=True, proj_size=3)
    inputs, state = random(3, 6, 2), (random(4, 3, 3, seed=2), random(4, 3, 4, seed=3))
    lengths = torch.tensor([6, 3, 1] if packed else [6, 6, 6])
    given = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True) if packed else inputs
    with record(module) as recording, torch.no_grad():
        _, (_, last) = module(given, state)
    flows = memory_flow(recording.trace)
    assert [found.reverse for found in flows.values()] == [False, True, False, True]
    for index, (name, found) in enumerate(flows.items()):
        for b, length in enumerate(lengths):
            left = recording.trace[name].forget_gate[b, :length].prod(dim=0) * state[1][index, b]
            expected = last[index, b] - left
            torch.testing.assert_close(found.flow[b].sum(dim=0), expected, rtol=0, atol=1e-12)
            assert float(left.abs().max()) > 1e-4


def test_long_products_neither_overflow_nor_turn_into_nan() -> None:
    """Over 5,000 timesteps that halve the cell each, what is left of the first is 0, of the last 1; all is finite."""
    found = memory_flow(Trace({"lstm.0": gates(1, 5000, 2)}, lengths=torch.tensor([5000])))["lstm.0"]
    assert found.survival[0, -1].tolist() == [1, 1]
    assert found.survival[0, -2].tolist() == [0.5, 0.5]
    assert found.survival[0, 0].tolist() == [0, 0]
    assert found.survival.isfinite().all()
    torch.testing.assert_close(found.flow.sum(dim=1), torch.full((1, 2), 2.0))


def test_gates_that_keep_everything() -> None:
    """Where the forget gate is 1, all that was written is there at the end; where it is 0, only the last timestep's."""
    for forget, sums in ((1.0, 7.0), (0.0, 1.0)):
        found = memory_flow(Trace({"lstm.0": gates(1, 7, 1, forget=forget)}, lengths=torch.tensor([7])))["lstm.0"]
        assert found.flow.sum() == sums


def test_lengths_may_be_shorter_than_the_trace_knows() -> None:
    """A module recorded with padding: with lengths its flows are those of the sequences alone."""
    module = make_lstm(input_size=2, hidden_size=3, batch_first=True)
    inputs = random(2, 6, 2)
    with record(module) as recording, torch.no_grad():
        module(inputs)
    found = memory_flow(recording.trace, [6, 2])["lstm.0"]
    with record(module) as alone, torch.no_grad():
        module(inputs[1:, :2])
    torch.testing.assert_close(found.flow[1, :2], memory_flow(alone.trace)["lstm.0"].flow[0])
    assert not found.flow[1, 2:].any()
    assert not found.survival[1, 2:].any()
    with pytest.raises(InvalidInputError, match=r"lengths\[1\] is 7, but inputs has 6"):
        memory_flow(recording.trace, [6, 7])


def test_cells_in_a_loop() -> None:
    """The calls of an `nn.LSTMCell` are its timesteps."""
    cell = nn.LSTMCell(2, 3).double()
    inputs, state = random(2, 5, 2), None
    with record(cell) as recording, torch.no_grad():
        for t in range(5):
            state = cell(inputs[:, t], state)
    found = memory_flow(recording.trace)["cell"]
    torch.testing.assert_close(found.flow.sum(dim=1), state[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_types_are_multiplied_in_float32(dtype: torch.dtype) -> None:
    """Products of many bfloat16 gates are those of the gates as they are, not of rounded products."""
    module = make_lstm(input_size=2, hidden_size=3, batch_first=True).to(dtype)
    with record(module) as recording, torch.no_grad():
        module(random(1, 60, 2).to(dtype))
    trace = recording.trace
    found = memory_flow(trace)["lstm.0"]
    assert found.flow.dtype == torch.float32
    expected = looped(trace["lstm.0"], [60], reverse=False)
    np.testing.assert_allclose(found.flow, expected["flow"], rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("backwards", [(True,), (True, False), (True, True)])
def test_keras_layers_are_read_in_their_own_order(tmp_path, backwards) -> None:
    """A Keras layer that goes backwards ends at its first timestep, whatever its name; masked ones forget nothing."""
    from helpers.keras_made import keras, saved, sequential

    layers = keras.layers
    body = [
        layers.LSTM(3, go_backwards=flag, return_sequences=index + 1 < len(backwards))
        for index, flag in enumerate(backwards)
    ]
    theirs = sequential(keras.Input((None,)), layers.Embedding(9, 3, mask_zero=True), *body, layers.Dense(2))
    model = from_keras(saved(theirs, tmp_path)).double()
    ids = torch.tensor([[3, 0, 4, 5, 0, 7], [1, 2, 0, 0, 8, 6]])
    with record(model) as recording, torch.no_grad():
        model(ids)
    trace = recording.trace
    reads = np.logical_xor.accumulate(backwards)  # what reads backwards what came backwards reads forwards
    for (name, found), reverse in zip(memory_flow(trace).items(), reads, strict=True):
        assert found.reverse == reverse
        read = (ids > 0).double()[..., None]
        assert not (found.flow * (1 - read)).any()
        last = [0 if reverse else 5, 0 if reverse else 5]
        torch.testing.assert_close(found.flow.sum(dim=1), trace[name].cell_state[[0, 1], last], rtol=0, atol=1e-12)


def test_layers_with_timesteps_of_their_own() -> None:
    """A decoder that runs longer than the encoder ends at its own last timestep."""
    encoder, decoder = (make_lstm(seed, input_size=2, hidden_size=3, batch_first=True) for seed in (0, 1))
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    with record(both) as recording, torch.no_grad():
        encoder(random(1, 3, 2))
        _, (_, last) = decoder(random(1, 8, 2))
    found = memory_flow(recording.trace)
    torch.testing.assert_close(found["decoder.0"].flow.sum(dim=1), last[0], rtol=0, atol=1e-12)


def test_a_trace_without_gates_is_refused() -> None:
    """A recording of some quantities is refused by name, with how to record what is needed; without cells it works."""
    module = make_lstm(input_size=2, hidden_size=3, batch_first=True)
    inputs = random(2, 5, 2)
    with record(module, quantities=("forget_gate", "cell_state")) as recording, torch.no_grad():
        module(inputs)
    with pytest.raises(InvalidInputError, match=r"trace of lstm\.0 lacks input_gate, candidate; record all: record\("):
        memory_flow(recording.trace)
    with record(module, quantities=("input_gate", "forget_gate", "candidate")) as recording, torch.no_grad():
        module(inputs)
    with record(module) as full, torch.no_grad():
        module(inputs)
    torch.testing.assert_close(memory_flow(recording.trace)["lstm.0"].flow, memory_flow(full.trace)["lstm.0"].flow)


def test_what_is_no_recurrence_is_refused() -> None:
    """Gradients instead of values, and a loop that changes the cell between timesteps, have no such flow."""
    model = make_model(input_size=2, hidden_sizes=(3,))
    with pytest.raises(InvalidInputError, match="or these are gradients rather than values"):
        memory_flow(trace_gradients(model, make_inputs(model, 2, 5))[1])
    cell = nn.LSTMCell(2, 3).double()
    inputs, state = random(2, 5, 2), None
    with record(cell) as recording, torch.no_grad():
        for t in range(5):
            h, c = cell(inputs[:, t], state)
            state = (h, c + 1.0)
    with pytest.raises(InvalidInputError, match="the cell states of cell do not follow from its gates"):
        memory_flow(recording.trace)


def test_nothing_is_nothing() -> None:
    """A trace without layers has no flows; a layer that read nothing (all masked) has flows of 0."""
    assert memory_flow(Trace({}, lengths=torch.tensor([]))) == {}
    empty = LayerTrace(*(torch.zeros(1, 3, 2) for _ in range(6)))
    assert not memory_flow(Trace({"lstm.0": empty}, lengths=torch.tensor([0])))["lstm.0"].flow.any()


def test_the_trace_stays_as_it_is() -> None:
    """No gate is written to."""
    model = make_model(input_size=2, hidden_sizes=(3,), bidirectional=True)
    trace = model.trace(make_inputs(model, 2, 5), [5, 2])
    before = {name: layer.map(torch.clone) for name, layer in trace.items()}
    memory_flow(trace)
    for name, layer in trace.items():
        for quantity, value in layer.quantities().items():
            assert torch.equal(value, before[name].quantities()[quantity])
