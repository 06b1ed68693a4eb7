"""`KerasModel`: a saved Keras model as a graph of named steps on torch modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional

from . import keras_convolution, keras_layers, keras_merging, keras_recurrent
from .config import Task
from .data_spec import DataSpec
from .errors import InvalidInputError, SavedModelError, nearest_name
from .inputs import valid_mask
from .keras_graph import KerasGraph
from .keras_layer import Flow, KerasLayer, Options, Shape, shown
from .sequence_model import SequenceModel

LAYERS: dict[str, type[KerasLayer]] = {
    kind.__name__: kind
    for kind in (
        keras_recurrent.LSTM,
        keras_recurrent.Bidirectional,
        keras_layers.Embedding,
        keras_layers.Masking,
        keras_layers.Dense,
        keras_layers.TimeDistributed,
        keras_layers.Activation,
        keras_merging.Attention,
        keras_merging.AdditiveAttention,
        keras_layers.GlobalAveragePooling1D,
        keras_layers.GlobalMaxPooling1D,
        keras_convolution.Conv1D,
        keras_convolution.Conv2D,
        keras_convolution.MaxPooling1D,
        keras_convolution.MaxPooling2D,
        keras_convolution.AveragePooling1D,
        keras_convolution.AveragePooling2D,
        keras_convolution.GlobalAveragePooling2D,
        keras_convolution.GlobalMaxPooling2D,
        keras_convolution.ZeroPadding1D,
        keras_convolution.ZeroPadding2D,
        keras_layers.Flatten,
        keras_layers.Reshape,
        keras_layers.RepeatVector,
        keras_layers.BatchNormalization,
        keras_layers.LayerNormalization,
        keras_merging.Concatenate,
        keras_merging.Add,
        keras_merging.Subtract,
        keras_merging.Multiply,
        keras_merging.Average,
        keras_merging.Maximum,
        keras_merging.Minimum,
    )
}
TRAINING_ONLY = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
)
MASK_OPERATIONS: dict[str, type[KerasLayer]] = {
    "ops.Any": keras_merging.AnyFeature,
    "ops.Concatenate": keras_merging.Concatenate,
    "ops.ConvertToTensor": keras_merging.ConvertToTensor,
    "ops.ExpandDims": keras_merging.ExpandDims,
    "ops.LogicalOr": keras_merging.LogicalOr,
    "ops.NotEqual": keras_merging.NotEqual,
    "ops.OnesLike": keras_merging.OnesLike,
    "ops.ZerosLike": keras_merging.ZerosLike,
}
KINDS: dict[str, type[KerasLayer]] = {
    **LAYERS,
    **dict.fromkeys(TRAINING_ONLY, keras_layers.Identity),
    **MASK_OPERATIONS,
}

ADVICE = {
    "Lambda": "It holds Python code, which gatelens never runs; put its computation into layers and save again.",
    "GRU": "gatelens records and explains LSTMs.",
    "Sequential": "Build the model of its layers directly, without a model inside the model.",
    "Functional": "Build the model of its layers directly, without a model inside the model.",
}


@dataclass(frozen=True, kw_only=True)
class KerasConfig:
    """What a `KerasModel` is made of; plain data.

    Attributes:
        graph: The layers and how they are joined.
        input_size: Features D of a float input (B, T, D); None for token ids.
        vocab_size: Number of token ids of a long input (B, T); None for floats.
        padding_index: Token id that stands for "no token"; Keras masks 0.
        output_size: Outputs K.
        task: "binary" or "multiclass" if the model ended in a sigmoid or softmax, which is taken off.
        per_timestep: Whether scores are (B, T, K).
    """

    graph: KerasGraph
    input_size: int | None
    vocab_size: int | None
    padding_index: int
    output_size: int
    task: Task
    per_timestep: bool

    @property
    def reads_tokens(self) -> bool:
        """Whether inputs are token ids, long (B, T), rather than floats (B, T, D)."""
        return self.vocab_size is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class KerasModel(SequenceModel):
    """A saved Keras model, layer by layer on torch modules; its LSTMs are `nn.LSTM` and are recorded like any.

    `model(inputs, lengths)` returns scores as `LSTMModel` does: (B, K), or (B, T, K) for outputs of each timestep.
    Timesteps that Keras masks are skipped wherever they are; padding that `lengths` tells of never counts. Of an image
    of one channel, (rows, columns, 1), inputs are the rows as timesteps and the columns as features.

    Args:
        graph: The layers and how they are joined.
        data: What the numbers mean.

    Attributes:
        layers: One description for each step.
        paths: Layer name -> path of its module; the name itself, where torch allows it.

    Raises:
        SavedModelError: A layer is not one that gatelens reads, or the layers do not fit together.
    """

    def __init__(self, graph: KerasGraph, data: DataSpec | None = None) -> None:
        layers = describe_layers(graph)
        super().__init__(_config(graph, layers), data)
        self.graph = graph
        self.layers = layers
        windows = [layer for layer in layers if isinstance(layer, keras_convolution.Windows) and layer.axes == 1]
        changes = [layer.more_places for layer in windows]
        self._leaves_out_ends = min(changes, default=0) < 0 and max(changes) <= 0
        self.paths: dict[str, str] = {}
        for step, layer in zip(graph.steps, layers, strict=True):
            module = None if step.name in self.paths else layer.module()
            if module is not None:
                path = self.paths[step.name] = self._free_path(step.name)
                self.add_module(path, module)

    def _free_path(self, name: str) -> str:
        path = name.replace(".", "_") or "layer"
        while hasattr(self, path):
            path += "_"
        return path

    def forward(self, inputs: Any, lengths: Any = None) -> Tensor:
        """Return scores (B, K), or (B, T, K), 0 at padding, for outputs of each timestep.

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,), valid timesteps of each sequence; None: all T.

        Raises:
            InvalidInputError: A shape, an id or a length does not fit, or the model joins all timesteps and some
                are padding.
        """
        values, lengths = self.prepare(inputs, lengths)
        steps = values.shape[1]
        if self._leaves_out_ends:  # or places of an LSTM behind could be as many as the longest sequence has timesteps
            values = values[:, : int(lengths.max())]
        valid = valid_mask(lengths, values.shape[1]).to(values.device)
        flows = [Flow(values[..., None] if len(self.graph.input_shape) == 3 else values, valid)]
        for step, layer in zip(self.graph.steps, self.layers, strict=True):
            read = [
                flows[one] if mask is None else replace(flows[one], mask=flows[mask].values)
                for one, mask in zip(step.inputs, step.masks, strict=True)
            ]
            path = self.paths.get(step.name)
            flows.append(layer.run(None if path is None else getattr(self, path), read))
        scores, places = flows[-1].values, flows[-1].valid
        if scores.ndim < 3 or places is None:
            return scores
        if places.shape == valid.shape:
            return functional.pad(scores.masked_fill(~places[..., None], 0), (0, 0, 0, steps - scores.shape[1]))
        if int(lengths.min()) < steps:
            raise InvalidInputError(
                f"lengths tells of padding; expected all {steps} timesteps of each sequence to be valid, because the "
                "model returns outputs of other timesteps, its own. Explain shorter sequences by themselves."
            )
        return scores

    def extra_repr(self) -> str:
        """Return what `print(model)` adds."""
        steps = (
            f"{number}: {step.name} of {', '.join(map(str, step.inputs))}: {layer.describe()}"
            for number, (step, layer) in enumerate(zip(self.graph.steps, self.layers, strict=True), start=1)
        )
        return "\n".join([super().extra_repr(), *steps])


def describe_layers(graph: KerasGraph) -> list[KerasLayer]:
    """Return one checked description for each step; no memory is spent on weights.

    The sigmoid or softmax at the end is taken off: `KerasLayer.taken_off` of that layer tells it.
    """
    shapes: list[Shape] = [graph.input_shape]
    layers: list[KerasLayer] = []
    for step in graph.steps:
        label = f"the layer {step.name!r} ({step.kind})"
        if step.kind not in KINDS:
            known = nearest_name(step.kind, [*LAYERS, *TRAINING_ONLY])
            advice = f" {ADVICE[step.kind]}" if step.kind in ADVICE else ""
            raise SavedModelError(f"{label} is not one that gatelens reads; {known}{advice}")
        options = Options(label, step.options, graph.keras2, graph.input_shape[0] if graph.input_shape else None)
        layer = KINDS[step.kind](options, [shapes[one] for one in step.inputs])
        layers.append(layer)
        shapes.append(layer.shape)
    last = len(layers)
    while last > 1 and isinstance(layers[last - 1], keras_layers.Identity):
        last = graph.steps[last - 1].inputs[0]
    end = layers[last - 1] if last else None
    if isinstance(end, (keras_layers.Dense, keras_layers.Activation, keras_convolution.Convolution)) and (
        end.activation == "sigmoid" or (end.activation == "softmax" and end.shape[-1] != 1)  # of one class it is 1
    ):
        end.taken_off, end.activation = end.activation, "linear"
    return layers


def _config(graph: KerasGraph, layers: Sequence[KerasLayer]) -> KerasConfig:
    shape, output = graph.input_shape, layers[-1].shape
    readers = [(step, layer) for step, layer in zip(graph.steps, layers, strict=True) if 0 in step.inputs]
    vocab_size = None
    if len(shape) == 1:
        sizes = [layer.vocab_size for _, layer in readers if isinstance(layer, keras_layers.Embedding)]
        others = [
            step
            for step, layer in readers
            if not isinstance(layer, (keras_layers.Embedding, keras_merging.MaskOperation))
        ]
        if others or not sizes:
            raise SavedModelError(
                f"the model reads the shape {shown(shape)} without an Embedding; expected (batch, time, features), or "
                "token ids (batch, time) that an Embedding reads."
            )
        vocab_size = min(sizes)
    elif len(shape) == 3 and shape[1] is not None and shape[2] not in (None, 1):
        raise SavedModelError(
            f"the model reads the shape {shown(shape)}, images of {shape[2]} channels; expected one channel. Put Input("
            f"({shape[0]}, {shape[1] * shape[2]})) and Reshape(({shape[0] or -1}, {shape[1]}, {shape[2]})) before its "
            "layers and save it again."
        )
    elif len(shape) not in (2, 3) or shape[1] is None or (len(shape) == 3 and shape[2] is None):
        raise SavedModelError(
            f"the model reads the shape {shown(shape)}; expected (batch, time, features) with a known number of "
            "features, images (batch, rows, columns, 1) with a known number of columns, or token ids (batch, time)."
        )
    if len(output) not in (1, 2) or output[-1] is None:
        raise SavedModelError(
            f"the model returns the shape {shown(output)}; expected (batch, outputs), or (batch, time, outputs)."
        )
    taken = next((layer.taken_off for layer in layers if layer.taken_off), None)
    task: Task = "binary" if taken == "sigmoid" else "multiclass" if taken == "softmax" else "regression"
    return KerasConfig(
        graph=graph,
        input_size=shape[1] if len(shape) > 1 else None,
        vocab_size=vocab_size,
        padding_index=0,
        output_size=output[-1],
        task=task,
        per_timestep=len(output) == 2,
    )
