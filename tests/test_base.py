"""`Explainer.explain`: every method on every kind of model and target, against closed forms; and what is refused."""

import re

import numpy as np
import pytest
import torch

from gatelens.explainers import BUILT_IN, Contribution, Explainer, get
from gatelens.explainers.base import check_positive
from gatelens.explainers.raw_score import RawScoreExplainer
from gatelens.models import InvalidInputError, InvalidTypeError, ModelError, Predictor
from helpers.explained import (
    LENGTHS,
    Foreign,
    ForeignWithLengths,
    Linear,
    linear_function,
    lstm,
    sequences,
    token_ids,
)

OWN_MODELS = ("attention", "retain")  # what these need is tested in files of their own
ALL = [name for name in BUILT_IN if get(name).needs not in OWN_MODELS]
RAW_SCORES = [name for name in ALL if issubclass(get(name), RawScoreExplainer)]
LINEAR_POOLINGS = ["cell_decomposition", "contextual_decomposition"]
BLACK_BOX = ["kernel_shap", "lime", "occlusion"]
COMPLETE = ["integrated_gradients", "gradient_shap", "kernel_shap"]
SOME = {
    "lime": {"samples": 200},
    "gradient_shap": {"samples": 20},
    "integrated_gradients": {"steps": 20},
    "smooth_grad": {"samples": 20},
    "temporal_saliency_rescaling": {"threshold": 0.0},
}


def make(name, model, **options) -> Explainer:
    """Return an explainer with few samples."""
    return get(name)(model, **{**SOME.get(name, {}), **options})


# -- a linear model: the answer is known -----------------------------------------------------------------------------

