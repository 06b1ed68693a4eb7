"""The refusals of gatelens: each says what was expected, what came, and how to mend it.

`GatelensError` is the root, so `except GatelensError` catches every refusal and nothing else. The others are
also the built-in exception a Python user would expect (`ValueError`, `TypeError`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GatelensError(Exception):
    """Root of every error that gatelens raises on purpose."""


class InvalidInputError(GatelensError, ValueError):
    """Data or an option has a value that cannot be used."""


class InvalidTypeError(GatelensError, TypeError):
    """Data or an option is of a kind that cannot be used."""


class ModelError(GatelensError, ValueError):
    """The model cannot do what was asked (its output has a wrong shape, it holds no LSTM, it raised)."""


class SavedModelError(GatelensError, ValueError):
    """A saved model on disk cannot be read."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return `known: a, b, c.` with the closest name first, as the end of an error message."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"known: {', '.join(names)}.{hint}"
