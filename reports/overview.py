"""What many attributions say together: how much each feature and timestep mattered, and how predictions spread.

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
from .evidence import SURE, Check, is_complete, rank_correlation
from .prediction import class_probabilities, explained_name, explained_words
from .reasons import strongest_span
from .token_effects import WordEffect
from .wording import (
    capital,
    count_of,
    effect,
    in_percent,
    joined,
    level,
    method_name,
    number,
    percent,
    span_before_end,
)

REACHED = 0.1  # of the samples must have a timestep for it to be shown
ABREAST = 0.9  # of the largest share: named beside it
MOST_ABREAST = 3
DIRECTED = 0.5  # rank correlation of a feature's level with its effect
ENOUGH_FOR_DIRECTION = 20  # samples
MOST_CLASSES = 6  # named in a sentence
EVERYTHING, WORDS = "the whole input", "the words"
HARDLY = 0.005  # of the median change: a sample that changes by less has no share to account for


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


def _feature_columns(attribution: Attribution) -> dict[str, list[int]]:
    """Return name -> columns of each feature, those of one group together."""
    if attribution.of_tokens or not attribution.resolves_features:
        return {WORDS if attribution.of_tokens else EVERYTHING: list(range(attribution.values.shape[2]))}
    labels = attribution.diagnostic("feature_group")
    groups: dict[str, list[int]] = {}
    for column, label in enumerate(attribution.feature_names if labels is None else labels):
        groups.setdefault(str(label), []).append(column)
    return groups


# -- sentences -------------------------------------------------------------------------------------------------------


def main_sentence(overview: Overview, word: WordEffect | None = None) -> tuple[str, str, str]:
    """Return what moved the predictions most, as text before, the emphasised part, and text after.

    Args:
        overview: Of the samples.
        word: Of texts the most effective word, where it may be told.
    """
    predictions = "this prediction" if len(overview) == 1 else f"these {len(overview):,} predictions"
    if overview.sizes.sum() == 0:
        return "", "No part of the input", f" moved {predictions}."
    could = "moved" if overview.attribution.measures == "contribution" else "could move"
    if word is not None:
        mean = effect(word.mean if overview.signed else word.size, overview.attribution)
        where = f"{word.count:,} place{'' if word.count == 1 else 's'}"
        on = " on average" if word.count > 1 else ""
        return "The word ", word.word, f" {could} {predictions} most where it stands: {mean}{on}, in {where}."
    if len(overview.names) == 1:
        if not overview.attribution.resolves_time or overview.cells.shape[1] == 1:
            return "", capital(overview.names[0]), f" {could} {predictions}."
        where, share = where_in_time(overview.totals[:, 0], overview)
        if where == "throughout":
            return "", capital(overview.names[0]), f" {could} {predictions}, throughout."
        return f"Of what {could} {predictions}, {percent(share)} lies ", where, "."
    leading = [int(f) for f in overview.order if overview.shares[f] >= ABREAST * overview.shares[overview.order[0]]]
    if len(leading) > MOST_ABREAST:
        return "", "No single feature", f" {could} {predictions} most."
    names = joined([overview.names[feature] for feature in leading])
    shares = joined([percent(float(overview.shares[feature])) for feature in leading])
    return "", capital(names), f" {could} {predictions} most: {shares} of all effects."


def where_in_time(course: NDArray[np.float64], overview: Overview) -> tuple[str, float]:
    """Return the shortest run of timesteps that holds most of a course of sizes (T,), in words, and its share."""
    first, last = strongest_span(course)
    share = float(course[first : last + 1].sum() / course.sum()) if course.sum() > 0 else 0.0
    words = span_before_end(first, last, len(course), overview.interval, same_start=overview.equally_long)
    return words, share


def feature_sentence(overview: Overview, feature: int) -> str:
    """Return how much a feature moved the predictions, where in time, and which way."""
    attribution = overview.attribution
    size = effect(float(overview.sizes[:, feature].mean()), attribution).lstrip("+")
    could = "moved" if attribution.measures == "contribution" else "could move"
    text = f"{could} {'it' if overview.one_output else 'the own class'} by {size}"
    text += " on average" if len(overview) > 1 else ""
    if attribution.resolves_time and overview.cells.shape[1] > 1 and overview.sizes[:, feature].any():
        where, share = where_in_time(overview.totals[:, feature], overview)
        text += ", throughout" if where == "throughout" else f", mostly {where} ({percent(share)} of this)"
    if len(overview) > 1 and overview.signed:
        text += f"; raised it in {percent(float((overview.net[:, feature] > 0).mean()))} of samples"
    return text + _direction(overview, feature) + "."


def _direction(overview: Overview, feature: int) -> str:
    """Return which way high values push, where the ranks say so clearly."""
    levels = overview.levels(feature)
    if levels is None or not overview.signed or len(overview) < ENOUGH_FOR_DIRECTION:
        return ""
    correlation = rank_correlation(levels, overview.net[:, feature])
    if correlation is None or abs(correlation) < DIRECTED:
        return ""
    verb = "raise" if correlation > 0 else "lower"
    return f", and high values {verb} it (rank correlation {number(correlation, digits=2)})"


def completeness_of_all(attribution: Attribution) -> Check:
    """Say in how many samples the reasons account for the change from the baseline."""
    name = method_name(attribution.method)
    if attribution.attrs["completeness"] == "none":
        text = f"{name} does not promise that effects add up, so their sizes are influence, not shares of a change."
        return Check("completeness", passed=False, text=text)
    changes = np.abs(attribution.prediction - attribution.baseline_prediction)
    rounding = max(HARDLY * float(np.median(changes)), 1e-6 * float(np.abs(attribution.prediction).max()))
    failing = sum(
        abs(float(attribution.completeness_gap[sample])) > rounding and not is_complete(attribution, sample)
        for sample in range(len(attribution))
    )
    if failing == 0:
        which = "this sample" if len(attribution) == 1 else f"all {len(attribution):,} samples"
        text = f"In {which} the effects add up to the change from the baseline within 5 % ({name})."
        return Check("completeness", passed=True, text=text)
    text = (
        f"In {count_of(failing, len(attribution))} samples the effects miss the change from the baseline by over "
        f"5 % ({name})."
    )
    return Check("completeness", passed=False, text=text)


def prediction_sentences(overview: Overview) -> list[str]:
    """Say how the predictions spread: the middle and the range, or how often each class is predicted."""
    attribution = overview.attribution
    texts = []
    if overview.likeliest is not None and len(overview) > 1:
        name, count = next(iter(overview.predicted.items()))
        often = "" if count == len(overview) else " most often"
        texts.append(f"Predicted{often}: {name}, in {count_of(count, len(overview))} samples.")
        unsure = sum(probability < SURE for _, probability in overview.likeliest)
        if unsure:
            texts.append(f"In {count_of(unsure, len(overview))} samples the predicted class has under {percent(SURE)}.")
    if overview.one_output and len(overview) > 1:
        low, quarter, middle, three, high = (
            level(float(q), attribution) for q in np.quantile(attribution.prediction, (0, 0.25, 0.5, 0.75, 1))
        )
        subject = capital(overview.subject)
        texts.append(
            f"{subject} is about {middle} in all samples."
            if low == high
            else f"{subject} runs from {low} to {high}; the middle half lies between {quarter} and {three}, the median "
            f"is {middle}."
        )
    return texts


def handling_notes(overview: Overview) -> list[str]:
    """Say how samples that differ were put together: other lengths, other explained classes."""
    notes = []
    lengths = overview.attribution.lengths
    if not overview.equally_long:
        notes.append(
            f"The sequences have {int(lengths.min())} to {int(lengths.max())} timesteps; they are aligned at their "
            f"ends, and timesteps that under {percent(REACHED)} of them have are not drawn."
        )
    if not overview.one_output:
        names = joined(list(overview.explained_names[:MOST_CLASSES]))
        largest = count_of(int(np.unique(overview.explained, return_counts=True)[1].max()), len(overview))
        notes.append(
            f"What was explained differs: of each sample its own class ({names}; {overview.explained_names[0]} in "
            f"{largest} samples). Sizes are put together; what raises and lowers is shown class by class."
        )
    return notes
