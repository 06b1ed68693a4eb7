"""How far the reasons can be relied on: completeness, agreement, fit, sampling error and confidence, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..explainers import Attribution
from ..explainers.metrics.ranking import rank_correlation, without_noise
from .prediction import class_probabilities
from .wording import MINUS, joined, method_name, number, percent, possessive, span

COMPLETE_WITHIN = 0.05  # of |f(x) - f(baseline)|
AGREES, DISAGREES = 0.7, 0.4  # rank correlation
GOOD_FIT = 0.6  # R^2 of a surrogate
ENOUGH_COALITIONS = 40  # a player, for a sampled Shapley estimate to be told without warning
SURE = 0.6  # probability of the predicted class


@dataclass(frozen=True)
class Check:
    """One sentence on how far the reasons can be relied on; `passed` False asks for care."""

    name: str
    passed: bool
    text: str


def is_complete(attribution: Attribution, sample: int) -> bool:
    """Whether the attributions of a sample add up to f(x) - f(baseline) within 5 %."""
    change = float(attribution.prediction[sample] - attribution.baseline_prediction[sample])
    return abs(float(attribution.completeness_gap[sample])) <= COMPLETE_WITHIN * abs(change)


def completeness_check(attribution: Attribution, sample: int) -> Check:
    """Say what share of the change from the baseline the reasons account for."""
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
        correlation = rank_correlation(without_noise(left), without_noise(right))
        if correlation is not None:
            pairs.append(Agreement(first, second, correlation, over))
    return pairs


def agreement_checks(attributions: Mapping[str, Attribution], primary: str, sample: int) -> list[Check]:
    """Say how far the other explainers agree with the one that gives the reasons, and where they do not."""
    if len(attributions) < 2:
        text = "Only one explainer was asked, so nothing confirms it; ask a second one to compare."
        return [Check("agreement", passed=False, text=text)]
    pairs = [pair for pair in agreement(attributions, sample) if primary in (pair.first, pair.second)]
    if not pairs:
        text = "The explainers tell different parts apart, or too few, and cannot be compared by rank."
        return [Check("agreement", passed=False, text=text)]
    name = method_name(attributions[primary].method)
    groups: dict[str, list[str]] = {"alike": [], "partly alike": [], "differently": []}
    relied_on = {"alike": 0, "partly alike": 0, "differently": 0}
    for pair in sorted(pairs, key=lambda pair: -pair.correlation):
        other = attributions[pair.second if pair.first == primary else pair.first]
        verdict = _verdict(pair.correlation)
        groups[verdict].append(f"{method_name(other.method)} ({f'{pair.correlation:.2f}'.replace('-', MINUS)})")
        relied_on[verdict] += other.measures == "contribution"
    parts: list[str] = []
    for verdict, names in groups.items():
        if names:
            verb = (
                "" if parts else " ranks the parts of the input" if len(names) == 1 else " rank the parts of the input"
            )
            parts.append(f"{joined(names)}{verb} {verdict}")
    text = f"Compared with {name}, {'; '.join(parts)} (rank correlation; 1 is full agreement)."
    text += _strongest_step_sentence(attributions, sample)
    counted = [p for p in pairs if all(attributions[q].measures == "contribution" for q in (p.first, p.second))]
    worst = min(counted, key=lambda pair: pair.correlation, default=None)
    if worst is not None and worst.correlation < AGREES:
        text += _where_they_disagree(attributions, worst, sample)
    sensitive = [method_name(found.method) for found in attributions.values() if found.measures == "sensitivity"]
    if sensitive:
        verbs = ("tells", "does") if len(sensitive) == 1 else ("tell", "do")
        text += f" {joined(sensitive)} {verbs[0]} of sensitivity, which need not agree, and {verbs[1]} not count here."
    passed = relied_on["differently"] == 0 and relied_on["alike"] + relied_on["partly alike"] > 0
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
    if round(100 * float(shares[0][step])) == round(100 * float(shares[1][step])):
        return ""
    words = span(step, step, length, float(one.attrs["interval_seconds"]))
    names = " and ".join(method_name(attribution.method) for attribution in (one, two))
    said = " and ".join(_signed_percent(float(share[step])) for share in shares)
    return f" {names} differ most {words}: {said} of all their weight."


def _signed_percent(share: float) -> str:
    return number(round(share * 100), digits=3, signed=True) + " %"


def diagnostic_checks(attributions: Mapping[str, Attribution], sample: int) -> list[Check]:
    """Say how well surrogates fit and how large sampling errors are, where methods know."""
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
        coalitions = attribution.diagnostic("coalitions")
        if coalitions is not None and not attribution.dataset["exhaustive"].to_numpy()[sample]:
            players = float(attribution.dataset["players"].to_numpy()[sample])
            good = float(coalitions[sample]) >= ENOUGH_COALITIONS * players
            text = (
                f"{name} values are an estimate from {number(float(coalitions[sample]), digits=4)} coalitions "
                f"of {number(players)} players"
                f"{'' if good else '; more samples would make it firmer'}."
            )
            checks.append(Check("coalitions", passed=good, text=text))
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


def confidence_checks(attribution: Attribution, sample: int) -> list[Check]:
    """Say so where the model itself is unsure."""
    pairs = class_probabilities(attribution, sample)
    if pairs is None or pairs[0][1] >= SURE:
        return []
    (first, one), (second, two) = pairs[0], pairs[1]
    text = f"The model itself is unsure: {first} {percent(one)}, {second} {percent(two)}."
    return [Check("confidence", passed=False, text=text)]


def notes_on(attributions: Mapping[str, Attribution]) -> list[str]:
    """Name the methods that are not expected to add up."""
    loose = [method_name(a.method) for a in attributions.values() if a.attrs["completeness"] == "none"]
    if not loose:
        return []
    verb = "measures influence and is" if len(loose) == 1 else "measure influence and are"
    return [f"{joined(loose)} {verb} not expected to add up to the change from the baseline."]
