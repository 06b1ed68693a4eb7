"""`measure`: explainers side by side, on all kinds of models, sharing evaluations; what it refuses."""

import inspect
import json

import numpy as np
import pytest
import torch

import gatelens.explainers.metrics as judged
from gatelens.explainers import DeepLIFT, IntegratedGradients, KernelSHAP, Occlusion, explain
from gatelens.explainers.metrics import DEFAULT_METRICS, METRICS, Deletion, Insertion, measure, random_reference
from gatelens.models import InvalidInputError, InvalidTypeError, Predictor
from helpers.explained import LENGTHS, lstm, sequences, token_ids
from helpers.judged import linear, with_values

OF_MODEL = ("deletion", "insertion", "comprehensiveness", "sufficiency", "infidelity", "sensitivity_n", "monotonicity")


def test_every_metric_says_what_it_is():
    """Name, source, range, direction, unit and what it cannot tell, and nothing public is missing from `__all__`."""
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.source
        assert metric.range[0] < metric.range[1]
        assert metric.direction in ("higher", "lower", "none")
        assert metric.cannot.endswith(".")
        assert inspect.getdoc(metric)
        assert getattr(judged, metric.__name__) is metric
    assert set(DEFAULT_METRICS) <= set(METRICS)
    assert len(set(judged.__all__)) == len(judged.__all__)
    assert all(hasattr(judged, name) for name in judged.__all__)


CASES = {
    "regression": ({}, None, "logit"),
    "classes": ({"output_size": 3, "task": "multiclass"}, None, "probability"),
    "binary": ({"task": "binary"}, None, "probability"),
    "each timestep": ({"pooling": "none"}, (1, 0), "logit"),
    "window": ({"pooling": "none"}, (slice(0, 2), 0), "logit"),
    "tokens": ({"vocab_size": 9, "embedding_dim": 4}, None, "logit"),
    "bidirectional": ({"bidirectional": True}, None, "logit"),
}


@pytest.mark.parametrize(("config", "target", "output"), CASES.values(), ids=CASES)
def test_all_metrics_of_all_kinds_of_models(config, target, output):
    """Every value is finite and in its range, for lengths down to 2, and all three baselines are told apart."""
    model = lstm(**config)
    tokens = "vocab_size" in config
    inputs = token_ids(3, 6) if tokens else sequences(3, 6, 3)
    found = explain(model, inputs, ("integrated_gradients", "occlusion"), lengths=LENGTHS, target=target, output=output)
    found["random"] = random_reference(found["occlusion"])
    metrics = [name for name in METRICS if not (tokens and name == "max_sensitivity")]
    baselines = ["pad", 3] if tokens else ["zero", "hold_last", sequences(6, 3, seed=5)]
    measured = measure(model, found, metrics, baselines=baselines)
    assert measured.metrics == tuple(metrics)
    assert measured.explainers == ("integrated_gradients", "occlusion", "random")
    assert measured.baselines == (("pad", "given") if tokens else ("zero", "hold_last", "given"))
    for name in metrics:
        values = measured.dataset[name]
        least, most = METRICS[name].range
        assert np.isfinite(values).all()
        assert float(values.min()) >= least - 1e-9
        assert float(values.max()) <= most + 1e-9
        details = measured.dataset.get(f"{name}_details")
        assert (details is None) == (METRICS[name].detail is None)
        assert details is None or np.isfinite(details).all()
    table = measured.table()
    assert len(table) == 3 * len(metrics)
    assert (table["low"] <= table["mean"] + 1e-12).all()
    assert (table["mean"] <= table["high"] + 1e-12).all()


@pytest.mark.parametrize("parts", ["timestep", "cell", "feature"])
def test_batches_equal_singles(parts):
    """A sequence with padding beside others has the numbers it has alone and without padding."""
    model, inputs = lstm(double=True), sequences(3, 6, 3, double=True)
    inputs[1, 4:] = 1e6
    together = measure(model, DeepLIFT(model).explain(inputs, lengths=LENGTHS), OF_MODEL, parts=parts).dataset
    for row, length in enumerate(LENGTHS):
        found = DeepLIFT(model).explain(inputs[row : row + 1, :length])
        alone = measure(model, found, OF_MODEL, parts=parts).dataset
        for name in OF_MODEL:
            np.testing.assert_allclose(together[name][0, 0, row], alone[name][0, 0, 0], rtol=0, atol=1e-9)


