"""Convolutions and pooling of saved Keras models: Keras's own numbers, padding that never counts, plain refusals."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.explainers import explain
from gatelens.models import InvalidInputError, KerasModel, ModelError, Predictor, gate_statistics, record
from gatelens.models.keras_files import from_keras
from gatelens.models.keras_graph import KerasGraph, KerasStep
from helpers.keras_made import FORMATS, edit_config, functional, keras, predicted, refused, saved, sequential

layers = keras.layers
T, D = 9, 4


CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # Keras computes in float32


def over_time(*body, steps=T):
    return sequential(keras.Input((steps, D)), *body, layers.Flatten(), layers.Dense(2))


def of_image(*body, shape=(8, 7, 1)):
    return sequential(keras.Input(shape), *body, layers.Flatten(), layers.Dense(3, activation="softmax"))


def both(model, folder, form="keras"):
    """Return Keras's model, and ours of its file, in float64."""
    return model, from_keras(saved(model, folder, form)).double()


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def said(ours, inputs, lengths=None):
    """Return what the model says, (B, K) or (B, T, K), float64."""
    with torch.no_grad():
        scores = ours(torch.as_tensor(inputs), lengths)
    made = {"multiclass": lambda x: x.softmax(-1), "binary": torch.sigmoid, "regression": lambda x: x}
    return made[ours.config.task](scores).numpy()


TIME = {
    "conv": lambda: layers.Conv1D(3, 2),
    "conv wide": lambda: layers.Conv1D(3, 4, activation="relu"),
    "conv strides": lambda: layers.Conv1D(3, 3, strides=2),
    "conv dilated": lambda: layers.Conv1D(3, 3, dilation_rate=2, use_bias=False),
    "conv groups": lambda: layers.Conv1D(6, 3, groups=2, activation="tanh"),
    "conv softmax": lambda: layers.Conv1D(3, 3, activation="softmax"),
    "conv same": lambda: layers.Conv1D(3, 3, padding="same"),
    "conv same, even": lambda: layers.Conv1D(3, 4, padding="same"),
    "conv same, strides": lambda: layers.Conv1D(3, 4, padding="same", strides=2),
    "conv same, strides of 3": lambda: layers.Conv1D(3, 2, padding="same", strides=3),
    "conv same, dilated": lambda: layers.Conv1D(3, 4, padding="same", dilation_rate=2),
    "conv causal": lambda: layers.Conv1D(3, 3, padding="causal"),
    "conv causal, strides": lambda: layers.Conv1D(3, 3, padding="causal", strides=2),
    "conv causal, dilated": lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=3),
    "maximum": layers.MaxPooling1D,
    "maximum of 3": lambda: layers.MaxPooling1D(3, strides=1),
    "maximum same": lambda: layers.MaxPooling1D(2, padding="same"),
    "maximum same, stride 1": lambda: layers.MaxPooling1D(4, strides=1, padding="same"),
    "average": lambda: layers.AveragePooling1D(2),
    "average same, odd": lambda: layers.AveragePooling1D(3, strides=1, padding="same"),
    "average, strides": lambda: layers.AveragePooling1D(4, strides=3),
    "zeros": lambda: layers.ZeroPadding1D(2),
    "zeros before": lambda: layers.ZeroPadding1D((3, 0)),
    "another shape": lambda: layers.Reshape((D, 3, 3)),
}

