"""Completeness, sparsity, cost, agreement, the bootstrap, the random reference and Quantus's arrays."""

import numpy as np
import pytest

from gatelens.explainers import DeepLIFT, IntegratedGradients, Occlusion, Saliency
from gatelens.explainers.metrics import (
    Agreement,
    Completeness,
    EffectiveParts,
    Evaluations,
    Gini,
    Scores,
    Seconds,
    agreement,
    bootstrap_interval,
    measure,
    random_reference,
    to_quantus,
)
from gatelens.explainers.metrics.ranking import kendall, rank_correlation
from gatelens.models import InvalidInputError
from helpers.explained import LENGTHS, lstm, sequences, token_ids
from helpers.judged import linear, with_values

# -- completeness ----------------------------------------------------------------------------------------------------


def test_completeness_by_hand():
    """Contributions 3 and 1 that are told as 2 and 1 leave a quarter out; nothing told leaves all out."""
    model, found = linear([[3.0], [1.0]])
    np.testing.assert_allclose(Completeness()(model, found).values, 0, atol=1e-12)
    np.testing.assert_allclose(Completeness()(model, with_values(found, [[2.0], [1.0]])).values, 0.25)
    np.testing.assert_allclose(Completeness()(model, with_values(found, 0.0)).values, 1)


def test_completeness_where_nothing_changed():
    """Where the baseline gives the same number, nothing told is complete, and what is told is all too much."""
    model, found = linear([[2.0], [-2.0]])
    np.testing.assert_allclose(Completeness()(model, with_values(found, 0.0)).values, 0)
    np.testing.assert_allclose(Completeness()(model, with_values(found, [[1.0], [0.0]])).values, 1)


# -- sparsity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "gini", "effective"),
    [
        ([1, 0, 0, 0], 0.75, 1),
        ([1, 1, 1, 1], 0, 4),
        ([1, -2, 3, -4], 0.25, np.exp(-sum(p * np.log(p) for p in (0.1, 0.2, 0.3, 0.4)))),
        ([5, 5, 0, 0], 0.5, 2),
        ([0, 0, 0, 0], 0, 0),
    ],
)
def test_sparsity_by_hand(values, gini, effective):
    """The Gini index and the effective number of parts of four sizes."""
    model, found = linear([[1.0]] * 4)
    told = with_values(found, np.array(values, dtype=float)[:, None])
    np.testing.assert_allclose(Gini()(model, told).values, gini, atol=1e-12)
    np.testing.assert_allclose(EffectiveParts()(model, told).values, effective)


def test_padding_is_no_part():
    """A short sequence beside a long one has the numbers it has alone."""
    model, inputs = lstm(), sequences(3, 6, 3)
    together = Gini()(model, DeepLIFT(model).explain(inputs, lengths=LENGTHS)).values
    for row, length in enumerate(LENGTHS):
        alone = Gini()(model, DeepLIFT(model).explain(inputs[row : row + 1, :length])).values
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


# -- cost ------------------------------------------------------------------------------------------------------------


def test_cost_is_that_of_the_explanation():
    """Evaluations and seconds are the result's own, shared equally; a random reference cost nothing."""
    model = lstm()
    found = Occlusion(model).explain(sequences(4, 6, 3))
    evaluations = (found.attrs["forward_evaluations"] + found.attrs["backward_evaluations"]) / 4
    np.testing.assert_array_equal(Evaluations()(model, found).values, np.full(4, evaluations))
    np.testing.assert_allclose(Seconds()(model, found).values, found.attrs["seconds"] / 4)
    assert Evaluations()(model, random_reference(found)).mean == 0


def test_cost_by_hand():
    """12 evaluations forwards and 4 backwards in 2 seconds, for four samples; asking for more is worse."""
    model, found = linear([[3.0], [1.0]], batch=4)
    told = with_values(found, found.values, forward_evaluations=12, backward_evaluations=4, seconds=2.0)
    np.testing.assert_array_equal(Evaluations()(model, told).values, np.full(4, 4.0))
    np.testing.assert_array_equal(Seconds()(model, told).values, np.full(4, 0.5))
    dear = with_values(found, found.values, forward_evaluations=120, backward_evaluations=40, seconds=20.0)
    for metric in (Evaluations(), Seconds()):
        assert metric.direction == "lower"
        assert metric(model, dear).mean > metric(model, told).mean


