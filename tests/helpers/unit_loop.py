"""An `LSTMModel`'s pass over one sequence in plain numpy, every number kept: what oracles of the exact methods go by.

It shares no line with gatelens; only the model's weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatelens.models import LSTMModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pass:
    """One direction of one layer: arrays (L, ...) by the sequence's own timesteps, gates in the order i, f, g, o."""

    order: list[int]  # timesteps as they are read
    w: Array  # (4, H, D)
    v: Array  # (4, H, H)
    b: Array  # (4, H)
    x: Array  # (L, D)
    z: Array  # (L, 4, H)
    gates: Array  # (L, 4, H)
    c: Array  # (L, H)
    h: Array  # (L, H)
    c_before: Array  # (L, H)
    h_before: Array  # (L, H)


def sigma(z: Any) -> Any:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-z))


def phi_of(model: LSTMModel) -> Any:
    """Return the nonlinearity of the candidate and of the cell's output."""
    return np.tanh if model.config.activation == "tanh" else lambda z: np.maximum(z, 0.0)


def read(model: LSTMModel, sequence: Any) -> Array:
    """Return what the lowest layer reads, (L, D or E), of one sequence (L, D), or ids (L,)."""
    values = np.asarray(sequence)
    if model.config.vocab_size is None:
        return values.astype(np.float64)
    return model.embedding.weight.detach().numpy().astype(np.float64)[values]


def run_passes(model: LSTMModel, sequence: Any) -> tuple[list[list[Pass]], Array]:
    """Return layers of directions, and the top layer's hidden states (L, F), of one sequence (L, D) or (L,)."""
    below = read(model, sequence)
    layers = []
    for module in model.lstm:
        suffixes = ("_l0", "_l0_reverse") if model.config.bidirectional else ("_l0",)
        layers.append([_run(module, suffix, below, phi_of(model)) for suffix in suffixes])
        below = np.concatenate([one.h for one in layers[-1]], axis=1)
    return layers, below


def head_of(model: LSTMModel, output: int) -> tuple[Array, float]:
    """Return the head's weights (F,) and bias of an output."""
    weight, bias = (part.detach().numpy().astype(np.float64) for part in (model.head.weight, model.head.bias))
    return weight[output], float(bias[output])


def _run(module: Any, suffix: str, x: Array, phi: Any) -> Pass:
    units = module.hidden_size
    parts = {
        name: getattr(module, f"{name}{suffix}").detach().numpy().astype(np.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    w, v = parts["weight_ih"].reshape(4, units, -1), parts["weight_hh"].reshape(4, units, units)
    b = (parts["bias_ih"] + parts["bias_hh"]).reshape(4, units)
    steps = len(x)
    order = list(range(steps))[:: -1 if suffix.endswith("reverse") else 1]
    z, gates = np.zeros((2, steps, 4, units))
    c, h, c_before, h_before = np.zeros((4, steps, units))
    now_c, now_h = np.zeros(units), np.zeros(units)
    for t in order:
        c_before[t], h_before[t] = now_c, now_h
        for gate in range(4):
            z[t, gate] = w[gate] @ x[t] + v[gate] @ now_h + b[gate]
            gates[t, gate] = phi(z[t, gate]) if gate == 2 else sigma(z[t, gate])
        now_c = gates[t, 1] * now_c + gates[t, 0] * gates[t, 2]
        now_h = gates[t, 3] * phi(now_c)
        c[t], h[t] = now_c, now_h
    return Pass(order, w, v, b, x, z, gates, c, h, c_before, h_before)
