"""Deletion, insertion, comprehensiveness, sufficiency: by hand, against masking one by one, on every path."""

import numpy as np
import pytest
import torch

from gatelens.explainers import DeepLIFT, Occlusion
from gatelens.explainers.metrics import Comprehensiveness, Deletion, Insertion, Sufficiency, measure, random_reference
from gatelens.explainers.metrics.masking import moved_counts
from gatelens.explainers.metrics.predictions import Predictions, coalition_values
from gatelens.models import InvalidInputError, Predictor
from helpers.explained import Foreign, lstm, sequences, token_ids
from helpers.judged import linear, with_values

CURVES = ("deletion", "insertion")
DESCENDING = [[4.0], [3.0], [2.0], [1.0]]


def test_areas_by_hand():
    """Of contributions 4, 3, 2, 1 the curves are 10 6 3 1 0 and 0 4 7 9 10, above f(baseline) = 0.7."""
    model, found = linear(DESCENDING)
    measured = measure(model, found, CURVES)
    np.testing.assert_allclose(measured.dataset["deletion_details"][0, 0, 0], np.array([10, 6, 3, 1, 0]) + 0.7)
    np.testing.assert_allclose(measured.dataset["insertion_details"][0, 0, 0], np.array([0, 4, 7, 9, 10]) + 0.7)
    np.testing.assert_allclose(measured.scores("deletion").values, (8 + 4.5 + 2 + 0.5) / 4)
    np.testing.assert_allclose(measured.scores("insertion").values, (2 + 5.5 + 8 + 9.5) / 4)


def test_shares_by_hand():
    """Of 4, 3, 2, 1 without the first and the first two 4 and 7 are gone; with these alone 6 and 3."""
    model, found = linear(DESCENDING)
    metrics = (Comprehensiveness((0.25, 0.5)), Sufficiency((0.25, 0.5)))
    measured = measure(model, found, metrics)
    np.testing.assert_allclose(measured.dataset["comprehensiveness_details"][0, 0, 0], [4, 7])
    np.testing.assert_allclose(measured.scores("comprehensiveness").values, 5.5)
    np.testing.assert_allclose(measured.dataset["sufficiency_details"][0, 0, 0], [6, 3])
    np.testing.assert_allclose(measured.scores("sufficiency").values, 4.5)
    assert measured.dataset["sufficiency_share"].to_numpy().tolist() == [0.25, 0.5]


def test_shares_are_rounded_up_to_whole_parts():
    """1, 5 and 10 % of 20 parts are 1, 1 and 2 parts."""
    model, found = linear([[1.0]] * 20)
    details = measure(model, found, ("comprehensiveness",)).dataset["comprehensiveness_details"]
    np.testing.assert_allclose(details[0, 0, 0], [1, 1, 2, 4, 10])


def test_a_prediction_below_the_baseline_is_turned_over():
    """Contributions -4, -3, -2, -1 are judged as 4, 3, 2, 1 are."""
    model, found = linear(np.negative(DESCENDING))
    assert Deletion()(model, found).mean == pytest.approx(3.75)
    assert Insertion()(model, found).mean == pytest.approx(6.25)
    assert Comprehensiveness((0.5,))(model, found).mean == pytest.approx(7)


def test_what_moves_the_prediction_back_comes_last():
    """Of contributions 5, -2, 1 the curve falls to 4 - 5 = -1, then -2, and comes back to 0."""
    model, found = linear([[5.0], [-2.0], [1.0]])
    curve = measure(model, found, ("deletion",)).dataset["deletion_details"][0, 0, 0]
    np.testing.assert_allclose(curve, np.array([4, -1, -2, 0]) + 0.7)


def test_a_sensitivity_is_ranked_by_size():
    """Signs of what is no contribution do not count."""
    model, found = linear(DESCENDING)
    sensitive = with_values(found, [[-4.0], [3.0], [-2.0], [1.0]], measures="sensitivity")
    assert Deletion()(model, sensitive).mean == pytest.approx(3.75)
    assert Deletion()(model, with_values(found, sensitive.values, measures="contribution")).mean > 4


