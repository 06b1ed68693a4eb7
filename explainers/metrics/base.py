"""`Metric`: what every metric says about itself, and the two ways to one: from values alone, or by asking the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..attribution import Attribution
from ..players import CoalitionMatrix
from .predictions import Predictions
from .ranking import Parts, descending, part_values
from .scores import Direction, Scores

if TYPE_CHECKING:
    from ..base import Explainer

Unit = Literal[
    "explained number", "squared explained number", "share", "correlation", "parts", "evaluations", "seconds"
]


@dataclass(frozen=True, eq=False)
class Case:
    """One explainer among those that are measured.

    Attributes:
        name: Of the explainer.
        attributions: Name -> result, of all explainers that are measured.
        predictions: What they explain.
        parts: What is ranked: "timestep", "cell" or "feature".
        explainers: Name -> explainer, where one was given to explain again with.
    """

    name: str
    attributions: Mapping[str, Attribution]
    predictions: Predictions
    parts: Parts
    explainers: Mapping[str, Explainer]

    @property
    def attribution(self) -> Attribution:
        """The result."""
        return self.attributions[self.name]

    def values(self, sample: int) -> NDArray[np.float64]:
        """Return the attribution (n,) of each part of a sample."""
        return part_values(self.attribution, sample, self.predictions.players(sample, self.parts))

    def every(self) -> list[NDArray[np.float64]]:
        """Return the attribution (n,) of each part of each sample."""
        return [self.values(sample) for sample in range(len(self.attribution))]


@dataclass(frozen=True, eq=False)
class Row:
    """One sample of one explainer, against one baseline.

    Attributes:
        values: (n,) the attribution of each part.
        full: f(x).
        empty: f(baseline).
        signed: Whether values are contributions; else how much a part could matter, whatever their sign.
        predictions: For random numbers that are the same for every explainer.
        sample: Which.
    """

    values: NDArray[np.float64]
    full: float
    empty: float
    signed: bool
    predictions: Predictions
    sample: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sign(self) -> int:
        """-1 where the input's number is below the baseline's, else 1."""
        return -1 if self.full < self.empty else 1

    def generator(self, purpose: str) -> np.random.Generator:
        """Return random numbers for a purpose, the same for every explainer."""
        return self.predictions.generator(self.sample, purpose)

    def order(self) -> NDArray[np.int64]:
        """Return the parts (n,), the most important first.

        That is the part which, as the explainer says, moved the number most from f(baseline) towards f(x); the parts
        that moved it back come last. Of a sensitivity it is the part with the largest size. Equal parts stand in one
        random order, which the seed and the input decide, the same for every explainer.
        """
        towards = self.sign * self.values if self.signed else np.abs(self.values)
        return descending(towards, self.generator("ties"))


class Metric(ABC):
    """A number a sample that says how good, or of what kind, an explanation is.

    Attributes:
        name: What it is called.
        source: Where it comes from.
        range: The least and the largest value.
        direction: "higher" or "lower" is better, or "none".
        unit: Of its values.
        cannot: What it cannot tell.
        of_baselines: Whether it replaces parts of the input by a baseline.
        detail: What its several numbers a sample are of, whose summary is the value; None where there is only one.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    direction: ClassVar[Direction]
    unit: ClassVar[Unit]
    cannot: ClassVar[str]
    of_baselines: ClassVar[bool] = False
    detail: ClassVar[str | None] = None

    def __call__(
        self,
        model: Any,
        attribution: Attribution,
        *,
        baselines: Any = None,
        parts: Parts | None = None,
        seed: int = 0,
        explainer: Explainer | None = None,
    ) -> Scores:
        """Return the scores of one attribution (see `measure`)."""
        from .measure import measure

        found = measure(
            model,
            attribution,
            (self,),
            baselines=baselines,
            parts=parts,
            seed=seed,
            explainers=None if explainer is None else {attribution.method: explainer},
        )
        return found.scores(self.name)

    def options(self) -> dict[str, Any]:
        """Return its options, for the record."""
        return dict(vars(self))

    def labels(self) -> list[Any] | None:
        """Return what the numbers of `detail` are called; None: they are numbered."""
        return None


class Computed(NamedTuple):
    """What a metric of values found of one explainer.

    Attributes:
        values: (B,).
        details: (B, m) where the metric has details.
        labels: What these are called.
    """

    values: NDArray[np.float64]
    details: NDArray[np.float64] | None = None
    labels: Sequence[str] = ()


class OfValues(Metric):
    """A metric that needs no coalitions: of the values alone, or of the explainer asked again."""

    @abstractmethod
    def compute(self, case: Case) -> Computed:
        """Return a value a sample."""


class OfCoalitions(Metric):
    """A metric that takes parts away: it says which coalitions it wants of a sample, and gets their explained numbers.

    All explainers' and metrics' coalitions of a sample are evaluated together, equal ones once.
    """

    of_baselines = True

    @abstractmethod
    def coalitions(self, row: Row) -> CoalitionMatrix:
        """Return bool (N, n), True where a part keeps its input."""

    @abstractmethod
    def details(self, row: Row, coalitions: CoalitionMatrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (m,) numbers from the explained number (N,) of each coalition; m is the same for all samples.

        A curve may be shorter for a sample with fewer parts; its last number then stands for the rest.
        """

    def summary(self, row: Row, details: NDArray[np.float64]) -> float:
        """Return the value of a sample from its details: their mean."""
        del row
        return float(details.mean())
