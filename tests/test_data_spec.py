"""`DataSpec`: its round trip through JSON, what it derives, and every refusal."""

import json

import pytest

from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, InvalidTypeError, WindowSpec

FULL = DataSpec(
    features=(
        FeatureSpec(name="glucose", unit="mg/dL", center=120, scale=-2.5, group="level"),
        FeatureSpec(name="change", column="glucose", transform="difference"),
        FeatureSpec(name="time of day", column="time", transform="day_sine"),
    ),
    classes=("fall", "rise"),
    outputs=("trend",),
    output_unit="mg/dL",
    target="glucose 30 minutes ahead",
    baseline=(0, 0.5, -1e-9),
    baseline_description="a flat trace",
    window=WindowSpec(length=4, interval_seconds=300, max_gap_seconds=600.5, min_gap_seconds=1, time_column="time"),
    provenance={"seed": 1, "nested": {"list": [1, None, "a"]}},
)

TEXT = DataSpec(
    vocabulary=("<padding>", "<unknown>", "a"),
    token_unit="character",
    lowercase=True,
    max_tokens=9,
    window=WindowSpec(missing="hold"),
)


@pytest.mark.parametrize("spec", [DataSpec(), FULL, DataSpec(vocabulary=["<pad>", "ä"], classes=["no", "yes"]), TEXT])
def test_round_trip(spec):
    """to_dict() is plain JSON, and from_dict() gives the equal description."""
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_derived():
    """Names, centers and scales come in the order of the features; a feature's source is its column, or its name."""
    assert FULL.feature_names == ("glucose", "change", "time of day")
    assert FULL.center.tolist() == [120.0, 0.0, 0.0]
    assert FULL.scale.tolist() == [-2.5, 1.0, 1.0]
    assert [feature.source for feature in FULL.features] == ["glucose", "glucose", "time"]
    assert DataSpec(classes=["a", "b"]).classes == ("a", "b")


