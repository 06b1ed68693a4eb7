"""The float32 kernels that numba compiles for the way back in time: gradients, or anything that goes back by factors.

The walk goes tile by tile, from a sequence's last timestep to its first: a step fills what arrives at each row's
pre-activations, one product hands it down to the state before and to the inputs. The factors of differences of two runs
are made beforehand (within the walk they take longer). `kernels.py` and `differences.py` say what is computed, and do
the same in plain torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import (
    ADDED,
    BASE_BATCH,
    BASE_CELL,
    BASE_GATES,
    BASE_INITIAL,
    BASE_PRE,
    BATCH,
    CARRY_FACTOR,
    CELL,
    CELL_FACTOR,
    CELL_GRAD,
    FACTORS,
    FEATURES,
    GATE_FACTOR,
    GATE_GRAD,
    GATES,
    HALF,
    HIDDEN_GRAD,
    INITIAL,
    INPUT_GRAD,
    LENGTHS,
    NUMBERS,
    ONE,
    PART,
    PRE,
    PRE_GRAD,
    REVERSE,
    SHARES,
    STEPS,
    UNITS,
    WEIGHTS,
    ZERO,
    Array,
    _compile,
    _pointer,
    _take_ticket,
    _tanh,
    _task,
    carray,
    f32,
    multiply,
)
from .products import COLUMNS, ROWS

SMALL = f32(1e-3)  # a difference below which a nonlinearity has a slope


# -- gradients -------------------------------------------------------------------------------------------------------


@_compile()
def _cell_back(
    gates: Array, cell: Array, hidden_grad: Array, cell_grad: Array, gate_grad: Array, t: int, b: int
) -> None:
    for j in range(cell.shape[2]):
        shown = _tanh(cell[t, b, j])
        cell_grad[t, b, j] += hidden_grad[t, b, j] * gates[t, b, 3, j] * (ONE - shown * shown)
        gate_grad[t, b, 3, j] = hidden_grad[t, b, j] * shown


@_compile()
def _gates_back(gates: Array, cell_grad: Array, previous: Array, at: int, gate_grad: Array, t: int, b: int) -> None:
    for j in range(cell_grad.shape[2]):
        gate_grad[t, b, 0, j] = cell_grad[t, b, j] * gates[t, b, 2, j]
        gate_grad[t, b, 1, j] = cell_grad[t, b, j] * previous[at, b, j]
        gate_grad[t, b, 2, j] = cell_grad[t, b, j] * gates[t, b, 0, j]


@_compile()
def _pre_activations_back(gates: Array, gate_grad: Array, pre_grad: Array, t: int, b: int) -> None:
    for j in range(gates.shape[3]):
        i, f, g, o = gates[t, b, 0, j], gates[t, b, 1, j], gates[t, b, 2, j], gates[t, b, 3, j]
        pre_grad[t, b, 0, j] = gate_grad[t, b, 0, j] * i * (ONE - i)
        pre_grad[t, b, 1, j] = gate_grad[t, b, 1, j] * f * (ONE - f)
        pre_grad[t, b, 2, j] = gate_grad[t, b, 2, j] * (ONE - g * g)
        pre_grad[t, b, 3, j] = gate_grad[t, b, 3, j] * o * (ONE - o)


@_compile()
def _carry_back(gates: Array, cell_grad: Array, later: int, t: int, b: int) -> None:
    for j in range(cell_grad.shape[2]):
        cell_grad[t, b, j] += gates[later, b, 1, j] * cell_grad[later, b, j]


@_compile()
def _step_of_gradients(job: Any, t: int, b: int, hidden_grad: Array) -> None:
    """Fill cell_grad, gate_grad and pre_grad of one timestep and sequence from hidden_grad; all are 0 at padding."""
    steps, batch, units, reverse = job[STEPS], job[BATCH], job[UNITS], job[REVERSE] != 0
    gates = carray(_pointer(job[GATES]), (steps, batch, 4, units), f32)
    cell = carray(_pointer(job[CELL]), (steps, batch, units), f32)
    lengths = carray(_pointer(job[LENGTHS]), batch, np.int64)
    cell_grad = carray(_pointer(job[CELL_GRAD]), (steps, batch, units), f32)
    gate_grad = carray(_pointer(job[GATE_GRAD]), (steps, batch, 4, units), f32)
    pre_grad = carray(_pointer(job[PRE_GRAD]), (steps, batch, 4, units), f32)
    if t >= lengths[b]:
        hidden_grad[t, b] = ZERO
        cell_grad[t, b] = ZERO
        gate_grad[t, b] = ZERO
        pre_grad[t, b] = ZERO
        return
    later, earlier = (t - 1, t + 1) if reverse else (t + 1, t - 1)
    if 0 <= later < steps:
        _carry_back(gates, cell_grad, later, t, b)
    _cell_back(gates, cell, hidden_grad, cell_grad, gate_grad, t, b)
    if t < lengths[b] - 1 if reverse else t > 0:
        _gates_back(gates, cell_grad, cell, earlier, gate_grad, t, b)
    else:
        initial = carray(_pointer(job[INITIAL]), (1, batch, units), f32)
        _gates_back(gates, cell_grad, initial, 0, gate_grad, t, b)
    _pre_activations_back(gates, gate_grad, pre_grad, t, b)


# -- factors ---------------------------------------------------------------------------------------------------------


@_compile()
def _step_linearly(
    cell_factor: Array, carry_factor: Array, gate_factor: Array, row: int, hidden: Array, running: Array,
    t: int, b: int, pre: Array, at: int,
) -> None:  # fmt: skip
    """Fill one row of `pre` (., 4H), and take `running`, what the cell has carried here, one step on."""
    units = running.shape[1]
    for j in range(units):
        at_hidden = hidden[t, b, j]
        at_cell = running[b, j] + at_hidden * cell_factor[row, j]
        running[b, j] = at_cell * carry_factor[row, j]
        pre[at, j] = at_cell * gate_factor[row, j]
        pre[at, units + j] = at_cell * gate_factor[row, units + j]
        pre[at, 2 * units + j] = at_cell * gate_factor[row, 2 * units + j]
        pre[at, 3 * units + j] = at_hidden * gate_factor[row, 3 * units + j]


# -- differences of two runs -----------------------------------------------------------------------------------------


@_compile(inline=True)
def _sigma_slope(x: Any, base_x: Any, y: Any, base_y: Any, small: Any) -> Any:
    """Return (y - y0) / (x - x0); for a small difference the slope at the mean output."""
    mean = HALF * (y + base_y)
    difference = x - base_x
    near = abs(difference) < small
    return mean * (ONE - mean) if near else (y - base_y) / difference


@_compile(inline=True)
def _tanh_slope(x: Any, base_x: Any, y: Any, base_y: Any, small: Any) -> Any:
    mean = HALF * (y + base_y)
    difference = x - base_x
    near = abs(difference) < small
    return ONE - mean * mean if near else (y - base_y) / difference


@_compile()
def _write_slopes(
    gates: Array, pre: Array, base_gates: Array, base_pre: Array, gate_factor: Array, t: int, b: int, r: int
) -> None:
    """Fill gate_factor with slopes. Few arrays a loop, because LLVM vectorises none that may overlap in many ways."""
    for gate in range(4):
        if gate == 2:
            for j in range(gates.shape[3]):
                gate_factor[t, b, 2, j] = _tanh_slope(
                    pre[t, b, 2, j], base_pre[t, r, 2, j], gates[t, b, 2, j], base_gates[t, r, 2, j], SMALL
                )
        else:
            for j in range(gates.shape[3]):
                gate_factor[t, b, gate, j] = _sigma_slope(
                    pre[t, b, gate, j], base_pre[t, r, gate, j], gates[t, b, gate, j], base_gates[t, r, gate, j], SMALL
                )


@_compile()
def _write_cell_factors(
    gates: Array, cell: Array, base_gates: Array, base_cell: Array, cell_factor: Array, carry_factor: Array,
    gate_factor: Array, t: int, b: int, r: int,
) -> None:  # fmt: skip
    for j in range(cell.shape[2]):
        shown, base_shown = _tanh(cell[t, b, j]), _tanh(base_cell[t, r, j])
        slope = _tanh_slope(cell[t, b, j], base_cell[t, r, j], shown, base_shown, SMALL)
        cell_factor[t, b, j] = HALF * (gates[t, b, 3, j] + base_gates[t, r, 3, j]) * slope
        gate_factor[t, b, 3, j] *= HALF * (shown + base_shown)
    for j in range(cell.shape[2]):
        carry_factor[t, b, j] = HALF * (gates[t, b, 1, j] + base_gates[t, r, 1, j])


@_compile()
def _multiply_partners(
    gates: Array, before: Array, at: int, base_gates: Array, base_before: Array, base_at: int, gate_factor: Array,
    t: int, b: int, r: int,
) -> None:  # fmt: skip
    for j in range(gates.shape[3]):
        gate_factor[t, b, 0, j] *= HALF * (gates[t, b, 2, j] + base_gates[t, r, 2, j])
        gate_factor[t, b, 2, j] *= HALF * (gates[t, b, 0, j] + base_gates[t, r, 0, j])
    for j in range(gates.shape[3]):
        gate_factor[t, b, 1, j] *= HALF * (before[at, b, j] + base_before[base_at, r, j])


@_task
def factors_task(address: int) -> None:
    """`differences.difference_factors` for a job, until no share of the batch is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    steps, batch, units, reverse = job[STEPS], job[BATCH], job[UNITS], job[REVERSE] != 0
    base_batch = job[BASE_BATCH]
    gates = carray(_pointer(job[GATES]), (steps, batch, 4, units), f32)
    cell = carray(_pointer(job[CELL]), (steps, batch, units), f32)
    pre = carray(_pointer(job[PRE]), (steps, batch, 4, units), f32)
    initial = carray(_pointer(job[INITIAL]), (1, batch, units), f32)
    base_gates = carray(_pointer(job[BASE_GATES]), (steps, base_batch, 4, units), f32)
    base_cell = carray(_pointer(job[BASE_CELL]), (steps, base_batch, units), f32)
    base_pre = carray(_pointer(job[BASE_PRE]), (steps, base_batch, 4, units), f32)
    base_initial = carray(_pointer(job[BASE_INITIAL]), (1, base_batch, units), f32)
    lengths = carray(_pointer(job[LENGTHS]), batch, np.int64)
    cell_factor = carray(_pointer(job[CELL_FACTOR]), (steps, batch, units), f32)
    carry_factor = carray(_pointer(job[CARRY_FACTOR]), (steps, batch, units), f32)
    gate_factor = carray(_pointer(job[GATE_FACTOR]), (steps, batch, 4, units), f32)
    shares = job[SHARES]
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        for t in range(steps):
            for b in range(batch * share // shares, batch * (share + 1) // shares):
                r = b if base_batch == batch else 0
                earlier = t + 1 if reverse else t - 1
                if t >= lengths[b]:
                    cell_factor[t, b] = ZERO
                    carry_factor[t, b] = ZERO
                    gate_factor[t, b] = ZERO
                    continue
                _write_slopes(gates, pre, base_gates, base_pre, gate_factor, t, b, r)
                _write_cell_factors(gates, cell, base_gates, base_cell, cell_factor, carry_factor, gate_factor, t, b, r)
                if t == (lengths[b] - 1 if reverse else 0):
                    _multiply_partners(gates, initial, 0, base_gates, base_initial, 0, gate_factor, t, b, r)
                else:
                    _multiply_partners(gates, cell, earlier, base_gates, base_cell, earlier, gate_factor, t, b, r)


# -- the walk --------------------------------------------------------------------------------------------------------


@_compile()
def _hand_down(room: Array, at: int, hidden_grad: Array, earlier: int, input_grad: Array, t: int, b: int) -> None:
    """Take one row of pre_grad @ [W_hh, W_ih] apart."""
    units = hidden_grad.shape[2]
    if 0 <= earlier < hidden_grad.shape[0]:
        for j in range(units):
            hidden_grad[earlier, b, j] += room[at, j]
    for j in range(input_grad.shape[2]):
        input_grad[t, b, j] = room[at, units + j]


@_task
def walk_task(address: int) -> None:
    """`kernels.walk_back_` or `walk_linearly_` for a job, until no share of the batch is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    part, steps, batch, units, reverse = job[PART], job[STEPS], job[BATCH], job[UNITS], job[REVERSE] != 0
    every, depth, shares = steps * batch, 4 * units, job[SHARES]
    hidden = carray(_pointer(job[HIDDEN_GRAD]), (steps, batch, units), f32)
    inputs = carray(_pointer(job[INPUT_GRAD]), (steps, batch, job[FEATURES]), f32)
    running = carray(_pointer(job[CELL_GRAD]), (batch, units), f32)  # but for gradients, which keep all timesteps
    of_cell = carray(_pointer(job[CELL_FACTOR]), (every, units), f32)
    of_carry = carray(_pointer(job[CARRY_FACTOR]), (every, units), f32)
    of_gates = carray(_pointer(job[GATE_FACTOR]), (every, depth), f32)
    arriving = np.empty((ROWS, depth), dtype=f32)  # at the pre-activations of a tile
    room = np.empty((ROWS, -(-(units + job[FEATURES]) // COLUMNS) * COLUMNS), dtype=f32)
    tiles = -(-batch // ROWS)
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        start = min(batch, ROWS * (tiles * share // shares))
        stop = min(batch, ROWS * (tiles * (share + 1) // shares))
        for step in range(steps):
            t, earlier = (step, step + 1) if reverse else (steps - 1 - step, steps - 2 - step)
            done = start
            while done < stop:
                rows = 1 if stop - start < ROWS else ROWS
                b = min(done, stop - rows)  # the last tile overlaps the one before
                source = arriving.ctypes.data
                for at in range(done - b, rows):
                    if part == FACTORS:
                        row = t * batch + b + at
                        _step_linearly(of_cell, of_carry, of_gates, row, hidden, running, t, b + at, arriving, at)
                    else:
                        _step_of_gradients(job, t, b + at, hidden)
                        source = job[PRE_GRAD] + 4 * (t * batch + b) * depth
                multiply(rows, source, depth, depth, 0, 0, 0, job[WEIGHTS], job[ADDED], room.ctypes.data, room.shape[1])
                for at in range(done - b, rows):
                    _hand_down(room, at, hidden, earlier, inputs, t, b + at)
                done = b + rows
