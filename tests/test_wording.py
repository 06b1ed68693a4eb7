"""Numbers, times and names in words."""

import doctest

import numpy as np
import pytest

from gatelens.reports import wording
from helpers.made import made_attribution


def test_examples_in_the_docstrings_hold() -> None:
    """Every example in the module's docstrings gives what it says."""
    found = doctest.testmod(wording)
    assert found.attempted >= 9
    assert found.failed == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.14159, "3.14"), (100.0, "100"), (99999.4, "99,999"), (-7.9e-7, "−7.90e−07"), (0.1 + 0.2, "0.3"),
     (float("nan"), "not a number"), (12.0, "12"), (999.6, "1,000"), (1e12, "1.00e+12")],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    """A number has three significant digits, no needless zeros and a real minus sign."""
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.994, "99 %"), (0.996, "over 99 %"), (-0.12, "−12 %"), (3.08, "308 %")]
)
def test_percent(share: float, text: str) -> None:
    """A share never rounds a doubt away."""
    assert wording.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "+12 points"), (-0.0312, "−3.1 points"), (0.0951, "+9.5 points"), (-0.5, "−50 points"), (0, "0 points")],
)
def test_effect_on_a_probability_is_told_in_points(value: float, text: str) -> None:
    """Contributions to a probability are points of a hundred, with sign."""
    attribution = made_attribution([[1.0]], output="probability", task="binary")
    assert wording.effect(value, attribution) == text


def test_effect_and_level_carry_the_unit() -> None:
    """Contributions to a regression carry its unit."""
    attribution = made_attribution([[1.0]], output_unit="mg/dL")
    assert wording.effect(-3.14159, attribution) == "−3.14 mg/dL"
    assert wording.level(142.3, attribution) == "142 mg/dL"


def test_step_labels() -> None:
    """Timesteps are named by the clock, else by distance from the end, else by number."""
    times = np.array(["2010-10-05T18:00", "2010-10-05T18:05", "2010-10-05T18:10"], dtype="datetime64[ns]")
    clock = made_attribution(np.ones((3, 1)), timestamp=times, interval=300)
    assert wording.step_labels(clock, 0) == ["18:00", "18:05", "18:10"]
    assert wording.step_labels(clock, 0, redact=True) == ["−10 minutes", "−5 minutes", "now"]
    assert wording.step_labels(made_attribution(np.ones((3, 1))), 0) == ["1", "2", "3"]
    assert wording.step_labels(made_attribution(np.ones((3, 1)), length=2), 0) == ["1", "2"]
    days = np.array(["2010-10-05T18:00", "2010-10-06T18:00"], dtype="datetime64[ns]")
    assert wording.clock_labels(days) == ["2010-10-05 18:00", "2010-10-06 18:00"]
    assert wording.clock_labels(days.astype("datetime64[D]").astype("datetime64[ns]")) == ["2010-10-05", "2010-10-06"]
    assert wording.clock_labels(days[:1].astype("datetime64[D]").astype("datetime64[ns]")) == ["00:00"]


def test_method_name_of_a_plugin() -> None:
    """A plug-in's name becomes words."""
    assert wording.method_name("my_method") == "My method"
    assert wording.method_name("kernel_shap") == "Kernel SHAP"
