"""Attention: the weights computed by hand from the hidden states are the oracle."""

import numpy as np
import pytest
import torch

from gatelens.explainers import Attention, explain
from gatelens.explainers.registry import _works_on
from gatelens.models import ModelError, Predictor
from helpers.explained import LENGTHS, Foreign, linear_function, lstm, sequences, token_ids


def weights_by_hand(model, inputs):
    """Return softmax(v . tanh(W h_t + b)) or softmax(h_t . q) of one sequence without padding, (L,), in numpy."""
    trace = model.trace(inputs)
    names = [name for name in trace if name.startswith(f"lstm.{len(model.lstm) - 1}")]
    hidden = np.concatenate([trace[name].hidden_state[0].double().numpy() for name in names], axis=1)  # (L, F)
    state = {name: value.double().numpy() for name, value in model.pooling.state_dict().items()}
    if model.config.pooling == "dot_attention":
        width = model.config.hidden_sizes[-1]
        energy = hidden @ np.concatenate([hidden[-1, :width], hidden[0, width:]])
    else:
        energy = np.tanh(hidden @ state["key.weight"].T + state["key.bias"]) @ state["query"]
    exponential = np.exp(energy - energy.max())
    return exponential / exponential.sum()


@pytest.mark.parametrize(
    "config", [{}, {"bidirectional": True}, {"hidden_sizes": (4, 6)}, {"vocab_size": 9, "embedding_dim": 4}]
)
@pytest.mark.parametrize("pooling", ["attention", "dot_attention"])
def test_weights_are_those_of_the_pooling(config, pooling):
    """A timestep gets the weight that the pooling gives it, in a padded batch as alone; a sequence's sum to 1."""
    model = lstm(pooling=pooling, strength=4.0, **config)
    inputs = token_ids(3, 6) if "vocab_size" in config else sequences(3, 6, 3)
    result = Attention(model).explain(inputs, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        expected = weights_by_hand(model, inputs[row : row + 1, :length])
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-6)
        assert not result.timesteps[row, length:].any()
    np.testing.assert_allclose(result.timesteps.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(result.timesteps[0]) > 0.01
    assert (result.resolution, result.attrs["completeness"]) == ("timestep", "none")


def test_features_share_a_timestep_s_weight():
    """The weight belongs to the timestep: its features have equal parts of it."""
    result = Attention(lstm(pooling="attention")).explain(sequences(2, 5, 3))
    np.testing.assert_allclose(result.values, np.repeat(result.timesteps[..., None] / 3, 3, axis=2), atol=1e-7)
    assert not result.resolves_features


def test_targets_and_baselines_change_nothing():
    """The weights know neither the explained output nor the baseline; the prediction told is that of the target."""
    model, inputs = lstm(pooling="attention", output_size=3, task="multiclass"), sequences(2, 5, 3)
    first, second = (
        Attention(model, baseline=base, output=output).explain(inputs, target=target)
        for base, output, target in (("zero", "logit", 0), (1.0, "probability", 2))
    )
    np.testing.assert_array_equal(first.values, second.values)
    with torch.no_grad():
        np.testing.assert_allclose(first.prediction, model(inputs)[:, 0], rtol=0, atol=1e-6)


def test_small_batches_give_the_same_weights():
    """How many rows fit the budget changes nothing, and each is evaluated once beside prediction and baseline."""
    model, inputs = lstm(pooling="attention"), sequences(5, 6, 3)
    small = Attention(Predictor(model, memory_bytes=1)).explain(inputs)
    np.testing.assert_allclose(small.values, Attention(model).explain(inputs).values, rtol=0, atol=1e-7)
    assert small.attrs["forward_evaluations"] == 2 * 5 + 1


def test_no_hook_stays():
    """The pooling has no hook left, also after the model raised."""
    model = lstm(pooling="attention")
    explainer = Attention(model)
    explainer.explain(sequences(1, 4, 3))
    model.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("on purpose")))
    with pytest.raises(ModelError, match="on purpose"):
        explainer.explain(sequences(1, 4, 3))
    assert not model.pooling._forward_pre_hooks


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "none"])
def test_other_poolings_are_refused(pooling):
    """A model that pools otherwise is refused when the explainer is made, with what works on it."""
    with pytest.raises(
        ModelError, match=rf"LSTMModel with pooling '{pooling}', without weights.*kernel_shap, occlusion"
    ):
        Attention(lstm(pooling=pooling))


def test_other_models_are_refused():
    """A stranger's module and a function are refused by name, and `explain` does not take attention for fit."""
    with pytest.raises(ModelError, match=r"is a Foreign, without weights.*integrated_gradients"):
        Attention(Foreign())
    with pytest.raises(ModelError, match="attention needs a torch module"):
        Attention(linear_function(sequences(4, 3)))
    with pytest.raises(ModelError, match="pooling 'last'"):
        explain(lstm(), sequences(1, 4, 3), "attention")


def test_the_registry_knows_what_it_works_on():
    """Only models with attention pooling have what the method needs."""
    fits = [
        lstm(pooling="attention"), lstm(pooling="dot_attention"), lstm(), Foreign(), linear_function(sequences(4, 3))
    ]  # fmt: skip
    assert [_works_on(Attention, Predictor(model)) for model in fits] == [True, True, False, False, False]