# -- agreement -------------------------------------------------------------------------------------------------------


def test_agreement_by_hand():
    """1 2 3 4 and 1 2 4 3: Spearman 0.8, Kendall 4/6, the largest part is another."""
    _, found = linear([[1.0]] * 4)
    both = {
        "a": with_values(found, [[1.0], [2.0], [3.0], [4.0]]),
        "b": with_values(found, [[1.0], [2.0], [4.0], [3.0]]),
    }
    table = agreement(both)
    assert float(table["spearman"].sel(explainer="a", other="b")[0]) == pytest.approx(0.8)
    assert float(table["kendall"].sel(explainer="a", other="b")[0]) == pytest.approx(4 / 6)
    assert float(table["top_k"].sel(explainer="a", other="b")[0]) == 0
    for name in ("spearman", "kendall", "top_k"):
        assert (table[name].to_numpy()[[0, 1], [0, 1]] == 1).all()


def test_an_explainer_agrees_with_itself_and_not_with_its_opposite():
    """The same attribution agrees fully, its opposite not at all, and a random one is left out of the mean."""
    model, inputs = lstm(), sequences(3, 8, 3)
    found = DeepLIFT(model).explain(inputs)
    three = {"it": found, "again": found, "opposite": with_values(found, -found.values), "no": random_reference(found)}
    measured = measure(model, three, ("agreement", "agreement_kendall", "agreement_top_k"))
    np.testing.assert_allclose(measured.scores("agreement", "opposite").values, -1)
    np.testing.assert_allclose(measured.scores("agreement", "it").values, 0, atol=1e-12)  # 1 and -1
    np.testing.assert_allclose(measured.scores("agreement_kendall", "opposite").values, -1)
    np.testing.assert_allclose(measured.scores("agreement_top_k", "it").values, 1)  # sizes are the same


def test_agreement_is_what_the_report_tells():
    """Over cells, Spearman's numbers are those of the report's agreement."""
    from gatelens.reports.evidence import agreement as told

    model, inputs = lstm(), sequences(3, 6, 3)
    both = {"a": DeepLIFT(model).explain(inputs, lengths=LENGTHS)}
    both["b"] = IntegratedGradients(model).explain(inputs, lengths=LENGTHS)
    found = agreement(both, parts="cell")["spearman"].sel(explainer="a", other="b")
    for sample in range(3):
        assert float(found[sample]) == pytest.approx(told(both, sample)[0].correlation)


def test_agreement_takes_two():
    """One explainer agrees with nobody, a random one does not count, and other predictions are refused."""
    model, inputs = lstm(), sequences(2, 5, 3)
    found = DeepLIFT(model).explain(inputs)
    with pytest.raises(InvalidInputError, match="there is only one; pass two or more"):
        Agreement()(model, found)
    with pytest.raises(InvalidInputError, match="there is only one"):
        measure(model, {"it": found, "random": random_reference(found)}, ("agreement",))
    with pytest.raises(InvalidInputError, match="b explains another input than a"):
        agreement({"a": found, "b": DeepLIFT(model).explain(inputs + 1)})
    with pytest.raises(InvalidInputError, match="there is no attribution"):
        agreement({})


def test_ranks_are_those_of_scipy_or_none():
    """Too few values, or values that do not vary, have no correlation."""
    assert rank_correlation(np.array([1, 2]), np.array([2, 1])) is None
    assert kendall(np.ones(5), np.arange(5)) is None
    assert kendall(np.arange(5), np.arange(5)) == pytest.approx(1)


# -- scores ----------------------------------------------------------------------------------------------------------


