"""`Comparison`: one page about what changed between two predictions, of two models or of two inputs, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..explainers import Attribution
from ..explainers.assemble import library_versions
from ..models import InvalidInputError
from . import change_words as words
from .changes import Change, explain_change
from .comparison_sections import (
    about_section,
    effects_section,
    inputs_section,
    predictions_section,
    reasons_section,
)
from .evidence import Check
from .html import escape, page, share_bar
from .model_card import describe
from .pages import check_explained_model, write_page
from .wording import capital, effect


class Comparison:
    """A page about two explained predictions: two models on one input, or one model on two inputs.

    With one model, and inputs of one length, the change of the prediction is shared out exactly over what changed in
    the input (see `explain_change`).

    Args:
        first: Attribution of one sample: the one to compare with (the old model, yesterday's input).
        second: The same of the other (the new model, today's input), for the same output.
        names: What the page calls them; None: the samples' names, or first and second.
        models: The explained model, or both (two models); adds what the models are, and with one model and two inputs
            the change shared out.
        title: Title of the page; None: what changed.
        redact: Leave raw inputs, clock times and sample names out of the file.
        command: The command that made the page, to be shown.
        seed: Of a method that draws.

    Attributes:
        change: What changed, in numbers.
        direct: The change itself, shared out over the input; None where that cannot be.

    Raises:
        InvalidInputError: The two do not belong together, or a model is not the explained one.
    """

    def __init__(
        self,
        first: Attribution,
        second: Attribution,
        *,
        names: Sequence[str] | None = None,
        models: Any = None,
        title: str | None = None,
        redact: bool = False,
        command: str | None = None,
        seed: int = 0,
    ) -> None:
        self.change = Change.of(first, second)
        self.models = self._checked_models(models)
        self.title = title
        self.redact = redact
        self.command = command
        self.names = self._names(names)
        self.direct = None
        if self.change.kind == "inputs" and self.models:
            self.direct = explain_change(self.models[0], first, second, seed=seed)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Returns:
            The path.
        """
        return write_page(path, self.to_html)

    def to_html(self) -> str:
        """Return the page."""
        change, direct, names, redact = self.change, self.direct, self.names, self.redact
        parts = [
            self._head(),
            self._reasons(),
            self._checks(),
            predictions_section(change, names),
            inputs_section(change, direct, names, redact=redact),
            reasons_section(change, direct, names, redact=redact),
            effects_section(change, direct, names),
            about_section(change, direct, names, self.models, command=self.command, redact=redact),
        ]
        title = self.title or self.headline
        return page(title, "\n".join(part for part in parts if part), library_versions()["gatelens"])

    @property
    def headline(self) -> str:
        """What happened to the prediction, in one sentence."""
        before, strong, after = words.headline_of(self.change, self.names)
        return f"{before} {strong}{'' if after == '.' else ' '}{after}"

    def sentences(self) -> list[str]:
        """Return what the page says, as plain sentences: the change, its reasons, and how far to rely on them."""
        told = [self.headline]
        told += [f"{capital(name)} {text} ({amount})" for _, amount, name, text in self.rows()]
        return [*told, *(check.text for check in self.checks())]

    def rows(self) -> list[tuple[float, str, str, str]]:
        """Return the reasons of the change: size, the same in words, what it is about, and the sentence about it."""
        if self.direct is not None:
            reasons, _ = words.reasons_of_change(self.direct, self.names, redact=self.redact)
            return [(reason.effect, reason.effect_text, reason.name, reason.text) for reason in reasons]
        found = words.feature_rows(self.change, self.names)
        return [(size, effect(size, self.change.second), name, text) for size, name, text in found]

    def checks(self) -> list[Check]:
        """Return how far the reasons can be relied on."""
        checks = words.change_checks(self.change, self.direct, self.names)
        whose = self.names if len(self.models) > 1 else ("the model",)
        for model, name in zip(self.models, whose, strict=False):  # where no model is given, nothing is known of any
            checks += [
                Check("assumption", passed=False, text=f"About {name}: {text}.") for text in describe(model).assumed
            ]
        return checks

    # -- the first screen --------------------------------------------------------------------------------------------

    def _checked_models(self, models: Any) -> tuple[Any, ...]:
        if models is None:
            return ()
        both = tuple(models) if isinstance(models, (list, tuple)) else (models,)
        expected = 2 if self.change.kind == "models" else 1
        if len(both) != expected:
            raise InvalidInputError(
                f"models holds {len(both)}; expected {expected}: these are explanations of {expected} "
                f"model{'s' if expected > 1 else ''}."
            )
        check_explained_model(both[0], self.change.first, "first model" if expected > 1 else "model")
        if expected > 1:
            check_explained_model(both[1], self.change.second, "second model")
        return both

    def _names(self, names: Sequence[str] | None) -> tuple[str, str]:
        if names is not None:
            if isinstance(names, str) or len(names) != 2:
                raise InvalidInputError(f"names is {names!r}; expected two, e.g. ('yesterday', 'today').")
            return str(names[0]), str(names[1])
        if self.change.kind == "models":
            return "the first model", "the second model"
        first, second = self.change.first.sample_names[0], self.change.second.sample_names[0]
        return ("the first input", "the second input") if self.redact or first == second else (first, second)

    def _head(self) -> str:
        change = self.change
        before, strong, after = (escape(part) for part in words.headline_of(change, self.names))
        what = "two models on one input" if change.kind == "models" else "one model on two inputs"
        sample = "" if self.redact or change.kind == "inputs" else change.second.sample_names[0]
        kicker = (self.title or "", str(change.second.attrs["target"]), what, sample)
        texts = (words.class_sentence(change, self.names), words.shared_out(change, self.direct, self.names))
        return (
            f'<p class="kicker">{" · ".join(escape(part) for part in kicker if part)}</p>'
            f"<h1>{before} <strong>{strong}</strong>{'' if after == '.' else ' '}{after}</h1>"
            + "".join(f"<p>{escape(text)}</p>" for text in texts if text)
        )

    def _reasons(self) -> str:
        rows = self.rows()
        largest = max((abs(size) for size, *_ in rows), default=0.0)
        body = ""
        for size, amount, name, text in rows:
            kind = "raises" if size > 0 else "lowers"
            body += (
                f'<tr><td class="size {kind}">{escape(amount)}</td>'
                f'<td class="drawn">{share_bar(abs(size) / largest, kind)}</td>'
                f"<td><strong>{escape(capital(name))}</strong> {escape(text)}</td></tr>"
            )
        rest = "" if self.direct is None else words.reasons_of_change(self.direct, self.names, redact=self.redact)[1]
        title = "Why it changed" if self.change.kind == "inputs" else "Where the difference comes from"
        return (
            f"<h2>{title}</h2>"
            + (f'<table class="reasons"><tbody>{body}</tbody></table>' if body else "")
            + (f'<p class="quiet">{escape(rest)}</p>' if rest else "")
        )

    def _checks(self) -> str:
        checks = self.checks()
        passed = all(check.passed for check in checks)
        texts = [check.text for check in sorted(checks, key=lambda check: check.passed)]
        texts.append(words.agreement_sentence(self.change))
        title, kind = ("Checks passed.", "checks") if passed else ("Read with care.", "checks care")
        items = "".join(f"<li>{escape(text)}</li>" for text in texts if text)
        return f'<section class="{kind}"><strong>{title}</strong><ul>{items}</ul></section>'
