"""`trace_gradients`: d score / d value of all six quantities, against autograd through a plain loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gatelens.models import InvalidInputError, ModelError, Predictor, trace_gradients
from gatelens.models.equations import evaluate, pool
from helpers.draws import POOLINGS, cases, make_inputs, make_model
from helpers.lstm_loop import (
    QUANTITIES,
    gradients_at,
    make_lstm,
    random,
    run_lstm,
    step_cell,
    zero_cell_offsets,
    zero_offsets,
)

HEADS = ("last", "mean", "states", "first", "everything")


def head(kind: str, output, h_n, c_n, lengths) -> torch.Tensor:
    """Reduce what an LSTM returns, batch first, to two nonlinear scores of each sequence, (B, 2)."""
    rows = torch.arange(output.shape[0])
    flat_h, flat_c = h_n.transpose(0, 1).flatten(1), c_n.transpose(0, 1).flatten(1)
    last = output[rows, lengths - 1]
    features = {
        "last": last,
        "mean": output.sum(dim=1) / lengths[:, None],
        "states": torch.cat([flat_h, flat_c**2], dim=1),
        "first": output[:, 0],
        "everything": torch.cat([last, output.sum(dim=1), flat_h, flat_c], dim=1),
    }[kind]
    slopes = torch.linspace(-1, 1, 2 * features.shape[1]).reshape(2, -1).to(features.dtype)
    return (features @ slopes.T) ** 2 + (features @ slopes.T).tanh()


class WithHead(nn.Module):
    """Any LSTM, packed with its lengths, and a head on whatever it returns."""

    def __init__(self, lstm: nn.LSTM, kind: str, *, unsorted: bool = True) -> None:
        super().__init__()
        self.lstm, self.kind, self.unsorted = lstm, kind, unsorted

    def forward(self, inputs, lengths):
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=not self.unsorted)
        output, (h_n, c_n) = self.lstm(packed)
        return head(self.kind, pad_packed_sequence(output, batch_first=True)[0], h_n, c_n, lengths)


class WithoutLengths(nn.Module):
    """Any LSTM on plain tensors, in either layout, from a learned initial state."""

    def __init__(self, lstm: nn.LSTM, kind: str) -> None:
        super().__init__()
        self.lstm, self.kind = lstm, kind
        count = lstm.num_layers * (2 if lstm.bidirectional else 1)
        self.h0 = nn.Parameter(random(count, 1, lstm.proj_size or lstm.hidden_size, seed=8))
        self.c0 = nn.Parameter(random(count, 1, lstm.hidden_size, seed=9))

    def state(self, batch):
        return self.h0.expand(-1, batch, -1).contiguous(), self.c0.expand(-1, batch, -1).contiguous()

    def forward(self, inputs):
        batch, steps = inputs.shape[:2]
        output, (h_n, c_n) = self.lstm(inputs if self.lstm.batch_first else inputs.transpose(0, 1), self.state(batch))
        output = output if self.lstm.batch_first else output.transpose(0, 1)
        return head(self.kind, output, h_n, c_n, torch.full((batch,), steps))


def assert_gradients(found, expected, atol=1e-10, rtol=0.0):
    """Compare a Trace (B, T, H) with the loop's layers, whose time axis may end at the longest sequence."""
    assert list(found) == list(expected)
    for name, layer in expected.items():
        for quantity in QUANTITIES:
            wanted = layer[quantity]
            value = getattr(found[name], quantity)
            scale = float(wanted.abs().max()) if rtol else 0.0
            torch.testing.assert_close(
                value[:, : wanted.shape[1]].to(wanted.dtype),
                wanted,
                rtol=0,
                atol=atol + rtol * scale,
                msg=lambda text, name=name, quantity=quantity: f"{name} {quantity}: {text}",
            )
            assert not value[:, wanted.shape[1] :].any()


def loop_gradients(lstm, inputs, lengths, kind, output, state=None):
    offsets = zero_offsets(lstm, inputs.shape[0], inputs.shape[1])
    result, h_n, c_n, values = run_lstm(lstm, inputs, lengths.tolist(), state, offsets=offsets)
    return values, gradients_at(head(kind, result, h_n, c_n, lengths)[:, output].sum(), offsets)


@st.composite
def lstms(draw):
    hidden = draw(st.integers(2, 4))
    return make_lstm(
        draw(st.integers(0, 1000)),
        input_size=draw(st.integers(1, 3)),
        hidden_size=hidden,
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bias=draw(st.booleans()),
        proj_size=draw(st.sampled_from([0, hidden - 1])),
    )


@given(lstms(), st.sampled_from(HEADS), st.integers(0, 1), st.data())
@settings(max_examples=40)
def test_packed_modules_equal_autograd(lstm, kind, output, data):
    """Any packed nn.LSTM under any head, from its outputs or its final states: autograd's numbers to 1e-10."""
    steps = data.draw(st.integers(1, 6))
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, steps), min_size=1, max_size=3)))
    inputs = random(len(lengths), steps, lstm.input_size)
    longest = int(lengths.max())
    values, gradients = trace_gradients(WithHead(lstm, kind), inputs, target=output, lengths=lengths)
    expected_values, expected = loop_gradients(lstm, inputs[:, :longest], lengths, kind, output)
    assert_gradients(values, expected_values)
    assert_gradients(gradients, expected)


@given(lstms(), st.sampled_from(HEADS))
@settings(max_examples=30)
def test_modules_without_lengths_equal_autograd(lstm, kind):
    """A module that takes no lengths, starting from a learned state, gets autograd's numbers for each sequence."""
    model = WithoutLengths(lstm, kind)
    lengths = torch.tensor([5, 2, 5])
    inputs = random(3, 5, lstm.input_size)
    values, gradients = trace_gradients(model, inputs, target=1, lengths=lengths)
    expected_values, expected = loop_gradients(lstm, inputs, lengths, kind, 1, model.state(3))
    assert_gradients(values, expected_values)
    assert_gradients(gradients, expected)


