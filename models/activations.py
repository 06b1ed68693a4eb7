"""The nonlinearities an LSTM's gates and cell may use, each with its slope told from its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import InvalidInputError, nearest_name


@dataclass(frozen=True)
class Activation:
    """A nonlinearity.

    Attributes:
        function: x -> y, elementwise.
        slope: y -> dy/dx, elementwise; no division, so a saturated y gives exactly 0 or what is left of it.
    """

    function: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _hard_sigmoid(x: Tensor) -> Tensor:
    """Return relu6(x + 3) / 6, as Keras 3 and torch define it."""
    return nn.functional.hardsigmoid(x)


def _hard_sigmoid_keras2(x: Tensor) -> Tensor:
    """Return 0.2 x + 0.5 cut to [0, 1], as Keras 1 and 2 defined it."""
    return (0.2 * x + 0.5).clamp(0, 1)


ACTIVATIONS = {
    "tanh": Activation(torch.tanh, lambda y: 1 - y * y),
    "sigmoid": Activation(torch.sigmoid, lambda y: y * (1 - y)),
    "relu": Activation(torch.relu, lambda y: (y > 0).to(y.dtype)),
    "linear": Activation(lambda x: x, torch.ones_like),
    "hard_sigmoid": Activation(_hard_sigmoid, lambda y: ((y > 0) & (y < 1)).to(y.dtype) / 6),
    "hard_sigmoid_keras2": Activation(_hard_sigmoid_keras2, lambda y: ((y > 0) & (y < 1)).to(y.dtype) * 0.2),
}

CELL_ACTIVATIONS = ("tanh", "relu", "sigmoid", "linear")
GATE_ACTIVATIONS = ("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2")


def activations_of(module: nn.Module) -> tuple[Activation, Activation]:
    """Return (gate, cell): what the three gates use, and what the candidate and the cell's output use.

    torch's own modules use sigmoid and tanh; a subclass says otherwise by `gate_activation` and `activation`.
    """
    return (
        _named(getattr(module, "gate_activation", "sigmoid"), GATE_ACTIVATIONS),
        _named(getattr(module, "activation", "tanh"), CELL_ACTIVATIONS),
    )


def is_standard(module: nn.Module) -> bool:
    """Whether the module uses sigmoid and tanh, as torch's fused kernels do."""
    names = (getattr(module, "gate_activation", "sigmoid"), getattr(module, "activation", "tanh"))
    return names == ("sigmoid", "tanh")


def _named(name: str, known: tuple[str, ...]) -> Activation:
    if name not in known:
        raise InvalidInputError(f"an LSTM here declares the activation {name!r}; {nearest_name(str(name), known)}")
    return ACTIVATIONS[name]
