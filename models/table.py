"""Tables as files: a CSV with any usual separator, or Parquet, read whole or in pieces as DataFrames."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .data_spec import DataSpec, FeatureSpec
from .errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

_Read = TypeVar("_Read")

TOKEN_COLUMN = "token"  # noqa: S105 - a column's name
NOTES = "gatelens.notes"  # key of a DataFrame's `attrs`: what reading did, in words
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAMPLE_ROWS = 1000  # enough to see how numbers are written
PIECE_ROWS = 100_000
MOST_IDS = 10_000_000  # more words than any vocabulary has
PARQUET = (".parquet", ".pq")
COMMA_NUMBER = re.compile(r"[+-]?\d+(,\d+)?")
POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+")


def read_table(path: str | Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Read a CSV or Parquet file as a DataFrame, with errors that help.

    Args:
        path: The file. Semicolons, tabs and vertical bars are seen as separators by the header, and decimal commas
            where nothing else can be meant; `frame.attrs["gatelens.notes"]` says so.
        columns: Read only these, as far as they are there; None: all.
    """
    path = Path(path)
    if path.suffix.lower() in PARQUET:
        return _read_parquet(_existing(path), columns)
    if columns is not None and TOKEN_COLUMN not in columns:
        return _joined(list(read_pieces(path, columns)))
    dialect = _Dialect.of(_existing(path))
    frame: pd.DataFrame = _with_errors(path, lambda: dialect.read(path))
    if TOKEN_COLUMN in frame.columns and frame[TOKEN_COLUMN].dtype.kind not in "fiu":  # "NA" and "null" are words, too
        words = dialect.read(path, usecols=[TOKEN_COLUMN], dtype=str, keep_default_na=False)
        frame[TOKEN_COLUMN] = words[TOKEN_COLUMN]
    frame.attrs[NOTES] = dialect.notes
    return frame


def read_header(path: str | Path) -> pd.DataFrame:
    """Return a file's columns without their rows (of Parquet with them)."""
    path = Path(path)
    if path.suffix.lower() in PARQUET:
        return read_table(path)
    dialect = _Dialect.of(_existing(path))
    frame: pd.DataFrame = _with_errors(path, lambda: dialect.read(path, nrows=0))
    return frame


def read_pieces(path: str | Path, columns: Collection[str]) -> Iterator[pd.DataFrame]:
    """Yield a CSV's rows piece by piece, in order; the index goes on from piece to piece."""
    path = Path(path)
    dialect = _Dialect.of(_existing(path))
    # pandas' own `usecols` would let rows pass that have more values than the header has names
    with _with_errors(path, lambda: dialect.read(path, chunksize=PIECE_ROWS, low_memory=False)) as reader:
        pieces = iter(reader)
        while (frame := _with_errors(path, lambda: next(pieces, None))) is not None:
            frame = frame[[name for name in frame.columns if name in columns]]
            frame.attrs[NOTES] = dialect.notes
            yield frame


def spec_of_columns(frame: pd.DataFrame, features: int | None, source: str) -> DataSpec:
    """Return a spec for a model that names no features: the table's number columns (that many), in their order."""
    numbers = [str(name) for name in frame.columns if frame[name].dtype.kind in "fiu"]
    if features is not None and len(numbers) != features:
        raise InvalidInputError(
            f"{source} has {len(numbers)} number columns ({', '.join(numbers) or 'none'}); the model reads {features} "
            "features and names none of them, so the table must hold just those, in the order of training."
        )
    return DataSpec(features=tuple(FeatureSpec(name=name) for name in numbers))


def columns_as_features(
    spec: DataSpec, frame: pd.DataFrame, features: int | None, source: str, id_column: str | None = None
) -> tuple[DataSpec, str]:
    """Return the spec with the table's number columns for features, unscaled, and a note that says so."""
    others = frame.drop(columns=[] if id_column is None else [id_column], errors="ignore")
    known = spec_of_columns(others, features, source)
    unread = [str(name) for name in others.columns if str(name) not in known.feature_names]
    note = (
        f"the columns {', '.join(known.feature_names)} are read as they stand, because the model does not say how its "
        "inputs were scaled; if it was trained on scaled numbers, give it those."
        + (f" Not read: {', '.join(unread)}." if unread else "")
    )
    return replace(spec, features=known.features), note


