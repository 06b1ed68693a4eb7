"""The float32 kernels that numba compiles: what they are made of, and an LSTM's forward work over whole sequences.

Shapes are time-major: gates (T, B, 4, H) in torch's order i, f, g, o, cell and hidden (T, B, H), states that precede
the first timestep (1, B, H), each contiguous. A kernel works on the rows start..stop of the batch, so that threads
share nothing. `kernels.py` says what they compute, and does the same in plain torch; `products.py` multiplies.

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

from .products import COLUMNS, ROWS, row_product, tile_product

Array = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

f32 = np.float32
ZERO, HALF, ONE, TWO = f32(0), f32(0.5), f32(1), f32(2)
LOG2_E, LN_2 = f32(1.4426950408889634), f32(0.6931471805599453)
# Adding 1.5 * 2^23 rounds a float32 to a whole number, which then stands in its lowest bits.
ROUNDER = f32(12582912.0)
FLOAT_ONE_BITS, MANTISSA_BITS = np.int32(0x3F800000), np.int32(23)
LARGEST = f32(87.0)  # exp(88.8) overflows
C6, C5, C4, C3, C2 = f32(1 / 720), f32(1 / 120), f32(1 / 24), f32(1 / 6), f32(1 / 2)
BLOCK_ROWS = 32  # whose gates are made before their cells: enough for tiles, few enough to stay in the cache


OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}  # fused multiply-adds, nothing looser

# A job, int64: what a task needs to know. The first number counts the shares that threads have taken.
TICKET, SHARES, PART, STEPS, BATCH, UNITS, FEATURES, WIDTH, REVERSE, OFFSET = range(10)
WEIGHTS, ADDED, INPUTS, STATES, GATES, CELL, INITIAL, CARRY, LENGTHS = range(10, 19)  # addresses of arrays
HIDDEN_GRAD, CELL_GRAD, GATE_GRAD, PRE_GRAD, INPUT_GRAD = range(19, 24)
HIDDEN, CELL_FACTOR, CARRY_FACTOR, GATE_FACTOR, PRE = range(24, 29)
BASE_GATES, BASE_CELL, BASE_PRE, BASE_INITIAL, BASE_BATCH = range(29, 34)
NUMBERS = 34

BOTH, GATES_ALONE, CELLS_ALONE, FORWARDS = range(4)  # PART: a rebuild, its halves, or a whole forward pass
GRADIENTS, FACTORS = 4, 5  # PART: what goes back (`compiled_back.py`)


def _compile(*, inline: bool = False, **others: Any) -> Callable[[Function], Function]:
    """Return a decorator that compiles, and keeps the machine code on disk where it can."""
    options: dict[str, Any] = {**OPTIONS, "nogil": True, **({"inline": "always"} if inline else {}), **others}

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
def _exp_minus_one(y: Any, largest: Any) -> Any:
    """Return exp(y) - 1 to float32's precision, y cut to -largest..largest; NaN of NaN, in this order of arguments."""
    y = max(min(y, largest), -largest)
    shifted = y * LOG2_E + ROUNDER
    r = y - (shifted - ROUNDER) * LN_2
    series = ((((C6 * r + C5) * r + C4) * r + C3) * r + C2) * r * r + r
    power = _float(np.int32(np.int32(_bits(shifted) << MANTISSA_BITS) + FLOAT_ONE_BITS))  # 2^n
    return power * series + (power - ONE)


@_compile(inline=True)
def _sigma(x: Any) -> Any:
    return ONE / (TWO + _exp_minus_one(-x, LARGEST))


@_compile(inline=True)
def _tanh(x: Any) -> Any:
    e = _exp_minus_one(TWO * x, LARGEST)
    return e / (TWO + e)


@_compile()
def multiply(
    rows: int, inputs: int, in_stride: int, in_depth: int, states: int, state_stride: int, state_depth: int,
    weights: int, added: int, result: int, width: int,
) -> None:  # fmt: skip
    """Write added + inputs @ weights[:in_depth] + states @ weights[in_depth:], (rows, width); all are addresses.

    Weights are `products.packed`; `rows` is 1 or `ROWS`, `width` a multiple of `COLUMNS`.
    """
    panel = (in_depth + state_depth) * COLUMNS * 4
    for column in range(0, width, COLUMNS):
        if rows == 1:
            row_product(
                inputs, in_stride, in_depth, states, state_stride, state_depth,
                weights, added + 4 * column, result + 4 * column, width,
            )  # fmt: skip
        else:
            tile_product(
                inputs, in_stride, in_depth, states, state_stride, state_depth,
                weights, added + 4 * column, result + 4 * column, width,
            )  # fmt: skip
        weights += panel


@_compile()
def activate(values: Array, at: int, gates: Array, row: int) -> None:
    """Write gates (., 4H) of one row of pre-activations; rows are indexed, as a slice costs as much as 30 units."""
    units = gates.shape[1] // 4
    for j in range(2 * units):
        gates[row, j] = _sigma(values[at, j])
    for j in range(2 * units, 3 * units):
        gates[row, j] = _tanh(values[at, j])
    for j in range(3 * units, 4 * units):
        gates[row, j] = _sigma(values[at, j])


