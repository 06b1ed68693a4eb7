"""A source that is a folder: its files one after the other, each opened when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...models import GatelensError, InvalidInputError
from .blocks import Block, Source, regrouped


class FolderSource(Source):
    """The sequences of several files, in the order of the files' names.

    All files are opened once, one at a time, to know how many sequences there are, and again as blocks are read.

    Args:
        path: The folder.
        files: What is read of it, in order.
        opened: Opens one of them.

    Raises:
        InvalidInputError: A file does not open, or does not hold what the first one does.
    """

    def __init__(self, path: Path, files: Sequence[Path], opened: Callable[[Path], Source]) -> None:
        self.description, self._files, self._open = str(path), files, opened
        self.count, self.steps, self._counts = 0, 0, []
        notes, stamps, untimed = [], [], []
        self.timed = False
        for file in files:
            source = self._opened(file)
            if not self.count:
                self.features, self.dtype = source.features, source.dtype
            if source.features != self.features:
                raise InvalidInputError(
                    f"{file} holds {_kind(source.features)}, and {files[0]} {_kind(self.features)}; expected the same "
                    "in all files of a folder."
                )
            self.dtype = np.promote_types(self.dtype, source.dtype)
            self.count += source.count
            self.steps = max(self.steps, source.steps)
            self._counts.append(source.count)
            self.timed = self.timed or source.timed
            untimed += [] if source.timed else [file.name]
            notes += [f"{file.name}: {note}" for note in source.notes]
            stamps.append(source.stamp or "")
        if self.timed and untimed:
            self.timed = False
            notes.append(f"times are left out, because {untimed[0]} has none")
        self.notes, self.stamp = tuple(notes), f"[{', '.join(stamps)}]"

    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield all sequences in order, at most `rows` at once; each call begins anew."""
        yield from regrouped(self._read(rows), rows)

    def _read(self, rows: int) -> Iterator[Block]:
        for file, count in zip(self._files, self._counts, strict=True):
            source = self._opened(file)
            if (source.count, source.features) != (count, self.features):
                raise InvalidInputError(
                    f"{file} has changed while it was being read: {count} sequences before and {source.count} now."
                )
            for block in source.blocks(rows):
                names = (file.stem,) if count == 1 else tuple(f"{file.stem}: {name}" for name in block.names)
                inputs = block.inputs.astype(self.dtype, copy=False)
                yield Block(inputs, block.lengths, names, block.times if self.timed else None)

    def _opened(self, file: Path) -> Source:
        try:
            return self._open(file)
        except GatelensError as error:
            if str(file) in str(error):
                raise
            raise InvalidInputError(f"{file}: {error}") from None


def _kind(features: int | None) -> str:
    return "token ids" if features is None else f"sequences of {features} features"
