"""Gates rebuilt from the fused kernel's outputs: chosen quantities, blocks, narrow types, memory, and refusals."""

import itertools
import weakref
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gatelens.models import InvalidInputError, InvalidTypeError, ModelError, rebuild, record
from gatelens.models.activation_lstm import ActivationLSTM
from gatelens.models.activations import CELL_ACTIVATIONS, GATE_ACTIVATIONS
from helpers.lstm_loop import QUANTITIES, make_lstm, random, run_lstm

# torch's own word on the user's own call
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def run(module, inputs, lengths=None, state=None, **options):
    """Return the trace of inputs (B, T, D), packed where lengths are given."""
    if lengths is None:
        given_ = inputs if module.batch_first else inputs.transpose(0, 1)
    else:
        given_ = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    with record(module, bitwise=True, **options) as recording, torch.no_grad():
        module(given_, state)
    return recording.trace


def assert_trace_is(trace, expected, *, atol=0.0, rtol=0.0):
    """Each number to `atol`, or to `rtol` of the largest of its kind."""
    assert list(trace) == list(expected)
    for name, layer in expected.items():
        for quantity in QUANTITIES:
            wanted = layer[quantity]
            found = getattr(trace[name], quantity)
            wanted = wanted.detach()
            scale = float(wanted.abs().max())
            torch.testing.assert_close(
                found.to(wanted.dtype),
                wanted,
                rtol=0,
                atol=atol + rtol * scale,
                msg=lambda m, n=name, q=quantity: f"{n} {q}: {m}",
            )


@st.composite
def drawn(draw):
    """Draw an LSTM of any kind, its inputs, lengths or None, and a state or None."""
    hidden = draw(st.integers(2, 6))
    module = make_lstm(
        seed=draw(st.integers(0, 1000)),
        input_size=draw(st.sampled_from([1, 3, 3 * hidden, 3 * hidden + 1, 5 * hidden])),
        hidden_size=hidden,
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bias=draw(st.booleans()),
        proj_size=draw(st.sampled_from([0, hidden - 1])),
    )
    batch, steps = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    lengths = draw(st.none() | st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    state = None
    if draw(st.booleans()):
        count = module.num_layers * (2 if module.bidirectional else 1)
        state = (random(count, batch, module.proj_size or hidden, seed=2), random(count, batch, hidden, seed=3))
    return module, random(batch, steps, module.input_size), lengths, state


def loop(module, inputs, lengths, state):
    longest = inputs.shape[1] if lengths is None else max(lengths)
    return run_lstm(module, inputs[:, :longest], lengths, state)[3]


@given(drawn())
@settings(max_examples=60)
def test_float64_is_the_loop(case):
    """Any architecture, wide inputs (D > 3H) included: the loop's numbers to 1e-12."""
    assert_trace_is(run(*case), loop(*case), atol=1e-12)


@given(drawn())
@settings(max_examples=60)
def test_float32_is_the_loop_in_float64(case):
    """The same in float32, where kernels are compiled: to 1e-5 of the largest of each quantity."""
    module, inputs, lengths, state = case
    module, inputs = module.float(), inputs.float()
    state = None if state is None else tuple(part.float() for part in state)
    found = run(module, inputs, lengths, state)
    state = None if state is None else tuple(part.double() for part in state)
    assert_trace_is(found, loop(module.double(), inputs.double(), lengths, state), rtol=1e-5)


@given(drawn(), st.sets(st.sampled_from(QUANTITIES), min_size=1), st.sampled_from([1, 50, 2**18]), st.booleans())
@settings(max_examples=80)
def test_chosen_quantities_are_those_of_the_whole_trace(case, chosen, block, narrow):
    """Any choice, made in blocks of one timestep or in one go: the whole trace's numbers, and no other quantity."""
    module, inputs, lengths, state = case
    dtype = torch.float32 if narrow else torch.float64
    module, inputs = module.to(dtype), inputs.to(dtype)
    state = None if state is None else tuple(part.to(dtype) for part in state)
    whole = run(module, inputs, lengths, state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "BLOCK_NUMBERS", block)
        some = run(module, inputs, lengths, state, quantities=sorted(chosen))
    assert list(some) == list(whole)
    assert some.lengths.tolist() == whole.lengths.tolist()
    for name, layer in some.items():
        assert list(layer.quantities()) == [name for name in QUANTITIES if name in chosen]
        assert layer.shape[:2] == whole[name].shape[:2]
        for quantity, value in layer.quantities().items():
            torch.testing.assert_close(value, getattr(whole[name], quantity), rtol=0, atol=2e-6 if narrow else 1e-13)


def test_blocks_of_a_long_reversed_padded_sequence():
    """Many blocks, a reverse direction, lengths that end on, before and after their edges, initial states: the loop."""
    module = make_lstm(input_size=3, hidden_size=4, num_layers=2, bidirectional=True, batch_first=True)
    lengths = [40, 1, 7, 8, 9, 16, 39]
    inputs, state = random(7, 40, 3), (random(4, 7, 4, seed=2), random(4, 7, 4, seed=3))
    expected = run_lstm(module, inputs, lengths, state)[3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "BLOCK_NUMBERS", 8 * 7 * 16)  # 8 timesteps
        for quantities in itertools.combinations(QUANTITIES, 2):
            trace = run(module, inputs, lengths, state, quantities=quantities)
            for name, quantity in itertools.product(expected, quantities):
                found = getattr(trace[name], quantity)
                torch.testing.assert_close(found, expected[name][quantity], rtol=0, atol=1e-12)


def test_cells_have_chosen_quantities_too():
    """An nn.LSTMCell's calls give the same chosen quantities as the whole trace does."""
    cell = nn.LSTMCell(3, 4)

    def steps(**options):
        with record(cell, **options) as recording, torch.no_grad():
            state = None
            for t in range(5):
                state = cell(random(2, 5, 3).float()[:, t], state)
        return recording.trace["cell"]

    whole, some = steps(), steps(quantities=("hidden_state", "candidate"))
    assert list(some.quantities()) == ["candidate", "hidden_state"]
    assert torch.equal(some.candidate, whole.candidate)
    assert torch.equal(some.hidden_state, whole.hidden_state)


def test_a_quantity_that_was_not_asked_for():
    """It says so, names what there is, and how to have it; hasattr and getattr with a default work."""
    trace = run(make_lstm(input_size=2, hidden_size=3), random(2, 4, 2), quantities=("forget_gate", "cell_state"))
    layer = trace["lstm.0"]
    with pytest.raises(AttributeError, match=r"output_gate was not recorded; this trace holds forget_gate, cell_state"):
        _ = layer.output_gate
    assert not hasattr(layer, "hidden_state")
    assert getattr(layer, "candidate", None) is None
    assert layer.shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("quantities", "error", "message"),
    [
        (
            "cell_state",
            InvalidTypeError,
            r"quantities is 'cell_state'; expected several names, e\.g\. \('cell_state',\)",
        ),
        ((), InvalidInputError, "quantities is empty; name at least one of input_gate"),
        (("forget",), InvalidInputError, "quantities holds 'forget'.*Did you mean 'forget_gate'"),
        (("cell_state", 3), InvalidInputError, "quantities holds 3"),
    ],
)
def test_quantities_are_checked_before_anything_runs(quantities, error, message):
    """A string, nothing and an unknown name are refused when the block is entered, with what is possible."""
    module = nn.LSTM(2, 3)
    with pytest.raises(error, match=message), record(module, quantities=quantities):
        raise AssertionError("entered")
    assert not module._forward_hooks


