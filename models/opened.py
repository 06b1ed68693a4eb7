"""`open_run`: one pass of an `LSTMModel` with everything the exact methods need from its inside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .inputs import valid_mask
from .lstm import LSTMModel
from .rebuild import Run, entered_states, runs
from .recorder import record


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """What a pass computed.

    Attributes:
        model: The model.
        lengths: Long (B,) on the CPU.
        layers: For each stacked layer its directions, forward before reverse: a `Run`, time-major, with what it read
            (`run.direction.inputs`, (T, B, D)), weights, gates (T, B, 4, H), cell and hidden state (T, B, H).
        hidden: The top layer's hidden states, (B, T, F), 0 at padding.
    """

    model: LSTMModel
    lengths: Tensor
    layers: tuple[tuple[Run, ...], ...]
    hidden: Tensor

    @property
    def valid(self) -> Tensor:
        """Bool (B, T), True at timesteps that are not padding."""
        return valid_mask(self.lengths, self.hidden.shape[1]).to(self.hidden.device)


@torch.no_grad()
def open_run(model: LSTMModel, values: Tensor, lengths: Tensor) -> OpenedRun:
    """Run a model in eval mode over what its lowest layer reads: features (B, T, D), or embedded tokens (B, T, E)."""
    with record(model) as recording:
        hidden = model.run_layers(values, lengths)
    layers = tuple(tuple(runs(call)) for call in recording.calls)
    return OpenedRun(model, lengths, layers, hidden)


@torch.no_grad()
def pre_activations(run: Run) -> Tensor:
    """Return W_ih x_t + W_hh h_(t-1) + b of a direction, (T, B, 4, H)."""
    direction = run.direction
    steps, batch = direction.inputs.shape[:2]
    flat = direction.inputs.reshape(steps * batch, -1) @ direction.weights.ih.T
    flat.addmm_(entered_states(run).reshape(steps * batch, -1), direction.weights.hh.T)
    if direction.weights.bias is not None:
        flat += direction.weights.bias
    return flat.view(steps, batch, 4, -1)
