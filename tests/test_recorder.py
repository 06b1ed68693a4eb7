"""`record` on any module with `nn.LSTM`, against a plain loop, and the module left as found."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from gatelens.models import GatelensError, ModelError, record
from helpers.draws import make_model
from helpers.lstm_loop import QUANTITIES, make_lstm, random, run_lstm, step_cell


def assert_trace_is(trace, expected, atol=1e-12):
    assert list(trace) == list(expected)
    for name, layer in expected.items():
        for quantity in QUANTITIES:
            torch.testing.assert_close(
                getattr(trace[name], quantity),
                layer[quantity],
                rtol=0,
                atol=atol,
                msg=lambda text, name=name, quantity=quantity: f"{name} {quantity}: {text}",
            )


@st.composite
def lstms(draw):
    hidden = draw(st.integers(2, 5))
    size = draw(st.integers(1, 4))
    module = make_lstm(
        draw(st.integers(0, 1000)),
        input_size=size,
        hidden_size=hidden,
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bias=draw(st.booleans()),
        proj_size=draw(st.sampled_from([0, hidden - 1])),
    )
    batch, steps = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    state = None
    if draw(st.booleans()):
        count = module.num_layers * (2 if module.bidirectional else 1)
        state = (random(count, batch, module.proj_size or hidden, seed=2), random(count, batch, hidden, seed=3))
    return module, random(batch, steps, size), state


@given(lstms())
@settings(max_examples=40)
def test_tensor_in_equals_the_loop(drawn):
    """Stacked, bidirectional, projected, without bias, either layout, from any state: the loop's numbers to 1e-12."""
    module, inputs, state = drawn
    with record(module) as recording, torch.no_grad():
        module(inputs if module.batch_first else inputs.transpose(0, 1), state)
    expected = run_lstm(module, inputs, state=state)[3]
    assert_trace_is(recording.trace, expected)
    assert recording.trace.lengths.tolist() == [inputs.shape[1]] * inputs.shape[0]


@given(lstms(), st.data())
@settings(max_examples=40)
def test_packed_sequence_in_equals_the_loop(drawn, data):
    """A PackedSequence, sorted or not, gives each sequence the loop's numbers, in the caller's order, 0 at padding."""
    module, inputs, state = drawn
    batch, steps = inputs.shape[:2]
    lengths = data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    enforce_sorted = data.draw(st.booleans())
    if enforce_sorted:
        lengths = sorted(lengths, reverse=True)
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=enforce_sorted)
    with record(module) as recording, torch.no_grad():
        module(packed, state)
    expected = run_lstm(module, inputs[:, : max(lengths)], lengths, state)[3]
    assert_trace_is(recording.trace, expected)
    assert recording.trace.lengths.tolist() == lengths


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_initial_states_of_an_unsorted_packed_sequence(bidirectional, proj_size, depth):
    """Every layer of an unsorted PackedSequence starts each sequence from its own state, not its neighbour's."""
    module = make_lstm(input_size=2, hidden_size=3, num_layers=depth, bidirectional=bidirectional, proj_size=proj_size)
    count = depth * (2 if bidirectional else 1)
    state = (random(count, 4, proj_size or 3, seed=2), random(count, 4, 3, seed=3))
    inputs, lengths = random(4, 6, 2), [2, 6, 1, 4]
    with record(module) as recording, torch.no_grad():
        module(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False), state)
    assert_trace_is(recording.trace, run_lstm(module, inputs, lengths, state)[3])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_unbatched_input(bidirectional, proj_size):
    """An unbatched (T, D) input is recorded as a batch of one, with or without an initial state."""
    module = make_lstm(input_size=3, hidden_size=4, num_layers=2, bidirectional=bidirectional, proj_size=proj_size)
    inputs, count = random(5, 3), 4 if bidirectional else 2
    state = (random(count, proj_size or 4, seed=2), random(count, 4, seed=3))
    for given_state in (None, state):
        with record(module) as recording, torch.no_grad():
            module(inputs, given_state)
        batched = None if given_state is None else tuple(part[:, None] for part in given_state)
        assert_trace_is(recording.trace, run_lstm(module, inputs[None], state=batched)[3])


