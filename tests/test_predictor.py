"""`Predictor`: every kind of model, called the same way, left as found, and counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from gatelens.models import (
    DataSpec,
    InvalidInputError,
    InvalidTypeError,
    ModelError,
    Predictor,
    Target,
    model_hash,
)
from gatelens.models.predictor import LEAST_ROWS, QUICK_BYTES
from helpers.draws import cases, make_inputs, make_model


def full(inputs) -> torch.Tensor:
    return torch.full((inputs.shape[0],), inputs.shape[1])


def target(*outputs: int) -> Target:
    return Target(torch.tensor(outputs))


class Foreign(nn.Module):
    """A module that takes no lengths; what it returns is chosen by `shape`."""

    def __init__(self, shape: str = "(B, K)") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(2, 4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 3)
        self.shape = shape
        self.seen: list[tuple[int, ...]] = []

    def forward(self, inputs):
        self.seen.append(tuple(inputs.shape))
        hidden = self.lstm(inputs)[0]
        if self.shape == "(B, T, K)":
            return self.head(hidden)
        scores = self.head(hidden.mean(dim=1))
        return scores[:, 0] if self.shape == "(B,)" else scores


class Packing(Foreign):
    """A module with lengths that returns as many timesteps as the longest sequence of its batch has."""

    def forward(self, inputs, lengths):
        self.seen.append(tuple(inputs.shape))
        packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])


# -- what can be called ----------------------------------------------------------------------------------------------


@given(cases())
@settings(max_examples=30)
def test_reference_model(case):
    """predict() is the model's own forward, bit for bit, whatever the architecture and lengths."""
    predictor = Predictor(case.model)
    inputs, lengths = predictor.check(case.inputs, case.lengths)
    assert torch.equal(predictor.predict(inputs, lengths), case.model(case.inputs, case.lengths))
    assert predictor.forward_evaluations == len(case.lengths)


@pytest.mark.parametrize(("shape", "expected"), [("(B,)", (4, 1)), ("(B, K)", (4, 3)), ("(B, T, K)", (4, 5, 3))])
def test_module_without_lengths(shape, expected):
    """A module that takes no lengths sees each sequence trimmed, equal lengths together: the singles' scores."""
    module = Foreign(shape).eval()
    inputs, lengths = torch.randn(4, 5, 2), torch.tensor([5, 2, 4, 2])
    predictor = Predictor(module)
    scores = predictor.predict(*predictor.check(inputs, lengths))
    assert sorted(module.seen) == [(1, 4, 2), (1, 5, 2), (2, 2, 2)]
    assert scores.shape == expected
    for row, length in enumerate(lengths.tolist()):
        alone = module(inputs[row : row + 1, :length])
        own = scores[row : row + 1, :length] if scores.ndim == 3 else scores[row : row + 1]
        torch.testing.assert_close(own, alone.reshape(own.shape), rtol=0, atol=1e-6)
        if scores.ndim == 3:
            assert not scores[row, length:].any()
    assert predictor.forward_evaluations == 4


@pytest.mark.parametrize("kind", [Foreign, Packing])
def test_per_timestep_scores_have_every_timestep(kind):
    """Scores are (B, T, K) with T of the inputs although no sequence is that long, and batches fit together."""
    module = kind("(B, T, K)").eval()
    inputs, lengths = torch.randn(3, 6, 2), torch.tensor([2, 4, 3])
    predictor = Predictor(module, memory_bytes=1)
    inputs, lengths = predictor.check(inputs, lengths)
    scores = predictor.predict(inputs, lengths)
    assert scores.shape == (3, 6, 3)
    resolved = predictor.resolve_target(inputs, (-1, 1), lengths)
    assert resolved.timestep.tolist() == [1, 3, 2]
    for row, length in enumerate(lengths.tolist()):
        alone = Foreign("(B, T, K)").eval()(inputs[row : row + 1, :length])
        torch.testing.assert_close(scores[row : row + 1, :length], alone, rtol=0, atol=1e-6)
    expected = torch.stack([scores[row, length - 1, 1] for row, length in enumerate(lengths.tolist())])
    assert torch.equal(predictor.evaluate(inputs, resolved, lengths), expected)
    together = Predictor(module)
    torch.testing.assert_close(together.evaluate(inputs, resolved, lengths), expected, rtol=0, atol=1e-6)
    assert together.predict(inputs, lengths).shape == (3, 6, 3)
    assert together.resolve_target(inputs, (-1, 1), lengths).timestep.tolist() == [1, 3, 2]


