"""What every layer of a saved Keras model is to gatelens: a checked config, the weights it needs, and what it computes.

A `KerasLayer` is a description: plain values. Weights live in the `nn.Module` that its `module` makes, which a
`KerasModel` registers under the layer's name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activations import ACTIVATIONS
from .errors import InvalidInputError, SavedModelError, nearest_name

Shape = tuple[int | None, ...]  # without the batch: (D,), or (T, D) with T None where any number of timesteps goes

MAX_SIZE = 2**31 - 1  # of one axis

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: activation.function for name, activation in ACTIVATIONS.items()},
    "elu": functional.elu,
    "exponential": torch.exp,
    "gelu": functional.gelu,
    "hard_silu": functional.hardswish,
    "hard_swish": functional.hardswish,
    "leaky_relu": partial(functional.leaky_relu, negative_slope=0.2),
    "log_softmax": partial(torch.log_softmax, dim=-1),
    "mish": functional.mish,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "silu": functional.silu,
    "softmax": partial(torch.softmax, dim=-1),
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "swish": functional.silu,
}


@dataclass(frozen=True)
class Flow:
    """What runs between two layers.

    Attributes:
        values: (B, T, D), (B, D), an image (B, T, W, C), token ids (B, T), or a mask that the file computes by
            itself, bool (B, T). Behind a convolution or pooling T is the number of its places.
        valid: Bool (B, T), False at the padding that `lengths` tells of; None where there is no axis of timesteps.
        mask: Bool (B, T), Keras's own mask, which travels with the values; None: nothing is masked.
        times: Long (B, T), which timestep of the model's inputs stands at each place; None: they are in order, or
            several stand at each.
    """

    values: Tensor
    valid: Tensor | None = None
    mask: Tensor | None = None
    times: Tensor | None = None

    def counted(self) -> Tensor:
        """Return bool (B, T), True at timesteps that are neither padding nor masked."""
        steps = self.values.shape[:2]
        kept = torch.ones(steps, dtype=torch.bool, device=self.values.device) if self.valid is None else self.valid
        return kept if self.mask is None else kept & self.mask


@dataclass(frozen=True)
class Options:
    """A layer's Keras config, read with checks.

    Attributes:
        label: The layer in words, to begin an error with.
        values: Keras's own config.
        keras2: Whether a Keras older than 3 wrote it: "hard_sigmoid" then means another function.
        timesteps: How many the model was made for, where its file says so.
    """

    label: str
    values: Mapping[str, Any]
    keras2: bool = False
    timesteps: int | None = None

    def refuse(self, problem: str) -> SavedModelError:
        """Return an error that names the layer."""
        return SavedModelError(f"{self.label} {problem}")

    def refuse_timesteps(self, found: int, expected: int | None, why: str) -> InvalidInputError:
        """Return an error for inputs of another length than the layer can take."""
        if expected == self.timesteps:
            problem = f"inputs has {counted(found, 'timestep')}; expected {expected}, because {self.label} {why}"
        else:  # layers before it have made others of them
            problem = f"of inputs, {counted(found, 'timestep')} reach {self.label}; expected {expected}: it {why}"
        wanted = expected if self.timesteps is None else self.timesteps
        return InvalidInputError(
            f"{problem}. Cut longer sequences into windows of {wanted}, and leave out shorter ones."
        )

    def all_valid(self, flow: Flow, why: str) -> None:
        """Refuse padding that the layer cannot leave out."""
        if flow.valid is not None and not bool(flow.valid.all()):
            raise InvalidInputError(
                f"lengths tells of padding; expected all timesteps of each sequence to be valid, because {self.label} "
                f"{why}. Leave out the sequences that are shorter."
            )

    def count(self, name: str) -> int:
        """Return a whole number, 1 or more."""
        value = self.values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
            raise self.refuse(f"has {name}={value!r}; expected a whole number, 1 to {MAX_SIZE}. The file is damaged.")
        return value

    def sizes(self, name: str, axes: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return a whole number for each axis, 1 or more; one number in the config is that of all axes."""
        value = self.values.get(name)
        value = default if value is None else [value] * axes if isinstance(value, int) else value
        if (
            not isinstance(value, Sequence)
            or len(value) != axes
            or not all(type(size) is int and 1 <= size <= MAX_SIZE for size in value)
        ):
            raise self.refuse(
                f"has {name}={value!r}; expected {counted(axes, 'whole number')}, 1 to {MAX_SIZE}. The file is damaged."
            )
        return tuple(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return True or False."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.refuse(f"has {name}={value!r}; expected true or false. The file is damaged.")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a finite number."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.refuse(f"has {name}={value!r}; expected a finite number. The file is damaged.")
        return float(value)

    def off(self, name: str, why: str) -> None:
        """Refuse an option that is switched on."""
        if self.values.get(name):
            raise self.refuse(f"has {name}={self.values[name]!r}, which gatelens does not read: {why}")

    def activation(self, name: str, known: Sequence[str], default: str = "linear") -> str:
        """Return the name of an activation, one of `known`."""
        value = self.values.get(name, default)
        if isinstance(value, Mapping) and str(value.get("module", "keras")).startswith("keras"):
            value = value.get("config")  # Keras's form of a function of its own
        if value is None:
            value = "linear"
        if self.keras2 and value == "hard_sigmoid":
            value = "hard_sigmoid_keras2"
        elif value == "hard_sigmoid_keras2":
            raise self.refuse(f"has the {name} {value!r}, which no Keras knows.")
        if not isinstance(value, str) or value not in known:
            raise self.refuse(f"has the {name} {value!r}; {nearest_name(str(value), known)}")
        return value

    def channels_last(self) -> None:
        """Refuse features, or an image's channels, on another axis than the last."""
        if self.values.get("data_format", "channels_last") not in ("channels_last", None):
            raise self.refuse("has data_format='channels_first'; expected 'channels_last', features on the last axis.")

    def last_axis(self, rank: int) -> None:
        """Refuse an axis other than the last of `rank` axes, the batch included."""
        value = self.values.get("axis", -1)
        axes = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if axes not in ([-1], [rank - 1]):
            raise self.refuse(f"works along axis {value!r}; gatelens reads it along the last one, axis=-1, only.")


class KerasLayer(ABC):
    """One layer.

    Args:
        options: Its config.
        shapes: Shapes of what it reads.

    Attributes:
        inputs: Shapes of what it reads.
        shape: Shape of what it returns.
        weights: Shapes of its weights, in Keras's order and layout; by the place where a `.keras` file keeps them.
        training_only: What of it plays no part in predictions.
        taken_off: The activation that was taken off it, so that the model's outputs are scores.

    Raises:
        SavedModelError: The config asks for what gatelens does not compute.
    """

    reads: ClassVar[tuple[int, int]] = (1, 1)  # how many inputs it has, at least and at most
    ranks: ClassVar[Sequence[int]] = (2,)  # how many axes they may have, without the batch

    def __init__(self, options: Options, shapes: Sequence[Shape]) -> None:
        low, high = self.reads
        if not low <= len(shapes) <= high:
            expected = low if low == high else f"{low} to {high}"
            raise options.refuse(f"reads {counted(len(shapes), 'input')}; expected {expected}.")
        for shape in shapes:
            if len(shape) not in self.ranks:
                raise options.refuse(
                    f"reads the shape {shown(shape)}; expected {' or '.join(_FORMS[rank] for rank in self.ranks)}."
                )
        self.options = options
        self.inputs = tuple(shapes)
        self.weights: dict[str, list[Shape]] = {}
        self.training_only: list[str] = []
        self.taken_off: str | None = None
        self.shape = self.build(shapes)

    @abstractmethod
    def build(self, shapes: Sequence[Shape]) -> Shape:
        """Check the config, set `weights`, and return the shape of the output."""

    def module(self) -> nn.Module | None:
        """Return the module that holds the weights; None: there are none."""
        return None

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:  # noqa: ARG002 - most have some
        """Return the module's state from weights of the shapes of `weights`."""
        return {}

    @abstractmethod
    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        """Compute the output."""

    def describe(self) -> str:
        """Return what it is, in a few words."""
        return type(self).__name__


_FORMS = {1: "(batch, features)", 2: "(batch, time, features)", 3: "(batch, rows, columns, channels)"}


def shown(shape: Shape) -> str:
    """Return a shape with its batch, for a person."""
    return f"(batch, {', '.join('any' if size is None else str(size) for size in shape)})"


def counted(number: int, noun: str) -> str:
    """Return how many there are: "1 unit", "5 units"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def width_of(options: Options, shape: Shape) -> int:
    """Return the size of the last axis, which a layer with weights must know."""
    if shape[-1] is None:
        raise options.refuse(f"reads the shape {shown(shape)}; expected a known number of features.")
    return shape[-1]