IMAGE = {
    "conv": lambda: [layers.Conv2D(3, 3, activation="relu")],
    "conv oblong": lambda: [layers.Conv2D(3, (2, 4))],
    "conv same": lambda: [layers.Conv2D(3, 3, padding="same")],
    "conv same, even": lambda: [layers.Conv2D(3, (2, 4), padding="same", use_bias=False)],
    "conv same, strides": lambda: [layers.Conv2D(3, 3, padding="same", strides=(2, 3))],
    "conv strides": lambda: [layers.Conv2D(3, 2, strides=(1, 2))],
    "conv dilated": lambda: [layers.Conv2D(3, 3, dilation_rate=(2, 1))],
    "conv groups": lambda: [layers.Conv2D(4, 3), layers.Conv2D(6, 2, groups=2)],
    "maximum": lambda: [layers.MaxPooling2D()],
    "maximum same": lambda: [layers.MaxPooling2D((3, 2), strides=2, padding="same")],
    "average": lambda: [layers.AveragePooling2D((2, 3), strides=(1, 2))],
    "average same, odd": lambda: [layers.AveragePooling2D(3, strides=1, padding="same")],
    "mean": lambda: [layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()],
    "largest": lambda: [layers.Conv2D(3, 3), layers.GlobalMaxPooling2D()],
    "mean, axes kept": lambda: [layers.Conv2D(3, 3), layers.GlobalAveragePooling2D(keepdims=True)],
    "largest, axes kept": lambda: [layers.Conv2D(3, 3), layers.GlobalMaxPooling2D(keepdims=True)],
    "zeros": lambda: [layers.ZeroPadding2D()],
    "zeros, each its own": lambda: [layers.ZeroPadding2D(((1, 0), (2, 3)))],
    "plain layers": lambda: [
        layers.Dense(3),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.SpatialDropout2D(0.3),
        layers.LayerNormalization(),
        layers.Dropout(0.2),
        layers.Activation("softmax"),
    ],
    "to a sequence": lambda: [layers.Reshape((8, 7)), layers.LSTM(4)],
    "columns to a sequence": lambda: [layers.Conv2D(2, 3), layers.Reshape((6, -1)), layers.LSTM(4)],
    "and back": lambda: [layers.Reshape((8, 7)), layers.Reshape((-1, 7, 1)), layers.Conv2D(2, 3)],
    "other rows": lambda: [layers.Reshape((4, 7, 2)), layers.Conv2D(2, 3)],
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", TIME)
def test_over_time_as_in_keras(tmp_path, name, form):
    """Each layer over timesteps gives Keras's own numbers from either kind of file."""
    theirs, ours = both(over_time(TIME[name]()), tmp_path, form)
    inputs = draw(5, T, D)
    np.testing.assert_allclose(said(ours, inputs), predicted(theirs, inputs), **CLOSE)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", IMAGE)
def test_over_images_as_in_keras(tmp_path, name, form):
    """Each layer over rows and columns does; inputs are (batch, rows, columns), without the one channel."""
    theirs, ours = both(of_image(*IMAGE[name]()), tmp_path, form)
    inputs = draw(5, 8, 7)
    np.testing.assert_allclose(said(ours, inputs), predicted(theirs, inputs[..., None]), **CLOSE)


def run_layer(kind, values, lengths=None, **config):
    """Return what one layer of a file makes of values (B, T, D) or (B, T, W, 1), without Keras."""
    image = values.ndim == 4
    shape = values.shape[1:]
    step = KerasStep("layer", kind, (0,), (None,), {"padding": "valid", "strides": None, **config})
    steps = [step, KerasStep("flat", "Flatten", (1,), (None,), {})] if image else [step]
    model = KerasModel(KerasGraph(tuple(shape), tuple(steps), {}, "3"))
    return model(torch.as_tensor(values[..., 0] if image else values), lengths).detach().numpy()


def by_hand(values, size, stride, padding, reduce):
    """Pool one axis, (T,), by TensorFlow's rule for "same": places are ceil(T / stride), the odd zero comes last."""
    count = len(values)
    if padding == "same":
        places = -(-count // stride)
        before = max((places - 1) * stride + size - count, 0) // 2
    else:
        places, before = (count - size) // stride + 1, 0
    windows = [range(place * stride - before, place * stride - before + size) for place in range(places)]
    return np.array([reduce([values[at] for at in window if 0 <= at < count]) for window in windows])


@given(
    count=st.integers(1, 12),
    size=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.sampled_from(["same", "valid"]),
    kind=st.sampled_from(["Max", "Average"]),
)
@settings(max_examples=150, deadline=None)
def test_pooling_is_tensorflows(count, size, stride, padding, kind):
    """For any size and stride, pooling is a loop over windows, of which only what lies in the sequence counts.

    Keras on torch repeats the last value where an average's padding is wider after than before; other backends do not.
    """
    if padding == "valid" and size > count:
        return
    values = draw(1, count, 1)
    found = run_layer(f"{kind}Pooling1D", values, pool_size=[size], strides=[stride], padding=padding)
    expected = by_hand(values[0, :, 0], size, stride, padding, np.max if kind == "Max" else np.mean)
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-6)
    image = np.repeat(values[..., None], 3, axis=2)
    found = run_layer(f"{kind}Pooling2D", image, pool_size=[size, 1], strides=[stride, 1], padding=padding)
    np.testing.assert_allclose(found[0].reshape(-1, 3), expected[:, None].repeat(3, axis=1), rtol=1e-6)


# -- lengths and masks -------------------------------------------------------------------------------------------------


REFUSED = ("another shape", "maximum same", "conv same, strides", "conv same, strides of 3")
FOLLOWED = [name for name in TIME if name not in REFUSED]
ENDS = {
    "mean": lambda: [layers.GlobalAveragePooling1D()],
    "largest": lambda: [layers.GlobalMaxPooling1D()],
    "lstm": lambda: [layers.LSTM(3)],
    "two": lambda: [layers.Conv1D(3, 2, padding="same"), layers.LSTM(3, return_sequences=True), layers.LSTM(2)],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", FOLLOWED)
def test_padding_never_counts(tmp_path, name, end):
    """With lengths, each sequence has the scores that Keras gives it alone, whatever stands in its padding."""
    body = [layers.Dense(D), TIME[name](), *ENDS[end]()]
    theirs, ours = both(sequential(keras.Input((None, D)), *body, layers.Dense(2)), tmp_path)
    inputs, lengths = draw(4, T, D), [T, 8, 7, 5]
    for row, length in enumerate(lengths):
        inputs[row, length:] = np.nan
    found = said(ours, inputs, lengths)
    for row, length in enumerate(lengths):
        alone = predicted(theirs, inputs[row : row + 1, :length])[0]
        np.testing.assert_allclose(found[row], alone, **CLOSE)


@pytest.mark.parametrize("name", FOLLOWED)
def test_gradients_are_zero_at_padding(tmp_path, name):
    """Gradients are those of finite differences, finite everywhere, and 0 at padding."""
    _, ours = both(sequential(keras.Input((T, D)), TIME[name](), layers.LSTM(3), layers.Dense(1)), tmp_path)
    inputs = torch.tensor(draw(2, T, D), requires_grad=True)
    lengths = [T, 7]
    (gradient,) = torch.autograd.grad(ours(inputs, lengths).sum(), inputs)
    assert gradient[0].any()
    assert not gradient[1, 7:].any()
    step = torch.tensor(draw(2, T, D, seed=1)) * 1e-6
    with torch.no_grad():
        change = ours(inputs + step, lengths).sum() - ours(inputs - step, lengths).sum()
    torch.testing.assert_close(2 * (gradient * step).sum(), change, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.MaxPooling1D(2, padding="same"), "padding 'same' with strides, by the number of timesteps"),
        (lambda: layers.Conv1D(2, 3, strides=2, padding="same"), r"'conv1d\w*' \(Conv1D\) places its windows"),
    ],
)
def test_padding_is_refused_where_it_would_count(tmp_path, layer, message):
    """Where the number of timesteps decides where windows are, padding is refused; full sequences are read."""
    _, ours = both(sequential(keras.Input((None, D)), layer(), layers.LSTM(2)), tmp_path)
    with pytest.raises(InvalidInputError, match=message + r".*Leave out the sequences"):
        ours(draw(2, T, D), [T, 4])
    assert ours(draw(2, T, D), [T, T]).shape == (2, 2)


