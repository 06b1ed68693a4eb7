"""The picture of a surrogate tree: every condition once, bars that are the shares, in any theme, width and size."""

import io
from dataclasses import replace

import pytest

from gatelens.models import DataSpec, FeatureSpec
from gatelens.models.surrogate import SurrogateTree
from gatelens.reports.palette import DARK, LIGHT, NARROW_WIDTH
from gatelens.reports.surrogate_plot import plot_surrogate
from helpers.explained import lstm, sequences

LONG = "$rate$ of a thing with a name that goes on and on and on and on"


def tree(depth=3, *, data=None, **config):
    """Return a tree of a seeded model."""
    model = lstm(strength=4.0, **config)
    model.data = data
    return SurrogateTree.fit(model, sequences(300, 6, 3), max_depth=depth, min_leaf=3)


def words(figure):
    """Return all text of a figure, each on one line."""
    return [text.get_text().replace("\n", " ") for axes in figure.axes for text in axes.texts]


def test_rows_are_the_conditions_and_bars_the_shares():
    """Each node but the root is a row with its condition and count; its bar has its shares; leaves end in answers."""
    found = tree(task="multiclass", output_size=3)
    figure = plot_surrogate(found)
    shown = words(figure)
    rows = found.nodes[1:]
    for node in rows:
        text = node.condition if node.statistic is not None else f"{node.condition} \N{RIGHTWARDS ARROW} {node.answer}"
        assert text in shown
        assert str(node.count) in shown
    widths = [patch.get_width() for patch in figure.axes[1].patches]
    assert widths == pytest.approx([share for node in rows for share in node.shares])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("config", [{"task": "multiclass", "output_size": 3}, {}])
def test_the_title_tells_fidelity_and_the_trivial_answer(config):
    """The title holds the fidelity beside the constant's, for classes and numbers."""
    found = tree(**config)
    title = plot_surrogate(found).texts[0].get_text().replace("\n", " ")
    assert title == f"A surrogate tree that {found.fidelity}"


def test_values_of_a_regression():
    """Of a regression each row has a dot at its mean score, and the axis is named with the unit."""
    found = tree(data=DataSpec(features=tuple(FeatureSpec(name=name) for name in "abc"), output_unit="kW"))
    axes = plot_surrogate(found).axes[1]
    dots = [float(line.get_xdata()[0]) for line in axes.get_lines() if line.get_marker() == "o"]
    assert dots == pytest.approx([node.value for node in found.nodes[1:]])
    assert axes.get_xlabel().replace("\n", " ") == "mean score of the model, kW"


@pytest.mark.parametrize("theme", [LIGHT, DARK, replace(LIGHT, width=NARROW_WIDTH), replace(DARK, width=NARROW_WIDTH)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: tree(1, task="binary"),
        lambda: tree(6, task="multiclass", output_size=3),
        lambda: tree(4, task="multiclass", output_size=7),
        lambda: tree(5),
        lambda: tree(data=DataSpec(features=tuple(FeatureSpec(name=name + LONG, unit="$/h") for name in "abc"))),
    ],
    ids=["stump", "deep", "many classes", "deep regression", "long names"],
)
def test_texts_stay_inside_and_apart(make, theme):
    """No text leaves the picture or lies on another, and nothing warns."""
    figure = plot_surrogate(make(), theme=theme)
    figure.savefig(io.BytesIO(), format="svg")
    figure.savefig(io.BytesIO(), format="png", dpi=100)
    drawn = [text for axes in figure.axes for text in (*axes.texts, axes.xaxis.label)] + list(figure.texts)
    boxes = [text.get_window_extent() for text in drawn if text.get_text()]
    if figure.legends:
        boxes.append(figure.legends[0].get_window_extent())
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 1 or up <= 1
