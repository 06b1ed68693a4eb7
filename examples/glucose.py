"""The glucose story: from two hours of a glucose monitor, will the reading fall, stay or rise within 30 minutes?

Shared by the training script, the demo and the tests: the data, the split, the labels and the trivial forecasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatelens.models import DataSpec, FeatureSpec, SequenceData, WindowSpec
from gatelens.models.table import read_table

CLASSES = ("fall", "stay", "rise")
HORIZON = 6  # timesteps of 5 minutes
STEP = 20.0  # mg/dL: a smaller change is "stay"
TRAIN_END = np.datetime64("2010-08-16")
VALIDATION_END = np.datetime64("2010-09-10")
GUARD = np.timedelta64(12, "h")  # no window of a split ends or begins this close to its neighbour


def data_path() -> Path:
    """Return where the readings lie."""
    return Path(str(files("gatelens.examples") / "data" / "glucose.csv.gz"))


def model_path() -> Path:
    """Return where the trained model lies."""
    return Path(str(files("gatelens.examples") / "saved" / "glucose"))


def make_spec(center: float = 0.0, scale: float = 1.0, change_scale: float = 1.0) -> DataSpec:
    """Return what the numbers mean; the scaling comes from the training part."""
    return DataSpec(
        features=(
            FeatureSpec(name="glucose", unit="mg/dL", center=center, scale=scale),
            FeatureSpec(name="rate of change", unit="mg/dL per 5 min", column="glucose", transform="difference",
                        scale=change_scale),
            FeatureSpec(name="time of day (sine)", column="time", transform="day_sine", group="time of day"),
            FeatureSpec(name="time of day (cosine)", column="time", transform="day_cosine", group="time of day"),
        ),
        classes=CLASSES,
        target="glucose in 30 minutes",
        target_note="fall and rise: by over 20 mg/dL",
        baseline=(0.0, 0.0, 0.0, 0.0),
        baseline_description=f"a flat trace at the average of {center:.0f} mg/dL, at no particular time of day",
        window=WindowSpec(
            length=24, interval_seconds=300, max_gap_seconds=360, min_gap_seconds=180, time_column="time"
        ),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """Windows of one part of the series: inputs (N, 24, 4), labels (N,), glucose before scaling (N, 24)."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    glucose: NDArray[np.float64]
    times: NDArray[np.datetime64]
    sample_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@cache
def raw_windows() -> tuple[SequenceData, NDArray[np.int64], NDArray[np.float64]]:
    """Return all windows unscaled, with the label and the glucose trace of each that has a reading 30 minutes on."""
    longer = DataSpec(
        features=(FeatureSpec(name="glucose"),),
        window=WindowSpec(length=24 + HORIZON, max_gap_seconds=360, min_gap_seconds=180, time_column="time"),
    )
    frame = read_table(data_path())
    both = SequenceData.from_frame(frame, longer, windows="all")
    trace = both.inputs[:, :, 0].astype(np.float64)  # (N, 30)
    change = trace[:, -1] - trace[:, 23]
    labels = np.where(change < -STEP, 0, np.where(change > STEP, 2, 1))
    every = SequenceData.from_frame(frame, make_spec(), windows="all")
    ends = {row: index for index, row in enumerate(every.rows)}
    kept = np.array([ends[row - HORIZON] for row in both.rows])
    assert every.times is not None
    windows = SequenceData(
        every.inputs[kept], every.lengths[kept], tuple(every.sample_names[i] for i in kept), every.times[kept],
        every.rows[kept], every.notes,
    )  # fmt: skip
    return windows, labels, trace[:, :24]


def split() -> tuple[DataSpec, dict[str, Part]]:
    """Return the scaled spec and the parts "train", "validation" and "test", in time order with guards between."""
    windows, labels, glucose = raw_windows()
    assert windows.times is not None
    first, last = windows.times[:, 0], windows.times[:, -1] + np.timedelta64(30, "m")
    masks = {
        "train": last < TRAIN_END - GUARD,
        "validation": (first > TRAIN_END + GUARD) & (last < VALIDATION_END - GUARD),
        "test": first > VALIDATION_END + GUARD,
    }
    train = windows.inputs[masks["train"]]
    spec = make_spec(
        center=round(float(train[:, :, 0].mean()), 1),
        scale=round(float(train[:, :, 0].std()), 1),
        change_scale=round(float(train[:, :, 1].std()), 2),
    )
    scaled = ((windows.inputs - spec.center) / spec.scale).astype(np.float32)
    parts = {
        name: Part(
            scaled[mask],
            labels[mask],
            glucose[mask],
            windows.times[mask],
            tuple(np.array(windows.sample_names, dtype=object)[mask]),
        )
        for name, mask in masks.items()
    }
    return spec, parts


def always_stay(part: Part) -> NDArray[np.int64]:
    """Return the forecast "stay" for every window, (N,)."""
    return np.ones(len(part), dtype=np.int64)


def extrapolate(part: Part) -> NDArray[np.int64]:
    """Return the class of the straight line through the last 15 minutes, drawn on for 30 more, (N,)."""
    time = np.arange(4) - 1.5
    slope = (part.glucose[:, -4:] * time).sum(axis=1) / (time**2).sum()  # mg/dL a timestep
    change = HORIZON * slope
    return np.where(change < -STEP, 0, np.where(change > STEP, 2, 1))
