"""`trace_gradients`: how the explained score changes with every gate, cell state and hidden state.

Autograd is asked only for the gradient at each LSTM's outputs. From there the equations are walked back in time by
hand, so the user's module needs no retained graph inside its kernel and saturated gates lose nothing (no division by
a gate's derivative):

    dh_t  = (what arrives from above) + W_hh^T p_(t+1)
    dc_t  = dh_t o_t phi'(c_t) + dc_(t+1) f_(t+1)
    di, df, dg, do = dc g, dc c_(t-1), dc i, dh phi(c)
    p     = (di i(1-i), df f(1-f), dg phi'(pre_g), do o(1-o))        gradient at the pre-activations

Each quantity's gradient is total: it counts every later effect of that value (Hochreiter & Schmidhuber 1997, with
back-propagation through time as in Werbos 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .errors import ModelError
from .inputs import valid_mask
from .predictor import Predictor
from .recorder import DirectionRun, LSTMCall, Recording, activation, rebuild, record
from .targets import Target
from .trace import LayerTrace, Trace


def trace_gradients(
    model: nn.Module | Predictor, inputs: Any, *, target: Any = None, lengths: Any = None
) -> tuple[Trace, Trace]:
    """Return the trace of a prediction and the gradient of the explained score at each of its values.

    Args:
        model: Any module that holds `nn.LSTM`, or a `Predictor` around one.
        inputs: Float (B, T, D), or token ids, long (B, T).
        target: Which output is explained (see `resolve_target`); None: the predicted class, or the only output.
        lengths: Long (B,) or None.

    Returns:
        (values, gradients): two `Trace` of the same layers; d score / d value for each of the six quantities.

    Raises:
        ModelError: The model holds no `nn.LSTM`, or the score does not depend on it differentiably.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    checked, lengths = predictor.check(inputs, lengths)
    resolved = target if isinstance(target, Target) else predictor.resolve_target(checked, target, lengths)
    return gradients_of(predictor, checked, resolved, lengths)


def gradients_of(
    predictor: Predictor, inputs: Tensor, target: Target, lengths: Tensor, *, aligned: bool = False
) -> tuple[Trace, Trace]:
    """`trace_gradients` for inputs that are checked and a target that is resolved.

    With `aligned`, every LSTM must run over the inputs' own timesteps: else its gates are not theirs.
    """
    module = predictor.module
    if module is None:
        raise ModelError(
            "the model is a plain function, so it has no gates; gate explainers need a torch module that holds an "
            "nn.LSTM. Explainers that work on functions: lime, kernel_shap."
        )
    batch, steps = inputs.shape[:2]
    values: dict[str, LayerTrace] = {}
    gradients: dict[str, LayerTrace] = {}
    for rows, trimmed in predictor.uniform_blocks(inputs, lengths):
        block_lengths = lengths[rows]
        with predictor.differentiation():
            with record(module, differentiable=True) as recording:
                score = predictor.values(trimmed, target.rows(rows), block_lengths)
            arriving = _arriving(recording, score)
        for name, (value, gradient) in _walk_back(recording, arriving).items():
            whole_steps = (trimmed.shape[1], int(block_lengths.max()))
            _check_layout(name, value, len(rows), whole_steps if aligned else range(1, steps + 1), steps)
            for store, layer in ((values, value), (gradients, gradient)):
                store.setdefault(name, layer.map(lambda part: part.new_zeros(batch, steps, part.shape[2])))
                for whole, part in zip(store[name].quantities().values(), layer.quantities().values(), strict=True):
                    whole[rows, : part.shape[1]] = part
    valid = valid_mask(lengths, steps)
    traces = [
        Trace({name: layer.masked(valid) for name, layer in store.items()}, lengths=lengths)
        for store in (values, gradients)
    ]
    return traces[0], traces[1]


def _check_layout(name: str, layer: LayerTrace, batch: int, allowed: Sequence[int], steps: int) -> None:
    """Refuse an LSTM that ran over other sequences than the model's inputs: its gates fit no timestep of theirs."""
    own_batch, own_steps = layer.cell_state.shape[:2]
    if own_batch != batch or own_steps not in allowed:
        raise ModelError(
            f"{name} ran over {own_batch} sequences of {own_steps} timesteps, and the inputs are {batch} of {steps}; "
            "gate gradients need an LSTM that reads all timesteps of the inputs in one call. Explainers that need no "
            "gates: integrated_gradients, lime, kernel_shap."
        )


