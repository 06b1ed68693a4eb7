"""Words made from numbers by rules: what was predicted, the reasons, and how far they can be relied on.

Nothing here is canned: every sentence is chosen by what the attributions hold, every number in it is one of theirs,
and where the evidence is weak the sentence says so instead of claiming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from .wording import effect, joined, level, method_name, number, percent, possessive, span, step_labels

COMPLETE_WITHIN = 0.05  # of |f(x) - f(baseline)|
AGREES, DISAGREES = 0.7, 0.4  # rank correlation
GOOD_FIT = 0.6  # R^2 of a surrogate
SURE = 0.6  # probability of the predicted class
MOST_REASONS = 5
LEAST_SHARE = 0.05  # of all absolute effects
NEGLIGIBLE = 0.005  # of all absolute effects: not worth a sentence
SPAN_SHARE = 0.6  # of a reason's effect that its named span must hold

PREFERRED = ("deeplift", "integrated_gradients", "temporal_shapley", "gradient_shap", "kernel_shap", "lime")


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


@dataclass(frozen=True)
class Check:
    """One sentence on how far the reasons can be relied on; `passed` False asks for care."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Narrative:
    """What the page says about one sample."""

    headline: tuple[str, str, str]  # before, emphasised, after
    against: str
    reasons: tuple[Reason, ...]
    rest: str
    checks: tuple[Check, ...]
    primary: str
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def narrate(attributions: Mapping[str, Attribution], sample: int = 0, *, redact: bool = False) -> Narrative:
    """Return the words about one sample.

    Args:
        attributions: Name -> result, all of the same inputs and target.
        sample: Which sample.
        redact: Leave out values of inputs and clock times.

    Raises:
        InvalidInputError: There is no attribution.
    """
    if not attributions:
        raise InvalidInputError("there is no attribution to tell about; pass at least one.")
    primary = choose_primary(attributions, sample)
    attribution = attributions[primary]
    reasons, rest = find_reasons(attribution, sample, redact=redact)
    checks = [_completeness_check(attribution, sample), *_agreement_checks(attributions, primary, sample)]
    checks += _diagnostic_checks(attributions, sample)
    checks += _confidence_checks(attribution, sample)
    return Narrative(
        headline=headline(attribution, sample),
        against=_against(attribution, sample),
        reasons=tuple(reasons),
        rest=rest,
        checks=tuple(checks),
        primary=primary,
        notes=tuple(_notes(attributions)),
    )


# -- what was predicted ----------------------------------------------------------------------------------------------


def class_probabilities(attribution: Attribution, sample: int) -> list[tuple[str, float]] | None:
    """Return (class, probability) of the explained timestep, most likely first; None for a regression."""
    scores = attribution.dataset["scores"].to_numpy()[sample]  # (K,)
    task = attribution.attrs["task"]
    names = attribution.output_names
    if task == "multiclass":
        exponentials = np.exp(scores - scores.max())
        pairs = list(zip(names, exponentials / exponentials.sum(), strict=True))
    elif task == "binary" and len(scores) == 1:
        probability = 1 / (1 + np.exp(-scores[0]))
        classes = _classes(attribution) or [f"not {names[0]}", names[0]]
        pairs = [(classes[1], probability), (classes[0], 1 - probability)]
    else:
        return None
    return sorted(((name, float(value)) for name, value in pairs), key=lambda pair: -pair[1])


def explained_name(attribution: Attribution, sample: int) -> str:
    """Return the name of the explained output: the class, or the quantity."""
    output = int(attribution.dataset["target_output"].to_numpy()[sample])
    classes = _classes(attribution)
    if attribution.attrs["task"] == "binary" and len(attribution.output_names) == 1 and classes:
        return classes[1]
    return attribution.output_names[output]


def headline(attribution: Attribution, sample: int) -> tuple[str, str, str]:
    """Return "The model predicts", the prediction, and the rest of the sentence."""
    where = _where(attribution, sample)
    pairs = class_probabilities(attribution, sample)
    if pairs is None:
        value = level(float(attribution.prediction[sample]), attribution)
        name = explained_name(attribution, sample)
        subject = str(attribution.attrs["target"]) or ("" if name.startswith("output ") else name)
        return f"The model predicts {subject}:" if subject else "The model predicts", value, f"{where}."
    name, probability = pairs[0]
    target = str(attribution.attrs["target"])
    before = f"For {target}, the model predicts" if target else "The model predicts"
    return before, name, f"with {percent(probability)} probability{where}."


