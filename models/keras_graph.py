"""A saved Keras model's config.json as a graph of named steps: plain data, whichever Keras wrote it.

Keras 2 and 3 write graphs in different forms, and Sequential models in a third; here they become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SavedModelError
from .keras_layer import MAX_SIZE, Shape

Node = tuple[str, int]  # a layer's name, and which of its calls

TENSOR = "__keras_tensor__"
OPERATIONS = (  # of Keras 3 that are no layers; some have a layer's name, and `.h5` files do not say which is meant
    *("Any", "ConvertToTensor", "ExpandDims", "LogicalOr", "NotEqual", "OnesLike", "ZerosLike"),
    *("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Reshape", "Subtract"),
)


@dataclass(frozen=True)
class KerasStep:
    """One call of one layer.

    Attributes:
        name: The layer's name; a layer that is called twice makes two steps.
        kind: Its class in Keras; of an operation that is no layer, "ops." and its name.
        inputs: What it reads: 0 is the model's input, n the output of the n-th step.
        masks: The mask given with each input, likewise; None where Keras's own travels with the values.
        options: Its Keras config, and what it is called with.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    masks: tuple[int | None, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class KerasGraph:
    """A saved model without its weights.

    Attributes:
        input_shape: Shape of the input, without the batch.
        steps: In the order of computation; the last one gives the output.
        places: Layer name -> where a `.keras` file keeps its weights.
        keras_version: The Keras that wrote it.
    """

    input_shape: Shape
    steps: tuple[KerasStep, ...]
    places: Mapping[str, str]
    keras_version: str

    @property
    def keras2(self) -> bool:
        """Whether a Keras older than 3 wrote it."""
        return self.keras_version.split(".")[0] in ("0", "1", "2")


def read_graph(values: Mapping[str, Any], keras_version: str) -> KerasGraph:
    """Return the graph of a model's config.

    Raises:
        SavedModelError: It is damaged, or is no graph from one input to one output.
    """
    kind, config = values.get("class_name"), values.get("config")
    if kind not in ("Sequential", "Functional", "Model"):
        raise SavedModelError(
            f"the model is of the class {kind!r}; expected Sequential or Functional. The layers of a subclassed model "
            "are Python code, which is not in the file: build the model with the functional API and save it again."
        )
    if isinstance(config, list):
        config = {"layers": config}  # Keras before 2.2.3
    config = _mapping(config, "config")
    layers = [_Layer.read(entry) for entry in _list(config.get("layers"), "layers")]
    if len({layer.name for layer in layers}) < len(layers):
        raise SavedModelError("two layers have one name; expected a name for each. The file is damaged.")
    if kind == "Sequential":
        return _sequential(layers, config, values, keras_version)
    return _functional(layers, config, keras_version)


@dataclass(frozen=True)
class _Layer:
    name: str
    kind: str
    config: Mapping[str, Any]
    nodes: list[Any]

    @classmethod
    def read(cls, entry: Any) -> _Layer:
        entry = _mapping(entry, "a layer")
        config = _mapping(entry.get("config"), "a layer's config")
        name, kind = entry.get("name", config.get("name")), entry.get("class_name")
        if not isinstance(name, str) or not isinstance(kind, str):
            raise SavedModelError(f"a layer has the name {name!r} and class {kind!r}; expected text for both.")
        origin, registered = entry.get("module"), entry.get("registered_name")
        if (isinstance(origin, str) and not origin.startswith("keras")) or ">" in str(registered):
            raise SavedModelError(
                f"the layer {name!r} is of a class of its own, {registered or f'{origin}.{kind}'}, whose code is "
                "not in the file; gatelens reads Keras's own layers only."
            )
        named = ".ops." in origin if isinstance(origin, str) else "trainable" not in config and kind in OPERATIONS
        return cls(
            name, f"ops.{kind}" if named else kind, config, _list(entry.get("inbound_nodes", []), "inbound_nodes")
        )


def _sequential(
    layers: list[_Layer], config: Mapping[str, Any], values: Mapping[str, Any], keras_version: str
) -> KerasGraph:
    body = [layer for layer in layers if layer.kind != "InputLayer"]
    if not body:
        raise SavedModelError("the model has no layers.")
    first = layers[0].config
    build_config = values.get("build_config")
    shapes = (
        first.get("batch_shape"),
        first.get("batch_input_shape"),
        config.get("build_input_shape"),
        build_config.get("input_shape") if isinstance(build_config, Mapping) else None,
    )
    shape = next((shape for shape in shapes if shape), None)
    if shape is None:
        raise SavedModelError(
            "the model was saved before it was built, so it has no weights; call it once or give it an Input, train "
            "it and save it again."
        )
    steps = tuple(KerasStep(layer.name, layer.kind, (n,), (None,), layer.config) for n, layer in enumerate(body))
    return KerasGraph(_input_shape(shape), steps, _places(layers), keras_version)


def _functional(layers: list[_Layer], config: Mapping[str, Any], keras_version: str) -> KerasGraph:
    by_name = {layer.name: layer for layer in layers}
    source = _only(config.get("input_layers"), "input")
    goal = _only(config.get("output_layers"), "output")
    entrance = by_name.get(source[0])
    if entrance is None or entrance.kind != "InputLayer":
        raise SavedModelError(f"the model's input is {source[0]!r}, which is no InputLayer. The file is damaged.")
    calls: dict[Node, _Call] = {}
    index = {source: 0}
    steps: list[KerasStep] = []
    for node in _in_order(source, goal, by_name, calls):
        call, layer = calls[node], by_name[node[0]]
        inputs = tuple(index[one] for one in call.inputs)
        masks = tuple(None if one is None else index[one] for one in call.masks)
        steps.append(KerasStep(layer.name, layer.kind, inputs, masks, {**layer.config, **call.options}))
        index[node] = len(steps)
    if not steps:
        raise SavedModelError("the model's output is its input; expected layers between them.")
    shape = entrance.config.get("batch_shape") or entrance.config.get("batch_input_shape")
    return KerasGraph(_input_shape(shape), tuple(steps), _places(layers), keras_version)


@dataclass(frozen=True)
class _Call:
    inputs: tuple[Node, ...]
    masks: tuple[Node | None, ...]
    options: Mapping[str, Any]

    @property
    def needs(self) -> list[Node]:
        return [*self.inputs, *(mask for mask in self.masks if mask is not None)]


def _in_order(source: Node, goal: Node, by_name: Mapping[str, _Layer], calls: dict[Node, _Call]) -> Iterator[Node]:
    """Yield every node between source and goal after those it needs, and put its call into `calls`."""
    waiting, open_nodes, done = [goal], set(), {source}
    while waiting:
        node = waiting[-1]
        if node in done:
            waiting.pop()
            continue
        if node not in calls:
            calls[node] = _read_call(node, by_name)
        missing = [needed for needed in calls[node].needs if needed not in done]
        if not missing:
            done.add(node)
            open_nodes.discard(node)
            yield waiting.pop()
            continue
        open_nodes.add(node)
        if any(needed in open_nodes for needed in missing):
            raise SavedModelError(
                f"the layer {node[0]!r} reads, in a circle, what is made from it. The file is damaged."
            )
        waiting.extend(missing)


def _read_call(node: Node, by_name: Mapping[str, _Layer]) -> _Call:
    name, number = node
    layer = by_name.get(name)
    if layer is None or number >= len(layer.nodes):
        raise SavedModelError(f"something reads call {number} of the layer {name!r}, which is not there.")
    if layer.kind == "InputLayer":
        raise SavedModelError(f"the model has a second input, {name!r}; gatelens reads models of one input.")
    call = layer.nodes[number]
    if isinstance(call, Mapping):
        return _call_of_keras3(layer, call)
    return _call_of_keras2(layer, call)


def _call_of_keras3(layer: _Layer, call: Mapping[str, Any]) -> _Call:
    inputs: list[Node] = []
    options: dict[str, Any] = {}
    for argument in _list(call.get("args"), "args"):
        for part in argument if isinstance(argument, list) else [argument]:
            if _is_tensor(part):
                inputs.append(_node_of(part))
            elif isinstance(part, (int, float)) and layer.kind == "ops.NotEqual":
                options["argument"] = part
            elif part is not None:
                raise SavedModelError(
                    f"the layer {layer.name!r} ({layer.kind}) is called with {_short(part)}; expected outputs of other "
                    "layers. Computations with constants are not read: put them into layers."
                )
    keywords = dict(_mapping(call.get("kwargs", {}), "kwargs"))
    given = keywords.pop("mask", None)
    masks = given if isinstance(given, list) else [given] + [None] * (len(inputs) - 1)
    if len(masks) != len(inputs) or not all(mask is None or _is_tensor(mask) for mask in masks):
        raise SavedModelError(
            f"the layer {layer.name!r} is called with the mask {_short(given)}; expected one of the graph."
        )
    options |= _keywords(layer, keywords)
    return _Call(tuple(inputs), tuple(None if mask is None else _node_of(mask) for mask in masks), options)


def _call_of_keras2(layer: _Layer, call: Any) -> _Call:
    entries = _list(call, "an inbound node")
    if entries and isinstance(entries[0], str):
        entries = [entries]
    inputs: list[Node] = []
    options: dict[str, Any] = {}
    for each in entries:
        entry = _list(each, "an inbound node")
        inputs.append(_node(entry))
        options |= _keywords(layer, _mapping(entry[3] if len(entry) > 3 else {}, "an inbound node's options"))
    return _Call(tuple(inputs), (None,) * len(inputs), options)


def _keywords(layer: _Layer, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a call's keywords changes the result; refuse what gatelens does not compute."""
    for name, value in keywords.items():
        if value not in (None, False) and name != "use_causal_mask":
            why = "its dropout would make predictions random" if name == "training" else "gatelens does not read that"
            raise SavedModelError(f"the layer {layer.name!r} is called with {name}={_short(value)}; {why}.")
    return {"use_causal_mask": True} if keywords.get("use_causal_mask") else {}


def _places(layers: list[_Layer]) -> dict[str, str]:
    """Return layer name -> its group in a `.keras` file: its class in snake case, numbered from the second on."""
    counts: dict[str, int] = {}
    places = {}
    for layer in layers:
        place = _snake_case(layer.kind)
        number = counts[place] = counts.get(place, -1) + 1
        places[layer.name] = f"{place}_{number}" if number else place
    return places


def _snake_case(kind: str) -> str:
    """Return "time_distributed" of "TimeDistributed", "lstm" of "LSTM", "conv2d" of "Conv2D"."""
    letters: list[str] = []
    for before, letter, after in zip(" " + kind, kind, kind[1:] + " ", strict=False):
        starts = letter.isupper() and before != " " and (before.islower() or after.islower())
        letters.append(f"_{letter}" if starts else letter)
    return "".join(letters).lower()


def _only(value: Any, what: str) -> Node:
    """Return the one node of `input_layers` or `output_layers`, which older files nest once more."""
    entries = _list(value, f"{what}_layers") if not isinstance(value, Mapping) else list(value.values())
    if entries and isinstance(entries[0], str):
        entries = [entries]
    if len(entries) != 1:
        raise SavedModelError(
            f"the model has {len(entries)} {what}s; gatelens reads models of one. Save one keras.Model for each."
        )
    return _node(_list(entries[0], f"{what}_layers"))


def _node(history: list[Any]) -> Node:
    if (
        len(history) < 3
        or not isinstance(history[0], str)
        or not all(type(part) is int and part >= 0 for part in history[1:3])
    ):
        raise SavedModelError(f"the graph refers to {history!r}; expected [layer, call, output]. The file is damaged.")
    name, number, output = history[:3]
    if output != 0:
        raise SavedModelError(f"the graph uses output {output} of the layer {name!r}; gatelens reads the first only.")
    return (name, number)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("class_name") == TENSOR


def _node_of(tensor: Mapping[str, Any]) -> Node:
    return _node(_list(_mapping(tensor.get("config"), "a tensor").get("keras_history"), "keras_history"))


def _input_shape(value: Any) -> Shape:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    sizes = _list(value, "the input's shape")[1:]
    for size in sizes:
        if size is not None and (type(size) is not int or not 1 <= size <= MAX_SIZE):
            raise SavedModelError(f"the input's shape is {_short(value)}; expected sizes from 1 to {MAX_SIZE}.")
    return tuple(sizes)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SavedModelError(
            f"{what} is {_short(value)}; expected an object of names and values. The file is damaged."
        )
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise SavedModelError(f"{what} is {_short(value)}; expected a list. The file is damaged.")
    return list(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
