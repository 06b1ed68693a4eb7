"""How much is held at once: from a memory budget to samples a chunk and bytes a batch of the model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...models import InvalidInputError
from ...models.predictor import DEFAULT_MEMORY_BYTES
from ..attribution import Attribution
from ..base import Explainer, PlayerExplainer

COPIES = 6  # of a sample's arrays while it is explained: float64 on the way, labelled, float32, compressed
MOST_SAMPLES = 384  # more gain little speed, and would be lost together when a run is killed
MOST_SAMPLES_ONE_BY_ONE = 32  # of methods that explain sample after sample, which take long
LEAST_BYTES = 32 * 2**20
USUAL_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Budget:
    """What a worker holds at once.

    Attributes:
        chunk: Samples a chunk.
        memory_bytes: Of one batch of the model's evaluations.
    """

    chunk: int
    memory_bytes: int


def shared_out(memory: int | str, workers: int | None, *, elsewhere: bool) -> tuple[int, int]:
    """Return how many processes there are on this machine, and the bytes that each worker may use.

    Args:
        memory: Bytes, or a text such as "2GiB".
        workers: How many processes; None: one for each core that gets `USUAL_BYTES`.
        elsewhere: The workers are a scheduler's, and the memory is that of each.

    Raises:
        InvalidInputError: The text is no amount of memory, or too little.
    """
    from dask.utils import parse_bytes

    try:
        total = parse_bytes(memory) if isinstance(memory, str) else int(memory)
    except (ValueError, TypeError, OverflowError):
        raise InvalidInputError(f'memory is {memory!r}; expected an amount such as "2GiB" or "500MB".') from None
    count = 1 if elsewhere else workers or max(1, min(cores(), total // USUAL_BYTES))
    if total // count < LEAST_BYTES:
        raise InvalidInputError(
            f"memory is {memory!r}, {max(0, total) // count / 2**20:.3g} MiB for each of {count} workers; expected "
            f"{LEAST_BYTES // 2**20} MiB each, or more. Ask for fewer workers, or give more memory."
        )
    return count, total // count


def budget_of(explainer: Explainer, template: Attribution, bytes_each: int) -> Budget:
    """Return what fits: half of the bytes for the model's batches, a quarter for the samples of a chunk.

    Args:
        explainer: The method.
        template: Its explanation of one sample, with everything that it makes of one.
        bytes_each: What one worker may use.
    """
    each = COPIES * sum(_bytes(variable) for variable in template.dataset.data_vars.values())
    most = MOST_SAMPLES_ONE_BY_ONE if isinstance(explainer, PlayerExplainer) else MOST_SAMPLES
    return Budget(
        chunk=int(np.clip(bytes_each // 4 // max(1, each), 1, most)),
        memory_bytes=min(DEFAULT_MEMORY_BYTES, bytes_each // 2),
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bytes(variable: Any) -> int:
    return int(variable.size) * (64 if variable.dtype.kind == "O" else 8)
