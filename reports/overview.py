"""What many attributions say together: how much each feature and each timestep mattered, in numbers.

Sequences of different lengths are aligned at their ends: the last timestep of each stands below that of the others.
Timesteps are read in passes over the samples and summed at once, so that the samples may be more than memory holds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .prediction import explained_name, explained_words, probabilities
from .streaming import held, passing
from .token_effects import WordCounts, count_words
from .wording import in_percent, token_word

REACHED = 0.1  # of the samples must have a timestep for it to be shown
EVERYTHING = "the whole input"
MOST_CLASSES = 4  # explained classes that are told one by one


@dataclass(frozen=True, eq=False)
class Overview:
    """The attributions of many samples, features of one group together.

    Attributes:
        attribution: What it is made from, with the numbers of each sample in memory.
        names: Names of the G features; one, `EVERYTHING`, of methods that do not tell features apart.
        columns: The columns of each.
        net: (B, G) effect of each feature on each sample, raising and lowering set off against each other.
        sizes: (B, G) size of each feature's effects on each sample, whichever way they push.
        totals: (T, G) size of the contributions of each timestep and feature, summed over the samples.
        reached: (T,) how many samples have this timestep.
    """

    attribution: Attribution
    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    net: NDArray[np.float64]
    sizes: NDArray[np.float64]
    totals: NDArray[np.float64]
    reached: NDArray[np.int64]

    @classmethod
    def of(cls, attribution: Attribution) -> Overview:
        """Return the overview of an attribution."""
        attribution = held(attribution)
        groups = _feature_columns(attribution)
        columns = tuple(map(tuple, groups.values()))
        steps = attribution.dataset.sizes["time"]
        net, sizes = (np.zeros((len(attribution), len(columns))) for _ in range(2))
        totals = np.zeros((steps, len(columns)))
        for rows, piece in passing(attribution, "attribution"):
            cells = grouped_cells(piece, columns)
            net[rows] = cells.sum(axis=1)
            np.abs(cells, out=cells)
            sizes[rows] = cells.sum(axis=1)
            totals += cells.sum(axis=0)
        lengths = np.bincount(attribution.lengths, minlength=steps + 1)  # how many samples have each
        reached = len(attribution) - np.cumsum(lengths)[steps - 1 :: -1]
        return cls(attribution, tuple(groups), columns, net, sizes, totals, reached)

    def __len__(self) -> int:
        return len(self.net)

    @property
    def steps(self) -> int:
        """T, of the longest samples."""
        return len(self.reached)

    def cells_of(self, piece: Attribution) -> NDArray[np.float64]:
        """Return contributions of some of the samples, (n, T, G), aligned at the end; 0 before a sequence begins."""
        return grouped_cells(piece, self.columns)

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
        return np.asarray(self.totals / np.maximum(self.reached, 1)[:, None])

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
    def by_explained(self) -> list[tuple[str, NDArray[np.int64]]]:
        """The samples (n,) that were explained for each output, with its name, most frequent first."""
        samples = [np.flatnonzero(self.explained == output) for output in np.unique(self.explained)]
        samples.sort(key=lambda found: -len(found))
        return list(zip(self.explained_names, samples, strict=True))

    @cached_property
    def likeliest(self) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
        """The predicted class of each sample, (B,) names, and its probability; None of regressions and windows."""
        found = probabilities(self.attribution)
        if found is None:
            return None
        place = found[1].argmax(axis=1)
        return np.array(found[0], dtype=object)[place], found[1][np.arange(len(self)), place]

    @cached_property
    def predicted(self) -> dict[str, int]:
        """Class -> how many samples it is predicted in, most frequent first; empty where there are no classes."""
        found = Counter(() if self.likeliest is None else self.likeliest[0].tolist())
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
        return np.asarray(self._levels[:, feature])

    @cached_property
    def _levels(self) -> NDArray[np.float64]:
        """(B, G): the levels of features of one column."""
        levels = np.zeros((len(self), len(self.columns)))
        weights = self.totals + 1e-9 * self.totals.max(axis=0) + 1e-300  # (T, G)
        for rows, piece in passing(self.attribution, "input"):
            valid = np.arange(self.steps) >= self.steps - piece.lengths[:, None]  # (n, T)
            for feature, columns in enumerate(self.columns):
                if len(columns) == 1:
                    values = at_the_end(piece.inputs[:, :, columns[0]].astype(np.float64), piece.lengths)
                    weight = weights[:, feature]
                    levels[rows, feature] = (values * weight).sum(axis=1) / (valid * weight).sum(axis=1)
        return levels

    @cached_property
    def words(self) -> WordCounts:
        """The words of all texts, counted apart for each of the first `MOST_CLASSES` of `by_explained`."""
        member = np.full(len(self), MOST_CLASSES)
        for place, (_, samples) in enumerate(self.by_explained[:MOST_CLASSES]):
            member[samples] = place
        return count_words(self.attribution, member)


def grouped_cells(piece: Attribution, columns: tuple[tuple[int, ...], ...]) -> NDArray[np.float64]:
    """Return contributions (n, T, G), the columns of a group together, aligned at the end."""
    values = piece.values.astype(np.float64)
    cells = np.stack([values[:, :, list(group)].sum(axis=2) for group in columns], axis=2)
    return at_the_end(cells, piece.lengths)


def at_the_end(values: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """Return values (B, T, ...) with the valid timesteps of each sample moved to the end, 0 before them."""
    steps = values.shape[1]
    if (lengths == steps).all():
        return values
    source = np.arange(steps) - (steps - lengths[:, None])  # (B, T)
    index = np.maximum(source, 0).reshape(*source.shape, *[1] * (values.ndim - 2))
    moved = np.take_along_axis(values, np.broadcast_to(index, values.shape), axis=1)
    return np.where((source >= 0).reshape(index.shape), moved, 0)


def only_cells(overview: Overview) -> NDArray[np.float64]:
    """Return the contributions of the only sample's valid timesteps, (L, G)."""
    attribution = overview.attribution
    return overview.cells_of(attribution)[0, overview.steps - int(attribution.lengths[0]) :]


def whole_of(attribution: Attribution) -> str:
    """Return what the one feature is called where features are not told apart: "the words", "the whole input"."""
    return f"the {token_word(attribution)}s" if attribution.of_tokens else EVERYTHING


def _feature_columns(attribution: Attribution) -> dict[str, list[int]]:
    """Return name -> columns of each feature, those of one group together."""
    if attribution.of_tokens or not attribution.resolves_features:
        return {whole_of(attribution): list(range(attribution.dataset.sizes["feature"]))}
    labels = attribution.diagnostic("feature_group")
    groups: dict[str, list[int]] = {}
    for column, label in enumerate(attribution.feature_names if labels is None else labels):
        groups.setdefault(str(label), []).append(column)
    return groups
