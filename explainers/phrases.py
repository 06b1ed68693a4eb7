"""The recursion of contextual decomposition: what a phrase alone gives to the score, for many phrases at once.

Murdoch, Liu & Yu 2018, section 3. Hidden state and cell are sums of a relevant and an irrelevant part, beta + gamma;
only the relevant one is computed, because the other is the rest. A phrase is a mask of the input, x = x' + rest:

    z = W x + V h + b        a = W x' + V beta                               relevant part of a pre-activation, W x' of
                                                                             what the phrase holds of this timestep
    L(a) = (s(a + b) - s(b) + s(z) - s(z - a)) / 2                           Shapley value of a in s(a + rest + b), over
    L(b) = s(b)                                                              the orders that begin with the bias
    beta_c <- (L(a_f) + L(b_f)) beta_c + (L(a_i) + L(b_i)) (L(a_g) + L(b_g)) - [outside the phrase] L(b_i) L(b_g)
    beta = o (phi(beta_c) + phi(c) - phi(c - beta_c)) / 2                    o is not decomposed

Products of a relevant part with a relevant part or a bias are relevant, those with an irrelevant factor are not; a
product of biases belongs to the timestep it is made at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.kernels import Cell
from ..models.opened import OpenedRun, pre_activations
from ..models.rebuild import Run
from ..models.targets import Target


@torch.no_grad()
def relevant_parts(run: OpenedRun, cells: Tensor, weight: Tensor, target: Target) -> Tensor:
    """Return what each phrase gives to the score of each sample, (P, b), without the head's bias.

    Args:
        run: The pass.
        cells: Bool (P, 1 or b, T, 1 or D), the cells that each phrase is made of.
        weight: The head's, (b, F).
        target: What is explained of each sample.
    """
    whole = cells.all(dim=3)  # (P, 1 or b, T)
    touched = cells.any(dim=3).any(dim=1)  # (P, T)
    relevant: Tensor | None = None
    for layer in run.layers:
        relevant = torch.cat([_through_direction(one, cells, whole, touched, relevant) for one in layer], dim=3)
    assert relevant is not None
    return _pooled(run, relevant, weight, target)


def _through_direction(run: Run, cells: Tensor, whole: Tensor, touched: Tensor, below: Tensor | None) -> Tensor:
    """Return the relevant part of a direction's hidden states, (T, P, b, H), from that of what it reads.

    Args:
        run: The direction.
        cells: See `relevant_parts`.
        whole: Where the phrase holds the whole timestep, (P, 1 or b, T): there a product of biases is its own.
        touched: Where it holds anything of it, in any sample, (P, T).
        below: (T, P, b, D), the relevant part of what the layer reads; None: the layer reads the inputs.
    """
    direction, kind = run.direction, run.direction.kind
    steps, batch, units = run.cell.shape
    read = run.cell.new_zeros(4 * units) if direction.weights.bias is None else direction.weights.bias
    bias = read[: 3 * units].view(3, units)
    weight_ih, weight_hh = direction.weights.ih[: 3 * units].T, direction.weights.hh[: 3 * units].T
    z = pre_activations(run)[:, :, :3]  # (T, b, 3, H)
    full, at_bias = _activated_(z.clone(), kind), _activated_(bias.clone(), kind)
    both = at_bias[0] * at_bias[2]  # (H,)
    shown, output = kind.shown.function(run.cell), run.gates[:, :, 3]  # (T, b, H); 0 where a direction skips padding
    found = run.cell.new_zeros(steps, len(touched), batch, units)
    hidden, cell = torch.zeros_like(found[0]), torch.zeros_like(found[0])  # (P, b, H)
    for t, (first, last) in zip(kind.order(steps), _active(touched, below, kind), strict=True):
        if first == last:
            continue
        some = slice(first, last)
        relevant = (hidden[some].flatten(0, 1) @ weight_hh).view(-1, batch, 3, units)
        if below is None:
            rows = touched[some, t].nonzero()[:, 0]
            held = direction.inputs[t] * cells[some][rows, :, t]  # (n, b, D)
            relevant[rows] += (held @ weight_ih).view(-1, batch, 3, units)
        else:
            relevant += (below[t, some].flatten(0, 1) @ weight_ih).view_as(relevant)
        # in this order, what has nothing relevant gets exactly 0
        with_bias = _activated_(relevant + bias, kind).add_(at_bias)
        with_bias += full[t] - _activated_(z[t] - relevant, kind)
        i, f, g = (with_bias / 2).unbind(dim=2)  # (p, b, H)
        own = f * cell[some] + (i * g - torch.where(whole[some, :, t, None], 0, both))
        cell[some] = own
        kept = kind.shown.function(own) + (shown[t] - kind.shown.function(run.cell[t] - own))
        hidden[some] = output[t] * kept / 2
        found[t, some] = hidden[some]
    return found


def _active(touched: Tensor, below: Tensor | None, kind: Cell) -> list[tuple[int, int]]:
    """Return, in reading order, the range of phrases that have begun at each timestep; the others are 0 until then."""
    time = list(kind.order(touched.shape[1]))
    if below is not None:
        touched = (below != 0).flatten(2).any(dim=2).T  # (P, T)
    begun = touched[:, time].cumsum(dim=1) > 0  # (P, T), as read
    ranges = []
    for column in begun.T:
        rows = column.nonzero()[:, 0].tolist()
        ranges.append((rows[0], rows[-1] + 1) if rows else (0, 0))
    return ranges


def _activated_(z: Tensor, kind: Cell) -> Tensor:
    """Return i, f, g of pre-activations (..., 3, H), in place."""
    z[..., :2, :] = kind.gate.function(z[..., :2, :])
    z[..., 2, :] = kind.shown.function(z[..., 2, :])
    return z


def _pooled(run: OpenedRun, relevant: Tensor, weight: Tensor, target: Target) -> Tensor:
    """Return the part of the score, (P, b), that is linear in a part of the hidden states, (T, P, b, F)."""
    pooling, lengths = run.model.config.pooling, run.lengths
    if pooling == "mean" or target.last is not None:
        shares = run.valid.to(relevant) / lengths.to(relevant)[:, None]  # (b, T)
        if target.last is not None:
            shares = target.covers(len(relevant)).to(relevant)
        return torch.einsum("tpbf,bf,bt->pb", relevant, weight, shares)
    rows = torch.arange(len(lengths))
    if pooling == "none":
        assert target.timestep is not None
        read = relevant[target.timestep, :, rows]  # (b, P, F)
    else:
        width = run.model.config.hidden_sizes[-1]
        read = torch.cat([relevant[lengths - 1, :, rows, :width], relevant[0, ..., width:].transpose(0, 1)], dim=2)
    return torch.einsum("bpf,bf->pb", read, weight)