def test_float32_equals_autograd_in_float64():
    """In float32 the gradients are the float64 loop's, to 1e-5 of the largest of each quantity."""
    rough = make_lstm(4, input_size=3, hidden_size=6, num_layers=2, bidirectional=True, batch_first=True).float()
    exact = make_lstm(4, input_size=3, hidden_size=6, num_layers=2, bidirectional=True, batch_first=True)
    exact.load_state_dict(rough.state_dict())
    inputs, lengths = random(3, 12, 3).float(), torch.tensor([12, 5, 9])
    _, gradients = trace_gradients(WithHead(rough, "everything"), inputs, target=0, lengths=lengths)
    assert gradients["lstm.0"].input_gate.dtype == torch.float32
    assert_gradients(gradients, loop_gradients(exact, inputs.double(), lengths, "everything", 0)[1], atol=0, rtol=1e-5)


def model_loop_gradients(model, inputs, lengths, output):
    """Autograd through the loop for an LSTMModel: layer name -> quantity -> d score[output] / d value."""
    config, weights = model.config, dict(model.state_dict())
    hidden = weights["embedding.weight"][inputs] if config.reads_tokens else inputs
    offsets, values = {}, {}
    for index, layer in enumerate(model.lstm):
        own = zero_offsets(layer, *inputs.shape[:2])
        hidden, _, _, found = run_lstm(layer, hidden, lengths.tolist(), offsets=own, activation=config.activation)
        for store, entries in ((offsets, own), (values, found)):
            store.update({name.replace("lstm.0", f"lstm.{index}"): entry for name, entry in entries.items()})
    rows = torch.arange(inputs.shape[0])
    features = hidden[rows, lengths - 1] if config.pooling == "none" else pool(config, weights, hidden, lengths)
    score = (features @ weights["head.weight"].T + weights["head.bias"])[:, output].sum()
    return values, gradients_at(score, offsets)


@given(cases())
@settings(max_examples=50)
def test_reference_model_equals_autograd(case):
    """Any LSTMModel, relu, tokens, attention and per-timestep outputs included: autograd's numbers to 1e-10."""
    output = case.model.config.output_size - 1
    values, gradients = trace_gradients(case.model, case.inputs, target=output, lengths=case.lengths)
    expected_values, expected = model_loop_gradients(case.model, case.inputs, case.lengths, output)
    assert_gradients(values, expected_values)
    assert_gradients(gradients, expected)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_live_reference_models_equal_autograd(activation, pooling):
    """Two bidirectional layers of different widths in a padded batch: autograd's numbers, not all 0."""
    model = make_model(7, input_size=3, hidden_sizes=(6, 5), bidirectional=True, pooling=pooling, activation=activation)
    inputs, lengths = make_inputs(model, 3, 8), torch.tensor([7, 3, 5])
    _, gradients = trace_gradients(model, inputs, lengths=lengths)
    assert_gradients(gradients, model_loop_gradients(model, inputs, lengths, 0)[1])
    assert all(value.shape == (3, 8, 6) and value[1].any() for value in gradients["lstm.0"].quantities().values())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_finite_differences_of_the_biases(bidirectional):
    """Moving a bias of the real module moves the score by the sum of gate gradient times gate slope, to 1e-6."""
    model = make_model(3, input_size=2, hidden_sizes=(4, 3), bidirectional=bidirectional, pooling="attention")
    inputs, lengths = make_inputs(model, 2, 6), torch.tensor([6, 4])
    values, gradients = trace_gradients(model, inputs, lengths=lengths)
    step = 1e-5
    for name, value in values.items():
        index, reverse = int(name.split(".")[1]), name.endswith("reverse")
        bias = getattr(model.lstm[index], f"bias_ih_l0{'_reverse' if reverse else ''}")
        width = value.cell_state.shape[2]
        for gate, quantity in enumerate(("input_gate", "forget_gate", "candidate", "output_gate")):
            shown = getattr(value, quantity)
            slope = 1 - shown**2 if quantity == "candidate" else shown * (1 - shown)
            expected = float((getattr(gradients[name], quantity) * slope)[:, :, 1].sum())
            scores = []
            for sign in (1, -1):
                with torch.no_grad():
                    bias[gate * width + 1] += sign * step
                    scores.append(float(model(inputs, lengths).sum()))
                    bias[gate * width + 1] -= sign * step
            assert (scores[0] - scores[1]) / (2 * step) == pytest.approx(expected, abs=1e-8, rel=1e-6), (name, quantity)
            assert expected != 0


def test_finite_differences_of_single_values():
    """Adding a little to one value of the loop moves the score by its gradient, for each quantity."""
    lstm = make_lstm(2, input_size=2, hidden_size=3, num_layers=2, bidirectional=True, batch_first=True)
    inputs, lengths, step = random(1, 5, 2), torch.tensor([5]), 1e-5
    _, gradients = trace_gradients(WithHead(lstm, "everything"), inputs, target=0, lengths=lengths)
    for name in gradients:
        for quantity in QUANTITIES:
            scores = []
            for sign in (1, -1):
                offsets = zero_offsets(lstm, 1, 5)
                with torch.no_grad():
                    offsets[name][quantity][0, 2, 1] += sign * step
                    result, h_n, c_n, _ = run_lstm(lstm, inputs, offsets=offsets)
                    scores.append(float(head("everything", result, h_n, c_n, lengths)[0, 0]))
            found = float(getattr(gradients[name], quantity)[0, 2, 1])
            assert (scores[0] - scores[1]) / (2 * step) == pytest.approx(found, abs=1e-7, rel=1e-6), (name, quantity)


