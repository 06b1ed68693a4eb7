"""The numbers behind pictures of many samples: effects by feature, by token and by timestep.

A sample's effect of a feature is its attributions summed over time, of a timestep those summed over features. Of text,
the features are the tokens that occur. Sequences of different lengths are laid against each other by their ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from .wording import ago_labels

MOST_ROWS = 15  # features; the others are counted
QUARTERS = (0.25, 0.75)


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
        return attribution.resolves_time and attribution.diagnostic("token") is not None
    return attribution.resolves_features and (len(attribution.feature_names) > 1 or not attribution.resolves_time)


def rows_of(attribution: Attribution) -> Rows:
    """Return what is drawn by feature, or of text by token."""
    return _token_rows(attribution) if attribution.of_tokens else _feature_rows(attribution)


def _feature_rows(attribution: Attribution) -> Rows:
    effects = attribution.features.astype(np.float64)  # (B, D)
    sizes = np.abs(effects).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")[:MOST_ROWS]
    lengths = attribution.lengths
    every = np.arange(len(attribution))
    levels: list[NDArray[np.float64] | None] = []
    for column in order:
        values = attribution.inputs[:, :, column].astype(np.float64)  # (B, T), 0 at padding
        levels.append(_levels(values.sum(axis=1) / lengths))
    names = attribution.feature_names
    return Rows(
        names=[names[column] for column in order],
        effects=[effects[:, column] for column in order],
        samples=[every] * len(order),
        levels=levels,
        sizes=sizes[order],
        count=len(names),
        kind="feature",
    )


def _token_rows(attribution: Attribution) -> Rows:
    """Return the tokens that matter most; a sample's effect of one is that of all places where it stands."""
    words = attribution.diagnostic("token")
    if words is None or not attribution.resolves_time:
        raise InvalidInputError(
            "the texts of the tokens are not known, or not told apart; draw plot_global_timesteps, or give the model a "
            "vocabulary (DataSpec(vocabulary=...))."
        )
    batch, steps = words.shape
    valid = np.arange(steps) < attribution.lengths[:, None]  # (B, T)
    texts, token = np.unique(words[valid].astype(str), return_inverse=True)
    sample = np.broadcast_to(np.arange(batch)[:, None], (batch, steps))[valid]
    pairs, place = np.unique(sample * len(texts) + token, return_inverse=True)  # each token once a sample
    sums = np.bincount(place, weights=attribution.timesteps[valid].astype(np.float64))
    of_sample, of_token = np.divmod(pairs, len(texts))
    sizes = np.bincount(of_token, weights=np.abs(sums), minlength=len(texts)) / batch
    order = np.argsort(-sizes, kind="stable")[:MOST_ROWS]
    return Rows(
        names=[str(texts[index]) for index in order],
        effects=[sums[of_token == index] for index in order],
        samples=[of_sample[of_token == index] for index in order],
        levels=[None] * len(order),
        sizes=sizes[order],
        count=len(texts),
        kind="token",
    )


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
    sizes = np.abs(attribution.timesteps.astype(np.float64))  # (B, T)
    alike = bool((lengths == longest).all())
    means, ranges = np.zeros(longest), np.zeros((2, longest))
    for back in range(longest):
        there = lengths > back
        column = sizes[there, lengths[there] - 1 - back]
        means[-1 - back] = column.mean()
        ranges[:, -1 - back] = np.quantile(column, QUARTERS)
    interval = float(attribution.attrs["interval_seconds"])
    labels = ago_labels(longest, interval, same_start=alike)
    counted = "" if interval > 0 else "timestep" if alike else "timesteps before the last of each sequence"
    return means, ranges, labels, counted
