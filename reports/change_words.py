"""What changed between two explained predictions, in words made from their numbers by rules."""

from __future__ import annotations

import numpy as np

from ..explainers import Attribution
from .changes import Change, FeatureChange
from .evidence import Check, completeness_check, is_complete
from .explainer_agreement import two_digits
from .plots import raw_series
from .prediction import class_probabilities, explained_words
from .reasons import Reason, find_reasons
from .wording import capital, count_of, effect, joined, level, method_name, number, percent

NEGLIGIBLE = 0.005  # of the largest effect: not worth a row
MOST_ROWS = 6

Names = tuple[str, str]


def two_levels(change: Change) -> tuple[str, str]:
    """Return both predictions in words, with enough digits to tell them apart."""
    first, second = float(change.first.prediction[0]), float(change.second.prediction[0])
    digits = 3
    while digits < 9 and level(first, change.first, digits) == level(second, change.second, digits):
        digits += 1
    return level(first, change.first, digits), level(second, change.second, digits)


def headline_of(change: Change, names: Names) -> tuple[str, str, str]:
    """Return what happened to the prediction, as text before, the emphasised part, and text after."""
    subject = capital(_subject(change))
    first, second = two_levels(change)
    if change.kind == "models":
        return f"{subject} is {first} by {names[0]} and", second, f"by {names[1]}."
    if first == second:
        return f"{subject} stayed at", second, "."
    return f"{subject} went {'up' if change.difference > 0 else 'down'} from {first} to", second, "."


def _subject(change: Change) -> str:
    bare = Attribution(change.second.dataset.drop_vars("timestamp", errors="ignore"))
    return explained_words(bare, 0)


def difference_words(change: Change) -> str:
    """Return the second prediction less the first, e.g. "+12 percentage points"."""
    return effect(change.difference, change.second).replace(" points", " percentage points")


def class_sentence(change: Change, names: Names) -> str:
    """Say which class each predicts; "" where there are no classes."""
    told = []
    for found, name in ((change.first, names[0]), (change.second, names[1])):
        pairs = class_probabilities(found, 0)
        if pairs is None:
            return ""
        told.append((name, *pairs[0]))
    (one, first, p), (two, second, q) = told
    if first == second:
        return f"The predicted class is {first} both times: {percent(p)} ({one}) and {percent(q)} ({two})."
    return f"The predicted class is another: {first}, {percent(p)} ({one}); {second}, {percent(q)} ({two})."


def shared_out(change: Change, direct: Attribution | None, names: Names) -> str:
    """Say what the reasons below add up to."""
    amount = difference_words(change)
    if direct is not None:
        return (
            f"The change is {amount}. {method_name(direct.method)}, with the input of {names[0]} as the baseline, "
            "shares it out over what is different in the input: the reasons below are those of the change itself."
        )
    text = (
        f"The difference is {amount}. Below: by how much each part moved the prediction the second time and the first."
    )
    if change.kind == "inputs":
        text += " The inputs have different lengths, or no method works, so the change itself could not be shared out."
    return text


def reasons_of_change(direct: Attribution, names: Names, *, redact: bool = False) -> tuple[list[Reason], str]:
    """Return the reasons of a change that was shared out, whose baseline is the first input, and what is left."""
    reasons, rest = find_reasons(direct, 0, redact=redact)
    first = names[0]
    told = [
        Reason(
            reason.name, reason.effect, reason.effect_text,
            reason.text.replace(" (baseline ", f" ({first}: "), reason.first, reason.last,
        )
        for reason in reasons
    ]  # fmt: skip
    return told, rest.replace("moved the prediction", "changed the prediction")


def feature_rows(change: Change, names: Names) -> list[tuple[float, str, str]]:
    """Return (difference, what, how it moved both) of each part that makes the difference, the largest first.

    Their sum is the difference of the predictions: the starting points, every feature, and what is not accounted for.
    """
    rows = [(row.difference, capital(row.name), _both(change, row, names)) for row in change.features()]
    largest = max((abs(size) for size, _, _ in rows), default=0.0)
    kept = [row for row in rows[:MOST_ROWS] if abs(row[0]) > NEGLIGIBLE * largest]
    left = sum(row[0] for row in rows) - sum(row[0] for row in kept)
    if abs(left) > NEGLIGIBLE * largest:
        kept.append((left, "All other features", "together."))
    one, two = (float(found.baseline_prediction[0]) for found in (change.first, change.second))
    if abs(change.start) > NEGLIGIBLE * max(largest, 1e-12):
        starts = f"{level(one, change.first)} in {names[0]}, {level(two, change.second)} in {names[1]}"
        kept.append((change.start, "The starting point", f"from which effects count: {starts}."))
    if abs(change.unaccounted) > NEGLIGIBLE * max(largest, 1e-12):
        kept.append((change.unaccounted, "Not accounted for", "because the effects do not add up."))
    return kept


