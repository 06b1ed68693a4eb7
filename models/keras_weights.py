"""The weights of saved Keras models in HDF5: nothing outside the file is followed, no claim of size is believed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .errors import SavedModelError
from .keras_layer import Shape, counted

if TYPE_CHECKING:
    import h5py

ROOTS = ("layers", "_layer_checkpoint_dependencies")  # of a .keras file: Keras 3, and Keras 2.12 to 2.15
MAX_NAMES = 1000


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into one error."""
    try:
        yield
    except SavedModelError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise SavedModelError(f"{what} cannot be read ({error}); the file is damaged or truncated.") from None


def read_layer(file: h5py.File, place: str, shapes: Mapping[str, Sequence[Shape]]) -> dict[str, list[Tensor]]:
    """Return the weights of one layer of a `.keras` file's model.weights.h5.

    Args:
        file: The open file.
        place: The layer's group.
        shapes: Part of the layer -> shapes of its weights.
    """
    root = next((root for root in ROOTS if has(file, root)), ROOTS[0])
    weights = {}
    for part, expected in shapes.items():
        path = [root, *place.split("/"), *(part.split("/") if part else []), "vars"]
        group = _follow(file, path)
        _check_number(len(group) if _is_group(group) else 0, len(expected), "/".join(path))
        weights[part] = [_read(group, [str(n)], shape) for n, shape in enumerate(expected)]
    return weights


def read_legacy_layer(file: h5py.File, name: str, shapes: Mapping[str, Sequence[Shape]]) -> dict[str, list[Tensor]]:
    """Return the weights of one layer of an `.h5` file, which lists them in order."""
    group = _follow(file, ["model_weights", *name.split("/")])
    names = [text_of(entry) for entry in _names(group)]
    _check_number(len(names), sum(len(expected) for expected in shapes.values()), f"model_weights/{name}")
    remaining = iter(names)
    return {
        part: [_read(group, next(remaining).split("/"), shape) for shape in expected]
        for part, expected in shapes.items()
    }


def has(group: h5py.Group, name: str) -> bool:
    """Whether a group has a member of this name; unlike with h5py's `in`, a link is not followed."""
    return bool(name) and bool(group.id.links.exists(name.encode()))


def text_of(value: Any) -> str:
    """Return an HDF5 attribute's text."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if not isinstance(value, str):
        raise SavedModelError(f"an attribute holds a {type(value).__name__}; expected text. The file is damaged.")
    return str(value)


def _names(group: h5py.Group) -> list[Any]:
    identifier = group.attrs.get_id("weight_names")
    if math.prod(identifier.shape) > MAX_NAMES:
        raise SavedModelError(f"{group.name} lists {math.prod(identifier.shape)} weights; the file is damaged.")
    return list(group.attrs["weight_names"])


def _check_number(found: int, expected: int, where: str) -> None:
    if found != expected:
        raise SavedModelError(
            f"{where} holds {counted(found, 'weight')}; its config expects {expected}. A quantized model or one with "
            "LoRA is not read; otherwise the file is damaged."
        )


def _is_group(value: Any) -> bool:
    import h5py

    return isinstance(value, h5py.Group)


def _follow(group: Any, path: Sequence[str]) -> Any:
    """Return what is at a path of plain groups; links, which may lead out of the file, are refused."""
    import h5py

    for step, name in enumerate(path):
        where = "/".join(path[: step + 1])
        if not _is_group(group) or not has(group, name):
            raise SavedModelError(f"there are no weights at {where}; the file is incomplete, or not of this config.")
        if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise SavedModelError(f"{where} is a link to somewhere else; expected the weights themselves.")
        group = group[name]
    return group


def _read(group: Any, path: Sequence[str], expected: Shape) -> Tensor:
    """Return a weight as float32, after its claims have been checked."""
    import h5py

    dataset = _follow(group, path)
    where = f"{group.name.strip('/')}/{'/'.join(path)}"
    if not isinstance(dataset, h5py.Dataset):
        raise SavedModelError(f"{where} is a group; expected a weight. The file is damaged.")
    if dataset.shape != expected:
        raise SavedModelError(f"the weight {where} has shape {dataset.shape}; its config expects {expected}.")
    if dataset.dtype.kind != "f":
        raise SavedModelError(f"the weight {where} holds {dataset.dtype} values; expected floats.")
    if dataset.is_virtual or dataset.external or dataset.chunks is not None:
        raise SavedModelError(
            f"the weight {where} is stored in chunks, compressed, or in another file; Keras writes it in one piece. "
            "Load the model with Keras and save it again."
        )
    if dataset.id.get_storage_size() < math.prod(dataset.shape) * dataset.dtype.itemsize:
        raise SavedModelError(f"the weight {where} was never written; the file is damaged.")
    plain = np.array(dataset[()], dtype=dataset.dtype.newbyteorder("="))
    values = torch.from_numpy(plain).to(torch.float32)
    if not torch.isfinite(values).all():
        raise SavedModelError(f"the weight {where} holds NaN or infinite values; the training diverged.")
    return values
