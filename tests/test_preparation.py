"""`prepare`: windows and targets against plain loops, and that nothing leaks from one part into another."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler

from gatelens.models import (
    DataSpec,
    FeatureSpec,
    InvalidInputError,
    InvalidTypeError,
    LSTMModel,
    Prepared,
    SequenceData,
    evaluate,
    fit,
    load,
    prepare,
    read_csv,
)  # fmt: skip
from gatelens.models.preparation import PARTS

NAN = float("nan")


def frame_of(rows=60, seed=0, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    time = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(rows) * 60, unit="s")
    return pd.DataFrame({"time": time, "x": rng.normal(3, 2, rows), "y": rng.normal(-1, 5, rows), **columns})


def parts_of(data: Prepared) -> list[SequenceData]:
    return [part for part in (data.train, data.validation, data.test) if part is not None]


def unscaled(data: Prepared, part: SequenceData) -> np.ndarray:
    return part.inputs * data.spec.scale + data.spec.center


def numbered(rows=60, **columns) -> pd.DataFrame:
    """A table whose feature is its row's number, so that windows tell which rows they are made of."""
    return frame_of(rows, **{"x": np.arange(rows, dtype=float), "y": np.arange(rows) * 10.0, **columns})


def footprint(data: Prepared, part: SequenceData, per_target=10) -> list[set[int]]:
    """The rows of `numbered` that each window reads or asks for."""
    found = []
    for values, length, target in zip(unscaled(data, part)[..., 0], part.lengths, part.targets, strict=True):
        found.append({*np.rint(values[:length]).astype(int), *np.rint(np.ravel(target) / per_target).astype(int)})
    return found


# -- against loops -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "horizon", "stride"), [(5, 1, 1), (5, 0, 1), (3, 4, 2), (1, 1, 3), (8, 2, 5)])
def test_a_forecast_against_a_loop(window, horizon, stride):
    """Inputs, targets and rows are those of a plain loop over the table in float64."""
    frame = frame_of()
    data = prepare(frame, target="y", features=["x"], window=window, horizon=horizon, stride=stride, time_column="time",
                   fractions=(0.5, 0.25, 0.25))  # fmt: skip
    x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
    starts = range(60 - window - horizon, -1, -stride)
    borders = [(0, 30), (30, 45), (45, 60)]
    spans = [[s for s in sorted(starts) if low <= s and s + window + horizon <= high] for low, high in borders]
    rows = sorted({row for s in spans[0] for row in range(s, s + window)})
    center, scale = x[rows].mean(), x[rows].std()
    assert data.spec.features[0].center == pytest.approx(center, abs=1e-12)
    assert data.spec.features[0].scale == pytest.approx(scale if len(rows) > 1 else 1, abs=1e-12)
    for part, found in zip(parts_of(data), spans, strict=True):
        expected = np.stack([(x[s : s + window] - center) / scale for s in found])
        np.testing.assert_allclose(part.inputs[..., 0], expected, atol=1e-6)
        np.testing.assert_allclose(part.targets[:, 0], [y[s + window - 1 + horizon] for s in found], atol=1e-6)
        assert part.table_rows.tolist() == [s + window - 1 for s in found]
        if horizon:
            np.testing.assert_allclose(part.last[:, 0], [y[s + window - 1] for s in found], atol=1e-6)
        else:
            assert part.last is None


def test_several_targets_and_horizons():
    """Outputs are target by target, each with its horizons in the order given, and are named so."""
    frame = numbered()
    data = prepare(frame, target=["y", "x"], features=["x"], window=4, horizon=[2, 1], scaling="none")
    ends = data.train.inputs[:, -1, 0]
    assert data.train.targets == pytest.approx(np.stack([(ends + 2) * 10, (ends + 1) * 10, ends + 2, ends + 1], axis=1))
    assert data.train.last == pytest.approx(np.stack([ends * 10, ends * 10, ends, ends], axis=1))
    assert data.spec.outputs == (
        "y 2 timesteps ahead",
        "y 1 timestep ahead",
        "x 2 timesteps ahead",
        "x 1 timestep ahead",
    )
    assert (data.task, data.config().output_size) == ("regression", 4)


