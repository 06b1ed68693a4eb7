"""Missing values, placeholders and text: each policy against numbers made by hand, and piece by piece as in one go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, SequenceData, WindowSpec
from gatelens.models.cleaning import Cleaner, Counts, NotInOrderError

NAN = float("nan")
POLICIES = ("drop", "hold", "interpolate")


def spec_of(length=3, missing="refuse", **options) -> DataSpec:
    window = WindowSpec(length=length, missing=missing, **options)
    return DataSpec(features=(FeatureSpec(name="x"), FeatureSpec(name="y")), window=window)


def table_of(x, y, seconds=None) -> pd.DataFrame:
    frame = pd.DataFrame({"x": x, "y": y})
    if seconds is not None:
        frame["t"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(seconds, unit="s")
    return frame


def inputs_of(frame, spec, **options):
    return SequenceData.from_frame(frame, spec, windows="all", **options).inputs.tolist()


# -- the policies ------------------------------------------------------------------------------------------------------


def test_dropped_rows():
    """A row that lacks any value is dropped; the note counts rows and values by column."""
    frame = table_of([0, NAN, 2, 3, 4], [0, 10, 20, NAN, 40])
    data = SequenceData.from_frame(frame, spec_of(3, "drop"))
    assert data.inputs.tolist() == [[[0, 0], [2, 20], [4, 40]]]
    assert data.notes == ("2 of 5 rows lack a value (x: 1, y: 1) and were dropped",)
    assert (data.rows.tolist(), data.table_rows.tolist()) == ([2], [4])


def test_a_pause_that_dropping_makes_ends_a_run():
    """Where rows drop out, the time between those that stay is what counts as a pause."""
    frame = table_of([0, 1, NAN, 3, 4], [0] * 5, [0, 10, 20, 30, 40])
    spec = spec_of(2, "drop", time_column="t", max_gap_seconds=10)
    assert [[row[0] for row in window] for window in inputs_of(frame, spec)] == [[0, 1], [3, 4]]


def test_a_row_without_value_does_not_displace_another_of_its_time():
    """Incomplete rows go before repeated times are looked for."""
    frame = table_of([NAN, 1, 2], [0, 0, 0], [0, 0, 10])
    spec = spec_of(2, "drop", time_column="t")
    assert [row[0] for row in inputs_of(frame, spec)[0]] == [1, 2]


def test_held_values():
    """A missing value holds the one before it; rows before the first known one are dropped and counted."""
    frame = table_of([NAN, 1, NAN, NAN, 4], [7, 8, NAN, 9, 10])
    data = SequenceData.from_frame(frame, spec_of(4, "hold"))
    assert data.inputs.tolist() == [[[1, 8], [1, 8], [1, 9], [4, 10]]]
    assert data.notes == (
        "of 4 missing values (x: 3, y: 1) each holds the one before; 1 rows before the first known value were dropped",
    )


def test_values_are_not_held_over_a_pause():
    """After a pause a series begins anew: nothing from before it is held."""
    frame = table_of([1, NAN, NAN, 4, 5], [0] * 5, [0, 10, 100, 110, 120])
    spec = spec_of(2, "hold", time_column="t", max_gap_seconds=10)
    assert [[row[0] for row in window] for window in inputs_of(frame, spec)] == [[1, 1], [4, 5]]


def test_reach_is_the_row_that_a_value_comes_from():
    """`reach` tells the oldest row whose value stands in a row; rows that were dropped count as the run's first."""
    frame = table_of([1, NAN, 3, NAN, NAN], [NAN, 2, NAN, NAN, 5])
    table = Cleaner(spec_of(1, "hold"), "it", Counts()).whole(frame)
    assert table.columns["x"].tolist() == [1, 3, 3, 3]
    assert (table.rows.tolist(), table.reach.tolist()) == ([1, 2, 3, 4], [0, 0, 0, 1])


def test_interpolated_values():
    """Between known values of the window there is a straight line; its first and last known value are held."""
    frame = table_of([NAN, 1, NAN, 3, NAN, 99], [0, NAN, NAN, 6, NAN, 99])
    assert inputs_of(frame.head(5), spec_of(5, "interpolate")) == [[[1, 0], [1, 2], [2, 4], [3, 6], [3, 6]]]
    data = SequenceData.from_frame(frame, spec_of(5, "interpolate"), windows="all")
    assert data.inputs[0].tolist() == [[1, 0], [1, 2], [2, 4], [3, 6], [3, 6]]  # 99 is no part of it
    assert data.notes == ("6 missing values (x: 3, y: 3) are interpolated inside their windows",)


def test_interpolation_goes_by_time():
    """With times the line is straight in time, not in rows."""
    frame = table_of([0, NAN, 10], [0, 0, 0], [0, 1, 10])
    spec = spec_of(3, "interpolate", time_column="t")
    assert [row[0] for row in inputs_of(frame, spec)[0]] == [0, 1, 10]


