"""What a coalition method switches on and off (`Players`), and the game it plays with them (`Game`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError
from ..models.errors import nearest_name
from .segments import uniform_starts

if TYPE_CHECKING:
    from .problem import Problem

PlayerKind = Literal["timestep", "segment", "feature", "cell"]

# Shapes: a coalition matrix is bool (n_coalitions, n_players); row z switches player j on where z[j].
CoalitionMatrix = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Players:
    """A partition of one sequence's cells (timestep x feature) into players.

    Attributes:
        kind: "timestep", "segment" (neighbouring timesteps together), "feature" or "cell".
        labels: Int (L, D), the player each cell belongs to.
        count: Number of players.
    """

    kind: PlayerKind
    labels: NDArray[np.int64]
    count: int

    @classmethod
    def make(
        cls,
        kind: PlayerKind,
        length: int,
        features: int,
        *,
        segments: int = 10,
        starts: NDArray[np.int64] | None = None,
        merged: int = 0,
    ) -> Players:
        """Partition a sequence of `length` valid timesteps and `features` features (1 for tokens).

        Args:
            kind: "timestep", "segment", "feature" or "cell".
            length: L.
            features: D.
            segments: Number of equal segments, where kind is "segment".
            starts: The first timestep of each segment instead, ascending from 0; counted after `merged`.
            merged: First timesteps, fewer than L, that are one player, number 0; only the others are partitioned.
        """
        check_player_kind(kind)
        if merged:
            rest = cls.make(kind, length - merged, features, segments=segments, starts=starts)
            first = np.zeros((merged, features), dtype=np.int64)
            return cls(kind, np.concatenate([first, rest.labels + 1]), rest.count + 1)
        time = np.arange(length)[:, None]  # (L, 1)
        feature = np.arange(features)[None]  # (1, D)
        if kind == "timestep":
            labels, count = np.broadcast_to(time, (length, features)), length
        elif kind == "feature":
            labels, count = np.broadcast_to(feature, (length, features)), features
        elif kind == "cell":
            labels, count = time * features + feature, length * features
        else:
            starts = uniform_starts(length, segments) if starts is None else starts
            labels, count = np.broadcast_to(np.searchsorted(starts, time, "right") - 1, (length, features)), len(starts)
        return cls(kind, labels, count)

    def spread(self, contributions: NDArray[np.float64], changed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (L, D): each player's contribution (n,), shared equally among those of its cells that it changes.

        Args:
            contributions: (n,).
            changed: Bool (L, D), cells whose value differs from the baseline; the others have no effect, and get 0
                unless the whole player is unchanged.
        """
        sizes = np.bincount(self.labels.ravel(), weights=changed.ravel(), minlength=self.count)  # (n,)
        unchanged = sizes == 0
        members = changed | unchanged[self.labels]  # (L, D)
        sizes[unchanged] = np.bincount(self.labels.ravel(), minlength=self.count)[unchanged]
        return np.where(members, (contributions / sizes)[self.labels], 0.0)


def check_player_kind(kind: str) -> None:
    """Refuse an unknown kind of player."""
    if kind not in get_args(PlayerKind):
        raise InvalidInputError(f"players is {kind!r}; {nearest_name(str(kind), get_args(PlayerKind))}")


class Game:
    """The value of a coalition: the explained number when only its players keep their input, the rest the reference.

    With several references (a background set) it is the mean over them. With the baseline "hold_last" a cell that is
    switched off holds what its feature last had where it was on, and the reference before that (see `mixture`).
    """

    def __init__(self, problem: Problem, sample: int, players: Players) -> None:
        self.problem = problem
        self.sample = sample
        self.players = players
        length = int(problem.lengths[sample])
        self._inputs = problem.inputs[sample, :length]  # (L, D) or (L,)
        self._references = problem.references(sample)[:, :length]  # (R, L, D) or (R, L)
        labels = players.labels if self._inputs.ndim == 2 else players.labels[:, 0]  # (L, D) or (L,)
        self._labels = torch.tensor(labels, device=self._inputs.device)

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Cells (L, D) whose value differs from that of any reference, or from any that it may hold."""
        different = self._references != self._inputs  # (R, L, D) or (R, L)
        if self.problem.holds_last:  # any earlier value may be held, the first among them
            different = different.cumsum(dim=1) > 0
        changed = different.any(dim=0).cpu().numpy()
        return changed if changed.ndim == 2 else changed[:, None]

    def __call__(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the value of each coalition, (N,), from bool (N, n); equal coalitions are evaluated once."""
        asked = np.asarray(coalitions, dtype=bool)
        packed = np.ascontiguousarray(np.packbits(asked, axis=1))  # few bytes a row, compared as one value
        _, first_at, inverse = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True, return_inverse=True)
        unique = asked[first_at]
        values = np.zeros(len(unique))
        rows = self.problem.predictor.batch_rows(self._inputs[None])
        for first in range(0, len(unique), rows):
            on = torch.as_tensor(unique[first : first + rows], device=self._inputs.device)[:, self._labels]  # (N, L, D)
            for reference in self._references:
                mixed = mixture(self._inputs, reference, on, holds_last=self.problem.holds_last)  # (N, L, D)
                values[first : first + rows] += self.problem.evaluate(mixed, self.sample)
        return (values / len(self._references))[inverse.ravel()]

    def spread(self, contributions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the players' contributions (n,) as cells (T, D), 0 at padding."""
        cells = self.players.spread(contributions, self.changed)  # (L, D)
        padding = self.problem.inputs.shape[1] - cells.shape[0]
        return np.pad(cells, ((0, padding), (0, 0))) if padding else cells


def mixture(inputs: Tensor, reference: Tensor, on: Tensor, *, holds_last: bool) -> Tensor:
    """Return sequences (N, L, D) that keep the input where they are on.

    Args:
        inputs: (L, D) or (L,).
        reference: (L, D) or (L,), what stands for "absent".
        on: Bool (N, L, D) or (N, L).
        holds_last: Elsewhere each feature holds the value it had at the last timestep before where it is on, and the
            reference where there is none. False: the reference.
    """
    if not holds_last:
        return torch.where(on, inputs, reference)
    time = torch.arange(len(inputs), device=inputs.device).reshape(-1, *[1] * (inputs.ndim - 1))  # (L, 1)
    last = torch.where(on, time, -1).cummax(dim=1).values  # (N, L, D), -1 before the first
    held = inputs.expand(on.shape).gather(1, last.clamp(min=0))  # (N, L, D)
    return torch.where(last >= 0, held, reference)
