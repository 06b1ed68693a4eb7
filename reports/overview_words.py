"""What many attributions say together, in sentences made from an `Overview` by rules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..explainers.metrics.ranking import rank_correlation
from .evidence import COMPLETE_WITHIN, SURE, Check
from .overview import REACHED, Overview
from .reasons import strongest_span
from .token_effects import WordEffect
from .wording import capital, count_of, effect, joined, level, method_name, number, percent, span_before_end, token_word

ABREAST = 0.9  # of the largest share: named beside it
MOST_ABREAST = 3
DIRECTED = 0.5  # rank correlation of a feature's level with its effect
ENOUGH_FOR_DIRECTION = 20  # samples
MOST_CLASSES = 6  # named in a sentence
HARDLY = 0.005  # of the median change: a sample that changes by less has no share to account for


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
        return (
            f"The {token_word(overview.attribution)} ",
            word.word,
            f" {could} {predictions} most where it stands: {mean}{on}, in {where}.",
        )
    if len(overview.names) == 1:
        if not overview.attribution.resolves_time or overview.steps == 1:
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
    if attribution.resolves_time and overview.steps > 1 and overview.sizes[:, feature].any():
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
    prediction = attribution.prediction
    changes = np.abs(prediction - attribution.baseline_prediction)
    rounding = max(HARDLY * float(np.median(changes)), 1e-6 * float(np.abs(prediction).max()))
    gaps = np.abs(attribution.completeness_gap.astype(np.float64))
    failing = int(((gaps > rounding) & ~(gaps <= COMPLETE_WITHIN * changes.astype(np.float64))).sum())
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
        unsure = int((overview.likeliest[1] < SURE).sum())
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
    """Say which samples are missing, and how those that differ were put together: other lengths, other classes."""
    notes = missing_notes(overview.attribution)
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


def missing_notes(attribution: Attribution) -> list[str]:
    """Say which samples of a store are not among the explained ones."""
    failed, waiting = (int(attribution.attrs.get(name, 0)) for name in ("samples_failed", "samples_waiting"))
    total = len(attribution) + failed + waiting
    notes = []
    if failed:
        be = "is" if failed == 1 else "are"
        notes.append(f"{failed:,} of {total:,} samples could not be explained and {be} left out.")
    if waiting:
        be = "is" if waiting == 1 else "are"
        notes.append(f"{waiting:,} of {total:,} samples {be} not explained yet and missing here.")
    return notes
