"""Which number is explained: a `Target` picks one score of each sample, and `resolve_target` understands the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InvalidInputError, InvalidTypeError, nearest_name


@dataclass(frozen=True, eq=False)
class Target:
    """The explained output of each sample.

    Attributes:
        output: Long (B,), index into the K outputs.
        timestep: Long (B,), index into the output timesteps of a per-timestep model; None for scores (B, K).
    """

    output: Tensor
    timestep: Tensor | None = None

    def select(self, scores: Tensor) -> Tensor:
        """Return the explained number of each row, (B,), from scores (B, K) or (B, T, K)."""
        rows = torch.arange(scores.shape[0], device=scores.device)
        output = self.output.to(scores.device)
        if self.timestep is None:
            return scores[rows, output]
        return scores[rows, self.timestep.to(scores.device), output]

    def at_timestep(self, scores: Tensor) -> Tensor:
        """Return all K outputs at the explained timestep, (B, K)."""
        if self.timestep is None:
            return scores
        return scores[torch.arange(scores.shape[0], device=scores.device), self.timestep.to(scores.device)]

    def rows(self, index: Tensor) -> Target:
        """Return the targets of the rows in `index`, long (N,)."""
        return Target(self.output[index], None if self.timestep is None else self.timestep[index])


def resolve_target(
    target: Any,
    scores: Tensor,
    *,
    lengths: Tensor,
    steps: int,
    task: str | None = None,
    class_names: Sequence[str] = (),
) -> Target:
    """Turn what a user may say into a `Target`.

    Args:
        target: None: the predicted class, or output 0 of a single-output model. An int, or a class's name: that
            output for all samples. (B,) ints: one each. A tuple (timestep, output): of a per-timestep model; either may
            be (B,) ints; negative timesteps count from the end of each sequence. Without a timestep, per-timestep
            models are explained at the last valid one.
        scores: What the model returned, (B, K) or (B, T, K).
        lengths: Long (B,).
        steps: T of the inputs.
        task: "regression", "binary", "multiclass" or None (unknown).
        class_names: Names that may stand for outputs.

    Raises:
        InvalidInputError: No such output or timestep, or the choice is ambiguous.
        InvalidTypeError: Not a form that is known.
    """
    batch, outputs = scores.shape[0], scores.shape[-1]
    timestep: Tensor | None = None
    if scores.ndim == 3:
        count = scores.shape[1]
        ends = lengths if count == steps else torch.full((batch,), count)
        step = -1
        if isinstance(target, tuple):
            if len(target) != 2:
                raise InvalidInputError(f"target is {target!r}; expected (timestep, output), two entries.")
            step, target = target
        timestep = _as_indices(step, batch, "timestep")
        timestep = torch.where(timestep < 0, timestep + ends, timestep)
        for row in range(batch):
            if not 0 <= int(timestep[row]) < int(ends[row]):
                raise InvalidInputError(
                    f"target timestep is {step!r}, but sequence {row} has the timesteps 0 to {int(ends[row]) - 1}; "
                    "negative ones count from the end."
                )
    elif isinstance(target, tuple):
        raise InvalidInputError(
            f"target is {target!r}, a (timestep, output) pair, but this model has one output a sequence, not one a "
            "timestep. Use target=OUTPUT; for one output a sample, pass a list or an array."
        )
    if target is None:
        return Target(
            _default_output(
                Target(torch.zeros(batch).long(), timestep).at_timestep(scores), task, ", ".join(class_names)
            ),
            timestep,
        )
    if isinstance(target, str):
        target = _named_output(target, outputs, class_names)
    output = _as_indices(target, batch, "target")
    if int(output.min()) < 0 or int(output.max()) >= outputs:
        bad = int(output.min()) if int(output.min()) < 0 else int(output.max())
        known = "its only output is 0" if outputs == 1 else f"its outputs are 0 to {outputs - 1}"
        names = f" ({', '.join(class_names)})" if len(class_names) == outputs else ""
        raise InvalidInputError(f"target is {bad}, which this model does not have; {known}{names}.")
    return Target(output, timestep)


def _default_output(scores: Tensor, task: str | None, names: str = "") -> Tensor:
    """Return the predicted class of each row of scores (B, K), or output 0 of a single-output model."""
    if scores.shape[1] == 1:
        return torch.zeros(scores.shape[0]).long()
    if task in ("regression", "binary"):
        raise InvalidInputError(
            f"this {task} model has {scores.shape[1]} outputs, and none is the natural one; name it: "
            f"target 0 to {scores.shape[1] - 1}{f' ({names})' if names else ''}."
        )
    return scores.detach().argmax(dim=1).cpu()


def _named_output(name: str, outputs: int, class_names: Sequence[str]) -> int:
    if name not in class_names:
        known = nearest_name(name, class_names) if class_names else "the model names no classes; use a number."
        raise InvalidInputError(f"target is {name!r}, which is not a class of this model; {known}")
    index = list(class_names).index(name)
    if outputs == 1 and len(class_names) == 2:
        if index == 0:
            raise InvalidInputError(
                f"target is {name!r}, but this model has one score, for {class_names[1]!r}; explain that one: "
                f"what raises it lowers {name!r} by as much."
            )
        return 0
    return index


def _as_indices(value: Any, batch: int, name: str) -> Tensor:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"{name} is {value!r}; expected None, a whole number, a class's name, {batch} whole numbers (one a "
            "sample), or (timestep, output)."
        )
    if array.shape not in ((), (batch,), (1,)):
        raise InvalidInputError(
            f"{name} has shape {array.shape}; expected one number, or one for each of {batch} samples."
        )
    return torch.as_tensor(array.astype(np.int64)).expand(batch).clone()
