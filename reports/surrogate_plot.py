"""The picture of a surrogate tree: its questions as an outline, and beside each place what the model says there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..models.surrogate import Node, SurrogateTree
from .palette import LIGHT, Theme
from .plot_parts import LETTER, LINE, add_axes, fitted, new_figure, title_lines, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INDENT = 0.18  # inches a question deeper
ROW_GAP = 0.12  # inches
MOST_LINES = 3
MARGIN = 0.15  # inches
SHADES = ("accent", "rule", "ink", "muted")  # of answers; no signs here, so not the signed colours


def plot_surrogate(surrogate: SurrogateTree, *, theme: Theme = LIGHT) -> Figure:
    """Draw a surrogate tree with its fidelity in the title.

    Each row is a condition, one level further in than what it stands under; a row without rows under it ends in the
    tree's answer. The bar beside it shows what the model says of the sequences that come there: the share of each
    answer (of more than four answers, that of the tree's own), or of a regression the mean score on one axis, with that
    of all sequences as a line.

    Args:
        surrogate: The tree.
        theme: Colours and width.
    """
    rows = _outline(surrogate)
    across = theme.width - 2 * MARGIN
    bars = 0.3 * across
    texts = across - bars - 0.15
    written = [_text(node, texts - INDENT * max(0, node.depth - 1)) for node in rows]
    heights = [LINE * (text.count("\n") + 1) + ROW_GAP for text in written]
    title = f"A surrogate tree that {surrogate.fidelity}"
    top = 0.3 + LINE * (len(title_lines(title, across)) + (1 if surrogate.answers else 0))
    bottom = 0.6
    figure = new_figure(theme.width, sum(heights) + top + bottom, theme)
    whole = add_axes(figure, MARGIN, bottom, texts, sum(heights), theme)
    axes = add_axes(figure, MARGIN + texts + 0.15, bottom, bars, sum(heights), theme)
    below = np.cumsum(heights)  # where each row ends, in inches from the top
    for panel in (whole, axes):
        panel.set_ylim(float(below[-1]), 0)
    _write(whole, rows, written, heights, texts, theme)
    middles = [float(end - height / 2) for end, height in zip(below, heights, strict=True)]
    if surrogate.answers:
        _shares(axes, surrogate, rows, middles, theme)
        _name_shades(figure, axes, surrogate, theme)
    else:
        _values(axes, surrogate, rows, middles, theme)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    figure.text(
        MARGIN / theme.width, 1 - 0.12 / figure.get_size_inches()[1], "\n".join(title_lines(title, across)),
        fontsize=10, color=theme.ink, va="top",
    )  # fmt: skip
    return figure


def _outline(surrogate: SurrogateTree) -> list[Node]:
    """Return the nodes in the order they are written: all but the root, which asks, unless it is all there is."""
    return list(surrogate.nodes[1:]) or list(surrogate.nodes)


def _text(node: Node, across: float) -> str:
    letters = max(12, int(across / LETTER))
    text = node.condition or "all sequences"
    if node.statistic is None:
        text += f" \N{RIGHTWARDS ARROW} {node.answer}"
    return fitted(text, letters, MOST_LINES)


def _write(
    axes: Axes, rows: list[Node], written: list[str], heights: list[float], across: float, theme: Theme
) -> None:  # fmt: skip
    axes.set_xlim(0, across)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    y = 0.0
    ends: dict[int, float] = {}
    for node, text, height in zip(rows, written, heights, strict=True):
        x = INDENT * max(0, node.depth - 1)
        leaf = node.statistic is None
        axes.text(
            x, y + height / 2, text, fontsize=9, va="center", color=theme.ink if leaf else theme.muted,
            fontweight="bold" if leaf else "normal",
        )  # fmt: skip
        parent = node.parent
        if parent in ends:  # a line down from the condition this one stands under
            left = x - INDENT / 2
            axes.plot([left, left], [ends[parent], y + height / 2], color=theme.rule, linewidth=1)
            axes.plot([left, x - 0.03], [y + height / 2] * 2, color=theme.rule, linewidth=1)
        ends[node.number] = y + height - ROW_GAP / 2
        y += height


def _shades(surrogate: SurrogateTree, theme: Theme) -> dict[str, str]:
    """Return what the parts of a bar are called, with their colours."""
    few = len(surrogate.answers) <= len(SHADES)
    names = surrogate.answers if few else ("the tree's answer", "another")
    return {name: getattr(theme, shade) for name, shade in zip(names, SHADES, strict=False)}


def _shares(axes: Axes, surrogate: SurrogateTree, rows: list[Node], middles: list[float], theme: Theme) -> None:
    """Draw the share of each answer as a stacked bar, with the number of sequences beside it."""
    shades = list(_shades(surrogate, theme).values())
    for node, y in zip(rows, middles, strict=True):
        own = max(node.shares)
        start = 0.0
        for share, shade in zip(
            node.shares if len(node.shares) == len(shades) else (own, 1 - own), shades, strict=True
        ):
            leaf = node.statistic is None
            axes.barh(y, share, left=start, height=0.14, color=shade, alpha=1.0 if leaf else 0.45)
            start += share
        axes.text(1.03, y, f"{node.count}", fontsize=8, va="center", color=theme.muted)
    letters = max(len(str(node.count)) for node in rows)
    axes.set_xlim(0, 1.05 / (1 - 0.9 * LETTER * letters / width_of(axes)))  # room for the numbers
    axes.set_xticks([0, 0.5, 1], ["0 %", "", "100 %"])
    axes.set_xlabel("what the model says", loc="left")


def _name_shades(figure: Figure, axes: Axes, surrogate: SurrogateTree, theme: Theme) -> None:
    """Write what the colours of the bars are, above them."""
    from matplotlib.patches import Patch

    shades = _shades(surrogate, theme)
    letters = max(6, int(0.8 * theme.width / LETTER / len(shades)) - 4)
    figure.legend(
        handles=[Patch(color=shade, label=fitted(name, letters)) for name, shade in shades.items()],
        loc="upper right", bbox_to_anchor=(1.0, axes.get_position().y1 + 0.28 / figure.get_size_inches()[1]),
        ncols=len(shades), frameon=False, fontsize=8, labelcolor=theme.ink, handlelength=0.9, columnspacing=0.9,
        borderaxespad=0.1,
    )  # fmt: skip


def _values(axes: Axes, surrogate: SurrogateTree, rows: list[Node], middles: list[float], theme: Theme) -> None:
    """Draw the mean score of each place as a dot on one axis, with the mean of all as a line."""
    root = surrogate.nodes[0]
    axes.axvline(root.value, color=theme.rule, linewidth=1)
    for node, y in zip(rows, middles, strict=True):
        leaf = node.statistic is None
        axes.plot([root.value, node.value], [y, y], color=theme.rule, linewidth=1)
        axes.plot(
            [node.value], [y], marker="o", markersize=6 if leaf else 4, color=theme.accent if leaf else theme.muted
        )  # fmt: skip
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=3)
    label = f"mean {'probability' if surrogate.fidelity.numbers == 'probabilities' else 'score'} of the model" + (
        f", {surrogate.unit}" if surrogate.unit else ""
    )
    axes.set_xlabel(fitted(label, int(width_of(axes) / LETTER), 2))