@pytest.mark.parametrize("metric", [Deletion(), Insertion(), Comprehensiveness((0.25, 0.5)), Sufficiency((0.25, 0.5))])
def test_wrong_orders_are_worse(metric):
    """The reversed order is the worst of all, and random and constant ones are between."""
    model, found = linear([[float(value)] for value in range(12, 0, -1)], batch=1)
    good = metric(model, found).mean
    bad = metric(model, with_values(found, -found.values)).mean
    random = np.mean([metric(model, random_reference(found, seed)).mean for seed in range(10)])
    constant = np.mean([metric(model, with_values(found, 1.0), seed=seed).mean for seed in range(10)])
    better = 1 if metric.direction == "higher" else -1
    assert better * good > better * random > better * bad
    assert better * good > better * constant > better * bad


@pytest.mark.parametrize("parts", ["timestep", "cell", "feature"])
@pytest.mark.parametrize("baseline", ["zero", "given", "hold_last", "linear"])
@pytest.mark.parametrize("config", [{}, {"bidirectional": True}, {"pooling": "mean"}], ids=["last", "both", "mean"])
def test_curves_equal_masking_one_by_one(parts, baseline, config):
    """Every point is the model's own output with one more part replaced, each by itself, in a loop."""
    lengths = [6, 4, 1]
    model, inputs = lstm(double=True, **config), sequences(3, 6, 3, double=True)
    given = sequences(6, 3, seed=9, double=True)
    found = DeepLIFT(model).explain(inputs, lengths=lengths)
    measured = measure(
        model, found, CURVES, parts=parts, baselines={"it": given if baseline == "given" else baseline}
    ).dataset
    predictions = Predictions(model, {"deeplift": found})
    for sample, length in enumerate(lengths):
        own = inputs[sample, :length]
        reference = {
            "zero": torch.zeros_like(own),
            "given": given[:length],
            "hold_last": own[:1].expand(own.shape),
            "linear": torch.stack([torch.lerp(own[0], own[-1], t / max(length - 1, 1)) for t in range(length)]),
        }[baseline]
        labels = predictions.players(sample, parts).labels
        values = np.array([found.values[sample, :length][labels == part].sum() for part in range(labels.max() + 1)])
        full, empty = (model(part[None]).item() for part in (own, reference))
        sign = 1 if full >= empty else -1
        order = np.argsort(-sign * values)
        for curve in CURVES:
            expected = []
            for count in range(len(order) + 1):
                moved = torch.tensor(np.isin(labels, order[:count]))
                on = ~moved if curve == "deletion" else moved
                masked = own.clone()
                for feature in range(3):
                    last = reference[0, feature]
                    for t in range(length):
                        last = own[t, feature] if on[t, feature] else last
                        masked[t, feature] = (
                            last if baseline == "hold_last" else torch.where(on, own, reference)[t, feature]
                        )
                expected.append(model(masked[None]).item())
            got = measured[f"{curve}_details"][0, 0, sample].to_numpy()
            np.testing.assert_allclose(got[: len(expected)], expected, rtol=0, atol=1e-12)
            assert (got[len(expected) :] == got[len(expected) - 1]).all()
            area = np.trapezoid(sign * (np.array(expected) - empty), dx=1 / len(order))
            np.testing.assert_allclose(measured[curve][0, 0, sample], area, rtol=0, atol=1e-12)


MODELS = {
    "last": {},
    "stacked": {"hidden_sizes": (5, 4)},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "attention": {"pooling": "attention"},
    "each timestep": {"pooling": "none"},
    "tokens": {"vocab_size": 9, "embedding_dim": 4},
    "classes": {"output_size": 3, "task": "multiclass"},
}


