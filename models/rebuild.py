"""Gates from what an LSTM's fused kernel already computed: one matrix product and one elementwise scan a layer.

Once the kernel has given all h_t, the pre-activations of all timesteps are one product,
W_ih x_t + W_hh h_(t-1) + b; only c_t = f_t c_(t-1) + i_t g_t is a scan (`kernels.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .activations import activations_of, is_standard
from .calls import Call, CellSequence, LSTMCall
from .errors import ModelError
from .keeping import Kept
from .kernels import Cell, Weights, rebuild_
from .trace import GATES, QUANTITIES, LayerTrace

BLOCK_NUMBERS = 2**18  # gates of a block of timesteps where not all are kept; they stay in cache


@dataclass(frozen=True, eq=False)
class Direction:
    """One layer and direction of a call, before its gates are known; tensors are time-major.

    An `nn.LSTMCell`'s S calls of B rows stand as one timestep of S * B rows (`calls` is S), because the state that
    entered each is known.
    """

    name: str
    module: nn.LSTM | nn.LSTMCell
    kind: Cell
    weights: Weights
    weight_hr: Tensor | None  # (projection, H)
    inputs: Tensor  # (T, B, D)
    hidden: Tensor  # (T, B, H or projection), 0 at padding
    initial_h: Tensor  # (B, H or projection)
    initial_c: Tensor  # (B, H)
    lengths: Tensor  # (B,)
    eps: float  # precision of what was recorded
    plain: bool  # whether nothing but torch's own code made the output
    kept: Kept | None = None  # its numbers, where the pass itself kept them
    calls: int = 1

    @property
    def units(self) -> int:
        """H."""
        return self.initial_c.shape[1]

    def by_sequence(self, values: Tensor) -> Tensor:
        """Return values (T, B, ...) as (B, T, ...), a view; of a cell's rows (1, S * B, ...) as (B, S, ...)."""
        if self.calls > 1:
            values = values.reshape(self.calls, -1, *values.shape[2:])
        return values.transpose(0, 1)


@dataclass(frozen=True, eq=False)
class Run:
    """A direction with all its numbers, time-major: gates (T, B, 4, H), cell and hidden (T, B, H), 0 at padding."""

    direction: Direction
    gates: Tensor
    cell: Tensor
    hidden: Tensor

    def trace(self, dtype: torch.dtype) -> LayerTrace:
        """Return the six quantities, (B, T, H) each; views where `dtype` is that of the numbers."""
        direction = self.direction
        parts = [*self.gates.unbind(dim=2), self.cell, self.hidden]
        return LayerTrace(*(direction.by_sequence(part).to(dtype) for part in parts))


def layer_traces(call: Call, quantities: tuple[str, ...] = QUANTITIES) -> dict[str, LayerTrace]:
    """Return layer name -> the quantities asked for, bottom layer first, forward before reverse."""
    dtype = _result_type(call)
    with torch.no_grad(), _no_autocast(call):
        found = {
            direction.name: (
                rebuild(direction).trace(dtype)
                if quantities == QUANTITIES
                else _rebuild_some(direction, quantities, dtype)
            )
            for direction in directions(call)
        }
        return {name: call.along_inputs(layer) for name, layer in found.items()}


def runs(call: Call) -> list[Run]:
    """Return the runs of a call, bottom layer first, forward before reverse."""
    with torch.no_grad(), _no_autocast(call):
        return [rebuild(direction) for direction in directions(call)]


def directions(call: Call) -> Iterator[Direction]:
    """Yield the directions of a call, bottom layer first, forward before reverse, in the type that is computed in."""
    call.check_untouched()
    if isinstance(call, CellSequence):
        yield _cell_direction(call)
        return
    inputs = call.inputs  # (B, T, D)
    count = 2 if call.module.bidirectional else 1
    for layer in range(call.module.num_layers):
        top = layer == call.module.num_layers - 1
        if top:
            output = call.batch_first(call.output)  # (B, T, F)
        elif call.kept:
            below = [kept.hidden for kept in call.kept[layer * count : (layer + 1) * count]]
            output = torch.cat(below, dim=2).transpose(0, 1)
        else:
            output = _run_single_layer(call, layer, inputs)
        for direction, hidden in enumerate(output.chunk(count, dim=2)):
            yield _direction(call, layer, direction, inputs, hidden)
        inputs = output


