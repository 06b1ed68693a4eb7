"""Small pieces of HTML; every text from outside passes through `escape` here and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from ..models import notebook
from .palette import DARK, LIGHT, NARROW_WIDTH, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # Unicode's overrides of the direction of writing


def escape(text: object) -> str:
    """Return text that HTML shows as it is, in content and in quoted attributes."""
    return html.escape(legible(text), quote=True).replace(" %", "\N{NO-BREAK SPACE}%")


def legible(text: object) -> str:
    """Return text without what cannot be written, or would turn the letters and numbers after it around."""
    text = str(text).encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return TURNING.sub("\N{REPLACEMENT CHARACTER}", text)


def page(title: str, body: str, version: str, *, script: str = "", library: str = "", data: str = "") -> str:
    """Return the whole document: inline style, and a policy that forbids all that is not named here by its hash.

    Args:
        title: Of the document.
        body: HTML.
        version: Of gatelens.
        script: The page's own script; none: the policy forbids scripts.
        library: A script that the page's own starts, which must come along in `data`. The style elements that it makes
            carry a nonce.
        data: Blocks that are not executed.
    """
    folder = files("gatelens.reports.page")
    style = (folder / "style.css").read_text(encoding="utf-8")
    styles, scripts = [_source(style)], [_source(text) for text in (script, library) if text]
    nonce = hashlib.sha256((script + library + data + body).encode()).hexdigest()[:32]
    if library:
        styles.append(f"'nonce-{nonce}'")
    policy = {
        "default-src": ["'none'"],
        "script-src": scripts or ["'none'"],
        "style-src": styles,
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    template = Template((folder / "report.html").read_text(encoding="utf-8"))
    return template.substitute(
        policy=escape("; ".join(f"{name} {' '.join(sources)}" for name, sources in policy.items())),
        version=escape(version),
        title=escape(title),
        nonce=f' nonce="{nonce}"' if library else "",
        style=style,
        body=body,
        scripts=f"{data}<script>{script}</script>" if script else "",
    )


def _source(text: str) -> str:
    """Return how a policy names an inline script or style: by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def picture(draw: Callable[[Theme], Figure], description: str, caption: str = "") -> str:
    """Return a figure that follows the reader's light or dark mode, drawn anew for small screens."""
    wide = [_data_uri(draw(theme)) for theme in (LIGHT, DARK)]
    narrow = [_data_uri(draw(replace(theme, width=NARROW_WIDTH))) for theme in (LIGHT, DARK)]
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        "<figure><picture>"
        f'<source media="(max-width: 560px) and (prefers-color-scheme: dark)" srcset="{narrow[1]}">'
        f'<source media="(max-width: 560px)" srcset="{narrow[0]}">'
        f'<source media="(prefers-color-scheme: dark)" srcset="{wide[1]}">'
        f'<img src="{wide[0]}" alt="{escape(description)}"></picture>{below}</figure>'
    )


def _data_uri(figure: Figure) -> str:
    """Return a figure as SVG in a data URI; its letters stay text, in the reader's own font."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gatelens"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue().replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()


def share_bar(share: float, kind: str = "value") -> str:
    """Return a bar of a share in 0..1; `kind` is the class of its colour, which a notebook has of its own."""
    width = max(0.0, min(1.0, share)) * 100
    fill = {"raises": notebook.RAISES, "lowers": notebook.LOWERS}.get(kind, "#888888")
    return (
        '<svg class="bar" width="100" height="10" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10" fill="none"/>'
        f'<rect class="{kind}" width="{width:.1f}" height="10" fill="{fill}"/></svg>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, text: bool = False, caption: str = "") -> str:
    """Return a data table; `text` aligns its cells to the left. Too wide for the screen, the keyboard scrolls it."""
    header = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = "data text" if text else "data"
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption) or "Table"}">'
        f'<table class="{kind}">{title}'
        + (f"<thead><tr>{header}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody></table></div>"
    )


def details(title: str, content: str, *, opened: bool = False) -> str:
    """Return a section that opens when asked."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{content}</details>"
