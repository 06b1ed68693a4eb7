"""Putting an `Attribution` together from what an explainer found: labels, units, completeness, provenance."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import DataSpec, InvalidInputError
from ..models.inputs import valid_mask
from ..models.trace import GATES, to_numpy
from .attribution import FORMAT, FORMAT_VERSION, Attribution

if TYPE_CHECKING:
    import xarray as xr

    from .base import Explainer
    from .problem import Contribution, Problem

FEW_LABELS = 1024  # whose indexes are kept


def build_attribution(
    *,
    explainer: Explainer,
    model_id: str,
    problem: Problem,
    contribution: Contribution,
    values: NDArray[Any],
    scores: NDArray[Any],
    seconds: float,
    evaluations: tuple[int, int],
    sample_names: Sequence[str] | None,
    times: NDArray[Any] | None,
) -> Attribution:
    """Assemble the result of an explainer (called by `Explainer.explain`)."""
    import xarray as xr

    predictor = problem.predictor
    data = predictor.data or DataSpec()
    cells = ("sample", "time", "feature")
    batch, steps, features = values.shape
    inputs, baseline = (_as_cells(part) for part in (problem.inputs, _mean_reference(problem)))
    variables: dict[str, Any] = {
        "attribution": (cells, values),
        "input": (cells, inputs),
        "baseline": (cells, baseline),
        "prediction": ("sample", problem.prediction),
        "baseline_prediction": ("sample", problem.baseline_prediction),
        "completeness_gap": (
            "sample",
            problem.prediction - problem.baseline_prediction - values.sum(axis=(1, 2), dtype=np.float64),
        ),
        "length": ("sample", problem.lengths.numpy()),
        "target_output": ("sample", problem.target.output.numpy()),
        "scores": (("sample", "output"), scores),
    }
    if problem.target.timestep is not None:
        variables["target_timestep"] = ("sample", problem.target.timestep.numpy())
    if problem.target.last is not None:
        variables["target_last"] = ("sample", problem.target.last.numpy())
    if contribution.std_error is not None:
        variables["std_error"] = (cells, contribution.std_error)
    for name, numbers in contribution.diagnostics.items():
        variables[name] = ("sample", numbers)
    if times is not None:
        variables["timestamp"] = (("sample", "time"), _checked_times(times, batch, steps))
    if data.vocabulary is not None and problem.reads_tokens:
        words = np.array(data.vocabulary, dtype=object)[problem.inputs.cpu().numpy()]
        variables["token"] = (("sample", "time"), words)
    coords: dict[str, Any] = {
        "sample": _names(sample_names, batch, "sample"),
        "time": np.arange(steps),
        "feature": _names(data.feature_names or None, features, "feature", token=problem.reads_tokens),
        "output": _names(_output_names(data, scores.shape[1]), scores.shape[1], "output"),
    }
    if data.features:
        coords["feature_unit"] = ("feature", np.array([feature.unit for feature in data.features], dtype=object))
        groups = [feature.group or feature.name for feature in data.features]
        coords["feature_group"] = ("feature", np.array(groups, dtype=object))
        coords["feature_transform"] = (
            "feature",
            np.array([feature.transform for feature in data.features], dtype=object),
        )
        coords["feature_center"] = ("feature", data.center)
        coords["feature_scale"] = ("feature", data.scale)
    if contribution.gates is not None:
        variables["gate_attribution"] = (("sample", "layer", "time", "gate", "unit"), contribution.gates)
        coords["layer"] = np.array(contribution.layers, dtype=object)
        coords["gate"] = np.array(GATES, dtype=object)
    attrs = _provenance(explainer, problem, contribution, data)
    attrs |= {
        "inputs": "tokens" if problem.reads_tokens else "features",
        "model": model_id,
        "seconds": seconds,
        "forward_evaluations": evaluations[0],
        "backward_evaluations": evaluations[1],
    }
    if problem.target.timestep is not None:
        attrs["target_time"] = "inputs" if predictor.follows_time else "own"
    return Attribution(xr.Dataset(variables, _coordinates(coords), attrs))


def _coordinates(coords: dict[str, Any]) -> xr.Coordinates:
    """Return coords with an index for each dimension's labels: those xarray would make, most of them from before."""
    import xarray as xr

    made: dict[str, Any] = {name: xr.Variable(*value) for name, value in coords.items() if isinstance(value, tuple)}
    indexes: dict[str, Any] = {}
    for name, labels in coords.items():
        if name not in made:
            find = _index if len(labels) <= FEW_LABELS else _index.__wrapped__
            indexes[name] = find(name, tuple(labels.tolist()), labels.dtype)
    for index in indexes.values():
        made |= index.create_variables()  # anew: a user may write into their attrs
    return xr.Coordinates(made, indexes=indexes)