def test_a_target_at_each_timestep():
    """Each timestep's target stands `horizon` rows after it; classes are numbers (B, T)."""
    frame = numbered(label=np.where(np.arange(60) % 3 == 0, "a", "b"))
    data = prepare(frame, target="y", features=["x"], window=4, horizon=1, each_timestep=True, scaling="none")
    assert data.train.targets == pytest.approx((data.train.inputs + 1) * 10)
    assert data.train.last == pytest.approx(data.train.inputs * 10)
    assert (data.config().pooling, data.config().output_size) == ("none", 1)
    data = prepare(frame, target="label", features=["x"], window=4, each_timestep=True, scaling="none")
    assert data.train.targets.tolist() == (data.train.inputs[..., 0] % 3 != 0).astype(int).tolist()
    assert (data.task, data.config().pooling, data.config().output_size) == ("binary", "none", 1)


def test_whole_sequences_of_any_length():
    """Without a window each id is one sequence, padded at the end, with its last row's target."""
    ids = np.repeat(np.arange(12), np.arange(3, 15))
    frame = numbered(len(ids), id=ids, label=np.where(ids % 2 == 0, "even", "odd"))
    data = prepare(frame, target="label", features=["x"], id_column="id", split="random", scaling="none")
    for part in parts_of(data):
        for name, length, values, target in zip(
            part.sample_names, part.lengths, part.inputs, part.targets, strict=True
        ):
            rows = np.flatnonzero(ids == int(name))
            assert values[:length, 0].tolist() == rows.tolist()
            assert not values[length:].any()
            assert target == int(name) % 2
    assert data.spec.classes == ("even", "odd")
    in_time = prepare(frame, target="y", features=["x"], id_column="id", split="random", scaling="none",
                      each_timestep=True)  # fmt: skip
    for length, values, target in zip(in_time.train.lengths, in_time.train.inputs, in_time.train.targets, strict=True):
        assert target[:length] == pytest.approx(values[:length] * 10)
        assert not target[length:].any()


