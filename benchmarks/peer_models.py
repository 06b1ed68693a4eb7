"""What `peers.py` explains: an `nn.LSTM` with a linear head, its sequences, and what samplers get."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from contenders import Contender, Setting
from torch import Tensor, nn

from gatelens.models import LSTMModel, fit, from_torch

FEATURES, HIDDEN = 8, 64
EVALUATIONS = 512  # of sampling methods, beside two for each timestep
ROWS = (32, 64, 128, 256, 512)  # sequences that the model may take at once


@dataclass(frozen=True)
class Models:
    """The same model as its peers get it, and as gatelens does: by `from_torch`, as its README says."""

    plain: nn.Module
    adopted: LSTMModel

    def of(self, contender: Contender) -> nn.Module:
        """Return the one that a contender gets."""
        return self.adopted if contender.library == "gatelens" else self.plain


class Plain(nn.Module):
    """What a user brings: an `nn.LSTM` and a linear head, (b, T, D) -> (b, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answer at the end."""
        return self.head(self.lstm(inputs)[0][:, -1])  # type: ignore[no-any-return]


def trained(cache: Path, *, epochs: int = 20) -> Plain:
    """Return the model, which adds up what a switch let through, fading: trained now, or as it was kept."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Plain()
    kept = cache / f"peers-{epochs}.pt"
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model.eval()  # type: ignore[no-any-return]
    inputs = drawn(4000, 20, seed=1)
    level, total = torch.zeros(len(inputs)), torch.zeros(len(inputs))
    for step in inputs.unbind(dim=1):  # (N, D)
        level = torch.where(step[:, 3] > 1, 0.0, level + (step[:, 0] > 0) * step[:, 1])
        total = 0.95 * total + level * step[:, 2].tanh()
    fit(model, (inputs, total / 3), task="regression", epochs=epochs, learning_rate=3e-3, batch_size=64)
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), kept)
    return model.eval()  # type: ignore[no-any-return]


def both(cache: Path) -> Models:
    """Return the trained model, plain and adopted."""
    plain = trained(cache)
    return Models(plain, from_torch(plain, task="regression"))


def drawn(count: int, steps: int, seed: int) -> Tensor:
    """Return (N, T, D)."""
    return torch.randn(count, steps, FEATURES, generator=torch.Generator().manual_seed(seed))


def setting_of(steps: int, rows: tuple[int, int]) -> Setting:
    """Return what sampling methods get for sequences of so many timesteps, and how many at once (see `best_rows`)."""
    evaluations = 2 * steps + EVALUATIONS
    return Setting(drawn(200, steps, seed=2).numpy(), evaluations, rows=rows[0], gradient_rows=rows[1])


def best_rows(model: nn.Module, steps: int) -> tuple[int, int]:
    """Return how many sequences at once the model is fastest with here: forwards, and forwards and backwards.

    512 sequences are split by each of `ROWS`, twice in turn, and the faster run counts. Of what is level, within 5 %,
    it is the most: fewer calls.
    """
    inputs = drawn(max(ROWS), steps, seed=5)
    found = []
    for backwards in (False, True):
        seconds = {rows: float("inf") for rows in ROWS}
        for _ in range(2):
            for rows in ROWS:
                begin = time.perf_counter()
                for part in inputs.split(rows):
                    leaf = part.clone().requires_grad_(backwards)
                    with torch.set_grad_enabled(backwards):
                        answer = model(leaf).sum()
                    if backwards:
                        torch.autograd.grad(answer, leaf)
                seconds[rows] = min(seconds[rows], time.perf_counter() - begin)
        found.append(max(rows for rows in ROWS if seconds[rows] <= 1.05 * min(seconds.values())))
    return found[0], found[1]