def test_per_timestep_scores_of_another_length_stay():
    """A model that forecasts a fixed horizon returns its own timesteps, also after trimming."""

    def forecast(inputs):
        return np.repeat(inputs.sum(axis=(1, 2))[:, None, None], 2, axis=1)

    predictor = Predictor(forecast)
    inputs, lengths = predictor.check(torch.ones(3, 6, 1), [6, 3, 4])
    assert predictor.predict(inputs, lengths).tolist() == [[[6.0], [6.0]], [[3.0], [3.0]], [[4.0], [4.0]]]
    assert predictor.resolve_target(inputs, (-1, 0), lengths).timestep.tolist() == [1, 1, 1]


def test_callable_on_arrays():
    """A function gets numpy arrays of the dtype given, without padding; it may return arrays, lists, whole numbers."""
    seen = []

    def model(inputs):
        assert isinstance(inputs, np.ndarray)
        seen.append((inputs.shape, inputs.dtype))
        return inputs.sum(axis=(1, 2))

    predictor = Predictor(model)
    inputs, lengths = predictor.check(np.arange(12.0).reshape(2, 3, 2), [3, 2])
    assert predictor.predict(inputs, lengths).tolist() == [[15.0], [30.0]]
    assert seen == [((1, 2, 2), np.float64), ((1, 3, 2), np.float64)]
    assert Predictor(lambda x: [[1, 2]] * len(x)).predict(inputs, lengths).tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_callable_with_lengths():
    """A function with a parameter `lengths` gets the padded batch at once, padding cleared, and numpy lengths."""

    def model(inputs, lengths):
        assert isinstance(lengths, np.ndarray)
        assert inputs.shape == (2, 3, 1)
        return np.stack([inputs.sum(axis=(1, 2)), lengths], axis=1)

    predictor = Predictor(model)
    inputs, lengths = predictor.check([[[1.0], [2.0], [3.0]], [[4.0], [float("nan")], [5.0]]], [3, 1])
    assert predictor.predict(inputs, lengths).tolist() == [[6.0, 3.0], [4.0, 1.0]]


def test_module_with_keyword_lengths():
    """Lengths are passed by name, wherever the module's forward has them."""

    class Last(nn.Module):
        def forward(self, inputs, scale=2.0, *, lengths=None):
            return scale * inputs[torch.arange(len(inputs)), lengths - 1]

    predictor = Predictor(Last())
    inputs, lengths = predictor.check(torch.arange(6.0).reshape(2, 3, 1), [3, 1])
    assert predictor.predict(inputs, lengths).tolist() == [[4.0], [6.0]]


def test_token_ids():
    """Whole numbers (B, T) reach a foreign token model as ids, a reference token model knows that it reads them."""
    inputs, lengths = Predictor(Foreign()).check(np.array([[3, 1, 9], [2, 5, 7]], dtype=np.int16), [3, 2])
    assert inputs.tolist() == [[3, 1, 9], [2, 5, 0]]
    assert inputs.dtype == torch.long
    assert lengths.tolist() == [3, 2]
    assert Predictor(make_model(vocab_size=4, embedding_dim=2)).reads_tokens
    assert not Predictor(Foreign()).reads_tokens


def test_what_it_knows_of_a_model():
    """Task, names, float type, device and identity come from the model where it says so."""
    data = DataSpec(classes=("no", "yes"))
    model = make_model(input_size=1, task="binary", data=data)
    predictor = Predictor(model)
    assert (predictor.task, predictor.data, predictor.class_names) == ("binary", data, ("no", "yes"))
    assert (predictor.dtype, predictor.device.type) == (torch.float64, "cpu")
    assert predictor.model_id() == model_hash(model)
    plain = Predictor(np.mean, task="regression")
    assert (plain.task, plain.data, plain.class_names, plain.dtype) == ("regression", None, (), torch.float32)
    assert plain.model_id() == "numpy.mean"
    assert Predictor(Foreign().half()).dtype == torch.float16
    named = Predictor(make_model(input_size=1, output_size=2, data=DataSpec(outputs=("low", "high"))))
    assert named.class_names == ("low", "high")


# -- batching --------------------------------------------------------------------------------------------------------


