"""Short HTML for notebooks: tables and bars, no script, every text escaped.

Paper and ink are the notebook's own, and the few colours stand out on white and on black, so that it can be read in
light and dark ones; bars only repeat what stands beside them in numbers.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .trace import GATES, LayerTrace, Trace

RAISES, LOWERS, GATE = "#cf6a3c", "#4d86c6", "#4a9c95"
BAR = 60  # px
MOST_BARS = 120  # of a course; of more timesteps, so many sums are drawn
CELL = ' style="text-align:left;white-space:nowrap;padding:2px 12px 2px 0"'


class Markup(str):
    """HTML made here, which is not escaped again."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Return a text as HTML shows it as it is, in content and in quoted attributes."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, title: str = "") -> Markup:
    """Return a table of texts or markup."""
    caption = f'<caption style="text-align:left;opacity:0.75">{escaped(title)}</caption>' if title else ""
    top = "".join(f"<th{CELL}>{escaped(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td{CELL}>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return Markup(f'<table style="color:inherit">{caption}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>')


def small(*parts: object) -> Markup:
    """Return a quiet line of several parts."""
    return Markup(f'<div style="opacity:0.75;font-size:smaller">{" · ".join(escaped(part) for part in parts)}</div>')


def bar(share: float, *, colour: str | None = None) -> Markup:
    """Return a bar of a share of 1, coloured by its sign unless a colour is given."""
    width = BAR * min(1.0, abs(share)) if math.isfinite(share) else 0.0
    fill = colour or (RAISES if share >= 0 else LOWERS)
    return Markup(
        f'<svg width="{BAR}" height="9" aria-hidden="true"><rect width="{width:.1f}" height="9" fill="{fill}"/></svg>'
    )


def course(values: NDArray[np.floating]) -> Markup:
    """Return signed bars over time, of values (L,)."""
    if len(values) > MOST_BARS:
        values = np.array([part.sum() for part in np.array_split(values, MOST_BARS)])
    heights = 18 * np.nan_to_num(values / (np.abs(values).max() or 1.0))
    wide = 320 / len(values)
    bars = "".join(
        f'<rect x="{place * wide:.1f}" y="{20 - max(height, 0):.1f}" width="{0.85 * wide:.1f}" '
        f'height="{abs(height):.1f}" fill="{RAISES if height > 0 else LOWERS}"/>'
        for place, height in enumerate(heights)
        if abs(height) >= 0.05
    )
    axis = '<rect y="19.75" width="320" height="0.5" fill="currentColor" opacity="0.4"/>'
    return Markup(f'<svg width="320" height="40" aria-hidden="true">{axis}{bars}</svg>')


def trace_html(trace: Trace) -> Markup:
    """Return a trace's layers, shapes, and what their gates do on average."""
    lengths = [int(length) for length in trace.lengths]
    span = f"{min(lengths)} to {max(lengths)}" if len(set(lengths)) > 1 else f"{lengths[0] if lengths else 0}"
    size = sum(value.nbytes for layer in trace.values() for value in layer.quantities().values())
    title = f"Trace of {len(lengths)} sequence{'' if len(lengths) == 1 else 's'}, {span} timesteps, {size / 1e6:.3g} MB"
    recorded = [name for name in GATES if any(name in layer.quantities() for layer in trace.values())]
    head = ["layer", "shape", *(name.replace("_", " ") for name in recorded), "half-life"]
    rows = [[name, " x ".join(map(str, layer.shape)), *_gates(layer, recorded)] for name, layer in trace.items()]
    note = small(
        "shape: samples x timesteps x units", "gates: mean and range", "half-life: at the mean rate of forgetting"
    )
    return Markup(f"<div>{table(head, rows, title=title)}{note}</div>")


def _gates(layer: LayerTrace, names: Sequence[str]) -> list[Markup]:
    """Return the cells of a layer's row: its gates in numbers, and how long its cells remember."""
    there = layer.timesteps_read()
    known = layer.quantities()
    found = {name: known[name].detach()[there].double() if name in known else None for name in (*names, "forget_gate")}
    return [*(_gate(name, found[name]) for name in names), escaped(_half_life(found["forget_gate"]))]


def _gate(name: str, values: Tensor | None) -> Markup:
    """Return mean and range of a gate's values (n, H), and a bar where it is a gate from 0 to 1."""
    if values is None or not values.numel():
        return escaped("not recorded" if values is None else "nothing read")
    mean, low, high = float(values.mean()), float(values.min()), float(values.max())
    drawn = "" if name == "candidate" or not 0 <= low <= high <= 1 else bar(mean, colour=GATE)
    return Markup(f"{mean:.3g} {drawn}<br/>{low:.2g} to {high:.2g}")


def _half_life(forget: Tensor | None) -> str:
    """Return after how many timesteps half of what the cells hold is forgotten, of forget gates (n, H)."""
    if forget is None or not forget.numel() or not 0 <= float(forget.min()) <= float(forget.max()) <= 1:
        return "not known"
    rate = -float(forget.log().mean())
    return f"{math.log(2) / rate:.3g} timesteps" if rate > 0 else "endless"
