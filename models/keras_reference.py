"""A `KerasModel` that is a reference LSTM in other words, as that `LSTMModel`: it can be saved."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import LSTMConfig, Pooling
from .keras_layer import KerasLayer
from .keras_layers import (
    Activation,
    Dense,
    Embedding,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    GlobalPooling,
    Identity,
)
from .keras_model import KerasModel
from .keras_recurrent import LSTM, Bidirectional, Cell
from .lstm import LSTMModel

Named = tuple[str, KerasLayer]


def as_lstm_model(model: KerasModel) -> LSTMModel | None:
    """Return the `LSTMModel` with the same scores; None if there is none.

    There is one for: an optional Embedding without mask, LSTMs (or Bidirectional ones, concatenated) of one activation
    with sigmoid gates, reading forwards, and one Dense on the last output, on every one, or on their mean or maximum.
    """
    chain = _chain(model)
    if chain is None:
        return None
    embedding = chain.pop(0) if isinstance(chain[0][1], Embedding) else None
    head = chain.pop() if chain and isinstance(chain[-1][1], Dense) else None
    pool = chain.pop()[1] if chain and isinstance(chain[-1][1], GlobalPooling) else None
    cells = [_cell(layer) for _, layer in chain]
    if head is None or not isinstance(head[1], Dense) or head[1].activation != "linear" or not cells:
        return None
    known = [cell for cell in cells if cell is not None]
    first = known[0] if known else None
    if first is None or len(known) < len(cells) or len({type(layer) for _, layer in chain}) > 1:
        return None
    if first.activation not in ("tanh", "relu") or any(
        (cell.activation, cell.gate_activation) != (first.activation, "sigmoid") for cell in known
    ):
        return None
    pooling = _pooling([layer for _, layer in chain], pool)
    if pooling is None or (embedding is not None and isinstance(embedding[1], Embedding) and embedding[1].mask_zero):
        return None
    config = LSTMConfig(
        input_size=model.config.input_size,
        vocab_size=model.config.vocab_size,
        embedding_dim=embedding[1].width if embedding is not None and isinstance(embedding[1], Embedding) else None,
        hidden_sizes=tuple(cell.units for cell in known),
        bidirectional=isinstance(chain[0][1], Bidirectional),
        activation="relu" if first.activation == "relu" else "tanh",
        pooling=pooling,
        output_size=model.config.output_size,
        task=model.config.task,
    )
    with torch.device("meta"):
        reference = LSTMModel(config, model.data)
    reference.load_state_dict(_state(model, reference, embedding, [name for name, _ in chain], head[0]), assign=True)
    return reference


def _chain(model: KerasModel) -> list[Named] | None:
    """Return the layers that compute something, if each reads the one before, unmasked, and none is there twice."""
    steps = model.graph.steps
    if any(step.inputs != (n,) or step.masks != (None,) for n, step in enumerate(steps)):
        return None
    named = [
        (step.name, layer)
        for step, layer in zip(steps, model.layers, strict=True)
        if not isinstance(layer, Identity) and not (isinstance(layer, Activation) and layer.activation == "linear")
    ]
    return named if named and len({name for name, _ in named}) == len(named) else None


def _cell(layer: KerasLayer) -> Cell | None:
    if isinstance(layer, LSTM):
        return None if layer.backwards else layer.cell
    if isinstance(layer, Bidirectional):
        return layer.forward if layer.fused and layer.merge == "concat" else None
    return None


def _pooling(lstms: list[KerasLayer], pool: KerasLayer | None) -> Pooling | None:
    """Return how the top layer's outputs reach the Dense; None: in a way that `LSTMModel` has not."""
    sequences = [layer.sequences for layer in lstms if isinstance(layer, (LSTM, Bidirectional))]
    if not all(sequences[:-1]):
        return None
    if pool is None:
        return "none" if sequences[-1] else "last"
    if not isinstance(pool, GlobalPooling) or pool.keep_axis:
        return None
    kinds: dict[type[KerasLayer], Pooling] = {GlobalAveragePooling1D: "mean", GlobalMaxPooling1D: "max"}
    return kinds.get(type(pool))


def _state(
    model: KerasModel, reference: LSTMModel, embedding: Named | None, lstms: list[str], head: str
) -> dict[str, Tensor]:
    """Return the reference's weights; a bias that Keras left out is 0."""
    found = model.state_dict()
    places = {f"lstm.{n}": model.paths[name] for n, name in enumerate(lstms)} | {"head": model.paths[head]}
    if embedding is not None:
        places["embedding"] = model.paths[embedding[0]]
    state = {}
    for name, value in reference.state_dict().items():
        place, _, weight = name.rpartition(".")
        source = f"{places[place]}.{weight}"
        state[name] = found[source] if source in found else torch.zeros(value.shape)
    return state
