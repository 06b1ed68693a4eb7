"""Sources that are xarray's: a DataArray or Dataset, a netCDF file, or a Zarr store, read lazily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from .arrays import INPUTS, LENGTHS, TIMES, ArraySource, given_lengths, members_source, named, only, refuse_both
from .blocks import Expected, Source, stamp_of
from .rows import Rows, StoredRows, rows_of
from .store import refuse_pickles

if TYPE_CHECKING:
    import xarray as xr

DIMS = ("sample", "time", "feature")
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")  # one of them is in the folder of a store


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store (or is called one)."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in ZARR_FILES))


def open_netcdf(path: Path, expected: Expected, lengths: Any) -> Source:
    """Return a netCDF file as a source."""
    try:
        dataset = _opened(path, engine="h5netcdf")
    except Exception as error:  # noqa: BLE001 - whatever HDF5 makes of a stranger's bytes
        raise InvalidInputError(f"{path} is not a readable netCDF-4 file: {_first_line(error)}.") from None
    return grid_source(dataset, expected, lengths, str(path), stamp_of(path))


def open_zarr(path: Path, expected: Expected, lengths: Any) -> Source:
    """Return a Zarr store, version 2 or 3, as a source; dimensions without names are told by their position."""
    import zarr

    try:
        found = zarr.open(path, mode="r")
        arrays = {"inputs": found} if isinstance(found, zarr.Array) else dict(found.arrays())
        refuse_pickles(path, arrays)
        if all(_has_dims(array) for array in arrays.values()) and not isinstance(found, zarr.Array):
            dataset = _opened_store(path)
        else:
            dataset = None
    except InvalidInputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever zarr makes of a stranger's folder
        raise InvalidInputError(f"{path} is not a readable Zarr store: {_first_line(error)}.") from None
    if dataset is None:
        members = {name: rows_of(array, f"{path}: {name}") for name, array in arrays.items()}
        return members_source(str(path), members, expected, lengths, stamp_of(path))
    return grid_source(dataset, expected, lengths, str(path), stamp_of(path))


def _opened(path: Path, **options: Any) -> xr.Dataset:
    import xarray as xr

    return xr.open_dataset(
        path, chunks=None, cache=False, decode_timedelta=False, create_default_indexes=False, **options
    )  # an index would load all names at once


def _opened_store(path: Path) -> xr.Dataset:
    """Open a store; where it says nothing but Zarr's own default, 0 is a value and not a missing one."""
    options = {"engine": "zarr", "consolidated": False}
    dataset = _opened(path, **options)
    masked = {
        str(name): variable.encoding.get("_FillValue") not in (0, False) or "scale_factor" in variable.encoding
        for name, variable in dataset.variables.items()
    }  # of version 2 xarray takes every fill value for missing; packed numbers are left to it
    return dataset if all(masked.values()) else _opened(path, mask_and_scale=masked, **options)


def _has_dims(array: Any) -> bool:
    if array.metadata.zarr_format == 2:
        return "_ARRAY_DIMENSIONS" in array.attrs
    return array.ndim == 0 or array.metadata.dimension_names is not None


def grid_source(
    data: xr.DataArray | xr.Dataset, expected: Expected, lengths: Any, called: str, stamp: str | None = None
) -> Source:
    """Return xarray's data as a source.

    Dimensions are told by the names sample, time and feature, the others by their position. A Dataset's inputs are its
    variable `inputs` or `input`, or its only one with as many dimensions; `lengths` or `length` (sample), `times` or
    `timestamp` (sample, time), a coordinate of the samples' names and one of the features' are read where they are.
    """
    import xarray as xr

    if isinstance(data, xr.DataArray):
        variable, others = data.variable, {str(name): found.variable for name, found in data.coords.items()}
    else:
        others = {str(name): found for name, found in data.variables.items()}
        variable = others[_chosen(data, expected, called)]
    if variable.ndim not in (2, 3):
        raise InvalidInputError(f"{called} has inputs of the dimensions {variable.dims}; expected {expected.what}.")
    dims = _ordered(variable)
    own = named(others, LENGTHS)
    if lengths is not None:
        refuse_both(called, own)
    times = named(others, TIMES)
    order, notes = None, tuple[str, ...]()
    if len(dims) == 3 and not expected.tokens and dims[2] in others:
        order, notes = _model_order(others[dims[2]], expected, called)
    return ArraySource(
        called, _rows(variable, dims), expected, order=order, notes=notes, stamp=stamp,
        lengths=given_lengths(lengths) if own is None else _aligned(others[own], dims[:1], own, called),
        names=_rows(others[dims[0]], dims[:1]) if dims[0] in others else None,
        times=None if times is None else _aligned(others[times], dims[:2], times, called),
    )  # fmt: skip


def _chosen(data: xr.Dataset, expected: Expected, called: str) -> str:
    found = next((name for name in INPUTS if name in data.variables), None)
    if found is not None:
        return found
    sizes = (2, 3) if expected.tokens else (3,)
    variables = {
        str(name): variable.ndim for name, variable in data.data_vars.items() if str(name) not in LENGTHS + TIMES
    }
    return only([name for name, ndim in variables.items() if ndim in sizes], variables, called)


def _ordered(variable: xr.Variable) -> tuple[Any, ...]:
    """Return a variable's dimensions as (sample, time, feature): by name, and the others as they come."""
    roles = DIMS[: variable.ndim]
    others = (dim for dim in variable.dims if dim not in roles)
    return tuple(role if role in variable.dims else next(others) for role in roles)


def _aligned(variable: xr.Variable, dims: tuple[Any, ...], name: str, called: str) -> Rows:
    if set(variable.dims) != set(dims):
        raise InvalidInputError(
            f"{called} has {name!r} with the dimensions {variable.dims}; expected {dims}, those of the inputs."
        )
    return _rows(variable, dims)


def _rows(variable: xr.Variable, dims: tuple[Any, ...]) -> Rows:
    """Return a variable as rows of `dims`; a lazy one is read chunk by chunk."""
    axes, sample = [variable.dims.index(dim) for dim in dims], dims[0]
    chunks: Any = variable.chunksizes.get(sample) or variable.encoding.get("preferred_chunks", {}).get(sample, 1)

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.transpose(variable.isel({sample: slice(start, stop)}).to_numpy(), axes)

    if not isinstance(chunks, int) and sum(chunks) != variable.sizes[sample]:
        chunks = 1  # of the file that this is a part of
    return StoredRows([variable.sizes[dim] for dim in dims], variable.dtype, read, chunks)


def _model_order(
    variable: xr.Variable, expected: Expected, called: str
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return which feature stands at each of the model's, where both have names, and a note where that is another."""
    wanted = () if expected.spec is None else expected.spec.feature_names
    if not wanted or variable.ndim != 1 or variable.dtype.kind in "iufb":
        return None, ()
    found = [str(name) for name in variable.to_numpy()]
    if sorted(found) != sorted(wanted):
        unknown = [name for name in found if name not in wanted]
        missing = [name for name in wanted if name not in found]
        told = [f"not the model's: {', '.join(unknown)}"] if unknown else []
        told += [f"missing: {', '.join(missing)}"] if missing else []
        raise InvalidInputError(
            f"{called} has the features {', '.join(found)}; the model reads {', '.join(wanted)} "
            f"({'; '.join(told) or 'some are there twice'}). Rename or choose them to match."
        )
    if found == list(wanted):
        return None, ()
    return np.array([found.index(name) for name in wanted]), (
        f"the features were put in the model's order: {', '.join(wanted)}",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
