"""The glucose story as a forecast: from two hours of a glucose monitor, what will it read in 30 minutes, in mg/dL?

Data, windows, features and split are those of the glucose trend (`glucose.py`); only the target is another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gatelens.examples import glucose
from gatelens.examples.glucose import HORIZON, Part
from gatelens.models import DataSpec, FeatureSpec, SequenceData, WindowSpec
from gatelens.models.table import read_table

NAME = "glucose_forecast"


@dataclass(frozen=True, eq=False)
class ForecastPart:
    """Windows of one part: inputs (N, 24, 4), the reading 30 minutes on (N,), and the last one known (N,), in mg/dL."""

    inputs: NDArray[np.float32]
    targets: NDArray[np.float64]
    last: NDArray[np.float64]
    windows: Part

    def __len__(self) -> int:
        return len(self.targets)


def readings_later() -> dict[np.datetime64, float]:
    """Return the reading six rows after each time that has 24 rows before and 6 behind it without a pause."""
    spec = DataSpec(
        features=(FeatureSpec(name="glucose"),),
        window=WindowSpec(length=24 + HORIZON, max_gap_seconds=360, min_gap_seconds=180, time_column="time"),
    )
    both = SequenceData.from_frame(read_table(glucose.data_path()), spec, windows="all")
    assert both.times is not None
    return dict(zip(both.times[:, 23], both.inputs[:, -1, 0].astype(np.float64), strict=True))


def split() -> tuple[DataSpec, dict[str, ForecastPart]]:
    """Return the spec and the parts "train", "validation" and "test" of the trend, with readings as targets."""
    spec, parts = glucose.split()
    later = readings_later()
    spec = replace(
        spec, classes=(), outputs=("glucose in 30 minutes",), output_unit="mg/dL", target="glucose in 30 minutes",
        target_note="",
    )  # fmt: skip
    return spec, {
        name: ForecastPart(
            part.inputs, np.array([later[end] for end in part.times[:, -1]]), part.glucose[:, -1], part
        )
        for name, part in parts.items()
    }  # fmt: skip


def extrapolate(part: ForecastPart) -> NDArray[np.float64]:
    """Return the straight line through the last 15 minutes, drawn on for 30 more, (N,)."""
    time = np.arange(4) - 1.5
    recent = part.windows.glucose[:, -4:]
    slope = (recent * time).sum(axis=1) / (time**2).sum()  # mg/dL a timestep
    return np.asarray(recent.mean(axis=1) + slope * (1.5 + HORIZON))
