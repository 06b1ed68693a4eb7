"""`record`: every gate of every `nn.LSTM` inside any module, rebuilt from what the fused kernel already computed.

Once the kernel has given all h_t, the pre-activations of all timesteps are one matrix product,
W_ih x_t + W_hh h_(t-1) + b; only c_t = f_t c_(t-1) + i_t g_t is a scan, and it is elementwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .errors import ModelError
from .inputs import valid_mask
from .trace import LayerTrace, Trace


@dataclass(frozen=True, eq=False)
class LSTMCall:
    """One call of one `nn.LSTM`: what went in and what came out, as the module's own tensors (with their graph).

    Attributes:
        path: Name of the module inside its root.
        module: The `nn.LSTM`.
        inputs: (B, T, D), batch first, detached, 0 at padding.
        lengths: Long (B,) on the CPU.
        initial_h: (layers * directions, B, H or projection).
        initial_c: (layers * directions, B, H).
        output: The module's own output, a tensor or `PackedSequence`.
        final_h: The module's own h_n.
        final_c: The module's own c_n.
        versions: How often each tensor that the gates are rebuilt from had been changed in place.
    """

    path: str
    module: nn.LSTM
    inputs: Tensor
    lengths: Tensor
    initial_h: Tensor
    initial_c: Tensor
    output: Tensor | PackedSequence
    final_h: Tensor
    final_c: Tensor
    versions: tuple[int, ...]

    def check_untouched(self) -> None:
        """Refuse a call whose input, output or weights were overwritten since: its gates would be wrong numbers."""
        if _versions(self.inputs, self.output, self.module) != self.versions:
            raise ModelError(
                f"the input, output or weights of {self.path or 'the LSTM'} were changed in place after it was "
                "called, so its gates cannot be rebuilt. Read the trace before changing them, or replace operations "
                "such as relu_ or mul_ by those that return a new tensor."
            )

    def batch_first(self, output: Tensor | PackedSequence) -> Tensor:
        """Return a tensor laid out like this call's output (or its gradient) as (B, T, F), 0 at padding."""
        if isinstance(output, PackedSequence):
            return pad_packed_sequence(output, batch_first=True, total_length=self.inputs.shape[1])[0]
        if output.ndim == 2:  # unbatched
            return output[None]
        return output if self.module.batch_first else output.transpose(0, 1)


@dataclass(frozen=True, eq=False)
class DirectionRun:
    """One layer and direction of a call: its weights, its input (B, T, D), its trace, and h_(t-1), c_(t-1)."""

    name: str
    reverse: bool
    weight_ih: Tensor
    weight_hh: Tensor
    weight_hr: Tensor | None
    inputs: Tensor
    previous_h: Tensor  # (B, T, H), the hidden state that entered each timestep
    previous_c: Tensor  # (B, T, H)
    trace: LayerTrace


class Recording:
    """What `record` yields; read `.trace` after the module has been called."""

    def __init__(self) -> None:
        self.calls: list[LSTMCall] = []

    @property
    def trace(self) -> Trace:
        """The Trace of all calls, detached; layers are named by the module's path ("encoder.lstm.0.reverse").

        Raises:
            ModelError: The module was not called yet, or its calls have different batches.
        """
        if not self.calls:
            raise ModelError("nothing was recorded: call the module inside the `with record(module)` block.")
        layers: dict[str, LayerTrace] = {}
        seen: dict[str, int] = {}
        batch = self.calls[0].inputs.shape[0]
        for call in self.calls:
            if call.inputs.shape[0] != batch:
                raise ModelError(
                    f"the recorded calls have {batch} and {call.inputs.shape[0]} sequences; a trace has one batch. "
                    "Record each in its own `with record(module)` block."
                )
            repeat = seen[call.path] = seen.get(call.path, 0) + 1
            for run in rebuild(call):
                layers[run.name if repeat == 1 else f"{run.name}#{repeat}"] = run.trace
        return Trace(layers, lengths=self.calls[0].lengths)


def lstm_modules(module: nn.Module) -> dict[str, nn.LSTM]:
    """Return path -> `nn.LSTM` for every one inside `module`, itself included."""
    return {path: part for path, part in module.named_modules() if isinstance(part, nn.LSTM)}


