"""Words made from numbers: each number in the words is one of the data's, and weak evidence makes no claim."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatelens.models import InvalidInputError
from gatelens.reports.evidence import agreement, rank_correlation
from gatelens.reports.narrative import choose_primary, narrate
from gatelens.reports.prediction import class_probabilities, headline
from gatelens.reports.reasons import find_reasons, strongest_span
from helpers.made import made_attribution


def checks_of(*attributions, sample=0):
    narrative = narrate({f"{index}": attribution for index, attribution in enumerate(attributions)}, sample)
    return {check.name: check for check in narrative.checks}


def test_reason_names_feature_sign_size_span_and_state() -> None:
    """A feature's reason tells its sum, its strongest span and what it did there in its own unit."""
    values = np.zeros((10, 2))
    values[7:, 0] = [1.0, 2.0, 3.0]
    values[0, 1] = -0.5
    inputs = np.zeros((10, 2))
    inputs[8:, 0] = [1.0, 2.0]
    attribution = made_attribution(
        values, features=("glucose", "insulin"), inputs=inputs, interval=300, feature_unit=("mg/dL", "U"),
        feature_center=(100.0, 0.0), feature_scale=(10.0, 1.0), feature_group=("glucose", "insulin"),
        feature_transform=("identity", "identity"),
    )  # fmt: skip
    reasons, rest = find_reasons(attribution, 0)
    assert [(reason.name, reason.effect) for reason in reasons] == [("glucose", 6.0), ("insulin", -0.5)]
    assert (reasons[0].first, reasons[0].last) == (8, 9)
    assert reasons[0].effect_text == "+6"
    assert reasons[0].text == (
        "raised it, mostly in the last 5 minutes (83 % of this effect), when it averaged 115 mg/dL (baseline 100)."
    )
    assert reasons[1].text.startswith("lowered it, mostly at the first reading")
    assert rest == ""


def test_a_feature_that_pushes_both_ways_gives_two_reasons() -> None:
    """Opposite contributions of one feature are not hidden in their sum."""
    reasons, _ = find_reasons(made_attribution([[3.0], [-2.9], [0.0]]), 0)
    assert [reason.effect for reason in reasons] == [3.0, -2.9]


def test_grouped_features_are_one_reason() -> None:
    """Features of one group are told together, without a state in units."""
    values = np.tile([[0.5, 0.25]], (4, 1))
    reasons, _ = find_reasons(
        made_attribution(values, feature_group=("time of day", "time of day"), feature_scale=(1.0, 1.0),
                         feature_center=(0.0, 0.0), feature_unit=("", "")), 0,
    )  # fmt: skip
    assert [(reason.name, reason.effect) for reason in reasons] == [("time of day", 3.0)]
    assert "when it" not in reasons[0].text


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12))
def test_reasons_and_the_rest_add_up(numbers: list[float]) -> None:
    """The named effects and the sentence about the rest together are the sum of all attributions."""
    values = np.array(numbers).reshape(-1, 1)
    reasons, rest = find_reasons(made_attribution(values), 0)
    left = values.sum() - sum(reason.effect for reason in reasons)
    if not rest:
        assert abs(left) <= 0.005 * np.abs(values).sum()
    elif reasons:
        assert float(rest.split()[-1].rstrip(".").replace("\N{MINUS SIGN}", "-").replace(",", "")) == pytest.approx(
            left, rel=5e-3
        )
    assert len(reasons) <= 5
    assert all(abs(a.effect) >= abs(b.effect) for a, b in pairwise(reasons))


def test_nothing_moved() -> None:
    """An attribution of zeros gives no reason and says so."""
    reasons, rest = find_reasons(made_attribution(np.zeros((3, 2))), 0)
    assert reasons == []
    assert "No part of the input" in rest


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15).filter(lambda part: sum(part) > 0.01))
def test_strongest_span_is_the_shortest_that_holds_enough(part: list[float]) -> None:
    """The span holds 60 % of the whole, and no shorter one does."""
    array = np.array(part)
    first, last = strongest_span(array)
    assert array[first : last + 1].sum() >= 0.6 * array.sum() - 1e-9
    width = last - first
    for start in range(len(array) - width + 1):
        assert array[start : start + width].sum() < 0.6 * array.sum() + 1e-9


