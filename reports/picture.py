"""`Picture`: a matplotlib figure whose files keep their letters, and which notebooks show without pyplot."""

from __future__ import annotations

import io
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

NOTEBOOK_DPI = 110


class Picture(Figure):
    """A figure that is saved as SVG and PDF with text as text: to be searched, and set in the page's own font."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save as matplotlib does. Glyphs that are missing here are no matter in SVG: its reader has its own fonts."""
        kind = options.get("format") or str(fname).rpartition(".")[2]
        with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}), warnings.catch_warnings():
            if str(kind).lower() in ("svg", "svgz"):
                warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        """Return the picture for a notebook in which nobody imported pyplot."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=NOTEBOOK_DPI)
        return buffer.getvalue()