def test_old_files_still_load():
    """A description that says nothing of missing values and texts refuses the former, and knows no texts."""
    old = FULL.to_dict()
    del old["token_unit"], old["lowercase"], old["max_tokens"], old["window"]["missing"]
    assert DataSpec.from_dict(old) == FULL


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"name": 3}, InvalidTypeError, "a feature's name is 3; expected text"),
        ({"name": None}, InvalidTypeError, "a feature's name is None"),
        ({"unit": None}, InvalidTypeError, "a feature's unit is None"),
        ({"column": 2}, InvalidTypeError, "a feature's column is 2"),
        ({"group": []}, InvalidTypeError, r"a feature's group is \[\]"),
        ({"transform": "log"}, InvalidInputError, "feature 'x' has the transform 'log'; known: identity, difference"),
        ({"transform": "day_sin"}, InvalidInputError, "Did you mean 'day_sine'"),
        ({"center": "1"}, InvalidTypeError, "feature 'x' has center='1'; expected a finite number"),
        ({"center": True}, InvalidTypeError, "center=True"),
        ({"center": 10**400}, InvalidTypeError, "center=1000"),
        ({"scale": float("nan")}, InvalidTypeError, "scale=nan"),
        ({"scale": float("inf")}, InvalidTypeError, "scale=inf"),
        ({"scale": 0.0}, InvalidInputError, r"scale=0; expected another number \(1 leaves it as is\)"),
    ],
)
def test_features_that_are_refused(values, error, message):
    """Each value that a feature cannot have names itself and the feature."""
    with pytest.raises(error, match=message):
        FeatureSpec(**{"name": "x", **values})


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"length": 0}, InvalidInputError, "window length is 0; expected a whole number of timesteps, 1 or more"),
        ({"length": 2.0}, InvalidInputError, "window length is 2.0"),
        ({"length": True}, InvalidInputError, "window length is True"),
        ({"max_gap_seconds": 0}, InvalidInputError, "window max_gap_seconds is 0; expected seconds, more than 0"),
        ({"min_gap_seconds": -1}, InvalidInputError, "window min_gap_seconds is -1"),
        ({"interval_seconds": "5"}, InvalidInputError, "window interval_seconds is '5'"),
        ({"max_gap_seconds": float("nan")}, InvalidInputError, "max_gap_seconds is nan"),
        ({"max_gap_seconds": float("inf")}, InvalidInputError, "max_gap_seconds is inf"),
        ({"max_gap_seconds": True}, InvalidInputError, "max_gap_seconds is True"),
        ({"time_column": 1}, InvalidTypeError, "window time_column is 1; expected a column's name"),
        ({"missing": "fill"}, InvalidInputError, "window missing is 'fill'; known: refuse, drop, hold, interpolate"),
    ],
)
def test_windows_that_are_refused(values, error, message):
    """Each value that a window cannot have names itself."""
    with pytest.raises(error, match=message):
        WindowSpec(**values)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"feature": []}, InvalidInputError, "the data description has the unknown entry 'feature'; .*'features'"),
        ({"features": "x"}, InvalidTypeError, "features is 'x'; expected a list"),
        ({"features": None}, InvalidTypeError, "features is None; expected a list"),
        ({"features": ["x"]}, InvalidTypeError, "a feature is 'x'; expected an object of names and values"),
        ({"features": [{}]}, InvalidTypeError, "a feature is incomplete: .*'name'"),
        ({"features": [{"name": "x", "color": 1}]}, InvalidInputError, "a feature has the unknown entry 'color'"),
        ({"features": [{"name": "x"}, {"name": "x"}]}, InvalidInputError, "two features are called 'x'"),
        ({"window": None}, InvalidTypeError, "window is None; expected an object"),
        ({"window": {"size": 3}}, InvalidInputError, "window has the unknown entry 'size'"),
        ({"classes": "yes"}, InvalidTypeError, "classes is 'yes'; expected a list"),
        ({"classes": None}, InvalidTypeError, "classes is None; expected a list"),
        ({"classes": [0, 1]}, InvalidTypeError, "classes holds 0; expected text"),
        ({"outputs": [None]}, InvalidTypeError, "outputs holds None; expected text"),
        ({"vocabulary": {"a": 1}}, InvalidTypeError, r"vocabulary is \{'a': 1\}; expected a list"),
        ({"vocabulary": [1]}, InvalidTypeError, "vocabulary holds 1; expected text"),
        ({"baseline": 0.5}, InvalidTypeError, "baseline is 0.5; expected a list"),
        ({"baseline": [float("nan")]}, InvalidTypeError, "baseline holds nan; expected finite numbers"),
        ({"baseline": ["0"]}, InvalidTypeError, "baseline holds '0'"),
        ({"features": [{"name": "x"}], "baseline": [0, 0]}, InvalidInputError, "baseline has 2 values for 1 features"),
        ({"provenance": []}, InvalidTypeError, r"provenance is \[\]; expected an object"),
        ({"token_unit": "letter"}, InvalidInputError, "token_unit is 'letter'; known: character, word"),
        ({"lowercase": 1}, InvalidTypeError, "lowercase is 1; expected True or False"),
        ({"max_tokens": 0}, InvalidInputError, "max_tokens is 0; expected a whole number, 1 or more"),
        ({"max_tokens": True}, InvalidInputError, "max_tokens is True"),
        ({"target": 3}, InvalidTypeError, "target is 3; expected text"),
        ({"output_unit": None}, InvalidTypeError, "output_unit is None; expected text"),
        ({"baseline_description": []}, InvalidTypeError, r"baseline_description is \[\]; expected text"),
    ],
)
def test_descriptions_that_are_refused(values, error, message):
    """Each entry that is unknown, of another kind, or does not fit the others names itself."""
    with pytest.raises(error, match=message):
        DataSpec.from_dict(values)


def test_features_are_specs():
    """Features given as names alone are refused with the way to write them."""
    with pytest.raises(InvalidTypeError, match=r"features holds 'x'; expected FeatureSpec\(name=\.\.\.\) entries"):
        DataSpec(features=("x",))
