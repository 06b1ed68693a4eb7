"""Texts as tokens: characters or words, their vocabulary, and their ids."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .data_spec import DataSpec, TokenUnit
from .errors import InvalidInputError

PADDING, UNKNOWN = "<padding>", "<unknown>"
WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")  # noqa: RUF001 - an apostrophe as printed


def tokens_of(text: str, unit: TokenUnit, *, lowercase: bool = False) -> list[str]:
    """Return a text's tokens: its characters, or its words and signs.

    A letter with its accents is one character (Unicode's form NFC). A word is letters, digits and underscores, with
    apostrophes and hyphens inside it (`WORD`); every other sign that is no space is a token of its own.
    """
    text = unicodedata.normalize("NFC", text)
    text = text.lower() if lowercase else text
    return WORD.findall(text) if unit == "word" else list(text)


def vocabulary_of(texts: Iterable[Sequence[str]], min_count: int) -> tuple[str, ...]:
    """Return padding, unknown, and the tokens that occur at least so often, the most frequent first."""
    count = Counter(token for text in texts for token in text)
    known = sorted((token for token in count if count[token] >= min_count), key=lambda token: (-count[token], token))
    return (PADDING, UNKNOWN, *known)


def token_ids(
    tokens: Iterable[str], spec: DataSpec, source: str, places: Iterable[int]
) -> tuple[NDArray[np.float64], int]:
    """Return the ids of a token column, (rows,), and how many tokens are unknown.

    A vocabulary with an entry for unknown tokens takes any; another refuses them, with the row from `places`.
    """
    assert spec.vocabulary is not None
    known = {token: index for index, token in enumerate(spec.vocabulary)}
    ids, unknown = [], 0
    for place, token in zip(places, tokens, strict=True):
        found = known.get(token.lower() if spec.lowercase else token)
        if found is None:
            if UNKNOWN not in known:
                raise InvalidInputError(
                    f"{source}: data row {place + 1} has the token {token!r}, not in the vocabulary."
                )
            found, unknown = known[UNKNOWN], unknown + 1
        ids.append(found)
    return np.array(ids, dtype=np.float64), unknown
