"""An attribution as the arrays that Quantus's metrics take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from ..attribution import Attribution


class QuantusArrays(NamedTuple):
    """What `quantus.SomeMetric()(model=..., **arrays._asdict())` takes beside the model.

    Attributes:
        x_batch: (B, D, T) inputs, channels first as Quantus has them.
        y_batch: (B,) the explained output.
        a_batch: (B, D, T) attributions.
    """

    x_batch: NDArray[np.float32]
    y_batch: NDArray[np.int64]
    a_batch: NDArray[np.float32]


def to_quantus(attribution: Attribution) -> QuantusArrays:
    """Return inputs, targets and attributions in the form of Quantus (Hedstrom et al. 2023).

    Quantus calls a module with channels first, and knows no lengths: the model has to be wrapped
    (docs/judge-an-explanation.md), and sequences must be of one length, or padding would be taken for input.

    Raises:
        InvalidInputError: The inputs are token ids, or sequences have different lengths, or several timesteps' outputs
            are explained.
    """
    if attribution.of_tokens:
        raise InvalidInputError("Quantus moves inputs as numbers, and these are token ids; use gatelens's own metrics.")
    if (attribution.lengths != attribution.values.shape[1]).any():
        raise InvalidInputError(
            f"lengths are {attribution.lengths.min()} to {attribution.lengths.max()}, and Quantus would take padding "
            "for input; explain sequences of one length together, without padding."
        )
    if attribution.diagnostic("target_timestep") is not None:
        raise InvalidInputError(
            "one output a timestep is explained, and Quantus picks from (batch, outputs); use gatelens's own metrics."
        )
    x_batch, a_batch = (
        np.ascontiguousarray(part.transpose(0, 2, 1), dtype=np.float32)
        for part in (attribution.inputs, attribution.values)
    )
    return QuantusArrays(x_batch, attribution.dataset["target_output"].to_numpy().astype(np.int64), a_batch)
