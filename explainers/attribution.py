"""`Attribution`: the one result of every explainer, with labels, baseline, completeness and provenance.

It is backed by an `xarray.Dataset` with dims (sample, time, feature); `docs/formats.md` lists every variable.
"""

from __future__ import annotations

import html
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import DataSpec, InvalidInputError
from ..models.files import replacing_file
from ..models.inputs import as_tensor, valid_mask
from ..models.trace import GATES

if TYPE_CHECKING:
    import pandas as pd
    import shap
    import xarray as xr
    from matplotlib.figure import Figure

    from .base import Explainer
    from .problem import Contribution, Problem

FORMAT = "gatelens.Attribution"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Attribution:
    """What an explainer found about a batch of predictions.

    Attributes:
        dataset: `attribution`, `input`, `baseline` (sample, time, feature); `prediction`, `baseline_prediction`,
            `completeness_gap`, `length`, `target_output` (sample); `scores` (sample, output); where known `std_error`
            (sample, time, feature), `gate_attribution` (sample, layer, time, gate, unit), `timestamp` (sample, time),
            and numbers about each sample's explanation. attrs: method, options, seed, cost, versions, model hash.
    """

    dataset: xr.Dataset

    # -- reading -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.dataset.sizes["sample"])

    def __repr__(self) -> str:
        batch, steps, features = self.values.shape
        return f"Attribution({self.method}: {batch} samples x {steps} timesteps x {features} features)"

    def __getitem__(self, sample: int) -> Attribution:
        """Return one sample, as an Attribution of one."""
        count = len(self)
        if not -count <= sample < count:
            raise IndexError(f"sample {sample} of an attribution of {count} samples")
        return Attribution(self.dataset.isel(sample=[sample]))

    @property
    def values(self) -> NDArray[Any]:
        """(B, T, D): contribution of each cell to the explained number, 0 at padding."""
        return self.dataset["attribution"].to_numpy()

    @property
    def timesteps(self) -> NDArray[Any]:
        """(B, T): contribution of each timestep, summed over features."""
        return np.asarray(self.values.sum(axis=2))

    @property
    def features(self) -> NDArray[Any]:
        """(B, D): contribution of each feature, summed over time.

        Raises:
            InvalidInputError: The method does not tell features apart (resolution "timestep" or "segment").
        """
        if not self.resolves_features:
            raise InvalidInputError(
                f"{self.method} explained by {self.resolution}, which does not tell features apart; explain with "
                "players='cell' or 'feature', or with a gradient method."
            )
        return np.asarray(self.values.sum(axis=1))

    @property
    def resolution(self) -> str:
        """The finest part that is told apart: "cell", "timestep", "segment" or "feature"."""
        return str(self.dataset.attrs["resolution"])

    @property
    def resolves_features(self) -> bool:
        """Whether features are told apart."""
        return self.resolution in ("cell", "feature")

    @property
    def resolves_time(self) -> bool:
        """Whether timesteps (or segments) are told apart."""
        return self.resolution != "feature"

    @property
    def prediction(self) -> NDArray[Any]:
        """(B,): the explained number."""
        return self.dataset["prediction"].to_numpy()

    @property
    def baseline_prediction(self) -> NDArray[Any]:
        """(B,): the explained number of the baseline."""
        return self.dataset["baseline_prediction"].to_numpy()

    @property
    def completeness_gap(self) -> NDArray[Any]:
        """(B,): f(x) - f(baseline) - sum of attributions, in output units."""
        return self.dataset["completeness_gap"].to_numpy()

    @property
    def inputs(self) -> NDArray[Any]:
        """(B, T, D): the inputs in the model's numbers; token ids (B, T, 1)."""
        return self.dataset["input"].to_numpy()

    @property
    def lengths(self) -> NDArray[Any]:
        """(B,): valid timesteps."""
        return self.dataset["length"].to_numpy()

    @property
    def std_error(self) -> NDArray[Any] | None:
        """(B, T, D): standard error of sampling, where the method knows it."""
        return self.dataset["std_error"].to_numpy() if "std_error" in self.dataset else None

    @property
    def gates(self) -> xr.DataArray | None:
        """(sample, layer, time, gate, unit): attribution of each gate, where the method explains gates."""
        return self.dataset.get("gate_attribution")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the D features."""
        return tuple(str(name) for name in self.dataset["feature"].to_numpy())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the K outputs."""
        return tuple(str(name) for name in self.dataset["output"].to_numpy())

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the B samples."""
        return tuple(str(name) for name in self.dataset["sample"].to_numpy())

    @property
    def method(self) -> str:
        """Name of the explainer."""
        return str(self.dataset.attrs["method"])

    @property
    def options(self) -> dict[str, Any]:
        """Options of the explainer."""
        return dict(json.loads(self.dataset.attrs["options"]))

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what made this."""
        return dict(json.loads(self.dataset.attrs["versions"]))

    @property
    def attrs(self) -> dict[str, Any]:
        """All provenance: method, options, target, seed, seconds, evaluations, versions, model hash."""
        return {str(name): value for name, value in self.dataset.attrs.items()}

    def diagnostic(self, name: str) -> NDArray[Any] | None:
        """Return (B,) numbers about the explanation, e.g. "surrogate_r2"; None where the method has none."""
        return self.dataset[name].to_numpy() if name in self.dataset else None

    # -- leaving -----------------------------------------------------------------------------------------------------

    def to_xarray(self) -> xr.Dataset:
        """Return a copy of the dataset."""
        return self.dataset.copy(deep=True)

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a valid cell: sample, time, feature, attribution, input, baseline (and std_error)."""
        names = ["attribution", "input", "baseline", *(["std_error"] if "std_error" in self.dataset else [])]
        wanted = ["sample", "time", "feature", *names]
        steps = self.dataset.sizes["time"]
        valid = valid_mask(as_tensor(self.lengths), steps).numpy()  # (B, T)
        rows = np.repeat(valid.ravel(), self.dataset.sizes["feature"])
        frame = self.dataset[names].to_dataframe(dim_order=["sample", "time", "feature"]).reset_index()
        return frame.loc[rows, wanted].reset_index(drop=True)

    def to_shap(self) -> shap.Explanation:
        """Return a `shap.Explanation` whose columns are "feature @ timestep", for shap's own plots."""
        import shap

        batch, steps, features = self.values.shape
        names = [f"{feature} @ {time}" for time in range(steps) for feature in self.feature_names]
        return shap.Explanation(
            values=self.values.reshape(batch, steps * features),
            base_values=self.baseline_prediction,
            data=self.inputs.reshape(batch, steps * features),
            feature_names=names,
        )

    def save(self, path: str | Path) -> Path:
        """Write a netCDF file, whole or not at all.

        Returns:
            The path.
        """
        path = Path(path)
        if path.suffix != ".nc":
            raise InvalidInputError(
                f"{path} does not end in .nc; an attribution is saved as netCDF, e.g. attribution.nc."
            )
        with replacing_file(path) as beside:
            self.dataset.to_netcdf(beside, engine="h5netcdf")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """Read what `save` wrote.

        Raises:
            InvalidInputError: There is no such file, or it is no attribution.
        """
        import xarray as xr

        path = Path(path)
        if not path.is_file():
            raise InvalidInputError(f"there is no file {path}; expected an attribution, as Attribution.save writes it.")
        try:
            dataset = xr.load_dataset(path, engine="h5netcdf")
        except Exception as error:  # noqa: BLE001 - whatever HDF5 makes of a stranger's bytes
            raise InvalidInputError(f"{path} is not a readable netCDF file: {error}.") from None
        if dataset.attrs.get("format") != FORMAT or "attribution" not in dataset:
            raise InvalidInputError(f"{path} is netCDF, but not an attribution of gatelens.")
        version = dataset.attrs.get("format_version")
        if not isinstance(version, (int, np.integer)) or not 1 <= version <= FORMAT_VERSION:
            raise InvalidInputError(f"{path} has format_version {version}; this gatelens reads up to {FORMAT_VERSION}.")
        return cls(dataset)

    def plot(self, sample: int = 0) -> Figure:
        """Draw the timesteps of one sample as bars (matplotlib)."""
        from ..reports.plots import plot_timesteps  # the one step against the arrows, taken only when called

        return plot_timesteps(self, sample)

    def _repr_html_(self) -> str:
        """Return a short table for notebooks."""
        rows = [
            ("method", self.method),
            ("samples x timesteps x features", " x ".join(str(size) for size in self.values.shape)),
            ("prediction", _numbers(self.prediction)),
            ("baseline prediction", _numbers(self.baseline_prediction)),
            ("completeness gap", _numbers(self.completeness_gap)),
            (
                "evaluations",
                f"{self.attrs['forward_evaluations']} forward, {self.attrs['backward_evaluations']} backward",
            ),
            ("seconds", f"{self.attrs['seconds']:.2f}"),
        ]
        body = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
        return f"<table>{body}</table>"

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        *,
        explainer: Explainer,
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
            "seconds": seconds,
            "forward_evaluations": evaluations[0],
            "backward_evaluations": evaluations[1],
        }
        return cls(xr.Dataset(variables, coords, attrs))


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
        "seed": explainer.seed,
        "model": predictor.model_id(),
        "versions": json.dumps(library_versions(explainer.library)),
    }