@contextmanager
def record(module: nn.Module, *, differentiable: bool = False) -> Iterator[Recording]:
    """Record every call of every `nn.LSTM` inside `module`, without changing it.

    Args:
        module: Any module that holds `nn.LSTM`.
        differentiable: Keep the graph of the outputs, so that gradients with respect to them can be asked for.

    Yields:
        A `Recording`; its `.trace` holds the gates after the module was called inside the block.

    Raises:
        ModelError: There is no `nn.LSTM` inside, or an active dropout between layers hides what the pass computed.

    Example:
        >>> with record(model) as recording:
        ...     model(inputs)
        >>> recording.trace["lstm.0"].forget_gate  # (B, T, H)
    """
    found = lstm_modules(module)
    if not found:
        raise ModelError(
            f"{type(module).__name__} holds no nn.LSTM, so there are no gates to record. Explainers that need none "
            "work on it: integrated_gradients, gradient_shap, kernel_shap, lime."
        )
    recording = Recording()
    with ExitStack() as hooks:
        for path, part in found.items():

            def before(_part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                if args:
                    return (_with_graph(args[0]), *args[1:]), kwargs
                return args, {**kwargs, "input": _with_graph(kwargs["input"])}

            def after(
                part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, path: str = path
            ) -> None:
                assert isinstance(part, nn.LSTM)
                recording.calls.append(_capture(path, part, args, kwargs, output))

            if differentiable:
                hooks.callback(part.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(part.register_forward_hook(after, with_kwargs=True).remove)
        yield recording


def _with_graph(inputs: Any) -> Any:
    """Let a graph begin at an LSTM's input where none reaches it (token ids, frozen parameters)."""
    if isinstance(inputs, PackedSequence):
        return inputs if inputs.data.requires_grad else inputs._replace(data=inputs.data.detach().requires_grad_())
    return inputs if inputs.requires_grad else inputs.detach().requires_grad_()


def _capture(path: str, module: nn.LSTM, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> LSTMCall:
    if module.training and module.dropout > 0 and module.num_layers > 1:
        raise ModelError(
            f"{path or 'the LSTM'} runs in training mode with dropout={module.dropout} between its layers, so what the "
            "upper layers read cannot be known afterwards. Call module.eval() first."
        )
    inputs = args[0] if args else kwargs["input"]
    state = args[1] if len(args) > 1 else kwargs.get("hx")
    sequence, (final_h, final_c) = output
    if isinstance(inputs, PackedSequence):
        values, lengths = pad_packed_sequence(inputs._replace(data=inputs.data.detach()), batch_first=True)
    else:
        values = inputs.detach()
        values = values[None] if values.ndim == 2 else values if module.batch_first else values.transpose(0, 1)
        lengths = torch.full((values.shape[0],), values.shape[1])
    count, batch = final_h.shape[0], values.shape[0]
    if state is None:
        width = module.proj_size or module.hidden_size
        state = (values.new_zeros(count, batch, width), values.new_zeros(count, batch, module.hidden_size))
    initial_h, initial_c = (part.detach().reshape(count, batch, -1) for part in state)
    versions = _versions(values, sequence, module)
    return LSTMCall(path, module, values, lengths, initial_h, initial_c, sequence, final_h, final_c, versions)


def _versions(inputs: Tensor, output: Tensor | PackedSequence, module: nn.LSTM) -> tuple[int, ...]:
    shown = output.data if isinstance(output, PackedSequence) else output
    parts = (inputs, shown, *module.parameters())
    return tuple(0 if part.is_inference() else part._version for part in parts)  # noqa: SLF001 - no public name


@torch.no_grad()
def rebuild(call: LSTMCall) -> list[DirectionRun]:
    """Return the runs of a call, bottom layer first, forward before reverse, with all six quantities."""
    call.check_untouched()
    module = call.module
    runs: list[DirectionRun] = []
    inputs = call.inputs  # (B, T, D)
    valid = valid_mask(call.lengths, inputs.shape[1]).to(inputs.device)
    directions = 2 if module.bidirectional else 1
    for layer in range(module.num_layers):
        if layer == module.num_layers - 1:
            output = call.batch_first(_detached(call.output))
        else:
            output = _run_single_layer(call, layer, inputs)
        output = output.masked_fill(~valid[..., None], 0)  # (B, T, H * directions)
        for direction, hidden in enumerate(output.chunk(directions, dim=2)):
            runs.append(_rebuild_direction(call, layer, direction, inputs, hidden, valid))
        inputs = output
    return runs


def layer_name(call: LSTMCall, layer: int, reverse: bool) -> str:
    """Return "PATH.LAYER[.reverse]"; a single-layer LSTM in a numbered list already has its number in the path."""
    path = call.path or "lstm"
    numbered = call.module.num_layers == 1 and path.rsplit(".", 1)[-1].isdigit()
    return f"{path if numbered else f'{path}.{layer}'}{'.reverse' if reverse else ''}"


def _detached(output: Tensor | PackedSequence) -> Tensor | PackedSequence:
    if isinstance(output, PackedSequence):
        return output._replace(data=output.data.detach())
    return output.detach()


def _weights(module: nn.LSTM, layer: int, direction: int) -> dict[str, Tensor]:
    suffix = f"_l{layer}{'_reverse' if direction else ''}"
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    if module.proj_size:
        names.append("weight_hr")
    return {name: getattr(module, name + suffix).detach() for name in names}


def _run_single_layer(call: LSTMCall, layer: int, inputs: Tensor) -> Tensor:
    """Run one layer of a stacked `nn.LSTM` through the fused kernel again: what the layer above has read."""
    module = call.module
    directions = 2 if module.bidirectional else 1
    flat = [weight for direction in range(directions) for weight in _weights(module, layer, direction).values()]
    own = slice(layer * directions, (layer + 1) * directions)
    state = [call.initial_h[own].contiguous(), call.initial_c[own].contiguous()]
    if bool((call.lengths < inputs.shape[1]).any()):
        packed = nn.utils.rnn.pack_padded_sequence(inputs, call.lengths, batch_first=True, enforce_sorted=False)
        assert packed.sorted_indices is not None
        state = [part.index_select(1, packed.sorted_indices) for part in state]
        data = torch.lstm(
            packed.data, packed.batch_sizes, state, flat, module.bias, 1, 0.0, False, module.bidirectional
        )[0]
        result = packed._replace(data=data)
        return pad_packed_sequence(result, batch_first=True, total_length=inputs.shape[1])[0]
    return torch.lstm(inputs, state, flat, module.bias, 1, 0.0, False, module.bidirectional, True)[0]


def _rebuild_direction(
    call: LSTMCall, layer: int, direction: int, inputs: Tensor, hidden: Tensor, valid: Tensor
) -> DirectionRun:
    """Rebuild the gates of one direction from its inputs (B, T, D) and its hidden states (B, T, H)."""
    weights = _weights(call.module, layer, direction)
    reverse = direction == 1
    index = layer * (2 if call.module.bidirectional else 1) + direction
    previous_h = _shifted(hidden, call.initial_h[index], call.lengths, reverse)  # (B, T, H)
    pre_activation = inputs @ weights["weight_ih"].T + previous_h @ weights["weight_hh"].T  # (B, T, 4H)
    if call.module.bias:
        pre_activation += weights["bias_ih"] + weights["bias_hh"]
    pre_i, pre_f, pre_g, pre_o = pre_activation.chunk(4, dim=2)  # (B, T, H) each
    phi = torch.relu if activation(call.module) == "relu" else torch.tanh
    mask = valid[..., None]
    i, f, o = (gate.sigmoid().mul_(mask) for gate in (pre_i, pre_f, pre_o))
    g = phi(pre_g).mul_(mask)
    cell = torch.zeros_like(g)
    state = call.initial_c[index]  # (B, H)
    written = i * g  # (B, T, H)
    steps = range(inputs.shape[1])
    for t in reversed(steps) if reverse else steps:
        new = torch.addcmul(written[:, t], f[:, t], state)
        state = torch.where(mask[:, t], new, state)
        cell[:, t] = new * mask[:, t]
    _check_hidden(
        call, hidden, o, torch.relu(cell) if phi is torch.relu else torch.tanh(cell), weights.get("weight_hr")
    )
    previous_c = _shifted(cell, call.initial_c[index], call.lengths, reverse)
    return DirectionRun(
        name=layer_name(call, layer, reverse),
        reverse=reverse,
        weight_ih=weights["weight_ih"],
        weight_hh=weights["weight_hh"],
        weight_hr=weights.get("weight_hr"),
        inputs=inputs,
        previous_h=previous_h,
        previous_c=previous_c,
        trace=LayerTrace(i, f, g, o, cell, hidden),
    )


def _check_hidden(call: LSTMCall, hidden: Tensor, o: Tensor, shown: Tensor, weight_hr: Tensor | None) -> None:
    """Refuse an output that is not o phi(c): a hook or a subclass changed it, and gates rebuilt from it are wrong."""
    expected = o * shown if weight_hr is None else (o * shown) @ weight_hr.T  # (B, T, H or projection)
    tolerance = min(0.5, 30 * torch.finfo(hidden.dtype).eps ** 0.5)
    if not torch.allclose(hidden, expected, rtol=tolerance, atol=tolerance):
        raise ModelError(
            f"the output of {call.path or 'the LSTM'} is not that of an LSTM with its weights (off by up to "
            f"{float((hidden - expected).abs().max()):.2g}): a hook or a subclass changes it, so its gates cannot be "
            "rebuilt. Explainers that need none: integrated_gradients, lime, kernel_shap."
        )


def activation(module: nn.LSTM) -> str:
    """Return the nonlinearity of the candidate and the cell output: "tanh", or what a subclass declares."""
    return getattr(module, "activation", "tanh")


def _shifted(values: Tensor, initial: Tensor, lengths: Tensor, reverse: bool) -> Tensor:
    """Return what entered each timestep: values (B, T, H) one step later in reading order, `initial` (B, H) first."""
    shifted = torch.zeros_like(values)  # also at the padding before a reverse direction's first timestep
    if not reverse:
        shifted[:, 0] = initial
        shifted[:, 1:] = values[:, :-1]
        return shifted
    shifted[:, :-1] = values[:, 1:]
    rows = torch.arange(values.shape[0], device=values.device)
    shifted[rows, lengths.to(values.device) - 1] = initial
    return shifted
