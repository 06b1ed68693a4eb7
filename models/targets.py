"""Which number is explained: a `Target` picks one of each sample, and `resolve_target` understands the user.

It is one score, or of a model with one output a timestep also the sum of one output over a window of timesteps.
"""

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
        last: Long (B,), the last timestep of a window that begins at `timestep`, whose sum is explained; None for a
            single timestep.
    """

    output: Tensor
    timestep: Tensor | None = None
    last: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        """How many scores are summed, long (B,): 1, or of a window its timesteps."""
        if self.timestep is None or self.last is None:
            return torch.ones_like(self.output)
        return self.last - self.timestep + 1

    def select(self, scores: Tensor) -> Tensor:
        """Return the explained number of each row, (B,), from scores (B, K) or (B, T, K); of a window the sum."""
        rows = torch.arange(scores.shape[0], device=scores.device)
        output = self.output.to(scores.device)
        if self.timestep is None:
            return scores[rows, output]
        if self.last is None:
            return scores[rows, self.timestep.to(scores.device), output]
        covered = self.covers(scores.shape[1]).to(scores.device)
        return torch.where(covered, scores[rows, :, output], 0).sum(dim=1)

    def at_timestep(self, scores: Tensor) -> Tensor:
        """Return all K outputs at the explained timestep, (B, K); of a window the sum of each."""
        if self.timestep is None:
            return scores
        if self.last is None:
            return scores[torch.arange(scores.shape[0], device=scores.device), self.timestep.to(scores.device)]
        covered = self.covers(scores.shape[1]).to(scores.device)
        return torch.where(covered[..., None], scores, 0).sum(dim=1)

    def covers(self, steps: int) -> Tensor:
        """Return bool (B, steps), where the explained timesteps of a per-timestep model are."""
        assert self.timestep is not None
        time = torch.arange(steps)
        return (time >= self.timestep[:, None]) & (time < (self.timestep + self.counts)[:, None])

    def places(self) -> tuple[Tensor, Tensor]:
        """Return row and timestep of everything explained of a per-timestep model, long (N,) each, in order."""
        assert self.timestep is not None
        rows = torch.arange(len(self.output)).repeat_interleave(self.counts)
        begin = self.counts.cumsum(dim=0) - self.counts
        return rows, torch.arange(len(rows)) - (begin - self.timestep)[rows]

    def rows(self, index: Tensor) -> Target:
        """Return the targets of the rows in `index`, long (N,)."""
        timestep, last = (None if part is None else part[index] for part in (self.timestep, self.last))
        return Target(self.output[index], timestep, last)


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
            models are explained at the last valid one. A tuple (slice(start, stop), output), or (range(...), output):
            the sum of that output over these timesteps; either end may be left out (then it is the sequence's own) or
            be (B,) ints, negative ones count from each sequence's end. Without an output it is that with the largest
            sum of scores.
        scores: What the model returned, (B, K) or (B, T, K).
        lengths: Long (B,).
        steps: T of the inputs.
        task: "regression", "binary", "multiclass" or None (unknown).
        class_names: Names that may stand for outputs.

    Raises:
        InvalidInputError: No such output, timestep or window, or the choice is ambiguous.
        InvalidTypeError: Not a form that is known.
    """
    batch, outputs = scores.shape[0], scores.shape[-1]
    timestep: Tensor | None = None
    last: Tensor | None = None
    if scores.ndim == 3:
        count = scores.shape[1]
        ends = lengths if count == steps else torch.full((batch,), count)
        step: Any = -1
        if isinstance(target, tuple):
            if len(target) != 2:
                raise InvalidInputError(f"target is {target!r}; expected (timestep, output), two entries.")
            step, target = target
        if isinstance(step, (slice, range)):
            timestep, last = _window(step, ends)
        else:
            timestep = _timestep(step, ends)
    elif isinstance(target, tuple):
        raise InvalidInputError(
            f"target is {target!r}, a (timestep, output) pair, but this model has one output a sequence, not one a "
            "timestep. Use target=OUTPUT; for one output a sample, pass a list or an array."
        )
    if target is None:
        explained = Target(torch.zeros(batch).long(), timestep, last).at_timestep(scores)
        return Target(_default_output(explained, task, ", ".join(class_names)), timestep, last)
    if isinstance(target, str):
        target = _named_output(target, outputs, class_names)
    output = _as_indices(target, batch, "target")
    if int(output.min()) < 0 or int(output.max()) >= outputs:
        bad = int(output.min()) if int(output.min()) < 0 else int(output.max())
        known = "its only output is 0" if outputs == 1 else f"its outputs are 0 to {outputs - 1}"
        names = f" ({', '.join(class_names)})" if len(class_names) == outputs else ""
        raise InvalidInputError(f"target is {bad}, which this model does not have; {known}{names}.")
    return Target(output, timestep, last)