def _where(attribution: Attribution, sample: int) -> str:
    timestep = attribution.diagnostic("target_timestep")
    return "" if timestep is None else f" at timestep {int(timestep[sample]) + 1}"


def _classes(attribution: Attribution) -> list[str]:
    import json

    return [str(name) for name in json.loads(attribution.attrs["classes"])]


def _against(attribution: Attribution, sample: int) -> str:
    """Return the sentence that compares the prediction with the baseline's."""
    name = explained_name(attribution, sample)
    prediction, reference = float(attribution.prediction[sample]), float(attribution.baseline_prediction[sample])
    described = str(attribution.attrs["baseline_description"]) or _baseline_words(attribution)
    change = effect(prediction - reference, attribution).replace(" points", " percentage points")
    subject = {"probability": f"The probability of {name}", "logit": f"The score of {name}"}[
        attribution.attrs["output"]
    ]
    if attribution.attrs["task"] == "regression":
        subject = "The prediction"
    return (
        f"{subject} is {level(prediction, attribution)}; for {described} it would be {level(reference, attribution)}. "
        f"The reasons below share out the difference, {change}."
    )


def _baseline_words(attribution: Attribution) -> str:
    name = str(attribution.attrs["baseline_name"])
    if len(attribution.feature_names) == 1 and attribution.feature_names[0] == "token" and name in ("zero", "pad"):
        return "a text of padding only"
    if name == "zero" and "feature_center" in attribution.dataset.coords:
        return "an input with every feature at its center"
    return {"zero": "an input of zeros", "given": "the given baseline"}.get(name, f"the baseline ({name})")


# -- the reasons -----------------------------------------------------------------------------------------------------


def choose_primary(attributions: Mapping[str, Attribution], sample: int) -> str:
    """Return the method that gives the reasons: complete on this sample, telling features apart, preferred."""

    def rank(name: str) -> tuple[bool, bool, int]:
        attribution = attributions[name]
        order = PREFERRED.index(attribution.method) if attribution.method in PREFERRED else len(PREFERRED)
        complete = attribution.attrs["completeness"] != "none" and is_complete(attribution, sample)
        return (not complete, not attribution.resolves_features, order)

    return min(attributions, key=rank)


def is_complete(attribution: Attribution, sample: int) -> bool:
    """Whether the attributions of a sample add up to f(x) - f(baseline) within 5 %."""
    change = float(attribution.prediction[sample] - attribution.baseline_prediction[sample])
    return abs(float(attribution.completeness_gap[sample])) <= COMPLETE_WITHIN * abs(change)


def find_reasons(attribution: Attribution, sample: int, *, redact: bool = False) -> tuple[list[Reason], str]:
    """Return up to five reasons, largest first, and a sentence about what is left."""
    length = int(attribution.lengths[sample])
    values = attribution.values[sample, :length].astype(np.float64)  # (L, D)
    if "token" in attribution.dataset or attribution.feature_names == ("token",):
        candidates = _token_reasons(attribution, sample, values)
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
                where = _span_words(attribution, sample, first, last, float(part[first : last + 1].sum() / part.sum()),
                                    redact=redact)  # fmt: skip
            state = "" if redact or len(columns) > 1 else _state_words(attribution, sample, columns[0], first, last)
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


def _token_reasons(attribution: Attribution, sample: int, values: NDArray[np.float64]) -> list[Reason]:
    tokens = token_texts(attribution, sample)
    reasons = []
    for step, amount in enumerate(values.sum(axis=1)):
        if amount != 0:
            verb = "raised" if amount > 0 else "lowered"
            name = f"\N{LEFT DOUBLE QUOTATION MARK}{tokens[step]}\N{RIGHT DOUBLE QUOTATION MARK}"
            text = f"(token {step + 1}) {verb} it."
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


def _span_words(attribution: Attribution, sample: int, first: int, last: int, share: float, *, redact: bool) -> str:
    length = int(attribution.lengths[sample])
    words = span(first, last, length, float(attribution.attrs["interval_seconds"]))
    if words == "throughout":
        return ", throughout the sequence"
    clock = ""
    if attribution.diagnostic("timestamp") is not None and not redact:
        labels = step_labels(attribution, sample)
        clock = f", {labels[first]}" + (f" to {labels[last]}" if last > first else "")
    return f", mostly {words} ({percent(share)} of this effect{clock})"


