"""Baselines: what each name and each shape of numbers means, and what is refused."""

import itertools
import math

import numpy as np
import pytest
import torch

from gatelens.explainers import IntegratedGradients, KernelSHAP, Occlusion, Players
from gatelens.explainers.baselines import resolve_background, resolve_baseline
from gatelens.models import DataSpec, InvalidInputError, InvalidTypeError, Predictor
from helpers.explained import Foreign, lstm, sequences, token_ids

INPUTS = sequences(2, 4, 3)
LENGTHS = torch.tensor([4, 2])


def resolve(baseline, inputs=INPUTS, model=None):
    """Return the resolved baseline of a model (by default one of three features)."""
    return resolve_baseline(baseline, inputs, LENGTHS, Predictor(model or lstm()))


def with_stored_mean(*mean):
    """Return a model whose data names its baseline."""
    model = lstm()
    model.data = DataSpec(baseline=mean)
    return model


def test_zero_is_zeros():
    """The name "zero" is 0 everywhere, shaped like the inputs."""
    torch.testing.assert_close(resolve("zero"), torch.zeros(2, 4, 3))


def test_mean_is_what_the_model_names():
    """The name "mean" is the baseline of the model's data at every valid timestep, and 0 at padding."""
    found = resolve("mean", model=with_stored_mean(1.0, 2.0, 3.0))
    assert found[0].tolist() == [[1.0, 2.0, 3.0]] * 4
    assert found[1].tolist() == [[1.0, 2.0, 3.0]] * 2 + [[0.0] * 3] * 2


def test_mean_needs_a_model_that_names_one():
    """The name "mean" of a model that names none is refused, with how to give it."""
    with pytest.raises(InvalidInputError, match=r"data\.json names its baseline.*train\.mean"):
        resolve("mean")
    with pytest.raises(InvalidInputError, match="this one does not"):
        resolve("mean", model=Foreign())


def test_hold_last_holds_the_first_timestep():
    """As numbers, "hold_last" is each sequence's first timestep at every valid one, and 0 at padding."""
    found = resolve("hold_last")
    assert found[0].tolist() == [INPUTS[0, 0].tolist()] * 4
    assert found[1].tolist() == [INPUTS[1, 0].tolist()] * 2 + [[0.0] * 3] * 2


def test_linear_is_the_line_between_the_valid_ends():
    """The name "linear" goes from the first to the last valid timestep in equal steps, whose ends it keeps exactly."""
    inputs = sequences(3, 5, 2)
    found = resolve_baseline("linear", inputs, torch.tensor([5, 3, 1]), Predictor(lstm(input_size=2)))
    for row, length in enumerate([5, 3, 1]):
        for feature in range(2):
            line = np.linspace(float(inputs[row, 0, feature]), float(inputs[row, length - 1, feature]), length)
            np.testing.assert_allclose(found[row, :length, feature], line, rtol=0, atol=1e-6)
        assert torch.equal(found[row, [0, length - 1]], inputs[row, [0, length - 1]])
        assert not found[row, length:].any()
    assert found.dtype == torch.float32


@pytest.mark.parametrize("name", ["hold_last", "linear"])
def test_gradient_methods_start_from_named_lines(name):
    """Integrated gradients take both names as the numbers they stand for."""
    inputs, lengths = sequences(2, 5, 3), [5, 3]
    named = IntegratedGradients(lstm(), baseline=name, steps=20).explain(inputs, lengths=lengths)
    numbers = resolve_baseline(name, inputs, torch.tensor(lengths), Predictor(lstm()))
    given = IntegratedGradients(lstm(), baseline=numbers, steps=20).explain(inputs, lengths=lengths)
    np.testing.assert_array_equal(named.values, given.values)
    np.testing.assert_array_equal(named.dataset["baseline"], numbers)
    assert named.attrs["baseline_name"] == name
    assert not named.values[:, 0].any()
    assert named.values[0, 2].any()


def held(sequence, on):
    """Return (L, D) with each cell that is off holding the feature's last value that is on, or the first one."""
    result = sequence.clone()
    for time, feature in itertools.product(*map(range, sequence.shape)):
        kept = [t for t in range(time + 1) if on[t][feature]]
        result[time, feature] = sequence[kept[-1] if kept else 0, feature]
    return result


