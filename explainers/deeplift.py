"""DeepLIFT for LSTMs, complete by construction, and its mean over a background, DeepSHAP.

DeepLIFT (Shrikumar, Greenside & Kundaje 2017) explains the difference of two runs, one on the input and one on the
baseline, by multipliers m = contribution / difference that pass backwards like gradients. At each step of the LSTM

    linear parts      as gradients do
    y = sigma(z)      m_z = m_y (y - y0) / (z - z0)           the rescale rule; as z - z0 -> 0 the slope at the mean
    y = a b           m_a = m_y (b + b0) / 2, m_b = m_y (a + a0) / 2   the symmetric rule: da b' + db a' = d(ab) exactly

so nothing is lost at gates, where implementations that treat an LSTM as one black box, or its products as linear,
leave most of the difference unexplained. The mean over a set of baselines gives DeepSHAP (Lundberg & Lee 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.activations import ACTIVATIONS
from ..models.differences import COMPILED_SMALL, Side, difference_factors, difference_slope
from ..models.kernels import walk_linearly_
from ..models.opened import OpenedRun, open_run, pre_activations, scores_of
from ..models.pooling import AttentionPooling, DotAttentionPooling, WeightedPooling
from ..models.rebuild import Run
from .opened import OpenedExplainer, Part
from .problem import Problem

# Differences below which the slope at the mean is used. Completeness does not show the noise of smaller quotients.
SMALL = {torch.float32: COMPILED_SMALL, torch.float64: 1e-6}


class DeepLIFT(OpenedExplainer):
    """DeepLIFT with the rescale rule on nonlinearities and the symmetric rule on every product of the LSTM.

    Contributions add up to f(x) - f(baseline) exactly, through stacked and bidirectional layers, every pooling and the
    head, and with output="probability" through the sigmoid or softmax. One pass for the inputs, one for the baseline
    (of one row, where all samples share it) and one walk back.

    Args:
        model: `LSTMModel`, or a module that `from_torch` can rewrite as one.
        options: `baseline` (the reference run), `background` (several, averaged: then it is DeepSHAP), `output`,
            `task`, `seed` of `Explainer`.
    """

    name = "deeplift"
    summary = "differences to a baseline, passed back through every gate without loss"
    completeness = "exact"
    dummy_player = missingness = symmetry = linearity = "exact"
    concurrent = True
    source = "Shrikumar, Greenside & Kundaje 2017"

    def _explain_part(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        model = self._model
        reference = part.baseline
        shared = bool((part.lengths == part.lengths[0]).all()) and bool((reference == reference[:1]).all())
        run = self._open(problem, part)
        base = problem.kept_baseline if shared else None
        if not isinstance(base, OpenedRun) or base.hidden.shape[1] != reference.shape[1]:  # of a part that was trimmed
            count = 1 if shared else len(reference)
            base = open_run(model, reference[:count], part.lengths[:count])
            problem.predictor.forward_evaluations += count
        problem.predictor.backward_evaluations += len(part.values)
        multiplier = _through_pooling(run, base, self._at_pooled(part, run, base), part.places)  # (b, T, F)
        for layer, base_layer in zip(reversed(run.layers), reversed(base.layers), strict=True):
            below = [
                _through_direction(one, other, own)
                for one, other, own in zip(layer, base_layer, multiplier.chunk(len(layer), dim=2), strict=True)
            ]
            multiplier = torch.stack(below).sum(dim=0) if len(below) > 1 else below[0]
        return multiplier * (part.values - part.baseline), {}

    def _at_pooled(self, part: Part, run: OpenedRun, base: OpenedRun) -> Tensor:
        """Return the multipliers of what the head reads, (b, F), with pooling "none" of `part.places`, (N, F)."""
        head, places = self._model.head, part.places
        output = part.target.output if places is None else part.target.output[places[0]]
        if self.predictor.output == "logit":
            return head.weight[output]
        scores, base_scores = (scores_of(one, places) for one in (run, base))  # (b or N, K), (1, b or N, K)
        rows = torch.arange(len(scores))
        if self.predictor.task == "binary":
            chosen, other = scores[rows, output], base_scores.expand_as(scores)[rows, output]
            slope = difference_slope(
                ACTIVATIONS["sigmoid"], chosen, chosen.sigmoid(), other, other.sigmoid(), SMALL[chosen.dtype]
            )
            return slope[:, None] * head.weight[output]
        chosen = torch.nn.functional.one_hot(output, scores.shape[1]).to(scores)
        return _through_softmax(scores, base_scores.expand_as(scores), chosen) @ head.weight


class DeepSHAP(DeepLIFT):
    """DeepLIFT averaged over a background set: approximate Shapley values against the data's own distribution.

    Args:
        model: `LSTMModel`, or a module that `from_torch` can rewrite as one.
        background: Reference sequences (R, T, D); without one it is DeepLIFT with `baseline`.
        options: `baseline`, `output`, `task`, `seed` of `Explainer`.
    """

    name = "deep_shap"
    summary = "DeepLIFT averaged over a background set"
    source = "Lundberg & Lee 2017; Shrikumar, Greenside & Kundaje 2017"
    takes_background = True

    def __init__(self, model: Any, *, background: Any = None, **options: Any) -> None:
        super().__init__(model, background=background, **options)


def _through_softmax(x: Tensor, base_x: Tensor, multiplier: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the multipliers of energies (b, n) from those of their softmax w, which no common shift of them changes.

    With the slopes s = (w - w0) / (log w - log w0), and because the weights of both runs sum to 1, w - w0 is exactly
    s (x - x0 - sum(s (x - x0)) / sum(s)).
    """
    if valid is not None:
        x, base_x = (part.masked_fill(~valid, -torch.inf) for part in (x, base_x))
    logs, base_logs = x.log_softmax(dim=1), base_x.log_softmax(dim=1)
    weights, base_weights = logs.exp(), base_logs.exp()
    difference = logs - base_logs
    if valid is not None:
        difference = difference.masked_fill(~valid, 0)
    small = difference.abs() < SMALL[x.dtype]
    slope = torch.where(
        small, (weights + base_weights) / 2, (weights - base_weights) / torch.where(small, 1, difference)
    )
    return slope * (multiplier - (multiplier * slope).sum(dim=1, keepdim=True) / slope.sum(dim=1, keepdim=True))


