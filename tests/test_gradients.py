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
from helpers.lstm_loop import QUANTITIES, gradients_at, run_lstm, zero_offsets

HEADS = ("last", "mean", "states", "first", "everything")


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


def make_lstm(seed: int = 0, **options) -> nn.LSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.LSTM(**options).double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.5)
    return module


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
        if self.how == "in place":
            return self.lstm(inputs)[0].mul_(2)[:, -1]
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
        ("in place", "changed in place"),
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