def test_padding_is_zero_whatever_the_memory_held():
    """Traces hold no leftover memory at padding: with every fresh tensor filled with NaN, they are finite and 0."""
    module = make_lstm(input_size=2, hidden_size=3, num_layers=2, bidirectional=True, batch_first=True)
    packed = pack_padded_sequence(random(3, 6, 2), [6, 2, 4], batch_first=True, enforce_sorted=False)
    torch.use_deterministic_algorithms(True)  # and fills what torch.empty returns with NaN
    try:
        with record(module) as recording, torch.no_grad():
            module(packed)
        trace = recording.trace
    finally:
        torch.use_deterministic_algorithms(False)
    assert_trace_is(trace, run_lstm(module, random(3, 6, 2), [6, 2, 4])[3])


class Encoder(nn.Module):
    """Two LSTMs, one of them in a submodule, the second starting where the first ended."""

    def __init__(self) -> None:
        super().__init__()
        self.first = make_lstm(1, input_size=2, hidden_size=3, batch_first=True)
        self.inner = nn.ModuleDict({"second": make_lstm(2, input_size=3, hidden_size=3, batch_first=True)})
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.drop = nn.Dropout(0.5)
        self.fail = False

    def forward(self, inputs):
        output, state = self.first(inputs)
        if self.fail:
            raise RuntimeError("stopped inside")
        return self.inner["second"](input=self.drop(output), hx=state)[0]


def test_several_lstms_and_keywords():
    """Each LSTM is named by its path; `input=` and `hx=` by keyword are understood."""
    module, inputs = Encoder().eval(), random(2, 4, 2)
    with record(module) as recording, torch.no_grad():
        module(inputs)
    output, final_h, final_c, first = run_lstm(module.first, inputs, path="first")
    second = run_lstm(module.inner["second"], output, state=(final_h, final_c), path="inner.second")[3]
    assert_trace_is(recording.trace, {**first, **second})


def test_a_module_called_twice():
    """Later calls of one LSTM get "#2", "#3", also when their input has another length."""
    module = make_lstm(input_size=2, hidden_size=3, num_layers=2, batch_first=True)
    first, second = random(2, 4, 2), random(2, 6, 2, seed=5)
    with record(module) as recording, torch.no_grad():
        for inputs in (first, second, first):
            module(inputs)
    expected = {}
    for suffix, inputs in (("", first), ("#2", second), ("#3", first)):
        expected |= {f"{name}{suffix}": layer for name, layer in run_lstm(module, inputs)[3].items()}
    assert_trace_is(recording.trace, expected)


def test_names_in_a_numbered_list():
    """An LSTMModel's layers are called lstm.0, lstm.0.reverse, lstm.1, ..., without a second number."""
    model = make_model(input_size=2, hidden_sizes=(3, 2), bidirectional=True)
    with record(model) as recording:
        model(random(1, 3, 2))
    assert list(recording.trace) == ["lstm.0", "lstm.0.reverse", "lstm.1", "lstm.1.reverse"]


def test_float32_equals_the_loop():
    """In float32 the trace is the float64 loop's to 1e-6."""
    module = make_lstm(input_size=3, hidden_size=4, num_layers=2, bidirectional=True, batch_first=True)
    inputs = random(3, 20, 3).float()
    rough = make_lstm(input_size=3, hidden_size=4, num_layers=2, bidirectional=True, batch_first=True).float()
    module.load_state_dict(rough.state_dict())
    with record(rough) as recording, torch.no_grad():
        rough(inputs)
    layers = {name: layer.map(torch.Tensor.double) for name, layer in recording.trace.items()}
    assert_trace_is(layers, run_lstm(module, inputs.double())[3], atol=1e-6)


