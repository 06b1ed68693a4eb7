"""Training curves: each measure over the epochs, training and validation in one panel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import InvalidInputError, InvalidTypeError
from .palette import LIGHT, Theme
from .plot_parts import canvas, name_lines, panels, titled
from .wording import capital

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EPOCHS = ("epoch", "epochs", "step", "steps")
PARTS = {"val": "validation", "valid": "validation", "validation": "validation", "test": "test", "train": "training",
         "training": "training"}  # fmt: skip
PREFIX = re.compile(rf"^({'|'.join(PARTS)})[\s_\-/.]+(?=\S)", re.IGNORECASE)


def plot_training(history: Any, *, theme: Theme = LIGHT, ax: Axes | None = None) -> Figure:
    """Draw how measures went over the epochs of a training, one panel a measure.

    "loss", "train loss" and "validation loss" (or "val_loss") are one measure; where a validation loss is known, its
    lowest epoch is marked.

    Args:
        history: Name -> one number an epoch; or an object whose `to_dict()` gives that. What is no sequence of
            numbers is left out; an "epoch" counts the others.
        theme: Colours.
        ax: Axes to draw on, of a history with one measure.

    Raises:
        InvalidTypeError: It is no such thing.
        InvalidInputError: It holds no numbers, or several measures for one `ax`.
    """
    curves = _curves(history)
    epochs = next((curves.pop(name) for name in list(curves) if name.lower() in EPOCHS), None)
    if not curves:
        raise InvalidInputError(
            'the history holds no sequence of numbers to draw; expected e.g. {"loss": [0.9, 0.5, 0.4]}, one an epoch.'
        )
    measures: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, values in curves.items():
        part = PREFIX.match(name)
        measure = name[part.end() :] if part else name
        measures.setdefault(measure, {})[PARTS[part[1].lower()] if part else "training"] = values
    if ax is not None and len(measures) > 1:
        raise InvalidInputError(f"one axes holds one measure; this history has {', '.join(measures)}. Leave ax out.")
    if ax is None:
        figure, found = panels([1.9] * len(measures), theme, bottom=0.55)
    else:
        figure, found = canvas(1.9, theme, ax)[0], [ax]
    first, last = (
        float(pick(_places(epochs, values)[end] for values in curves.values())) for pick, end in ((min, 0), (max, -1))
    )
    room = 0.5 if first == last else 0.01 * (last - first)
    for axes, (measure, parts) in zip(found, measures.items(), strict=True):
        _draw(axes, measure, parts, epochs, theme)
        axes.set_xlim(first - room, last + room)
        axes.tick_params(labelbottom=axes is found[-1])
        if ax is None:
            _name(axes, parts, theme)
        elif len(parts) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)
    found[-1].set_xlabel("epoch")
    return figure


def _curves(history: Any) -> dict[str, NDArray[np.float64]]:
    """Return name -> numbers (n,) of a mapping, a table, or an object that gives one."""
    if not hasattr(history, "items") and hasattr(history, "to_dict"):
        history = history.to_dict()
    if not hasattr(history, "items"):
        raise InvalidTypeError(
            f"history is a {type(history).__name__}; expected a mapping of names to one number an epoch, e.g. "
            '{"loss": [0.9, 0.5], "validation loss": [1.0, 0.7]}, or an object with to_dict().'
        )
    found = {}
    for name, values in history.items():
        if isinstance(values, (str, bytes, Mapping)):
            continue
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            continue
        if array.ndim == 1 and len(array):
            found[str(name)] = array
    return found


def _places(epochs: NDArray[np.float64] | None, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the epoch of each value: as the history counts them, or from 1."""
    if epochs is not None and len(epochs) == len(values):
        return epochs
    return np.arange(1.0, len(values) + 1)


def _draw(
    axes: Axes, measure: str, parts: Mapping[str, NDArray[np.float64]], epochs: NDArray[np.float64] | None,
    theme: Theme,
) -> None:  # fmt: skip
    from matplotlib.ticker import MaxNLocator

    title = capital(measure)
    for part, values in parts.items():
        strong = part == _strong(parts)
        axes.plot(
            _places(epochs, values), values, linewidth=1.8 if strong else 1.3, label=part,
            color=theme.accent if strong else theme.muted, linestyle=":" if part == "test" else "-",
            marker="o" if len(values) == 1 else "", markersize=4,
        )  # fmt: skip
    held = parts.get("validation")
    if held is not None and "loss" in measure.lower() and np.isfinite(held).any():
        best = int(np.nanargmin(np.where(np.isfinite(held), held, np.nan)))
        place = _places(epochs, held)[best]
        axes.plot([place], [held[best]], marker="o", markersize=5, color=theme.accent, linestyle="")
        title += f" (lowest in validation: {held[best]:.4g}, epoch {place:g})"
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    titled(axes, title, theme)


def _name(axes: Axes, parts: Mapping[str, NDArray[np.float64]], theme: Theme) -> None:
    """Write what each line is at its end, if there are several."""
    strong = _strong(parts)
    ends = [
        (float(finite[-1]), part)
        for part, values in sorted(parts.items(), key=lambda entry: entry[0] != strong)
        if len(finite := values[np.isfinite(values)])
    ]
    if len(parts) > 1:
        name_lines(axes, ends, theme)


def _strong(parts: Mapping[str, NDArray[np.float64]]) -> str:
    """Return the line that stands out: that of data the training did not see."""
    return "validation" if "validation" in parts else next(iter(parts))
