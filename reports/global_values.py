"""The numbers behind pictures of many samples: effects by feature, by token and by timestep.

A sample's effect of a feature is its attributions summed over time, of a timestep those summed over features. Of text,
the features are the tokens that occur. Sequences of different lengths are laid against each other by their ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from .streaming import passing
from .token_effects import occurrences
from .wording import ago_labels

MOST_ROWS = 15  # features; the others are counted
QUARTERS = (0.25, 0.75)
MOST_NUMBERS = 2**23  # that are held to be ranked, of some timesteps of all samples


@dataclass(frozen=True)
class Rows:
    """The features (or tokens) that are drawn, the largest first.

    Attributes:
        names: Their names.
        effects: Of each, the effects of the samples where it occurs, (n,).
        samples: Which samples these are, (n,).
        levels: How high its values are there, 0 to 1, (n,); None: not known, or all alike.
        sizes: Mean size of the effects over all samples, (rows,).
        count: How many features there are in all.
        kind: "feature" or "token".
    """

    names: list[str]
    effects: list[NDArray[np.float64]]
    samples: list[NDArray[np.int64]]
    levels: list[NDArray[np.float64] | None]
    sizes: NDArray[np.float64]
    count: int
    kind: str

    @property
    def left_out(self) -> str:
        """What is not drawn, in words."""
        rest = self.count - len(self.names)
        return f"; {rest:,} other {self.kind}{'s' if rest > 1 else ''} not drawn" if rest else ""


def has_rows(attribution: Attribution) -> bool:
    """Whether several features, or tokens, are told apart."""
    if attribution.of_tokens:
        return attribution.resolves_time and "token" in attribution.dataset
    return attribution.resolves_features and (len(attribution.feature_names) > 1 or not attribution.resolves_time)


def rows_of(attribution: Attribution) -> Rows:
    """Return what is drawn by feature, or of text by token."""
    return _token_rows(attribution) if attribution.of_tokens else _feature_rows(attribution)


def _feature_rows(attribution: Attribution) -> Rows:
    names = attribution.feature_names
    effects = np.zeros((len(attribution), len(names)))  # (B, D)
    for rows, piece in passing(attribution, "attribution"):
        effects[rows] = piece.features
    sizes = np.abs(effects).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")[:MOST_ROWS]
    means = np.zeros((len(attribution), len(order)))
    for rows, piece in passing(attribution, "input"):
        for place, column in enumerate(order):
            values = piece.inputs[:, :, column].astype(np.float64)  # (n, T), 0 at padding
            means[rows, place] = values.sum(axis=1) / piece.lengths
    every = np.arange(len(attribution))
    return Rows(
        names=[names[column] for column in order],
        effects=[effects[:, column] for column in order],
        samples=[every] * len(order),
        levels=[_levels(column) for column in means.T],
        sizes=sizes[order],
        count=len(names),
        kind="feature",
    )


def _token_rows(attribution: Attribution) -> Rows:
    """Return the tokens that matter most; a sample's effect of one is that of all places where it stands."""
    if "token" not in attribution.dataset or not attribution.resolves_time:
        raise InvalidInputError(
            "the texts of the tokens are not known, or not told apart; draw plot_global_timesteps, or give the model a "
            "vocabulary (DataSpec(vocabulary=...))."
        )
    total: dict[str, float] = {}
    for _, (words, _, word, effects) in _text_effects(attribution):
        for place, size in enumerate(np.bincount(word, weights=np.abs(effects), minlength=len(words))):
            total[words[place]] = total.get(words[place], 0.0) + float(size)
    texts = sorted(total)
    sizes = np.array([total[text] for text in texts]) / len(attribution)
    order = np.argsort(-sizes, kind="stable")[:MOST_ROWS]
    names = [texts[index] for index in order]
    found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.int64]]]] = {name: [] for name in names}
    for rows, (words, sample, word, effects) in _text_effects(attribution):
        for place, text in enumerate(words):
            if text in found:
                here = word == place
                found[text].append((effects[here], rows.start + sample[here]))
    return Rows(
        names=names,
        effects=[np.concatenate([effects for effects, _ in found[name]]) for name in names],
        samples=[np.concatenate([samples for _, samples in found[name]]) for name in names],
        levels=[None] * len(order),
        sizes=sizes[order],
        count=len(texts),
        kind="token",
    )


def _text_effects(
    attribution: Attribution,
) -> Iterator[tuple[slice, tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]]:
    """Yield for each piece its words, and of each text and word in it: place of the text, of the word, effect (n,)."""
    for rows, piece in passing(attribution, "attribution", "token"):
        found = occurrences(piece)
        pairs, place = np.unique(found.sample * len(found.words) + found.word, return_inverse=True)
        sample, word = np.divmod(pairs, len(found.words))
        yield rows, (found.words, sample, word, np.asarray(np.bincount(place, weights=found.effect), np.float64))


def _levels(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return how high values (n,) are, 0 to 1, between their 5th and 95th percentile; None where they hardly vary."""
    low, high = np.quantile(values, (0.05, 0.95))
    if not high > low:
        return None
    return np.asarray(np.clip((values - low) / (high - low), 0, 1))


def course_of(attribution: Attribution) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str], str]:
    """Return mean sizes (L,), their quartiles (2, L), labels, and what the axis counts, if that must be told."""
    lengths = attribution.lengths
    longest = int(lengths.max())
    alike = bool((lengths == longest).all())
    means, ranges = np.zeros(longest), np.zeros((2, longest))
    for begin, sizes in _sizes_by_step(attribution, longest):
        for back in range(begin, begin + sizes.shape[1]):
            column = sizes[lengths > back, back - begin]
            means[-1 - back] = column.mean()
            ranges[:, -1 - back] = np.quantile(column, QUARTERS)
    interval = float(attribution.attrs["interval_seconds"])
    labels = ago_labels(longest, interval, same_start=alike)
    counted = "" if interval > 0 else "timestep" if alike else "timesteps before the last of each sequence"
    return means, ranges, labels, counted


def _sizes_by_step(attribution: Attribution, longest: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield the sizes of the effects of a few timesteps at once, counted from the last, and the first of them.

    Of each sample they are (B, n): so many that a quartile over all samples can be found, one pass for each.
    """
    at_once = max(1, MOST_NUMBERS // len(attribution))
    for begin in range(0, longest, at_once):
        backs = np.arange(begin, min(begin + at_once, longest))
        sizes = np.zeros((len(attribution), len(backs)))
        for rows, piece in passing(attribution, "attribution"):
            step = np.maximum(piece.lengths[:, None] - 1 - backs, 0)  # (n, backs)
            sizes[rows] = np.abs(np.take_along_axis(piece.timesteps.astype(np.float64), step, axis=1))
        yield begin, sizes
