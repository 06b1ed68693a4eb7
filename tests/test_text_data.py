"""Texts as token ids: tokens by hand, a vocabulary from training alone, and no text in two parts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.models import (
    DataSpec,
    InvalidInputError,
    InvalidTypeError,
    LSTMModel,
    SequenceData,
    encode_text,
    evaluate,
    fit,
    load,
    prepare_text,
)
from gatelens.models.tokens import PADDING, UNKNOWN, tokens_of, vocabulary_of

TEXTS = [f"{word} {number}" for number in range(10) for word in ("alpha", "beta")]
LABELS = ["a", "b"] * 10


def parts_of(data):
    return [part for part in (data.train, data.validation, data.test) if part is not None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop, it's well-known!", ["Don't", "stop", ",", "it's", "well-known", "!"]),
        ("naïve_1 Straße 3.5", ["naïve_1", "Straße", "3", ".", "5"]),
        ("«Привет», мир", ["«", "Привет", "»", ",", "мир"]),
        ("  \n", []),
    ],
)
def test_words(text, words):
    """Words keep apostrophes and hyphens inside them; every other sign stands alone; spaces go."""
    assert tokens_of(text, "word") == words


def test_characters():
    """An accent is part of its letter however it is written; lower case only where asked."""
    assert tokens_of("Cafe\u0301 A", "character") == ["C", "a", "f", "é", " ", "A"]
    assert tokens_of("ÉA", "character", lowercase=True) == ["é", "a"]


def test_the_vocabulary():
    """Padding and unknown come first, then the tokens by frequency, equals by letter, from min_count on."""
    assert vocabulary_of(["abca", "bac", "x"], 1) == (PADDING, UNKNOWN, "a", "b", "c", "x")
    assert vocabulary_of(["abca", "bac", "x"], 2) == (PADDING, UNKNOWN, "a", "b", "c")


def test_texts_become_ids():
    """Ids spell the text again, 0 at padding; targets are the numbers of the sorted labels; rows lead back."""
    texts = [f"{'abc'[row % 3] * (row % 4 + 1)}{row}" for row in range(30)]
    labels = [["x", "y", "z"][row % 3] for row in range(30)]
    data = prepare_text(texts, labels)
    assert (data.task, data.spec.classes, data.spec.token_unit) == ("multiclass", ("x", "y", "z"), "character")
    for part in parts_of(data):
        for ids, length, target, row in zip(part.inputs, part.lengths, part.targets, part.rows, strict=True):
            spelled = [data.spec.vocabulary[number] for number in ids[:length]]
            expected = [letter if letter in data.spec.vocabulary else UNKNOWN for letter in texts[row]]
            assert spelled == expected
            assert not ids[length:].any()
            assert data.spec.classes[target] == labels[row]
    config = data.config(hidden_sizes=(8,), embedding_dim=4)
    assert (config.vocab_size, config.output_size, config.embedding_dim) == (len(data.spec.vocabulary), 3, 4)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_text_is_in_two_parts(data):
    """Equal texts, and texts of one group, never stand in two parts."""
    texts = data.draw(st.lists(st.text("abA ", min_size=1, max_size=3), min_size=12, max_size=30))
    groups = data.draw(st.lists(st.integers(0, 9), min_size=len(texts), max_size=len(texts)))
    split = data.draw(st.sampled_from(["random", "grouped"]))
    lowercase = data.draw(st.booleans())
    values = [number + 0.5 for number in range(len(texts))]
    try:
        made = prepare_text(
            texts, values, groups=groups, split=split, lowercase=lowercase, seed=data.draw(st.integers(0, 3))
        )
    except InvalidInputError:
        return
    read = [{texts[row].lower() if lowercase else texts[row] for row in part.rows} for part in parts_of(made)]
    assert not read[0] & read[1] | read[0] & read[2] | read[1] & read[2]
    if split == "grouped":
        kept = [{groups[row] for row in part.rows} for part in parts_of(made)]
        assert not kept[0] & kept[1] | kept[0] & kept[2] | kept[1] & kept[2]


@given(st.lists(st.text("xyz!", min_size=1, max_size=5), min_size=20, max_size=20))
@settings(max_examples=40, deadline=None)
def test_the_vocabulary_comes_from_training_alone(others):
    """Whatever validation and test say, vocabulary, classes and training sequences stay the same."""
    groups = [row % 10 for row in range(20)]
    before = prepare_text(TEXTS, LABELS, groups=groups, split="grouped")
    changed = [
        text if row in before.train.rows else other for row, (text, other) in enumerate(zip(TEXTS, others, strict=True))
    ]
    try:
        after = prepare_text(changed, LABELS, groups=groups, split="grouped")
    except InvalidInputError as error:  # all texts of a part were those of another
        assert "holds no text" in str(error)  # noqa: PT017
        return
    assert after.spec.vocabulary == before.spec.vocabulary
    assert after.spec.classes == before.spec.classes
    np.testing.assert_array_equal(after.train.inputs, before.train.inputs)


def test_new_texts():
    """`encode_text` reads as in training: unit, case, length and vocabulary; what is unknown is counted."""
    data = prepare_text(["Good day"] * 5 + ["bad day"] * 5 + ["so so"] * 5, ["x", "y", "x"] * 5, unit="word",
                        lowercase=True, max_length=2, fractions=(1, 0, 0))  # fmt: skip
    new = encode_text(["GOOD grief, really", "day"], data.spec)
    known = data.spec.vocabulary
    assert new.inputs.tolist() == [[known.index("good"), 1], [known.index("day"), 0]]
    assert new.lengths.tolist() == [2, 1]
    assert new.notes == (
        "1 texts are cut off after 2 words",
        f"1 of 3 tokens are not in the vocabulary and read as {UNKNOWN}",
    )


def test_from_texts_to_a_saved_model(tmp_path):
    """A model trained on texts, saved and loaded, reads new ones, and a table of tokens with unknown ones."""
    data = prepare_text(TEXTS, LABELS, unit="word")
    torch.manual_seed(0)
    model = LSTMModel(data.config(hidden_sizes=(4,)), data.spec)
    fit(model, data.train, data.validation, epochs=2)
    assert evaluate(model, data.test, train=data.train).count == len(data.test)
    model.save(tmp_path / "model")
    spec = load(tmp_path / "model").data
    assert spec == data.spec
    np.testing.assert_array_equal(encode_text([TEXTS[row] for row in data.train.rows], spec).inputs, data.train.inputs)
    table = SequenceData.from_frame(pd.DataFrame({"token": ["alpha", "never"]}), spec)
    assert table.inputs.tolist() == [[spec.vocabulary.index("alpha"), 1]]
    assert table.notes == (f"1 of 2 tokens are not in the vocabulary and read as {UNKNOWN}",)


def test_notes():
    """Empty texts, missing labels, cut texts, and those that groups in two parts share are counted."""
    texts = ["", "nobody knows", *TEXTS, *["shared"] * 10]
    labels = ["a", None, *LABELS, *["a"] * 10]
    data = prepare_text(texts, labels, max_length=6, split="grouped", groups=list(range(32)), fractions=(0.5, 0, 0.5))
    assert "11 texts are cut off after 6 characters" in data.notes  # "alpha 1" and its like are 7
    data = prepare_text(texts, labels, split="grouped", groups=list(range(32)), fractions=(0.5, 0, 0.5))
    assert "2 texts are empty or have no label, and are left out" in data.notes
    kept = sum(len(part) for part in parts_of(data))
    assert kept < 30
    assert f"{30 - kept} texts occur in an earlier part, too, and are left out" in data.notes


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"texts": "abc"}, InvalidTypeError, r"texts is one text; expected a list of texts, e\.g\. \['abc'\]"),
        ({"texts": [1] * 20}, InvalidTypeError, r"texts\[0\] is 1; expected text"),
        ({"labels": ["a"]}, InvalidInputError, "labels has 1 entries for 20 texts"),
        ({"labels": ["a"] * 20}, InvalidInputError, "the training part holds only the class 'a'"),
        ({"groups": [1], "split": "grouped"}, InvalidInputError, "groups has 1 entries for 20 texts"),
        ({"split": "grouped"}, InvalidInputError, "groups is not given"),
        ({"split": "chronological"}, InvalidInputError, "split is 'chronological'; known: random, grouped"),
        ({"unit": "letter"}, InvalidInputError, "unit is 'letter'; known: character, word"),
        ({"min_count": 0}, InvalidInputError, "min_count is 0"),
        ({"max_length": 0}, InvalidInputError, "max_tokens is 0"),
        ({"fractions": (0.5, 0.5)}, InvalidInputError, "sum to 1"),
        ({"texts": ["same"] * 20}, InvalidInputError, "there are 1 texts or groups for 3 parts"),
    ],
)
def test_options_that_are_refused(options, error, message):
    """Each option that cannot be is named with what is expected."""
    given_options = {"texts": TEXTS, "labels": LABELS, **options}
    with pytest.raises(error, match=message):
        prepare_text(given_options.pop("texts"), given_options.pop("labels"), **given_options)


def test_new_texts_that_are_refused():
    """A spec without vocabulary, no text, and a text without a token are told apart."""
    spec = DataSpec(vocabulary=(PADDING, UNKNOWN, "a"), token_unit="word")
    with pytest.raises(InvalidInputError, match="does not say how a text becomes tokens"):
        encode_text(["a"], DataSpec(vocabulary=("a",)))
    with pytest.raises(InvalidInputError, match="texts is empty"):
        encode_text([], spec)
    with pytest.raises(InvalidInputError, match=r"texts\[1\] is ' ', which has no word"):
        encode_text(["a", " "], spec)
    with pytest.raises(InvalidInputError, match=r"texts\[0\] holds 'b', which is not in the vocabulary"):
        encode_text(["b"], DataSpec(vocabulary=("a",), token_unit="word"))
