"""The float32 kernel that numba compiles for `branching.py`: a step of a block of states, one way or both ways on.

A tile of states is multiplied with W_hh once; the gates of either way are that product and what its input adds. Rows
share nothing, so that threads take tiles as they come, and a block may be written over itself.
"""

from __future__ import annotations

import numpy as np

from .compiled import (
    Array,
    _compile,
    _pointer,
    _take_ticket,
    _tanh,
    _task,
    activate,
    carray,
    f32,
    multiply,
)
from .products import COLUMNS, ROWS

# A job, int64: what the task needs to know. The first number counts the shares that threads have taken.
TICKET, SHARES, BOTH, COUNT, UNITS, FEATURES, OPTIONS = range(7)
HIDDEN, CELL, NEW_HIDDEN, NEW_CELL, DRIVE, CHOICE, INPUTS = range(7, 14)  # addresses of arrays
STATE_WEIGHTS, NOTHING, INPUT_WEIGHTS, ADDED = range(14, 18)
NUMBERS = 18


@_compile()
def _write_state(
    product: Array, at: int, added: Array, which: int, total: Array, gates: Array,
    cell: Array, row: int, new_hidden: Array, new_cell: Array, goal: int,
) -> None:  # fmt: skip
    """Write one row's new state; `cell` may be `new_cell`, as nothing is written before all is read."""
    units = cell.shape[1]
    for j in range(4 * units):
        total[0, j] = product[at, j] + added[which, j]
    activate(total, 0, gates, 0)
    for j in range(units):
        gates[0, j] = gates[0, units + j] * cell[row, j] + gates[0, j] * gates[0, 2 * units + j]
    for j in range(units):
        new_cell[goal, j] = gates[0, j]
    for j in range(units):
        new_hidden[goal, j] = gates[0, 3 * units + j] * _tanh(gates[0, j])


@_task
def branch_task(address: int) -> None:
    """`branching.Layer.both` or `one` for a job, until no share of the rows is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    both, count, units, features = job[BOTH] != 0, job[COUNT], job[UNITS], job[FEATURES]
    ways = 2 if both else 1
    cell = carray(_pointer(job[CELL]), (count, units), f32)
    new_hidden = carray(_pointer(job[NEW_HIDDEN]), (ways * count, units), f32)
    new_cell = carray(_pointer(job[NEW_CELL]), (ways * count, units), f32)
    drive = carray(_pointer(job[DRIVE]), (job[OPTIONS], 4 * units), f32)  # where there are no features
    choice = carray(_pointer(job[CHOICE]), count, np.int64)  # where one way is gone
    room = np.empty((ROWS, -(-4 * units // COLUMNS) * COLUMNS), dtype=f32)
    below = np.empty_like(room)
    total, gates = np.empty((1, 4 * units), dtype=f32), np.empty((1, 4 * units), dtype=f32)
    tiles, shares = -(-count // ROWS), job[SHARES]
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        row = min(count, ROWS * (tiles * share // shares))
        stop = min(count, ROWS * (tiles * (share + 1) // shares))
        while row < stop:
            rows = ROWS if stop - row >= ROWS else 1  # no tile overlaps another, which may be written already
            multiply(
                rows, 0, 0, 0, job[HIDDEN] + 4 * row * units, units, units,
                job[STATE_WEIGHTS], job[NOTHING], room.ctypes.data, room.shape[1],
            )  # fmt: skip
            for way in range(ways):
                first = way * count + row
                if features > 0:
                    multiply(
                        rows, job[INPUTS] + 4 * first * features, features, features, 0, 0, 0,
                        job[INPUT_WEIGHTS], job[ADDED], below.ctypes.data, below.shape[1],
                    )  # fmt: skip
                    for at in range(rows):
                        _write_state(
                            room, at, below, at, total, gates, cell, row + at, new_hidden, new_cell, first + at
                        )
                else:
                    for at in range(rows):
                        which = way if both else choice[row + at]
                        _write_state(
                            room, at, drive, which, total, gates, cell, row + at, new_hidden, new_cell, first + at
                        )
            row += rows