def test_sequences_shorter_than_a_window(tmp_path):
    """Too few timesteps for a window, of all sequences or of one, are told with how many it reads."""
    _, ours = both(sequential(keras.Input((None, D)), layers.Conv1D(2, 4), layers.LSTM(2)), tmp_path)
    with pytest.raises(InvalidInputError, match=r"has 3 timesteps where the layer 'conv.* reads 4 at once; expected"):
        ours(draw(1, 3, D))
    with pytest.raises(InvalidInputError, match=r"has 1 timestep where .* reads 4 at once"):
        ours(draw(2, T, D), [T, 1])


def test_another_number_of_timesteps_behind_pooling(tmp_path):
    """Where a Flatten behind pooling gets another number, the error tells how long windows of the inputs must be."""
    _, ours = both(over_time(layers.MaxPooling1D(3)), tmp_path)
    with pytest.raises(InvalidInputError, match=r"inputs, 4 timesteps reach .*Flatten\); expected 3: .* windows of 9,"):
        ours(draw(1, 12, D))


def test_outputs_of_own_timesteps_refuse_padding(tmp_path):
    """Outputs of each pooled timestep cannot be told from those of the inputs' timesteps once some are padding."""
    made = sequential(keras.Input((None, D)), layers.Conv1D(2, 3), layers.Dense(2))
    theirs, ours = both(made, tmp_path)
    assert ours.config.per_timestep
    inputs = draw(2, T, D)
    np.testing.assert_allclose(said(ours, inputs), predicted(theirs, inputs), **CLOSE)
    with pytest.raises(InvalidInputError, match=r"expected all 9 timesteps .* outputs of other timesteps, its own"):
        ours(inputs, [T, 7])


