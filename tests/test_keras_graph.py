"""Graphs of Keras files: what gatelens does not compute is refused by name, and any damage is read or refused."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.models import SavedModelError
from gatelens.models.keras_files import from_keras
from helpers.keras_made import (
    FORMATS,
    edit_config,
    functional,
    keras,
    members,
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


# -- layers and graphs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.GRU(3), "'gru.*' .GRU. is not one that gatelens reads; known: LSTM.*explains LSTMs"),
        (lambda: layers.SimpleRNN(3), "SimpleRNN"),
        (lambda: layers.SeparableConv1D(3, 2), "SeparableConv1D"),
        (lambda: layers.Bidirectional(layers.GRU(3)), "wraps 'GRU'; gatelens reads it around an LSTM"),
        (lambda: layers.TimeDistributed(layers.Dropout(0.1)), "wraps 'Dropout'; gatelens reads it around a Dense"),
        (lambda: layers.LSTM(3, activation="elu"), "activation 'elu'; known: tanh, relu"),
        (lambda: layers.LSTM(3, recurrent_activation="tanh"), "recurrent_activation 'tanh'; known: sigmoid"),
        (lambda: layers.Dense(3, activation="squareplus"), "activation 'squareplus'; known"),
        (lambda: layers.GlobalMaxPooling1D(data_format="channels_first"), "channels_last"),
        (lambda: layers.BatchNormalization(axis=1), "axis 1; gatelens reads it along the last one"),
        (lambda: layers.Reshape((2, 2, 2, 1)), "makes the shape"),
        (lambda: layers.Reshape((2, 2, 2)), "the model returns the shape .batch, 2, 2, 2.; expected"),
        (lambda: layers.LSTM(3, zero_output_for_mask=True), "zero_output_for_mask"),
        (
            lambda: layers.Bidirectional(
                layers.LSTM(3, go_backwards=True), backward_layer=layers.LSTM(3, go_backwards=False)
            ),
            "go_backwards=True",
        ),
        (lambda: keras.Sequential([layers.LSTM(3)]), "model inside the model"),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_layers_that_are_not_read(tmp_path, form, layer, message):
    """A layer or an option that gatelens does not compute is refused by its name, its class and what is possible."""
    refused(saved(sequential(keras.Input((4, 2)), layer()), tmp_path, form), message)


@pytest.mark.parametrize("form", FORMATS)
def test_code_is_never_run(tmp_path, form):
    """A Lambda, whose file holds marshalled Python, is refused by name and nothing of it is executed."""
    touched = tmp_path / "touched"
    made = sequential(keras.Input((4, 2)), layers.LSTM(3), layers.Lambda(lambda x: x * 2, name="evil"))
    file = saved(made, tmp_path, form)

    def change(values):
        function = values["config"]["layers"][-1]["config"]
        function["function"] = {"class_name": "__lambda__", "config": {"code": f"open({str(touched)!r}, 'w')"}}

    edit_config(file, change)
    refused(file, "'evil' .Lambda. is not one.*never runs")
    assert not touched.exists()


def test_custom_classes(path):
    """A class of somebody's own, whatever it is called, is refused by its full name."""

    def change(values):
        values["config"]["layers"][1] |= {"module": "mypackage.cells", "registered_name": "My>LSTM"}

    edit_config(path, change)
    refused(path, "class of its own, My>LSTM")
    edit_config(path, lambda values: values["config"]["layers"][1].update(module="os", registered_name=None))
    refused(path, "class of its own, os.LSTM")


def test_a_custom_activation(path):
    """A function of somebody's own as activation is refused, also where it has the name of one of Keras's."""

    def change(values):
        values["config"]["layers"][1]["config"]["activation"] = {
            "module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function",
        }  # fmt: skip

    edit_config(path, change)
    refused(path, "has the activation")


@pytest.mark.parametrize("form", FORMATS)
def test_models_of_several_inputs_or_outputs(tmp_path, form):
    """Two inputs or two outputs are refused with the way out; so is the state as an output, and no timesteps."""
    one, two = keras.Input((4, 2)), keras.Input((4, 2))
    lstm = layers.LSTM(3)
    refused(saved(keras.Model([one, two], layers.Add()([lstm(one), lstm(two)])), tmp_path, form), "2 inputs; .* of one")
    hidden = layers.LSTM(3)(one)
    refused(saved(keras.Model(one, [layers.Dense(1)(hidden), layers.Dense(2)(hidden)]), tmp_path, form), "2 outputs")
    output, _, _ = layers.LSTM(3, return_state=True)(one)
    refused(saved(keras.Model(one, output), tmp_path, form), "return_state=True")
    flat = keras.Input((5,))
    refused(saved(keras.Model(flat, layers.Dense(1)(flat)), tmp_path, form), "without an Embedding; expected")
    merged = layers.Bidirectional(layers.LSTM(3), merge_mode=None)(one)
    refused(saved(keras.Model(one, layers.Add()(merged)), tmp_path, form), "merge_mode=None|output 1")


@pytest.mark.parametrize("form", FORMATS)
def test_calls_that_are_not_read(tmp_path, form):
    """Computations outside layers, dropout in predictions, scores of attention and given states are refused."""
    inputs = keras.Input((4, 2))
    hidden = layers.LSTM(3, return_sequences=True)(inputs)
    for output, message in (
        (layers.Dense(1)(hidden) * 2, "Computations with constants are not read"),
        (hidden + hidden, r"ops.Add. is not one that gatelens reads"),
        (layers.Dropout(0.5)(hidden, training=True), "dropout would make predictions random"),
        (layers.LSTM(3)(inputs, initial_state=[hidden[:, 0], hidden[:, 1]]), "initial_state|Computations"),
        (layers.Attention()([hidden, hidden], return_attention_scores=True)[0], "return_attention_scores"),
        (layers.Attention(score_mode="concat")([hidden, hidden]), "score_mode='concat'"),
    ):
        refused(saved(keras.Model(inputs, output), tmp_path, form), message)