def test_windows_keep_to_their_id_and_run():
    """No window, and no step to a target, goes from one id to another or over a pause."""
    seconds = np.concatenate([np.arange(30) * 60, np.arange(30) * 60 + 36000, np.arange(60) * 60])
    frame = numbered(120, id=["a"] * 60 + ["b"] * 60)
    frame["time"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(seconds, unit="s")
    data = prepare(frame, target="y", features=["x"], window=5, horizon=3, time_column="time", id_column="id",
                   max_gap_seconds=60, split="grouped", fractions=(0.5, 0, 0.5))  # fmt: skip
    runs = [set(range(30)), set(range(30, 60)), set(range(60, 120))]
    windows = [rows for part in parts_of(data) for rows in footprint(data, part)]
    assert len(windows) == 23 + 23 + 53
    assert all(sum(rows <= run for run in runs) == 1 for rows in windows)


# -- nothing leaks -----------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_no_row_is_in_two_parts(data):
    """Whatever the split, window, horizon, stride, ids, pauses and missing values: inputs and targets share no row."""
    rows = data.draw(st.integers(40, 80))
    window, horizon = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    split = data.draw(st.sampled_from(["chronological", "random", "grouped"]))
    ids = np.sort(np.arange(rows) % 8) if data.draw(st.booleans()) else np.arange(rows) % 8
    with_ids = split == "grouped" or data.draw(st.booleans())
    timed = data.draw(st.booleans())
    steps = np.array(data.draw(st.lists(st.integers(1, 3), min_size=rows, max_size=rows)))
    frame = numbered(rows, id=ids)
    frame["time"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.cumsum(steps) * 60, unit="s")
    gone = data.draw(st.lists(st.integers(0, rows - 1), max_size=30))
    gone += [rows // 2, 3 * rows // 4]  # at the borders, too
    frame.loc[gone, "x"] = NAN
    missing = data.draw(st.sampled_from(["drop", "hold"]))
    made = None
    with suppress(InvalidInputError):  # a part that would be empty, or a gap too many
        made = prepare(
            frame, target="y", features=["x"], window=window, horizon=horizon,
            stride=window + horizon if split == "random" else data.draw(st.integers(1, 3)),
            time_column="time" if timed else None, id_column="id" if with_ids else None,
            max_gap_seconds=120 if timed else None, missing=missing, split=split, scaling="none",
            guard=data.draw(st.integers(0, 2)) if split == "chronological" else 0, fractions=(0.5, 0.25, 0.25),
        )  # fmt: skip
    assume(made is not None)
    seen = [set().union(*footprint(made, part)) for part in parts_of(made)]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    if split == "chronological":
        order = frame["time"].to_numpy() if timed else np.arange(rows)
        assert order[list(seen[0])].max() < order[list(seen[1])].min()
        assert order[list(seen[1])].max() < order[list(seen[2])].min()
    if split == "grouped":
        groups = [set(ids[list(one)]) for one in seen]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_validation_and_test_decide_nothing(data):
    """Scaling, baseline, task and training sequences stay the same whatever validation and test hold."""
    split = data.draw(st.sampled_from(["chronological", "random", "grouped"]))
    scaling = data.draw(st.sampled_from(["standard", "minmax", RobustScaler(), MaxAbsScaler()]))
    frame = frame_of(60, id=np.repeat(np.arange(12), 5))
    options = {
        "target": "y", "features": ["x", FeatureSpec(name="change", column="x", transform="difference")], "window": 3,
        "horizon": 1, "stride": 4, "time_column": "time", "id_column": "id" if split == "grouped" else None,
        "split": split, "scaling": scaling, "fractions": (0.5, 0.25, 0.25),
    }  # fmt: skip
    before = prepare(frame, **options)
    rows = [row for end in before.train.table_rows for row in range(end - 2, end + 2)]
    others = np.setdiff1d(np.arange(60), rows)
    values = st.lists(st.floats(-1e6, 1e6), min_size=len(others), max_size=len(others))
    changed = frame.copy()
    changed.loc[others, "x"] = data.draw(values)
    changed.loc[others, "y"] = data.draw(values)
    after = prepare(changed, **options)
    assert after.spec == before.spec
    assert after.task == before.task
    np.testing.assert_array_equal(after.train.inputs, before.train.inputs)
    np.testing.assert_array_equal(after.train.targets, before.train.targets)
    for part, same in zip(parts_of(after), parts_of(before), strict=True):
        assert part.table_rows.tolist() == same.table_rows.tolist()


def test_the_check_of_shared_rows_can_fail():
    """A split that ignores the horizon is seen to share rows by the footprints that the tests above compare."""
    data = prepare(numbered(), target="y", features=["x"], window=4, horizon=3, scaling="none", fractions=(0.5, 0, 0.5))
    late = replace(data.test, targets=data.test.targets - 10.0 * 7)
    assert set().union(*footprint(data, late)) & set().union(*footprint(data, data.train))


def test_a_target_among_the_features():
    """At horizon 0 a model would read its target; derived from it or by name, it is refused."""
    frame = frame_of()
    for feature in ("y", FeatureSpec(name="step", column="y", transform="difference")):
        with pytest.raises(InvalidInputError, match=r"'y' is also a feature, and with horizon=0 .* horizon=1 or more"):
            prepare(frame, target="y", features=["x", feature], window=3)
        assert prepare(frame, target="y", features=["x", feature], window=3, horizon=1).task == "regression"
    with pytest.raises(InvalidInputError, match="is also a feature"):
        prepare(frame, target=["x", "y"], features=["y"], window=3, horizon=[0, 1])


def test_a_held_value_keeps_its_own_row_in_the_window():
    """A window that begins with a value held from before the border crosses the border."""
    frame = numbered(20)
    frame.loc[10, "x"] = NAN  # the first row after the border
    data = prepare(frame, target="y", features=["x"], window=2, horizon=1, missing="hold", scaling="none",
                   fractions=(0.5, 0, 0.5))  # fmt: skip
    assert data.train.targets.max() == 90
    assert data.test.inputs.min() == 11
    assert "3 windows cross a border and are left out" in data.notes


def test_random_windows_that_hold_a_value_of_the_one_before():
    """Of windows side by side, the one whose first value is held from the other's last row is left out."""
    frame = numbered(12)
    frame.loc[[4, 8], "x"] = NAN  # first rows of the second and the third window
    data = prepare(frame, target="y", features=["x"], window=3, horizon=1, stride=4, missing="hold", split="random",
                   fractions=(1, 0, 0), scaling="none")  # fmt: skip
    assert len(data.train) == 1
    assert "2 windows hold a value of the window before them and are left out" in data.notes


def test_random_windows_that_share_rows():
    """The refusal says which stride shares none, and that stride works."""
    with pytest.raises(InvalidInputError, match="use stride=6"):
        prepare(frame_of(), target="y", features=["x"], window=4, horizon=2, split="random")
    assert (
        len(prepare(frame_of(), target="y", features=["x"], window=4, horizon=2, split="random", stride=6).train) == 7
    )


def test_interpolation_would_tell_of_targets():
    """With a target at each timestep, a value interpolated from later ones is a leak and refused."""
    with pytest.raises(InvalidInputError, match="missing is 'interpolate' with each_timestep=True"):
        prepare(frame_of(), target="y", features=["x"], window=3, each_timestep=True, missing="interpolate")


# -- scaling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), MinMaxScaler(),
        MinMaxScaler(feature_range=(-1, 3)), MaxAbsScaler(), RobustScaler(), RobustScaler(with_centering=False),
        RobustScaler(with_scaling=False), "standard", "minmax",
    ],
    ids=str,
)  # fmt: skip
def test_scaling_is_scikit_learns(scaler):
    """Center and scale give the numbers of the scaler itself, fitted to the training rows, and it stays unfitted."""
    frame = frame_of()
    data = prepare(frame, target="y", features=["x"], window=5, horizon=1, scaling=scaler)
    rows = sorted({row for end in data.train.table_rows for row in range(end - 4, end + 1)})
    same = {"standard": StandardScaler(), "minmax": MinMaxScaler()}.get(str(scaler), scaler)
    from sklearn.base import clone

    fitted = clone(same).fit(frame[["x"]].to_numpy()[rows])
    for part in parts_of(data):
        windows = np.stack([frame[["x"]].to_numpy()[end - 4 : end + 1] for end in part.table_rows])
        expected = fitted.transform(windows.reshape(-1, 1)).reshape(windows.shape)
        np.testing.assert_allclose(part.inputs, expected, atol=1e-5)
    assert not hasattr(scaler, "scale_")


