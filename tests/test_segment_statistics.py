"""Segment statistics: numpy over the third in question is the oracle; names and units are those of the features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, WindowSpec
from gatelens.models.segment_statistics import PARTS, bounds, statistics_of, table_of

DATA = DataSpec(
    features=(FeatureSpec(name="glucose", unit="mg/dL", center=100.0, scale=20.0), FeatureSpec(name="insulin")),
    window=WindowSpec(interval_seconds=300),
)


def numbers(sequences, data=DATA, **options):
    """Return name -> numbers (N,)."""
    named = statistics_of(data, sequences[0].shape[1], **options)
    return dict(zip([one.name for one in named], table_of(named, sequences, data).T, strict=True))


def test_by_hand():
    """Seven readings: thirds of 2, 2 and 3, in the feature's own unit, the slope a minute of a line through them."""
    sequence = np.array([[0.0, 5], [1, 5], [2, 5], [4, 5], [1, 5], [0, 5], [2, 5]])
    found = {name: float(value[0]) for name, value in numbers([sequence]).items()}
    assert found["mean of glucose"] == pytest.approx(100 + 20 * 10 / 7)
    assert found["mean of glucose in the last third"] == pytest.approx(120)
    assert found["last glucose"] == 140
    assert found["last glucose in the first third"] == 120
    assert found["lowest glucose in the middle third"] == 140
    assert found["highest glucose"] == 180
    assert found["slope of glucose in the first third"] == pytest.approx(20 / 5)
    assert found["spread (standard deviation) of glucose in the middle third"] == pytest.approx(20)
    assert found["spread (standard deviation) of insulin"] == 0
    assert len(found) == 2 * (6 * 4 - 1)
    assert "last glucose in the last third" not in found  # it is the last glucose


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 100))
def test_sequences_of_any_length_equal_numpy_alone(lengths, seed):
    """In a set of unlike lengths each sequence has the numbers it has alone, and those of numpy and of polyfit."""
    rng = np.random.default_rng(seed)
    sequences = [rng.normal(size=(length, 1)) for length in lengths]
    together = numbers(sequences, DataSpec())
    for row, sequence in enumerate(sequences):
        alone = numbers([sequence], DataSpec())
        for part in PARTS:
            start, stop = bounds(len(sequence), part)
            own = sequence[start:stop, 0]
            where = "" if part == "whole" else f" in the {part} third"
            expected = {
                "mean of": own.mean(), "lowest": own.min(), "highest": own.max(),
                "spread (standard deviation) of": own.std(),
                "slope of": np.polyfit(np.arange(len(own)), own, 1)[0] if len(own) > 1 else 0.0,
            }  # fmt: skip
            for word, value in expected.items():
                name = f"{word} feature 0{where}"
                assert together[name][row] == pytest.approx(value, abs=1e-12)
                assert alone[name][0] == pytest.approx(value, abs=1e-12)
        assert together["last feature 0"][row] == sequence[-1, 0]


@pytest.mark.parametrize("length", range(1, 40))
def test_thirds_share_a_sequence(length):
    """From 3 timesteps on thirds follow each other without a gap, each with a timestep; shorter ones are whole."""
    ends = [bounds(length, part) for part in ("first", "middle", "last")]
    if length < 3:
        assert ends == [(0, length)] * 3
        return
    assert [ends[0][0], ends[1][0], ends[2][0], ends[2][1]] == [0, ends[0][1], ends[1][1], length]
    sizes = [stop - start for start, stop in ends]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("interval", "unit"),
    [
        (None, "mg/dL a timestep"),
        (300, "mg/dL a minute"),
        (3600, "mg/dL an hour"),
        (86400, "mg/dL a day"),
        (0.5, "mg/dL a second"),
    ],
)
def test_units_of_slopes(interval, unit):
    """A slope is told by the largest usual unit of time that a timestep fills, and is that slope."""
    data = DataSpec(features=(FeatureSpec(name="x", unit="mg/dL"),), window=WindowSpec(interval_seconds=interval))
    named = statistics_of(data, 1, ["slope"])
    assert named[0].unit == unit
    slope = table_of(named, [np.arange(6.0)[:, None]], data)[0, 0]
    seconds = {"minute": 60, "hour": 3600, "day": 86400, "second": 1}.get(unit.split()[-1], interval)
    assert slope == pytest.approx(1.0 if interval is None else seconds / interval)


def test_unknown_statistics_are_refused():
    """A kind that is not known, and none at all, are refused with what there is."""
    with pytest.raises(InvalidInputError, match=r"statistics holds 'median'.*known: mean"):
        statistics_of(DataSpec(), 1, ["median"])
    with pytest.raises(InvalidInputError, match="statistics is empty"):
        statistics_of(DataSpec(), 1, [])
