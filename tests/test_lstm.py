"""The reference LSTM against the equations, against `nn.LSTM`, and against itself one sequence at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gatelens.models import InvalidInputError, InvalidTypeError, LSTMConfig, LSTMModel, SequenceData
from gatelens.models.equations import evaluate
from helpers.draws import POOLINGS, cases, make_inputs, make_model


def assert_traces_close(found, expected, atol, rtol=0.0):
    assert list(found) == list(expected)
    for name in expected:
        for quantity, wanted in expected[name].quantities().items():
            torch.testing.assert_close(
                found[name].quantities()[quantity],
                wanted,
                rtol=rtol,
                atol=atol,
                msg=lambda text, name=name, quantity=quantity: f"{name} {quantity}: {text}",
            )


@given(cases())
@settings(max_examples=120)
def test_scores_and_trace_equal_the_equations(case):
    """In float64, scores and all six quantities are the equations' to 1e-12, whatever the architecture and lengths."""
    scores, trace = evaluate(case.model.config, case.model.state_dict(), case.inputs, case.lengths)
    torch.testing.assert_close(case.model(case.inputs, case.lengths), scores, rtol=0, atol=1e-12)
    assert_traces_close(case.model.trace(case.inputs, case.lengths), trace, atol=1e-12)


@given(cases())
@settings(max_examples=60)
def test_scores_and_trace_equal_the_equations_in_float32(case):
    """In float32, scores and all six quantities are the float64 equations' to 1e-6."""
    model = case.model.float()
    inputs = case.inputs.float() if case.inputs.is_floating_point() else case.inputs
    weights = {name: value.double() for name, value in model.state_dict().items()}
    exact = inputs.double() if inputs.is_floating_point() else inputs
    scores, trace = evaluate(model.config, weights, exact, case.lengths)
    found = model(inputs, case.lengths)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), scores, rtol=1e-6, atol=1e-6)
    layers = {name: layer.map(torch.Tensor.double) for name, layer in model.trace(inputs, case.lengths).items()}
    assert_traces_close(layers, trace, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_equal_widths_equal_one_stacked_torch_lstm(bidirectional, depth):
    """With equal widths, hidden states are those of one nn.LSTM(num_layers=depth) with the same weights."""
    model = make_model(
        3, input_size=3, hidden_sizes=(5,) * depth, bidirectional=bidirectional, pooling="none", output_size=2
    )
    stacked = nn.LSTM(3, 5, num_layers=depth, batch_first=True, bidirectional=bidirectional).double()
    with torch.no_grad():
        for name, parameter in stacked.named_parameters():
            kind, layer = name.replace("_reverse", "").rsplit("_l", 1)
            suffix = "_reverse" if name.endswith("_reverse") else ""
            parameter.copy_(getattr(model.lstm[int(layer)], f"{kind}_l0{suffix}"))
    inputs, lengths = make_inputs(model, 4, 8), torch.tensor([8, 3, 1, 6])
    torch.testing.assert_close(model(inputs), model.head(stacked(inputs)[0]), rtol=0, atol=1e-12)
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    hidden = pad_packed_sequence(stacked(packed)[0], batch_first=True)[0]
    valid = (torch.arange(8) < lengths[:, None])[..., None]
    torch.testing.assert_close(model(inputs, lengths), model.head(hidden) * valid, rtol=0, atol=1e-12)


@given(cases(tokens=False), st.sampled_from([float("nan"), float("inf"), 1e30, -7.0]))
@settings(max_examples=60)
def test_padding_never_influences(case, garbage):
    """Whatever stands in the padding, NaN included, scores and traces stay the same numbers, bit by bit."""
    valid = (torch.arange(case.inputs.shape[1]) < case.lengths[:, None])[..., None]
    clean = torch.where(valid, case.inputs, 0.0)
    dirty = torch.where(valid, case.inputs, garbage)
    torch.testing.assert_close(case.model(dirty, case.lengths), case.model(clean, case.lengths), rtol=0, atol=0)
    found, expected = case.model.trace(dirty, case.lengths), case.model.trace(clean, case.lengths)
    assert_traces_close(found, expected, atol=0)


@given(cases(tokens=True), st.integers(0, 1))
@settings(max_examples=30)
def test_token_padding_never_influences(case, token):
    """Whichever token stands in the padding, scores stay the same."""
    valid = torch.arange(case.inputs.shape[1]) < case.lengths[:, None]
    dirty = torch.where(valid, case.inputs, token)
    torch.testing.assert_close(case.model(dirty, case.lengths), case.model(case.inputs, case.lengths), rtol=0, atol=0)


@given(cases())
@settings(max_examples=60)
def test_batch_equals_singles(case):
    """A sequence in a padded batch has the scores and the trace it has alone, without padding, to 1e-12."""
    scores = case.model(case.inputs, case.lengths)
    trace = case.model.trace(case.inputs, case.lengths)
    for b, length in enumerate(case.lengths.tolist()):
        alone = case.inputs[b : b + 1, :length]
        own = scores[b : b + 1, :length] if scores.ndim == 3 else scores[b : b + 1]
        torch.testing.assert_close(own, case.model(alone), rtol=0, atol=1e-12)
        layers = {name: layer.map(lambda v, b=b, n=length: v[b : b + 1, :n]) for name, layer in trace.items()}
        assert_traces_close(layers, case.model.trace(alone), atol=1e-12)


@given(cases())
@settings(max_examples=40)
def test_trace_is_zero_at_padding_and_has_every_timestep(case):
    """Every quantity is (B, T, H), with T of the inputs even if no sequence is that long, and 0 at padding."""
    batch, steps = case.inputs.shape[:2]
    trace = case.model.trace(case.inputs, case.lengths)
    padding = torch.arange(steps) >= case.lengths[:, None]
    assert len(trace) == len(case.model.config.hidden_sizes) * case.model.config.directions
    for name, layer in trace.items():
        width = case.model.config.hidden_sizes[int(name.split(".")[1])]
        for value in layer.quantities().values():
            assert value.shape == (batch, steps, width)
            assert not value[padding].any()
            assert not value.requires_grad
    assert trace.lengths.tolist() == case.lengths.tolist()


@given(cases(tokens=False), st.sampled_from([float("nan"), 0.5]))
@settings(max_examples=60)
def test_gradient_at_padding_is_zero(case, garbage):
    """The gradient of the scores at the inputs is finite everywhere and 0 at padding, even if NaN stands there."""
    valid = (torch.arange(case.inputs.shape[1]) < case.lengths[:, None])[..., None]
    inputs = torch.where(valid, case.inputs, garbage).requires_grad_()
    (gradient,) = torch.autograd.grad(case.model(inputs, case.lengths).sum(), inputs)
    assert torch.isfinite(gradient).all()
    assert not gradient[~valid.expand_as(gradient)].any()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradient_equals_the_equations(pooling, activation, bidirectional):
    """The gradient at the inputs is that of the equations by autograd, to 1e-12."""
    model = make_model(
        7,
        input_size=3,
        hidden_sizes=(6, 5),
        pooling=pooling,
        activation=activation,
        bidirectional=bidirectional,
        output_size=2,
    )
    lengths = torch.tensor([6, 2, 4])
    inputs = make_inputs(model, 3, 7).requires_grad_()
    (found,) = torch.autograd.grad(model(inputs, lengths)[..., 1].sum(), inputs)
    (wanted,) = torch.autograd.grad(
        evaluate(model.config, dict(model.state_dict()), inputs, lengths)[0][..., 1].sum(), inputs
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert found.any()


def test_relu_padding_that_would_overflow():
    """A relu cell that grows without bound in a long padding still gives finite scores, gradients and traces."""
    model = make_model(0, input_size=1, hidden_sizes=(1,), activation="relu", pooling="mean")
    layer = model.lstm[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(8.0)
    inputs, lengths = torch.ones(1, 3000, 1, dtype=torch.float64, requires_grad=True), torch.tensor([2])
    score = model(inputs, lengths)
    (gradient,) = torch.autograd.grad(score.sum(), inputs)
    torch.testing.assert_close(score, model(inputs[:, :2]), rtol=0, atol=0)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(model.trace(inputs, lengths)["lstm.0"].cell_state).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_shapes(pooling):
    """Scores are (B, K), or (B, T, K) with pooling "none"."""
    model = make_model(0, input_size=2, hidden_sizes=(3,), output_size=4, pooling=pooling)
    assert model(torch.zeros(5, 6, 2)).shape == ((5, 6, 4) if pooling == "none" else (5, 4))


def test_trace_is_taken_in_eval_mode_and_leaves_the_model_as_found():
    """trace() of a model in training mode is the eval trace, and the model, its flags and the RNG stay as found."""
    model = make_model(2, input_size=2, hidden_sizes=(4, 4), dropout=0.9)
    inputs = make_inputs(model, 2, 5)
    expected = model.trace(inputs)
    model.train()
    model.lstm[1].eval()
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    assert_traces_close(model.trace(inputs), expected, atol=0)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_dropout_is_active_in_training_only():
    """Dropout changes scores in training mode and never in eval mode."""
    model = make_model(2, input_size=2, hidden_sizes=(16, 16), dropout=0.5)
    inputs = make_inputs(model, 2, 5)
    assert torch.equal(model(inputs), model(inputs))
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(inputs), model(inputs))


def test_inputs_may_be_arrays_or_lists():
    """Arrays, nested lists and float32 tensors give the scores of the float64 tensor with the same numbers."""
    model = make_model(1, input_size=2, hidden_sizes=(3,))
    inputs = torch.tensor([[[1.0, 2.0], [0.5, -1.0]]], dtype=torch.float64)
    expected = model(inputs, [2])
    for same in (inputs.numpy(), inputs.tolist(), inputs.float(), inputs.numpy()[:, ::-1][:, ::-1]):
        assert torch.equal(model(same, [2]), expected)


@pytest.mark.parametrize(
    ("inputs", "lengths", "error", "message"),
    [
        (torch.zeros(4, 2), None, InvalidInputError, r"shape \(4, 2\).*inputs\[None\]"),
        (torch.zeros(1, 4, 3), None, InvalidInputError, r"3 features.*features=2"),
        (torch.zeros(2, 4, 2), [4], InvalidInputError, r"lengths has shape \(1,\)"),
        (torch.zeros(2, 4, 2), [4, 5], InvalidInputError, r"lengths\[1\] is 5, but inputs has 4"),
        (torch.zeros(2, 4, 2), [1.0, 2.0], InvalidTypeError, "lengths holds float"),
    ],
)
def test_forward_refuses(inputs, lengths, error, message):
    """What does not fit is refused by the model itself, with a sentence that helps."""
    model = make_model(0, input_size=2, hidden_sizes=(3,))
    with pytest.raises(error, match=message):
        model(inputs, lengths)


def test_data_and_repr():
    """print(model) names the task, and the data description hangs on the model."""
    model = make_model(0, input_size=2, task="binary")
    assert "task=binary" in repr(model)
    assert model.data is None


@pytest.mark.parametrize(("task", "outputs"), [("regression", 2), ("binary", 1), ("multiclass", 3)])
def test_predict_says_probabilities_or_values(task, outputs):
    """In eval mode whatever the model's own mode, which stays; lengths come along with a SequenceData."""
    torch.manual_seed(0)
    config = LSTMConfig(input_size=2, hidden_sizes=(4,), output_size=outputs, task=task, dropout=0.5)
    model = LSTMModel(config).train()
    inputs, lengths = torch.randn(5, 6, 2), np.array([6, 2, 3, 6, 1])
    found = model.predict(inputs, lengths)
    assert model.training
    with torch.no_grad():
        scores = model.eval()(inputs, torch.tensor(lengths)).double()
    expected = {"regression": scores, "binary": scores.sigmoid(), "multiclass": scores.softmax(1)}[task]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)
    data = SequenceData(inputs.numpy(), lengths, tuple("abcde"), None, np.arange(5))
    np.testing.assert_array_equal(model.predict(data), found)
    with pytest.raises(InvalidInputError, match="features=2"):
        model.predict(inputs[..., :1])
