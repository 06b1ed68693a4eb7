"""What a surrogate imitates: the answers that a model gives on sequences, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data_spec import DataSpec
from .errors import InvalidInputError, InvalidTypeError, ModelError, nearest_name
from .labelled import Examples, known_task
from .predictor import Predictor
from .segment_statistics import Values
from .sequence_data import SequenceData

IMITATED = ("answer", "probability")


def sequences_of(predictor: Predictor, data: Any, lengths: Any, name: str) -> tuple[list[Values], Tensor, Tensor]:
    """Return each sequence (L, D) without padding, with checked inputs and lengths."""
    if isinstance(data, (SequenceData, Examples)):
        if lengths is not None:
            raise InvalidInputError(f"lengths are given beside a {type(data).__name__}, which has its own.")
        data, lengths = data.inputs, data.lengths
    try:
        inputs, checked = predictor.check(data, lengths)
    except (InvalidInputError, InvalidTypeError) as error:
        raise type(error)(f"{name}: {error}") from None
    if inputs.ndim == 2:
        raise InvalidInputError(
            "the model reads token ids, which have no mean or slope, so a surrogate tree has nothing to ask. "
            "Explainers of tokens: integrated_gradients, kernel_shap, lime."
        )
    values = inputs.double().cpu().numpy()
    return [row[:length] for row, length in zip(values, checked.tolist(), strict=True)], inputs, checked


def asked(predictor: Predictor, data: Any, lengths: Any, name: str) -> tuple[list[Values], Values]:
    """Return sequences (L, D) and the model's scores of them, (B, K)."""
    sequences, inputs, checked = sequences_of(predictor, data, lengths, name)
    scores = predictor.predict(inputs, checked)
    if scores.ndim == 3:
        if not predictor.follows_time:
            raise ModelError("the model's outputs are a horizon of their own; a surrogate tree imitates one answer.")
        scores = scores[torch.arange(len(scores)), checked.to(scores.device) - 1]
    if scores.ndim == 1:
        scores = scores[:, None]
    return sequences, scores.double().cpu().numpy()


def split(
    predictor: Predictor, sequences: list[Values], scores: Values, held_out: Any, seed: int
) -> tuple[tuple[list[Values], Values], tuple[list[Values], Values]]:
    """Return (sequences, scores) to grow on and to measure on."""
    if not isinstance(held_out, (int, float)) or isinstance(held_out, bool):
        return (sequences, scores), asked(predictor, held_out, None, "held_out")
    if not 0 < held_out < 1:
        raise InvalidInputError(f"held_out is {held_out!r}; expected a share between 0 and 1, or sequences.")
    order = np.random.default_rng(seed).permutation(len(sequences))
    count = max(1, round(held_out * len(sequences)))
    parts = order[count:], order[:count]
    grown, measured = (([sequences[row] for row in part], scores[part]) for part in parts)
    return grown, measured


@dataclass(frozen=True)
class Wanted:
    """What of a model's scores is imitated.

    Attributes:
        output: Which of the K scores; of answers of classes it does not matter.
        answers: What the model can say, in words; empty where a number is imitated.
        unit: Of the number.
        share: Whether the number is a class's probability, in percent.
        task: What the scores are.
    """

    output: int
    answers: tuple[str, ...]
    unit: str
    share: bool
    task: str

    @classmethod
    def of(cls, predictor: Predictor, outputs: int, output: int | str | None, imitate: str) -> Wanted:
        """Return what is asked for, or refuse."""
        task = known_task(predictor)
        if imitate not in IMITATED:
            raise InvalidInputError(f"imitate is {imitate!r}; {nearest_name(imitate, IMITATED)}")
        share = imitate == "probability"
        if share and task == "regression":
            raise InvalidInputError("imitate is 'probability', and the model gives numbers; leave it out.")
        if task == "multiclass" and not share:
            if output is not None:
                raise InvalidInputError(
                    f"output is {output!r}; all classes are imitated at once, so leave it out, or imitate one class's "
                    "'probability'."
                )
            output = 0
        names = _names(predictor, outputs)
        chosen = _number_of(output, outputs, names if len(names) == outputs else predictor.class_names)
        data = predictor.data or DataSpec()
        if share or task == "regression":
            return cls(chosen, (), "%" if share else data.output_unit, share, task)
        several = task == "binary" and outputs > 1
        return cls(chosen, (f"not {names[chosen]}", names[chosen]) if several else names, "", share, task)

    @property
    def numbers(self) -> str:
        """What the numbers are called."""
        return "probabilities" if self.share else "scores"

    def said(self, scores: Values) -> Values:
        """Return what the scores (B, K) say, (B,): a class's number, 0 or 1, a score, or a probability in percent."""
        if self.share:
            from scipy.special import expit, softmax

            found = softmax(scores, axis=1) if self.task == "multiclass" else expit(scores)
            return 100 * found[:, self.output]  # type: ignore[no-any-return]
        if self.task == "regression":
            return scores[:, self.output]
        return (scores.argmax(axis=1) if self.task == "multiclass" else scores[:, self.output] > 0).astype(np.float64)


def _names(predictor: Predictor, outputs: int) -> tuple[str, ...]:
    """Return the names of classes, of no and yes, or of several yes/no outputs."""
    data = predictor.data or DataSpec()
    if predictor.task == "binary" and outputs > 1:
        return data.outputs if len(data.outputs) == outputs else tuple(f"output {k}" for k in range(outputs))
    count = outputs if predictor.task == "multiclass" else 2
    usual = tuple(f"class {number}" for number in range(count)) if count > 2 else ("no", "yes")
    return data.classes if len(data.classes) == count else usual


def _number_of(output: int | str | None, outputs: int, names: tuple[str, ...]) -> int:
    if isinstance(output, str) and output in names and len(names) == outputs:
        return names.index(output)
    if output is None and outputs == 1:
        return 0
    if isinstance(output, bool) or not isinstance(output, (int, np.integer)) or not 0 <= output < outputs:
        known = f" ({', '.join(names)})" if len(names) == outputs else ""
        raise InvalidInputError(f"output is {output!r}; expected one of the outputs 0 to {outputs - 1}{known}.")
    return int(output)
