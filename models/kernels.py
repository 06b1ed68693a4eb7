"""An LSTM's elementwise work over whole sequences, and the matrix products beside it: one place for all who need them.

    i, f, o = sigma(pre), g = tanh(pre)        gates from pre-activations
    c_t     = f_t c_(t-1) + i_t g_t            the scan
    and both backwards (`walk_back_`)

Shapes are time-major, because a scan then reads and writes whole contiguous timesteps: gates (T, B, 4, H) in torch's
order i, f, g, o, cell (T, B, H), states before the first timestep (B, H). Functions whose name ends in "_" work in
place. float32 on the CPU runs compiled (`compiled.py`); every other type and device, and nonlinearities other than
sigma and tanh, run the same steps as torch operations, which are also the oracle of the compiled ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .activations import Activation
from .threads import count, share

FEW_ROWS = 3  # up to so many, the compiled walk multiplies by itself
MANY_UNITS = 8192  # B H from which threads share one timestep
MANY_NUMBERS = 32768  # T B H from which threads share one scan
LARGE_PRODUCT = 2**21  # multiplications from which oneDNN's product is asked for


@dataclass(frozen=True)
class Cell:
    """What the equations of one direction are made of, beside its numbers.

    Attributes:
        gate: Nonlinearity of the input, forget and output gate.
        shown: Nonlinearity of the candidate and of the cell's output.
        standard: Whether these are sigma and tanh.
        reverse: Whether time is read from the last valid timestep to the first.
    """

    gate: Activation
    shown: Activation
    standard: bool
    reverse: bool

    def order(self, steps: int) -> Iterator[int]:
        """Yield timesteps in reading order."""
        yield from reversed(range(steps)) if self.reverse else range(steps)

    def earlier(self, t: int) -> int:
        """Return the timestep that is read before t."""
        return t + 1 if self.reverse else t - 1


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return inputs (..., D) @ weight (F, D)^T + bias (F,), by the fastest product at hand.

    For float32 on the CPU, oneDNN's product is up to twice as fast as the BLAS that `nn.functional.linear` calls.
    """
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    large = inputs.numel() * weight.shape[0] >= LARGE_PRODUCT
    if onednn is not None and large and _is_plain_float32(inputs) and torch.backends.mkldnn.is_available():
        return onednn(inputs, weight.contiguous(), bias, "none", [], "")  # type: ignore[no-any-return]
    return nn.functional.linear(inputs, weight, bias)


def scan_(
    gates: Tensor, cell: Tensor, initial: Tensor, carry: Tensor, lengths: Tensor, offset: int, kind: Cell
) -> None:
    """Turn pre-activations into gates, in place, and fill the cell state; both 0 at padding.

    Args:
        gates: Pre-activations (T, B, 4, H), contiguous; gates afterwards.
        cell: (T, B, H), contiguous; written.
        initial: Cell state before each sequence's first timestep in reading order, (B, H).
        carry: Cell state before this block of timesteps in reading order, (B, H); read where a sequence goes on.
        lengths: Long (B,) on the CPU, contiguous.
        offset: Which timestep of the sequences the block begins with.
        kind: Nonlinearities and direction.
    """
    if kind.standard and _is_plain_float32(gates):
        from . import compiled

        job = _job(gates, cell, initial, lengths, kind)
        job[compiled.AT], job[compiled.CARRY] = offset, _address(carry)
        threads = count(cell.shape[1]) if cell.numel() >= MANY_NUMBERS else 1
        job[compiled.SHARES] = threads if threads == 1 else min(2 * threads, cell.shape[1])
        share(compiled.scan_task, job, threads)
        return
    steps = cell.shape[0]
    times = torch.arange(offset, offset + steps)[:, None]  # (T, 1)
    valid = times < lengths  # (T, B)
    firsts = times == (lengths - 1 if kind.reverse else torch.zeros_like(lengths))  # (T, B)
    i, f, g, o = gates.unbind(dim=2)  # (T, B, H) each, views
    for gate in (i, f, o):
        gate.copy_(kind.gate.function(gate))
    g.copy_(kind.shown.function(g))
    padded = not bool(valid.all())
    if padded:
        gates.masked_fill_(~valid.to(gates.device)[..., None, None], 0)
    torch.mul(i, g, out=cell)  # what is written at each timestep; 0 at padding
    for position, t in enumerate(kind.order(steps)):
        previous = carry if position == 0 else cell[kind.earlier(t)]
        if bool(firsts[t].any()):
            previous = torch.where(firsts[t].to(cell.device)[:, None], initial, previous)
        cell[t].addcmul_(f[t], previous)


