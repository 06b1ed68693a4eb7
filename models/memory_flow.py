"""Memory flow: what each timestep wrote into the cell, and how much of it is still there at the end.

Unrolling c_t = f_t c_(t-1) + i_t g_t (Gers et al. 2000) from the first to the last timestep that a layer reads gives

    c_last = e_1 + ... + e_T + f_1 ... f_T c_0        e_t = (f_(t+1) ... f_T) i_t g_t

so the flows e_t share out the last cell state among timesteps, with nothing left over but what remains of the state
that the layer began with. A reverse direction reads from the last valid timestep to the first: it ends at timestep 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import InvalidInputError
from .inputs import check_lengths, valid_mask
from .trace import LayerTrace, Trace

NEEDED = ("input_gate", "forget_gate", "candidate")
ROUNDING = 32  # times the precision of the numbers: two that are equal but for rounding


@dataclass(frozen=True, eq=False)
class MemoryFlow:
    """What the timesteps of one layer and direction left in its cell; tensors (B, T, H), 0 where nothing was read.

    Attributes:
        written: i g, what each timestep wrote.
        survival: The share of it that is left at the end: the product of all later forget gates.
        flow: written * survival, in units of the cell state; over time it sums to the last cell state, less what is
            left of the initial one.
        reverse: Whether the layer reads from the last timestep to the first.
    """

    written: Tensor
    survival: Tensor
    flow: Tensor
    reverse: bool


def memory_flow(trace: Trace, lengths: Any = None) -> dict[str, MemoryFlow]:
    """Return layer name -> what each timestep left in the cell.

    Args:
        trace: What recording returned, with the input gate, the forget gate and the candidate.
        lengths: Long (B,), where sequences end, if earlier than the trace knows (a module that was recorded with
            padding, or a loop over cells).

    Raises:
        InvalidInputError: A gate was not recorded, or the cell states do not follow from the gates.
    """
    if not len(trace):
        return {}
    batch, steps, _ = next(iter(trace.values())).shape
    known = trace.lengths if lengths is None else check_lengths(lengths, batch, steps)
    flows = {}
    for name, layer in trace.items():
        missing = [quantity for quantity in NEEDED if quantity not in layer.quantities()]
        if missing:
            raise InvalidInputError(
                f"memory flow needs {', '.join(NEEDED)}, and the trace of {name} lacks {', '.join(missing)}; record "
                f"all: record(module, quantities={NEEDED!r}), or leave quantities out."
            )
        read = layer.timesteps_read()  # (B, T)
        if layer.shape[1] == steps:  # else it reads a sequence of its own, of which the lengths say nothing
            read = read & valid_mask(known, steps).to(read.device)
        flows[name] = layer_flow(layer, read, reverse=_reads_backwards(name, layer, read))
    return flows


def layer_flow(layer: LayerTrace, read: Tensor, *, reverse: bool) -> MemoryFlow:
    """Return the flow of one layer.

    Args:
        layer: Gates (B, T, H).
        read: Bool (B, T), which timesteps were read: not padding, and not skipped by a mask.
        reverse: Whether they were read from the last to the first.
    """
    there = read[..., None]
    written = _written(layer).masked_fill(~there, 0)  # (B, T, H)
    kept = _exact(layer.forget_gate).masked_fill(~there, 1)  # what is not read forgets nothing
    last = torch.ones_like(kept[:, :1])
    if reverse:
        survival = torch.cat([last, kept[:, :-1]], dim=1).cumprod(dim=1)
    else:
        survival = torch.cat([kept[:, 1:], last], dim=1).flip(1).cumprod(dim=1).flip(1)
    survival = survival.masked_fill(~there, 0)
    return MemoryFlow(written, survival, written * survival, reverse)


def _written(layer: LayerTrace) -> Tensor:
    return _exact(layer.input_gate) * _exact(layer.candidate)


def _exact(values: Tensor) -> Tensor:
    """Return numbers in which long products keep their digits: float32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def _reads_backwards(name: str, layer: LayerTrace, read: Tensor) -> bool:
    """Return in which order a layer reads: what its name says, unless its cell states show the other.

    A Keras layer with `go_backwards` is no ".reverse" direction of another, and reads backwards all the same.
    """
    named = ".reverse" in name
    if "cell_state" not in layer.quantities():
        return named
    size = float((layer.cell_state * read[..., None]).abs().max())
    precision = torch.finfo(layer.cell_state.dtype).eps
    off = _off(layer, read, reverse=named)
    if not off > ROUNDING * precision * size:
        return named
    other = _off(layer, read, reverse=not named)
    if min(off, other) > 3 * precision**0.5 * size:
        raise InvalidInputError(
            f"the cell states of {name} do not follow from its gates (off by up to {off:.2g}): either the model "
            "changes the state between timesteps, or sequences end earlier than the trace knows (pass lengths), or "
            "these are gradients rather than values."
        )
    return named if off <= other else not named


def _off(layer: LayerTrace, read: Tensor, *, reverse: bool) -> float:
    """Return by how much c_t differs from f_t c_(t-1) + i_t g_t at most, if timesteps are read in this order."""
    forget, cell, written = _exact(layer.forget_gate), _exact(layer.cell_state), _written(layer)
    if reverse:
        forget, cell, written, read = (part.flip(1) for part in (forget, cell, written, read))
    steps = torch.arange(read.shape[1], device=read.device)
    newest = torch.where(read, steps, -1).cummax(dim=1).values  # (B, T): the last timestep read, this one included
    before = newest[:, :-1]
    known = read[:, 1:] & (before >= 0)  # the first one read met a state that the trace does not hold
    if not bool(known.any()):
        return 0.0
    met = cell.gather(1, before.clamp(min=0)[..., None].expand(-1, -1, cell.shape[2]))
    off = cell[:, 1:] - forget[:, 1:] * met - written[:, 1:]  # (B, T - 1, H)
    return float(off[known].abs().max())
