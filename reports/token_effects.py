"""Words over many texts: how often each occurs, and what it does on average where it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .streaming import held, passing

OFTEN = 3  # occurrences, for a word's mean to be told
MOST_WORDS = 12  # that raise, and that lower
MOST_COMPARED = 500  # words with the largest effects, for the distance of texts
SUMS = 4  # of a word: its occurrences, texts, effects, and sizes of effects


@dataclass(frozen=True)
class WordEffect:
    """A word: its occurrences, in how many texts, and its mean effect where it occurs."""

    word: str
    count: int
    texts: int
    mean: float
    size: float


@dataclass(frozen=True, eq=False)
class WordCounts:
    """The words of many texts, in groups of texts.

    Attributes:
        words: The W words, as they first occur.
        sums: (groups, `SUMS`, W) occurrences, texts that have the word, sum of its effects and of their sizes.
    """

    words: tuple[str, ...]
    sums: NDArray[np.float64]

    def told(self, group: int | None = None) -> list[WordEffect]:
        """Return the words of a group of texts (None: of all), the largest mean effect first, whichever its sign."""
        count, texts, effects, sizes = self.sums.sum(axis=0) if group is None else self.sums[group]  # (W,) each
        found = [
            WordEffect(self.words[place], int(count[place]), int(texts[place]),
                       float(effects[place] / count[place]), float(sizes[place] / count[place]))
            for place in np.flatnonzero(count)
        ]  # fmt: skip
        return sorted(found, key=lambda entry: (-abs(entry.mean), entry.word))

    def strongest(self) -> tuple[str, ...]:
        """Return the words with the largest effects in sum, over all texts."""
        weight = self.sums[:, 3].sum(axis=0)
        return tuple(self.words[place] for place in np.argsort(-weight, kind="stable")[:MOST_COMPARED])


@dataclass(frozen=True, eq=False)
class Occurrences:
    """The words of a piece, one entry a valid token (n,): its text's place, its word's, and its effect."""

    words: list[str]
    sample: NDArray[np.int64]
    word: NDArray[np.int64]
    effect: NDArray[np.float64]


def occurrences(piece: Attribution) -> Occurrences:
    """Return the words of some texts, or their ids where the model names none."""
    import pandas as pd

    valid = np.arange(piece.dataset.sizes["time"]) < piece.lengths[:, None]  # (n, T)
    known = piece.diagnostic("token")
    given: NDArray[Any] = piece.inputs[valid, 0] if known is None else known[valid].astype(object)
    word, different = pd.factorize(given)
    words = [f"id {int(value)}" for value in different] if known is None else [str(value) for value in different]
    effect = piece.timesteps[valid].astype(np.float64)
    return Occurrences(words, np.nonzero(valid)[0], word.astype(np.int64), effect)


def count_words(attribution: Attribution, member: NDArray[np.int64] | None = None) -> WordCounts:
    """Count the words of all texts in one pass.

    Args:
        attribution: Of texts.
        member: (B,) number of each text's group; None: all are one.
    """
    attribution = held(attribution)
    groups = 1 if member is None else int(member.max(initial=0)) + 1
    places: dict[str, int] = {}
    sums = np.zeros((groups, SUMS, 0))
    for rows, piece in passing(attribution, "attribution", *_tokens(attribution)):
        found = occurrences(piece)
        word = np.array([places.setdefault(name, len(places)) for name in found.words], dtype=np.int64)[found.word]
        sums = np.pad(sums, [(0, 0), (0, 0), (0, len(places) - sums.shape[2])])
        group = np.zeros(len(piece), dtype=np.int64) if member is None else member[rows]
        once = np.unique(found.sample * len(places) + word)  # each word once a text
        np.add.at(sums[:, 1], (group[once // len(places)], once % len(places)), 1)
        for row, values in ((0, 1), (2, found.effect), (3, np.abs(found.effect))):
            np.add.at(sums[:, row], (group[found.sample], word), values)
    return WordCounts(tuple(places), sums)


def most_effective(words: list[WordEffect]) -> tuple[list[WordEffect], list[WordEffect], int]:
    """Return the words that raise most, those that lower most, and how often a word had to occur."""
    often = OFTEN if any(entry.count >= OFTEN for entry in words) else 1
    told = [entry for entry in words if entry.count >= often]
    raising = [entry for entry in told if entry.mean > 0][:MOST_WORDS]
    return raising, [entry for entry in told if entry.mean < 0][:MOST_WORDS], often


def word_effects(
    attribution: Attribution, words: Sequence[str], samples: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the effect of each of some words in each of some texts (None: all), (n, W)."""
    columns = {word: place for place, word in enumerate(words)}
    result = np.zeros((len(attribution) if samples is None else len(samples), len(words)))
    for rows, piece in passing(attribution, "attribution", *_tokens(attribution), samples=samples):
        found = occurrences(piece)
        column = np.array([columns.get(word, -1) for word in found.words], dtype=np.int64)[found.word]
        told = column >= 0
        np.add.at(result, (rows.start + found.sample[told], column[told]), found.effect[told])
    return result


def _tokens(attribution: Attribution) -> tuple[str, ...]:
    """Return the variable that tells the tokens."""
    return ("token",) if "token" in attribution.dataset else ("input",)
