"""Pictures of many samples at once: what matters by timestep, by feature, and which way high and low values push.

A sample's effect of a feature is its attributions summed over time, of a timestep those summed over features; a bar is
the mean size of the effects, so what raises one sample and lowers another does not vanish. Of text, the features are
the tokens that occur. Sequences of different lengths are laid against each other by their ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from .global_values import QUARTERS, Rows, course_of, has_rows, rows_of
from .palette import LIGHT, Theme
from .plot_parts import (
    BOTTOM,
    LINE,
    NARROW,
    add_axes,
    canvas,
    colour_key,
    label_ends,
    left_margin,
    new_figure,
    right_margin,
    row_labels,
    title_lines,
    titled,
    unit_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 400  # samples of a beeswarm: more are no clearer, and slow to open
ROW = 0.27  # inches
BETWEEN = 0.25  # inches, panels beside each other
BELOW = 0.62  # inches below a line of panels, for its labels


def plot_global_summary(attribution: Attribution, *, theme: Theme = LIGHT) -> Figure:
    """Draw what mattered over all samples: by timestep, by feature, and each sample's effect of each feature.

    What the method does not tell apart is left out.
    """
    _check(attribution)
    rows = rows_of(attribution) if has_rows(attribution) or not attribution.resolves_time else None
    left = left_margin(theme, () if rows is None else rows.names)
    across = theme.width - left - right_margin(theme)
    lines: list[list[_Panel]] = []
    if rows is None or (attribution.resolves_time and attribution.dataset.sizes["time"] > 1):
        lines.append(
            [_Panel(_time_title(attribution), across, 1.7, lambda ax: _draw_timesteps(ax, attribution, theme))]
        )
    if rows is not None:
        height, narrow = ROW * len(rows.names) + 0.1, theme.width < NARROW
        width = across if narrow else 0.36 * across

        def draw_swarm(ax: Axes) -> None:
            _draw_beeswarm(ax, rows, attribution, theme, left=left)
            ax.tick_params(labelleft=narrow)

        bars = _Panel(
            _feature_title(rows, attribution), width, height,
            lambda ax: _draw_features(ax, rows, attribution, theme, left=left),
        )  # fmt: skip
        swarm = _Panel(_swarm_title(rows, attribution), across - (0 if narrow else width + BETWEEN), height, draw_swarm)
        lines += [[bars], [swarm]] if narrow else [[bars, swarm]]
    return _laid_out(lines, left, theme)


def plot_global_timesteps(attribution: Attribution, *, theme: Theme = LIGHT, ax: Axes | None = None) -> Figure:
    """Draw the mean size of each timestep's effect over all samples, and the range of the middle half of them."""
    _check(attribution)
    if not attribution.resolves_time:
        raise InvalidInputError(
            f"{attribution.method} explained by feature, which does not tell timesteps apart; draw "
            "plot_global_features."
        )
    figure, axes = canvas(2.1, theme, ax, title=_time_title(attribution), bottom=BOTTOM + 0.15)
    _draw_timesteps(axes, attribution, theme)
    return figure


def plot_global_features(attribution: Attribution, *, theme: Theme = LIGHT, ax: Axes | None = None) -> Figure:
    """Draw the mean size of each feature's effect over all samples, and the range of the middle half of them."""
    _check(attribution)
    rows = rows_of(attribution)
    left = left_margin(theme, rows.names)
    title = _feature_title(rows, attribution) + rows.left_out
    figure, axes = canvas(ROW * len(rows.names) + 0.1, theme, ax, title=title, left=left, bottom=BOTTOM + 0.15)
    _draw_features(axes, rows, attribution, theme, left=left)
    titled(axes, title, theme)
    return figure


def plot_beeswarm(attribution: Attribution, *, theme: Theme = LIGHT, ax: Axes | None = None) -> Figure:
    """Draw one point a sample and feature: its effect, and in colour the mean of the feature's values in the sample.

    Pale is a low value, strong a high one, from the 5th to the 95th percentile of the feature over the samples.
    """
    _check(attribution)
    rows = rows_of(attribution)
    left, title = left_margin(theme, rows.names), _swarm_title(rows, attribution)
    figure, axes = canvas(ROW * len(rows.names) + 0.1, theme, ax, title=title, left=left, bottom=BOTTOM + 0.15)
    _draw_beeswarm(axes, rows, attribution, theme, left=left, ours=ax is None)
    return figure


def _check(attribution: Attribution) -> None:
    if not len(attribution):
        raise InvalidInputError("the attribution holds no sample; explain at least one.")


# -- how it is laid out ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    """A part of the summary; sizes in inches."""

    title: str
    width: float
    height: float
    draw: Callable[[Axes], None]


def _laid_out(lines: list[list[_Panel]], left: float, theme: Theme) -> Figure:
    """Return a figure of lines of panels, with room for what is written above and below each line."""
    above = [0.16 + LINE * max(len(title_lines(panel.title, panel.width)) for panel in line) for line in lines]
    figure = new_figure(theme.width, sum(above) + sum(line[0].height + BELOW for line in lines), theme)
    y = float(figure.get_figheight())
    for line, room in zip(lines, above, strict=True):
        y -= room + line[0].height
        x = left
        for panel in line:
            panel.draw(add_axes(figure, x, y, panel.width, panel.height, theme))
            x += panel.width + BETWEEN
        y -= BELOW
    return figure


