"""Why, in words: which features, tokens or stretches of time raised or lowered the prediction, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .wording import effect, number, percent, span, step_labels

MOST_REASONS = 5
LEAST_SHARE = 0.05  # of all absolute effects
NEGLIGIBLE = 0.005  # of all absolute effects: not worth a sentence
CONNECTED = 0.6  # of a span's timesteps must push its way, or it is no span
SPAN_SHARE = 0.6  # of a reason's effect that its named span must hold


@dataclass(frozen=True)
class Reason:
    """One line of "why": a feature, token or span that raised or lowered the explained number.

    Attributes:
        name: What it is about.
        effect: Its contribution, in units of the explained number.
        effect_text: The same in words.
        text: The sentence after the name.
        first: First timestep of the named span.
        last: Last timestep of the named span, inclusive.
    """

    name: str
    effect: float
    effect_text: str
    text: str
    first: int
    last: int


def find_reasons(attribution: Attribution, sample: int, *, redact: bool = False) -> tuple[list[Reason], str]:
    """Return up to five reasons, largest first, and a sentence about what is left."""
    length = int(attribution.lengths[sample])
    values = attribution.values[sample, :length].astype(np.float64)  # (L, D)
    if attribution.of_tokens:
        candidates = _token_reasons(attribution, sample, values, redact=redact)
    elif attribution.resolves_features:
        candidates = _feature_reasons(attribution, sample, values, redact=redact)
    else:
        candidates = _time_reasons(attribution, values)
    total = sum(abs(reason.effect) for reason in candidates)
    candidates.sort(key=lambda reason: -abs(reason.effect))
    kept = [reason for reason in candidates[:MOST_REASONS] if abs(reason.effect) >= LEAST_SHARE * total > 0]
    left = float(values.sum()) - sum(reason.effect for reason in kept)
    if not kept:
        return [], "No part of the input moved the prediction."
    told = abs(left) > NEGLIGIBLE * total
    rest = f"Everything else together: {effect(left, attribution)}." if told else ""
    return kept, rest


def _feature_reasons(
    attribution: Attribution, sample: int, values: NDArray[np.float64], *, redact: bool
) -> list[Reason]:
    groups = _feature_groups(attribution)
    reasons = []
    for name, columns in groups.items():
        course = values[:, columns].sum(axis=1)  # (L,)
        for sign in (1, -1):
            part = np.maximum(sign * course, 0)  # (L,)
            if part.sum() == 0:
                continue
            amount = sign * float(part.sum())
            if not attribution.resolves_time:
                first, last, where = 0, len(part) - 1, ""
            else:
                first, last = strongest_span(part)
                where = _span_words(attribution, sample, first, last, part, redact=redact)
            state = (
                "" if redact or len(columns) > 1 else _state_words(attribution, sample, columns[0], first, last, part)
            )
            verb = "raised" if sign > 0 else "lowered"
            text = f"{verb} it{where}{state}."
            reasons.append(Reason(name, amount, effect(amount, attribution), text, first, last))
    return reasons


def _time_reasons(attribution: Attribution, values: NDArray[np.float64]) -> list[Reason]:
    """Return runs of timesteps that push the same way (of methods that do not tell features apart)."""
    course = values.sum(axis=1)  # (L,)
    signs = np.sign(course)
    edges = np.flatnonzero(np.diff(signs)) + 1
    interval = float(attribution.attrs["interval_seconds"])
    reasons = []
    for run in np.split(np.arange(len(course)), edges):
        first, last = int(run[0]), int(run[-1])
        amount = float(course[run].sum())
        if amount != 0:
            words = span(first, last, len(course), interval)
            verb = "raised" if amount > 0 else "lowered"
            name = "The whole sequence" if words == "throughout" else f"What happened {words}"
            text = f"{verb} it."
            reasons.append(Reason(name, amount, effect(amount, attribution), text, first, last))
    return reasons


def _token_reasons(attribution: Attribution, sample: int, values: NDArray[np.float64], *, redact: bool) -> list[Reason]:
    tokens = token_texts(attribution, sample)
    reasons = []
    for step, amount in enumerate(values.sum(axis=1)):
        if amount != 0:
            verb = "raised" if amount > 0 else "lowered"
            name = f"\N{LEFT DOUBLE QUOTATION MARK}{tokens[step]}\N{RIGHT DOUBLE QUOTATION MARK}"
            text = f"(token {step + 1}) {verb} it."
            if redact:
                name, text = f"Token {step + 1}", f"{verb} it."
            reasons.append(Reason(name, float(amount), effect(float(amount), attribution), text, step, step))
    return reasons


def token_texts(attribution: Attribution, sample: int) -> list[str]:
    """Return the text of each valid token, or its id where the model names none."""
    length = int(attribution.lengths[sample])
    words = attribution.diagnostic("token")
    if words is not None:
        return [str(word) for word in words[sample][:length]]
    return [f"id {int(value)}" for value in attribution.inputs[sample, :length, 0]]


def _feature_groups(attribution: Attribution) -> dict[str, list[int]]:
    """Return group name -> feature columns; a feature without a group is its own."""
    names = attribution.diagnostic("feature_group")
    labels = [str(name) for name in (attribution.feature_names if names is None else names)]
    groups: dict[str, list[int]] = {}
    for column, label in enumerate(labels):
        groups.setdefault(label, []).append(column)
    return groups


def strongest_span(part: NDArray[np.float64]) -> tuple[int, int]:
    """Return the shortest run of timesteps (first, last) that holds 60 % of non-negative `part` (L,)."""
    total = np.concatenate([[0.0], np.cumsum(part)])
    goal = SPAN_SHARE * total[-1] * (1 - 1e-12)
    best = (0, len(part) - 1)
    for first in range(len(part)):
        last = int(np.searchsorted(total, total[first] + goal)) - 1
        if last < len(part) and last - first < best[1] - best[0]:
            best = (first, max(first, last))
    return best


def _span_words(
    attribution: Attribution, sample: int, first: int, last: int, part: NDArray[np.float64], *, redact: bool
) -> str:
    pushing = part[first : last + 1] > 0
    if len(pushing) > 2 and pushing.mean() < CONNECTED:
        return f", here and there, at {int((part > 0).sum())} of {len(part)} timesteps"
    share = float(part[first : last + 1].sum() / part.sum())
    length = int(attribution.lengths[sample])
    words = span(first, last, length, float(attribution.attrs["interval_seconds"]))
    if words == "throughout":
        return ", throughout the sequence"
    clock = ""
    if attribution.diagnostic("timestamp") is not None and not redact:
        labels = step_labels(attribution, sample)
        clock = f", {labels[first]}" + (f" to {labels[last]}" if last > first else "")
    return f", mostly {words} ({percent(share)} of this effect{clock})"


def _state_words(
    attribution: Attribution, sample: int, column: int, first: int, last: int, part: NDArray[np.float64]
) -> str:
    """Return what the feature did in the span, in its own unit and beside the baseline, where the units are known."""
    dataset = attribution.dataset
    if "feature_scale" not in dataset.coords:
        return ""
    center = float(dataset["feature_center"].to_numpy()[column])
    scale = float(dataset["feature_scale"].to_numpy()[column])
    unit = str(dataset["feature_unit"].to_numpy()[column])
    steps = first + np.flatnonzero(part[first : last + 1])  # those that pushed this way
    here = float(attribution.inputs[sample, steps, column].mean()) * scale + center
    reference = float(dataset["baseline"].to_numpy()[sample, steps, column].mean()) * scale + center
    verb = "averaged" if len(steps) > 1 else "was"
    return f", when it {verb} {number(here)} {unit}".rstrip() + f" (baseline {number(reference)})"
