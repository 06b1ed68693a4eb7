"""Pictures of what the network did: gates, cell state, memory flow, and which gate mattered when.

All draw one sample over its valid timesteps, the units in one order: the strongest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError, LayerTrace, Trace, memory_flow
from ..models.errors import nearest_name
from ..models.trace import to_numpy
from .palette import LIGHT, Theme
from .plot_parts import (
    canvas,
    cells,
    colour_key,
    label_steps,
    label_time,
    left_margin,
    length_of,
    name_lines,
    panels,
    row_labels,
    signed_cells,
    time_margin,
    titled,
)
from .wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_UNITS = 32


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
    units = _Units(trace, sample, layer, attribution)
    chosen = units.layer
    drawn = [
        ("Input gate: how much is written" + units.left_out(), chosen.input_gate, False),
        ("Forgetting (1 \N{MINUS SIGN} forget gate): how much is erased", 1 - chosen.forget_gate, False),
        ("Candidate: what would be written", chosen.candidate, True),
        ("Output gate: how much is shown", chosen.output_gate, False),
    ]
    figure, found = panels([1.3] * 4, theme, title=drawn[0][0], bottom=time_margin(attribution, sample))
    for axes, (title, values, signed) in zip(found, drawn, strict=True):
        array = units.rows(values)  # (units, L)
        if signed:
            image = signed_cells(axes, array, theme, limit=1.0 if np.abs(array).max() <= 1 else None)
        else:
            image = cells(axes, array, theme.sequential(), 0, 1)
        units.label(axes, title, theme)
        label_steps(axes, attribution, sample, units.length, theme, last=axes is found[-1])
        colour_key(axes, image, "", theme)
    return figure


def plot_cell_state(
    trace: Trace, sample: int = 0, *, layer: str | None = None, attribution: Attribution | None = None,
    theme: Theme = LIGHT,
) -> Figure:  # fmt: skip
    """Draw the cell state of one layer: a heat map of its units, and below it the courses of the strongest six."""
    units = _Units(trace, sample, layer, attribution)
    length = units.length
    cell = to_numpy(units.layer.cell_state)[sample, :length]  # (L, H)
    title = "Cell state: what the network remembers" + units.left_out()
    figure, (top, bottom) = panels([1.7, 1.7], theme, title=title, bottom=time_margin(attribution, sample))
    image = signed_cells(top, units.rows(units.layer.cell_state), theme)
    units.label(top, title, theme)
    label_steps(top, attribution, sample, length, theme, last=False)
    colour_key(top, image, "", theme)
    strongest = units.shown[:6]
    bottom.axhline(0, color=theme.rule, linewidth=1)
    for rank, unit in enumerate(strongest):
        bottom.plot(
            np.arange(length), cell[:, unit], linewidth=1.6 if rank == 0 else 1.1, marker=_marker(length), markersize=4,
            color=theme.accent if rank == 0 else theme.muted, alpha=1 if rank == 0 else 0.85 - 0.1 * rank,
        )  # fmt: skip
    name_lines(bottom, [(float(cell[-1, unit]), f"unit {unit + 1}") for unit in strongest], theme)
    titled(bottom, _counted(len(strongest)), theme)
    label_steps(bottom, attribution, sample, length, theme)
    return figure


def plot_memory_flow(
    trace: Trace, sample: int = 0, *, layer: str | None = None, attribution: Attribution | None = None,
    theme: Theme = LIGHT,
) -> Figure:  # fmt: skip
    """Draw what each timestep wrote into the cells of a layer and is still there at the end (`memory_flow`).

    Above by unit, on a signed scale; below, sizes summed over all units: what was written, and what is left of it.

    Args:
        trace: What recording returned, with gates.
        sample: Which sample.
        layer: Name of the layer; None: the top one.
        attribution: Names the timesteps, and its gate attributions, if any, choose and order the units.
        theme: Colours.
    """
    units = _Units(trace, sample, layer, attribution)
    found = memory_flow(Trace({units.name: units.layer}, lengths=trace.lengths))[units.name]
    length = units.length
    written, left = (
        np.abs(to_numpy(part)[sample, :length]).sum(axis=1) for part in (found.written, found.flow)
    )  # (L,)
    end = ", the first timestep, as the layer reads backwards" if found.reverse else ""
    share = units.left_out(np.abs(to_numpy(found.flow)[sample, :length]).sum(axis=0))
    title = f"Memory flow: what is left of each timestep at the end{end}{share}"
    figure, (top, bottom) = panels([1.7, 1.5], theme, title=title, bottom=time_margin(attribution, sample))
    image = signed_cells(top, units.rows(found.flow), theme)
    units.label(top, title, theme)
    label_steps(top, attribution, sample, length, theme, last=False)
    colour_key(top, image, "", theme)
    steps = np.arange(length)
    bottom.fill_between(steps, left, color=theme.accent, alpha=0.25, linewidth=0)
    for values, colour in ((written, theme.muted), (left, theme.accent)):
        bottom.plot(steps, values, color=colour, linewidth=1.6, marker=_marker(length), markersize=4)
    bottom.set_ylim(0, 1.2 * (float(max(written.max(), left.max())) or 1.0))
    widest = int((written - left).argmax())
    bottom.text(widest, written[widest], "written", fontsize=8, color=theme.muted, ha="center", va="bottom")
    name_lines(bottom, [(float(left[-1]), "left")], theme)
    titled(bottom, f"Sizes summed over {_all(len(units.weight))}: written, and left at the end", theme)
    label_steps(bottom, attribution, sample, length, theme)
    return figure


def plot_gate_attribution(
    attribution: Attribution, sample: int = 0, *, theme: Theme = LIGHT, ax: Axes | None = None
) -> Figure:
    """Draw which gate mattered when: gate attributions summed over units, one row a gate and layer."""
    gates = attribution.gates
    if gates is None:
        raise InvalidInputError(f"{attribution.method} holds no gate attributions; use gate_saliency.")
    length = length_of(attribution, sample)
    array = np.nansum(gates.to_numpy()[sample, :, :length], axis=3)  # (layer, L, gate)
    names = [str(name).replace("_", " ") for name in gates["gate"].to_numpy()]
    layers = [str(name) for name in gates["layer"].to_numpy()]
    rows = [array[layer, :, gate] for layer in range(len(layers)) for gate in range(len(names))]
    labels = [name if len(layers) == 1 else f"{layer} {name}" for layer in layers for name in names]
    left, bottom = left_margin(theme, labels), time_margin(attribution, sample)
    figure, axes = canvas(0.4 + 0.3 * len(rows), theme, ax, left=left, bottom=bottom)
    drawn = signed_cells(axes, np.array(rows), theme)
    row_labels(axes, labels, theme, left=left)
    label_time(axes, attribution, sample, theme)
    colour_key(axes, drawn, "", theme, ours=ax is None)
    return figure


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


class _Units:
    """The units of one layer that are drawn of one sample, strongest first."""

    def __init__(self, trace: Trace, sample: int, layer: str | None, attribution: Attribution | None) -> None:
        count = len(trace.lengths)
        if not 0 <= sample < count:
            raise InvalidInputError(f"sample is {sample}; this trace has the samples 0 to {count - 1}.")
        self.name = _layer_name(trace, layer)
        self.layer: LayerTrace = trace[self.name]
        self.sample = sample
        self.length = int(trace.lengths[sample])
        order, self.weight = unit_order(trace, sample, layer=self.name, attribution=attribution)
        self.shown = order[:MOST_UNITS]

    def rows(self, values: Any) -> NDArray[Any]:
        """Return the drawn rows (units, L) of (B, T, H)."""
        return np.asarray(to_numpy(values)[self.sample, : self.length][:, self.shown].T)

    def left_out(self, weight: NDArray[Any] | None = None) -> str:
        """Return how many units are drawn, and what share of the weight they carry; "" where all are."""
        weight = self.weight if weight is None else weight
        if len(self.shown) == len(weight):
            return ""
        total = float(weight.sum())
        share = f", which carry {percent(float(weight[self.shown].sum()) / total)}" if total else ""
        return f" ({len(self.shown)} of {len(weight)} units{share})"

    def label(self, axes: Axes, title: str, theme: Theme) -> None:
        """Write the title, and which of the rows is the strongest."""
        count = len(self.shown)
        titled(axes, title, theme)
        axes.set_yticks(
            [0, count - 1] if count > 1 else [0], ["strongest", f"number {count}"] if count > 1 else ["unit"]
        )
        axes.spines[["left", "bottom"]].set_visible(False)


def _marker(length: int) -> str:
    """Return a line's marker: a single point must be seen."""
    return "o" if length == 1 else ""


def _counted(count: int) -> str:
    return "The only unit" if count == 1 else f"The strongest {count} units"


def _all(count: int) -> str:
    return "the one unit" if count == 1 else f"all {count} units"


def _layer_name(trace: Trace, layer: str | None) -> str:
    names = list(trace)
    if layer is None:
        top = [name for name in names if not name.endswith(".reverse")]
        return (top or names)[-1]
    if layer not in names:
        raise InvalidInputError(f"there is no layer {layer!r}; {nearest_name(layer, names)}")
    return layer
