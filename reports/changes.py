"""What changed between two explained predictions: of two models on one input, or of one model on two inputs.

Why a model's prediction changed from one input to another has an exact answer: the second input explained with the
first as its baseline, by a method that adds up. Its effects then share out f(second) - f(first) over what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution, get
from ..explainers.metrics.ranking import NOISE, rank_correlation
from ..models import GatelensError, InvalidInputError
from .overview import Overview, only_cells, whole_of
from .plots import raw_series
from .prediction import explained_name

CLOSE = 1e-4  # of a feature's range: scaled and scaled back, a number is the same
COMPLETE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deeplift", {}),
    ("integrated_gradients", {}),
    ("kernel_shap", {"players": "feature"}),
    ("kernel_shap", {"players": "timestep"}),
)  # methods that add up, the first that works on a model is taken


@dataclass(frozen=True)
class FeatureChange:
    """A feature's effect on both predictions; None where one does not have the feature."""

    name: str
    first: float | None
    second: float | None

    @property
    def difference(self) -> float:
        """The second's effect less the first's; a feature that is not there has none."""
        return (self.second or 0.0) - (self.first or 0.0)


@dataclass(frozen=True, eq=False)
class Change:
    """Two explained predictions, one sample each.

    Attributes:
        first: The one to compare with.
        second: The one that changed.
        kind: "models": two models on one input; "inputs": one model on two inputs.
        one: Overview of the first.
        two: Overview of the second.
    """

    first: Attribution
    second: Attribution
    kind: Literal["models", "inputs"]
    one: Overview
    two: Overview

    @classmethod
    def of(cls, first: Attribution, second: Attribution) -> Change:
        """Return what there is to compare.

        Raises:
            InvalidInputError: There is not one sample each, or they differ in more than one way, or in none.
        """
        for name, found in (("first", first), ("second", second)):
            if len(found) != 1:
                raise InvalidInputError(
                    f"{name} holds {len(found)} samples; a comparison is of one with one, e.g. {name}[0]."
                )
        _check_same_number(first, second)
        other_model = first.attrs["model"] != second.attrs["model"]
        other_input = not same_input(first, second)
        if other_model and other_input:
            raise InvalidInputError(
                "both the model and the input differ, so a change may come from either; compare two models on one "
                "input, or one model on two inputs."
            )
        if not other_model and not other_input:
            raise InvalidInputError(
                "both explain the same input by the same model; to compare explainers, use compare_explainers, or a "
                "Report of both."
            )
        kind: Literal["models", "inputs"] = "models" if other_model else "inputs"
        return cls(first, second, kind, Overview.of(first), Overview.of(second))

    @property
    def difference(self) -> float:
        """The second prediction less the first."""
        return float(self.second.prediction[0] - self.first.prediction[0])

    @property
    def start(self) -> float:
        """The same of the predictions of the baselines, from which the effects count."""
        return float(self.second.baseline_prediction[0] - self.first.baseline_prediction[0])

    @property
    def unaccounted(self) -> float:
        """What of the difference neither the starts nor the effects account for."""
        return float(self.second.completeness_gap[0] - self.first.completeness_gap[0])

    def features(self) -> list[FeatureChange]:
        """Return each feature's effects, the largest difference first; one row where they are not told apart."""
        name = whole_of(self.first)
        if name in (*self.one.names, *self.two.names):
            return [FeatureChange(name, float(self.one.net.sum()), float(self.two.net.sum()))]
        one, two = (dict(zip(part.names, part.net[0].tolist(), strict=True)) for part in (self.one, self.two))
        rows = [FeatureChange(name, one.get(name), two.get(name)) for name in dict.fromkeys((*one, *two))]
        return sorted(rows, key=lambda row: -abs(row.difference))

    @property
    def equally_shaped(self) -> bool:
        """Whether both have the same features and timesteps, so that cells can be compared one by one."""
        return (
            self.one.names == self.two.names
            and self.first.dataset.sizes["feature"] == self.second.dataset.sizes["feature"]
            and int(self.first.lengths[0]) == int(self.second.lengths[0])
        )

    def correlation(self) -> float | None:
        """Return the rank correlation of the two over the finest parts; None where they cannot be compared."""
        if not self.equally_shaped:
            return None
        parts = [only_cells(found).ravel() for found in (self.one, self.two)]
        return rank_correlation(*(np.where(np.abs(part) < NOISE * np.abs(part).max(), 0, part) for part in parts))


