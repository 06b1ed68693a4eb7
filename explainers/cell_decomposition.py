"""Cell decomposition: what each timestep left in the top layer's cell, as it shows in the score.

Murdoch & Szlam 2017, section 3.2, the additive form with forget gates. The cell that is read at timestep T is a sum
over timesteps of what each wrote and the forget gates kept; adding the terms one by one, in the order they were read,

    e_t     = (f_(t+1) ... f_T) i_t g_t                                          c_T = e_1 + ... + e_T
    gamma_t = w . o_T (phi(e_1 + ... + e_t) - phi(e_1 + ... + e_(t-1)))          e_1 + ... + e_t = f_(t+1) ... f_T c_t

telescopes: the gamma_t of all timesteps sum to w . h_T, the score without the head's bias. Gates are taken as given,
and with them what earlier timesteps, or lower layers, told them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import ModelError
from ..models.rebuild import Run
from .opened import Part
from .problem import Contribution, Problem
from .raw_score import RawScoreExplainer

REASONS = {
    "max": "each unit's maximum comes from a timestep of its own, which the method has no rule for",
    "attention": "its weights are a product of every hidden state with every other, which the method has no rule for",
    "dot_attention": "its weights are a product of hidden states with the last one, which the method has no rule for",
}


class CellDecomposition(RawScoreExplainer):
    """What each timestep wrote into the top layer's cell, and the forget gates kept, as a part of the score.

    The timesteps' parts and the head's bias (diagnostic `head_bias`) sum to the score exactly. Only the top layer is
    taken apart: below it, its inputs at a timestep count as that timestep's. A timestep's part is shared equally by its
    features (resolution "timestep"). Of a bidirectional model each direction is taken apart by itself, in its own
    reading order, and a timestep's parts are added.

    The paper has pooling "last"; "none" reads one timestep in the same way, "mean" is the mean of the parts that each
    timestep's hidden state gives, T^2 / 2 of them, and of a window of timesteps they are summed (the head's bias too).

    Args:
        model: `LSTMModel` with pooling "last", "mean" or "none", or a module that `from_torch` can rewrite as one.
        options: `task`, `seed` of `Explainer`; `baseline` changes only what the result is shown beside.

    Raises:
        InvalidInputError: output="probability", which has no rule here.
        ModelError: The model pools by maximum or attention.
    """

    name = "cell_decomposition"
    summary = "what each timestep left in the top layer's cell, as a part of the score"
    dummy_player = linearity = "exact"  # not symmetry: what is read first meets an empty cell
    concurrent = True
    source = "Murdoch & Szlam 2017"

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        check_pooling(self.name, self._model.config.pooling)

    def _attribute(self, problem: Problem) -> Contribution:
        return replace(super()._attribute(problem), resolution="timestep")

    def _take_apart(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        run = self._open(problem, part)
        head, top = self._model.head, run.layers[-1]
        target, shares = part.target, None
        weights = head.weight[target.output].chunk(len(top), dim=1)  # (b, H) each
        if self._model.config.pooling == "mean":
            shares = run.valid / run.lengths.to(head.weight)[:, None]  # (b, T)
        elif target.last is not None:
            shares = target.covers(part.values.shape[1]).to(head.weight)
        parts = [
            _parts(one, own, part.lengths, target.timestep) if shares is None else _summed_parts(one, own, shares)
            for one, own in zip(top, weights, strict=True)
        ]
        by_timestep = torch.stack(parts).sum(dim=0)  # (b, T)
        features = part.values.shape[2]
        found = (by_timestep / features)[..., None].expand(part.values.shape)
        return found, {"head_bias": (head.bias[target.output].double().cpu() * target.counts).numpy()}


def check_pooling(name: str, pooling: str) -> None:
    """Refuse a pooling that is not linear in the hidden states of timesteps known beforehand."""
    if pooling in REASONS:
        raise ModelError(
            f"{name} needs a model with pooling 'last', 'mean' or 'none', and this one's is {pooling!r}: "
            f"{REASONS[pooling]}. Exact methods that take it: deeplift, lrp."
        )


def _as_read(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """Return forget gates, output gates and cells, (T, b, H), in the order in which timesteps are read."""
    parts = run.gates[:, :, 1], run.gates[:, :, 3], run.cell
    forget, output, cell = (part.flip(0) for part in parts) if run.direction.kind.reverse else parts
    return forget, output, cell


def _parts(run: Run, weight: Tensor, lengths: Tensor, timestep: Tensor | None) -> Tensor:
    """Return (b, T), what timesteps give to w . h at one timestep; the direction's last where it is None."""
    forget, output, cell = _as_read(run)
    steps, reverse = len(cell), run.direction.kind.reverse
    if timestep is None:
        timestep = torch.zeros_like(lengths) if reverse else lengths - 1
    ends = steps - 1 - timestep if reverse else timestep  # as read; a reverse direction reads its padding, zeros, first
    ends = ends.to(cell.device)
    later = torch.arange(steps, device=cell.device)[:, None] > ends  # (T, b)
    after = torch.ones_like(cell)  # the forget gates after each timestep, to the end
    after[:-1] = forget[1:].masked_fill(later[1:, :, None], 1)
    held = after.flip(0).cumprod(dim=0).flip(0).mul_(cell)  # (T, b, H)
    read = output[ends, torch.arange(len(ends), device=cell.device)] * weight  # (b, H)
    shown = torch.einsum("tbh,bh->tb", run.direction.kind.shown.function(held), read)
    found = _differences(shown).masked_fill(later, 0)
    return (found.flip(0) if reverse else found).T


def _summed_parts(run: Run, weight: Tensor, shares: Tensor) -> Tensor:
    """Return (b, T), the sum over timesteps, each counted with its share (b, T), of what `_parts` gives for it."""
    forget, output, cell = _as_read(run)
    counted = shares.T.flip(0) if run.direction.kind.reverse else shares.T  # (T, b)
    read = output * weight * counted[..., None]  # (T, b, H)
    held = torch.empty_like(cell)
    found = torch.zeros_like(cell[..., 0])  # (T, b)
    for end in range(len(cell)):
        held[:end] *= forget[end]
        held[end] = cell[end]
        if not bool(counted[end].any()):
            continue
        shown = torch.einsum("tbh,bh->tb", run.direction.kind.shown.function(held[: end + 1]), read[end])
        found[: end + 1] += _differences(shown)
    return (found.flip(0) if run.direction.kind.reverse else found).T


def _differences(shown: Tensor) -> Tensor:
    """Return what each timestep adds to the sum before it, (T, b); cells begin with 0."""
    return torch.diff(shown, dim=0, prepend=torch.zeros_like(shown[:1]))
