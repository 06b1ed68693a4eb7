"""Groups side by side: what is predicted, how right it is and what mattered in each, and what differs beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chance import FEWEST_UNITS, Difference, compare_means, group_means, unit_counts
from .grouping import MOST_GROUPS, Grouping
from .overview import Overview
from .performance import Performance
from .wording import MINUS, effect, joined, level, percent

CONFIDENCE_WORDS = (
    "The intervals hold together with 95 % confidence: in 19 of 20 tables like this one, none would be named where "
    "there is no difference. A difference says that groups are treated differently, not why: their inputs may differ."
)


@dataclass(frozen=True)
class Quantity:
    """One row of the table of groups.

    Attributes:
        name: What it is, in the table.
        topic: "predictions", "performance", "reasons", "directions"; "constant": shown and not compared.
        short: What it is, in a sentence under its topic.
        is_share: Whether it is a mean of 0 and 1.
    """

    name: str
    topic: str
    short: str
    is_share: bool = False


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """What differs between groups.

    Attributes:
        overview: What is compared.
        grouping: The groups.
        quantities: The rows.
        means: (G, M), NaN where nothing is known.
        units: (G, M), of how many units.
        differences: All that could be compared.
        sizes: (G,) samples of each group.
    """

    overview: Overview
    grouping: Grouping
    quantities: tuple[Quantity, ...]
    means: NDArray[np.float64]
    units: NDArray[np.int64]
    differences: tuple[Difference, ...]
    sizes: NDArray[np.int64]

    @classmethod
    def of(
        cls, overview: Overview, grouping: Grouping, *, performance: Performance | None, together: NDArray[Any]
    ) -> GroupComparison:
        """Compare the groups.

        Args:
            overview: The attributions.
            grouping: The groups.
            performance: Predictions beside the truth, where known.
            together: (B,), samples with the same entry count as one unit of evidence.
        """
        rows = _rows(overview, performance)
        values = np.stack([values for _, values in rows], axis=1)  # (B, M)
        quantities = tuple(quantity for quantity, _ in rows)
        count = len(grouping.labels)
        compared = np.where(
            grouping.member == (-1 if grouping.others is None else grouping.others), -1, grouping.member
        )
        shares = np.array([quantity.is_share for quantity in quantities])
        told = np.array([quantity.topic != "constant" for quantity in quantities])
        found = compare_means(np.where(told, values, np.nan), compared, together, count, is_share=shares)
        return cls(
            overview, grouping, quantities, group_means(values, grouping.member, count),
            unit_counts(values, grouping.member, together, count),
            tuple(found),
            np.bincount(grouping.member, minlength=count),
        )  # fmt: skip

    def text(self, quantity: int, value: float, *, difference: bool = False) -> str:
        """Return a mean of a quantity, or a difference of two, in words."""
        if np.isnan(value):
            return "not known"
        kind = self.quantities[quantity]
        attribution = self.overview.attribution
        if kind.is_share:
            points = f"{100 * value:+.{0 if abs(value) >= 0.0995 else 1}f}".replace("-", MINUS)
            return f"{points} points" if difference else percent(value)
        if kind.topic == "predictions":
            return effect(value, attribution) if difference else level(value, attribution)
        text = effect(value, attribution)
        return text if difference or kind.topic == "directions" else text.lstrip("+")

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return head and rows: one column a group, small ones marked."""
        small = self.small
        head = ["", *(f"{label}{' *' if group in small else ''}" for group, label in enumerate(self.grouping.labels))]
        rows = [["samples", *(f"{size:,}" for size in self.sizes)]]
        own_units = self.units.max(axis=1)
        if (own_units != self.sizes).any():
            rows.append(["of them separate", *(f"{units:,}" for units in own_units)])
        for place, quantity in enumerate(self.quantities):
            rows.append([quantity.name, *(self.text(place, float(value)) for value in self.means[:, place])])
        return head, rows

    @property
    def small(self) -> list[int]:
        """Groups that are compared with none."""
        return [group for group, units in enumerate(self.units.max(axis=1))
                if units < FEWEST_UNITS or group == self.grouping.others]  # fmt: skip

    def sentences(self) -> list[str]:
        """Name the largest difference of each topic that is beyond chance; say where none is, or none can be known."""
        texts = [self.grouping.note] if self.grouping.note else []
        small = [f"{self.grouping.labels[group]} ({int(self.units[group].max())})" for group in self.small
                 if group != self.grouping.others]  # fmt: skip
        if small:
            texts.append(
                f"Too small to compare (*): {joined(small)}; a group needs {FEWEST_UNITS} samples that stand for "
                "themselves."
            )
        if not self.differences:
            texts.append("There are no two groups large enough to compare, so nothing is said about differences.")
            return texts
        for topic, title in (
            ("predictions", "What is predicted"),
            ("performance", "How right it is"),
            ("reasons", "How much features matter"),
            ("directions", "Which way features push"),
        ):
            found = [entry for entry in self.differences if self.quantities[entry.quantity].topic == topic]
            if found:
                texts.append(self._topic_sentence(found, title))
        return [*texts, CONFIDENCE_WORDS]

    def _topic_sentence(self, found: list[Difference], title: str) -> str:
        beyond = [entry for entry in found if entry.beyond_chance]
        if not beyond:
            return f"{title}: no difference between groups is beyond chance."
        largest = max(beyond, key=lambda entry: (not self.quantities[entry.quantity].is_share, abs(entry.size)))
        others = f" It is one of {len(beyond)} differences beyond chance." if len(beyond) > 1 else ""
        return f"{title}: {self.difference_words(largest)}.{others}"

    def difference_words(self, found: Difference) -> str:
        """Return a difference, the two means and its interval."""
        sign = 1 if found.size >= 0 else -1
        more, less = (found.first, found.second)[::sign]
        labels, place = self.grouping.labels, found.quantity
        means = [self.text(place, float(self.means[group, place])) for group in (more, less)]
        return (
            f"{self.quantities[place].short} differs most, {means[0]} in {labels[more]} against {means[1]} in "
            f"{labels[less]}: {self.text(place, abs(found.size), difference=True)} (95 % interval "
            f"{self.interval(found, sign)})"
        )

    def interval(self, found: Difference, sign: int = 1) -> str:
        """Return a difference's interval; with sign -1 that of the second group's mean less the first's."""
        low, high = sorted((sign * found.low, sign * found.high))
        first, last = (self.text(found.quantity, end, difference=True) for end in (low, high))
        value, _, unit = first.partition(" ")
        return f"{value if unit and last.endswith(' ' + unit) else first} to {last}"

    def to_dict(self) -> dict[str, Any]:
        """Return the table and the differences as numbers, for programs."""
        labels = self.grouping.labels
        return {
            "groups": {
                label: {
                    "samples": int(self.sizes[group]),
                    "compared": group not in self.small,
                    "means": {
                        quantity.name: None if np.isnan(self.means[group, place]) else float(self.means[group, place])
                        for place, quantity in enumerate(self.quantities)
                    },
                }
                for group, label in enumerate(labels)
            },
            "differences": [
                {
                    "quantity": self.quantities[found.quantity].name,
                    "groups": [labels[found.first], labels[found.second]],
                    "difference": found.size,
                    "low": found.low,
                    "high": found.high,
                    "beyond_chance": found.beyond_chance,
                }
                for found in self.differences
            ],
        }

    def differences_table(self) -> tuple[list[str], list[list[str]]]:
        """Return head and rows of all differences that were compared, those beyond chance first."""
        rows = []
        for found in sorted(self.differences, key=lambda entry: not entry.beyond_chance):
            labels = self.grouping.labels
            rows.append(
                [
                    self.quantities[found.quantity].name,
                    f"{labels[found.first]} less {labels[found.second]}",
                    self.text(found.quantity, found.size, difference=True),
                    self.interval(found),
                    "yes" if found.beyond_chance else "no",
                ]
            )
        return ["", "Groups", "Difference", "95 % interval", "Beyond chance"], rows


