"""From the names and shapes of a state dict to an `LSTMModel`: what each weight is, or why it has no place there.

A state dict says nothing of what a module does with its weights, so each one must have a place in token embedding ->
LSTM layers -> pooling -> one linear head, or nothing is adopted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .config import LSTMConfig
from .errors import ModelError
from .weight_files import listed, printable, weight_fault

RECURRENT = re.compile(
    r"(?:(?P<path>.+)\.)?(?P<short>(?:weight|bias)_(?:ih|hh|hr))(?:_l(?P<layer>\d{1,4})(?P<reverse>_reverse)?)?"
)
_OTHER_CELLS = {1: "a plain RNN, which has no gates", 3: "a GRU, which has 3 gates and no cell state"}
_ATTENTION = ("pooling.query", "pooling.key.weight", "pooling.key.bias")
MAX_REORDERED = 6
ANY_MODULE = (  # true of modules with an LSTM and of those without
    "The explainers take the module itself, with its weights loaded: explain(module, inputs). integrated_gradients, "
    "gradient_shap, kernel_shap and lime need no LSTM; gate_saliency does, and so does record(module), which shows "
    "the gates."
)


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What a state dict was found to be.

    Attributes:
        config: With pooling "attention" if the weights hold it, else "last", and with the task that K suggests.
        weights: The state dict of an `LSTMModel`, in memory of its own, on the CPU, of one float type.
        found: What was recognised, a sentence each.
    """

    config: LSTMConfig
    weights: dict[str, Tensor]
    found: tuple[str, ...]


@dataclass(frozen=True)
class _Stack:
    """One `nn.LSTM` or `nn.LSTMCell`: its layers, of each the directions, of each the weights by short name."""

    path: str
    layers: list[list[dict[str, Tensor]]]

    @property
    def input_size(self) -> int:
        return self.layers[0][0]["weight_ih"].shape[1]

    @property
    def output_size(self) -> int:
        return self.layers[-1][0]["weight_hh"].shape[1] * self.directions

    @property
    def directions(self) -> int:
        return len(self.layers[0])

    @property
    def lacks_bias(self) -> bool:
        return any(short not in own for layer in self.layers for own in layer for short in ("bias_ih", "bias_hh"))

    def __str__(self) -> str:
        layers = f"{len(self.layers)} layers" if len(self.layers) > 1 else "1 layer"
        both = ", both directions" if self.directions == 2 else ""
        return f"{_shown(self.path)} is an LSTM of {layers}{both}: {self.input_size} -> {self.output_size}"


def adopt(state: Mapping[str, Tensor], *, embeddings: Collection[str] | None = None, padding: int = 0) -> Adopted:
    """Return what a state dict is as an `LSTMModel`.

    Args:
        state: Name -> tensor.
        embeddings: Paths of the token embeddings, where a module told; None: guessed from shapes and names.
        padding: Token id that stands for "no token", if there is an embedding.

    Raises:
        ModelError: A weight is damaged or has no place in an `LSTMModel`.
    """
    for name, value in state.items():
        if is_lazy(value) or value.is_nested:  # these have no shape to look at
            raise ModelError(f"the weight {printable(name)} {weight_fault(value)}.")
    stacks, found = _chained(_stacks(state))
    rest = {name: value for name, value in state.items() if not RECURRENT.fullmatch(name)}
    width = stacks[-1].output_size
    attention = _take_attention(rest, width)
    table, head = _take_table_and_head(rest, stacks[0].input_size, width, embeddings)
    outputs = head["weight"].shape[0]

    layers = [layer for stack in stacks for layer in stack.layers]
    weights = {
        f"lstm.{index}.{short}_l0{suffix}": value
        for index, layer in enumerate(layers)
        for own, suffix in zip(layer, ("", "_reverse"), strict=False)
        for short, value in own.items()
    }
    weights |= attention | {f"head.{name}": value for name, value in head.items()}
    if table is not None:
        weights["embedding.weight"] = table
        found.append(f"a token embedding, {table.shape[0]} tokens -> {table.shape[1]}; token {padding} is padding")
    if attention:
        found.append(f"an additive attention over timesteps, {width} wide")
    found.append(f"a linear head, {width} -> {outputs}")
    used = {id(value) for value in weights.values()}
    for name, value in state.items():
        fault = weight_fault(value) if id(value) in used else None
        if fault:
            raise ModelError(f"the weight {printable(name)} {fault}.")
    config = LSTMConfig(
        input_size=stacks[0].input_size if table is None else None,
        vocab_size=None if table is None else table.shape[0],
        embedding_dim=None if table is None else table.shape[1],
        padding_index=0 if table is None else padding,
        hidden_sizes=tuple(layer[0]["weight_hh"].shape[1] for layer in layers),
        bidirectional=stacks[0].directions == 2,
        pooling="attention" if attention else "last",
        output_size=outputs,
        task="regression" if outputs == 1 else "multiclass",
    )
    weights, told = _of_one_type(weights)
    without_bias = [_shown(stack.path) for stack in stacks if stack.lacks_bias]
    without_bias += [] if "bias" in head else ["the head"]
    if without_bias:
        found.append(f"no bias in {' and '.join(without_bias)}: zeros stand for it")
        _add_zero_biases(weights, config)
    return Adopted(config=config, weights=weights, found=(*found, *told))


