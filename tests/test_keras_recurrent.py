"""Gates of saved Keras models lie along the model's input timesteps, whatever order masks and directions make of them.

The oracle takes Keras's own layers with their weights and computes the equations in float64, one sequence, layer,
direction and timestep after another, each hidden state beside the input timestep that it was made at.
"""

import copy
import warnings

import numpy as np
import pytest
import torch

from gatelens.explainers import GateSaliency
from gatelens.models import LSTMModel, Predictor, trace_gradients
from gatelens.models.keras_files import from_keras
from gatelens.models.keras_recurrent import MERGES
from gatelens.models.recorder import record
from gatelens.models.trace import GATES, QUANTITIES
from gatelens.models.tracing import trace_of
from helpers.keras_made import keras, predicted, saved, sequential

layers = keras.layers
T, D, VOCABULARY = 6, 3, 9


def tokens(*body):
    return sequential(keras.Input((None,)), layers.Embedding(VOCABULARY, D, mask_zero=True), *body)


def floats(*body):
    return sequential(keras.Input((None, D)), *body)


def lstm(units=3, *, sequences=False, **options):
    return layers.LSTM(units, return_sequences=sequences, **options)


def both(merge="concat", *, sequences=False, unlike=False):
    if not unlike:
        return layers.Bidirectional(lstm(sequences=sequences), merge_mode=merge)
    backward = lstm(sequences=sequences, activation="relu", go_backwards=True)
    return layers.Bidirectional(lstm(sequences=sequences), backward_layer=backward, merge_mode=merge)


def head():
    return layers.Dense(2)


BODIES = {
    "one": lambda: [lstm(), head()],
    "stacked": lambda: [lstm(4, sequences=True), lstm(), head()],
    "stacked, zero output": lambda: [lstm(4, sequences=True, zero_output_for_mask=True), lstm(), head()],
    "per timestep": lambda: [lstm(sequences=True), head()],
    "backwards": lambda: [lstm(go_backwards=True), head()],
    "backwards, then forwards": lambda: [lstm(4, sequences=True, go_backwards=True), lstm(), head()],
    "forwards, then backwards": lambda: [lstm(4, sequences=True), lstm(go_backwards=True), head()],
    "backwards twice, then forwards": lambda: [
        lstm(4, sequences=True, go_backwards=True), lstm(2, sequences=True, go_backwards=True), lstm(), head(),
    ],
    "backwards per timestep": lambda: [lstm(sequences=True, go_backwards=True), head()],
    "backwards, then both": lambda: [lstm(4, sequences=True, go_backwards=True), both(sequences=True), both(), head()],
    "backwards, then both unlike": lambda: [lstm(4, sequences=True, go_backwards=True), both(unlike=True), head()],
    "both, then backwards": lambda: [both(sequences=True), lstm(4, sequences=True, go_backwards=True), lstm(), head()],
    "both unlike, stacked": lambda: [both(sequences=True, unlike=True), both(unlike=True), head()],
}  # fmt: skip
for merge_mode in MERGES:
    BODIES[f"both {merge_mode}"] = lambda merge=merge_mode: [both(merge), head()]
    BODIES[f"both {merge_mode}, stacked"] = lambda merge=merge_mode: [both(merge, sequences=True), both(merge), head()]

MASKS = {  # masked timesteps of each sequence
    "left": ([0, 1], [0, 1, 2]),
    "right": ([4, 5], [5]),
    "middle": ([2], [1, 3, 4]),
    "all kinds": ([0, 1], [5], [1, 4], [], [0, 2, 5], [0, 1, 2, 3, 4]),
    "none": ([], []),
}


# -- the oracle --------------------------------------------------------------------------------------------------------


def weights_of(layer):
    return [weight.value.detach().double() for weight in layer.weights]