def test_constant_models_and_nothing_told_give_numbers():
    """Where nothing changes or nothing is said no value is NaN or infinite."""
    model, found = linear([[0.0], [0.0], [0.0]])
    metrics = [name for name in METRICS if not name.startswith("agreement")]
    for values in (0.0, 1.0):
        dataset = measure(model, with_values(found, values), metrics).dataset
        assert all(np.isfinite(dataset[name]).all() for name in metrics)


def test_the_same_is_evaluated_once():
    """A second explainer with the same ranking, and metrics that ask for points of a curve, cost nothing more."""
    model = lstm(bidirectional=True)
    predictor = Predictor(model)
    found = Occlusion(predictor).explain(sequences(2, 8, 3))
    spent = []
    for explainers, metrics in (
        ({"one": found}, ("deletion",)),
        ({"one": found, "two": with_values(found, 2 * found.values)}, ("deletion", "comprehensiveness")),
        ({"one": found}, ("deletion", "monotonicity")),
    ):
        before = predictor.forward_evaluations
        measure(predictor, explainers, metrics)
        spent.append(predictor.forward_evaluations - before)
    assert spent[0] == 2 * (1 + 1 + 7)  # f(x), f(baseline), the points between
    assert spent[1] == spent[0]
    assert spent[2] == spent[0] + 2 * 7  # one of the eight single parts is the curve's first point


def test_several_baselines_each_and_their_mean():
    """Each baseline's scores are those of measuring with it alone; the mean is over baselines sample by sample."""
    model = lstm()
    found = DeepLIFT(model).explain(sequences(3, 6, 3))
    both = measure(model, found, ("deletion", "gini"), baselines=["zero", "hold_last"])
    scores = both.scores("deletion")
    for name in ("zero", "hold_last"):
        alone = measure(model, found, ("deletion",), baselines=name).scores("deletion").values
        np.testing.assert_allclose(scores.each[name].values, alone)
        np.testing.assert_allclose(both.scores("deletion", baseline=name).values, alone)
    np.testing.assert_allclose(scores.values, np.mean([each.values for each in scores.each.values()], axis=0))
    assert scores.interval[0] < scores.mean < scores.interval[1]
    assert scores.direction == "lower"
    assert scores.cannot == Deletion.cannot
    assert both.scores("gini").each == {}


def test_the_default_baselines_are_the_explainers_own():
    """Each once, in their order; a background set's is its mean."""
    model, inputs = lstm(), sequences(2, 6, 3)
    given = sequences(6, 3, seed=8)
    found = {
        "a": DeepLIFT(model, baseline="hold_last").explain(inputs),
        "b": DeepLIFT(model).explain(inputs),
        "c": IntegratedGradients(model).explain(inputs),
        "d": DeepLIFT(model, baseline=given).explain(inputs),
        "e": KernelSHAP(model, background=given[None]).explain(inputs),
    }
    measured = measure(model, found, ("deletion",))
    assert measured.baselines == ("hold_last", "zero", "given")
    named = measure(model, found, ("deletion",), baselines={"mine": given, "none": 0.0})
    assert named.baselines == ("mine", "none")
    np.testing.assert_allclose(
        named.dataset["deletion"].sel(baseline="mine"), measured.dataset["deletion"].sel(baseline="given"), atol=1e-6
    )
    several = measure(model, found["b"], ("deletion",), baselines=[0.0, given])
    assert several.baselines == ("given 1", "given 2")


def test_the_same_seed_gives_the_same():
    """Also where random subsets are drawn; another seed draws others."""
    model = lstm()
    found = DeepLIFT(model).explain(sequences(2, 9, 3))
    one, same, other = (measure(model, found, ("infidelity",), seed=seed).scores("infidelity") for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.values, same.values)
    assert one.interval == same.interval
    assert (one.values != other.values).any()


def test_metrics_may_have_options():
    """They are kept, and a metric can be called by itself."""
    model = lstm()
    found = DeepLIFT(model).explain(sequences(2, 9, 3))
    measured = measure(model, found, (Deletion(points=3), "insertion"))
    assert json.loads(measured.dataset["deletion"].attrs["options"]) == {"points": 3}
    np.testing.assert_array_equal(Deletion(points=3)(model, found).values, measured.scores("deletion").values)
    np.testing.assert_array_equal(Insertion()(model, found).values, measured.scores("insertion").values)
    assert "2 metrics of deeplift, 2 samples" in repr(measured)


