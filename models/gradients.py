"""`trace_gradients`: how the explained score changes with every gate, cell state and hidden state.

While a model is recorded, the graph is cut at every `nn.LSTM`: its kernel runs without one, and a new graph begins at
its outputs. Autograd is asked only for what lies between the LSTMs (embeddings, dropout, pooling, the head). Through
an LSTM the gradient is walked by hand (`kernels.walk_back_`), last call first; what comes out at its inputs is handed
to autograd again. So the backward pass of the fused kernel is never asked: cuDNN's, which refuses eval mode, cannot
be in the way, and no gate's slope is divided by, so saturated gates lose nothing.

An `nn.LSTMCell` in a loop is left in autograd's graph; what arrives at its outputs gives its gates directly.

Each quantity's gradient is total: it counts every later effect of that value (Hochreiter & Schmidhuber 1997, with
back-propagation through time as in Werbos 1990).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .calls import CellSequence, LSTMCall
from .errors import ModelError
from .inputs import valid_mask
from .kernels import walk_back_
from .predictor import Predictor
from .rebuild import Run, runs
from .recorder import Recording, record
from .targets import Target
from .trace import LayerTrace, Trace
from .tracing import check_layout, join, join_layers, require_module


def trace_gradients(
    model: nn.Module | Predictor, inputs: Any, *, target: Any = None, lengths: Any = None
) -> tuple[Trace, Trace]:
    """Return the trace of a prediction and the gradient of the explained score at each of its values.

    Args:
        model: Any module that holds `nn.LSTM` or `nn.LSTMCell`, or a `Predictor` around one.
        inputs: Float (B, T, D), or token ids, long (B, T).
        target: Which output is explained (see `resolve_target`); None: the predicted class, or the only output.
        lengths: Long (B,) or None.

    Returns:
        (values, gradients): two `Trace` of the same layers; d score / d value for each of the six quantities, and in
        `gradients.inputs` d score / d inputs (B, T, D), of tokens d score / d their embedding.

    Raises:
        ModelError: The model holds no LSTM, or the score does not depend on it differentiably.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    with torch.inference_mode(False):
        checked, lengths = predictor.check(inputs, lengths)
        resolved = target if isinstance(target, Target) else predictor.resolve_target(checked, target, lengths)
        return gradients_of(predictor, checked, resolved, lengths)


def gradients_of(
    predictor: Predictor, inputs: Tensor, target: Target, lengths: Tensor, *, aligned: bool = False
) -> tuple[Trace, Trace]:
    """`trace_gradients` for inputs that are checked and a target that is resolved.

    With `aligned`, every LSTM must run over the inputs' own timesteps: else its gates are not theirs.
    """
    module = require_module(predictor)
    batch, steps = inputs.shape[:2]
    blocks = list(predictor.uniform_blocks(inputs, lengths))
    found = []
    for rows, trimmed in blocks:
        layers, inside, to_inside = _block_gradients(
            predictor, module, trimmed, target.rows(rows), lengths[rows], aligned
        )
        for name, (value, _) in layers.items():
            whole_steps = (trimmed.shape[1], int(lengths[rows].max()))
            check_layout(name, value, len(rows), whole_steps if aligned else range(1, steps + 1), steps)
        found.append((layers, inside, to_inside))
    whole_rows = [rows for rows, _ in blocks]
    valid = valid_mask(lengths, steps)
    traces = []
    for side in (0, 1):
        joined = {
            name: join_layers([layers[name][side] for layers, *_ in found], whole_rows, batch, steps).masked(valid)
            for name in found[0][0]
        }
        ends = [(inside, to_inside)[side] for _, inside, to_inside in found]
        entered = (
            None
            if any(end is None for end in ends)
            else join([end for end in ends if end is not None], whole_rows, batch, steps)
        )
        traces.append(Trace(joined, lengths=lengths, inputs=entered))
    return traces[0], traces[1]


Layers = dict[str, tuple[LayerTrace, LayerTrace]]