def test_outputs_of_each_timestep(tmp_path):
    """A causal network with an output for each timestep has 0 at padding; its sigmoid is taken off."""
    body = [layers.Conv1D(3, 2, padding="causal"), layers.Conv1D(1, 1, activation="sigmoid")]
    theirs, ours = both(sequential(keras.Input((None, D)), *body), tmp_path)
    assert ours.config.task == "binary"
    inputs = draw(2, T, D)
    scores = ours(torch.as_tensor(inputs), [T, 6]).detach().numpy()
    assert not scores[1, 6:].any()
    alone = predicted(theirs, inputs[1:, :6])[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-scores[1, :6])), alone, **CLOSE)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["conv causal", "maximum", "average", "zeros"])
def test_masks_end_in_a_window(tmp_path, name, end):
    """As in Keras, which warns of it, a mask does not get through: later layers read all timesteps."""
    body = [layers.Masking(), TIME[name](), *ENDS[end](), layers.Dense(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = both(sequential(keras.Input((None, D)), *body), tmp_path)
    inputs = draw(2, T, D)
    inputs[0, 2:5] = 0
    inputs[1, 6:] = 0
    np.testing.assert_allclose(said(ours, inputs), predicted(theirs, inputs), **CLOSE)


# -- LSTMs behind them -------------------------------------------------------------------------------------------------


def cnn_lstm(padding="valid", *, pool=True):
    body = [layers.Conv1D(5, 3, padding=padding, activation="relu"), *([layers.MaxPooling1D(2)] if pool else [])]
    return sequential(keras.Input((None, D)), *body, layers.LSTM(3), layers.Dense(1))


def test_gates_lie_at_pooled_timesteps(tmp_path):
    """A trace of Conv1D, MaxPooling1D, LSTM has the LSTM's own timesteps, each sequence as many as it has alone."""
    _, ours = both(cnn_lstm(), tmp_path)
    inputs, lengths = torch.as_tensor(draw(2, 10, D)), torch.tensor([10, 7])
    with torch.no_grad(), record(ours) as recording:
        ours(inputs, lengths)
    (layer,) = recording.trace.values()
    assert layer.hidden_state.shape == (2, 4, 3)
    with torch.no_grad(), record(ours) as recording:
        ours(inputs[1:, :7])
    (alone,) = recording.trace.values()
    torch.testing.assert_close(layer.forget_gate[1, :2], alone.forget_gate[0])
    assert not layer.forget_gate[1, 2:].any()
    with pytest.raises(ModelError, match=r"ran over 2 sequences of 4 timesteps, and the inputs are 2 of 10"):
        gate_statistics(ours.float(), inputs.float(), lengths=lengths)


@pytest.mark.parametrize(("pool", "lengths"), [(False, [8, 6]), (True, [4, 4]), (True, [8, 5])])
def test_gates_of_own_timesteps_are_never_taken_for_those_of_the_inputs(tmp_path, pool, lengths):
    """Also not where the padded inputs give as many places as the longest sequence has timesteps: 10 give 8, or 4."""
    _, ours = both(cnn_lstm(pool=pool), tmp_path)
    inputs = torch.as_tensor(draw(2, 10, D)).float()
    with pytest.raises(ModelError, match=r"ran over 2 sequences of \d timesteps, and the inputs are 2 of 10"):
        explain(ours.float(), inputs, ["gate_saliency"], lengths=lengths)


def test_outputs_beside_a_shorter_branch_have_all_timesteps(tmp_path):
    """A score for each timestep has all T of them, also where a branch has fewer places and no sequence reaches T."""
    given_values = keras.Input((None, D))
    pooled = layers.GlobalMaxPooling1D(keepdims=True)(layers.Conv1D(2, 3)(given_values))
    out = layers.Add()([layers.Dense(2)(given_values), pooled])
    theirs, ours = both(functional(given_values, out), tmp_path)
    inputs = draw(2, T, D)
    found = said(ours, inputs, [7, 5])
    assert found.shape == (2, T, 2)
    assert not found[0, 7:].any()
    np.testing.assert_allclose(found[1, :5], predicted(theirs, inputs[1:, :5])[0], **CLOSE)


def test_methods_on_a_network_before_an_lstm(tmp_path):
    """Explainers of any model explain the inputs' timesteps; gates at pooled ones are no answer, and it says so."""
    _, ours = both(cnn_lstm(), tmp_path)
    inputs = torch.as_tensor(draw(2, 10, D)).float()
    found = explain(ours.float(), inputs, ["integrated_gradients", "kernel_shap", "occlusion"])
    assert {name: part.values.shape for name, part in found.items()} == dict.fromkeys(found, (2, 10, D))
    assert abs(found["kernel_shap"].completeness_gap).max() < 1e-4
    with pytest.raises(ModelError, match=r"of 4 timesteps, and the inputs are 2 of 10; .* integrated_gradients, lime"):
        explain(ours, inputs, ["gate_saliency"])


@pytest.mark.parametrize("padding", ["causal", "same"])
def test_gates_stay_at_the_inputs_timesteps(tmp_path, padding):
    """Where a convolution has a place for each timestep, gates are those of the inputs' timesteps, padded or not."""
    _, ours = both(cnn_lstm(padding, pool=False), tmp_path)
    inputs = torch.as_tensor(draw(2, 10, D)).float()
    found = explain(ours.float(), inputs, ["gate_saliency"], lengths=[10, 7])["gate_saliency"]
    assert found.gates.shape[2] == 10
    assert not found.values[1, 7:].any()


def test_a_backwards_lstm_behind_a_convolution(tmp_path):
    """The order of timesteps that a layer reads backwards goes through a convolution with a place for each."""
    body = [
        layers.LSTM(3, return_sequences=True, go_backwards=True),
        layers.Conv1D(4, 3, padding="causal"),
        layers.LSTM(2),
    ]
    theirs, ours = both(sequential(keras.Input((None, D)), *body), tmp_path)
    inputs, lengths = draw(2, T, D), [T, 6]
    np.testing.assert_allclose(said(ours, inputs, lengths)[1], predicted(theirs, inputs[1:, :6])[0], **CLOSE)
    with torch.no_grad(), record(ours) as recording:
        ours(torch.as_tensor(inputs), lengths)
    first, last = (layer.hidden_state for layer in recording.trace.values())
    assert first[1, :6].all()
    assert last[1, :6].all()
    assert not last[1, 6:].any()
    np.testing.assert_allclose(last[1, 0], said(ours, inputs, lengths)[1], rtol=1e-10)  # it reads timestep 0 last


# -- graphs and inputs -------------------------------------------------------------------------------------------------


def test_branches_of_images(tmp_path):
    """Images go through a sum, a concatenation and a shared layer as in Keras: a network with a shortcut."""
    given_image = keras.Input((8, 8))
    image = layers.Reshape((8, 8, 1))(given_image)
    one = layers.Conv2D(3, 3, padding="same", activation="relu")(image)
    two = layers.Conv2D(3, 5, padding="same")(image)
    joined = layers.Concatenate()([layers.Add()([one, two]), layers.Multiply()([one, image])])
    out = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(joined))
    theirs, ours = both(functional(given_image, out), tmp_path)
    inputs = draw(3, 8, 8)
    np.testing.assert_allclose(said(ours, inputs), predicted(theirs, inputs), **CLOSE)


def test_an_image_is_a_sequence_of_rows(tmp_path):
    """Of Input((8, 7, 1)) rows are timesteps and columns features; the file's story says so."""
    _, ours = both(of_image(layers.Conv2D(2, 3)), tmp_path)
    assert (ours.config.input_size, ours.data.window.length, ours.config.task) == (7, 8, "multiclass")
    told = ours.data.provenance["adopted"]["found"]
    assert told[0] == "it reads (batch, 8, 7, 1)"
    assert "rows as timesteps, columns as features" in told[1]
    assert "Conv2D, 2 filters of 3 x 3, linear, padding valid" in told[2]
    assert json.loads(json.dumps(ours.config.to_dict()))
    predictor = Predictor(ours)
    inputs, lengths = predictor.check(draw(2, 8, 7), None)
    assert predictor.predict(inputs, lengths).shape == (2, 3)
    with pytest.raises(InvalidInputError, match=r"expected \(batch, time, features=7\)"):
        ours(draw(2, 8, 7, 1))


def test_rows_of_an_image_may_be_padding_only_before_they_mix(tmp_path):
    """An image given back as a sequence takes lengths; a window over several rows does not."""
    _, ours = both(sequential(keras.Input((8, 7, 1)), layers.Reshape((8, 7)), layers.LSTM(3)), tmp_path)
    inputs = draw(1, 8, 7)
    np.testing.assert_allclose(said(ours, inputs, [5]), said(ours, inputs[:, :5]), rtol=1e-10)
    for body in ([layers.Conv2D(2, 3)], [layers.GlobalMaxPooling2D()], [layers.MaxPooling2D()]):
        _, ours = both(of_image(*body), tmp_path)
        with pytest.raises(InvalidInputError, match=r"lengths tells of padding; .*Leave out"):
            ours(inputs, [5])


def test_any_number_of_rows(tmp_path):
    """Images of any height are read where the network takes them."""
    made = sequential(keras.Input((None, 7)), layers.Reshape((-1, 7, 1)), layers.Conv2D(2, 3),
                      layers.GlobalMaxPooling2D(), layers.Dense(2))  # fmt: skip
    theirs, ours = both(made, tmp_path)
    for rows in (3, 8, 11):
        inputs = draw(2, rows, 7)
        np.testing.assert_allclose(said(ours, inputs), predicted(theirs, inputs), **CLOSE)
    with pytest.raises(InvalidInputError, match=r"2 timesteps where .* reads 3 at once"):
        ours(draw(2, 2, 7))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 3), r"images of 3 channels; expected one channel\. Put Input\(\(8, 24\)\) and Reshape\(\(8, 8, 3\)\)"),
        ((None, 8, 3), r"Put Input\(\(None, 24\)\) and Reshape\(\(-1, 8, 3\)\)"),
        ((None, None, 1), r"images \(batch, rows, columns, 1\) with a known number of columns"),
        ((4, 4, 4, 1), r"Conv3D\) is not one that gatelens reads"),
    ],
)
def test_images_that_are_not_read(tmp_path, shape, message):
    """Several channels, and columns of any number, are refused with what to do."""
    convolution = layers.Conv3D(2, 2) if len(shape) == 4 else layers.Conv2D(2, 3)
    pool = layers.GlobalMaxPooling3D() if len(shape) == 4 else layers.GlobalMaxPooling2D()
    refused(saved(sequential(keras.Input(shape), convolution, pool), tmp_path), message)


