"""Scaling fitted to the training part: scikit-learn's scalers as the center and scale of each feature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data_spec import TIME_TRANSFORMS, DataSpec
from .errors import InvalidInputError, InvalidTypeError, nearest_name

NAMES = ("standard", "minmax", "none")
AFFINE = "StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler"


def scaled(spec: DataSpec, values: NDArray[np.float64], scaling: Any, notes: list[str]) -> DataSpec:
    """Return the spec with the scaling of its features and their mean as baseline; `notes` grows.

    The time of day, and features with a center or scale of their own, stay as they are.

    Args:
        spec: The features.
        values: Features of the training rows before scaling, (rows, D).
        scaling: See `fitted_scaling`.
        notes: What is told beside it.
    """
    center, scale = fitted_scaling(values, scaling)
    features, kept = [], []
    for place, feature in enumerate(spec.features):
        own = (feature.center, feature.scale) != (0, 1)
        if own or feature.transform in TIME_TRANSFORMS:
            kept += [feature.name] if own else []
            features.append(feature)
            continue
        if np.ptp(values[:, place]) == 0:
            notes.append(f"{feature.name!r} is {values[0, place]:g} throughout the training part; it tells nothing")
        features.append(replace(feature, center=float(center[place]), scale=float(scale[place])))
    if kept:
        notes.append(f"scaled with the center and scale they came with: {', '.join(kept)}")
    spec = replace(spec, features=tuple(features))
    mean = (values.mean(axis=0) - spec.center) / spec.scale
    return replace(
        spec, baseline=tuple(mean.tolist()), baseline_description="a flat series at the average of the training part"
    )


def fitted_scaling(values: NDArray[np.float64], scaling: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return center and scale, (D,) each, such that the model reads (value - center) / scale.

    Args:
        values: Features of the training rows, (rows, D).
        scaling: "standard", "minmax", "none", or one of scikit-learn's affine scalers, which is left unfitted.

    Raises:
        InvalidInputError: No such scaling, or one that is not affine feature by feature.
    """
    from sklearn.base import clone

    width = values.shape[1]
    center, scale = np.zeros(width), np.ones(width)
    scaler = checked_scaler(scaling)
    if scaler is not None and width:
        center, scale = _center_and_scale(clone(scaler).fit(values), center, scale)
    return center, np.where(np.ptp(values, axis=0) == 0, 1.0, scale)


def checked_scaler(scaling: Any) -> Any:
    """Return the scaler that is meant, unfitted, or None; refuse what a saved model could not keep."""
    from sklearn import preprocessing
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if isinstance(scaling, str):
        if scaling not in NAMES:
            raise InvalidInputError(f"scaling is {scaling!r}; {nearest_name(scaling, NAMES)}")
        named = {"standard": preprocessing.StandardScaler, "minmax": preprocessing.MinMaxScaler}
        return named[scaling]() if scaling in named else None
    affine = [getattr(preprocessing, name) for name in AFFINE.replace(" or", ",").split(", ")]
    if not isinstance(scaling, BaseEstimator):
        raise InvalidTypeError(
            f"scaling is {scaling!r}; expected 'standard', 'minmax', 'none' or an unfitted scaler of scikit-learn."
        )
    if type(scaling) not in affine or getattr(scaling, "clip", False):
        clips = " with clip=True" if getattr(scaling, "clip", False) else ""
        raise InvalidInputError(
            f"scaling is a {type(scaling).__name__}{clips}, which is more than a center and a scale for each feature, "
            f"all that a saved model keeps; use {AFFINE}, or transform the columns first."
        )
    try:
        check_is_fitted(scaling)
    except NotFittedError:
        return scaling
    raise InvalidInputError(
        "scaling is already fitted, and nobody knows on which rows; pass a new one, to be fitted to the training part."
    )


def _center_and_scale(
    scaler: Any, center: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a fitted scaler subtracts and divides by; a part that it leaves out is as given."""
    if hasattr(scaler, "data_range_"):  # x * scale_ + min_
        return -scaler.min_ / scaler.scale_, 1 / scaler.scale_
    mean = getattr(scaler, "mean_", None) if getattr(scaler, "with_mean", False) else None
    found = mean if mean is not None else getattr(scaler, "center_", None)
    spread = scaler.scale_
    return (center if found is None else found), (scale if spread is None else spread)
