"""The LSTM, written once, readable: the oracle that every fast path of gatelens is tested against.

One timestep, with the gates of Hochreiter & Schmidhuber (1997), "Long Short-Term Memory", and the forget gate of
Gers, Schmidhuber & Cummins (2000), "Learning to Forget". x_t is the input, h the hidden state, c the cell state,
sigma the logistic function, * the elementwise product, and phi is tanh (or relu, as some saved Keras models use):

    i_t = sigma(W_ii x_t + b_ii + W_hi h_(t-1) + b_hi)      input gate:   how much of the candidate is written
    f_t = sigma(W_if x_t + b_if + W_hf h_(t-1) + b_hf)      forget gate:  how much of the cell is kept
    g_t = phi  (W_ig x_t + b_ig + W_hg h_(t-1) + b_hg)      candidate:    what may be written
    o_t = sigma(W_io x_t + b_io + W_ho h_(t-1) + b_ho)      output gate:  how much of the cell is shown
    c_t = f_t * c_(t-1) + i_t * g_t                         cell state
    h_t = o_t * phi(c_t)                                    hidden state

Torch stacks the four rows i, f, g, o of W and b in this order. Everything here is a plain loop in whatever dtype the
tensors have (tests use float64) and is differentiable by autograd. Nothing here is fast, and nothing outside the
tests runs it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .config import LSTMConfig
from .trace import LayerTrace, Trace


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, activation: str = "tanh"
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (i, f, g, o, c, h) of one timestep, each (B, H), from x (B, D), h (B, H) and c (B, H)."""
    phi = torch.tanh if activation == "tanh" else torch.relu
    pre_activation = x @ weight_ih.T + h @ weight_hh.T + bias  # (B, 4H)
    pre_i, pre_f, pre_g, pre_o = pre_activation.chunk(4, dim=1)  # (B, H) each
    i, f, g, o = pre_i.sigmoid(), pre_f.sigmoid(), phi(pre_g), pre_o.sigmoid()
    c = f * c + i * g  # (B, H)
    h = o * phi(c)  # (B, H)
    return i, f, g, o, c, h


def lstm_layer(
    inputs: Tensor,
    lengths: Tensor,
    weights: Mapping[str, Tensor],
    *,
    reverse: bool = False,
    activation: str = "tanh",
) -> LayerTrace:
    """Run one direction of one layer over inputs (B, T, D), each sequence by itself; padding stays 0.

    `weights` maps torch's names without a suffix (weight_ih, weight_hh, bias_ih, bias_hh) to tensors.
    """
    batch, steps, _ = inputs.shape
    hidden = weights["weight_hh"].shape[1]
    bias = weights["bias_ih"] + weights["bias_hh"]
    rows: list[list[Tensor]] = []
    for b in range(batch):
        length = int(lengths[b])
        h = c = inputs.new_zeros(1, hidden)
        blank = inputs.new_zeros(6, hidden)
        values = [blank] * steps
        order = reversed(range(length)) if reverse else range(length)
        for t in order:
            step = lstm_step(
                inputs[b, t][None], h, c, weights["weight_ih"], weights["weight_hh"], bias, activation=activation
            )
            c, h = step[4], step[5]
            values[t] = torch.cat(step)  # (6, H)
        rows.append(values)
    stacked = torch.stack([torch.stack(values) for values in rows])  # (B, T, 6, H)
    return LayerTrace(*stacked.unbind(dim=2))


def pool(config: LSTMConfig, weights: Mapping[str, Tensor], hidden: Tensor, lengths: Tensor) -> Tensor:
    """Reduce the top layer's hidden states (B, T, F) to the head's input (B, F), a sequence at a time."""
    width = config.hidden_sizes[-1]
    rows = []
    for b in range(hidden.shape[0]):
        valid = hidden[b, : int(lengths[b])]  # (L, F)
        if config.pooling == "last":  # the final state of each direction
            rows.append(torch.cat([valid[-1, :width], valid[0, width:]]))
        elif config.pooling == "mean":
            rows.append(valid.mean(dim=0))
        elif config.pooling == "max":
            rows.append(valid.amax(dim=0))
        elif config.pooling == "dot_attention":  # e_t = h_t . q, q the final state of each direction
            query = torch.cat([valid[-1, :width], valid[0, width:]])  # (F,)
            rows.append(torch.softmax(valid @ query, dim=0) @ valid)
        else:  # e_t = v . tanh(W h_t + b), alpha = softmax(e)
            keys = torch.tanh(valid @ weights["pooling.key.weight"].T + weights["pooling.key.bias"])  # (L, F)
            energy = keys @ weights["pooling.query"]  # (L,)
            rows.append(torch.softmax(energy, dim=0) @ valid)
    return torch.stack(rows)


def evaluate(
    config: LSTMConfig, weights: Mapping[str, Tensor], inputs: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Trace]:
    """Return the scores, (B, K) or (B, T, K), and the trace of an `LSTMModel` with these weights."""
    batch, steps = inputs.shape[:2]
    if lengths is None:
        lengths = torch.full((batch,), steps)
    hidden = weights["embedding.weight"][inputs] if config.reads_tokens else inputs  # (B, T, D)
    layers: dict[str, LayerTrace] = {}
    for index in range(len(config.hidden_sizes)):
        outputs = []
        for suffix in ("", "_reverse")[: config.directions]:
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            layer_weights = {name: weights[f"lstm.{index}.{name}_l0{suffix}"] for name in names}
            layer = lstm_layer(hidden, lengths, layer_weights, reverse=bool(suffix), activation=config.activation)
            layers[f"lstm.{index}{suffix.replace('_', '.')}"] = layer
            outputs.append(layer.hidden_state)
        hidden = torch.cat(outputs, dim=2)  # (B, T, H * directions)
    features = hidden if config.pooling == "none" else pool(config, weights, hidden, lengths)
    scores = features @ weights["head.weight"].T + weights["head.bias"]  # (B, K) or (B, T, K)
    if config.pooling == "none":
        valid = torch.arange(steps) < lengths[:, None]  # (B, T)
        scores = scores * valid[..., None]
    return scores, Trace(layers, lengths=lengths)
