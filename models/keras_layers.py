"""The layers of saved Keras models that are neither LSTM nor attention, one class for each of Keras's."""
# ruff: noqa: ARG002, D102 - all layers have the methods of KerasLayer, which says what they do

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from .keras_layer import MAX_SIZE, NONLINEARITIES, Flow, KerasLayer, Shape, counted, shown, width_of


class Identity(KerasLayer):
    """Dropout, noise and the like: no part of a prediction."""

    ranks: ClassVar[Sequence[int]] = (1, 2, 3)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        rate = self.options.values.get("rate", self.options.values.get("stddev"))
        if rate is not None:
            self.training_only = [f"its rate {rate!r}"]
        return shapes[0]

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return flows[0]

    def describe(self) -> str:
        return "training only, passes on what it reads"


class Embedding(KerasLayer):
    """Token ids (B, T) to vectors (B, T, E); with mask_zero, id 0 is masked."""

    ranks = (1,)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.vocab_size, self.width = self.options.count("input_dim"), self.options.count("output_dim")
        self.mask_zero = self.options.flag("mask_zero", default=False)
        self.weights = {"": [(self.vocab_size, self.width)]}
        return (shapes[0][0], self.width)

    def module(self) -> nn.Module:
        return nn.Embedding(self.vocab_size, self.width)

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return {"weight": weights[""][0]}

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        ids = flows[0].values
        return replace(flows[0], values=module(ids), mask=ids != 0 if self.mask_zero else None)

    def describe(self) -> str:
        masked = ", id 0 is skipped" if self.mask_zero else ""
        return f"Embedding of {counted(self.vocab_size, 'id')} in {counted(self.width, 'number')}{masked}"


class Dense(KerasLayer):
    """A linear map of the last axis and an activation; TimeDistributed(Dense) is the same."""

    ranks: ClassVar[Sequence[int]] = (1, 2, 3)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.width, self.units = width_of(self.options, shapes[0]), self.options.count("units")
        self.bias = self.options.flag("use_bias", default=True)
        self.activation = self.options.activation("activation", tuple(NONLINEARITIES))
        self.weights = {"": [(self.width, self.units), *([(self.units,)] if self.bias else [])]}
        return (*shapes[0][:-1], self.units)

    def module(self) -> nn.Module:
        return nn.Linear(self.width, self.units, bias=self.bias)

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        kernel, *bias = weights[""]
        return {"weight": kernel.T.contiguous(), **({"bias": bias[0]} if bias else {})}

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=NONLINEARITIES[self.activation](module(flows[0].values)))

    def describe(self) -> str:
        return f"Dense, {counted(self.units, 'unit')}, {self.activation}"


class TimeDistributed(Dense):
    """A Dense for each timestep."""

    ranks = (2,)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        inner = self.options.values.get("layer")
        kind, config = (inner.get("class_name"), inner.get("config")) if isinstance(inner, Mapping) else (inner, None)
        if kind != "Dense" or not isinstance(config, Mapping):
            raise self.options.refuse(f"wraps {kind!r}; gatelens reads it around a Dense only.")
        self.options = replace(self.options, values=config)
        shape = super().build(shapes)
        self.weights = {"layer": self.weights[""]}
        return shape

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return super().state({"": weights["layer"]})


class Activation(KerasLayer):
    """An activation by itself."""

    ranks: ClassVar[Sequence[int]] = (1, 2, 3)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.activation = self.options.activation("activation", tuple(NONLINEARITIES))
        return shapes[0]

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=NONLINEARITIES[self.activation](flows[0].values))

    def describe(self) -> str:
        return f"Activation {self.activation}"


