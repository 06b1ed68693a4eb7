"""The float32 kernels that numba compiles: an LSTM's elementwise work in one pass over memory, forwards and backwards.

Shapes are time-major: gates (T, B, 4, H) in torch's order i, f, g, o, cell and hidden (T, B, H), states that precede
the first timestep (1, B, H), each contiguous. A kernel works on the rows start..stop of the batch, so that threads
share nothing. `kernels.py` says what they compute, and does the same in plain torch.

sigma and tanh both come from e = exp(y) - 1, without cancellation where y is small:

    sigma(x) = 1 / (2 + e),  y = -x        tanh(x) = e / (2 + e),  y = 2x

and e from y = n ln 2 + r, |r| <= ln(2)/2: e = 2^n (exp(r) - 1) + (2^n - 1), with Taylor's polynomial for exp(r) - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

f32 = np.float32
ZERO, ONE, TWO = f32(0), f32(1), f32(2)
LOG2_E, LN_2 = f32(1.4426950408889634), f32(0.6931471805599453)
# Adding 1.5 * 2^23 rounds a float32 to a whole number, which then stands in its lowest bits.
ROUNDER = f32(12582912.0)
FLOAT_ONE_BITS, MANTISSA_BITS = np.int32(0x3F800000), np.int32(23)
LARGEST = f32(87.0)  # exp(88.8) overflows
C6, C5, C4, C3, C2 = f32(1 / 720), f32(1 / 120), f32(1 / 24), f32(1 / 6), f32(1 / 2)
TILE = 1024  # numbers activated in one loop; long enough to hide what a loop costs, small enough for the first cache


OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}  # fused multiply-adds, nothing looser

# A job, int64: what a task needs to know. The first number counts the shares of the batch that threads have taken.
TICKET, SHARES, STEPS, BATCH, UNITS, REVERSE, AT = range(7)
GATES, CELL, INITIAL, CARRY, LENGTHS = range(7, 12)  # addresses of arrays
HIDDEN_GRAD, CELL_GRAD, GATE_GRAD, PRE_GRAD = range(12, 16)
NUMBERS = 16


def _compile(*, inline: bool = False) -> Callable[[Function], Function]:
    """Return a decorator that compiles, and keeps the machine code on disk where it can."""
    options: dict[str, Any] = {**OPTIONS, "nogil": True, **({"inline": "always"} if inline else {})}

    def decorate(function: Function) -> Function:
        try:
            return numba.njit(cache=not inline, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder to keep it in
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate


def _task(function: Callable[[int], None]) -> Any:
    """Compile a C function of a job's address, for `threads.share`."""
    try:
        return numba.cfunc("void(int64)", cache=True, **OPTIONS)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.cfunc("void(int64)", **OPTIONS)(function)


def _bitcast(source: Any, result: Any, llvm_type: Any) -> Any:
    def typed(_typing_context: Any, value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], llvm_type)

        return (result(source), generate) if value == source else None

    return intrinsic(typed)


_bits = _bitcast(types.float32, types.int32, ir.IntType(32))
_float = _bitcast(types.int32, types.float32, ir.FloatType())


