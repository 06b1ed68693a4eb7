"""Saved Keras models give Keras's own predictions: every layer, option, mask and direction, from .keras and .h5."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.models import DataSpec, InvalidInputError, LSTMModel, Predictor
from gatelens.models.activation_lstm import ActivationLSTM
from gatelens.models.keras_files import from_keras
from gatelens.models.keras_model import KerasModel
from helpers.keras_made import FORMATS, edit, functional, keras, predicted, saved, sequential

layers = keras.layers
T, D, VOCABULARY = 6, 3, 9


def features():
    return keras.Input((T, D))


def tokens():
    return keras.Input((None,))


def attention_per_timestep(kind=layers.Attention, **options):
    inputs = features()
    hidden = layers.LSTM(64, return_sequences=True)(inputs)
    return functional(inputs, layers.Dense(10, activation="softmax")(kind(**options)([hidden, hidden])))


def attention_pooled(pool=layers.GlobalAveragePooling1D, *, mask_zero=False, causal=False, **options):
    inputs = tokens() if mask_zero else features()
    read = layers.Embedding(VOCABULARY, 4, mask_zero=True)(inputs) if mask_zero else inputs
    hidden = layers.LSTM(5, return_sequences=True)(read)
    key = layers.Dense(5, activation="tanh")(hidden)
    attended = layers.Attention(**options)([hidden, hidden, key], use_causal_mask=causal)
    return functional(inputs, layers.Dense(10, activation="softmax")(pool()(attended)))


def last_state_asks():
    inputs = tokens()
    hidden = layers.LSTM(4, return_sequences=True)(layers.Embedding(VOCABULARY, 4, mask_zero=True)(inputs))
    query = layers.Reshape((1, 4))(layers.LSTM(4)(hidden))
    context = layers.Flatten()(layers.AdditiveAttention()([query, hidden]))
    return functional(inputs, layers.Dense(2)(context))


def merged(merge, **options):
    inputs = tokens()
    read = layers.Embedding(VOCABULARY, 3, mask_zero=True)(inputs)
    one = layers.LSTM(4, return_sequences=True)(read)
    other = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(read)
    joined = layers.BatchNormalization()(merge(**options)([one, other]))
    return functional(inputs, layers.Dense(1)(layers.LSTM(3)(layers.Activation("tanh")(joined))))


def masked_and_not():
    inputs = features()
    masked = layers.LSTM(2, return_sequences=True)(layers.Masking()(inputs))
    joined = layers.Concatenate()([masked, layers.Dense(2)(inputs)])
    return functional(inputs, layers.Dense(1)(layers.LSTM(3)(joined)))


def shared():
    inputs = features()
    lstm, head = layers.LSTM(4), layers.Dense(2)
    sum_ = layers.Add()([head(lstm(inputs)), head(lstm(layers.Dense(D)(inputs)))])
    return functional(inputs, layers.Activation("sigmoid")(sum_))


def gated():
    inputs = features()
    hidden = layers.LSTM(4, return_sequences=True)(inputs)
    weight = layers.TimeDistributed(layers.Dense(1, activation="sigmoid"))(hidden)
    return functional(inputs, layers.Dense(1)(layers.GlobalMaxPooling1D()(layers.Multiply()([hidden, weight]))))


def encoder_decoder():
    return sequential(
        keras.Input((T, D)),
        layers.LSTM(4),
        layers.RepeatVector(3),
        layers.LSTM(5, return_sequences=True, go_backwards=True),
        layers.TimeDistributed(layers.Dense(2)),
    )


def on_last_state(*lstms, **head):
    return sequential(keras.Input((T, D)), *lstms, layers.Dense(**{"units": 1, **head}))


def masked(*body, mask_zero=True):
    return sequential(keras.Input((None,)), layers.Embedding(VOCABULARY, 4, mask_zero=mask_zero), *body)


def two_directions(merge="concat", *, sequences=True, **options):
    return layers.Bidirectional(layers.LSTM(3, return_sequences=sequences, **options), merge_mode=merge)


def unlike_directions(*, sequences=True):
    forward = layers.LSTM(3, return_sequences=sequences)
    backward = layers.LSTM(3, return_sequences=sequences, activation="relu", go_backwards=True)
    return layers.Bidirectional(forward, backward_layer=backward)


REFERENCE = {
    "three lstm": lambda: on_last_state(
        layers.LSTM(50, return_sequences=True),
        layers.LSTM(50, return_sequences=True),
        layers.LSTM(50),
        activation="sigmoid",
    ),
    "64 to 32": lambda: on_last_state(layers.LSTM(64, return_sequences=True), layers.LSTM(32)),
    "relu softmax": lambda: on_last_state(layers.LSTM(64, activation="relu"), units=10, activation="softmax"),
    "per timestep": lambda: on_last_state(layers.LSTM(50, return_sequences=True), activation="linear"),
    "time distributed": lambda: sequential(
        features(), layers.LSTM(4, return_sequences=True), layers.TimeDistributed(layers.Dense(3, activation="softmax"))
    ),
    "dropout between": lambda: sequential(
        features(),
        layers.SpatialDropout1D(0.2),
        layers.LSTM(4, return_sequences=True, dropout=0.2, recurrent_dropout=0.1),
        layers.Dropout(0.3),
        layers.LSTM(3),
        layers.GaussianNoise(0.1),
        layers.Dense(1),
        layers.Activation("sigmoid"),
        layers.Dropout(0.1),
    ),
    "no bias": lambda: on_last_state(layers.LSTM(4, use_bias=False), use_bias=False),
    "unroll, other initial forget bias": lambda: on_last_state(layers.LSTM(4, unroll=True, unit_forget_bias=False)),
    "bidirectional": lambda: on_last_state(two_directions(), two_directions(sequences=False)),
    "bidirectional per timestep": lambda: on_last_state(two_directions(activation="relu")),
    "mean": lambda: on_last_state(layers.LSTM(4, return_sequences=True), layers.GlobalAveragePooling1D()),
    "maximum": lambda: on_last_state(two_directions(), layers.GlobalMaxPooling1D(), units=2),
    "embedding": lambda: masked(layers.LSTM(5), layers.Dense(2), mask_zero=False),
}

GRAPHS = {
    "attention per timestep": attention_per_timestep,
    "scaled attention": lambda: attention_per_timestep(use_scale=True),
    "additive attention": lambda: attention_per_timestep(layers.AdditiveAttention),
    "additive attention, unscaled": lambda: attention_per_timestep(layers.AdditiveAttention, use_scale=False),
    "attention pooled": attention_pooled,
    "attention pooled by maximum": lambda: attention_pooled(layers.GlobalMaxPooling1D, use_scale=True),
    "attention, causal": lambda: attention_pooled(causal=True),
    "attention, masked": lambda: attention_pooled(mask_zero=True, use_scale=True),
    "attention, masked, causal": lambda: attention_pooled(mask_zero=True, causal=True),
    "attention of the last state": last_state_asks,
    "masked": lambda: masked(layers.LSTM(5), layers.Dense(3, activation="softmax")),
    "masked per timestep": lambda: masked(layers.LSTM(5, return_sequences=True), layers.Dense(3)),
    "masked, zero output": lambda: masked(
        layers.LSTM(5, return_sequences=True, zero_output_for_mask=True), layers.Dense(3)
    ),
    "masked, stacked": lambda: masked(
        layers.LSTM(5, return_sequences=True), layers.Dropout(0.5), layers.LSTM(3, activation="relu"), layers.Dense(2)
    ),
    "masked, backwards": lambda: masked(layers.LSTM(5, go_backwards=True), layers.Dense(1)),
    "masked, backwards, per timestep": lambda: masked(
        layers.LSTM(5, go_backwards=True, return_sequences=True), layers.Dense(1)
    ),
    "masked, two directions": lambda: masked(two_directions("sum"), two_directions(sequences=False), layers.Dense(1)),
    "masked, unlike directions": lambda: masked(
        unlike_directions(), unlike_directions(sequences=False), layers.Dense(1)
    ),
    "masked mean": lambda: masked(
        layers.LSTM(5, return_sequences=True), layers.GlobalAveragePooling1D(), layers.Dense(1)
    ),
    "masked maximum": lambda: masked(
        layers.LSTM(5, return_sequences=True),
        layers.GlobalMaxPooling1D(keepdims=True),
        layers.Flatten(),
        layers.Dense(1),
    ),
    "masked, normalized": lambda: masked(
        layers.BatchNormalization(), layers.LSTM(4, return_sequences=True), layers.LayerNormalization(), layers.LSTM(2)
    ),
    "mask ends in a reshape": lambda: sequential(
        keras.Input((T,)),
        layers.Embedding(VOCABULARY, 4, mask_zero=True),
        layers.Reshape((T, 4)),
        layers.LSTM(3),
        layers.Dense(1),
    ),
    "masking": lambda: on_last_state(layers.Masking(), layers.LSTM(4)),
    "masking another value, attention": lambda: on_last_state(
        layers.Masking(0.5), two_directions("mul"), layers.GlobalAveragePooling1D()
    ),
    "masked and not": masked_and_not,
    "add": lambda: merged(layers.Add),
    "concatenate": lambda: merged(layers.Concatenate),
    "multiply": lambda: merged(layers.Multiply),
    "average": lambda: merged(layers.Average),
    "subtract": lambda: merged(layers.Subtract),
    "maximum": lambda: merged(layers.Maximum),
    "minimum": lambda: merged(layers.Minimum),
    "shared": shared,
    "gated": gated,
    "encoder and decoder": encoder_decoder,
    "backwards": lambda: on_last_state(layers.LSTM(4, return_sequences=True, go_backwards=True), layers.LSTM(3)),
    "unlike directions": lambda: on_last_state(unlike_directions()),
    "sum": lambda: on_last_state(two_directions("sum", sequences=False)),
    "average of directions": lambda: on_last_state(two_directions("ave")),
    "product of directions": lambda: on_last_state(two_directions("mul", sequences=False, use_bias=False)),
    "flatten": lambda: on_last_state(layers.LSTM(4, return_sequences=True), layers.Flatten(), units=2),
    "reshape": lambda: on_last_state(
        layers.LSTM(4, return_sequences=True), layers.Reshape((3, -1)), layers.LSTM(2, activation="linear")
    ),
    "two dense": lambda: on_last_state(
        layers.LSTM(4), layers.Dense(5, activation="gelu"), units=4, activation="softmax"
    ),
    "softmax of one": lambda: on_last_state(layers.LSTM(4), activation="softmax"),
    "softmax, then another layer": lambda: on_last_state(layers.LSTM(4), layers.Dense(3, activation="softmax")),
    "batch normalization": lambda: on_last_state(
        layers.LSTM(4), layers.BatchNormalization(epsilon=0.1, scale=False), layers.LayerNormalization(center=False)
    ),
    "lstm is the output": lambda: sequential(features(), layers.LSTM(4)),
}
for name in ("relu", "sigmoid", "linear"):
    GRAPHS[f"cell {name}"] = lambda name=name: on_last_state(
        layers.LSTM(4, activation=name, return_sequences=True), layers.LSTM(3)
    )
GRAPHS["gates hard_sigmoid"] = lambda: on_last_state(two_directions(recurrent_activation="hard_sigmoid"))
for name in (
    "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "log_softmax", "mish", "relu", "relu6",
    "selu", "silu", "softplus", "softsign", "tanh",
):  # fmt: skip
    GRAPHS[f"dense {name}"] = lambda name=name: on_last_state(
        layers.LSTM(4), layers.Dense(3, activation=name), layers.Activation(name)
    )

ALL = {**{f"reference, {name}": build for name, build in REFERENCE.items()}, **GRAPHS}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a function: name of a case, form -> (Keras's model, ours), each made once."""
    made: dict = {}

    def make(name, form="keras"):
        if name not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[name] = ALL[name]()
        if (name, form) not in made:
            made[name, form] = from_keras(saved(made[name], tmp_path_factory.mktemp("keras"), form))
        return made[name], made[name, form]

    return make