class Normalization(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with stored moments or those of each vector itself."""

    def __init__(self, width: int, epsilon: float, *, gamma: bool, beta: bool, moments: bool) -> None:
        super().__init__()
        self.width = width
        self.epsilon = epsilon
        self.gamma = nn.Parameter(torch.ones(width)) if gamma else None
        self.beta = nn.Parameter(torch.zeros(width)) if beta else None
        self.mean: Tensor | None
        self.variance: Tensor | None
        self.register_buffer("mean", torch.zeros(width) if moments else None)
        self.register_buffer("variance", torch.ones(width) if moments else None)

    def forward(self, values: Tensor) -> Tensor:
        """Return (..., D)."""
        if self.mean is None or self.variance is None:
            return functional.layer_norm(values, (self.width,), self.gamma, self.beta, self.epsilon)
        values = (values - self.mean) * (self.variance + self.epsilon).rsqrt()
        values = values if self.gamma is None else values * self.gamma
        return values if self.beta is None else values + self.beta


class LayerNormalization(KerasLayer):
    """Each vector of the last axis, with its own mean and variance."""

    ranks = (1, 2, 3)
    moments: ClassVar[bool] = False

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.options.last_axis(len(shapes[0]) + 1)
        for name in ("renorm", "rms_scaling"):
            self.options.off(name, "it normalises in another way. Train the model without it.")
        self.width = width_of(self.options, shapes[0])
        self.gamma, self.beta = self.options.flag("scale", default=True), self.options.flag("center", default=True)
        self.epsilon = self.options.number("epsilon", 1e-3)
        self.names = [name for name, has in (("gamma", self.gamma), ("beta", self.beta)) if has]
        self.names += ["mean", "variance"] if self.moments else []
        self.weights = {"": [(self.width,)] * len(self.names)}
        return shapes[0]

    def module(self) -> nn.Module:
        return Normalization(self.width, self.epsilon, gamma=self.gamma, beta=self.beta, moments=self.moments)

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return dict(zip(self.names, weights[""], strict=True))

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=module(flows[0].values))

    def describe(self) -> str:
        return f"{type(self).__name__}, epsilon {self.epsilon:g}"


class BatchNormalization(LayerNormalization):
    """The last axis, with the mean and variance that training has stored."""

    moments = True


class GlobalPooling(KerasLayer):
    """One vector for all timesteps, or for a whole image."""

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.options.channels_last()
        self.keep_axis = self.options.flag("keepdims", default=False)
        return (*((1,) * (len(shapes[0]) - 1) if self.keep_axis else ()), shapes[0][-1])

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        pooled = self.pool(flows[0])  # (B, D)
        return Flow(pooled.unflatten(1, (*(size or 1 for size in self.shape[:-1]), -1)))

    @abstractmethod
    def pool(self, flow: Flow) -> Tensor:
        """Return (B, D)."""


class GlobalAveragePooling1D(GlobalPooling):
    """The mean over timesteps that are not masked; 0 where all are (Keras divides 0 by 0 there)."""

    def pool(self, flow: Flow) -> Tensor:
        counted = flow.counted()[..., None]  # (B, T, 1)
        return flow.values.masked_fill(~counted, 0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


class GlobalMaxPooling1D(GlobalPooling):
    """The largest value over timesteps, also over masked ones, as in Keras; padding is left out."""

    def pool(self, flow: Flow) -> Tensor:
        if flow.valid is None:
            return flow.values.amax(dim=1)
        return flow.values.masked_fill(~flow.valid[..., None], -math.inf).amax(dim=1)


class Reshape(KerasLayer):
    """Other axes for the same numbers; the axis of timesteps is lost unless it stays the first, as long as it is."""

    ranks: ClassVar[Sequence[int]] = (1, 2, 3)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.before = shapes[0]
        goal, rest = self.goal(), self.before[1:]
        self.keeps_time = goal[0] in (-1, self.before[0]) and (goal[1:] == rest or _as_many(goal[1:], rest))
        if self.keeps_time and len(goal) <= 3:
            return (self.before[0], *goal[1:])
        if any(size is None for size in self.before):
            raise self.options.refuse(
                f"reads the shape {shown(self.before)}; expected a fixed number of timesteps. Give Input one."
            )
        count = math.prod(size for size in self.before if size is not None)
        known = math.prod(size for size in goal if size is not None and size > 0)
        if len(goal) > 3 or goal.count(-1) > 1 or count % known or (-1 not in goal and count != known):
            raise self.options.refuse(
                f"makes the shape {shown(goal)} of {shown(self.before)}; expected (batch, features), (batch, time, "
                "features) or (batch, rows, columns, channels) of as many numbers."
            )
        return tuple(count // known if size == -1 else size for size in goal)

    def goal(self) -> Shape:
        """Return the shape that is asked for, where -1 stands for what remains."""
        goal = self.options.values.get("target_shape")
        if not isinstance(goal, Sequence) or isinstance(goal, str) or not goal:
            raise self.options.refuse(f"has target_shape={goal!r}; expected a list of sizes. The file is damaged.")
        for size in goal:
            if isinstance(size, bool) or not isinstance(size, int) or not (size == -1 or 1 <= size <= MAX_SIZE):
                raise self.options.refuse(f"has target_shape={goal!r}; expected sizes from 1 to {MAX_SIZE}, or -1.")
        return tuple(goal)

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        flow = flows[0]
        batch, steps = flow.values.shape[:2]
        inner = [size for size in self.shape if size is not None]
        if self.keeps_time:
            inner = [steps, *(size for size in self.shape[1:] if size is not None)]
            return replace(flow, values=flow.values.reshape(batch, *inner), mask=None)
        if steps != self.before[0]:
            raise self.options.refuse_timesteps(steps, self.before[0], "joins all timesteps")
        self.options.all_valid(flow, "joins all timesteps")
        return Flow(flow.values.reshape(batch, *inner))


def _as_many(goal: Shape, rest: Shape) -> bool:
    """Whether there are axes on both sides, all known, of as many numbers."""
    one, other = ([size for size in shape if size is not None and size > 0] for shape in (goal, rest))
    known = len(one) == len(goal) > 0 and len(other) == len(rest) > 0
    return known and math.prod(one) == math.prod(other)


class Flatten(Reshape):
    """All timesteps and features, or a whole image, in one vector."""

    def goal(self) -> Shape:
        self.options.channels_last()
        return self.before if len(self.before) == 1 else (-1,)


class RepeatVector(KerasLayer):
    """The same vector at each of n timesteps, which are not those of the input."""

    ranks = (1,)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.count = self.options.count("n")
        return (self.count, *shapes[0])

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return Flow(flows[0].values[:, None].expand(-1, self.count, -1))


class Masking(KerasLayer):
    """Timesteps whose every feature has one value are masked."""

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.value = self.options.number("mask_value", 0.0)
        return shapes[0]

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        mask = (flows[0].values != self.value).any(dim=2)  # (B, T)
        return replace(flows[0], values=flows[0].values.masked_fill(~mask[..., None], 0), mask=mask)

    def describe(self) -> str:
        return f"Masking, timesteps of {self.value:g} alone are skipped"
