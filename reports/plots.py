"""Static pictures with matplotlib, one call each; every function returns a `Figure` that the caller saves or shows.

All draw one sample over its valid timesteps. Signed quantities share one scale, symmetric about zero, in which
"raises" and "lowers" have the same colours everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError, LayerTrace, Trace
from ..models.errors import nearest_name
from ..models.trace import to_numpy
from .palette import LIGHT, Theme
from .wording import method_name, step_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_UNITS = 32


def plot_timesteps(attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT) -> Figure:
    """Draw the contribution of each timestep as bars, with standard errors where they are known."""
    figure, (axes,) = _panels([2.1], theme)
    _bars(axes, attribution, sample, theme)
    _label_time(axes, attribution, sample, theme)
    return figure


def plot_heatmap(attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT) -> Figure:
    """Draw the contribution of each timestep and feature as a heat map."""
    length = _length(attribution, sample)
    values = attribution.values[sample, :length].T  # (D, L)
    figure, (axes,) = _panels([0.9 + 0.32 * len(values)], theme)
    image = _signed_image(axes, values, theme)
    axes.set_yticks(range(len(values)), [_fitted(name, theme) for name in attribution.feature_names])
    _label_time(axes, attribution, sample, theme)
    _colour_key(figure, axes, image, _unit_label(attribution), theme)
    return figure


def plot_comparison(attributions: Mapping[str, Attribution], sample: int = 0, *, theme: Theme = LIGHT) -> Figure:
    """Draw the timestep bars of several explainers under each other.

    Explainers that promise to add up share one scale; the others (marked) have their own.
    """
    shown = [attribution for attribution in attributions.values() if attribution.resolves_time]
    if not shown:
        raise InvalidInputError("none of these attributions tells timesteps apart, so there is nothing to compare.")
    figure, panels = _panels([1.15] * len(shown), theme)
    additive = [attribution for attribution in shown if attribution.attrs["completeness"] != "none"]
    limit = max((float(np.abs(a.timesteps[sample]).max()) for a in additive), default=0.0)
    for axes, attribution in zip(panels, shown, strict=True):
        _bars(axes, attribution, sample, theme)
        own_scale = attribution not in additive
        if not own_scale and limit > 0:
            axes.set_ylim(-1.1 * limit, 1.1 * limit)
        title = method_name(attribution.method) + ("  (own scale)" if own_scale and additive else "")
        axes.set_title(_plain(title), loc="left", fontsize=10, color=theme.ink)
        axes.set_ylabel("")
        _label_time(axes, attribution, sample, theme, last=axes is panels[-1])
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
    length = _length(attribution, sample)
    columns = strongest_features(attribution, sample) if features is None else list(features)
    figure, panels = _panels([1.25] * len(columns), theme)
    for axes, column in zip(panels, columns, strict=True):
        values, baseline, unit = raw_series(attribution, sample, column)
        for first, last in spans:
            axes.axvspan(first - 0.5, last + 0.5, color=theme.shade, zorder=0, linewidth=0)
        axes.plot(np.arange(length), baseline, color=theme.muted, linewidth=1, linestyle=(0, (1, 2)))
        axes.plot(np.arange(length), values, color=theme.accent, linewidth=1.8, marker="o", markersize=2.5)
        title = attribution.feature_names[column] + (f", {unit}" if unit else "")
        axes.set_title(_plain(title), loc="left", fontsize=10, color=theme.ink)
        axes.margins(y=0.15)
        _label_time(axes, attribution, sample, theme, last=axes is panels[-1])
    return figure


def plot_gates(
    trace: Trace, sample: int = 0, *, layer: str | None = None, attribution: Attribution | None = None,
    theme: Theme = LIGHT,
) -> Figure:  # fmt: skip
    """Draw each gate of one layer as a unit x timestep heat map, and the candidate on a signed scale.

    The forget gate is drawn as 1 - f, what is forgotten: gates that keep everything would be a dark slab.

    Args:
        trace: What recording returned.
        sample: Which sample.
        layer: Name of the layer; None: the top one.
        attribution: Names the timesteps, and its gate attributions, if any, choose and order the units.
        theme: Colours.
    """
    from matplotlib.colors import Normalize

    chosen = _layer(trace, layer)
    length = int(trace.lengths[sample])
    order, _ = unit_order(trace, sample, layer=layer, attribution=attribution)
    order = order[:MOST_UNITS]
    figure, panels = _panels([1.3] * 4, theme)
    drawn = [
        ("Input gate: how much is written", chosen.input_gate, False),
        ("Forgetting (1 \N{MINUS SIGN} forget gate): how much is erased", 1 - chosen.forget_gate, False),
        ("Candidate: what would be written", chosen.candidate, True),
        ("Output gate: how much is shown", chosen.output_gate, False),
    ]
    for axes, (title, values, signed) in zip(panels, drawn, strict=True):
        array = to_numpy(values)[sample, :length][:, order].T  # (units, L)
        if signed:
            image = _signed_image(axes, array, theme, limit=1.0 if np.abs(array).max() <= 1 else None)
        else:
            image = axes.imshow(
                array, aspect="auto", cmap=theme.sequential(), norm=Normalize(0, 1), interpolation="nearest"
            )
        _unit_axis(axes, title, len(order), theme)
        _label_steps(axes, attribution, sample, length, theme, last=axes is panels[-1])
        _colour_key(figure, axes, image, "", theme)
    return figure


def plot_cell_state(
    trace: Trace, sample: int = 0, *, layer: str | None = None, attribution: Attribution | None = None,
    theme: Theme = LIGHT,
) -> Figure:  # fmt: skip
    """Draw the cell state of one layer: a heat map of its units, and below it the courses of the strongest six."""
    chosen = _layer(trace, layer)
    length = int(trace.lengths[sample])
    order, _ = unit_order(trace, sample, layer=layer, attribution=attribution)
    order = order[:MOST_UNITS]
    cell = to_numpy(chosen.cell_state)[sample, :length]  # (L, H)
    figure, (top, bottom) = _panels([1.7, 1.7], theme)
    image = _signed_image(top, cell[:, order].T, theme)
    _unit_axis(top, "Cell state: what the network remembers", len(order), theme)
    _label_steps(top, attribution, sample, length, theme, last=False)
    _colour_key(figure, top, image, "", theme)
    bottom.axhline(0, color=theme.rule, linewidth=1)
    for rank, unit in enumerate(order[:6]):
        bottom.plot(
            np.arange(length), cell[:, unit], linewidth=1.6 if rank == 0 else 1.1,
            color=theme.accent if rank == 0 else theme.muted, alpha=1 if rank == 0 else 0.85 - 0.1 * rank,
        )  # fmt: skip
    _name_lines(bottom, [(float(cell[-1, unit]), f"unit {unit + 1}") for unit in order[:6]], length, theme)
    bottom.set_title("The strongest six units", loc="left", fontsize=10, color=theme.ink)
    _label_steps(bottom, attribution, sample, length, theme)
    return figure


def plot_gate_attribution(attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT) -> Figure:
    """Draw which gate mattered when: gate attributions summed over units, one row a gate and layer."""
    gates = attribution.gates
    if gates is None:
        raise InvalidInputError(f"{attribution.method} holds no gate attributions; use gate_saliency.")
    length = _length(attribution, sample)
    array = np.nansum(gates.to_numpy()[sample, :, :length], axis=3)  # (layer, L, gate)
    names = [str(name).replace("_", " ") for name in gates["gate"].to_numpy()]
    layers = [str(name) for name in gates["layer"].to_numpy()]
    rows = [array[layer, :, gate] for layer in range(len(layers)) for gate in range(len(names))]
    labels = [name if len(layers) == 1 else f"{layer} {name}" for layer in layers for name in names]
    figure, (axes,) = _panels([0.9 + 0.28 * len(rows)], theme)
    image = _signed_image(axes, np.array(rows), theme)
    axes.set_yticks(range(len(rows)), [_fitted(label, theme) for label in labels])
    _label_time(axes, attribution, sample, theme)
    _colour_key(figure, axes, image, "", theme)
    return figure


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
    length = _length(attribution, sample)
    values = attribution.inputs[sample, :length, column].astype(np.float64)
    baseline = attribution.dataset["baseline"].to_numpy()[sample, :length, column].astype(np.float64)
    if "feature_scale" not in attribution.dataset.coords:
        return values, baseline, ""
    scale = float(attribution.dataset["feature_scale"].to_numpy()[column])
    center = float(attribution.dataset["feature_center"].to_numpy()[column])
    unit = str(attribution.dataset["feature_unit"].to_numpy()[column])
    return values * scale + center, baseline * scale + center, unit


def unit_order(
    trace: Trace, sample: int, *, layer: str | None = None, attribution: Attribution | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the units of a layer, strongest first, and each unit's weight (H,).

    The weight is the unit's absolute gate attribution where the attribution holds gates, else how far its cell moves.
    """
    name = _layer_name(trace, layer)
    length = int(trace.lengths[sample])
    hidden = trace[name].cell_state.shape[2]
    weight = np.abs(to_numpy(trace[name].cell_state)[sample, :length]).max(axis=0).astype(np.float64)  # (H,)
    if attribution is not None and attribution.gates is not None and name in attribution.gates["layer"]:
        gates = attribution.gates.sel(layer=name).to_numpy()[sample]  # (T, gate, unit)
        weight = np.nansum(np.abs(gates), axis=(0, 1)).astype(np.float64)[:hidden]
    return np.argsort(-weight, kind="stable"), weight


