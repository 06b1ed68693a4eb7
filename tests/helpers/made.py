"""Attributions made by hand, so that the words and pictures about them can be foreseen."""

import json
from typing import Any

import numpy as np
import xarray as xr

from gatelens.explainers import Attribution


def made_attribution(
    values: Any,
    *,
    method: str = "integrated_gradients",
    prediction: float | None = None,
    baseline_prediction: float = 0.0,
    completeness: str = "converges",
    resolution: str = "cell",
    output: str = "logit",
    task: str = "regression",
    scores: tuple[float, ...] = (1.0,),
    outputs: tuple[str, ...] = ("output 0",),
    classes: tuple[str, ...] = (),
    features: tuple[str, ...] | None = None,
    inputs: Any = None,
    interval: float = 0.0,
    length: int | None = None,
    **more: Any,
) -> Attribution:
    """Return an Attribution of one sample, values (T, D); their sum is the change unless `prediction` is given."""
    cells = np.asarray(values, dtype=float)[None]  # (1, T, D)
    _, steps, count = cells.shape
    names = features or tuple(f"feature {index}" for index in range(count))
    where = baseline_prediction + cells.sum() if prediction is None else prediction
    dims = ("sample", "time", "feature")
    variables: dict[str, Any] = {
        "attribution": (dims, cells),
        "input": (dims, np.zeros_like(cells) if inputs is None else np.asarray(inputs, dtype=float)[None]),
        "baseline": (dims, np.zeros_like(cells)),
        "prediction": ("sample", [where]),
        "baseline_prediction": ("sample", [baseline_prediction]),
        "completeness_gap": ("sample", [where - baseline_prediction - cells.sum()]),
        "length": ("sample", [steps if length is None else length]),
        "target_output": ("sample", [int(np.argmax(scores))]),
        "scores": (("sample", "output"), [list(scores)]),
    }
    for name in ("surrogate_r2", "target_timestep", "target_last"):
        if name in more:
            variables[name] = ("sample", [more.pop(name)])
    if "std_error" in more:
        variables["std_error"] = (dims, np.asarray(more.pop("std_error"), dtype=float)[None])
    if "timestamp" in more:
        variables["timestamp"] = (("sample", "time"), np.asarray(more.pop("timestamp"))[None])
    if "token" in more:
        variables["token"] = (("sample", "time"), np.asarray(more.pop("token"), dtype=object)[None])
    coords: dict[str, Any] = {
        "sample": ["sample 0"],
        "time": range(steps),
        "feature": list(names),
        "output": list(outputs),
    }
    for name in ("feature_unit", "feature_center", "feature_scale", "feature_group", "feature_transform"):
        if name in more:
            coords[name] = ("feature", list(more.pop(name)))
    if "gates" in more:
        variables["gate_attribution"] = (("sample", "layer", "time", "gate", "unit"), more.pop("gates"))
        coords["layer"] = ["lstm.0"]
        coords["gate"] = ["input_gate", "forget_gate", "candidate", "output_gate"]
    attrs = {
        "method": method, "options": "{}", "completeness": completeness, "resolution": resolution, "source": "by hand",
        "baseline_name": "zero", "baseline_description": "", "output": output, "output_unit": "", "task": task,
        "target": "", "target_note": "", "classes": json.dumps(classes), "interval_seconds": interval, "seed": 0,
        "model": "none", "inputs": "tokens" if names == ("token",) else "features",
        "versions": "{}", "seconds": 0.5, "forward_evaluations": 10, "backward_evaluations": 2,
    }  # fmt: skip
    return Attribution(xr.Dataset(variables, coords, {**attrs, **more}))
