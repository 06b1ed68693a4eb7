"""Keras files of every age are read, and what is no Keras model, damaged or a bomb has its own clear error."""

import json
import pickle
import struct
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import torch

from gatelens.cli import main
from gatelens.explainers import GateSaliency
from gatelens.models import LSTMModel, WindowSpec, load
from gatelens.models.keras_files import from_keras, size_words
from gatelens.models.keras_model import KerasModel
from helpers.keras_made import (
    FORMATS,
    edit,
    edit_config,
    edit_weights,
    functional,
    keras,
    members,
    names_of,
    predicted,
    refused,
    saved,
    sequential,
    write,
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


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_found_and_left_out_is_told(model, tmp_path, form):
    """The provenance names file, Keras version, layers, the activation taken off, and what was left out."""
    ours = from_keras(str(saved(model, tmp_path, form)))
    adopted = ours.data.provenance["adopted"]
    assert adopted["file"] == f"model.{form}"
    assert adopted["format"] == f"keras {keras.__version__}"
    assert adopted["found"][0] == "it reads (batch, 4, 2)"
    assert any("LSTM, 3 units, tanh, gates sigmoid" in found for found in adopted["found"])
    assert any("the sigmoid of dense" in found and "scores are logits" in found for found in adopted["found"])
    assert "the compile settings (optimizer, loss, metrics)" in adopted["left_out"]
    assert (ours.config.task, ours.config.hidden_sizes) == ("binary", (3,))


def test_one_of_a_kind_is_singular(tmp_path):
    """A layer of one unit is told as such, and one of several as several."""
    made = sequential(
        keras.Input((4,)), layers.Embedding(5, 1), layers.LSTM(1, return_sequences=True),
        layers.Bidirectional(layers.LSTM(2)), layers.Dense(3), layers.Dense(1),
    )  # fmt: skip
    found = " | ".join(from_keras(saved(made, tmp_path)).data.provenance["adopted"]["found"])
    for words in (
        "Embedding of 5 ids in 1 number |", "LSTM, 1 unit, tanh", "Bidirectional LSTM, 2 units,", "Dense, 3 units,",
        "Dense, 1 unit, linear",
    ):  # fmt: skip
        assert words in found
    assert "1 units" not in found


@pytest.mark.parametrize(("size", "words"), [(25184, "25,184 bytes"), (10**6, "1.0 MB"), (3 * 10**9, "3,000.0 MB")])
def test_sizes_are_told_as_people_read_them(size, words):
    """A size in a message is in MB, from one on."""
    assert size_words(size) == words


@pytest.mark.parametrize("form", FORMATS)
def test_the_window_is_that_of_the_input(model, tmp_path, form):
    """A fixed number of timesteps is the window that tables are cut to, of floats and ids; saving keeps it."""
    ours = from_keras(saved(model, tmp_path, form))
    assert ours.data.window == WindowSpec(length=4)
    assert load(ours.save(tmp_path / "saved")).data.window.length == 4
    tokens = sequential(keras.Input((7,)), layers.Embedding(5, 2, mask_zero=True), layers.LSTM(3), layers.Dense(1))
    assert from_keras(saved(tokens, tmp_path, form)).data.window == WindowSpec(length=7)
    free = sequential(keras.Input((None, 2)), layers.LSTM(3), layers.Dense(1))
    assert from_keras(saved(free, tmp_path, form)).data.window == WindowSpec()


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process and return (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gatelens", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def table(path, rows, seed=0):
    """Write a CSV of two columns and return its numbers."""
    values = np.random.default_rng(seed).normal(size=(rows, 2)).round(6)
    path.write_text("a,b\n" + "".join(f"{one},{other}\n" for one, other in values))
    return values.astype("float32")


def whole_sequence():
    return sequential(
        keras.Input((4, 2)), layers.LSTM(3, return_sequences=True), layers.Flatten(), layers.Dense(1, name="head")
    )


@pytest.mark.parametrize("build", [whole_sequence, lambda: sequential(keras.Input((4, 2)), layers.LSTM(3))])
@pytest.mark.parametrize("form", FORMATS)
def test_the_command_line_cuts_a_table_to_the_window(run, tmp_path, form, build):
    """A CSV longer than the model's timesteps is explained at its newest window, or at all; Keras predicts the same."""
    made = build()
    file, csv = saved(made, tmp_path, form), tmp_path / "data.csv"
    values = table(csv, 10)
    for words, starts in (([], [6]), (["--windows", "all", "--stride", "3"], [0, 3, 6])):
        windows = np.stack([values[start : start + 4] for start in starts])
        code, out, err = run("explain", file, "--input", csv, "--target", "0", "--json", *words)
        assert code == 0, err
        samples = json.loads(out)["integrated_gradients"]["samples"]
        assert [len(sample["timesteps"]) for sample in samples] == [4] * len(starts)
        found = [sample["prediction"] for sample in samples]
        np.testing.assert_allclose(found, predicted(made, windows)[:, 0], rtol=1e-5, atol=1e-5)


def test_the_command_line_explains_gates_of_a_graph(run, tmp_path):
    """Gate saliency of the newest window goes by the same way, with the numbers of the Python call."""
    file, csv = saved(whole_sequence(), tmp_path), tmp_path / "data.csv"
    values = table(csv, 10)
    code, out, err = run("explain", file, "-i", csv, "-m", "gate_saliency", "--json")
    assert code == 0, err
    expected = GateSaliency(from_keras(file)).explain(values[None, -4:]).timesteps
    assert expected.all()
    found = json.loads(out)["gate_saliency"]["samples"][0]["timesteps"]
    np.testing.assert_allclose(found, expected[0], rtol=1e-5, atol=1e-7)


def test_the_command_line_refuses_a_table_that_is_too_short(run, tmp_path):
    """Fewer rows than timesteps are refused by both numbers, in one sentence."""
    file, csv = saved(whole_sequence(), tmp_path), tmp_path / "data.csv"
    table(csv, 3)
    code, _, err = run("explain", file, "-i", csv)
    assert code != 0
    assert "data.csv has 3 rows; the model reads 4 timesteps" in " ".join(err.split())
    assert "Traceback" not in err


def test_dropout_and_state_are_told_as_left_out(tmp_path):
    """What plays no part in one prediction is named: dropout rates and the state between batches."""
    made = sequential(
        keras.Input((4, 2), batch_size=1),
        layers.LSTM(3, stateful=True, dropout=0.25),
        layers.Dropout(0.5),
        layers.Dense(1),
    )
    left_out = from_keras(saved(made, tmp_path)).data.provenance["adopted"]["left_out"]
    assert any("dropout of 0.25" in text for text in left_out)
    assert any("rate 0.5" in text for text in left_out)
    assert any("stateful" in text and "zeros" in text for text in left_out)


def test_a_trained_model(tmp_path):
    """After training, with the optimizer's state in the file, predictions are Keras's."""
    made = keras.Sequential(
        [keras.Input((4, 2)), layers.LSTM(5, return_sequences=True), layers.LSTM(3), layers.Dense(1)]
    )
    made.compile("adam", "mse")
    inputs = np.random.default_rng(0).normal(size=(8, 4, 2)).astype("float32")
    made.train_on_batch(inputs, inputs[:, 0, :1])
    for form in FORMATS:
        ours = from_keras(saved(made, tmp_path, form))
        np.testing.assert_allclose(ours(inputs).detach(), predicted(made, inputs), rtol=1e-5, atol=1e-5)
        assert "the optimizer's state" in ours.data.provenance["adopted"]["left_out"]


def test_several_layers_of_a_kind_keep_their_own_weights(tmp_path):
    """Twelve layers of one class, whose groups are numbered past ten, are not mixed up."""
    inputs = keras.Input((3, 2))
    hidden = inputs
    for _ in range(12):
        hidden = layers.LSTM(2, return_sequences=True)(hidden)
    made = functional(inputs, layers.Dense(1)(hidden))
    values = np.random.default_rng(0).normal(size=(2, 3, 2)).astype("float32")
    for form in FORMATS:
        ours = from_keras(saved(made, tmp_path, form))
        assert isinstance(ours, LSTMModel)
        np.testing.assert_allclose(ours(values).detach(), predicted(made, values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_built_without_an_input_layer(tmp_path, form):
    """A Sequential that learned its input's shape from the first batch is read."""
    made = keras.Sequential([layers.LSTM(3), layers.Dense(1)])
    made.build((None, 5, 2))
    file = saved(made, tmp_path, form)

    def change(values):
        values["config"]["layers"] = [
            layer for layer in values["config"]["layers"] if layer["class_name"] != "InputLayer"
        ]

    edit_config(file, change)
    inputs = np.ones((1, 5, 2), dtype="float32")
    np.testing.assert_allclose(from_keras(file)(inputs).detach(), predicted(made, inputs), rtol=1e-5, atol=1e-6)


def test_weights_of_other_precision_become_float32(path):
    """float64 weights are read as float32."""

    def change(file):
        for name in ("layers/lstm/cell/vars/0", "layers/dense/vars/0"):
            values = file[name][()].astype("float64")
            del file[name]
            file[name] = values

    expected = from_keras(path).state_dict()
    edit_weights(path, change)
    for name, value in from_keras(path).state_dict().items():
        assert torch.equal(value, expected[name])


# -- Keras 2 -----------------------------------------------------------------------------------------------------------


def keras2_weights(width, units, seed):
    generator = np.random.default_rng(seed)
    shapes = {"kernel": (width, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)}
    return {name: generator.normal(0, 0.7, size=shape).astype("float32") for name, shape in shapes.items()}


def keras2_layer(kind, name, **config):
    config = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"class_name": kind, "config": config}


def keras2_lstm(name, units, **config):
    zeros = {"class_name": "Zeros", "config": {}}
    defaults = {
        "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False, "unroll": False,
        "time_major": False, "units": units, "activation": "tanh", "recurrent_activation": "hard_sigmoid",
        "use_bias": True, "bias_initializer": zeros, "unit_forget_bias": True, "dropout": 0.0, "implementation": 1,
    }  # fmt: skip
    return keras2_layer("LSTM", name, **{**defaults, **config})


def keras2_file(path, config, weights, version=b"2.3.1", names=None):
    """Write an .h5 file as Keras 2 did: names as bytes, with ":0" at the end."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = version
        file.attrs["backend"] = b"tensorflow"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, values in weights.items():
            inner = group.create_group(layer)
            paths = {f"{layer}/{name}:0": value for name, value in values.items()}
            inner.attrs["weight_names"] = [name.encode() for name in paths]
            for name, value in paths.items():
                inner[name] = value
    return path


def numpy_lstm(inputs, weights, gate):
    """The equations, one sequence after another, (B, T, D) -> (B, H): the oracle for old files."""
    units = weights["recurrent_kernel"].shape[0]
    last = []
    for sequence in inputs:
        h = c = np.zeros(units)
        for x in sequence:
            i, f, g, o = np.split(x @ weights["kernel"] + h @ weights["recurrent_kernel"] + weights["bias"], 4)
            c = gate(f) * c + gate(i) * np.tanh(g)
            h = gate(o) * np.tanh(c)
        last.append(h)
    return np.array(last)


def hard_sigmoid_of_keras2(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def hard_sigmoid_of_keras3(x):
    return np.clip((x + 3) / 6, 0, 1)


DENSE = {"kernel": np.array([[0.5], [-1.0], [2.0]], dtype="float32"), "bias": np.array([0.25], dtype="float32")}


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize(
    ("version", "gate"),
    [(b"2.3.1", hard_sigmoid_of_keras2), (b"2.2.4-tf", hard_sigmoid_of_keras2), (b"3.1.0", hard_sigmoid_of_keras3)],
)
def test_hard_sigmoid_is_that_of_the_keras_that_wrote_it(tmp_path, version, gate, as_list):
    """Keras 2 means 0.2 x + 0.5 and Keras 3 x / 6 + 0.5, both cut to [0, 1]; numpy's equations agree to 1e-6."""
    body = [
        keras2_lstm("lstm_1", 3, batch_input_shape=[None, 5, 2]),
        keras2_layer("Dropout", "dropout_1", rate=0.5),
        keras2_layer("Dense", "dense_1", units=1, activation="linear", use_bias=True),
    ]
    config = {"class_name": "Sequential", "config": body if as_list else {"name": "sequential_1", "layers": body}}
    lstm = keras2_weights(2, 3, seed=1)
    file = keras2_file(tmp_path / "old.h5", config, {"lstm_1": lstm, "dropout_1": {}, "dense_1": DENSE}, version)
    inputs = np.random.default_rng(0).normal(size=(4, 5, 2)).astype("float32") * 2
    expected = numpy_lstm(inputs, lstm, gate) @ DENSE["kernel"] + DENSE["bias"]
    ours = from_keras(file)
    np.testing.assert_allclose(ours(inputs).detach(), expected, rtol=1e-5, atol=1e-6)
    assert isinstance(ours, KerasModel)
    assert ours.lstm_1.gate_activation == ("hard_sigmoid" if version[:1] == b"3" else "hard_sigmoid_keras2")


def test_a_functional_model_of_keras2(tmp_path):
    """The graph's older form, lists of lists, means the same."""

    def call(*names):
        return [[[name, 0, 0, {}] for name in names]]

    body = [
        {**keras2_layer("InputLayer", "input_1", batch_input_shape=[None, None, 2], sparse=False), "inbound_nodes": []},
        {
            **keras2_lstm("lstm", 3, return_sequences=True, recurrent_activation="sigmoid"),
            "inbound_nodes": call("input_1"),
        },
        {
            **keras2_layer("Attention", "attention", use_scale=False, causal=False),
            "inbound_nodes": call("lstm", "lstm"),
        },
        {
            **keras2_layer("GlobalAveragePooling1D", "pool", data_format="channels_last"),
            "inbound_nodes": call("attention"),
        },
        {**keras2_layer("Dense", "dense", units=1, activation="sigmoid"), "inbound_nodes": call("pool")},
    ]
    for layer in body:
        layer["name"] = layer["config"]["name"]
    config = {
        "class_name": "Functional",
        "config": {
            "name": "model", "layers": body, "input_layers": [["input_1", 0, 0]], "output_layers": [["dense", 0, 0]],
        },
    }  # fmt: skip
    lstm = keras2_weights(2, 3, seed=2)
    weights = {"input_1": {}, "lstm": lstm, "attention": {}, "pool": {}, "dense": DENSE}
    ours = from_keras(keras2_file(tmp_path / "old.hdf5", config, weights, b"2.15.0"))

    inputs = keras.Input((None, 2))
    hidden = layers.LSTM(3, return_sequences=True, name="lstm")(inputs)
    pooled = layers.GlobalAveragePooling1D()(layers.Attention()([hidden, hidden]))
    theirs = keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="dense")(pooled))
    theirs.get_layer("lstm").set_weights(list(lstm.values()))
    theirs.get_layer("dense").set_weights(list(DENSE.values()))
    values = np.random.default_rng(3).normal(size=(2, 6, 2)).astype("float32")
    np.testing.assert_allclose(ours(values).sigmoid().detach(), predicted(theirs, values), rtol=1e-5, atol=1e-6)


def test_a_keras_file_of_keras2(path, model):
    """From 2.12 to 2.15 the groups of weights lay under another name."""
    edit_weights(path, lambda file: file.move("layers", "_layer_checkpoint_dependencies"))
    inputs = np.ones((1, 4, 2), dtype="float32")
    found = from_keras(path)(inputs).sigmoid().detach()
    np.testing.assert_allclose(found, predicted(model, inputs), rtol=1e-5, atol=1e-6)


# -- what is not a model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a .keras or .h5"),
        (b"hello, world", "neither a zip file, as .keras, nor HDF5"),
        (b"PK\x03\x04 and then nothing", "zip file cannot be read"),
        (b"\x89HDF\r\n\x1a\n and then nothing", "HDF5 file cannot be read"),
        (pickle.dumps(list(range(100))), "neither a zip"),
    ],
)
def test_other_content(tmp_path, name, content, message):
    """What is empty, of another kind or only begins well is told apart."""
    file = tmp_path / name
    file.write_bytes(content)
    refused(file, message)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return (open, (str(self.touched), "w"))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_pickle_under_another_name(tmp_path, name):
    """A pickle, alone or in the zip that torch.save writes, is refused, and nothing in it is run."""
    file, touched = tmp_path / name, tmp_path / "touched"
    file.write_bytes(pickle.dumps(Trap(touched)))
    refused(file, "neither a zip")
    torch.save({"weights": Trap(touched)}, file)
    refused(file, "zip file has no config.json")
    assert not touched.exists()
    pickle.loads(pickle.dumps(Trap(touched))).close()
    assert touched.exists()


