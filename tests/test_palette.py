"""Colours can be told apart and read."""

import pytest

from gatelens.reports.palette import DARK, LIGHT, Theme


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_text_colours_have_contrast(theme: Theme) -> None:
    """Ink, muted text and both signs have a contrast of at least 4.5 with the paper (WCAG AA)."""
    paper = luminance(theme.paper)
    for colour in (theme.ink, theme.muted, theme.raises, theme.lowers, theme.accent):
        high, low = max(luminance(colour), paper), min(luminance(colour), paper)
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_signed_map_ends_in_the_signs(theme: Theme) -> None:
    """The diverging map runs from lowers over paper to raises."""
    from matplotlib.colors import to_hex

    signed = theme.signed()
    assert to_hex(signed(0.0)) == theme.lowers
    assert to_hex(signed(1.0)) == theme.raises
