"""How right the predictions are where the truth is known, beside the best constant answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from ..models.errors import nearest_name
from .evidence import Check
from .prediction import explained_name
from .wording import count_of, effect, joined, level, percent

ENOUGH = 20  # samples of a class, for its recall to be told


@dataclass(frozen=True, eq=False)
class Performance:
    """Predictions beside the truth.

    Attributes:
        attribution: Holds the predictions.
        classes: Names of the classes; empty where numbers are predicted.
        truth: (B,) number of the true class, or the true number; NaN where unknown.
        score: (B,) 1 where the predicted class is right, else 0; or how far a number is off; NaN where unknown.
        constant_score: (B,) the same of the best constant answer: the most frequent class, or the median.
        constant: That answer, in words.
    """

    attribution: Attribution
    classes: tuple[str, ...]
    truth: NDArray[np.float64]
    score: NDArray[np.float64]
    constant_score: NDArray[np.float64]
    constant: str

    @classmethod
    def of(cls, attribution: Attribution, truth: Any) -> Performance:
        """Return how right the predictions are.

        Args:
            attribution: Holds the predictions.
            truth: (B,) names or numbers of classes, or numbers; None, NaN or "" where unknown.

        Raises:
            InvalidInputError: There is not one a sample, none is known, or one is no class or number of this model.
        """
        given = np.asarray(truth, dtype=object)
        if given.shape != (len(attribution),):
            raise InvalidInputError(f"truth has shape {given.shape}; expected ({len(attribution)},), one a sample.")
        classes, predicted = _predicted_classes(attribution)
        known = np.array([not is_missing(value) for value in given])
        if not known.any():
            raise InvalidInputError("truth is missing for every sample; leave it out, or give some.")
        numbers = np.full(len(given), np.nan)
        numbers[known] = [_number_of(value, classes) for value in given[known]]
        if not classes:
            middle = float(np.median(numbers[known]))
            off = np.abs(attribution.prediction - numbers)
            return cls(attribution, (), numbers, off, np.abs(middle - numbers), level(middle, attribution))
        most = int(np.bincount(numbers[known].astype(np.int64)).argmax())
        right, always = (np.where(known, answer == numbers, np.nan) for answer in (predicted, most))
        return cls(attribution, classes, numbers, right, always, classes[most])

    def recalled(self, number: int) -> NDArray[np.float64]:
        """Return the score of the samples whose true class has that number, (B,); NaN of the others."""
        return np.where(self.truth == number, self.score, np.nan)

    def rows(self) -> dict[str, tuple[NDArray[np.float64], bool]]:
        """Return what a table of groups shows: label -> (numbers of the samples (B,), whether they are 0 or 1).

        The last is that of the constant answer.
        """
        if not self.classes:
            return {"mean error": (self.score, False),
                    f"mean error of always {self.constant}": (self.constant_score, False)}  # fmt: skip
        rows = {"share right": (self.score, True)}
        for number, name in enumerate(self.classes):
            if (self.truth == number).any():
                rows[f"share of {name} recognised"] = (self.recalled(number), True)
        return {**rows, f"share right of always {self.constant}": (self.constant_score, True)}

    def sentences(self) -> list[str]:
        """Say how right the predictions are, and how right a constant would be."""
        known = int(np.isfinite(self.score).sum())
        of = count_of(known, len(self.score))
        own, other = float(np.nanmean(self.score)), float(np.nanmean(self.constant_score))
        if not self.classes:
            text = (
                f"Where the truth is known ({of} samples), predictions are off by "
                f"{_size(own, self.attribution)} on average; always saying {self.constant}, the median, would be off "
                f"by {_size(other, self.attribution)}."
            )
            return [text]
        text = (
            f"Where the truth is known ({of} samples), the predicted class is right in {percent(own)}; always saying "
            f"{self.constant} would be right in {percent(other)}."
        )
        texts, recalls, few = [text], [], []
        for number, name in enumerate(self.classes):
            count = int((self.truth == number).sum())
            if count >= ENOUGH:
                recalls.append(f"{name} in {percent(float(np.nanmean(self.recalled(number))))} of {count:,}")
            elif count:
                few.append(f"{name} ({count})")
        if recalls:
            texts.append(f"Recognised: {joined(recalls)}.")
        if few:
            texts.append(f"Too few to say how well they are recognised: {joined(few)}.")
        return texts

    def check(self) -> Check | None:
        """Ask for care where the best constant answer is at least as right as the model."""
        own, other = float(np.nanmean(self.score)), float(np.nanmean(self.constant_score))
        if own > other if self.classes else own < other:
            return None
        text = f"The predictions are no better than always saying {self.constant}, so their reasons explain little."
        return Check("performance", passed=False, text=text)


def is_missing(value: Any) -> bool:
    """Whether a cell of a table holds nothing."""
    return value is None or value != value or str(value).strip() in ("", "NaT", "<NA>")  # noqa: PLR0124 - NaN


def _size(value: float, attribution: Attribution) -> str:
    return effect(value, attribution).lstrip("+")


def _predicted_classes(attribution: Attribution) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """Return the classes' names, and the number of the predicted one of each sample; none where numbers are."""
    task, names = attribution.attrs["task"], attribution.output_names
    if task not in ("binary", "multiclass"):
        return (), None
    if attribution.diagnostic("target_last") is not None:
        raise InvalidInputError(
            "truth names classes, and what was explained is a sum over timesteps, which has none; explain one timestep."
        )
    scores = attribution.dataset["scores"].to_numpy()  # (B, K)
    if task == "multiclass":
        return names, scores.argmax(axis=1)
    outputs = attribution.dataset["target_output"].to_numpy()
    if (outputs != outputs[0]).any():
        raise InvalidInputError("truth is of one output, and the samples are explained for several; choose one target.")
    known = [str(name) for name in json.loads(attribution.attrs["classes"])]
    name = explained_name(attribution, 0)
    classes = tuple(known) if len(names) == 1 and len(known) == 2 else (f"not {name}", name)
    return classes, (scores[:, int(outputs[0])] > 0).astype(np.int64)


def _number_of(value: Any, classes: tuple[str, ...]) -> float:
    """Return a class's number from its name or number, or a number as it is."""
    if not classes:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise InvalidInputError(f"truth holds {value!r}; this model predicts numbers.") from None
    if str(value) in classes:
        return float(classes.index(str(value)))
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if number.is_integer() and 0 <= number < len(classes):
        return number
    raise InvalidInputError(
        f"truth holds {value!r}, which is no class of this model; {nearest_name(str(value), classes)} Or give their "
        f"numbers, 0 to {len(classes) - 1}."
    )
