"""Finding explainers by name, plug-ins of other packages among them, and `explain` with several methods."""

import importlib.metadata

import numpy as np
import pytest
import torch

from gatelens.explainers import (
    BUILT_IN,
    DEFAULT_METHODS,
    Contribution,
    Explainer,
    IntegratedGradients,
    available,
    explain,
    get,
)
from gatelens.explainers.registry import ENTRY_POINT_GROUP
from gatelens.models import InvalidInputError, InvalidTypeError, Predictor
from helpers.explained import LENGTHS, lstm, sequences, token_ids

INPUTS = sequences(3, 6, 3)


class Good(Explainer):
    """A plug-in that works."""

    name = "good"
    summary = "credits everything equally"

    def _attribute(self, problem):
        share = (problem.prediction - problem.baseline_prediction)[:, None, None] / 18
        return Contribution(np.broadcast_to(share, problem.inputs.shape))


class Nameless(Explainer):
    """A plug-in that forgot its summary."""

    name = "nameless"

    def _attribute(self, problem):
        raise NotImplementedError


class FakePoint:
    """An entry point as `importlib.metadata` gives them."""

    def __init__(self, name, loads, package="acme"):
        self.name, self.value, self._loads = name, f"{package}.module:{name}", loads
        self.dist = None if package is None else type("Distribution", (), {"name": package})()

    def load(self):
        """Return the object, or raise."""
        if isinstance(self._loads, BaseException):
            raise self._loads
        return self._loads


@pytest.fixture
def plug_ins(monkeypatch):
    """Pretend that packages with good and broken explainers are installed."""
    points = [
        FakePoint("good", Good),
        FakePoint("raises", ImportError("no module named 'acme_core'"), package="broken-package"),
        FakePoint("exits", SyntaxError("bad"), package=None),
        FakePoint("no_explainer", dict),
        FakePoint("instance", Good.__new__(Good)),
        FakePoint("nameless", Nameless),
        FakePoint("lime", Good, package="thief"),
        FakePoint("good", Nameless, package="second"),
    ]
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return asked


def test_built_in_names_give_their_classes():
    """Every built-in name gives a class of that name with a summary, a promise and a source."""
    for name in BUILT_IN:
        cls = get(name)
        assert issubclass(cls, Explainer)
        assert cls.name == name
        assert cls.summary
        assert cls.source
        assert cls.completeness in ("exact", "converges", "none")
    assert set(DEFAULT_METHODS) <= set(BUILT_IN)
    assert get("integrated_gradients") is IntegratedGradients


def test_an_unknown_name_is_refused_with_the_nearest():
    """A misspelt name is refused with what there is and the nearest."""
    with pytest.raises(
        InvalidInputError, match=r"there is no explainer 'integrated_gradient'; known: .*lime.* Did you"
    ) as e:
        get("integrated_gradient")
    assert "'integrated_gradients'" in str(e.value)


def test_all_are_listed(plug_ins):
    """`available` lists the built-in ones first, then plug-ins, with who brings them."""
    entries = available()
    assert list(entries)[: len(BUILT_IN)] == list(BUILT_IN)
    assert plug_ins == [ENTRY_POINT_GROUP]
    assert (entries["lime"].origin, entries["lime"].error) == ("gatelens", None)
    assert (entries["good"].origin, entries["good"].error, entries["good"].explainer) == ("acme", None, Good)
    assert entries["good"].summary == "credits everything equally"


@pytest.mark.parametrize(
    ("name", "origin", "error"),
    [
        ("raises", "broken-package", "ImportError: no module named 'acme_core'"),
        ("exits", "unknown package", "SyntaxError: bad"),
        ("no_explainer", "acme", "acme.module:no_explainer is not a subclass of gatelens.explainers.Explainer"),
        ("instance", "acme", "acme.module:instance is not a subclass of gatelens.explainers.Explainer"),
        ("nameless", "acme", "acme.module:nameless has no class attribute 'summary'"),
        ("lime (thief)", "thief", "its name is already taken"),
        ("good (second)", "second", "its name is already taken"),
    ],
)
@pytest.mark.usefixtures("plug_ins")
def test_broken_plug_ins_are_listed_with_their_error(name, origin, error):
    """A broken plug-in is listed with its error, stops nothing, and `get` tells the error too."""
    entry = available()[name]
    assert (entry.origin, entry.error, entry.explainer) == (origin, error, None)
    assert entry.summary == f"cannot be used: {error}"
    with pytest.raises(InvalidInputError, match=f"of {origin} cannot be used"):
        get(name)


def test_a_plug_in_does_not_replace_a_built_in(plug_ins):
    """A plug-in that takes a built-in's name is not given out, and built-ins are found without asking for plug-ins."""
    assert get("lime").__module__ == "gatelens.explainers.lime"
    assert plug_ins == []


@pytest.mark.usefixtures("plug_ins")
def test_a_plug_in_explains_beside_the_built_in_ones():
    """A good plug-in is used by its name like any other."""
    found = explain(lstm(), INPUTS, ("good", "kernel_shap"))
    assert get("good") is Good
    assert found["good"].method == "good"
    np.testing.assert_allclose(found["good"].completeness_gap, 0, atol=1e-6)


