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


def test_text_cannot_turn_what_follows() -> None:
    """Overrides of the direction of writing are shown as unknown letters; Hebrew and Arabic are not touched."""
    unknown = "\N{REPLACEMENT CHARACTER}"
    assert escape("a\N{RIGHT-TO-LEFT OVERRIDE}b\N{FIRST STRONG ISOLATE}") == f"a{unknown}b{unknown}"
    assert escape("\N{HEBREW LETTER ALEF}\N{RIGHT-TO-LEFT MARK}") == "\N{HEBREW LETTER ALEF}\N{RIGHT-TO-LEFT MARK}"


def test_tables_are_reached_by_keyboard() -> None:
    """A table can be scrolled by keys, has a name, and no header without words."""
    html = table(("", "a"), [("b", "c")], caption="<Scores>")
    assert '<div class="scroll" tabindex="0" role="group" aria-label="&lt;Scores&gt;">' in html
    assert html.count("<th") == 2  # thead, and one header
    assert 'aria-label="Table"' in table((), [])


def test_bars_have_colours_without_the_page() -> None:
    """In a notebook, without the page's style, a bar is neither black nor a screen wide."""
    for kind in ("raises", "lowers", "value"):
        html = share_bar(0.5, kind)
        assert 'width="100" height="10"' in html.split(">")[0]
        assert html.count("fill=") == 2
    assert share_bar(0.5, "raises") != share_bar(0.5, "lowers").replace("lowers", "raises")


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
