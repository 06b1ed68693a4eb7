"""What prepared sequences mean, in words: units, names of outputs, what is predicted, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .config import Task
from .cutting import Cut
from .data_spec import DataSpec, FeatureSpec
from .errors import InvalidInputError, nearest_name

REGULAR = 0.9  # share of the steps between rows that must agree for them to have a length in time
UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))


def with_units(
    features: Sequence[FeatureSpec], units: Mapping[str, str], targets: Sequence[str]
) -> tuple[FeatureSpec, ...]:
    """Return features with the unit of their name, or of their column, unless they have one."""
    known = {*targets, *(name for feature in features for name in (feature.name, feature.source))}
    for name in units:
        if name not in known:
            raise InvalidInputError(f"units names {name!r}, which is no feature or target; {nearest_name(name, known)}")
    result = []
    for feature in features:
        of_column = units.get(feature.source, "") if feature.transform == "identity" else ""
        result.append(replace(feature, unit=feature.unit or units.get(feature.name, of_column)))
    return tuple(result)


def described(
    spec: DataSpec,
    cut: Cut,
    task: Task,
    classes: tuple[str, ...],
    units: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> DataSpec:
    """Return the spec with names of classes or outputs, what is predicted, and where it came from."""
    interval = _interval(cut)
    aim = cut.aim
    ahead = [_ahead(rows, interval) for rows in aim.horizons]
    outputs = () if classes else tuple(
        f"{name} {when}".strip() if len(ahead) > 1 else name for name in aim.names for when in ahead
    )  # fmt: skip
    named = {units.get(name, "") for name in aim.names}
    when = ahead[0] if len(ahead) == 1 else f"{_listed([_ahead(rows, interval) for rows in aim.horizons])}"
    return replace(
        spec,
        classes=classes,
        outputs=outputs,
        output_unit=named.pop() if task == "regression" and len(named) == 1 else "",
        target=f"{_listed(aim.names)} {when}".strip(),
        window=replace(spec.window, interval_seconds=interval),
        provenance=provenance,
    )


def _interval(cut: Cut) -> float | None:
    """Return the seconds from row to row, where nearly all steps inside runs are the same."""
    steps = [
        np.diff(table.times[start:stop]) / np.timedelta64(1, "s")
        for table in cut.tables
        if table.times is not None
        for start, stop in table.runs()
    ]
    seconds = np.concatenate(steps) if steps else np.empty(0)
    if not len(seconds):
        return None
    usual = float(np.median(seconds))
    return usual if np.mean(np.abs(seconds - usual) <= usual / 10) >= REGULAR else None


def _ahead(rows: int, interval: float | None) -> str:
    """Return how far ahead so many rows are, in words; "" for none."""
    if not rows:
        return ""
    if interval is None:
        return f"{rows} timestep{'s' if rows > 1 else ''} ahead"
    name, size = next(((name, size) for name, size in UNITS if rows * interval >= size), UNITS[-1])
    count = rows * interval / size
    return f"{count:g} {name.removesuffix('s') if count == 1 else name} ahead"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
