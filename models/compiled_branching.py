"""The float32 kernels that numba compiles for `branching.py` and `doubling.py`: states go on both ways, or one way.

A tile of states is multiplied with W_hh once; the gates of either way are that product and what its input adds. Rows
share nothing, so that threads take tiles as they come, and a block may be written over itself.

The gates of `LANES` units stand side by side: columns are (blocks of units, i f g o, LANES), the last block filled up
with 0. Pre-activations come multiplied by -log2 e (i, f, o) or 2 log2 e (g): what e is to be raised to, to the base 2.
With i, f, o standing for 1 + exp(-x) of a gate's pre-activation, and e for exp(2x) - 1 of the candidate's or of the new
cell state, no gate is a number of its own, so that divisions, which cost most, are put together:

    c' = (c i (2 + e) + e f) / (i (2 + e) f)        h' = e / (o (2 + e))

Where a state goes both ways on, exp(p + a) = exp(p) exp(a) of the product p and of what an input adds, a, which is the
same for all states: four exponentials serve both ways.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from .compiled import Array, _compile, _pointer, _take_ticket, _task, carray, f32, multiply
from .products import COLUMNS, ROWS
from .vectors import LANES, Vectors

# A job, int64: what the task needs to know. The first number counts the shares that threads have taken.
TICKET, SHARES, BOTH, COUNT, UNITS, FEATURES, OPTIONS, STEPS, KEEP = range(9)
HIDDEN, CELL, NEW_HIDDEN, NEW_CELL, DRIVE, CHOICE, INPUTS = range(9, 16)  # addresses of arrays
STATE_WEIGHTS, NOTHING, INPUT_WEIGHTS, ADDED = range(16, 20)
NUMBERS = 20

# A job of `double_task`, and what it needs to know of each layer.
LAYERS, TILES, LEVELS, STRIDE, OUTPUTS = range(1, 6)
OF_LAYERS, PLAYERS, OWN, POWERS, DRIVES, READOUT, SCORES = range(6, 13)  # addresses of arrays
DOUBLING_NUMBERS = 13
L_UNITS, L_HIDDEN, L_CELL, L_STATE_WEIGHTS, L_NOTHING, L_INPUT_WEIGHTS, L_ADDED = range(7)
LAYER_NUMBERS = 7
LINE = 16  # float32 of a line of the cache: vectors that begin with one are read at once

GATES = 4 * LANES  # columns of a block of units
FACTORS = 5 * LANES  # exp(a) of i, f, g, o, and of g less 1
LOG2_E = 1.4426950408889634
GATE_SCALES = (-LOG2_E, -LOG2_E, 2 * LOG2_E, -LOG2_E)
LARGEST = 41.5  # that 2 is raised to for a gate: the product of three does not overflow. sigma(-x) is then 3e-13
LARGEST_CELL = 60.0
# Of exp(p) exp(a): either exponent, and their sum, stay below this, that nothing overflows or is lost.
LARGEST_SHARED = 120.0


def _state(of: Vectors, i: Any, f: Any, o: Any, e: Any, cell: Any) -> tuple[Any, Any]:
    """Write the new cell and hidden state of the equations above."""
    two = of.number(2)
    written = of.times(i, of.add(two, e))
    new_cell = of.over(of.fma(cell, written, of.times(e, f)), of.times(written, f))
    _, shown = of.power_and_less(of.cut(of.times(new_cell, of.number(2 * LOG2_E)), LARGEST_CELL))
    return new_cell, of.over(shown, of.times(o, of.add(two, shown)))


def _step_block(
    _context: Any, _product: Any, _added: Any, _cell: Any, _new_hidden: Any, _new_cell: Any, _count: Any
) -> Any:
    """Step `count` units, at most `LANES`, of one row with the product and what is added, (4, LANES) each."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        product, added, cell, new_hidden, new_cell, count = arguments
        of = Vectors(builder)

        def write(lanes: Any) -> None:
            i, f, g, o = (
                of.cut(of.add(of.load(product, gate * LANES), of.load(added, gate * LANES)), LARGEST)
                for gate in range(4)
            )
            _, e = of.power_and_less(g)
            i, f, o = (of.add(of.power(gate), of.number(1)) for gate in (i, f, o))
            made = _state(of, i, f, o, e, of.load_some(cell, lanes))
            for value, goal in zip(made, (new_cell, new_hidden), strict=True):
                of.store_some(value, goal, lanes)

        of.whole_or_first(count, write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _both_block(
    _context: Any, _product: Any, _factors: Any, _apart: Any, _cell: Any, _new_hidden: Any, _new_cell: Any, _far: Any,
    _count: Any,
) -> Any:  # fmt: skip
    """Step `count` units, at most `LANES`, of one row both ways.

    The product is (4, LANES); factors are (5, LANES), those of the other way `apart` numbers further on, as are its new
    states `far` numbers after those of the first.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        product, factors, apart, cell, new_hidden, new_cell, far, count = arguments
        of = Vectors(builder)
        other = [of.after(start, numbers) for start, numbers in ((factors, apart), (new_hidden, far), (new_cell, far))]

        def write(lanes: Any) -> None:
            one = of.number(1)
            i, f, g, o = (of.load(product, gate * LANES) for gate in range(4))
            _, less = of.power_and_less(g)
            i, f, o = (of.power(gate) for gate in (i, f, o))
            old = of.load_some(cell, lanes)
            for by, hidden_goal, cell_goal in ((factors, new_hidden, new_cell), other):
                by_i, by_f, by_g, by_o, added = (of.load(by, gate * LANES) for gate in range(5))
                raised = ((i, by_i, one), (f, by_f, one), (o, by_o, one), (less, by_g, added))
                new_i, new_f, new_o, e = (of.at_most(of.fma(*three), 2**LARGEST) for three in raised)
                made = _state(of, new_i, new_f, new_o, e, old)
                for value, goal in zip(made, (cell_goal, hidden_goal), strict=True):
                    of.store_some(value, goal, lanes)

        of.whole_or_first(count, write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


_step: Any = intrinsic(_step_block)
_step_both: Any = intrinsic(_both_block)


@_compile(inline=True)
def padded_width(units: Any) -> Any:
    """Return the columns of a layer's products: whole panels that hold whole blocks of units."""
    return -(-(-(-units // LANES) * GATES) // COLUMNS) * COLUMNS


@_compile()
def _step_row(product: int, added: int, cell: int, new_hidden: int, new_cell: int, units: int) -> None:
    """Step all units of a row; the arguments are addresses. `new_cell` may be `cell`."""
    for first in range(0, units, LANES):
        _step(
            product + 16 * first, added + 16 * first, cell + 4 * first, new_hidden + 4 * first, new_cell + 4 * first,
            units - first,
        )  # fmt: skip


@_task
def branch_task(address: int) -> None:
    """`branching.Layer.both`, or `chain` (which `one` is a step of), for a job, until no share of the rows is left."""
    job = carray(_pointer(address), NUMBERS, np.int64)
    both, count, units, features = job[BOTH] != 0, job[COUNT], job[UNITS], job[FEATURES]
    steps, options = job[STEPS], job[OPTIONS]
    kept = count if job[KEEP] != 0 else 0  # rows from a step's hidden states to those of the next
    ways = 2 if both else 1
    choice = carray(_pointer(job[CHOICE]), steps * count, np.int64)  # where one way is gone
    width = -(-units // LANES) * GATES
    room = np.empty((ROWS, padded_width(units)), dtype=f32)
    below = np.empty_like(room)
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
                        if features > 0:
                            added = below.ctypes.data + 4 * at * below.shape[1]
                        else:
                            which = way if both else step * options + choice[step * count + row + at]
                            added = job[DRIVE] + 4 * which * width
                        _step_row(
                            room.ctypes.data + 4 * at * room.shape[1], added, job[CELL] + 4 * (row + at) * units,
                            job[NEW_HIDDEN] + 4 * (goal + at) * units, job[NEW_CELL] + 4 * (first + at) * units, units,
                        )  # fmt: skip
            row += rows


@_compile()
def _step_tile(
    room: int, width: int, added: int, apart: int, cell: int, new_hidden: int, new_cell: int, units: int
) -> None:
    """Step the rows of a tile; what is added stands `apart` numbers after that of the row before. All are addresses."""
    for at in range(ROWS):
        row = 4 * at * units
        _step_row(room + 4 * at * width, added + 4 * at * apart, cell + row, new_hidden + row, new_cell + row, units)


def _products_block(_context: Any, _rows: Any, _factors: Any, _units: Any, _goal: Any) -> Any:
    """Write the scalar products of `LANES` rows of so many units, one below the other, and one row of factors."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        rows, factors, units, goal = arguments
        of = Vectors(builder)
        of.store(of.scalar_products(rows, factors, units), goal)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


_scalar_products: Any = intrinsic(_products_block)


@_compile()
def _write_scores(ends: int, readout: int, units: int, made: int, scores: Array, first: int, second: int) -> None:
    """Write the scores of a tile's states both ways, which begin in these rows; `made` is room for `LANES`."""
    sums = carray(_pointer(made), LANES, f32)
    for output in range(scores.shape[1]):
        _scalar_products(ends, readout + 4 * output * units, units, made)
        for at in range(ROWS):
            scores[first + at, output] = sums[at]
            scores[second + at, output] = sums[ROWS + at]


@_compile()
def _double_tile(of: Any, sources: int, goal: int, factors: int, room: int, below: int) -> None:
    """Write the states of one tile after a player's first timestep, without the player and with it.

    Args:
        of: (layers, LAYER_NUMBERS).
        sources: Address of the addresses (layers, 2) of each layer's hidden and cell states, (ROWS, units).
        goal: Address of the states of a level.
        factors: Address of what the first layer's inputs add, (2, blocks, 5, LANES).
        room: Address of room for a tile's products of the widest layer.
        below: Address of as much room.
    """
    under = 0
    source = carray(_pointer(sources), (of.shape[0], 2), np.int64)
    for layer in range(of.shape[0]):
        units = of[layer, L_UNITS]
        blocks = -(-units // LANES)
        width = padded_width(units)
        size = 4 * ROWS * units  # bytes of a tile
        multiply(
            ROWS, 0, 0, 0, source[layer, 0], units, units, of[layer, L_STATE_WEIGHTS], of[layer, L_NOTHING], room, width
        )
        if layer == 0:
            for at in range(ROWS):
                row = 4 * at * units
                for block in range(blocks):
                    lanes = 4 * block * LANES
                    _step_both(
                        room + 4 * (at * width + block * GATES), factors + 4 * block * FACTORS, blocks * FACTORS,
                        source[0, 1] + row + lanes, goal + row + lanes, goal + 2 * size + row + lanes, ROWS * units,
                        units - block * LANES,
                    )  # fmt: skip
        else:
            features = of[layer - 1, L_UNITS]
            for way in range(2):
                multiply(
                    ROWS, under + 4 * way * ROWS * features, features, features, 0, 0, 0,
                    of[layer, L_INPUT_WEIGHTS], of[layer, L_ADDED], below, width,
                )  # fmt: skip
                new = goal + way * size
                _step_tile(room, width, below, width, source[layer, 1], new, new + 2 * size, units)
        under = goal
        goal += 4 * size


@_compile()
def _advance_tile(of: Any, goal: int, way: int, drive: int, room: int, below: int) -> None:
    """Take one way's states of a level through a timestep, in place; `drive` is what the first layer's input adds."""
    under = 0
    for layer in range(of.shape[0]):
        units = of[layer, L_UNITS]
        width = padded_width(units)
        size = 4 * ROWS * units
        new = goal + way * size
        multiply(ROWS, 0, 0, 0, new, units, units, of[layer, L_STATE_WEIGHTS], of[layer, L_NOTHING], room, width)
        added, apart = drive, 0
        if layer > 0:
            features = of[layer - 1, L_UNITS]
            multiply(
                ROWS, under, features, features, 0, 0, 0,
                of[layer, L_INPUT_WEIGHTS], of[layer, L_ADDED], below, width,
            )  # fmt: skip
            added, apart = below, width
        _step_tile(room, width, added, apart, new + 2 * size, new, new + 2 * size, units)
        under = new
        goal += 4 * size


@_compile()
def _first_sources(of: Any, sources: int, tile: int) -> None:
    """Write the addresses of each layer's hidden and cell states of a tile, (layers, 2), where all begins."""
    found = carray(_pointer(sources), (of.shape[0], 2), np.int64)
    for layer in range(of.shape[0]):
        size = 4 * ROWS * of[layer, L_UNITS]
        found[layer, 0], found[layer, 1] = of[layer, L_HIDDEN] + tile * size, of[layer, L_CELL] + tile * size


@_compile()
def _sources(of: Any, sources: int, states: int, way: int) -> None:
    """Write the addresses of each layer's hidden and cell states, (layers, 2), of one way of a level."""
    found = carray(_pointer(sources), (of.shape[0], 2), np.int64)
    for layer in range(of.shape[0]):
        size = 4 * ROWS * of[layer, L_UNITS]
        found[layer, 0], found[layer, 1] = states + way * size, states + (2 + way) * size
        states += 4 * size


@_task
def double_task(address: int) -> None:
    """`doubling.Doubling.run` for a job, until no tile of the rows is left.

    A level holds the states of a tile after a player: of each layer the hidden states without it and with it, and then
    the cell states, (2, 2, ROWS, units). Levels are visited depth-first: only those are made anew that a path has left.
    """
    job = carray(_pointer(address), DOUBLING_NUMBERS, np.int64)
    layers, levels, outputs = job[LAYERS], job[LEVELS], job[OUTPUTS]
    of = carray(_pointer(job[OF_LAYERS]), (layers, LAYER_NUMBERS), np.int64)
    players = carray(_pointer(job[PLAYERS]), (levels, 2), np.int64)  # each one's first timestep, and where it stops
    own = carray(_pointer(job[OWN]), players[levels - 1, 1], np.int64)  # 1 where a timestep is its player's
    width, room = 0, 0
    for layer in range(layers):
        width = max(width, padded_width(of[layer, L_UNITS]))
        room += 4 * ROWS * of[layer, L_UNITS]
    top = of[layers - 1, L_UNITS]
    scores = carray(_pointer(job[SCORES]), (job[STRIDE] << levels, outputs), f32)
    unaligned = np.empty(levels * room + 2 * ROWS * width + LINE, dtype=f32)
    sources = np.empty((layers, 2), dtype=np.int64)
    blocks = -(-of[0, L_UNITS] // LANES)
    while True:
        tile = _take_ticket(address)
        if tile >= job[TILES]:
            return
        product = unaligned.ctypes.data // (4 * LINE) * 4 * LINE + 4 * LINE  # addresses; arrays are kept for their uses
        below = product + 4 * ROWS * width
        states = below + 4 * ROWS * width
        last = states + 4 * (levels * room - 4 * ROWS * top)  # the top layer's states after the last player
        for path in range(1 << (levels - 1)):  # the ways of all players but the last, the first's the highest bit
            level = 0
            while path & ((1 << (levels - 1 - level)) - 1) != 0:
                level += 1
            while level < levels:
                goal = states + 4 * level * room
                if level == 0:
                    _first_sources(of, sources.ctypes.data, tile)
                else:
                    _sources(of, sources.ctypes.data, goal - 4 * room, path >> (levels - 1 - level) & 1)
                factors = job[POWERS] + 8 * players[level, 0] * blocks * FACTORS
                _double_tile(of, sources.ctypes.data, goal, factors, product, below)
                for t in range(players[level, 0] + 1, players[level, 1]):
                    for way in range(2):
                        drive = job[DRIVES] + 4 * (2 * t + way * own[t]) * blocks * GATES
                        _advance_tile(of, goal, way, drive, product, below)
                level += 1
            first = tile * ROWS
            for level in range(levels - 1):
                first += (path >> (levels - 2 - level) & 1) * (job[STRIDE] << level)
            _write_scores(last, job[READOUT], top, product, scores, first, first + (job[STRIDE] << (levels - 1)))
