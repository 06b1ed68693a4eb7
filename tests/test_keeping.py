"""The kernel that keeps its gates: what it answers, that it is torch's pass, and that nobody else notices."""

import copy
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from gatelens.models import record, trace_gradients
from gatelens.models.keeping import CACHED_WEIGHTS, KeepingKernel
from helpers.lstm_loop import make_lstm, random, run_lstm


def kept_calls(module, *args, grad=False, **options):
    """Return what `record` kept of the newest call, and the outputs with and without it."""
    with torch.set_grad_enabled(grad):
        expected = module(*args)
        with record(module, **options) as recording:
            found = module(*args)
    return recording.calls[-1].kept, found, expected


def same(found, expected, tolerance=1e-5):
    (output, (h, c)), (other, (other_h, other_c)) = found, expected
    for one, two in ((output, other), (h, other_h), (c, other_c)):
        assert one.shape == two.shape
        assert one.stride() == two.stride() or one.is_contiguous() == two.is_contiguous()
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance)


@given(
    st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 20), st.integers(1, 9),
    st.integers(1, 20), st.booleans(),
)  # fmt: skip
@settings(max_examples=40)
def test_an_answer_is_torchs(layers, bidirectional, batch_first, bias, batch, steps, units, state):
    """Outputs, final states and every quantity of any architecture: torch's, and the float64 loop's, to 1e-5."""
    module = make_lstm(
        input_size=4,
        hidden_size=units,
        num_layers=layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
    )
    inputs = random(batch, steps, 4)
    count = layers * (2 if bidirectional else 1)
    given_ = (random(count, batch, units, seed=1), random(count, batch, units, seed=2)) if state else None
    expected = run_lstm(module, inputs, state=given_)[3]
    module.float()
    laid = inputs if batch_first else inputs.transpose(0, 1)
    args = (laid.float(), None if given_ is None else tuple(part.float() for part in given_))
    with record(module) as recording, torch.no_grad():
        found = module(*args)
    assert len(recording.calls[0].kept) == count
    with torch.no_grad():
        same(found, module(*args))
    assert list(recording.trace) == list(expected)
    for name, layer in recording.trace.items():
        for key, values in expected[name].items():
            torch.testing.assert_close(getattr(layer, key).double(), values, rtol=0, atol=1e-5)


def lstm(**options):
    torch.manual_seed(0)
    return nn.LSTM(3, 4, batch_first=True, **options)


INPUTS = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


class Sub(nn.LSTM):
    """A subclass that changes nothing."""