def library_versions(*libraries: str | None) -> dict[str, str]:
    """Return the versions of gatelens, Python's numeric libraries and those named."""
    names = ["gatelens", "torch", "numpy", *(name for name in libraries if name)]
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _mean_reference(problem: Problem) -> Any:
    if problem.background is None:
        return problem.baseline
    if problem.reads_tokens:  # ids have no mean; the first sequence stands for the set
        return problem.background[:1].expand(problem.inputs.shape)
    mean = problem.background.mean(dim=0, keepdim=True).expand(problem.inputs.shape)
    valid = valid_mask(problem.lengths, problem.inputs.shape[1]).to(mean.device)
    return mean * valid[..., None]


def _as_cells(part: Any) -> NDArray[Any]:
    array: NDArray[Any] = part.detach().cpu().numpy()
    return np.array(array[..., None] if array.ndim == 2 else array)


def _names(names: Sequence[str] | None, count: int, kind: str, *, token: bool = False) -> NDArray[Any]:
    if token:
        return np.array(["token"], dtype=object)
    if names is None:
        return np.array([f"{kind} {index}" for index in range(count)], dtype=object)
    if len(names) != count:
        raise InvalidInputError(f"{kind}_names has {len(names)} entries; expected {count}, one a {kind}.")
    return np.array([str(name) for name in names], dtype=object)


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


def _numbers(values: NDArray[Any]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:5])
    return shown if len(values) <= 5 else f"{shown}, ... ({len(values)} in all)"