def _both(change: Change, row: FeatureChange, names: Names) -> str:
    amounts = (row.first, row.second)
    sizes = [effect(abs(amount or 0.0), change.second).lstrip("+") for amount in amounts]
    if row.first is not None and row.second is not None and row.first * row.second > 0:
        verb = "raised" if row.first > 0 else "lowered"
        return f"{verb} it by {sizes[0]} in {names[0]}, by {sizes[1]} in {names[1]}."
    told = []
    for amount, size, name in zip(amounts, sizes, names, strict=True):
        if amount is None:
            told.append(f"is not read by {name}")
        elif amount == 0:
            told.append(f"did nothing in {name}")
        else:
            told.append(f"{'raised' if amount > 0 else 'lowered'} it by {size} in {name}")
    return f"{joined(told)}."


def change_checks(change: Change, direct: Attribution | None, names: Names) -> list[Check]:
    """Say how far the reasons of a difference can be relied on."""
    checks = []
    if direct is not None:
        whole = float(direct.prediction[0] - direct.baseline_prediction[0])
        if whole == 0:
            text = "The predictions are equal: there is no change to explain."
            checks.append(Check("change", passed=False, text=text))
        else:
            share = 1 - float(direct.completeness_gap[0]) / whole
            text = f"The reasons account for {percent(share) if abs(share - 1) >= 0.005 else '100 %'} of the change."
            checks.append(Check("change", passed=is_complete(direct, 0), text=text))
    for found, name in ((change.first, names[0]), (change.second, names[1])):
        check = completeness_check(found, 0)
        checks.append(Check(check.name, check.passed, f"{capital(name)}: {check.text[:1].lower()}{check.text[1:]}"))
    if change.first.method != change.second.method:
        text = (
            f"{capital(names[0])} was explained by {method_name(change.first.method)}, {names[1]} by "
            f"{method_name(change.second.method)}: part of the difference may be the methods'."
        )
        checks.append(Check("methods", passed=False, text=text))
    if change.kind == "models" and change.first.attrs["baseline_name"] != change.second.attrs["baseline_name"]:
        text = "The two were compared with different baselines, so their reasons count from different starting points."
        checks.append(Check("baselines", passed=False, text=text))
    return checks


def agreement_sentence(change: Change) -> str:
    """Say how alike the reasons of both are ranked; "" where they cannot be compared."""
    correlation = change.correlation()
    if correlation is None:
        return ""
    parts = int(change.first.lengths[0]) * len(change.one.names)
    kind = "timesteps and features" if len(change.one.names) > 1 else "timesteps"
    return f"The reasons of both have a rank correlation of {two_digits(correlation)} over {parts:,} {kind}."


def input_rows(change: Change) -> list[tuple[str, str, str, str, str]]:
    """Return (feature with unit, mean before and now, last value before and now) of every feature that both have."""
    rows = []
    for name in change.first.feature_names:
        if name not in change.second.feature_names:
            continue
        told = []
        for found in (change.first, change.second):
            values, _, unit = raw_series(found, 0, found.feature_names.index(name))
            told += [number(float(values.mean()), digits=4), number(float(values[-1]), digits=4)]
        rows.append((name + (f" ({unit})" if unit else ""), told[0], told[2], told[1], told[3]))
    return rows


def unchanged_sentence(change: Change) -> str:
    """Name the features that are the same in both inputs, which cannot have changed anything; "" where none is."""
    if not change.equally_shaped or change.first.of_tokens:
        return ""
    length = int(change.first.lengths[0])
    same = (change.first.inputs[0, :length] == change.second.inputs[0, :length]).all(axis=0)
    names = [name for name, equal in zip(change.first.feature_names, same, strict=True) if equal]
    if not names:
        return ""
    return f"The same in both: {joined(names)}."


def token_sentence(change: Change) -> str:
    """Say how many tokens differ, where both texts are of one length."""
    lengths = [int(found.lengths[0]) for found in (change.first, change.second)]
    if lengths[0] != lengths[1]:
        return f"The texts have {lengths[0]} and {lengths[1]} tokens."
    differ = int((change.first.inputs[0, : lengths[0], 0] != change.second.inputs[0, : lengths[0], 0]).sum())
    return f"Different are {count_of(differ, lengths[0])} tokens."


def strongest_columns(change: Change, direct: Attribution | None, most: int = 4) -> list[str]:
    """Return the names of the features that made the change, the strongest first; those that both inputs have."""
    found = change.second if direct is None else direct
    weight = np.abs(found.values[0]).sum(axis=0)
    transforms = found.diagnostic("feature_transform")
    names = [found.feature_names[column] for column in np.argsort(-weight, kind="stable")
             if transforms is None or str(transforms[column]) not in ("day_sine", "day_cosine")]  # fmt: skip
    return [name for name in names if name in change.first.feature_names][:most]
