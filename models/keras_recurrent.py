"""LSTM and Bidirectional of saved Keras models, on `nn.LSTM` modules, with Keras's masks.

Keras skips a masked timestep: the state is carried over, and the output there is the last one before it. So the
timesteps that count are moved to the front, run as a packed sequence, and put back.
"""
# ruff: noqa: D102 - all layers have the methods of KerasLayer, which says what they do

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .activation_lstm import make_lstm
from .activations import CELL_ACTIVATIONS, GATE_ACTIVATIONS
from .keras_layer import Flow, KerasLayer, Options, Shape, counted, width_of
from .recorder import reading

MERGES = ("concat", "sum", "ave", "mul")


@dataclass(frozen=True)
class Cell:
    """What one direction is made of."""

    width: int
    units: int
    bias: bool
    activation: str
    gate_activation: str

    @classmethod
    def read(cls, options: Options, shape: Shape) -> Cell:
        """Check an LSTM's config."""
        options.off("return_state", "it hands out the cell's state beside the output. Leave it out and save again.")
        options.off("time_major", "expected (batch, time, features).")
        gates = tuple(name for name in GATE_ACTIVATIONS if options.keras2 or name != "hard_sigmoid_keras2")
        return cls(
            width_of(options, shape),
            options.count("units"),
            options.flag("use_bias", default=True),
            options.activation("activation", CELL_ACTIVATIONS, "tanh"),
            options.activation("recurrent_activation", gates, "sigmoid"),
        )

    @property
    def weights(self) -> list[Shape]:
        """Kernel, recurrent kernel and bias, as Keras lays them out: (D, 4H), (H, 4H), (4H,)."""
        wide = 4 * self.units
        return [(self.width, wide), (self.units, wide), *([(wide,)] if self.bias else [])]

    def module(self, *, bidirectional: bool = False) -> nn.LSTM:
        """Return the LSTM for it."""
        return make_lstm(
            self.width,
            self.units,
            bias=self.bias,
            bidirectional=bidirectional,
            activation=self.activation,
            gate_activation=self.gate_activation,
        )

    def describe(self) -> str:
        """Return what it is, in a few words."""
        return f"{counted(self.units, 'unit')}, {self.activation}, gates {self.gate_activation}"


def lstm_state(weights: Sequence[Tensor], suffix: str = "") -> dict[str, Tensor]:
    """Return an `nn.LSTM`'s state; Keras's gates i, f, c, o are torch's i, f, g, o, and it has one bias, not two."""
    kernel, recurrent, *bias = weights
    state = {f"weight_ih_l0{suffix}": kernel.T.contiguous(), f"weight_hh_l0{suffix}": recurrent.T.contiguous()}
    if bias:
        state |= {f"bias_ih_l0{suffix}": bias[0], f"bias_hh_l0{suffix}": torch.zeros_like(bias[0])}
    return state


