"""Layers of several inputs: which input timestep stands at each place of what they give, and lengths that do not fit.

Keras itself is the oracle: its own states of the layer that reads the merged sequence, place by place.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from gatelens.models import InvalidInputError, Predictor
from gatelens.models.keras_files import from_keras
from gatelens.models.keras_layer import Flow
from gatelens.models.keras_merging import common_times
from gatelens.models.tracing import trace_of
from helpers.keras_made import functional, keras, predicted, saved

layers = keras.layers
T, D, H = 6, 3, 4
MERGES = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")


def forwards(values):
    return layers.LSTM(H, return_sequences=True)(values)


def backwards(values):
    return layers.LSTM(H, return_sequences=True, go_backwards=True)(values)


def pooled(values):
    """Return (B, 1, H), which goes with any number of timesteps."""
    return layers.GlobalAveragePooling1D(keepdims=True)(forwards(values))


def draw(steps=T, batch=3):
    return np.random.default_rng(1).normal(size=(batch, steps, D)).astype("float32")


REVERSED = {
    **{name: lambda x, kind=name: getattr(layers, kind)()([backwards(x), backwards(x)]) for name in MERGES},
    "one for all, then reversed": lambda x: layers.Multiply()([pooled(x), backwards(x)]),
    "reversed, then one for all": lambda x: layers.Multiply()([backwards(x), pooled(x)]),
    "a reversed query": lambda x: layers.Attention()([backwards(x), forwards(x)]),
}
IN_ORDER = {
    **{name: lambda x, kind=name: getattr(layers, kind)()([forwards(x), forwards(x)]) for name in MERGES},
    "reversed twice": lambda x: layers.Add()([backwards(backwards(x)), forwards(x)]),
    "reversed and not": lambda x: layers.Concatenate()([backwards(x), forwards(x)]),
    "not and reversed": lambda x: layers.Concatenate()([forwards(x), backwards(x)]),
    "reversed values and keys": lambda x: layers.AdditiveAttention()([forwards(x), backwards(x)]),
}


@pytest.mark.parametrize(
    ("build", "is_reversed"),
    [(build, True) for build in REVERSED.values()] + [(build, False) for build in IN_ORDER.values()],
    ids=[f"{name}, reversed" for name in REVERSED] + [f"{name}, in order" for name in IN_ORDER],
)
def test_where_the_gates_after_a_merge_lie(tmp_path, build, is_reversed):
    """What all inputs have reversed is laid back along the model's inputs; where they disagree, as it stands."""
    inputs = keras.Input((T, D))
    hidden = layers.LSTM(H, return_sequences=True, name="last")(build(inputs))
    theirs = functional(inputs, layers.Dense(1)(layers.GlobalMaxPooling1D()(hidden)))
    ours = from_keras(saved(theirs, tmp_path))
    states = torch.tensor(predicted(keras.Model(inputs, hidden), draw()))  # (B, T, H)
    trace = trace_of(Predictor(ours), torch.tensor(draw()), torch.tensor([T] * 3))
    expected = states.flip(1) if is_reversed else states
    assert not torch.allclose(states, states.flip(1), atol=1e-3)
    torch.testing.assert_close(trace["last.0"].hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_common_times():
    """One order for all inputs that have timesteps, whether it is written out or not; else none."""

    def flow(times, steps=3):
        return Flow(torch.zeros(1, steps, 2), times=times)

    turned, plain, one = torch.tensor([[2, 1, 0]]), torch.tensor([[0, 1, 2]]), torch.tensor([[0]])

    def order(*flows: Flow) -> Tensor | list:
        found = common_times(flows)
        return found if found is None else found.tolist()

    assert order(flow(None), flow(None)) is None
    assert order(flow(turned), flow(turned.clone())) == turned.tolist()
    assert order(flow(turned), flow(None)) is None
    assert order(flow(None), flow(plain)) == plain.tolist()
    assert order(flow(one, 1), flow(turned), flow(None, 1)) == turned.tolist()


REPEATED = {
    "add": lambda x: layers.Add()([forwards(x), layers.RepeatVector(T)(layers.LSTM(H)(x))]),
    "concatenate": lambda x: layers.Concatenate()([layers.RepeatVector(T)(layers.LSTM(2)(x)), forwards(x)]),
    "attention": lambda x: layers.Attention()(
        [forwards(x), forwards(x), layers.RepeatVector(T)(layers.LSTM(H)(x))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_inputs_of_another_length_than_a_fixed_sequence(tmp_path, name):
    """A sequence of as many timesteps as the model was made for goes only with inputs of that length; told why."""
    inputs = keras.Input((T, D))
    theirs = functional(inputs, layers.Dense(1)(layers.LSTM(2)(REPEATED[name](inputs))))
    ours = from_keras(saved(theirs, tmp_path))
    with torch.no_grad():
        np.testing.assert_allclose(ours(draw()), predicted(theirs, draw()), rtol=1e-5, atol=1e-5)
    label = f"{name}.*puts them together.*windows of {T}"
    for steps in (1, T - 1, T + 2):
        with pytest.raises(InvalidInputError, match=f"inputs has {steps} timesteps?; expected {T}, because .*{label}"):
            ours(draw(steps))
