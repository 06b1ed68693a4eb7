"""Small models and sequences that the tests of explainers share."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gatelens.models import LSTMConfig, LSTMModel

LENGTHS = [6, 4, 2]


def lstm(*, strength: float = 2.0, seed: int = 0, double: bool = False, **config) -> LSTMModel:
    """Return a seeded `LSTMModel`; `strength` scales its weights, so that gates leave the middle of their range."""
    if "vocab_size" not in config:
        config = {"input_size": 3, **config}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LSTMModel(LSTMConfig(**{"hidden_sizes": (5,), **config}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(strength)
    return (model.double() if double else model).eval()


def sequences(*shape: int, seed: int = 1, double: bool = False) -> torch.Tensor:
    """Return seeded normal numbers."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values if double else values.float()


def token_ids(*shape: int, vocab_size: int = 9, seed: int = 1) -> torch.Tensor:
    """Return seeded ids, none of them the padding token 0."""
    return torch.randint(1, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """f(x) = sum of weight * x + bias over the valid timesteps, (B, 1); weight is (T, D)."""

    def __init__(self, weight: torch.Tensor, bias: float = 0.7) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (B, 1) from (B, L, D), L <= T."""
        return (inputs * self.weight[: inputs.shape[1]]).sum((1, 2))[:, None] + self.bias


def linear_function(weight: torch.Tensor, bias: float = 0.7):
    """Return the same as a plain function on arrays."""

    def function(inputs: np.ndarray) -> np.ndarray:
        assert isinstance(inputs, np.ndarray)
        return (inputs * weight.numpy()[: inputs.shape[1]]).sum((1, 2)) + bias

    return function


class Foreign(nn.Module):
    """An `nn.LSTM` with a head, as anyone writes it: K scores of the last timestep."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.encoder = nn.LSTM(3, 4, num_layers=2, batch_first=True)
            self.head = nn.Linear(4, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (B, K)."""
        return self.head(self.encoder(inputs)[0][:, -1])


class ForeignWithLengths(Foreign):
    """The same, reading the last valid timestep."""

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (B, K)."""
        hidden = self.encoder(inputs)[0]
        return self.head(hidden[torch.arange(len(hidden)), lengths - 1])