NOT_ANSWERED = {
    "a graph is wanted": (lstm(), (INPUTS,), {"grad": True}),
    "to the last bit": (lstm(), (INPUTS,), {"bitwise": True}),
    "not all is kept": (lstm(), (INPUTS,), {"quantities": ("cell_state",)}),
    "float64": (lstm().double(), (INPUTS.double(),), {}),
    "bfloat16": (lstm().bfloat16(), (INPUTS.bfloat16(),), {}),
    "projected": (lstm(proj_size=2), (INPUTS,), {}),
    "packed": (lstm(), (pack_padded_sequence(INPUTS, [5, 3], batch_first=True),), {}),
    "unbatched": (lstm(), (INPUTS[0],), {}),
    "a subclass": (Sub(3, 4, batch_first=True), (INPUTS,), {}),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("why", NOT_ANSWERED)
def test_what_it_leaves_to_torch(why):
    """Other calls are torch's own, to the last bit, and are rebuilt as ever."""
    module, args, options = NOT_ANSWERED[why]
    kept, found, expected = kept_calls(module, *args, **options)
    assert kept == ()
    output, other = found[0], expected[0]
    if why == "packed":
        output, other = output.data, other.data
    if why not in ("unbatched", "a subclass"):  # these run on ours, and then what was kept is not used
        assert torch.equal(output, other)
        assert torch.equal(found[1][1], expected[1][1])
    torch.testing.assert_close(output, other, rtol=0, atol=1e-6)
    assert output.requires_grad == other.requires_grad


def test_large_weights_of_a_small_batch_are_left_to_torch():
    """One row after the other would read megabytes of weights again and again; many rows share the reading."""
    large = nn.LSTM(8, 300, batch_first=True).eval()
    assert CACHED_WEIGHTS < 4 * 300 * (300 + 8)
    few, many = torch.randn(2, 3, 8), torch.randn(64, 3, 8)
    assert kept_calls(large, few)[0] == ()
    kept, found, expected = kept_calls(large, many)
    assert len(kept) == 1
    same(found, expected)


def test_frozen_parameters_need_no_graph():
    """With gradients on, but nothing that needs one, the pass is answered."""
    module = lstm().requires_grad_(requires_grad=False)
    assert len(kept_calls(module, INPUTS, grad=True)[0]) == 1
    assert kept_calls(module, INPUTS.clone().requires_grad_(), grad=True)[0] == ()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_hooks_that_change_the_output_are_seen(context):
    """What a hook of somebody else changes is not what was kept: the full check finds it."""
    module = lstm()
    module.register_forward_hook(lambda _module, _args, output: (output[0].mul_(1.5), output[1]))
    with record(module) as recording, context():
        module(INPUTS)
    assert recording.calls[0].kept == ()
    with pytest.raises(Exception, match="a hook or a subclass changes it"):
        _ = recording.trace


def test_several_calls_keep_their_own():
    """Two LSTMs, one of them called twice, in one pass: each call has its own numbers."""
    first, second = lstm(), lstm(bidirectional=True)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, inputs):
            return self.first(inputs)[0], self.second(inputs)[0], self.first(inputs * 2)[0]

    model = Two()
    with record(model) as recording, torch.no_grad():
        a, b, c = model(INPUTS)
    assert [len(call.kept) for call in recording.calls] == [1, 2, 1]
    trace = recording.trace
    assert torch.equal(trace["first.0"].hidden_state, a)
    assert torch.equal(torch.cat([trace["second.0"].hidden_state, trace["second.0.reverse"].hidden_state], 2), b)
    assert torch.equal(trace["first.0#2"].hidden_state, c)


def test_nobody_else_notices():
    """Other threads, copies made inside the block, and the module afterwards run torch's own kernel."""
    module = lstm()
    with torch.no_grad():
        expected = module(INPUTS)[0]
    found = []

    def elsewhere():
        with torch.no_grad():
            state = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
            found.append(torch.lstm(INPUTS, state, module._flat_weights, True, 1, 0.0, False, False, True)[0])

    with record(module):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        twin = copy.deepcopy(module)
    with torch.no_grad():
        assert torch.equal(found[0], expected)
        assert torch.equal(module(INPUTS)[0], expected)
        twin._forward_hooks.clear()
        assert torch.equal(twin(INPUTS)[0], expected)


def test_an_error_inside_the_block_ends_it():
    """After an exception torch's LSTM is torch's again."""
    module = lstm()
    with torch.no_grad():
        expected = module(INPUTS)[0]
        with pytest.raises(RuntimeError, match="on the way"), record(module):
            raise RuntimeError("on the way")
        assert torch.equal(module(INPUTS)[0], expected)
    with pytest.raises(RuntimeError, match=r"3"), record(module):
        module(torch.zeros(2, 5, 7))


def test_bad_shapes_are_torchs_errors():
    """What torch refuses, it refuses in its own words, also where we would answer."""
    module = lstm()
    with pytest.raises(RuntimeError) as plain:
        module(INPUTS, (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(RuntimeError) as recorded, record(module), torch.no_grad():
        module(INPUTS, (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))
    assert str(plain.value) == str(recorded.value)


def test_gradients_from_a_pass_that_kept_its_gates():
    """float32 `trace_gradients` runs on it, and its gradients are those of float64 to 1e-5 of the largest."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = make_lstm(input_size=3, hidden_size=20, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, inputs):
            return self.lstm(inputs)[0].sin().sum(dim=(1, 2))

    model, inputs = Model(), random(19, 6, 3)
    expected = trace_gradients(model, inputs)[1]
    answered = []
    original = KeepingKernel._lstm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeepingKernel, "_lstm", lambda *args: (answered.append(1), original(*args))[1])
        found = trace_gradients(model.float(), inputs.float())[1]
    assert answered == [1]
    for name, layer in expected.items():
        for key, values in layer.quantities().items():
            scale = float(values.abs().max())
            torch.testing.assert_close(getattr(found[name], key).double(), values, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(
        found.inputs.double(), expected.inputs, rtol=0, atol=1e-5 * float(expected.inputs.abs().max())
    )