def snapshot(module: nn.Module):
    return {
        "hooks": [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()],
        "training": [part.training for part in module.modules()],
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "gradients": [parameter.grad is None for parameter in module.parameters()],
        "weights": {name: value.numpy().tobytes() for name, value in module.state_dict().items()},
        "generator": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("fail", [False, True])
def test_module_is_left_as_found(differentiable, fail):
    """Hooks, modes, flags, weights and torch's generator are as before, also when the forward raises inside."""
    module = Encoder().train()
    module.drop.eval()
    module.inner["second"].weight_hh_l0.requires_grad_(False)
    module.fail = fail
    module.first.register_forward_hook(lambda *_: None)
    before = snapshot(module)
    if fail:
        with pytest.raises(RuntimeError, match="stopped inside"), record(module, differentiable=differentiable):
            module(random(2, 4, 2))
    else:
        with record(module, differentiable=differentiable) as recording:
            module(random(2, 4, 2))
        assert all(not value.requires_grad for v in recording.trace.values() for value in v.quantities().values())
    assert snapshot(module) == before


@pytest.mark.parametrize("differentiable", [False, True])
def test_recording_does_not_change_the_output(differentiable):
    """The module returns bit for bit what it returns unrecorded."""
    module, inputs = Encoder().eval(), random(2, 4, 2)
    expected = module(inputs)
    with record(module, differentiable=differentiable):
        assert torch.equal(module(inputs), expected)


def test_differentiable_takes_the_input_by_keyword():
    """An LSTM that is called with input=... can be recorded with its graph."""

    class ByKeyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = make_lstm(input_size=2, hidden_size=3, batch_first=True)

        def forward(self, inputs):
            return self.lstm(input=inputs)[0]

    module, inputs = ByKeyword().requires_grad_(False), random(1, 4, 2)
    with record(module, differentiable=True) as recording:
        assert module(inputs).requires_grad
    assert_trace_is(recording.trace, run_lstm(module.lstm, inputs, path="lstm")[3])
    assert not inputs.requires_grad


def test_a_module_without_lstm_is_refused():
    """Without an nn.LSTM there is nothing to record; the error names the class and what else can be done."""
    with (
        pytest.raises(ModelError, match=r"GRU holds no nn\.LSTM.*integrated_gradients") as caught,
        record(nn.GRU(2, 3)),
    ):
        pass
    assert isinstance(caught.value, GatelensError)
    assert isinstance(caught.value, ValueError)


def test_nothing_called_is_refused():
    """A trace of a module that was not called is refused, and says where to call it."""
    with record(nn.LSTM(2, 3)) as recording:
        pass
    with pytest.raises(ModelError, match="call the module inside the `with record"):
        _ = recording.trace


def test_active_dropout_between_layers_is_refused():
    """In training mode with dropout between layers the upper layers' input is unknown; eval mode works."""
    module = make_lstm(input_size=2, hidden_size=3, num_layers=2, dropout=0.5).train()
    with record(module), pytest.raises(ModelError, match=r"training mode with dropout=0\.5.*module\.eval\(\)"):
        module(random(4, 1, 2))
    module.eval()
    with record(module) as recording:
        module(random(4, 1, 2))
    assert_trace_is(recording.trace, run_lstm(module, random(4, 1, 2).transpose(0, 1))[3])


def test_calls_with_different_batches_are_refused():
    """A Trace has one batch; calls with 2 and 3 sequences do not fit into one."""
    module = make_lstm(input_size=2, hidden_size=3, batch_first=True)
    with record(module) as recording:
        module(random(2, 4, 2))
        module(random(3, 4, 2))
    with pytest.raises(ModelError, match="2 and 3 sequences"):
        _ = recording.trace


@pytest.mark.parametrize("changed", ["inputs", "output", "weights"])
def test_a_change_in_place_is_refused(changed):
    """What the gates are rebuilt from was overwritten after the call: an error, and never wrong numbers."""
    module = make_lstm(input_size=2, hidden_size=3, batch_first=True)
    inputs = random(2, 4, 2)
    with record(module) as recording, torch.no_grad():
        output, _ = module(inputs)
    _ = recording.trace
    with torch.no_grad():
        {"inputs": inputs, "output": output, "weights": module.weight_hh_l0}[changed].mul_(2)
    with pytest.raises(ModelError, match="in place"):
        _ = recording.trace


def test_inference_mode_works():
    """Recording under torch.inference_mode gives the loop's numbers, too."""
    module, inputs = make_lstm(input_size=2, hidden_size=3, num_layers=2, batch_first=True), random(2, 4, 2)
    with record(module) as recording, torch.inference_mode():
        module(inputs)
    assert_trace_is(recording.trace, run_lstm(module, inputs)[3])


# -- nn.LSTMCell -------------------------------------------------------------------------------------------------------


def make_cell(seed: int = 0, size: int = 2, hidden: int = 3, *, bias: bool = True) -> nn.LSTMCell:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.LSTMCell(size, hidden, bias=bias).double()


def loop(cell, inputs, state=None, change=None):
    """Return quantity -> (B, T, H) and the last state of a cell's loop; `change` makes each next state."""
    rows = []
    for t in range(inputs.shape[1]):
        h, c, row = step_cell(cell, inputs[:, t], state)
        state = (h, c) if change is None else change(t, h, c, state)
        rows.append(row)
    return {key: torch.stack([row[key] for row in rows], dim=1) for key in QUANTITIES}, state


def drive(cell, inputs, state=None, change=None):
    """Run the module's own cell as `loop` runs the oracle's."""
    for t in range(inputs.shape[1]):
        h, c = cell(inputs[:, t], state)
        state = (h, c) if change is None else change(t, h, c, state)
    return state


@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans())
@settings(max_examples=30)
def test_a_cell_in_a_loop_equals_the_loop(batch, steps, size, hidden, bias, starts):
    """The calls of an nn.LSTMCell are the timesteps of one entry, from any state, with or without a bias."""
    cell, inputs = make_cell(3, size, hidden, bias=bias), random(batch, steps, size)
    state = (random(batch, hidden, seed=2), random(batch, hidden, seed=3)) if starts else None
    with record(cell) as recording, torch.no_grad():
        drive(cell, inputs, state)
    assert_trace_is(recording.trace, {"cell": loop(cell, inputs, state)[0]})
    assert recording.trace.lengths.tolist() == [steps] * batch