def test_methods_without_features_tell_of_time() -> None:
    """A method that tells only timesteps apart gives reasons about stretches of time, never about features."""
    values = np.repeat([[1.0], [2.0], [-2.5]], 2, axis=1) / 2
    reasons, _ = find_reasons(made_attribution(values, resolution="timestep"), 0)
    assert [(reason.name, reason.effect) for reason in reasons] == [
        ("What happened in the first 2 timesteps", 3.0),
        ("What happened at timestep 3", -2.5),
    ]


def test_tokens_are_named() -> None:
    """Reasons of a text model quote its tokens."""
    attribution = made_attribution([[2.0], [-1.0], [0.0]], features=("token",), token=["not", "bad", "film"])
    reasons, _ = find_reasons(attribution, 0)
    assert [reason.name for reason in reasons] == ["“not”", "“bad”"]
    assert reasons[0].text == "(token 1) raised it."


def test_primary_must_add_up() -> None:
    """An explainer whose sum misses the change gives way to one that adds up, whatever their order."""
    broken = made_attribution([[1.0], [1.0]], prediction=5.0)
    sound = made_attribution([[1.0], [4.0]], method="kernel_shap", completeness="exact")
    assert choose_primary({"a": broken, "b": sound}, 0) == "b"
    assert choose_primary({"a": made_attribution([[1.0], [4.0]]), "b": sound}, 0) == "a"


def test_primary_tells_features_apart_if_one_does() -> None:
    """Among complete explainers one that tells features apart is preferred."""
    coarse = made_attribution([[1.0, 1.0]], resolution="timestep")
    fine = made_attribution([[1.0, 1.0]], method="lime_like", completeness="exact")
    assert choose_primary({"coarse": coarse, "fine": fine}, 0) == "fine"


@pytest.mark.parametrize(
    ("prediction", "passed", "text"), [(4.0, True, "100 %"), (4.4, False, "90.9 %"), (2.0, False, "200 %")]
)
def test_completeness_check(prediction: float, *, passed: bool, text: str) -> None:
    """The share of the change that the reasons account for is told, and must lie within 5 %."""
    check = checks_of(made_attribution([[1.0], [3.0]], prediction=prediction))["completeness"]
    assert check.passed == passed
    assert f"account for {text} of the change" in check.text


def test_no_change_no_claim() -> None:
    """Where the prediction equals the baseline's, no share is claimed."""
    check = checks_of(made_attribution([[1.0], [-1.0]]))["completeness"]
    assert not check.passed
    assert "no change to explain" in check.text


def test_influence_is_not_called_complete() -> None:
    """A method that promises no completeness gets no percentage."""
    check = checks_of(made_attribution([[1.0], [3.0]], method="lime", completeness="none"))["completeness"]
    assert not check.passed
    assert "%" not in check.text


def test_agreement_is_measured_on_cells() -> None:
    """Two methods that agree by feature but peak at other timesteps are seen to disagree."""
    one, two = np.zeros((6, 2)), np.zeros((6, 2))
    one[:, 0] = [6, 5, 4, 3, 2, 1]
    two[:, 0] = [1, 2, 3, 4, 5, 6]
    pairs = agreement({"a": made_attribution(one), "b": made_attribution(two, method="gradient_shap")}, 0)
    assert [pair.over for pair in pairs] == ["cells"]
    assert pairs[0].correlation < 0.75
    checks = checks_of(made_attribution(one), made_attribution(two, method="kernel_shap", resolution="timestep"))
    assert not checks["agreement"].passed
    assert "(\N{MINUS SIGN}1.00)" in checks["agreement"].text
    assert "differently" in checks["agreement"].text
    assert "Each puts its largest weight on another timestep." in checks["agreement"].text


def test_agreement_of_like_minded_methods_passes() -> None:
    """Methods that rank alike pass, and the sentence carries their correlation."""
    course = np.array([[1.0], [2.0], [-3.0], [0.5]])
    checks = checks_of(made_attribution(course), made_attribution(2 * course, method="gradient_shap"))
    assert checks["agreement"].passed
    assert "Gradient SHAP (1.00) ranks the parts of the input alike" in checks["agreement"].text
    assert "All put their largest weight at timestep 3." in checks["agreement"].text


