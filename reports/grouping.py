"""`Grouping`: which group each sample belongs to, made from a column of a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from .performance import is_missing
from .wording import MINUS, number

MOST_GROUPS = 8
MISSING = "(missing)"


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which group each sample belongs to.

    Attributes:
        name: What the groups are by.
        labels: Names of the groups.
        member: (B,) number of each sample's group.
        others: Number of the group that many small ones were put into, which is compared with none; or None.
        note: How values became groups, where that needs saying.
    """

    name: str
    labels: tuple[str, ...]
    member: NDArray[np.int64]
    others: int | None = None
    note: str = ""

    @classmethod
    def of(cls, name: str, values: Any, samples: int) -> Grouping:
        """Return the groups of a column: its values; of many numbers their quarters, of many names the largest.

        Raises:
            InvalidInputError: There is not one value a sample.
        """
        given = np.asarray(values, dtype=object)
        if given.shape != (samples,):
            raise InvalidInputError(f"groups by {name!r} has shape {given.shape}; expected ({samples},), one a sample.")
        texts = np.array([MISSING if is_missing(value) else _text(value) for value in given], dtype=object)
        labels = _in_order(set(texts))
        if len(labels) > MOST_GROUPS:
            known = np.array([text != MISSING for text in texts])
            try:
                numbers = np.array([float(value) for value in given[known]])
            except (TypeError, ValueError):
                return cls._largest(name, texts)
            return cls._quarters(name, texts, numbers, known)
        places = {label: place for place, label in enumerate(labels)}
        return cls(name, tuple(labels), np.array([places[text] for text in texts], dtype=np.int64))

    @classmethod
    def _quarters(
        cls, name: str, texts: NDArray[Any], numbers: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> Grouping:
        edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75)))
        edges = edges[edges < numbers.max()]
        shown = [number(float(edge), digits=4) for edge in edges]
        labels = [f"up to {shown[0]}", *(f"over {low} to {high}" for low, high in pairwise(shown))]
        labels.append(f"over {shown[-1]}")
        member = np.full(len(texts), len(labels))
        member[known] = np.searchsorted(edges, numbers, side="left")
        if not known.all():
            labels.append(MISSING)
        return cls(name, tuple(labels), member, note="The column holds many numbers; the groups are its quarters.")

    @classmethod
    def _largest(cls, name: str, texts: NDArray[Any]) -> Grouping:
        counts = Counter(texts)
        kept = sorted(counts, key=lambda label: (-counts[label], label))[: MOST_GROUPS - 1]
        others = len(counts) - len(kept)
        places = {label: place for place, label in enumerate(kept)}
        member = np.array([places.get(text, len(kept)) for text in texts], dtype=np.int64)
        note = f"The column holds {len(counts)} values; the {len(kept)} most frequent are groups."
        return cls(name, (*kept, f"{others} other values"), member, len(kept), note)

    def redacted(self) -> Grouping:
        """Return the same without the column's values: groups are numbered, the largest first."""
        order = np.argsort(-np.bincount(self.member, minlength=len(self.labels)), kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        labels = tuple(f"group {place + 1}" for place in range(len(order)))
        others = None if self.others is None else int(rank[self.others])
        return Grouping(self.name, labels, rank[self.member], others, self.note)


def _text(value: Any) -> str:
    return number(value, digits=9) if isinstance(value, float) else str(value)


def _in_order(labels: set[str]) -> list[str]:
    """Return labels as people order them: by size where all are numbers, else by the alphabet; what is missing last."""
    known = labels - {MISSING}
    try:
        ordered = sorted(known, key=lambda label: (float(label.replace(MINUS, "-").replace(",", "")), label))
    except ValueError:
        ordered = sorted(known)
    return ordered + [MISSING] * (MISSING in labels)
