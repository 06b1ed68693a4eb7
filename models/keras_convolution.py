"""Convolution, pooling and zeros around: the layers of saved Keras models whose windows move over time or an image.

A padded sequence must come out as it does alone. So padding is set to what lies outside of a sequence, and what comes
of each sequence is counted from its own length; where the place of the windows depends on the length ("same" with
strides), and over images, padding is refused. Keras's own masks end here, as in Keras.
"""
# ruff: noqa: D102 - all layers have the methods of KerasLayer, which says what they do

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from .errors import InvalidInputError
from .inputs import valid_mask
from .keras_layer import MAX_SIZE, NONLINEARITIES, Flow, KerasLayer, Shape, counted, shown, width_of
from .keras_layers import GlobalPooling

Margins = tuple[int, int]  # how many places are put before and after an axis


class Windows(KerasLayer):
    """Windows that move over the timesteps of (B, T, D), or over rows and columns of (B, T, W, C)."""

    paddings: ClassVar[Sequence[str]] = ("valid", "same")
    outside: ClassVar[float] = 0.0  # what windows see beyond the ends

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.options.channels_last()
        self.axes = len(shapes[0]) - 1
        self.dilation: tuple[int, ...] = (1,) * self.axes
        self.padding = "valid"
        width = self.read(shapes[0])
        self.reach = tuple((size - 1) * gap + 1 for size, gap in zip(self.size, self.dilation, strict=True))
        result = tuple(None if n is None else self.places(axis, n) for axis, n in enumerate(shapes[0][:-1]))
        if any(n is not None and n < 1 for n in result):
            raise self.options.refuse(f"reads the shape {shown(shapes[0])}, smaller than its windows {self.reach}.")
        return (*result, width)

    @abstractmethod
    def read(self, shape: Shape) -> int | None:
        """Check the config, set `size`, `stride` and what else differs, and return the size of the last axis."""

    @abstractmethod
    def slide(self, module: Any, values: Tensor, inside: Tensor) -> Tensor:
        """Return one value for each place of the windows.

        Args:
            module: The weights, if there are any.
            values: (B, C, T) or (B, C, T, W), `outside` beyond the ends.
            inside: 1 where there is a value and 0 beyond the ends, likewise, with B or C of 1 where all are alike.
        """

    def read_windows(self, size: str, stride: tuple[int, ...] | None = None) -> None:
        """Read where the windows are; `size` is the name of their size, `stride` the default: None, their size."""
        self.size = self.options.sizes(size, self.axes)
        self.stride = self.options.sizes("strides", self.axes, stride or self.size)
        self.padding = str(self.options.values.get("padding", "valid")).lower()
        if self.padding not in self.paddings:
            raise self.options.refuse(f"has padding={self.padding!r}; expected {' or '.join(self.paddings)}.")

    def margins(self, axis: int, count: int) -> Margins:
        """Return what Keras puts before and after `count` places."""
        if self.padding == "valid":
            return (0, 0)
        if self.padding == "causal":
            return (self.reach[axis] - 1, 0)
        stride = self.stride[axis]
        total = max((math.ceil(count / stride) - 1) * stride + self.reach[axis] - count, 0)
        return (total // 2, total - total // 2)  # as in TensorFlow: the odd one comes after

    def places(self, axis: int, count: int) -> int:
        """Return how many windows there are in `count` places; less than 1 where there is none."""
        return (count + sum(self.margins(axis, count)) - self.reach[axis]) // self.stride[axis] + 1

    @property
    def more_places(self) -> int:
        """How many places more than timesteps there are; less than 0: fewer."""
        if self.stride[0] > 1:
            return -1
        return sum(self.margins(0, self.reach[0])) - self.reach[0] + 1

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        flow = flows[0]
        counts = flow.values.shape[1:-1]
        if any(self.places(axis, count) < 1 for axis, count in enumerate(counts)):
            raise self.too_short(counts[0])
        valid = self.valid_after(flow)
        values = flow.values.movedim(-1, 1)  # (B, C, T) or (B, C, T, W)
        inside = values.new_ones(1, 1, *counts)
        if valid is not None and flow.valid is not None:
            values = values.masked_fill(~flow.valid[:, None], self.outside)
            inside = flow.valid[:, None].to(values)
        pads = [self.margins(axis, count) for axis, count in enumerate(counts)]
        flat = [size for pair in reversed(pads) for size in pair]  # torch begins with the last axis
        moved = self.slide(module, functional.pad(values, flat, value=self.outside), functional.pad(inside, flat))
        result = self.finish(moved.movedim(1, -1))
        if valid is not None:
            result = result.masked_fill(~valid[..., None], 0)
        return Flow(result, valid, None, flow.times if self.more_places == 0 else None)

    def finish(self, values: Tensor) -> Tensor:
        """Return what is made of the values of windows, (B, ..., C)."""
        return values

    def valid_after(self, flow: Flow) -> Tensor | None:
        """Return bool (B, T'), where windows lie within each sequence; None where there are no timesteps."""
        if flow.valid is None:
            return None
        if self.axes == 2:
            self.options.all_valid(flow, "reads several rows at once")
            return None
        steps, lengths = flow.valid.shape[1], flow.valid.sum(dim=1)
        if self.padding == "same" and self.stride[0] > 1:
            self.options.all_valid(flow, "places its windows, padding 'same' with strides, by the number of timesteps")
        margin = sum(self.margins(0, steps))  # for any other length the same
        lengths = (lengths + margin - self.reach[0]).div(self.stride[0], rounding_mode="floor") + 1
        if bool((lengths < 1).any()):
            raise self.too_short(int(flow.valid.sum(dim=1).min()))
        return valid_mask(lengths, self.places(0, steps))

    def too_short(self, found: int) -> InvalidInputError:
        """Return an error for a sequence that is shorter than a window."""
        return InvalidInputError(
            f"a sequence has {counted(found, 'timestep')} where {self.options.label} reads {self.reach[0]} at once; "
            "expected as many or more. Leave out sequences that are so short."
        )


class Convolution(Windows):
    """A kernel, a bias and an activation."""

    module_type: ClassVar[type[nn.Module]]

    def read(self, shape: Shape) -> int:
        width, self.filters = width_of(self.options, shape), self.options.count("filters")
        self.width = width
        self.read_windows("kernel_size", (1,) * self.axes)
        self.dilation = self.options.sizes("dilation_rate", self.axes, (1,) * self.axes)
        self.groups = self.options.sizes("groups", 1, (1,))[0]
        if width % self.groups or self.filters % self.groups:
            raise self.options.refuse(
                f"has groups={self.groups}, {width} features in and {self.filters} out; expected multiples of groups."
            )
        self.bias = self.options.flag("use_bias", default=True)
        self.activation = self.options.activation("activation", tuple(NONLINEARITIES))
        kernel = (*self.size, width // self.groups, self.filters)
        self.weights = {"": [kernel, *([(self.filters,)] if self.bias else [])]}
        return self.filters

    def module(self) -> nn.Module:
        return self.module_type(
            self.width,
            self.filters,
            self.size,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias,
        )

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        kernel, *bias = weights[""]  # (k, C in, C out) or (k, k, C in, C out)
        moved = kernel.movedim((-1, -2), (0, 1)).contiguous()
        return {"weight": moved, **({"bias": bias[0]} if bias else {})}

    def slide(self, module: Any, values: Tensor, inside: Tensor) -> Tensor:  # noqa: ARG002 - zeros add nothing
        result: Tensor = module(values)
        return result

    def finish(self, values: Tensor) -> Tensor:
        return NONLINEARITIES[self.activation](values)

    def describe(self) -> str:
        sizes = " x ".join(map(str, self.size))
        parts = [f"{counted(self.filters, 'filter')} of {sizes}, {self.activation}, padding {self.padding}"]
        for name, value in (("strides", self.stride), ("dilation", self.dilation)):
            parts += [f"{name} {' x '.join(map(str, value))}"] if max(value) > 1 else []
        parts += [f"{self.groups} groups"] if self.groups > 1 else []
        return f"{type(self).__name__}, {', '.join(parts)}"


class Conv1D(Convolution):
    """Over timesteps; "causal" sees none that come later."""

    paddings = ("valid", "same", "causal")
    module_type = nn.Conv1d


class Conv2D(Convolution):
    """Over rows and columns."""

    ranks = (3,)
    module_type = nn.Conv2d


class Pooling(Windows):
    """One value for each window and feature."""

    def read(self, shape: Shape) -> int | None:
        self.read_windows("pool_size")
        return shape[-1]

    def describe(self) -> str:
        sizes, strides = (" x ".join(map(str, value)) for value in (self.size, self.stride))
        return f"{type(self).__name__} of {sizes}, strides {strides}, padding {self.padding}"


class MaxPooling1D(Pooling):
    """The largest of a window."""

    outside = -math.inf

    def slide(self, module: Any, values: Tensor, inside: Tensor) -> Tensor:  # noqa: ARG002
        if self.axes == 1:
            return functional.max_pool1d(values, self.size, self.stride)
        return functional.max_pool2d(values, self.size, self.stride)


class MaxPooling2D(MaxPooling1D):
    """The largest of a window of rows and columns."""

    ranks = (3,)


class AveragePooling1D(Pooling):
    """The mean of what of a window lies within the sequence, as TensorFlow and JAX compute it.

    Keras on torch counts the last values again where padding "same" is not as wide before as after.
    """

    def slide(self, module: Any, values: Tensor, inside: Tensor) -> Tensor:  # noqa: ARG002
        pool = functional.avg_pool1d if self.axes == 1 else functional.avg_pool2d
        share = pool(inside, self.size, self.stride)
        return pool(values, self.size, self.stride) / share.clamp(min=1 / math.prod(self.size))


class AveragePooling2D(AveragePooling1D):
    """The mean of what of a window of rows and columns lies within the image."""

    ranks = (3,)


class ZeroPadding1D(Windows):
    """Zeros before and after."""

    def read(self, shape: Shape) -> int | None:
        self.size = self.stride = (1,) * self.axes
        given = self.options.values.get("padding", 1)
        pairs = [given] * self.axes if isinstance(given, int) else [given] if self.axes == 1 else given
        self.around = tuple(self.pair(given, pair) for pair in (pairs if isinstance(pairs, Sequence) else ()))
        if len(self.around) != self.axes:
            raise self.wrong(given)
        return shape[-1]

    def pair(self, given: Any, pair: Any) -> Margins:
        """Return the zeros before and after one axis."""
        both = [pair, pair] if isinstance(pair, int) else pair
        if (
            not isinstance(both, Sequence)
            or len(both) != 2
            or not all(type(size) is int and 0 <= size <= MAX_SIZE for size in both)
        ):
            raise self.wrong(given)
        return (both[0], both[1])

    def wrong(self, given: Any) -> Exception:
        """Return the error for a config that says something else."""
        return self.options.refuse(f"has padding={given!r}; expected how many zeros before and after each axis.")

    def margins(self, axis: int, count: int) -> Margins:  # noqa: ARG002 - of any number of places
        return self.around[axis]

    def slide(self, module: Any, values: Tensor, inside: Tensor) -> Tensor:  # noqa: ARG002
        return values

    def describe(self) -> str:
        around = " and ".join(f"{before} before, {after} after" for before, after in self.around)
        return f"{type(self).__name__}, {around}"


class ZeroPadding2D(ZeroPadding1D):
    """Zeros around rows and columns."""

    ranks = (3,)


class GlobalAveragePooling2D(GlobalPooling):
    """The mean over rows and columns."""

    ranks = (3,)

    def pool(self, flow: Flow) -> Tensor:
        self.options.all_valid(flow, "reads all rows at once")
        return flow.values.mean(dim=(1, 2))


class GlobalMaxPooling2D(GlobalPooling):
    """The largest value over rows and columns."""

    ranks = (3,)

    def pool(self, flow: Flow) -> Tensor:
        self.options.all_valid(flow, "reads all rows at once")
        return flow.values.amax(dim=(1, 2))