def _arriving(recording: Recording, score: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each LSTM call the gradient that arrives at its output (B, T, F), h_n and c_n from above."""
    if not recording.calls:
        raise ModelError(
            "no nn.LSTM was called on the way to the score (it is unused, or run by its forward method, which hooks do "
            "not see), so there are no gates. Call it as self.lstm(inputs)."
        )
    wanted: list[Tensor] = []
    hidden = "" if score.requires_grad else "the LSTM"  # what autograd does not see
    for call in recording.calls:
        call.check_untouched()
        output = call.output.data if isinstance(call.output, PackedSequence) else call.output
        wanted += [output, call.final_h, call.final_c]
        if not output.requires_grad:
            hidden = hidden or call.path or "the LSTM"
    if hidden:
        raise ModelError(
            f"the score does not depend on {hidden} differentiably (the model detaches it, or runs under no_grad), so "
            "gates have no gradient. Explainers that need none: lime, kernel_shap."
        )
    found = torch.autograd.grad(score.sum(), wanted, allow_unused=True)
    filled = [torch.zeros_like(of) if grad is None else grad for of, grad in zip(wanted, found, strict=True)]
    result = []
    for index, call in enumerate(recording.calls):
        output, final_h, final_c = filled[3 * index : 3 * index + 3]
        own = call.output._replace(data=output) if isinstance(call.output, PackedSequence) else output
        count, batch = call.initial_h.shape[:2]
        result.append(
            (call.batch_first(own), final_h.reshape(count, batch, -1), final_c.reshape(count, batch, -1)),
        )
    return result


def _walk_back(
    recording: Recording, arriving: list[tuple[Tensor, Tensor, Tensor]]
) -> dict[str, tuple[LayerTrace, LayerTrace]]:
    """Return layer name -> (values, gradients) for every call of a recording."""
    result: dict[str, tuple[LayerTrace, LayerTrace]] = {}
    seen: dict[str, int] = {}
    for call, (at_output, final_h, final_c) in zip(recording.calls, arriving, strict=True):
        above = at_output
        repeat = seen[call.path] = seen.get(call.path, 0) + 1
        runs = rebuild(call)
        directions = 2 if call.module.bidirectional else 1
        found: list[tuple[str, LayerTrace, LayerTrace]] = []
        for layer in reversed(range(call.module.num_layers)):
            below = torch.zeros_like(runs[layer * directions].inputs)  # (B, T, D)
            for direction, part in enumerate(above.chunk(directions, dim=2)):
                index = layer * directions + direction
                gradient, to_inputs = walk_direction_back(call, runs[index], part, final_h[index], final_c[index])
                below += to_inputs
                found.append((runs[index].name, runs[index].trace, gradient))
            above = below
        order = {run.name: position for position, run in enumerate(runs)}
        for name, value, gradient in sorted(found, key=lambda entry: order[entry[0]]):
            result[name if repeat == 1 else f"{name}#{repeat}"] = (value, gradient)
    return result


@torch.no_grad()
def walk_direction_back(
    call: LSTMCall, run: DirectionRun, above: Tensor, final_h: Tensor, final_c: Tensor
) -> tuple[LayerTrace, Tensor]:
    """Return the gradients of one direction and the gradient at its inputs (B, T, D).

    Args:
        call: The call the run belongs to.
        run: Weights and values of the direction.
        above: Gradient that arrives at its hidden states (B, T, H).
        final_h: Gradient that arrives at its final hidden state (B, H).
        final_c: Gradient that arrives at its final cell state (B, H).
    """
    i, f, g, o, c, _ = run.trace.quantities().values()
    steps = i.shape[1]
    mask = valid_mask(call.lengths, steps).to(i.device)[..., None]  # (B, T, 1)
    if activation(call.module) == "relu":
        shown, shown_slope, g_slope = c.relu(), (c > 0).to(c.dtype), (g > 0).to(g.dtype)
    else:
        shown = c.tanh()
        shown_slope, g_slope = 1 - shown * shown, 1 - g * g
    pre_slope = torch.cat([i * (1 - i), f * (1 - f), g_slope, o * (1 - o)], dim=2) * mask  # (B, T, 4H)
    cell_slope = o * shown_slope  # dh_t / dc_t, (B, T, H)
    d_hidden, d_cell = torch.zeros_like(run.trace.hidden_state), torch.zeros_like(c)
    pre = torch.empty_like(pre_slope)
    h, cell = final_h, final_c  # what arrives at the state after the timestep, (B, H)
    order = range(steps) if run.reverse else reversed(range(steps))
    for t in order:
        here = mask[:, t]
        dh = torch.where(here, above[:, t] + h, 0)  # (B, H or projection)
        raw = dh if run.weight_hr is None else dh @ run.weight_hr  # (B, H)
        dc = torch.where(here, raw * cell_slope[:, t] + cell, 0)
        pre[:, t] = pre_slope[:, t] * torch.cat(
            [dc * g[:, t], dc * run.previous_c[:, t], dc * i[:, t], raw * shown[:, t]], dim=1
        )
        h = torch.where(here, pre[:, t] @ run.weight_hh, h)
        cell = torch.where(here, dc * f[:, t], cell)
        d_hidden[:, t], d_cell[:, t] = dh, dc
    raw = d_hidden if run.weight_hr is None else d_hidden @ run.weight_hr
    gradient = LayerTrace(
        input_gate=d_cell * g,
        forget_gate=d_cell * run.previous_c * mask,
        candidate=d_cell * i,
        output_gate=raw * shown,
        cell_state=d_cell,
        hidden_state=d_hidden,
    )
    return gradient, pre @ run.weight_ih