@pytest.mark.parametrize("players", ["timestep", "segment", "feature", "cell"])
def test_hold_last_in_a_game_depends_on_what_is_on(players):
    """Switched off, a cell holds its feature's last value that is on, so exact Shapley values follow that game."""
    model, inputs, length = lstm(input_size=2, double=True), sequences(2, 5, 2, double=True), 3
    result = KernelSHAP(model, players=players, segments=2, baseline="hold_last").explain(inputs, lengths=[5, length])
    labels = Players.make(players, length, 2, segments=2).labels
    count = labels.max() + 1
    worth = {}
    for coalition in itertools.product([False, True], repeat=int(count)):
        with torch.no_grad():
            worth[coalition] = float(model(held(inputs[1, :length], np.array(coalition)[labels])[None]))
    expected = np.zeros(count)
    for order in itertools.permutations(range(count)):
        on = [False] * count
        for player in order:
            before = worth[tuple(on)]
            on[player] = True
            expected[player] += (worth[tuple(on)] - before) / math.factorial(count)
    found = np.bincount(labels.ravel(), weights=result.values[1, :length].ravel())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-9)
    assert worth[(False,) * count] == pytest.approx(result.baseline_prediction[1], abs=1e-9)


def test_hold_last_occlusion_repeats_the_timestep_before():
    """One timestep taken away holds the one before it; the first has none, and stays."""
    model, inputs = lstm(), sequences(1, 5, 3)
    result = Occlusion(model, baseline="hold_last").explain(inputs)
    for time in range(1, 5):
        changed = inputs.clone()
        changed[0, time] = inputs[0, time - 1]
        with torch.no_grad():
            expected = float(model(inputs) - model(changed))
        assert result.timesteps[0, time] == pytest.approx(expected, abs=1e-6)
    assert result.timesteps[0, 0] == pytest.approx(0, abs=1e-6)


def test_cells_that_hold_last_may_change_share_the_credit():
    """A cell equal to the first timestep may still change, where a value between was another; a constant never does."""
    inputs = torch.tensor([[[1.0, 5.0, 0.0], [2.0, 5.0, 0.0], [1.0, 5.0, 3.0]]])
    result = Occlusion(lstm(), baseline="hold_last").explain(inputs)
    shares = result.values[0]
    assert shares[1, 0] == pytest.approx(result.timesteps[0, 1])
    assert shares[2, 0] == shares[2, 2] == pytest.approx(result.timesteps[0, 2] / 2)
    assert not shares[:, 1].any()


def test_a_background_takes_the_place_of_hold_last():
    """With a background set what is switched off comes from there, and nothing is held."""
    inputs, background = sequences(1, 4, 3), sequences(3, 4, 3, seed=4)
    plain, named = (
        KernelSHAP(lstm(), baseline=b, background=background).explain(inputs) for b in ("zero", "hold_last")
    )
    np.testing.assert_array_equal(plain.values, named.values)


@pytest.mark.parametrize(
    "given",
    [
        0.5,
        3,
        np.float64(0.5),
        [1.0, 2.0, 3.0],
        torch.tensor([1, 2, 3]),
        sequences(4, 3, seed=4).numpy(),
        sequences(1, 4, 3, seed=4),
        sequences(2, 4, 3, seed=4),
    ],
    ids=["number", "int", "numpy", "list", "ints", "(T, D)", "(1, T, D)", "(B, T, D)"],
)
def test_numbers_of_every_shape_are_spread(given):
    """A number, (D,), (T, D) and (B, T, D) stand for the rest of the inputs' shape, in its dtype, 0 at padding."""
    found = resolve(given)
    expected = np.broadcast_to(np.asarray(given), (2, 4, 3)).copy()
    expected[1, 2:] = 0
    np.testing.assert_allclose(found.numpy(), expected.astype(np.float32))
    assert found.dtype == torch.float32


def test_a_square_shape_is_read_from_the_right():
    """Where T = D, a (T, D) baseline is not mistaken for features."""
    inputs = sequences(2, 3, 3)
    found = resolve_baseline([1.0, 2.0, 3.0], inputs, torch.tensor([3, 3]), Predictor(lstm()))
    assert found[0].tolist() == [[1.0, 2.0, 3.0]] * 3