def test_a_window_without_any_value_is_left_out():
    """Nothing can be interpolated where a window has no value of a column."""
    frame = table_of([1, NAN, NAN, NAN, 5], [0] * 5)
    windows = SequenceData.from_frame(frame, spec_of(2, "interpolate"), windows="all")
    assert windows.inputs[..., 0].tolist() == [[1, 1], [5, 5]]


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_interpolation_looks_at_nothing_outside_the_window(data):
    """Whatever stands before or after a window, its numbers are the same."""
    values = data.draw(st.lists(st.one_of(st.just(NAN), st.floats(-9, 9)), min_size=4, max_size=4))
    around = data.draw(st.lists(st.one_of(st.just(NAN), st.floats(-9, 9)), min_size=4, max_size=4))
    if np.isnan(values).all():
        values[0] = 1.0
    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=4, missing="interpolate"))
    alone = SequenceData.from_frame(pd.DataFrame({"x": values}), spec).inputs[0]
    frame = pd.DataFrame({"x": [*around[:2], *values, *around[2:]]})
    among = SequenceData.from_frame(frame, spec, windows="all")
    assert among.inputs[among.rows.tolist().index(5)].tolist() == alone.tolist()


# -- placeholders and text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["n/a", "?", "-", " N/A ", "null", "–"])  # noqa: RUF001
def test_placeholders_count_as_missing(text):
    """What people write for "no value" is one, and the note says so."""
    frame = table_of(["1", text, "3"], [0, 0, 0])
    data = SequenceData.from_frame(frame, spec_of(2, "drop"))
    assert data.inputs[0, :, 0].tolist() == [1, 3]
    assert data.notes[0] == f"1 values of 'x' are written {text.strip()!r} and count as missing"


@pytest.mark.parametrize("missing", POLICIES)
@pytest.mark.parametrize("bad", ["high", "inf", "1,5"])
def test_text_is_refused_whatever_happens_to_missing_values(missing, bad):
    """Text that is no number is not taken for a missing value: it is counted, and the first is shown."""
    frame = table_of(["1", "?", bad, "4", bad], [0] * 5)
    with pytest.raises(InvalidInputError, match=r"'x' has 2 values that are no finite number, the first in data row 3"):
        SequenceData.from_frame(frame, spec_of(1, missing))


def test_missing_values_are_refused_with_the_choices():
    """By default a missing value is an error that names the other policies."""
    with pytest.raises(InvalidInputError, match=r"data row 2 .*fill or drop them first, or train with missing='drop'"):
        SequenceData.from_frame(table_of([1, NAN], [0, 0]), spec_of(1))


@pytest.mark.parametrize("missing", ["refuse", *POLICIES])
def test_an_empty_column(missing):
    """A column with no value at all is told apart from one with gaps."""
    with pytest.raises(InvalidInputError, match="column 'y' is empty, all of its 3 values are missing"):
        SequenceData.from_frame(table_of([1, 2, 3], [NAN] * 3), spec_of(1, missing))


def test_nullable_and_categorical_columns():
    """Number columns of pandas' own kinds are read as numbers."""
    frame = pd.DataFrame({"x": pd.array([1, None, 3], dtype="Int64"), "y": pd.Categorical(["1", "2", "3"])})
    assert inputs_of(frame, spec_of(2, "drop")) == [[[1, 1], [3, 3]]]


def test_a_column_of_times_is_no_number():
    """Times are not read as their nanoseconds."""
    frame = pd.DataFrame({"x": pd.date_range("2020-01-01", periods=2), "y": [0, 0]})
    with pytest.raises(InvalidInputError, match="column 'x' has 2 values"):
        SequenceData.from_frame(frame, spec_of(1))


# -- in pieces ---------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_are_cleaned_as_the_whole(data):
    """Wherever a series in time order is cut into pieces, the same rows are kept, with the same values and counts."""
    count = data.draw(st.integers(2, 24))
    steps = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    value = st.one_of(st.just(NAN), st.integers(0, 9).map(float))
    x, y = (data.draw(st.lists(value, min_size=count, max_size=count)) for _ in range(2))
    missing = data.draw(st.sampled_from(POLICIES))
    spec = spec_of(2, missing, time_column="t", min_gap_seconds=2, max_gap_seconds=4)
    frame = table_of(x, y, np.cumsum(steps))
    whole_counts, counts = Counts(), Counts()
    whole = Cleaner(spec, "it", whole_counts).feed(frame)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=3)))
    cleaner, table = Cleaner(spec, "it", counts), None
    for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
        piece = cleaner.feed(frame.iloc[start:stop])
        table = piece if table is None else table.followed_by(piece)
    for name in "xy":
        np.testing.assert_array_equal(table.columns[name], whole.columns[name])
    assert table.rows.tolist() == whole.rows.tolist()
    assert table.times.tolist() == whole.times.tolist()
    assert list(table.runs()) == list(whole.runs())
    assert counts == whole_counts


def spaced_by_a_loop(seconds, least):
    kept = []
    for row, second in enumerate(seconds):
        if not kept or second - seconds[kept[-1]] >= least:
            kept.append(row)
    return kept


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_rows_too_close_against_a_loop(steps, least):
    """The rows kept are those that a plain loop keeps."""
    seconds = np.cumsum(steps)
    spec = spec_of(1, time_column="t", min_gap_seconds=least)
    table = Cleaner(spec, "it", Counts()).feed(table_of([0.0] * len(steps), [0.0] * len(steps), seconds))
    assert table.rows.tolist() == spaced_by_a_loop(seconds, least)


def test_a_piece_out_of_order():
    """A piece that begins before the last one ends is not silently taken."""
    cleaner = Cleaner(spec_of(1, time_column="t"), "it", Counts())
    cleaner.feed(table_of([0], [0], [10]))
    with pytest.raises(NotInOrderError):
        cleaner.feed(table_of([0], [0], [9]))
