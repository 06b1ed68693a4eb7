"""The layers of saved Keras models that read several inputs, and the operations that make masks in newer files."""
# ruff: noqa: ARG002, D102 - all layers have the methods of KerasLayer, which says what they do

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .keras_layer import Flow, KerasLayer, Options, Shape, shown, width_of

MASKED_SCORE = 1e9  # what Keras takes from the score of a masked key


class Merging(KerasLayer):
    """Several inputs of one shape, put together element by element."""

    reads = (2, 1000)
    ranks = (1, 2, 3)
    join: ClassVar[Callable[[Tensor, Tensor], Tensor]]

    def build(self, shapes: Sequence[Shape]) -> Shape:
        return broadcast(self.options, shapes)

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        check_timesteps(self.options, self.inputs, flows)
        joined = self.joined([flow.values for flow in flows])
        return Flow(joined, first_valid(flows), self.mask(flows), common_times(flows))

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """Return all as one."""
        return reduce(type(self).join, values)

    def mask(self, flows: Sequence[Flow]) -> Tensor | None:
        """Return the mask of the output: where any input counts (in Keras 2 all must); None if one is not masked."""
        masks = [flow.mask for flow in flows if flow.mask is not None]
        if len(masks) < len(flows):
            return None
        return reduce(torch.logical_and if self.options.keras2 else torch.logical_or, masks)


class Add(Merging):
    """The sum."""

    join = torch.add


class Multiply(Merging):
    """The product."""

    join = torch.mul


class Subtract(Merging):
    """The first less the second."""

    reads = (2, 2)
    join = torch.sub


class Maximum(Merging):
    """The larger."""

    join = torch.maximum


class Minimum(Merging):
    """The smaller."""

    join = torch.minimum


class Average(Merging):
    """The mean."""

    join = torch.add

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        return super().joined(values) / len(values)


class Concatenate(Merging):
    """The features of all, side by side."""

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.options.last_axis(len(shapes[0]) + 1)
        start = broadcast(self.options, [shape[:-1] for shape in shapes])
        return (*start, sum(width_of(self.options, shape) for shape in shapes))

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(values), dim=-1)

    def mask(self, flows: Sequence[Flow]) -> Tensor | None:
        if all(flow.mask is None for flow in flows):
            return None
        masks = [
            flow.values.new_ones(flow.values.shape[:2]).bool() if flow.mask is None else flow.mask for flow in flows
        ]
        return reduce(torch.logical_and if self.options.keras2 else torch.logical_or, masks)


