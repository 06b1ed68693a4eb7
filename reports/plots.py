"""Static pictures with matplotlib, one call each; every function returns a `Figure` that the caller saves or shows.

`.savefig("a.pdf")` and `.savefig("a.svg")` write vectors, with letters as letters. Pictures of a single panel take
`ax=`, axes of your own, and return the figure these are in. Signed quantities share one scale, symmetric about zero, in
which "raises" and "lowers" have the same colours everywhere. This module draws the attributions of one sample over its
valid timesteps; those of the network (`gate_plots`), of many samples (`global_plots`) and of training
(`training_plots`) can be had from here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from ..models.errors import nearest_name
from .gate_plots import (
    MOST_UNITS,
    plot_cell_state,
    plot_gate_attribution,
    plot_gates,
    plot_memory_flow,
    unit_order,
)
from .global_plots import plot_beeswarm, plot_global_features, plot_global_summary, plot_global_timesteps
from .palette import LIGHT, Theme
from .plot_parts import (
    BOTTOM,
    canvas,
    colour_key,
    label_time,
    left_margin,
    length_of,
    panels,
    row_labels,
    signed_cells,
    time_margin,
    titled,
    unit_label,
)
from .training_plots import plot_training
from .wording import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "MOST_UNITS",
    "plot_beeswarm",
    "plot_cell_state",
    "plot_comparison",
    "plot_features",
    "plot_gate_attribution",
    "plot_gates",
    "plot_global_features",
    "plot_global_summary",
    "plot_global_timesteps",
    "plot_heatmap",
    "plot_inputs",
    "plot_kind",
    "plot_memory_flow",
    "plot_timesteps",
    "plot_training",
    "raw_series",
    "strongest_features",
    "unit_order",
]

MOST_ROWS = 24  # features of a heat map; what the others give is one row more
MANY_STEPS = 150


def plot_timesteps(
    attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT, ax: Axes | None = None
) -> Figure:
    """Draw the contribution of each timestep as bars, with standard errors where they are known."""
    if not attribution.resolves_time:
        raise InvalidInputError(
            f"{attribution.method} explained by feature, which does not tell timesteps apart; draw plot_features."
        )
    figure, axes = canvas(2.1, theme, ax, bottom=time_margin(attribution, sample))
    _bars(axes, attribution, sample, theme)
    label_time(axes, attribution, sample, theme)
    return figure


def plot_features(attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT, ax: Axes | None = None) -> Figure:
    """Draw the contribution of each feature, summed over time, as bars; of many the strongest, and the others' sum."""
    length = length_of(attribution, sample)
    _ = attribution.features  # refuses methods that do not tell them apart
    values, names = _strongest_rows(attribution, attribution.values[sample, :length].T.astype(np.float64))
    totals = values.sum(axis=1)  # (rows,)
    left = left_margin(theme, names)
    figure, axes = canvas(0.35 + 0.26 * len(totals), theme, ax, left=left, bottom=BOTTOM + 0.15)
    axes.barh(range(len(totals)), totals, height=0.7, color=_sign_colours(totals, theme))
    axes.axvline(0, color=theme.rule, linewidth=1)
    axes.set_ylim(len(totals) - 0.4, -0.6)
    axes.set_xlim(*_around_zero(totals))
    row_labels(axes, names, theme, left=left)
    axes.set_xlabel(unit_label(attribution))
    return figure


def plot_heatmap(attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT, ax: Axes | None = None) -> Figure:
    """Draw the contribution of each timestep and feature as a heat map; of many features the strongest.

    What the others give together is a row of its own, so columns always sum to the timesteps. A method that does not
    tell features apart has one row, one that does not tell timesteps apart one column.
    """
    length = length_of(attribution, sample)
    values = attribution.values[sample, :length].T  # (D, L)
    if attribution.resolves_features:
        values, names = _strongest_rows(attribution, values)
    else:
        values, names = values.sum(axis=0, keepdims=True), ["all features"]
    if not attribution.resolves_time:
        values = values.sum(axis=1, keepdims=True)
    left, few = left_margin(theme, names), len(values) <= 12
    figure, axes = canvas(
        0.4 + (0.32 if few else 0.22) * len(values), theme, ax, left=left, bottom=time_margin(attribution, sample)
    )
    drawn = signed_cells(axes, values, theme)
    row_labels(axes, names, theme, left=left, lines=2 if few else 1)
    if attribution.resolves_time:
        label_time(axes, attribution, sample, theme)
    else:
        axes.set_xticks([0], ["the whole sequence"])
    colour_key(axes, drawn, unit_label(attribution), theme, ours=ax is None)
    return figure


