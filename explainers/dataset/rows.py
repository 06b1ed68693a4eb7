"""An array read a few rows at a time: in memory, on disk, computed by dask, or inside a zip."""

from __future__ import annotations

import math
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from ...models import InvalidInputError, InvalidTypeError


class Rows(ABC):
    """An array (n, ...), read from its first row to its last.

    Attributes:
        shape: Its shape.
        dtype: Its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield `rows` rows at a time, the last ones fewer."""


class StoredRows(Rows):
    """Rows that can be read anywhere, but come cheapest by the chunk: each chunk is read once, and held meanwhile.

    Args:
        shape: Shape of the whole.
        dtype: Its type.
        read: Returns rows `start` to `stop`.
        chunks: Rows of a chunk, or of each one.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        read: Callable[[int, int], NDArray[Any]],
        chunks: int | Sequence[int] = 1,
    ) -> None:
        self.shape, self.dtype, self.read = tuple(shape), np.dtype(dtype), read
        self.chunk = chunks if isinstance(chunks, int) else 0
        self.borders = None if isinstance(chunks, int) else np.cumsum(chunks)

    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield `rows` rows at a time, the last ones fewer."""
        held, end = np.empty((0, *self.shape[1:]), self.dtype), 0
        for start in range(0, self.shape[0], rows):
            stop = min(start + rows, self.shape[0])
            if end < stop:
                border = self._border(stop)
                found = self.read(end, border)
                held, end = (np.concatenate([held, found]) if len(held) else found), border
            yield held[: stop - start]
            held = held[stop - start :]

    def _border(self, stop: int) -> int:
        """Return where the chunk ends that holds the row before `stop`."""
        if self.borders is not None:
            return int(self.borders[np.searchsorted(self.borders, stop)])
        return min(-(-stop // self.chunk) * self.chunk, self.shape[0])


class ZippedRows(Rows):
    """An array of an NPZ file, decompressed as it is read; one in Fortran's order is read whole.

    Raises:
        InvalidInputError: It holds Python objects, or is not as large as it says.
    """

    def __init__(self, path: Path, member: str) -> None:
        self.path, self.member = path, member
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            self.shape, self.fortran, self.dtype = _header(file)
            begin = file.tell()
            size = archive.getinfo(member).file_size - begin
        called = f"{path}: the array {member.removesuffix('.npy')!r}"
        if self.dtype.hasobject:
            raise InvalidInputError(
                f"{called} holds Python objects, which are not read because loading them can run code; save numbers "
                "(or text) with np.savez."
            )
        if min(self.shape, default=0) < 0 or math.prod(self.shape) * self.dtype.itemsize != size:
            raise InvalidInputError(
                f"{called} claims the shape {self.shape} of {self.dtype} and holds {size} bytes; the file is damaged, "
                "write it anew with np.savez."
            )

    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield `rows` rows at a time, the last ones fewer."""
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            _header(file)
            count = self.shape[0]
            if self.fortran:
                whole = self._read(file, self.shape[::-1]).T
                yield from (whole[start : start + rows] for start in range(0, count, rows))
                return
            for start in range(0, count, rows):
                yield self._read(file, (min(rows, count - start), *self.shape[1:]))

    def _read(self, file: IO[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
        data = file.read(math.prod(shape) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(shape)  # fails where the data ends too early


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    return read(file)


def mapped(path: Path) -> Rows:
    """Return the array of an NPY file, which stays on disk."""
    return rows_of(npy.open_memmap(path, mode="r"), str(path))


def is_dask(value: Any) -> bool:
    """Whether a value is a dask array, without importing dask."""
    dask = sys.modules.get("dask.array")
    return dask is not None and isinstance(value, dask.Array)


def rows_of(array: Any, called: str) -> Rows:
    """Return an array of any library as rows: numpy, torch, dask, h5py, zarr, or nested lists.

    Raises:
        InvalidTypeError: It is no array.
        InvalidInputError: It has no rows to count.
    """
    if isinstance(array, torch.Tensor):
        if array.layout is not torch.strided or array.is_quantized:
            raise InvalidTypeError(
                f"{called} is a sparse or quantized tensor; pass .to_dense() or .dequantize() of it."
            )
        kind = _as_numpy(array.flatten()[:0]).dtype
        return StoredRows(array.shape, kind, lambda start, stop: _as_numpy(array[start:stop]))
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidTypeError(
            f"{called} is a masked array; fill it first, e.g. with .filled(np.nan), or pass lengths."
        )
    if isinstance(array, (list, tuple)):
        try:
            array = np.asarray(array)
        except ValueError as error:
            raise InvalidInputError(
                f"{called} is not rectangular ({error}); pad shorter sequences at the end and pass lengths."
            ) from None
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        raise InvalidTypeError(f"{called} is {type(array).__name__}; expected an array.")
    shape = tuple(array.shape)
    if not shape:
        raise InvalidInputError(f"{called} is a single value; expected an array of one row a sample.")
    if is_dask(array):
        if any(math.isnan(size) for size in shape):
            raise InvalidInputError(f"{called} does not know its shape {shape}; call its compute_chunk_sizes() first.")
        return StoredRows(
            shape, array.dtype, lambda start, stop: np.asarray(array[start:stop].compute()), array.chunks[0]
        )
    chunks = getattr(array, "chunks", None)  # of h5py and zarr
    chunk = chunks[0] if isinstance(chunks, tuple) and isinstance(chunks[0], int) else 1
    return StoredRows(shape, array.dtype, lambda start, stop: np.asarray(array[start:stop]), chunk)


def _as_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return array