def draw(model, batch=5, steps=T, seed=1):
    """Return inputs with masked timesteps at the left, inside, at the right, nowhere and everywhere."""
    generator = np.random.default_rng(seed)
    if model.config.reads_tokens:
        inputs = generator.integers(1, VOCABULARY, size=(batch, steps))
    else:
        inputs = generator.normal(size=(batch, steps, D)).astype(np.float32)
    for row, hidden in enumerate(([0, 1], [2, 4], [steps - 1, steps - 2], [], range(steps))):
        inputs[row, list(hidden)] = 0
    return inputs


def probabilities(model, scores):
    return {"binary": torch.sigmoid, "multiclass": lambda x: x.softmax(-1), "regression": lambda x: x}[
        model.config.task
    ](scores)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ALL)
def test_predictions_are_those_of_keras(models, name, form):
    """For every layer and option, and masks anywhere, predictions are Keras's to 1e-5, from either kind of file."""
    theirs, ours = models(name, form)
    inputs = draw(ours)
    if "masked mean" in name or "masking another" in name or "attention, masked" in name:
        inputs = inputs[:4]  # Keras divides 0 by 0 where all is masked
    expected = predicted(theirs, inputs)
    with torch.no_grad():
        found = probabilities(ours, ours(inputs))
    assert found.shape == expected.shape
    assert expected.std() > 1e-4 or name == "softmax of one"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REFERENCE)
