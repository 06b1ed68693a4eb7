"""What many attributions say together: how much each feature and each timestep mattered, in numbers.

Sequences of different lengths are aligned at their ends: the last timestep of each stands below that of the others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .prediction import class_probabilities, explained_name, explained_words
from .wording import in_percent, token_word

REACHED = 0.1  # of the samples must have a timestep for it to be shown
EVERYTHING = "the whole input"


@dataclass(frozen=True, eq=False)
class Overview:
    """The attributions of many samples, features of one group together.

    Attributes:
        attribution: What it is made from.
        names: Names of the G features; one, `EVERYTHING`, of methods that do not tell features apart.
        columns: The columns of each.
        cells: (B, T, G) contributions, aligned at the end; 0 before a sequence begins.
        reached: (T,) how many samples have this timestep.
    """

    attribution: Attribution
    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    cells: NDArray[np.float64]
    reached: NDArray[np.int64]

    @classmethod
    def of(cls, attribution: Attribution) -> Overview:
        """Return the overview of an attribution."""
        groups = _feature_columns(attribution)
        values = attribution.values.astype(np.float64)
        cells = np.stack([values[:, :, list(columns)].sum(axis=2) for columns in groups.values()], axis=2)
        lengths = attribution.lengths
        steps = cells.shape[1]
        reached = (np.arange(steps) >= steps - lengths[:, None]).sum(axis=0)
        return cls(attribution, tuple(groups), tuple(map(tuple, groups.values())), at_the_end(cells, lengths), reached)

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def net(self) -> NDArray[np.float64]:
        """(B, G): effect of each feature on each sample, raising and lowering set off against each other."""
        return np.asarray(self.cells.sum(axis=1))

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """(B, G): size of each feature's effects on each sample, whichever way they push."""
        return np.asarray(np.abs(self.cells).sum(axis=1))

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(G,): share of all effects, by size; 0 where there are none."""
        total = self.sizes.sum()
        return np.asarray(self.sizes.sum(axis=0) / (total or 1))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(G,): the features, largest share first."""
        return np.argsort(-self.shares, kind="stable")

    @cached_property
    def by_step(self) -> NDArray[np.float64]:
        """(T, G): mean size of the contribution of each timestep and feature, over the samples that have the step."""
        return np.asarray(np.abs(self.cells).sum(axis=0) / np.maximum(self.reached, 1)[:, None])

    @cached_property
    def totals(self) -> NDArray[np.float64]:
        """(T, G): the same summed, so that timesteps few samples have count for little."""
        return np.asarray(np.abs(self.cells).sum(axis=0))

    @property
    def first_shown(self) -> int:
        """The earliest timestep that enough samples have to be drawn."""
        return int(np.argmax(self.reached >= REACHED * len(self)))

    @property
    def equally_long(self) -> bool:
        """Whether all sequences have the same length."""
        return bool((self.attribution.lengths == self.attribution.lengths[0]).all())

    @property
    def interval(self) -> float:
        """Seconds between timesteps; 0 where unknown."""
        return float(self.attribution.attrs["interval_seconds"])

    @cached_property
    def explained(self) -> NDArray[np.int64]:
        """(B,): the explained output of each sample."""
        return self.attribution.dataset["target_output"].to_numpy().astype(np.int64)

    @property
    def one_output(self) -> bool:
        """Whether the same output was explained in all samples, so that signs mean the same in all."""
        return bool((self.explained == self.explained[0]).all())

    @cached_property
    def explained_names(self) -> tuple[str, ...]:
        """Names of the outputs that were explained, most frequent first."""
        outputs, first, counts = np.unique(self.explained, return_index=True, return_counts=True)
        order = np.lexsort((outputs, -counts))
        return tuple(explained_name(self.attribution, int(first[place])) for place in order)

    @cached_property
    def likeliest(self) -> list[tuple[str, float]] | None:
        """The predicted class of each sample and its probability; None of regressions and sums over windows."""
        pairs = [class_probabilities(self.attribution, sample) for sample in range(len(self))]
        return [found[0] for found in pairs if found] if all(pairs) else None

    @property
    def predicted(self) -> dict[str, int]:
        """Class -> how many samples it is predicted in, most frequent first; empty where there are no classes."""
        found = Counter(name for name, _ in self.likeliest or ())
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def signed(self) -> bool:
        """Whether signs mean the same in all samples: one output was explained, and by contributions."""
        return self.one_output and self.attribution.measures == "contribution"

    @property
    def subject(self) -> str:
        """What was explained, e.g. "the probability of fall", or of several "the probability of the own class"."""
        if self.one_output:
            bare = Attribution(self.attribution.dataset.drop_vars("timestamp", errors="ignore"))
            return explained_words(bare, 0)
        return f"the {'probability' if in_percent(self.attribution) else 'score'} of each sample's own class"

    def levels(self, feature: int) -> NDArray[np.float64] | None:
        """Return the level of a feature in each sample, (B,): its mean, timesteps weighted by how much they matter.

        None where it has several columns, or is no number.
        """
        if self.attribution.of_tokens or len(self.columns[feature]) != 1:
            return None
        lengths = self.attribution.lengths
        values = at_the_end(self.attribution.inputs[:, :, self.columns[feature][0]].astype(np.float64), lengths)
        weight = self.totals[:, feature] + 1e-9 * self.totals[:, feature].max() + 1e-300
        valid = np.arange(values.shape[1]) >= values.shape[1] - lengths[:, None]  # (B, T)
        return np.asarray((values * weight).sum(axis=1) / (valid * weight).sum(axis=1))


def at_the_end(values: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """Return values (B, T, ...) with the valid timesteps of each sample moved to the end, 0 before them."""
    steps = values.shape[1]
    source = np.arange(steps) - (steps - lengths[:, None])  # (B, T)
    index = np.maximum(source, 0).reshape(*source.shape, *[1] * (values.ndim - 2))
    moved = np.take_along_axis(values, np.broadcast_to(index, values.shape), axis=1)
    return np.where((source >= 0).reshape(index.shape), moved, 0)


def whole_of(attribution: Attribution) -> str:
    """Return what the one feature is called where features are not told apart: "the words", "the whole input"."""
    return f"the {token_word(attribution)}s" if attribution.of_tokens else EVERYTHING


def _feature_columns(attribution: Attribution) -> dict[str, list[int]]:
    """Return name -> columns of each feature, those of one group together."""
    if attribution.of_tokens or not attribution.resolves_features:
        return {whole_of(attribution): list(range(attribution.values.shape[2]))}
    labels = attribution.diagnostic("feature_group")
    groups: dict[str, list[int]] = {}
    for column, label in enumerate(attribution.feature_names if labels is None else labels):
        groups.setdefault(str(label), []).append(column)
    return groups
