"""Which sequences a command is about: windows of a table, texts of a column, or texts given in the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import say

if TYPE_CHECKING:
    import pandas as pd

    from ..models import DataSpec, SequenceData, SequenceModel
    from ..models.sequence_data import Windows

INPUT = Annotated[
    Path | None,
    typer.Option("--input", "-i", help="CSV or Parquet file, one row a timestep, oldest first; else give --text."),
]
TEXT = Annotated[list[str] | None, typer.Option(help="A text, for models that read texts; repeat for several.")]
TEXT_COLUMN = Annotated[
    str | None, typer.Option(help="Column of --input with one text a row, for models that read texts.")
]


def given_sequences(
    model: SequenceModel,
    path: Path | None,
    texts: list[str] | None,
    *,
    text_column: str | None = None,
    windows: str = "last",
    window: int | None = None,
    stride: int = 1,
    end: str | None = None,
    id_column: str | None = None,
) -> SequenceData:
    """Return the sequences that --input, --text and --text-column name."""
    from ..models import InvalidInputError

    if texts and path is not None:
        raise InvalidInputError("--text and --input are both given; leave one out.")
    if texts:
        return _told(_encoded(model, texts, "--text"))
    if path is None:
        raise InvalidInputError("--input is missing; name a CSV or Parquet file (or give --text to a text model).")
    if text_column is None:
        return read_sequences(
            model, path, windows=windows, window=window, stride=stride, end=end, id_column=id_column
        )  # fmt: skip
    return _told(_texts_of(model, path, text_column))


def _encoded(model: SequenceModel, texts: list[str], option: str) -> SequenceData:
    from ..models import DataSpec, InvalidInputError, encode_text

    spec = model.data or DataSpec()
    if not spec.token_unit or spec.vocabulary is None:
        raise InvalidInputError(
            f"{option} is given, and the model does not say how a text becomes tokens; it reads "
            + ("a table with a column 'token'." if model.config.reads_tokens else "numbers, so give --input alone.")
        )
    return encode_text(texts, spec)


def _texts_of(model: SequenceModel, path: Path, column: str) -> SequenceData:
    from dataclasses import replace

    import numpy as np

    from ..models import InvalidInputError
    from ..models.errors import nearest_name
    from ..models.table import read_table

    frame = read_table(path)
    if column not in frame.columns:
        raise InvalidInputError(f"{path} has no column {column!r}; {nearest_name(column, map(str, frame.columns))}")
    kept = np.flatnonzero(frame[column].notna().to_numpy())
    data = _encoded(model, [str(text) for text in frame[column].iloc[kept]], "--text-column")
    left = len(frame) - len(kept)
    notes = (f"{left} rows have no {column} and are left out", *data.notes) if left else data.notes
    return replace(data, table_rows=kept, notes=notes)


def read_sequences(
    model: SequenceModel,
    path: Path,
    *,
    windows: str = "last",
    window: int | None = None,
    stride: int = 1,
    end: str | None = None,
    id_column: str | None = None,
) -> SequenceData:
    """Return the sequences of a CSV as the model reads them; what the model does not say of them is added to it."""
    from ..models import DataSpec, InvalidInputError, SequenceData, read_csv
    from ..models.table import TOKEN_COLUMN, read_header, read_table

    if windows not in ("last", "all"):
        raise InvalidInputError(f'--windows is {windows!r}; expected "last" or "all".')
    which: Windows = "all" if windows == "all" else "last"
    spec = with_window(model.data or DataSpec(), window)
    if spec.token_unit and TOKEN_COLUMN not in read_header(path).columns:
        raise InvalidInputError(f"{path} is to hold texts; name their column with --text-column, or give --text.")
    if spec.features or spec.vocabulary is not None:
        model.data = spec
        data = read_csv(path, spec, windows=which, stride=stride, end=end, id_column=id_column)
    else:
        frame = read_table(path)
        read = _with_ids if model.config.reads_tokens else with_columns
        spec = read(spec, model, frame, path, id_column)
        if spec.window.length is None and not model.config.reads_tokens:
            say(
                f"note: {path.name}: the whole table{'' if id_column is None else ' of each id'} is one sequence, "
                "because the model does not say how many rows a window has; if it was trained on windows, give "
                "their length with --window."
            )
        model.data = spec
        data = SequenceData.from_frame(
            frame, spec, windows=which, stride=stride, end=end, id_column=id_column, source=str(path)
        )
    return _told(data)


def _told(data: SequenceData) -> SequenceData:
    for note in data.notes:
        say(f"note: {note}")
    return data


def with_window(spec: DataSpec, length: int | None) -> DataSpec:
    """Return the spec with windows of that many rows, unless the model says its own."""
    from dataclasses import replace

    from ..models import InvalidInputError

    if length is None:
        return spec
    if length < 1:
        raise InvalidInputError(f"--window is {length}; expected a number of rows, 1 or more.")
    if spec.window.length not in (None, length):
        raise InvalidInputError(f"--window is {length}, but the model reads {spec.window.length} rows; leave it out.")
    return replace(spec, window=replace(spec.window, length=length))


def with_columns(
    spec: DataSpec, model: SequenceModel, frame: pd.DataFrame, path: Path, id_column: str | None
) -> DataSpec:
    """Return the spec with the table's number columns for features, unscaled."""
    from ..models.table import columns_as_features

    spec, note = columns_as_features(spec, frame, model.config.input_size, str(path), id_column)
    say(f"note: {path.name}: {note}")
    return spec


def _with_ids(
    spec: DataSpec, model: SequenceModel, frame: pd.DataFrame, path: Path, _id_column: str | None
) -> DataSpec:
    """Return the spec of a model that knows no words: the table holds the ids themselves."""
    from ..models.table import column_as_ids

    spec, note = column_as_ids(spec, frame, model.config.vocab_size, str(path))
    say(f"note: {path.name}: {note}")
    return spec
