"""The reference an attribution is relative to: a name ("zero", "mean", ...), numbers, or a set of sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..models import InvalidInputError, InvalidTypeError, Predictor
from ..models.errors import nearest_name
from ..models.inputs import as_tensor, check_finite, check_lengths, clear_padding

NAMED = ("zero", "mean", "hold_last", "linear", "pad")


def resolve_baseline(baseline: Any, inputs: Tensor, lengths: Tensor, predictor: Predictor) -> Tensor:
    """Return the reference of each sample, shaped like inputs (B, T, D) or ids (B, T), 0 at padding.

    Args:
        baseline: "zero": all zeros (for standardised features, the training mean). "mean": the baseline that the
            saved model's data.json names. "hold_last": nothing new happens. Methods that switch players off (a
            `Game`) let each feature hold the last value before that is on; every other method, and a game before
            the first such value, gets the first timestep's values held throughout. "linear": for each feature the
            straight line from its first to its last valid value. "pad": the padding token everywhere (token models;
            there only numbers, "pad" and "zero" have a meaning, and "zero" stands for the padding token, or id 0
            where none is known). Or numbers: one, (D,), (T, D) or (B, T, D); for tokens an id, (T,) or (B, T) ids.
        inputs: (B, T, D) or (B, T), checked.
        lengths: (B,).
        predictor: Tells about the model.

    Raises:
        InvalidInputError: The name is unknown, the shape does not fit, or the model names no mean.
    """
    named = isinstance(baseline, str)
    values = _named(baseline, inputs, lengths, predictor) if named else as_tensor(baseline, "baseline")
    tokens = inputs.ndim == 2
    if tokens and values.dtype.is_floating_point:
        raise InvalidTypeError("baseline holds floats; this model reads token ids: give an id, (T,) or (B, T) ids.")
    values = values.to(inputs.device, inputs.dtype)
    shapes = [(), *(tuple(inputs.shape[first:]) for first in range(inputs.ndim)), (1, *inputs.shape[1:])]
    if tuple(values.shape) not in shapes:
        expected = "an id, (T,) or (B, T)" if tokens else "one number, (D,), (T, D) or (B, T, D)"
        raise InvalidInputError(
            f"baseline has shape {tuple(values.shape)}; expected {expected} for inputs of shape {tuple(inputs.shape)}. "
            "A set of background sequences goes into background=."
        )
    full = values.expand(inputs.shape)
    vocab_size = predictor.config.vocab_size if predictor.config else None
    if tokens and (int(full.min()) < 0 or (vocab_size is not None and int(full.max()) >= vocab_size)):
        raise InvalidInputError("baseline holds a token id outside the vocabulary.")
    check_finite(full, lengths, "baseline")
    return clear_padding(full, lengths)


def resolve_background(background: Any, inputs: Tensor) -> Tensor:
    """Return a set of reference sequences, (R, T, D) or ids (R, T), that fits inputs."""
    values = as_tensor(background, "background").to(inputs.device)
    if values.ndim == inputs.ndim - 1:
        values = values[None]
    if values.ndim != inputs.ndim or values.shape[1:] != inputs.shape[1:] or values.shape[0] == 0:
        expected = ", ".join(["R", *(str(size) for size in inputs.shape[1:])])
        raise InvalidInputError(
            f"background has shape {tuple(values.shape)}; expected ({expected}), R sequences like the explained ones."
        )
    if inputs.ndim == 2 and values.dtype.is_floating_point:
        raise InvalidTypeError("background holds floats; this model reads token ids.")
    values = values.to(inputs.dtype)
    check_finite(values, check_lengths(None, values.shape[0], values.shape[1]), "background")
    return values


def _named(name: str, inputs: Tensor, lengths: Tensor, predictor: Predictor) -> Tensor:
    if name not in NAMED:
        raise InvalidInputError(
            f"baseline is {name!r}; {nearest_name(name, NAMED)} Or give numbers, e.g. of shape (D,)."
        )
    if inputs.ndim == 2:
        if name in ("mean", "hold_last", "linear"):
            raise InvalidInputError(f"baseline={name!r} has no meaning for token ids; use 'pad', an id, or (B, T) ids.")
        token = predictor.padding_token()
        if token is None and name == "pad":
            raise InvalidInputError(
                "baseline='pad' needs a model whose embedding names its padding_idx, and this one does not; give the "
                "id itself, e.g. baseline=0."
            )
        return torch.tensor(token or 0)
    if name == "pad":
        raise InvalidInputError("baseline='pad' is for token ids; for features use 'zero', 'mean' or numbers.")
    if name == "hold_last":
        return inputs[:, :1].expand(inputs.shape)
    if name == "linear":
        return _straight_line(inputs, lengths)
    if name == "zero":
        return torch.tensor(0.0)
    stored = predictor.data.baseline if predictor.data is not None else None
    if stored is None:
        raise InvalidInputError(
            "baseline='mean' needs a model whose data.json names its baseline, and this one does not; pass the mean "
            "itself, e.g. baseline=train.mean((0, 1)) of shape (D,)."
        )
    return torch.tensor(stored)


def _straight_line(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, T, D), from each sequence's first to its last valid timestep in equal steps."""
    ends = (lengths - 1).to(inputs.device)  # (B,)
    last = inputs[torch.arange(len(inputs)), ends][:, None].double()  # (B, 1, D)
    way = torch.arange(inputs.shape[1], device=inputs.device) / ends.clamp(min=1)[:, None].double()  # (B, T)
    return torch.lerp(inputs[:, :1].double(), last, way[..., None])
