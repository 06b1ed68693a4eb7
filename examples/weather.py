"""The weather story: from a week of readings in Seattle, what did the weather observer write down on its last day?

The label "rain" was given on 191 days of 2012 and on 5 of 2015, "fog" the other way round, while it rained as before:
from April 2013 on, wet days were written down as fog. The story shows how a model, its explanation and a report by
year bring that to light. Shared by the training script, the demo and the tests.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gatelens.examples.story import data_path
from gatelens.models import FeatureSpec, Prepared, SequenceData, prepare
from gatelens.models.table import read_table

NAME = "weather"
WINDOW = 7  # days
PERIODS = ("2013, Jan to Mar", "2013, Apr to Dec", "2014", "2015")
CHANGE = np.datetime64("2013-04-01")  # from about here on, wet days are called fog
TRAIN_DAYS, VALIDATION_DAYS = 305, 61  # to 2012-10-31, to 2012-12-31


def table() -> pd.DataFrame:
    """Return the extract, one row a day."""
    return read_table(data_path(NAME))


def split() -> Prepared:
    """Return the windows: train to October 2012, validation to December, test from 2013 on; no day is in two parts."""
    frame = table()
    days = len(frame)
    prepared = prepare(
        frame,
        target="weather",
        features=[
            FeatureSpec(name="precipitation", unit="mm", scale=5.0),  # 0 stays 0: a dry day
            FeatureSpec(name="highest temperature", unit="°C", column="temp_max"),
            FeatureSpec(name="lowest temperature", unit="°C", column="temp_min"),
            FeatureSpec(name="wind", unit="m/s"),
        ],
        window=WINDOW,
        time_column="date",
        split="chronological",
        fractions=(TRAIN_DAYS / days, VALIDATION_DAYS / days, (days - TRAIN_DAYS - VALIDATION_DAYS) / days),
    )
    spec = replace(
        prepared.spec,
        target="the weather that was written down",
        baseline=(0.0, 0.0, 0.0, 0.0),
        baseline_description="seven dry days of the training months' average temperature and wind",
    )
    return replace(prepared, spec=spec)


def dates(data: SequenceData) -> NDArray[np.datetime64]:
    """Return the last day of each window, (N,)."""
    assert data.times is not None
    return data.times[:, -1].astype("datetime64[D]")


def periods(data: SequenceData) -> NDArray[np.object_]:
    """Return which of `PERIODS` each window of the test part ends in, (N,)."""
    ends = dates(data)
    years = ends.astype("datetime64[Y]").astype(int) + 1970
    late = np.where(years == 2013, np.where(ends < CHANGE, PERIODS[0], PERIODS[1]), years.astype(str))
    return late.astype(object)