def _state_words(attribution: Attribution, sample: int, column: int, first: int, last: int) -> str:
    """Return what the feature did in the span, in its own unit and beside the baseline, where the units are known."""
    dataset = attribution.dataset
    if "feature_scale" not in dataset.coords:
        return ""
    center = float(dataset["feature_center"].to_numpy()[column])
    scale = float(dataset["feature_scale"].to_numpy()[column])
    unit = str(dataset["feature_unit"].to_numpy()[column])
    here = float(attribution.inputs[sample, first : last + 1, column].mean()) * scale + center
    reference = float(dataset["baseline"].to_numpy()[sample, first : last + 1, column].mean()) * scale + center
    verb = "averaged" if last > first else "was"
    return f", when it {verb} {number(here)} {unit}".rstrip() + f" (baseline {number(reference)})"


# -- how far to rely on them -----------------------------------------------------------------------------------------


def _completeness_check(attribution: Attribution, sample: int) -> Check:
    name = method_name(attribution.method)
    change = float(attribution.prediction[sample] - attribution.baseline_prediction[sample])
    if attribution.attrs["completeness"] == "none":
        text = f"{name} does not promise that the reasons add up, so their sizes are influence, not shares of it."
        return Check("completeness", passed=False, text=text)
    accounted = change - float(attribution.completeness_gap[sample])
    if change == 0:
        return Check(
            "completeness", passed=False, text="The prediction is the baseline's: there is no change to explain."
        )
    share = accounted / change
    text = f"The reasons account for {_share_words(share)} of the change from the baseline ({name})."
    return Check("completeness", passed=is_complete(attribution, sample), text=text)


def _share_words(share: float) -> str:
    return "100 %" if abs(share - 1) < 0.005 else f"{number(share * 100, digits=3)} %"


@dataclass(frozen=True)
class Agreement:
    """Rank correlation (Spearman) of two methods on one sample, over the finest parts that both tell apart."""

    first: str
    second: str
    correlation: float
    over: str


def agreement(attributions: Mapping[str, Attribution], sample: int) -> list[Agreement]:
    """Return the agreement of every pair of methods that can be compared."""
    pairs = []
    for first, second in combinations(attributions, 2):
        one, two = attributions[first], attributions[second]
        length = int(one.lengths[sample])
        if one.resolution == two.resolution == "cell":
            left, right, over = one.values[sample, :length].ravel(), two.values[sample, :length].ravel(), "cells"
        elif one.resolves_time and two.resolves_time:
            left, right, over = one.timesteps[sample, :length], two.timesteps[sample, :length], "timesteps"
        elif one.resolves_features and two.resolves_features:
            left, right, over = one.features[sample], two.features[sample], "features"
        else:
            continue
        correlation = rank_correlation(left, right)
        if correlation is not None:
            pairs.append(Agreement(first, second, correlation, over))
    return pairs


