"""From texts to training, validation and test: `prepare_text`; and new texts for a trained model: `encode_text`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .answers import Answers, class_numbers, classes_of, number_targets, told_task
from .data_spec import DataSpec
from .errors import InvalidInputError, InvalidTypeError, nearest_name
from .preparation import Prepared
from .sequence_data import SequenceData
from .splitting import LEFT_OUT, PARTS, checked_fractions, deal
from .tokens import PADDING, UNKNOWN, tokens_of, vocabulary_of
from .windows import Piece

Unit = Literal["character", "word"]
TextSplit = Literal["random", "grouped"]
LONGEST_NAME = 60


def prepare_text(
    texts: Sequence[str],
    labels: Sequence[Any],
    *,
    unit: Unit = "character",
    groups: Sequence[Hashable] | None = None,
    min_count: int = 1,
    max_length: int | None = None,
    lowercase: bool = False,
    split: TextSplit = "random",
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Prepared:
    """Make training, validation and test sequences of token ids from texts with labels.

    The vocabulary and the classes are those of the training part. No text is in two parts: a random split keeps equal
    ones together, and one that groups share stays in the first of training, validation and test alone.

    Args:
        texts: The texts.
        labels: Class of each, as text or whole number, or a number to predict.
        unit: What a token is: "character" or "word" (see `tokens_of`).
        groups: What belongs together in a grouped split, one entry a text.
        min_count: A token that occurs less often in training is not in the vocabulary.
        max_length: A longer text is cut off after so many tokens.
        lowercase: Read all texts in lower case.
        split: "random" (by text) or "grouped".
        fractions: Shares of training, validation and test, of the texts or of the groups; 0 for one that is not needed.
        seed: Of the split.

    Raises:
        InvalidInputError: The texts cannot be split or labelled so; the message says how to mend it.
    """
    import pandas as pd

    shares, texts, labels = checked_fractions(fractions), _checked_texts(texts, "texts"), list(labels)
    groups = None if groups is None else list(groups)
    _check_options(texts, labels, groups, unit, split, min_count)
    spec = DataSpec(vocabulary=(PADDING, UNKNOWN), token_unit=unit, lowercase=lowercase, max_tokens=max_length)
    found = [_tokens(text, spec) for text in texts]
    cut = sum(long for _, long in found)
    notes = [f"{cut} texts are cut off after {max_length} {unit}s"] if cut else []
    tokens = [short for short, _ in found]
    answers = Answers.of(pd.DataFrame({"label": pd.Series(labels)}), ["label"], "labels", None)
    usable = np.flatnonzero(np.array([len(one) > 0 for one in tokens], dtype=bool) & answers.known)
    if len(usable) < len(texts):
        notes.append(f"{len(texts) - len(usable)} texts are empty or have no label, and are left out")
    together = tokens if groups is None or split == "random" else groups
    part = np.full(len(texts), LEFT_OUT)
    part[usable] = _dealt([together[row] for row in usable], shares, seed)
    shared = _shared([tokens[row] for row in usable], part[usable])
    part[usable[shared]] = LEFT_OUT
    if shared.any():
        notes.append(f"{int(shared.sum())} texts occur in an earlier part, too, and are left out")
    sizes = [int((part == number).sum()) for number in range(len(PARTS))]
    for number, share in enumerate(shares):
        if share and not sizes[number]:
            raise InvalidInputError(
                f"the {PARTS[number]} part holds no text that no earlier part has; give more texts, or other fractions."
            )
    listed = ", ".join(f"{size} {name}" for size, name in zip(sizes, PARTS, strict=True) if size)
    said = f"{split} split of {len(texts)} texts: {listed}"
    notes.append(said)
    train = np.flatnonzero(part == 0)
    task, reason = told_task(answers, train, forecast=False, outputs=1)
    notes.append(f"this is taken for a {task} task, because {reason.replace(repr('label'), 'the label')}")
    spec = replace(
        spec,
        vocabulary=vocabulary_of([tokens[row] for row in train], min_count),
        classes=() if task == "regression" else classes_of(answers, train, task),
        outputs=("label",) if task == "regression" else (),
        target="the label",
        provenance={"split": said, "prepared": {
            "split": split, "fractions": list(shares), "seed": seed, "min_count": min_count,
            "texts": dict(zip(PARTS, sizes, strict=True)),
        }},
    )  # fmt: skip
    if task == "binary":
        notes.append(f"{spec.classes[1]!r} counts as yes (1), {spec.classes[0]!r} as no (0)")
    parts: list[SequenceData | None] = []
    for number, name in enumerate(PARTS):
        rows = np.flatnonzero(part == number)
        if not len(rows):
            parts.append(None)
            continue
        data, unknown, count = _encoded([texts[row] for row in rows], [tokens[row] for row in rows], spec)
        if number and unknown:
            notes.append(f"{unknown} of {count} tokens of the {name} part are not in the vocabulary")
        asked = (class_numbers(answers, rows, spec.classes, name) if spec.classes
                 else number_targets(answers, rows, task))  # fmt: skip
        parts.append(replace(data, targets=asked, rows=rows, table_rows=rows))
    assert parts[0] is not None
    return Prepared(parts[0], parts[1], parts[2], spec, task, tuple(notes))


def encode_text(texts: Sequence[str], spec: DataSpec) -> SequenceData:
    """Return new texts as a model reads them, with its own vocabulary; `spec` is that of `prepare_text`.

    Raises:
        InvalidInputError: The spec knows no texts, or a text has no token.
    """
    if spec.vocabulary is None or not spec.token_unit:
        raise InvalidInputError(
            "the spec does not say how a text becomes tokens (vocabulary and token_unit); use that of prepare_text."
        )
    texts = _checked_texts(texts, "texts")
    if not texts:
        raise InvalidInputError("texts is empty; give at least one text.")
    found = [_tokens(text, spec) for text in texts]
    for place, (tokens, _) in enumerate(found):
        if not tokens:
            raise InvalidInputError(
                f"texts[{place}] is {texts[place]!r}, which has no {spec.token_unit}; leave it out."
            )
    data, unknown, count = _encoded(texts, [tokens for tokens, _ in found], spec)
    notes = []
    if cut := sum(long for _, long in found):
        notes.append(f"{cut} texts are cut off after {spec.max_tokens} {spec.token_unit}s")
    if unknown:
        notes.append(f"{unknown} of {count} tokens are not in the vocabulary and read as {UNKNOWN}")
    return replace(data, notes=tuple(notes))


def _checked_texts(texts: Any, name: str) -> list[str]:
    if isinstance(texts, str):
        raise InvalidTypeError(f"{name} is one text; expected a list of texts, e.g. [{texts[:20]!r}].")
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise InvalidTypeError(f"{name}[{place}] is {text!r}; expected text.")
    return found


def _check_options(
    texts: list[str], labels: list[Any], groups: list[Hashable] | None, unit: str, split: str, min_count: int
) -> None:
    for name, value, choices in (("unit", unit, get_args(Unit)), ("split", split, get_args(TextSplit))):
        if value not in choices:
            raise InvalidInputError(f"{name} is {value!r}; {nearest_name(str(value), choices)}")
    if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
        raise InvalidInputError(f"min_count is {min_count!r}; expected a whole number, 1 or more.")
    if split == "grouped" and groups is None:
        raise InvalidInputError("split is 'grouped', but groups is not given; pass one group for each text.")
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(texts):
            raise InvalidInputError(f"{name} has {len(values)} entries for {len(texts)} texts; expected one each.")


def _tokens(text: str, spec: DataSpec) -> tuple[tuple[str, ...], bool]:
    """Return a text's tokens, as many as the model reads, and whether there were more."""
    tokens = tokens_of(text, spec.token_unit, lowercase=spec.lowercase)
    return tuple(tokens[: spec.max_tokens]), spec.max_tokens is not None and len(tokens) > spec.max_tokens


