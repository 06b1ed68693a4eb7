"""An LSTM's elementwise work over whole sequences, and the matrix products beside it: one place for all who need them.

    i, f, o = sigma(pre), g = tanh(pre)        gates from pre-activations
    c_t     = f_t c_(t-1) + i_t g_t            the scan
    both backwards (`walk_back_`), a whole pass (`run_`), and what is linear in what arrives (`walk_linearly_`)

Shapes are time-major, because a scan then reads and writes whole contiguous timesteps: gates (T, B, 4, H) in torch's
order i, f, g, o, cell (T, B, H), states before the first timestep (B, H). Functions whose name ends in "_" work in
place. float32 on the CPU runs compiled (`compiled.py`); every other type and device, and nonlinearities other than
sigma and tanh, run the same steps as torch operations, which are also the oracle of the compiled ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .activations import Activation
from .errors import ModelError
from .threads import count, share

MUCH_WORK = 2**21  # multiplications from which threads share them


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


class Weights:
    """What one direction multiplies with: weight_ih (4H, D), weight_hh (4H, H or projection), bias (4H,) or None."""

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None) -> None:
        self.ih = weight_ih
        self.hh = weight_hh
        self.bias = bias

    @cached_property
    def forwards(self) -> tuple[Tensor, Tensor]:
        """[W_ih, W_hh]^T and the bias, packed for the compiled kernels."""
        from .products import packed

        return packed(torch.cat([self.ih, self.hh], dim=1).T, self.bias)

    @cached_property
    def backwards(self) -> tuple[Tensor, Tensor]:
        """[W_hh, W_ih] and zeros, packed for the compiled kernels."""
        from .products import packed

        return packed(torch.cat([self.hh, self.ih], dim=1))


def rebuild_(
    inputs: Tensor,
    states: Tensor,
    weights: Weights,
    gates: Tensor,
    cell: Tensor,
    initial: Tensor,
    carry: Tensor,
    lengths: Tensor,
    offset: int,
    kind: Cell,
) -> None:
    """Write gates and cell state of timesteps whose states are known; both 0 at padding.

    Args:
        inputs: (T, B, D), contiguous.
        states: Hidden state that entered each timestep, (T, B, H or projection), contiguous.
        weights: What they are multiplied with.
        gates: (T, B, 4, H), contiguous; written.
        cell: (T, B, H), contiguous; written.
        initial: Cell state before each sequence's first timestep in reading order, (B, H).
        carry: Cell state before this block of timesteps in reading order, (B, H); read where a sequence goes on.
        lengths: Long (B,) on the CPU, contiguous.
        offset: Which timestep of the sequences the block begins with.
        kind: Nonlinearities and direction.
    """
    steps, batch = cell.shape[:2]
    if not cell.numel():
        return
    if kind.standard and is_compiled(gates):
        from . import compiled, products

        panels, added = weights.forwards
        job = new_job(gates, cell, initial, lengths, kind)
        job[compiled.FEATURES], job[compiled.WIDTH], job[compiled.OFFSET] = inputs.shape[2], states.shape[2], offset
        job[compiled.WEIGHTS : compiled.STATES + 1] = [address(part) for part in (panels, added, inputs, states)]
        job[compiled.CARRY] = address(carry)
        threads = count(steps * batch) if gates.numel() * (inputs.shape[2] + states.shape[2]) >= MUCH_WORK else 1
        if threads == 1 or batch >= threads * products.ROWS:
            job[compiled.PART], job[compiled.SHARES] = compiled.BOTH, _shares(batch, threads)
            share(compiled.run_task, job, threads)
            return
        job[compiled.PART], job[compiled.SHARES] = compiled.GATES_ALONE, 2 * threads  # a share is a stretch of time
        share(compiled.run_task, job, threads)
        job[compiled.PART], job[compiled.SHARES] = compiled.CELLS_ALONE, 1
        share(compiled.run_task, job, 1)
        return
    flat = gates.view(steps * batch, -1)
    torch.mm(inputs.view(steps * batch, -1), weights.ih.T, out=flat)
    flat.addmm_(states.view(steps * batch, -1), weights.hh.T)
    if weights.bias is not None:
        flat += weights.bias
    times = torch.arange(offset, offset + steps, device="cpu")[:, None]  # (T, 1)
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


def run_(
    inputs: Tensor,
    states: Tensor,
    weights: Weights,
    gates: Tensor,
    cell: Tensor,
    initial: Tensor,
    lengths: Tensor,
    kind: Cell,
    pre: Tensor | None = None,
) -> None:
    """Run a direction forwards: write gates, cell state and hidden state; for what `is_compiled` takes.

    Args:
        inputs: (T, B, D), contiguous.
        states: (T + 1, B, H), contiguous: where each sequence begins, the state that enters it; 0 elsewhere. Hidden
            states are written one row on in reading order, so that a row holds what enters the next timestep.
        weights: What they are multiplied with.
        gates: (T, B, 4, H), contiguous; written.
        cell: (T, B, H), contiguous; written.
        initial: Cell state before each sequence's first timestep in reading order, (B, H).
        lengths: Long (B,) on the CPU, contiguous.
        kind: sigma and tanh, and the direction.
        pre: Pre-activations (T, B, 4, H), contiguous; written where they are wanted.
    """
    from . import compiled

    batch, units = cell.shape[1:]
    first = 1 if kind.reverse else 0
    panels, added = weights.forwards
    job = new_job(gates, cell, initial, lengths, kind)
    job[compiled.PART], job[compiled.FEATURES], job[compiled.WIDTH] = compiled.FORWARDS, inputs.shape[2], units
    job[compiled.WEIGHTS : compiled.INPUTS + 1] = [address(part) for part in (panels, added, inputs)]
    job[compiled.STATES], job[compiled.HIDDEN] = address(states[first:]), address(states[1 - first :])
    job[compiled.CARRY] = address(initial)
    job[compiled.PRE] = 0 if pre is None else address(pre)
    share_batch(compiled.run_task, job, batch, gates.numel() * (inputs.shape[2] + units))


def is_compiled(tensor: Tensor) -> bool:
    """Whether a tensor is one of those that the compiled kernels take: plain float32 numbers on the CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter)


