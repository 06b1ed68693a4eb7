"""Checks of inputs and lengths: what is taken, and what each refusal says."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from gatelens.models import InvalidInputError, InvalidTypeError, LSTMConfig, LSTMModel
from gatelens.models.inputs import (
    as_tensor,
    check_finite,
    check_ids,
    check_inputs,
    check_lengths,
    clear_padding,
    valid_mask,
)


def check(inputs, features=None, vocab_size=None, dtype=torch.float32):
    found = check_inputs(inputs, features=features, vocab_size=vocab_size, dtype=dtype)
    if found.ndim == 2:
        check_ids(found, check_lengths(None, *found.shape), vocab_size)
    return found


def test_ids_at_padding_may_be_anything():
    """An id outside the vocabulary is refused at a valid timestep, and of no account at padding."""
    ids = torch.tensor([[1, 2, -100], [1, 2, 2]])
    check_ids(ids, torch.tensor([2, 3]), 3)
    with pytest.raises(InvalidInputError, match="the token id -100"):
        check_ids(ids, torch.tensor([3, 3]), 3)
    model = LSTMModel(LSTMConfig(vocab_size=3, embedding_dim=2, hidden_sizes=(4,), bidirectional=True))
    clean = torch.tensor([[1, 2, 0], [1, 2, 2]])
    assert torch.equal(model(ids, [2, 3]), model(clean, [2, 3]))


# -- what is taken ---------------------------------------------------------------------------------------------------

NUMBERS = np.arange(12.0).reshape(2, 3, 2)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "inputs",
    [
        torch.tensor(NUMBERS),
        torch.tensor(NUMBERS, requires_grad=True),
        NUMBERS,
        NUMBERS.tolist(),
        NUMBERS.astype(np.int32),
        NUMBERS.astype(np.float16),
        NUMBERS.astype(">f8"),
        NUMBERS.astype(np.uint16),
        NUMBERS[::-1].copy()[::-1],
        np.asfortranarray(NUMBERS),
        read_only(NUMBERS),
        xr.DataArray(NUMBERS),
        [pd.DataFrame(part) for part in NUMBERS],
    ],
    ids=[
        "tensor", "tensor with a graph", "array", "lists", "int32", "float16", "big-endian", "uint16", "reversed view",
        "Fortran order", "read-only", "xarray", "DataFrames",
    ],
)  # fmt: skip
def test_float_inputs(inputs):
    """Whatever holds the numbers (B, T, D) becomes the tensor of the model's type, without a graph."""
    found = check(inputs, features=2)
    assert torch.equal(found, torch.tensor(NUMBERS, dtype=torch.float32))
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint16, np.uint32, np.uint64, ">i4"])
def test_token_ids(dtype):
    """Whole numbers (B, T) of any width become long ids, for a token model and for one that says nothing."""
    ids = np.array([[0, 2, 1]], dtype=dtype)
    for vocab_size in (3, None):
        found = check(ids, vocab_size=vocab_size)
        assert found.dtype == torch.long
        assert found.tolist() == [[0, 2, 1]]


def test_no_copy_where_none_is_needed():
    """A float32 array of a float32 model is not copied, and the model's type is given otherwise."""
    array = np.zeros((1, 2, 3), dtype=np.float32)
    assert check(array).data_ptr() == array.__array_interface__["data"][0]
    assert check(array, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [(None, [4, 4]), ([1, 4], [1, 4]), (np.array([2, 3], dtype=np.int16), [2, 3]), (torch.tensor([4, 4]), [4, 4])],
)
def test_lengths(lengths, expected):
    """None is all T; lists, arrays and tensors of whole numbers become long."""
    found = check_lengths(lengths, 2, 4)
    assert found.tolist() == expected
    assert found.dtype == torch.long


