"""The page's linked panels: Bokeh figures over one time axis, empty, to be filled by the page's script.

What a panel shows depends on sample, explainer, layer and zoom, which the reader chooses; so the figures come without
data, and `page/panels.js` fills their sources from the packs (`payload.py`). All have the same frame, so that one
cursor runs through them; what is written left of it is HTML, because a long label of Bokeh's own would move the frame.
A glyph is named by what is coloured and its role ("fill:raises"): the theme decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812 - a class with a function's name

LEFT, RIGHT = 84, 20  # px beside each frame; as in style.css
BAR_WIDTH = 0.84  # timesteps


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        name: What the script calls it.
        kind: "line", "bars" or "map".
        height: px.
        axis: Whether the time axis is written below it.
    """

    name: str
    kind: str
    height: int
    axis: bool = False


def bokeh_document(panels: list[Panel]) -> tuple[str, dict[str, str]]:
    """Return Bokeh's JSON of all panels, and panel -> id of its root.

    Args:
        panels: In any order.
    """
    from bokeh.core.json_encoder import serialize_json
    from bokeh.document import Document
    from bokeh.models import Range1d

    document = Document()
    time = Range1d(start=-0.5, end=0.5, name="time")
    roots = {}
    with document.models.freeze():  # else Bokeh goes through all models again for each panel
        for panel in panels:
            made = _figure(panel, time)
            document.add_root(made)
            roots[panel.name] = str(made.id)
    text = serialize_json({"document": document.to_json(deferred=False)})
    numbers: dict[str, str] = {}  # Bokeh counts models from when it was imported; the page is the same each time
    text = re.sub(r'"p[0-9]+"', lambda found: numbers.setdefault(found[0], f'"m{len(numbers)}"'), text)
    return text, {name: numbers[f'"{root}"'].strip('"') for name, root in roots.items()}


def _figure(panel: Panel, time: Any) -> Figure:
    from bokeh.models import BoxZoomTool, ColumnDataSource, FixedTicker, Range1d
    from bokeh.plotting import figure

    made = figure(
        name=panel.name,
        height=panel.height + (24 if panel.axis else 0),
        sizing_mode="stretch_width",
        x_range=time,
        y_range=Range1d(start=0, end=1, name=f"{panel.name}.y"),
        tools=[BoxZoomTool(dimensions="width")],
        toolbar_location=None,
        min_border_left=LEFT,
        min_border_right=RIGHT,
        min_border_top=4,
        min_border_bottom=24 if panel.axis else 4,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
    )
    made.xaxis.ticker = FixedTicker(ticks=[], name=f"{panel.name}.ticks")
    made.xaxis.name = f"{panel.name}.x"
    made.xaxis.visible = panel.axis
    made.xaxis.major_label_text_font_size = "12px"
    made.xaxis.major_label_text_font = "system-ui, sans-serif"
    made.axis.axis_line_color = made.axis.minor_tick_line_color = made.axis.major_tick_line_color = None
    made.yaxis.visible = False
    made.xgrid.grid_line_color = None
    made.ygrid.grid_line_color = None
    source = ColumnDataSource(name=f"{panel.name}.data")
    if panel.kind == "map":
        source.data = {"image": [np.zeros((1, 1), dtype=np.uint32)], "x": [0], "dw": [1]}
        made.image_rgba("image", x="x", y=0, dw="dw", dh=1, source=source)
        return made
    empty: Any = np.zeros(0)
    zero = ColumnDataSource({"x": [-1e6, 1e6], "y": [0.0, 0.0]}, name=f"{panel.name}.zero")
    made.line("x", "y", source=zero, line_width=1, name="line:rule")
    if panel.kind == "bars":
        source.data = dict.fromkeys(("x", "up", "down", "low", "high"), empty)
        made.vbar("x", width=BAR_WIDTH, bottom=0, top="up", source=source, line_color=None, name="fill:raises")
        made.vbar("x", width=BAR_WIDTH, bottom=0, top="down", source=source, line_color=None, name="fill:lowers")
        made.segment("x", "low", "x", "high", source=source, line_width=1, name="line:ink")
    else:
        source.data = dict.fromkeys(("x", "y", "base"), empty)
        made.step("x", "base", source=source, mode="center", line_dash="dotted", line_width=1.2, name="line:muted")
        made.line("x", "y", source=source, line_width=1.8, name="line:accent")
        made.scatter("x", "y", source=source, size=4, line_color=None, name="fill:accent:dots")
    return made
