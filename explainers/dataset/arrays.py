"""Sources that are arrays: checked against what the model reads, and handed out block by block."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError, InvalidTypeError, SequenceData
from .blocks import Block, Expected, Source, stamp_of
from .rows import Rows, ZippedRows, mapped, rows_of

INPUTS, LENGTHS, TIMES = ("inputs", "input"), ("lengths", "length"), ("times", "timestamp")
NAMES = "sample_names"
MOST_PACKED = 100_000  # bytes of inputs a byte on disk: numbers all alike pack that well, data does not


class ArraySource(Source):
    """Sequences that are an array, with what belongs to each.

    Args:
        description: What errors call it.
        inputs: (n, T, D), or token ids (n, T) or (n, T, 1).
        expected: What the model reads.
        lengths: (n,); None: all are full.
        names: (n,); None: they are numbered.
        times: datetime64 (n, T).
        order: Which feature stands at each of the model's D; None: as they are.
        notes: What reading did.
        stamp: Of the file.

    Raises:
        InvalidInputError: A shape or a length does not fit.
        InvalidTypeError: Not numbers, or floats for a model of tokens.
    """

    def __init__(
        self,
        description: str,
        inputs: Rows,
        expected: Expected,
        *,
        lengths: Rows | None = None,
        names: Rows | None = None,
        times: Rows | None = None,
        order: NDArray[np.int64] | None = None,
        notes: tuple[str, ...] = (),
        stamp: str | None = None,
    ) -> None:
        self.description, self.notes, self.stamp = description, notes, stamp
        self.dtype = _checked_dtype(description, inputs, expected)
        shape = inputs.shape
        self.count, self.steps = shape[:2]
        self.features = None if self.dtype == np.int64 else shape[2]
        self.timed = times is not None
        self._inputs, self._names, self._times, self._order = inputs, names, times, order
        if stamp is not None:
            self._refuse_claims(math.prod(shape) * inputs.dtype.itemsize, json.loads(stamp)[2])
        self._lengths = None if lengths is None else self._checked_lengths(lengths)
        if names is not None and names.shape != (self.count,):
            raise InvalidInputError(
                f"{description} has names of the shape {names.shape}; expected ({self.count},), one a sequence."
            )
        if times is not None and (times.shape != shape[:2] or times.dtype.kind != "M"):
            raise InvalidInputError(
                f"{description} has times of the shape {times.shape} and type {times.dtype}; expected datetime64 "
                f"({self.count}, {self.steps}), one a timestep."
            )

    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield all sequences in order, at most `rows` at once; each call begins anew."""
        names = None if self._names is None else self._names.pieces(rows)
        times = None if self._times is None else self._times.pieces(rows)
        inputs = self._inputs.pieces(rows)
        for start in range(0, self.count, rows):
            stop = min(start + rows, self.count)
            values = self._next(inputs, stop - start)
            values = values if self._order is None else values[..., self._order]
            values = values.reshape(values.shape[:2]) if self.features is None else values
            lengths = np.full(stop - start, self.steps) if self._lengths is None else self._lengths[start:stop]
            called = (
                [f"sample {row}" for row in range(start, stop)] if names is None else self._next(names, stop - start)
            )
            moments = None if times is None else self._next(times, stop - start).astype("datetime64[ns]")
            yield Block(
                np.array(values, dtype=self.dtype, order="C"), lengths.astype(np.int64),
                tuple(_text(name) for name in called), moments,
            )  # fmt: skip

    def _next(self, pieces: Iterator[NDArray[Any]], count: int) -> NDArray[Any]:
        try:
            found = next(pieces)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidInputError(f"{self.description} cannot be read: {reason[0].rstrip('.')}.") from error
        if len(found) != count:
            raise InvalidInputError(f"{self.description} ends {count - len(found)} sequences early; it is damaged.")
        return found

    def _refuse_claims(self, claimed: int, stored: int) -> None:
        """Refuse a file so much smaller than its inputs that it cannot hold them, however well it is packed."""
        if claimed > MOST_PACKED * stored:
            raise InvalidInputError(
                f"{self.description} claims {self.count} sequences of {self.steps} timesteps, {claimed} bytes, and has "
                f"{stored} bytes on disk; it is damaged, or most of it was never written."
            )

    def _checked_lengths(self, lengths: Rows) -> NDArray[np.int64]:
        if lengths.shape != (self.count,):
            raise InvalidInputError(
                f"{self.description} has lengths of the shape {lengths.shape}; expected ({self.count},), one each."
            )
        if lengths.dtype.kind not in "iuf":
            raise InvalidTypeError(f"{self.description} has lengths of {lengths.dtype}; expected whole numbers.")
        values = self._next(lengths.pieces(self.count), self.count)
        wrong = ~((values >= 0) & (values <= self.steps) & (values == np.floor(values)))
        if wrong.any():
            row = int(wrong.argmax())
            raise InvalidInputError(
                f"{self.description} has {int(wrong.sum())} lengths that do not fit, the first {values[row]} (sequence "
                f"{row}); expected whole numbers from 0 to {self.steps}, the timesteps of the inputs."
            )
        return values.astype(np.int64)


