"""Reading a store back: as a lazy `Attribution`, in pieces, as a list of failures, or as Parquet for SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models import InvalidInputError
from ...models.files import replacing_file
from ..attribution import Attribution
from .store import COSTS, EXPLAINED, FAILED, AttributionStore

if TYPE_CHECKING:
    import pandas as pd

OWN = ("status", "failure", "chunk_cost")  # of the store, not of an attribution


def open_store(path: str | Path) -> Attribution:
    """Return the explained samples of a store, in its order; arrays are read when they are asked for.

    `.dataset.isel(sample=slice(0, 100))` and `attribution[5]` read only what they need; `.values` reads all.

    Raises:
        InvalidInputError: There is no such store, or it is damaged.
    """
    import xarray as xr

    store = existing(path)
    status = store.status()
    try:
        dataset = xr.open_zarr(store.path, consolidated=False, chunks=None)
    except Exception as error:  # noqa: BLE001 - whatever zarr makes of a stranger's folder
        raise InvalidInputError(f"{store.path} cannot be read: {str(error).splitlines()[0][:200]}") from None
    costs = dataset["chunk_cost"].to_numpy() if "chunk_cost" in dataset else np.zeros((0, len(COSTS)))
    seconds, forward, backward = (float(number) for number in np.nansum(costs, axis=0))
    dataset = dataset.drop_vars([name for name in OWN if name in dataset])
    texts = {name: values.astype(object) for name, values in dataset.coords.items() if values.dtype.kind == "T"}
    dataset = dataset.assign_coords(texts)
    dataset.attrs = {name: value for name, value in dataset.attrs.items() if name not in _OF_STORES} | {
        "seconds": seconds,
        "forward_evaluations": int(forward),
        "backward_evaluations": int(backward),
        "samples_failed": int((status == FAILED).sum()),
        "samples_waiting": int((status == 0).sum()),
    }
    explained = status == EXPLAINED
    if not explained.all():
        dataset = dataset.isel(sample=np.flatnonzero(explained))
    return Attribution.checked(dataset, store.path)


_OF_STORES = ("store_version", "identity", "chunk", "memory_bytes")


def pieces(path: str | Path) -> Iterator[Attribution]:
    """Yield the explained samples of a store in memory, one chunk at a time."""
    store = existing(path)
    whole = open_store(path)
    explained = store.status() == EXPLAINED
    begin = 0
    for index in range(store.chunks):
        count = int(explained[store.rows(index)].sum())
        if count:
            try:
                piece = whole.dataset.isel(sample=slice(begin, begin + count)).load()
            except (ValueError, RuntimeError) as error:  # as codecs tell of damaged bytes
                raise InvalidInputError(f"{store.path} is damaged: chunk {index} cannot be read ({error}).") from None
            yield Attribution(piece)
        begin += count


def failures(path: str | Path) -> pd.DataFrame:
    """Return the samples that could not be explained: columns `position` (from 0), `sample` and `reason`."""
    import pandas as pd

    store = existing(path)
    rows = np.flatnonzero(store.status() == FAILED)
    names, reasons = (store.array(name) for name in ("sample", "failure"))
    return pd.DataFrame(
        {
            "position": rows,
            "sample": [str(names[int(row)]) for row in rows],
            "reason": [str(reasons[int(row)]) for row in rows],
        }
    )


def to_parquet(path: str | Path, out: str | Path) -> Path:
    """Write a store in long form, one row a valid cell, chunk by chunk.

    Columns: `sample` (its name), `position` (its place among the explained samples, from 0), `time`, `feature`,
    `attribution`, `input`, `baseline` (and `std_error`), and of its sample `prediction`, `baseline_prediction`,
    `target_output`.

    Returns:
        The path of the file.

    Raises:
        InvalidInputError: There is no such store, it has no explained sample, or the name does not end in .parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Path(out)
    if out.suffix != ".parquet":
        raise InvalidInputError(f"{out} does not end in .parquet; choose such a name, e.g. attributions.parquet.")
    writer: Any = None
    begin = 0
    with replacing_file(out) as beside:
        try:
            for piece in pieces(path):
                table = pa.Table.from_pandas(_long(piece, begin), preserve_index=False)
                table = table.replace_schema_metadata(None)
                if writer is None:
                    writer = pq.ParquetWriter(beside, table.schema, compression="zstd")
                writer.write_table(table)
                begin += len(piece)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise InvalidInputError(f"{path} has no explained sample yet; explain first.")
    return out


def _long(piece: Attribution, begin: int) -> pd.DataFrame:
    """Return one row a valid cell of a piece whose first sample has the position `begin`."""
    dataset = piece.dataset.assign_coords(sample=np.arange(len(piece)))  # names may stand twice
    frame = Attribution(dataset).to_dataframe()
    rows = frame["sample"].to_numpy()
    frame["sample"] = np.array(piece.sample_names, dtype=object)[rows]
    frame.insert(1, "position", rows + begin)
    for name in ("prediction", "baseline_prediction", "target_output"):
        frame[name] = piece.dataset[name].to_numpy()[rows]
    return frame


def existing(path: str | Path) -> AttributionStore:
    """Return the store at `path`.

    Raises:
        InvalidInputError: There is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise InvalidInputError(f"there is no store {path}; expected a folder that explain_dataset has written.")
    return AttributionStore(path)
