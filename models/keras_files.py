"""`from_keras`: saved Keras models, `.keras` and `.h5`, read without Keras and without executing anything from them."""

from __future__ import annotations

import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data_spec import DataSpec, WindowSpec
from .errors import SavedModelError
from .keras_graph import KerasGraph, read_graph
from .keras_layer import KerasLayer, shown
from .keras_model import KerasModel, describe_layers
from .keras_reference import as_lstm_model
from .keras_weights import ROOTS, has, read_layer, read_legacy_layer, refusals, text_of
from .lstm import LSTMModel
from .saved import MAX_JSON_BYTES, parse_json_object

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

BYTES_PER_WEIGHT = 64  # of a weights file: the weight itself, and what an optimizer keeps of it
SLACK_BYTES = 64 * 2**20
MAX_RATIO = 64  # of what a zip member unpacks to; Keras packs nothing, and weights hardly can be
MIN_BYTES_PER_WEIGHT = 2

Reader = Callable[[str, Mapping[str, Any]], dict[str, list[Tensor]]]


def from_keras(path: str | Path) -> LSTMModel | KerasModel:
    """Read a model that `keras.Model.save` wrote, as `.keras` or as `.h5`, Keras 2 or 3.

    Args:
        path: The file.

    Returns:
        An `LSTMModel` if the model is one in other words, else a `KerasModel`; in eval mode, float32, on the CPU.
        Scores are logits: a sigmoid or softmax at the end is taken off and told by `config.task`.
        `data.provenance["adopted"]` says what was found in the file and what was left out, and `data.window` how many
        timesteps the model was made for, where it says so.

    Raises:
        SavedModelError: The file is missing, damaged, not a Keras model, or holds a layer that gatelens does not read.
    """
    path = Path(path)
    try:
        return _read(path)
    except SavedModelError as error:
        raise SavedModelError(f"{path}: {error}") from None
    except RecursionError:
        raise SavedModelError(f"{path}: the model's config is nested too deeply; the file is damaged.") from None
    except OSError as error:
        raise SavedModelError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read(path: Path) -> LSTMModel | KerasModel:
    _check_is_file(path)
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise SavedModelError("the file is empty; expected a .keras or .h5 file, as model.save writes it.")
    if start.startswith(b"PK"):
        return _read_keras(path)
    if start == b"\x89HDF\r\n\x1a\n":
        return _read_h5(path)
    raise SavedModelError(
        "the file is neither a zip file, as .keras, nor HDF5, as .h5; expected what keras.Model.save writes. "
        "It is damaged, or of another kind."
    )


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        known = (path / "saved_model.pb").exists() or (path / "keras_metadata.pb").exists()
        kind = "a TensorFlow SavedModel folder" if known else "a folder"
        raise SavedModelError(
            f"it is {kind}; expected a .keras or .h5 file. Load it where it was made and save it as one file: "
            'keras.models.load_model(folder).save("model.keras").'
        )
    if not path.is_file():
        raise SavedModelError("there is no such file; expected a .keras or .h5 file.")


def _read_keras(path: Path) -> LSTMModel | KerasModel:
    """Read a zip of config.json, metadata.json and model.weights.h5."""
    import h5py

    with _archive(path) as archive:
        config = parse_json_object(_member(archive, CONFIG, MAX_JSON_BYTES), CONFIG)
        metadata = parse_json_object(_member(archive, METADATA, MAX_JSON_BYTES), METADATA)
        version = metadata.get("keras_version")
        graph = read_graph(config, version if isinstance(version, str) else "3")
        layers = describe_layers(graph)
        count = _count(layers)
        _check_count(count, _info(archive, WEIGHTS).file_size)
        content = _member(archive, WEIGHTS, count * BYTES_PER_WEIGHT + SLACK_BYTES)
    with refusals(WEIGHTS), h5py.File(io.BytesIO(content), "r") as file:
        model = _assemble(graph, lambda name, shapes: read_layer(file, graph.places[name], shapes))
        left_out = ["the optimizer's state"] if has(file, "optimizer") else []
    if config.get("compile_config"):
        left_out.append("the compile settings (optimizer, loss, metrics)")
    return _finish(model, path, left_out)