def test_the_mend_for_channels_works(tmp_path):
    """Input((8, 24)) and Reshape((8, 8, 3)) before an image network give its own predictions."""
    image = sequential(keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2))
    mended = keras.Sequential([keras.Input((8, 24)), layers.Reshape((8, 8, 3)), *image.layers])
    _, ours = both(mended, tmp_path)
    inputs = draw(2, 8, 8, 3)
    np.testing.assert_allclose(said(ours, inputs.reshape(2, 8, 24)), predicted(image, inputs), **CLOSE)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.SeparableConv2D(2, 3), r"\(SeparableConv2D\) is not one that gatelens reads"),
        (lambda: layers.DepthwiseConv2D(3), "DepthwiseConv2D"),
        (lambda: layers.Conv2DTranspose(2, 3), "Conv2DTranspose"),
        (layers.UpSampling2D, "UpSampling2D"),
        (layers.Cropping2D, "Cropping2D"),
        (lambda: layers.TimeDistributed(layers.Conv1D(2, 3)), "TimeDistributed. reads the shape .batch, 8, 8, 1."),
        (lambda: layers.MaxPooling2D(2, data_format="channels_first", padding="same"), "channels_first"),
    ],
)
def test_layers_that_are_not_read(tmp_path, layer, message):
    """Other layers over images are refused by their names."""
    refused(saved(sequential(keras.Input((8, 8, 1)), layer(), layers.Flatten(), layers.Dense(1)), tmp_path), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": [0]}, r"has kernel_size=\[0\]; expected 1 whole number, 1 to"),
        ({"kernel_size": None}, "has kernel_size=None"),
        ({"kernel_size": [2, 2]}, "expected 1 whole number"),
        ({"kernel_size": [99]}, r"reads the shape \(batch, 9, 4\), smaller than its windows"),
        ({"strides": [True]}, "has strides"),
        ({"strides": "two"}, "has strides='two'"),
        ({"groups": 3}, "has groups=3, 4 features in and 6 out; expected multiples"),
        ({"padding": "reflect"}, "has padding='reflect'; expected valid or same or causal"),
        ({"dilation_rate": [-1]}, "has dilation_rate"),
        ({"filters": 5}, "config expects"),
    ],
)
def test_damaged_configs(tmp_path, change, message):
    """A config that no Keras writes is refused by the option."""
    path = saved(over_time(layers.Conv1D(6, 2)), tmp_path)
    edit_config(path, lambda values: values["config"]["layers"][1]["config"].update(change))
    refused(path, message)