def _check_same_number(first: Attribution, second: Attribution) -> None:
    """Refuse to compare what are different numbers: another output, another unit, another class."""
    for attr, what in (
        ("output", "output (logit or probability)"),
        ("output_unit", "unit"),
        ("inputs", "kind of input"),
    ):
        if first.attrs[attr] != second.attrs[attr]:
            raise InvalidInputError(
                f"first and second have another {what} ({first.attrs[attr]!r}, {second.attrs[attr]!r}); compare "
                "explanations of the same number."
            )
    names = [explained_name(found, 0) for found in (first, second)]
    if names[0] != names[1]:
        raise InvalidInputError(
            f"first explains {names[0]!r} and second {names[1]!r}; explain both with the same target."
        )
    if (first.diagnostic("target_last") is None) != (second.diagnostic("target_last") is None):
        raise InvalidInputError("one explains a sum over timesteps and the other does not; give both the same target.")
    for name in ("target_timestep", "target_last"):
        one, two = (found.diagnostic(name) for found in (first, second))
        if one is None or two is None:
            continue
        from_end = [int(found.lengths[0]) - int(step[0]) for found, step in ((first, one), (second, two))]
        if int(one[0]) != int(two[0]) and from_end[0] != from_end[1]:
            raise InvalidInputError(
                f"first explains timestep {int(one[0])} and second timestep {int(two[0])}; explain both at "
                "the same one."
            )
    for name, found in (("first", first), ("second", second)):
        if found.measures != "contribution":
            raise InvalidInputError(
                f"{name} is a sensitivity ({found.method}), which tells what could matter, not what did; compare "
                "contributions, e.g. of deeplift or integrated_gradients."
            )


def same_input(first: Attribution, second: Attribution) -> bool:
    """Whether both explain the same input: equal tokens, or equal features of the same name, in their own units.

    Models may scale their inputs differently, read different features, and look back differently far: compared are the
    features that both have, over the last timesteps that both have.
    """
    lengths = [int(found.lengths[0]) for found in (first, second)]
    steps = min(lengths)
    if first.of_tokens:
        words = [_tokens(found)[-steps:] for found in (first, second)]
        return lengths[0] == lengths[1] and words[0] == words[1]
    shared = [name for name in first.feature_names if name in second.feature_names]
    if not shared or (lengths[0] != lengths[1] and first.attrs["model"] == second.attrs["model"]):
        return False
    transforms = first.diagnostic("feature_transform")
    for name in shared:
        column = first.feature_names.index(name)
        one, two = (raw_series(found, 0, found.feature_names.index(name))[0][-steps:] for found in (first, second))
        if transforms is not None and str(transforms[column]) == "difference" and lengths[0] != lengths[1]:
            one, two = one[1:], two[1:]  # the first of a window is 0, whatever came before it
        room = CLOSE * max(1e-30, float(np.abs(one).max(initial=0)), float(np.ptp(one)) if one.size else 0.0)
        if (np.abs(one - two) > room).any():
            return False
    return True


def _tokens(attribution: Attribution) -> list[Any]:
    length = int(attribution.lengths[0])
    words = attribution.diagnostic("token")
    return list(attribution.inputs[0, :length, 0] if words is None else words[0][:length])


def explain_change(model: Any, first: Attribution, second: Attribution, *, seed: int = 0) -> Attribution | None:
    """Share out the change of a model's prediction over what differs between two inputs.

    The second input is explained with the first as its baseline, by the first method that works on the model and adds
    up: deeplift, integrated_gradients, or kernel_shap for functions. Its `baseline_prediction` is the first prediction.

    Args:
        model: The explained model.
        first: Explanation of the first input (one sample).
        second: Explanation of the second, of the same length.
        seed: Of a method that draws.

    Returns:
        The `Attribution`; None where the inputs have different lengths, or no method works.
    """
    length = int(first.lengths[0])
    if length != int(second.lengths[0]) or first.values.shape[2] != second.values.shape[2]:
        return None
    inputs, baseline = (_model_inputs(found, length) for found in (second, first))
    stamps = second.diagnostic("timestamp")
    options: dict[str, Any] = {"output": second.attrs["output"], "baseline": baseline, "seed": seed}
    options["task"] = second.attrs["task"] or None
    for name, more in COMPLETE:
        try:
            found: Attribution = get(name)(model, **options, **more).explain(
                inputs,
                target=_target_of(second),
                sample_names=second.sample_names,
                times=None if stamps is None else stamps[:, :length],
            )
        except GatelensError:
            continue
        return found
    return None


def _model_inputs(attribution: Attribution, length: int) -> NDArray[Any]:
    """Return the input as the model reads it, (1, L, D) or ids (1, L)."""
    inputs = attribution.inputs[:, :length]
    return inputs[..., 0].astype(np.int64) if attribution.of_tokens else inputs


def _target_of(attribution: Attribution) -> Any:
    """Return the target that was explained, as `explain` takes it."""
    output = int(attribution.dataset["target_output"].to_numpy()[0])
    first, last = (attribution.diagnostic(name) for name in ("target_timestep", "target_last"))
    if first is None:
        return output
    return (int(first[0]) if last is None else slice(int(first[0]), int(last[0]) + 1)), output