def test_constant_columns_and_own_scaling():
    """A constant column is divided by 1, and said; time of day and features with their own scale stay as they are."""
    frame = frame_of().assign(x=7.0)
    features = [
        "x", FeatureSpec(name="own", column="y", center=1, scale=4),
        FeatureSpec(name="day", column="time", transform="day_sine"),
    ]  # fmt: skip
    data = prepare(frame, target="y", features=features, window=3, horizon=1, time_column="time")
    assert [(one.center, one.scale) for one in data.spec.features] == [(7, 1), (1, 4), (0, 1)]
    assert "'x' is 7 throughout the training part; it tells nothing" in data.notes
    assert "scaled with the center and scale they came with: own" in data.notes
    assert data.spec.baseline == pytest.approx(data.train.inputs[:, 0].mean(axis=0), abs=0.5)


@pytest.mark.parametrize(
    ("scaling", "error", "message"),
    [
        ("minimax", InvalidInputError, "scaling is 'minimax'; known: standard, minmax, none. Did you mean 'minmax'"),
        (Normalizer(), InvalidInputError, "scaling is a Normalizer, which is more than a center and a scale"),
        (MinMaxScaler(clip=True), InvalidInputError, "MinMaxScaler with clip=True"),
        (StandardScaler().fit([[1.0], [2.0]]), InvalidInputError, "scaling is already fitted"),
        (StandardScaler, InvalidTypeError, "expected 'standard', 'minmax', 'none' or an unfitted scaler"),
        (3, InvalidTypeError, "scaling is 3"),
    ],
)
def test_scalings_that_are_refused(scaling, error, message):
    """What is no affine, unfitted scaler is refused with those that are."""
    with pytest.raises(error, match=message):
        prepare(frame_of(), target="y", features=["x"], window=3, horizon=1, scaling=scaling)


