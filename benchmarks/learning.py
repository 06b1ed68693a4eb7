"""Models that learn the tasks of `tasks.py`: trained once, and kept in a folder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tasks import Task
from torch import Tensor, nn

from gatelens.models import LSTMConfig, LSTMModel, fit

HERE = Path(__file__).parent
CACHE = HERE / "cache"


class GRU(nn.Module):
    """A GRU with a linear head, the peer of `LSTMModel` in the published setting: (N, T, D) -> (N, T, 1) or (N, 1)."""

    def __init__(self, features: int, hidden: int, *, last: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)
        self.last = last

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answer of every timestep, or the last one's."""
        states = self.gru(inputs)[0]
        return self.head(states[:, -1] if self.last else states)  # type: ignore[no-any-return]


class WhiteBox(nn.Module):
    """The sum of the squares of its cells: (N, T, D) -> (N, 1)."""

    cells: Tensor

    def __init__(self, cells: NDArray[np.bool_]) -> None:
        super().__init__()
        self.register_buffer("cells", torch.as_tensor(cells, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the cells hold."""
        return (inputs**2 * self.cells).sum(dim=(1, 2))[:, None]


def trained(task: Task, cache: Path | None = CACHE) -> nn.Module:
    """Return the task's model, trained now, or as it was kept in `cache` when the same was trained before."""
    features = task.draw(1, np.random.default_rng(0)).inputs.shape[2]
    model = made(task, features)
    settings = repr(replace(task, draw=None, small=None, text="", samples=0))  # type: ignore[arg-type]
    source = hashlib.sha256((settings + _sources()).encode()).hexdigest()[:16]
    kept = None if cache is None else cache / f"{task.name.lower().replace(', ', '-').replace(' ', '-')}-{source}.pt"
    if kept is not None and kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model.eval()
    batch = task.draw(task.train, np.random.default_rng([task.seed, 1]))
    targets = batch.targets[..., None] if task.each_step else batch.targets
    fit(
        model, (batch.inputs, targets), task=task.task, epochs=task.epochs, learning_rate=task.learning_rate,
        seed=task.seed,
    )  # fmt: skip
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), kept)
    return model.eval()


def made(task: Task, features: int) -> nn.Module:
    before = torch.get_rng_state()
    torch.manual_seed(task.seed)
    try:
        if task.model == "gru":
            return GRU(features, task.hidden, last=not task.each_step)
        pooling: Any = "none" if task.each_step else "last"
        return LSTMModel(LSTMConfig(input_size=features, hidden_sizes=(task.hidden,), task=task.task, pooling=pooling))
    finally:
        torch.set_rng_state(before)


def last_answer(task: Task, model: nn.Module) -> nn.Module:
    """Return the model as one that answers once, at the end of what it reads: each answer of a model of many."""
    if not task.each_step:
        return model
    features = next(model.parameters()).shape[1]
    other = made(replace(task, each_step=False), features)
    other.load_state_dict(model.state_dict())
    return other.eval()


def fitness(task: Task, model: nn.Module) -> str:
    """Return how well the model answers new sequences, in words."""
    batch = task.draw(300, np.random.default_rng([task.seed, 2]))
    with torch.no_grad():
        scores = model(torch.as_tensor(batch.inputs))[..., 0].numpy()
    if task.task == "regression":
        return f"R² {1 - ((scores - batch.targets) ** 2).mean() / batch.targets.var():.4f}"
    right, most = ((scores > 0) == (batch.targets > 0.5)).mean(), batch.targets.mean()
    return f"accuracy {right:.3f} (the more frequent answer: {max(most, 1 - most):.3f})"


def _sources() -> str:
    """Return what the data and the training are written in: a model of other code is another model."""
    return "".join((HERE / name).read_text(encoding="utf-8") for name in ("tasks.py", "learning.py"))
