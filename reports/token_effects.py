"""Words over many texts: how often each occurs, and what it does on average where it does."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .reasons import token_texts

OFTEN = 3  # occurrences, for a word's mean to be told
MOST_WORDS = 12  # that raise, and that lower
MOST_COMPARED = 500  # words with the largest effects, for the distance of texts


@dataclass(frozen=True)
class WordEffect:
    """A word: its occurrences, in how many texts, and its mean effect where it occurs."""

    word: str
    count: int
    texts: int
    mean: float
    size: float


def find_words(attribution: Attribution, samples: NDArray[np.int64] | None = None) -> list[WordEffect]:
    """Return every word of some texts (None: all), the largest mean effect first, whichever way it pushes."""
    effects: dict[str, list[float]] = defaultdict(list)
    texts: dict[str, set[int]] = defaultdict(set)
    course = attribution.timesteps
    for sample in range(len(attribution)) if samples is None else samples.tolist():
        for step, word in enumerate(token_texts(attribution, sample)):
            effects[word].append(float(course[sample, step]))
            texts[word].add(sample)
    found = [
        WordEffect(word, len(values), len(texts[word]), float(np.mean(values)), float(np.mean(np.abs(values))))
        for word, values in effects.items()
    ]
    return sorted(found, key=lambda entry: (-abs(entry.mean), entry.word))


def most_effective(words: list[WordEffect]) -> tuple[list[WordEffect], list[WordEffect], int]:
    """Return the words that raise most, those that lower most, and how often a word had to occur."""
    often = OFTEN if any(entry.count >= OFTEN for entry in words) else 1
    told = [entry for entry in words if entry.count >= often]
    raising = [entry for entry in told if entry.mean > 0][:MOST_WORDS]
    return raising, [entry for entry in told if entry.mean < 0][:MOST_WORDS], often


def word_effects(attribution: Attribution) -> NDArray[np.float64]:
    """Return each text's effect by word, (B, W), of the words with the largest effects in sum."""
    places: dict[str, int] = {}
    rows, columns, values = [], [], []
    course = attribution.timesteps
    for sample in range(len(attribution)):
        for step, word in enumerate(token_texts(attribution, sample)):
            rows.append(sample)
            columns.append(places.setdefault(word, len(places)))
            values.append(float(course[sample, step]))
    weight = np.bincount(columns, weights=np.abs(values), minlength=len(places))
    kept = np.argsort(-weight, kind="stable")[:MOST_COMPARED]
    place = np.full(len(places), -1)
    place[kept] = np.arange(len(kept))
    result = np.zeros((len(attribution), len(kept)))
    told = place[columns] >= 0
    np.add.at(result, (np.array(rows)[told], place[columns][told]), np.array(values)[told])
    return result