def test_valid_mask_and_clear_padding():
    """The mask is True at valid timesteps; clearing sets 0 elsewhere, NaN included, and leaves the original."""
    lengths = torch.tensor([2, 1])
    assert valid_mask(lengths, 3).tolist() == [[True, True, False], [True, False, False]]
    inputs = torch.tensor([[[1.0], [2.0], [float("nan")]], [[3.0], [float("inf")], [5.0]]])
    assert clear_padding(inputs, lengths)[..., 0].tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]
    assert inputs[0, 2].isnan()
    assert clear_padding(torch.tensor([[7, 8, 9], [7, 8, 9]]), lengths).tolist() == [[7, 8, 0], [7, 0, 0]]
    assert clear_padding(inputs, torch.tensor([3, 3])) is inputs


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        (
            np.zeros((20, 5)),
            {"features": 7},
            InvalidInputError,
            r"shape \(20, 5\); expected \(batch, time, features=7\)\. For one sequence use inputs\[None\]\.",
        ),
        (np.zeros((20, 5)), {"features": 1}, InvalidInputError, r"For one feature use inputs\[\.\.\., None\]"),
        (np.zeros((20, 1)), {"features": 1}, InvalidInputError, r"For one sequence use inputs\[None\]"),
        (np.zeros((20, 5)), {}, InvalidInputError, r"expected \(batch, time, features\)\. For one sequence"),
        (np.zeros(20), {}, InvalidInputError, r"shape \(20,\).*use inputs\[None, :, None\]"),
        (np.zeros((1, 2, 3, 4)), {}, InvalidInputError, r"shape \(1, 2, 3, 4\); expected \(batch, time, features\)\.$"),
        (3.5, {}, InvalidInputError, r"shape \(\)"),
        (np.zeros((2, 4, 3)), {"features": 7}, InvalidInputError, r"3 features; expected .*features=7.*columns"),
        (np.zeros((0, 4, 3)), {}, InvalidInputError, r"shape \(0, 4, 3\); expected at least one sequence"),
        (np.zeros((2, 0, 3)), {"features": 3}, InvalidInputError, "at least one sequence, timestep and feature"),
        (np.zeros((2, 4, 0)), {}, InvalidInputError, "at least one sequence, timestep and feature"),
        (np.zeros((0, 4), dtype=int), {"vocab_size": 3}, InvalidInputError, "at least one sequence"),
        (np.array([[0, 3]]), {"vocab_size": 3}, InvalidInputError, "the token id 3; expected ids from 0 to 2"),
        (np.array([[0, -1]]), {"vocab_size": 3}, InvalidInputError, "the token id -1; expected ids from 0 to 2"),
        (np.array([[0, -1]]), {}, InvalidInputError, "the token id -1; expected ids from 0 to the vocabulary's size"),
        (np.array([0, 1]), {"vocab_size": 3}, InvalidInputError, r"expected token ids \(batch, time\).*inputs\[None\]"),
        (np.zeros((1, 2, 3), dtype=int), {"vocab_size": 3}, InvalidInputError, r"token ids \(batch, time\)\.$"),
        (np.array([[0.0, 1.0]]), {"vocab_size": 3}, InvalidTypeError, "holds float64 values; .* token ids"),
        (np.array([[True]]), {"vocab_size": 3}, InvalidTypeError, "holds bool values; .* token ids"),
        (np.array([[0, 1]]), {"features": 2}, InvalidInputError, r"For one sequence use inputs\[None\]"),
        ([["good", "bad"]], {"vocab_size": 3}, InvalidTypeError, "holds <U4 values; expected numbers"),
        (None, {}, InvalidTypeError, "holds object values; expected numbers"),
        (np.zeros((1, 1, 1), dtype=complex), {}, InvalidTypeError, "holds complex128 values; expected numbers"),
        (torch.zeros(1, 1, 1, dtype=torch.complex64), {}, InvalidTypeError, "complex64 values; expected numbers"),
        ([[[1.0], [2.0]], [[1.0]]], {}, InvalidInputError, "not a rectangular array.*pad shorter .* pass lengths"),
    ],
)
def test_inputs_that_are_refused(inputs, options, error, message):
    """Each refusal says what came, what is expected, and how to mend it."""
    with pytest.raises(error, match=message):
        check(inputs, **options)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([3, 0], InvalidInputError, r"lengths\[1\] is 0; expected 1 to 4\. A sequence without timesteps .* drop it"),
        ([-1, 2], InvalidInputError, r"lengths\[0\] is -1"),
        ([3, 5], InvalidInputError, r"lengths\[1\] is 5, but inputs has 4 timesteps"),
        ([3], InvalidInputError, r"lengths has shape \(1,\); expected \(2,\), one for each of the 2 sequences"),
        (3, InvalidInputError, r"lengths has shape \(\)"),
        ([[3, 2]], InvalidInputError, r"lengths has shape \(1, 2\)"),
        ([3.0, 2.0], InvalidTypeError, "lengths holds float64 values; expected whole numbers"),
        ([True, True], InvalidTypeError, "lengths holds bool values"),
        (["3", "2"], InvalidTypeError, "lengths holds <U1 values"),
        ([[1], [2, 3]], InvalidInputError, "lengths is not a rectangular array"),
    ],
)
def test_lengths_that_are_refused(lengths, error, message):
    """Each refusal names the first bad length by its index."""
    with pytest.raises(error, match=message):
        check_lengths(lengths, 2, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(value):
    """A NaN or infinite value at a valid timestep is named by its index and counted; in the padding it is accepted."""
    inputs = torch.zeros(2, 3, 2)
    inputs[1, 1, 0] = inputs[1, 2, 1] = value
    check_finite(inputs, torch.tensor([3, 1]))
    with pytest.raises(InvalidInputError, match=r"inputs\[1, 1, 0\] is (nan|-?inf), one of 1 values that are NaN"):
        check_finite(inputs, torch.tensor([3, 2]))
    with pytest.raises(InvalidInputError, match=r"background\[1, 1, 0\] .* one of 2 values"):
        check_finite(inputs, torch.tensor([3, 3]), "background")
    check_finite(torch.zeros(2, 3).long(), torch.tensor([3, 3]))


def test_as_tensor_names_what_it_reads():
    """The refusal carries the name of the argument."""
    with pytest.raises(InvalidTypeError, match="the model's output holds <U1 values"):
        as_tensor(["a"], "the model's output")
