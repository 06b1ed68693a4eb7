"""What people do around and inside a recording: other threads, devices, transforms, copies, weights that change."""

import copy
import io
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from gatelens.models import ModelError, Predictor, record, trace_gradients
from gatelens.models.tracing import trace_of
from helpers.lstm_loop import make_lstm, random, run_lstm


def lstm(**options):
    return make_lstm(input_size=4, hidden_size=8, batch_first=True, **options).float()


INPUTS = random(3, 5, 4).float()
LAYER_KINDS = {"lstm": lstm, "cell": lambda: nn.LSTMCell(4, 8)}


class Model(nn.Module):
    """An LSTM, something after it, and a head."""

    def __init__(self, after=None):
        super().__init__()
        self.lstm = lstm()
        self.after = after or nn.Identity()
        self.head = nn.Linear(8, 1)

    def forward(self, inputs):
        return self.head(self.after(self.lstm(inputs)[0])[:, -1])


def recorded(module, *args, **options):
    with record(module, **options) as recording, torch.no_grad():
        module(*args)
    return recording.trace


def same(found, expected, tolerance=1e-6):
    assert list(found) == list(expected)
    for name, layer in expected.items():
        for key, values in layer.quantities().items():
            torch.testing.assert_close(getattr(found[name], key), values, rtol=0, atol=tolerance)


@pytest.mark.parametrize("bitwise", [False, True])
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_another_default_device(kind, bitwise):
    """Where new tensors go by default does not matter to a model that is on the CPU."""
    module = LAYER_KINDS[kind]()
    inputs = INPUTS if kind == "lstm" else INPUTS[:, 0]
    expected = recorded(module, inputs, bitwise=bitwise)
    with torch.device("meta"):
        same(recorded(module, inputs, bitwise=bitwise), expected)


def test_tensors_without_numbers_are_refused():
    """Fake tensors have no numbers to rebuild from: an error, not a crash."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = lstm()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        with record(module) as recording:
            module(INPUTS)
        with pytest.raises(Exception, match=r".+"):
            _ = recording.trace


def test_other_threads_are_not_recorded():
    """Calls of the same module in other threads are neither recorded nor cut off from their gradients."""
    module, other = Model(), random(3, 5, 4, seed=9).float()
    expected = recorded(module, INPUTS)
    leaf = other.clone().requires_grad_()
    slope = torch.autograd.grad(module(leaf).sum(), leaf)[0]
    stop, wrong = threading.Event(), []

    def bystander():
        while not stop.is_set():
            mine = other.clone().requires_grad_()
            found = torch.autograd.grad(module(mine).sum(), mine, allow_unused=True)[0]
            if found is None or not torch.allclose(found, slope, atol=1e-6):
                wrong.append(found)

    threads = [threading.Thread(target=bystander) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            same(recorded(module, INPUTS), expected)
            trace_gradients(module, INPUTS)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert not module.lstm._forward_hooks


def test_several_threads_record_one_module():
    """Each thread's recording holds its own calls."""
    module, failures = lstm(), []
    batches = [random(3, 5, 4, seed=seed).float() for seed in range(3)]
    expected = [recorded(module, batch) for batch in batches]

    def work(index):
        try:
            for _ in range(40):
                same(recorded(module, batches[index]), expected[index])
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_that_are_changed_in_place(dtype, context):
    """relu_ on the LSTM's output: its own values are recorded, or the change is refused; never something in between."""
    model = Model(nn.ReLU(inplace=True)).to(dtype).eval()
    expected = run_lstm(model.lstm.double(), INPUTS.double())[3]["lstm.0"]
    model.to(dtype)
    with context():
        try:
            found = trace_of(Predictor(model), INPUTS.to(dtype), torch.full((3,), 5))["lstm.0"]
        except ModelError as error:
            assert "changed in place" in str(error)  # noqa: PT017
            return
    for key, values in expected.items():
        torch.testing.assert_close(getattr(found, key).double(), values, rtol=0, atol=1e-5)


def test_a_trace_is_its_own():
    """Writing into an output does not reach the trace, nor the other way."""
    module = lstm()
    with record(module) as recording, torch.no_grad():
        output, _ = module(INPUTS)
    kept = output.clone()
    hidden = recording.trace["lstm.0"].hidden_state
    output.zero_()
    assert torch.equal(hidden, kept)
    hidden.zero_()
    assert not output.any()


class WeightDrop(nn.Module):
    """An LSTM that is given other recurrent weights at every call."""

    def __init__(self):
        super().__init__()
        self.lstm = lstm()
        self.raw = nn.Parameter(self.lstm.weight_hh_l0.detach().clone())
        del self.lstm._parameters["weight_hh_l0"]
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        self.lstm.weight_hh_l0 = self.raw * self.calls
        return self.lstm(inputs)[0]


