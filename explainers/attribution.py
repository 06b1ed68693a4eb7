"""`Attribution`: the one result of every explainer, with labels, baseline, completeness and provenance.

It is backed by an `xarray.Dataset` with dims (sample, time, feature); `docs/formats.md` lists every variable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError
from ..models.files import replacing_file
from ..models.inputs import as_tensor, valid_mask

if TYPE_CHECKING:
    import pandas as pd
    import shap
    import xarray as xr
    from matplotlib.figure import Figure


FORMAT = "gatelens.Attribution"
FORMAT_VERSION = 1
VARIABLES = ("attribution", "input", "baseline", "prediction", "baseline_prediction", "completeness_gap", "length",
             "target_output", "scores")  # fmt: skip
OF_ALL_SAMPLES = ("samples_failed", "samples_waiting")  # attrs of a store's samples together
PIECE_BYTES = 2**23  # of a piece's cells in float64
MOST_PIECE_SAMPLES = 256
MOST_PIECES_A_CHUNK = 8  # of a store whose chunks are larger than a piece: beyond, memory counts for more than speed
ATTRS = ("method", "options", "completeness", "resolution", "output", "inputs", "task", "model", "seed", "versions")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What an explainer found about a batch of predictions.

    Attributes:
        dataset: `attribution`, `input`, `baseline` (sample, time, feature); `prediction`, `baseline_prediction`,
            `completeness_gap`, `length`, `target_output` (sample); `scores` (sample, output); where known `std_error`
            (sample, time, feature), `gate_attribution` (sample, layer, time, gate, unit), `timestamp` (sample, time),
            and numbers about each sample's explanation; of a model with one output a timestep `target_timestep`, and
            of a sum over a window also `target_last` (sample). attrs: method, options, seed, cost, versions, model
            hash.
    """

    dataset: xr.Dataset

    # -- reading -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.dataset.sizes["sample"])

    def __repr__(self) -> str:
        batch, steps, features = self.dataset["attribution"].shape
        return f"Attribution({self.method}: {batch} samples x {steps} timesteps x {features} features)"

    def __getitem__(self, sample: int) -> Attribution:
        """Return one sample, as an Attribution of one."""
        count = len(self)
        if not -count <= sample < count:
            raise IndexError(f"sample {sample} of an attribution of {count} samples")
        return Attribution(self.dataset.isel(sample=[sample]))

    def pieces(self, samples: int | None = None) -> Iterator[Attribution]:
        """Yield all samples in order, so many at a time, in memory; of a store that was opened only these are read.

        Args:
            samples: How many; None: what takes some megabytes, in whole chunks of a store.
        """
        samples = samples or self._piece()
        for first in range(0, len(self), samples):
            yield self.take(slice(first, first + samples))

    def take(self, samples: slice | NDArray[np.int64]) -> Attribution:
        """Return some of the samples, in memory; how many others of a store failed is not told of these."""
        dataset = self.dataset.isel(sample=samples).load()
        dataset.attrs = {name: value for name, value in dataset.attrs.items() if name not in OF_ALL_SAMPLES}
        return Attribution(dataset)

    def _piece(self) -> int:
        """Return how many samples a piece has."""
        cells = self.dataset.sizes.get("time", 1) * self.dataset.sizes.get("feature", 1)
        fitting = int(np.clip(PIECE_BYTES // max(1, 8 * cells), 1, MOST_PIECE_SAMPLES))
        chunks = [part.encoding.get("chunks") for part in self.dataset.data_vars.values()]
        chunk = next((int(sizes[0]) for sizes in chunks if sizes), 1)  # reading part of one takes as long as all of it
        if chunk > fitting:
            return chunk if chunk <= MOST_PIECES_A_CHUNK * fitting else fitting
        return fitting // chunk * chunk

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
    def of_tokens(self) -> bool:
        """Whether the inputs are token ids."""
        return str(self.dataset.attrs["inputs"]) == "tokens"

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
    def measures(self) -> str:
        """Whether values are a "contribution" or a "sensitivity" (how much a part could matter); they may disagree."""
        known = "contribution" if self.gates is None else "sensitivity"  # of a file that does not say
        return str(self.attrs.get("measures", known))

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
        return texts_as_objects(self.dataset[name].to_numpy()) if name in self.dataset else None

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
        return cls.checked(dataset, path)

    @classmethod
    def open(cls, path: str | Path) -> Attribution:
        """Return the explained samples of a Zarr store that `explain_dataset` wrote, read when they are asked for.

        Raises:
            InvalidInputError: There is no such store, or it is damaged.
        """
        from .dataset.reading import open_store

        return open_store(path)

    @classmethod
    def checked(cls, dataset: xr.Dataset, path: Path) -> Attribution:
        """Return a dataset that was read from `path` as an attribution; refuse one that is none."""
        if dataset.attrs.get("format") != FORMAT:
            raise InvalidInputError(f"{path} is not an attribution of gatelens.")
        missing = [name for name in VARIABLES if name not in dataset] + [n for n in ATTRS if n not in dataset.attrs]
        if missing:
            raise InvalidInputError(f"{path} is an attribution without {', '.join(missing)}; the file is damaged.")
        version = dataset.attrs.get("format_version")
        if not isinstance(version, (int, np.integer)) or not 1 <= version <= FORMAT_VERSION:
            raise InvalidInputError(f"{path} has format_version {version}; this gatelens reads up to {FORMAT_VERSION}.")
        return cls(dataset)

    def plot(self, sample: int | None = None, *, kind: str | None = None, **options: Any) -> Figure:
        """Draw a picture (matplotlib), which `.savefig("a.pdf")` or `.savefig("a.svg")` writes as vectors.

        Args:
            sample: Which one; None: the first. Pictures of all samples take none.
            kind: Of one sample "timesteps", "features", "heatmap", "inputs" or "gates"; of all "summary", "beeswarm",
                "global_timesteps" or "global_features". None: timesteps, or features where these alone are told apart.
            options: `theme`, `ax` and whatever else the function of `gatelens.reports.plots` takes.

        Raises:
            InvalidInputError: There is no such kind or sample, or the method does not tell apart what it draws.
        """
        from ..reports.plots import plot_kind  # the one step against the arrows, taken only when called

        return plot_kind(self, sample, kind=kind, **options)

    def _repr_html_(self) -> str:
        """Return predictions, completeness and the largest parts, for notebooks."""
        from .notebook import attribution_html

        return attribution_html(self)


def texts_as_objects(values: NDArray[Any]) -> NDArray[Any]:
    """Return values with numpy's texts of variable length, which Zarr gives, as plain texts."""
    return values.astype(object) if values.dtype.kind == "T" else values
