"""`open_model`: one door for every kind of saved model."""

from __future__ import annotations

from pathlib import Path

from .config import Pooling, Task
from .errors import InvalidInputError, SavedModelError
from .keras_files import from_keras
from .saved import load
from .sequence_model import SequenceModel
from .torch_files import from_torch

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
TENSORFLOW_FILE = "saved_model.pb"
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def open_model(path: str | Path, *, task: Task | None = None, pooling: Pooling | None = None) -> SequenceModel:
    """Return the model of a saved model's folder, a Keras file or a PyTorch weight file, by what the path is.

    Args:
        path: A folder written by `model.save`; a .keras, .h5 or .hdf5 file; or a .pt, .pth, .bin, .ckpt or
            .safetensors file of weights.
        task: For PyTorch weights, which do not say: what the scores are (see `from_torch`).
        pooling: For PyTorch weights: how hidden states become the head's input (see `from_torch`).

    Raises:
        SavedModelError: There is nothing to read there, or it is damaged, unsafe or not an LSTM.
        InvalidInputError: `task` or `pooling` was given for a file that says so itself.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise SavedModelError(f"there is no saved model at {path}; expected {_expected()}.")
    if not path.is_dir() and suffix in TORCH_SUFFIXES:
        return from_torch(path, task=task, pooling=pooling)
    for name, value in (("task", task), ("pooling", pooling)):
        if value is not None and (path.is_dir() or suffix in KERAS_SUFFIXES):
            raise InvalidInputError(f"{name} is {value!r}, but {path} says so itself; leave {name} out.")
    if path.is_dir():
        return from_keras(path) if (path / TENSORFLOW_FILE).exists() else load(path)  # from_keras says what helps
    if suffix in KERAS_SUFFIXES:
        return from_keras(path)
    raise SavedModelError(f"{path} is no saved model that is known by its name; expected {_expected()}.")


def _expected() -> str:
    return (
        f"a folder written by model.save, a Keras file ({', '.join(KERAS_SUFFIXES)}), or PyTorch weights "
        f"({', '.join(TORCH_SUFFIXES)})"
    )