class Scale(nn.Module):
    """The weight of an attention: one number for all features, or one for each."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(shape))


class Attention(KerasLayer):
    """Dot-product attention over [query, value] or [query, value, key], (B, Tq, D), (B, Tv, D).

    Source: Luong, Pham & Manning 2015, section 3.1, "dot".
    """

    reads = (2, 3)
    scaled: ClassVar[bool] = False  # Keras's default

    def build(self, shapes: Sequence[Shape]) -> Shape:
        query, value, key = (*shapes, shapes[1])[:3]
        widths = {width_of(self.options, query), width_of(self.options, key)}
        if len(widths) > 1 or key[0] != value[0]:
            raise self.options.refuse(
                f"reads {', '.join(map(shown, shapes))}; expected query and key of one width, value and key of one "
                "number of timesteps."
            )
        if self.options.values.get("score_mode", "dot") != "dot":
            raise self.options.refuse("has score_mode='concat'; gatelens reads 'dot', and AdditiveAttention.")
        self.causal = self.options.flag("causal", default=False) or self.options.flag("use_causal_mask", default=False)
        self.has_scale = self.options.flag("use_scale", default=self.scaled)
        self.scale_shape = self.scale_of(*widths)
        self.weights = {"": [self.scale_shape]} if self.has_scale else {}
        return (query[0], value[-1])

    def scale_of(self, width: int) -> tuple[int, ...]:
        """Return the shape of the weight."""
        return ()

    def module(self) -> nn.Module | None:
        return Scale(self.scale_shape) if self.has_scale else None

    def state(self, weights: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return {"scale": weights[""][0]} if self.has_scale else {}

    def scores(self, query: Tensor, key: Tensor, scale: Tensor | float) -> Tensor:
        """Return (B, Tq, Tv)."""
        return query @ key.transpose(1, 2) * scale

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        query, value, key = (*flows, flows[1])[:3]
        check_timesteps(self.options, (*self.inputs, self.inputs[1])[1:3], (value, key))
        scores = self.scores(query.values, key.values, module.scale if module is not None else 1.0)  # (B, Tq, Tv)
        shown_keys = scores.new_ones(scores.shape).bool() if value.mask is None else value.mask[:, None]
        if self.causal:
            shown_keys = shown_keys & scores.new_ones(scores.shape[1:]).bool().tril()
        scores = torch.where(shown_keys, scores, scores - MASKED_SCORE)
        if value.valid is not None:
            scores = scores.masked_fill(~value.valid[:, None], -torch.inf)
        result = scores.softmax(dim=2) @ value.values  # (B, Tq, D)
        if query.mask is not None:
            result = result.masked_fill(~query.mask[..., None], 0)
        return Flow(result, query.valid, query.mask, query.times)

    def describe(self) -> str:
        return f"{type(self).__name__}{', causal' if self.causal else ''}"


class AdditiveAttention(Attention):
    """Additive attention, score = sum of scale * tanh(query + key).

    Source: Bahdanau, Cho & Bengio 2015, appendix A.1.2, without its linear maps.
    """

    scaled = True

    def scale_of(self, width: int) -> tuple[int, ...]:
        return (width,)

    def scores(self, query: Tensor, key: Tensor, scale: Tensor | float) -> Tensor:
        return (scale * torch.tanh(query[:, :, None] + key[:, None])).sum(dim=3)


class MaskOperation(KerasLayer):
    """An operation on a mask, bool (B, T) or (B, T, D), as Keras 3 writes them beside the layers that use the mask."""

    ranks: ClassVar[Sequence[int]] = (1, 2)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        return broadcast(self.options, shapes)


class ConvertToTensor(MaskOperation):
    """The mask itself."""

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return flows[0]


class NotEqual(MaskOperation):
    """True where a value is not the given one."""

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=flows[0].values != self.options.number("argument", 0.0), mask=None)


class AnyFeature(MaskOperation):
    """True where any feature is."""

    ranks = (2,)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.options.last_axis(3)
        self.options.off("keepdims", "a mask has one value a timestep.")
        return shapes[0][:1]

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=flows[0].values.any(dim=2), mask=None)


class LogicalOr(MaskOperation):
    """True where either is."""

    reads = (2, 2)

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return Flow(flows[0].values | flows[1].values, first_valid(flows))


class ExpandDims(MaskOperation):
    """(B, T, 1) of (B, T)."""

    ranks = (1,)

    def build(self, shapes: Sequence[Shape]) -> Shape:
        self.options.last_axis(3)
        return (*shapes[0], 1)

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=flows[0].values[..., None], mask=None)


class ZerosLike(MaskOperation):
    """False everywhere."""

    fill: ClassVar[bool] = False

    def run(self, module: Any, flows: Sequence[Flow]) -> Flow:
        return replace(flows[0], values=torch.full_like(flows[0].values, self.fill, dtype=torch.bool), mask=None)


class OnesLike(ZerosLike):
    """True everywhere."""

    fill = True


def broadcast(options: Options, shapes: Sequence[Shape]) -> Shape:
    """Return the shape of several put together element by element; a size of 1 goes with any."""
    result = shapes[0]
    for shape in shapes[1:]:
        pairs = list(zip(result, shape, strict=False))
        if len(shape) != len(result) or any(1 not in pair and None not in pair and len({*pair}) > 1 for pair in pairs):
            raise options.refuse(f"joins the shapes {shown(result)} and {shown(shape)}; expected equal ones.")
        result = tuple(_larger(one, other) for one, other in pairs)
    return result


def _larger(one: int | None, other: int | None) -> int | None:
    if one == 1:
        return other
    return one if other in (1, None) else other


def first_valid(flows: Sequence[Flow]) -> Tensor | None:
    """Return what is valid of several inputs with the same timesteps."""
    return next((flow.valid for flow in flows if flow.valid is not None and flow.valid.shape[1] > 1), flows[0].valid)


def common_times(flows: Sequence[Flow]) -> Tensor | None:
    """Return which timestep of the model's inputs stands at each place; None, as they are, if the inputs disagree."""
    if all(flow.times is None for flow in flows):
        return None
    batch, steps = max((flow.values.shape[:2] for flow in flows), key=lambda shape: shape[1])
    in_order = torch.arange(steps, device=flows[0].values.device).expand(batch, steps)
    known = [in_order if flow.times is None else flow.times for flow in flows if flow.values.shape[1] == steps]
    return known[0] if all(torch.equal(known[0], other) for other in known[1:]) else None


def check_timesteps(options: Options, shapes: Sequence[Shape], flows: Sequence[Flow]) -> None:
    """Refuse inputs of another length than the sequence has that a layer puts together with them, place by place.

    Args:
        options: The layer's.
        shapes: What it was built for; a size of 1 goes with any.
        flows: What it reads.

    Raises:
        InvalidInputError: The numbers of timesteps differ.
    """
    pairs = [(flow.values.shape[1], shape[0]) for flow, shape in zip(flows, shapes, strict=True) if len(shape) > 1]
    found = {steps for steps, size in pairs if size != 1}
    if len(found) > 1:
        expected = next(size for _, size in pairs if size not in (None, 1))
        steps = next(steps for steps in found if steps != expected)
        raise options.refuse_timesteps(steps, expected, "puts them together with as many others")