def one_direction(layer, places, mask, found, *, zero_masked=False):
    """Return the outputs in the order of reading; put (i, f, g, o, c, h) into `found` at the timesteps read.

    `places` are (input timestep, vector) as they stand before the layer, `mask` tells which of them count.
    """
    kernel, recurrent, bias = weights_of(layer)
    phi = {"tanh": torch.tanh, "relu": torch.relu}[layer.activation.__name__]
    h = c = torch.zeros(len(recurrent), dtype=torch.float64, requires_grad=True)
    outputs = []
    steps = list(zip(places, mask, strict=True))
    for (time, vector), counts in reversed(steps) if layer.go_backwards else steps:
        if counts:
            i, f, g, o = (vector @ kernel + h @ recurrent + bias).split(len(recurrent))
            i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), phi(g), torch.sigmoid(o)
            c = f * c + i * g
            h = o * phi(c)
            found[time] = (i, f, g, o, c, h)
        outputs.append((time, torch.zeros_like(h) if zero_masked and not counts else h))
    return outputs, h


def two_directions(layer, names, places, mask, found):
    """Return both directions merged: at each place, and their last outputs."""
    join = {
        "concat": lambda one, other: torch.cat([one, other]),
        "sum": torch.add,
        "ave": lambda one, other: (one + other) / 2,
        "mul": torch.mul,
    }[layer.merge_mode]
    forward, last = one_direction(layer.forward_layer, places, mask, found[names[0]], zero_masked=True)
    backward, first = one_direction(layer.backward_layer, places, mask, found[names[1]], zero_masked=True)
    merged = [(time, join(one, other)) for (time, one), (_, other) in zip(forward, reversed(backward), strict=True)]
    return merged, join(last, first)


def names_of(layer):
    """Return what gatelens calls the directions of one of Keras's layers."""
    if isinstance(layer, layers.LSTM):
        return [f"{layer.name}.0"]
    if layer.forward_layer.activation is layer.backward_layer.activation:
        return [f"{layer.name}.0", f"{layer.name}.0.reverse"]
    return [f"{layer.name}.forwards.0", f"{layer.name}.backwards.0"]


def widths_of(model):
    """Return the name of each direction -> its units."""
    widths = {}
    for layer in model.layers:
        if isinstance(layer, (layers.LSTM, layers.Bidirectional)):
            units = layer.units if isinstance(layer, layers.LSTM) else layer.forward_layer.units
            widths |= dict.fromkeys(names_of(layer), units)
    return widths


def run(model, sequence):
    """Return scores (K,) or (T, K), what the first layer reads, and direction -> timestep -> the six quantities.

    `sequence` is one, (T, D) or ids (T,), without padding. Keras hands on a mask as it is, also where a layer's
    outputs come in reversed order.
    """
    mask = [True] * len(sequence)
    read = [torch.tensor(row, dtype=torch.float64) for row in sequence]
    found = {name: {} for name in widths_of(model)}
    places = last = None
    for layer in model.layers:
        if isinstance(layer, layers.Embedding):
            mask = [bool(token) for token in sequence]
            (table,) = weights_of(layer)
            read = [table[int(token)].clone() for token in sequence]
        elif isinstance(layer, layers.Masking):
            mask = [bool((row != layer.mask_value).any()) for row in sequence]
        if isinstance(layer, (layers.LSTM, layers.Bidirectional)):
            if places is None:
                read = [vector.requires_grad_() for vector in read]
                places = list(enumerate(read))
            if isinstance(layer, layers.LSTM):
                zero = layer.zero_output_for_mask
                places, last = one_direction(layer, places, mask, found[layer.name + ".0"], zero_masked=zero)
            else:
                places, last = two_directions(layer, names_of(layer), places, mask, found)
            if not layer.return_sequences:
                places = ()
        if isinstance(layer, layers.Dense):
            kernel, bias = weights_of(layer)
            last = torch.stack([vector for _, vector in places]) if places else last
            last = last @ kernel + bias
    return last, read, found


