"""Every coalition of players that are stretches of time, from a block of states on, in one compiled call.

`branching.py` steps a block of states; this goes depth-first through all players that are left, one tile of states
after the other, which never leaves the cache, and writes nothing but the scores at the end.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .branching import Layer
from .threads import count, share


class Doubling:
    """All ways on from given states, read out linearly at the end.

    Args:
        layers: What is stepped, the first layer first.
        drive: `Layer.drive` of the first layer's two inputs at each timestep, (L, 2, .).
        readout: Weights of the scores, (K, H of the last layer).
        players: The first timestep of each player (n,), ascending; each goes on to the next one's.
        own: Bool (L,): whether a timestep is that of the last player that has begun; else all read the first input.
    """

    def __init__(
        self, layers: list[Layer], drive: Tensor, readout: Tensor, players: list[int], own: NDArray[np.bool_]
    ) -> None:
        self._layers = layers
        self._drive = drive
        self._readout = readout.contiguous()
        self._spans = np.array([players, [*players[1:], len(own)]], dtype=np.int64).T.copy()  # (n, 2)
        self._own = own.astype(np.int64)

    @cached_property
    def possible(self) -> bool:
        """Whether the compiled kernel takes these numbers: float32 on the CPU, and no exponential overflows."""
        if not all(layer.compiled for layer in self._layers) or self._readout.dtype != torch.float32:
            return False
        from .compiled_branching import LARGEST_SHARED

        layer = self._layers[0]
        product = layer.packed[0].abs().sum(dim=1).max()  # hidden states are between -1 and 1
        return bool(product + self._drive.abs().max() < LARGEST_SHARED)

    @property
    def outputs(self) -> int:
        """How many scores there are, K."""
        return len(self._readout)

    @property
    def rows(self) -> int:
        """Of how many states a block may have multiples."""
        from .products import ROWS

        return ROWS

    def bytes(self, player: int) -> int:
        """Return what the states of each thread take, from a player on."""
        return 4 * 4 * self.rows * sum(layer.units for layer in self._layers) * (len(self._spans) - player)

    def run(self, hidden: list[Tensor], cell: list[Tensor], player: int, scores: Tensor) -> int:
        """Fill the scores of all coalitions that begin as the states do.

        Args:
            hidden: (N, H) of each layer, contiguous, N a multiple of `rows`: the states before that player's timestep.
            cell: As hidden.
            player: The first player of those that are left; at least one is.
            scores: Float32 (M, K), contiguous; row r of the states writes r + 2^player (a whole number), of which the
                binary digits are the players that are left, that one's the lowest.

        Returns:
            How many times a state took a step.
        """
        from . import compiled_branching as compiled

        layers = np.zeros((len(self._layers), compiled.LAYER_NUMBERS), dtype=np.int64)
        for number, layer in enumerate(self._layers):
            arrays = (hidden[number], cell[number], *layer.packed)
            assert all(array.is_contiguous() for array in arrays), "a kernel's arrays are contiguous"
            layers[number] = [layer.units, *(array.data_ptr() for array in arrays)]
        spans = self._spans[player:]
        tiles = len(hidden[0]) // self.rows
        job = np.zeros(compiled.DOUBLING_NUMBERS, dtype=np.int64)
        job[1:] = [
            len(layers), tiles, len(spans), 2**player, self.outputs, layers.ctypes.data, spans.ctypes.data,
            self._own.ctypes.data, self._factors.data_ptr(), self._drive.data_ptr(), self._readout.data_ptr(),
            scores.data_ptr(),
        ]  # fmt: skip
        share(compiled.double_task, job, count(tiles))
        return sum(len(hidden[0]) * 2 ** (number + 1) * int(stop - first) for number, (first, stop) in enumerate(spans))

    @cached_property
    def _factors(self) -> Tensor:
        """2^a of i, f, g, o, and 2^a - 1 of g, where a is the drive: (L, 2, blocks, 5, LANES)."""
        from .compiled_branching import GATES
        from .vectors import LANES

        y = self._drive.double().unflatten(-1, (-1, GATES // LANES, LANES)) * np.log(2)
        return torch.cat([y.exp(), y[..., 2:3, :].expm1()], dim=-2).float()