def plot_comparison(attributions: Mapping[str, Attribution], sample: int = 0, *, theme: Theme = LIGHT) -> Figure:
    """Draw the timestep bars of several explainers under each other.

    Explainers that promise to add up share one scale; the others (marked) have their own.
    """
    shown = [attribution for attribution in attributions.values() if attribution.resolves_time]
    if not shown:
        raise InvalidInputError("none of these attributions tells timesteps apart, so there is nothing to compare.")
    lengths = {length_of(attribution, sample) for attribution in shown}
    if len(lengths) > 1:
        raise InvalidInputError(
            f"these attributions have {' and '.join(map(str, sorted(lengths)))} timesteps; compare explanations of "
            "the same sequence."
        )
    figure, found = panels([1.15] * len(shown), theme, bottom=time_margin(shown[-1], sample))
    additive = [attribution for attribution in shown if attribution.attrs["completeness"] != "none"]
    limit = max((float(np.abs(a.timesteps[sample]).max()) for a in additive), default=0.0)
    for axes, attribution in zip(found, shown, strict=True):
        _bars(axes, attribution, sample, theme)
        own_scale = attribution not in additive
        if not own_scale and limit > 0:
            axes.set_ylim(-1.1 * limit, 1.1 * limit)
        titled(axes, method_name(attribution.method) + (" (own scale)" if own_scale and additive else ""), theme)
        axes.set_ylabel("")
        label_time(axes, attribution, sample, theme, last=axes is found[-1])
    return figure


def plot_inputs(
    attribution: Attribution,
    sample: int = 0,
    *,
    features: Sequence[int] | None = None,
    spans: Sequence[tuple[int, int]] = (),
    theme: Theme = LIGHT,
) -> Figure:
    """Draw the input series of some features, in their own units where these are known, the baseline dotted.

    Args:
        attribution: Holds the inputs.
        sample: Which one.
        features: Columns to draw; None: the four with the largest attributions.
        spans: Timesteps (first, last) to shade.
        theme: Colours.
    """
    if attribution.of_tokens:
        raise InvalidInputError(
            "the inputs are token ids, which are names and not amounts; plot_timesteps draws the tokens."
        )
    length = length_of(attribution, sample)
    columns = strongest_features(attribution, sample) if features is None else list(features)
    figure, found = panels([1.25] * len(columns), theme)
    for axes, column in zip(found, columns, strict=True):
        values, baseline, unit = raw_series(attribution, sample, column)
        for first, last in spans:
            axes.axvspan(first - 0.5, last + 0.5, color=theme.shade, zorder=0, linewidth=0)
        axes.plot(np.arange(length), baseline, color=theme.muted, linewidth=1, linestyle=(0, (1, 2)))
        axes.plot(np.arange(length), values, color=theme.accent, linewidth=1.8, marker="o", markersize=2.5)
        titled(axes, attribution.feature_names[column] + (f", {unit}" if unit else ""), theme)
        axes.margins(y=0.15)
        label_time(axes, attribution, sample, theme, last=axes is found[-1])
    return figure