def _checked_dtype(description: str, inputs: Rows, expected: Expected) -> np.dtype[Any]:
    """Return the type of the blocks; refuse inputs that the model does not read."""
    shape, dtype = inputs.shape, inputs.dtype
    if dtype.kind not in "fiub":
        raise InvalidTypeError(f"{description} holds {dtype} values; expected numbers, {expected.what}.")
    whole = dtype.kind in "iu"
    if expected.tokens and not whole:
        raise InvalidTypeError(f"{description} holds {dtype} values; the model reads {expected.what}, whole numbers.")
    ids = expected.tokens or (expected.features is None and whole and len(shape) == 2)
    if ids and len(shape) != 2 and (len(shape) != 3 or shape[2] != 1):
        raise InvalidInputError(f"{description} has shape {shape}; the model reads {expected.what}.")
    if not ids and len(shape) != 3:
        hint = " For one sequence use inputs[None]." if len(shape) == 2 else ""
        raise InvalidInputError(f"{description} has shape {shape}; the model reads {expected.what}.{hint}")
    if 0 in shape:
        raise InvalidInputError(
            f"{description} has shape {shape}; expected at least one sequence, timestep and feature."
        )
    if not ids and expected.features not in (None, shape[2]):
        raise InvalidInputError(
            f"{description} has shape {shape}, {shape[2]} features; the model reads {expected.what}. Check that the "
            "columns are those the model was trained on."
        )
    if ids:
        return np.dtype(np.int64)
    return np.dtype(np.float32) if np.promote_types(dtype, np.float32) == np.float32 else np.dtype(np.float64)


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def array_source(array: Any, expected: Expected, lengths: Any) -> Source:
    """Return an array of numpy, torch, dask, h5py or zarr as a source."""
    called = "the tensor" if type(array).__module__.startswith("torch") else "the array"
    return ArraySource(called, rows_of(array, called), expected, lengths=given_lengths(lengths))


def given_lengths(lengths: Any) -> Rows | None:
    """Return what a caller passed as lengths=, as rows."""
    return None if lengths is None else rows_of(lengths, "lengths")


def sequence_source(data: SequenceData, expected: Expected) -> Source:
    """Return a `SequenceData` as a source, with its lengths, names and times."""
    names = np.array(data.sample_names, dtype=object)
    times = None if data.times is None else rows_of(data.times, "times")
    return ArraySource(
        "the sequences", rows_of(data.inputs, "inputs"), expected, lengths=rows_of(data.lengths, "lengths"),
        names=rows_of(names, "names"), times=times, notes=data.notes,
    )  # fmt: skip


def open_npy(path: Path, expected: Expected, lengths: Any) -> Source:
    """Return the array of an NPY file as a source; it stays on disk."""
    try:
        rows = mapped(path)
    except Exception as error:  # noqa: BLE001 - whatever numpy makes of a stranger's bytes
        raise InvalidInputError(f"{path} is not a readable NPY file of numbers: {error}.") from None
    return ArraySource(str(path), rows, expected, lengths=given_lengths(lengths), stamp=stamp_of(path))


def open_npz(path: Path, expected: Expected, lengths: Any) -> Source:
    """Return the arrays of an NPZ file as a source; they are decompressed as they are read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
        members = {name.removesuffix(".npy"): ZippedRows(path, name) for name in names}
    except InvalidInputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever zipfile and numpy make of a stranger's bytes
        raise InvalidInputError(f"{path} is not a readable NPZ file: {error}.") from None
    return members_source(str(path), members, expected, lengths, stamp_of(path))


def members_source(
    description: str, members: Mapping[str, Rows], expected: Expected, lengths: Any, stamp: str
) -> Source:
    """Return named arrays as a source: `inputs`, and `lengths`, `sample_names` and `times` where they are there."""
    own = {"lengths": named(members, LENGTHS), "times": named(members, TIMES), "names": named(members, (NAMES,))}
    chosen = named(members, INPUTS)
    if chosen is None:
        chosen = only([name for name in members if name not in own.values()], members, description)
    found = {kind: members[name] for kind, name in own.items() if name is not None}
    if lengths is not None:
        refuse_both(description, own["lengths"])
        found["lengths"] = rows_of(lengths, "lengths")
    return ArraySource(
        description, members[chosen], expected, lengths=found.get("lengths"), names=found.get("names"),
        times=found.get("times"), stamp=stamp,
    )  # fmt: skip


def named(members: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of some names that is among the members."""
    return next((name for name in names if name in members), None)


def only(left: Sequence[str], members: Mapping[str, Any], description: str) -> str:
    """Return the one array that may be the inputs; refuse where there are none or several."""
    if len(left) != 1:
        raise InvalidInputError(
            f"{description} holds the arrays {', '.join(members) or '(none)'}; expected one called 'inputs' "
            "(and perhaps 'lengths', 'times' and names), so that it is known which to read."
        )
    return left[0]


def refuse_both(description: str, own: str | None) -> None:
    """Refuse lengths that are passed for a source that has its own."""
    if own is not None:
        raise InvalidInputError(f"{description} has its own {own!r}, and lengths= is given, too; leave one out.")