@pytest.mark.parametrize("drive", [40.0, -40.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_saturated_gates_are_exact(drive, dtype):
    """Gates driven to 0 and 1 (pre-activations of 40) lose nothing: finite, and autograd's numbers."""
    lstm = make_lstm(1, input_size=2, hidden_size=3, batch_first=True)
    with torch.no_grad():
        lstm.bias_ih_l0[:6] = drive  # input and forget gate
        lstm.bias_ih_l0[9:] = drive  # output gate
        lstm.bias_ih_l0[6] = drive  # one candidate
    inputs, lengths = random(2, 8, 2), torch.tensor([8, 5])
    expected = loop_gradients(lstm, inputs, lengths, "everything", 1)[1]
    values, gradients = trace_gradients(
        WithHead(lstm.to(dtype), "everything"), inputs.to(dtype), target=1, lengths=lengths
    )
    gate = values["lstm.0"].forget_gate[0]
    assert float(gate.min() if drive > 0 else 1 - gate.max()) > 1 - 1e-6
    exact = dtype == torch.float64
    assert_gradients(gradients, expected, atol=1e-10 if exact else 1e-30, rtol=0 if exact else 1e-5)


def test_token_model_equals_autograd_and_is_left_as_found():
    """A token model with frozen parameters has gate gradients, and keeps its flags, modes, hooks and gradients."""
    model = make_model(5, vocab_size=7, embedding_dim=3, hidden_sizes=(4,), output_size=3, task="multiclass")
    model.requires_grad_(False)
    model.head.weight.requires_grad_(True)
    model.train()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    inputs, lengths = make_inputs(model, 3, 5), torch.tensor([5, 2, 4])
    _, gradients = trace_gradients(model, inputs, target=[2, 0, 1], lengths=lengths)
    for row, output in enumerate([2, 0, 1]):
        expected = model_loop_gradients(model, inputs[row : row + 1], lengths[row : row + 1], output)[1]
        layer = gradients["lstm.0"].map(lambda value, row=row: value[row : row + 1])
        assert_gradients({"lstm.0": layer}, expected)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(part.training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_the_predicted_class_is_explained_by_default():
    """Without a target the gradient is that of each sequence's highest score."""
    model = make_model(6, input_size=2, hidden_sizes=(4,), output_size=3, task="multiclass")
    inputs = make_inputs(model, 4, 5)
    default = trace_gradients(model, inputs)[1]
    chosen = trace_gradients(model, inputs, target=model(inputs).argmax(dim=1))[1]
    assert torch.equal(default["lstm.0"].cell_state, chosen["lstm.0"].cell_state)


def test_a_timestep_of_a_per_timestep_model():
    """With (timestep, output) nothing after the timestep has a gradient, and negative ones count from each end."""
    model = make_model(6, input_size=2, hidden_sizes=(4,), output_size=2, pooling="none")
    inputs, lengths = make_inputs(model, 2, 6), torch.tensor([6, 4])
    gradients = trace_gradients(model, inputs, target=(-2, 1), lengths=lengths)[1]["lstm.0"]
    for row, timestep in enumerate((4, 2)):
        assert gradients.cell_state[row, : timestep + 1].abs().min() > 0
        assert not gradients.cell_state[row, timestep + 1 :].any()


@pytest.mark.parametrize("config", [{}, {"bidirectional": True}, {"activation": "relu"}], ids=str)
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_a_window_is_the_sum_of_its_timesteps(config, output):
    """The gradients of a sum over timesteps are the sum of each one's; forwards, nothing after the last has any."""
    model = make_model(6, input_size=2, hidden_sizes=(4, 3), output_size=2, pooling="none", task="multiclass", **config)
    inputs, lengths = make_inputs(model, 2, 6), torch.tensor([6, 4])
    predictor = Predictor(model, output=output)
    _, window = trace_gradients(predictor, inputs, target=(slice(1, -1), 1), lengths=lengths)
    assert window.inputs.abs().max() > 1e-3
    for row, end in enumerate((5, 3)):
        singles = [
            trace_gradients(predictor, inputs[[row]], target=(step, 1), lengths=lengths[[row]])[1]
            for step in range(1, end)
        ]
        for name, layer in window.items():
            for quantity, value in layer.quantities().items():
                expected = torch.stack([getattr(single[name], quantity)[0] for single in singles]).sum(dim=0)
                torch.testing.assert_close(value[row], expected, rtol=0, atol=1e-12)
                assert "bidirectional" in config or not value[row, end:].any()
        expected = torch.stack([single.inputs[0] for single in singles]).sum(dim=0)
        torch.testing.assert_close(window.inputs[row], expected, rtol=0, atol=1e-12)
        assert bool(window.inputs[row, end:].any()) == ("bidirectional" in config)


def test_probability_is_explained_through_the_predictor():
    """With output="probability" gradients are the logit's times p (1 - p)."""
    model = make_model(6, input_size=2, hidden_sizes=(4,), task="binary")
    inputs = make_inputs(model, 2, 5)
    p = model(inputs).sigmoid().detach()[:, :, None]
    logit = trace_gradients(model, inputs)[1]["lstm.0"]
    probability = trace_gradients(Predictor(model, output="probability"), inputs)[1]["lstm.0"]
    for name, value in logit.quantities().items():
        torch.testing.assert_close(getattr(probability, name), value * p * (1 - p), rtol=0, atol=1e-12)


def test_two_chained_lstms_and_a_second_call():
    """An encoder whose state starts a decoder, called twice: totals count both ways that a value has an effect."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = make_lstm(1, input_size=2, hidden_size=3, batch_first=True)
            self.decoder = make_lstm(2, input_size=3, hidden_size=3, batch_first=True)

        def forward(self, inputs):
            output, state = self.encoder(inputs)
            first, state = self.decoder(output.tanh(), state)
            second, (_, c) = self.decoder(first[:, -1:], state)
            return (second[:, -1] * c[0]).sum(dim=1) + output.mean(dim=(1, 2))

    model, inputs = Chain(), random(2, 4, 2)
    _, gradients = trace_gradients(model, inputs)
    at_encoder = zero_offsets(model.encoder, 2, 4, "encoder")
    at_first, at_second = zero_offsets(model.decoder, 2, 4, "decoder"), zero_offsets(model.decoder, 2, 1, "decoder")
    output, h, c, _ = run_lstm(model.encoder, inputs, path="encoder", offsets=at_encoder)
    first, h, c, _ = run_lstm(model.decoder, output.tanh(), state=(h, c), path="decoder", offsets=at_first)
    second, _, c, _ = run_lstm(model.decoder, first[:, -1:], state=(h, c), path="decoder", offsets=at_second)
    score = ((second[:, -1] * c[0]).sum(dim=1) + output.mean(dim=(1, 2))).sum()
    offsets = {**at_encoder, **at_first, "decoder.0#2": at_second["decoder.0"]}
    expected = gradients_at(score, offsets)
    assert_gradients(gradients, expected)
    assert gradients["decoder.0#2"].cell_state[:, 0].any()


def test_relu_padding_that_would_overflow():
    """A relu cell that would overflow in a long padding leaves the valid timesteps' gradients exact."""
    model = make_model(0, input_size=1, hidden_sizes=(1,), activation="relu", pooling="mean")
    with torch.no_grad():
        for parameter in model.lstm.parameters():
            parameter.fill_(8.0)
    inputs = torch.ones(1, 2000, 1, dtype=torch.float64)
    _, padded = trace_gradients(model, inputs, lengths=[3])
    _, alone = trace_gradients(model, inputs[:, :3])
    for name, value in alone["lstm.0"].quantities().items():
        found = getattr(padded["lstm.0"], name)
        torch.testing.assert_close(found[:, :3], value, rtol=1e-12, atol=0)
        assert not found[:, 3:].any()


class Broken(nn.Module):
    """An LSTM model that hides its LSTM from gradients in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.lstm = make_lstm(input_size=2, hidden_size=3, batch_first=True)
        self.second = make_lstm(input_size=3, hidden_size=3, batch_first=True)

    def forward(self, inputs):
        if self.how == "no_grad":
            with torch.no_grad():
                return self.lstm(inputs)[0][:, -1]
        if self.how == "half no_grad":
            with torch.no_grad():
                hidden = self.lstm(inputs)[0]
            return self.second(hidden)[0][:, -1]
        if self.how == "detached":
            return self.lstm(inputs)[0][:, -1].detach()
        if self.how == "windows":  # each sequence cut into two: another batch inside
            halves = inputs.reshape(inputs.shape[0] * 2, -1, 2)
            return self.lstm(halves)[0][:, -1].reshape(inputs.shape[0], -1)
        longer = torch.cat([inputs[:, :1], inputs], dim=1)  # a start token
        return self.lstm(longer)[0][:, -1]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no_grad", "does not depend on the LSTM differentiably"),
        ("half no_grad", "lstm.*differentiably"),
        ("detached", "does not depend on the LSTM differentiably"),
        ("windows", "4 sequences of 2 timesteps"),
        ("start token", "2 sequences of 5 timesteps, and the inputs are 2 of 4"),
    ],
)
def test_models_whose_gates_have_no_gradient_are_refused(how, message):
    """Where gate gradients cannot be had or cannot be laid out, the error says why, and no wrong number comes."""
    with pytest.raises(ModelError, match=message):
        trace_gradients(Broken(how), random(2, 4, 2), target=0)


def test_a_function_is_refused():
    """A plain function has no gates; the error names explainers that work on it."""
    with pytest.raises(ModelError, match=r"plain function.*lime, kernel_shap"):
        trace_gradients(lambda x: x.sum(axis=(1, 2)), torch.zeros(1, 2, 3))


def test_a_module_without_lstm_is_refused():
    """A module without nn.LSTM is refused."""

    class Sum(nn.Module):
        def forward(self, inputs):
            return inputs.sum(dim=1)

    with pytest.raises(ModelError, match=r"holds no nn\.LSTM"):
        trace_gradients(Sum(), torch.zeros(1, 2, 3), target=0)


def test_an_unknown_target_is_refused():
    """A target that the model does not have is refused before anything is differentiated."""
    with pytest.raises(InvalidInputError, match="its outputs are 0 to 1"):
        trace_gradients(make_model(input_size=1, output_size=2), torch.zeros(1, 2, 1), target=2)


def test_counting():
    """Resolving the target and the pass itself are counted: 2 forward and 1 backward evaluation a sequence."""
    predictor = Predictor(make_model(0, input_size=2))
    trace_gradients(predictor, torch.zeros(3, 4, 2))
    assert (predictor.forward_evaluations, predictor.backward_evaluations) == (6, 3)


def test_the_values_are_the_models_trace():
    """The first of the two traces is what model.trace returns, and both carry the lengths."""
    model = make_model(1, input_size=2, hidden_sizes=(3, 2), bidirectional=True)
    inputs, lengths = make_inputs(model, 2, 5), torch.tensor([3, 4])
    values, gradients = trace_gradients(model, inputs, lengths=lengths)
    expected = evaluate(model.config, model.state_dict(), inputs, lengths)[1]
    for name, layer in expected.items():
        for quantity, value in layer.quantities().items():
            torch.testing.assert_close(getattr(values[name], quantity), value, rtol=0, atol=1e-12)
    assert values.lengths.tolist() == gradients.lengths.tolist() == [3, 4]


# -- d score / d inputs ------------------------------------------------------------------------------------------------


def plain_gradient(model, inputs, lengths, output):
    """Return autograd's d score / d inputs through the module itself, in training mode without any dropout."""
    leaf = inputs.clone().requires_grad_()
    score = model(leaf) if lengths is None else model(leaf, lengths)
    return torch.autograd.grad(score[:, output].sum(), leaf)[0]


@given(lstms(), st.sampled_from(HEADS), st.integers(0, 1), st.data())
@settings(max_examples=30)
def test_gradient_at_packed_inputs_is_autograds(lstm, kind, output, data):
    """Packed, stacked, both directions, projected: d score / d inputs is autograd's to 1e-10, and 0 at padding."""
    steps = data.draw(st.integers(1, 6))
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, steps), min_size=1, max_size=3)))
    inputs = random(len(lengths), steps, lstm.input_size)
    model = WithHead(lstm, kind)
    values, gradients = trace_gradients(model, inputs, target=output, lengths=lengths)
    torch.testing.assert_close(gradients.inputs, plain_gradient(model, inputs, lengths, output), rtol=0, atol=1e-10)
    padding = torch.arange(steps) >= lengths[:, None]
    assert not gradients.inputs[padding].any()
    torch.testing.assert_close(values.inputs, inputs.masked_fill(padding[..., None], 0), rtol=0, atol=0)


