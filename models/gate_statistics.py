"""How the gates of a model behave on data: how often they are saturated, how long the cell remembers, which units rest.

The forget gate says how much of the cell state is kept from one timestep to the next, so over many timesteps memory
decays as the product of forget gates: after n timesteps exp(n mean(log f)) of it is left (Gers et al. 2000). The
half-life is where that is one half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ModelError
from .inputs import valid_mask
from .predictor import Predictor
from .state import kept_buffers, seeded
from .trace import GATES, LayerTrace, Trace
from .tracing import trace_of

OPEN, CLOSED = 0.95, 0.05
RESTING_SHARE = 0.01


@dataclass(frozen=True)
class LayerStatistics:
    """The gates of one layer and direction over a set of sequences.

    Attributes:
        layer: Name of the layer, e.g. "lstm.0.reverse".
        open_share: Gate -> share of its values (all units, valid timesteps) above 0.95; of the candidate, of its size.
        closed_share: Gate -> share below 0.05; the candidate has none, it is centred at 0.
        half_lives: Timesteps after which half of what a unit's cell held is forgotten, (H,); infinite where the
            forget gate is 1.
        unit_ranges: Largest minus smallest hidden state of each unit, (H or projection,).
        timesteps: Valid timesteps that were looked at.
    """

    layer: str
    open_share: dict[str, float]
    closed_share: dict[str, float]
    half_lives: NDArray[np.float64]
    unit_ranges: NDArray[np.float64]
    timesteps: int

    @property
    def half_life(self) -> float:
        """The half-life of the layer's middle unit (the median)."""
        return float(np.median(self.half_lives))

    @property
    def mean_half_life(self) -> float:
        """The half-life at the mean rate of forgetting of all units, in timesteps."""
        with np.errstate(divide="ignore"):
            rates = 1 / self.half_lives  # of a half-life of 0: infinite
        mean = float(rates.mean())
        return math.inf if mean == 0 else 1 / mean

    @property
    def resting_units(self) -> tuple[int, ...]:
        """Units whose hidden state moves by less than 1 % of what the liveliest unit's does: dead, on this data.

        Empty where there was a single timestep, which does not show what moves.
        """
        if self.timesteps < 2:
            return ()
        most = self.unit_ranges.max()
        return tuple(int(unit) for unit in np.flatnonzero(self.unit_ranges <= RESTING_SHARE * most))

    @property
    def saturated_share(self) -> dict[str, float]:
        """Gate -> share of its values above 0.95 or below 0.05; of the candidate, beyond 0.95 either way."""
        return {gate: self.open_share[gate] + self.closed_share.get(gate, 0.0) for gate in GATES}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; infinite half-lives are None."""
        return {
            "layer": self.layer,
            "timesteps": self.timesteps,
            "open_share": self.open_share,
            "closed_share": self.closed_share,
            "half_life": _finite(self.half_life),
            "mean_half_life": _finite(self.mean_half_life),
            "half_lives": [_finite(float(value)) for value in self.half_lives],
            "resting_units": list(self.resting_units),
        }


def gate_statistics(model: Any, inputs: Any, *, lengths: Any = None) -> dict[str, LayerStatistics]:
    """Return layer name -> how its gates behave on these sequences.

    Args:
        model: A module that holds an LSTM, or a `Predictor` around one.
        inputs: Float (B, T, D), or token ids, long (B, T).
        lengths: Long (B,) or None.

    Raises:
        ModelError: The model has no gates, or they cannot be laid along the inputs' time.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    checked, lengths = predictor.check(inputs, lengths)
    sums: dict[str, _Sums] = {}
    for rows in torch.arange(len(checked)).split(predictor.batch_rows(checked, copies=2)):
        own = lengths[rows]
        with seeded(0), kept_buffers(predictor.module):
            trace = trace_of(predictor, checked[rows.to(checked.device)], own)
        for name, layer in trace.items():
            valid = valid_mask(own, layer.shape[1])
            sums.setdefault(name, _Sums()).add(layer, valid)
    return {name: found.result(name) for name, found in sums.items()}


def trace_statistics(trace: Trace, lengths: Any) -> dict[str, LayerStatistics]:
    """Return layer name -> how its gates behave in a recorded trace, without the layers that read nothing of it.

    Args:
        trace: Layers (B, T, H).
        lengths: Long (B,), valid timesteps.
    """
    found = {}
    for name, layer in trace.items():
        sums = _Sums()
        sums.add(layer, valid_mask(torch.as_tensor(lengths), layer.shape[1]))
        if sums.timesteps:
            found[name] = sums.result(name)
    return found


class _Sums:
    """What is summed over batches, for each unit."""

    def __init__(self) -> None:
        self.timesteps = 0
        self.open = dict.fromkeys(GATES, 0.0)  # gate -> sum over timesteps of the share of units
        self.closed = dict.fromkeys(GATES, 0.0)
        self.log_forget = torch.zeros(())
        self.lowest = self.highest = torch.zeros(())

    def add(self, layer: LayerTrace, valid: Tensor) -> None:
        """Add a batch: a layer's values (B, T, H) where `valid` (B, T) and where the layer read at all.

        A Keras model skips masked timesteps; every gate is 0 there.
        """
        read = torch.stack([getattr(layer, gate).ne(0).any(dim=2) for gate in GATES]).any(dim=0)
        valid = valid.to(layer.cell_state.device) & read
        if not bool(valid.any()):
            return
        first = self.timesteps == 0
        self.timesteps += int(valid.sum())
        for gate in GATES:
            size = getattr(layer, gate)[valid].abs()  # (n, H)
            above, below = (
                float((size > OPEN).double().mean(dim=1).sum()),
                float((size < CLOSED).double().mean(dim=1).sum()),
            )
            self.open[gate] += above
            self.closed[gate] += below
        logs = layer.forget_gate[valid].double().log().sum(dim=0).cpu()
        hidden = layer.hidden_state[valid].double()
        low, high = hidden.amin(dim=0).cpu(), hidden.amax(dim=0).cpu()
        self.log_forget = logs if first else self.log_forget + logs
        self.lowest = low if first else torch.minimum(self.lowest, low)
        self.highest = high if first else torch.maximum(self.highest, high)

    def result(self, layer: str) -> LayerStatistics:
        """Return the statistics of all batches."""
        if not self.timesteps:
            raise ModelError(
                f"{layer} reads no timestep of these inputs (all are masked), so its gates have no statistics."
            )
        rates = -(self.log_forget / self.timesteps).numpy()  # (H,), how much is forgotten a timestep
        with np.errstate(divide="ignore"):
            half_lives = math.log(2) / np.maximum(rates, 0.0)
        return LayerStatistics(
            layer=layer,
            open_share={gate: total / self.timesteps for gate, total in self.open.items()},
            closed_share={gate: total / self.timesteps for gate, total in self.closed.items() if gate != "candidate"},
            half_lives=half_lives,
            unit_ranges=(self.highest - self.lowest).numpy(),
            timesteps=self.timesteps,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