@_compile()
def _write_gates(
    inputs: int, features: int, states: int, width: int, weights: int, added: int, room: Array, gates: Array,
    pre: Array, keep: bool, start: int, stop: int,
) -> None:  # fmt: skip
    """Write gates (T * B, 4H) of the rows start..stop, a tile after the other; the last overlaps the one before.

    With `keep`, pre-activations (T * B, 4H), too.
    """
    row = start
    while row < stop:
        rows = ROWS
        if stop - start < ROWS:
            rows = 1
        elif stop - row < ROWS:
            row = stop - ROWS
        multiply(
            rows, inputs + 4 * row * features, features, features, states + 4 * row * width, width, width,
            weights, added, room.ctypes.data, room.shape[1],
        )  # fmt: skip
        for at in range(rows):
            activate(room, at, gates, row + at)
            if keep:
                for j in range(pre.shape[1]):
                    pre[row + at, j] = room[at, j]
        row += rows


@_compile()
def _write_cell(gates: Array, cell: Array, previous: Array, at: int, t: int, b: int) -> None:
    for j in range(cell.shape[2]):
        cell[t, b, j] = gates[t, b, 1, j] * previous[at, b, j] + gates[t, b, 0, j] * gates[t, b, 2, j]


@_compile()
def _write_cells(
    gates: Array, cell: Array, carry: Array, initial: Array, lengths: Any, offset: int, reverse: bool,
    t: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Fill the cell state of one timestep, and clear gates at padding."""
    steps = cell.shape[0]
    for b in range(start, stop):
        if offset + t >= lengths[b]:
            gates[t, b] = ZERO
            cell[t, b] = ZERO
        elif offset + t == (lengths[b] - 1 if reverse else 0):
            _write_cell(gates, cell, initial, 0, t, b)
        elif t == (steps - 1 if reverse else 0):
            _write_cell(gates, cell, carry, 0, t, b)
        else:
            _write_cell(gates, cell, cell, t + 1 if reverse else t - 1, t, b)


@_compile()
def _write_hidden(gates: Array, cell: Array, hidden: Array, t: int, b: int) -> None:
    for j in range(cell.shape[2]):
        hidden[t, b, j] = gates[t, b, 3, j] * _tanh(cell[t, b, j])


@_task
def run_task(address: int) -> None:
    """`kernels.rebuild_` or `run_` for a job, until no share is left: of the batch, or of all rows for gates alone."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    steps, batch, units, reverse = job[STEPS], job[BATCH], job[UNITS], job[REVERSE] != 0
    gates = carray(_pointer(job[GATES]), (steps, batch, 4, units), f32)
    rows = carray(_pointer(job[GATES]), (steps * batch, 4 * units), f32)
    cell = carray(_pointer(job[CELL]), (steps, batch, units), f32)
    hidden = carray(_pointer(job[HIDDEN]), (steps, batch, units), f32)  # where the part is FORWARDS
    initial = carray(_pointer(job[INITIAL]), (1, batch, units), f32)
    carry = carray(_pointer(job[CARRY]), (1, batch, units), f32)
    lengths = carray(_pointer(job[LENGTHS]), batch, np.int64)
    pre, keep = carray(_pointer(job[PRE]), (steps * batch, 4 * units), f32), job[PRE] != 0
    room = np.empty((ROWS, -(-4 * units // COLUMNS) * COLUMNS), dtype=f32)
    part, shares = job[PART], job[SHARES]
    tiles = -(-batch // ROWS)
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        if part == GATES_ALONE:
            every = steps * batch
            _write_gates(
                job[INPUTS], job[FEATURES], job[STATES], job[WIDTH], job[WEIGHTS], job[ADDED], room, rows, pre, keep,
                every * share // shares, every * (share + 1) // shares,
            )  # fmt: skip
            continue
        start = min(batch, ROWS * (tiles * share // shares))
        stop = min(batch, ROWS * (tiles * (share + 1) // shares))
        size = 1
        if part != FORWARDS and stop - start == batch:
            size = max(1, BLOCK_ROWS // batch)  # timesteps, whose rows lie side by side
        for begin in range(0, steps, size):
            end = min(begin + size, steps)
            first = steps - end if reverse else begin
            if part != CELLS_ALONE:
                _write_gates(
                    job[INPUTS], job[FEATURES], job[STATES], job[WIDTH], job[WEIGHTS], job[ADDED], room, rows,
                    pre, keep, first * batch + start, (first + end - begin - 1) * batch + stop,
                )  # fmt: skip
            for step in range(begin, end):
                t = steps - 1 - step if reverse else step
                _write_cells(gates, cell, carry, initial, lengths, job[OFFSET], reverse, t, start, stop)
                if part == FORWARDS:
                    for b in range(start, stop):
                        if t < lengths[b]:
                            _write_hidden(gates, cell, hidden, t, b)
