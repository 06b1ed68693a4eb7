"""The part of the page that a reader explores: controls, linked panels, the table beside the cursor, scripts."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..explainers import Attribution
from . import plots
from .html import details, escape
from .panels import Panel, bokeh_document
from .payload import EXACT_UNITS, QUANTITIES, SHOWN_UNITS, SIGNED, STRIPS
from .wording import in_percent, joined, method_name

SCRIPTS = ("data.js", "words.js", "palette.js", "panels.js", "cursor.js", "sheet.js", "tables.js", "page.js")
GATE_NAMES = {
    "input_gate": ("Input gate", "0 shut, 1 open"),
    "forget_gate": ("Forget gate, as what it erases", "0 keeps all, 1 erases all"),
    "candidate": ("Candidate", "what would be written"),
    "output_gate": ("Output gate", "0 shut, 1 open"),
}
FAILED = (
    '<p class="unpainted">The panels could not be drawn: this browser is too old for them, or blocks the script of '
    "the page. The words above and the tables below are complete.</p>"
)
SHADED = '<span class="shaded"> Shaded: the timesteps named above.</span>'


@dataclass(frozen=True)
class Explored:
    """What the page needs for its panels.

    Attributes:
        body: HTML of controls, panels and tables.
        data: HTML of the data blocks, which are not executed.
        script: The page's own script.
        library: Bokeh's script, which the page's own starts.
    """

    body: str
    data: str
    script: str
    library: str


def explore(
    attributions: Mapping[str, Attribution],
    packs: Sequence[str],
    names: Sequence[str],
    *,
    primary: str,
    layers: Sequence[str],
    most_units: int,
    gated: bool,
    over_time: Any = None,
    redact: bool = False,
) -> Explored:
    """Return the panels of all samples.

    Args:
        attributions: Name -> result.
        packs: `Pack.text` of each sample.
        names: What the page calls the samples.
        primary: The explainer that is shown first.
        layers: Names of the layers whose gates are shown; none: the network is not shown.
        most_units: Of the layer that has most.
        gated: Whether there are gate attributions.
        over_time: What `explain_over_time` found, or None.
        redact: Whether inputs are left out.
    """
    first = attributions[primary]
    found = list(attributions.values())
    panels: list[Panel] = []
    drawn = _inputs(panels, first, redact=redact)
    parts = [
        FAILED,
        '<div class="explore">',
        '<p class="printed"></p>' if len(names) > 1 else "",
        _controls(found, names, layers, most_units, over_time),
        '<div class="explored"><div class="panels"><div class="cursor" hidden></div>',
        drawn,
        _effects(panels, found, first, over_time, shaded="" if drawn else SHADED),
        _network(panels, gated=gated) if layers else "",
        "</div>",
        _sheet(first, with_units=bool(layers)),
        "</div></div>",
    ]
    document, roots = bokeh_document(panels)
    library = _library()
    blocks = [f'<script type="text/plain" data-sample="{number}">{pack}</script>' for number, pack in enumerate(packs)]
    blocks.append(f'<script type="text/plain" id="bokeh">{_packed(library)}</script>')
    listed = escape("{" + ",".join(f'"{name}":"{root}"' for name, root in roots.items()) + "}")
    figures = document.replace("<", "\\u003c")  # no text can end the block
    blocks.append(f'<script type="application/json" id="figures" data-roots="{listed}">{figures}</script>')
    return Explored("".join(parts), "".join(blocks), _script(), library)


@cache
def _script() -> str:
    folder = files("gatelens.reports.page")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)


@cache
def _library() -> str:
    """Return the text of bokeh.min.js."""
    return (files("bokeh") / "server" / "static" / "js" / "bokeh.min.js").read_text(encoding="utf-8")


@cache
def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


# -- controls --------------------------------------------------------------------------------------------------------


def _controls(
    found: Sequence[Attribution], names: Sequence[str], layers: Sequence[str], most_units: int, over_time: Any
) -> str:
    """Return the bar of controls; nothing is asked where there is no choice."""
    parts = []
    if len(names) > 1:
        parts.append(_select("sample", "Sample", enumerate(names)))
    timed = [(str(key), method_name(one.method)) for key, one in enumerate(found)]
    if over_time is not None:
        timed.append(("over_time", f"{method_name(str(over_time.attrs['method']))}, by output timestep"))
    if len(timed) > 1:
        parts.append(_select("explainer", "Explainer", timed))
    if over_time is not None:
        parts.append(
            '<label class="control wide output">Output <input type="range" id="output-step" min="0" step="1">'
            '<span id="output-step-text" class="quiet"></span></label>'
        )
    if len(layers) > 1:
        parts.append(_select("layer", "Layer", enumerate(layers)))
    if layers and most_units > SHOWN_UNITS:
        parts.append(_select("units", "Units", [(str(SHOWN_UNITS), f"strongest {SHOWN_UNITS}"), ("all", "all")]))
    parts.append(
        '<label class="control wide">Timestep <input type="range" id="step" min="0" step="1"></label>'
        '<span class="control"><button type="button" data-zoom="in" aria-label="Zoom in">+</button>'
        '<button type="button" data-zoom="out" aria-label="Zoom out">\N{MINUS SIGN}</button>'
        '<button type="button" data-zoom="earlier" aria-label="Earlier">\N{LEFTWARDS ARROW}</button>'
        '<button type="button" data-zoom="later" aria-label="Later">\N{RIGHTWARDS ARROW}</button>'
        '<button type="button" data-zoom="all">Whole</button>'
        '<button type="button" id="theme">Dark</button></span>'
        '<output id="readout"></output>'
    )
    return f'<div class="controls" role="group" aria-label="What is shown">{"".join(parts)}</div>'


def _select(name: str, label: str, options: Any) -> str:
    listed = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    return f'<label class="control">{label} <select id="{name}">{listed}</select></label>'


# -- panels ----------------------------------------------------------------------------------------------------------


def _panel(
    panels: list[Panel],
    panel: Panel,
    title: str,
    note: str = "",
    *,
    key: tuple[str, str] | None = None,
    table: tuple[str, str] = ("", ""),
) -> str:
    """Return a panel's HTML, and list it.

    Args:
        panels: All panels, to which it is added.
        panel: The panel.
        title: Its title, which the script may change.
        note: What is said beside it.
        key: Names of the low and high end of its colours.
        table: What can be opened as a table below it: what the script calls it, and its title.
    """
    panels.append(panel)
    words = f'<span class="quiet">{escape(note)}</span>' if note else ""
    scale = ""
    if key is not None:
        kind = "signed" if panel.name in (*SIGNED, "heat", "gates") else "sequential"
        scale = (
            f'<span class="key"><span class="low">{escape(key[0])}</span><span class="scale {kind}"></span>'
            f'<span class="high">{escape(key[1])}</span></span>'
        )
    folded = ""
    if table[0]:
        folded = _folded(*table)
    return (
        f'<figure class="panel {panel.kind}{" axis" if panel.axis else ""}" data-panel="{panel.name}"><figcaption>'
        f'<span class="title">{escape(title)}</span> {words}{scale}</figcaption>'
        '<div class="drawing"><div class="rows" aria-hidden="true"></div><div class="plot" '
        f'id="plot-{panel.name}" aria-hidden="true"></div></div>{folded}</figure>'
    )


def _folded(name: str, title: str) -> str:
    """Return a table that the script fills when it is opened."""
    return (
        f'<details data-table="{name}"><summary>{escape(title)}: the numbers</summary>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(title)}"></div></details>'
    )


def _inputs(panels: list[Panel], first: Attribution, *, redact: bool) -> str:
    if first.of_tokens or redact:
        return ""
    count = len(plots.strongest_features(first, 0, most=STRIPS))  # the same in all samples
    parts = [
        _panel(
            panels,
            Panel(f"strip-{place}", "line", 64, axis=place == count - 1),
            first.feature_names[place],
            table=("inputs", "All inputs") if place == count - 1 else ("", ""),
        )
        for place in range(count)
    ]
    note = ""
    if count < len(first.feature_names):
        drawn = f"Drawn are the {count} with the largest effect" if count == STRIPS else "The time of day is not drawn"
        note = f" {drawn}; the table has all."
    return f'<h2>What went in</h2><p class="quiet">Line: the input. Dotted: the baseline.{SHADED}{note}</p>' + "".join(
        parts
    )


def _effects(
    panels: list[Panel], found: Sequence[Attribution], first: Attribution, over_time: Any, *, shaded: str
) -> str:
    parts = ["<h2>What mattered</h2>"]
    timed = [key for key, one in enumerate(found) if one.resolves_time]
    parts.append(f'<p class="quiet">{escape(_effects_words(found))}{shaded}</p>')
    for key in timed:
        last = key == timed[-1]
        note = "" if _contributes(found[key]) else "a sensitivity, on a scale of its own"
        parts.append(
            _panel(
                panels, Panel(f"steps-{key}", "bars", 56, axis=last), method_name(found[key].method), note,
                table=("steps", "Each timestep by explainer") if last else ("", ""),
            )
        )  # fmt: skip
    if (
        not first.of_tokens
        and len(first.feature_names) > 1
        and (over_time is not None or any(one.resolves_features for one in found))
    ):
        height = min(22 * len(first.feature_names), 320)
        parts.append(
            _panel(
                panels, Panel("heat", "map", height, axis=True), "Each timestep and feature", key=("", ""),
                table=("heat", "Each timestep and feature"),
            )
        )  # fmt: skip
    return "".join(parts)


def _contributes(found: Attribution) -> bool:
    return found.measures == "contribution"


def _effects_words(found: Sequence[Attribution]) -> str:
    """Return what the bars show, in what unit, and which explainers have none."""
    timed = [one for one in found if one.resolves_time]
    words = []
    if timed:
        words.append("Each timestep by explainer. Above the line, orange: raises. Below it, blue: lowers.")
    if any(map(_contributes, timed)):
        unit = "percentage points" if in_percent(found[0]) else str(found[0].attrs["output_unit"])
        told = f"Contributions share one scale{f', in {unit}' if unit else ''}"
        errors = any(one.std_error is not None for one in timed)
        words.append(f"{told}{'; thin lines are standard errors of the sampling' if errors else ''}.")
    others = [method_name(one.method) for one in found if not one.resolves_time]
    if others:
        verb = "does" if len(others) == 1 else "do"
        words.append(f"{joined(others)} {verb} not tell timesteps apart: what each feature did is over all of them.")
    return " ".join(words)


def _network(panels: list[Panel], *, gated: bool) -> str:
    parts = ['<h2>What the network did</h2><p class="quiet" id="units-told"></p>']
    if gated:
        parts.append(
            _panel(
                panels, Panel("gates", "map", 88), "Gate saliency", "which gate mattered when, summed over units",
                key=("", ""), table=("gates", "Gate saliency"),
            )
        )  # fmt: skip
    parts.append(
        _panel(
            panels, Panel("flow", "map", 120), "Memory flow", "what each timestep wrote and was left at the end",
            key=("", ""), table=("flow", "Memory flow"),
        )
    )  # fmt: skip
    parts.append(_panel(panels, Panel("flow_sum", "bars", 56), "Memory flow, summed over all units"))
    parts.append(
        _panel(
            panels, Panel("cell_state", "map", 120, axis=True), "Cell state", key=("", ""),
            table=("cell_state", "Cell state"),
        )
    )  # fmt: skip
    gates = "".join(
        _panel(
            panels, Panel(name, "map", 96, axis=name == "output_gate"), title, key=_ends(name, note),
            table=(name, title),
        )
        for name, (title, note) in GATE_NAMES.items()
    )  # fmt: skip
    note = (
        '<p class="quiet">Pictures of units hold 256 levels, and so do the tables below them. The numbers beside the '
        f"cursor, of the {EXACT_UNITS} strongest units, are exact, and so are all contributions.</p>"
    )
    parts.append(details("The gates, unit by unit", gates + note))
    return "".join(parts)


def _ends(name: str, note: str) -> tuple[str, str]:
    if name in SIGNED:
        return "", ""
    low, high = note.split(", ")
    return low, high


def _sheet(first: Attribution, *, with_units: bool) -> str:
    heads = ("Input", "Token", "Effect") if first.of_tokens else ("Feature", "Value", "Effect")
    columns = "".join(f'<th scope="col">{name}</th>' for name in heads)
    units = ""
    if with_units:
        names = "".join(f'<th scope="col">{short}</th>' for short, _ in UNIT_COLUMNS)
        told = ", ".join(f"{short}: {title}" for short, title in UNIT_COLUMNS)
        units = (
            '<table id="sheet-units" class="data"><caption>Strongest units</caption><thead><tr>'
            f'<th scope="col">Unit</th>{names}</tr></thead><tbody></tbody></table>'
            f'<p class="quiet">{told}</p>'
        )
    return (
        '<aside class="sheet" aria-label="At the cursor"><h3 id="sheet-step">At the cursor</h3>'
        '<div class="scroll" tabindex="0" role="group" aria-label="Numbers"><table id="sheet-features" class="data">'
        f"<thead><tr>{columns}</tr></thead><tbody></tbody></table>{units}</div></aside>"
    )


UNIT_COLUMNS = [
    ("i", "input gate"),
    ("f", "forget gate"),
    ("g", "candidate"),
    ("o", "output gate"),
    ("c", "cell state"),
    ("flow", "memory flow"),
]
assert len(UNIT_COLUMNS) == len(QUANTITIES)
