"""The trace of a whole batch through a `Predictor`, whatever the model makes of lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import ModelError
from .inputs import valid_mask
from .predictor import Predictor
from .recorder import record
from .trace import QUANTITIES, LayerTrace, Trace


def trace_of(predictor: Predictor, inputs: Tensor, lengths: Tensor, *, quantities: Sequence[str] = QUANTITIES) -> Trace:
    """Return the trace of the predictions for checked inputs (B, T, D) or ids (B, T), laid along their timesteps.

    Raises:
        ModelError: The model has no gates, or its LSTMs do not read all timesteps of the inputs in one call.
    """
    module = require_module(predictor)
    blocks = list(predictor.uniform_blocks(inputs, lengths))
    parts: list[Trace] = []
    for rows, trimmed in blocks:
        own = lengths[rows]
        with torch.no_grad(), predictor.evaluation(), record(module, quantities=quantities) as recording:
            predictor.scores(trimmed, own)
        parts.append(recording.trace)
        for name, layer in parts[-1].items():
            check_layout(name, layer, len(rows), (trimmed.shape[1], int(own.max())), inputs.shape[1])
    batch, steps = inputs.shape[:2]
    valid = valid_mask(lengths, steps)
    rows_of = [rows for rows, _ in blocks]
    layers = {
        name: join_layers([part[name] for part in parts], rows_of, batch, steps).masked(valid) for name in parts[0]
    }
    return Trace(layers, lengths=lengths)


def require_module(predictor: Predictor) -> torch.nn.Module:
    """Return the predictor's module; a plain function has no gates."""
    if predictor.module is None:
        raise ModelError(
            "the model is a plain function, so it has no gates; gate explainers need a torch module that holds an "
            "nn.LSTM. Explainers that work on functions: lime, kernel_shap."
        )
    return predictor.module


def check_layout(name: str, layer: LayerTrace, batch: int, allowed: Sequence[int], steps: int) -> None:
    """Refuse an LSTM that ran over other sequences than the model's inputs: its gates fit no timestep of theirs."""
    own_batch, own_steps, _ = layer.shape
    if own_batch != batch or own_steps not in allowed:
        raise ModelError(
            f"{name} ran over {own_batch} sequences of {own_steps} timesteps, and the inputs are {batch} of {steps}; "
            "gates along the inputs' time need an LSTM that reads all timesteps of the inputs in one call. Explainers "
            "that need no gates: integrated_gradients, lime, kernel_shap."
        )


def join_layers(parts: list[LayerTrace], rows: list[Tensor], batch: int, steps: int) -> LayerTrace:
    """Return the layer of the whole batch (B, T, H) from those of blocks of rows; 0 where a block is shorter."""
    names = list(parts[0].quantities())
    return LayerTrace(**{name: join([getattr(part, name) for part in parts], rows, batch, steps) for name in names})


def join(parts: list[Tensor], rows: list[Tensor], batch: int, steps: int) -> Tensor:
    """Return (B, T, ...) from blocks of rows (b, t, ...); 0 where a block is shorter than T."""
    if len(parts) == 1 and parts[0].shape[1] == steps:
        return parts[0]
    whole = parts[0].new_zeros(batch, steps, *parts[0].shape[2:])
    for part, own in zip(parts, rows, strict=True):
        whole[own.to(whole.device), : part.shape[1]] = part
    return whole
