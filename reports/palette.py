"""Colours, once, for pictures and page: one signed scale (raises / lowers), one for gates, in light and dark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class Theme:
    """Colours of one mode.

    `width` is that of a picture in inches. `raises` and `lowers` are for sign only; `accent` marks one
    line among greys; gates go from `paper` to `gate`.
    """

    name: str
    paper: str
    ink: str
    muted: str
    rule: str
    raises: str
    lowers: str
    accent: str
    gate: str
    shade: str
    width: float = 8.6

    def signed(self) -> Colormap:
        """Return the diverging map: lowers, paper at zero, raises. Use it with limits symmetric about zero."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("signed", [self.lowers, self.paper, self.raises])

    def sequential(self) -> Colormap:
        """Return the map of quantities in [0, 1]: paper at 0."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("sequential", [self.paper, self.gate])


NARROW_WIDTH = 4.6  # of pictures for small screens

LIGHT = Theme(
    name="light",
    paper="#fbfaf7",
    ink="#1d2024",
    muted="#5c636b",
    rule="#dcd9d1",
    raises="#a8431c",
    lowers="#2b5b94",
    accent="#1f6f6b",
    gate="#174c52",
    shade="#efe9dc",
)
DARK = Theme(
    name="dark",
    paper="#17191d",
    ink="#eceae4",
    muted="#a5abb3",
    rule="#383c43",
    raises="#f59b66",
    lowers="#7db4f0",
    accent="#6cc5bd",
    gate="#8fd3cb",
    shade="#2a2c2f",
)
