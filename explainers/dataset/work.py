"""What is done with one chunk: read its sequences, explain those that can be, write what was found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...models import GatelensError, InvalidInputError, ModelError
from ...models.state import borrowed
from ..attribution import Attribution
from ..base import Explainer
from .blocks import Block
from .store import COSTS, AttributionStore, Cost

GateDetail = Literal["sum", "units"]


@dataclass(frozen=True)
class Job:
    """Everything a worker needs beside the inputs, which are in the store. It travels to each worker once.

    Attributes:
        explainer: The method, with its model.
        path: The store's folder.
        target: What is explained, as `Explainer.explain` takes it; with one entry a sample see `checked_target`.
        gates: "sum": of the attributions of gates the sum over units is kept; "units": each one.
        device: Where the model is taken to; None: it stays where it is.
    """

    explainer: Explainer
    path: Path
    target: Any = None
    gates: GateDetail = "sum"
    device: str | None = None


@dataclass(frozen=True)
class Done:
    """A chunk that was written: how many samples were explained, how many failed."""

    index: int
    explained: int
    failed: int


@dataclass(frozen=True, eq=False)
class Found:
    """Explanations of some of a chunk's sequences, and why the others have none.

    Attributes:
        parts: Places in the chunk, and their explanations.
        failures: Place in the chunk -> reason.
        cost: What it took.
    """

    parts: list[tuple[NDArray[np.int64], Attribution]]
    failures: dict[int, str]
    cost: Cost


@dataclass(eq=False)
class Worker:
    """Does the chunks of a job, one after the other; the model is taken to the job's device for the length of it."""

    job: Job
    store: AttributionStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = AttributionStore(self.job.path, writable=True)

    @contextmanager
    def ready(self) -> Iterator[Worker]:
        """Hold the model where the job wants it, with the store's own budget of memory."""
        predictor = self.job.explainer.predictor
        found = predictor.memory_bytes
        with ExitStack() as stack:
            if predictor.module is not None and self.job.device is not None:
                stack.enter_context(borrowed(predictor.module, self.job.device))
            predictor.memory_bytes = self.store.memory_bytes
            try:
                yield self
            finally:
                predictor.memory_bytes = found

    def do(self, index: int) -> Done:
        """Read, explain and write a chunk."""
        return self.write(index, self.explain(self.read(index), index))

    def read(self, index: int) -> Block:
        """Return the sequences of a chunk, on the way to a GPU already where there is one."""
        block = self.store.inputs(index)
        device = self.job.explainer.predictor.device
        return block if device.type != "cuda" else replace(block, inputs=_sent(block.inputs, device))

    def explain(self, block: Block, index: int = 0) -> Found:
        """Explain the sequences of a chunk; which one it is matters to a target with one entry a sample."""
        return explain_block(self.job, block, self.store.rows(index).start)

    def write(self, index: int, found: Found) -> Done:
        """Write what was found."""
        self.store.write(index, found.parts, found.failures, found.cost)
        explained = sum(len(places) for places, _ in found.parts)
        return Done(index, explained, len(found.failures))


def explain_block(job: Job, block: Block, first: int, *, whole: bool = False) -> Found:
    """Explain sequences; those that cannot be are told with the reason.

    Args:
        job: The method, and what is stored.
        block: The sequences.
        first: The number of the first one.
        whole: Return also of each explanation what is not stored.
    """
    started = time.perf_counter()
    failures = unusable(block)
    good = np.array([place for place in range(len(block.lengths)) if place not in failures], dtype=np.int64)
    with _sums_of_units(job):
        parts = _explained(job, block, good, failures, first)
    if not whole:
        parts = [(places, kept(part, job.gates)) for places, part in parts]
    forward, backward = (sum(int(part.attrs[name]) for _, part in parts) for name in COSTS[1:])
    return Found(parts, failures, Cost(time.perf_counter() - started, forward, backward))


@contextmanager
def _sums_of_units(job: Job) -> Iterator[None]:
    """Let the method spare what is not stored."""
    found = job.explainer.unit_sums
    job.explainer.unit_sums = job.gates == "sum"
    try:
        yield
    finally:
        job.explainer.unit_sums = found


def unusable(block: Block) -> dict[int, str]:
    """Return place -> reason of the sequences that no method can read: none valid timestep, NaN, infinity."""
    lengths = np.asarray(block.lengths)
    inputs = block.inputs
    reasons = {int(place): "it has no valid timestep" for place in np.flatnonzero(lengths < 1)}
    if inputs.ndim == 2:
        return reasons
    every = torch.isfinite(torch.as_tensor(inputs))  # (n, T, D)
    if bool(every.all()):
        return reasons
    finite = every.cpu().numpy()
    valid = np.arange(inputs.shape[1]) < lengths[:, None]  # (n, T)
    bad = ~finite & valid[..., None]
    for place in np.flatnonzero(bad.any(axis=(1, 2))):
        step, feature = (int(number) for number in np.argwhere(bad[place])[0])
        value = float(inputs[place, step, feature])
        others = int(bad[place].sum()) - 1
        more = f" and {others} more" if others else ""
        reasons.setdefault(int(place), f"its inputs hold {value} (timestep {step}, feature {feature}{more})")
    return reasons