@pytest.fixture
def graph(tmp_path):
    """Return a functional file: input, lstm, dense."""
    inputs = keras.Input((4, 2), name="in")
    output = layers.Dense(1, name="out")(layers.Dense(2, name="middle")(layers.LSTM(3, name="first")(inputs)))
    return saved(functional(inputs, output), tmp_path)


def reading(layer, source):
    def change(values):
        found = next(entry for entry in values["config"]["layers"] if entry["name"] == layer)
        found["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = source

    return change


def with_config(name, value):
    return lambda values: values["config"].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reading("first", ["middle", 0, 0]), "in a circle"),
        (reading("first", ["first", 0, 0]), "in a circle"),
        (reading("first", ["nobody", 0, 0]), "call 0 of the layer 'nobody', which is not there"),
        (reading("first", ["in", 1, 0]), "call 1 of the layer 'in'"),
        (reading("middle", ["first", 0, 1]), "output 1 of the layer 'first'"),
        (reading("middle", ["first", -1, 0]), "refers to"),
        (reading("middle", "first"), "keras_history is 'first'; expected a list"),
        (reading("middle", ["in", 0, 0]), r"kernel|shape \(3, 2\); its config expects \(2, 2\)"),
        (with_config("input_layers", []), "0 inputs"),
        (with_config("input_layers", ["first", 0, 0]), "no InputLayer"),
        (with_config("output_layers", ["in", 0, 0]), "output is its input"),
        (with_config("output_layers", None), "output_layers is None"),
        (lambda values: values["config"]["layers"].append(values["config"]["layers"][1]), "two layers have one name"),
        (lambda values: values["config"]["layers"][1]["config"].update(units=2.5), "units=2.5; expected a whole"),
        (lambda values: values["config"]["layers"][1]["config"].update(use_bias="no"), "use_bias='no'"),
        (lambda values: values["config"]["layers"][0]["config"].update(batch_shape=[None, -1, 2]), "input's shape"),
        (lambda values: values["config"]["layers"][0]["config"].update(batch_shape=[None, 4, None]), "known number"),
        (lambda values: values["config"]["layers"][0]["config"].update(batch_shape=[None]), "expected"),
        (lambda values: values["config"]["layers"][0]["config"].update(batch_shape=None), "input's shape is None"),
    ],
)
def test_graphs_that_are_damaged(graph, change, message):
    """Circles, references to nothing, and values of another kind are refused in words."""
    edit_config(graph, change)
    refused(graph, message)


def test_a_model_that_was_never_built(tmp_path):
    """A Sequential without a shape has no weights yet."""
    refused(saved(keras.Sequential([layers.LSTM(3), layers.Dense(1)]), tmp_path), "before it was built")


# -- anything at all ---------------------------------------------------------------------------------------------------


JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(), st.text(max_size=3), st.just([]), st.just({}),
    st.just([[]]), st.just([None]), st.just({"config": None}), st.just("relu"),
)  # fmt: skip


def places(values, path=()):
    """Yield the path of every value in JSON."""
    yield path
    for key, value in (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    ):
        yield from places(value, (*path, key))


def read_or_message(file):
    try:
        return from_keras(file)
    except SavedModelError as error:
        return str(error)


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """Return the contents of a file with many kinds of layers, and the places in its config."""
    inputs = keras.Input((None,))
    read = layers.Embedding(7, 3, mask_zero=True)(inputs)
    hidden = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(layers.Dropout(0.1)(read))
    hidden = layers.TimeDistributed(layers.Dense(4))(layers.BatchNormalization()(hidden))
    attended = layers.Attention(use_scale=True)([hidden, layers.LSTM(4, return_sequences=True)(read)])
    pooled = layers.GlobalAveragePooling1D()(layers.Concatenate()([attended, hidden]))
    file = saved(functional(inputs, layers.Reshape((2, 4))(pooled)), tmp_path_factory.mktemp("rich"))
    contents = members(file)
    return file, contents, list(places(json.loads(contents["config.json"])))


@given(st.data())
@settings(max_examples=300)
def test_any_change_of_a_config_is_read_or_refused(rich, data):
    """With any value of a config replaced by any other, the file is read or refused by SavedModelError alone."""
    file, contents, where = rich
    path = data.draw(st.sampled_from(where[1:]))
    values = json.loads(contents["config.json"])
    part = values
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = data.draw(JSON)
    write(file, {**contents, "config.json": json.dumps(values)})
    read = read_or_message(file)
    if isinstance(read, str):
        assert read.startswith(str(file))
        assert len(read) < 2000
    else:
        assert read(torch.ones(1, 3, dtype=torch.long)).ndim > 1


@given(st.data())
@settings(max_examples=200)
def test_any_flipped_bytes_are_read_or_refused(rich, data):
    """With bytes flipped anywhere in the HDF5 file or the zip, there is a model or a SavedModelError."""
    file, contents, _ = rich
    target = bytearray(contents["model.weights.h5"])
    for place in data.draw(st.lists(st.integers(0, min(6000, len(target)) - 1), min_size=1, max_size=4)):
        target[place] = data.draw(st.integers(0, 255))
    write(file, {**contents, "model.weights.h5": bytes(target)})
    whole = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 0x55
    file.write_bytes(bytes(whole))
    read = read_or_message(file)
    assert not isinstance(read, str) or read.startswith(str(file))


def test_reading_leaves_nothing_behind(path, tmp_path):
    """No temporary files appear beside the model, and the file is closed."""
    from_keras(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    path.unlink()