# -- tasks and classes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "classes", "outputs"),
    [
        (["no", "yes"], "binary", ("no", "yes"), 1),
        ([0, 1], "binary", ("0", "1"), 1),
        ([0.0, 1.0], "binary", ("0", "1"), 1),
        ([True, False], "binary", ("False", "True"), 1),
        (["c", "a", "b"], "multiclass", ("a", "b", "c"), 3),
        ([2, 0, 1], "multiclass", ("0", "1", "2"), 3),
        ([3, 1, 2], "multiclass", ("1", "2", "3"), 3),
        ([1.5, 0, 1], "regression", (), 1),
        ([10, 20, 30], "regression", (), 1),
    ],
)
def test_the_task_is_told_from_the_target(values, task, classes, outputs):
    """Words and whole numbers are classes, sorted; other numbers a regression; a note says what it was taken for."""
    frame = frame_of(aim=np.resize(np.array(values), 60))
    data = prepare(frame, target="aim", features=["x"], window=3)
    assert (data.task, data.spec.classes, data.config().output_size) == (task, classes, outputs)
    assert any(f"taken for a {task} task" in note for note in data.notes)
    ends = frame["aim"][data.train.table_rows].tolist()
    if classes:
        assert [classes[number] for number in data.train.targets] == [
            f"{v:g}" if type(v) is float else str(v) for v in ends
        ]
    else:
        assert data.train.targets[:, 0].tolist() == ends


def test_a_task_by_name():
    """A task that is named is taken: classes of any whole numbers, sorted by number; yes/no outputs side by side."""
    frame = frame_of(aim=np.resize([10, 9, 200], 60), left=np.resize([0, 1], 60), right=np.resize([1, 1, 0], 60))
    data = prepare(frame, target="aim", features=["x"], window=3, task="multiclass")
    assert data.spec.classes == ("9", "10", "200")
    assert prepare(frame, target="left", features=["x"], window=3, task="regression").train.targets.shape == (40, 1)
    both = prepare(frame, target=["left", "right"], features=["x"], window=3, task="binary")
    assert (both.train.targets.shape[1], both.config().output_size, both.spec.outputs) == (2, 2, ("left", "right"))
    with pytest.raises(InvalidInputError, match="task is 'binary', but 'aim' holds 3 classes"):
        prepare(frame, target="aim", features=["x"], window=3, task="binary")
    with pytest.raises(InvalidInputError, match="task is 'binary', but a target is 200; expected 0"):
        prepare(frame, target=["left", "aim"], features=["x"], window=3, task="binary")
    with pytest.raises(InvalidInputError, match="task is 'multiclass' with 2 targets"):
        prepare(frame, target=["left", "aim"], features=["x"], window=3, task="multiclass")
    with pytest.raises(InvalidInputError, match="task is 'ranking'; known: regression"):
        prepare(frame, target="aim", features=["x"], window=3, task="ranking")


