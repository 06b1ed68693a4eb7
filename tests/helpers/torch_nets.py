"""PyTorch models as people write them, for the tests of `from_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """(Embedding ->) `nn.LSTM` -> pooling -> `nn.Linear`.

    Args:
        pooling: "last" (h_n), "step" (output[:, -1]), "mean", "max", "dot_attention" (asked by h_n) or "none".
        outputs: K.
        ending: What is done with the scores.
        tokens: V of an embedding; None: inputs are floats (B, T, 3).
        lstm: Options of the `nn.LSTM`.
    """

    def __init__(
        self,
        pooling: str = "last",
        *,
        outputs: int = 2,
        ending: Callable[[Tensor], Tensor] | None = None,
        tokens: int | None = None,
        head_bias: bool = True,
        seed: int = 0,
        **lstm: Any,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.ending = ending
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.words = None if tokens is None else nn.Embedding(tokens, 3, padding_idx=0)
            self.encoder = nn.LSTM(3, 4, **{"batch_first": True, **lstm})
            self.classifier = nn.Linear(8 if self.encoder.bidirectional else 4, outputs, bias=head_bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the pooling says, in the layout of the `nn.LSTM`."""
        hidden, (final, _) = self.encoder(inputs if self.words is None else self.words(inputs))
        time = 1 if self.encoder.batch_first else 0
        state = torch.cat([final[-2], final[-1]], dim=1) if self.encoder.bidirectional else final[-1]  # (B, F)
        if self.pooling == "last":
            pooled = state
        elif self.pooling == "step":
            pooled = hidden.select(time, -1)
        elif self.pooling == "mean":
            pooled = hidden.mean(time)
        elif self.pooling == "max":
            pooled = hidden.amax(time)
        elif self.pooling == "dot_attention":
            energy = (hidden * state.unsqueeze(time)).sum(dim=2, keepdim=True)
            pooled = (energy.softmax(time) * hidden).sum(time)
        else:
            pooled = hidden
        scores = self.classifier(pooled)
        return scores if self.ending is None else self.ending(scores)


class NetWithLengths(Net):
    """The same with `lengths`: packed, so that each sequence ends where it says."""

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, K)."""
        packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True)
        _, (final, _) = self.encoder(packed)
        return self.classifier(torch.cat([final[-2], final[-1]], dim=1) if self.encoder.bidirectional else final[-1])


class Tower(nn.Module):
    """Two `nn.LSTM` of different widths, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.upper = nn.LSTM(6, 4, batch_first=True)  # defined before what it reads
            self.lower = nn.LSTM(3, 6, num_layers=2, batch_first=True, dropout=0.5)
            self.head = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B,): the one output is squeezed."""
        return self.head(self.upper(self.lower(inputs)[0])[0][:, -1]).squeeze(-1)


class Cells(nn.Module):
    """Two `nn.LSTMCell` in a loop."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.first, self.second, self.out = nn.LSTMCell(3, 4), nn.LSTMCell(4, 5), nn.Linear(5, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, 1)."""
        one = two = None
        for step in inputs.unbind(1):
            one = self.first(step, one)
            two = self.second(one[0], two)
        return self.out(two[0])


def floats(*shape: int, seed: int = 7) -> Tensor:
    """Return seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(*shape: int, vocabulary: int, seed: int = 7) -> Tensor:
    """Return seeded token ids, 0 among them."""
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))
