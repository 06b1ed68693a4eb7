"""`GlobalReport`: one page about many predictions: what mattered, groups side by side, typical and unusual samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..explainers import Attribution
from ..explainers.assemble import library_versions
from ..models import InvalidInputError, InvalidTypeError
from .about import about
from .evidence import Check
from .global_sections import (
    MOST_FEATURES,
    groups_section,
    predictions_section,
    spread_section,
    typical_section,
    where_section,
    words_section,
)
from .grouping import Grouping
from .groups import CONFIDENCE_WORDS, GroupComparison
from .html import escape, page, share_bar
from .model_card import describe, metric_check
from .overview import Overview
from .overview_words import (
    completeness_of_all,
    feature_sentence,
    handling_notes,
    main_sentence,
)
from .pages import check_explained_model, write_page
from .performance import Performance
from .streaming import passing
from .token_effects import most_effective
from .wording import capital, method_name, percent

OVERLAP_TOLD = 0.1  # of the samples


class GlobalReport:
    """A page about many predictions of one model.

    Args:
        attribution: Of many samples, by one method (a fast one: deeplift, integrated_gradients). Of one that
            `Attribution.open` gave, timesteps are read in passes, so its samples may be more than memory holds.
        model: The explained model; adds its card.
        truth: (B,) the true classes (names or numbers) or numbers, None or NaN where unknown; adds how right it is.
        groups: (B,) labels, or name -> labels for several groupings; adds the groups side by side.
        together: (B,) labels; samples with the same one are no independent evidence (windows cut from one series),
            and count as one where groups are compared. None: every sample stands for itself.
        title: Title of the page; None: what mattered most.
        redact: Leave raw inputs, clock times, and names of samples and groups out of the file.
        command: The command that made the page, to be shown.
        notes: Sentences on where the samples come from, to be shown.

    Raises:
        InvalidInputError: There is no sample, the model is another one, or truth or groups do not fit the samples.
    """

    def __init__(
        self,
        attribution: Attribution,
        *,
        model: Any = None,
        truth: Any = None,
        groups: Any = None,
        together: Any = None,
        title: str | None = None,
        redact: bool = False,
        command: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if not isinstance(attribution, Attribution):
            raise InvalidTypeError(
                f"attribution is a {type(attribution).__name__}; expected one Attribution of many samples, as an "
                "explainer returns it."
            )
        if len(attribution) == 0:
            raise InvalidInputError("the attribution holds no sample; explain at least one.")
        check_explained_model(model, attribution)
        self.attribution = attribution
        self.model = model
        self.title = title
        self.redact = redact
        self.command = command
        self.notes = tuple(notes)
        self.overview = Overview.of(attribution)
        self.performance = None if truth is None else Performance.of(self.overview.attribution, truth)
        self.groups = [self._compared(name, labels, together) for name, labels in _groupings(groups).items()]
        self._overlapping = (
            together is None and bool(self.groups) and _overlap(self.overview.attribution) > OVERLAP_TOLD
        )

    def _compared(self, name: str, labels: Any, together: Any) -> GroupComparison:
        count = len(self.attribution)
        units = np.arange(count) if together is None else np.unique(np.asarray(together, str), return_inverse=True)[1]
        if units.shape != (count,):
            raise InvalidInputError(f"together has shape {units.shape}; expected ({count},), one label a sample.")
        grouping = Grouping.of(name, labels, count)
        grouping = grouping.redacted() if self.redact else grouping
        return GroupComparison.of(self.overview, grouping, performance=self.performance, together=units)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Returns:
            The path.
        """
        return write_page(path, self.to_html)

    def to_html(self) -> str:
        """Return the page."""
        overview, redact = self.overview, self.redact
        parts = [
            self._head(),
            self._features(),
            self._checks(),
            predictions_section(overview, self.performance),
            where_section(overview),
            spread_section(overview, redact=redact),
            words_section(overview, redact=redact),
            *(groups_section(comparison) for comparison in self.groups),
            typical_section(overview, redact=redact),
        ]
        bare = Attribution(overview.attribution.dataset.drop_vars("timestamp", errors="ignore"))
        parts.append(about({bare.method: bare}, self.model, command=self.command, redact=redact, page="GlobalReport"))
        title = self.title or "".join(self._main())
        return page(title, "\n".join(part for part in parts if part), library_versions()["gatelens"])

    def sentences(self) -> list[str]:
        """Return what the page says first, as plain sentences: what mattered most, each feature, and the groups."""
        overview = self.overview
        told = ["".join(self._main())]
        if len(overview.names) > 1:
            told += [
                f"{capital(overview.names[feature])} ({percent(float(overview.shares[feature]))}) "
                f"{feature_sentence(overview, int(feature))}"
                for feature in overview.order[:MOST_FEATURES]
                if overview.shares[feature] > 0
            ]
        told += [] if self.performance is None else self.performance.sentences()
        for comparison in self.groups:
            told += [
                f"By {comparison.grouping.name}: {text}" for text in comparison.sentences() if text != CONFIDENCE_WORDS
            ]
        return told

    def _repr_html_(self) -> str:
        """Return the page's first words for notebooks."""
        return self._head() + self._features() + self._checks()

    # -- the first screen --------------------------------------------------------------------------------------------

    def _head(self) -> str:
        overview, attribution = self.overview, self.overview.attribution
        before, strong, after = (escape(part) for part in self._main())
        lengths = attribution.lengths
        steps = f"{lengths.max()}" if overview.equally_long else f"{lengths.min()} to {lengths.max()}"
        shape = f"{len(overview):,} sample{'' if len(overview) == 1 else 's'} of {steps} "
        shape += "timestep" if steps == "1" else "timesteps"
        if not attribution.of_tokens:
            count = len(attribution.feature_names)
            shape += f" and {count} feature{'' if count == 1 else 's'}"
        kicker = (self.title or "", str(attribution.attrs["target"]), shape, method_name(attribution.method))
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*self.notes, *handling_notes(overview)))
        return (
            f'<p class="kicker">{" · ".join(escape(part) for part in kicker if part)}</p>'
            f"<h1>{before}<strong>{strong}</strong>{after}</h1>{notes}"
        )

    def _main(self) -> tuple[str, str, str]:
        word = None
        if self.attribution.of_tokens and not self.redact and self.attribution.resolves_time:
            raising, lowering, _ = most_effective(self.overview.words.told())
            word = max((*raising, *lowering), key=lambda entry: abs(entry.mean), default=None)
        return main_sentence(self.overview, word)

    def _features(self) -> str:
        overview = self.overview
        if overview.sizes.sum() == 0:
            return ""
        told = [int(feature) for feature in overview.order[:MOST_FEATURES] if overview.shares[feature] > 0]
        if len(overview.names) == 1:
            sentence = feature_sentence(overview, 0).replace(" it ", f" {overview.subject} ", 1)
            return f"<p>{escape(capital(overview.names[0]))} {escape(sentence)}</p>"
        largest = float(overview.shares[told[0]])
        rows = "".join(
            f'<tr><td class="size">{escape(percent(float(overview.shares[feature])))}</td>'
            f'<td class="drawn">{share_bar(float(overview.shares[feature]) / largest)}</td>'
            f"<td><strong>{escape(capital(overview.names[feature]))}</strong> "
            f"{escape(feature_sentence(overview, feature))}</td></tr>"
            for feature in told
        )
        rest = len(overview.names) - len(told)
        left = (
            f'<p class="quiet">{rest} more, together {escape(percent(self._share_of_rest(told)))}.</p>' if rest else ""
        )
        subject = f"Share of all effects on {overview.subject}, and how each works"
        return (
            f'<h2>What mattered</h2><p class="quiet">{escape(subject)}</p>'
            f'<table class="reasons"><tbody>{rows}</tbody></table>{left}'
        )

    def _share_of_rest(self, told: list[int]) -> float:
        return max(0.0, 1 - float(self.overview.shares[told].sum()))

    def _checks(self) -> str:
        checks = [completeness_of_all(self.overview.attribution)]
        card = None if self.model is None else describe(self.model)
        assumed = () if card is None else card.assumed
        checks += [Check("assumption", passed=False, text=f"About the model: {text}.") for text in assumed]
        good = None if card is None else metric_check(card)
        checks += [] if good is None or good.passed else [good]
        poor = None if self.performance is None else self.performance.check()
        checks += [] if poor is None else [poor]
        if self.attribution.measures == "sensitivity":
            text = f"{method_name(self.attribution.method)} tells how much a part could matter, not what it did."
            checks.append(Check("measures", passed=False, text=text))
        if self._overlapping:
            text = (
                "The samples overlap in time. If they are windows of one series, the groups' intervals are too "
                "narrow: say which belong together."
            )
            checks.append(Check("overlap", passed=False, text=text))
        texts = [check.text for check in sorted(checks, key=lambda check: check.passed)]
        texts.append(good.text if good is not None and good.passed else "")
        passed = all(check.passed for check in checks)
        title, kind = ("Checks passed.", "checks") if passed else ("Read with care.", "checks care")
        items = "".join(f"<li>{escape(text)}</li>" for text in texts if text)
        return f'<section class="{kind}"><strong>{title}</strong><ul>{items}</ul></section>'


def _groupings(groups: Any) -> dict[str, Any]:
    if groups is None:
        return {}
    if isinstance(groups, Mapping):
        return {str(name): labels for name, labels in groups.items()}
    return {str(getattr(groups, "name", None) or "group"): groups}


def _overlap(attribution: Attribution) -> float:
    """Return the share of samples that begin before the one before them ended; 0 where times are not known."""
    if "timestamp" not in attribution.dataset or len(attribution) < 2:
        return 0.0
    ends = []
    for _, piece in passing(attribution, "timestamp"):
        stamps = piece.dataset["timestamp"].to_numpy()  # (n, T)
        ends.append((stamps[:, 0], stamps[np.arange(len(stamps)), piece.lengths - 1]))
    first, last = (np.concatenate(part) for part in zip(*ends, strict=True))
    order = np.argsort(first, kind="stable")
    return float((first[order][1:] <= last[order][:-1]).mean())
