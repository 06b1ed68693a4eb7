"""Splits: which windows go where, against numbers made by hand, and that no row is in two parts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.models import InvalidInputError, prepare
from gatelens.models.splitting import (
    Footprints,
    checked_fractions,
    chronological,
    deal,
    grouped,
    random,
    split_windows,
)  # fmt: skip


def footprints(spans, series=None, reach=None) -> Footprints:
    """Windows (first, last) of one series, whose order is that of the rows."""
    begin, end = np.array(spans).T
    series = np.zeros(len(spans), dtype=np.int64) if series is None else np.array(series)
    reach = begin if reach is None else np.array(reach)
    return Footprints(series, begin, reach, end, reach, end)


def test_chronological_by_hand():
    """Ten rows, 60 to 20 to 20: borders before rows 6 and 8; windows that cross one are left out."""
    spans = [(row, row + 1) for row in range(9)]
    part, told = chronological(footprints(spans), np.arange(10), (0.6, 0.2, 0.2), 0)
    assert part.tolist() == [0, 0, 0, 0, 0, -1, 1, -1, 2]
    assert told == "training from row 1; validation from row 7; test from row 9"


def test_a_guard_leaves_rows_out_after_each_border():
    """With guard=1 the first row after each border is in no part."""
    spans = [(row, row) for row in range(10)]
    part, _ = chronological(footprints(spans), np.arange(10), (0.6, 0.2, 0.2), 1)
    assert part.tolist() == [0, 0, 0, 0, 0, 0, -1, 1, -1, 2]


def test_a_part_of_no_share():
    """Without validation the test part begins where training ends."""
    spans = [(row, row) for row in range(5)]
    assert chronological(footprints(spans), np.arange(5), (0.8, 0, 0.2), 0)[0].tolist() == [0, 0, 0, 0, 2]
    assert chronological(footprints(spans), np.arange(5), (0.8, 0.2, 0), 0)[0].tolist() == [0, 0, 0, 0, 1]
    assert chronological(footprints(spans), np.arange(5), (1, 0, 0), 0)[0].tolist() == [0] * 5


def test_equal_times_are_on_one_side():
    """Rows of several series at one time are never split by a border."""
    windows = footprints([(0, 0), (1, 1), (0, 0), (1, 1)], [0, 0, 1, 1])
    times = np.array([0, 0, 1, 1])
    assert chronological(windows, times, (0.75, 0, 0.25), 0)[0].tolist() == [0, 2, 0, 2]


def test_random_refuses_shared_rows():
    """Windows that overlap, by their inputs or by a target, are refused, with the stride that mends it."""
    with pytest.raises(InvalidInputError, match=r"3 windows share rows .* use stride=3 \(windows that share no row\)"):
        random(footprints([(0, 2), (1, 3), (2, 4)]), (0.5, 0, 0.5), 0, whole=False, apart=3)


def test_random_leaves_out_what_holds_a_value_of_the_window_before():
    """A held value makes its row part of the window; where another window has that row, it is left out."""
    windows = footprints([(0, 1), (2, 3), (5, 6)], reach=[0, 1, 4])
    part, left = random(windows, (0.5, 0, 0.5), 0, whole=False, apart=2)
    assert (part[1], left) == (-1, 1)
    assert sorted(part[[0, 2]].tolist()) == [0, 2]


def test_whole_sequences_stay_together():
    """Where a pause has cut a sequence in two, both pieces are in the same part."""
    windows = footprints([(0, 1), (2, 3), (0, 1), (0, 1)], [0, 0, 1, 2])
    for seed in range(10):
        part, _ = random(windows, (0.4, 0.3, 0.3), seed, whole=True, apart=1)
        assert part[0] == part[1]
        assert sorted(part[1:].tolist()) == [0, 1, 2]


@given(st.integers(3, 40), st.integers(0, 5), st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0, 0.2), (0.98, 0.01, 0.01)]))
@settings(max_examples=60, deadline=None)
def test_dealing(count, seed, fractions):
    """Every share above 0 gets at least one, none gets far from its share, and a seed gives the same again."""
    part = deal(count, fractions, seed, "windows")
    sizes = np.bincount(part, minlength=3)
    assert sizes.sum() == count
    assert ((sizes > 0) == (np.array(fractions) > 0)).all()
    assert (np.abs(sizes - np.array(fractions) * count) <= 3).all()
    assert part.tolist() == deal(count, fractions, seed, "windows").tolist()


def test_groups_stay_together():
    """All windows of a series are in one part."""
    series = np.repeat(np.arange(10), 3)
    part = grouped(footprints([(row, row) for row in range(30)], series), (0.6, 0.2, 0.2), 3)
    assert all(len(set(part[series == one])) == 1 for one in range(10))
    assert np.bincount(part).tolist() == [18, 6, 6]


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.5, 0.2), "expected the shares of training, validation and test that sum to 1"),
        ((0.5, 0.2, 0.2), "sum to 1"),
        ((1.2, -0.2, 0), "sum to 1"),
        ((0, 0.5, 0.5), "the training part cannot be empty"),
        ("all", "fractions is 'all'"),
        (0.5, "fractions is 0.5"),
    ],
)
def test_fractions_that_are_refused(fractions, message):
    """Shares that are no three numbers summing to 1, and an empty training part, are refused."""
    with pytest.raises(InvalidInputError, match=message):
        checked_fractions(fractions)


def test_parts_that_would_be_empty():
    """Too few sequences, or windows too long for a part, are refused."""
    with pytest.raises(InvalidInputError, match="there are 2 sequences for 3 parts"):
        grouped(footprints([(0, 0), (0, 0)], [0, 1]), (0.6, 0.2, 0.2), 0)
    with pytest.raises(
        InvalidInputError, match=r"the validation part, 0\.1 of the rows, holds no whole window of the 1"
    ):
        split_windows(
            footprints([(0, 5)]), "chronological", (0.8, 0.1, 0.1), seed=0, guard=0, order=np.arange(10), whole=False,
            apart=1, notes=[],
        )  # fmt: skip


# -- borders in time ---------------------------------------------------------------------------------------------------


def table(rows: int) -> pd.DataFrame:
    """A feature and a number to predict, an hour a row."""
    times = pd.date_range("2024-01-01", periods=rows, freq="h").astype(str)
    return pd.DataFrame({"time": times, "x": np.arange(rows) / 7.0, "y": np.arange(rows) ** 0.5})


def test_borders_are_times():
    """Validation and test begin at the times named; one border leaves validation out."""
    frame = table(100)
    data = prepare(frame, target="y", window=4, time_column="time", borders=(frame["time"][63], frame["time"][80]))
    starts = [part.times[:, 0].min() for part in (data.train, data.validation, data.test)]
    ends = [part.times[:, -1].max() for part in (data.train, data.validation, data.test)]
    rows = pd.to_datetime(frame["time"]).to_numpy()
    assert starts == [rows[0], rows[63], rows[80]]
    assert ends == [rows[62], rows[79], rows[99]]
    assert data.spec.provenance["prepared"]["fractions"] == pytest.approx([0.63, 0.17, 0.2])
    one = prepare(frame, target="y", window=4, time_column="time", borders=frame["time"][70])
    assert one.validation is None
    assert one.test.times[:, 0].min() == rows[70]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"borders": "soon"}, "expected the times at which validation and test begin"),
        ({"borders": ()}, "expected the times at which validation and test begin"),
        ({"borders": ("2024-01-01", "2024-01-02", "2024-01-03")}, "expected the times"),
        ({"borders": 3.5j}, "expected the times"),
        ({"borders": ("2031-01-01",)}, "leaves a part without a row; the rows are from 2024-01-01"),
        ({"borders": ("2024-01-03", "2024-01-02")}, "leaves a part without a row"),
        (
            {"borders": "2024-01-02", "split": "random", "stride": 9},
            "borders are times, and need a chronological split",
        ),
        (
            {"borders": "2024-01-02", "time_column": None, "features": ["x"]},
            "need a chronological split and a time_column",
        ),
    ],
)
def test_borders_that_cannot_be(options, message):
    """What is no time, out of order or beyond the data is refused, with the span of the rows."""
    with pytest.raises(InvalidInputError, match=message):
        prepare(table(100), **{"target": "y", "window": 4, "time_column": "time", **options})
