"""Sequences of a dataset, a block at a time: what every source hands out, whatever it reads."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import DataSpec


@dataclass(frozen=True, eq=False)
class Block:
    """Sequences that follow one another in a dataset.

    Attributes:
        inputs: Float32 or float64 (n, T, D) in the model's numbers, or token ids, int64 (n, T); anything at padding.
            T may be less than the dataset's.
        lengths: Int64 (n,); 0 for a sequence without timesteps.
        names: What each sequence is called, (n,).
        times: datetime64[ns] (n, T), where the source has times.
    """

    inputs: NDArray[Any]
    lengths: NDArray[np.int64]
    names: tuple[str, ...]
    times: NDArray[np.datetime64] | None

    def __len__(self) -> int:
        return len(self.names)

    def part(self, start: int, stop: int) -> Block:
        """Return some of the sequences."""
        take = slice(start, stop)
        times = None if self.times is None else self.times[take]
        return Block(self.inputs[take], self.lengths[take], self.names[take], times)


class Source(ABC):
    """Where the sequences of a dataset come from.

    Attributes:
        description: What errors and notes call it.
        count: Sequences.
        steps: Timesteps of the longest.
        features: D; None: token ids.
        dtype: Of the inputs: float32, float64, or int64 for token ids.
        timed: Whether blocks have times.
        notes: What reading did, in words.
        stamp: Changes when the file does; None: it is in memory.
    """

    description: str
    count: int
    steps: int
    features: int | None
    dtype: np.dtype[Any]
    timed: bool
    notes: tuple[str, ...]
    stamp: str | None

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield all sequences in order, at most `rows` at once; each call begins anew."""


@dataclass(frozen=True)
class Expected:
    """What the model reads.

    Attributes:
        spec: Its data description, where it has one.
        tokens: Whether it reads token ids.
        features: D, where it is known.
    """

    spec: DataSpec | None
    tokens: bool
    features: int | None

    @property
    def what(self) -> str:
        """What inputs it takes, in words."""
        if self.tokens:
            return "token ids (samples, time)"
        return f"(samples, time, features{'' if self.features is None else f'={self.features}'})"


def regrouped(blocks: Iterable[Block], rows: int) -> Iterator[Block]:
    """Yield the same sequences `rows` at a time, the last ones fewer."""
    waiting: list[Block] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= rows:
            whole = _joined(waiting)
            full = len(whole) - len(whole) % rows
            for start in range(0, full, rows):
                yield whole.part(start, start + rows)
            count = len(whole) - full
            waiting = [whole.part(full, len(whole))] if count else []
    if waiting:
        yield _joined(waiting)


def _joined(blocks: Sequence[Block]) -> Block:
    """Return the sequences of several blocks as one, padded to the longest."""
    if len(blocks) == 1:
        return blocks[0]
    steps, count = max(block.inputs.shape[1] for block in blocks), sum(map(len, blocks))
    first = blocks[0]
    inputs = np.zeros((count, steps, *first.inputs.shape[2:]), first.inputs.dtype)
    times = None if first.times is None else np.full((count, steps), np.datetime64("NaT"), first.times.dtype)
    start = 0
    for block in blocks:
        stop, own = start + len(block), block.inputs.shape[1]
        inputs[start:stop, :own] = block.inputs
        if times is not None and block.times is not None:
            times[start:stop, :own] = block.times
        start = stop
    names = tuple(name for block in blocks for name in block.names)
    return Block(inputs, np.concatenate([block.lengths for block in blocks]), names, times)


def stamp_of(path: Path) -> str:
    """Return JSON that changes when a file, or a file in a folder, does: name, files, bytes, newest change (ns)."""
    if not path.is_dir():
        found = path.stat()
        return json.dumps([path.name, 1, found.st_size, found.st_mtime_ns])
    files = [os.stat(os.path.join(place, name)) for place, _, names in os.walk(path) for name in names]  # noqa: PTH116, PTH118 - a store may hold very many
    newest = max((file.st_mtime_ns for file in files), default=0)
    return json.dumps([path.name, len(files), sum(file.st_size for file in files), newest])
