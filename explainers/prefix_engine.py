"""Coalitions over time on one engine: what an LSTM has read up to t depends only on which players up to t were on.

A player is a stretch of timesteps that reads either the input or the reference. All 2^n coalitions come from doubling
the set of states player by player: 2^(n+1) cell steps instead of n 2^n, and W_hh h of a state serves both ways on. So
that memory does not double too, blocks of states are doubled depth-first. Any other set of coalitions is sorted, so
that equal beginnings lie side by side and are computed once. Poolings are accumulated over time, no hidden state kept.

Source of the idea that prefixes share states: Bento et al. 2021, "TimeSHAP", which reuses the state of pruned events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models import LSTMModel, Predictor
from ..models.activation_lstm import ActivationLSTM
from ..models.branching import Layer
from .players import CoalitionMatrix, Game

BLOCK_ROWS = 1024  # states of a block on the CPU: more leave the cache
EXACT_PLAYERS = 20  # whose 2^20 coalitions take a second or two
DEVICE_ROWS = 16384  # elsewhere, where each operation costs a launch


@dataclass(eq=False)
class Block:
    """States that go through time together.

    Attributes:
        hidden: (N, H) of each layer.
        cell: (N, H) of each layer.
        pooled: What the pooling has accumulated, each (N, ...).
    """

    hidden: list[Tensor]
    cell: list[Tensor]
    pooled: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.hidden[0])

    def half(self, which: int) -> Block:
        """Return the first or second half of the states, as views."""
        rows = slice(len(self) // 2 * which, len(self) // 2 * (which + 1))
        return Block(
            [part[rows] for part in self.hidden],
            [part[rows] for part in self.cell],
            tuple(part[rows] for part in self.pooled),
        )


class PrefixEngine:
    """The game of one sample against one reference, played on the states of an `LSTMModel`.

    Args:
        game: What is played; its players are stretches of time (see `shares_prefixes`).
        reference: Which of the game's references.
        active: Players that may change something, in order of time; the others are left off.
        memory_bytes: Budget for states; what a few rows take is never refused.

    Attributes:
        cell_steps: Steps of one state through all layers, so far.
    """

    def __init__(self, game: Game, reference: int, active: list[int], *, memory_bytes: int) -> None:
        problem, sample = game.problem, game.sample
        model = problem.predictor.model
        assert isinstance(model, LSTMModel)
        timestep = problem.target.timestep
        self.steps = int(problem.lengths[sample]) if timestep is None else int(timestep[sample]) + 1
        self._layers = [Layer(module) for module in model.lstm if isinstance(module, nn.LSTM)]
        pair = torch.stack([problem.references(sample)[reference, : self.steps], problem.inputs[sample, : self.steps]])
        if model.embedding is not None:
            pair = model.embedding(pair)
        self._drive = self._layers[0].drive(pair.detach()).transpose(0, 1).contiguous()  # (L, 2, 4H)
        self._readout = Readout(problem.predictor, model, int(problem.target.output[sample]), self.steps)
        self._owner = game.players.labels[: self.steps, 0]  # (L,)
        self.active = [player for player in active if player <= self._owner[-1]]
        self._starts = [int(np.flatnonzero(self._owner == player)[0]) for player in self.active]
        self._rooms: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self.cell_steps = 0
        self.rows = self._rows(memory_bytes)

    def _rows(self, memory_bytes: int) -> int:
        """Return how many states a block may hold: a power of 2."""
        width = sum(layer.units for layer in self._layers)
        most = max(layer.units for layer in self._layers)
        item = self._drive.element_size()
        levels, budget = 1, memory_bytes
        if len(self.active) <= EXACT_PLAYERS:  # else only some coalitions are asked for
            levels, budget = max(1, len(self.active)), memory_bytes - 3 * 8 * 2 ** len(self.active)  # their values
        rows = BLOCK_ROWS if self._drive.device.type == "cpu" else DEVICE_ROWS
        while rows > 8:
            # each level's two halves, with what is pooled; the gates of one step; blocks of fewer rows, in all as many
            state = 2 * rows * item * (2 * width + self._readout.width)
            if (levels + 2) * state + 24 * rows * item * most <= budget:
                break
            rows //= 2
        return rows

    @torch.no_grad()
    def all_values(self) -> NDArray[np.float64]:
        """Return the explained number of every coalition of the active players, (2^n,); player k is bit k."""
        values = np.empty(2 ** len(self.active))
        start = self._start(1)
        self._advance(start, 0, self._next_start(0), None)
        self._double(start, 0, 0, values)
        self._rooms.clear()
        return values

    @torch.no_grad()
    def values(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the explained number of coalitions of the active players, (N,), from bool (N, n)."""
        order = np.lexsort(coalitions.T[::-1]) if coalitions.shape[1] else np.arange(len(coalitions))
        values = np.empty(len(coalitions))
        for first in range(0, len(order), self.rows):
            part = order[first : first + self.rows]
            values[part] = self._run(coalitions[part])
        return values

    # -- every coalition ---------------------------------------------------------------------------------------------

    def _double(self, block: Block, player: int, first: int, values: NDArray[np.float64]) -> None:
        """Fill the values of all coalitions that begin as the block's rows do, which stand at `first` and after."""
        if player == len(self.active):
            values[first : first + len(block)] = self._readout.value(block.hidden[-1], block.pooled)
            return
        step, rows = self._starts[player], len(block)
        children = self._children(block, player, step)
        choice = torch.arange(2, device=self._drive.device).repeat_interleave(rows)
        self._advance(children, step + 1, self._next_start(player + 1), choice)
        if 2 * rows <= self.rows:
            self._double(children, player + 1, first, values)
            return
        for half in range(2):
            self._double(children.half(half), player + 1, first + half * 2**player, values)

    def _children(self, block: Block, player: int, step: int) -> Block:
        """Return the block's states after `step` without the player, and then those with it."""
        rows = len(block)
        if player not in self._rooms:
            self._rooms[player] = ([], [])
            for layer in self._layers:
                for room in self._rooms[player]:
                    room.append(self._drive.new_empty(2, rows, layer.units))
        hidden, cell = self._rooms[player]
        given = self._drive[step]
        for number, layer in enumerate(self._layers):
            layer.both(block.hidden[number], block.cell[number], given, hidden[number], cell[number])
            given = hidden[number]
        self.cell_steps += 2 * rows
        flat = [part.flatten(0, 1) for part in hidden]
        pooled = tuple(part.repeat(2, *[1] * (part.ndim - 1)) for part in block.pooled)
        return Block(flat, [part.flatten(0, 1) for part in cell], self._readout.add(flat[-1], pooled))

    def _advance(self, block: Block, step: int, stop: int, choice: Tensor | None) -> None:
        """Take all states through the timesteps step..stop, in place; `choice` says in which the player is on."""
        owner = self._owner[step - 1]  # the last player that went both ways; those after it stay off
        for t in range(step, stop):
            self._step(block, t, choice if self._owner[t] == owner else None)

    def _step(self, block: Block, t: int, choice: Tensor | None) -> None:
        given = self._drive[t]
        chosen = block.hidden[0].new_zeros(len(block), dtype=torch.long) if choice is None else choice
        self._layers[0].one(block.hidden[0], block.cell[0], given, chosen)
        for number, layer in enumerate(self._layers[1:], start=1):
            layer.one(block.hidden[number], block.cell[number], block.hidden[number - 1], None)
        self.cell_steps += len(block)
        block.pooled = self._readout.add(block.hidden[-1], block.pooled)

    def _next_start(self, player: int) -> int:
        return self._starts[player] if player < len(self._starts) else self.steps

    def _start(self, rows: int) -> Block:
        states = [self._drive.new_zeros(rows, layer.units) for layer in self._layers]
        return Block(states, [state.clone() for state in states], self._readout.start(self._drive, rows))

    # -- some coalitions ---------------------------------------------------------------------------------------------

    def _run(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the values of sorted coalitions, (N,); rows divide where their coalitions do."""
        block = self._start(1)
        member = np.zeros(len(coalitions), dtype=np.int64)  # which state each coalition has come to
        place = dict(zip(self.active, range(len(self.active)), strict=True))
        leads = np.zeros(1, dtype=np.int64)  # one coalition of each state
        for t in range(self.steps):
            column = place.get(int(self._owner[t]))
            if column is None:
                self._step(block, t, None)
                continue
            if t == self._starts[column] and len(block) < len(coalitions):
                parents = member[leads]
                fresh = np.empty(len(coalitions), dtype=bool)  # whether a row is the first of its state
                fresh[0] = True
                bits = coalitions[:, column]
                fresh[1:] = (member[1:] != member[:-1]) | (bits[1:] != bits[:-1])
                leads = np.flatnonzero(fresh)
                parents, member = member[leads], np.cumsum(fresh) - 1
                block = _picked(block, torch.as_tensor(parents, device=self._drive.device))
            bits = coalitions[leads, column]
            self._step(block, t, torch.as_tensor(bits, device=self._drive.device).long())
        return self._readout.value(block.hidden[-1], block.pooled)[member]


class Readout:
    """From hidden states to the explained number, accumulated over time.

    The head is linear, so "mean" and "attention" accumulate its scores rather than hidden states; attention keeps
    log sum exp(e) and the mean so far, which is exact and cannot overflow.

    Attributes:
        width: Numbers kept a state.
    """

    def __init__(self, predictor: Predictor, model: LSTMModel, output: int, steps: int) -> None:
        self._kind = model.config.pooling
        self._pooling = model.pooling
        self._activate = predictor.activate
        self._steps = steps
        needs_all = predictor.output == "probability" and predictor.task == "multiclass"
        rows = slice(None) if needs_all else slice(output, output + 1)
        self._output = output if needs_all else 0
        self._weight = model.head.weight[rows].detach()  # (K', H)
        self._bias = model.head.bias[rows].detach()  # (K',)
        self.width = {"max": self._weight.shape[1], "mean": len(self._weight), "attention": len(self._weight) + 1}.get(
            self._kind, 0
        )

    def start(self, like: Tensor, rows: int) -> tuple[Tensor, ...]:
        """Return what is accumulated before the first timestep."""
        scores = like.new_zeros(rows, len(self._weight))
        if self._kind == "mean":
            return (scores,)
        if self._kind == "max":
            return (like.new_full((rows, self._weight.shape[1]), -torch.inf),)
        if self._kind == "attention":
            return scores, like.new_full((rows,), -torch.inf)
        return ()

    def add(self, hidden: Tensor, pooled: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what is accumulated after a timestep with the hidden states (N, H)."""
        if self._kind == "mean":
            return (pooled[0] + hidden @ self._weight.T,)
        if self._kind == "max":
            return (torch.maximum(pooled[0], hidden),)
        if self._kind == "attention":
            mean, total = pooled  # (N, K'), (N,)
            energy = torch.tanh(self._pooling.key(hidden)) @ self._pooling.query  # type: ignore[union-attr, operator]
            total = torch.logaddexp(total, energy)
            share = torch.exp(energy - total)[:, None]
            return mean + share * (hidden @ self._weight.T - mean), total
        return ()

    def value(self, hidden: Tensor, pooled: tuple[Tensor, ...]) -> NDArray[np.float64]:
        """Return the explained number (N,) at the end."""
        if self._kind == "mean":
            scores = pooled[0] / self._steps
        elif self._kind == "attention":
            scores = pooled[0]
        else:
            scores = (pooled[0] if self._kind == "max" else hidden) @ self._weight.T
        values: NDArray[np.float64] = self._activate(scores + self._bias)[:, self._output].double().cpu().numpy()
        return values


def shares_prefixes(game: Game) -> bool:
    """Whether the engine can play a game: a plain, forward `LSTMModel` whose players are stretches of time."""
    model = game.problem.predictor.model
    labels = game.players.labels
    return (
        type(model) is LSTMModel  # a subclass, or a hook, may compute something else
        and "forward" not in vars(model)
        and not model.config.bidirectional
        and not game.problem.holds_last  # what is off would depend on more than the timestep
        and all(type(part) in (nn.LSTM, ActivationLSTM) for part in model.lstm)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())  # noqa: SLF001
        and game.problem.predictor.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled(game.problem.predictor.device.type)
        and bool((labels == labels[:, :1]).all())
        and bool((np.diff(labels[:, 0]) >= 0).all())
    )


def _picked(block: Block, rows: Tensor) -> Block:
    return Block(
        [part[rows] for part in block.hidden],
        [part[rows] for part in block.cell],
        tuple(part[rows] for part in block.pooled),
    )