def test_missing_file_and_folder(tmp_path):
    """A path that is not there, a folder, and a TensorFlow SavedModel are told apart, with the way out."""
    refused(tmp_path / "nothing.keras", "no such file")
    refused(tmp_path, "it is a folder; expected a .keras")
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    refused(tmp_path, r'TensorFlow SavedModel folder.*save\("model.keras"\)')


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file(model, tmp_path, form, part):
    """A file cut anywhere is refused."""
    file = saved(model, tmp_path, form)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    refused(file, "damaged or truncated|declared|there are no weights")


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_zip_without_a_member(path, name):
    """A zip that lacks a member (a .npz, a .docx, half a model) is refused by the member's name."""
    contents = members(path)
    del contents[name]
    write(path, contents)
    refused(path, f"zip file has no {name}")


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_member(path, name, compression):
    """A flipped byte in a member is found by its checksum, or by what unpacks it."""
    write(path, members(path), compression)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(name) + info.compress_size // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, "damaged")


def test_an_encrypted_or_unknown_zip(path):
    """A member that needs a password, or a method of packing that Python does not have, is refused."""
    original = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
        offset = archive.getinfo("config.json").header_offset
    for field, value in ((8, 1), (10, 99)):
        content = bytearray(original)
        place = content.index(b"config.json", start) - 46
        content[place + field : place + field + 2] = struct.pack("<H", value)
        content[offset + field - 2 : offset + field] = struct.pack("<H", value)
        path.write_bytes(bytes(content))
        refused(path, "zip file cannot be read")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10_000 + "]" * 10_000, "nested too deeply"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested too deeply"),
        ("[1, 2]", "holds a list; expected a JSON object"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ('{"class_name": ' + "9" * 5000 + "}", "is not JSON"),
        ("{}", "class None; expected Sequential or Functional"),
        ('{"class_name": "Sequential"}', "config is None"),
        ('{"class_name": "Sequential", "config": {"layers": 3}}', "layers is 3; expected a list"),
        ('{"class_name": "Sequential", "config": {"layers": []}}', "no layers"),
        ('{"class_name": "Sequential", "config": {"layers": [1]}}', "a layer is 1"),
        ('{"class_name": "MyModel", "config": {}}', "'MyModel'.*subclassed.*functional API"),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_configs_that_are_none(model, tmp_path, form, text, message):
    """JSON that is deep, broken, or no model's is refused, in either kind of file."""
    file = saved(model, tmp_path, form)
    if form == "keras":
        edit(file, lambda _: text)
    else:
        with h5py.File(file, "r+") as opened:
            opened.attrs["model_config"] = text
    refused(file, message)


def test_bytes_that_are_no_text(path):
    """config.json in no encoding of text is refused."""
    write(path, {**members(path), "config.json": b"\xff\xfe\xfa"})
    refused(path, "config.json is not text")


def test_h5_files_that_are_no_models(tmp_path):
    """An .h5 file of data, and one of weights alone, are told apart."""
    file = tmp_path / "data.h5"
    with h5py.File(file, "w") as opened:
        opened["table"] = np.zeros(3)
    refused(file, "no model_config; it is not a model")
    with h5py.File(file, "w") as opened:
        opened.create_group("layers")
    refused(file, "holds weights only.*save the whole model")


@pytest.mark.parametrize("value", [5, np.zeros(3), np.array([b"a", b"b"]), np.bytes_(b"\xff\xff")])
def test_a_model_config_that_is_no_text(legacy, value):
    """The attribute may be anything; only text is parsed."""
    with h5py.File(legacy, "r+") as file:
        file.attrs["model_config"] = value
    refused(legacy, "model_config|HDF5 file cannot be read|holds a")


# -- bombs -------------------------------------------------------------------------------------------------------------


def peak_memory(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(path, name, size):
    contents = members(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, content in contents.items():
            if other != name:
                archive.writestr(other, content)
        with archive.open(name, "w", force_zip64=True) as member:
            for _ in range(size // 2**20):
                member.write(b" " * 2**20)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_zip_bomb(path, name):
    """A member that unpacks to far more than a model of this config needs is refused before it is unpacked."""
    bomb(path, name, 200 * 2**20)
    message = rf"{name} unpacks to 209\.7 MB; expected up to \d+\.\d MB for a model of this config"
    assert peak_memory(lambda: refused(path, message)) < 2**24


def test_a_zip_that_lies_about_its_size(path):
    """A member that unpacks to more than it declares is cut off at what it declares, and refused."""
    bomb(path, "config.json", 200 * 2**20)
    content = path.read_bytes().replace(struct.pack("<Q", 200 * 2**20), struct.pack("<Q", 1000))
    content = content.replace(struct.pack("<I", 200 * 2**20), struct.pack("<I", 1000))
    path.write_bytes(content)
    assert peak_memory(lambda: refused(path, "damaged")) < 2**24


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("units", [10**9, 10**6, 10**12, 10**4000])
def test_a_config_of_a_giant_model(model, tmp_path, form, units):
    """A config that asks for billions of units is refused before memory is spent on them."""
    file = saved(model, tmp_path, form)

    def change(values):
        values["config"]["layers"][1]["config"]["units"] = units

    edit_config(file, change)
    limit = peak_memory(lambda: refused(file, "describes .* weights, and|expected a whole number"))
    assert limit < 2**24


@pytest.mark.parametrize("form", FORMATS)
def test_a_dataset_that_claims_a_giant_shape(model, tmp_path, form):
    """A weight's shape is compared with the config before it is read, and what was never written is not made up."""
    name = {"keras": "layers/dense/vars/0", "h5": None}[form]
    file = saved(model, tmp_path, form)

    def giant(opened, shape, **options):
        where = name or next(found for found in names_of(opened) if "dense" in found and found.endswith("kernel"))
        del opened[where]
        opened.create_dataset(where, shape=shape, dtype="float32", **options)

    for shape, options, message in (
        ((10**5, 10**6), {}, "has shape"),
        ((3, 1), {}, "was never written"),
        ((3, 1), {"chunks": True, "compression": "gzip", "fillvalue": 1.0}, "in chunks, compressed"),
    ):
        if form == "keras":
            edit_weights(file, lambda opened, shape=shape, options=options: giant(opened, shape, **options))
        else:
            with h5py.File(file, "r+") as opened:
                giant(opened, shape, **options)
        refused(file, message)
