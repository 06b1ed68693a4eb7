"""Pictures draw the data they are given: bar heights, heat-map cells, symmetric scales, units and labels."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel, memory_flow
from gatelens.reports import plots
from gatelens.reports.palette import DARK, LIGHT, NARROW_WIDTH
from helpers.made import made_attribution

VALUES = np.array([[1.0, -0.5], [0.0, 0.25], [-2.0, 0.5]])
GATES = np.random.default_rng(0).normal(size=(1, 1, 3, 4, 2))
NARROW = replace(DARK, width=NARROW_WIDTH)


def trace(layers=(5, 3), lengths=(4, 2)):
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=layers))
    return model.trace(np.random.default_rng(0).normal(size=(len(lengths), max(lengths), 2)), lengths)


def images(figure):
    """Return what maps are drawn with, colour keys aside."""
    maps = [
        [*axes.get_images(), *(part for part in axes.collections if isinstance(part, QuadMesh))]
        for axes in figure.axes
        if axes.get_label() != "<colorbar>"
    ]
    return [found[0] for found in maps if found]


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
        (lambda: plots.plot_timesteps(made_attribution(VALUES, resolution="feature")), "draw plot_features"),
        (lambda: plots.plot_features(made_attribution(VALUES, resolution="timestep")), "does not tell features apart"),
        (lambda: plots.plot_memory_flow(trace(), 2), "this trace has the samples 0 to 1"),
        (lambda: plots.plot_inputs(made_attribution([[1.0]], features=("token",))), "names and not amounts"),
        (
            lambda: plots.plot_comparison({"a": made_attribution(VALUES), "b": made_attribution(VALUES[:2])}),
            "2 and 3 timesteps",
        ),
    ],
)
def test_refusals(draw, message: str) -> None:
    """What cannot be drawn is refused with a sentence."""
    with pytest.raises(InvalidInputError, match=message):
        draw()


def test_memory_flow_holds_what_is_left() -> None:
    """The map is the flow of each unit; below it are sizes summed over all units, written and left."""
    found = trace()
    flow = memory_flow(found)["lstm.0"]
    figure = plots.plot_memory_flow(found, 0, layer="lstm.0")
    order, _ = plots.unit_order(found, 0, layer="lstm.0")
    np.testing.assert_allclose(images(figure)[0].get_array(), flow.flow[0].numpy()[:, order].T)
    bottom = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("Sizes summed over all 5"))
    written, left = (line.get_ydata() for line in bottom.get_lines())
    np.testing.assert_allclose(written, flow.written[0].abs().sum(dim=1), rtol=1e-6)
    np.testing.assert_allclose(left, flow.flow[0].abs().sum(dim=1), rtol=1e-6)


def test_a_reverse_layer_says_where_its_end_is() -> None:
    """The picture of a layer that reads backwards tells that its end is the first timestep."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,), bidirectional=True))
    figure = plots.plot_memory_flow(model.trace(np.ones((1, 4, 2))), layer="lstm.0.reverse")
    assert "the first timestep, as the layer reads backwards" in titles(figure)[0]


def test_many_units_say_what_they_carry() -> None:
    """Of a wide layer 32 units are drawn, and it is told how many of how many, and with what share."""
    found = trace(layers=(40,))
    for draw in (plots.plot_gates, plots.plot_cell_state, plots.plot_memory_flow):
        assert "(32 of 40 units, which carry" in titles(draw(found))[0]
        assert "of 5 units" not in titles(draw(trace(layers=(5,))))[0]


def test_features_are_summed_over_time() -> None:
    """Each feature's bar is its sum over time."""
    figure = plots.plot_features(made_attribution(VALUES, features=("a", "b")))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [-1.0, 0.25]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_many_features_leave_a_row_for_the_others() -> None:
    """Of 300 features the strongest are drawn in the data's order, and the others' sum, so columns keep their sums."""
    values = np.random.default_rng(0).normal(size=(6, 300)) * np.linspace(1, 0.1, 300)
    attribution = made_attribution(values)
    figure = plots.plot_heatmap(attribution)
    drawn = images(figure)[0].get_array()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert drawn.shape == (plots.MOST_ROWS, 6)
    assert labels[-1] == f"{300 - plots.MOST_ROWS + 1} others, summed"
    np.testing.assert_allclose(drawn.sum(axis=0), attribution.timesteps[0])
    strongest = sorted(np.argsort(-np.abs(values).sum(axis=0))[: plots.MOST_ROWS - 1])
    assert labels[:-1] == [f"feature {column}" for column in strongest]
    np.testing.assert_allclose(drawn[:-1], values[:, strongest].T)
    bars = plots.plot_features(attribution).axes[0].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], drawn.sum(axis=1))