def walk_back_(
    gates: Tensor,
    cell: Tensor,
    initial: Tensor,
    lengths: Tensor,
    kind: Cell,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    hidden_grad: Tensor,
    cell_grad: Tensor,
) -> tuple[Tensor, Tensor]:
    """Walk one direction back in time (back-propagation through time, Werbos 1990), without dividing by any slope.

        dh_t += W_hh^T p_(t+1)
        dc_t += dh_t o_t phi'(c_t) + f_(t+1) dc_(t+1)
        di, df, dg, do = dc g, dc c_(t-1), dc i, dh phi(c)
        p = di sigma'(i), df sigma'(f), dg phi'(g), do sigma'(o)      gradient at the pre-activations

    Args:
        gates: (T, B, 4, H), 0 at padding.
        cell: (T, B, H), 0 at padding.
        initial: Cell state before each sequence's first timestep in reading order, (B, H).
        lengths: Long (B,) on the CPU.
        kind: Nonlinearities and direction.
        weight_hh: (4H, H or projection).
        weight_hr: (projection, H), or None.
        hidden_grad: (T, B, H or projection): what arrives at each hidden state from outside the layer; 0 at padding.
            Total gradients afterwards.
        cell_grad: (T, B, H): the same of each cell state.

    Returns:
        (gradients at the gates, gradients at the pre-activations), (T, B, 4, H) each.
    """
    gate_grad, pre_grad = torch.empty_like(gates), torch.empty_like(gates)
    steps, batch, units = cell.shape
    if kind.standard and weight_hr is None and _is_plain_float32(gates):
        from . import compiled

        grads = (hidden_grad, cell_grad, gate_grad, pre_grad)
        if batch <= FEW_ROWS:
            arrays = (*_arrays(gates, cell, initial[None], lengths), kind.reverse)
            weight = weight_hh.reshape(4, units, units).contiguous()
            compiled.walk_rows_back(*arrays, *_arrays(weight, *grads))
            return gate_grad, pre_grad
        job = _job(gates, cell, initial, lengths, kind)
        job[compiled.HIDDEN_GRAD : compiled.PRE_GRAD + 1] = [_address(part) for part in grads]
        threads = job[compiled.SHARES] = count(batch) if batch * units >= MANY_UNITS else 1
        for t in reversed(list(kind.order(steps))):
            job[compiled.AT] = t
            share(compiled.step_back_task, job, threads)
            if 0 <= kind.earlier(t) < steps:
                hidden_grad[kind.earlier(t)].addmm_(pre_grad[t].view(batch, -1), weight_hh)
        return gate_grad, pre_grad
    i, f, g, o = gates.unbind(dim=2)  # (T, B, H) each, views
    shown = kind.shown.function(cell)  # phi(c)
    cell_slope = kind.shown.slope(shown) * o
    previous = previous_cells(cell, initial, lengths, kind)
    slopes = torch.stack([kind.gate.slope(i), kind.gate.slope(f), kind.shown.slope(g), kind.gate.slope(o)], dim=2)
    for t in reversed(list(kind.order(steps))):
        raw = hidden_grad[t] if weight_hr is None else hidden_grad[t] @ weight_hr  # (B, H)
        later = t - 1 if kind.reverse else t + 1
        if 0 <= later < steps:
            cell_grad[t].addcmul_(f[later], cell_grad[later])
        cell_grad[t].addcmul_(raw, cell_slope[t])
        total = cell_grad[t]
        gate_grad[t] = torch.stack([total * g[t], total * previous[t], total * i[t], raw * shown[t]], dim=1)
        pre_grad[t] = gate_grad[t] * slopes[t]
        if 0 <= kind.earlier(t) < steps:
            hidden_grad[kind.earlier(t)].addmm_(pre_grad[t].view(batch, -1), weight_hh)
    return gate_grad, pre_grad


def previous_cells(cell: Tensor, initial: Tensor, lengths: Tensor, kind: Cell) -> Tensor:
    """Return the cell state that entered each timestep, (T, B, H); 0 at padding."""
    previous = torch.zeros_like(cell)
    if kind.reverse:
        previous[:-1] = cell[1:]
        firsts = (lengths - 1).to(cell.device)
        previous[firsts, torch.arange(cell.shape[1], device=cell.device)] = initial
    else:
        previous[1:] = cell[:-1]
        previous[0] = initial
        padding = torch.arange(cell.shape[0])[:, None] >= lengths
        previous.masked_fill_(padding.to(cell.device)[..., None], 0)
    return previous


def _is_plain_float32(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    assert all(tensor.is_contiguous() for tensor in tensors), "a kernel's arrays are contiguous"
    return tuple(tensor.detach().numpy() for tensor in tensors)


def _address(tensor: Tensor) -> int:
    assert tensor.is_contiguous(), "a kernel's arrays are contiguous"
    return tensor.data_ptr()


def _job(gates: Tensor, cell: Tensor, initial: Tensor, lengths: Tensor, kind: Cell) -> NDArray[np.int64]:
    """Return a job for a compiled task; the caller keeps the tensors alive, because it holds their addresses."""
    from . import compiled

    steps, batch, units = cell.shape
    job = np.zeros(compiled.NUMBERS, dtype=np.int64)
    job[compiled.STEPS], job[compiled.BATCH], job[compiled.UNITS] = steps, batch, units
    job[compiled.REVERSE] = kind.reverse
    job[compiled.GATES], job[compiled.CELL] = _address(gates), _address(cell)
    job[compiled.INITIAL], job[compiled.LENGTHS] = _address(initial), _address(lengths)
    return job
