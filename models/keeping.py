"""`KeepingKernel`: runs an `nn.LSTM`'s pass so that its gates need not be computed again.

torch's kernel throws its gates away; to have them, the products of a whole forward pass must be done once more. So
while a plain float32 model on the CPU is recorded, the call that `nn.LSTM.forward` makes to torch's kernel is answered
by the compiled one (`kernels.run_`), which is as fast and keeps what it computes. Only that call is replaced: checks,
layouts and hooks around it are torch's own, no module is touched, and only the thread that records sees it.

Outputs equal torch's to float32's precision, not to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .activations import ACTIVATIONS
from .kernels import Cell, Weights, is_compiled, run_

# A weight matrix of so many numbers stays in a core's own cache while it meets one timestep after the other.
CACHED_WEIGHTS = 2**18
MANY_ROWS = 8  # of a batch, for each thread: so many share the reading of weights that do not


@dataclass(frozen=True, eq=False)
class Kept:
    """What one direction computed, time-major: gates (T, B, 4, H), cell and hidden (T, B, H)."""

    gates: Tensor
    cell: Tensor
    hidden: Tensor
    pre: Tensor | None = None  # pre-activations (T, B, 4, H), where they were asked for


class KeepingKernel(TorchFunctionMode):
    """Answers `torch.lstm` where it can; `kept` holds the directions of the newest answer, and its output."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Kept] = []
        self.output: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch, or, of its LSTM, ours."""
        if func is torch.lstm:
            self.kept, self.output = [], None
            if not kwargs and self._answers(*args):
                return self._lstm(*args)
        return func(*args, **(kwargs or {}))

    def take(self, output: Tensor) -> tuple[Kept, ...]:
        """Return what was kept of the call that gave `output`, and forget it; () where it was not ours."""
        kept = tuple(self.kept) if output is self.output else ()
        self.kept, self.output = [], None
        return kept

    @staticmethod
    def _answers(inputs: Tensor, state: Any, weights: Any, *options: Any) -> bool:
        """Whether a call is one of plain tensors without a graph, in a form that the compiled kernel runs well."""
        if not isinstance(state, (tuple, list)):  # a packed sequence
            return False
        has_biases, layers, dropout, train, bidirectional, _batch_first = options
        tensors = [inputs, *state, *weights]
        with_graph = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        directions = 2 if bidirectional else 1
        projected = len(weights) != layers * directions * (4 if has_biases else 2)
        if with_graph or projected or (train and dropout > 0 and layers > 1) or inputs.numel() == 0:
            return False
        if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or _is_traced():
            return False
        if not all(is_compiled(tensor) and not tensor.is_neg() for tensor in tensors) or _is_transformed(tensors):
            return False
        if not _fits(inputs, state, weights, has_biases, directions):
            return False
        sizes = [weight.shape[0] * (weight.shape[0] // 4 + weight.shape[1]) for weight in weights if weight.ndim == 2]
        return bool(max(sizes) <= CACHED_WEIGHTS or state[0].shape[1] >= MANY_ROWS * torch.get_num_threads())

    def _lstm(
        self, inputs: Tensor, state: Any, weights: Any, has_biases: bool, layers: int, *options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        bidirectional, batch_first = options[2], options[3]
        initial_h, initial_c = state
        count = 2 if bidirectional else 1
        per = 4 if has_biases else 2
        with torch.no_grad():
            values = (inputs.transpose(0, 1) if batch_first else inputs).contiguous()  # (T, B, D)
            kept: list[Kept] = []
            for layer in range(layers):
                for direction in range(count):
                    index = layer * count + direction
                    own = [weight.detach() for weight in weights[index * per : (index + 1) * per]]
                    bias = own[2] + own[3] if has_biases else None
                    kept.append(
                        run_direction(
                            values,
                            initial_h[index],
                            initial_c[index],
                            Weights(own[0], own[1], bias),
                            reverse=direction == 1,
                        )
                    )
                values = torch.cat([one.hidden for one in kept[layer * count :]], dim=2)  # a copy: the caller's own
            ends = [0 if count == 2 and index % 2 else -1 for index in range(len(kept))]
            final_h = torch.stack([one.hidden[end] for one, end in zip(kept, ends, strict=True)])
            final_c = torch.stack([one.cell[end] for one, end in zip(kept, ends, strict=True)])
            output = values.transpose(0, 1) if batch_first else values
        self.kept, self.output = kept, output
        return output, final_h, final_c


def _fits(inputs: Tensor, state: Any, weights: Any, has_biases: bool, directions: int) -> bool:
    """Whether all shapes are those that the kernel goes by; torch says what is wrong with others."""
    per, units = 4 if has_biases else 2, state[0].shape[-1]
    width = inputs.shape[-1]
    for index in range(0, len(weights), per):
        if index == per * directions:  # the layers above the lowest read its outputs
            width = units * directions
        expected = [(4 * units, width), (4 * units, units), (4 * units,), (4 * units,)][:per]
        if [tuple(weight.shape) for weight in weights[index : index + per]] != expected:
            return False
    return inputs.ndim == 3 and all(part.ndim == 3 and part.shape == state[0].shape for part in state)


def _is_transformed(tensors: list[Tensor]) -> bool:
    """Whether functorch's transforms, or forward-mode differentiation, follow the tensors."""
    if torch._C._functorch.peek_interpreter_stack() is not None:  # noqa: SLF001
        return True
    forward_ad = torch.autograd.forward_ad
    if forward_ad._current_level < 0:  # noqa: SLF001 - unpacking every tensor to see it takes as long as a small pass
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _is_traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def run_direction(
    inputs: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weights: Weights,
    *,
    reverse: bool,
    lengths: Tensor | None = None,
    with_pre: bool = False,
) -> Kept:
    """Run one direction over inputs (T, B, D) from (B, H) states, with sequences of `lengths`, long (B,) on the CPU."""
    steps, batch = inputs.shape[:2]
    units = weights.hh.shape[1]
    gates = inputs.new_empty(steps, batch, 4, units)
    cell = inputs.new_empty(steps, batch, units)
    pre = torch.empty_like(gates) if with_pre else None
    whole = lengths is None or bool((lengths == steps).all())
    states = inputs.new_empty(steps + 1, batch, units) if whole else inputs.new_zeros(steps + 1, batch, units)
    if lengths is None:
        lengths = torch.full((batch,), steps, device="cpu")
    states[lengths if reverse else 0, torch.arange(batch, device="cpu") if reverse else slice(None)] = (
        initial_h.detach()
    )
    kind = Cell(ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"], standard=True, reverse=reverse)
    run_(inputs.detach(), states, weights, gates, cell, initial_c.detach().contiguous(), lengths, kind, pre)
    return Kept(gates, cell, states[:-1] if reverse else states[1:], pre)