def test_one_explainer_alone_is_not_confirmed() -> None:
    """A single explainer cannot pass the agreement check."""
    assert not checks_of(made_attribution([[1.0], [3.0]]))["agreement"].passed


def test_gates_do_not_decide_agreement() -> None:
    """A gate method may rank differently without failing the check, but cannot pass it alone."""
    course = np.array([[1.0], [2.0], [3.0], [4.0]])
    gate = made_attribution(course[::-1], method="gate_saliency", completeness="none", resolution="timestep",
                            gates=np.zeros((1, 1, 4, 4, 2)))  # fmt: skip
    with_support = checks_of(made_attribution(course), made_attribution(course, method="gradient_shap"), gate)
    assert with_support["agreement"].passed
    assert not checks_of(made_attribution(course), gate)["agreement"].passed
    like_minded = made_attribution(course, method="gate_saliency", completeness="none", resolution="timestep",
                                   gates=np.zeros((1, 1, 4, 4, 2)))  # fmt: skip
    assert not checks_of(made_attribution(course), like_minded)["agreement"].passed


def test_sensitivities_do_not_decide_agreement() -> None:
    """Methods that measure sensitivity are told of together, and neither fail the check nor pass it."""
    course = np.array([[1.0], [2.0], [3.0], [4.0]])
    others = [
        made_attribution(course[::-1], method=name, completeness="none", measures="sensitivity")
        for name in ("saliency", "attention")
    ]
    check = checks_of(made_attribution(course), made_attribution(course, method="deeplift"), *others)["agreement"]
    assert check.passed
    assert "Integrated gradients (1.00) ranks the parts of the input alike" in check.text
    assert "Saliency and Attention tell of sensitivity, which need not agree, and do not count here." in check.text
    assert not checks_of(made_attribution(course), *others)["agreement"].passed


@pytest.mark.parametrize(
    ("fit", "passed", "text"), [(0.93, True, "93 %"), (0.31, False, "too little"), (-0.5, False, "0 %")]
)
def test_surrogate_fit(fit: float, *, passed: bool, text: str) -> None:
    """A surrogate that fits badly asks for care."""
    check = checks_of(made_attribution([[1.0]], method="lime", completeness="none", surrogate_r2=fit))["surrogate fit"]
    assert check.passed == passed
    assert text in check.text


@pytest.mark.parametrize(("error", "passed"), [(0.05, True), (2.0, False)])
def test_sampling_error(error: float, *, passed: bool) -> None:
    """A sampling error as large as the attribution asks for care, and its share is told."""
    check = checks_of(made_attribution([[3.0], [4.0]], std_error=[[error], [0.0]]))["sampling error"]
    assert check.passed == passed
    assert f"{error / 5 * 100:.0f} %" in check.text


def test_confidence_and_probabilities() -> None:
    """An unsure model is said to be unsure, with the probabilities of its scores."""
    scores = (0.2, 0.0, -3.0)
    attribution = made_attribution(
        [[1.0]], task="multiclass", scores=scores, outputs=("fall", "stay", "rise"), classes=("fall", "stay", "rise")
    )
    exponentials = np.exp(scores)
    expected = exponentials / exponentials.sum()
    pairs = class_probabilities(attribution, 0)
    assert [name for name, _ in pairs] == ["fall", "stay", "rise"]
    assert [share for _, share in pairs] == pytest.approx(expected)
    check = checks_of(attribution)["confidence"]
    assert check.text == f"The model itself is unsure: fall {expected[0]:.0%}, stay {expected[1]:.0%}.".replace(
        "%", " %"
    )


def test_headlines() -> None:
    """The headline fits the task: class and probability, or value and unit; per-timestep outputs name the timestep."""
    binary = made_attribution([[1.0]], task="binary", scores=(2.0,), outputs=("sick",), classes=("well", "sick"))
    assert headline(binary, 0) == ("The model predicts", "sick", "with 88 % probability.")
    value = made_attribution([[1.5]], output_unit="°C", target="tomorrow's temperature")
    assert headline(value, 0) == ("The model predicts tomorrow's temperature:", "1.5 °C", ".")
    assert headline(made_attribution([[1.0]]), 0)[1] == "1"
    assert "at timestep 3" in headline(made_attribution([[1.0]], target_timestep=2), 0)[2]