def _rows(overview: Overview, performance: Performance | None) -> list[tuple[Quantity, NDArray[np.float64]]]:
    """Return what is compared: predictions, performance, and each feature's size and, where it has one, direction."""
    attribution = overview.attribution
    rows: list[tuple[Quantity, NDArray[np.float64]]] = []
    if overview.one_output:
        rows.append((Quantity(f"mean of {overview.subject}", "predictions", overview.subject), attribution.prediction))
    for name in list(overview.predicted)[:MOST_GROUPS] if len(overview.predicted) > 1 else ():
        assert overview.likeliest is not None  # where classes are predicted
        is_it = (overview.likeliest[0] == name).astype(np.float64)
        rows.append((Quantity(f"share predicted {name}", "predictions", f"the share predicted {name}", True), is_it))
    if performance is not None:
        measured = performance.rows()
        for name, (values, is_share) in measured.items():
            topic = "constant" if name == list(measured)[-1] else "performance"
            rows.append((Quantity(name, topic, f"the {name}", is_share), values))
    for feature in overview.order:
        name = overview.names[feature]
        rows.append((Quantity(f"{name}, size of effects", "reasons", name), overview.sizes[:, feature]))
    for feature in overview.order if overview.signed else ():
        name = overview.names[feature]
        rows.append((Quantity(f"{name}, effect", "directions", name), overview.net[:, feature]))
    return rows
