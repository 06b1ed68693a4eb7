"""How hidden states (B, T, F) become the head's input (B, F): last, mean, max or one of two attentions over time.

A pooling gets `hidden` (B, T, F) and `valid` (B, T), True where a timestep is real; at least one is in each row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .config import Pooling


class LastPooling(nn.Module):
    """The final state of each direction: forward at the last valid timestep, reverse at the first."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return (B, F)."""
        last = valid.sum(dim=1) - 1  # (B,)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        forward = hidden[rows, last, : self.hidden_size]  # (B, H)
        return torch.cat([forward, hidden[:, 0, self.hidden_size :]], dim=1)  # (B, F)


class MeanPooling(nn.Module):
    """The mean over valid timesteps."""

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return (B, F)."""
        total = hidden.masked_fill(~valid[..., None], 0).sum(dim=1)  # (B, F)
        return total / valid.sum(dim=1, keepdim=True).to(hidden.dtype)


class MaxPooling(nn.Module):
    """The largest value of each unit over valid timesteps."""

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return (B, F)."""
        return hidden.masked_fill(~valid[..., None], -math.inf).amax(dim=1)


class WeightedPooling(nn.Module, ABC):
    """The mean of h over valid timesteps with weights softmax(e); a subclass says what the energies e are."""

    @abstractmethod
    def energies(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return e (B, T); what it is at padding does not matter."""

    def weights(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return the attention weights (B, T); they sum to 1 over valid timesteps and are 0 at padding."""
        return torch.softmax(self.energies(hidden, valid).masked_fill(~valid, -math.inf), dim=1)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return (B, F)."""
        return (self.weights(hidden, valid)[:, None] @ hidden).squeeze(1)  # (B, 1, T) @ (B, T, F) -> (B, F)


class AttentionPooling(WeightedPooling):
    """Additive attention, pooling "attention": e_t = v . tanh(W h_t + b).

    Source: Bahdanau, Cho & Bengio 2015, section 3.1, with a learned query in place of a decoder's state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.query = nn.Parameter(torch.empty(width).uniform_(-1, 1) / math.sqrt(width))

    def energies(self, hidden: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002 - a timestep's own state is enough
        """Return e (B, T)."""
        return torch.tanh(self.key(hidden)) @ self.query


class DotAttentionPooling(WeightedPooling):
    """Dot-product attention, pooling "dot_attention": e_t = h_t . q; q is the final state of each direction.

    Source: Luong, Pham & Manning 2015, section 3.1, the score "dot"; the state that the model ends in asks, where in
    the paper a decoder's does. It has no weights of its own.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.last = LastPooling(hidden_size)

    def energies(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return e (B, T)."""
        query: Tensor = self.last(hidden, valid)  # (B, F)
        return (hidden @ query[..., None]).squeeze(2)


def make_pooling(pooling: Pooling, hidden_size: int, width: int) -> nn.Module | None:
    """Return the module for a `LSTMConfig.pooling`; None for "none"."""
    if pooling == "last":
        return LastPooling(hidden_size)
    if pooling == "mean":
        return MeanPooling()
    if pooling == "max":
        return MaxPooling()
    if pooling == "attention":
        return AttentionPooling(width)
    if pooling == "dot_attention":
        return DotAttentionPooling(hidden_size)
    return None
