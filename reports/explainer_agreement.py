"""Where explainers agree about one prediction and where not: ranks, the largest parts, and the parts they differ in.

Agreement is measured over timestep x feature, where both explainers tell these apart: over features alone two methods
can agree that point at different timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..explainers.metrics.predictions import check_same_predictions
from ..explainers.metrics.ranking import NOISE, largest_count
from ..models import InvalidInputError
from .evidence import agreement
from .reasons import token_texts
from .wording import MINUS, method_name, number, span

MOST_NAMED = 3


@dataclass(frozen=True)
class Place:
    """A part of the input about which two explainers differ.

    Attributes:
        timestep: Its timestep; None where timesteps are not told apart.
        feature: Its column; None where features are not told apart.
        name: What it is, in words.
        first: The first explainer's value, as a share of all its absolute values.
        second: The second explainer's.
        first_rank: Its place in the first explainer's order of sizes, from 1.
        second_rank: Its place in the second's.
    """

    timestep: int | None
    feature: int | None
    name: str
    first: float
    second: float
    first_rank: int
    second_rank: int


@dataclass(frozen=True)
class PairAgreement:
    """How far two explainers agree about one prediction.

    Attributes:
        first: Name of one.
        second: Name of the other.
        over: What was compared: "cells" (timestep x feature), "timesteps" or "features".
        parts: How many of these.
        correlation: Rank correlation (Spearman), 1 is full agreement.
        largest: How many of the largest parts were compared.
        shared: How many of them both have.
        opposite: The largest parts that one says raise and the other lower; none where one tells sensitivity.
        ranked_apart: The large parts with the most different ranks.
    """

    first: str
    second: str
    over: str
    parts: int
    correlation: float
    largest: int
    shared: int
    opposite: tuple[Place, ...]
    ranked_apart: tuple[Place, ...]


@dataclass(frozen=True)
class ExplainerAgreement:
    """What `compare_explainers` found.

    Attributes:
        pairs: Of every two explainers that can be compared, the least agreeing first.
        sentences: The same in words, two or three a pair.
    """

    pairs: tuple[PairAgreement, ...]
    sentences: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return a table's rows: the explainers, what was compared, rank correlation, and shared largest parts."""
        return [
            (
                f"{method_name(pair.first)}, {method_name(pair.second)}",
                f"{pair.parts:,} {pair.over}",
                two_digits(pair.correlation),
                f"{pair.shared} of {pair.largest}",
            )
            for pair in self.pairs
        ]


def compare_explainers(
    attributions: Mapping[str, Attribution], sample: int = 0, *, redact: bool = False
) -> ExplainerAgreement:
    """Say where explainers agree about a prediction, and where they do not.

    Args:
        attributions: Name -> result, two or more of the same prediction.
        sample: Which sample.
        redact: Leave tokens out.

    Raises:
        InvalidInputError: There are fewer than two, or they are of different inputs or targets.
    """
    if len(attributions) < 2:
        raise InvalidInputError(f"there are {len(attributions)} attributions; pass two or more of the same prediction.")
    check_same_predictions(attributions, sample)
    found = [
        _pair(attributions, pair.first, pair.second, pair.over, pair.correlation, sample, redact=redact)
        for pair in sorted(agreement(attributions, sample), key=lambda pair: pair.correlation)
    ]
    texts = [text for pair in found for text in _sentences(attributions, pair)]
    if not found:
        texts = ["The explainers tell different parts apart, or too few, and cannot be compared by rank."]
    return ExplainerAgreement(tuple(found), tuple(texts))


