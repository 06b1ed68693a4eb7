"""Training curves: lines are the numbers given, measures have panels of their own, and odd histories are told apart."""

import io

import numpy as np
import pytest

from gatelens.models import InvalidInputError, InvalidTypeError
from gatelens.reports.palette import DARK, LIGHT
from gatelens.reports.training_plots import plot_training


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return label -> (epochs, values)."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_lines_are_the_numbers() -> None:
    """Training and validation of a measure share a panel, counted from epoch 1; another measure has its own."""
    figure = plot_training({"loss": [3, 2, 1], "validation loss": [3.5, 2.5, 2.75], "accuracy": [0.5, 0.6, 0.7]})
    loss, accuracy = figure.axes
    assert lines(loss) == {"training": ([1, 2, 3], [3, 2, 1]), "validation": ([1, 2, 3], [3.5, 2.5, 2.75])}
    assert lines(accuracy) == {"training": ([1, 2, 3], [0.5, 0.6, 0.7])}
    assert loss.get_title(loc="left") == "Loss (lowest in validation: 2.5, epoch 2)"
    assert accuracy.get_title(loc="left") == "Accuracy"
    assert accuracy.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    "names",
    [
        ("loss", "val_loss"),
        ("train loss", "validation loss"),
        ("training_loss", "valid-loss"),
        ("train/loss", "val/loss"),
    ],
)
def test_names_of_other_libraries(names) -> None:
    """The usual ways to name training and validation are one measure."""
    figure = plot_training({name: [1.0, 0.5] for name in names})
    assert [list(lines(axes)) for axes in figure.axes] == [["training", "validation"]]


def test_names_that_only_begin_alike_are_their_own() -> None:
    """A "value error" is no validation of anything, and "training" alone is a name."""
    figure = plot_training({"value error": [1.0, 2.0], "training": [1.0, 2.0]})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Value error", "Training"]


def test_objects_and_tables() -> None:
    """An object with to_dict() gives its sequences of numbers, its epochs count them, and a DataFrame is a mapping."""

    class History:
        def to_dict(self):
            return {"epoch": [0, 10, 20], "loss": [3.0, 2.0, 1.0], "best": 20, "notes": "fine", "model": {"a": [1]}}

    assert lines(plot_training(History()).axes[0]) == {"training": ([0, 10, 20], [3, 2, 1])}
    import pandas as pd

    frame = pd.DataFrame({"epoch": [5, 6], "loss": [2.0, 1.0], "when": ["a", "b"]})
    assert lines(plot_training(frame).axes[0]) == {"training": ([5, 6], [2, 1])}


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(
    "history",
    [
        {"loss": [1.0]},
        {"loss": [1.0], "val_loss": [2.0]},
        {"loss": [0.0, 0.0]},
        {"loss": [np.nan, np.nan]},
        {"loss": [1.0, np.nan, np.inf, 0.5], "val_loss": [np.nan, 1.0, 2.0, np.nan]},
        {"loss": [1.0, 2.0, 3.0, 4.0], "val_loss": [1.0, 2.0]},
        {"loss": np.ones(100_000)},
        {"$loss$ of a very long name that goes on and on and on and on and on and on": [1, 2]},
    ],
)
def test_hard_histories_draw_without_warnings(history, theme) -> None:
    """One epoch, numbers that are none, sequences of unlike lengths, and any name."""
    plot_training(history, theme=theme).savefig(io.BytesIO(), format="svg")


def test_nan_is_no_lowest_loss() -> None:
    """Epochs without a number are not the best one."""
    title = plot_training({"loss": [1, 1, 1], "val_loss": [np.nan, 0.5, -np.inf]}).axes[0].get_title(loc="left")
    assert title == "Loss (lowest in validation: 0.5, epoch 2)"


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ([1, 2, 3], InvalidTypeError, "history is a list; expected a mapping of names"),
        (None, InvalidTypeError, "history is a NoneType"),
        ({}, InvalidInputError, "no sequence of numbers to draw"),
        ({"loss": 0.3, "name": "x", "epoch": [1, 2]}, InvalidInputError, "no sequence of numbers to draw"),
        ({"loss": []}, InvalidInputError, "no sequence of numbers to draw"),
    ],
)
def test_refusals(history, error, message: str) -> None:
    """What is no history is refused, with what one looks like."""
    with pytest.raises(error, match=message):
        plot_training(history)


def test_one_axes_holds_one_measure() -> None:
    """With `ax` a single measure is drawn, with a legend; of several it is refused."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    plot_training({"loss": [1, 2], "val_loss": [1, 2]}, ax=axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    with pytest.raises(InvalidInputError, match="this history has loss, accuracy"):
        plot_training({"loss": [1, 2], "accuracy": [1, 2]}, ax=axes)
