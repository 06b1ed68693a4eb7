"""A table as its series: the columns it must have, and the rows of each id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .columns import number_columns
from .data_spec import TIME_TRANSFORMS, DataSpec
from .errors import InvalidInputError, nearest_name
from .table import SEPARATORS, TOKEN_COLUMN

if TYPE_CHECKING:
    import pandas as pd


def grouped(frame: pd.DataFrame, spec: DataSpec, id_column: str | None, source: str) -> list[tuple[str, pd.DataFrame]]:
    """Return a table as its series by name, in their order; the index of each is the rows' place in the table."""
    if len(frame) == 0:
        raise InvalidInputError(no_rows(source))
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
    require_columns(frame, needed_columns(spec, id_column), id_column, source)
    if id_column is None:
        return [("", frame)]
    ids = frame[id_column]
    ids = ids if ids.dtype.kind in "fiub" else ids.astype(str)
    return [(str(name), group) for name, group in frame.groupby(ids, sort=False)]


def needed_columns(spec: DataSpec, id_column: str | None) -> tuple[str, ...]:
    """Return the columns that a table must have."""
    for feature in spec.features:
        if feature.transform in TIME_TRANSFORMS and spec.window.time_column is None:
            raise InvalidInputError(f"feature {feature.name!r} needs the window's time_column, which is not set.")
    tokens = [TOKEN_COLUMN] if spec.vocabulary is not None else []
    others = [column for column in (spec.window.time_column, id_column) if column is not None]
    return tuple(dict.fromkeys([*number_columns(spec), *tokens, *others]))


def require_columns(frame: pd.DataFrame, wanted: Sequence[str], id_column: str | None, source: str) -> None:
    """Refuse a table that lacks a column, has it twice, or leaves a row without id."""
    present = [str(name) for name in frame.columns]
    separators = [sign for sign in SEPARATORS if len(present) == 1 and sign in present[0]]
    if separators:
        raise InvalidInputError(
            f"{source} has one column, {present[0]!r}; it seems to be separated by {separators[0]!r}. "
            "Save it with commas (and decimal points)."
        )
    if id_column is not None and id_column not in present:
        raise InvalidInputError(
            f"{source} has no column {id_column!r} to tell sequences apart; {nearest_name(id_column, present)}"
        )
    for column in wanted:
        if column not in present:
            raise InvalidInputError(
                f"{source} has no column {column!r}; the model needs {', '.join(wanted)}. "
                f"In the file: {', '.join(present)}."
            )
        if present.count(column) > 1:
            raise InvalidInputError(f"{source} has {present.count(column)} columns called {column!r}; keep one.")
    if id_column is not None and frame[id_column].isna().any():
        row = int(frame[id_column].isna().to_numpy().argmax())
        raise InvalidInputError(f"{source}: data row {row + 1} has no {id_column}; every row needs one.")


def no_rows(source: str) -> str:
    """Return what is said of a table that holds nothing."""
    return f"{source} has no rows below its header; expected one row a timestep."
