"""The matrix product inside the compiled kernels: a small tile of rows times packed weights, held in registers.

Calling a library for a product of a few rows costs more than the product, and its result goes through memory before it
is used. So the kernels multiply by themselves: a tile of `ROWS` rows by `COLUMNS` columns of the result stays in vector
registers while the product runs along its depth (Goto & van de Geijn 2008), and is used while it is in the first cache.

LLVM is told which vectors to use; the loop and the choice of registers are its own. One core reaches the rate of
oneDNN's product with it, and at a few hundred rows twice that.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

from .vectors import BYTES, LANES, SIZE, WIDE, Vectors

ROWS = 8 if WIDE else 4  # of a tile; ROWS x 2 vectors, what is summed, fit the registers, with room for the factors
COLUMNS = 2 * LANES


def padded(columns: int) -> int:
    """Return the columns of a tile's result, padding included: the next multiple of `COLUMNS`."""
    return -(-columns // COLUMNS) * COLUMNS


def packed(weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return weights as `tile_product` reads them, and what is added: panels of `COLUMNS` columns, padded with 0.

    Args:
        weight: Float32 (K, N); the product is rows (., K) @ weight.
        bias: Float32 (N,), or None for 0.

    Returns:
        (panels, K, COLUMNS) and (panels * COLUMNS,), contiguous.
    """
    depth, columns = weight.shape
    room = weight.new_zeros(depth, padded(columns))
    room[:, :columns] = weight
    panels = room.view(depth, -1, COLUMNS).transpose(0, 1).contiguous()
    added = weight.new_zeros(padded(columns))
    if bias is not None:
        added[:columns] = bias
    return panels, added


class _Tile:
    """Writes LLVM's instructions for a tile of `rows` rows."""

    def __init__(self, builder: Any, rows: int) -> None:
        self.builder = builder
        self.rows = rows
        self.of = Vectors(builder)

    def bytes(self, numbers: Any) -> Any:
        """Return how many bytes so many float32 take."""
        return self.builder.mul(numbers, SIZE(BYTES))

    def vectors(self, address: Any) -> list[Any]:
        """Load `COLUMNS` numbers."""
        return [self.of.load(address, part * LANES) for part in range(2)]

    def store(self, values: list[Any], address: Any) -> None:
        """Store `COLUMNS` numbers."""
        for part, value in enumerate(values):
            self.of.store(value, address, part * LANES)

    def sum(self, sums: list[list[Any]], inputs: Any, stride: Any, depth: Any, weights: Any) -> list[list[Any]]:
        """Add the product of `depth` numbers of each row to the sums."""
        builder = self.builder
        starts = [inputs]
        for _ in range(1, self.rows):
            starts.append(builder.add(starts[-1], stride))

        def add(k: Any, values: list[Any]) -> list[Any]:
            factors = self.vectors(builder.add(weights, builder.mul(k, SIZE(COLUMNS * BYTES))))
            offset = self.bytes(k)
            found: list[Any] = []
            for start, row in zip(starts, zip(values[::2], values[1::2], strict=True), strict=True):
                value = self.of.everywhere(builder.add(start, offset))
                found += [self.of.fma(value, factor, part) for factor, part in zip(factors, row, strict=True)]
            return found

        found = self.of.loop(depth, 1, [value for row in sums for value in row], add)
        return [found[row : row + 2] for row in range(0, len(found), 2)]


def _tile_product(rows: int) -> Any:
    def typed(
        _context: Any, _inputs: Any, _in_stride: Any, _in_depth: Any, _states: Any, _state_stride: Any,
        _state_depth: Any, _weights: Any, _bias: Any, _result: Any, _result_stride: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            (
                inputs, in_stride, in_depth, states, state_stride, state_depth, weights, bias, result, result_stride
            ) = arguments  # fmt: skip
            tile = _Tile(builder, rows)
            sums = [tile.vectors(bias)] * rows
            sums = tile.sum(sums, inputs, tile.bytes(in_stride), in_depth, weights)
            below = builder.add(weights, builder.mul(in_depth, SIZE(COLUMNS * BYTES)))
            sums = tile.sum(sums, states, tile.bytes(state_stride), state_depth, below)
            stride = tile.bytes(result_stride)
            for row in sums:
                tile.store(row, result)
                result = builder.add(result, stride)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return intrinsic(typed)


# For compiled code. Each takes addresses, and strides between rows in numbers:
#     inputs, their stride and depth; states, their stride and depth; one panel of weights; bias; result, its stride;
# and writes `COLUMNS` numbers of each row: bias + inputs @ the first weights + states @ the following ones.
tile_product: Any = _tile_product(ROWS)
row_product: Any = _tile_product(1)