def _block_gradients(
    predictor: Predictor, module: nn.Module, inputs: Tensor, target: Target, lengths: Tensor, aligned: bool
) -> tuple[Layers, Tensor | None, Tensor | None]:
    """Return layer name -> (values, gradients) of one call of the model, what it read, and the gradient there."""
    with predictor.differentiation(), ExitStack() as hooks:
        source = _Source()
        if inputs.dtype.is_floating_point:
            inputs = source.enter(inputs)
        elif (embedding := predictor.only_embedding()) is not None:

            def embedded(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
                return source.enter(output, in_place=bool(args) and _is_same(args[0], inputs))

            hooks.callback(embedding.register_forward_hook(embedded).remove)
        with record(module, differentiable=True) as recording:
            score = predictor.values(inputs, target, lengths)
        _check_connected(recording, score)
        backward = _Backward(recording, source)
        backward.pull([score], [torch.ones_like(score)])
        layers: dict[int, Layers] = {}
        for index, call in reversed(list(enumerate(recording.calls))):
            if isinstance(call, LSTMCall):
                layers[index], to_sources = _walk_call(call, backward.arriving(call.leaves))
                backward.pull(list(call.sources), to_sources)
        for index, call in enumerate(recording.calls):
            if isinstance(call, CellSequence):
                layers[index] = _cell_gradients(call, backward)
        if aligned:
            _check_order(recording, source, lengths)
        named = {
            name + suffix: found
            for index, (_, suffix) in enumerate(recording.numbered())
            for name, found in layers[index].items()
        }
        if source.leaf is None:
            return named, None, None
        return named, source.leaf.detach(), backward.arriving((source.leaf,))[0]


class _Source:
    """Where the graph begins: the inputs, or what their embedding gives; None where there is no one such place."""

    def __init__(self) -> None:
        self.leaf: Tensor | None = None
        self.entered = 0

    def enter(self, values: Tensor, *, in_place: bool = True) -> Tensor:
        self.entered += 1
        if self.entered > 1 or not in_place:  # embedded twice, or in another layout: no one (B, T, E) was read
            self.leaf = None
            return values
        self.leaf = values.detach().requires_grad_()
        return self.leaf.clone()  # the model may write into its own copy


def _is_same(ids: Tensor, inputs: Tensor) -> bool:
    """Whether an embedding reads the ids (B, T) as they are; a transposed view of them may hold equal numbers."""
    if ids.shape != inputs.shape or not torch.equal(ids.to(inputs.device, inputs.dtype), inputs):
        return False
    shared = ids.untyped_storage().data_ptr() == inputs.untyped_storage().data_ptr()
    return ids.stride() == inputs.stride() or not shared


class _Backward:
    """Sums what arrives at every LSTM's outputs and at the inputs, one stretch of autograd's graph after another."""

    def __init__(self, recording: Recording, source: _Source) -> None:
        self._wanted: list[Tensor] = [] if source.leaf is None else [source.leaf]
        for call in recording.calls:
            if isinstance(call, LSTMCall):
                self._wanted += call.leaves
            else:
                self._wanted += [part for step in call.steps for part in step.made]
        self._sums: dict[int, Tensor] = {}

    def pull(self, outputs: list[Tensor], gradients: list[Tensor]) -> None:
        """Add what the gradients at `outputs` mean for all that lies before them."""
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        if not pairs:
            return
        ends, arriving = zip(*pairs, strict=True)
        found = torch.autograd.grad(ends, self._wanted, arriving, retain_graph=True, allow_unused=True)
        for tensor, gradient in zip(self._wanted, found, strict=True):
            if gradient is not None:
                known = self._sums.get(id(tensor))
                self._sums[id(tensor)] = gradient if known is None else known + gradient

    def arriving(self, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the gradient at each tensor; 0 where the score does not depend on it."""
        return [self._sums[id(part)] if id(part) in self._sums else torch.zeros_like(part) for part in tensors]


def _check_connected(recording: Recording, score: Tensor) -> None:
    """Refuse a score that autograd cannot follow back to every LSTM."""
    if not recording.calls:
        raise ModelError(
            "no nn.LSTM was called on the way to the score (it is unused, or run by its forward method, which hooks do "
            "not see), so there are no gates. Call it as self.lstm(inputs)."
        )
    hidden = "" if score.requires_grad else "the LSTM"
    for call in recording.calls:
        call.check_untouched()
        seen = call.connected if isinstance(call, LSTMCall) else call.steps[0].made[0].requires_grad
        if not seen:
            hidden = hidden or call.path or "the LSTM"
    if hidden:
        raise ModelError(
            f"the score does not depend on {hidden} differentiably (the model detaches it, or runs under no_grad), so "
            "gates have no gradient. Explainers that need none: lime, kernel_shap."
        )


@torch.no_grad()
def _walk_call(call: LSTMCall, arriving: list[Tensor]) -> tuple[Layers, list[Tensor]]:
    """Walk one call of an `nn.LSTM` back; return its layers, and the gradients at what went in (`call.sources`)."""
    found = runs(call)
    count = 2 if call.module.bidirectional else 1
    dtype = arriving[0].dtype
    final_h, final_c = (part.reshape(call.initial_h.shape[0], call.batch, -1) for part in arriving[1:])
    above = call.gradient_batch_first(arriving[0])  # (B, T, F)
    layers: dict[int, tuple[LayerTrace, LayerTrace]] = {}
    to_h, to_c = torch.empty_like(call.initial_h), torch.empty_like(call.initial_c)
    for layer in reversed(range(call.module.num_layers)):
        below = None
        for direction, part in enumerate(above.chunk(count, dim=2)):
            index = layer * count + direction
            walked = walk_back(found[index], part.transpose(0, 1), final_h[index], final_c[index])
            below = walked.to_inputs if below is None else below.add_(walked.to_inputs)
            value, gradient = found[index].trace(dtype), walked.trace(found[index], dtype)
            layers[index] = (call.along_inputs(value), call.along_inputs(gradient))
            to_h[index], to_c[index] = walked.to_initial_h, walked.to_initial_c
        assert below is not None
        above = below.transpose(0, 1)  # (B, T, D)
    to_sources = [call.source_data(above), to_h, to_c]
    shaped = [
        gradient.reshape(source.shape).to(source.dtype)
        for gradient, source in zip(to_sources[: len(call.sources)], call.sources, strict=True)
    ]
    return {found[index].direction.name: layers[index] for index in range(len(found))}, shaped


@dataclass(frozen=True, eq=False)
class WalkedBack:
    """Gradients of one direction, time-major: (T, B, 4, H), (T, B, H), (T, B, H), and at what went in."""

    gate_grad: Tensor
    cell_grad: Tensor
    hidden_grad: Tensor
    to_inputs: Tensor  # (T, B, D)
    to_initial_h: Tensor  # (B, H or projection)
    to_initial_c: Tensor  # (B, H)

    def trace(self, run: Run, dtype: torch.dtype) -> LayerTrace:
        """Return the gradients as the run's values are laid out, (B, T, H) each."""
        parts = [*self.gate_grad.unbind(dim=2), self.cell_grad, self.hidden_grad]
        return LayerTrace(*(run.direction.by_sequence(part).to(dtype) for part in parts))


@torch.no_grad()
def walk_back(run: Run, arriving: Tensor, final_h: Tensor, final_c: Tensor) -> WalkedBack:
    """Return the gradients of one direction.

    Args:
        run: The direction's values.
        arriving: Gradient from above at its hidden states, (T, B, H or projection).
        final_h: Gradient at its final hidden state, (B, H or projection).
        final_c: Gradient at its final cell state, (B, H).
    """
    direction, dtype = run.direction, run.cell.dtype
    hidden_grad = arriving.to(dtype, copy=True).contiguous()
    cell_grad = torch.zeros_like(run.cell)
    rows = torch.arange(hidden_grad.shape[1], device=hidden_grad.device)
    ends = (direction.lengths - 1).to(hidden_grad.device)
    starts = torch.zeros_like(ends)
    if direction.kind.reverse:
        starts, ends = ends, starts
    hidden_grad[ends, rows] += final_h.to(dtype)
    cell_grad[ends, rows] += final_c.to(dtype)
    gate_grad, pre_grad, input_grad = walk_back_(
        run.gates, run.cell, direction.initial_c, direction.lengths, direction.kind,
        direction.weights, direction.weight_hr, hidden_grad, cell_grad,
    )  # fmt: skip
    return WalkedBack(
        gate_grad,
        cell_grad,
        hidden_grad,
        to_inputs=input_grad,
        to_initial_h=pre_grad[starts, rows].flatten(start_dim=1) @ direction.weights.hh,
        to_initial_c=run.gates[starts, rows, 1] * cell_grad[starts, rows],
    )


def _cell_gradients(sequence: CellSequence, backward: _Backward) -> Layers:
    """Return the layer of an `nn.LSTMCell`'s calls; autograd has been back through them already."""
    (run,) = runs(sequence)
    to_hidden, to_cell = (
        torch.cat([part.reshape(sequence.batch, -1) for part in backward.arriving(parts)])
        for parts in zip(*(step.made for step in sequence.steps), strict=True)
    )
    walked = walk_back(run, to_hidden[None], torch.zeros_like(to_hidden), to_cell)
    dtype = sequence.steps[0].hidden.dtype
    return {run.direction.name: (run.trace(dtype), walked.trace(run, dtype))}


@dataclass(frozen=True, eq=False)
class _Series:
    """Values (B, T, F) that an `nn.LSTMCell` may read one timestep after the other, and the leaf they come from."""

    values: Tensor
    leaf: Tensor | None = None
    laid: Callable[[Tensor], Tensor] = lambda gradient: gradient  # a gradient at the leaf, as (B, T, F)

    def is_read_by(self, sequence: CellSequence, valid: Tensor) -> bool:
        """Whether the calls of a cell read the timesteps of this series, first to last.

        Equal numbers alone do not show it (a constant series reads the same backwards), so autograd is asked: of the
        sum over all calls s of (s + 1) x_s, the gradient at timestep t is t + 1.
        """
        read = torch.stack([step.inputs for step in sequence.steps], dim=1)  # (B, S, F)
        if read.shape != self.values.shape or not torch.equal(read, self.values):
            return False
        if self.leaf is None:
            return True
        connected = [step.read.requires_grad for step in sequence.steps]
        if not all(connected):
            return False
        weights = [torch.full_like(step.read, number) for number, step in enumerate(sequence.steps, start=1)]
        reads = [step.read for step in sequence.steps]
        (found,) = torch.autograd.grad(reads, self.leaf, weights, retain_graph=True, materialize_grads=True)
        numbers = torch.arange(1, read.shape[1] + 1, device=found.device).to(found.dtype)[None, :, None]
        return bool(((self.laid(found) == numbers) | ~valid[..., None].to(found.device)).all())


def _check_order(recording: Recording, source: _Source, lengths: Tensor) -> None:
    """Refuse an `nn.LSTMCell` whose calls cannot be shown to read the inputs' timesteps, first to last."""
    known = [] if source.leaf is None else [_Series(source.leaf.detach(), source.leaf)]
    for call in recording.calls:
        if isinstance(call, LSTMCall):
            known.append(_Series(call.batch_first(call.output), call.leaves[0], call.gradient_batch_first))
            continue
        valid = valid_mask(lengths, len(call.steps))
        if not any(series.is_read_by(call, valid) for series in known):
            raise ModelError(
                f"{call.path or 'the LSTMCell'} does not read the inputs' timesteps one after the other, or what it "
                "reads is made from them first, so its gates cannot be laid along the inputs' time. record and "
                "trace_gradients still give them, call by call; explainers that need no gates: "
                "integrated_gradients, lime, kernel_shap."
            )
        known.append(_Series(torch.stack([step.hidden for step in call.steps], dim=1)))
