"""`record`: every gate of every `nn.LSTM` and `nn.LSTMCell` inside any module, without changing the module.

Forward hooks keep what went into and came out of each call; `rebuild.py` makes the gates from that afterwards, when
`.trace` is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .calls import Call, CellSequence, CellStep, LSTMCall, State, batch_first_of, call_versions, data_of, flat_weights
from .errors import InvalidInputError, InvalidTypeError, ModelError, nearest_name
from .inputs import valid_mask
from .keeping import KeepingKernel, Kept
from .trace import QUANTITIES, LayerTrace, Trace


class Recording:
    """What `record` yields; read `.trace` after the module has been called."""

    def __init__(self, quantities: tuple[str, ...] = QUANTITIES) -> None:
        self.quantities = quantities
        self.thread: int | None = None  # whose calls are recorded, while they are
        self.calls: list[Call] = []
        self.passes = 0  # calls of the root module
        self._sequence_of: dict[int, CellSequence] = {}  # id of a state that a cell gave -> its sequence

    @property
    def trace(self) -> Trace:
        """The Trace of all calls, detached; layers are named by the module's path ("encoder.lstm.0.reverse").

        Raises:
            ModelError: The module was not called yet, its calls have different batches, or what the gates are
                rebuilt from was changed since.
        """
        from .rebuild import layer_traces

        if not self.calls:
            raise ModelError(
                "nothing was recorded: call the module inside the `with record(module)` block, and its LSTMs as "
                "self.lstm(inputs), because hooks do not see self.lstm.forward(inputs)."
            )
        layers: dict[str, LayerTrace] = {}
        batch = self.calls[0].batch
        for call, suffix in self.numbered():
            if call.batch != batch:
                raise ModelError(
                    f"the recorded calls have {batch} and {call.batch} sequences; a trace has one batch. "
                    "Record each in its own `with record(module)` block."
                )
            for name, layer in layer_traces(call, self.quantities).items():
                layers[name + suffix] = layer
        return Trace(layers, lengths=_lengths(self.calls[0]))

    def numbered(self) -> Iterator[tuple[Call, str]]:
        """Yield each call with what tells its layers from those of earlier calls of the same module: "", "#2", ..."""
        seen: dict[str, int] = {}
        for call in self.calls:
            count = seen[call.path] = seen.get(call.path, 0) + 1
            yield call, "" if count == 1 else f"#{count}"

    def __deepcopy__(self, _memo: object) -> Recording:
        return self  # of a module that is copied inside the block: it ends with the block

    def __reduce__(self) -> Any:
        return Recording, ()  # of one that is saved inside the block: it is over

    def listens(self) -> bool:
        """Whether the calling thread is recorded."""
        return self.thread == threading.get_ident()

    def begin_pass(self, _module: nn.Module, _args: Any) -> None:
        """Take note that the root module is called."""
        if self.listens():
            self.passes += 1

    def add_step(self, path: str, module: nn.LSTMCell, given: State | None, step: CellStep) -> None:
        """Add a call of a cell to the sequence it belongs to; `given` is the very state it was called with."""
        sequence = self._sequence(path, module, given, step)
        if sequence is None:
            weights = flat_weights(module)
            sequence = CellSequence(path, module, weights, call_versions(weights), _autocast(step.hidden))
            self.calls.append(sequence)
        if sequence.passes != self.passes:
            sequence.passes, sequence.steps_in_pass = self.passes, 0
        sequence.plain &= _is_plain(module)
        sequence.mixed |= any(
            one is not other and not torch.equal(one, other)
            for one, other in zip(flat_weights(module), sequence.weights, strict=True)
        )
        sequence.steps.append(step)
        sequence.steps_in_pass += 1
        self._sequence_of.update({id(part): sequence for part in step.handed})

    def _sequence(self, path: str, module: nn.LSTMCell, given: State | None, step: CellStep) -> CellSequence | None:
        """Return the sequence that a step goes on with, or None where it begins one.

        It goes on with the sequence that gave it its state: the tensors themselves, or else their numbers. With a
        state that no sequence gave, it goes on with the newest one (the caller changed the state, as for padded rows);
        not if a sequence began with that state, nor if the root module was called anew after a loop of its own.
        """
        if given is None:
            return None
        for part in given:
            known = self._sequence_of.get(id(part))
            if known is not None and known.module is module and known.path == path:
                return known
        before = [
            call
            for call in reversed(self.calls)
            if isinstance(call, CellSequence) and call.path == path and call.batch == len(step.hidden)
        ]
        for sequence in before:
            last = sequence.steps[-1]
            if torch.equal(step.initial_h, last.hidden) and torch.equal(step.initial_c, last.cell):
                return sequence
        firsts = [sequence.steps[0] for sequence in before]
        if any(
            torch.equal(step.initial_h, first.initial_h) and torch.equal(step.initial_c, first.initial_c)
            for first in firsts
        ):
            return None
        newest = before[0] if before else None
        if newest is not None and newest.passes != self.passes and newest.steps_in_pass > 1:
            return None
        return newest


def lstm_modules(module: nn.Module) -> dict[str, nn.LSTM | nn.LSTMCell]:
    """Return path -> `nn.LSTM` or `nn.LSTMCell` for every one inside `module`, itself included."""
    return {path: part for path, part in module.named_modules() if isinstance(part, (nn.LSTM, nn.LSTMCell))}


_TIMES = "_gatelens_times"


@contextmanager
def reading(module: nn.LSTM, times: Tensor | None) -> Iterator[None]:
    """Tell recorders that `module` reads the model's timesteps in another order, or only some of them.

    Args:
        module: An LSTM that is called inside the block.
        times: Long (B, T), a permutation of the T timesteps in each row: which one stands at each place of what the
            module reads; -1: none of them. Places after the module's last are not read. None: the module reads them as
            they are.
    """
    if times is not None:
        module.__dict__[_TIMES] = times
    try:
        yield
    finally:
        module.__dict__.pop(_TIMES, None)


@contextmanager
def record(
    module: nn.Module,
    *,
    quantities: Sequence[str] = QUANTITIES,
    differentiable: bool = False,
    bitwise: bool = False,
) -> Iterator[Recording]:
    """Record every call of every `nn.LSTM` and `nn.LSTMCell` inside `module`, without changing it.

    Each call of an `nn.LSTM` gives its layers their entries; a second call's have "#2" at their end. The calls of an
    `nn.LSTMCell` in a loop are the timesteps of one entry, in the order of the calls. A `PackedSequence` is recorded
    with its own lengths, in the caller's order of sequences.

    Args:
        module: Any module that holds `nn.LSTM` or `nn.LSTMCell`.
        quantities: Which of "input_gate", "forget_gate", "candidate", "output_gate", "cell_state" and "hidden_state"
            the trace keeps; fewer take less memory.
        differentiable: Begin a new graph at each output of an `nn.LSTM` and keep it, for `trace_gradients`; gradients
            that you take yourself end there.
        bitwise: Let torch's own kernel run, so that outputs are to the last bit those outside the block, and compute
            the gates once more from what it gives. Without it, a float32 `nn.LSTM` on the CPU that needs no graph is
            run by a kernel that keeps its gates; its outputs equal torch's to float32's precision.

    Yields:
        A `Recording`; its `.trace` holds the gates after the module was called inside the block.

    Raises:
        ModelError: There is no LSTM inside, or an active dropout between layers hides what the pass computed.
        InvalidInputError: A quantity is not known.

    Example:
        >>> with record(model) as recording:
        ...     model(inputs)
        >>> recording.trace["lstm.0"].forget_gate  # (B, T, H)
    """
    found = lstm_modules(module)
    if not found:
        raise ModelError(
            f"{type(module).__name__} holds no nn.LSTM or nn.LSTMCell, so there are no gates to record. Explainers "
            "that need none work on it: integrated_gradients, gradient_shap, kernel_shap, lime."
        )
    recording = Recording(_check_quantities(quantities))
    with ExitStack() as hooks:
        recording.thread = threading.get_ident()
        hooks.callback(setattr, recording, "thread", None)
        kernel = None
        plain = any(type(part) is nn.LSTM for part in found.values()) and not _is_compiled(module)
        if plain and not bitwise and recording.quantities == QUANTITIES:
            kernel = hooks.enter_context(KeepingKernel())
        if not isinstance(module, (nn.LSTM, nn.LSTMCell)):
            hooks.callback(module.register_forward_pre_hook(recording.begin_pass).remove)
        for path, part in found.items():
            cell = isinstance(part, nn.LSTMCell)
            hook = _CellHook(path, part, recording) if cell else _LSTMHook(path, part, recording, kernel)
            if differentiable:
                hooks.callback(part.register_forward_pre_hook(hook.before, with_kwargs=True).remove)
                hooks.callback(part.register_forward_hook(hook.after_with_graph, with_kwargs=True).remove)
            else:
                hooks.callback(part.register_forward_hook(hook.after, with_kwargs=True).remove)
        yield recording


def _check_quantities(quantities: Sequence[str]) -> tuple[str, ...]:
    if isinstance(quantities, str):
        raise InvalidTypeError(f"quantities is {quantities!r}; expected several names, e.g. ({quantities!r},).")
    for name in quantities:
        if name not in QUANTITIES:
            raise InvalidInputError(f"quantities holds {name!r}; {nearest_name(str(name), QUANTITIES)}")
    if not quantities:
        raise InvalidInputError(f"quantities is empty; name at least one of {', '.join(QUANTITIES)}.")
    return tuple(name for name in QUANTITIES if name in quantities)


class _Hook:
    """What is done around each call of one module, in the recording thread, and for that module: not for its copies.

    torch tells other threads' calls without keyword arguments while hooks come and go, so these may be missing.
    """

    def __init__(self, path: str, module: nn.Module, recording: Recording) -> None:
        self.path = path
        self.module = module
        self.recording = recording

    def __deepcopy__(self, _memo: object) -> _Hook:
        return self

    def __reduce__(self) -> Any:
        return type(self), (self.path, None, Recording())

    def concerns(self, module: nn.Module) -> bool:
        """Whether a call is to be recorded."""
        return module is self.module and self.recording.listens()


class _LSTMHook(_Hook):
    """What is done around each call of one `nn.LSTM`."""

    def __init__(self, path: str, module: nn.Module, recording: Recording, kernel: KeepingKernel | None = None) -> None:
        super().__init__(path, module, recording)
        self.kernel = kernel
        self.sources: tuple[Tensor, ...] = ()

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """Let the kernel run without a graph: gradients are walked through it by hand, so none is needed."""
        if not self.concerns(module):
            return None
        inputs, state = _arguments(args, kwargs or {})
        self.sources = (data_of(inputs), *(state or ()))
        bare = inputs._replace(data=inputs.data.detach()) if isinstance(inputs, PackedSequence) else inputs.detach()
        return (bare, None if state is None else tuple(part.detach() for part in state)), {}

    def after(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        """Keep the call."""
        if self.concerns(module):
            self.recording.calls.append(self._capture(module, args, *rest))

    def after_with_graph(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        """Keep the call, and hand on copies from which a new graph begins."""
        if not self.concerns(module):
            return None
        sequence, state = rest[-1]
        with torch.inference_mode(False), torch.no_grad():
            leaves = tuple(part.clone().requires_grad_() for part in (data_of(sequence), *state))
        data, h, c = (leaf.clone() for leaf in leaves)  # the model may write into its own copies
        call = self._capture(module, args, *rest)
        call = replace(call, sources=self.sources, leaves=leaves, connected=data.requires_grad)
        self.recording.calls.append(call)
        return (sequence._replace(data=data) if isinstance(sequence, PackedSequence) else data), (h, c)

    def _capture(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> LSTMCall:
        assert isinstance(module, nn.LSTM)
        kwargs, output = rest if len(rest) > 1 else ({}, *rest)
        kept = () if self.kernel is None else self.kernel.take(data_of(output[0]))
        with torch._C.DisableTorchFunction():  # noqa: SLF001 - what is done here is no business of modes, ours included
            return _capture(self.path, module, *_arguments(args, kwargs), output, kept)


class _CellHook(_Hook):
    """What is done around each call of one `nn.LSTMCell`."""

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """Let a graph begin at the cell's input where none reaches it (token ids, frozen parameters)."""
        if not self.concerns(module):
            return None
        inputs, state = _arguments(args, kwargs or {})
        return (inputs if inputs.requires_grad else inputs.detach().requires_grad_(), state), {}

    def after(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        """Keep the step."""
        if self.concerns(module):
            output = rest[-1]
            self._keep(module, args, rest, (output[0], output[1]), (output[0], output[1]))

    def after_with_graph(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        """Keep the step, and hand on copies: what arrives at a copy of c came by the next step alone, not by h."""
        if not self.concerns(module):
            return None
        made = (rest[-1][0].clone(), rest[-1][1].clone())
        handed = (made[0].clone(), made[1].clone())  # the model may write into its own copies
        self._keep(module, args, rest, made, handed)
        return handed

    def _keep(
        self, module: nn.Module, args: tuple[Any, ...], rest: tuple[Any, ...], made: State, handed: State
    ) -> None:
        assert isinstance(module, nn.LSTMCell)
        inputs, state = _arguments(args, rest[0] if len(rest) > 1 else {})
        rows = inputs.detach().reshape(-1, module.input_size)
        hidden, cell = (part.detach().reshape(len(rows), -1).clone() for part in made)
        if state is None:
            initial_h, initial_c = torch.zeros_like(hidden), torch.zeros_like(cell)
        else:
            initial_h, initial_c = (part.detach().reshape(len(rows), -1).to(hidden.dtype, copy=True) for part in state)
        step = CellStep(rows.clone(), initial_h, initial_c, hidden, cell, inputs, made, handed)
        self.recording.add_step(self.path, module, None if state is None else (state[0], state[1]), step)


def _lengths(call: Call) -> Tensor:
    """Return up to where each sequence reaches in the timesteps of its trace, long (B,)."""
    if isinstance(call, CellSequence) or call.times is None:
        return call.lengths
    read = valid_mask(call.lengths, call.times.shape[1])
    return torch.where(read, call.times.cpu() + 1, 0).amax(dim=1)


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    inputs = args[0] if args else kwargs["input"]
    return inputs, args[1] if len(args) > 1 else kwargs.get("hx")


def _capture(
    path: str, module: nn.LSTM, inputs: Any, state: State | None, output: Any, kept: tuple[Kept, ...]
) -> LSTMCall:
    if module.training and module.dropout > 0 and module.num_layers > 1:
        raise ModelError(
            f"{path or 'the LSTM'} runs in training mode with dropout={module.dropout} between its layers, so what the "
            "upper layers read cannot be known afterwards. Call module.eval() first."
        )
    sequence, (final_h, _) = output
    plain = _is_plain(module)
    if isinstance(inputs, PackedSequence):
        values, lengths = pad_packed_sequence(inputs._replace(data=inputs.data.detach()), batch_first=True)
        sequence = sequence._replace(data=_own(sequence.data.detach()))
    else:
        values = _own(batch_first_of(module, inputs.detach(), 0))
        lengths = torch.full((values.shape[0],), values.shape[1], device="cpu")
        sequence = _own(sequence.detach())
    count, batch = final_h.shape[0], values.shape[0]
    width = module.proj_size or module.hidden_size
    if state is None:
        state = (values.new_zeros(count, batch, width), values.new_zeros(count, batch, module.hidden_size))
    initial_h, initial_c = (
        part.detach().reshape(count, batch, size) for part, size in zip(state, (width, module.hidden_size), strict=True)
    )
    weights = flat_weights(module)
    versions = call_versions(values, data_of(sequence), weights)
    return LSTMCall(
        path, module, values, lengths, initial_h, initial_c, sequence, weights, versions,
        plain=plain, kept=kept if plain else (), autocast=_autocast(values), times=module.__dict__.get(_TIMES),
    )  # fmt: skip


def _own(values: Tensor) -> Tensor:
    """Return a tensor; one that does not count its changes as a copy, so that none is missed."""
    return values.clone() if values.is_inference() else values


def _is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile was asked to compile any part."""
    return any(
        part.__dict__.get("_compiled_call_impl") is not None or "_orig_mod" in part._modules  # noqa: SLF001
        for part in module.modules()
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether the module is torch's own, with our hooks alone."""
    every = (module._forward_hooks, module._forward_pre_hooks, _global_forward_hooks)  # noqa: SLF001
    return (
        type(module) in (nn.LSTM, nn.LSTMCell)
        and "forward" not in module.__dict__
        and all(isinstance(getattr(hook, "__self__", None), _Hook) for some in every for hook in some.values())
    )


def _autocast(values: Tensor) -> torch.dtype | None:
    kind = values.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
