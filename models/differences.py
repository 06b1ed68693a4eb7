"""Differences of two runs of an LSTM direction, passed back through its gates without loss (DeepLIFT's rules).

Products give each side its mean: o phi(c) -> o (phi + phi0) / 2, ...; nonlinearities their quotient of differences or,
where these are small, the slope at the mean output. Source: Shrikumar, Greenside & Kundaje 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .activations import ACTIVATIONS, Activation
from .kernels import Cell, address, is_compiled, new_job, previous_cells, share_batch

COMPILED_SMALL = 1e-3  # the one threshold that the compiled factors know
SMOOTH = (ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"])


@dataclass(frozen=True, eq=False)
class Side:
    """One of two runs of a direction that are compared, time-major.

    Attributes:
        gates: (T, B, 4, H).
        cell: (T, B, H).
        pre: Pre-activations (T, B, 4, H).
        initial: Cell state before the first timestep, (B, H).
    """

    gates: Tensor
    cell: Tensor
    pre: Tensor
    initial: Tensor


def difference_factors(
    run: Side, base: Side, lengths: Tensor, kind: Cell, small: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of `walk_linearly_` that pass differences of two runs back without loss (see `deeplift.py`).

    Args:
        run: A run on B sequences.
        base: One on as many, or on one that stands for all.
        lengths: Long (B,) on the CPU.
        kind: Nonlinearities and direction.
        small: Differences below which smooth nonlinearities have a slope.

    Returns:
        cell_factor (T, B, H), carry_factor (T, B, H), gate_factor (T, B, 4, H); 0 at padding.
    """
    cell_factor, carry_factor = torch.empty_like(run.cell), torch.empty_like(run.cell)
    gate_factor = torch.empty_like(run.gates)
    if kind.standard and is_compiled(run.cell) and small == COMPILED_SMALL:
        from . import compiled, compiled_back

        job = new_job(run.gates, run.cell, run.initial, lengths, kind)
        new_job(base.gates, base.cell, base.initial, lengths[: len(base.initial)], kind)  # refuses what does not fit
        job[compiled.PRE], job[compiled.BASE_BATCH] = address(run.pre), len(base.initial)
        sides = (base.gates, base.cell, base.pre, base.initial)
        job[compiled.BASE_GATES : compiled.BASE_INITIAL + 1] = [address(part) for part in sides]
        factors = (cell_factor, carry_factor, gate_factor)
        job[compiled.CELL_FACTOR : compiled.GATE_FACTOR + 1] = [address(part) for part in factors]
        share_batch(compiled_back.factors_task, job, run.cell.shape[1], 16 * gate_factor.numel())
        return factors
    for index in range(4):
        function = kind.shown if index == 2 else kind.gate
        x, base_x = run.pre[:, :, index], base.pre[:, :, index]
        y, base_y = run.gates[:, :, index], base.gates[:, :, index]
        gate_factor[:, :, index] = difference_slope(function, x, y, base_x, base_y, small)
    shown, base_shown = (kind.shown.function(side.cell) for side in (run, base))
    i, f, g, o = ((run.gates + base.gates) / 2).unbind(dim=2)
    torch.mul(o, difference_slope(kind.shown, run.cell, shown, base.cell, base_shown, small), out=cell_factor)
    carry_factor.copy_(f)
    before = previous_cells(run.cell, run.initial, lengths, kind)
    base_before = previous_cells(base.cell, base.initial, lengths[: len(base.initial)], kind)
    gate_factor.mul_(torch.stack([g, (before + base_before) / 2, i, (shown + base_shown) / 2], dim=2))
    padding = (torch.arange(len(run.cell), device="cpu")[:, None] >= lengths).to(run.cell.device)  # (T, B)
    if bool(padding.any()):
        for part in (cell_factor, carry_factor, gate_factor):
            part.masked_fill_(padding.view(*padding.shape, *[1] * (part.ndim - 2)), 0)
    return cell_factor, carry_factor, gate_factor


def difference_slope(
    function: Activation, x: Tensor, y: Tensor, base_x: Tensor, base_y: Tensor, small: float
) -> Tensor:
    """Return (y - y0) / (x - x0); where that is nearly 0 / 0, the slope at the mean of both outputs.

    A function with a corner has no such slope there, and its straight parts lose nothing: only 0 / 0 counts.
    """
    difference = x - base_x
    near = difference.abs() < small if function in SMOOTH else difference == 0
    return torch.where(near, function.slope((y + base_y) / 2), (y - base_y) / torch.where(near, 1, difference))
