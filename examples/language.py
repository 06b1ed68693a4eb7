"""The language story: in which of twelve languages is a name of a country, language or currency, read by character?

Shared by the training script, the demo and the tests: the data, the split by what a name stands for, and the model to
beat, which counts character n-grams.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from gatelens.examples.story import data_path
from gatelens.models import Prepared, SequenceData, prepare_text

NAME = "language"
LANGUAGES = {
    "cs": "Czech", "da": "Danish", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish", "fr": "French",
    "it": "Italian", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "sv": "Swedish",
}  # fmt: skip
SEED = 0  # of the split


def table() -> pd.DataFrame:
    """Return the extract with a column `concept`: what a name stands for, the same in all languages."""
    frame = pd.read_csv(data_path(NAME), dtype=str, keep_default_na=False)  # NA is Namibia
    return frame.assign(concept=frame["kind"] + " " + frame["code"], name=frame["language"].map(LANGUAGES))


def split() -> Prepared:
    """Return the parts: 70 % of the concepts train, 15 % validate, 15 % test, with all their translations."""
    frame = table()
    prepared = prepare_text(
        list(frame["text"]), list(frame["name"]), unit="character", groups=list(frame["concept"]), split="grouped",
        fractions=(0.7, 0.15, 0.15), seed=SEED,
    )  # fmt: skip
    return replace(prepared, spec=replace(prepared.spec, target="the language"))


def texts(part: SequenceData) -> list[str]:
    """Return the names of a part, in its order."""
    return list(table()["text"].to_numpy()[part.rows])


def kinds(part: SequenceData) -> list[str]:
    """Return what the names of a part are of: territory, language or currency."""
    return list(table()["kind"].to_numpy()[part.rows])


def ngram_model() -> Any:
    """Return an untrained logistic regression on the shares of 1 to 4 characters in a row."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, lowercase=False)
    return make_pipeline(counts, LogisticRegression(C=10, max_iter=1000))
