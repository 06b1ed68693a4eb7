"""From a table to sequences: windows, gaps, cleaning, derived features and scaling, against numbers made by hand."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, SequenceData, WindowSpec, read_csv, table
from gatelens.models.sequence_data import TableWindows
from gatelens.models.table import column_as_ids, read_table, spec_of_columns

START = pd.Timestamp("2020-03-01 00:00")


def frame_of(values, minutes=None, **columns) -> pd.DataFrame:
    """A table of one column x, with times `minutes` after START, 5 minutes apart if not told otherwise."""
    minutes = range(0, 5 * len(values), 5) if minutes is None else minutes
    times = [(START + pd.Timedelta(minutes=minute)).isoformat() for minute in minutes]
    return pd.DataFrame({"time": times, "x": values, **columns})


def spec_of(length=3, *features, **options) -> DataSpec:
    window = {"time_column": "time", **options}
    return DataSpec(features=features or (FeatureSpec(name="x"),), window=WindowSpec(length=length, **window))


def windows_of(data: SequenceData) -> list[list[float]]:
    return data.inputs[..., 0].tolist()


# -- windows ---------------------------------------------------------------------------------------------------------


def test_the_newest_window():
    """By default the newest window is cut, with its times, its name, and the row of its last timestep."""
    data = SequenceData.from_frame(frame_of([0, 1, 2, 3, 4]), spec_of(3))
    assert windows_of(data) == [[2.0, 3.0, 4.0]]
    assert (data.inputs.dtype, data.inputs.shape) == (np.float32, (1, 3, 1))
    assert (data.lengths.tolist(), data.rows.tolist(), data.notes, len(data)) == ([3], [4], (), 1)
    assert data.sample_names == ("2020-03-01 00:20",)
    assert (
        data.times.tolist()
        == np.array([["2020-03-01T00:10", "2020-03-01T00:15", "2020-03-01T00:20"]]).astype("datetime64[ns]").tolist()
    )


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        (1, [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]),
        (2, [[1, 2, 3], [3, 4, 5]]),
        (3, [[0, 1, 2], [3, 4, 5]]),
        (100, [[3, 4, 5]]),
    ],
)
def test_all_windows(stride, expected):
    """windows="all" gives every stride-th window in time order; the newest is always among them."""
    data = SequenceData.from_frame(frame_of([0, 1, 2, 3, 4, 5]), spec_of(3), windows="all", stride=stride)
    assert windows_of(data) == expected
    assert data.rows.tolist() == [window[-1] for window in expected]


@pytest.mark.parametrize("end", ["2020-03-01T00:15", "2020-03-01 00:15:00", "2020-03-01 00:15:30"])
def test_the_window_that_ends_at_a_time(end):
    """end= gives the window whose last timestep is at that time, or in that minute."""
    data = SequenceData.from_frame(frame_of([0, 1, 2, 3, 4, 5]), spec_of(3), end=end)
    assert windows_of(data) == [[1.0, 2.0, 3.0]]


def test_a_window_is_found_by_its_name():
    """The time in a sample's name, in whole minutes, finds that sample again, although its row has seconds."""
    frame = frame_of([0, 1, 2, 3], [0.5, 5.5, 10.5, 15.5])
    data = SequenceData.from_frame(frame, spec_of(2), windows="all")
    for window, name in zip(windows_of(data), data.sample_names, strict=True):
        assert windows_of(SequenceData.from_frame(frame, spec_of(2), end=name)) == [window]


def test_one_window_ends_at_a_time():
    """The row at just that time ends the window, or else the first of that minute."""
    minutes = [second / 60 for second in range(0, 120, 10)]
    frame = frame_of(range(12), minutes)
    assert windows_of(SequenceData.from_frame(frame, spec_of(2), end="2020-03-01T00:00:20")) == [[1.0, 2.0]]
    assert windows_of(SequenceData.from_frame(frame, spec_of(2), end="2020-03-01T00:01")) == [[5.0, 6.0]]
    assert windows_of(SequenceData.from_frame(frame, spec_of(2), end="2020-03-01T00:01:25")) == [[5.0, 6.0]]


def test_windows_without_times():
    """Without a time column rows are numbered from 1, and there are no times."""
    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=2))
    data = SequenceData.from_frame(pd.DataFrame({"x": [5, 6, 7]}), spec, windows="all")
    assert windows_of(data) == [[5.0, 6.0], [6.0, 7.0]]
    assert data.sample_names == ("rows 1 to 2", "rows 2 to 3")
    assert data.times is None


