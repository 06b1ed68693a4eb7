"""What a coalition method switches on and off (`Players`), and the game it plays with them (`Game`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..models import InvalidInputError
from ..models.errors import nearest_name

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
    def make(cls, kind: PlayerKind, length: int, features: int, *, segments: int = 10) -> Players:
        """Partition a sequence of `length` valid timesteps and `features` features (1 for tokens)."""
        check_player_kind(kind)
        time = np.arange(length)[:, None]  # (L, 1)
        feature = np.arange(features)[None]  # (1, D)
        if kind == "timestep":
            labels, count = np.broadcast_to(time, (length, features)), length
        elif kind == "feature":
            labels, count = np.broadcast_to(feature, (length, features)), features
        elif kind == "cell":
            labels, count = time * features + feature, length * features
        else:
            count = min(segments, length)
            labels = np.broadcast_to(time * count // length, (length, features))
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

    With several references (a background set) it is the mean over them.
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
        """Cells (L, D) whose value differs from that of any reference."""
        changed = (self._references != self._inputs).any(dim=0).cpu().numpy()
        return changed if changed.ndim == 2 else changed[:, None]

    def __call__(self, coalitions: CoalitionMatrix) -> NDArray[np.float64]:
        """Return the value of each coalition, (N,), from bool (N, n); equal coalitions are evaluated once."""
        unique, inverse = np.unique(np.asarray(coalitions, dtype=bool), axis=0, return_inverse=True)
        values = np.zeros(len(unique))
        rows = self.problem.predictor.batch_rows(self._inputs[None])
        for first in range(0, len(unique), rows):
            on = torch.as_tensor(unique[first : first + rows], device=self._inputs.device)[:, self._labels]  # (N, L, D)
            for reference in self._references:
                mixed = torch.where(on, self._inputs, reference)  # (N, L, D)
                values[first : first + rows] += self.problem.evaluate(mixed, self.sample)
        return (values / len(self._references))[inverse.ravel()]

    def spread(self, contributions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the players' contributions (n,) as cells (T, D), 0 at padding."""
        cells = self.players.spread(contributions, self.changed)  # (L, D)
        padding = self.problem.inputs.shape[1] - cells.shape[0]
        return np.pad(cells, ((0, padding), (0, 0)))
