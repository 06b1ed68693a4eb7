"""Layer-wise relevance propagation for LSTMs.

The score is relevance, and goes back to the inputs (Arras, Montavon, Müller & Samek 2017; Arras et al. 2019). With
stab(z) = z + epsilon sign(z):

    z_j = sum_i w_ji v_i + b_j   R_i = sum_j (w_ji v_i + delta (b_j + epsilon sign(z_j)) / N) / stab(z_j) R_j
    h = o phi(c)                 R_c += R_h, R_o = 0            all to the signal, nothing to the gate
    c_t = f c_(t-1) + i g        R_c(t-1) = f c_(t-1) / stab(c_t) R_c, R_g = i g / stab(c_t) R_c, a sum of N = 2 terms
    g = phi(z)                   R_z = R_g

delta is 1 where the bias is shared among the N inputs of a neuron (all that are connected to it), 0 where it keeps its
part. A relevance that is a multiple of its value goes through a linear layer like a gradient: with R_h = h m, the walk
back needs no division by h, and is `walk_linearly_` with h as the cell's factor.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError
from ..models.errors import nearest_name
from ..models.kernels import previous_cells, walk_linearly_
from ..models.opened import OpenedRun
from ..models.pooling import WeightedPooling
from ..models.rebuild import Run, entered_states
from .base import Completeness
from .opened import Part, summed
from .problem import Problem
from .raw_score import RawScoreExplainer

Bias = Literal["absorbed", "shared"]


class LRP(RawScoreExplainer):
    """Layer-wise relevance propagation: epsilon rule on sums, signal-takes-all on the products with gates.

    It distributes the score itself, not a difference to a baseline. What of it reaches no input is told as a
    diagnostic: sum of attributions + diagnostic = score.

    Through poolings: the mean is a linear layer; the maximum gives all to its winner; attention's weights are gates, so
    timesteps get their part of the weighted sum, and keys and query (also where it is a state) nothing.

    Args:
        model: `LSTMModel`, or a module that `from_torch` can rewrite as one.
        epsilon: The stabiliser, 0 or more: how far denominators are kept from 0.
        bias: "absorbed": biases and stabilisers keep their part of the relevance (`absorbed_relevance`); "shared":
            it is given to the neuron's inputs in equal parts, and what is given to the states before the first
            timestep is lost (`initial_state_relevance`).
        options: `task`, `seed` of `Explainer`; `baseline` changes only what the result is shown beside.

    Raises:
        InvalidInputError: An option is out of range, or output="probability", which has no rule here.
    """

    name = "lrp"
    summary = "the score sent back to the inputs in proportion to what they gave (epsilon rule, gates get nothing)"
    linearity = "converges"  # as epsilon goes to 0
    concurrent = True
    source = "Arras, Montavon, Müller & Samek 2017; Arras et al. 2019"

    def __init__(self, model: Any, *, epsilon: float = 1e-3, bias: Bias = "absorbed", **options: Any) -> None:
        super().__init__(model, **options)
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float, np.number)) or not 0 <= epsilon < np.inf:
            raise InvalidInputError(f"epsilon is {epsilon!r}; expected a finite number, 0 or more, e.g. epsilon=1e-3.")
        if bias not in get_args(Bias):
            raise InvalidInputError(f"bias is {bias!r}; {nearest_name(str(bias), get_args(Bias))}")
        self.epsilon = float(epsilon)
        self.bias: Bias = bias

    @property
    def dummy_player(self) -> Completeness:  # type: ignore[override]
        """A feature without weights gets its part of a shared bias."""
        return "none" if self.bias == "shared" else "exact"

    @property
    def symmetry(self) -> Completeness:  # type: ignore[override]
        """What epsilon or a bias takes, it takes at every step back, from earlier timesteps more often."""
        return "exact" if self.epsilon == 0 and self.bias == "absorbed" else "none"

    def _take_apart(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        run = self._open(problem, part)
        problem.predictor.backward_evaluations += len(part.values)
        score, multiplier, extra = self._at_hidden(run, part)
        for layer in reversed(run.layers):
            multipliers, extras = multiplier.chunk(len(layer), dim=2), extra.chunk(len(layer), dim=2)
            below = [
                self._through_direction(one, own, added)
                for one, own, added in zip(layer, multipliers, extras, strict=True)
            ]
            multiplier = torch.stack([own for own, _ in below]).sum(dim=0)  # (b, T, D)
            extra = torch.stack([added for _, added in below]).sum(dim=0)  # (b, T, D)
        found = (part.values * multiplier + extra) * run.valid[..., None]
        lost = score.double() - found.sum(dim=(1, 2), dtype=torch.float64)
        name = "absorbed_relevance" if self.bias == "absorbed" else "initial_state_relevance"
        return found, {name: lost.cpu().numpy()}

    @property
    def _delta(self) -> float:
        return 1.0 if self.bias == "shared" else 0.0

    def _slack(self, z: Tensor) -> Tensor:
        """Return epsilon with the sign of z."""
        return torch.full_like(z, self.epsilon).copysign_(z)

    def _ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """Return part / whole; 0 / 0, which epsilon=0 allows, is 0, because there is nothing to distribute."""
        if self.epsilon > 0:
            return part / whole
        return torch.where((part == 0) & (whole == 0), 0, part / whole)

    def _at_hidden(self, run: OpenedRun, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Return score (b,), and m, e (b, T, F) of the top layer: its hidden states h have the relevance h m + e."""
        hidden, valid, rows = run.hidden, run.valid, torch.arange(len(run.hidden))
        pooling, kind, head = run.model.pooling, run.model.config.pooling, run.model.head
        places, output = part.places, part.target.output
        if places is not None:  # a score of each place is sent back, and a sample has their sum
            pooled, output = hidden[places], output[places[0]]  # (N, F), (N,)
        else:
            assert pooling is not None
            pooled = pooling(hidden, valid)  # (b, F); N is b from here on
        weight, bias = head.weight[output], head.bias[output]  # (N, F), (N,)
        score = (weight * pooled).sum(dim=1) + bias
        ratio = self._ratio(score, score + self._slack(score))  # (N,)
        own = ratio[:, None] * weight  # (b, F)
        added = (self._delta * ratio * (bias + self._slack(score)) / weight.shape[1])[:, None].expand_as(own)
        multiplier, extra = torch.zeros_like(hidden), torch.zeros_like(hidden)
        if places is not None:
            multiplier[places], extra[places] = own, added
            score = summed(score, places, run)  # (b,)
        elif kind == "last":
            width = run.model.config.hidden_sizes[-1]
            for room, values in ((multiplier, own), (extra, added)):
                room[rows, run.lengths - 1, :width] = values[:, :width]
                room[:, 0, width:] += values[:, width:]
        elif kind == "max":
            at = hidden.masked_fill(~valid[..., None], -torch.inf).argmax(dim=1, keepdim=True)  # (b, 1, F)
            multiplier.scatter_(1, at, own[:, None])
            extra.scatter_(1, at, added[:, None])
        else:
            length = run.lengths.to(hidden)[:, None, None]
            weights = valid / length[..., 0]  # (b, T)
            if isinstance(pooling, WeightedPooling):
                weights = pooling.weights(hidden, valid)
            ratio = self._ratio(pooled * own + added, pooled + self._slack(pooled))[:, None]  # (b, 1, F)
            multiplier = weights[..., None] * ratio
            extra = self._delta * self._slack(pooled)[:, None] * ratio / length * valid[..., None]
        return score, multiplier, extra

    def _through_direction(self, run: Run, multiplier: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """Return m, e (b, T, D) of what a direction reads, from those of its hidden states (b, T, H)."""
        direction, cell = run.direction, run.cell
        kind, units = direction.kind, direction.units
        own = slice(2 * units, 3 * units)  # the candidate's rows
        weight_ih, weight_hh = direction.weights.ih[own], direction.weights.hh[own]
        bias = cell.new_zeros(units) if direction.weights.bias is None else direction.weights.bias[own]
        z = torch.addmm(bias, direction.inputs.flatten(0, 1), weight_ih.T)
        z = z.addmm_(entered_states(run).flatten(0, 1), weight_hh.T).view_as(cell)  # (T, b, H)
        slack = self._slack(cell)
        stable, stable_z = cell + slack, z + self._slack(z)
        i, f, g, _ = run.gates.unbind(dim=2)  # (T, b, H)
        kept, written = f * previous_cells(cell, direction.initial_c, direction.lengths, kind), i * g
        if self.bias == "shared":
            kept, written = kept + slack / 2, written + slack / 2
        carry = self._ratio(kept, stable)  # what a cell gives to the one before it
        gate = self._ratio(self._ratio(written, stable), stable_z)  # what it gives to z, over stab(z)
        padding = torch.arange(len(cell), device=cell.device)[:, None] >= direction.lengths.to(cell.device)  # (T, b)
        if bool(padding.any()):
            carry.masked_fill_(padding[..., None], 0)
            gate.masked_fill_(padding[..., None], 0)
        arriving = multiplier.transpose(0, 1).to(cell.dtype, copy=True).contiguous()  # (T, b, H)
        if self.bias == "absorbed":
            factors = torch.zeros_like(run.gates)
            factors[:, :, 2] = gate
            below = walk_linearly_(
                run.hidden.contiguous(), carry, factors, direction.weights, arriving, reverse=kind.reverse
            )  # (T, b, D)
            return below.transpose(0, 1), torch.zeros_like(below).transpose(0, 1)
        share = (bias + stable_z - z) / (weight_ih.shape[1] + units)  # (T, b, H), what each input gets of z's own
        added = extra.transpose(0, 1).to(cell.dtype, copy=True).contiguous()
        at_z, at_inputs = torch.empty_like(cell), torch.empty_like(added[..., :1])  # (T, b, H), (T, b, 1)
        running = torch.zeros_like(cell[0])
        for t in range(len(cell)) if kind.reverse else reversed(range(len(cell))):
            at_cell = running + run.hidden[t] * arriving[t] + added[t]  # (b, H), relevance
            running = at_cell * carry[t]
            torch.mul(at_cell, gate[t], out=at_z[t])
            torch.sum(at_z[t] * share[t], dim=1, keepdim=True, out=at_inputs[t])
            earlier = kind.earlier(t)
            if 0 <= earlier < len(cell):
                arriving[earlier].addmm_(at_z[t], weight_hh)
                added[earlier] += at_inputs[t]
        below = at_z @ weight_ih
        return below.transpose(0, 1), at_inputs.expand_as(below).transpose(0, 1)