def test_gaps_are_never_crossed():
    """No window spans a pause over max_gap_seconds; a pause of exactly that much is none."""
    frame = frame_of([0, 1, 2, 3, 4, 5, 6], [0, 5, 10, 20, 26, 31, 36])
    spec = spec_of(2, max_gap_seconds=300)
    assert windows_of(SequenceData.from_frame(frame, spec, windows="all")) == [[0, 1], [1, 2], [4, 5], [5, 6]]
    assert windows_of(SequenceData.from_frame(frame, spec_of(2, max_gap_seconds=600))) == [[5, 6]]
    ten = SequenceData.from_frame(frame, spec_of(7, max_gap_seconds=600), windows="all")
    assert windows_of(ten) == [[0, 1, 2, 3, 4, 5, 6]]
    with pytest.raises(InvalidInputError, match="reads 4 timesteps with no pause over 5 minutes, and no such stretch"):
        SequenceData.from_frame(frame, spec_of(4, max_gap_seconds=300))
    with pytest.raises(InvalidInputError, match="no window of 2 timesteps that ends at 2020-03-01T00:26"):
        SequenceData.from_frame(frame, spec, end="2020-03-01T00:26")


# -- cleaning --------------------------------------------------------------------------------------------------------


def test_duplicate_rows_are_dropped_and_counted():
    """Of rows with the same time the first is kept; the note says how many were dropped."""
    data = SequenceData.from_frame(frame_of([0, 1, 99, 98, 2], [0, 5, 5, 5, 10]), spec_of(3))
    assert windows_of(data) == [[0, 1, 2]]
    assert data.notes == ("2 rows with a time already seen were dropped",)


def test_rows_too_close_are_dropped_and_counted():
    """A row sooner than min_gap_seconds after the one kept before is dropped, exactly that much later is kept."""
    frame = frame_of([0, 90, 91, 1, 92, 2], [0, 1, 3, 4, 6, 8.5])
    data = SequenceData.from_frame(frame, spec_of(3, min_gap_seconds=240))
    assert windows_of(data) == [[0, 1, 2]]
    assert data.notes == ("3 rows less than 240 s after another were dropped",)


def test_unsorted_rows_are_sorted():
    """Rows out of time order are sorted, and the note says so."""
    data = SequenceData.from_frame(frame_of([2, 0, 1], [10, 0, 5]), spec_of(3))
    assert windows_of(data) == [[0, 1, 2]]
    assert data.notes == ("the rows were not in time order and have been sorted",)


def test_the_table_stays_as_it_is():
    """Cutting and cleaning change nothing in the caller's table."""
    frame = frame_of([2, 0, 1], [10, 0, 0])
    before = frame.copy()
    SequenceData.from_frame(frame, spec_of(2))
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("zone", ["Z", "+02:00"])
def test_times_with_a_zone(zone):
    """Times with a UTC offset are read as the clock there shows them."""
    frame = frame_of([0, 1, 2])
    frame["time"] += zone
    data = SequenceData.from_frame(frame, spec_of(2, FeatureSpec(name="day", transform="day_sine")))
    assert data.sample_names == ("2020-03-01 00:10",)
    assert data.inputs[0, :, 0] == pytest.approx([math.sin(2 * math.pi * 5 / 1440), math.sin(2 * math.pi * 10 / 1440)])
    assert len(SequenceData.from_frame(frame, spec_of(2), end=f"2020-03-01T00:05{zone}")) == 1


# -- features --------------------------------------------------------------------------------------------------------


