"""The newest window of a long file, which goes by in pieces and is never whole in memory."""

from __future__ import annotations

from pathlib import Path

from .cleaning import Cleaner, Counts, Table
from .data_spec import DataSpec
from .series import needed_columns
from .table import NOTES, read_pieces
from .windows import Piece, piece_of, window_spans


def newest_window(path: str | Path, spec: DataSpec) -> tuple[Piece | None, int, int, tuple[str, ...]]:
    """Return the newest window of a CSV that is one series, as `SequenceData.from_frame` would cut it.

    Returns:
        The window, the rows of the file, those of them that cleaning kept, and notes.

    Raises:
        NotInOrderError: The file is out of time order, and the newest window may be anywhere.
    """
    length, counts = spec.window.length, Counts()
    assert length is not None
    cleaner = Cleaner(spec, str(path), counts)
    found: Piece | None = None
    rest: Table | None = None  # what the next window may yet need
    done, notes = 0, ()  # rows before those of `rest`
    for frame in read_pieces(path, needed_columns(spec, None)):
        table = cleaner.feed(frame)
        table = table if rest is None else rest.followed_by(table)
        newest = window_spans(table, spec)[-1:]
        if newest:
            found = piece_of(table, spec, "", *newest[0], offset=done)
        kept = min(length - 1, len(table))
        done, rest, notes = done + len(table) - kept, table.part(len(table) - kept, len(table)), frame.attrs[NOTES]
    cleaner.finish()
    counts.refuse_empty(str(path))
    return found, counts.rows, done + (0 if rest is None else len(rest)), (*notes, *counts.notes(spec))
