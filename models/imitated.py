"""What a surrogate imitates: the answers that a model gives on sequences, and which of them are held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data_spec import DataSpec
from .errors import InvalidInputError, InvalidTypeError, ModelError
from .labelled import Examples
from .predictor import Predictor
from .segment_statistics import Values
from .sequence_data import SequenceData


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


def output_of(predictor: Predictor, outputs: int, output: int | str | None) -> int:
    """Return which output is imitated; of classes it does not matter."""
    if predictor.task == "multiclass":
        if output is not None:
            raise InvalidInputError(f"output is {output!r}; all classes are imitated at once, so leave it out.")
        return 0
    names = predictor.class_names
    if isinstance(output, str) and output in names and len(names) == outputs:
        return names.index(output)
    if output is None and outputs == 1:
        return 0
    if isinstance(output, bool) or not isinstance(output, (int, np.integer)) or not 0 <= output < outputs:
        known = f" ({', '.join(names)})" if len(names) == outputs else ""
        raise InvalidInputError(f"output is {output!r}; expected one of the outputs 0 to {outputs - 1}{known}.")
    return int(output)


def answer_names(predictor: Predictor, outputs: int, output: int) -> tuple[str, ...]:
    """Return what the model can say, in words; nothing of a regression."""
    if predictor.task == "regression":
        return ()
    data = predictor.data or DataSpec()
    if predictor.task == "binary" and outputs > 1:
        name = data.outputs[output] if len(data.outputs) == outputs else f"output {output}"
        return (f"not {name}", name)
    count = outputs if predictor.task == "multiclass" else 2
    usual = tuple(f"class {number}" for number in range(count)) if count > 2 else ("no", "yes")
    return data.classes if len(data.classes) == count else usual


def said_by(scores: Values, task: str, output: int) -> Values:
    """Return what the scores (B, K) say, (B,): a class's number, 0 or 1, or a score."""
    if task == "regression":
        return scores[:, output]
    return (scores.argmax(axis=1) if task == "multiclass" else scores[:, output] > 0).astype(np.float64)
