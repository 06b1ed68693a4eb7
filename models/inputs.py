"""Checks of what a user hands over: inputs (B, T, D) or token ids (B, T), and lengths (B,)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InvalidInputError, InvalidTypeError

WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch can store them and little else


def as_tensor(inputs: Any, name: str = "inputs") -> Tensor:
    """Return inputs as a tensor without copying where possible; arrays, nested lists, and xarray/pandas values work."""
    if isinstance(inputs, Tensor):
        if inputs.is_complex():
            raise InvalidTypeError(f"{name} holds {str(inputs.dtype).removeprefix('torch.')} values; expected numbers.")
        return (inputs.long() if inputs.dtype in WIDE_UNSIGNED else inputs).detach()
    try:
        array = np.asarray(inputs)
    except ValueError as error:
        raise InvalidInputError(
            f"{name} is not a rectangular array ({error}); pad shorter sequences at the end and pass lengths."
        ) from None
    if array.dtype.kind not in "fiub":
        raise InvalidTypeError(
            f"{name} holds {array.dtype} values; expected numbers (floats, or whole-number token ids)."
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype == np.longdouble:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.as_tensor(array if plain else array.copy())


def check_inputs(inputs: Any, *, features: int | None, vocab_size: int | None, dtype: torch.dtype) -> Tensor:
    """Return inputs as float (B, T, D) of `dtype`, or as long ids (B, T).

    Args:
        inputs: Tensor, array or nested lists.
        features: D the model reads, where known.
        vocab_size: Number of token ids of a token model, where known.
        dtype: The model's float type.

    Raises:
        InvalidInputError: Wrong shape, or an empty batch.
        InvalidTypeError: Not numbers, or floats for a token model.
    """
    tensor = as_tensor(inputs)
    integral = not tensor.dtype.is_floating_point and tensor.dtype != torch.bool
    shape = tuple(tensor.shape)
    if vocab_size is not None:
        if not integral:
            raise InvalidTypeError(
                f"inputs holds {str(tensor.dtype).removeprefix('torch.')} values; this model reads token ids: "
                "whole numbers, long (batch, time)."
            )
        if tensor.ndim != 2:
            hint = " For one sequence use inputs[None]." if tensor.ndim == 1 else ""
            raise InvalidInputError(f"inputs has shape {shape}; expected token ids (batch, time).{hint}")
    elif tensor.ndim != 3 and not (features is None and integral and tensor.ndim == 2):
        expected = "(batch, time, features)" if features is None else f"(batch, time, features={features})"
        hint = ""
        if tensor.ndim == 2:
            one_feature = features == 1 and tensor.shape[1] != 1
            hint = " For one feature use inputs[..., None]." if one_feature else " For one sequence use inputs[None]."
        elif tensor.ndim == 1:
            hint = " For one sequence of one feature use inputs[None, :, None]."
        raise InvalidInputError(f"inputs has shape {shape}; expected {expected}.{hint}")
    if 0 in shape:
        raise InvalidInputError(f"inputs has shape {shape}; expected at least one sequence, timestep and feature.")
    if tensor.ndim == 3 and features is not None and shape[2] != features:
        raise InvalidInputError(
            f"inputs has shape {shape}, {shape[2]} features; expected (batch, time, features={features}). "
            "Check that the columns are those the model was trained on."
        )
    if tensor.ndim == 2:
        return tensor.long()
    return tensor.to(dtype)


def check_ids(ids: Tensor, lengths: Tensor, vocab_size: int | None) -> None:
    """Refuse token ids (B, T) outside the vocabulary at valid timesteps; padding may hold anything."""
    valid = ids[valid_mask(lengths, ids.shape[1]).to(ids.device)]
    low, high = int(valid.min()), int(valid.max())
    if low < 0 or (vocab_size is not None and high >= vocab_size):
        bad = low if low < 0 else high
        top = "the vocabulary's size" if vocab_size is None else str(vocab_size - 1)
        raise InvalidInputError(f"inputs holds the token id {bad}; expected ids from 0 to {top}.")


def check_lengths(lengths: Any, batch: int, steps: int) -> Tensor:
    """Return lengths as long (B,) on the CPU; None means every sequence is full.

    Raises:
        InvalidInputError: Wrong shape, or a length outside 1..T.
        InvalidTypeError: Not whole numbers.
    """
    if lengths is None:
        return torch.full((batch,), steps)
    tensor = as_tensor(lengths, "lengths").cpu()
    if tensor.dtype.is_floating_point or tensor.dtype == torch.bool:
        raise InvalidTypeError(
            f"lengths holds {str(tensor.dtype).removeprefix('torch.')} values; expected whole numbers, one a sequence."
        )
    if tensor.shape != (batch,):
        raise InvalidInputError(
            f"lengths has shape {tuple(tensor.shape)}; expected ({batch},), one for each of the {batch} sequences."
        )
    low, high = int(tensor.min()), int(tensor.max())
    if low < 1:
        row = int(tensor.argmin())
        raise InvalidInputError(
            f"lengths[{row}] is {low}; expected 1 to {steps}. "
            "A sequence without timesteps cannot be explained: drop it."
        )
    if high > steps:
        row = int(tensor.argmax())
        raise InvalidInputError(f"lengths[{row}] is {high}, but inputs has {steps} timesteps; expected 1 to {steps}.")
    return tensor.long()


def check_finite(inputs: Tensor, lengths: Tensor, name: str = "inputs") -> None:
    """Refuse NaN and infinite values at valid timesteps of inputs (B, T, D); padding may hold anything."""
    if not inputs.dtype.is_floating_point or bool(inputs.sum().isfinite()):  # one such number makes the sum another
        return
    bad = ~torch.isfinite(inputs) & valid_mask(lengths, inputs.shape[1]).to(inputs.device)[..., None]  # (B, T, D)
    if bad.any():
        sample, time, feature = (int(index) for index in bad.nonzero()[0])
        raise InvalidInputError(
            f"{name}[{sample}, {time}, {feature}] is {float(inputs[sample, time, feature])}, one of {int(bad.sum())} "
            "values that are NaN or infinite; fill or drop them first (e.g. interpolate the column), or shorten "
            "lengths if they are padding."
        )


def valid_mask(lengths: Tensor, steps: int) -> Tensor:
    """Return bool (B, T), True at valid timesteps."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def clear_padding(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Return inputs (B, T, D) or ids (B, T) with 0 at padding, so that nothing there (NaN included) can leak."""
    if bool((lengths >= inputs.shape[1]).all()):
        return inputs
    padding = ~valid_mask(lengths, inputs.shape[1]).to(inputs.device)
    return inputs.masked_fill(padding if inputs.ndim == 2 else padding[..., None], 0)
