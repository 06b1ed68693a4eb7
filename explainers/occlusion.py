"""Occlusion: how far the explained number moves when a part of the sequence is taken away.

The parts are the house's players, and their absence is what it is in the house's `Game`, not in captum's
FeatureAblation and Occlusion: these know one baseline of numbers, where a game also knows token ids, sequences of
different lengths, background sets and a held last value. Samples of the same players are evaluated together. The
numbers are captum's (tests/test_occlusion.py).
Source: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError
from .base import Completeness, PlayerExplainer, check_positive
from .players import CoalitionMatrix, Game, Players, mixture
from .prefix_engine import shares_prefixes
from .problem import Contribution, Problem
from .temporal_game import TemporalGame

LONG = 256  # timesteps from which sharing beginnings is faster than the fused kernel on whole sequences (measured)
MEMORY_BYTES = 2**30


class Occlusion(PlayerExplainer):
    """f(x) minus f(x with one player replaced by the baseline), a player at a time: positive where the part raised it.

    One evaluation a player (and reference of a background set); of long sequences, an `LSTMModel` that reads forwards
    reads the timesteps before what is taken away only once (`prefix_engine.py`), which is half of the work.

    What two players only do together is counted for both of them, or, where each stands in for the other, for neither;
    so the sum means nothing.

    With `window`, a window of timesteps slides over the sequence; a timestep gets the mean over the windows that hold
    it of what taking the whole window away did (captum's definition), the last window cut off at the sequence's end.
    What a window did is credited to all in it: a timestep that does nothing looks as its neighbours do.

    Args:
        model: Anything callable (see `Explainer`).
        players: "timestep", "segment", "feature" or "cell".
        window: Timesteps of a sliding window, with players="timestep"; None: each timestep by itself.
        stride: Timesteps from one window's begin to the next one's, at most `window`.
        background: Sequences (R, T, D) that stand for "absent", averaged over; None: the baseline. Costs R times more.
        options: `segments`, `segmentation` of `PlayerExplainer`; `baseline`, `output`, `task`, `seed` of `Explainer`.
    """

    name = "occlusion"
    summary = "change of the prediction when a part is replaced by the baseline"
    completeness = "none"
    linearity = "exact"
    source = "Zeiler & Fergus 2014"
    takes_background = True

    def __init__(self, model: Any, *, window: int | None = None, stride: int = 1, **options: Any) -> None:
        super().__init__(model, **options)
        check_positive("stride", stride)
        if window is None:
            if stride != 1:
                raise InvalidInputError(f"stride is {stride}, and there is no window to move; give window= as well.")
        else:
            check_positive("window", window)
            if self.players != "timestep":
                raise InvalidInputError(
                    f"window={window} slides over timesteps, and players is {self.players!r}; use players='timestep'."
                )
            if stride > window:
                raise InvalidInputError(
                    f"stride is {stride}; expected at most window={window}, or timesteps are left out."
                )
        self.window = window
        self.stride = stride

    @property
    def _of_players(self) -> Completeness:
        """A player in a window is credited with what its neighbours do."""
        return "exact" if self.window is None else "none"

    dummy_player = missingness = symmetry = _of_players

    def _attribute(self, problem: Problem) -> Contribution:
        if type(self)._solve is not Occlusion._solve:  # noqa: SLF001 - a subclass may solve games its own way
            return super()._attribute(problem)
        values = np.zeros((*problem.inputs.shape[:2], problem.features))
        shared = np.zeros(len(values))
        parts = self._alike(problem)
        for rows in problem.track(parts, len(parts), self.name):
            game = self._game(problem, int(rows[0]))
            if _is_shared(game):
                for sample in rows.tolist():
                    game = self._game(problem, sample)
                    values[sample] = game.spread(self._solve(game)[0])
                shared[rows.numpy()] = 1
            else:
                values[rows.numpy(), : len(game.players.labels)] = self._solve_together(problem, rows, game.players)
        return Contribution(values, resolution=self._resolution(problem), diagnostics={"prefix_shared": shared})

    def _alike(self, problem: Problem) -> tuple[Tensor, ...]:
        """Return the samples in parts, long (n,) each, of the same players."""
        if self.players == "segment" and self.segmentation == "change_point":
            return tuple(torch.arange(len(problem.lengths)).split(1))
        rows = problem.predictor.quick_rows(problem.inputs)
        parts: list[Tensor] = []
        for length in problem.lengths.unique():
            count = self._game(problem, int((problem.lengths == length).nonzero()[0])).players.count
            parts += (problem.lengths == length).nonzero()[:, 0].split(max(1, rows // count))
        return tuple(parts)

    def _solve(self, game: Game) -> tuple[NDArray[np.float64], dict[str, float]]:
        hidden = self._hidden(game.players)
        shared = _is_shared(game)
        full = game.problem.prediction[game.sample]
        effect = _shared_effect(game, hidden) if shared else full - game(~hidden)  # (N,)
        return effect @ hidden / hidden.sum(axis=0), {"prefix_shared": float(shared)}

    def _solve_together(self, problem: Problem, rows: Tensor, players: Players) -> NDArray[np.float64]:
        """Return the contributions (n, L, D) of samples of the same players, as large batches of whole passes."""
        hidden = self._hidden(players)
        effect = problem.prediction[rows.numpy()][:, None] - _values(problem, rows, hidden, players)  # (n, N)
        contributions = effect @ hidden / hidden.sum(axis=0)  # (n, players)
        # to share them out, the players of all samples are taken as those of one long sequence
        own = np.arange(len(rows))[:, None, None] * players.count + players.labels  # (n, L, D)
        changed = _changed(problem, rows, len(players.labels))  # (n, L, D)
        every = Players(players.kind, own.reshape(-1, problem.features), players.count * len(rows))
        return every.spread(contributions.ravel(), changed.reshape(-1, problem.features)).reshape(changed.shape)

    def _hidden(self, players: Players) -> CoalitionMatrix:
        return _windows(players.count, self.window or 1, self.stride)  # (N, n)


def _is_shared(game: Game) -> bool:
    """Whether coalitions are played on shared beginnings."""
    return len(game.players.labels) >= LONG and shares_prefixes(game)


def _given(problem: Problem, rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return inputs (n, L, D) or (n, L) of samples, and what stands for "absent" in them, (R, n, L, D) or (R, n, L)."""
    inputs = problem.inputs[rows, :length]
    absent = problem.baseline[rows][None] if problem.background is None else problem.background[:, None]
    return inputs, absent[:, :, :length].expand(-1, *inputs.shape)


def _values(problem: Problem, rows: Tensor, hidden: CoalitionMatrix, players: Players) -> NDArray[np.float64]:
    """Return the explained numbers (n, N) of samples from which the players of `hidden` are taken away."""
    labels = players.labels[:, 0] if problem.reads_tokens else players.labels  # (L,) or (L, D)
    inputs, references = _given(problem, rows, len(labels))
    values = np.zeros((len(rows), len(hidden)))
    size = max(1, problem.predictor.quick_rows(inputs) // len(rows))
    for first in range(0, len(hidden), size):
        windows = slice(first, first + size)
        away = torch.as_tensor(hidden[windows][:, labels], device=inputs.device)  # (W, L, D) or (W, L)
        own = rows.repeat_interleave(len(away))  # (n W,)
        target, lengths = problem.target.rows(own), problem.lengths[own]
        for reference in references:
            if problem.holds_last:
                some = zip(inputs, reference, strict=True)
                mixed = torch.stack([mixture(one, other, ~away, holds_last=True) for one, other in some])
            else:
                mixed = torch.where(away, reference[:, None], inputs[:, None])  # (n, W, L, D)
            found = problem.predictor.evaluate(mixed.flatten(0, 1), target, lengths).double().cpu()
            values[:, windows] += found.reshape(len(rows), -1).numpy()
    return values / len(references)


def _changed(problem: Problem, rows: Tensor, length: int) -> NDArray[np.bool_]:
    """Return the cells (n, L, D) of samples whose value may change when they are taken away (see `Game.changed`)."""
    inputs, references = _given(problem, rows, length)
    changed = torch.zeros_like(inputs, dtype=torch.bool)
    for reference in references:
        different = reference != inputs
        changed |= different.cumsum(dim=1) > 0 if problem.holds_last else different
    array: NDArray[np.bool_] = changed.cpu().numpy()
    return array[..., None] if problem.reads_tokens else array


def _shared_effect(game: Game, hidden: CoalitionMatrix) -> NDArray[np.float64]:
    """Return what taking each window away does, (N,), from coalitions that share their beginnings."""
    played = TemporalGame(game, memory_bytes=MEMORY_BYTES)
    taken = hidden[:, played.active]
    some = taken.any(axis=1)  # the others do nothing
    effect = np.zeros(len(hidden))
    values = played.values(np.concatenate([np.ones((1, taken.shape[1]), dtype=bool), ~taken[some]]))
    effect[some] = values[0] - values[1:]
    return effect


def _windows(count: int, window: int, stride: int) -> CoalitionMatrix:
    """Return bool (N, n), the players that each window takes away; every player is in at least one."""
    moves = math.ceil(max(count - window, 0) / stride) + 1
    begin = np.arange(moves)[:, None] * stride  # (N, 1)
    player = np.arange(count)  # (n,)
    windows: CoalitionMatrix = (player >= begin) & (player < begin + window)
    return windows