@given(lstms(), st.sampled_from(HEADS))
@settings(max_examples=20)
def test_gradient_at_inputs_without_lengths_is_autograds(lstm, kind):
    """Either layout, from a learned state, rows of other lengths one after the other: autograd's numbers to 1e-10."""
    model, inputs = WithoutLengths(lstm, kind), random(3, 5, lstm.input_size)
    gradients = trace_gradients(model, inputs, target=1, lengths=[5, 2, 5])[1].inputs
    for row, length in enumerate((5, 2, 5)):
        expected = plain_gradient(model, inputs[row : row + 1, :length], None, 1)
        torch.testing.assert_close(gradients[row : row + 1, :length], expected, rtol=0, atol=1e-10)
        assert not gradients[row, length:].any()


def test_gradient_at_inputs_in_float32():
    """float32: to 1e-5 of the largest of the float64 gradient."""
    exact = make_lstm(4, input_size=3, hidden_size=6, num_layers=2, bidirectional=True, batch_first=True)
    inputs, lengths = random(5, 12, 3).float(), torch.tensor([12, 5, 9, 1, 12])
    rough = make_lstm(4, input_size=3, hidden_size=6, num_layers=2, bidirectional=True, batch_first=True).float()
    exact.load_state_dict(rough.state_dict())
    found = trace_gradients(WithHead(rough, "mean"), inputs, target=0, lengths=lengths)[1].inputs
    expected = plain_gradient(WithHead(exact, "mean"), inputs.double(), lengths, 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


class OnPackedData(nn.Module):
    """An LSTM on a packed batch, packed numbers changed before it, and a head on the packed output's data."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = make_lstm(3, input_size=2, hidden_size=3, bidirectional=True, num_layers=2)
        self.head = nn.Linear(6, 1).double()

    def forward(self, inputs, lengths):
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.lstm(packed._replace(data=packed.data.sin()))
        scores = self.head(output.data.tanh())  # (sum of lengths, 1)
        return pad_packed_sequence(output._replace(data=scores), batch_first=True)[0].sum(dim=1)


def test_a_head_on_packed_data():
    """What stands between packed data and the LSTM, and a head on packed data, are differentiated, too."""
    model, inputs, lengths = OnPackedData(), random(3, 5, 2), torch.tensor([3, 5, 1])
    _, gradients = trace_gradients(model, inputs, lengths=lengths)
    torch.testing.assert_close(gradients.inputs, plain_gradient(model, inputs, lengths, 0), rtol=0, atol=1e-12)
    offsets = zero_offsets(model.lstm, 3, 5)
    output = run_lstm(model.lstm, inputs.sin(), lengths.tolist(), offsets=offsets)[0]
    valid = (torch.arange(5) < lengths[:, None])[..., None]
    score = (model.head(output.tanh()) * valid).sum()
    assert_gradients(gradients, gradients_at(score, offsets))


class Unbatched(nn.Module):
    """A model of one sequence that gives its LSTM, or its cell, no batch axis."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, inputs):
        if isinstance(self.part, nn.LSTM):
            output, (h, c) = self.part(inputs[0])
            return ((output**2).sum() + (h * c).sum())[None]
        state = None
        for x in inputs[0]:
            state = self.part(x, state)
        return (state[0] * state[1]).sum()[None]


@pytest.mark.parametrize("kind", ["lstm", "bidirectional", "cell"])
def test_unbatched_modules(kind):
    """An LSTM or a cell without a batch axis gets its gradients as a batch of one."""
    if kind == "cell":
        model = Unbatched(nn.LSTMCell(2, 3).double())
    else:
        model = Unbatched(make_lstm(1, input_size=2, hidden_size=3, num_layers=2, bidirectional=kind != "lstm"))
    inputs = random(1, 5, 2)
    _, gradients = trace_gradients(model, inputs)
    leaf = inputs.clone().requires_grad_()
    expected = torch.autograd.grad(model(leaf).sum(), leaf)[0]
    torch.testing.assert_close(gradients.inputs, expected, rtol=0, atol=1e-12)
    assert all(layer.shape[:2] == (1, 5) for layer in gradients.values())


class Tokens(nn.Module):
    """A token model that embeds its ids in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.embedding = nn.Embedding(7, 3).double()
        if how == "two":
            self.other = nn.Embedding(7, 3).double()
        self.lstm = make_lstm(2, input_size=3, hidden_size=4, batch_first=True)

    def embed(self, ids):
        if self.how == "time first":
            return self.embedding(ids.t()).transpose(0, 1)
        if self.how == "flat":
            return self.embedding(ids.flatten()).view(*ids.shape, -1)
        if self.how == "two":
            return self.embedding(ids) * self.other(ids)
        if self.how == "twice":
            return self.embedding(ids) + self.embedding(ids.flip(1))
        if self.how == "later":
            return self.embedding(ids[:, 1:])
        return self.embedding(ids)

    def forward(self, ids):
        return (self.lstm(self.embed(ids))[0] ** 2).sum(dim=(1, 2))


def test_gradient_at_tokens_is_that_at_their_embedding():
    """Of tokens, values.inputs are the embeddings (B, T, E) and gradients.inputs what autograd gives there."""
    model, ids = Tokens("plain"), torch.tensor([[1, 2, 3, 1], [4, 0, 6, 5]])
    values, gradients = trace_gradients(model, ids)
    embedded = model.embedding(ids).detach().requires_grad_()
    (expected,) = torch.autograd.grad((model.lstm(embedded)[0] ** 2).sum(), embedded)
    torch.testing.assert_close(gradients.inputs, expected, rtol=0, atol=1e-12)
    assert torch.equal(values.inputs, embedded)


@pytest.mark.parametrize("how", ["two", "twice", "time first", "flat", "later"])
@pytest.mark.parametrize("steps", [4, 3])
def test_tokens_that_are_not_embedded_once_in_place(how, steps):
    """No one tensor (B, T, E) was read: inputs is None (or rightly laid out), and gates have their gradients."""
    model, ids = Tokens(how), torch.tensor([[1, 2, 3, 1], [4, 0, 6, 5], [1, 1, 0, 2]])[:, :steps]
    values, gradients = trace_gradients(model, ids)
    read = model.embed(ids).detach()
    offsets = zero_offsets(model.lstm, 3, read.shape[1])
    output = run_lstm(model.lstm, read, offsets=offsets)[0]
    assert_gradients(gradients, gradients_at((output**2).sum(), offsets))
    if gradients.inputs is not None:
        embedded = model.embedding(ids).detach().requires_grad_()
        model.embed = lambda _: embedded
        (expected,) = torch.autograd.grad(model(ids).sum(), embedded)
        torch.testing.assert_close(gradients.inputs, expected, rtol=0, atol=1e-12)
        assert torch.equal(values.inputs, embedded)


def test_lengths_and_tokens():
    """A padded token batch has no gradient at padding."""
    model = make_model(5, vocab_size=7, embedding_dim=3, hidden_sizes=(4,), bidirectional=True)
    inputs, lengths = make_inputs(model, 3, 5), torch.tensor([5, 2, 4])
    gradients = trace_gradients(model, inputs, lengths=lengths)[1].inputs
    assert gradients.shape == (3, 5, 3)
    assert not gradients[torch.arange(5) >= lengths[:, None]].any()
    assert gradients[1, :2].all()


# -- nn.LSTMCell -------------------------------------------------------------------------------------------------------

STATES = {
    "plain": lambda h, c: (h, c),
    "scaled": lambda h, c: (h * 0.5, c + 0.1),
    "in place": lambda h, c: (h.mul_(0.5), c.add_(0.1)),
    "masked": lambda h, c: (h * torch.tensor([1.0, 0.0]).double()[:, None], c),
    "only h": lambda h, c: (h, torch.zeros_like(c)),
    "only c": lambda h, c: (torch.zeros_like(h), c),
}


class Cells(nn.Module):
    """Two stacked cells in a loop, their states changed between the steps, and a head on all that they give."""

    def __init__(self, change: str, *, bias: bool = True) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(2, 3, bias=bias), nn.LSTMCell(3, 4, bias=bias)]).double()
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=index))
        self.change = change
        self.offsets = None  # the loop's, where it stands in for the cells

    def step(self, index, x, state, t):
        if self.offsets is None:
            return self.cells[index](x, state)
        return step_cell(self.cells[index], x, state, self.offsets[index], t)[:2]

    def forward(self, inputs):
        states, total = [None, None], 0.0
        change = STATES[{"in place": "scaled"}.get(self.change, self.change) if self.offsets else self.change]
        for t in range(inputs.shape[1]):
            x = inputs[:, t]
            for index in range(2):
                states[index] = change(*self.step(index, x, states[index], t))
                x = states[index][0]
            total = total + (x**2).sum(dim=1)
        return total + (states[0][1] * states[0][0]).sum(dim=1) + states[1][1].tanh().sum(dim=1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("change", STATES)
def test_stacked_cells_equal_autograd(change, bias):
    """Values, gradients and d score / d inputs of cells in a loop, however it changes their states: autograd's."""
    model, inputs = Cells(change, bias=bias), random(2, 4, 2)
    _, gradients = trace_gradients(model, inputs)
    model.offsets = [zero_cell_offsets(cell, 2, 4) for cell in model.cells]
    offsets = {"cells.0": model.offsets[0], "cells.1": model.offsets[1]}
    leaf = inputs.clone().requires_grad_()
    score = model(leaf).sum()
    expected = torch.autograd.grad(score, leaf, retain_graph=True)[0]
    torch.testing.assert_close(gradients.inputs, expected, rtol=0, atol=1e-11)
    assert_gradients(gradients, gradients_at(score, offsets), atol=1e-11)


class LoopBetween(nn.Module):
    """An nn.LSTM, a cell that starts from its state and reads its output, and an nn.LSTM from the cell's state."""

    def __init__(self) -> None:
        super().__init__()
        self.below = make_lstm(1, input_size=2, hidden_size=3, batch_first=True, num_layers=2)
        self.cell = nn.LSTMCell(3, 3).double()
        self.above = make_lstm(2, input_size=3, hidden_size=3, batch_first=True)

    def forward(self, inputs):
        output, (h, c) = self.below(inputs)
        state, tops = (h[1], c[0]), []
        for t in range(inputs.shape[1]):
            state = self.cell(output[:, t], state)
            tops.append(state[0])
        return (self.above(torch.stack(tops, dim=1), (state[0][None], state[1][None]))[0] ** 2).sum(dim=(1, 2))

    def loop(self, inputs):
        """Return the score by loops, and the offsets in it."""
        steps = inputs.shape[1]
        below, above = zero_offsets(self.below, 2, steps, "below"), zero_offsets(self.above, 2, steps, "above")
        own = zero_cell_offsets(self.cell, 2, steps)
        output, h, c, _ = run_lstm(self.below, inputs, path="below", offsets=below)
        state, tops = (h[1], c[0]), []
        for t in range(steps):
            state = step_cell(self.cell, output[:, t], state, own, t)[:2]
            tops.append(state[0])
        top = run_lstm(
            self.above,
            torch.stack(tops, dim=1),
            state=(state[0][None], state[1][None]),
            path="above",
            offsets=above,
        )[0]
        return (top**2).sum(), {**below, "cell": own, **above}


def test_a_cell_between_lstms_equals_autograd():
    """nn.LSTM -> LSTMCell -> nn.LSTM, joined by outputs and by states: every layer's total gradient is autograd's."""
    model, inputs = LoopBetween(), random(2, 4, 2)
    _, gradients = trace_gradients(model, inputs)
    score, offsets = model.loop(inputs)
    assert_gradients(gradients, gradients_at(score, offsets), atol=1e-11)
    leaf = inputs.clone().requires_grad_()
    torch.testing.assert_close(gradients.inputs, torch.autograd.grad(model(leaf).sum(), leaf)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("drive", [40.0, -40.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_saturated_cells_are_exact(drive, dtype):
    """An nn.LSTMCell with gates driven to 0 and 1 has finite gradients: the loop's."""
    model, inputs = Cells("plain"), random(2, 4, 2)
    with torch.no_grad():
        for cell in model.cells:
            cell.bias_ih[: 2 * cell.hidden_size] = drive
    _, gradients = trace_gradients(model.to(dtype), inputs.to(dtype))
    model.double().offsets = [zero_cell_offsets(cell, 2, 4) for cell in model.cells]
    expected = gradients_at(model(inputs).sum(), {"cells.0": model.offsets[0], "cells.1": model.offsets[1]})
    exact = dtype == torch.float64
    assert_gradients(gradients, expected, atol=1e-11 if exact else 1e-25, rtol=0.0 if exact else 1e-5)


# -- no kernel's backward ----------------------------------------------------------------------------------------------


class NoBackward(torch.autograd.Function):
    """Passes numbers on and refuses to be differentiated, as cuDNN's LSTM does in eval mode."""

    @staticmethod
    def forward(ctx, *tensors):
        return tuple(tensor.clone() for tensor in tensors)

    @staticmethod
    def backward(ctx, *_gradients):
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


@pytest.fixture
def no_backward(monkeypatch):
    """Every fused LSTM kernel refuses to be differentiated, and notes whether its results had a graph."""
    graphs = []
    original = torch._VF.lstm

    def kernel(*args):
        found = NoBackward.apply(*original(*args))
        graphs.append(any(part.requires_grad for part in found))
        return found

    monkeypatch.setattr(torch._VF, "lstm", kernel)
    return graphs


@pytest.mark.parametrize("kind", ["packed", "chain", "model", "mixed"])
def test_no_kernels_backward_is_called(no_backward, kind):
    """With kernels that refuse to be differentiated, any model has the same gradients, and no graph is made inside."""
    inputs, lengths = random(2, 4, 2), None
    if kind == "packed":
        model = OnPackedData()
        lengths = torch.tensor([4, 2])
    elif kind == "model":
        model = make_model(1, input_size=2, hidden_sizes=(3, 2), bidirectional=True, pooling="attention")
    elif kind == "mixed":
        model = LoopBetween()
    else:
        lower, upper = (make_lstm(seed, input_size=2, hidden_size=2, batch_first=True) for seed in (1, 2))

        class Chain(nn.Module):
            def __init__(self):
                super().__init__()
                self.lower, self.upper = lower, upper

            def forward(self, inputs):
                output, state = self.lower(inputs)
                return self.upper(output.sin(), state)[0].sum(dim=(1, 2))

        model = Chain()
    _, gradients = trace_gradients(model, inputs, lengths=lengths)
    assert no_backward
    assert not any(no_backward)
    torch._VF.lstm, refusing = torch.lstm, torch._VF.lstm
    try:
        expected = plain_gradient(lambda *args: model(*args).reshape(2, -1), inputs, lengths, 0)
    finally:
        torch._VF.lstm = refusing
    torch.testing.assert_close(gradients.inputs, expected, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="cudnn RNN backward"):  # the kernels do refuse
        plain_gradient(lambda *args: model(*args).reshape(2, -1), inputs, lengths, 0)


def test_a_users_hook_sees_no_graph():
    """What a hook of the user's sees on an LSTM during the pass requires no gradient: no graph was built inside."""
    model, seen = OnPackedData(), []
    model.lstm.register_forward_hook(lambda _module, _args, output: seen.append(output[0].data.requires_grad))
    trace_gradients(model, random(2, 4, 2), lengths=[4, 2], target=0)
    assert seen
    assert not any(seen)


# -- what models do with what they get ---------------------------------------------------------------------------------


class Reads(nn.Module):
    """An LSTM of which the score reads only some of what it returns, or writes over it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.lstm = make_lstm(1, input_size=2, hidden_size=3, num_layers=2, batch_first=True)

    def read(self, output, h, c):
        return {
            "h_n": lambda: h[0] * 2,
            "c_n": lambda: c[1] ** 2,
            "output and h_n": lambda: output[:, 1] * h[1],
            "relu_": lambda: output.relu_()[:, -1] + output[:, 0],
            "mul_": lambda: output.mul_(output.detach().cos())[:, 2],
            "written slice": lambda: output.index_fill_(1, torch.tensor([1]), 0.5).prod(dim=1),
            "h_n in place": lambda: h.add_(1).pow(2).sum(dim=0) + c.mul_(2)[0],
        }[self.how]()

    def forward(self, inputs):
        output, (h, c) = self.lstm(inputs)
        return self.read(output, h, c).sum(dim=1)


@pytest.mark.parametrize("how", ["h_n", "c_n", "output and h_n", "relu_", "mul_", "written slice", "h_n in place"])
def test_what_the_score_reads(how):
    """Only h_n, only c_n, both at once, or outputs that the model writes over: autograd's numbers, and 0 where none."""
    model, inputs = Reads(how), random(2, 4, 2)
    _, gradients = trace_gradients(model, inputs)
    offsets = zero_offsets(model.lstm, 2, 4)
    output, h, c, _ = run_lstm(model.lstm, inputs, offsets=offsets)
    expected = gradients_at(model.read(output.clone(), h.clone(), c.clone()).sum(), offsets)
    assert_gradients(gradients, expected)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_that_writes_into_its_inputs(when):
    """Before the LSTM it is differentiated through; after it, gates cannot be rebuilt from what is gone: an error."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = make_lstm(1, input_size=2, hidden_size=3, batch_first=True)

        def forward(self, inputs):
            if when == "before":
                inputs.mul_(2)
            output = self.lstm(inputs)[0]
            if when == "after":
                inputs.mul_(2)
            return output.sum(dim=(1, 2)) + inputs.sum(dim=(1, 2))

    inputs = random(2, 4, 2)
    given_ = inputs.clone()
    if when == "after":
        with pytest.raises(ModelError, match="in place"):
            trace_gradients(Writes(), given_)
    else:
        model = Writes()
        found = trace_gradients(model, given_)[1].inputs
        leaf = inputs.clone().requires_grad_()
        expected = torch.autograd.grad(model(leaf.clone()).sum(), leaf)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    if when == "after":
        assert torch.equal(given_, inputs)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_around(context):
    """The caller's own no_grad or inference_mode changes nothing."""
    model, inputs = make_model(1, input_size=2, hidden_sizes=(3, 2), bidirectional=True), random(2, 4, 2)
    expected = trace_gradients(model, inputs)[1]
    with context():
        found = trace_gradients(model, inputs)[1]
    for name in expected:
        assert torch.equal(found[name].forget_gate, expected[name].forget_gate)
    assert torch.equal(found.inputs, expected.inputs)


def test_trace_gradients_of_half_precision():
    """bfloat16 models: the float64 loop's gradients to bfloat16's precision, in bfloat16."""
    lstm = make_lstm(4, strength=1.5, input_size=3, hidden_size=4, num_layers=2, bidirectional=True, batch_first=True)
    lstm.bfloat16()
    inputs, lengths = random(3, 6, 3).bfloat16(), torch.tensor([6, 2, 5])
    _, gradients = trace_gradients(WithHead(lstm, "mean"), inputs, target=0, lengths=lengths)
    assert gradients["lstm.0"].input_gate.dtype == gradients.inputs.dtype == torch.bfloat16
    expected = loop_gradients(lstm.double(), inputs.double(), lengths, "mean", 0)[1]
    assert_gradients(gradients, expected, atol=0, rtol=0.05)


@pytest.mark.parametrize("fail", ["never", "in the head", "in the hook"])
@pytest.mark.parametrize("kind", ["lstm", "cell"])
def test_everything_is_left_as_found(fail, kind):
    """Hooks, modes, flags, gradients, weights, buffers' bits, the random state: as before, also after an error."""

    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = make_lstm(1, input_size=2, hidden_size=3, batch_first=True)
            self.part = self.part if kind == "lstm" else nn.LSTMCell(2, 3).double()
            self.embedding = nn.Embedding(3, 2)  # unused
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(3, 1).double()
            self.fail = False

        def forward(self, inputs):
            if kind == "lstm":
                hidden = self.part(inputs)[0][:, -1]
            else:
                state = None
                for t in range(inputs.shape[1]):
                    state = self.part(inputs[:, t], state)
                hidden = state[0]
            if self.fail and torch.is_grad_enabled():
                raise RuntimeError("stopped in the head")
            return self.head(self.drop(hidden))

    model = Failing().train()
    model.drop.eval()
    model.head.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.fail = fail == "in the head"
    if fail == "in the hook":
        model.part.register_forward_hook(lambda *_: 1 / 0 if torch.is_grad_enabled() else None)

    def state():
        return (
            [(list(part._forward_hooks), list(part._forward_pre_hooks)) for part in model.modules()],
            [part.training for part in model.modules()],
            [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
            {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.backends.cudnn.enabled,
        )

    before = state()
    inputs = random(2, 4, 2)
    kept = inputs.clone()
    if fail == "never":
        trace_gradients(model, inputs, target=0)
    else:
        with pytest.raises(ModelError, match="stopped in the head" if model.fail else "ZeroDivisionError"):
            trace_gradients(model, inputs, target=0)
    assert state() == before
    assert torch.equal(inputs, kept)
    assert not inputs.requires_grad
