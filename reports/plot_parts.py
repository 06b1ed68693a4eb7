"""What static pictures are put together from: panels, one time axis, cells, colour keys and labels that fit.

Cells are drawn as vectors up to `MOST_CELLS`; a larger map is a picture of one pixel a cell, sharp in any size, because
a file of a hundred thousand squares is slow to open and no sharper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import InvalidInputError
from .palette import Theme
from .wording import in_percent, step_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CELLS = 10_000
LETTER = 0.078  # inches, a wide letter of 9 points
TITLE_LETTER = 0.076  # inches, a letter of 10 points
LINE = 0.16  # inches, from one line of 9 points to the next
LONGEST_TOKEN = 16  # letters
NARROW = 6.0  # inches; a narrower picture has its panels under each other
BOTTOM = 0.42  # inches below the last panel

# -- figures and panels ----------------------------------------------------------------------------------------------


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """Return an empty figure; sizes in inches."""
    from .picture import Picture

    return Picture(figsize=(width, height), facecolor=theme.paper)


def panels(
    heights: Sequence[float], theme: Theme, *, title: str = "", left: float | None = None, bottom: float = BOTTOM
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels under each other whose time axes stand exactly above each other.

    Args:
        heights: Of each panel, in inches.
        theme: Colours and width.
        title: What will be written above the first one, which may take several lines.
        left: Inches left of the panels.
        bottom: Inches below the last one.
    """
    left, right = left_margin(theme) if left is None else left, right_margin(theme)
    across = theme.width - left - right
    top = 0.32 + LINE * (len(title_lines(title, across)) - 1)
    gap = 0.42 if theme.width >= NARROW else 0.42 + LINE  # titles take two lines there
    height = sum(heights) + gap * (len(heights) - 1) + top + bottom
    figure = new_figure(theme.width, height, theme)
    found = []
    y = height - top
    for panel in heights:
        y -= panel
        found.append(add_axes(figure, left, y, across, panel, theme))
        y -= gap
    return figure, found


def canvas(
    height: float, theme: Theme, ax: Axes | None, *, title: str = "", left: float | None = None, bottom: float = BOTTOM
) -> tuple[Figure, Axes]:
    """Return a figure with one panel, or the caller's axes and the figure they are in."""
    if ax is None:
        figure, (axes,) = panels([height], theme, title=title, left=left, bottom=bottom)
        return figure, axes
    styled(ax, theme)
    return ax.figure.figure, ax  # of axes in a subfigure: the whole one


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float, theme: Theme) -> Axes:
    """Add axes; places in inches."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    styled(axes, theme)
    return axes


def styled(axes: Axes, theme: Theme) -> None:
    """Give axes the theme's colours and leave two of their four lines."""
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.rule)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(theme.ink)
        axis.label.set_fontsize(9)
        axis.get_offset_text().set_color(theme.ink)


def titled(axes: Axes, text: str, theme: Theme) -> None:
    """Write a panel's title above its left end, on as many lines as it takes."""
    lines = title_lines(text, width_of(axes))
    axes.set_title("\n".join(lines), loc="left", fontsize=10, color=theme.ink)


def title_lines(text: str, across: float) -> list[str]:
    """Return the lines of a title above a panel that is `across` inches wide."""
    return textwrap.wrap(plain(text), max(20, int(across / TITLE_LETTER))) or [""]


def width_of(axes: Axes) -> float:
    """Return the width of axes in inches."""
    return float(axes.bbox.width / axes.figure.dpi)


def height_of(axes: Axes) -> float:
    """Return the height of axes in inches."""
    return float(axes.bbox.height / axes.figure.dpi)


def left_margin(theme: Theme, names: Sequence[str] = ()) -> float:
    """Return the inches left of the panels: for short names, or for those given as far as there is room."""
    usual = min(1.55, 0.27 * theme.width)
    return max(usual, min(0.34 * theme.width, 0.2 + LETTER * max((len(name) for name in names), default=0)))


