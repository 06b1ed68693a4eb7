"""Sequences with what came of them: `Examples`, checked against what a model gives before any time is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import Task
from .errors import InvalidInputError, InvalidTypeError
from .inputs import as_tensor, valid_mask
from .predictor import Predictor
from .sequence_data import SequenceData


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences with what a model should say about them.

    Args:
        inputs: Floats (B, T, D), token ids (B, T), or a `SequenceData`, which brings its lengths.
        targets: Of a regression (B, K), of yes/no outputs 0 and 1 (B, K), where (B,) is enough for K = 1; numbers of
            classes (B,). For one output a timestep all have the timestep as second axis, (B, T, K) or (B, T), and what
            stands at padding does not count. None: those that the `SequenceData` brings.
        lengths: (B,) valid timesteps; None: all T.
    """

    inputs: Any
    targets: Any = None
    lengths: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.inputs, SequenceData):
            if self.lengths is not None:
                raise InvalidInputError("lengths are given beside a SequenceData, which has its own; leave them out.")
            if self.targets is None:
                object.__setattr__(self, "targets", self.inputs.targets)
            object.__setattr__(self, "lengths", self.inputs.lengths)
            object.__setattr__(self, "inputs", self.inputs.inputs)
        if self.targets is None:
            raise InvalidInputError(
                "there are no targets; give (inputs, targets), or sequences that `prepare` has made."
            )

    @classmethod
    def of(cls, given: Any, name: str) -> Examples:
        """Return what a user handed over as examples; `name` is what errors call it."""
        if isinstance(given, cls):
            return given
        if isinstance(given, SequenceData):
            if given.targets is None:
                raise InvalidInputError(
                    f"{name} is a SequenceData without targets; give ({name}, targets), or what `prepare` has made."
                )
            return cls(given)
        if isinstance(given, (tuple, list)) and len(given) in (2, 3):
            return cls(*given)
        kind = type(given).__name__ + (f" of {len(given)}" if isinstance(given, (tuple, list)) else "")
        raise InvalidTypeError(
            f"{name} is a {kind}; expected (inputs, targets), (inputs, targets, lengths), Examples(...) or "
            "a SequenceData with targets."
        )


@dataclass(frozen=True, eq=False)
class CheckedExamples:
    """Examples that fit a model, on its device, as long as their longest sequence.

    Attributes:
        inputs: (B, T, D) or ids (B, T), 0 at padding.
        lengths: Long (B,), on the CPU.
        targets: Float (B, K) or (B, T, K); of classes, long (B,) or (B, T); 0 at padding.
        valid: Bool (B,) or (B, T): which targets count.
        in_time: Whether the targets' second axis is that of the inputs' timesteps.
        outputs: Scores K that the model gives for each target.
    """

    inputs: Tensor
    lengths: Tensor
    targets: Tensor
    valid: Tensor
    in_time: bool
    outputs: int

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(cls, predictor: Predictor, given: Any, name: str, *, targets: str = "targets") -> CheckedExamples:
        """Check examples against the model; an error begins with `name`, and calls the targets `targets`."""
        examples = Examples.of(given, name)
        try:
            inputs, lengths = predictor.check(examples.inputs, examples.lengths)
            scores = predictor.predict(inputs[:1], lengths[:1])  # (1, K) or (1, T, K): its shape is all that is needed
            in_time = scores.ndim == 3 and predictor.follows_time
            lead = (len(lengths), *scores.shape[1:-1])
            valid = torch.ones(lead, dtype=torch.bool)
            if in_time:
                valid = valid_mask(lengths, inputs.shape[1])
            checked = _checked_targets(examples.targets, targets, predictor, valid, scores.shape[-1])
        except (InvalidInputError, InvalidTypeError) as error:
            raise type(error)(f"{name}: {error}") from None
        whole = cls(inputs, lengths, checked.to(inputs.device), valid.to(inputs.device), in_time, scores.shape[-1])
        return whole.part(torch.arange(len(lengths)))

    def part(self, rows: Tensor) -> CheckedExamples:
        """Return these rows, (n,) long on the CPU, cut off after the longest of them."""
        lengths = self.lengths[rows]
        there = rows.to(self.inputs.device)
        inputs, targets, valid = self.inputs[there], self.targets[there], self.valid[there]
        steps = int(lengths.max())
        if self.in_time:
            targets, valid = targets[:, :steps], valid[:, :steps]
        return CheckedExamples(inputs[:, :steps], lengths, targets, valid, self.in_time, self.outputs)

    def flat_targets(self) -> Tensor:
        """Return the targets that count, (N, K), or (N,) of classes."""
        return self.targets[self.valid]

    def flat_scores(self, scores: Tensor) -> Tensor:
        """Return a model's scores where targets count, (N, K)."""
        return scores[self.valid]