def expected(model, inputs, lengths, target):
    """Return scores of each sequence; direction -> quantity -> values, and gradients, (B, T, H); d score / d inputs."""
    batch, steps = inputs.shape[:2]
    widths = widths_of(model)
    values, gradients = (
        {name: {key: torch.zeros(batch, steps, units).double() for key in QUANTITIES} for name, units in widths.items()}
        for _ in range(2)
    )
    to_inputs = torch.zeros(batch, steps, D).double()
    all_scores = []
    for b, length in enumerate(lengths):
        scores, read, found = run(model, inputs[b, :length])
        all_scores.append(scores.detach())
        cells = [(name, time, six) for name, times in found.items() for time, six in times.items()]
        flat = [*read, *(value for _, _, six in cells for value in six)]
        slopes = iter(torch.autograd.grad(scores[target], flat, allow_unused=True))
        for time in range(length):
            slope = next(slopes)
            to_inputs[b, time] = 0 if slope is None else slope
        for name, time, six in cells:
            for key, value in zip(QUANTITIES, six, strict=True):
                slope = next(slopes)
                values[name][key][b, time] = value.detach()
                gradients[name][key][b, time] = 0 if slope is None else slope
    return all_scores, values, gradients, to_inputs


def assert_same(trace, oracle):
    """Check that a trace holds just the oracle's layers, and their numbers at every timestep."""
    assert list(trace) == list(oracle)
    for name, layer in trace.items():
        for key in QUANTITIES:
            torch.testing.assert_close(getattr(layer, key), oracle[name][key], rtol=1e-9, atol=1e-9)


# -- every way of reading ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a function: name of a body, how it begins -> (Keras's model, ours in float64), each made once."""
    made: dict = {}

    def make(name, start=tokens):
        if (name, start) not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = start(*BODIES[name]())
            ours = from_keras(saved(theirs, tmp_path_factory.mktemp("keras")))
            made[name, start] = theirs, copy.deepcopy(ours).double()
        return made[name, start]

    return make


def draw_ids(masked, seed=1):
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, size=(len(masked), T))
    for row, hidden in enumerate(masked):
        ids[row, hidden] = 0
    return ids


def draw(batch=3, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, T, D))


def target_of(name):
    return (1, 0) if "per timestep" in name else 1