def right_margin(theme: Theme) -> float:
    """Return the inches right of the panels, for colour keys and the names of lines."""
    return min(0.9, 0.15 * theme.width)


# -- values ----------------------------------------------------------------------------------------------------------


def largest(values: NDArray[Any]) -> float:
    """Return the largest absolute value, 1 where there is none but 0: half the width of a signed scale."""
    sizes = np.abs(values)
    return float(sizes.max(initial=0.0, where=np.isfinite(sizes))) or 1.0


def signed_cells(axes: Axes, values: NDArray[Any], theme: Theme, limit: float | None = None) -> Any:
    """Draw values (rows, columns) in a scale symmetric about zero."""
    bound = limit or largest(values)
    return cells(axes, values, theme.signed(), -bound, bound)


def cells(axes: Axes, values: NDArray[Any], colours: Any, low: float, high: float) -> Any:
    """Draw values (rows, columns), the first row at the top, row and column k from k - 0.5 to k + 0.5."""
    from matplotlib.colors import Normalize

    rows, columns = values.shape
    scale = Normalize(low, high)
    if values.size > MOST_CELLS:
        return axes.imshow(values, aspect="auto", cmap=colours, norm=scale, interpolation="nearest")
    drawn = axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, values, cmap=colours, norm=scale,
        edgecolors="face", linewidth=0.2,  # else readers show hairlines between neighbours
    )  # fmt: skip
    axes.set_ylim(rows - 0.5, -0.5)
    return drawn


def colour_key(axes: Axes, drawn: Any, label: str, theme: Theme, *, ours: bool = True) -> Any:
    """Draw the scale of `drawn` right of its axes, and return it; in a figure not ours matplotlib finds the room."""
    figure: Any = axes.figure
    if ours:
        box = axes.get_position()
        bar = figure.colorbar(
            drawn, cax=figure.add_axes((box.x1 + 0.015, box.y0, 0.1 / theme.width, box.height), label="<colorbar>")
        )
    else:
        bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.02)
    bar.outline.set_visible(False)
    bar.solids.set(rasterized=False, edgecolor="face", linewidth=0.2)
    bar.ax.tick_params(labelsize=8, colors=theme.muted, labelcolor=theme.ink)
    bar.ax.locator_params(nbins=3)
    if label:
        bar.ax.set_title(plain(label), fontsize=8, color=theme.ink, loc="left")
    return bar


def name_lines(axes: Axes, ends: list[tuple[float, str]], theme: Theme) -> None:
    """Write each line's name at the right, at the height of its end, moved apart where they would overlap.

    The first one stands out.
    """
    low, high = axes.get_ylim()
    gap = (high - low) * LINE / height_of(axes)
    y = -np.inf
    for rank, (value, name) in sorted(enumerate(ends), key=lambda entry: entry[1][0]):
        y = max(value, y + gap)
        colour = theme.accent if rank == 0 else theme.muted
        place = axes.get_yaxis_transform()
        axes.text(1.008, y, plain(name), transform=place, fontsize=8, color=colour, va="center", clip_on=False)


# -- labels ----------------------------------------------------------------------------------------------------------


def length_of(attribution: Attribution, sample: int) -> int:
    """Return the valid timesteps of a sample."""
    if not 0 <= sample < len(attribution):
        raise InvalidInputError(f"sample is {sample}; this attribution has the samples 0 to {len(attribution) - 1}.")
    return int(attribution.lengths[sample])


def label_time(axes: Axes, attribution: Attribution, sample: int, theme: Theme, *, last: bool = True) -> None:
    """Give a panel the time axis of a sample."""
    label_steps(axes, attribution, sample, length_of(attribution, sample), theme, last=last)