def test_classes_come_from_training():
    """A class that training does not have is refused by name; one class alone is none."""
    label = np.resize(["a", "b"], 60).astype(object)
    label[-1] = "new"
    with pytest.raises(InvalidInputError, match="the test part holds the class 'new' of 'aim', which does not occur"):
        prepare(frame_of(aim=label), target="aim", features=["x"], window=3)
    with pytest.raises(InvalidInputError, match="the training part holds only the class 'a'"):
        prepare(frame_of(aim=["a"] * 59 + ["b"]), target="aim", features=["x"], window=3, task="binary")


def test_missing_targets():
    """A window whose target is missing is left out and counted; its rows stay inputs of others."""
    aim = np.resize([0.5, 1.5], 60)
    aim[[10, 20]] = NAN
    data = prepare(frame_of(aim=aim), target="aim", features=["x"], window=3, fractions=(1, 0, 0))
    assert len(data.train) == 56
    assert "2 of 58 windows have no target and are left out" in data.notes
    words = np.resize(["up", "down", "?", "n/a"], 60)
    data = prepare(frame_of(aim=words), target="aim", features=["x"], window=1, fractions=(1, 0, 0))
    assert (len(data.train), data.spec.classes) == (30, ("down", "up"))
    with pytest.raises(InvalidInputError, match="no window has a target; 'aim' is missing wherever one stands"):
        prepare(frame_of(aim=[NAN] * 60), target="aim", features=["x"], window=3)


def test_the_last_known_value_looks_back_in_the_window_only():
    """Where the target is missing at a window's end, the value before it there is the last known one."""
    frame = numbered()
    frame.loc[[10, 11], "y"] = NAN
    data = prepare(frame, target="y", features=["x"], window=3, horizon=1, scaling="none", fractions=(1, 0, 0))
    last = dict(zip(data.train.table_rows.tolist(), data.train.last[:, 0].tolist(), strict=True))
    assert (last[11], last[12], 10 in last) == (90, 120, False)
    assert prepare(frame, target="y", features=["x"], window=2, horizon=1, fractions=(1, 0, 0)).train.last is None


# -- what is told ------------------------------------------------------------------------------------------------------


def test_what_the_spec_says():
    """Units, outputs, what is predicted and how far ahead, the interval, the policy and the split are kept."""
    data = prepare(frame_of(200), target="y", features=["x", "y"], window=4, horizon=30, time_column="time",
                   units={"y": "mg/dL"}, missing="hold", fractions=(0.5, 0, 0.5), seed=3)  # fmt: skip
    spec = DataSpec.from_dict(json.loads(json.dumps(data.spec.to_dict())))
    assert spec == data.spec
    assert [feature.unit for feature in spec.features] == ["", "mg/dL"]
    assert (spec.outputs, spec.output_unit, spec.target) == (("y",), "mg/dL", "y 30 minutes ahead")
    assert (spec.window.interval_seconds, spec.window.missing, spec.window.length) == (60, "hold", 4)
    how = spec.provenance["prepared"]
    assert (how["split"], how["fractions"], how["seed"], how["horizon"]) == ("chronological", [0.5, 0, 0.5], 3, [30])


def test_features_by_default():
    """The number columns that are no target, time or id are read, texts of numbers too; the others are named."""
    frame = frame_of(id=["a"] * 60, word=["w"] * 60, flag=[True, False] * 30, text=["1", "2", "?", "3"] * 15)
    data = prepare(frame, target="y", window=3, time_column="time", id_column="id", missing="hold")
    assert data.spec.feature_names == ("x", "flag", "text")
    assert "not read, because they hold no numbers: word" in data.notes
    with pytest.raises(InvalidInputError, match=r"no number column beside y, time; .*features=\['y'\] with horizon=1"):
        prepare(frame[["time", "y"]], target="y", window=3, time_column="time")


