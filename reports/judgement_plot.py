"""The picture of a judgement: what each explainer costs, and how faithful it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .palette import LIGHT, Theme
from .plot_parts import LETTER, NARROW, add_axes, new_figure, titled, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .judgement import Judgement

HEIGHT = 3.2  # inches
LEFT, RIGHT, TOP, UNDER = 0.6, 0.25, 0.4, 0.55


def plot_judgement(judgement: Judgement, *, theme: Theme = LIGHT) -> Figure:
    """Draw seconds a prediction against faithfulness with its 95 % interval; the recommended explainer stands out.

    Args:
        judgement: What was measured.
        theme: Colours and width.
    """
    figure = new_figure(theme.width, HEIGHT + TOP + UNDER, theme)
    axes = add_axes(figure, LEFT, UNDER, theme.width - LEFT - RIGHT, HEIGHT, theme)
    axes.set_xscale("log")
    for verdict in judgement.verdicts:
        chosen = verdict.name == judgement.recommended
        colour = theme.accent if chosen else theme.muted
        low, high = verdict.interval or (verdict.faithfulness, verdict.faithfulness)
        seconds = max(verdict.seconds, 1e-5)
        axes.plot([seconds, seconds], [low, high], color=colour, linewidth=1.2)
        axes.plot([seconds], [verdict.faithfulness], color=colour, marker="s" if chosen else "o", markersize=6)
    axes.axhline(judgement.random_faithfulness, color=theme.muted, linewidth=1, linestyle=":")
    _limits(axes, judgement)
    axes.text(
        0.99, judgement.random_faithfulness, "a random order", transform=axes.get_yaxis_transform(), ha="right",
        va="bottom", fontsize=8, color=theme.muted,
    )  # fmt: skip
    _names(axes, judgement, theme)
    axes.set_xlabel("seconds a prediction")
    narrow = theme.width < NARROW
    titled(axes, "Faithfulness and cost" if narrow else "How faithful each explainer is, and what it costs", theme)
    return figure


def _limits(axes: Axes, judgement: Judgement) -> None:
    """Leave room for the names, right of each point."""
    seconds = np.array([max(verdict.seconds, 1e-5) for verdict in judgement.verdicts])
    axes.set_xlim(seconds.min() / 2, seconds.max() * 8)
    ends = [end for verdict in judgement.verdicts for end in verdict.interval or (verdict.faithfulness,)]
    low, high = min([*ends, judgement.random_faithfulness]), max([*ends, 1.0])
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))


def _names(axes: Axes, judgement: Judgement, theme: Theme) -> None:
    """Write each explainer's name right of its point, moved up or down where two would run into each other."""
    bottom, top = axes.get_ylim()
    first, last = np.log10(axes.get_xlim())
    line = 0.055 * (top - bottom)
    letter = LETTER * (last - first) / width_of(axes)  # in decades
    taken: list[tuple[float, float, float]] = []  # log10 seconds of both ends, height
    for verdict in sorted(judgement.verdicts, key=lambda found: -found.faithfulness):
        across = float(np.log10(max(verdict.seconds, 1e-5)))
        end = across + letter * (len(verdict.label) + 3)
        height = verdict.faithfulness
        while any(across < right and left < end and abs(at - height) < line for left, right, at in taken):
            height -= line
        taken.append((across, end, height))
        chosen = verdict.name == judgement.recommended
        axes.annotate(
            verdict.label, (10**across, height), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8.5,
            color=theme.ink if chosen else theme.muted, fontweight="bold" if chosen else "normal",
        )  # fmt: skip