def label_steps(
    axes: Axes, attribution: Attribution | None, sample: int, length: int, theme: Theme, *, last: bool = True
) -> None:
    """Give a panel its time axis; only the last of several carries the labels."""
    tokens = None if attribution is None else token_labels(attribution, sample)
    if tokens is not None and attribution is not None:
        ticks = _strongest_apart(np.abs(attribution.timesteps[sample, :length]), int(width_of(axes) / LINE))
        axes.set_xticks(ticks, [tokens[tick] for tick in ticks], rotation=90)
    else:
        labels = [str(step + 1) for step in range(length)] if attribution is None else step_labels(attribution, sample)
        label_ends(axes, labels)
    axes.set_xlim(-0.5, length - 0.5)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=9, labelbottom=last)


def label_ends(axes: Axes, labels: Sequence[str]) -> None:
    """Write as many labels of the places 0, 1, ... below axes as there is room for, counted from the last.

    Where these are the numbers 1, 2, ..., round ones are written.
    """
    count = len(labels)
    room = width_of(axes) / (LETTER * max(len(label) for label in labels) + 0.2)
    stride = max(1, -(-count // max(1, int(room))))
    ticks = list(range(count - 1, -1, -stride))[::-1]
    if stride > 1 and labels[0] == "1" and labels[-1] == str(count):
        stride = next(size * 10**power for power in range(12) for size in (1, 2, 5) if size * 10**power >= stride)
        ticks = list(range(stride - 1, count, stride)) or [count - 1]
    axes.set_xticks(ticks, [plain(labels[tick]) for tick in ticks])


def time_margin(attribution: Attribution | None, sample: int) -> float:
    """Return the inches below the last panel: more where tokens stand upright."""
    tokens = None if attribution is None else token_labels(attribution, sample)
    return BOTTOM if tokens is None else 0.25 + LETTER * max(len(token) for token in tokens)


def token_labels(attribution: Attribution, sample: int) -> list[str] | None:
    """Return the valid tokens of a sample as labels; None where their texts are not known."""
    words = attribution.diagnostic("token")
    if words is None:
        return None
    shown = [str(word) for word in words[sample][: length_of(attribution, sample)]]
    return [plain(shortened(word, LONGEST_TOKEN)) for word in shown]


def _strongest_apart(weights: NDArray[Any], most: int) -> list[int]:
    """Return up to `most` timesteps, the strongest first that are far enough from each other to be labelled."""
    distance = max(1, -(-len(weights) // max(1, most)))
    found: list[int] = []
    for step in np.argsort(-weights, kind="stable"):
        if all(abs(int(step) - other) >= distance for other in found):
            found.append(int(step))
    return sorted(found)


def unit_label(attribution: Attribution) -> str:
    """Return the unit of what is explained."""
    if attribution.attrs["output"] == "probability":
        return "probability" if in_percent(attribution) else "summed probability"
    return plain(str(attribution.attrs["output_unit"])) or "score"


def row_labels(axes: Axes, names: Sequence[str], theme: Theme, *, left: float, lines: int = 1) -> None:
    """Name the rows 0, 1, ... from the top in the margin of `left` inches."""
    letters = int((left - 0.15) / LETTER)
    axes.set_yticks(range(len(names)), [fitted(name, letters, lines) for name in names])
    axes.tick_params(axis="y", labelcolor=theme.ink)


def fitted(text: str, letters: int, lines: int = 1) -> str:
    """Return text on lines of so many letters; what they do not hold is left out in the middle."""
    wrapped = textwrap.wrap(text, letters) or [""]
    if len(wrapped) > lines:
        room = letters if lines == 1 else lines * letters - 6  # words do not fill their lines
        wrapped = [shortened(text, room)] if lines == 1 else textwrap.wrap(shortened(text, room), letters)[:lines]
    return plain("\n".join(wrapped))


def shortened(text: str, letters: int) -> str:
    """Return text of at most so many letters; names often differ at their end, so the middle is left out."""
    if len(text) <= letters:
        return text
    tail = (letters - 1) // 2
    return f"{text[: letters - 1 - tail].rstrip()}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :].lstrip()}"


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is (a dollar sign would start a formula)."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return shown.replace("$", r"\$")