def test_what_is_a_reference_lstm_becomes_one(models, name, tmp_path):
    """Stacked LSTMs and a Dense come back as an LSTMModel, which can be saved and traced."""
    _, ours = models(f"reference, {name}")
    assert type(ours) is LSTMModel
    assert ours.save(tmp_path / "model").is_dir()
    inputs = draw(ours)
    assert all(layer.hidden_state.shape[:2] == (5, T) for layer in ours.trace(inputs).values())


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_not_becomes_a_graph(models, name):
    """Anything else comes back as a KerasModel with real nn.LSTM modules, named as Keras names the layers."""
    theirs, ours = models(name)
    assert type(ours) is KerasModel
    found = {path.split(".")[0] for path, part in ours.named_modules() if isinstance(part, nn.LSTM)}
    kinds = (layers.LSTM, layers.Bidirectional)
    assert found == {layer.name for layer in theirs.layers if isinstance(layer, kinds)}
    assert found


@pytest.mark.parametrize("name", ALL)
def test_a_loaded_model_is_ready(models, name):
    """It is float32, on the CPU, in eval mode, with trainable weights, and says what was found and left out."""
    _, ours = models(name)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in ours.parameters()} == {"cpu"}
    assert all(parameter.requires_grad for parameter in ours.parameters())
    assert not any(part.training for part in ours.modules())
    assert isinstance(ours.data, DataSpec)
    adopted = ours.data.provenance["adopted"]
    assert adopted["file"] == "model.keras"
    assert adopted["format"] == f"keras {keras.__version__}"
    assert len(adopted["found"]) >= 2
    assert DataSpec.from_dict(ours.data.to_dict()) == ours.data


