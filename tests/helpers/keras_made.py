"""Keras models with weights that are all different and none 0, saved by Keras itself; needs keras, on torch."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

import h5py
import numpy as np
import pytest

from gatelens.models import SavedModelError
from gatelens.models.keras_files import from_keras

FORMATS = ("keras", "h5")


def with_weights(model: Any, seed: int = 0) -> Any:
    """Return the model with every weight drawn anew, biases and moving moments included; variances stay positive."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        drawn = generator.normal(0, 0.5, size=weight.shape)
        weight.assign(np.abs(drawn) + 0.5 if "variance" in weight.path else drawn)
    return model


def sequential(*layers: Any) -> Any:
    """Return a Sequential with weights."""
    return with_weights(keras.Sequential(list(layers)))


def functional(inputs: Any, outputs: Any) -> Any:
    """Return a functional model with weights."""
    return with_weights(keras.Model(inputs, outputs))


def saved(model: Any, folder: Path, form: str = "keras") -> Path:
    """Save with Keras, which warns that .h5 is an old form."""
    path = folder / f"model.{form}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def edit(path: Path, change: Callable[[str], str], member: str = "config.json") -> None:
    """Rewrite one text of a `.keras` file."""
    contents = members(path)
    write(path, {**contents, member: change(contents[member].decode()).encode()})


def predicted(model: Any, inputs: Any) -> np.ndarray:
    """Return Keras's own predictions; it warns where a mask ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model(inputs, training=False).detach())


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, contents, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def edit_config(path, change):
    """Change the config of either kind of file."""
    if path.suffix == ".keras":

        def changed(text):
            values = json.loads(text)
            change(values)
            return json.dumps(values)

        edit(path, changed)
        return
    with h5py.File(path, "r+") as file:
        values = json.loads(file.attrs["model_config"])
        change(values)
        file.attrs["model_config"] = json.dumps(values)


def edit_weights(path, change):
    """Change the HDF5 file inside a `.keras` file."""
    contents = members(path)
    content = io.BytesIO(contents["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        change(file)
    write(path, {**contents, "model.weights.h5": content.getvalue()})


def refused(path, match):
    """Check that the file is refused by one error with one message that begins with its path, and return it."""
    with pytest.raises(SavedModelError, match=match) as caught:
        from_keras(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert caught.value.__suppress_context__
    return message


def names_of(file):
    found = []
    file.visititems(lambda name, part: found.append(name) if isinstance(part, h5py.Dataset) else None)
    return found