@given(cases())
@settings(max_examples=30)
def test_a_small_budget_gives_the_same_numbers(case):
    """One row at a time or all at once: the same scores and explained numbers, to 1e-12, and the same count."""
    small, large = Predictor(case.model, memory_bytes=1), Predictor(case.model)
    inputs, lengths = large.check(case.inputs, case.lengths)
    assert len(list(small.batches(inputs))) == len(inputs)
    assert len(list(large.batches(inputs))) == 1
    torch.testing.assert_close(small.predict(inputs, lengths), large.predict(inputs, lengths), rtol=0, atol=1e-12)
    chosen = large.resolve_target(inputs, case.model.config.output_size - 1, lengths)
    found, expected = small.evaluate(inputs, chosen, lengths), large.evaluate(inputs, chosen, lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.shape == (len(inputs),)
    assert small.forward_evaluations == 2 * len(inputs)


def test_batches_fit_the_budget():
    """Rows of a batch times the bytes a pass keeps stay within the budget, and every row comes once, in order."""
    model = make_model(input_size=3, hidden_sizes=(5, 4), bidirectional=True)
    predictor = Predictor(model, memory_bytes=100_000)
    inputs = torch.zeros(100, 10, 3)
    row_bytes = 10 * 4 * (3 + 8 * 2 * (5 + 4) + model.head.out_features)
    sizes = [len(rows) for rows in predictor.batches(inputs)]
    assert max(sizes) == 100_000 // row_bytes
    assert torch.equal(torch.cat(list(predictor.batches(inputs))), torch.arange(100))
    assert predictor.batch_rows(inputs, copies=2) == 100_000 // (2 * row_bytes)
    assert Predictor(model, memory_bytes=2**60).batch_rows(inputs) == 8192


def test_batches_on_the_cpu_are_quick():
    """On the CPU a batch keeps a few tens of MB at most, or holds a few rows; a smaller budget is kept."""
    model = make_model(input_size=3, hidden_sizes=(64,))
    predictor = Predictor(model)
    row_bytes = [3 * 4 * steps * (3 + 8 * 64 + model.head.out_features) for steps in (20, 10_000)]
    short, long = torch.zeros(1, 20, 3), torch.zeros(1, 10_000, 3)
    assert predictor.quick_rows(short, copies=3) == QUICK_BYTES // row_bytes[0]
    assert predictor.quick_rows(short, copies=3) < predictor.batch_rows(short, copies=3)
    assert predictor.quick_rows(long, copies=3) == predictor.batch_rows(long, copies=3) < LEAST_ROWS
    assert Predictor(model, memory_bytes=2**40).quick_rows(long, copies=3) == LEAST_ROWS
    assert Predictor(model, memory_bytes=1).quick_rows(short) == 1


# -- the explained number --------------------------------------------------------------------------------------------


def test_evaluate_picks_the_target():
    """evaluate() is the chosen output of each row; of a per-timestep model at the chosen timestep."""
    model = make_model(input_size=2, output_size=3)
    predictor, inputs = Predictor(model), make_inputs(model, 2, 4)
    scores = model(inputs).detach()
    found = predictor.evaluate(inputs, target(2, 0), full(inputs))
    assert found.tolist() == pytest.approx([float(scores[0, 2]), float(scores[1, 0])], abs=1e-12)
    model = make_model(input_size=2, output_size=3, pooling="none")
    scores = model(inputs).detach()
    chosen = Target(torch.tensor([2, 0]), torch.tensor([1, 3]))
    expected = [float(scores[0, 1, 2]), float(scores[1, 3, 0])]
    assert Predictor(model).evaluate(inputs, chosen, full(inputs)).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("takes_lengths", [True, False])
def test_evaluate_sums_a_window(output, takes_lengths):
    """Of a window it is the sum of what is explained at each of its timesteps: of probabilities their sum."""
    model = make_model(input_size=2, output_size=3, pooling="none", task="multiclass")
    inputs, lengths = make_inputs(model, 2, 5), torch.tensor([5, 3])
    predictor = Predictor(model, output=output)
    predictor.accepts_lengths = takes_lengths  # else each sequence is called alone, without its padding
    chosen = predictor.resolve_target(inputs, (slice(1, None), [2, 0]), lengths)
    scores = model(inputs, lengths).detach()
    numbers = scores.softmax(dim=2) if output == "probability" else scores
    expected = torch.stack([numbers[0, 1:, 2].sum(), numbers[1, 1:3, 0].sum()])
    torch.testing.assert_close(predictor.evaluate(inputs, chosen, lengths), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["last", "none"])
def test_probabilities(pooling):
    """output="probability" is the sigmoid of a binary model's logit, and the softmax of a multiclass model's."""
    binary = make_model(input_size=2, output_size=2, task="binary", pooling=pooling)
    multi = make_model(input_size=2, output_size=3, task="multiclass", pooling=pooling)
    inputs = make_inputs(binary, 2, 4)
    step = (lambda scores: scores[:, -1]) if pooling == "none" else (lambda scores: scores)
    logits = step(binary(inputs))[:, 1]
    predictor = Predictor(binary, output="probability")
    chosen = predictor.resolve_target(inputs, 1, full(inputs))
    found = predictor.evaluate(inputs, chosen, full(inputs))
    torch.testing.assert_close(found, 1 / (1 + torch.exp(-logits)), rtol=0, atol=1e-12)
    exponents = torch.exp(step(multi(inputs)))
    predictor = Predictor(multi, output="probability")
    found = predictor.evaluate(inputs, predictor.resolve_target(inputs, 2, full(inputs)), full(inputs))
    torch.testing.assert_close(found, exponents[:, 2] / exponents.sum(dim=1), rtol=0, atol=1e-12)


def test_a_foreign_model_can_be_given_a_task():
    """task="multiclass" makes probabilities of a function's logits, and the predicted class its default target."""
    predictor = Predictor(lambda x: np.array([[0.0, np.log(3)]] * len(x)), task="multiclass", output="probability")
    inputs = torch.zeros(1, 2, 1)
    chosen = predictor.resolve_target(inputs, None, full(inputs))
    assert float(predictor.evaluate(inputs, chosen, full(inputs))) == pytest.approx(0.75)


def test_values_of_embedded_gives_the_gradient_at_the_embedding():
    """A tensor in the embedding's place gives the same numbers, autograd's gradient, and no hook stays."""
    model = make_model(vocab_size=6, embedding_dim=3, hidden_sizes=(4,))
    predictor = Predictor(model)
    ids, lengths = predictor.check(make_inputs(model, 3, 4), [4, 2, 3])
    embedded = model.embedding(ids).detach().requires_grad_()
    with predictor.differentiation():
        values = predictor.values_of_embedded(embedded, ids, target(0, 0, 0), lengths)
        (found,) = torch.autograd.grad(values.sum(), embedded)
    assert torch.equal(values, predictor.evaluate(ids, target(0, 0, 0), lengths))
    step = torch.zeros_like(embedded)
    step[1, 1, 2] = 1e-6
    with torch.no_grad():
        up, down = (
            predictor.values_of_embedded(embedded + sign * step, ids, target(0, 0, 0), lengths) for sign in (1, -1)
        )
    assert float((up - down)[1]) / 2e-6 == pytest.approx(float(found[1, 1, 2]), abs=1e-8)
    assert not found[1, 2:].any()
    assert not model.embedding._forward_hooks


def test_gradients_through_ids_need_one_embedding():
    """A model with no or two embeddings, and a function, are refused."""
    two = nn.ModuleList([nn.Embedding(2, 2), nn.Embedding(2, 2)])
    for model, count in ((Foreign(), 0), (two, 2), (np.mean, 0)):
        with pytest.raises(ModelError, match=f"one nn.Embedding; this one has {count}"):
            Predictor(model).embedding()


# -- counting --------------------------------------------------------------------------------------------------------


def test_counts():
    """Every row evaluated and every row differentiated is counted, whatever the batches and length groups."""
    predictor = Predictor(Foreign(), memory_bytes=1)
    inputs, lengths = predictor.check(torch.randn(5, 4, 2), [4, 1, 1, 2, 4])
    predictor.predict(inputs, lengths)
    assert (predictor.forward_evaluations, predictor.backward_evaluations) == (5, 0)
    with predictor.differentiation():
        leaf = inputs.clone().requires_grad_()
        predictor.values(leaf, target(0, 1, 2, 0, 1), lengths).sum().backward()
    assert (predictor.forward_evaluations, predictor.backward_evaluations) == (10, 5)
    predictor.resolve_target(inputs, 0, lengths)
    assert (predictor.forward_evaluations, predictor.backward_evaluations) == (15, 5)
    function = Predictor(lambda x: x.sum(axis=(1, 2)))
    function.predict(inputs, lengths)
    assert (function.forward_evaluations, function.backward_evaluations) == (5, 0)


# -- as found --------------------------------------------------------------------------------------------------------


class Fragile(Foreign):
    """A module that notes how it is called, and raises when told to."""

    fail = False

    def forward(self, inputs):
        self.modes = [part.training for part in self.modules()]
        self.flags = [parameter.requires_grad for parameter in self.parameters()]
        if self.fail:
            raise ZeroDivisionError("too cold")
        return super().forward(inputs)


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("way", ["predict", "evaluate", "differentiate"])
def test_the_model_is_left_as_found(way, fail):
    """Called in eval mode with frozen parameters; each submodule's mode and each flag are as before, also on error."""
    module = Fragile().train()
    module.head.eval()
    module.lstm.weight_hh_l0.requires_grad_(False)
    module.fail = fail
    modes = [part.training for part in module.modules()]
    flags = [parameter.requires_grad for parameter in module.parameters()]
    predictor, inputs = Predictor(module), torch.randn(2, 3, 2)

    def call():
        if way == "predict":
            predictor.predict(inputs, full(inputs))
        elif way == "evaluate":
            predictor.evaluate(inputs, target(0, 1), full(inputs))
        else:
            with predictor.differentiation():
                leaf = inputs.clone().requires_grad_()
                predictor.values(leaf, target(0, 1), full(inputs)).sum().backward()

    if fail:
        with pytest.raises(ModelError, match="raised ZeroDivisionError"):
            call()
        assert predictor.forward_evaluations == 0
    else:
        call()
    assert not any(module.modes)
    assert not any(module.flags)
    assert [part.training for part in module.modules()] == modes
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    assert all(parameter.grad is None for parameter in module.parameters())


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: np.full(len(x), np.nan), "NaN or infinite scores"),
        (lambda x: np.full((len(x), 2), np.inf), "NaN or infinite scores"),
        (lambda x: np.zeros((len(x) + 1, 2)), r"shape \(4, 2\) for 3 sequences; expected \(3, outputs\)"),
        (lambda x: np.float64(1.0), r"shape \(\) for 3 sequences"),
        (lambda x: np.zeros((len(x), 0)), r"shape \(3, 0\)"),
        (lambda x: np.zeros((len(x), 1, 1, 1)), r"shape \(3, 1, 1, 1\)"),
        (lambda x: 1 / 0, r"raised ZeroDivisionError on inputs of shape \(3, 2, 1\): division by zero"),
    ],
)
def test_functions_that_are_refused(model, message):
    """NaN scores, a wrong shape and an exception inside are told apart; the exception is named and chained."""
    inputs = torch.zeros(3, 2, 1)
    with pytest.raises(ModelError, match=message) as caught:
        Predictor(model).predict(inputs, full(inputs))
    assert ("raised" in message) == isinstance(caught.value.__cause__, ZeroDivisionError)