def test_derived_features_and_scaling():
    """Difference (0 first), time of day on a circle and (value - center) / scale are the numbers worked out by hand."""
    frame = pd.DataFrame(
        {
            "time": ["2020-03-01 00:00", "2020-03-01 06:00", "2020-03-01 15:00"],
            "x": [10.0, 13.0, 9.0],
        }
    )
    spec = spec_of(
        3,
        FeatureSpec(name="x", center=10, scale=2),
        FeatureSpec(name="change", column="x", transform="difference", scale=4),
        FeatureSpec(name="sine", column="time", transform="day_sine"),
        FeatureSpec(name="cosine", transform="day_cosine", center=1),
    )
    half = math.sqrt(0.5)
    expected = [[0.0, 0.0, 0.0, 0.0], [1.5, 0.75, 1.0, -1.0], [-0.5, -1.0, -half, -half - 1]]
    assert SequenceData.from_frame(frame, spec).inputs[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_a_difference_starts_anew_in_each_window():
    """The first difference of every window is 0: nothing before the window is read."""
    spec = spec_of(2, FeatureSpec(name="change", column="x", transform="difference"))
    data = SequenceData.from_frame(frame_of([1, 3, 9]), spec, windows="all")
    assert windows_of(data) == [[0.0, 2.0], [0.0, 6.0]]


# -- groups and tokens -----------------------------------------------------------------------------------------------


def test_windows_of_daily_data_are_named_by_the_day():
    """Where every row is a day, nobody asks for the minute."""
    data = SequenceData.from_frame(frame_of([1, 2, 3], [0, 1440, 2880]), spec_of(2, max_gap_seconds=None))
    assert data.sample_names == ("2020-03-03",)


def test_groups_of_any_length_are_padded():
    """With an id column and length None each id is one sequence, in the file's order, padded with 0 and NaT."""
    frame = frame_of([1, 2, 3, 4], [0, 0, 5, 10], patient=["b", "a", "b", "b"])
    data = SequenceData.from_frame(frame, spec_of(None), id_column="patient")
    assert windows_of(data) == [[1.0, 3.0, 4.0], [2.0, 0.0, 0.0]]
    assert data.lengths.tolist() == [3, 1]
    assert data.sample_names == ("b until 2020-03-01 00:10", "a until 2020-03-01 00:00")
    assert np.isnat(data.times).tolist() == [[False, False, False], [False, True, True]]


def test_groups_of_windows():
    """With an id column and a length each id gives its own windows; ids that are too short give none."""
    frame = pd.DataFrame({"id": [7, 7, 8, 7, 9, 9], "x": [1, 2, 3, 4, 5, 6]})
    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=2))
    data = SequenceData.from_frame(frame, spec, id_column="id", windows="all")
    assert windows_of(data) == [[1, 2], [2, 4], [5, 6]]
    assert data.sample_names == ("7", "7", "9")


def test_tokens(tmp_path):
    """A token column becomes ids of the vocabulary, read as they are written, padded with 0."""
    path = tmp_path / "text.csv"
    path.write_text("id,token\n1,good\n1,NA\n1,007\n2,null\n")
    spec = DataSpec(vocabulary=("<pad>", "null", "good", "007", "NA"))
    data = read_csv(path, spec, id_column="id")
    assert data.inputs.tolist() == [[2, 4, 3], [1, 0, 0]]
    assert (data.inputs.dtype, data.lengths.tolist()) == (np.int64, [3, 1])


def test_an_unknown_token_is_refused():
    """A token outside the vocabulary is named with its row."""
    frame = pd.DataFrame({"token": ["a", "b"]})
    with pytest.raises(InvalidInputError, match="the table: data row 2 has the token 'b', not in the vocabulary"):
        SequenceData.from_frame(frame, DataSpec(vocabulary=("a",)))


# -- files -----------------------------------------------------------------------------------------------------------


def test_read_csv(tmp_path):
    """A file is read as the same table is; options are passed on."""
    frame = frame_of([0, 1, 2, 3])
    frame.to_csv(tmp_path / "x.csv", index=False)
    data = read_csv(tmp_path / "x.csv", spec_of(2), windows="all", stride=2)
    assert windows_of(data) == [[0, 1], [2, 3]]
    assert windows_of(read_csv(str(tmp_path / "x.csv"), spec_of(2), end="2020-03-01T00:05")) == [[0, 1]]


def test_unnamed_columns():
    """A table without names, as made from an array, is called by its numbers."""
    frame = pd.DataFrame(np.arange(6.0).reshape(3, 2))
    spec = spec_of_columns(frame, 2, "the table")
    assert spec.feature_names == ("0", "1")
    data = SequenceData.from_frame(frame, spec)
    assert data.inputs.tolist() == [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]]


