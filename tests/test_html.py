"""Small pieces of HTML are safe and well-formed."""

import pytest

from gatelens.reports.html import details, escape, page, share_bar, table


def test_escape() -> None:
    """Nothing in a text can open a tag, close an attribute or begin an entity."""
    assert escape('<a href="x">&\'') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;"


def test_table_escapes_heads_and_cells() -> None:
    """Heads and cells are text."""
    html = table(("<i>",), [("<b>",)])
    assert "<i>" not in html
    assert "&lt;b&gt;" in html


def test_details_escapes_its_title() -> None:
    """The title is text."""
    assert "<summary>&lt;</summary>" in details("<", "")


@pytest.mark.parametrize(("share", "width"), [(0.25, "25.0"), (2.0, "100.0"), (-1.0, "0.0")])
def test_share_bar(share: float, width: str) -> None:
    """A bar is as long as its share, within its track."""
    assert f'width="{width}"' in share_bar(share)


def test_page_keeps_dollar_signs() -> None:
    """Text with template signs stays as it is."""
    assert "$body ${title}" in page("a", "$body ${title}", "1")
