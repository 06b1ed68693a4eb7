"""Pictures draw the data they are given: bar heights, heat-map cells, symmetric scales, units and labels."""

import numpy as np
import pytest

from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel
from gatelens.reports import plots
from gatelens.reports.palette import DARK, LIGHT
from helpers.made import made_attribution

VALUES = np.array([[1.0, -0.5], [0.0, 0.25], [-2.0, 0.5]])


def trace(layers=(5, 3), lengths=(4, 2)):
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=layers))
    return model.trace(np.random.default_rng(0).normal(size=(len(lengths), max(lengths), 2)), lengths)


def images(figure):
    return [axes.get_images()[0] for axes in figure.axes if axes.get_images()]


def test_timestep_bars_are_the_timesteps() -> None:
    """Bar heights are the contributions of valid timesteps, coloured by sign."""
    figure = plots.plot_timesteps(made_attribution(VALUES, length=2))
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [0.5, 0.25]
    figure = plots.plot_timesteps(made_attribution(VALUES), theme=DARK)
    from matplotlib.colors import to_hex

    assert [to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches] == [DARK.raises, DARK.raises, DARK.lowers]


def test_heatmap_holds_the_values_on_a_symmetric_scale() -> None:
    """Cells are the attributions, feature by row, and the scale is symmetric about zero, which is the paper."""
    figure = plots.plot_heatmap(made_attribution(VALUES, features=("a", "b")))
    image = images(figure)[0]
    np.testing.assert_array_equal(image.get_array(), VALUES.T)
    assert (image.norm.vmin, image.norm.vmax) == (-2.0, 2.0)
    assert np.allclose(image.cmap(0.5)[:3], tuple(int(LIGHT.paper[i : i + 2], 16) / 255 for i in (1, 3, 5)), atol=0.01)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_comparison_shares_a_scale_among_those_that_add_up() -> None:
    """Explainers that add up share one symmetric axis; the others are marked as having their own."""
    figure = plots.plot_comparison(
        {
            "one": made_attribution(VALUES),
            "two": made_attribution(3 * VALUES, method="gradient_shap"),
            "gate": made_attribution(VALUES, method="gate_saliency", completeness="none", resolution="timestep"),
        }
    )
    one, two, gate = figure.axes
    assert one.get_ylim() == two.get_ylim()
    assert one.get_ylim()[0] == -one.get_ylim()[1]
    assert "own scale" in gate.get_title(loc="left")
    assert "own scale" not in one.get_title(loc="left")


def test_panels_stand_exactly_above_each_other() -> None:
    """All time axes of a picture have the same place and the same limits."""
    figure = plots.plot_comparison({"one": made_attribution(VALUES), "two": made_attribution(VALUES)})
    frames = {(round(axes.get_position().x0, 9), round(axes.get_position().x1, 9)) for axes in figure.axes}
    assert len(frames) == 1
    assert {axes.get_xlim() for axes in figure.axes} == {(-0.5, 2.5)}


def test_inputs_are_drawn_in_their_units() -> None:
    """A series is drawn as value * scale + center with its unit, the baseline beside it, spans shaded."""
    attribution = made_attribution(
        VALUES, inputs=[[1.0, 0], [2.0, 0], [3.0, 0]], features=("glucose", "b"), feature_unit=("mg/dL", ""),
        feature_center=(100.0, 0.0), feature_scale=(10.0, 1.0),
    )  # fmt: skip
    figure = plots.plot_inputs(attribution, features=[0], spans=[(1, 2)])
    axes = figure.axes[0]
    baseline, series = axes.get_lines()
    np.testing.assert_array_equal(series.get_ydata(), [110, 120, 130])
    np.testing.assert_array_equal(baseline.get_ydata(), [100, 100, 100])
    assert axes.get_title(loc="left") == "glucose, mg/dL"
    assert axes.patches[0].get_x() == 0.5


def test_strongest_features_leave_clock_hands_out() -> None:
    """The features with most weight are drawn; sine and cosine of the time of day are not."""
    attribution = made_attribution(
        [[0.1, 5.0, 1.0, 9.0]], feature_transform=("identity", "difference", "identity", "day_sine")
    )
    assert plots.strongest_features(attribution, 0, most=2) == [1, 2]


def test_gates_hold_the_trace() -> None:
    """Each gate's heat map holds the trace of the valid timesteps, strongest units first; forgetting is 1 - f."""
    found = trace()
    order, weight = plots.unit_order(found, 1, layer="lstm.0")
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert list(weight[order]) == sorted(weight, reverse=True)
    figure = plots.plot_gates(found, 1, layer="lstm.0")
    drawn = [image.get_array() for image in images(figure)[:4]]
    layer = found["lstm.0"]
    expected = (layer.input_gate, 1 - layer.forget_gate, layer.candidate, layer.output_gate)
    for array, gate in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(array, gate[1, :2].numpy()[:, order].T)


def test_gate_attributions_choose_the_units() -> None:
    """Where gate attributions are known, they order the units."""
    found = trace(layers=(3,), lengths=(4,))
    gates = np.zeros((1, 1, 4, 4, 3))
    gates[..., 1] = -5
    gates[..., 2] = 1
    attribution = made_attribution(np.ones((4, 1)), gates=gates)
    order, _ = plots.unit_order(found, 0, attribution=attribution)
    assert list(order) == [1, 2, 0]


def test_cell_state_lines_are_the_cells() -> None:
    """The courses below the heat map are the cell states of the strongest units."""
    found = trace(layers=(3,), lengths=(4,))
    order, _ = plots.unit_order(found, 0)
    figure = plots.plot_cell_state(found, 0)
    lines = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("The strongest")).get_lines()
    courses = [line.get_ydata() for line in lines if len(line.get_ydata()) == 4]
    for course, unit in zip(courses, order, strict=True):
        np.testing.assert_array_equal(course, found["lstm.0"].cell_state[0, :, unit].numpy())


def test_gate_attribution_sums_units() -> None:
    """Which gate mattered when: the sum over units, one row a gate."""
    gates = np.random.default_rng(0).normal(size=(1, 1, 3, 4, 2))
    attribution = made_attribution(VALUES, gates=gates)
    figure = plots.plot_gate_attribution(attribution)
    np.testing.assert_allclose(images(figure)[0].get_array(), gates[0, 0].sum(axis=2).T)


def test_names_are_never_formulas() -> None:
    """Dollar signs in names are shown, not typeset."""
    figure = plots.plot_heatmap(made_attribution(VALUES, features=("$price", "a$b$")))
    figure.savefig("/dev/null", format="svg")
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"\$price"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.plot_timesteps(made_attribution(VALUES), 5), "sample is 5"),
        (lambda: plots.plot_gate_attribution(made_attribution(VALUES)), "use gate_saliency"),
        (lambda: plots.plot_gates(trace(), 0, layer="lstm.7"), "no layer 'lstm.7'"),
        (lambda: plots.plot_comparison({"a": made_attribution(VALUES, resolution="feature")}), "timesteps apart"),
    ],
)
def test_refusals(draw, message: str) -> None:
    """What cannot be drawn is refused with a sentence."""
    with pytest.raises(InvalidInputError, match=message):
        draw()


def test_attribution_plot_hands_over() -> None:
    """Attribution.plot() gives the timestep bars."""
    assert [bar.get_height() for bar in made_attribution(VALUES).plot().axes[0].patches] == [0.5, 0.25, -1.5]
