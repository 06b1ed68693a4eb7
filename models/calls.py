"""What is kept of each call of an `nn.LSTM` or `nn.LSTMCell` while a module is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .errors import ModelError
from .inputs import valid_mask
from .keeping import Kept
from .trace import LayerTrace

State = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class LSTMCall:
    """One call of one `nn.LSTM`: what went in and what came out.

    Attributes:
        path: Name of the module inside its root.
        module: The `nn.LSTM`.
        inputs: (B, T, D), batch first, detached, 0 at padding.
        lengths: Long (B,) on the CPU.
        initial_h: (layers * directions, B, H or projection).
        initial_c: (layers * directions, B, H).
        output: The module's own output, a tensor or `PackedSequence`, detached.
        weights: The kernel's weights, the very tensors it was given.
        versions: How often each tensor that gates are rebuilt from had been changed in place, and where weights lay.
        sources: With a graph: the tensors that went in as the caller gave them, its input's data, h_0, c_0.
        leaves: With a graph: copies of output data, h_n and c_n, from which a new graph begins for the caller.
        connected: Whether that graph was kept (False under `torch.no_grad`).
        plain: Whether nothing but torch's own code can have made the output: no subclass, no hook of somebody else.
        autocast: The type that autocast computed products in, or None.
        kept: The numbers of each direction where the pass itself kept them (`KeepingKernel`), else ().
        times: Long (B, T'), which timestep of the model's own inputs each timestep is, where they differ; T' timesteps
            or more (see `reading`).
    """

    path: str
    module: nn.LSTM
    inputs: Tensor
    lengths: Tensor
    initial_h: Tensor
    initial_c: Tensor
    output: Tensor | PackedSequence
    weights: tuple[Tensor, ...]
    versions: tuple[int, ...]
    sources: tuple[Tensor, ...] = ()
    leaves: tuple[Tensor, ...] = ()
    connected: bool = False
    plain: bool = False
    autocast: torch.dtype | None = None
    kept: tuple[Kept, ...] = ()
    times: Tensor | None = None

    @property
    def batch(self) -> int:
        """Sequences B."""
        return self.inputs.shape[0]

    def check_untouched(self) -> None:
        """Refuse a call whose input, output or weights were overwritten since: its gates would be wrong numbers.

        A pass that kept its gates needs only the weights again. What is written past torch (`tensor.data.mul_`, a numpy
        view of its memory) leaves no mark.
        """
        now = call_versions(self.inputs, data_of(self.output), self.weights)
        if now[2:] != self.versions[2:] or (not self.kept and now[:2] != self.versions[:2]):
            raise ModelError(_TOUCHED.format(self.path or "the LSTM"))

    def batch_first(self, output: Tensor | PackedSequence) -> Tensor:
        """Return a tensor laid out like this call's output (or its gradient) as (B, T, F), 0 at padding."""
        return batch_first_of(self.module, output, self.inputs.shape[1])

    def gradient_batch_first(self, data: Tensor) -> Tensor:
        """Return a gradient at the output's data as (B, T, F), 0 at padding."""
        output = self.output
        return self.batch_first(output._replace(data=data) if isinstance(output, PackedSequence) else data)

    def along_inputs(self, layer: LayerTrace) -> LayerTrace:
        """Return a layer of this call's timesteps (B, T, H) laid along those of the model's inputs; 0 where none is."""
        if self.times is None:
            return layer
        batch, steps, _ = layer.shape
        every = self.times.shape[1]
        times = self.times[:, :steps]
        read = valid_mask(self.lengths, steps).to(times.device) & (times >= 0)
        places = torch.where(read, times, every)[..., None]  # one more, for what stands nowhere

        def place(values: Tensor) -> Tensor:
            found = values.new_zeros(batch, every + 1, values.shape[2])
            return found.scatter_(1, places.expand_as(values), values)[:, :every]

        return layer.map(place)

    def source_data(self, inputs: Tensor) -> Tensor:
        """Return numbers (B, T, D) laid out like the data that went in: packed, time first, or unbatched."""
        if isinstance(self.output, PackedSequence):
            order = self.output.sorted_indices
            rows, lengths = (inputs, self.lengths) if order is None else (inputs[order], self.lengths[order.cpu()])
            return pack_padded_sequence(rows, lengths, batch_first=True).data
        if self.output.ndim == 2:  # unbatched
            return inputs[0]
        return inputs if self.module.batch_first else inputs.transpose(0, 1)


@dataclass(frozen=True, eq=False)
class CellStep:
    """One call of an `nn.LSTMCell`: copies of what went in (B, D), (B, H), (B, H) and of what came out.

    Attributes:
        read: The very tensor that was read, with its graph.
        made: The states h and c where the next steps' gradients arrive, (B, H) or (H,), with their graph.
        handed: The very tensors the caller got, to know them again.
    """

    inputs: Tensor
    initial_h: Tensor
    initial_c: Tensor
    hidden: Tensor
    cell: Tensor
    read: Tensor
    made: State
    handed: State


@dataclass(eq=False)
class CellSequence:
    """The calls of one `nn.LSTMCell` that follow each other: one sequence, each call a timestep."""

    path: str
    module: nn.LSTMCell
    weights: tuple[Tensor, ...]
    versions: tuple[int, ...]
    autocast: torch.dtype | None = None
    steps: list[CellStep] = field(default_factory=list)
    plain: bool = True  # whether nothing but torch's own code can have made the outputs
    mixed: bool = False  # whether its steps had different weights
    steps_in_pass: int = 0  # since the root module was last called
    passes: int = 0

    @property
    def batch(self) -> int:
        """Sequences B."""
        return self.steps[0].inputs.shape[0]

    def along_inputs(self, layer: LayerTrace) -> LayerTrace:
        """Return the layer as it is: a cell's calls are its timesteps."""
        return layer

    @property
    def lengths(self) -> Tensor:
        """Long (B,): all calls are valid timesteps."""
        return torch.full((self.batch,), len(self.steps), device="cpu")

    def check_untouched(self) -> None:
        """Refuse a sequence whose weights were replaced or overwritten: its gates would be wrong numbers."""
        if self.mixed or call_versions(self.weights) != self.versions:
            raise ModelError(_TOUCHED.format(self.path or "the LSTMCell"))


Call = LSTMCall | CellSequence

_TOUCHED = (
    "the input, output or weights of {} were changed in place after it was called, so its gates cannot be rebuilt. "
    "Read the trace before changing them, or replace operations such as relu_ or mul_ by those that return a new "
    "tensor."
)


def batch_first_of(module: nn.LSTM, values: Tensor | PackedSequence, steps: int) -> Tensor:
    """Return what goes into or comes out of a module as (B, T, F); a packed sequence over `steps`, 0 at padding."""
    if isinstance(values, PackedSequence):
        return pad_packed_sequence(values, batch_first=True, total_length=steps)[0]
    if values.ndim == 2:  # unbatched
        return values[None]
    return values if module.batch_first else values.transpose(0, 1)


def flat_weights(module: nn.LSTM | nn.LSTMCell) -> tuple[Tensor, ...]:
    """Return the weights as the kernel is given them."""
    if isinstance(module, nn.LSTM):
        return tuple(module._flat_weights)  # type: ignore[arg-type]  # noqa: SLF001 - no public name
    biases = (module.bias_ih, module.bias_hh) if module.bias else ()
    return (module.weight_ih, module.weight_hh, *biases)


def data_of(values: Tensor | PackedSequence) -> Tensor:
    """Return the numbers of a tensor or a packed sequence."""
    return values.data if isinstance(values, PackedSequence) else values


def call_versions(*parts: Tensor | tuple[Tensor, ...]) -> tuple[int, ...]:
    """Return how often each tensor was changed in place, and of those in a tuple where they lie, too.

    Inference tensors do not count it.
    """
    found: list[int] = []
    for part in parts:
        for tensor in part if isinstance(part, tuple) else (part,):
            found.append(0 if tensor.is_inference() else tensor._version)  # noqa: SLF001 - no public name
            if isinstance(part, tuple):
                found.append(tensor.data_ptr())
    return tuple(found)