@pytest.mark.parametrize("parts", ["timestep", "cell"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_shared_beginnings_and_batches_agree(config, parts):
    """The prefix engine and whole passes of the model give the same numbers."""
    model = lstm(double=True, **config)
    tokens = "vocab_size" in config
    inputs = token_ids(2, 7) if tokens else sequences(2, 7, 3, double=True)
    target = (slice(2, 5), 0) if config.get("pooling") == "none" else None
    output = "probability" if "task" in config else "logit"
    found = Occlusion(model, output=output).explain(inputs, lengths=[7, 5], target=target)
    predictions = Predictions(model, {"occlusion": found})
    problem = predictions.reference("it", "zero" if tokens else "hold_last").problem
    for sample in range(2):
        players = predictions.players(sample, "timestep" if tokens else parts)
        coalitions = np.random.default_rng(sample).random((40, players.count)) < 0.5
        with predictions.predictor.evaluation():
            shared, apart = (
                coalition_values(problem, sample, players, coalitions, share=share) for share in (True, False)
            )
        np.testing.assert_allclose(shared, apart, rtol=0, atol=1e-12)
        assert np.ptp(apart) > 1e-4


def test_beginnings_are_shared_where_the_model_allows_it(monkeypatch):
    """A forward `LSTMModel` spends less than a pass a coalition; a bidirectional one a pass each."""
    monkeypatch.setattr("gatelens.explainers.prefix_engine.SPARED", 0)  # else so small a model shares nothing
    spent = {}
    for both in (False, True):
        predictor = Predictor(lstm(bidirectional=both))
        found = Occlusion(predictor).explain(sequences(1, 40, 3))
        before = predictor.forward_evaluations
        measure(predictor, found, ("deletion",))
        spent[both] = predictor.forward_evaluations - before
    assert spent[True] == 2 + 39  # f(x), f(baseline), and the points between
    assert spent[False] < 0.75 * spent[True]


def test_fewer_points_take_several_parts_at_once():
    """Of 10 parts in 3 steps 3, 7 and 10 have moved; the area is that of these points."""
    assert moved_counts(10, 3).tolist() == [0, 3, 7, 10]
    assert moved_counts(3, 10).tolist() == [0, 1, 2, 3]
    model, found = linear([[1.0]] * 10)
    measured = measure(model, found, (Deletion(points=3),))
    np.testing.assert_allclose(measured.dataset["deletion_details"][0, 0, 0], np.array([10, 7, 3, 0]) + 0.7)
    np.testing.assert_allclose(measured.scores("deletion").values, 5)  # a straight line


def test_equal_parts_stand_in_one_order_for_all():
    """Explainers that say the same in other sizes get the same curve, and another seed another order."""
    model, inputs = lstm(), sequences(1, 12, 3)
    found = Occlusion(model).explain(inputs)
    flat = {"ones": with_values(found, 1.0), "twos": with_values(found, 2.0)}
    curves = measure(model, flat, ("deletion",)).dataset["deletion_details"]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert (measure(model, flat, ("deletion",), seed=1).dataset["deletion_details"] != curves).any()


def test_a_foreign_module_and_a_function_are_masked_too():
    """A module that is no `LSTMModel`, and a plain function, give the curves that masking gives."""
    model = Foreign()
    inputs = sequences(2, 5, 3)

    def function(values):
        return model(torch.as_tensor(values)).detach().numpy()

    curves = [
        measure(it, Occlusion(it).explain(inputs), CURVES).dataset["deletion_details"] for it in (model, function)
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("shares", [(), (0,), (1.5,), "x", (float("nan"),)])
def test_shares_are_checked(shares):
    """Shares are numbers over 0, at most 1."""
    with pytest.raises(InvalidInputError, match="expected one or more numbers over 0"):
        Comprehensiveness(shares)


def test_points_are_checked():
    """A curve has a point at least."""
    with pytest.raises(InvalidInputError, match="points is 0"):
        Deletion(points=0)