def _through_pooling(run: OpenedRun, base: OpenedRun, pooled: Tensor, places: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the multipliers of the top hidden states, (b, T, F), from those of what the head reads, (b or N, F)."""
    hidden, base_hidden, valid = run.hidden, base.hidden.expand_as(run.hidden), run.valid
    found = torch.zeros_like(hidden)
    pooling = run.model.config.pooling
    if pooling == "none":
        assert places is not None
        found[places] = pooled
    elif pooling == "last":
        _add_at_last(found, run, pooled)
    elif pooling == "mean":
        found = (pooled / run.lengths.to(pooled)[:, None])[:, None] * valid[..., None]
    elif pooling == "max":
        _add_through_max(found, hidden, base_hidden, pooled, valid)
    else:
        _add_through_weights(found, run, base, pooled)
    return found * valid[..., None]


def _add_at_last(found: Tensor, run: OpenedRun, multiplier: Tensor) -> None:
    """Add multipliers (b, F) of the final state of each direction, in place."""
    width = run.model.config.hidden_sizes[-1]
    found[torch.arange(len(found)), run.lengths - 1, :width] += multiplier[:, :width]
    found[:, 0, width:] += multiplier[:, width:]


def _add_through_weights(found: Tensor, run: OpenedRun, base: OpenedRun, pooled: Tensor) -> None:
    """Add the multipliers of a mean weighted by attention, in place: weights times states, and what makes weights."""
    hidden, base_hidden, valid = run.hidden, base.hidden.expand_as(run.hidden), run.valid
    module = run.model.pooling
    assert isinstance(module, WeightedPooling)
    weights, base_weights = module.weights(hidden, valid), module.weights(base_hidden, valid)
    middle = (hidden + base_hidden) / 2
    to_weights = (middle @ pooled[..., None]).squeeze(2)  # (b, T)
    found += ((weights + base_weights) / 2)[..., None] * pooled[:, None]
    if isinstance(module, DotAttentionPooling):
        energy, base_energy = module.energies(hidden, valid), module.energies(base_hidden, valid)
        to_energy = _through_softmax(energy, base_energy, to_weights, valid)
        query = (module.last(hidden, valid) + module.last(base_hidden, valid)) / 2  # (b, F)
        found += to_energy[..., None] * query[:, None]
        _add_at_last(found, run, (to_energy[:, None] @ middle).squeeze(1))
        return
    assert isinstance(module, AttentionPooling)
    inner, base_inner = (torch.addmm(module.key.bias, one.flatten(0, 1), module.key.weight.T).view_as(one)
                         for one in (hidden, base_hidden))  # fmt: skip
    shown, base_shown = inner.tanh(), base_inner.tanh()
    to_energy = _through_softmax(shown @ module.query, base_shown @ module.query, to_weights, valid)
    slope = difference_slope(ACTIVATIONS["tanh"], inner, shown, base_inner, base_shown, SMALL[inner.dtype])
    found += (to_energy[..., None] * module.query * slope) @ module.key.weight


def _add_through_max(found: Tensor, hidden: Tensor, base_hidden: Tensor, pooled: Tensor, valid: Tensor) -> None:
    """Add the multipliers of a maximum over time: what rises, at its place in the run; what falls, in the baseline."""
    for side in (hidden, base_hidden):
        high, at = side.masked_fill(~valid[..., None], -torch.inf).max(dim=1, keepdim=True)  # (b, 1, F)
        own, other = hidden.gather(1, at), base_hidden.gather(1, at)
        if side is hidden:
            top = high
            base_top = base_hidden.masked_fill(~valid[..., None], -torch.inf).amax(dim=1, keepdim=True)
            part = torch.maximum(top, base_top) - base_top
        else:
            part = top - torch.maximum(top, base_top)
        difference = own - other
        nothing = part == 0
        share = torch.where(nothing, 0, part / torch.where(nothing, 1, difference))
        found.scatter_add_(1, at, share * pooled[:, None])


def _through_direction(run: Run, base: Run, multiplier: Tensor) -> Tensor:
    """Return the multipliers of what a direction reads, (b, T, D), from those of its hidden states, (b, T, H)."""
    direction = run.direction
    given, steps = multiplier.shape[1], len(run.cell)  # a packed sequence ends with the longest
    arriving = multiplier[:, :steps].transpose(0, 1).to(run.cell.dtype, copy=True).contiguous()  # (T, b, H)
    small = SMALL[run.cell.dtype]
    factors = difference_factors(_side(run), _side(base), direction.lengths, direction.kind, small)
    below = walk_linearly_(*factors, direction.weights, arriving, reverse=direction.kind.reverse)
    return torch.nn.functional.pad(below.transpose(0, 1), (0, 0, 0, given - steps))


def _side(run: Run) -> Side:
    return Side(run.gates, run.cell, pre_activations(run), run.direction.initial_c)