# -- LSTMs -----------------------------------------------------------------------------------------------------------


def _stacks(state: Mapping[str, Tensor]) -> list[_Stack]:
    """Return every LSTM, in the state's order, each checked by itself."""
    lstms: dict[str, dict[tuple[int, bool], dict[str, Tensor]]] = {}
    for name, value in state.items():
        match = RECURRENT.fullmatch(name)
        if match:
            place = (int(match["layer"] or 0), match["reverse"] is not None)
            own = lstms.setdefault(match["path"] or "", {}).setdefault(place, {})
            if match["short"] in own:
                raise ModelError(f"{_shown(match['path'] or '')} has the weight {match['short']} of layer 0 twice.")
            own[match["short"]] = value
    stacks = []
    for path, parts in lstms.items():
        for (layer, reverse), own in parts.items():
            _check_direction(f"{'the reverse direction of ' if reverse else ''}{_place(path, layer)}", own)
        count = 1 + max(layer for layer, _ in parts)
        directions = (False, True) if any(reverse for _, reverse in parts) else (False,)
        for layer, reverse in itertools.product(range(count), directions):
            if (layer, reverse) not in parts:
                which = f"the {'reverse' if reverse else 'forward'} direction of layer {layer}"
                raise ModelError(f"{_shown(path)} lacks {which}; the state dict is not complete. Save it again.")
        layers = [[parts[layer, reverse] for reverse in directions] for layer in range(count)]
        _check_layers(path, layers)
        stacks.append(_Stack(path, layers))
    return stacks


def _check_direction(where: str, own: dict[str, Tensor]) -> None:
    """Refuse what is not the four gates' weights (4H, D), (4H, H) and biases (4H,)."""
    for short in ("weight_ih", "weight_hh"):
        if short not in own:
            raise ModelError(f"{where} has no {short}; the state dict is not complete. Save it again.")
    if "weight_hr" in own:
        raise ModelError(f"{where} projects its hidden states (proj_size), which LSTMModel does not. {ANY_MODULE}")
    inputs, recurrent = tuple(own["weight_ih"].shape), tuple(own["weight_hh"].shape)
    if len(recurrent) == 2 and recurrent[1] and recurrent[0] in (recurrent[1], 3 * recurrent[1]):
        raise ModelError(f"{where} is {_OTHER_CELLS[recurrent[0] // recurrent[1]]}; expected an LSTM. {ANY_MODULE}")
    if len(recurrent) != 2 or len(inputs) != 2 or 0 in (*recurrent, *inputs) or recurrent[0] != 4 * recurrent[1]:
        raise ModelError(
            f"{where} has weight_ih {inputs} and weight_hh {recurrent}; expected (4H, D) and (4H, H). The file is "
            "damaged, or it is not an LSTM of torch's form."
        )
    for short, value in own.items():
        expected = (recurrent[0], value.shape[1]) if short.startswith("weight") else (recurrent[0],)
        if tuple(value.shape) != expected:
            raise ModelError(f"{where} has {short} {tuple(value.shape)}; expected {expected}, as weight_hh says.")


def _check_layers(path: str, layers: list[list[dict[str, Tensor]]]) -> None:
    """Refuse layers that do not read what the layer below gives."""
    given: int | None = None
    for index, layer in enumerate(layers):
        widths = {own["weight_hh"].shape[1] for own in layer}
        read = {own["weight_ih"].shape[1] for own in layer}
        if len(widths) > 1 or len(read) > 1:
            raise ModelError(f"the two directions of {_place(path, index)} differ in shape.")
        if given is not None and read != {given}:
            raise ModelError(f"{_place(path, index)} reads {read.pop()} numbers; the layer below gives {given}.")
        given = widths.pop() * len(layer)


def _chained(stacks: list[_Stack]) -> tuple[list[_Stack], list[str]]:
    """Return the LSTMs in the order in which each reads what the one before gives, and a sentence for each."""
    sizes = "; ".join(str(stack) for stack in stacks)
    if len({stack.directions for stack in stacks}) > 1:
        raise ModelError(
            f"some LSTMs run in both directions and some in one, which LSTMModel does not: {sizes}. {ANY_MODULE}"
        )
    orders = [stacks] if len(stacks) > MAX_REORDERED else [list(order) for order in itertools.permutations(stacks)]
    fitting = [order for order in orders if all(a.output_size == b.input_size for a, b in itertools.pairwise(order))]
    if not fitting:
        raise ModelError(f"its LSTMs do not follow one another, none reads what another gives: {sizes}. {ANY_MODULE}")
    order = fitting[0]  # permutations come in the state's own order first
    told = [str(stack) for stack in order]
    if len(fitting) > 1:
        told.append(
            f"their order is assumed, the widths allow others: {', '.join(_shown(stack.path) for stack in order)}"
        )
    return order, told


