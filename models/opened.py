"""`open_run`: one pass of an `LSTMModel` with everything the exact methods need from its inside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .inputs import valid_mask
from .keeping import run_direction
from .kernels import Weights, is_compiled
from .lstm import LSTMModel
from .rebuild import Direction, Run, cell_kind, entered_states, runs
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


def is_plain(model: nn.Module) -> bool:
    """Whether a model is an `LSTMModel` whose forward pass is the class's own: no subclass, no hook."""
    return (
        type(model) is LSTMModel
        and "forward" not in vars(model)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())  # noqa: SLF001
    )


@torch.no_grad()
def open_run(model: LSTMModel, values: Tensor, lengths: Tensor) -> OpenedRun:
    """Run a model in eval mode over what its lowest layer reads: features (B, T, D), or embedded tokens (B, T, E)."""
    if opens_compiled(model) and is_compiled(values) and values.numel():
        return _open_compiled(model, values, lengths)
    with record(model) as recording:
        hidden = model.run_layers(values, lengths)
    layers = tuple(tuple(runs(call)) for call in recording.calls)
    return OpenedRun(model, lengths, layers, hidden)


def opens_compiled(model: LSTMModel) -> bool:
    """Whether `open_run` takes no longer than the model's own pass: the compiled kernel knows all layers."""
    return all(_is_compiled(layer) for layer in model.lstm)


def _is_compiled(layer: nn.Module) -> bool:
    return type(layer) is nn.LSTM and all(is_compiled(weight) for weight in layer.parameters())


def _open_compiled(model: LSTMModel, values: Tensor, lengths: Tensor) -> OpenedRun:
    """`open_run` by the compiled kernel, with pre-activations, each sequence as long as it is, without packing."""
    below = values.transpose(0, 1)  # (T, B, D)
    batch = below.shape[1]
    layers: list[tuple[Run, ...]] = []
    for number, layer in enumerate(model.lstm):
        assert isinstance(layer, nn.LSTM)
        below = below.contiguous()
        found: list[Run] = []
        for suffix in ("", "_reverse")[: 2 if layer.bidirectional else 1]:
            weights = Weights(*layer_weights(layer, suffix))
            start = values.new_zeros(batch, layer.hidden_size)
            kept = run_direction(below, start, start, weights, reverse=bool(suffix), lengths=lengths, with_pre=True)
            name = f"lstm.{number}{suffix.replace('_', '.')}"
            direction = Direction(
                name=name, module=layer, kind=cell_kind(layer, reverse=bool(suffix)),
                weights=weights, weight_hr=None, inputs=below, hidden=kept.hidden, initial_h=start, initial_c=start,
                lengths=lengths, eps=torch.finfo(values.dtype).eps, plain=True, kept=kept,
            )  # fmt: skip
            found.append(Run(direction, kept.gates, kept.cell, kept.hidden))
        layers.append(tuple(found))
        below = torch.cat([run.hidden for run in found], dim=2)
    return OpenedRun(model, lengths, tuple(layers), below.transpose(0, 1))


def layer_weights(layer: nn.LSTM, suffix: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return weight_ih (4H, D), weight_hh (4H, H) and the sum of both biases (4H,) of a direction."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if layer.bias else ("weight_ih", "weight_hh")
    found = [getattr(layer, f"{name}_l0{suffix}").detach() for name in names]
    return found[0], found[1], found[2] + found[3] if layer.bias else None


@torch.no_grad()
def every_score(run: OpenedRun) -> Tensor:
    """Return all scores of a pass, (B, K), or with pooling "none" (B, T, K)."""
    model = run.model
    return model.head(run.hidden) if model.pooling is None else scores_of(run)


@torch.no_grad()
def scores_of(run: OpenedRun, places: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return scores (B, K), with pooling "none" those of places, (N, K); one row of a run stands for all.

    Args:
        run: The pass.
        places: Row and timestep, long (N,) each, with pooling "none".
    """
    model = run.model
    if model.pooling is not None:
        return model.head(model.pooling(run.hidden, run.valid))  # type: ignore[no-any-return]
    assert places is not None, "a model with an output each timestep is explained at some of them"
    rows, timesteps = places
    return model.head(run.hidden[rows if len(run.hidden) > 1 else 0, timesteps])  # type: ignore[no-any-return]


@torch.no_grad()
def pre_activations(run: Run) -> Tensor:
    """Return W_ih x_t + W_hh h_(t-1) + b of a direction, (T, B, 4, H)."""
    direction = run.direction
    if direction.kept is not None and direction.kept.pre is not None:
        return direction.kept.pre
    steps, batch = direction.inputs.shape[:2]
    flat = direction.inputs.reshape(steps * batch, -1) @ direction.weights.ih.T
    flat.addmm_(entered_states(run).reshape(steps * batch, -1), direction.weights.hh.T)
    if direction.weights.bias is not None:
        flat += direction.weights.bias
    return flat.view(steps, batch, 4, -1)