def _timestep(step: Any, ends: Tensor) -> Tensor:
    """Return the timestep (B,) of sequences that have `ends` (B,) of them."""
    found = _from_end(_as_indices(step, len(ends), "timestep"), ends)
    for row, (timestep, end) in enumerate(zip(found.tolist(), ends.tolist(), strict=True)):
        if not 0 <= timestep < end:
            raise InvalidInputError(
                f"target timestep is {step!r}, but sequence {row} has the timesteps 0 to {end - 1}; "
                "negative ones count from the end."
            )
    return found


def _window(window: slice | range, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last timestep (B,) of a window of sequences that have `ends` (B,) of them."""
    start, stop = window.start, window.stop
    if window.step is not None and not (isinstance(window.step, (int, np.integer)) and window.step == 1):
        raise InvalidInputError(
            f"target's window is {window!r}, with a step; expected neighbouring timesteps, slice(start, stop)."
        )
    if isinstance(window, range):
        if not window or start < 0 < stop:
            why = "counts its start from the end and its stop from the beginning" if window else "is empty"
            raise InvalidInputError(
                f"target's window is {window!r}, which {why}; expected e.g. range(3, 8) or slice(-3, None)."
            )
        stop = None if start < 0 == stop else stop  # range(-3, 0) goes up to the end
    expected = f"a whole number, {len(ends)} of them (one a sample), or None (the sequence's own)"
    first = torch.zeros_like(ends) if start is None else _as_indices(start, len(ends), "the window's start", expected)
    after = ends if stop is None else _as_indices(stop, len(ends), "the window's stop", expected)
    first, after = _from_end(first, ends), _from_end(after, ends)
    for row, (one, other, end) in enumerate(zip(first.tolist(), after.tolist(), ends.tolist(), strict=True)):
        if not 0 <= one < end or other > end:
            raise InvalidInputError(
                f"target's window is {window!r}, which reaches beyond sequence {row}, with the timesteps 0 to "
                f"{end - 1}; negative ends count from each sequence's end, and an end that is None is its own."
            )
        if other <= one:
            raise InvalidInputError(
                f"target's window is {window!r}, which holds no timestep of sequence {row}, with the timesteps 0 to "
                f"{end - 1}; its stop is left out: slice(3, 8) is the timesteps 3 to 7."
            )
    return first, after - 1


def _from_end(timestep: Tensor, ends: Tensor) -> Tensor:
    return torch.where(timestep < 0, timestep + ends, timestep)


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


def _as_indices(value: Any, batch: int, name: str, expected: str | None = None) -> Tensor:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iu":
        known = (
            f"None, a whole number, a class's name, {batch} whole numbers (one a sample), or (timestep, output), where "
            "timestep may be a slice"
        )
        raise InvalidTypeError(f"{name} is {value!r}; expected {expected or known}.")
    if array.shape not in ((), (batch,), (1,)):
        raise InvalidInputError(
            f"{name} has shape {array.shape}; expected one number, or one for each of {batch} samples."
        )
    return torch.as_tensor(array.astype(np.int64)).expand(batch).clone()
