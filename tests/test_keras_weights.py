"""The weights of Keras files: what does not fit is refused by name, and nothing outside the file is followed."""

import h5py
import numpy as np
import pytest

from helpers.keras_made import (
    edit_weights,
    keras,
    names_of,
    refused,
    saved,
    sequential,
)

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    """Return a small Keras model of two layers, compiled."""
    made = sequential(keras.Input((4, 2)), layers.LSTM(3), layers.Dense(1, activation="sigmoid"))
    made.compile("adam", "mse")
    return made


@pytest.fixture
def path(model, tmp_path):
    return saved(model, tmp_path)


@pytest.fixture
def legacy(model, tmp_path):
    return saved(model, tmp_path, "h5")


# -- links out of the file ---------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    """Return a file with numbers of the right shape that no model may read."""
    file = tmp_path / "secret.h5"
    with h5py.File(file, "w") as opened:
        opened["values"] = np.ones((3, 1), dtype="float32")
        opened["group/0"] = np.ones((3, 1), dtype="float32")
        opened["group/1"] = np.ones((1,), dtype="float32")
    return file


def link_weight(opened, link, where="layers/dense/vars/0"):
    del opened[where]
    opened[where] = link


def virtual_weight(opened, source):
    del opened["layers/dense/vars/0"]
    layout = h5py.VirtualLayout(shape=(3, 1), dtype="float32")
    layout[:] = h5py.VirtualSource(str(source), "values", shape=(3, 1))
    opened.create_virtual_dataset("layers/dense/vars/0", layout)


def external_weight(opened, source):
    del opened["layers/dense/vars/0"]
    opened.create_dataset("layers/dense/vars/0", shape=(3, 1), dtype="float32", external=[(str(source), 0, 12)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, secret: link_weight(file, h5py.ExternalLink(str(secret), "values")), "is a link to somewhere"),
        (lambda file, secret: link_weight(file, h5py.SoftLink("/layers/lstm/cell/vars/0")), "is a link to somewhere"),
        (
            lambda file, secret: link_weight(file, h5py.ExternalLink(str(secret), "group"), "layers/dense/vars"),
            "is a link to somewhere",
        ),
        (
            lambda file, secret: link_weight(file, h5py.ExternalLink(str(secret), "/"), "layers"),
            "is a link to somewhere",
        ),
        (virtual_weight, "in another file"),
        (external_weight, "in another file"),
    ],
)
def test_links_are_not_followed(path, secret, change, message):
    """External and soft links, virtual datasets and external storage are refused, whatever they point to."""
    edit_weights(path, lambda file: change(file, secret))
    refused(path, message)


def test_links_in_a_legacy_file_are_not_followed(legacy, secret):
    """The same in .h5, for a weight, a layer and the group of all."""
    original = legacy.read_bytes()
    with h5py.File(legacy) as file:
        weight = next(name for name in names_of(file) if "dense" in name and name.endswith("kernel"))
    for where in (weight, weight.split("/", 2)[0] + "/" + weight.split("/", 2)[1], "model_weights"):
        legacy.write_bytes(original)
        with h5py.File(legacy, "r+") as file:
            del file[where]
            file[where] = h5py.ExternalLink(str(secret), "values")
        refused(legacy, "is a link to somewhere")


# -- weights -----------------------------------------------------------------------------------------------------------


def replaced(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("layers/dense/vars/0", np.zeros((1, 3), "float32")), r"shape \(1, 3\); its config expects \(3, 1\)"),
        (replaced("layers/dense/vars/0", np.zeros((3, 1), "int32")), "holds int32 values; expected floats"),
        (replaced("layers/dense/vars/0", np.full((3, 1), np.nan, "float32")), "NaN or infinite"),
        (replaced("layers/lstm/cell/vars/2", np.full(12, np.inf, "float32")), "NaN or infinite"),
        (replaced("layers/dense/vars/1", np.full(1, 1e300)), "NaN or infinite"),
        (lambda file: file.__delitem__("layers/dense/vars/1"), "holds 1 weight; its config expects 2"),
        (lambda file: file["layers/dense/vars"].create_dataset("2", data=1.0), "holds 3 weights.*LoRA"),
        (lambda file: file.__delitem__("layers/lstm"), "no weights at layers/lstm"),
        (lambda file: file.__delitem__("layers"), "no weights at layers"),
        (lambda file: file.move("layers/dense/vars/0", "layers/dense/vars/7"), "no weights at 0"),
        (
            lambda file: file["layers/dense"].move("vars/0", "x") or file["layers/dense/vars"].create_group("0"),
            "a group",
        ),
    ],
)
def test_weights_that_do_not_fit(path, change, message):
    """Weights of another shape or type, missing, too many, NaN or infinite are each refused by name."""
    edit_weights(path, change)
    refused(path, message)


def test_weights_that_do_not_fit_in_a_legacy_file(legacy):
    """The same in .h5, where the layer lists the names of its weights."""
    original = legacy.read_bytes()
    with h5py.File(legacy) as file:
        layer = next(name for name in file["model_weights"] if name.startswith("dense"))
    for value, message in (
        ([b"kernel"], "holds 1 weight; its config expects 2"),
        ([b"a", b"b"], "no weights at a"),
        ([b"../x", b"b"], "no weights at"),
        ([b"", b""], "no weights at"),
        (5, "cannot be read"),
        (np.zeros(2000), "lists 2000 weights"),
    ):
        legacy.write_bytes(original)
        with h5py.File(legacy, "r+") as file:
            file["model_weights"][layer].attrs["weight_names"] = value
        refused(legacy, message)
    legacy.write_bytes(original)
    with h5py.File(legacy, "r+") as file:
        del file["model_weights"][layer].attrs["weight_names"]
    refused(legacy, "cannot be read")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3), "float32"), r"shape \(1, 3\); its config expects \(3, 1\)"),
        (np.zeros((3, 1), "int32"), "holds int32 values; expected floats"),
        (np.full((3, 1), np.nan, "float32"), "NaN or infinite"),
        (np.full((3, 1), -np.inf, "float32"), "NaN or infinite"),
        (np.full((3, 1), 1e300), "NaN or infinite"),
    ],
)
def test_numbers_that_do_not_fit_in_a_legacy_file(legacy, values, message):
    """The weights themselves are looked at alike in .h5: shape, type, NaN and infinity."""
    with h5py.File(legacy, "r+") as file:
        kernel = next(name for name in names_of(file) if "dense" in name and name.endswith("kernel"))
        replaced(kernel, values)(file)
    refused(legacy, message)