def rebuild(direction: Direction) -> Run:
    """Return a direction with all its gates and cell states."""
    if direction.kept is not None:
        return Run(direction, direction.kept.gates, direction.kept.cell, direction.kept.hidden)
    steps, batch = direction.inputs.shape[:2]
    gates = direction.inputs.new_empty(steps, batch, 4, direction.units)
    cell = gates.new_empty(steps, batch, direction.units)
    hidden = _rebuild_block(direction, gates, cell, direction.initial_c, 0)
    return Run(direction, gates, cell, hidden)


def entered_states(run: Run) -> Tensor:
    """Return the hidden state that entered each timestep, (T, B, H or projection)."""
    direction = run.direction
    steps = len(run.cell)
    room = direction.hidden.new_zeros(steps + 1, *direction.hidden.shape[1:])
    first = 1 if direction.kind.reverse else 0
    room[1 - first : 1 - first + steps] = direction.hidden
    _enter(room, direction, 0, steps)
    return room[first : first + steps]


def _rebuild_some(direction: Direction, quantities: tuple[str, ...], dtype: torch.dtype) -> LayerTrace:
    """Return only the quantities asked for, block by block of timesteps, so that the others take no memory."""
    steps, batch = direction.inputs.shape[:2]
    units = direction.units
    kept = {
        name: direction.inputs.new_empty(steps, batch, units, dtype=dtype)
        for name in quantities
        if name != "hidden_state"
    }
    size = max(1, BLOCK_NUMBERS // max(1, batch * 4 * units))
    starts = range(0, steps, size)
    carry = direction.initial_c
    gates = direction.inputs.new_empty(min(size, steps), batch, 4, units)
    cell = gates.new_empty(min(size, steps), batch, units)
    for start in reversed(starts) if direction.kind.reverse else starts:
        stop = min(start + size, steps)
        some, block = gates[: stop - start], cell[: stop - start]
        _rebuild_block(direction, some, block, carry, start)
        for name, values in kept.items():
            values[start:stop] = block if name == "cell_state" else some[:, :, GATES.index(name)]
        carry = block[0 if direction.kind.reverse else -1].clone()
    if "hidden_state" in quantities:
        kept["hidden_state"] = direction.hidden.to(dtype, copy=True)
    return LayerTrace(**{name: direction.by_sequence(values) for name, values in kept.items()})


def _rebuild_block(direction: Direction, gates: Tensor, cell: Tensor, carry: Tensor, start: int) -> Tensor:
    """Write gates and cells of the timesteps from `start` on; return a copy of their hidden states, (T, B, H).

    States stand in one row more than there are timesteps: as those that entered, and, one further, as those that came
    out; so the copy is a view of what the product reads.
    """
    stop = start + len(cell)
    room = direction.hidden.new_empty(len(cell) + 1, *direction.hidden.shape[1:])
    first = 1 if direction.kind.reverse else 0  # where those that entered begin
    hidden = room[1 - first : 1 - first + len(cell)]
    hidden.copy_(direction.hidden[start:stop])
    _enter(room, direction, start, stop)
    states, reverse = room[first : first + len(cell)], direction.kind.reverse
    size = max(1, len(cell) * 3 * direction.units // direction.inputs.shape[2])  # wide inputs: no copy of them all
    begins = range(0, len(cell), size)
    for begin in reversed(begins) if reverse else begins:
        some = slice(begin, begin + size)
        rebuild_(
            direction.inputs[start:stop][some].contiguous(), states[some], direction.weights, gates[some], cell[some],
            direction.initial_c, carry, direction.lengths, start + begin, direction.kind,
        )  # fmt: skip
        carry = cell[some][0 if reverse else -1]
    _check_hidden(direction, gates, cell, start)
    if reverse and bool((direction.lengths < stop).any()) and bool(direction.initial_h.any()):
        return direction.hidden[start:stop].clone()  # initial states stand where it has padding
    return hidden


def _enter(states: Tensor, direction: Direction, start: int, stop: int) -> None:
    """Write what entered the block's first timestep in reading order, and every sequence, into states (T + 1, B, H)."""
    if not direction.kind.reverse:
        states[0] = direction.initial_h if start == 0 else direction.hidden[start - 1]
        return
    states[-1] = direction.hidden[stop] if stop < direction.hidden.shape[0] else 0
    rows = ((direction.lengths > start) & (direction.lengths <= stop)).nonzero()[:, 0]
    states[direction.lengths[rows] - start, rows] = direction.initial_h[rows.to(states.device)]


def _direction(call: LSTMCall, layer: int, direction: int, inputs: Tensor, hidden: Tensor) -> Direction:
    """Make the description of one direction from its inputs (B, T, D) and its hidden states (B, T, H)."""
    module = call.module
    index = layer * (2 if module.bidirectional else 1) + direction
    weights = _weights(call, layer, direction)
    bias = weights["bias_ih"] + weights["bias_hh"] if module.bias else None
    dtype = _computed_type(hidden)
    return Direction(
        name=_layer_name(call, layer, reverse=direction == 1),
        module=module,
        kind=cell_kind(module, reverse=direction == 1),
        weights=Weights(
            weights["weight_ih"].to(dtype), weights["weight_hh"].to(dtype), None if bias is None else bias.to(dtype)
        ),
        weight_hr=weights["weight_hr"].to(dtype) if module.proj_size else None,
        inputs=inputs.transpose(0, 1).to(dtype),
        hidden=hidden.transpose(0, 1).to(dtype),
        initial_h=call.initial_h[index].to(dtype),
        initial_c=call.initial_c[index].to(dtype).contiguous(),
        lengths=call.lengths,
        eps=_eps(call.autocast, hidden.dtype, weights["weight_ih"].dtype),
        plain=call.plain,
        kept=call.kept[index] if call.kept else None,
    )


def _cell_direction(sequence: CellSequence) -> Direction:
    """Make the description of a cell's calls: every timestep's state is known, so they are rows of one timestep."""
    module, steps = sequence.module, sequence.steps
    dtype = _computed_type(steps[0].hidden)
    rows = {
        name: torch.cat([getattr(step, name) for step in steps]).to(dtype)  # (S * B, D or H)
        for name in ("inputs", "initial_h", "initial_c", "hidden")
    }
    weight_ih, weight_hh, *biases = (weight.detach().to(dtype) for weight in sequence.weights)
    bias = biases[0] + biases[1] if biases else None
    return Direction(
        name=sequence.path or "cell",
        module=module,
        kind=cell_kind(module, reverse=False),
        weights=Weights(weight_ih, weight_hh, bias),
        weight_hr=None,
        inputs=rows["inputs"][None],
        hidden=rows["hidden"][None],
        initial_h=rows["initial_h"],
        initial_c=rows["initial_c"],
        lengths=torch.ones(len(steps) * sequence.batch, dtype=torch.long, device="cpu"),
        eps=_eps(sequence.autocast, steps[0].hidden.dtype, sequence.weights[0].dtype),
        plain=sequence.plain,
        calls=len(steps),
    )


def cell_kind(module: nn.Module, *, reverse: bool) -> Cell:
    """Return what the equations of a module's direction are made of."""
    gate, shown = activations_of(module)
    return Cell(gate=gate, shown=shown, standard=is_standard(module), reverse=reverse)


def _computed_type(values: Tensor) -> torch.dtype:
    """Return float64 for float64; all narrower types are computed in float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _eps(*types: torch.dtype | None) -> float:
    return max(torch.finfo(dtype).eps for dtype in types if dtype is not None)


def _result_type(call: Call) -> torch.dtype:
    if isinstance(call, CellSequence):
        return call.steps[0].hidden.dtype
    return call.output.data.dtype


def _device_type(call: Call) -> str:
    return (call.steps[0] if isinstance(call, CellSequence) else call).inputs.device.type


def _no_autocast(call: Call) -> AbstractContextManager[object]:
    """Let the numbers be computed in their own type, whatever the caller's block says."""
    kind = _device_type(call)
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _layer_name(call: LSTMCall, layer: int, *, reverse: bool) -> str:
    """Return "PATH.LAYER[.reverse]"; a single-layer LSTM in a numbered list already has its number in the path."""
    path = call.path or "lstm"
    numbered = call.module.num_layers == 1 and path.rsplit(".", 1)[-1].isdigit()
    return f"{path if numbered else f'{path}.{layer}'}{'.reverse' if reverse else ''}"


def _weights(call: LSTMCall, layer: int, direction: int) -> dict[str, Tensor]:
    """Return weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, those there are: the tensors the kernel was given."""
    module = call.module
    names = ["weight_ih", "weight_hh"]
    if module.bias:
        names += ["bias_ih", "bias_hh"]
    if module.proj_size:
        names.append("weight_hr")
    start = (layer * (2 if module.bidirectional else 1) + direction) * len(names)
    return dict(zip(names, (weight.detach() for weight in call.weights[start:]), strict=False))


def _run_single_layer(call: LSTMCall, layer: int, inputs: Tensor) -> Tensor:
    """Run one layer of a stacked `nn.LSTM` through the fused kernel again: what the layer above has read, (B, T, F)."""
    if call.autocast is None:
        return _fused_layer(call, layer, inputs)
    with torch.autocast(_device_type(call), dtype=call.autocast):
        return _fused_layer(call, layer, inputs)


def _fused_layer(call: LSTMCall, layer: int, inputs: Tensor) -> Tensor:
    module = call.module
    count = 2 if module.bidirectional else 1
    flat = [weight for direction in range(count) for weight in _weights(call, layer, direction).values()]
    own = slice(layer * count, (layer + 1) * count)
    state = [call.initial_h[own].contiguous(), call.initial_c[own].contiguous()]
    if bool((call.lengths < inputs.shape[1]).any()):
        packed = nn.utils.rnn.pack_padded_sequence(inputs, call.lengths, batch_first=True, enforce_sorted=False)
        assert packed.sorted_indices is not None
        state = [part.index_select(1, packed.sorted_indices) for part in state]
        data = torch.lstm(
            packed.data, packed.batch_sizes, state, flat, module.bias, 1, 0.0, False, module.bidirectional
        )[0]
        return call.batch_first(packed._replace(data=data))
    return torch.lstm(inputs, state, flat, module.bias, 1, 0.0, False, module.bidirectional, True)[0]


def _check_hidden(direction: Direction, gates: Tensor, cell: Tensor, start: int) -> None:
    """Refuse an output that is not o phi(c): a hook or a subclass changed it, and gates rebuilt from it are wrong.

    Where only torch's own code was at work there is nothing to look for.
    """
    if direction.plain:
        return
    expected = gates[:, :, 3] * direction.kind.shown.function(cell)  # (T, B, H)
    if direction.weight_hr is not None:
        expected = expected @ direction.weight_hr.T
    hidden = direction.hidden[start : start + len(cell)]
    tolerance = min(0.5, 3 * direction.eps**0.5)
    if torch.allclose(expected, hidden, rtol=0, atol=tolerance):
        return
    off = float(expected.sub_(hidden).abs_().max())
    scale = float(hidden.abs().max())
    if not math.isfinite(off + scale):  # NaN or infinity went in: it must have come out at the same places
        same = expected.isfinite() == hidden.isfinite()
        scale = float(hidden.nan_to_num(0, 0, 0).abs().max())
        off = float(expected.nan_to_num(0, 0, 0).max()) if bool(same.all()) else float("inf")
    if off > tolerance * max(1.0, scale):
        raise ModelError(
            f"the output of {direction.name} is not that of an LSTM with its weights (off by up to {off:.2g}): a hook "
            "or a subclass changes it, so its gates cannot be rebuilt. Explainers that need none: "
            "integrated_gradients, lime, kernel_shap."
        )