# -- titles ----------------------------------------------------------------------------------------------------------


def _time_title(attribution: Attribution) -> str:
    half = f"; shaded: middle half of {len(attribution):,} samples" if len(attribution) > 1 else ""
    return f"By timestep: mean size of the {attribution.measures}{half}"


def _feature_title(rows: Rows, attribution: Attribution) -> str:
    return f"By {rows.kind}: mean size{', middle half' if len(attribution) > 1 else ''}"


def _swarm_title(rows: Rows, attribution: Attribution) -> str:
    count = len(attribution)
    some = f" ({MOST_POINTS:,} of {count:,} drawn)" if count > MOST_POINTS else ""
    whose = ", of its own predicted output" if np.ptp(attribution.dataset["target_output"].to_numpy()) else ""
    return f"Each sample's {attribution.measures}{some}{whose}{rows.left_out}"


# -- how it is drawn -------------------------------------------------------------------------------------------------


def _draw_timesteps(axes: Axes, attribution: Attribution, theme: Theme) -> None:
    means, ranges, labels, counted = course_of(attribution)
    steps = np.arange(len(means))
    if len(attribution) > 1:
        if len(means) > 1:
            axes.fill_between(steps, *ranges, color=theme.accent, alpha=0.22, linewidth=0)
        else:
            axes.vlines(steps, *ranges, color=theme.muted, linewidth=1)
    axes.plot(steps, means, color=theme.accent, linewidth=1.8, marker="o" if len(means) == 1 else "", markersize=5)
    axes.set_ylim(0, 1.05 * (float(max(means.max(), ranges.max())) or 1.0))
    label_ends(axes, labels)
    axes.set_xlim(-0.5, len(means) - 0.5)
    axes.tick_params(labelsize=9)
    axes.set_xlabel(counted)
    axes.set_ylabel(unit_label(attribution))
    titled(axes, _time_title(attribution), theme)


def _draw_features(axes: Axes, rows: Rows, attribution: Attribution, theme: Theme, *, left: float) -> None:
    places = np.arange(len(rows.names))
    axes.barh(places, rows.sizes, height=0.62, color=theme.muted, alpha=0.55)
    if len(attribution) > 1:
        for place, effects in zip(places, rows.effects, strict=True):
            sizes = np.zeros(len(attribution))
            sizes[: len(effects)] = np.abs(effects)  # where a token does not occur it does nothing
            axes.hlines(place, *np.quantile(sizes, QUARTERS), color=theme.ink, linewidth=1)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, axes.get_xlim()[1] if rows.sizes.any() else 1)
    axes.locator_params(axis="x", nbins=4)
    row_labels(axes, rows.names, theme, left=left)
    axes.set_xlabel(unit_label(attribution))
    titled(axes, _feature_title(rows, attribution), theme)


def _draw_beeswarm(
    axes: Axes, rows: Rows, attribution: Attribution, theme: Theme, *, left: float, ours: bool = True
) -> None:
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("levels", theme.sequential()([0.22, 0.6, 1.0]))
    drawn = _drawn_samples(len(attribution))
    bound = max(float(np.abs(effects).max()) for effects in rows.effects) or 1.0
    axes.axvline(0, color=theme.rule, linewidth=1)
    for place, (effects, samples, levels) in enumerate(zip(rows.effects, rows.samples, rows.levels, strict=True)):
        kept = drawn[samples]
        points = effects[kept]
        shade = np.full(len(points), 0.5) if levels is None else levels[kept]
        axes.scatter(
            points, place + _spread(points / bound), s=9, c=shade, cmap=colours, norm=Normalize(0, 1),
            linewidths=0.3, edgecolors=theme.muted,
        )  # fmt: skip
    axes.set_ylim(len(rows.names) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.05 * bound), max(high, 0.05 * bound))
    row_labels(axes, rows.names, theme, left=left)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(unit_label(attribution))
    titled(axes, _swarm_title(rows, attribution), theme)
    if any(levels is not None for levels in rows.levels):
        _value_key(axes, colours, theme, ours=ours)


def _drawn_samples(count: int) -> NDArray[np.bool_]:
    """Return which samples are drawn, (B,): all, or so many picked at random, always the same."""
    drawn = np.zeros(count, dtype=bool)
    drawn[np.random.default_rng(0).permutation(count)[:MOST_POINTS]] = True
    return drawn


def _spread(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far from its row's middle each point is drawn, so that points beside each other do not overlap.

    Args:
        points: (n,), from -1 to 1.
    """
    column = np.round(points * 45).astype(np.int64)
    rank = np.zeros(len(points), dtype=np.int64)
    for value in np.unique(column):
        here = np.flatnonzero(column == value)
        rank[here] = np.arange(len(here))
    side = np.where(rank % 2 == 0, 1, -1) * ((rank + 1) // 2)  # 0, -1, 1, -2, 2, ...
    return np.asarray(side * min(0.13, 0.4 / max(1, int(np.abs(side).max(initial=0)))))


def _value_key(axes: Axes, colours: Any, theme: Theme, *, ours: bool) -> None:
    """Draw what the colours of points stand for."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = colour_key(axes, ScalarMappable(Normalize(0, 1), colours), "value", theme, ours=ours)
    bar.set_ticks([0, 1], labels=["low", "high"])