def test_an_array():
    """A 2-D array is a table whose columns are called by their numbers."""
    data = prepare(np.random.default_rng(0).normal(size=(50, 3)), target="2", window=4)
    assert data.spec.feature_names == ("0", "1")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "z"}, InvalidInputError, "has no column 'z'"),
        ({"target": []}, InvalidInputError, r"target is \[\]"),
        ({"features": ["q"]}, InvalidInputError, "has no column 'q'; known: time, x, y"),
        ({"features": []}, InvalidInputError, "features is empty"),
        ({"window": None}, InvalidInputError, "window is missing; give the timesteps .* or an id_column"),
        ({"window": 0}, InvalidInputError, "window length is 0"),
        ({"window": 100}, InvalidInputError, "has 60 rows; a sequence needs 100 timesteps and the target 1 rows later"),
        ({"horizon": -1}, InvalidInputError, "horizon is -1"),
        ({"horizon": 1.5}, InvalidTypeError, "horizon is 1.5"),
        ({"horizon": "3"}, InvalidTypeError, "horizon is '3'"),
        ({"horizon": [1, 1]}, InvalidInputError, "each once"),
        ({"stride": 0}, InvalidInputError, "stride is 0"),
        ({"guard": -1}, InvalidInputError, "guard is -1"),
        ({"guard": 1, "split": "random"}, InvalidInputError, "only a chronological split has borders to guard"),
        ({"split": "stratified"}, InvalidInputError, "split is 'stratified'; known: chronological"),
        ({"split": "grouped"}, InvalidInputError, "no id_column says what the groups are"),
        ({"missing": "mean"}, InvalidInputError, "window missing is 'mean'; known: refuse"),
        ({"units": {"z": "m"}}, InvalidInputError, "units names 'z'"),
        ({"source": 3}, InvalidTypeError, "source is a int; expected a path"),
        ({"guard": 30}, InvalidInputError, "holds no whole window"),
    ],
)
def test_options_that_are_refused(options, error, message):
    """Each option that cannot be is named with what is expected."""
    given_options = {"source": frame_of(), "target": "y", "features": ["x"], "window": 3, "horizon": 1, **options}
    with pytest.raises(error, match=message):
        prepare(given_options.pop("source"), **given_options)


# -- from file to model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["drop", "hold", "interpolate"])
def test_a_saved_model_reads_a_new_table_as_in_training(tmp_path, missing):
    """Training from a file, then saving: `read_csv` gives the very windows of the test part, by the same policy."""
    frame = frame_of(200)
    frame.loc[[5, 50, 51, 150, 190], "x"] = NAN
    frame.to_csv(tmp_path / "x.csv", index=False)
    data = prepare(tmp_path / "x.csv", target="y", features=["x", "y"], window=6, horizon=2, time_column="time",
                   missing=missing)  # fmt: skip
    torch.manual_seed(0)
    model = LSTMModel(data.config(hidden_sizes=(4,)), data.spec)
    fit(model, data.train, data.validation, epochs=1)
    metrics = evaluate(model, data.test, train=data.train, last=data.test.last)
    assert set(metrics.rows) == {"model", "training_mean", "persistence"}
    model.save(tmp_path / "model")
    again = read_csv(tmp_path / "x.csv", load(tmp_path / "model").data, windows="all")
    place = {row: number for number, row in enumerate(again.table_rows.tolist())}
    rows = [place[row] for row in data.test.table_rows.tolist()]
    np.testing.assert_array_equal(again.take(rows).inputs, data.test.inputs)
    assert again.take(rows).sample_names == data.test.sample_names


def test_taking_some_sequences():
    """`take` returns sequences by number or by True and False, with all that belongs to them."""
    data = prepare(numbered(), target="y", features=["x"], window=3, horizon=1, time_column="time", scaling="none")
    some = data.train.take([4, 1])
    assert some.sample_names == (data.train.sample_names[4], data.train.sample_names[1])
    for name in ("inputs", "targets", "last", "lengths", "rows", "table_rows", "times"):
        np.testing.assert_array_equal(getattr(some, name), getattr(data.train, name)[[4, 1]])
    late = data.train.take(data.train.targets[:, 0] > 200)
    assert len(late) == (data.train.targets > 200).sum() > 0
    assert PARTS == ("training", "validation", "test")