def _read_h5(path: Path) -> LSTMModel | KerasModel:
    """Read an HDF5 file with the config among its attributes."""
    import h5py

    with refusals("the HDF5 file"), h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            only_weights = "layer_names" in file.attrs or any(has(file, root) for root in ROOTS)
            raise SavedModelError(
                "the file holds weights only, without the model's config; save the whole model: "
                'model.save("model.keras").'
                if only_weights
                else "the HDF5 file has no model_config; it is not a model that keras.Model.save wrote."
            )
        config = parse_json_object(_attribute(file, "model_config").encode(), "model_config")
        version = _attribute(file, "keras_version") if "keras_version" in file.attrs else "2"
        graph = read_graph(config, version)
        _check_count(_count(describe_layers(graph)), path.stat().st_size)
        model = _assemble(graph, lambda name, shapes: read_legacy_layer(file, name, shapes))
        left_out = ["the optimizer's state"] if has(file, "optimizer_weights") else []
        if "training_config" in file.attrs:
            left_out.append("the compile settings (optimizer, loss, metrics)")
    return _finish(model, path, left_out)


@contextmanager
def _zip_refusals() -> Iterator[None]:
    """Turn what zipfile raises on a damaged file into one error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise SavedModelError(f"the zip file cannot be read ({error}); it is damaged or truncated.") from None


def _archive(path: Path) -> zipfile.ZipFile:
    with _zip_refusals():
        return zipfile.ZipFile(path)


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError:
        raise SavedModelError(
            f"the zip file has no {name}; a .keras file is {CONFIG}, {METADATA} and {WEIGHTS}. It is damaged, or of "
            "another kind."
        ) from None


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a member's content, which is bounded before it is unpacked and while."""
    info = _info(archive, name)
    limit = min(limit, info.compress_size * MAX_RATIO + MAX_JSON_BYTES)
    if info.file_size > limit:
        raise SavedModelError(
            f"{name} unpacks to {size_words(info.file_size)}; expected up to {size_words(limit)} for a model of this "
            "config. The file is damaged or hostile."
        )
    with _zip_refusals(), archive.open(info) as member:
        return member.read(info.file_size)


def _attribute(file: Any, name: str) -> str:
    """Return a text among the root's attributes."""
    identifier = file.attrs.get_id(name)
    if identifier.shape != () or identifier.dtype.itemsize > MAX_JSON_BYTES:
        raise SavedModelError(f"the attribute {name} is no text of a model's size; the file is damaged.")
    text = text_of(file.attrs[name])
    if len(text) > MAX_JSON_BYTES:
        raise SavedModelError(f"the attribute {name} is larger than {MAX_JSON_BYTES // 2**20} MiB; expected a config.")
    return text


def _count(layers: Sequence[KerasLayer]) -> int:
    """Return how many numbers the layers hold."""
    shapes = [shape for layer in layers for part in layer.weights.values() for shape in part]
    return sum(math.prod(size or 0 for size in shape) for shape in shapes)


def _check_count(count: int, size: int) -> None:
    if count * MIN_BYTES_PER_WEIGHT > size:
        raise SavedModelError(
            f"the config describes {count:,} weights, and the weights have {size_words(size)}; the file is damaged."
        )


def size_words(size: int) -> str:
    """Return a number of bytes as people read it: "25,184 bytes", "209.7 MB"."""
    return f"{size / 10**6:,.1f} MB" if size >= 10**6 else f"{size:,} bytes"


def _assemble(graph: KerasGraph, read: Reader) -> KerasModel:
    """Return the model with its weights; no memory is spent on what the file does not hold."""
    with torch.device("meta"):
        model = KerasModel(graph)
    state: dict[str, Tensor] = {}
    for step, layer in zip(graph.steps, model.layers, strict=True):
        path = model.paths.get(step.name)
        if path is not None and layer.weights:
            state |= {f"{path}.{name}": value for name, value in layer.state(read(step.name, layer.weights)).items()}
    model.load_state_dict(state, assign=True)
    return model


def _finish(model: KerasModel, path: Path, left_out: Sequence[str]) -> LSTMModel | KerasModel:
    graph = model.graph
    found = [f"it reads {'token ids ' if model.config.reads_tokens else ''}{shown(graph.input_shape)}"]
    if len(graph.input_shape) == 3:
        found.append(
            "its images have one channel: inputs is (batch, time, features), rows as timesteps, columns as features"
        )
    taken = []
    for step, layer in zip(graph.steps, model.layers, strict=True):
        found.append(f"{step.name}: {layer.describe()}")
        taken += [f"{step.name}: {part}" for part in layer.training_only]
        if layer.taken_off:
            found.append(f"the {layer.taken_off} of {step.name} is taken off: scores are logits")
    adopted = {
        "file": path.name,
        "format": f"keras {graph.keras_version}",
        "found": found,
        "left_out": [*left_out, *dict.fromkeys(taken)],
    }
    model.data = DataSpec(window=WindowSpec(length=graph.input_shape[0]), provenance={"adopted": adopted})
    result = as_lstm_model(model) or model
    for module in result.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()
    return result.eval()