def check_everything(theirs, ours, inputs, lengths, target):
    """Check recorded and traced gates, their gradients, those at the inputs, and gate saliency against the oracle."""
    lengths = [T] * len(inputs) if lengths is None else lengths
    scores, values, gradients, to_inputs = expected(theirs, inputs, lengths, target)
    predictor = Predictor(ours)
    checked, checked_lengths = predictor.check(inputs, lengths)
    with torch.no_grad(), record(ours) as recording:
        found = ours(checked, checked_lengths)
    for b, length in enumerate(lengths):
        torch.testing.assert_close(found[b, :length] if found.ndim == 3 else found[b], scores[b], rtol=1e-9, atol=1e-9)
    if isinstance(ours, LSTMModel):  # it counts its layers
        values, gradients = (dict(zip(recording.trace, side.values(), strict=True)) for side in (values, gradients))
    else:
        assert_same(recording.trace, values)
    assert_same(trace_of(predictor, checked, checked_lengths), values)

    traced, slopes = trace_gradients(predictor, inputs, target=target, lengths=lengths)
    assert_same(traced, values)
    assert_same(slopes, gradients)
    torch.testing.assert_close(slopes.inputs, to_inputs, rtol=1e-9, atol=1e-9)

    saliency = GateSaliency(ours).explain(inputs, target=target, lengths=lengths)
    array = saliency.dataset["gate_attribution"].to_numpy()  # (B, layer, T, gate, H)
    summed = np.zeros(array.shape[:1] + array.shape[2:3])
    for index, name in enumerate(values):
        for position, gate in enumerate(GATES):
            product = (values[name][gate] * gradients[name][gate]).numpy()
            summed += product.sum(axis=2)
            np.testing.assert_allclose(array[:, index, :, position, : product.shape[2]], product, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(saliency.timesteps, summed, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("name", BODIES)
def test_gates_of_masked_tokens(models, name, masked):
    """Where zeros are skipped, at the left, right, inside or nowhere, gates stand at the ids that were read; 0 between.

    Values and gradients are the oracle's at every timestep, recorded, traced, and in gate saliency.
    """
    theirs, ours = models(name)
    check_everything(theirs, ours, draw_ids(MASKS[masked]), None, target_of(name))


@pytest.mark.parametrize("lengths", [None, [T, 4, 2]])
@pytest.mark.parametrize("name", BODIES)
def test_gates_of_floats(models, name, lengths):
    """The same for floats without a mask, whole and padded: backwards is from the last valid timestep to the first."""
    theirs, ours = models(name, floats)
    inputs = draw()
    for b, length in enumerate(lengths or ()):
        inputs[b, length:] = 100
    check_everything(theirs, ours, inputs, lengths, target_of(name))


@pytest.mark.parametrize("name", BODIES)
def test_gates_of_masked_and_padded_tokens(models, name):
    """A mask and padding at once: each sequence is as it is alone."""
    theirs, ours = models(name)
    ids = draw_ids(([0, 1], [1, 2], [4], []))
    check_everything(theirs, ours, ids, [5, 4, 6, 3], target_of(name))


@pytest.mark.parametrize("name", ["both concat", "both sum, stacked", "backwards, then both"])
def test_states_have_no_gradient_where_nothing_is_read(models, name):
    """At a masked timestep there is no state, so its gradient is 0, in either direction."""
    theirs, ours = models(name)
    ids = draw_ids(MASKS["all kinds"])
    _, _, gradients, _ = expected(theirs, ids, [T] * len(ids), 1)
    assert_same(trace_gradients(ours, ids, target=1)[1], gradients)


def test_no_gates_where_all_is_masked(models):
    """A sequence that is masked all over has no gates; beside others, or alone."""
    theirs, ours = models("both concat, stacked")
    for ids in (draw_ids((range(T), [0, 1])), draw_ids((range(T),))):
        with torch.no_grad(), record(ours) as recording:
            ours(ids)
        assert_same(recording.trace, expected(theirs, ids, [T] * len(ids), 1)[1])


@pytest.mark.parametrize("name", ["stacked", "backwards, then forwards", "both concat, stacked"])
def test_gates_of_masked_floats(name, tmp_path):
    """Timesteps that Masking skips have no gates and no gradient at the inputs."""
    theirs = floats(layers.Masking(0.5), *BODIES[name]())
    ours = from_keras(saved(theirs, tmp_path)).double()
    inputs = draw()
    inputs[0, :2] = inputs[1, [2, 5]] = 0.5
    check_everything(theirs, ours, inputs, None, 1)


@pytest.mark.parametrize("name", [name for name in BODIES if "per timestep" not in name])
def test_the_oracle_is_keras(models, name):
    """The oracle's scores are Keras's own, so that it is no second guess of the same mistake."""
    for start, inputs in ((tokens, draw_ids(MASKS["all kinds"])), (floats, draw())):
        theirs, _ = models(name, start)
        scores = expected(theirs, inputs, [T] * len(inputs), 1)[0]
        np.testing.assert_allclose(torch.stack(scores), predicted(theirs, inputs), rtol=1e-4, atol=1e-5)


def test_a_sequence_that_is_masked_all_over(models):
    """It moves no gate: every gradient is 0, and the other sequences of the batch have the oracle's."""
    theirs, ours = models("both concat, stacked")
    ids = draw_ids((range(T), [0, 1]))
    _, _, gradients, to_inputs = expected(theirs, ids[1:], [T], 1)
    _, slopes = trace_gradients(ours, ids, target=1)
    assert not slopes.inputs[0].any()
    torch.testing.assert_close(slopes.inputs[1:], to_inputs, rtol=1e-9, atol=1e-9)
    for name, layer in slopes.items():
        for gate in GATES:
            assert not getattr(layer, gate)[0].any()
            torch.testing.assert_close(getattr(layer, gate)[1:], gradients[name][gate], rtol=1e-9, atol=1e-9)


def test_recording_leaves_the_model_as_it_was(models):
    """What tells recorders the order of reading is gone after the call, also after one that failed."""
    _, ours = models("backwards, then both unlike")
    before = {name: set(vars(part)) for name, part in ours.named_modules()}
    ids = draw_ids(MASKS["left"])
    with record(ours):
        ours(ids)
    ours(ids)
    assert {name: set(vars(part)) for name, part in ours.named_modules()} == before