# -- explain ---------------------------------------------------------------------------------------------------------


def test_methods_come_in_the_order_asked_for():
    """The result is method -> Attribution in that order; one name alone is a list of one."""
    assert list(explain(lstm(), INPUTS, ("lime", "gate_saliency"))) == ["lime", "gate_saliency"]
    assert list(explain(lstm(), INPUTS, "kernel_shap")) == ["kernel_shap"]
    assert list(explain(lstm(), INPUTS, options={"lime": {"samples": 50}})) == list(DEFAULT_METHODS)


@pytest.mark.parametrize(
    ("config", "target"),
    [
        ({"task": "multiclass", "output_size": 3}, None),
        ({"task": "multiclass", "output_size": 3}, [0, 1, 2]),
        ({"pooling": "none", "output_size": 2}, (-1, 1)),
        ({"pooling": "none"}, None),
        ({"pooling": "none", "output_size": 2}, (slice(-2, None), [0, 1, 1])),
    ],
)
def test_all_methods_explain_the_same_number(config, target):
    """The target is resolved once: every method explains the same outputs and predictions as it would alone."""
    model = lstm(**config)
    methods = tuple(name for name in BUILT_IN if get(name).needs not in ("attention", "retain"))
    found = explain(model, INPUTS, methods, target=target, lengths=LENGTHS, options={"lime": {"samples": 50}})
    alone = get("kernel_shap")(model).explain(INPUTS, target=target, lengths=LENGTHS)
    for result in found.values():
        np.testing.assert_allclose(result.prediction, alone.prediction, rtol=1e-6, atol=1e-7)
        for name in ("target_output", "target_timestep", "target_last"):
            np.testing.assert_array_equal(result.diagnostic(name), alone.diagnostic(name))
    np.testing.assert_array_equal(found["kernel_shap"].values, alone.values)


def test_arguments_reach_every_method():
    """baseline, output, task, seed, names and times mean for all methods what they mean for one."""
    times = np.full((3, 6), np.datetime64("2024-01-01"))
    found = explain(
        lstm(task="binary"),
        INPUTS,
        ("lime", "integrated_gradients"),
        baseline=0.5,
        output="probability",
        seed=4,
        sample_names=["a", "b", "c"],
        times=times,
        options={"lime": {"players": "cell", "samples": 60}, "integrated_gradients": {"baseline": "zero", "steps": 5}},
    )
    lime, gradients = found["lime"], found["integrated_gradients"]
    expected = get("lime")(
        lstm(task="binary"), baseline=0.5, output="probability", seed=4, players="cell", samples=60
    ).explain(INPUTS)
    np.testing.assert_array_equal(lime.values, expected.values)
    assert (lime.dataset["baseline"] == 0.5).all()
    assert not gradients.dataset["baseline"].any()
    assert gradients.options == {"steps": 5}
    for result in found.values():
        assert result.sample_names == ("a", "b", "c")
        assert result.attrs["seed"] == 4
        np.testing.assert_array_equal(result.dataset["timestamp"], times)


def test_tokens_and_predictors_are_explained():
    """Token models, and models wrapped in a `Predictor`, go the same way."""
    model = lstm(vocab_size=9, embedding_dim=4)
    direct = explain(model, token_ids(2, 5), options={"lime": {"samples": 50}})
    wrapped = explain(Predictor(model), token_ids(2, 5), options={"lime": {"samples": 50}})
    for name, result in direct.items():
        np.testing.assert_array_equal(wrapped[name].values, result.values)
    with pytest.raises(InvalidInputError, match="which decides"):
        explain(Predictor(model), token_ids(2, 5), task="binary")


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        ((), None, InvalidInputError, "methods is empty"),
        (("lmie",), None, InvalidInputError, "no explainer 'lmie'.*Did you mean 'lime'"),
        (("lime",), {"kernel_shap": {}}, InvalidInputError, "options are given for 'kernel_shap', which is not among"),
        (("lime",), {"lime": {"sample": 5}}, InvalidTypeError, "options of lime do not fit.*sample"),
        (("lime",), {"lime": {"samples": 1}}, InvalidInputError, "samples is 1"),
        (("lime",), {"lime": {"output": "probability"}}, InvalidInputError, "which decides"),
    ],
)
def test_wrong_methods_and_options_are_refused(methods, options, error, message):
    """No method, an unknown one, options of another method and wrong options are refused, naming the method."""
    with pytest.raises(error, match=message):
        explain(lstm(), INPUTS, methods, options=options)


def test_refusals_come_before_any_work():
    """All explainers are made before the model is asked, so a wrong option costs nothing."""
    calls = []

    class Counts(torch.nn.Module):
        def forward(self, inputs):
            calls.append(1)
            return inputs.sum((1, 2))

    with pytest.raises(InvalidInputError, match="samples is 1"):
        explain(Counts(), INPUTS, ("kernel_shap", "lime"), options={"lime": {"samples": 1}})
    assert calls == []
