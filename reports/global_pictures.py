"""Static pictures of many attributions: where it mattered, how effects spread, groups, words, and single courses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from . import plots
from .groups import GroupComparison
from .overview import Overview
from .palette import Theme
from .plot_parts import (
    BOTTOM,
    add_axes,
    colour_key,
    label_ends,
    label_time,
    largest,
    left_margin,
    new_figure,
    panels,
    plain,
    right_margin,
    row_labels,
    time_margin,
    titled,
    unit_label,
    width_of,
)
from .token_effects import WordEffect
from .wording import ago_labels, in_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 20  # features of a heat map
MOST_SWARMS = 12
SWARM_COLUMNS = 141  # of the swarm's grid, odd, so that zero has a column
SWARM_HEIGHT = 21  # squares, the most of a pile
OPEN_BOX = "\N{OPEN BOX}"  # a space that is seen
FEW = 300  # samples, for which a coarser grid does


def plot_where(overview: Overview, *, theme: Theme) -> Figure:
    """Draw the mean size of contributions by timestep, and below it by timestep and feature."""
    start = overview.first_shown
    values = overview.by_step[start:]  # (L, G)
    labels = ago_labels(overview.by_step.shape[0], overview.interval, same_start=overview.equally_long)[start:]
    order = overview.order[:MOST_ROWS]
    several = len(overview.names) > 1
    names = [overview.names[feature] for feature in order] if several else []
    left = left_margin(theme, names)
    unit = unit_label(overview.attribution)
    title = f"{'All features: mean' if several else 'Mean'} size of contributions, {unit}"
    figure, axes = panels([1.2, 0.27 * len(order)] if several else [1.4], theme, title=title, left=left)
    columns_of_time(axes[0], values.sum(axis=1), theme.gate)
    titled(axes[0], title, theme)
    if several:
        axes[0].tick_params(labelbottom=False)
        drawn = pixel_map(axes[1], values[:, order].T, theme.sequential(), 0, largest(values), power=0.5)
        row_labels(axes[1], names, theme, left=left)
        titled(axes[1], "By feature", theme)
        colour_key(axes[1], drawn, "", theme)
    for panel in axes:
        label_ends(panel, labels)
        panel.set_xlim(-0.5, len(labels) - 0.5)
    return figure


def pixel_map(axes: Axes, values: NDArray[Any], colours: Any, low: float, high: float, *, power: float = 1.0) -> Any:
    """Draw values (rows, columns) as an image of one pixel a cell: a page with many pictures must stay small."""
    from matplotlib.colors import PowerNorm

    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return axes.imshow(values, aspect="auto", cmap=colours, norm=PowerNorm(power, low, high), interpolation="none")


def columns_of_time(axes: Axes, values: NDArray[Any], colours: Any) -> None:
    """Draw a column for each of the places 0, 1, ..., as one collection: patches would be many and slow."""
    points = 0.8 * 72 * width_of(axes) / max(len(values), 1)
    axes.vlines(np.arange(len(values)), 0, values, colors=colours, linewidth=points)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.05 * (high - low or 1.0)
    axes.set_ylim(low - room * (low < 0), high + room * (high > 0 or low == 0))


def plot_predictions(overview: Overview, *, theme: Theme) -> Figure:
    """Draw the histogram of the explained number, and the baseline's where all samples share it."""
    attribution = overview.attribution
    scale = 100 if in_percent(attribution) else 1
    figure = new_figure(theme.width, 1.4 + 0.32 + BOTTOM, theme)
    axes = add_axes(figure, 0.6, BOTTOM, theme.width - 0.6 - right_margin(theme), 1.4, theme)
    values = scale * attribution.prediction
    axes.hist(values, bins=min(40, max(5, round(2 * len(values) ** 0.5))), color=theme.muted)
    baseline = scale * attribution.baseline_prediction
    if np.ptp(baseline) <= 1e-6 * max(1e-9, float(np.ptp(values))):
        axes.axvline(float(baseline[0]), color=theme.accent, linewidth=1.6)
        axes.annotate(
            "baseline", (float(baseline[0]), 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", fontsize=8, color=theme.accent, va="top",
        )  # fmt: skip
    unit = "%" if scale == 100 else unit_label(attribution)
    titled(axes, f"Samples by prediction, {unit}", theme)
    return figure


def plot_swarm(overview: Overview, samples: NDArray[np.int64], *, redact: bool, theme: Theme) -> Figure:
    """Draw every sample's effect of each feature as a square, piled up where effects are alike.

    Squares are coloured by the feature's level among the samples, from low to high; grey where that is not known or
    not to be told. The whole picture is one image of as many pixels as squares fit, so it stays small.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb

    order = overview.order[:MOST_SWARMS]
    columns = SWARM_COLUMNS if len(samples) > FEW else SWARM_COLUMNS // 2 + 1
    low, high = (float(end) for end in (overview.net[:, order].min(initial=0), overview.net[:, order].max(initial=0)))
    edges = np.linspace(low, high if high > low else low + 1, columns + 1)
    places = [np.clip(np.digitize(overview.net[samples, f], edges) - 1, 0, columns - 1) for f in order]
    pile = min(SWARM_HEIGHT, max(7, *(int(np.bincount(place).max()) for place in places)))
    strip = pile + max(2, pile // 5)  # with room between features
    colours = LinearSegmentedColormap.from_list("level", [_between(theme.paper, theme.muted, 0.45), to_rgb(theme.gate)])
    pixels = np.zeros((len(order) * strip, columns, 4))  # clear, so that the line at 0 shows
    coloured = False
    for row, (feature, place) in enumerate(zip(order, places, strict=True)):
        levels = None if redact else overview.levels(int(feature))
        ranks = None if levels is None or np.ptp(levels[samples]) == 0 else _ranks(levels[samples])
        coloured = coloured or ranks is not None
        grey = _between(theme.paper, theme.muted, 0.7)
        first = row * strip + (strip - pile) // 2
        _pile(pixels[first : first + pile], place, ranks, colours, grey)
    names = [overview.names[feature] for feature in order]
    left = left_margin(theme, names)
    figure, (axes,) = panels([0.1 + 0.42 * len(order)], theme, left=left)
    axes.imshow(
        pixels, aspect="auto", interpolation="none", extent=(edges[0], edges[-1], len(order) - 0.5, -0.5), zorder=2
    )
    axes.axvline(0, color=theme.muted, linewidth=0.8, zorder=1)
    row_labels(axes, names, theme, left=left, lines=2)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if coloured:
        from matplotlib.cm import ScalarMappable

        key = colour_key(axes, ScalarMappable(Normalize(0, 1), colours), "value", theme)
        key.set_ticks([0, 1], labels=["low", "high"])
    return figure


def _pile(
    pixels: NDArray[np.float64], place: NDArray[np.int64], ranks: NDArray[np.float64] | None, colours: Any, grey: Any
) -> None:
    """Fill one feature's strip (height, columns, RGBA): in each column its samples, piled about the middle line."""
    height = len(pixels)
    for column in np.unique(place):
        members = np.flatnonzero(place == column)
        shades = None if ranks is None else np.sort(ranks[members])
        count = min(len(members), height)
        first = (height - count) // 2
        if shades is None:
            pixels[first : first + count, column] = (*grey, 1)
        else:  # of more samples than squares, evenly spaced ones; the highest on top
            picked = shades[np.linspace(len(members) - 1, 0, count).round().astype(np.int64)]
            pixels[first : first + count, column] = colours(picked)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray((rankdata(values) - 1) / max(len(values) - 1, 1))


def _between(one: str, two: str, share: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(one), to_rgb(two), strict=True))
    return red, green, blue