def _explained(
    job: Job, block: Block, places: NDArray[np.int64], failures: dict[int, str], first: int
) -> list[tuple[NDArray[np.int64], Attribution]]:
    """Explain some sequences at once; if that fails, halves of them, until those that fail stand alone."""
    if len(places) == 0:
        return []
    try:
        part = job.explainer.explain(
            block.inputs[places] if len(places) < len(block.lengths) else block.inputs,
            target=target_of(job.target, first + places),
            lengths=block.lengths[places],
            sample_names=[block.names[place] for place in places],
        )
    except OSError:  # nothing about the sequences
        raise
    except Exception as error:  # noqa: BLE001 - whatever a stranger's model raises
        if out_of_memory(error):
            raise MemoryError(
                f"explaining {len(places)} samples at once took more memory than there is ({reason_of(error)[:200]}); "
                "give less with memory= (--memory) and a new store, or use fewer workers."
            ) from None
        if len(places) == 1:
            failures[int(places[0])] = reason_of(error)
            return []
        middle = len(places) // 2
        halves = (places[:middle], places[middle:])
        return [found for half in halves for found in _explained(job, block, half, failures, first)]
    return [(places, part)]


def checked_target(target: Any, count: int) -> Any:
    """Return a target whose parts with one entry a sample are arrays (count,), as `target_of` cuts them.

    Raises:
        InvalidInputError: A part has entries for another number of samples.
    """

    def checked(part: Any) -> Any:
        if isinstance(part, slice):
            return slice(checked(part.start), checked(part.stop), part.step)
        if not isinstance(part, (list, tuple, np.ndarray, torch.Tensor)):
            return part
        try:
            array = part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
        except ValueError:  # not rectangular, which `explain` refuses
            return part
        if array.ndim and array.shape not in ((1,), (count,)):
            raise InvalidInputError(
                f"target has entries of shape {array.shape}; expected one number, or one for each of the {count} "
                "samples of the source."
            )
        return array

    return tuple(checked(part) for part in target) if isinstance(target, tuple) else checked(target)


def target_of(target: Any, rows: NDArray[np.int64]) -> Any:
    """Return the target of some samples, from one that `checked_target` gave."""
    if isinstance(target, tuple):
        return tuple(target_of(part, rows) for part in target)
    if isinstance(target, slice):
        return slice(target_of(target.start, rows), target_of(target.stop, rows), target.step)
    return target[rows] if isinstance(target, np.ndarray) and target.size > 1 else target


def check_baseline(baseline: Any, steps: int, features: int | None) -> None:
    """Refuse a baseline with a row for each sample: chunks are explained one by one, by explainers that hold one."""
    shape = np.shape(baseline) if not hasattr(baseline, "shape") else tuple(baseline.shape)
    cells = (steps,) if features is None else (steps, features)
    if len(shape) == 1 + len(cells) and shape[0] != 1:
        expected = "an id or (T,) ids" if features is None else "one number, (D,), (T, D) or a name"
        raise InvalidInputError(
            f"baseline has shape {shape}, a row for each sample of one call of explain; a dataset is explained in "
            f"chunks, which share a baseline: give {expected}."
        )


def reason_of(error: BaseException) -> str:
    """Return an error as a sentence."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, GatelensError) else f"{type(error).__name__}: {text}"


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or what led to it, is one of memory; torch's on a CPU is a RuntimeError."""
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def kept(part: Attribution, gates: GateDetail) -> Attribution:
    """Return what is stored of an explanation."""
    if gates == "units" or part.gates is None or part.gates.shape[-1] == 1:
        return part
    units = part.gates.to_numpy()  # (n, layer, T, gate, unit), NaN for units that a layer does not have
    add = np.nansum if np.isnan(units[..., -1]).any() else np.sum
    summed = (part.gates.dims, add(units, axis=4, keepdims=True))
    return Attribution(part.dataset.drop_vars("gate_attribution").assign(gate_attribution=summed))


def _sent(inputs: NDArray[Any], device: torch.device) -> Any:
    """Return the inputs on a GPU, copied on a stream of their own beside what the GPU is computing."""
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        sent = torch.from_numpy(inputs).pin_memory().to(device, non_blocking=True)
    stream.synchronize()
    return sent


def check_device(device: str | None, explainer: Explainer) -> None:
    """Refuse a device that is not there, or that a plain function cannot be taken to."""
    if device is None:
        return
    if explainer.predictor.module is None:
        raise ModelError(f"device is {device!r}, and the model is a plain function, which stays where it is.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise ModelError(f"device is {device!r}, and torch cannot use it: {str(error).splitlines()[0]}") from None
