"""Named numbers about a sequence: a statistic of one feature over the whole sequence, or over a third of it.

They are what a person would say of a curve ("the mean of glucose in the last third"), in the feature's own words and
units where a `DataSpec` knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .data_spec import DataSpec
from .errors import InvalidInputError, nearest_name

Values = NDArray[np.float64]
Part = Literal["whole", "first", "middle", "last"]

PARTS: tuple[Part, ...] = ("whole", "first", "middle", "last")
CLOCK = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@dataclass(frozen=True)
class Statistic:
    """A number about a sequence.

    Attributes:
        kind: "mean", "last", "min", "max", "slope" or "std".
        feature: Which of the D features.
        part: Which part of the sequence.
        name: In words, e.g. "mean of glucose in the last third".
        unit: e.g. "mg/dL", of a slope "mg/dL a minute"; "" where it is not known.
        factor: What a slope a timestep is multiplied by to be in `unit`; 1 for the others.
    """

    kind: str
    feature: int
    part: Part
    name: str
    unit: str
    factor: float = 1.0

    def of(self, sequences: Values) -> Values:
        """Return the numbers (N,) of sequences of one length (N, L, D) in the features' own units."""
        start, stop = bounds(sequences.shape[1], self.part)
        return KINDS[self.kind](sequences[:, start:stop, self.feature]) * self.factor


def bounds(length: int, part: Part) -> tuple[int, int]:
    """Return the first timestep of a part and the one after its last; fewer than 3 timesteps have no thirds."""
    if part == "whole" or length < 3:
        return 0, length
    ends = (0, length // 3, 2 * length // 3, length)
    place = PARTS.index(part)
    return ends[place - 1], ends[place]


def _slope(values: Values) -> Values:
    """Return the slope a timestep of the least-squares line through values (N, L), (N,); 0 of a single one."""
    count = values.shape[1]
    if count < 2:
        return np.zeros(len(values))
    time = np.arange(count) - (count - 1) / 2
    found: Values = values @ (time / (time @ time))
    return found


KINDS: dict[str, Callable[[Values], Values]] = {  # of values (N, L)
    "mean": lambda values: np.asarray(values.mean(axis=1)),
    "last": lambda values: values[:, -1],
    "min": lambda values: np.asarray(values.min(axis=1)),
    "max": lambda values: np.asarray(values.max(axis=1)),
    "slope": _slope,
    "std": lambda values: np.asarray(values.std(axis=1)),
}
WORDS = {"mean": "mean of {}", "last": "last {}", "min": "lowest {}", "max": "highest {}", "slope": "slope of {}",
         "std": "spread (standard deviation) of {}"}  # fmt: skip


def statistics_of(data: DataSpec, features: int, kinds: Sequence[str] = tuple(KINDS)) -> tuple[Statistic, ...]:
    """Return every statistic of `kinds` for D features; the last value of the last third is that of the whole.

    Raises:
        InvalidInputError: A kind is not known, or there is none.
    """
    if not kinds:
        raise InvalidInputError(f"statistics is empty; name at least one of {', '.join(KINDS)}.")
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidInputError(f"statistics holds {kind!r}; {nearest_name(str(kind), KINDS)}")
    names = data.feature_names or tuple(f"feature {number}" for number in range(features))
    units = [feature.unit for feature in data.features] or [""] * features
    factor, pace = _pace(data.window.interval_seconds)
    found = []
    for feature in range(features):
        for kind in dict.fromkeys(kinds):
            for part in PARTS:
                if kind == "last" and part == "last":
                    continue
                where = "" if part == "whole" else f" in the {part} third"
                name = WORDS[kind].format(names[feature]) + where
                slope = kind == "slope"
                unit = f"{units[feature]} {pace}".strip() if slope else units[feature]
                found.append(Statistic(kind, feature, part, name, unit, factor if slope else 1.0))
    return tuple(found)


def table_of(statistics: Sequence[Statistic], sequences: Sequence[Values], data: DataSpec) -> Values:
    """Return (N, statistics) of sequences (L, D) as the model reads them: scaling is undone first."""
    scale, center = (data.scale, data.center) if data.features else (np.ones(1), np.zeros(1))
    lengths = np.array([len(sequence) for sequence in sequences])
    found = np.empty((len(sequences), len(statistics)))
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        own = np.stack([sequences[row] for row in rows.tolist()]).astype(np.float64) * scale + center  # (n, L, D)
        found[rows] = np.stack([statistic.of(own) for statistic in statistics], axis=1)
    return found


def _pace(interval: float | None) -> tuple[float, str]:
    """Return how many timesteps the unit of a slope is, and the words for it."""
    if interval is None:
        return 1.0, "a timestep"
    seconds, word = next((entry for entry in CLOCK if entry[0] <= interval), CLOCK[-1])
    return seconds / interval, f"{'an' if word == 'hour' else 'a'} {word}"
