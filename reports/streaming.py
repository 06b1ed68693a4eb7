"""Attributions larger than memory: the numbers of each sample are held, timesteps are read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution


def held(attribution: Attribution) -> Attribution:
    """Return the same with what has no timesteps in memory: predictions, scores (B, K), lengths, diagnostics (B,)."""
    variables = attribution.dataset.variables
    read = {name: variables[name].compute() for name in attribution.dataset.data_vars
            if "time" not in variables[name].dims}  # fmt: skip
    return Attribution(attribution.dataset.assign(read))


def passing(
    attribution: Attribution, *names: str, samples: NDArray[np.int64] | None = None
) -> Iterator[tuple[slice, Attribution]]:
    """Yield all samples once, a piece at a time: its places, and the piece in memory.

    Args:
        attribution: Of many samples.
        names: The variables that are read, as far as there are such; lengths always are.
        samples: (n,) only these, in this order; None: all.
    """
    known = [name for name in dict.fromkeys(("length", *names)) if name in attribution.dataset]
    dataset = attribution.dataset[known]
    whole = Attribution(dataset if samples is None else dataset.isel(sample=samples))
    first = 0
    for piece in whole.pieces():
        yield slice(first, first + len(piece)), piece
        first += len(piece)


def single(attribution: Attribution, sample: int) -> Attribution:
    """Return one sample in memory, without what its gates gave."""
    dataset = attribution.dataset.drop_vars("gate_attribution", errors="ignore")
    return Attribution(dataset).take(np.array([sample]))