def known_task(predictor: Predictor) -> Task:
    """Return the model's task, or refuse where nobody said it."""
    if predictor.task is None:
        raise InvalidInputError(
            f"task is not known for a {type(predictor.model).__name__}; pass task='regression', task='binary' (logits, "
            "one a yes/no question) or task='multiclass' (one logit a class)."
        )
    return predictor.task


# -- targets -----------------------------------------------------------------------------------------------------------


def _is_text(given: Any) -> bool:
    try:
        array = np.empty(0) if isinstance(given, Tensor) else np.asarray(given)
    except ValueError:  # rows of different lengths; the next check says so
        return False
    return array.dtype.kind in "US" or (array.dtype == object and any(isinstance(one, str) for one in array.flat))


def _checked_targets(given: Any, name: str, predictor: Predictor, valid: Tensor, outputs: int) -> Tensor:
    """Return targets (*valid.shape, K) as the model's floats, or classes as long (*valid.shape); 0 at padding."""
    task = known_task(predictor)
    if _is_text(given):
        among = f" (of {', '.join(predictor.class_names)})" if predictor.class_names else ""
        raise InvalidTypeError(f"{name} holds text; expected numbers: for a class its number{among}, counted from 0.")
    tensor = as_tensor(given, name).cpu()
    tensor = tensor.long() if tensor.dtype == torch.bool else tensor
    lead, shape = tuple(valid.shape), tuple(tensor.shape)
    if task == "multiclass":
        if shape != lead:
            raise InvalidInputError(
                f"{name} has shape {shape}; expected {lead}, {_what(valid)}.{_mend(shape, lead, outputs, name)}"
            )
    else:
        if shape == lead and outputs == 1:
            tensor = tensor[..., None]
        if tensor.shape != (*lead, outputs):
            either = f"{lead} or {(*lead, 1)}" if outputs == 1 else f"{(*lead, outputs)}"
            raise InvalidInputError(f"{name} has shape {shape}; expected {either}, {_what(valid, outputs)}.")
    counts = valid if task == "multiclass" else valid[..., None].expand(tensor.shape)
    tensor = torch.where(counts, tensor, torch.zeros((), dtype=tensor.dtype))
    _refuse(~torch.isfinite(tensor), tensor, name, "NaN or infinite", "drop those sequences, or fill the column first")
    if task == "regression":
        return tensor.to(predictor.dtype)
    _refuse(tensor != tensor.round(), tensor, name, "no whole numbers", "classes are numbers, counted from 0")
    top = outputs - 1 if task == "multiclass" else 1
    from_one = bool(tensor[counts].min() == 1) and bool(tensor.max() == top + 1)
    advice = f"count classes from 0, e.g. {name} - 1" if from_one else f"expected 0 to {top}"
    if task == "binary":
        advice = f"expected 0 (no) and 1 (yes), e.g. {name} > 0"
    _refuse((tensor < 0) | (tensor > top), tensor, name, "no class of this model", advice)
    return tensor.long() if task == "multiclass" else tensor.to(predictor.dtype)


def _what(valid: Tensor, outputs: int = 1) -> str:
    each = "one for each timestep of each sequence" if valid.ndim == 2 else "one for each sequence"
    return each if outputs == 1 else f"{outputs} outputs{each.removeprefix('one')}"


def _mend(shape: tuple[int, ...], lead: tuple[int, ...], outputs: int, name: str) -> str:
    if shape == (*lead, outputs):
        return f" Rows with a 1 at the class become its number by {name}.argmax(-1)."
    return f" Use {name}[..., 0]." if shape == (*lead, 1) else ""


def _refuse(bad: Tensor, values: Tensor, name: str, what: str, advice: str) -> None:
    if not bad.any():
        return
    first = tuple(int(place) for place in bad.nonzero()[0])
    place = first if len(first) < 2 or values.shape[-1] > 1 else first[:-1]
    raise InvalidInputError(
        f"{name}[{', '.join(map(str, place))}] is {values[first].item():g}, one of {int(bad.sum())} that are {what}; "
        f"{advice}."
    )


# -- metrics -----------------------------------------------------------------------------------------------------------
