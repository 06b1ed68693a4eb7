"""Which pooling a module uses, found out by running it beside `LSTMModel`s with the same weights; it is left as found.

A module's weights do not say what it does with them, its outputs do: on random inputs of several sizes they agree with
one pooling, or the module computes something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import LSTMConfig, Pooling
from .errors import ModelError
from .inputs import valid_mask
from .lstm import LSTMModel
from .predictor import Predictor
from .state import evaluation_mode, kept_buffers, seeded
from .state_dicts import ANY_MODULE

SIZES = ((3, 5, 1.0), (2, 7, 3.0), (4, 2, 1.0))  # batch, timesteps, scale of the random inputs
RELATIVE_TOLERANCE = 1e-4  # of the outputs' spread
ROUNDINGS = 16

_ENDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear layer": lambda scores: scores,
    "sigmoid": torch.sigmoid,
    "softmax": lambda scores: scores.softmax(dim=-1),
    "log-softmax": lambda scores: scores.log_softmax(dim=-1),
}


@dataclass(frozen=True, kw_only=True)
class Match:
    """How a module was found to compute its outputs.

    Attributes:
        pooling: The pooling whose `LSTMModel` gives the same scores.
        ending: What comes last: "linear layer", "sigmoid", "softmax" or "log-softmax".
        time_first: Whether it reads (T, B, D).
        others: Poolings that agree as well (weights that are all zero).
    """

    pooling: Pooling
    ending: str
    time_first: bool
    others: tuple[Pooling, ...]


@dataclass(frozen=True)
class _Probe:
    inputs: Tensor  # (B, T, D) or ids (B, T)
    lengths: Tensor  # (B,)


def match_pooling(module: nn.Module, models: Mapping[Pooling, LSTMModel], *, padding: int | None = None) -> Match:
    """Return how `module` computes its outputs.

    Args:
        module: Called as module(inputs), or module(inputs, lengths=lengths) if it takes `lengths`; borrowed.
        models: For each pooling that may be, an `LSTMModel` with the module's weights.
        padding: A token id that random inputs must not hold, because the module may skip it.

    Raises:
        ModelError: The module cannot be run, or its outputs agree with none of the models.
    """
    config = next(iter(models.values())).config
    takes_lengths = Predictor(module).accepts_lengths
    like = next(parameter for parameter in module.parameters() if parameter.dtype.is_floating_point)
    full = [_probe(config, batch, steps, scale, padding, like.dtype) for batch, steps, scale in SIZES]
    ragged = [_Probe(probe.inputs, _falling(probe.inputs)) for probe in full]
    with _borrowed(module):
        outputs: dict[bool, list[Tensor]] = {}
        reasons = []
        for time_first in (False, True):
            try:
                outputs[time_first] = [
                    _run(module, probe, like.device, time_first=time_first, takes_lengths=takes_lengths)
                    for probe in full
                ]
            except ModelError as error:
                reasons.append(str(error))
        if not outputs:
            raise ModelError(f"it cannot be compared with an LSTMModel: {reasons[0]} {ANY_MODULE}")
        deviations = {
            (time_first, ending, pooling): _deviation(model, ending, full, given, time_first=time_first)
            for pooling, model in models.items()
            for ending in _endings(config)
            for time_first, given in outputs.items()
        }
        best = min(deviations, key=deviations.__getitem__)
        time_first, ending, pooling = best
        if deviations[best] > 1:
            raise ModelError(_disagreement(models, full, outputs, pooling, deviations[best]))
        if takes_lengths:
            given = [
                _run(module, probe, like.device, time_first=time_first, takes_lengths=takes_lengths) for probe in ragged
            ]
            if _deviation(models[pooling], ending, ragged, given, time_first=time_first) > 1:
                raise ModelError(
                    f"it agrees with pooling {pooling!r} on full sequences, and not on padded ones: it does something "
                    f"of its own with lengths, which an LSTMModel cannot. {ANY_MODULE}"
                )
    others = tuple(name for name in models if name != pooling and deviations[time_first, ending, name] <= 1)
    return Match(pooling=pooling, ending=ending, time_first=time_first, others=others)


def _endings(config: LSTMConfig) -> tuple[str, ...]:
    return tuple(_ENDINGS) if config.output_size > 1 else ("linear layer", "sigmoid")


def _probe(config: LSTMConfig, batch: int, steps: int, scale: float, padding: int | None, kind: torch.dtype) -> _Probe:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((batch,), steps)
    if config.vocab_size is None:
        inputs = torch.randn(batch, steps, config.layer_input_sizes[0], generator=generator)
        return _Probe((inputs * scale).to(kind), lengths)
    tokens = torch.tensor([token for token in range(config.vocab_size) if token != padding] or [0])
    return _Probe(tokens[torch.randint(len(tokens), (batch, steps), generator=generator)], lengths)


def _falling(inputs: Tensor) -> Tensor:
    """Return lengths (B,) from T downwards, as packing wants them by default."""
    return (inputs.shape[1] - torch.arange(inputs.shape[0])).clamp(min=1)


def _run(module: nn.Module, probe: _Probe, device: torch.device, *, time_first: bool, takes_lengths: bool) -> Tensor:
    """Return the module's own output, on the CPU."""
    inputs = probe.inputs.to(device, copy=True)
    inputs = inputs.transpose(0, 1) if time_first else inputs
    shape = tuple(inputs.shape)
    try:
        output = module(inputs, **({"lengths": probe.lengths.clone()} if takes_lengths else {}))
    except Exception as error:  # noqa: BLE001 - a forward that wants other arguments fails in any way
        reason = (str(error).strip() or "no message").splitlines()[0][:200]
        raise ModelError(f"it raised {type(error).__name__} on inputs of shape {shape}: {reason}.") from None
    if not isinstance(output, Tensor):
        raise ModelError(
            f"it returned a {type(output).__name__}; expected one tensor of scores. Wrap it in a module whose forward "
            "returns the scores alone."
        )
    return output.detach().cpu()


