"""One LSTM layer, stepped for a block of states (N, H) of which each goes on with one of several inputs, or with two.

    i, f, o = sigma(W_ih x + W_hh h + b), g = tanh(...)
    c' = f c + i g,   h' = o tanh(c')

A state that goes on in both ways, with one input and with another, needs W_hh h only once. float32 on the CPU runs
compiled (`compiled_branching.py`); every other type and device, and other nonlinearities, run the same steps as torch
operations, which are also the oracle of the compiled ones.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from .activations import activations_of, is_standard
from .kernels import is_compiled
from .threads import count, share

# Multiplications of one step from which threads share it: more than elsewhere, because thousands of steps follow each
# other, and where others want the cores too each meeting of threads may wait for one that has just lost its own.
MUCH_WORK = 2**26


class Layer:
    """The numbers of a single-layer, forward `nn.LSTM`, and its step.

    Args:
        module: `nn.LSTM`, or `ActivationLSTM`.
    """

    def __init__(self, module: nn.LSTM) -> None:
        self.units = module.hidden_size
        self.gate, self.shown = (part.function for part in activations_of(module))
        self.weight_ih = module.get_parameter("weight_ih_l0").detach()  # (4H, D)
        self.weight_hh = module.get_parameter("weight_hh_l0").detach()  # (4H, H)
        self.bias: Tensor | None = None  # (4H,)
        if module.bias:
            self.bias = (module.get_parameter("bias_ih_l0") + module.get_parameter("bias_hh_l0")).detach()
        self.compiled = is_standard(module) and is_compiled(self.weight_hh)

    def drive(self, inputs: Tensor) -> Tensor:
        """Return what inputs (..., D) add to the pre-activations, as the steps take it: W_ih x + b, (..., 4H).

        Of a compiled layer that is `arranged`.
        """
        drive = inputs @ self.weight_ih.T
        drive = drive if self.bias is None else drive + self.bias
        return self.arranged(drive) if self.compiled else drive

    def both(self, hidden: Tensor, cell: Tensor, given: Tensor, new_hidden: Tensor, new_cell: Tensor) -> None:
        """Step every state with either input.

        Args:
            hidden: (N, H), contiguous.
            cell: (N, H), contiguous.
            given: `drive` of the two inputs, (2, .), the same for all states; or inputs of their own (2, N, D).
            new_hidden: (2, N, H), contiguous; written.
            new_cell: (2, N, H), contiguous; written.
        """
        if self.compiled:
            self._run(hidden, cell, given[None], None, new_hidden, new_cell)
            return
        product = hidden @ self.weight_hh.T  # (N, 4H)
        added = given[:, None] if given.ndim == 2 else self.drive(given)  # (2, 1 or N, 4H)
        for way in range(2):
            self._step(product + added[way], cell, new_hidden[way], new_cell[way])

    def one(self, hidden: Tensor, cell: Tensor, given: Tensor, choice: Tensor | None) -> None:
        """Step every state with one input, in place.

        Args:
            hidden: (N, H), contiguous; written.
            cell: (N, H), contiguous; written.
            given: `drive` of the inputs to choose from, (M, .); or, without choice, inputs of their own (N, D).
            choice: Long (N,) on the device of the states, or None.
        """
        self.chain(hidden, cell, given[None], None if choice is None else choice[None], None)

    def chain(self, hidden: Tensor, cell: Tensor, given: Tensor, choice: Tensor | None, every: Tensor | None) -> None:
        """Take every state through S steps, in place; a few rows go all the way before the next, and stay in the cache.

        Args:
            hidden: (N, H), contiguous; written.
            cell: (N, H), contiguous; written.
            given: Of each step what `one` takes: (S, M, .), or without choice (S, N, D).
            choice: Long (S, N) on the device of the states, or None.
            every: (S, N, H), contiguous: where the hidden states of all steps are written; None: nowhere.
        """
        if self.compiled:
            self._run(hidden, cell, given, choice, hidden if every is None else every, cell)
            if every is not None:
                hidden.copy_(every[-1])
            return
        for step in range(len(given)):
            added = self.drive(given[step]) if choice is None else given[step][choice[step]]  # (N, 4H)
            self._step(hidden @ self.weight_hh.T + added, cell, hidden, cell)
            if every is not None:
                every[step] = hidden

    def _step(self, pre: Tensor, cell: Tensor, new_hidden: Tensor, new_cell: Tensor) -> None:
        i, f, g, o = pre.chunk(4, dim=1)  # (N, H) each
        new_cell.copy_(self.gate(f) * cell + self.gate(i) * self.shown(g))
        torch.mul(self.gate(o), self.shown(new_cell), out=new_hidden)

    def arranged(self, columns: Tensor) -> Tensor:
        """Return pre-activations (..., 4H), or what makes them, as the compiled kernels take them (..., blocks * 4L).

        See `compiled_branching.py`: the gates of L units stand side by side, multiplied by what turns e^x into 2^y.
        """
        where, scale = self._arrangement
        return columns[..., where] * scale

    @cached_property
    def _arrangement(self) -> tuple[Tensor, Tensor]:
        """Which column of 4H each of the kernels' is, and what it is multiplied by; 0 where there is no such unit."""
        from .compiled_branching import GATE_SCALES
        from .vectors import LANES

        unit = torch.arange(-(-self.units // LANES) * LANES).view(-1, 1, LANES)  # (blocks, 1, LANES)
        where = (torch.arange(4)[:, None] * self.units + unit) * (unit < self.units)
        scale = torch.tensor(GATE_SCALES)[:, None] * (unit < self.units)
        return where.flatten(), scale.flatten()

    @cached_property
    def packed(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_hh^T and zeros, W_ih^T and the bias, arranged and packed for the compiled kernels."""
        from .products import packed

        bias = None if self.bias is None else self.arranged(self.bias)
        return (*packed(self.arranged(self.weight_hh.T)), *packed(self.arranged(self.weight_ih.T), bias))

    def _run(
        self, hidden: Tensor, cell: Tensor, given: Tensor, choice: Tensor | None, new_hidden: Tensor, new_cell: Tensor
    ) -> None:
        from . import compiled_branching as compiled
        from .products import ROWS

        rows, units = hidden.shape
        steps, both = len(given), new_cell.ndim == 3
        features = 0 if choice is not None or (both and given.ndim == 3) else given.shape[-1]
        if choice is None:
            choice = torch.empty(0, dtype=torch.long)
        arrays = (hidden, cell, new_hidden, new_cell, given, choice, given, *self.packed)
        assert all(array.is_contiguous() for array in arrays), "a kernel's arrays are contiguous"
        job = np.zeros(compiled.NUMBERS, dtype=np.int64)
        job[compiled.BOTH], job[compiled.COUNT], job[compiled.UNITS] = both, rows, units
        job[compiled.FEATURES], job[compiled.OPTIONS], job[compiled.STEPS] = features, given.shape[1], steps
        job[compiled.KEEP] = not both and new_hidden.ndim == 3
        job[compiled.HIDDEN :] = [array.data_ptr() for array in arrays]
        tiles = -(-rows // ROWS)
        threads = count(tiles) if steps * rows * 4 * units * (units + features) >= MUCH_WORK else 1
        job[compiled.SHARES] = 1 if threads == 1 else min(4 * threads, tiles)
        share(compiled.branch_task, job, threads)