def test_modules_that_are_refused():
    """A module that returns a tuple, as nn.LSTM does, is told to return the scores alone; a wrong shape is named."""
    inputs = torch.zeros(3, 2, 1)
    with pytest.raises(ModelError, match="returned a tuple; expected one tensor of scores"):
        Predictor(nn.LSTM(1, 2, batch_first=True)).predict(inputs, full(inputs))
    with pytest.raises(ModelError, match=r"raised RuntimeError on inputs of shape \(3, 2, 1\)"):
        Predictor(nn.Linear(4, 2)).predict(inputs, full(inputs))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "model.pt"}, InvalidTypeError, r"model is a str; expected an LSTMModel.*load\(folder\)"),
        ({"model": np.mean, "output": "logits"}, InvalidInputError, "output is 'logits'.*Did you mean 'logit'"),
        ({"model": np.mean, "task": "classes"}, InvalidInputError, "task is 'classes'; known: regression, binary"),
        ({"model": np.mean, "output": "probability"}, InvalidInputError, "its task is not known; pass task='binary'"),
        (
            {"model": np.mean, "task": "regression", "output": "probability"},
            InvalidInputError,
            "needs a model of classes, and it is a regression",
        ),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    """What is no model, an unknown option, and a probability that cannot be made are refused when built."""
    with pytest.raises(error, match=message):
        Predictor(**arguments)


def test_probability_of_a_reference_regression_is_refused():
    """An LSTMModel's own task counts."""
    with pytest.raises(InvalidInputError, match="it is a regression"):
        Predictor(make_model(input_size=1), output="probability")


def test_check_refuses():
    """check() names the value that is not finite, counts the features, and leaves the caller's array alone."""
    predictor = Predictor(make_model(input_size=2))
    inputs = np.zeros((2, 3, 2))
    inputs[1, 2, 0] = np.nan
    with pytest.raises(InvalidInputError, match=r"inputs\[1, 2, 0\] is nan"):
        predictor.check(inputs, None)
    checked, lengths = predictor.check(inputs, [3, 2])
    assert torch.isfinite(checked).all()
    assert np.isnan(inputs[1, 2, 0])
    assert lengths.tolist() == [3, 2]
    with pytest.raises(InvalidInputError, match="features=2"):
        predictor.check(np.zeros((2, 3, 4)), None)
