"""What a model's numbers mean: `DataSpec` names features, units, scaling, classes, window and where it all came from.

It is plain data (a saved model's `data.json`): the transforms are a closed list of names, never code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError, InvalidTypeError, nearest_name

Transform = Literal["identity", "difference", "day_sine", "day_cosine"]
Missing = Literal["refuse", "drop", "hold", "interpolate"]
TokenUnit = Literal["", "character", "word"]
TIME_TRANSFORMS = ("day_sine", "day_cosine")  # made from the time column, not from numbers

_Part = TypeVar("_Part", "FeatureSpec", "WindowSpec")


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One input feature; the model reads (value - center) / scale.

    Args:
        name: What a person calls it.
        unit: Unit of the value before scaling, e.g. "mg/dL".
        column: CSV column it is made from; None: the one called `name`.
        transform: How it is made from the column: "identity"; "difference" (change since the timestep before, 0 at
            the first of a window); "day_sine" / "day_cosine" (time of day on a circle, from a time column).
        center: What is subtracted, in `unit`.
        scale: What is divided by, in `unit`; not 0.
        group: Features of one group are told as one reason (e.g. sine and cosine as "time of day").
    """

    name: str
    unit: str = ""
    column: str | None = None
    transform: Transform = "identity"
    center: float = 0.0
    scale: float = 1.0
    group: str | None = None

    def __post_init__(self) -> None:
        for entry in ("name", "unit", "column", "group"):
            value = getattr(self, entry)
            if not isinstance(value, str) and not (value is None and entry in ("column", "group")):
                raise InvalidTypeError(f"a feature's {entry} is {value!r}; expected text.")
        if self.transform not in get_args(Transform):
            known = _nearest(self.transform, Transform)
            raise InvalidInputError(f"feature {self.name!r} has the transform {self.transform!r}; {known}")
        for entry in ("center", "scale"):
            value = getattr(self, entry)
            if not _is_finite_number(value):
                raise InvalidTypeError(f"feature {self.name!r} has {entry}={value!r}; expected a finite number.")
        if self.scale == 0:
            raise InvalidInputError(f"feature {self.name!r} has scale=0; expected another number (1 leaves it as is).")

    @property
    def source(self) -> str:
        """The CSV column this feature is made from."""
        return self.name if self.column is None else self.column


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """How a long series is cut into the sequences the model reads.

    Args:
        length: Timesteps T of one window; None: a sequence of any length is one input.
        interval_seconds: Seconds between timesteps, where they are regular.
        max_gap_seconds: A longer pause between two rows ends a window: none is cut across it.
        min_gap_seconds: A row that follows sooner than this is dropped.
        time_column: CSV column with the time of each row.
        missing: What happens to a row that lacks a value, in training and whenever a table is read: "refuse" it with
            an error; "drop" the row; "hold" the last known value (rows before the first one are dropped);
            "interpolate" between the known values of the same window, and hold the first and the last of them.
    """

    length: int | None = None
    interval_seconds: float | None = None
    max_gap_seconds: float | None = None
    min_gap_seconds: float | None = None
    time_column: str | None = None
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        whole = isinstance(self.length, int) and not isinstance(self.length, bool)
        if self.length is not None and (not whole or self.length < 1):
            raise InvalidInputError(
                f"window length is {self.length!r}; expected a whole number of timesteps, 1 or more."
            )
        for entry in ("interval_seconds", "max_gap_seconds", "min_gap_seconds"):
            value = getattr(self, entry)
            if value is not None and not (_is_finite_number(value) and value > 0):
                raise InvalidInputError(f"window {entry} is {value!r}; expected seconds, more than 0.")
        if self.time_column is not None and not isinstance(self.time_column, str):
            raise InvalidTypeError(f"window time_column is {self.time_column!r}; expected a column's name.")
        if self.missing not in get_args(Missing):
            raise InvalidInputError(f"window missing is {self.missing!r}; {_nearest(self.missing, Missing)}")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What goes into a model and what comes out, in people's words.

    Args:
        features: One entry for each of the D features; empty for token models.
        classes: Names of the classes (binary: negative, positive; multiclass: K).
        outputs: Names of the outputs of a regression.
        output_unit: Unit of a regression's outputs.
        target: What is predicted, as the rest of "The model predicts ...", e.g. "glucose 30 minutes ahead".
        target_note: What the outputs mean exactly, e.g. "fall and rise: by over 20 mg/dL".
        vocabulary: Text of each token id.
        token_unit: What a token of a text is: "character" or "word"; "" where texts come as a table of tokens.
        lowercase: Whether texts are read in lower case.
        max_tokens: A longer text is cut off after so many tokens; None: none is.
        baseline: The reference input in the model's scaled numbers, one value a feature; what "mean" stands for.
        baseline_description: The baseline in words, e.g. "a flat trace at the average glucose".
        window: How series become sequences.
        provenance: data, seed, metrics, versions, ...: free JSON.
    """

    features: tuple[FeatureSpec, ...] = ()
    classes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    output_unit: str = ""
    target: str = ""
    target_note: str = ""
    vocabulary: tuple[str, ...] | None = None
    token_unit: TokenUnit = ""
    lowercase: bool = False
    max_tokens: int | None = None
    baseline: tuple[float, ...] | None = None
    baseline_description: str = ""
    window: WindowSpec = field(default_factory=WindowSpec)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_kinds()
        self._check_tokens()
        for value in self.baseline or ():
            if not _is_finite_number(value):
                raise InvalidTypeError(f"baseline holds {value!r}; expected finite numbers, one a feature.")
        names = [feature.name for feature in self.features]
        count = Counter(names)
        for name in names:
            if count[name] > 1:
                raise InvalidInputError(f"two features are called {name!r}; give each its own name.")
        if self.features and self.baseline is not None and len(self.baseline) != len(self.features):
            raise InvalidInputError(
                f"baseline has {len(self.baseline)} values for {len(self.features)} features; expected one each."
            )
        if not isinstance(self.provenance, Mapping):
            raise InvalidTypeError(f"provenance is {self.provenance!r}; expected an object of names and values.")

    def _check_kinds(self) -> None:
        for entry in ("features", "classes", "outputs", "vocabulary", "baseline"):
            value = getattr(self, entry)
            if value is None and entry in ("vocabulary", "baseline"):
                continue
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise InvalidTypeError(f"{entry} is {value!r}; expected a list.")
            object.__setattr__(self, entry, tuple(value))
        for feature in self.features:
            if not isinstance(feature, FeatureSpec):
                raise InvalidTypeError(f"features holds {feature!r}; expected FeatureSpec(name=...) entries.")
        for entry in ("classes", "outputs", "vocabulary"):
            for name in getattr(self, entry) or ():
                if not isinstance(name, str):
                    raise InvalidTypeError(f"{entry} holds {name!r}; expected text.")
        for entry in ("output_unit", "target", "target_note", "baseline_description"):
            if not isinstance(getattr(self, entry), str):
                raise InvalidTypeError(f"{entry} is {getattr(self, entry)!r}; expected text.")
        texts = [self.output_unit, self.target, self.target_note, self.baseline_description]
        texts += [*self.classes, *self.outputs, *(self.vocabulary or ())]
        texts += [text for feature in self.features for text in (feature.name, feature.unit, feature.group or "")]
        for text in texts:
            if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in text):
                raise InvalidInputError(f"the text {text!r} holds what no file can (NUL or half a character).")

    def _check_tokens(self) -> None:
        if self.token_unit not in get_args(TokenUnit):
            raise InvalidInputError(f"token_unit is {self.token_unit!r}; {_nearest(self.token_unit, TokenUnit)}")
        if not isinstance(self.lowercase, bool):
            raise InvalidTypeError(f"lowercase is {self.lowercase!r}; expected True or False.")
        if self.max_tokens is not None and not (type(self.max_tokens) is int and self.max_tokens > 0):
            raise InvalidInputError(f"max_tokens is {self.max_tokens!r}; expected a whole number, 1 or more.")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the D features."""
        return tuple(feature.name for feature in self.features)

    @property
    def center(self) -> NDArray[np.float64]:
        """What is subtracted from each feature, (D,)."""
        return np.array([feature.center for feature in self.features], dtype=np.float64)

    @property
    def scale(self) -> NDArray[np.float64]:
        """What each feature is divided by, (D,)."""
        return np.array([feature.scale for feature in self.features], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "provenance": dict(self.provenance)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """Make a spec from `to_dict`'s values; unknown names are refused."""
        _refuse_unknown(cls, values, "the data description")
        values = dict(values)
        features = values.get("features", ())
        if not isinstance(features, Sequence) or isinstance(features, str):
            raise InvalidTypeError(f"features is {features!r}; expected a list.")
        values["features"] = tuple(_part(FeatureSpec, entry, "a feature") for entry in features)
        values["window"] = _part(WindowSpec, values.get("window", {}), "window")
        return cls(**values)


def _nearest(value: object, choices: object) -> str:
    return nearest_name(str(value), (choice for choice in get_args(choices) if choice))


def _is_finite_number(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _part(cls: type[_Part], values: Any, what: str) -> _Part:
    if not isinstance(values, Mapping):
        raise InvalidTypeError(f"{what} is {values!r}; expected an object of names and values.")
    _refuse_unknown(cls, values, what)
    try:
        return cls(**values)
    except TypeError as error:
        if isinstance(error, InvalidTypeError):
            raise
        raise InvalidTypeError(f"{what} is incomplete: {error}.") from None


def _refuse_unknown(cls: type[Any], values: Mapping[str, Any], what: str) -> None:
    known = [entry.name for entry in fields(cls)]
    for name in values:
        if name not in known:
            raise InvalidInputError(f"{what} has the unknown entry {name!r}; {nearest_name(str(name), known)}")
