"""Words made from numbers by rules: what was predicted, the reasons, and how far they can be relied on.

Nothing here is canned: every sentence is chosen by what the attributions hold, every number in it is one of theirs,
and where the evidence is weak the sentence says so instead of claiming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..explainers import Attribution
from ..models import InvalidInputError
from .evidence import (
    Check,
    agreement_checks,
    completeness_check,
    confidence_checks,
    diagnostic_checks,
    is_complete,
    notes_on,
)
from .prediction import comparison, headline
from .reasons import Reason, find_reasons

PREFERRED = ("deeplift", "integrated_gradients", "temporal_shapley", "gradient_shap", "kernel_shap", "lime")


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

    @property
    def sentence(self) -> str:
        """The prediction in one sentence."""
        before, strong, after = self.headline
        return f"{before} {strong}{'' if after.startswith(('.', ',')) else ' '}{after}"

    def __str__(self) -> str:
        """The prediction, its reasons and the checks, a line each, to print."""
        lines = [self.sentence]
        lines += [f"  {reason.effect_text:>12}  {reason.name} {reason.text}" for reason in self.reasons]
        lines += [f"  [{'ok' if check.passed else 'care'}] {check.text}" for check in self.checks]
        return "\n".join(lines)


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
    checks = [completeness_check(attribution, sample), *agreement_checks(attributions, primary, sample)]
    checks += diagnostic_checks(attributions, sample)
    checks += confidence_checks(attribution, sample)
    return Narrative(
        headline=headline(attribution, sample, redact=redact),
        against=comparison(attribution, sample, redact=redact),
        reasons=tuple(reasons),
        rest=rest,
        checks=tuple(checks),
        primary=primary,
        notes=tuple(notes_on(attributions)),
    )


def choose_primary(attributions: Mapping[str, Attribution], sample: int) -> str:
    """Return the method that gives the reasons: complete on this sample, telling features apart, preferred."""

    def rank(name: str) -> tuple[bool, bool, int]:
        attribution = attributions[name]
        order = PREFERRED.index(attribution.method) if attribution.method in PREFERRED else len(PREFERRED)
        complete = attribution.attrs["completeness"] != "none" and is_complete(attribution, sample)
        return (not complete, not attribution.resolves_features, order)

    return min(attributions, key=rank)
