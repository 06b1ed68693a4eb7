"""Sources that are tables: windows of a CSV, a Parquet file or a DataFrame, or the texts in one of their columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import DataSpec, InvalidInputError, encode_text
from ...models.errors import nearest_name
from ...models.sequence_data import TableWindows, Windows, read_windows
from ...models.table import TOKEN_COLUMN, column_as_ids, columns_as_features, read_header, read_table
from ...models.tokens import UNKNOWN, tokens_of
from .blocks import Block, Expected, Source, stamp_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cutting:
    """How tables become sequences: `windows`, `stride` and `id_column` as in `read_csv`, or a column of texts."""

    windows: Windows = "all"
    stride: int = 1
    id_column: str | None = None
    text_column: str | None = None


class TableSource(Source):
    """The windows of a cleaned table, cut block by block.

    Args:
        description: What errors call it.
        cut: The table.
        notes: What is to be said beside what cleaning did.
        stamp: Of the file.
    """

    def __init__(self, description: str, cut: TableWindows, notes: tuple[str, ...], stamp: str | None) -> None:
        self.description, self.stamp = description, stamp
        self.notes = (*notes, *cut.notes)
        self.count, self.steps = len(cut), cut.longest
        first = cut.read(0, 1)
        self.features = None if cut.spec.vocabulary is not None else len(cut.spec.features)
        self.dtype, self.timed = first.inputs.dtype, first.times is not None
        self._cut = cut

    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield all sequences in order, at most `rows` at once; each call begins anew."""
        for start in range(0, self.count, rows):
            data = self._cut.read(start, start + rows)
            yield Block(data.inputs, data.lengths, data.sample_names, data.times)


class TextSource(Source):
    """The texts of a table's column, each a sequence, encoded block by block; one without a token has length 0.

    Args:
        description: What errors call it.
        texts: The column.
        spec: The model's, which says how a text becomes tokens.
        stamp: Of the file.

    Raises:
        InvalidInputError: No row has a text, or a token is not in a vocabulary that has no entry for unknown ones.
    """

    def __init__(self, description: str, texts: pd.Series[Any], spec: DataSpec, stamp: str | None) -> None:
        known = texts.notna().to_numpy()
        self.rows = np.flatnonzero(known)
        self.description, self.stamp, self.spec = description, stamp, spec
        self.texts = [str(text) for text in texts[known]]
        if not self.texts:
            raise InvalidInputError(f"{description} has no text in {texts.name!r}; expected one a row.")
        self.lengths, notes = self._read_through()
        left = len(known) - len(self.texts)
        self.notes = (*([f"{left} rows have no {texts.name} and are left out"] if left else []), *notes)
        self.count, self.steps = len(self.texts), max(1, int(self.lengths.max()))
        self.features, self.dtype, self.timed = None, np.dtype(np.int64), False

    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield all sequences in order, at most `rows` at once; each call begins anew."""
        for start in range(0, self.count, rows):
            texts, lengths = self.texts[start : start + rows], self.lengths[start : start + rows]
            inputs = np.zeros((len(texts), max(1, int(lengths.max()))), dtype=np.int64)
            names = [f"row {row + 1}" for row in self.rows[start : start + rows]]  # of what has no words
            read = np.flatnonzero(lengths)
            if len(read):
                data = encode_text([texts[row] for row in read], self.spec)
                inputs[read] = data.inputs
                for row, name in zip(read.tolist(), data.sample_names, strict=True):
                    names[row] = name
            yield Block(inputs, lengths, tuple(names), None)

    def _read_through(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return how many tokens each text has, (n,), and what is to be said of all of them."""
        spec = self.spec
        assert spec.vocabulary is not None
        words = set(spec.vocabulary)
        lengths, cut, unknown = np.zeros(len(self.texts), dtype=np.int64), 0, 0
        for place, text in enumerate(self.texts):
            tokens = tokens_of(text, spec.token_unit, lowercase=spec.lowercase)
            cut += spec.max_tokens is not None and len(tokens) > spec.max_tokens
            tokens = tokens[: spec.max_tokens]
            odd = [token for token in tokens if token not in words]
            if odd and UNKNOWN not in words:
                raise InvalidInputError(
                    f"{self.description}: data row {self.rows[place] + 1} holds {odd[0]!r}, which is not in the "
                    f"vocabulary, and that has no {UNKNOWN}."
                )
            unknown += len(odd)
            lengths[place] = len(tokens)
        notes = [f"{cut} texts are cut off after {spec.max_tokens} {spec.token_unit}s"] if cut else []
        if unknown:
            notes.append(f"{unknown} of {lengths.sum()} tokens are not in the vocabulary and read as {UNKNOWN}")
        return lengths, notes


def open_table(path: Path, expected: Expected, cutting: Cutting) -> Source:
    """Return a CSV or Parquet file as a source."""
    spec = _checked_spec(expected, cutting)
    if cutting.text_column is None and not _lacks_features(spec, expected):
        if spec.token_unit and TOKEN_COLUMN not in read_header(path).columns:
            raise InvalidInputError(f"{path} is to hold texts; name their column (text_column, --text-column).")
        cut = read_windows(
            path, spec, windows=cutting.windows, stride=cutting.stride, id_column=cutting.id_column
        )  # fmt: skip
        return TableSource(str(path), cut, (), stamp_of(path))
    return frame_source(read_table(path), expected, cutting, str(path), stamp_of(path))


def frame_source(
    frame: pd.DataFrame, expected: Expected, cutting: Cutting, called: str = "the table", stamp: str | None = None
) -> Source:
    """Return a DataFrame, as `read_table` returns one, as a source."""
    spec, notes = _checked_spec(expected, cutting), []
    if cutting.text_column is not None:
        if cutting.text_column not in frame.columns:
            known = nearest_name(cutting.text_column, map(str, frame.columns))
            raise InvalidInputError(f"{called} has no column {cutting.text_column!r}; {known}")
        return TextSource(called, frame[cutting.text_column], spec, stamp)
    if _lacks_features(spec, expected):
        if expected.tokens:
            spec, note = column_as_ids(spec, frame, None, called)
        else:
            spec, note = columns_as_features(spec, frame, expected.features, called, cutting.id_column)
        notes.append(note)
        if spec.window.length is None and not expected.tokens:
            notes.append(
                f"the whole table{'' if cutting.id_column is None else ' of each id'} is one sequence, because the "
                "model does not say how many rows a window has"
            )
    cut = TableWindows(
        frame, spec, windows=cutting.windows, stride=cutting.stride, id_column=cutting.id_column, source=called
    )  # fmt: skip
    return TableSource(called, cut, tuple(notes), stamp)


def _checked_spec(expected: Expected, cutting: Cutting) -> DataSpec:
    spec = expected.spec or DataSpec()
    if cutting.text_column is not None and (not spec.token_unit or spec.vocabulary is None):
        raise InvalidInputError(
            "text_column is given, and the model does not say how a text becomes tokens; it reads "
            + (f"a table with a column {TOKEN_COLUMN!r}." if expected.tokens else "numbers, so leave it out.")
        )
    return spec


def _lacks_features(spec: DataSpec, expected: Expected) -> bool:
    return spec.vocabulary is None if expected.tokens else not spec.features