JOINING = ("flatten", "reshape")  # they join all timesteps, so there is no padding
SHAPED = [name for name in ALL if name not in JOINING]


@pytest.mark.parametrize("name", SHAPED)
def test_padding_never_counts(models, name):
    """With lengths, each sequence has the scores it has alone without its padding, whatever stands there."""
    _, ours = models(name)
    inputs, lengths = torch.as_tensor(draw(ours, seed=2)), torch.tensor([T, 4, 3, 2, 5])
    inputs[4] = inputs[3]
    garbage = 7 if ours.config.reads_tokens else float("nan")
    for b, length in enumerate(lengths):
        inputs[b, length:] = garbage
    with torch.no_grad():
        together = ours(inputs, lengths)
        for b, length in enumerate(lengths):
            alone = ours(inputs[b : b + 1, :length])[0]
            if together.ndim == 3 and name != "encoder and decoder":
                assert not together[b, length:].any()
                torch.testing.assert_close(together[b, :length], alone, rtol=1e-5, atol=1e-5)
            else:
                torch.testing.assert_close(together[b], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", JOINING)
def test_a_model_that_joins_all_timesteps_refuses_padding(models, name):
    """Where all timesteps become one vector, padding and other lengths are refused with a reason."""
    _, ours = models(name)
    inputs = draw(ours)
    with pytest.raises(InvalidInputError, match=r"joins all timesteps\. Leave out"):
        ours(inputs, [T, T, 2, T, T])
    for steps in (1, 4, T + 2):
        message = rf"inputs has {steps} timesteps?; expected {T}, because .*'{name}.*\. Cut longer .* windows of {T},"
        with pytest.raises(InvalidInputError, match=message):
            ours(np.concatenate([inputs, inputs], axis=1)[:, :steps])


@pytest.mark.parametrize("name", SHAPED)
def test_other_layers_read_any_number_of_timesteps(models, name):
    """A fixed number of timesteps in Keras's Input binds nobody else: longer sequences are read, to their ends."""
    _, ours = models(name)
    inputs = draw(ours, seed=2)
    longer = np.concatenate([inputs, draw(ours, seed=3)[:, :4]], axis=1)
    with torch.no_grad():
        cut = ours(longer, [T] * len(longer))
        shorter = ours(inputs)
        whole = ours(longer)
    torch.testing.assert_close(cut[:, : shorter.shape[1]], shorter, rtol=1e-5, atol=1e-5)
    assert len(whole) == len(longer)
    if name not in ("softmax of one", "reference, softmax of one"):
        assert not torch.allclose(whole[:, -1], cut[:, -1], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in SHAPED if "masked" not in name and "softmax of one" not in name])