def run_lstm(module: nn.LSTM, flow: Flow, *, backwards: bool, zero_masked: bool) -> tuple[Tensor, Tensor]:
    """Run over the timesteps that count.

    Args:
        module: One direction, or two.
        flow: What it reads, (B, T, D).
        backwards: Whether a single direction reads from the last valid timestep to the first.
        zero_masked: Whether outputs at masked timesteps are 0 rather than the last output before.

    Returns:
        Outputs (B, T, H * directions) in the order of reading, and the last ones, (B, H * directions).
    """
    values, counted = flow.values, flow.counted()
    order = reading_order(flow) if backwards else None
    if order is not None:
        values, counted = take(values, order), counted.gather(1, order)
    if bool(counted.all()):
        with reading(module, _composed(flow.times, order)):
            output, (last, _) = module(values)
        return output, last.transpose(0, 1).flatten(1)
    kept = (~counted).byte().argsort(dim=1, stable=True)  # those that count first, in their order
    compact = take(values, kept)
    seen = counted.cumsum(dim=1)  # (B, T), how many have counted so far
    packed = pack_padded_sequence(compact, seen[:, -1].clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    times = _composed(flow.times, _composed(order, kept))
    assert times is not None
    with reading(module, times.masked_fill(seen[:, -1:] == 0, -1)):  # packing wants a timestep of a row without any
        result, (last, _) = module(packed)
    output = pad_packed_sequence(result, batch_first=True, total_length=values.shape[1])[0]
    output = take(output, (seen - 1).clamp(min=0))
    output = output.masked_fill(~(counted if zero_masked else seen > 0)[..., None], 0)
    last = last.transpose(0, 1).flatten(1).masked_fill(seen[:, -1:] == 0, 0)  # (B, H * directions)
    return output, last


def _composed(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return the order that `second` picks from what `first` picks, long (B, T); None is the order as it is."""
    return second if first is None else first if second is None else first.gather(1, second)


def reading_order(flow: Flow) -> Tensor:
    """Return long (B, T): the timestep read at each position when the valid ones are read backwards."""
    batch, steps = flow.values.shape[:2]
    time = torch.arange(steps, device=flow.values.device).expand(batch, steps)
    if flow.valid is None:
        return time.flip(1)
    return torch.where(flow.valid, flow.valid.sum(dim=1, keepdim=True) - 1 - time, time)


def take(values: Tensor, order: Tensor) -> Tensor:
    """Return values (B, T, D) at the timesteps `order` (B, T)."""
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))


class LSTM(KerasLayer):
    """One direction; with go_backwards, from the last valid timestep to the first, and its outputs in that order."""

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.cell = Cell.read(self.options, shapes[0])
        self.sequences = self.options.flag("return_sequences", default=False)
        self.backwards = self.options.flag("go_backwards", default=False)
        self.zero_masked = self.options.flag("zero_output_for_mask", default=False)
        if self.zero_masked and not self.sequences:
            self.options.off("zero_output_for_mask", "expected it with return_sequences=True only.")
        self.weights = {"cell": self.cell.weights}
        self.training_only = training_only(self.options.values)
        return (shapes[0][0], self.cell.units) if self.sequences else (self.cell.units,)

    def module(self) -> nn.Module:
        return self.cell.module()

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return lstm_state(weights["cell"])

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        flow = flows[0]
        output, last = run_lstm(module, flow, backwards=self.backwards, zero_masked=self.zero_masked)
        if not self.sequences:
            return Flow(last)
        times = _composed(flow.times, reading_order(flow)) if self.backwards else flow.times
        return Flow(output, flow.valid, flow.mask, times)

    def describe(self) -> str:
        returned = "every timestep's output" if self.sequences else "the last output"
        return f"LSTM, {self.cell.describe()}, {returned}{', backwards in time' if self.backwards else ''}"


class Bidirectional(KerasLayer):
    """Two LSTMs, one for each direction in time; in one `nn.LSTM` where both are of one kind."""

    def build(self, shapes: Sequence[Shape]) -> Shape:
        forward = self.inner("layer")
        backward = self.inner("backward_layer") if self.options.values.get("backward_layer") else None
        cells = [Cell.read(forward, shapes[0])]
        cells.append(cells[0] if backward is None else Cell.read(backward, shapes[0]))
        for options, expected in ((forward, False), (backward, True)):
            if options is not None and options.flag("go_backwards", default=False) is not expected:
                raise self.options.refuse(
                    "has a forward layer with go_backwards=True, or a backward layer without; expected layer to read "
                    "forwards and backward_layer backwards in time."
                )
        self.forward, self.backward = cells
        self.fused = self.forward == self.backward
        self.merge = self.options.values.get("merge_mode", "concat")
        if self.merge not in MERGES:
            raise self.options.refuse(
                f"has merge_mode={self.merge!r}; expected one of {', '.join(MERGES)}, so that it has one output."
            )
        if self.forward.units != self.backward.units:
            raise self.options.refuse(
                f"has {counted(self.forward.units, 'unit')} forwards and {self.backward.units} backwards; expected as "
                "many."
            )
        self.sequences = forward.flag("return_sequences", default=False)
        if backward is not None and backward.flag("return_sequences", default=False) is not self.sequences:
            raise self.options.refuse("has one direction with return_sequences and one without; expected both alike.")
        self.weights = {"forward_layer/cell": self.forward.weights, "backward_layer/cell": self.backward.weights}
        self.training_only = training_only(forward.values)
        units = self.forward.units * (2 if self.merge == "concat" else 1)
        return (shapes[0][0], units) if self.sequences else (units,)

    def inner(self, name: str) -> Options:
        """Return the config of one direction."""
        value = self.options.values.get(name)
        config = value.get("config") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(config, Mapping) or value.get("class_name") != "LSTM":
            found = value.get("class_name") if isinstance(value, Mapping) else value
            raise self.options.refuse(f"wraps {found!r}; gatelens reads it around an LSTM only.")
        return Options(f"{self.options.label} ({name})", config, self.options.keras2)

    def module(self) -> nn.Module:
        if self.fused:
            return self.forward.module(bidirectional=True)
        return nn.ModuleDict({"forwards": self.forward.module(), "backwards": self.backward.module()})

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        forward, backward = weights["forward_layer/cell"], weights["backward_layer/cell"]
        if self.fused:
            return {**lstm_state(forward), **lstm_state(backward, "_reverse")}
        parts = {"forwards": lstm_state(forward), "backwards": lstm_state(backward)}
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        flow = flows[0]
        if self.fused:
            output, last = run_lstm(module, flow, backwards=False, zero_masked=self.sequences)
            one, other = (output if self.sequences else last).chunk(2, dim=-1)
        else:
            forward = run_lstm(module["forwards"], flow, backwards=False, zero_masked=self.sequences)
            backward = run_lstm(module["backwards"], flow, backwards=True, zero_masked=self.sequences)
            one, other = (
                (forward[0], take(backward[0], reading_order(flow))) if self.sequences else (forward[1], backward[1])
            )
        merged = self.merged(one, other)
        return Flow(merged, flow.valid, flow.mask, flow.times) if self.sequences else Flow(merged)

    def merged(self, forward: Tensor, backward: Tensor) -> Tensor:
        """Return both directions as one."""
        if self.merge == "concat":
            return torch.cat([forward, backward], dim=-1)
        if self.merge == "mul":
            return forward * backward
        return (forward + backward) / (2 if self.merge == "ave" else 1)

    def describe(self) -> str:
        returned = "every timestep's output" if self.sequences else "the last output"
        parts = self.forward.describe() if self.fused else f"{self.forward.describe()} and {self.backward.describe()}"
        return f"Bidirectional LSTM, {parts}, merged by {self.merge}, {returned}"


def training_only(values: Mapping[str, Any]) -> list[str]:
    """Return what of an LSTM's config plays no part in a prediction of one batch, in words."""
    found = [f"its {name} of {values[name]!r}" for name in ("dropout", "recurrent_dropout") if values.get(name)]
    if values.get("stateful"):
        found.append("its state between batches (stateful): every sequence starts from zeros")
    return found