@pytest.mark.parametrize("starts", [False, True])
def test_an_unbatched_cell(starts):
    """A cell on vectors (D,) is recorded as a batch of one."""
    cell, inputs = make_cell(), random(1, 5, 2)
    state = (random(3, seed=2), random(3, seed=3)) if starts else None
    with record(cell) as recording, torch.no_grad():
        now = state
        for t in range(5):
            now = cell(inputs[0, t], now)
    batched = None if state is None else tuple(part[None] for part in state)
    assert_trace_is(recording.trace, {"cell": loop(cell, inputs, batched)[0]})


class Mixed(nn.Module):
    """An nn.LSTM, two stacked cells in a loop, and an nn.LSTM on what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.below = make_lstm(1, input_size=2, hidden_size=3, batch_first=True, bidirectional=True)
        self.cells = nn.ModuleList([make_cell(2, 6, 4), make_cell(3, 4, 3)])
        self.above = make_lstm(4, input_size=3, hidden_size=2, batch_first=True)

    def forward(self, inputs):
        hidden, states, tops = self.below(inputs)[0], [None, None], []
        for t in range(inputs.shape[1]):
            x = hidden[:, t]
            for index, cell in enumerate(self.cells):
                states[index] = cell(x, states[index])
                x = states[index][0]
            tops.append(x)
        return self.above(torch.stack(tops, dim=1))[0]


def test_cells_between_lstms():
    """Stacked cells with an nn.LSTM below and one above: each has its entry, named by its path."""
    module, inputs = Mixed(), random(2, 5, 2)
    with record(module) as recording, torch.no_grad():
        module(inputs)
    hidden, _, _, below = run_lstm(module.below, inputs, path="below")
    first = loop(module.cells[0], hidden)[0]
    second = loop(module.cells[1], first["hidden_state"])[0]
    above = run_lstm(module.above, second["hidden_state"], path="above")[3]
    assert_trace_is(recording.trace, {**below, "cells.0": first, "cells.1": second, **above})


@pytest.mark.parametrize("state", ["none", "zeros", "given"])
def test_a_second_run_of_a_cell(state):
    """A loop that starts afresh is a second entry, "#2"."""
    cell, first, second = make_cell(), random(2, 4, 2), random(2, 3, 2, seed=5)
    start = {
        "none": None,
        "zeros": (torch.zeros(2, 3).double(), torch.zeros(2, 3).double()),
        "given": (random(2, 3, seed=2), random(2, 3, seed=3)),
    }[state]
    with record(cell) as recording, torch.no_grad():
        drive(cell, first, start)
        drive(cell, second, start)
    assert_trace_is(recording.trace, {"cell": loop(cell, first, start)[0], "cell#2": loop(cell, second, start)[0]})


@pytest.mark.parametrize("same_start", [False, True])
def test_twin_sequences_of_one_cell(same_start):
    """Two sequences that take turns are two entries, also while they read the same (a start token)."""
    cell, one, two = make_cell(), random(2, 5, 2), random(2, 5, 2, seed=7)
    if same_start:
        two[:, :2] = one[:, :2]
    with record(cell) as recording, torch.no_grad():
        states = [None, None]
        for t in range(5):
            states = [cell(inputs[:, t], state) for inputs, state in zip((one, two), states, strict=True)]
    assert_trace_is(recording.trace, {"cell": loop(cell, one)[0], "cell#2": loop(cell, two)[0]})


class EncoderDecoder(nn.Module):
    """An nn.LSTM whose final state starts a cell's loop, or a cell whose state starts an nn.LSTM."""

    def __init__(self, *, cell_first: bool) -> None:
        super().__init__()
        self.lstm = make_lstm(1, input_size=2, hidden_size=3, batch_first=True)
        self.cell = make_cell(2)
        self.cell_first = cell_first

    def forward(self, inputs):
        if self.cell_first:
            h, c = drive(self.cell, inputs)
            return self.lstm(inputs, (h[None], c[None]))[0][:, -1]
        _, (h, c) = self.lstm(inputs)
        return drive(self.cell, inputs, (h[0], c[0]))[0]