def test_spec_of_columns():
    """The number columns in their order are the features; another count is refused, naming them."""
    frame = pd.DataFrame({"name": ["a"], "x": [1], "flag": [True], "y": [0.5]})
    assert spec_of_columns(frame, 2, "x.csv").feature_names == ("x", "y")
    with pytest.raises(InvalidInputError, match=r"x\.csv has 2 number columns \(x, y\); the model reads 3 features"):
        spec_of_columns(frame, 3, "x.csv")
    with pytest.raises(InvalidInputError, match=r"has 0 number columns \(none\)"):
        spec_of_columns(frame[["name"]], 1, "x.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.csv is empty; expected a CSV with a header"),
        (b"\n\n", r"x\.csv is empty"),
        (b"time,x\n", r"x\.csv has no rows below its header"),
        (b'time,x\n"2020,1\n', r"x\.csv is not a readable CSV"),
        (b"time,x\n2020,1\n2020,1,2,3\n", r"x\.csv is not a readable CSV: .*Expected 2 fields in line 3, saw 4"),
        (b"time,x\n2020,\xff\xfe\n", r"x\.csv is not a readable CSV"),
        (b"time,x\n2020-01-01,1,2\n2020-01-02,3,4\n", r"more values than the header has names \(2: time, x\)"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    """An empty file, a header alone, and what is no CSV are told apart, with the file's name."""
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_csv(tmp_path / "x.csv", spec_of(1))


def test_paths_that_are_refused(tmp_path):
    """A missing file and a folder are named as what they are."""
    with pytest.raises(InvalidInputError, match=r"nowhere\.csv does not exist; expected a CSV file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(InvalidInputError, match="is a folder; expected a CSV file"):
        read_table(tmp_path)


@pytest.mark.parametrize(("separator", "words"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize("decimal", [".", ","])
def test_other_separators(tmp_path, separator, words, decimal):
    """Semicolons, tabs and bars, and decimal commas with them, are read as the same table, and said."""
    frame = frame_of([0.5, 1.25, 2, 3.125], y=[1.5, 20.5, 3, 4])
    frame.to_csv(tmp_path / "x.csv", index=False, sep=separator, decimal=decimal)
    spec = spec_of(2, FeatureSpec(name="x"), FeatureSpec(name="y"))
    numbers = ", its numbers with decimal commas" if decimal == "," else ""
    for options in ({}, {"windows": "all"}):
        data = read_csv(tmp_path / "x.csv", spec, **options)
        assert data.inputs[-1].tolist() == [[2, 3], [3.125, 4]]
        assert data.notes == (f"the columns are read as separated by {words}{numbers}",)


def test_a_comma_that_may_mean_thousands(tmp_path):
    """1,234 may be a thousand or little more than one: it is not guessed; nor is a column read that mixes signs."""
    (tmp_path / "x.csv").write_text("a;x\n1;1,234\n2;5,678\n")
    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=1))
    with pytest.raises(InvalidInputError, match=r"'1,234', which may be 1\.234 or 1234; save it with decimal points"):
        read_csv(tmp_path / "x.csv", spec)
    (tmp_path / "x.csv").write_text("a;x\n1.5;1,2\n2.5;5,6\n")
    with pytest.raises(InvalidInputError, match=r"'x' has 2 values that .* data row 1 \('1,2'\)"):
        read_csv(tmp_path / "x.csv", spec)


def test_a_table_in_one_column():
    """A DataFrame read with the wrong separator is told so."""
    with pytest.raises(InvalidInputError, match="has one column, 'time;x'; it seems to be separated by ';'"):
        SequenceData.from_frame(pd.DataFrame({"time;x": ["1;2"]}), spec_of(1))


def test_parquet(tmp_path, monkeypatch):
    """A Parquet file is read as the same table is; without pyarrow the error says what to install."""
    frame = frame_of([0, 1, 2, 3])
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr(pd, "read_parquet", lambda _: frame.copy())
    assert windows_of(read_csv(path, spec_of(2))) == [[2, 3]]
    assert read_table(path, ["x"]).columns.tolist() == ["x"]

    def without(_):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", without)
    with pytest.raises(InvalidInputError, match="pip install pyarrow"):
        read_table(path)
    monkeypatch.setattr(pd, "read_parquet", lambda _: 1 / 0)
    with pytest.raises(InvalidInputError, match=r"x\.parquet is not a readable Parquet file"):
        read_table(path)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_newest_window_of_a_file_in_pieces(data):
    """However a file falls into pieces, the newest window is that of the whole table, notes and errors included."""
    count = data.draw(st.integers(1, 25))
    steps = data.draw(st.lists(st.integers(-1, 12), min_size=count, max_size=count))
    values = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=count, max_size=count))
    missing = data.draw(st.sampled_from(["refuse", "drop", "hold", "interpolate"]))
    frame = frame_of(values, np.cumsum(steps).tolist(), unread=["text"] * count)
    spec = spec_of(data.draw(st.integers(1, 4)), max_gap_seconds=600, min_gap_seconds=120, missing=missing)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "x.csv"
        frame.to_csv(path, index=False)
        patch.setattr(table, "PIECE_ROWS", data.draw(st.integers(1, 8)))
        results = []
        for read in (
            lambda: read_csv(path, spec), lambda: SequenceData.from_frame(read_table(path), spec, source=str(path)),
        ):  # fmt: skip
            try:
                found = read()
            except InvalidInputError as error:
                results.append(type(error))
            else:
                arrays = (found.inputs, found.times, found.rows, found.table_rows, found.lengths)
                results.append([*(array.tolist() for array in arrays), found.sample_names, found.notes])
    assert results[0] == results[1]