def column_as_ids(spec: DataSpec, frame: pd.DataFrame, size: int | None, source: str) -> tuple[DataSpec, str]:
    """Return the spec of a model that knows no words, whose table holds the ids themselves, and a note that says so.

    Args:
        spec: What is known of the model.
        frame: The table.
        size: Number of token ids; None: as many as the table needs.
        source: What errors call the table.
    """
    whole = TOKEN_COLUMN in frame.columns and frame[TOKEN_COLUMN].dtype.kind in "iu"
    if not whole:
        span = "0 and up" if size is None else f"0 to {size - 1}"
        raise InvalidInputError(
            f"{source} has no column {TOKEN_COLUMN!r} of whole numbers; the model reads token ids, {span}, and "
            "does not say which word each one is, so the table must hold the ids."
        )
    highest = int(frame[TOKEN_COLUMN].max()) if len(frame) else 0
    if size is None and highest >= MOST_IDS:
        raise InvalidInputError(f"{source} holds the token id {highest}; expected ids from 0 to {MOST_IDS - 1}.")
    words = tuple(str(token) for token in range(highest + 1 if size is None else size))
    note = f"{TOKEN_COLUMN!r} is read as token ids, because the model does not say its words."
    return replace(spec, vocabulary=words), note


def _joined(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    frame = pieces[0] if len(pieces) == 1 else pd.concat(pieces)
    frame.attrs[NOTES] = pieces[0].attrs[NOTES]
    return frame


def _existing(path: Path) -> Path:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"{path} {kind}; expected a CSV file, one row a timestep.")
    return path


def _with_errors(path: Path, read: Callable[[], _Read]) -> _Read:
    """Return what `read` returns; what pandas raises becomes a sentence."""
    import pandas as pd

    try:
        found = read()
    except InvalidInputError:
        raise
    except pd.errors.EmptyDataError:
        raise InvalidInputError(f"{path} is empty; expected a CSV with a header and one row a timestep.") from None
    except Exception as error:  # noqa: BLE001 - whatever pandas and the decompressors make of a stranger's bytes
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        hint = " Save it as UTF-8." if isinstance(error, UnicodeDecodeError) else ""
        raise InvalidInputError(f"{path} is not a readable CSV: {reason}.{hint}") from None
    if isinstance(found, pd.DataFrame) and not isinstance(found.index, pd.RangeIndex):
        raise InvalidInputError(  # pandas has taken the first column for row labels
            f"{path} has rows with more values than the header has names ({len(found.columns)}: "
            f"{', '.join(str(name) for name in found.columns)}); give every column a name."
        )
    return found


def _read_parquet(path: Path, columns: Collection[str] | None) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise InvalidInputError(
            f"{path} is a Parquet file, which pandas reads with pyarrow; run `pip install pyarrow`, or save it as CSV."
        ) from None
    except Exception as error:  # noqa: BLE001 - as above
        raise InvalidInputError(f"{path} is not a readable Parquet file: {str(error).strip()[:200]}.") from None
    frame = frame.reset_index() if frame.index.name is not None else frame.reset_index(drop=True)
    return frame if columns is None else frame[[name for name in frame.columns if str(name) in columns]]


@dataclass(frozen=True)
class _Dialect:
    """How a CSV writes its columns and numbers."""

    separator: str
    decimal: str

    @classmethod
    def of(cls, path: Path) -> _Dialect:
        import pandas as pd

        header = [str(name) for name in _with_errors(path, lambda: pd.read_csv(path, nrows=0)).columns]
        count = {sign: header[0].count(sign) for sign in SEPARATORS if len(header) == 1 and sign in header[0]}
        if not count:
            return cls(",", ".")
        separator = max(count, key=lambda sign: count[sign])
        sample = _with_errors(path, lambda: pd.read_csv(path, sep=separator, nrows=SAMPLE_ROWS, dtype=str))
        return cls(separator, _decimal(sample, path, separator))

    @property
    def notes(self) -> tuple[str, ...]:
        if self.separator == ",":
            return ()
        numbers = ", its numbers with decimal commas" if self.decimal == "," else ""
        return (f"the columns are read as separated by {SEPARATORS[self.separator]}{numbers}",)

    def read(self, path: Path, **options: Any) -> Any:
        import pandas as pd

        return pd.read_csv(path, sep=self.separator, decimal=self.decimal, **options)


def _decimal(sample: pd.DataFrame, path: Path, separator: str) -> str:
    """Return the decimal sign; refuse where 1,234 may be either a thousand or little more than one."""
    texts = {str(name): sample[name].dropna().str.strip() for name in sample.columns}
    points = [name for name, column in texts.items() if len(column) and column.map(_is(POINT_NUMBER)).all()]
    commas = [
        name for name, column in texts.items()
        if column.str.contains(",").any() and column.map(_is(COMMA_NUMBER)).all()
    ]  # fmt: skip
    if points or not commas:
        return "."
    written = [text for name in commas for text in texts[name] if "," in text]
    if all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text) for text in written):
        raise InvalidInputError(
            f"{path} is separated by {SEPARATORS[separator]}, and its column {commas[0]!r} holds numbers such as "
            f"{written[0]!r}, which may be {written[0].replace(',', '.')} or {written[0].replace(',', '')}; save it "
            "with decimal points."
        )
    return ","


def _is(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None