def encoder_decoder_loop(module, inputs):
    if module.cell_first:
        values, (h, c) = loop(module.cell, inputs)
        return {"cell": values, **run_lstm(module.lstm, inputs, state=(h[None], c[None]))[3]}
    _, h, c, layers = run_lstm(module.lstm, inputs)
    return {**layers, "cell": loop(module.cell, inputs, (h[0], c[0]))[0]}


@pytest.mark.parametrize("cell_first", [False, True])
def test_encoder_and_decoder(cell_first):
    """One starts from the state of the other."""
    module, inputs = EncoderDecoder(cell_first=cell_first), random(2, 4, 2)
    with record(module) as recording, torch.no_grad():
        module(inputs)
    assert_trace_is(recording.trace, encoder_decoder_loop(module, inputs))


@pytest.mark.parametrize("cell_first", [False, True])
def test_an_encoder_and_decoder_called_twice(cell_first):
    """A second call of the whole module is a second entry of each part, also of a cell that starts from a new state."""
    module, first, second = EncoderDecoder(cell_first=cell_first), random(2, 4, 2), random(2, 4, 2, seed=5)
    with record(module) as recording, torch.no_grad():
        module(first)
        module(second)
    expected = encoder_decoder_loop(module, first)
    expected |= {f"{name}#2": layer for name, layer in encoder_decoder_loop(module, second).items()}
    assert_trace_is(recording.trace, expected)