def test_only_needed_columns_are_kept(tmp_path):
    """Of a file only the columns that were asked for are returned; the errors still list all of them."""
    frame_of([0, 1, 2], note=["a", "b", "c"]).to_csv(tmp_path / "x.csv", index=False)
    assert read_table(tmp_path / "x.csv", ["x"]).columns.tolist() == ["x"]
    with pytest.raises(InvalidInputError, match=r"no column 'y'.* In the file: time, x, note\."):
        read_csv(tmp_path / "x.csv", spec_of(1, FeatureSpec(name="y")))


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_missing_column():
    """A missing column is named, with what the model needs and what is in the file."""
    spec = spec_of(1, FeatureSpec(name="y"), FeatureSpec(name="x"))
    with pytest.raises(
        InvalidInputError, match=r"has no column 'y'; the model needs y, x, time\. In the file: time, x\."
    ):
        SequenceData.from_frame(frame_of([1]), spec)
    with pytest.raises(InvalidInputError, match="has no column 'patient'"):
        SequenceData.from_frame(frame_of([1]), spec_of(1), id_column="patient")
    with pytest.raises(InvalidInputError, match="has no column 'token'"):
        SequenceData.from_frame(frame_of([1]), DataSpec(vocabulary=("a",)))


@pytest.mark.parametrize("bad", ["high", None, "inf", ""])
def test_a_value_that_is_no_number(bad):
    """Text, nothing or infinity in a number column is counted, and the first is named by column and row."""
    with pytest.raises(InvalidInputError, match=r"column 'x' has 2 values that are .* the first in data row 3"):
        SequenceData.from_frame(frame_of(["1", "2", bad, "3", bad]), spec_of(2))


def test_rows_are_those_of_the_file():
    """After sorting, dropping and grouping, errors still count data rows as the file does."""
    with pytest.raises(InvalidInputError, match=r"data row 1 \('high'\)"):
        SequenceData.from_frame(frame_of(["high", "1", "2"], [10, 0, 0]), spec_of(1))
    frame = frame_of(["1", "2", "3", "high"], patient=["a", "b", "a", "b"])
    with pytest.raises(InvalidInputError, match=r"the table, patient b: .* data row 4 \('high'\)"):
        SequenceData.from_frame(frame, spec_of(1), id_column="patient")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2020-01-01", "soon"], "data row 2 has time 'soon'; expected a time such as 2010-09-12 14:20"),
        (["2020-01-01", None], "data row 2 has time "),
        ([0.5, 300.5], r"data row 1 has time .*0\.5.*; expected a time"),
        ([True, False], "data row 1 has time .*True.*; expected a time"),
        (["2020-01-01T00:00+01:00", "2020-06-01T00:00+02:00"], "'time' cannot be read together .* in one time zone"),
        (["1500-01-01", "1500-01-02"], "'time' cannot be read together .* between the years 1678 and 2261"),
    ],
)
def test_times_that_are_refused(times, message):
    """What is no time is named by its row; times of several zones, or beyond what 64 bits hold, are refused."""
    with pytest.raises(InvalidInputError, match=message):
        SequenceData.from_frame(pd.DataFrame({"time": times, "x": [1, 2]}), spec_of(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "newest"}, "windows is 'newest'; known: last, all"),
        ({"stride": 0}, "stride is 0; expected 1 or more rows"),
        ({"end": "tomorrow evening"}, "end is 'tomorrow evening'; expected a time such as"),
        ({"end": "2020-03-02"}, "no window of 2 timesteps that ends at 2020-03-02; choose the time of a row"),
        ({"end": "2020-03-01T00:00"}, "no window of 2 timesteps that ends at"),
        ({"end": "NaT"}, "no window of 2 timesteps that ends at NaT"),
    ],
)
def test_options_that_are_refused(options, message):
    """Unknown options, a time that is none, and a time without a window are refused."""
    with pytest.raises(InvalidInputError, match=message):
        SequenceData.from_frame(frame_of([0, 1, 2]), spec_of(2), **options)


