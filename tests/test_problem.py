"""What an explainer's `_attribute` gets: the checked problem, its continuous view, its evaluations."""

import numpy as np
import pytest
import torch

from gatelens.explainers import Contribution, Explainer
from helpers.explained import LENGTHS, Foreign, lstm, sequences, token_ids


class Keeps(Explainer):
    """Keeps the problem it gets."""

    name = "keeps"
    summary = "a stub"
    takes_background = True

    def _attribute(self, problem):
        self._problem = problem
        self._training = [part.training for part in self.predictor.module.modules()]
        self._required = [part.requires_grad for part in self.predictor.module.parameters()]
        return Contribution(np.zeros((*problem.inputs.shape[:2], problem.features)))


def problem_of(model, inputs, *, target=None, lengths=None, **options):
    """Return the problem that `_attribute` would get."""
    explainer = Keeps(model, **options)
    explainer.explain(inputs, target=target, lengths=lengths)
    return explainer._problem


def test_a_problem_is_checked_and_resolved():
    """Lists become tensors, padding is cleared, the target is (B,), the predictions are those of the model."""
    model, inputs = lstm(task="multiclass", output_size=3), sequences(3, 6, 3)
    problem = problem_of(model, inputs.tolist(), lengths=LENGTHS, baseline=0.5)
    assert problem.inputs.dtype == torch.float32
    assert problem.lengths.tolist() == LENGTHS
    assert not problem.inputs[2, 2:].any()
    torch.testing.assert_close(problem.inputs[0], inputs[0])
    with torch.no_grad():
        scores = model(inputs, torch.tensor(LENGTHS))
        start = model(torch.full_like(inputs, 0.5), torch.tensor(LENGTHS))
    chosen = scores.argmax(1)
    assert problem.target.output.tolist() == chosen.tolist()
    np.testing.assert_allclose(problem.prediction, scores[torch.arange(3), chosen], rtol=0, atol=1e-6)
    np.testing.assert_allclose(problem.baseline_prediction, start[torch.arange(3), chosen], rtol=0, atol=1e-6)


def test_attribute_runs_in_eval_mode_with_frozen_parameters():
    """While `_attribute` runs the model is in eval mode and its parameters take no gradient; afterwards as before."""
    model = lstm(dropout=0.5).train()
    explainer = Keeps(model)
    explainer.explain(sequences(1, 4, 3))
    assert not any(explainer._training)
    assert not any(explainer._required)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_references_are_the_baseline_or_the_background():
    """Without a background there is one reference, the sample's baseline; with one, its sequences."""
    inputs, background = sequences(2, 4, 3), sequences(5, 4, 3, seed=3)
    baseline = sequences(2, 4, 3, seed=4)
    torch.testing.assert_close(problem_of(lstm(), inputs, baseline=baseline).references(1), baseline[1:])
    torch.testing.assert_close(problem_of(lstm(), inputs, background=background).references(1), background)


def test_the_prediction_of_a_background_is_the_mean():
    """With a background the baseline prediction of each sample is the mean over it, cut to the sample's length."""
    model, background = lstm(), sequences(5, 6, 3, seed=3)
    problem = problem_of(model, sequences(3, 6, 3), lengths=LENGTHS, background=background)
    with torch.no_grad():
        expected = [float(model(background[:, :length]).mean()) for length in LENGTHS]
    np.testing.assert_allclose(problem.baseline_prediction, expected, rtol=0, atol=1e-6)


def test_the_padding_of_a_background_is_cleared():
    """A model that adds up all it gets, zeros at padding, sees of the background only the sample's valid timesteps."""

    class Sum(torch.nn.Module):
        def forward(self, inputs, lengths):
            return inputs.sum((1, 2))[:, None]

    background = sequences(5, 6, 3, seed=3)
    problem = problem_of(Sum(), sequences(3, 6, 3), lengths=LENGTHS, background=background)
    expected = [float(background[:, :length].sum()) / 5 for length in LENGTHS]
    np.testing.assert_allclose(problem.baseline_prediction, expected, rtol=0, atol=1e-5)


def test_evaluate_explains_variations_of_one_sample():
    """`evaluate` gives the explained number of rows like a sample's, for that sample's target."""
    model = lstm(task="multiclass", output_size=3)
    problem = problem_of(model, sequences(2, 6, 3), target=[2, 1])
    variations = sequences(7, 4, 3, seed=8)
    with torch.no_grad():
        expected = model(variations)[:, 1]
    np.testing.assert_allclose(problem.evaluate(variations, 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("pooling", "target"), [("last", 1), ("none", (1, 1)), ("none", (slice(0, 2), 1))])
def test_forward_of_features_is_the_explained_number(pooling, target):
    """The continuous view of features is the features; `forward` gives the explained number, with its gradient."""
    model, inputs = lstm(pooling=pooling, output_size=2), sequences(3, 6, 3)
    problem = problem_of(model, inputs, target=target, lengths=LENGTHS)
    continuous = problem.continuous()
    rows = torch.tensor([2, 0])
    values = continuous.inputs[rows].clone().requires_grad_()
    found = continuous.forward(values, *continuous.arguments(rows))
    np.testing.assert_allclose(found.detach(), problem.prediction[[2, 0]], rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    assert gradient[0, :2].any()
    assert not gradient[0, 2:].any()
    torch.testing.assert_close(continuous.to_input_space(gradient), gradient)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_forward_of_tokens_stands_in_for_the_embedding(lengths):
    """The continuous view of tokens is their embedding; any values there are what the model reads."""
    model, ids = lstm(vocab_size=9, embedding_dim=4), token_ids(3, 6)
    problem = problem_of(model, ids, lengths=lengths)
    continuous = problem.continuous()
    rows = torch.arange(3)
    with torch.no_grad():
        found = continuous.forward(continuous.inputs, *continuous.arguments(rows))
        swapped = continuous.forward(continuous.baseline, *continuous.arguments(rows))
    np.testing.assert_allclose(found, problem.prediction, rtol=0, atol=1e-6)
    np.testing.assert_allclose(swapped, problem.baseline_prediction, rtol=0, atol=1e-6)
    assert continuous.inputs.shape == (3, 6, 4)
    assert not model.embedding._forward_hooks
    parts = sequences(3, 6, 4)
    torch.testing.assert_close(continuous.to_input_space(parts), parts.sum(2, keepdim=True))


def test_features_and_tokens_are_told_apart():
    """`features` is D, and 1 for tokens."""
    problem = problem_of(lstm(), sequences(1, 4, 3))
    assert (problem.features, problem.reads_tokens) == (3, False)
    problem = problem_of(lstm(vocab_size=9, embedding_dim=4), token_ids(1, 4))
    assert (problem.features, problem.reads_tokens) == (1, True)


def test_track_yields_every_item():
    """`track` yields what it is given, in order, with a bar or without."""
    import dataclasses

    problem = problem_of(Foreign(), sequences(1, 4, 3))
    for progress in (False, True):
        assert list(dataclasses.replace(problem, progress=progress).track(range(4), 4, "title")) == [0, 1, 2, 3]
