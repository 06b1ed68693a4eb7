"""The stock story: from 30 days of returns, will the next five days be more volatile than usual? And will they go up?

Shared by the training script, the demo and the tests: the data, the split by date, the labels, the trivial forecasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gatelens.examples.story import data_path
from gatelens.models import DataSpec, FeatureSpec, SequenceData, WindowSpec
from gatelens.models.table import read_table

NAME = "stocks"
DIRECTION = "stocks_direction"
WINDOW = 30  # trading days
AHEAD = 5  # trading days
TRAIN_END = np.datetime64("2009-01-01")
VALIDATION_END = np.datetime64("2010-07-01")

SPEC = DataSpec(
    features=(FeatureSpec(name="daily return", unit="usual moves", column="move"),),
    classes=("calm", "volatile"),
    target="the next five days' volatility",
    target_note="volatile: the average daily move, up or down, will be larger than this stock's median before 2009",
    baseline=(0.0,),
    baseline_description="30 days on which the price does not move",
    window=WindowSpec(length=WINDOW, time_column="date"),
)
DIRECTION_SPEC = DataSpec(
    features=SPEC.features, classes=("down", "up"), target="the price in five days",
    target_note="up: higher than today", baseline=SPEC.baseline, baseline_description=SPEC.baseline_description,
    window=SPEC.window,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """Windows of one period, of all stocks: the sequences, and both labels (N,)."""

    data: SequenceData
    volatile: NDArray[np.int64]
    up: NDArray[np.int64]
    tickers: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.data)


@cache
def table() -> pd.DataFrame:
    """Return one row a stock and day: the move in units of the stock's usual one, and what the next days bring.

    The usual move is the stock's mean absolute return before 2009, the training period; `ahead` is the mean absolute
    return of the next five days and `later` their sum, both in those units too; NaN where they are not known.
    """
    frame = read_table(data_path(NAME))
    frame["date"] = pd.to_datetime(frame["date"])
    tables = []
    for _, group in frame.groupby("ticker", sort=True):
        returns = np.log(group["adj_close"]).diff()
        move = returns / returns.abs()[group["date"] < TRAIN_END].mean()
        ahead = move.abs().rolling(AHEAD).mean().shift(-AHEAD)
        later = move.rolling(AHEAD).sum().shift(-AHEAD)
        last_day = group["date"].shift(-AHEAD)
        tables.append(group.assign(move=move, ahead=ahead, later=later, last_day=last_day).iloc[1:])
    return pd.concat(tables, ignore_index=True)


def split() -> dict[str, Part]:
    """Return the parts "train", "validation" and "test": one date divides all stocks alike.

    A window belongs to a part only if its 30 days and the five after it lie within, so that no day is in two parts.
    """
    frame = table()
    whole = SequenceData.from_frame(frame, SPEC, windows="all", id_column="ticker")
    names = np.array([name.split(" ")[0] for name in whole.sample_names], dtype=object)
    assert whole.times is not None
    ends = pd.DataFrame({"ticker": names, "date": whole.times[:, -1]})
    known = ends.merge(frame, on=["ticker", "date"], how="left", validate="one_to_one")
    first, last = whole.times[:, 0], known["last_day"].to_numpy()
    usual = {
        ticker: group.loc[group["last_day"] < TRAIN_END, "ahead"].median() for ticker, group in frame.groupby("ticker")
    }
    volatile = (known["ahead"] > known["ticker"].map(usual)).to_numpy(dtype=np.int64)
    up = (known["later"] > 0).to_numpy(dtype=np.int64)
    masks = {
        "train": last < TRAIN_END,
        "validation": (first >= TRAIN_END) & (last < VALIDATION_END),
        "test": (first >= VALIDATION_END) & ~np.isnat(last),
    }
    return {name: Part(whole.take(mask), volatile[mask], up[mask], names[mask]) for name, mask in masks.items()}


def recent_size(part: Part, days: int = 20) -> NDArray[np.float64]:
    """Return the mean absolute move of the last days, (N,): the forecast "as volatile as it was"."""
    return np.asarray(np.abs(part.data.inputs[:, -days:, 0].astype(np.float64)).mean(axis=1))


def auc_interval(truth: NDArray[np.int64], scores: NDArray[np.float64], part: Part, draws: int = 500) -> list[float]:
    """Return a 95 % interval of the ROC AUC: whole months, of all stocks, are drawn again.

    Windows of one month share most of their days, and the stocks move together: a day is no independent case.
    """
    from sklearn.metrics import roc_auc_score

    assert part.data.times is not None
    months = part.data.times[:, -1].astype("datetime64[M]")
    rows = [np.flatnonzero(months == month) for month in np.unique(months)]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        drawn = np.concatenate([rows[month] for month in rng.integers(len(rows), size=len(rows))])
        found.append(roc_auc_score(truth[drawn], scores[drawn]))
    return [float(value) for value in np.quantile(found, (0.025, 0.975))]
