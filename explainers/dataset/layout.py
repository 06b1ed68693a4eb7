"""The arrays of a store: their types, what stands for "not there" in them, and how they are compressed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    import zarr

CELLS = ("attribution", "input", "baseline", "std_error", "gate_attribution")  # in the precision of the inputs


def create_like(
    group: zarr.Group, name: str, variable: xr.DataArray, count: int, chunk: int, precision: np.dtype[Any]
) -> zarr.Array[Any]:
    """Make the array of a variable whose first dimension is the sample."""
    dtype = variable.dtype
    if name in CELLS and dtype.kind == "f":
        dtype = np.dtype(np.float64) if precision == np.float64 else np.dtype(np.float32)
    dims = tuple(str(dim) for dim in variable.dims)
    return create(group, name, dims, (count, *variable.shape[1:]), chunk, dtype)


def create(
    group: zarr.Group, name: str, dims: tuple[str, ...], shape: tuple[int, ...], chunk: int, dtype: np.dtype[Any]
) -> zarr.Array[Any]:
    """Make an array, filled with what stands for "not there": NaN, -1, NaT, "" (0 of status).

    Each chunk has a checksum: of one cut short, Blosc would read what lies behind it in memory.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
    from zarr.errors import ContainsArrayError

    attributes: dict[str, Any] = {}
    kind: Any = dtype
    fill: Any = np.nan if dtype.kind == "f" else False if dtype.kind == "b" else 0 if name == "status" else -1
    if name == "std_error":  # where some samples have one, those of a chunk that has none are exact
        fill = 0.0
    compressor: Any = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")
    if dtype.kind in "OUT":
        kind, fill, compressor = str, "", ZstdCodec(level=1)
    elif dtype.kind == "M":
        kind, fill = np.int64, np.iinfo(np.int64).min
        attributes = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian", "_FillValue": fill}
    try:
        return group.create_array(
            name, shape=shape, chunks=(min(chunk, shape[0]), *shape[1:]), dtype=kind, fill_value=fill,
            compressors=[compressor, Crc32cCodec()], dimension_names=dims, attributes=attributes,
        )  # fmt: skip
    except ContainsArrayError:  # another worker was first
        found: Any = group[name]
        return found  # type: ignore[no-any-return]


def write_together(arrays: Mapping[str, zarr.Array[Any]], rows: slice, values: Mapping[str, Any]) -> None:
    """Write rows of several arrays at once, which takes two thirds of the time of one after the other."""

    async def every() -> None:
        await asyncio.gather(*(arrays[name].async_array.setitem(rows, new) for name, new in values.items()))

    asyncio.run(every())


def write_coordinate(group: zarr.Group, name: str, variable: xr.DataArray) -> None:
    """Write names, units or scaling of a dimension."""
    values = variable.to_numpy()
    dims = tuple(str(dim) for dim in variable.dims)
    array = create(group, name, dims, values.shape, values.shape[0], values.dtype)
    array[:] = values.astype(object) if values.dtype.kind in "UT" else values