# -- everything else -------------------------------------------------------------------------------------------------


def _take_attention(rest: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Take the weights of LSTMModel's own attention out of `rest`, where they are."""
    shapes = dict(zip(_ATTENTION, ((width,), (width, width), (width,)), strict=True))
    for name in rest:
        if name.endswith(_ATTENTION[0]):
            path = name.removesuffix(_ATTENTION[0])
            if all(path + inner in rest and tuple(rest[path + inner].shape) == shapes[inner] for inner in _ATTENTION):
                return {inner: rest.pop(path + inner) for inner in _ATTENTION}
    return {}


def _take_table_and_head(
    rest: dict[str, Tensor], input_size: int, width: int, embeddings: Collection[str] | None
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Return the token embedding (V, E), where there is one, and the head's weight (K, F) and bias (K,)."""
    matrices = {
        name.removesuffix("weight"): value
        for name, value in rest.items()
        if name.rpartition(".")[2] == "weight" and value.ndim == 2 and value.shape[0]
    }
    tables = [
        path
        for path, value in matrices.items()
        if value.shape[1] == input_size
        and f"{path}bias" not in rest
        and (embeddings is None or path.removesuffix(".") in embeddings)
    ]
    heads = [path for path, value in matrices.items() if value.shape[1] == width]
    if embeddings is None and set(tables) & set(heads):  # one could stand for the other: the name must tell
        named = [path for path in tables if "emb" in path.lower()]
        tables = named if len(tables) > 1 or heads == tables else tables
    heads = [path for path in heads if path not in tables]
    taken = {f"{path}{part}" for path in (*tables[:1], *heads[:1]) for part in ("weight", "bias")}
    without_place = {name: value for name, value in rest.items() if name not in taken}
    if not heads:
        raise ModelError(
            f"it has no linear head: expected one weight (outputs, {width}) after the LSTM, found "
            f"{shapes(without_place) or 'no other weights'}. {ANY_MODULE}"
        )
    if without_place:
        raise ModelError(
            "it holds more than embedding -> LSTM -> pooling -> one linear head; these weights have no place in an "
            f"LSTMModel: {shapes(without_place)}. {ANY_MODULE} Weights that the prediction does not use (of a loss, a "
            "metric) can be deleted from the state dict."
        )
    head = {part: rest[f"{heads[0]}{part}"] for part in ("weight", "bias") if f"{heads[0]}{part}" in rest}
    outputs = head["weight"].shape[0]
    if "bias" in head and tuple(head["bias"].shape) != (outputs,):
        raise ModelError(
            f"the head {_shown(heads[0])} has a bias {tuple(head['bias'].shape)}; expected ({outputs},), one an output."
        )
    return (matrices[tables[0]] if tables else None), head


def _of_one_type(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return copies on the CPU, float64 if all are, else float32; and what was converted."""
    types = {value.dtype for value in weights.values()}
    chosen = torch.float64 if types == {torch.float64} else torch.float32
    copies = {name: value.detach().to("cpu", chosen, copy=True).contiguous() for name, value in weights.items()}
    others = sorted(str(kind).removeprefix("torch.") for kind in types - {chosen})
    return copies, [f"weights of {' and '.join(others)} were converted to float32"] if others else []


def _add_zero_biases(weights: dict[str, Tensor], config: LSTMConfig) -> None:
    for index, width in enumerate(config.hidden_sizes):
        for suffix in ("", "_reverse")[: config.directions]:
            for short in ("bias_ih", "bias_hh"):
                zeros = weights["head.weight"].new_zeros(4 * width)
                weights.setdefault(f"lstm.{index}.{short}_l0{suffix}", zeros)
    weights.setdefault("head.bias", weights["head.weight"].new_zeros(config.output_size))


def _place(path: str, layer: int) -> str:
    return f"layer {layer}{f' of {printable(path)}' if path else ''}"


def _shown(path: str) -> str:
    return printable(path.removesuffix(".")) or "the LSTM"


def shapes(tensors: Mapping[str, Tensor]) -> str:
    """Return "name (4, 3), ..." for a message."""
    known = {name: "?" if is_lazy(value) or value.is_nested else tuple(value.shape) for name, value in tensors.items()}
    return listed(f"{name} {shape}" for name, shape in known.items())
