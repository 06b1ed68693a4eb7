"""A source's sequences on their way into a store: in whole chunks, padded with 0, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import Block, Source

READ_ROWS = 256


def digest_of(source: Source) -> str:
    """Return the hash of all sequences, as `AttributionStore.create` finds it."""
    hashes = Hashes()
    for block in gathered(source, READ_ROWS):
        hashes.add(block)
    return hashes.digest()


class Hashes:
    """One hash of each kind of thing, so that it does not depend on how many come at once."""

    def __init__(self) -> None:
        self.parts = [hashlib.sha256() for _ in range(4)]

    def add(self, block: Block) -> None:
        """Take in the next sequences."""
        names = b"".join(name.encode("utf-8", "replace") + b"\0" for name in block.names)
        times = b"" if block.times is None else _bytes(block.times.astype("datetime64[ns]").view(np.int64))
        for part, values in zip(
            self.parts, (_bytes(block.inputs), _bytes(block.lengths.astype(np.int64)), names, times), strict=True
        ):
            part.update(values)

    def digest(self) -> str:
        """Return the hash of all of them."""
        return hashlib.sha256(b"".join(part.digest() for part in self.parts)).hexdigest()[:32]


def gathered(source: Source, chunk: int) -> Iterator[Block]:
    """Yield blocks of `chunk` sequences, the last one smaller, padded to all timesteps; padding is 0."""
    held: list[Block] = []
    count = 0
    for block in source.blocks(chunk):
        start = 0
        while start < len(block.lengths):
            part = _taken(block, slice(start, start + chunk - count), source)
            held.append(part)
            count += len(part.lengths)
            start += len(part.lengths)
            if count == chunk:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _taken(block: Block, rows: slice, source: Source) -> Block:
    times = block.times
    if source.timed:
        missing = np.full(block.inputs.shape[:2], np.datetime64("NaT", "ns"))
        times = _padded(missing if times is None else times, source.steps, np.datetime64("NaT", "ns"))[rows]
    inputs, lengths = _padded(block.inputs[rows], source.steps), block.lengths[rows]
    padding = np.arange(source.steps) >= lengths[:, None]  # (n, T)
    if padding.any():
        inputs = np.where(padding if inputs.ndim == 2 else padding[..., None], inputs.dtype.type(0), inputs)
    return Block(inputs, lengths, tuple(block.names[rows]), times)


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    times = [block.times for block in blocks if block.times is not None]
    return Block(
        np.concatenate([block.inputs for block in blocks]),
        np.concatenate([block.lengths for block in blocks]),
        tuple(name for block in blocks for name in block.names),
        np.concatenate(times) if times else None,
    )


def _padded(values: NDArray[Any], steps: int, fill: Any = 0) -> NDArray[Any]:
    """Return (n, steps, ...) of (n, T, ...)."""
    missing = steps - values.shape[1]
    if missing == 0:
        return values
    return np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)], constant_values=fill)


def _bytes(values: NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(values))  # type: ignore[arg-type]
