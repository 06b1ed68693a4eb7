"""Sensitivity-n, monotonicity, infidelity: exact on a linear model, by hand, and bad where they must be."""

import numpy as np
import pytest

from gatelens.explainers import Occlusion
from gatelens.explainers.metrics import Infidelity, Monotonicity, SensitivityN, measure, random_reference
from gatelens.explainers.metrics.base import Row
from gatelens.explainers.metrics.predictions import Predictions, coalition_values
from gatelens.models import InvalidInputError
from helpers.explained import lstm, sequences
from helpers.judged import linear, with_values

CONTRIBUTIONS = [[3.0, -1.0], [0.5, 2.0], [-4.0, 1.5], [0.25, 5.0]]


def row_of(predictions, problem, values, sample=0):
    full, empty = float(problem.prediction[sample]), float(problem.baseline_prediction[sample])
    return Row(values, full, empty, signed=True, predictions=predictions, sample=sample)


def test_a_linear_model_is_explained_perfectly():
    """Its own contributions correlate perfectly with every change, and have no infidelity."""
    model, found = linear(CONTRIBUTIONS)
    measured = measure(model, found, ("sensitivity_n", "monotonicity", "infidelity"), parts="cell")
    np.testing.assert_allclose(measured.scores("sensitivity_n").values, 1)
    np.testing.assert_allclose(measured.scores("monotonicity").values, 1)
    assert measured.scores("infidelity").mean < 1e-12
    assert Infidelity(normalize=False)(model, found, parts="cell").mean < 1e-12


def test_opposite_contributions_are_the_worst():
    """Turned over, contributions correlate with the changes at -1; their infidelity is 4 times the mean square."""
    model, found = linear(CONTRIBUTIONS)
    turned, none = with_values(found, -found.values), with_values(found, 0.0)
    assert SensitivityN()(model, turned, parts="cell").mean == pytest.approx(-1)
    square = Infidelity(normalize=False)(model, none, parts="cell").mean
    assert Infidelity(normalize=False)(model, turned, parts="cell").mean == pytest.approx(4 * square)


def test_the_reversed_ranking_has_monotonicity_minus_one():
    """Sizes in the opposite order correlate at -1."""
    model, found = linear([[4.0], [3.0], [2.0], [1.0]])
    assert Monotonicity()(model, with_values(found, [[1.0], [2.0], [3.0], [4.0]])).mean == pytest.approx(-1)


def test_monotonicity_equals_ranks_of_occlusion():
    """Occlusion is its own judge; another attribution gets the rank correlation of the sizes with it."""
    from scipy.stats import spearmanr

    model, inputs = lstm(double=True), sequences(2, 8, 3, double=True)
    taken = Occlusion(model).explain(inputs)
    assert Monotonicity()(model, taken).mean == pytest.approx(1)
    other = random_reference(taken)
    expected = [spearmanr(np.abs(other.timesteps[row]), np.abs(taken.timesteps[row])).statistic for row in range(2)]
    np.testing.assert_allclose(Monotonicity()(model, other).values, expected)


def test_a_constant_attribution_knows_nothing():
    """What says the same of every part has correlation 0 with any change."""
    model, found = linear(CONTRIBUTIONS)
    measured = measure(model, with_values(found, 1.0), ("sensitivity_n", "monotonicity", "infidelity"), parts="cell")
    assert measured.scores("sensitivity_n").mean == 0
    assert measured.scores("monotonicity").mean == 0
    assert measured.scores("infidelity").mean > 1


def test_random_attributions_are_near_zero():
    """Over several draws a random attribution correlates with nothing."""
    model, found = linear(CONTRIBUTIONS * 5)
    for metric in (SensitivityN(), Monotonicity()):
        drawn = [metric(model, random_reference(found, seed), parts="cell").mean for seed in range(20)]
        assert abs(np.mean(drawn)) < 0.15


def test_infidelity_by_hand():
    """One part that gives 3 and is said to give 1 misses by 2; scaled, it misses nothing."""
    model, found = linear([[3.0]])
    told = with_values(found, 1.0)
    np.testing.assert_allclose(Infidelity(normalize=False)(model, told).values, 4)
    np.testing.assert_allclose(Infidelity()(model, told).values, 0, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_equals_its_definition(normalize):
    """It is the mean square of attribution minus change over the drawn subsets, after the best scaling."""
    model, inputs = lstm(double=True), sequences(1, 6, 3, double=True)
    found = random_reference(Occlusion(model).explain(inputs))
    predictions = Predictions(model, {"random": found})
    problem = predictions.reference("zero", "zero").problem
    players = predictions.players(0, "timestep")
    metric = Infidelity(subsets=30, normalize=normalize)
    kept = metric.coalitions(row_of(predictions, problem, found.timesteps[0]))
    assert not kept.all(axis=1).any()  # something is always replaced
    assert len(set(kept.sum(axis=1))) > 3
    with predictions.predictor.evaluation():
        change = problem.prediction[0] - coalition_values(problem, 0, players, kept, share=False)
    sums = ~kept @ found.timesteps[0]
    scale = (sums @ change) / (sums @ sums) if normalize else 1
    np.testing.assert_allclose(metric(model, found).values, [np.mean((scale * sums - change) ** 2)])


def test_sensitivity_n_equals_its_definition():
    """At each size it is Pearson's correlation of sums and changes over subsets of that size."""
    model, inputs = lstm(double=True), sequences(1, 10, 3, double=True)
    found = Occlusion(model).explain(inputs)
    predictions = Predictions(model, {"occlusion": found})
    problem = predictions.reference("zero", "zero").problem
    metric = SensitivityN(shares=(0.2, 0.5), subsets=20)
    kept = metric.coalitions(row_of(predictions, problem, found.timesteps[0]))
    assert ((~kept).sum(axis=1) == np.repeat([2, 5], 20)).all()
    with predictions.predictor.evaluation():
        players = predictions.players(0, "timestep")
        change = problem.prediction[0] - coalition_values(problem, 0, players, kept, share=False)
    sums = ~kept @ found.timesteps[0]
    expected = [np.corrcoef(sums[part], change[part])[0, 1] for part in (slice(20), slice(20, 40))]
    measured = measure(model, found, (metric,))
    np.testing.assert_allclose(measured.dataset["sensitivity_n_details"][0, 0, 0], expected)
    np.testing.assert_allclose(measured.scores("sensitivity_n").values, np.mean(expected))


def test_one_timestep_leaves_nothing_to_correlate():
    """A sequence of one part gets 0, not NaN."""
    model, found = linear([[2.0]])
    measured = measure(model, found, ("sensitivity_n", "monotonicity", "infidelity"))
    assert measured.scores("sensitivity_n").mean == 0
    assert measured.scores("monotonicity").mean == 0


def test_options_are_checked():
    """Too few subsets, no shares and no flag are refused."""
    with pytest.raises(InvalidInputError, match="subsets is 1"):
        SensitivityN(subsets=1)
    with pytest.raises(InvalidInputError, match="shares is"):
        SensitivityN(shares=())
    with pytest.raises(InvalidInputError, match="normalize is 1"):
        Infidelity(normalize=1)