def _as_pointer(_typing_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


def _count_one(_typing_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        counter = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(address), generate


_pointer: Any = intrinsic(_as_pointer)
_take_ticket: Any = intrinsic(_count_one)  # adds 1 to the number at an address and returns what it was, atomically
carray: Any = numba.carray  # type: ignore[attr-defined]


@_compile(inline=True)
def _exp_minus_one(y: Any) -> Any:
    """Return exp(y) - 1 to float32's precision, y cut to what float32 holds."""
    y = min(y, LARGEST)  # not min and max: NaN stays NaN
    y = max(y, -LARGEST)
    shifted = y * LOG2_E + ROUNDER
    r = y - (shifted - ROUNDER) * LN_2
    series = ((((C6 * r + C5) * r + C4) * r + C3) * r + C2) * r * r + r
    power = _float(np.int32(np.int32(_bits(shifted) << MANTISSA_BITS) + FLOAT_ONE_BITS))  # 2^n
    return power * series + (power - ONE)


@_compile()
def _activate(values: Array, factor: Array, is_tanh: Array, is_sigma: Array) -> None:
    """Put sigma or tanh of each value (n,) in its place: (factor, is_tanh, is_sigma) = (-1, 0, 1) or (2, 1, 0)."""
    for j in range(values.shape[0]):
        e = _exp_minus_one(values[j] * factor[j])
        values[j] = (is_tanh[j] * e + is_sigma[j]) / (e + TWO)


@_compile()
def _write_cell(gates: Array, cell: Array, previous: Array, at: int, t: int, b: int) -> None:
    """Fill one row of the cell; rows are indexed, not sliced, because a slice costs as much as 30 units."""
    for j in range(cell.shape[2]):
        cell[t, b, j] = gates[t, b, 1, j] * previous[at, b, j] + gates[t, b, 0, j] * gates[t, b, 2, j]


@_compile()
def scan_rows(
    gates: Array, cell: Array, carry: Array, initial: Array, lengths: Any, offset: int, reverse: bool,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Turn pre-activations into gates, in place, and fill the cell state; see `kernels.scan_`."""
    steps, _, units = cell.shape
    tiles = max(1, TILE // (4 * units))
    factor = np.full((tiles, 4, units), -ONE)
    is_tanh = np.zeros((tiles, 4, units), dtype=f32)
    factor[:, 2] = TWO
    is_tanh[:, 2] = ONE
    factors, are_tanh, are_sigma = factor.reshape(-1), is_tanh.reshape(-1), ONE - is_tanh.reshape(-1)
    size = factors.shape[0]
    for step in range(steps):
        t = steps - 1 - step if reverse else step
        flat = gates[t, start:stop].reshape(-1)
        for begin in range(0, flat.shape[0], size):
            _activate(flat[begin : begin + size], factors, are_tanh, are_sigma)
        for b in range(start, stop):
            if offset + t >= lengths[b]:
                gates[t, b] = ZERO
                cell[t, b] = ZERO
            elif offset + t == (lengths[b] - 1 if reverse else 0):
                _write_cell(gates, cell, initial, 0, t, b)
            elif step == 0:
                _write_cell(gates, cell, carry, 0, t, b)
            else:
                _write_cell(gates, cell, cell, t + 1 if reverse else t - 1, t, b)


@_task
def scan_task(address: int) -> None:
    """`scan_rows` for a `Job`, until no share of the batch is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    steps, batch, units = job[STEPS], job[BATCH], job[UNITS]
    gates = carray(_pointer(job[GATES]), (steps, batch, 4, units), f32)
    cell = carray(_pointer(job[CELL]), (steps, batch, units), f32)
    initial = carray(_pointer(job[INITIAL]), (1, batch, units), f32)
    carry = carray(_pointer(job[CARRY]), (1, batch, units), f32)
    lengths = carray(_pointer(job[LENGTHS]), batch, np.int64)
    shares = job[SHARES]
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        scan_rows(
            gates, cell, carry, initial, lengths, job[AT], job[REVERSE] != 0,
            batch * share // shares, batch * (share + 1) // shares,
        )  # fmt: skip


@_compile()
def _cell_back(
    gates: Array, cell: Array, hidden_grad: Array, cell_grad: Array, gate_grad: Array, t: int, b: int
) -> None:
    for j in range(cell.shape[2]):
        e = _exp_minus_one(TWO * cell[t, b, j])
        shown = e / (e + TWO)  # tanh(c)
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
def step_back(
    t: int, gates: Array, cell: Array, initial: Array, lengths: Any, reverse: bool,
    hidden_grad: Array, cell_grad: Array, gate_grad: Array, pre_grad: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """One timestep of `kernels.walk_back_` but for its matrix product; fills pre_grad[t]."""
    steps = cell.shape[0]
    later, earlier = (t - 1, t + 1) if reverse else (t + 1, t - 1)
    for b in range(start, stop):
        if 0 <= later < steps:
            _carry_back(gates, cell_grad, later, t, b)
        _cell_back(gates, cell, hidden_grad, cell_grad, gate_grad, t, b)
        if t < lengths[b] - 1 if reverse else t > 0:
            _gates_back(gates, cell_grad, cell, earlier, gate_grad, t, b)
        else:
            _gates_back(gates, cell_grad, initial, 0, gate_grad, t, b)
        _pre_activations_back(gates, gate_grad, pre_grad, t, b)


@_task
def step_back_task(address: int) -> None:
    """`step_back` of the timestep job[AT] for a `Job`, until no share of the batch is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    steps, batch, units = job[STEPS], job[BATCH], job[UNITS]
    gates = carray(_pointer(job[GATES]), (steps, batch, 4, units), f32)
    cell = carray(_pointer(job[CELL]), (steps, batch, units), f32)
    initial = carray(_pointer(job[INITIAL]), (1, batch, units), f32)
    lengths = carray(_pointer(job[LENGTHS]), batch, np.int64)
    hidden_grad = carray(_pointer(job[HIDDEN_GRAD]), (steps, batch, units), f32)
    cell_grad = carray(_pointer(job[CELL_GRAD]), (steps, batch, units), f32)
    gate_grad = carray(_pointer(job[GATE_GRAD]), (steps, batch, 4, units), f32)
    pre_grad = carray(_pointer(job[PRE_GRAD]), (steps, batch, 4, units), f32)
    shares = job[SHARES]
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        step_back(
            job[AT], gates, cell, initial, lengths, job[REVERSE] != 0, hidden_grad, cell_grad, gate_grad, pre_grad,
            batch * share // shares, batch * (share + 1) // shares,
        )  # fmt: skip


@_compile()
def _add_product(pre_grad: Array, at: int, b: int, weight: Array, hidden_grad: Array, t: int) -> None:
    """Add pre_grad[at, b] (4, H) @ weight (4, H, H) to hidden_grad[t, b] (H,), four rows of the weight at a time."""
    units, width = weight.shape[1], weight.shape[2]
    for gate in range(4):
        for k in range(0, units - 3, 4):
            p0, p1 = pre_grad[at, b, gate, k], pre_grad[at, b, gate, k + 1]
            p2, p3 = pre_grad[at, b, gate, k + 2], pre_grad[at, b, gate, k + 3]
            for j in range(width):
                hidden_grad[t, b, j] += (p0 * weight[gate, k, j] + p1 * weight[gate, k + 1, j]) + (
                    p2 * weight[gate, k + 2, j] + p3 * weight[gate, k + 3, j]
                )
        for k in range(units - units % 4, units):
            p = pre_grad[at, b, gate, k]
            for j in range(width):
                hidden_grad[t, b, j] += p * weight[gate, k, j]


@_compile()
def walk_rows_back(
    gates: Array, cell: Array, initial: Array, lengths: Any, reverse: bool, weight: Array,
    hidden_grad: Array, cell_grad: Array, gate_grad: Array, pre_grad: Array,
) -> None:  # fmt: skip
    """`kernels.walk_back_` with its matrix product, for a few rows, where calling a library each step costs more."""
    steps, batch, _ = cell.shape
    for step in range(steps):
        t, earlier = (step, step + 1) if reverse else (steps - 1 - step, steps - 2 - step)
        step_back(t, gates, cell, initial, lengths, reverse, hidden_grad, cell_grad, gate_grad, pre_grad, 0, batch)
        if 0 <= earlier < steps:
            for b in range(batch):
                _add_product(pre_grad, t, b, weight, hidden_grad, earlier)