def test_gradients_reach_the_inputs(models, name):
    """The gradient at float inputs is that of finite differences in float64, and 0 at padding."""
    _, ours = models(name)
    if ours.config.reads_tokens:
        return
    ours = copy.deepcopy(ours).double()
    inputs = torch.as_tensor(draw(ours, batch=5, seed=3))[:2].double().requires_grad_()
    with torch.no_grad():
        inputs[inputs == 0] = 0.3
    lengths = torch.tensor([T, 4])
    (gradient,) = torch.autograd.grad(ours(inputs, lengths).sum(), inputs)
    assert gradient[0].any()
    assert not gradient[1, 4:].any()
    step = torch.zeros_like(inputs).normal_(generator=torch.Generator().manual_seed(0)) * 1e-6
    with torch.no_grad():
        change = ours(inputs + step, lengths).sum() - ours(inputs - step, lengths).sum()
    torch.testing.assert_close(2 * (gradient * step).sum(), change, rtol=1e-4, atol=1e-10)


def test_the_names_of_modules_are_usable(tmp_path):
    """A dot in a layer's name and a name that torch keeps for itself do not stand in the way."""
    model = sequential(
        features(),
        layers.LSTM(2, return_sequences=True, name="lstm_first", activation="sigmoid"),
        layers.LSTM(2, name="forward"),
        layers.Dense(1, name="config"),
    )
    path = saved(model, tmp_path)
    edit(path, lambda text: text.replace("lstm_first", "lstm.first"))  # as Keras allows it on another backend
    ours = from_keras(path)
    assert [path for path, part in ours.named_modules() if isinstance(part, nn.LSTM)] == ["lstm_first", "forward_"]
    assert isinstance(ours.lstm_first, ActivationLSTM)
    inputs = draw(ours)
    np.testing.assert_allclose(ours(inputs).detach(), predicted(model, inputs), rtol=1e-5, atol=1e-5)


def test_all_masked_counts_as_nothing(models):
    """Where Keras divides 0 by 0, the mean over no timesteps is 0, so that a method may mask all of them."""
    _, ours = models("masked mean")
    with torch.no_grad():
        scores = ours(np.zeros((1, T), dtype=int))
    bias = getattr(ours, ours.graph.steps[-1].name).bias
    torch.testing.assert_close(scores[0], bias, rtol=0, atol=0)


def test_print_tells_the_graph(models):
    """print(model) lists the steps with what each reads."""
    _, ours = models("attention pooled")
    text = repr(ours)
    assert "task=multiclass" in text
    assert "Attention" in text
    assert "LSTM, 5 units, tanh, gates sigmoid, every timestep's output" in text


def test_config_is_plain(models):
    """The config says what gatelens asks of every model, and is plain data."""
    _, ours = models("masked")
    config = ours.config
    assert (config.input_size, config.vocab_size, config.padding_index) == (None, VOCABULARY, 0)
    assert (config.output_size, config.task, config.reads_tokens, config.per_timestep) == (3, "multiclass", True, False)
    assert json.loads(json.dumps(config.to_dict()))["task"] == "multiclass"
    assert models("encoder and decoder")[1].config.per_timestep


@pytest.mark.parametrize("name", ["masked", "attention pooled", "encoder and decoder", "attention per timestep"])
def test_a_predictor_can_call_it(models, name):
    """The one way that explainers call a model works, with lengths, scores and a target."""
    _, ours = models(name)
    predictor = Predictor(ours)
    inputs, lengths = predictor.check(draw(ours), [T, 4, 3, 2, 5])
    scores = predictor.predict(inputs, lengths)
    torch.testing.assert_close(scores, ours(inputs, lengths).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [(np.zeros((2, T)), "expected .batch, time, features=3."), (np.zeros((2, T, 5)), "5 features")],
)
def test_forward_refuses(models, inputs, message):
    """What does not fit is refused with the sentence that an LSTMModel has for it."""
    with pytest.raises(InvalidInputError, match=message):
        models("attention pooled")[1](inputs)