def test_the_interval_is_a_percentile_bootstrap():
    """It is the 2.5 and 97.5 % quantiles of means of drawn samples, the same for the same seed; none for one sample."""
    values = np.random.default_rng(5).normal(size=40)
    low, high = bootstrap_interval(values, seed=3)
    assert (low, high) == bootstrap_interval(values, seed=3)
    assert (low, high) != bootstrap_interval(values, seed=4)
    half = 1.96 * values.std() / np.sqrt(40)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert bootstrap_interval(values[:1]) is None
    assert bootstrap_interval(np.ones(3)) == (1, 1)


def test_scores_say_themselves():
    """Mean, interval and count are in the text."""
    assert repr(Scores("gini", "none", np.array([0.25]))) == "Scores(gini: 0.25, 1 samples)"
    assert repr(Scores("gini", "none", np.array([0.5, 0.5]))) == "Scores(gini: 0.5 (0.5 to 0.5), 2 samples)"


# -- the random reference --------------------------------------------------------------------------------------------


def test_a_random_reference_knows_nothing_but_the_sizes():
    """It has the sizes' sum of each sample, none at padding, other numbers each sample and seed, and saves."""
    model = lstm()
    found = DeepLIFT(model).explain(sequences(3, 6, 3), lengths=LENGTHS)
    random = random_reference(found, seed=2)
    np.testing.assert_allclose(np.abs(random.values).sum((1, 2)), np.abs(found.values).sum((1, 2)), rtol=1e-6)
    assert not random.values[1, 4:].any()
    assert not random.values[2, 2:].any()
    assert random.method == "random"
    np.testing.assert_array_equal(random.values, random_reference(found, seed=2).values)
    assert (random.values != random_reference(found, seed=3).values).any()
    assert rank_correlation(random.values[0].ravel(), random.values[1, :6].ravel()) != 1
    np.testing.assert_allclose(
        random.completeness_gap, random.prediction - random.baseline_prediction - random.values.sum((1, 2))
    )


@pytest.mark.parametrize("players", ["timestep", "segment", "feature"])
def test_a_random_reference_tells_the_same_parts_apart(players):
    """Of timesteps alone it draws timesteps, of features alone features."""
    model = lstm()
    found = Occlusion(model, players=players).explain(sequences(1, 6, 3))
    values = random_reference(found).values[0]
    assert np.ptp(values, axis=1 if players != "feature" else 0).max() == 0
    assert len(np.unique(values)) == (3 if players == "feature" else 6)


def test_a_random_reference_is_saved_and_read(tmp_path):
    """It is an attribution as any other."""
    random = random_reference(DeepLIFT(lstm()).explain(sequences(1, 6, 3)))
    read = type(random).load(random.save(tmp_path / "random.nc"))
    np.testing.assert_array_equal(read.values, random.values)
    assert len(random_reference(with_values(random, 0.0)).values) == 1  # nothing to scale by


# -- Quantus ---------------------------------------------------------------------------------------------------------


def test_quantus_gets_channels_first():
    """Inputs and attributions are (B, D, T), targets (B,)."""
    model = lstm(output_size=3, task="multiclass")
    found = Saliency(model).explain(sequences(2, 5, 3))
    arrays = to_quantus(found)
    assert arrays.x_batch.shape == arrays.a_batch.shape == (2, 3, 5)
    np.testing.assert_array_equal(arrays.x_batch[1, 2], found.inputs[1, :, 2])
    np.testing.assert_array_equal(arrays.a_batch[1, 2], found.values[1, :, 2])
    np.testing.assert_array_equal(arrays.y_batch, found.dataset["target_output"])
    assert arrays.y_batch.dtype == np.int64


def test_quantus_does_not_get_what_it_would_misread():
    """Tokens, padding and outputs of each timestep are refused."""
    tokens = lstm(vocab_size=9, embedding_dim=4)
    with pytest.raises(InvalidInputError, match="token ids"):
        to_quantus(Occlusion(tokens).explain(token_ids(2, 5)))
    with pytest.raises(InvalidInputError, match="lengths are 3 to 5"):
        to_quantus(Occlusion(lstm()).explain(sequences(2, 5, 3), lengths=[5, 3]))
    with pytest.raises(InvalidInputError, match="one output a timestep"):
        to_quantus(Occlusion(lstm(pooling="none")).explain(sequences(2, 5, 3)))
