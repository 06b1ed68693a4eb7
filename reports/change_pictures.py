"""Static pictures of two explained predictions under each other, on one signed scale, aligned at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .changes import Change
from .global_pictures import columns_of_time, pixel_map
from .overview import Overview, only_cells
from .palette import Theme
from .plot_parts import (
    colour_key,
    label_ends,
    label_time,
    largest,
    left_margin,
    panels,
    row_labels,
    time_margin,
    titled,
    unit_label,
)
from .plots import raw_series
from .wording import ago_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 20


@dataclass(frozen=True, eq=False)
class _Row:
    """One panel: what it shows, names of features, and their contributions (L, G)."""

    title: str
    names: tuple[str, ...]
    cells: NDArray[np.float64]


def plot_two_inputs(change: Change, features: Sequence[str], *, theme: Theme) -> Figure:
    """Draw the series of both inputs over each other, the first one dashed, in their own units."""
    steps = max(int(found.lengths[0]) for found in (change.first, change.second))
    figure, axes = panels([0.95] * len(features), theme)
    for panel, name in zip(axes, features, strict=True):
        unit = ""
        for found in (change.first, change.second):
            values, _, unit = raw_series(found, 0, found.feature_names.index(name))
            later = found is change.second
            panel.plot(
                np.arange(steps - len(values), steps), values, linewidth=1.8 if later else 1.3,
                color=theme.accent if later else theme.muted, linestyle="-" if later else (0, (3, 1.5)),
            )  # fmt: skip
        panel.margins(y=0.15)
        _time(panel, change, steps, shown=panel is axes[-1])
        titled(panel, name + (f", {unit}" if unit else ""), theme)
    return figure


def plot_two_courses(change: Change, direct: Attribution | None, names: tuple[str, str], *, theme: Theme) -> Figure:
    """Draw the contribution of each timestep of both, and of the change itself, on one scale."""
    rows = _rows(change, direct, names)
    limit = largest(np.concatenate([row.cells.sum(axis=1) for row in rows]))
    steps = max(len(row.cells) for row in rows)
    first = f"{rows[0].title}, {unit_label(change.second)}"
    figure, axes = panels([0.9] * len(rows), theme, title=first)
    for panel, row in zip(axes, rows, strict=True):
        course = np.concatenate([np.zeros(steps - len(row.cells)), row.cells.sum(axis=1)])
        panel.axhline(0, color=theme.rule, linewidth=1)
        columns_of_time(panel, course, [theme.raises if value >= 0 else theme.lowers for value in course])
        panel.set_ylim(-1.08 * limit, 1.08 * limit)
        titled(panel, first if panel is axes[0] else row.title, theme)
        _time(panel, change, steps, shown=panel is axes[-1])
    return figure


def plot_two_maps(change: Change, direct: Attribution | None, names: tuple[str, str], *, theme: Theme) -> Figure:
    """Draw the contribution of each timestep and feature of both, and of the change itself, on one scale."""
    rows = _rows(change, direct, names)
    weight: dict[str, float] = {}
    for row in rows:
        for name, size in zip(row.names, np.abs(row.cells).sum(axis=0), strict=True):
            weight[name] = max(weight.get(name, 0.0), float(size))
    features = sorted(weight, key=lambda name: -weight[name])[:MOST_ROWS]
    steps = max(len(row.cells) for row in rows)
    limit = largest(np.concatenate([row.cells.ravel() for row in rows]))
    left = left_margin(theme, features)
    figure, axes = panels([0.24 * len(features) + 0.1] * len(rows), theme, title=rows[0].title, left=left)
    for panel, row in zip(axes, rows, strict=True):
        values = np.zeros((len(features), steps))
        for place, name in enumerate(features):
            if name in row.names:
                values[place, steps - len(row.cells) :] = row.cells[:, row.names.index(name)]
        drawn = pixel_map(panel, values, theme.signed(), -limit, limit)
        row_labels(panel, features, theme, left=left)
        titled(panel, row.title, theme)
        _time(panel, change, steps, shown=panel is axes[-1])
        if panel is axes[0]:
            colour_key(panel, drawn, unit_label(change.second), theme)
    return figure


def _rows(change: Change, direct: Attribution | None, names: tuple[str, str]) -> list[_Row]:
    """Return what is drawn: the first, the second, and the change itself, or where shapes allow the difference."""
    rows = [_Row(f"Reasons: {name}", found.names, only_cells(found))
            for name, found in zip(names, (change.one, change.two), strict=True)]  # fmt: skip
    if direct is not None:
        shared = Overview.of(direct)
        rows.append(_Row("Reasons of the change itself", shared.names, only_cells(shared)))
    elif change.equally_shaped:
        rows.append(_Row("Difference of the two", change.two.names, rows[1].cells - rows[0].cells))
    return rows


def plot_text(attribution: Attribution, limit: float, *, redact: bool, theme: Theme) -> Figure:
    """Draw the contribution of each token of one text, on a scale given."""
    told = Attribution(attribution.dataset.drop_vars(["timestamp", "token"] if redact else [], errors="ignore"))
    figure, (panel,) = panels([0.9], theme, bottom=time_margin(told, 0))
    course = attribution.timesteps[0, : int(attribution.lengths[0])].astype(np.float64)
    panel.axhline(0, color=theme.rule, linewidth=1)
    columns_of_time(panel, course, [theme.raises if value >= 0 else theme.lowers for value in course])
    panel.set_ylim(-1.08 * limit, 1.08 * limit)
    titled(panel, f"Contribution of each token, {unit_label(attribution)}", theme)
    label_time(panel, told, 0, theme)
    return figure


def _time(panel: Axes, change: Change, steps: int, *, shown: bool) -> None:
    equal = int(change.first.lengths[0]) == int(change.second.lengths[0])
    label_ends(panel, ago_labels(steps, change.two.interval, same_start=equal))
    panel.set_xlim(-0.5, steps - 0.5)
    panel.tick_params(labelbottom=shown)