# -- how it is drawn -------------------------------------------------------------------------------------------------


def _panels(heights: Sequence[float], theme: Theme) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels under each other whose time axes stand exactly above each other."""
    from matplotlib.figure import Figure

    gap, top, bottom = 0.42, 0.32, 0.42
    height = sum(heights) + gap * (len(heights) - 1) + top + bottom
    width = theme.width
    left, right = _left_margin(theme), min(0.9, 0.15 * width)
    figure = Figure(figsize=(width, height), facecolor=theme.paper)
    panels = []
    y = height - top
    for panel in heights:
        y -= panel
        axes = figure.add_axes((left / width, y / height, (width - left - right) / width, panel / height))
        y -= gap
        axes.set_facecolor(theme.paper)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.rule)
        axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=9)
        axes.yaxis.label.set_color(theme.ink)
        panels.append(axes)
    return figure, panels


def _bars(axes: Axes, attribution: Attribution, sample: int, theme: Theme) -> None:
    length = _length(attribution, sample)
    values = attribution.timesteps[sample, :length].astype(np.float64)
    colours = [theme.raises if value >= 0 else theme.lowers for value in values]
    axes.axhline(0, color=theme.rule, linewidth=1)
    axes.bar(np.arange(length), values, color=colours, width=0.8)
    error = attribution.std_error
    if error is not None:
        spread = error[sample, :length].sum(axis=1)  # features share their draws: this is the most it can be
        axes.errorbar(np.arange(length), values, yerr=spread, fmt="none", ecolor=theme.muted, elinewidth=0.8)
    axes.set_ylabel(_unit_label(attribution), fontsize=9)


def _signed_image(axes: Axes, values: NDArray[Any], theme: Theme, limit: float | None = None) -> Any:
    from matplotlib.colors import Normalize

    bound = limit or float(np.abs(values).max()) or 1.0
    return axes.imshow(
        values, aspect="auto", cmap=theme.signed(), norm=Normalize(-bound, bound), interpolation="nearest"
    )


def _colour_key(figure: Figure, axes: Axes, image: Any, label: str, theme: Theme) -> None:
    box = axes.get_position()
    key = figure.add_axes((box.x1 + 0.015, box.y0, 0.1 / theme.width, box.height))
    bar = figure.colorbar(image, cax=key)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=theme.muted, labelcolor=theme.ink)
    bar.ax.locator_params(nbins=3)
    if label:
        bar.ax.set_title(label, fontsize=8, color=theme.ink, loc="left")


def _unit_axis(axes: Axes, title: str, count: int, theme: Theme) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=theme.ink)
    axes.set_yticks([0, count - 1] if count > 1 else [0], ["strongest", f"number {count}"] if count > 1 else ["unit"])
    axes.spines[["left", "bottom"]].set_visible(False)


def _name_lines(axes: Axes, ends: list[tuple[float, str]], length: int, theme: Theme) -> None:
    """Write each line's name at its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.085
    place = -np.inf
    for rank, (value, name) in sorted(enumerate(ends), key=lambda entry: entry[1][0]):
        place = max(value, place + gap)
        colour = theme.accent if rank == 0 else theme.muted
        axes.text(length - 0.3, place, name, fontsize=8, color=colour, va="center", clip_on=False)