@lru_cache(maxsize=64)  # checking labels and making an index of them takes as long as explaining a sequence
def _index(name: str, labels: tuple[Any, ...], dtype: np.dtype[Any]) -> Any:
    from xarray.indexes import PandasIndex

    return PandasIndex(np.array(labels, dtype=dtype), name)


def _provenance(explainer: Explainer, problem: Problem, contribution: Contribution, data: DataSpec) -> dict[str, Any]:
    """Return the attrs that say what made an attribution; all are text or numbers, as netCDF wants."""
    baseline = explainer.baseline if isinstance(explainer.baseline, str) else "given"
    predictor = problem.predictor
    if problem.background is not None:
        baseline = f"mean over {len(problem.background)} background sequences"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "method": explainer.name,
        "options": json.dumps(explainer.options(), default=str),
        "completeness": explainer.completeness,
        "measures": explainer.measures,
        "resolution": contribution.resolution,
        "source": explainer.source,
        "baseline_name": baseline,
        "baseline_description": data.baseline_description if baseline == "mean" else "",
        "output": predictor.output,
        "output_unit": data.output_unit,
        "task": predictor.task or "",
        "target": data.target,
        "target_note": data.target_note,
        "classes": json.dumps(data.classes),
        "interval_seconds": data.window.interval_seconds or 0.0,
        "token_unit": data.token_unit,
        "seed": explainer.seed,
        "versions": json.dumps(library_versions(explainer.library)),
    }


def library_versions(*libraries: str | None) -> dict[str, str]:
    """Return the versions of gatelens, Python's numeric libraries and those named."""
    return {name: _version(name) for name in ("gatelens", "torch", "numpy", *libraries) if name}


@cache  # reading a package's metadata takes as long as explaining a small batch
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def _mean_reference(problem: Problem) -> Any:
    if problem.background is None:
        return problem.baseline
    if problem.reads_tokens:  # ids have no mean; the first sequence stands for the set
        return problem.background[:1].expand(problem.inputs.shape)
    mean = problem.background.mean(dim=0, keepdim=True).expand(problem.inputs.shape)
    valid = valid_mask(problem.lengths, problem.inputs.shape[1]).to(mean.device)
    return mean * valid[..., None]


def _as_cells(part: Any) -> NDArray[Any]:
    array: NDArray[Any] = to_numpy(part)
    return np.array(array[..., None] if array.ndim == 2 else array)


def _names(names: Sequence[str] | None, count: int, kind: str, *, token: bool = False) -> NDArray[Any]:
    if token:
        return np.array(["token"], dtype=object)
    if names is None:
        return np.array([f"{kind} {index}" for index in range(count)], dtype=object)
    if len(names) != count:
        raise InvalidInputError(f"{kind}_names has {len(names)} entries; expected {count}, one a {kind}.")
    return np.array([_storable(name) for name in names], dtype=object)


def _storable(name: object) -> str:
    """Return a name as netCDF and UTF-8 can hold it: without NUL, lone surrogates replaced."""
    return str(name).replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _output_names(data: DataSpec, count: int) -> Sequence[str] | None:
    if data.outputs:
        return data.outputs
    if len(data.classes) == count:
        return data.classes
    return (data.classes[1],) if len(data.classes) == 2 and count == 1 else None


def _checked_times(times: Any, batch: int, steps: int) -> NDArray[np.datetime64]:
    array = np.asarray(times)
    if array.shape != (batch, steps) or array.dtype.kind != "M":
        raise InvalidInputError(
            f"times has shape {array.shape} and dtype {array.dtype}; expected datetime64 ({batch}, {steps})."
        )
    return array.astype("datetime64[ns]")
