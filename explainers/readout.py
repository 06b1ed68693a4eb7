"""From the hidden states of a forward `LSTMModel` to the explained number, accumulated while time goes on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import LSTMModel, Predictor


class Readout:
    """From hidden states to the explained number, accumulated over time.

    The head is linear, so "mean" and "attention" accumulate its scores rather than hidden states; attention keeps
    log sum exp(e) and the mean so far, which is exact and cannot overflow.

    Args:
        predictor: The model and what of its scores is explained.
        model: The model itself.
        output: Which output.
        steps: Timesteps that are read, L.
        window: Of a model with one output a timestep, how many of the last of these are summed; None: only the last is
            explained, and nothing is accumulated.

    Attributes:
        width: Numbers kept a state.
    """

    def __init__(
        self, predictor: Predictor, model: LSTMModel, output: int, steps: int, window: int | None = None
    ) -> None:
        self._kind = "window" if window is not None else model.config.pooling
        self._first = steps - (window or 0)
        self._pooling = model.pooling
        self._activate = predictor.activate
        self._steps = steps
        needs_all = predictor.output == "probability" and predictor.task == "multiclass"
        rows = slice(None) if needs_all else slice(output, output + 1)
        self._output = output if needs_all else 0
        self._weight = model.head.weight[rows].detach()  # (K', H)
        self._bias = model.head.bias[rows].detach()  # (K',)
        widths = {"max": self._weight.shape[1], "mean": len(self._weight), "attention": len(self._weight) + 1}
        self.width = {**widths, "window": 1}.get(self._kind, 0)

    def start(self, like: Tensor, rows: int) -> tuple[Tensor, ...]:
        """Return what is accumulated before the first timestep."""
        scores = like.new_zeros(rows, len(self._weight))
        if self._kind == "mean":
            return (scores,)
        if self._kind == "max":
            return (like.new_full((rows, self._weight.shape[1]), -torch.inf),)
        if self._kind == "attention":
            return scores, like.new_full((rows,), -torch.inf)
        return (like.new_zeros(rows),) if self._kind == "window" else ()

    def add(self, hidden: Tensor, pooled: tuple[Tensor, ...], t: int) -> tuple[Tensor, ...]:
        """Return what is accumulated after the timestep t with the hidden states (N, H)."""
        if self._kind == "mean":
            return (pooled[0] + hidden @ self._weight.T,)
        if self._kind == "max":
            return (torch.maximum(pooled[0], hidden),)
        if self._kind == "attention":
            mean, total = pooled  # (N, K'), (N,)
            energy = torch.tanh(self._pooling.key(hidden)) @ self._pooling.query  # type: ignore[union-attr, operator]
            total = torch.logaddexp(total, energy)
            share = torch.exp(energy - total)[:, None]
            return mean + share * (hidden @ self._weight.T - mean), total
        if self._kind == "window" and t >= self._first:
            return (pooled[0] + self._explained(hidden @ self._weight.T),)
        return pooled

    @property
    def linear(self) -> Tensor | None:
        """Weights (K, H) that give scores of the last hidden states alone; None: what came before counts, too."""
        return self._weight if self._kind in ("last", "none") else None

    def explained(self, scores: Tensor) -> NDArray[np.float64]:
        """Return the explained number (N,) of the scores (N, K) of `linear`."""
        return _numbers(self._explained(scores))

    def value(self, hidden: Tensor, pooled: tuple[Tensor, ...]) -> NDArray[np.float64]:
        """Return the explained number (N,) at the end."""
        if self._kind == "window":
            return _numbers(pooled[0])
        if self._kind == "mean":
            scores = pooled[0] / self._steps
        elif self._kind == "attention":
            scores = pooled[0]
        else:
            scores = (pooled[0] if self._kind == "max" else hidden) @ self._weight.T
        return self.explained(scores)

    def _explained(self, scores: Tensor) -> Tensor:
        explained: Tensor = self._activate(scores + self._bias)[:, self._output]
        return explained


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
