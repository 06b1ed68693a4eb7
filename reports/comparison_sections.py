"""The sections of a page about two predictions, each from a `Change`; a section with nothing to say is empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..explainers import Attribution
from . import change_pictures as pictures
from . import change_words as words
from .about import about
from .change_words import Names
from .changes import Change
from .html import details, escape, picture, table
from .model_card import describe
from .overview import Overview
from .prediction import class_probabilities
from .reasons import token_texts
from .wording import ago_labels, capital, effect, level, number, percent, step_labels

AS_TABLE = "The same as a table"


def predictions_section(change: Change, names: Names) -> str:
    """Return both predictions, their baselines', and the chances of all classes."""
    both = (change.first, change.second)
    rows = [
        ("Prediction", *words.two_levels(change), effect(change.difference, change.second)),
        ("Of the baseline", *(level(float(found.baseline_prediction[0]), found) for found in both),
         effect(change.start, change.second)),
    ]  # fmt: skip
    chances = [class_probabilities(found, 0) for found in both]
    if chances[0] is not None and chances[1] is not None:
        one, two = dict(chances[0]), dict(chances[1])
        for name in dict.fromkeys((*one, *two)):
            told = [percent(found[name]) if name in found else "" for found in (one, two)]
            points = 100 * (two.get(name, 0.0) - one.get(name, 0.0))
            rows.append((f"Chance of {name}", *told, f"{number(points, digits=2, signed=True)} points"))
    return f"<h2>The predictions</h2>{table(('', *map(capital, names), 'Difference'), rows)}"


def inputs_section(change: Change, direct: Attribution | None, names: Names, *, redact: bool) -> str:
    """Return what is different in the input, where there are two."""
    if redact or change.kind == "models":
        return ""
    parts = ["<h2>What changed in the input</h2>"]
    if change.first.of_tokens:
        texts = [token_texts(found, 0) for found in (change.first, change.second)]
        longest = max(map(len, texts))
        cells = [[*text, *[""] * (longest - len(text))] for text in texts]
        rows = [(str(step + 1), *pair) for step, pair in enumerate(zip(*cells, strict=True))]
        parts.append(f"<p>{escape(words.token_sentence(change))}</p>")
        parts.append(details("Both texts", table(("Token", *map(capital, names)), rows, text=True)))
        return "".join(parts)
    unchanged = words.unchanged_sentence(change)
    parts.append(f"<p>{escape(unchanged)}</p>" if unchanged else "")
    shown = words.strongest_columns(change, direct)
    if shown:
        parts.append(
            picture(
                lambda theme: pictures.plot_two_inputs(change, shown, theme=theme),
                "The series of both inputs over each other, in their own units",
                f"Line: {names[1]}. Dashed: {names[0]}.",
            )
        )
    head = ("Feature", f"Mean, {names[0]}", f"Mean, {names[1]}", f"Last, {names[0]}", f"Last, {names[1]}")
    parts.append(details(AS_TABLE, table(head, words.input_rows(change))))
    return "".join(parts)


def reasons_section(change: Change, direct: Attribution | None, names: Names, *, redact: bool) -> str:
    """Return the reasons of both side by side, on one scale."""
    found = [change.first, change.second, *([] if direct is None else [direct])]
    if change.first.of_tokens:
        return _texts_section(change, direct, names, redact=redact)
    if not all(one.resolves_time for one in found):
        return ""
    parts = ["<h2>Side by side</h2>"]
    if max(int(one.lengths[0]) for one in found) > 1:
        parts.append(
            picture(
                lambda theme: pictures.plot_two_courses(change, direct, names, theme=theme),
                "Contribution of each timestep, on one scale",
                "Each timestep's contribution, on one scale. Orange raises, blue lowers.",
            )
        )
    if all(one.resolves_features for one in found) and len({*change.one.names, *change.two.names}) > 1:
        parts.append(
            picture(
                lambda theme: pictures.plot_two_maps(change, direct, names, theme=theme),
                "Contribution of each timestep and feature, on one scale",
                "Each timestep and feature, on one scale.",
            )
        )
    parts.append(details(AS_TABLE, _steps_table(change, direct, names, redact=redact)))
    return "".join(parts)


def _texts_section(change: Change, direct: Attribution | None, names: Names, *, redact: bool) -> str:
    limit = max(float(np.abs(found.timesteps).max()) for found in (change.first, change.second)) or 1.0
    parts = ["<h2>Side by side</h2>"]
    parts += [_text(change.first, names[0], limit, redact=redact), _text(change.second, names[1], limit, redact=redact)]
    return "".join(parts) + details(AS_TABLE, _steps_table(change, direct, names, redact=redact))


def _text(found: Attribution, name: str, limit: float, *, redact: bool) -> str:
    drawn = picture(
        lambda theme: pictures.plot_text(found, limit, redact=redact, theme=theme),
        f"Contribution of each token, {name}",
        "Both on one scale. Orange raises, blue lowers.",
    )
    return f"<h3>{escape(capital(name))}</h3>{drawn}"


def _steps_table(change: Change, direct: Attribution | None, names: Names, *, redact: bool) -> str:
    """Return a table of every timestep, aligned at the end: both contributions, and that of the change itself."""
    lengths = [int(found.lengths[0]) for found in (change.first, change.second)]
    steps = max(lengths)
    head = ["Timestep"]
    columns: list[list[str]] = [ago_labels(steps, change.two.interval, same_start=lengths[0] == lengths[1])]
    for found, name, length in zip((change.first, change.second), names, lengths, strict=True):
        filled = [""] * (steps - length)
        if found.diagnostic("timestamp") is not None and not redact and change.kind == "inputs":
            head.append(f"{capital(name)}: time")
            columns.append([*filled, *step_labels(found, 0)])
        head.append(f"{capital(name)}: contribution")
        columns.append([*filled, *(number(float(value), signed=True) for value in found.timesteps[0, :length])])
    if direct is not None:
        head.append("The change itself")
        columns.append([number(float(value), signed=True) for value in direct.timesteps[0]])
    return table(head, list(zip(*columns, strict=True)))


def effects_section(change: Change, direct: Attribution | None, names: Names) -> str:
    """Return each feature's effects as a table."""
    shared: dict[str, float] = {}
    if direct is not None:
        found = Overview.of(direct)
        shared = dict(zip(found.names, found.net[0].tolist(), strict=True))
    head = ["Feature", *map(capital, names), "Difference", *(["The change itself"] if shared else [])]
    rows = []
    for row in change.features():
        told = ["" if amount is None else effect(amount, change.second) for amount in (row.first, row.second)]
        more = [effect(shared[row.name], change.second) if row.name in shared else ""] if shared else []
        rows.append([row.name, *told, effect(row.difference, change.second), *more])
    return details("Effects by feature", table(head, rows))


def about_section(
    change: Change,
    direct: Attribution | None,
    names: Names,
    models: Sequence[Any],
    *,
    command: str | None,
    redact: bool,
) -> str:
    """Return how the page was made: the explainers, the model or both models side by side, versions."""
    shown = {names[0]: change.first, names[1]: change.second}
    if direct is not None:
        shown["the change"] = direct
    bare = {name: Attribution(found.dataset.drop_vars("timestamp", errors="ignore")) for name, found in shown.items()}
    text = about(bare, models[0] if len(models) == 1 else None, command=command, redact=redact)
    if len(models) < 2:
        return text
    cards = [dict(describe(model).rows) for model in models]
    rows = [(label, *(card.get(label, "") for card in cards)) for label in dict.fromkeys([*cards[0], *cards[1]])]
    return text + details("The models", table(("", *map(capital, names)), rows, text=True))