def test_what_is_not_told_apart_is_one_row_or_column() -> None:
    """A method by timestep has one row, one by feature one column: equal shares are no finding."""
    by_time = plots.plot_heatmap(made_attribution(VALUES, resolution="timestep"))
    np.testing.assert_allclose(images(by_time)[0].get_array(), VALUES.sum(axis=1)[None])
    by_feature = plots.plot_heatmap(made_attribution(VALUES, resolution="feature"))
    np.testing.assert_allclose(images(by_feature)[0].get_array(), VALUES.sum(axis=0)[:, None])
    assert [label.get_text() for label in by_feature.axes[0].get_xticklabels()] == ["the whole sequence"]


def test_tokens_label_the_steps() -> None:
    """Of text the strongest tokens that have room are written, upright, cut in their middle where they are long."""
    words = ["not", "good", "an" + "x" * 40 + "end"]
    text = made_attribution([[1.0], [2.0], [3.0]], features=("token",), token=words)
    labels = [label.get_text() for label in plots.plot_timesteps(text).axes[0].get_xticklabels()]
    assert labels[:2] == ["not", "good"]
    assert len(labels[2]) == 16
    assert labels[2].startswith("an")
    assert labels[2].endswith("end")
    values = np.zeros((300, 1))
    values[[7, 8, 200]] = [[1.0], [2.0], [3.0]]
    long = made_attribution(values, features=("token",), token=[f"word {step}" for step in range(300)])
    axes = plots.plot_timesteps(long).axes[0]
    written = [label.get_text() for label in axes.get_xticklabels()]
    assert {"word 8", "word 200"} <= set(written)
    assert "word 7" not in written
    assert np.diff(axes.get_xticks()).min() > 1


def test_steps_are_labelled_with_round_numbers() -> None:
    """Of many numbered timesteps multiples of 1, 2 or 5 times a power of ten are labelled."""
    figure = plots.plot_timesteps(made_attribution(np.ones((1000, 1))))
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["100", "200", "300", "400", "500", "600", "700", "800", "900", "1000"]


# -- every picture -----------------------------------------------------------------------------------------------------


def titles(figure):
    return [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]


PICTURES = {
    "timesteps": plots.plot_timesteps,
    "features": plots.plot_features,
    "heatmap": plots.plot_heatmap,
    "comparison": lambda found, **options: plots.plot_comparison({"a": found, "b": found}, **options),
    "inputs": plots.plot_inputs,
    "gate attribution": plots.plot_gate_attribution,
    "gates": lambda found, **options: plots.plot_gates(traced(found), attribution=found, **options),
    "cell state": lambda found, **options: plots.plot_cell_state(traced(found), attribution=found, **options),
    "memory flow": lambda found, **options: plots.plot_memory_flow(traced(found), attribution=found, **options),
    "summary": plots.plot_global_summary,
    "beeswarm": plots.plot_beeswarm,
    "global timesteps": plots.plot_global_timesteps,
    "global features": plots.plot_global_features,
    "training": lambda _, **options: plots.plot_training({"loss": [3, 2, 1.5], "val_loss": [3, 2.5, 2.6]}, **options),
}
OF_ONE_PANEL = (
    "timesteps", "features", "heatmap", "gate attribution", "beeswarm", "global timesteps", "global features",
    "training",
)  # fmt: skip


def traced(attribution):
    """Return a trace of as many timesteps."""
    return trace(layers=(2,), lengths=(int(attribution.lengths[0]),))


HARD = {
    "ordinary": lambda: made_attribution(VALUES, gates=GATES),
    "standard errors": lambda: made_attribution(VALUES, gates=GATES, std_error=np.abs(VALUES)),
    "one timestep": lambda: made_attribution(VALUES[:1], gates=GATES[:, :, :1]),
    "all zero": lambda: made_attribution(0 * VALUES, gates=0 * GATES),
    "one cell": lambda: made_attribution([[0.0]], gates=GATES[:, :, :1]),
    "300 features": lambda: made_attribution(np.random.default_rng(0).normal(size=(3, 300)), gates=GATES),
    "long names": lambda: made_attribution(
        VALUES, features=("a name of many words that goes on and on, unit 1", "x" * 90), gates=GATES
    ),
    "hostile names": lambda: made_attribution(VALUES, features=("</text><script>", "$a_{$\n\x00"), gates=GATES),
    "no names": lambda: made_attribution(VALUES, features=("", " "), gates=GATES),
    "tiny and huge": lambda: made_attribution(VALUES * [1e-12, 1e12], gates=GATES),
    "1,000 timesteps": lambda: made_attribution(
        np.random.default_rng(0).normal(size=(1000, 2)), gates=np.ones((1, 1, 1000, 4, 2))
    ),
}