LENGTHS = torch.tensor([5, 2, 3])
CHANGES = {
    "where": lambda t, h, c, old: tuple(
        torch.where((t < LENGTHS)[:, None], new, torch.zeros_like(new) if old is None else past)
        for new, past in zip((h, c), old or (h, c), strict=True)
    ),
    "scaled": lambda t, h, c, old: (h * 0.5, c * 2),
    "in place": lambda t, h, c, old: (h.mul_(0.5), c.mul_(2)),
    "copied": lambda t, h, c, old: (h, c) if old is None else (old[0].copy_(h), old[1].copy_(c)),
    "only h": lambda t, h, c, old: (h.roll(1, 0), c),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_that_the_loop_changes(change):
    """Masked, scaled, overwritten states go on with the sequence, each step with the state that entered it."""
    cell, inputs = make_cell(), random(3, 5, 2)
    with record(cell) as recording, torch.no_grad():
        drive(cell, inputs, change=CHANGES[change])
    with torch.no_grad():
        same = {"in place": CHANGES["scaled"], "copied": None}  # the oracle's own numbers must not be written over
        expected = loop(cell, inputs, change=same.get(change, CHANGES[change]))[0]
    assert_trace_is(recording.trace, {"cell": expected})


def test_one_state_buffer_that_is_written_over():
    """A loop that keeps its state in two tensors, written over at each step, gives the same."""
    cell, inputs = make_cell(), random(2, 5, 2)
    h, c = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    with record(cell) as recording, torch.no_grad():
        for t in range(5):
            new_h, new_c = cell(inputs[:, t], (h, c))
            h.copy_(new_h)
            c.copy_(new_c)
    assert_trace_is(recording.trace, {"cell": loop(cell, inputs)[0]})


def test_a_cell_that_reads_backwards():
    """Calls are the timesteps in the order of the calls: a loop from the end is laid from the end."""
    cell, inputs = make_cell(), random(2, 5, 2)
    with record(cell) as recording, torch.no_grad():
        drive(cell, inputs.flip(1))
    assert_trace_is(recording.trace, {"cell": loop(cell, inputs.flip(1))[0]})


def test_a_cells_weights_changed_afterwards_are_refused():
    """Weights that were written over would make wrong gates."""
    cell = make_cell()
    with record(cell) as recording, torch.no_grad():
        drive(cell, random(2, 4, 2))
        cell.weight_ih.mul_(2)
    with pytest.raises(ModelError, match="in place"):
        _ = recording.trace


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.04)])
def test_cells_in_other_types(dtype, tolerance):
    """float32 and bfloat16 cells give the float64 loop's numbers to their precision, in their type."""
    cell, inputs = make_cell().to(dtype), random(2, 6, 2).to(dtype)
    with record(cell) as recording, torch.no_grad():
        drive(cell, inputs)
    trace = recording.trace
    assert trace["cell"].cell_state.dtype == dtype
    layers = {name: layer.map(torch.Tensor.double) for name, layer in trace.items()}
    assert_trace_is(layers, {"cell": loop(cell.double(), inputs.double())[0]}, atol=tolerance)


@pytest.mark.parametrize("differentiable", [False, True])
def test_cells_give_their_own_numbers(differentiable):
    """Cells return bit for bit what they return unrecorded, and nothing is left on them, nor in the random state."""
    module, inputs = Mixed(), random(2, 5, 2)
    before, expected = snapshot(module), module(inputs)
    with record(module, differentiable=differentiable) as recording:
        assert torch.equal(module(inputs), expected)
    assert all(not value.requires_grad for v in recording.trace.values() for value in v.quantities().values())
    assert snapshot(module) == before


@pytest.mark.parametrize("grad", [False, True])
def test_gradients_or_not(grad):
    """Recording gives the same under no_grad and with a graph, and takes no gradient from the user's own backward."""
    module, inputs = EncoderDecoder(cell_first=False), random(2, 4, 2)
    module(inputs).sum().backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    with torch.set_grad_enabled(grad), record(module) as recording:
        score = module(inputs).sum()
    if grad:
        score.backward()
        assert all(torch.equal(p.grad, e) for p, e in zip(module.parameters(), expected, strict=True))
    values = {name: layer.quantities() for name, layer in recording.trace.items()}
    with torch.no_grad():
        assert_trace_is(recording.trace, encoder_decoder_loop(module, inputs))
    assert not any(value.requires_grad for layer in values.values() for value in layer.values())