def _pair(
    attributions: Mapping[str, Attribution],
    first: str,
    second: str,
    over: str,
    correlation: float,
    sample: int,
    *,
    redact: bool,
) -> PairAgreement:
    one, two = attributions[first], attributions[second]
    left, right = (_shares(attribution, over, sample) for attribution in (one, two))
    ranks = [_ranks(values) for values in (left, right)]
    largest = largest_count(left.size)
    tops = [set(np.flatnonzero(rank <= largest)) for rank in ranks]
    large = np.array(sorted(tops[0] | tops[1]), dtype=np.int64)

    def place(part: int) -> Place:
        timestep, feature = _where(part, over, one)
        name = _name(one, sample, timestep, feature, redact=redact)
        return Place(timestep, feature, name, float(left[part]), float(right[part]), int(ranks[0][part]),
                     int(ranks[1][part]))  # fmt: skip

    signed = one.measures == two.measures == "contribution"
    against = left[large] * right[large] < 0
    opposite = large[against][np.argsort(-np.minimum(np.abs(left), np.abs(right))[large[against]], kind="stable")]
    apart = np.abs(ranks[0] - ranks[1])[large]
    far = large[np.argsort(-apart, kind="stable")][: int((apart >= largest).sum())]
    return PairAgreement(
        first, second, over, left.size, correlation, largest, len(tops[0] & tops[1]),
        tuple(place(int(part)) for part in opposite[:MOST_NAMED]) if signed else (),
        tuple(place(int(part)) for part in far[:MOST_NAMED]),
    )  # fmt: skip


def _shares(attribution: Attribution, over: str, sample: int) -> NDArray[np.float64]:
    """Return the value of every part as a share of all absolute values, flat; what is below the noise is 0."""
    length = int(attribution.lengths[sample])
    if over == "features":
        values = attribution.features[sample]
    else:
        values = (
            attribution.values[sample, :length].ravel() if over == "cells" else attribution.timesteps[sample, :length]
        )
    values = values.astype(np.float64)
    values = np.where(np.abs(values) < NOISE * np.abs(values).max(initial=0), 0, values)
    return np.asarray(values / max(float(np.abs(values).sum()), 1e-300))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place of each part in the order of sizes, from 1; equal ones share the first of their places."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.abs(values), method="min"), dtype=np.int64)


def _where(part: int, over: str, attribution: Attribution) -> tuple[int | None, int | None]:
    if over == "cells":
        timestep, feature = divmod(part, attribution.values.shape[2])
        return timestep, None if attribution.of_tokens else feature
    return (part, None) if over == "timesteps" else (None, part)


def _name(attribution: Attribution, sample: int, timestep: int | None, feature: int | None, *, redact: bool) -> str:
    parts = [] if feature is None else [attribution.feature_names[feature]]
    if timestep is not None:
        length = int(attribution.lengths[sample])
        if attribution.of_tokens and not redact:
            word = token_texts(attribution, sample)[timestep]
            parts.append(f"\N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}")
        interval = 0.0 if length == 1 else float(attribution.attrs["interval_seconds"])
        parts.append("at timestep 1" if length == 1 else span(timestep, timestep, length, interval))
    return " ".join(parts)


def _sentences(attributions: Mapping[str, Attribution], pair: PairAgreement) -> list[str]:
    names = [method_name(attributions[key].method) for key in (pair.first, pair.second)]
    if names[0] == names[1]:
        names = [pair.first, pair.second]
    both = f"{names[0]} and {names[1]}"
    shared = f"they share {pair.shared} of their {pair.largest} largest"
    if pair.largest == 1:
        shared = f"their largest is {'' if pair.shared else 'not '}the same"
    correlation = two_digits(pair.correlation)
    texts = [f"{both} have a rank correlation of {correlation} over {pair.parts:,} {pair.over}; {shared}."]
    if pair.opposite:
        told = "; ".join(f"{place.name} ({_percent(place.first)} and {_percent(place.second)} of all weight)"
                         for place in pair.opposite)  # fmt: skip
        texts.append(f"They push opposite ways: {told}.")
    told = "; ".join(
        f"{place.name} (number {place.first_rank} and number {place.second_rank} of {pair.parts:,})"
        for place in pair.ranked_apart
        if place not in pair.opposite
    )
    if told:
        texts.append(f"They rank most differently: {told}.")
    return texts


def two_digits(value: float) -> str:
    """Return a correlation in words."""
    return f"{value:.2f}".replace("-", MINUS)


def _percent(share: Any) -> str:
    return number(round(100 * share, 1), digits=2, signed=True) + " %"