def test_tables_that_are_refused():
    """Too few rows, no rows, a missing id, two columns of one name, and times that the window does not name."""
    with pytest.raises(InvalidInputError, match="the table has 2 rows; the model reads 3 timesteps, and no such"):
        SequenceData.from_frame(frame_of([0, 1]), spec_of(3))
    with pytest.raises(InvalidInputError, match="the table has no rows below its header"):
        SequenceData.from_frame(frame_of([]), spec_of(1))
    with pytest.raises(InvalidInputError, match="data row 2 has no id; every row needs one"):
        SequenceData.from_frame(frame_of([0, 1], id=["a", None]), spec_of(1), id_column="id")
    twice = frame_of([0, 1], y=[1, 2]).set_axis(["time", "x", "x"], axis=1)
    with pytest.raises(InvalidInputError, match="2 columns called 'x'; keep one"):
        SequenceData.from_frame(twice, spec_of(1))
    no_times = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=1))
    with pytest.raises(InvalidInputError, match="needs a time column, and the model's window names none"):
        SequenceData.from_frame(frame_of([0]), no_times, end="2020-03-01")
    day = DataSpec(features=(FeatureSpec(name="sine", column="time", transform="day_sine"),))
    with pytest.raises(InvalidInputError, match="'sine' needs the window's time_column, which is not set"):
        SequenceData.from_frame(frame_of([0]), day)
    with pytest.raises(InvalidInputError, match="column 'time' has 1 values that are missing or no finite number"):
        SequenceData.from_frame(frame_of([0]), spec_of(1, FeatureSpec(name="time")))


# -- windows cut when they are read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"stride": 3}, {"id_column": "id"}, {"id_column": "id", "windows": "last"}])
@pytest.mark.parametrize("length", [3, None])
def test_any_part_of_a_table_is_that_part_of_the_whole(options, length):
    """Sequences read in parts are those that from_frame cuts at once, padded to the longest of their part."""
    minutes = [5 * row + 60 * (row > 6) for row in range(20)]
    frame = frame_of([float(row**2) for row in range(20)], minutes, id=[row % 3 for row in range(20)])
    options = {"windows": "all", **options}
    cut, data = (
        make(frame, spec_of(length, max_gap_seconds=1800), **options)
        for make in (TableWindows, SequenceData.from_frame)
    )
    assert (len(cut), cut.longest, cut.notes) == (len(data), data.inputs.shape[1], data.notes)
    for start in range(len(cut)):
        for stop in range(start + 1, len(cut) + 2):
            part, expected = cut.read(start, stop), data.take(range(start, min(stop, len(cut))))
            steps = int(expected.lengths.max())
            np.testing.assert_array_equal(part.inputs, expected.inputs[:, :steps], strict=True)
            np.testing.assert_array_equal(part.times, expected.times[:, :steps], strict=True)
            assert part.lengths.tolist() == expected.lengths.tolist()
            assert part.rows.tolist() == expected.rows.tolist()
            assert part.table_rows.tolist() == expected.table_rows.tolist()
            assert part.sample_names == expected.sample_names


def test_ids_of_a_model_that_knows_no_words():
    """A table's ids are its own vocabulary where the model has none, as far as any model's could reach."""
    spec, note = column_as_ids(DataSpec(), pd.DataFrame({"token": [0, 2]}), None, "x.csv")
    assert (spec.vocabulary, "read as token ids" in note) == (("0", "1", "2"), True)
    assert column_as_ids(DataSpec(), pd.DataFrame({"token": [0]}), 2, "x.csv")[0].vocabulary == ("0", "1")
    with pytest.raises(InvalidInputError, match=r"no column 'token' of whole numbers; .* token ids, 0 to 1,"):
        column_as_ids(DataSpec(), pd.DataFrame({"token": ["a"]}), 2, "x.csv")
    with pytest.raises(InvalidInputError, match="holds the token id 10000000; expected ids from 0 to 9999999"):
        column_as_ids(DataSpec(), pd.DataFrame({"token": [10**7]}), None, "x.csv")