@pytest.mark.parametrize("bitwise", [False, True])
def test_weights_of_the_call_are_used(bitwise):
    """Each call's gates are made with the weights that it had, whatever the module holds when they are read."""
    model = WeightDrop()
    with record(model, bitwise=bitwise) as recording:
        first = model(INPUTS)
        second = model(INPUTS)
    assert torch.equal(recording.trace["lstm.0"].hidden_state, first)
    assert torch.equal(recording.trace["lstm.0#2"].hidden_state, second)
    for call, suffix in recording.numbered():
        o = recording.trace[f"lstm.0{suffix}"].output_gate
        c = recording.trace[f"lstm.0{suffix}"].cell_state
        torch.testing.assert_close(o * c.tanh(), call.output.data, rtol=0, atol=1e-5)


def test_functional_calls():
    """`functional_call` with other weights is recorded with those."""
    module, other = lstm(), lstm(seed=5)
    expected = recorded(other, INPUTS)
    with record(module) as recording:
        torch.func.functional_call(module, dict(other.named_parameters()), (INPUTS,))
    same(recording.trace, expected, 1e-5)


@pytest.mark.parametrize("change", ["replaced", "data"])
def test_weights_that_were_moved_are_refused(change):
    """A trace that is read after `.data` was set is refused; after a parameter was replaced it is that of the call."""
    module = lstm()
    expected = recorded(module, INPUTS)
    with record(module, bitwise=True) as recording, torch.no_grad():
        module(INPUTS)
    if change == "replaced":
        module.weight_hh_l0 = nn.Parameter(module.weight_hh_l0.detach() * 2)
        same(recording.trace, expected, 1e-5)
    else:
        module.weight_hh_l0.data = module.weight_hh_l0.detach() * 2
        with pytest.raises(ModelError, match="changed in place"):
            _ = recording.trace


class Packed(nn.Module):
    """A bidirectional model that packs by lengths of its own and begins with states it has learned."""

    def __init__(self):
        super().__init__()
        self.lstm = lstm(bidirectional=True)
        self.h, self.c = (nn.Parameter(random(2, 1, 8, seed=seed).float()) for seed in (1, 2))

    def forward(self, inputs):
        packed = pack_padded_sequence(inputs, [5, 3, 2], batch_first=True)
        state = self.h.expand(-1, 3, -1).contiguous(), self.c.expand(-1, 3, -1).contiguous()
        return (pad_packed_sequence(self.lstm(packed, state)[0], batch_first=True)[0] ** 2).sum(dim=(1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_at_padding(dtype):
    """Gradients are 0 at padding, also of a reverse direction that begins there with states of its own."""
    gradients = trace_gradients(Packed().to(dtype), INPUTS.to(dtype))[1]
    padding = torch.arange(5) >= torch.tensor([5, 3, 2])[:, None]
    for layer in gradients.values():
        for values in layer.quantities().values():
            assert values[~padding].any()
            assert not values[padding].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_batches(dtype):
    """A batch of no sequences is recorded as one."""
    module = lstm(num_layers=2, bidirectional=True).to(dtype)
    trace = recorded(module, torch.zeros(0, 5, 4, dtype=dtype))
    assert all(layer.shape == (0, 5, 8) for layer in trace.values())
    chosen = recorded(module, torch.zeros(0, 5, 4, dtype=dtype), quantities=("cell_state",))
    assert chosen["lstm.1"].cell_state.shape == (0, 5, 8)


def test_copies_made_inside_end_with_the_block():
    """A copy of the module, or one saved and loaded again, records nothing."""
    model = Model()
    with record(model) as recording, torch.no_grad():
        twin = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        model(INPUTS)
        twin(INPUTS)
        loaded(INPUTS)
    assert len(recording.calls) == 1
    with torch.no_grad():
        assert torch.equal(twin(INPUTS), loaded(INPUTS))
    assert len(recording.calls) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own use of it
def test_forward_mode_differentiation_is_torchs():
    """Tangents are not lost: what torch says to them, it says inside the block, too."""
    import torch.autograd.forward_ad as forward

    module = lstm().requires_grad_(requires_grad=False)
    with forward.dual_level():
        dual = forward.make_dual(INPUTS, torch.ones_like(INPUTS))
        with pytest.raises(NotImplementedError) as plain:
            module(dual)
        with record(module), pytest.raises(NotImplementedError) as inside:
            module(dual)
    assert str(plain.value) == str(inside.value)


def test_functorchs_transforms_are_torchs():
    """`func.grad` through a recorded module gives what it gives without."""
    module = lstm()

    def score(inputs):
        return module(inputs)[0].sum()

    expected = torch.func.grad(score)(INPUTS)
    with record(module):
        found = torch.func.grad(score)(INPUTS)
    torch.testing.assert_close(found, expected)


def test_negated_views_and_odd_weights():
    """A view that negates lazily is read as what it is; weights of a wrong shape are torch's to judge."""
    module = lstm()
    negated = torch._neg_view(INPUTS)
    same(recorded(module, negated), recorded(module, -INPUTS))


def test_checkpointed_modules():
    """Checkpointing calls the module again in the backward pass, after the block: nothing is recorded then."""
    module = lstm()
    with record(module) as recording:
        score = checkpoint(lambda x: module(x)[0].sum(), INPUTS.clone().requires_grad_(), use_reentrant=False)
    score.backward()
    assert len(recording.calls) == 1