WEIGHT = sequences(3, 2, seed=5)
POINTS = sequences(2, 3, 2, seed=6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "module") for name in [*COMPLETE, "lime"]), *((name, "function") for name in BLACK_BOX)],
)
@pytest.mark.parametrize("lengths", [[3, 3], [3, 2]], ids=["full", "padded"])
def test_a_linear_model_gives_weight_times_difference(name, kind, lengths):
    """Complete methods find w * (x - baseline) of each cell, and the sums of each timestep; LIME up to its ridge."""
    model = Linear(WEIGHT) if kind == "module" else linear_function(WEIGHT)
    baseline = torch.tensor([0.5, -1.0])
    expected = (WEIGHT * (POINTS - baseline)).numpy()
    expected[1, lengths[1] :] = 0
    tolerance = 0.02 * np.abs(expected).max() if name == "lime" else 1e-5
    cells = {"players": "cell"} if name in BLACK_BOX else {}
    options = {"baseline": baseline, **({"samples": 2000} if name == "lime" else {})}
    found = make(name, model, **options, **cells).explain(POINTS, lengths=lengths)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.features, expected.sum(1), rtol=0, atol=3 * tolerance)
    by_time = make(name, model, **options).explain(POINTS, lengths=lengths)
    np.testing.assert_allclose(by_time.timesteps, expected.sum(2), rtol=0, atol=2 * tolerance)
    if name != "lime":
        np.testing.assert_allclose(found.completeness_gap, 0, atol=1e-5)
    valid = np.arange(3) < np.array(lengths)[:, None]
    prediction = (WEIGHT.numpy() * POINTS.numpy() * valid[..., None]).sum((1, 2)) + 0.7
    np.testing.assert_allclose(found.prediction, prediction, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", COMPLETE)
def test_complete_methods_add_up_on_an_lstm(name):
    """The gap is f(x) - f(baseline) - the sum of the attributions, and is small for methods that promise it."""
    model, inputs = lstm(), sequences(3, 6, 3)
    options = {"samples": 500} if name == "gradient_shap" else {}
    result = make(name, model, baseline=0.2, **options).explain(inputs, lengths=LENGTHS)
    with torch.no_grad():
        start = torch.full_like(inputs, 0.2)
        explained = (model(inputs, torch.tensor(LENGTHS)) - model(start, torch.tensor(LENGTHS)))[:, 0].numpy()
    gap = explained - result.values.sum((1, 2))
    np.testing.assert_allclose(result.completeness_gap, gap, rtol=0, atol=1e-6)
    assert (np.abs(gap) < 0.05 * np.abs(explained).max()).all()


# -- every method, every kind of model -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("config", "target", "probability"),
    [
        ({}, None, None),
        ({"output_size": 2}, 1, None),
        ({"task": "binary"}, None, lambda scores: scores.sigmoid()),
        ({"task": "binary", "output_size": 2}, 1, lambda scores: scores.sigmoid()),
        ({"task": "multiclass", "output_size": 3}, None, lambda scores: scores.softmax(1)),
        ({"task": "multiclass", "output_size": 3}, [2, 0, 1], lambda scores: scores.softmax(1)),
        ({"task": "multiclass", "output_size": 3, "bidirectional": True, "pooling": "attention"}, 1, None),
    ],
    ids=["regression", "regression-2", "binary", "binary-2", "multiclass", "multiclass-each", "attention"],
)
def test_every_task_is_explained(name, config, target, probability):
    """The explained number is the model's score at the target; with output="probability" it is that probability."""
    model, inputs = lstm(**config), sequences(3, 6, 3)
    if name in LINEAR_POOLINGS and config.get("pooling") == "attention":
        with pytest.raises(ModelError, match=r"pooling 'last', 'mean' or 'none'.*deeplift, lrp"):
            make(name, model).explain(inputs, target=target)
        return
    with torch.no_grad():
        scores = model(inputs, torch.tensor(LENGTHS))
    chosen = scores.argmax(1) if target is None else torch.as_tensor(target).expand(3)
    result = make(name, model).explain(inputs, target=target, lengths=LENGTHS)
    np.testing.assert_allclose(result.prediction, scores[torch.arange(3), chosen], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(result.dataset["target_output"], chosen)
    np.testing.assert_allclose(result.dataset["scores"], scores, rtol=0, atol=1e-6)
    assert result.values.any()
    assert not any(result.values[row, length:].any() for row, length in enumerate(LENGTHS))
    if probability is None:
        return
    if name in RAW_SCORES:
        with pytest.raises(InvalidInputError, match=r"no rule for the sigmoid or softmax.*output='logit'"):
            make(name, model, output="probability")
        return
    likely = make(name, model, output="probability").explain(inputs, target=target, lengths=LENGTHS)
    expected = probability(scores)[torch.arange(3), chosen]
    np.testing.assert_allclose(likely.prediction, expected, rtol=0, atol=1e-6)
    assert np.abs(likely.values - result.values).max() > 1e-4
    if name == "kernel_shap":
        np.testing.assert_allclose(likely.completeness_gap, 0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("target", "steps"), [((1, 0), [1, 1, 1]), ((-1, 1), [5, 3, 1]), (1, [5, 3, 1])])
def test_a_timestep_of_a_per_timestep_model_is_explained(name, target, steps):
    """(timestep, output) explains that score, negative ones from each sequence's end; what comes later gets 0."""
    model, inputs = lstm(pooling="none", output_size=2), sequences(3, 6, 3)
    output = target[1] if isinstance(target, tuple) else target
    result = make(name, model).explain(inputs, target=target, lengths=LENGTHS)
    with torch.no_grad():
        expected = model(inputs, torch.tensor(LENGTHS))[torch.arange(3), steps, output]
    np.testing.assert_allclose(result.prediction, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(result.dataset["target_timestep"], steps)
    credit = np.abs(result.timesteps[0])
    assert credit[steps[0]] > 1e-3
    assert credit[steps[0] + 1 :].sum() < (0.1 if name == "lime" else 1e-6) * credit.sum()


@pytest.mark.parametrize("name", ALL)
def test_target_of_each_sample_and_timestep(name):
    """Both entries of (timestep, output) may be (B,): each sample is explained as it is alone."""
    model, inputs = lstm(pooling="none", output_size=2), sequences(2, 4, 3)
    result = make(name, model).explain(inputs, target=(np.array([3, 1]), torch.tensor([0, 1])))
    for row, target in enumerate([(3, 0), (1, 1)]):
        alone = make(name, model).explain(inputs[row : row + 1], target=target)
        np.testing.assert_allclose(result.values[row], alone.values[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [Foreign, ForeignWithLengths])
def test_any_module_is_explained(name, kind):
    """A stranger's module, with or without lengths, is explained, each padded sequence as if trimmed and alone."""
    module, inputs = kind(outputs=2).train(), sequences(3, 6, 3)
    output = "logit" if name in RAW_SCORES else "probability"
    result = make(name, module, task="multiclass", output=output).explain(inputs, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = make(name, module, task="multiclass", output=output).explain(inputs[row : row + 1, :length])
        np.testing.assert_allclose(result.values[row, :length], alone.values[0], rtol=0, atol=2e-6)
        assert not result.values[row, length:].any()
    assert output == "logit" or ((result.prediction >= 0.5) & (result.prediction < 1)).all()
    assert module.training


@pytest.mark.parametrize("name", BLACK_BOX)
@pytest.mark.parametrize("takes_lengths", [False, True])
def test_a_function_on_arrays_is_explained(name, takes_lengths):
    """Black-box methods explain a numpy function as they explain the module that it computes."""
    module, inputs = ForeignWithLengths(outputs=2), sequences(3, 6, 3)

    @torch.no_grad()
    def with_lengths(values, lengths):
        assert isinstance(values, np.ndarray)
        assert isinstance(lengths, np.ndarray)
        return module(torch.tensor(values), torch.tensor(lengths)).numpy()

    def without(values):
        return with_lengths(values, np.full(len(values), values.shape[1]))

    function = with_lengths if takes_lengths else without
    found = make(name, function).explain(inputs.numpy(), target=1, lengths=np.array(LENGTHS))
    expected = make(name, module).explain(inputs, target=1, lengths=LENGTHS)
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.prediction, expected.prediction, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*ALL, "cells"])
def test_tokens_are_explained(name):
    """Of token ids every token gets a number, (B, T, 1), and padding gets 0."""
    model, ids = lstm(vocab_size=9, embedding_dim=4), token_ids(3, 6)
    explainer = make("lime", model, players="cell") if name == "cells" else make(name, model)
    result = explainer.explain(ids, lengths=LENGTHS)
    assert result.values.shape == (3, 6, 1)
    assert (result.values[0, :, 0] != 0).all()
    assert not result.values[2, 2:].any()
    assert result.feature_names == ("token",)
    np.testing.assert_array_equal(result.inputs[0, :, 0], ids[0])
    if name == "cells":
        assert result.resolution == "timestep"


@pytest.mark.parametrize("name", ["integrated_gradients", "kernel_shap", "gradient_shap"])
def test_a_token_that_is_the_baseline_gets_nothing(name):
    """Where the token is the pad token already, nothing is replaced and nothing credited."""
    ids = token_ids(2, 5)
    ids[:, 1] = 0
    result = make(name, lstm(vocab_size=9, embedding_dim=4)).explain(ids)
    np.testing.assert_allclose(result.values[:, 1], 0, atol=1e-7)
    assert (np.abs(result.values[:, 0]) > 1e-6).all()


def test_gradients_of_tokens_need_one_embedding():
    """A stranger's module with two embeddings has no one place for gradients; the message names what works instead."""

    class TwoEmbeddings(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Embedding(9, 1), torch.nn.Embedding(9, 1)

        def forward(self, ids):
            return (self.first(ids) + self.second(ids)).sum(1)

    module = TwoEmbeddings()
    with pytest.raises(ModelError, match=r"one nn\.Embedding; this one has 2.*lime, kernel_shap"):
        make("integrated_gradients", module).explain(token_ids(1, 4))
    assert make("kernel_shap", module).explain(token_ids(1, 4)).values.any()


# -- what explain records --------------------------------------------------------------------------------------------


def test_results_share_no_labels():
    """What is written beside the labels of one result is not found in the next."""
    first, second = (make("saliency", lstm()).explain(sequences(2, 4, 3)).dataset for _ in range(2))
    for name in ("sample", "time", "feature", "output"):
        first[name].attrs["note"] = "mine"
        assert second[name].attrs == {}
        assert first.indexes[name].equals(second.indexes[name])
    assert second.sel(feature="feature 1", time=2)["attribution"].shape == (2,)


def test_evaluations_are_counted():
    """Forward evaluations are rows of the model: predictions, the baseline that all share, and each coalition."""
    calls = []

    def function(inputs):
        calls.append(len(inputs))
        return inputs.sum((1, 2))

    result = make("kernel_shap", function).explain(sequences(2, 4, 3))
    assert result.attrs["forward_evaluations"] == sum(calls) == 2 + 1 + 2 * (2**4 - 2)
    assert result.attrs["backward_evaluations"] == 0


def test_provenance_is_recorded():
    """The result says what made it: method, options, seed, baseline, model, versions and the paper."""
    model = lstm()
    result = make("lime", model, players="segment", segments=2, seed=9, baseline=0.5).explain(sequences(1, 4, 3))
    assert result.options == {
        "players": "segment",
        "segments": 2,
        "segmentation": "uniform",
        "samples": 200,
        "kernel_width": None,
    }
    attrs = result.attrs
    assert (attrs["seed"], attrs["baseline_name"], attrs["task"], attrs["output"]) == (
        9,
        "given",
        "regression",
        "logit",
    )
    assert attrs["source"] == "Ribeiro, Singh & Guestrin 2016"
    assert set(result.versions) == {"gatelens", "torch", "numpy", "lime"}
    other = make("lime", lstm(seed=1)).explain(sequences(1, 4, 3))
    assert attrs["model"] == make("lime", lstm()).explain(sequences(1, 4, 3)).attrs["model"] != other.attrs["model"]
    assert other.attrs["baseline_name"] == "zero"


@pytest.mark.parametrize("name", ALL)
def test_progress_goes_to_standard_error(name, capsys, monkeypatch):
    """progress=True draws a bar on standard error only, and changes no number."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured stream for a terminal
    quiet = make(name, lstm()).explain(sequences(2, 4, 3))
    assert capsys.readouterr().err == ""
    loud = make(name, lstm()).explain(sequences(2, 4, 3), progress=True)
    seen = capsys.readouterr()
    assert name in seen.err
    assert seen.out == ""
    np.testing.assert_array_equal(loud.values, quiet.values)


def test_a_predictor_is_taken_as_it_is():
    """A `Predictor` decides about output and task itself; saying otherwise beside it is refused, not ignored."""
    predictor = Predictor(lstm(task="binary"), output="probability")
    result = make("lime", predictor).explain(sequences(1, 4, 3))
    assert result.attrs["output"] == "probability"
    assert 0 < result.prediction[0] < 1
    with pytest.raises(InvalidInputError, match=r"say it there: Predictor\(model, output='probability'"):
        make("lime", Predictor(lstm(task="binary")), output="probability")
    with pytest.raises(InvalidInputError, match="which decides"):
        make("lime", predictor, task="multiclass")


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("inputs", "arguments", "error", "message"),
    [
        (
            sequences(4, 3),
            {},
            InvalidInputError,
            r"shape \(4, 3\).*Use inputs\[None\]|For one sequence use inputs\[None\]",
        ),
        (sequences(2, 4, 5), {}, InvalidInputError, "5 features; expected"),
        (sequences(2, 4, 3), {"lengths": [4, 5]}, InvalidInputError, r"lengths\[1\] is 5"),
        (sequences(2, 4, 3), {"target": 1}, InvalidInputError, "its only output is 0"),
        (sequences(2, 4, 3), {"target": (1, 0)}, InvalidInputError, "one output a sequence"),
        (sequences(2, 4, 3), {"target": "cat"}, InvalidInputError, "names no classes"),
        (sequences(2, 4, 3), {"target": 0.0}, InvalidTypeError, "target is 0.0"),
        (sequences(2, 4, 3), {"sample_names": ["a"]}, InvalidInputError, "sample_names has 1 entries; expected 2"),
        (sequences(2, 4, 3), {"times": np.zeros((2, 4))}, InvalidInputError, "expected datetime64"),
    ],
)
def test_wrong_arguments_are_refused(name, inputs, arguments, error, message):
    """Every method refuses what does not fit, with what was expected and what came."""
    with pytest.raises(error, match=message):
        make(name, lstm()).explain(inputs, **arguments)


@pytest.mark.parametrize("name", ["integrated_gradients", "gradient_shap", "gate_saliency"])
def test_gradient_methods_refuse_functions(name):
    """A method that needs a module says so when it is made, and names those that do not."""
    with pytest.raises(ModelError, match=f"{name} needs a torch module.*lime, kernel_shap"):
        make(name, linear_function(WEIGHT))


@pytest.mark.parametrize("name", ["integrated_gradients", "lime", "gate_saliency"])
def test_methods_of_one_baseline_refuse_a_background(name):
    """A background set is refused by methods that compare with one baseline."""
    with pytest.raises(InvalidInputError, match=f"{name} compares with one baseline.*gradient_shap or kernel_shap"):
        make(name, lstm(), background=sequences(2, 4, 3))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, None, "0"])
def test_seeds_are_checked(seed):
    """A seed that is no whole number in the range is refused."""
    with pytest.raises(InvalidInputError, match="seed is"):
        make("lime", lstm(), seed=seed)


def test_an_error_of_the_model_is_told():
    """What the model raises comes back as a ModelError that holds the model's own words, and its cause."""

    class Raises(torch.nn.Module):
        def forward(self, inputs):
            raise KeyError("my own words")

    with pytest.raises(ModelError, match=r"the model raised KeyError.*my own words") as caught:
        make("lime", Raises()).explain(sequences(1, 4, 3))
    assert isinstance(caught.value.__cause__, KeyError)


class Given(Explainer):
    """Returns what it is told to."""

    name = "given"
    summary = "a stub"

    def __init__(self, model, values, **options):
        super().__init__(model, **options)
        self._values = values

    def _attribute(self, problem):
        return Contribution(self._values)


def test_a_wrong_shape_of_a_subclass_is_named():
    """A plug-in that returns another shape is told which was expected."""
    message = re.escape("Given._attribute gave shape (2, 4); expected (2, 4, 3).")
    with pytest.raises(InvalidTypeError, match=message):
        Given(lstm(), np.zeros((2, 4))).explain(sequences(2, 4, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attributions_that_are_not_finite_are_refused(bad):
    """NaN or infinite attributions never become a result."""
    values = np.zeros((2, 4, 3))
    values[1, 0, 2] = bad
    with pytest.raises(ModelError, match="given gave 1 attributions that are NaN or infinite"):
        Given(lstm(), values).explain(sequences(2, 4, 3))


def test_padding_is_cleared_whatever_a_subclass_returns():
    """A plug-in's numbers at padding are dropped, its others kept in their precision."""
    values = np.full((2, 4, 3), 1 / 3)
    result = Given(lstm(), values).explain(sequences(2, 4, 3), lengths=[4, 1])
    expected = values.copy()
    expected[1, 1:] = 0
    np.testing.assert_array_equal(result.values, expected)


def test_an_abstract_explainer_cannot_be_made():
    """`Explainer` itself, without `_attribute`, cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        Explainer(lstm())


def test_check_positive_takes_what_it_should():
    """Whole numbers from the least on pass; the message names option, value and least."""
    check_positive("count", 3, least=3)
    with pytest.raises(InvalidInputError, match="count is 2; expected a whole number, 3 or more"):
        check_positive("count", 2, least=3)