def _dealt(together: Sequence[Hashable], shares: tuple[float, float, float], seed: int) -> NDArray[np.int64]:
    """Return the part of each text, (N,); texts with the same entry are in the same one."""
    number = {entry: place for place, entry in enumerate(dict.fromkeys(together))}
    return deal(len(number), shares, seed, "texts or groups")[[number[entry] for entry in together]]


def _shared(tokens: list[tuple[str, ...]], part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which texts occur in an earlier part, too, (N,)."""
    first: dict[tuple[str, ...], int] = {}
    for text, place in zip(tokens, part.tolist(), strict=True):
        first[text] = min(place, first.get(text, place))
    return np.array([first[text] < place for text, place in zip(tokens, part.tolist(), strict=True)], dtype=bool)


def _encoded(texts: list[str], tokens: list[tuple[str, ...]], spec: DataSpec) -> tuple[SequenceData, int, int]:
    """Return texts as ids, how many of their tokens are unknown, and how many there are."""
    assert spec.vocabulary is not None
    known = {token: place for place, token in enumerate(spec.vocabulary)}
    unknown = known.get(UNKNOWN)
    pieces = []
    for row, (text, found) in enumerate(zip(texts, tokens, strict=True)):
        ids = [known.get(token, unknown) for token in found]
        if None in ids:
            odd = found[ids.index(None)]
            raise InvalidInputError(
                f"texts[{row}] holds {odd!r}, which is not in the vocabulary, and that has no {UNKNOWN}."
            )
        name = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 3]}..."
        pieces.append(Piece(name, np.array(ids, dtype=np.int64), None, row, row))
    data = SequenceData.of_pieces(pieces, spec)
    valid = np.arange(data.inputs.shape[1]) < data.lengths[:, None]
    return data, int((valid & (data.inputs == unknown)).sum()), int(valid.sum())