@pytest.mark.parametrize("padding", [[1], [1, 2, 3], [[1, 1]], "same", [[1, -1], [0, 0]], None])
def test_damaged_zeros(tmp_path, padding):
    """So are zeros around that are not two numbers an axis."""
    path = saved(of_image(layers.ZeroPadding2D()), tmp_path)
    edit_config(path, lambda values: values["config"]["layers"][1]["config"].update(padding=padding))
    refused(path, "has padding=.*how many zeros")


def test_older_forms_of_configs(tmp_path):
    """Plain numbers for sizes, and no default written, as older Keras had them, mean the same."""
    _, ours = both(over_time(layers.Conv1D(6, 2), layers.MaxPooling1D(2)), tmp_path)
    path = tmp_path / "model.keras"

    def change(values):
        conv, pool = (layer["config"] for layer in values["config"]["layers"][1:3])
        conv.update(kernel_size=2, strides=1)
        pool.update(pool_size=2)
        for name in ("groups", "dilation_rate", "padding"):
            conv.pop(name)

    edit_config(path, change)
    inputs = draw(2, T, D)
    np.testing.assert_allclose(said(from_keras(path).double(), inputs), said(ours, inputs), rtol=1e-12)


def test_a_convolution_makes_no_reference_lstm(tmp_path):
    """A network before an LSTM stays a graph: an LSTMModel has none."""
    _, ours = both(cnn_lstm(), tmp_path)
    assert type(ours) is KerasModel
