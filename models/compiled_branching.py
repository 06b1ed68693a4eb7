"""The float32 kernel that numba compiles for `branching.py`: states go on both ways for a step, or one way for many.

A tile of states is multiplied with W_hh once; the gates of either way are that product and what its input adds. Rows
share nothing, so that threads take tiles as they come, and a block may be written over itself.
"""

from __future__ import annotations

import numpy as np

from .compiled import TWO, Array, _compile, _exp_minus_one, _pointer, _take_ticket, _task, carray, f32, multiply
from .products import COLUMNS, ROWS

# A job, int64: what the task needs to know. The first number counts the shares that threads have taken.
TICKET, SHARES, BOTH, COUNT, UNITS, FEATURES, OPTIONS, STEPS, KEEP = range(9)
HIDDEN, CELL, NEW_HIDDEN, NEW_CELL, DRIVE, CHOICE, INPUTS = range(9, 16)  # addresses of arrays
STATE_WEIGHTS, NOTHING, INPUT_WEIGHTS, ADDED = range(16, 20)
NUMBERS = 20

LARGEST = f32(29)  # that is raised: the product of three exp(29) does not overflow


@_compile()
def _write_state(
    product: Array, at: int, added: Array, which: int, state: Array,
    cell: Array, row: int, new_hidden: Array, hidden_goal: int, new_cell: Array, cell_goal: int,
) -> None:  # fmt: skip
    """Write one row's new state; `cell` may be `new_cell`, as nothing is written before all is read.

    No gate is a number of its own, so that divisions, which cost most, are put together: with i, f, o standing for
    1 + exp(-x) of a gate's pre-activation, and e for exp(2x) - 1 of the candidate's or of the new cell state,

        c' = (c i (2 + e) + e f) / (i (2 + e) f)        h' = e / (o (2 + e))

    A gate whose pre-activation is below -29 is taken for sigma(-29) = 3e-13.
    """
    units = cell.shape[1]
    for j in range(units):
        i = TWO + _exp_minus_one(-(product[at, j] + added[which, j]), LARGEST)
        f = TWO + _exp_minus_one(-(product[at, units + j] + added[which, units + j]), LARGEST)
        e = _exp_minus_one(TWO * (product[at, 2 * units + j] + added[which, 2 * units + j]), LARGEST)
        written = i * (TWO + e)
        state[0, j] = (cell[row, j] * written + e * f) / (written * f)
    for j in range(units):
        e = _exp_minus_one(TWO * state[0, j], LARGEST)
        o = TWO + _exp_minus_one(-(product[at, 3 * units + j] + added[which, 3 * units + j]), LARGEST)
        state[0, units + j] = e / (o * (TWO + e))
    for j in range(units):
        new_cell[cell_goal, j] = state[0, j]
    for j in range(units):
        new_hidden[hidden_goal, j] = state[0, units + j]


@_task
def branch_task(address: int) -> None:
    """`branching.Layer.both`, or `chain` (which `one` is a step of), for a job, until no share of the rows is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    both, count, units, features = job[BOTH] != 0, job[COUNT], job[UNITS], job[FEATURES]
    steps, options = job[STEPS], job[OPTIONS]
    kept = count if job[KEEP] != 0 else 0  # rows from a step's hidden states to those of the next
    ways = 2 if both else 1
    cell = carray(_pointer(job[CELL]), (count, units), f32)
    new_hidden = carray(_pointer(job[NEW_HIDDEN]), (max(ways * count, steps * kept), units), f32)
    new_cell = carray(_pointer(job[NEW_CELL]), (ways * count, units), f32)
    drive = carray(_pointer(job[DRIVE]), (steps * options, 4 * units), f32)  # where there are no features
    choice = carray(_pointer(job[CHOICE]), steps * count, np.int64)  # where one way is gone
    room = np.empty((ROWS, -(-4 * units // COLUMNS) * COLUMNS), dtype=f32)
    below = np.empty_like(room)
    state = np.empty((1, 2 * units), dtype=f32)
    tiles, shares = -(-count // ROWS), job[SHARES]
    while True:
        share = _take_ticket(address)
        if share >= shares:
            return
        row = min(count, ROWS * (tiles * share // shares))
        stop = min(count, ROWS * (tiles * (share + 1) // shares))
        while row < stop:
            rows = ROWS if stop - row >= ROWS else 1  # no tile overlaps another, which may be written already
            for step in range(steps):
                source = job[HIDDEN] if step == 0 else job[NEW_HIDDEN] + 4 * (step - 1) * kept * units
                multiply(
                    rows, 0, 0, 0, source + 4 * row * units, units, units,
                    job[STATE_WEIGHTS], job[NOTHING], room.ctypes.data, room.shape[1],
                )  # fmt: skip
                for way in range(ways):
                    first = way * count + row
                    goal = first + step * kept
                    if features > 0:
                        multiply(
                            rows, job[INPUTS] + 4 * (step * count + first) * features, features, features, 0, 0, 0,
                            job[INPUT_WEIGHTS], job[ADDED], below.ctypes.data, below.shape[1],
                        )  # fmt: skip
                        for at in range(rows):
                            _write_state(
                                room, at, below, at, state,
                                cell, row + at, new_hidden, goal + at, new_cell, first + at,
                            )  # fmt: skip
                    else:
                        for at in range(rows):
                            which = way if both else step * options + choice[step * count + row + at]
                            _write_state(
                                room, at, drive, which, state,
                                cell, row + at, new_hidden, goal + at, new_cell, first + at,
                            )  # fmt: skip
            row += rows