def _deviation(
    model: LSTMModel, ending: str, probes: list[_Probe], outputs: list[Tensor], *, time_first: bool
) -> float:
    """Return the largest difference between model and module, where 1 is what rounding may do."""
    worst = 0.0
    for probe, output in zip(probes, outputs, strict=True):
        expected = _ENDINGS[ending](model(probe.inputs, probe.lengths))  # (B, K) or (B, T, K)
        by_time = time_first and model.pooling is None and output.shape[:2] == expected.shape[1::-1]
        given = output.transpose(0, 1) if by_time else output
        worst = max(worst, _difference(expected, given, probe, per_timestep=model.config.pooling == "none"))
    return worst


def _difference(expected: Tensor, given: Tensor, probe: _Probe, *, per_timestep: bool) -> float:
    if expected.shape[-1] == 1 and given.shape == expected.shape[:-1]:
        given = given[..., None]  # scores that were squeezed
    if per_timestep and given.ndim == 3 and given.shape[1] == probe.lengths.max():
        valid = valid_mask(probe.lengths, expected.shape[1])
        expected, given = expected[valid], given[valid]  # (N, K): what stands at padding does not matter
    if given.shape != expected.shape or not given.dtype.is_floating_point or not torch.isfinite(given).all():
        return math.inf
    precision = torch.finfo(given.dtype).eps
    expected, given = expected.double(), given.double()
    spread = float((expected - expected.mean(dim=0)).abs().max())
    tolerated = RELATIVE_TOLERANCE * spread + ROUNDINGS * precision * float(expected.abs().max())
    difference = float((given - expected).abs().max())
    return 0.0 if difference == 0 else difference / tolerated if tolerated else math.inf


def _disagreement(
    models: Mapping[Pooling, LSTMModel],
    probes: list[_Probe],
    outputs: Mapping[bool, list[Tensor]],
    nearest: Pooling,
    deviation: float,
) -> str:
    """Say that the module computes something else, and what where it is the usual mistake."""
    if "none" in models and models["none"].config.bidirectional:
        for time_first, given in outputs.items():
            for ending in _endings(models["none"].config):
                expected = [_ENDINGS[ending](models["none"](probe.inputs, probe.lengths))[:, -1] for probe in probes]
                pairs = zip(expected, given, probes, strict=True)
                if all(_difference(*pair, per_timestep=False) <= 1 for pair in pairs):
                    at = "output[-1]" if time_first else "output[:, -1]"
                    return (
                        f"it reads {at}, where the reverse direction has seen the last timestep only; pooling 'last' "
                        "of an LSTMModel is the final state of each direction (h_n), so the two differ. Train with "
                        f"h_n to use both directions, or explain the module as it is. {ANY_MODULE}"
                    )
    how_far = (
        "" if math.isinf(deviation) else f"; the nearest, {nearest!r}, is {deviation:,.0f} times what rounding does"
    )
    return (
        "it computes something else than embedding -> LSTM -> pooling -> linear layer, so it cannot be rewritten as an "
        f"LSTMModel: on random inputs its outputs agree with no pooling ({', '.join(models)}{how_far}). {ANY_MODULE}"
    )


@contextmanager
def _borrowed(module: nn.Module) -> Iterator[None]:
    """Hold a module in eval mode, without gradients; modes, weights, buffers, attributes and random state come back."""
    parameters = [(parameter, parameter.detach().clone()) for parameter in module.parameters()]
    attributes = [(vars(part), dict(vars(part))) for part in module.modules()]
    devices = {parameter.device for parameter, _ in parameters if parameter.is_cuda}
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices),
        seeded(0),
        torch.backends.cudnn.flags(enabled=False),  # its kernels round more than the comparison allows
        evaluation_mode(module),
        kept_buffers(module),
    ):
        try:
            yield
        finally:
            for now, before in attributes:
                for name in now.keys() - before.keys():
                    del now[name]
                now.update(before)
            for parameter, value in parameters:
                if not torch.equal(parameter, value):
                    parameter.copy_(value)
