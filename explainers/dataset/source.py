"""Where the sequences of a dataset come from: `open_source` makes a `Source` of arrays, files, folders and tables."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from ...models import DataSpec, InvalidInputError, InvalidTypeError, SequenceData
from ...models.sequence_data import Windows
from .arrays import array_source, open_npy, open_npz, sequence_source
from .blocks import Block, Expected, Source
from .folder import FolderSource
from .grids import grid_source, is_store, open_netcdf, open_zarr
from .tables import Cutting, frame_source, open_table

__all__ = ["Block", "Source", "open_source"]

ARRAYS = {".npy": open_npy, ".npz": open_npz, ".nc": open_netcdf, ".zarr": open_zarr}
PACKED = (".gz", ".bz2", ".xz", ".zst")  # tables may be
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
KINDS = ", ".join([*ARRAYS, *TABLES])


def open_source(
    source: Any,
    spec: DataSpec | None,
    *,
    tokens: bool,
    features: int | None,
    lengths: Any = None,
    windows: Windows = "all",
    stride: int = 1,
    id_column: str | None = None,
    text_column: str | None = None,
) -> Source:
    """Return the sequences of a dataset, to be read block by block.

    Args:
        source: Inputs (n, T, D) or token ids (n, T) as an array of numpy, torch, dask, h5py or zarr, a `SequenceData`,
            a DataArray or Dataset of xarray, a DataFrame (one row a timestep), or a path: .npy, .npz, .nc, .zarr, a
            table (.csv, .tsv, .txt, .parquet, .pq), or a folder of such files.
        spec: The model's data description, where it has one.
        tokens: Whether the model reads token ids.
        features: How many features D it reads; None: not known.
        lengths: (n,) valid timesteps of an array that does not bring its own; None: all T.
        windows: Which windows of a table: "all", or the newest ("last").
        stride: Rows between two windows.
        id_column: The column that tells a table's sequences apart.
        text_column: The column of a table that holds texts, one a row.

    Raises:
        InvalidInputError: There is no such file, it cannot be read, or it is not what the model reads.
        InvalidTypeError: The source is of no kind that is read, or holds no numbers.
    """
    if spec is not None:
        tokens, features = tokens or spec.vocabulary is not None, features or len(spec.features) or None
    expected = Expected(spec, tokens, features)
    cutting = Cutting(windows, stride, id_column, text_column)
    if isinstance(source, (str, Path)):
        return _opened(Path(source), expected, lengths, cutting)
    library = type(source).__module__.partition(".")[0]
    if library == "pandas" and hasattr(source, "columns"):
        _refuse_lengths(lengths, "a table")
        return frame_source(source, expected, cutting)
    _refuse_columns(cutting, "the source")
    if isinstance(source, SequenceData):
        _refuse_lengths(lengths, "a SequenceData")
        return sequence_source(source, expected)
    if library == "xarray" and hasattr(source, "coords"):
        return grid_source(source, expected, lengths, "the xarray data")
    if isinstance(source, (torch.Tensor, list, tuple)) or hasattr(source, "dtype"):
        return array_source(source, expected, lengths)
    raise InvalidTypeError(
        f"source is {type(source).__name__}; expected an array (numpy, torch, dask, h5py, zarr), SequenceData, xarray "
        f"data, a DataFrame, or a path to {KINDS} or a folder of them."
    )


def _opened(path: Path, expected: Expected, lengths: Any, cutting: Cutting) -> Source:
    suffix = ".zarr" if is_store(path) else _suffix(path)
    if path.is_dir() and suffix != ".zarr":
        return _folder(path, expected, lengths, cutting)
    if not path.exists():
        raise InvalidInputError(f"there is no file {path}; expected {KINDS}, or a folder of them.")
    if suffix in TABLES:
        _refuse_lengths(lengths, "a table")
        return open_table(path, expected, cutting)
    if suffix not in ARRAYS:
        raise InvalidInputError(f"{path} is of a kind that is not read ({suffix or 'no suffix'}); expected {KINDS}.")
    _refuse_columns(cutting, str(path))
    return ARRAYS[suffix](path, expected, lengths)


def _folder(path: Path, expected: Expected, lengths: Any, cutting: Cutting) -> Source:
    _refuse_lengths(lengths, "a folder")
    files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".") and _is_read(file)]
    if not files:
        raise InvalidInputError(f"{path} holds no file that is read; expected {KINDS}.")
    tables = any(_suffix(file) in TABLES for file in files)
    if not tables:
        _refuse_columns(cutting, str(path))
    return FolderSource(path, files, functools.partial(_member, expected=expected, cutting=cutting))


def _suffix(path: Path) -> str:
    """Return a file's suffix; of a table that is packed (.csv.gz) that of the table."""
    suffix = path.suffix.lower()
    within = Path(path.stem).suffix.lower()
    return within if suffix in PACKED and within in TABLES[:3] else suffix


def _is_read(file: Path) -> bool:
    return is_store(file) or (file.is_file() and _suffix(file) in (*ARRAYS, *TABLES))


def _member(file: Path, expected: Expected, cutting: Cutting) -> Source:
    """Open one file of a folder, where the columns named are those of the tables."""
    return _opened(file, expected, None, cutting if _suffix(file) in TABLES else Cutting())


def _refuse_lengths(lengths: Any, what: str) -> None:
    if lengths is not None:
        raise InvalidInputError(f"lengths= is given, and {what} brings its own; leave it out.")


def _refuse_columns(cutting: Cutting, called: str) -> None:
    for name in ("id_column", "text_column"):
        if getattr(cutting, name) is not None:
            raise InvalidInputError(
                f"{name}= (--{name.replace('_', '-')}) is given, and {called} is no table; leave it out."
            )