CLASSES = {"task": "multiclass", "outputs": ("fall", "stay"), "classes": ("fall", "stay"), "scores": (3.0, -1.0)}
QUARTERS = np.arange("2010-10-05T18:00", "2010-10-05T20:00", 15, dtype="datetime64[m]").astype("datetime64[ns]")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {**CLASSES, "output": "probability"},
            ("The sum over timesteps 3 to 6 of the probability of fall is", "1.51", "."),
        ),
        (
            {**CLASSES, "target": "glucose"},
            ("For glucose, the sum over timesteps 3 to 6 of the score of fall is", "1.51", "."),
        ),
        ({"output_unit": "mm"}, ("The sum over timesteps 3 to 6 of the prediction is", "1.51 mm", ".")),
        (
            {"timestamp": QUARTERS, "target_time": "inputs"},
            ("The sum over timesteps 3 to 6 (18:30 to 19:15) of the prediction is", "1.51", "."),
        ),
        (
            {"timestamp": QUARTERS, "target_time": "own", "outputs": ("low", "high"), "scores": (0.0, 1.0)},
            ("The sum over timesteps 3 to 6 of the prediction of high is", "1.51", "."),
        ),
        (
            {"target_last": 2, "timestamp": QUARTERS, "target_time": "inputs"},
            ("The sum over timestep 3 (18:30) of the prediction is", "1.51", "."),
        ),
    ],
)
def test_headlines_of_windows(options, expected) -> None:
    """A sum over timesteps says so, counts them as the page does, and is no probability: a number, not percent."""
    values = np.full((8, 1), 0.01 / 8)
    attribution = made_attribution(
        values, **{"baseline_prediction": 1.5, "target_timestep": 2, "target_last": 5, **options}
    )
    told = narrate({"a": attribution})
    assert told.headline == expected
    assert class_probabilities(attribution, 0) is None
    assert "confidence" not in checks_of(attribution)
    subject = expected[0].removeprefix("For glucose, ")
    assert told.against.lower().startswith(f"{subject} {expected[1]}; for an input of zeros it would be 1.5".lower())
    assert "share out the difference, +0.01" in told.against
    assert "points" not in told.against + "".join(reason.effect_text for reason in told.reasons)
    hidden = narrate({"a": attribution}, redact=True)
    assert "18:30" not in hidden.headline[0] + hidden.against


def test_a_timestep_is_told_with_its_time() -> None:
    """One explained timestep has its clock time, where it is one of the inputs' own and nothing is redacted."""
    attribution = made_attribution(
        np.ones((8, 1)), target_timestep=2, timestamp=QUARTERS, target_time="inputs", **CLASSES
    )
    assert headline(attribution, 0) == ("The model predicts", "fall", "with 98 % probability at timestep 3 (18:30).")
    assert headline(attribution, 0, redact=True)[2] == "with 98 % probability at timestep 3."


def test_redaction_leaves_values_and_clock_out() -> None:
    """Redacted words hold no input value and no clock time."""
    values = np.zeros((6, 1))
    values[4:] = 1.0
    times = np.arange("2010-10-05T18:00", "2010-10-05T18:30", 5, dtype="datetime64[m]").astype("datetime64[ns]")
    attribution = made_attribution(
        values, inputs=np.full((6, 1), 3.21), feature_unit=("mg/dL",), feature_center=(0.0,), feature_scale=(1.0,),
        feature_group=("glucose",), timestamp=times, interval=300,
    )  # fmt: skip
    open_text = narrate({"a": attribution}).reasons[0].text
    hidden = narrate({"a": attribution}, redact=True).reasons[0].text
    assert "3.21" in open_text
    assert "18:2" in open_text
    assert "3.21" not in hidden
    assert "18:2" not in hidden


def test_rank_correlation() -> None:
    """Spearman's correlation, by hand; none where a side does not vary."""
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 15])) == pytest.approx(0.5)
    assert rank_correlation(np.array([1, 1, 1]), np.array([10, 20, 15])) is None
    assert rank_correlation(np.array([1, 2]), np.array([1, 2])) is None


def test_nothing_to_tell() -> None:
    """No attribution, no words."""
    with pytest.raises(InvalidInputError, match="at least one"):
        narrate({})
