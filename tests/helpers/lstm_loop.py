"""A second, independent LSTM: one sequence, layer, direction and timestep after another, in plain differentiable torch.

It shares no line with gatelens. `offsets` are zeros that are added to each of the six quantities where it is made,
so that autograd with respect to an offset gives d score / d value, with every later effect of that value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

QUANTITIES = ("input_gate", "forget_gate", "candidate", "output_gate", "cell_state", "hidden_state")

Layers = dict[str, dict[str, Tensor]]

FUNCTIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_sigmoid_keras2": lambda x: (0.2 * x + 0.5).clamp(0, 1),
}


def random(*shape: int, seed: int = 1) -> Tensor:
    """Return standard normal numbers, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_lstm(seed: int = 0, *, strength: float = 2.0, **options: Any) -> nn.LSTM:
    """Return an LSTM in float64, its weights `strength` times torch's: away from the linear middle of the gates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.LSTM(**options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(strength)
    return module.eval()


def run_lstm(
    module: nn.LSTM,
    inputs: Tensor,
    lengths: list[int] | None = None,
    state: tuple[Tensor, Tensor] | None = None,
    *,
    path: str = "lstm",
    offsets: Mapping[str, Mapping[str, Tensor]] | None = None,
    activation: str = "tanh",
    gate_activation: str = "sigmoid",
) -> tuple[Tensor, Tensor, Tensor, Layers]:
    """Return output (B, T, F), h_n, c_n (layers * directions, B, H) and layer name -> quantity -> (B, T, H).

    `inputs` is (B, T, D) whatever `module.batch_first` says.
    """
    batch, steps, _ = inputs.shape
    lengths = [steps] * batch if lengths is None else lengths
    directions = 2 if module.bidirectional else 1
    width = module.proj_size or module.hidden_size
    layers: Layers = {}
    final_h: list[Tensor] = []
    final_c: list[Tensor] = []
    below = inputs
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            name = f"{path}.{layer}{'.reverse' if direction else ''}"
            index = layer * directions + direction
            rows, last_h, last_c = [], [], []
            for b in range(batch):
                h = inputs.new_zeros(width) if state is None else state[0][index, b]
                c = inputs.new_zeros(module.hidden_size) if state is None else state[1][index, b]
                own = None if offsets is None else {key: value[b] for key, value in offsets[name].items()}
                found, h, c = _run_sequence(
                    module,
                    f"_l{layer}{'_reverse' if direction else ''}",
                    below[b],
                    lengths[b],
                    h,
                    c,
                    own,
                    (gate_activation, activation),
                )
                rows.append(found)
                last_h.append(h)
                last_c.append(c)
            layers[name] = {key: torch.stack([row[key] for row in rows]) for key in QUANTITIES}
            outputs.append(layers[name]["hidden_state"])
            final_h.append(torch.stack(last_h))
            final_c.append(torch.stack(last_c))
        below = torch.cat(outputs, dim=2)
    return below, torch.stack(final_h), torch.stack(final_c), layers


def _run_sequence(
    module: nn.LSTM,
    suffix: str,
    sequence: Tensor,
    length: int,
    h: Tensor,
    c: Tensor,
    offsets: Mapping[str, Tensor] | None,
    activations: tuple[str, str],
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    size = module.hidden_size
    sigma, phi = (FUNCTIONS[name] for name in activations)
    width = module.proj_size or size
    values: dict[str, list[Tensor]] = {
        key: [sequence.new_zeros(width if key == "hidden_state" else size)] * sequence.shape[0] for key in QUANTITIES
    }
    order = range(length - 1, -1, -1) if suffix.endswith("reverse") else range(length)
    for t in order:
        add = {key: 0.0 if offsets is None else offsets[key][t] for key in QUANTITIES}
        drive = getattr(module, f"weight_ih{suffix}") @ sequence[t] + getattr(module, f"weight_hh{suffix}") @ h
        if module.bias:
            drive = drive + getattr(module, f"bias_ih{suffix}") + getattr(module, f"bias_hh{suffix}")
        i = sigma(drive[:size]) + add["input_gate"]
        f = sigma(drive[size : 2 * size]) + add["forget_gate"]
        g = phi(drive[2 * size : 3 * size]) + add["candidate"]
        o = sigma(drive[3 * size :]) + add["output_gate"]
        c = f * c + i * g + add["cell_state"]
        h = o * phi(c)
        if module.proj_size:
            h = getattr(module, f"weight_hr{suffix}") @ h
        h = h + add["hidden_state"]
        for key, value in zip(QUANTITIES, (i, f, g, o, c, h), strict=True):
            values[key][t] = value
    return {key: torch.stack(value) for key, value in values.items()}, h, c


def step_cell(
    cell: nn.LSTMCell,
    x: Tensor,
    state: tuple[Tensor, Tensor] | None,
    offsets: Mapping[str, Tensor] | None = None,
    t: int = 0,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return h, c (B, H) and the six quantities (B, H) of one timestep of an `nn.LSTMCell` on x (B, D).

    `offsets` are those of `zero_cell_offsets`, of which the timestep `t` is added.
    """
    size = cell.hidden_size
    h, c = (x.new_zeros(len(x), size), x.new_zeros(len(x), size)) if state is None else state
    add = {key: 0.0 if offsets is None else offsets[key][:, t] for key in QUANTITIES}
    drive = x @ cell.weight_ih.T + h @ cell.weight_hh.T
    if cell.bias:
        drive = drive + cell.bias_ih + cell.bias_hh
    i = 1 / (1 + torch.exp(-drive[:, :size])) + add["input_gate"]
    f = 1 / (1 + torch.exp(-drive[:, size : 2 * size])) + add["forget_gate"]
    g = torch.tanh(drive[:, 2 * size : 3 * size]) + add["candidate"]
    o = 1 / (1 + torch.exp(-drive[:, 3 * size :])) + add["output_gate"]
    c = f * c + i * g + add["cell_state"]
    h = o * torch.tanh(c) + add["hidden_state"]
    return h, c, dict(zip(QUANTITIES, (i, f, g, o, c, h), strict=True))


def zero_cell_offsets(cell: nn.LSTMCell, batch: int, steps: int) -> dict[str, Tensor]:
    """Return zeros (B, T, H) for `step_cell(offsets=...)`, float64 and differentiable."""
    shape = batch, steps, cell.hidden_size
    return {key: torch.zeros(shape, dtype=torch.float64, requires_grad=True) for key in QUANTITIES}


def zero_offsets(module: nn.LSTM, batch: int, steps: int, path: str = "lstm") -> Layers:
    """Return zeros for `run_lstm(offsets=...)`, float64 and differentiable."""
    result: Layers = {}
    for layer in range(module.num_layers):
        for direction in ("", ".reverse")[: 2 if module.bidirectional else 1]:
            result[f"{path}.{layer}{direction}"] = {
                key: torch.zeros(
                    batch,
                    steps,
                    (module.proj_size or module.hidden_size) if key == "hidden_state" else module.hidden_size,
                    dtype=torch.float64,
                    requires_grad=True,
                )
                for key in QUANTITIES
            }
    return result


def gradients_at(score: Tensor, offsets: Layers) -> Layers:
    """Return d score / d value for every offset; 0 where the score does not depend on it."""
    flat = [value for layer in offsets.values() for value in layer.values()]
    found = iter(torch.autograd.grad(score, flat, allow_unused=True))
    result: Layers = {}
    for name, layer in offsets.items():
        result[name] = {}
        for key, value in layer.items():
            gradient = next(found)
            result[name][key] = torch.zeros_like(value) if gradient is None else gradient
    return result