def _label_time(axes: Axes, attribution: Attribution, sample: int, theme: Theme, *, last: bool = True) -> None:
    _label_steps(axes, attribution, sample, _length(attribution, sample), theme, last=last)


def _label_steps(
    axes: Axes, attribution: Attribution | None, sample: int, length: int, theme: Theme, *, last: bool = True
) -> None:
    """Give a panel its time axis; only the last of several carries the labels."""
    labels = [str(step + 1) for step in range(length)] if attribution is None else step_labels(attribution, sample)
    stride = max(1, -(-length // round(theme.width - 0.6)))
    ticks = list(range(length - 1, -1, -stride))[::-1]
    axes.set_xticks(ticks, [_plain(labels[tick]) for tick in ticks])
    axes.set_xlim(-0.5, length - 0.5)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=9, labelbottom=last)


def _unit_label(attribution: Attribution) -> str:
    if attribution.attrs["output"] == "probability":
        return "probability"
    return _plain(str(attribution.attrs["output_unit"])) or "score"


def _layer_name(trace: Trace, layer: str | None) -> str:
    names = list(trace)
    if layer is None:
        top = [name for name in names if not name.endswith(".reverse")]
        return (top or names)[-1]
    if layer not in names:
        raise InvalidInputError(f"there is no layer {layer!r}; {nearest_name(layer, names)}")
    return layer


def _layer(trace: Trace, layer: str | None) -> LayerTrace:
    return trace[_layer_name(trace, layer)]


def _length(attribution: Attribution, sample: int) -> int:
    if not 0 <= sample < len(attribution):
        raise InvalidInputError(f"sample is {sample}; this attribution has the samples 0 to {len(attribution) - 1}.")
    return int(attribution.lengths[sample])


def _left_margin(theme: Theme) -> float:
    return min(1.55, 0.27 * theme.width)


def _fitted(text: str, theme: Theme) -> str:
    """Return a row's label on as many lines as the margin asks for, at most two."""
    import textwrap

    return _plain("\n".join(textwrap.wrap(text, int(_left_margin(theme) / 0.085), max_lines=2, placeholder="...")))


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is (a dollar sign would start a formula)."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return shown.replace("$", r"\$")