def test_the_order_and_repetition_of_quantities_do_not_matter():
    """Quantities come in the order i, f, g, o, c, h however they are named; a list will do."""
    trace = run(
        make_lstm(input_size=2, hidden_size=3), random(1, 4, 2), quantities=["hidden_state", "input_gate", "input_gate"]
    )
    assert list(trace["lstm.0"].quantities()) == ["input_gate", "hidden_state"]


@pytest.mark.parametrize("activation", CELL_ACTIVATIONS)
@pytest.mark.parametrize("gate_activation", GATE_ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_activations_are_the_loop(activation, gate_activation, dtype):
    """An LSTM that declares other nonlinearities is rebuilt with those, in both directions of a padded batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = ActivationLSTM(
            3, 4, batch_first=True, bidirectional=True, activation=activation, gate_activation=gate_activation
        )
    inputs, lengths = random(3, 6, 3).to(dtype), [6, 2, 5]
    found = run(module.to(dtype), inputs, lengths)
    expected = run_lstm(
        module.double(), inputs.double(), lengths, activation=activation, gate_activation=gate_activation
    )[3]
    assert_trace_is(found, expected, rtol=1e-12 if dtype == torch.float64 else 1e-5)


# -- narrow types ------------------------------------------------------------------------------------------------------

NARROW = {torch.bfloat16: 0.04, torch.float16: 0.005}


def apart(layers, tolerance):
    """Whether any two gates of each layer differ by far more than the tolerance, so that their order is tested."""
    gates = QUANTITIES[:4]
    return all(
        float((layer[one] - layer[other]).detach().abs().max()) > 5 * tolerance
        for layer in layers.values()
        for one, other in itertools.combinations(gates, 2)
    )


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("packed", [False, True])
def test_half_precision(dtype, packed):
    """bfloat16 and float16: the float64 loop's numbers to the type's precision, in the type of the output."""
    module = make_lstm(input_size=3, hidden_size=4, num_layers=2, bidirectional=True, batch_first=True).to(dtype)
    inputs, lengths = random(3, 6, 3).to(dtype), [6, 2, 5] if packed else None
    state = (random(4, 3, 4, seed=2).to(dtype), random(4, 3, 4, seed=3).to(dtype))
    trace = run(module, inputs, lengths, state)
    expected = run_lstm(module.double(), inputs.double(), lengths, tuple(part.double() for part in state))[3]
    assert all(value.dtype == dtype for layer in trace.values() for value in layer.quantities().values())
    assert apart(expected, NARROW[dtype])
    assert_trace_is(trace, expected, atol=NARROW[dtype])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_autocast(layers, below, packed):
    """Under autocast, whatever type the layer below gives: the float64 loop's numbers to bfloat16's precision."""
    module = make_lstm(input_size=3, hidden_size=4, num_layers=layers, batch_first=True).float()
    inputs, lengths = random(3, 6, 3).float(), [6, 2, 5] if packed else None
    given_ = inputs.bfloat16() if below else inputs  # what an nn.Linear under autocast hands on
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = run(module, given_, lengths)
    expected = run_lstm(module.double(), given_.double(), lengths)[3]
    assert apart(expected, 0.04)
    assert_trace_is(trace, expected, atol=0.04)


# -- saturated gates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [40.0, -40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_saturated_gates_are_exact(drive, dtype, bidirectional):
    """Pre-activations of +-40: each gate is sigma(+-40) or tanh(+-40) to the type's last digits, relatively, too."""
    module = make_lstm(input_size=2, hidden_size=3, bidirectional=bidirectional, batch_first=True, strength=1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(drive if name.startswith("bias_ih") else 0.0)
    trace = run(module.to(dtype), random(2, 5, 2).to(dtype))
    exact = torch.tensor(drive, dtype=torch.float64)
    for layer in trace.values():
        for quantity in ("input_gate", "forget_gate", "output_gate"):
            found = getattr(layer, quantity).double()
            torch.testing.assert_close(found, exact.sigmoid().expand_as(found), rtol=1e-6, atol=0)
        assert torch.equal(layer.candidate, torch.full_like(layer.candidate, 1.0 if drive > 0 else -1.0))
        counted = torch.arange(1, 6).double()[None, :, None]
        if drive < 0:
            counted = torch.full((1, 5, 1), -1.0, dtype=torch.float64) * exact.sigmoid()
        cell = layer.cell_state.double()
        time = cell.flip(1) if (bidirectional and drive > 0 and layer is trace["lstm.0.reverse"]) else cell
        torch.testing.assert_close(time, counted.expand_as(cell), rtol=1e-6, atol=0)


# -- memory ----------------------------------------------------------------------------------------------------------


class Allocations(TorchDispatchMode):
    """Counts the bytes of all storages that live at once, from the operations that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._count((args, kwargs), fresh=False)  # what was there before
        result = func(*args, **(kwargs or {}))
        self._count(result, fresh=True)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, values, *, fresh: bool) -> None:
        for leaf in tree_leaves(values):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage._cdata
            if key not in self.living:
                self.living[key] = storage.nbytes() if fresh else 0
                self.now += self.living[key]
                weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.living.pop(key, 0)


def peak_of_trace(module, inputs, lengths, quantities, *, bitwise=True):
    """Return the most bytes that a trace takes at once: to read it, or, where the pass keeps it, with the pass."""
    given_ = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False) if lengths else inputs
    counted = Allocations()
    with record(module, quantities=quantities, bitwise=bitwise) as recording, torch.no_grad():
        with nullcontext() if bitwise else counted:
            module(given_)
        assert bool(recording.calls[0].kept) is not bitwise
    with counted:
        trace = recording.trace
    assert len(trace)
    return counted.peak


def trace_bytes(module, batch, steps, item, count=6):
    directions = module.num_layers * (2 if module.bidirectional else 1)
    return directions * batch * steps * module.hidden_size * item * count


MEMORY = {
    "one layer": {"input_size": 8, "hidden_size": 32},
    "as wide as the gates allow": {"input_size": 96, "hidden_size": 32},
    "wide": {"input_size": 97, "hidden_size": 32},
    "stacked": {"input_size": 8, "hidden_size": 32, "num_layers": 3},
    "bidirectional": {"input_size": 8, "hidden_size": 32, "bidirectional": True},
    "stacked and bidirectional": {"input_size": 8, "hidden_size": 32, "num_layers": 2, "bidirectional": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", MEMORY)
def test_memory_of_a_trace(kind, padded, dtype):
    """The peak is no more than the trace itself and one pre-activation buffer (4H a timestep) a layer."""
    module = make_lstm(batch_first=True, **MEMORY[kind]).to(dtype)
    batch, steps, item = 6, 120, dtype.itemsize
    lengths = [120, 60, 3, 118, 90, 1] if padded else None
    peak = peak_of_trace(module, random(batch, steps, module.input_size).to(dtype), lengths, QUANTITIES)
    weights = 3 * sum(parameter.numel() for parameter in module.parameters()) * item
    layers = trace_bytes(module, batch, steps, item)
    buffer = trace_bytes(module, batch, steps, item, count=4)
    assert peak >= 0.8 * layers  # it is counted at all
    assert peak <= layers + buffer + weights


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_of_a_pass_that_keeps_its_gates(kind):
    """The same holds of the pass and its trace together, where a kernel of our own runs."""
    module = make_lstm(batch_first=True, **MEMORY[kind]).float()
    peak = peak_of_trace(module, random(6, 120, module.input_size).float(), None, QUANTITIES, bitwise=False)
    layers = trace_bytes(module, 6, 120, 4)
    assert layers <= peak
    weights = 3 * sum(parameter.numel() for parameter in module.parameters()) * 4
    assert peak <= layers + trace_bytes(module, 6, 120, 4, count=4) + weights


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_of_two_quantities(monkeypatch, kind):
    """What is not asked for takes no memory: one layer's peak is those two and a block, far below a whole trace."""
    monkeypatch.setattr(rebuild, "BLOCK_NUMBERS", 2**13)
    module = make_lstm(batch_first=True, **MEMORY[kind]).float()
    inputs = random(6, 300, module.input_size).float()
    two = peak_of_trace(module, inputs, None, ("forget_gate", "cell_state"))
    whole = peak_of_trace(module, inputs, None, QUANTITIES)
    assert two < 0.6 * whole
    if module.num_layers == 1:
        weights = 3 * sum(parameter.numel() for parameter in module.parameters()) * 4
        asked = trace_bytes(module, 6, 300, 4, count=2)
        assert two <= asked + 4 * (3 * 2**13) + weights


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["scaled", "shifted"])
def test_a_hook_that_changes_the_output_is_refused(change):
    """A user's hook that changes what the LSTM returns would make wrong gates: an error, and no numbers."""

    def hook(_module, _args, output):
        hidden = output[0].clone()
        if change == "scaled":
            hidden *= 1.5
        else:
            hidden += 0.1
        return hidden, output[1]

    module = make_lstm(input_size=2, hidden_size=3, batch_first=True)
    module.register_forward_hook(hook)
    with pytest.raises(ModelError, match="a hook or a subclass changes it"):
        run(module, random(2, 40, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("timestep", [0, 5, 100, 199])
def test_a_hook_that_changes_one_timestep_is_refused(dtype, timestep):
    """One timestep of a long output was changed: an error, or gates that are right all the same."""
    module = make_lstm(input_size=2, hidden_size=8, batch_first=True).to(dtype)
    inputs = random(2, 200, 2).to(dtype)
    expected = run(module, inputs)["lstm.0"]

    def hook(_module, _args, output):
        hidden = output[0].clone()
        hidden[:, timestep] = 0.9
        return hidden, output[1]

    module.register_forward_hook(hook)
    try:
        found = run(module, inputs)["lstm.0"]
    except ModelError:
        return
    torch.testing.assert_close(found.forget_gate, expected.forget_gate, rtol=0, atol=0.01)


def test_a_subclass_that_computes_something_else_is_refused():
    """A subclass of nn.LSTM with other equations (here a peephole) is no LSTM to rebuild."""

    class Peephole(nn.LSTM):
        def forward(self, inputs, hx=None):
            output, state = super().forward(inputs, hx)
            return (output * 2).tanh(), state

    module = Peephole(2, 3, batch_first=True).double()
    with pytest.raises(ModelError, match="is not that of an LSTM with its weights"):
        run(module, random(2, 5, 2))


def test_inputs_with_nan_blame_no_hook():
    """Where the inputs hold NaN the output does too: the error says so, or the trace holds NaN; no hook is blamed."""
    inputs = random(2, 5, 2)
    inputs[0, 2] = torch.nan
    try:
        trace = run(make_lstm(input_size=2, hidden_size=3, batch_first=True), inputs)
    except ModelError as error:
        assert "NaN" in str(error)  # noqa: PT017
    else:
        assert trace["lstm.0"].forget_gate[0, 2:].isnan().all()
        assert trace["lstm.0"].forget_gate[1].isfinite().all()