@pytest.mark.parametrize("shape", [(4,), (2, 3), (4, 1), (3, 4, 3), (2, 4, 4), (1, 2, 4, 3), (0,)])
def test_other_shapes_are_refused(shape):
    """A shape that fits no reading is refused with those that do."""
    with pytest.raises(InvalidInputError, match=r"expected one number, \(D,\), \(T, D\) or \(B, T, D\)"):
        resolve(torch.zeros(shape))


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        ("zeros", InvalidInputError, "Did you mean 'zero'"),
        ("pad", InvalidInputError, "for token ids"),
        (float("nan"), InvalidInputError, "baseline.*NaN"),
        ([0.0, float("inf"), 0.0], InvalidInputError, "NaN or infinite"),
        ({"a": 1}, InvalidTypeError, "baseline holds object"),
        ([[1.0], [1.0, 2.0]], InvalidInputError, "not a rectangular array"),
    ],
)
def test_what_is_no_baseline_is_refused(baseline, error, message):
    """An unknown name, NaN, and what is not numbers are refused."""
    with pytest.raises(error, match=message):
        resolve(baseline)


def test_nan_in_the_padding_of_a_baseline_is_no_harm():
    """Padding of a (B, T, D) baseline may hold anything, as that of inputs."""
    baseline = torch.zeros(2, 4, 3)
    baseline[1, 3] = float("nan")
    torch.testing.assert_close(resolve(baseline), torch.zeros(2, 4, 3))


# -- tokens ----------------------------------------------------------------------------------------------------------


def tokens(baseline):
    """Return the resolved baseline of a token model whose pad token is 1."""
    return resolve(baseline, token_ids(2, 4), lstm(vocab_size=9, embedding_dim=4, padding_index=1))


@pytest.mark.parametrize("name", ["zero", "pad"])
def test_names_mean_the_pad_token(name):
    """Both "zero" and "pad" are the model's padding token at valid timesteps."""
    assert tokens(name).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize("given", [7, [2, 3, 4, 5], [[2, 3, 4, 5], [5, 4, 3, 2]]])
def test_ids_of_every_shape_are_spread(given):
    """An id, (T,) and (B, T) ids stand for the rest, as long."""
    expected = np.broadcast_to(given, (2, 4)).copy()
    expected[1, 2:] = 0
    assert tokens(given).tolist() == expected.tolist()
    assert tokens(given).dtype == torch.long


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        ("mean", InvalidInputError, "no meaning for token ids"),
        ("hold_last", InvalidInputError, "'hold_last' has no meaning for token ids"),
        ("linear", InvalidInputError, "'linear' has no meaning for token ids"),
        (0.0, InvalidTypeError, "holds floats"),
        (9, InvalidInputError, "outside the vocabulary"),
        (-1, InvalidInputError, "outside the vocabulary"),
        ([1, 2], InvalidInputError, r"expected an id, \(T,\) or \(B, T\)"),
    ],
)
def test_what_is_no_token_is_refused(baseline, error, message):
    """Floats, ids outside the vocabulary and "mean" are refused."""
    with pytest.raises(error, match=message):
        tokens(baseline)


# -- background ------------------------------------------------------------------------------------------------------


def test_one_sequence_is_a_background_of_one():
    """(T, D) is a set of one; (R, T, D) stays; ids likewise."""
    assert resolve_background(np.zeros((4, 3)), INPUTS).shape == (1, 4, 3)
    background = sequences(5, 4, 3, double=True)
    found = resolve_background(background, INPUTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, background.float())
    assert resolve_background([1, 2, 3, 4], token_ids(2, 4)).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("background", "inputs", "error", "message"),
    [
        (np.zeros((5, 3, 3)), INPUTS, InvalidInputError, r"shape \(5, 3, 3\); expected \(R, 4, 3\)"),
        (np.zeros(3), INPUTS, InvalidInputError, r"expected \(R, 4, 3\)"),
        (np.zeros((0, 4, 3)), INPUTS, InvalidInputError, r"expected \(R, 4, 3\)"),
        (np.full((2, 4, 3), np.nan), INPUTS, InvalidInputError, "background.*NaN"),
        (np.zeros((2, 4)), token_ids(2, 4), InvalidTypeError, "background holds floats"),
        (np.array([["a"]]), INPUTS, InvalidTypeError, "background holds"),
    ],
)
def test_what_is_no_background_is_refused(background, inputs, error, message):
    """Sequences unlike the explained ones, none, NaN and floats for token ids are refused."""
    with pytest.raises(error, match=message):
        resolve_background(background, inputs)