def plot_kind(
    attribution: Attribution, sample: int | None = None, *, kind: str | None = None, **options: Any
) -> Figure:
    """Draw one of the pictures that need nothing but an attribution; see `Attribution.plot`."""
    of_sample: dict[str, Callable[..., Figure]] = {
        "timesteps": plot_timesteps,
        "features": plot_features,
        "heatmap": plot_heatmap,
        "inputs": plot_inputs,
        "gates": plot_gate_attribution,
    }
    of_all: dict[str, Callable[..., Figure]] = {
        "summary": plot_global_summary,
        "beeswarm": plot_beeswarm,
        "global_timesteps": plot_global_timesteps,
        "global_features": plot_global_features,
    }
    kind = kind or ("timesteps" if attribution.resolves_time else "features")
    if kind in of_sample:
        return of_sample[kind](attribution, 0 if sample is None else sample, **options)
    if kind not in of_all:
        raise InvalidInputError(f"kind is {kind!r}; {nearest_name(kind, (*of_sample, *of_all))}")
    if sample is not None:
        raise InvalidInputError(
            f"kind={kind!r} draws all samples, so it takes no sample; of one alone it is "
            f"attribution[{sample}].plot(kind={kind!r})."
        )
    return of_all[kind](attribution, **options)


# -- what is drawn ---------------------------------------------------------------------------------------------------


def strongest_features(attribution: Attribution, sample: int, *, most: int = 4) -> list[int]:
    """Return the columns with the largest absolute attributions, in the data's order; time-of-day features last."""
    weight = np.abs(attribution.values[sample]).sum(axis=0)  # (D,)
    transforms = attribution.diagnostic("feature_transform")
    if transforms is not None:  # the hands of a clock explain nothing as a curve
        clock = np.array([str(kind) in ("day_sine", "day_cosine") for kind in transforms])
        if not clock.all():
            weight = np.where(clock, -1.0, weight)
            most = min(most, int((~clock).sum()))
    return sorted(int(column) for column in np.argsort(-weight, kind="stable")[:most])


def raw_series(attribution: Attribution, sample: int, column: int) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Return a feature's values and baseline before scaling, (L,) each, and its unit."""
    length = length_of(attribution, sample)
    values = attribution.inputs[sample, :length, column].astype(np.float64)
    baseline = attribution.dataset["baseline"].to_numpy()[sample, :length, column].astype(np.float64)
    if "feature_scale" not in attribution.dataset.coords:
        return values, baseline, ""
    scale = float(attribution.dataset["feature_scale"].to_numpy()[column])
    center = float(attribution.dataset["feature_center"].to_numpy()[column])
    unit = str(attribution.dataset["feature_unit"].to_numpy()[column])
    return values * scale + center, baseline * scale + center, unit


def _strongest_rows(attribution: Attribution, values: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Return the rows of (D, L) to draw, in the data's order, and their names; the last one is the others' sum."""
    names = list(attribution.feature_names)
    if len(values) <= MOST_ROWS:
        return values, names
    order = np.argsort(-np.abs(values).sum(axis=1), kind="stable")
    kept, rest = sorted(order[: MOST_ROWS - 1]), order[MOST_ROWS - 1 :]
    shown = np.concatenate([values[kept], values[rest].sum(axis=0, keepdims=True)])
    return shown, [*(names[row] for row in kept), f"{len(rest)} others, summed"]


def _bars(axes: Axes, attribution: Attribution, sample: int, theme: Theme) -> None:
    length = length_of(attribution, sample)
    values = attribution.timesteps[sample, :length].astype(np.float64)
    axes.axhline(0, color=theme.rule, linewidth=1)
    colours = _sign_colours(values, theme)
    edge = 0.5 if length > MANY_STEPS else 0.0  # points: thin bars must be seen
    axes.bar(np.arange(length), values, color=colours, width=0.8, edgecolor=colours, linewidth=edge)
    error = attribution.std_error
    if error is not None:
        spread = error[sample, :length].sum(axis=1)  # features share their draws: this is the most it can be
        axes.errorbar(np.arange(length), values, yerr=spread, fmt="none", ecolor=theme.muted, elinewidth=0.8)
    elif not values.any():
        axes.set_ylim(-1, 1)
    axes.set_ylabel(unit_label(attribution))


def _sign_colours(values: NDArray[Any], theme: Theme) -> list[str]:
    return [theme.raises if value >= 0 else theme.lowers for value in values]


def _around_zero(values: NDArray[Any]) -> tuple[float, float]:
    """Return limits that hold all values and zero."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if low == high:
        return -1.0, 1.0
    room = 0.05 * (high - low)
    return low - room * (low < 0), high + room * (high > 0)