@pytest.mark.parametrize("theme", [LIGHT, NARROW], ids=["light", "dark and narrow"])
@pytest.mark.parametrize("case", HARD)
def test_hard_cases_draw_without_warnings(case: str, theme) -> None:
    """Whatever the numbers and names, every picture is drawn, and no warning is given (they are errors here)."""
    attribution = HARD[case]()
    for draw in PICTURES.values():
        draw(attribution, theme=theme).savefig(io.BytesIO(), format="png", dpi=30)


@pytest.mark.parametrize("name", PICTURES)
def test_files_are_vectors_with_letters(name: str) -> None:
    """In SVG and PDF nothing is a picture of pixels, and texts are texts, in fonts that journals take."""
    figure = PICTURES[name](HARD["ordinary"]())
    files = {}
    for form in ("svg", "pdf"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form)
        files[form] = buffer.getvalue()
    assert b"<image" not in files["svg"]
    assert files["svg"].count(b"<text") >= 3
    assert b"/Subtype /Image" not in files["pdf"]
    assert b"/Subtype /Type0" in files["pdf"]
    assert b"/Type3" not in files["pdf"]


def test_a_large_map_is_one_picture() -> None:
    """A hundred thousand cells are a picture of one pixel each, not as many squares."""
    figure = plots.plot_heatmap(made_attribution(np.ones((5000, 3))))
    assert [type(image).__name__ for image in images(figure)] == ["AxesImage"]
    assert images(figure)[0].get_array().shape == (3, 5000)


def test_letters_that_the_font_lacks_are_the_reader_s_business_in_svg() -> None:
    """An SVG holds the letters themselves, so no warning is given that matplotlib's font lacks them."""
    figure = plots.plot_heatmap(made_attribution(VALUES, features=("\u8840\u7cd6", "b")))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert "\u8840\u7cd6" in buffer.getvalue().decode()


@pytest.mark.parametrize("name", OF_ONE_PANEL)
def test_pictures_of_one_panel_take_axes(name: str) -> None:
    """With `ax` it is drawn there, in the caller's figure, which is returned; neighbours stay empty."""
    from matplotlib.figure import Figure

    ours = Figure(layout="constrained")
    left, right = ours.subplots(1, 2)
    assert PICTURES[name](HARD["ordinary"](), ax=right) is ours
    assert right.has_data()
    assert not left.has_data()
    ours.savefig(io.BytesIO(), format="png", dpi=30)
    inner = Figure().subfigures(1, 2)[0]
    assert PICTURES[name](HARD["ordinary"](), ax=inner.subplots()) is inner.figure


def test_notebooks_show_pictures() -> None:
    """A figure shows itself as PNG, without pyplot."""
    assert plots.plot_timesteps(made_attribution(VALUES))._repr_png_().startswith(b"\x89PNG")


def test_every_picture_can_be_had_from_plots() -> None:
    """`gatelens.reports.plots` has every picture of every module, by name and in `__all__`."""
    from gatelens.reports import gate_plots, global_plots, training_plots

    for module in (plots, gate_plots, global_plots, training_plots):
        for name in vars(module):
            if name.startswith("plot_"):
                assert getattr(plots, name) is getattr(module, name)
                assert name in plots.__all__


# -- from an attribution -----------------------------------------------------------------------------------------------


def test_attribution_plot_hands_over() -> None:
    """Attribution.plot() gives the timestep bars, or the features' where only these are told apart."""
    assert [bar.get_height() for bar in made_attribution(VALUES).plot().axes[0].patches] == [0.5, 0.25, -1.5]
    by_feature = made_attribution(VALUES, resolution="feature").plot()
    assert [bar.get_width() for bar in by_feature.axes[0].patches] == [-1.0, 0.25]


@pytest.mark.parametrize(
    "kind",
    [
        "timesteps",
        "features",
        "heatmap",
        "inputs",
        "gates",
        "summary",
        "beeswarm",
        "global_timesteps",
        "global_features",
    ],
)
def test_attribution_plots_every_kind(kind: str) -> None:
    """Each kind draws something, in the theme asked for."""
    from matplotlib.colors import to_hex

    figure = made_attribution(VALUES, gates=GATES).plot(kind=kind, theme=DARK)
    assert figure.axes[0].has_data()
    assert to_hex(figure.get_facecolor()) == DARK.paper


def test_attribution_plot_refuses() -> None:
    """An unknown kind is answered with the known ones, and a picture of all samples takes none."""
    with pytest.raises(InvalidInputError, match=r"kind is 'heat_map'.*heatmap"):
        made_attribution(VALUES).plot(kind="heat_map")
    with pytest.raises(InvalidInputError, match=r"attribution\[0\]\.plot\(kind='summary'\)"):
        made_attribution(VALUES).plot(0, kind="summary")
    with pytest.raises(InvalidInputError, match="sample is 3"):
        made_attribution(VALUES).plot(3, kind="heatmap")