def test_parts_are_what_all_explainers_know():
    """Timesteps by default, features where one knows these alone; what it cannot tell apart is refused."""
    model, inputs = lstm(), sequences(2, 6, 3)
    cells, timesteps, features = (
        Occlusion(model, players=players).explain(inputs) for players in ("cell", "timestep", "feature")
    )
    assert measure(model, {"a": cells, "b": timesteps}, ("gini",)).dataset.attrs["parts"] == "timestep"
    assert measure(model, {"a": cells, "b": features}, ("gini",)).dataset.attrs["parts"] == "feature"
    assert measure(model, cells, ("gini",), parts="cell").dataset["parts"].to_numpy().tolist() == [18, 18]
    with pytest.raises(InvalidInputError, match="b explained by feature, which does not tell parts='timestep'"):
        measure(model, {"a": cells, "b": features}, parts="timestep")
    with pytest.raises(InvalidInputError, match="a explained by timestep"):
        measure(model, {"a": timesteps, "b": features})
    with pytest.raises(InvalidInputError, match="parts is 'cells'"):
        measure(model, cells, parts="cells")
    tokens = lstm(vocab_size=9, embedding_dim=4)
    found = Occlusion(tokens).explain(token_ids(2, 5))
    assert measure(tokens, found, ("gini",), parts="cell").dataset.attrs["parts"] == "timestep"
    with pytest.raises(InvalidInputError, match="no meaning for token ids"):
        measure(tokens, found, parts="feature")


def test_another_model_is_refused():
    """By its hash, by its prediction, by another output or task."""
    model, inputs = lstm(), sequences(2, 6, 3)
    found = DeepLIFT(model).explain(inputs)
    with pytest.raises(InvalidInputError, match="is not the one that deeplift explains"):
        measure(lstm(seed=1), found)

    def function(values):
        return values.sum((1, 2))

    explained = Occlusion(function).explain(inputs)
    with pytest.raises(InvalidInputError, match=r"the model gives .* for sample 0, and occlusion explains"):
        measure(lambda values: values.sum((1, 2)) + 1, explained)
    binary = lstm(task="binary")
    with pytest.raises(
        InvalidInputError, match="Predictor with output='probability', and the attribution explains 'log"
    ):
        measure(Predictor(binary, output="probability"), DeepLIFT(binary).explain(inputs))


def test_other_predictions_are_refused():
    """Other inputs, targets or outputs beside one another, and what is no attribution."""
    model, inputs = lstm(output_size=2, task="multiclass"), sequences(2, 6, 3)
    one = Occlusion(model).explain(inputs, target=0)
    for other, what in (
        (Occlusion(model).explain(inputs, target=1), "another target"),
        (Occlusion(model).explain(inputs + 1, target=0), "another input"),
        (Occlusion(model, output="probability").explain(inputs, target=0), "different outputs"),
    ):
        with pytest.raises(InvalidInputError, match=what):
            measure(model, {"one": one, "other": other})
    with pytest.raises(InvalidTypeError, match="'one' is a ndarray; expected an Attribution"):
        measure(model, {"one": one.values})
    with pytest.raises(InvalidInputError, match="there is no attribution"):
        measure(model, {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metrics": ()}, "metrics is empty"),
        ({"metrics": ("deletions",)}, "there is no metric 'deletions'"),
        ({"metrics": (Deletion(), "deletion")}, "'deletion' stands twice"),
        ({"metrics": (Deletion,)}, "is no metric"),
        ({"baselines": []}, "baselines is empty"),
        ({"baselines": "nought"}, "baseline is 'nought'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_options_are_refused(options, says):
    """What is not known is named, with what is."""
    model, found = linear([[1.0], [2.0]])
    with pytest.raises((InvalidInputError, InvalidTypeError), match=says):
        measure(model, found, **options)


def test_scores_are_asked_for_by_name():
    """Unknown metrics, explainers and baselines are refused; of several explainers one is named."""
    model, found = linear([[1.0], [2.0]])
    measured = measure(model, {"a": found, "b": found}, "deletion")
    assert measured.scores("deletion", "a").interval is None
    for arguments, says in (
        (("insertion", "a"), "metric is 'insertion'"),
        (("deletion",), "several explainers; name one of a, b"),
        (("deletion", "c"), "explainer is 'c'"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            measured.scores(*arguments)
    with pytest.raises(InvalidInputError, match="baseline is 'mean'"):
        measured.scores("deletion", "a", baseline="mean")


def test_a_string_names_one_metric_and_inference_mode_is_no_trouble():
    """Under `torch.inference_mode` gradient methods explain again as ever."""
    model = lstm()
    found = IntegratedGradients(model).explain(sequences(2, 6, 3))
    with torch.inference_mode():
        assert measure(model, found, "stability").scores("stability").mean == 1