def plot_groups(comparison: GroupComparison, *, theme: Theme) -> Figure:
    """Draw the mean size of each feature's effects, group by group under each other; small groups pale."""
    labels = comparison.grouping.labels
    rows = [place for place, quantity in enumerate(comparison.quantities) if quantity.topic == "reasons"]
    rows = rows[: 6 if len(labels) <= 4 else 3]
    left = left_margin(theme, labels)
    figure, axes = panels([0.12 + 0.2 * len(labels)] * len(rows), theme, left=left)
    limit = float(np.nanmax(comparison.means[:, rows]))
    for panel, row in zip(axes, rows, strict=True):
        for group in range(len(labels)):
            value = float(comparison.means[group, row])
            small = group in comparison.small
            panel.barh(group, value, height=0.72, color=theme.rule if small else theme.gate)
            panel.annotate(
                plain(comparison.text(row, value)), (value, group), xytext=(4, 0), textcoords="offset points",
                fontsize=8, color=theme.muted if small else theme.ink, va="center", annotation_clip=False,
            )  # fmt: skip
        titled(panel, comparison.quantities[row].short, theme)
        row_labels(panel, labels, theme, left=left)
        panel.set_ylim(len(labels) - 0.4, -0.6)
        panel.set_xlim(0, 1.12 * limit or 1)
        panel.tick_params(axis="y", length=0)
        panel.set_xticks([])
        panel.spines["bottom"].set_visible(False)
    return figure


def plot_words(words: Sequence[WordEffect], label: str, *, theme: Theme) -> Figure:
    """Draw the mean effect of words as bars, those that raise above those that lower."""
    names = [entry.word if entry.word.strip() else OPEN_BOX * len(entry.word) for entry in words]
    left = left_margin(theme, names)
    figure, (axes,) = panels([0.1 + 0.24 * len(words)], theme, left=left)
    for row, entry in enumerate(words):
        axes.barh(row, entry.mean, height=0.72, color=theme.raises if entry.mean > 0 else theme.lowers)
    axes.axvline(0, color=theme.rule, linewidth=1)
    row_labels(axes, names, theme, left=left)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    titled(axes, label, theme)
    return figure


def plot_course(attribution: Attribution, sample: int, *, redact: bool, theme: Theme) -> Figure:
    """Draw one sample: the strongest feature's input, where it may be shown, and each timestep's contribution."""
    length = int(attribution.lengths[sample])
    shown = not redact and not attribution.of_tokens
    told = Attribution(attribution.dataset.drop_vars(["timestamp", "token"] if redact else [], errors="ignore"))
    heights = [0.75, 0.75] if shown else [0.9]
    title = f"Contribution of each timestep, {unit_label(attribution)}"
    if shown:
        column = plots.strongest_features(attribution, sample, most=1)[0]
        values, baseline, unit = plots.raw_series(attribution, sample, column)
        above = attribution.feature_names[column] + (f", {unit}" if unit else "")
    figure, axes = panels(heights, theme, title=above if shown else title, bottom=time_margin(told, sample))
    if shown:
        axes[0].plot(np.arange(length), baseline, color=theme.muted, linewidth=1, linestyle=(0, (1, 2)))
        axes[0].plot(np.arange(length), values, color=theme.accent, linewidth=1.6)
        titled(axes[0], above, theme)
        axes[0].margins(y=0.15)
        label_time(axes[0], told, sample, theme, last=False)
    course = attribution.timesteps[sample, :length].astype(np.float64)
    axes[-1].axhline(0, color=theme.rule, linewidth=1)
    columns_of_time(axes[-1], course, [theme.raises if value >= 0 else theme.lowers for value in course])
    titled(axes[-1], title, theme)
    label_time(axes[-1], told, sample, theme)
    return figure
