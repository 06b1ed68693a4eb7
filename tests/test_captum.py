"""Integrated gradients: captum called by hand is the oracle; then steps, lengths and completeness."""

import captum.attr
import numpy as np
import pytest
import torch

from gatelens.explainers import IntegratedGradients
from gatelens.explainers.captum import COMPLETE_WITHIN, FIRST_STEPS, MOST_GIVEN_STEPS, MOST_STEPS
from gatelens.models import InvalidInputError, InvalidTypeError
from helpers.explained import LENGTHS, lstm, sequences, token_ids


def by_hand(model, inputs, baseline, steps, output=0):
    """Return captum's own integrated gradients of one output."""
    return (
        captum.attr.IntegratedGradients(lambda values: model(values)[:, output])
        .attribute(inputs, baselines=baseline, n_steps=steps, method="gausslegendre")
        .detach()
        .numpy()
    )


@pytest.mark.parametrize("double", [False, True])
def test_features_equal_captum(double):
    """With the same steps the attribution is captum's."""
    model, inputs = lstm(hidden_sizes=(6, 4), double=double), sequences(3, 6, 3, double=double)
    found = IntegratedGradients(model, steps=40).explain(inputs).values
    expected = by_hand(model, inputs, torch.zeros_like(inputs), 40)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 if double else 1e-6)
    assert np.abs(expected).max() > 0.01


def test_the_class_and_the_baseline_reach_captum():
    """A target and a baseline of numbers mean what they mean to captum."""
    model, inputs = lstm(output_size=3, task="multiclass"), sequences(2, 5, 3)
    baseline = sequences(5, 3, seed=8)
    found = IntegratedGradients(model, steps=30, baseline=baseline).explain(inputs, target=2)
    expected = by_hand(model, inputs, baseline.expand(inputs.shape).contiguous(), 30, output=2)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_variable_lengths_equal_trimmed_singles(bidirectional):
    """A padded sequence gets what captum finds for the same sequence without its padding."""
    model, inputs = lstm(bidirectional=bidirectional, pooling="mean"), sequences(3, 6, 3)
    found = IntegratedGradients(model, steps=40).explain(inputs, lengths=LENGTHS).values
    for row, length in enumerate(LENGTHS):
        trimmed = inputs[row : row + 1, :length]
        expected = by_hand(model, trimmed, torch.zeros_like(trimmed), 40)[0]
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=1e-6)
        assert not found[row, length:].any()


@pytest.mark.parametrize("baseline", [0, 3])
def test_tokens_equal_captum_on_the_embedding(baseline):
    """Of token ids it is captum's LayerIntegratedGradients at the embedding, summed over its width."""
    model, ids = lstm(vocab_size=9, embedding_dim=4), token_ids(3, 6)
    found = IntegratedGradients(model, steps=40, baseline=baseline).explain(ids, lengths=LENGTHS).values
    layer = captum.attr.LayerIntegratedGradients(lambda values: model(values)[:, 0], model.embedding)
    for row, length in enumerate(LENGTHS):
        trimmed = ids[row : row + 1, :length]
        expected = layer.attribute(
            trimmed, baselines=torch.full_like(trimmed, baseline), n_steps=40, method="gausslegendre"
        )
        np.testing.assert_allclose(
            found[row, :length, 0], expected.sum(2)[0].detach().numpy(), rtol=0, atol=1e-6, err_msg=f"row {row}"
        )
    assert not found[2, 2:].any()


def test_more_steps_are_taken_where_they_are_needed():
    """Without `steps` every sample is complete within 0.5 %, and only those that need it take more than 64 points."""
    model = lstm(strength=7.0, hidden_sizes=(8, 8))
    inputs = torch.cat([sequences(5, 8, 3) * 3, sequences(1, 8, 3) * 1e-2])
    result = IntegratedGradients(model).explain(inputs)
    used = result.diagnostic("steps")
    explained = np.abs(result.prediction - result.baseline_prediction)
    done = used < MOST_STEPS
    assert (np.abs(result.completeness_gap)[done] <= COMPLETE_WITHIN * explained[done]).all()
    assert used[-1] == FIRST_STEPS
    assert used.max() > FIRST_STEPS
    fixed = IntegratedGradients(model, steps=FIRST_STEPS).explain(inputs)
    missed = np.abs(fixed.completeness_gap) > COMPLETE_WITHIN * explained
    np.testing.assert_array_equal(used > FIRST_STEPS, missed)
    for row in range(len(inputs)):
        again = IntegratedGradients(model, steps=int(used[row])).explain(inputs[row : row + 1])
        np.testing.assert_allclose(result.values[row], again.values[0], rtol=0, atol=1e-5)


def test_given_steps_are_taken_exactly():
    """With steps=7 there are seven gradient evaluations a sample, and the result says so."""
    result = IntegratedGradients(lstm(), steps=7).explain(sequences(4, 6, 3))
    np.testing.assert_array_equal(result.diagnostic("steps"), [7, 7, 7, 7])
    assert result.attrs["backward_evaluations"] == 4 * 7
    assert result.options == {"steps": 7}


def test_small_memory_gives_the_same_numbers():
    """Internal batches of one row change nothing."""
    from gatelens.models import Predictor

    model, inputs = lstm(), sequences(5, 6, 3)
    small = IntegratedGradients(Predictor(model, memory_bytes=1), steps=20).explain(inputs).values
    np.testing.assert_allclose(small, IntegratedGradients(model, steps=20).explain(inputs).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [0, -3, 2.5, True, MOST_GIVEN_STEPS + 1])
def test_steps_are_checked(steps):
    """Steps that are no whole number in the range are refused."""
    with pytest.raises(InvalidInputError, match="steps is"):
        IntegratedGradients(lstm(), steps=steps)


def test_floats_are_no_baseline_of_tokens():
    """A baseline of floats is refused for token ids."""
    with pytest.raises(InvalidTypeError, match="token ids"):
        IntegratedGradients(lstm(vocab_size=9, embedding_dim=4), baseline=0.5).explain(token_ids(1, 4))