def walk_back_(
    gates: Tensor,
    cell: Tensor,
    initial: Tensor,
    lengths: Tensor,
    kind: Cell,
    weights: Weights,
    weight_hr: Tensor | None,
    hidden_grad: Tensor,
    cell_grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk one direction back in time (back-propagation through time, Werbos 1990), without dividing by any slope.

        dh_t += W_hh^T p_(t+1)
        dc_t += dh_t o_t phi'(c_t) + f_(t+1) dc_(t+1)
        di, df, dg, do = dc g, dc c_(t-1), dc i, dh phi(c)
        p = di sigma'(i), df sigma'(f), dg phi'(g), do sigma'(o)      gradient at the pre-activations
        dx_t = W_ih^T p_t

    Args:
        gates: (T, B, 4, H), 0 at padding.
        cell: (T, B, H), 0 at padding.
        initial: Cell state before each sequence's first timestep in reading order, (B, H).
        lengths: Long (B,) on the CPU.
        kind: Nonlinearities and direction.
        weights: What inputs and states were multiplied with.
        weight_hr: (projection, H), or None.
        hidden_grad: (T, B, H or projection): what arrives at each hidden state from outside the layer; 0 at padding.
            Total gradients afterwards.
        cell_grad: (T, B, H): the same of each cell state.

    Returns:
        Gradients at the gates (T, B, 4, H), at the pre-activations (T, B, 4, H), and at the inputs (T, B, D).
    """
    gate_grad, pre_grad = torch.empty_like(gates), torch.empty_like(gates)
    steps, batch, units = cell.shape
    if kind.standard and weight_hr is None and is_compiled(gates):
        from . import compiled, compiled_back

        features = weights.ih.shape[1]
        input_grad = gates.new_empty(steps, batch, features)
        panels, added = weights.backwards
        job = new_job(gates, cell, initial, lengths, kind)
        job[compiled.PART] = compiled.GRADIENTS
        job[compiled.FEATURES], job[compiled.WEIGHTS], job[compiled.ADDED] = features, address(panels), address(added)
        grads = (hidden_grad, cell_grad, gate_grad, pre_grad, input_grad)
        job[compiled.HIDDEN_GRAD : compiled.INPUT_GRAD + 1] = [address(part) for part in grads]
        share_batch(compiled_back.walk_task, job, batch, gates.numel() * (units + features))
        return gate_grad, pre_grad, input_grad
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
            hidden_grad[kind.earlier(t)].addmm_(pre_grad[t].view(batch, -1), weights.hh)
    padding = (torch.arange(steps, device="cpu")[:, None] >= lengths).to(cell.device)  # (T, B)
    if bool(padding.any()):
        for part in (gate_grad, pre_grad, hidden_grad, cell_grad):
            part.masked_fill_(padding.view(steps, batch, *[1] * (part.ndim - 2)), 0)
    return gate_grad, pre_grad, pre_grad.view(steps, batch, -1) @ weights.ih


def walk_linearly_(
    cell_factor: Tensor,
    carry_factor: Tensor,
    gate_factor: Tensor,
    weights: Weights,
    hidden: Tensor,
    *,
    reverse: bool,
) -> Tensor:
    """Walk one direction back in time by factors: what gradients are of, and every rule that is linear as they are.

        m_c(t) = m_h(t) cell_factor(t) + carry_factor(t+1) m_c(t+1)
        p      = m_c gate_factor (i, f, g), m_h gate_factor (o)
        m_h(t-1) += W_hh^T p,   m_x(t) = W_ih^T p

    Args:
        cell_factor: What a hidden state gives to its cell, (T, B, H); all contiguous, 0 at padding.
        carry_factor: What a cell gives to the one before it, (T, B, H).
        gate_factor: What reaches the pre-activations, (T, B, 4, H): i, f, g from the cell, o from the hidden state.
        weights: What inputs and states were multiplied with.
        hidden: What arrives at each hidden state from outside the layer, (T, B, H). The total afterwards.
        reverse: Whether time is read from the last valid timestep to the first.

    Returns:
        What arrives at the inputs, (T, B, D).
    """
    steps, batch, units = hidden.shape
    shapes = [tuple(part.shape) for part in (cell_factor, carry_factor, gate_factor, weights.hh)]
    if shapes != [(steps, batch, units), (steps, batch, units), (steps, batch, 4, units), (4 * units, units)]:
        raise ModelError(f"factors and recurrent weights of shapes {shapes} do not fit hidden {tuple(hidden.shape)}.")
    if is_compiled(hidden):
        from . import compiled, compiled_back

        features = weights.ih.shape[1]
        inputs, carried = hidden.new_empty(steps, batch, features), hidden.new_zeros(batch, units)
        panels, added = weights.backwards
        job = np.zeros(compiled.NUMBERS, dtype=np.int64)
        job[compiled.PART], job[compiled.REVERSE] = compiled.FACTORS, reverse
        job[compiled.STEPS : compiled.FEATURES + 1] = steps, batch, units, features
        job[compiled.WEIGHTS], job[compiled.ADDED] = address(panels), address(added)
        factors = (cell_factor, carry_factor, gate_factor)
        job[compiled.CELL_FACTOR : compiled.GATE_FACTOR + 1] = [address(part) for part in factors]
        job[compiled.HIDDEN_GRAD], job[compiled.CELL_GRAD] = address(hidden), address(carried)
        job[compiled.INPUT_GRAD] = address(inputs)
        share_batch(compiled_back.walk_task, job, batch, gate_factor.numel() * (units + features))
        return inputs
    pre = torch.empty_like(gate_factor)
    running = torch.zeros_like(hidden[0])
    order = range(steps) if reverse else reversed(range(steps))
    for t in order:
        earlier = t + 1 if reverse else t - 1
        cell = torch.addcmul(running, hidden[t], cell_factor[t])
        running = cell * carry_factor[t]
        pre[t, :, :3] = cell[:, None] * gate_factor[t, :, :3]
        pre[t, :, 3] = hidden[t] * gate_factor[t, :, 3]
        if 0 <= earlier < steps:
            hidden[earlier].addmm_(pre[t].view(batch, -1), weights.hh)
    return pre.view(steps, batch, -1) @ weights.ih


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
        padding = torch.arange(cell.shape[0], device="cpu")[:, None] >= lengths
        previous.masked_fill_(padding.to(cell.device)[..., None], 0)
    return previous


def share_batch(task: Any, job: NDArray[np.int64], batch: int, work: int) -> None:
    """Let threads share a batch, tile by tile, where there are enough multiplications (`work`) for them."""
    from . import compiled, products

    threads = count(-(-batch // products.ROWS)) if work >= MUCH_WORK else 1
    job[compiled.SHARES] = _shares(batch, threads)
    share(task, job, threads)


def _shares(batch: int, threads: int) -> int:
    """Return in how many parts threads take a batch: some each, so that one that is held up holds up no other."""
    from .products import ROWS

    return 1 if threads == 1 else min(2 * threads, -(-batch // ROWS))


def address(tensor: Tensor) -> int:
    """Return where a tensor's numbers lie; refuse one that has none there, as the kernels do not look."""
    plain = tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    if not plain or not tensor.is_contiguous() or tensor.is_neg():
        raise ModelError(
            f"the compiled kernels take plain contiguous tensors on the CPU, and this is a {type(tensor).__name__} on "
            f"{tensor.device} ({tensor.layout}, strides {tuple(tensor.stride())}). record(..., bitwise=True) may help."
        )
    return tensor.data_ptr()


def new_job(gates: Tensor, cell: Tensor, initial: Tensor, lengths: Tensor, kind: Cell) -> NDArray[np.int64]:
    """Return a job for a compiled task; the caller keeps the tensors alive, because it holds their addresses."""
    from . import compiled

    steps, batch, units = cell.shape
    shapes = [tuple(part.shape) for part in (gates, initial, lengths)]
    if shapes != [(steps, batch, 4, units), (batch, units), (batch,)]:
        raise ModelError(f"gates, initial cells and lengths of shapes {shapes} do not fit cells {tuple(cell.shape)}.")
    job = np.zeros(compiled.NUMBERS, dtype=np.int64)
    job[compiled.STEPS], job[compiled.BATCH], job[compiled.UNITS] = steps, batch, units
    job[compiled.REVERSE] = kind.reverse
    job[compiled.GATES], job[compiled.CELL] = address(gates), address(cell)
    job[compiled.INITIAL], job[compiled.LENGTHS] = address(initial), address(lengths)
    return job
