"""Coalitions over time on one engine: what an LSTM has read up to t depends only on which players up to t were on.

Coalitions are sorted, players in the order in which they first play: equal beginnings lie side by side, and are
computed once. It does not matter what a player is: with cells, a timestep reads the input where they are on; with the
baseline "hold_last" a state carries what is held. Poolings are accumulated over time, no hidden state is kept.

Where players are stretches of time, one after the other, all 2^n coalitions come from doubling the set of states player
by player: 2^(n+1) cell steps instead of n 2^n, and W_hh h of a state serves both ways on. So that memory does not
double too, blocks of states are doubled depth-first.

Source of the idea that prefixes share states: Bento et al. 2021, "TimeSHAP", which reuses the state of pruned events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models import LSTMModel
from ..models.activation_lstm import ActivationLSTM
from ..models.branching import Layer
from ..models.doubling import Doubling
from ..models.opened import is_plain
from .players import CoalitionMatrix, Game
from .readout import Readout

BLOCK_ROWS = 1024  # states of a block on the CPU: more leave the cache
EXACT_PLAYERS = 20  # whose 2^20 coalitions take less than a second, where one compiled call plays them
SPARED = 2**22  # multiplications a timestep; fewer than these cost less than finding out whose states are the same
CHAINED = 8  # timesteps that one layer goes before the next one follows
AT_ONCE = 2**37  # multiplications of a compiled call, half a second: no interrupt is heard meanwhile
TILES_AT_ONCE = 8  # that threads may share
READ_ROWS = 2**16  # coalitions whose scores become numbers at once
DEVICE_ROWS = 16384  # elsewhere, where each operation costs a launch


@dataclass(eq=False)
class Block:
    """States that go through time together.

    Attributes:
        hidden: (N, H) of each layer.
        cell: (N, H) of each layer.
        pooled: What the pooling has accumulated, each (N, ...).
        held: With "hold_last": the value each feature had where it was last on (N, E), and whether it ever was.
    """

    hidden: list[Tensor]
    cell: list[Tensor]
    pooled: tuple[Tensor, ...]
    held: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.hidden[0])

    def rows(self, which: slice | Tensor) -> Block:
        """Return some of the states; of a slice, views."""
        return Block(
            [part[which] for part in self.hidden],
            [part[which] for part in self.cell],
            tuple(part[which] for part in self.pooled),
            tuple(part[which] for part in self.held),
        )


class PrefixEngine:
    """The game of one sample against one reference, played on the states of an `LSTMModel`.

    Args:
        game: What is played (see `shares_prefixes`).
        reference: Which of the game's references.
        active: Players that may change something; the others are left off.
        memory_bytes: Budget for states; what a few rows take is never refused.

    Attributes:
        active: Those that play before the explained number is there, in the order in which they first do.
        steps: Timesteps that are read, L.
        cell_steps: Steps of one state through all layers, so far.
        stretches: Whether players are stretches of time, one after the other.
    """

    def __init__(self, game: Game, reference: int, active: list[int], *, memory_bytes: int) -> None:
        problem, sample = game.problem, game.sample
        model = problem.predictor.model
        assert isinstance(model, LSTMModel)
        target, window = problem.target, None
        self.steps = int(problem.lengths[sample])
        if target.timestep is not None:
            last = target.timestep if target.last is None else target.last
            self.steps = int(last[sample]) + 1
            window = None if target.last is None else self.steps - int(target.timestep[sample])
        self._layers = [Layer(module) for module in model.lstm if isinstance(module, nn.LSTM)]
        pair = torch.stack([problem.references(sample)[reference, : self.steps], problem.inputs[sample, : self.steps]])
        if model.embedding is not None:
            pair = model.embedding(pair)
        self._pair = pair.detach()  # (2, L, E)
        self._drive = self._layers[0].drive(self._pair).transpose(0, 1).contiguous()  # (L, 2, 4H)
        self._readout = Readout(problem.predictor, model, int(target.output[sample]), self.steps, window)
        self._holds_last = problem.holds_last
        self._owner = game.players.labels[: self.steps]  # (L, D)
        self.stretches = not self._holds_last and are_stretches(self._owner)
        known, first = np.unique(self._owner, return_index=True)
        begins = dict(zip(known.tolist(), first.tolist(), strict=True))  # each player's first cell, in reading order
        self.active = sorted((player for player in active if player in begins), key=begins.__getitem__)
        self._starts = [begins[player] // self._owner.shape[1] for player in self.active]
        # At t begin those from `_beginnings[t]` to `_beginnings[t + 1]` of `active`; `_places` says whose a cell is.
        self._beginnings = np.searchsorted(self._starts, np.arange(self.steps + 1)).tolist()
        place = np.full(known.max() + 1, -1)
        place[self.active] = np.arange(len(self.active))
        self._places = place[self._owner]  # (L, D)
        self._rooms: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self.cell_steps = 0
        self.rows = self._rows(memory_bytes)
        self._memory_bytes = memory_bytes
        self._doubling: Doubling | None = None

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

    def _make_doubling(self) -> Doubling | None:
        """Return what goes through all coalitions in compiled calls, where that is possible and fits the budget."""
        weight, count = self._readout.linear, len(self.active)
        if weight is None or not self.stretches or not 0 < count <= EXACT_PLAYERS:
            return None
        begun = np.array([-1, *self.active])[np.searchsorted(self._starts, np.arange(self.steps), side="right")]
        doubling = Doubling(self._layers, self._drive, weight, self._starts, self._owner[:, 0] == begun)
        if not doubling.possible or min(2 ** (count - 1), self.rows) < doubling.rows:
            return None
        states = torch.get_num_threads() * doubling.bytes(0)
        needed = (3 * 8 + 4 * doubling.outputs) * 2**count + states
        return doubling if needed <= self._memory_bytes else None

    @torch.no_grad()
    def all_values(self) -> NDArray[np.float64]:
        """Return the explained number of every coalition of the active players, (2^n,); player k is bit k."""
        values = np.empty(2 ** len(self.active))
        if not self.stretches:
            bit = np.arange(len(self.active))
            for first in range(0, len(values), self.rows):
                ordered = np.arange(first, min(first + self.rows, len(values)))
                coalitions = (ordered[:, None] >> bit[::-1]) % 2 == 1  # sorted: the first player's bit counts most
                values[coalitions @ 2**bit] = self._run(coalitions)
            return values
        start = self._start(1)
        self._advance(start, 0, self._next_start(0), None)
        self._doubling = self._make_doubling()
        if self._doubling is None:
            self._double(start, 0, 0, values)
        else:
            scores = self._drive.new_empty(len(values), self._doubling.outputs)
            self._double(start, 0, 0, scores)
            for first in range(0, len(values), READ_ROWS):
                part = slice(first, first + READ_ROWS)
                values[part] = self._readout.explained(scores[part])
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

    def _double(self, block: Block, player: int, first: int, ends: NDArray[np.float64] | Tensor) -> None:
        """Fill the ends of all coalitions that begin as the block's rows do, which stand at `first` and after.

        Ends are values (2^n,), or scores (2^n, K) where there is a `Doubling`.
        """
        if isinstance(ends, Tensor):
            assert self._doubling is not None
            if self._goes_whole(len(block), player):
                self.cell_steps += self._doubling.run(block.hidden, block.cell, player, ends[first:])
                return
        elif player == len(self.active):
            ends[first : first + len(block)] = self._readout.value(block.hidden[-1], block.pooled)
            return
        step, stop, rows = self._starts[player], self._next_start(player + 1), len(block)
        children = self._children(block, player, step)
        if step + 1 < stop:
            self._advance(children, step + 1, stop, torch.arange(2, device=self._drive.device).repeat_interleave(rows))
        if 2 * rows <= self.rows:
            self._double(children, player + 1, first, ends)
            return
        for half in range(2):
            part = children.rows(slice(half * rows, (half + 1) * rows))
            self._double(part, player + 1, first + half * 2**player, ends)

    def _goes_whole(self, rows: int, player: int) -> bool:
        """Whether all that begins as so many states do is for one compiled call: enough for threads, not too long."""
        assert self._doubling is not None
        left = len(self.active) - player
        if left > 1 and self._spared(rows) * 2**left > AT_ONCE:
            return False
        enough = min(1 << (len(self.active) - 1), self.rows, TILES_AT_ONCE * self._doubling.rows)
        return rows >= enough

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
        return Block(flat, [part.flatten(0, 1) for part in cell], self._readout.add(flat[-1], pooled, step))

    def _advance(self, block: Block, step: int, stop: int, choice: Tensor | None) -> None:
        """Take all states through the timesteps step..stop, in place; `choice` says in which the player is on."""
        owner = self._owner[step - 1, 0]  # the last player that went both ways; those after it stay off
        off = block.hidden[0].new_zeros(len(block), dtype=torch.long)
        for t in range(step, stop):
            on = choice is not None and self._owner[t, 0] == owner
            self._step(block, t, self._drive[t], choice if on else off)

    def _step(self, block: Block, t: int, given: Tensor, choice: Tensor | None) -> None:
        """Take all states through a timestep; see `Layer.one` for what is given."""
        self._layers[0].one(block.hidden[0], block.cell[0], given, choice)
        for number, layer in enumerate(self._layers[1:], start=1):
            layer.one(block.hidden[number], block.cell[number], block.hidden[number - 1], None)
        self.cell_steps += len(block)
        block.pooled = self._readout.add(block.hidden[-1], block.pooled, t)

    def _spared(self, rows: int) -> int:
        """Return how many multiplications a timestep of so many states takes."""
        return rows * sum(layer.weight_hh.numel() for layer in self._layers)

    def _chain(self, block: Block, start: int, on: NDArray[np.int64]) -> None:
        """Take all states through the timesteps from `start` to the last, each as `on` (S, N) says, in place."""
        choice = torch.as_tensor(np.ascontiguousarray(on), device=self._drive.device)
        steps = len(choice) if len(self._layers) == 1 else CHAINED
        for first in range(0, len(choice), steps):
            chosen: Tensor | None = choice[first : first + steps]
            given = self._drive[start + first : start + first + steps]
            for number, layer in enumerate(self._layers):
                top = number + 1 == len(self._layers)
                every = None if top else given.new_empty(len(given), len(block), layer.units)
                layer.chain(block.hidden[number], block.cell[number], given, chosen, every)
                if every is not None:
                    given, chosen = every, None
        self.cell_steps += len(block) * len(choice)

    def _next_start(self, player: int) -> int:
        return self._starts[player] if player < len(self._starts) else self.steps

    def _start(self, rows: int) -> Block:
        states = [self._drive.new_zeros(rows, layer.units) for layer in self._layers]
        held: tuple[Tensor, ...] = ()
        if self._holds_last:
            nothing = self._pair.new_zeros(rows, self._pair.shape[2])
            held = nothing, nothing.bool()
        return Block(states, [state.clone() for state in states], self._readout.start(self._drive, rows), held)

    # -- some coalitions ---------------------------------------------------------------------------------------------

    def _run(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the values of sorted coalitions, (N,); rows divide where their coalitions do."""
        block = self._start(1)
        count = len(coalitions)
        member = np.zeros(count, dtype=np.int64)  # which state each coalition has come to
        leads = np.zeros(1, dtype=np.int64)  # one coalition of each state
        players = np.zeros((coalitions.shape[1] + 1, count), dtype=np.int64)  # the last: one that is left off
        players[:-1] = coalitions.T
        for t in range(self.steps):
            divides = self._beginnings[t] < len(self.active)
            if self.stretches and not block.pooled and (not divides or self._spared(count - len(block)) < SPARED):
                if divides and len(block) < count:
                    block = block.rows(torch.as_tensor(member, device=self._drive.device))
                    member = np.arange(count)
                on = players[self._places[t:, 0]]  # (S, N)
                self._chain(block, t, on if len(block) == count else on[:, leads])
                break
            begin, stop = self._beginnings[t : t + 2]  # the players that come in
            if stop > begin and len(block) < count:
                bits = players[begin:stop]
                fresh = np.ones(count, dtype=bool)  # whether a coalition is the first of its state
                fresh[1:] = (member[1:] != member[:-1]) | (bits[:, 1:] != bits[:, :-1]).any(axis=0)
                leads = np.flatnonzero(fresh)
                parents, member = member[leads], np.cumsum(fresh) - 1
                if len(leads) > len(block):
                    block = block.rows(torch.as_tensor(parents, device=self._drive.device))
            if self.stretches:
                on = players[self._places[t, 0]]
                on = on if len(block) == count else on[leads]
                self._step(block, t, self._drive[t], torch.as_tensor(on, device=self._drive.device))
            else:
                cells = torch.as_tensor(players[self._places[t]][:, leads].T == 1, device=self._drive.device)  # (N, D)
                self._step(block, t, self._read(block, t, cells), None)
        return self._readout.value(block.hidden[-1], block.pooled)[member]

    def _read(self, block: Block, t: int, on: Tensor) -> Tensor:
        """Return what each state reads at t, (N, E): the input where `on` (N, D), and the reference or what is held."""
        absent, given = self._pair[:, t]  # (E,)
        if self._holds_last:
            value, seen = block.held
            absent = torch.where(seen, value, absent)
            block.held = torch.where(on, given, value), seen | on
        return torch.where(on, given, absent).contiguous()


def are_stretches(labels: NDArray[np.int64]) -> bool:
    """Whether the players of cells (L, D) are stretches of time, one after the other."""
    return bool((labels == labels[:, :1]).all()) and bool((np.diff(labels[:, 0]) >= 0).all())


def shares_prefixes(game: Game) -> bool:
    """Whether the engine can play a game and saves work: a plain, forward `LSTMModel`, and players that begin later.

    Elsewhere each coalition is a pass of the model, which is as exact.
    """
    model = game.problem.predictor.model
    labels = game.players.labels
    return (
        is_plain(model)  # a subclass, or a hook, may compute something else
        and not model.config.bidirectional
        and model.config.pooling != "dot_attention"  # the last state weighs all: nothing can be accumulated before it
        and all(type(part) in (nn.LSTM, ActivationLSTM) for part in model.lstm)
        and game.problem.predictor.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled(game.problem.predictor.device.type)
        and (are_stretches(labels) or len(np.unique(labels)) > len(np.unique(labels[0])))
    )