def rank_correlation(left: NDArray[Any], right: NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation; None where one side does not vary or there are fewer than three values."""
    from scipy.stats import spearmanr

    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(spearmanr(left, right).statistic)


def _agreement_checks(attributions: Mapping[str, Attribution], primary: str, sample: int) -> list[Check]:
    if len(attributions) < 2:
        text = "Only one explainer was asked, so nothing confirms it; ask a second one to compare."
        return [Check("agreement", passed=False, text=text)]
    pairs = [pair for pair in agreement(attributions, sample) if primary in (pair.first, pair.second)]
    if not pairs:
        return [Check("agreement", passed=False, text="The explainers explain different parts and cannot be compared.")]
    name = method_name(attributions[primary].method)
    groups: dict[str, list[str]] = {"alike": [], "partly alike": [], "differently": []}
    relied_on = {"alike": 0, "partly alike": 0, "differently": 0}
    for pair in sorted(pairs, key=lambda pair: -pair.correlation):
        other = attributions[pair.second if pair.first == primary else pair.first]
        verdict = _verdict(pair.correlation)
        groups[verdict].append(f"{method_name(other.method)} ({pair.correlation:.2f})")
        relied_on[verdict] += other.gates is None  # gates tell of sensitivity, which need not be contribution
    parts: list[str] = []
    for verdict, names in groups.items():
        if names:
            verb = (
                "" if parts else " ranks the parts of the input" if len(names) == 1 else " rank the parts of the input"
            )
            parts.append(f"{joined(names)}{verb} {verdict}")
    text = f"Compared with {name}, {'; '.join(parts)} (rank correlation; 1 is full agreement)."
    text += _strongest_step_sentence(attributions, sample)
    worst = min(pairs, key=lambda pair: pair.correlation)
    if worst.correlation < AGREES:
        text += _where_they_disagree(attributions, worst, sample)
    passed = relied_on["differently"] == 0 and groups["alike"] + groups["partly alike"] != []
    return [Check("agreement", passed=passed, text=text)]


def _verdict(correlation: float) -> str:
    return "alike" if correlation >= AGREES else "partly alike" if correlation >= DISAGREES else "differently"


def _strongest_step_sentence(attributions: Mapping[str, Attribution], sample: int) -> str:
    """Return how many explainers put their largest weight on the same timestep."""
    shown = [attribution for attribution in attributions.values() if attribution.resolution in ("cell", "timestep")]
    if len(shown) < 2:
        return ""
    length = int(shown[0].lengths[sample])
    steps = [int(np.abs(attribution.timesteps[sample, :length]).argmax()) for attribution in shown]
    common = max(set(steps), key=steps.count)
    words = span(common, common, length, float(shown[0].attrs["interval_seconds"]))
    count = "All" if steps.count(common) == len(steps) else f"{steps.count(common)} of {len(steps)}"
    if steps.count(common) == 1:
        return " Each puts its largest weight on another timestep."
    return f" {count} put their largest weight {words}."


def _where_they_disagree(attributions: Mapping[str, Attribution], pair: Agreement, sample: int) -> str:
    """Return a sentence on the timestep where two methods differ most, each measured in shares of its own total."""
    one, two = attributions[pair.first], attributions[pair.second]
    if not (one.resolves_time and two.resolves_time):
        return ""
    length = int(one.lengths[sample])
    shares = []
    for attribution in (one, two):
        course = attribution.timesteps[sample, :length].astype(np.float64)
        shares.append(course / max(np.abs(course).sum(), 1e-300))
    step = int(np.abs(shares[0] - shares[1]).argmax())
    words = span(step, step, length, float(one.attrs["interval_seconds"]))
    said = [f"{method_name(a.method)} gives it {_signed_percent(float(share[step]))}" for a, share in
            zip((one, two), shares, strict=True)]  # fmt: skip
    return f" They differ most {words}: of all its weight, {said[0]}, {said[1]}."


def _signed_percent(share: float) -> str:
    return number(round(share * 100), digits=3, signed=True) + " %"


def _diagnostic_checks(attributions: Mapping[str, Attribution], sample: int) -> list[Check]:
    checks = []
    for attribution in attributions.values():
        name = possessive(method_name(attribution.method))
        fit = attribution.diagnostic("surrogate_r2")
        if fit is not None:
            good = float(fit[sample]) >= GOOD_FIT
            text = (
                f"{name} linear surrogate fits {percent(max(0.0, float(fit[sample])))} of the "
                f"variance around this input{'' if good else ', too little to rely on its sizes'}."
            )
            checks.append(Check("surrogate fit", passed=good, text=text))
        error = attribution.std_error
        if error is not None:
            total = float(np.sqrt((error[sample] ** 2).sum()))
            weight = float(np.sqrt((attribution.values[sample] ** 2).sum()))
            good = total <= 0.2 * weight
            text = (
                f"{name} sampling error is {percent(total / weight if weight else 1.0)} of its "
                f"size{'' if good else '; more samples would make it firmer'}."
            )
            checks.append(Check("sampling error", passed=good, text=text))
    return checks


def _confidence_checks(attribution: Attribution, sample: int) -> list[Check]:
    pairs = class_probabilities(attribution, sample)
    if pairs is None or pairs[0][1] >= SURE:
        return []
    (first, one), (second, two) = pairs[0], pairs[1]
    text = f"The model itself is unsure: {first} {percent(one)}, {second} {percent(two)}."
    return [Check("confidence", passed=False, text=text)]


def _notes(attributions: Mapping[str, Attribution]) -> list[str]:
    loose = [method_name(a.method) for a in attributions.values() if a.attrs["completeness"] == "none"]
    if not loose:
        return []
    verb = "measures influence and is" if len(loose) == 1 else "measure influence and are"
    return [f"{joined(loose)} {verb} not expected to add up to the change from the baseline."]
