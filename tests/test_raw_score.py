"""What the three methods that take one run's score apart share: trimming, and refusing probabilities."""

import numpy as np
import pytest
import torch

from gatelens.explainers import LRP, CellDecomposition, ContextualDecomposition
from gatelens.models import InvalidInputError, ModelError
from helpers.explained import lstm, sequences

METHODS = [LRP, CellDecomposition, ContextualDecomposition]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("config", [{}, {"bidirectional": True}, {"activation": "relu"}], ids=str)
def test_padding_that_all_samples_have_changes_nothing(method, config):
    """Where every sequence is shorter than T, values are those of shorter arrays, and 0 behind them."""
    explainer = method(lstm(**config, double=True))
    inputs = sequences(2, 6, 3, double=True)
    found = explainer.explain(inputs, lengths=[4, 3]).values
    expected = explainer.explain(inputs[:, :4], lengths=[4, 3]).values
    np.testing.assert_allclose(found[:, :4], expected, rtol=1e-12)
    assert found.shape == (2, 6, 3)
    assert not found[:, 4:].any()


def test_phrases_may_reach_into_padding_that_all_samples_have():
    """A span may end at T though every sequence is shorter."""
    explainer = ContextualDecomposition(lstm(bidirectional=True, double=True))
    inputs = sequences(2, 6, 3, double=True)
    found = explainer.decompose(inputs, 1, 6, lengths=[4, 3])
    np.testing.assert_allclose(found, explainer.decompose(inputs[:, :4], 1, 4, lengths=[4, 3]), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_are_refused(method):
    """There is no rule for a sigmoid or softmax, and the refusal says what to do."""
    for task, outputs in (("binary", 1), ("multiclass", 3)):
        model = lstm(task=task, output_size=outputs)
        with pytest.raises(InvalidInputError, match=rf"{method.name} takes the raw score apart.*--output logit"):
            method(model, output="probability")
        assert method(model).explain(sequences(1, 4, 3)).values.any()


@pytest.mark.parametrize("method", METHODS)
def test_a_module_whose_forward_does_something_else_is_refused(method):
    """Scores that are not those of the weights are noticed, also by `decompose`."""
    explainer = method(lstm(double=True))
    explainer.predictor.model.register_forward_hook(lambda _module, _inputs, output: output + 1)
    calls = [lambda: explainer.explain(sequences(1, 4, 3))]
    if method is ContextualDecomposition:
        calls.append(lambda: explainer.decompose(sequences(1, 4, 3), 0, 2))
    for call in calls:
        with pytest.raises(ModelError, match=f"{method.name} computes scores from the model's weights"):
            call()


@pytest.mark.parametrize("method", METHODS)
def test_the_baseline_changes_no_value(method):
    """The baseline is no part of the method: it changes no value."""
    model = lstm()
    inputs = sequences(2, 6, 3)
    zero, mean = (method(model, baseline=baseline).explain(inputs) for baseline in ("zero", torch.ones(3)))
    np.testing.assert_array_equal(zero.values, mean.values)
    assert (zero.baseline_prediction != mean.baseline_prediction).all()
