"""The page about predictions in a real browser: clean, offline, readable, and deaf to hostile strings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.browser import HOSTILE, opened

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_page_is_clean_and_offline(browser: Any, demo_page: Path, scheme: str, width: int) -> None:
    """No console message, no request but the file itself, no sideways scrolling, all panels drawn."""
    page, messages, requests = opened(browser, demo_page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert messages == []
    assert requests == [demo_page.as_uri()]
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    drawn = page.evaluate(
        "Bokeh.index.roots.filter(v => v.model.renderers && v.el.offsetParent).map(v => v.bbox.width)"
    )
    assert len(drawn) >= 10
    assert min(drawn) > 300
    page.close()


def test_first_screen_tells_what_why_and_how_sure(browser: Any, demo_page: Path) -> None:
    """Within the first 900 pixels stand the prediction, a reason with its size, and the checks."""
    page, _, _ = opened(browser, demo_page, viewport={"width": 1200, "height": 900})
    for selector in ("h1", ".reasons .size", ".checks strong"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] < 900
    assert "fall" in page.locator("h1").inner_text()
    assert page.locator(".checks strong").first.inner_text() in ("Checks passed.", "Read with care.")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, demo_page: Path, scheme: str) -> None:
    """Each colour of text has a contrast of at least 4.5 with the paper (WCAG AA), in light and dark."""
    page, _, _ = opened(browser, demo_page, color_scheme=scheme)
    colours = page.evaluate(
        """() => {
          const of = (selector) => [...document.querySelectorAll(selector)].map(e => getComputedStyle(e).color);
          return {paper: getComputedStyle(document.body).backgroundColor,
                  box: getComputedStyle(document.querySelector('.checks')).backgroundColor,
                  texts: [...new Set(of('h1, p, td, th, li, summary, figcaption, a, strong'))]};
        }"""
    )
    assert len(colours["texts"]) >= 3
    for text in colours["texts"]:
        for ground in (colours["paper"], colours["box"]):
            assert contrast(rgb(text), rgb(ground)) >= 4.5, (text, ground)
    page.close()


def rgb(text: str) -> list[float]:
    return [float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def contrast(one: list[float], two: list[float]) -> float:
    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_measured_right() -> None:
    """Black on white is 21, equal colours are 1."""
    assert contrast([0, 0, 0], [1, 1, 1]) == pytest.approx(21)
    assert contrast([0.3, 0.3, 0.3], [0.3, 0.3, 0.3]) == 1


def test_hostile_strings_stay_text(browser: Any, hostile_page: Path) -> None:
    """Names, units, classes, titles and provenance that are HTML are shown as they are, and nothing runs."""
    page, messages, requests = opened(browser, hostile_page)
    assert messages == []
    assert requests == [hostile_page.as_uri()]
    assert page.title() == HOSTILE
    assert page.locator("script:not([type]):not([src])").count() == 2  # the page's own, and the library it starts
    assert page.locator("img[src=x]").count() == 0
    assert HOSTILE in page.locator("h1").first.inner_text()
    page.close()


def test_policy_stops_what_might_slip_in(browser: Any, demo_page: Path, tmp_path: Path) -> None:
    """Even a script and an outside picture written into the file do nothing: the policy forbids both."""
    broken = tmp_path / "broken.html"
    attack = "<script>document.title='broken'</script><img src='http://127.0.0.1:9/x.png'>"
    broken.write_text(demo_page.read_text(encoding="utf-8").replace("<main>", "<main>" + attack), encoding="utf-8")
    page, messages, _ = opened(browser, broken)
    assert page.title() != "broken"
    refused = [message for message in messages if "Content Security Policy" in message]
    assert any("script" in message for message in refused)
    assert any("image" in message and "127.0.0.1" in message for message in refused)
    page.close()


def test_without_scripts_words_and_tables_stand_alone(browser: Any, stepwise_page: Path) -> None:
    """Without JavaScript there are all samples' words and tables, named, and nothing that does nothing."""
    page = browser.new_page(java_script_enabled=False)
    page.goto(stepwise_page.as_uri())
    assert page.locator("h1").count() == 2
    for part in (".controls", ".explored", ".unpainted"):
        assert not page.locator(part).first.is_visible()
    assert page.locator("noscript").is_visible()
    titles = [text for text in page.locator("summary").all_inner_texts() if text.startswith("Every timestep")]
    assert titles == ["Every timestep as a table, sample 0", "Every timestep as a table, sample 1"]
    page.get_by_text(titles[1]).click()
    assert page.locator("details[open] tbody tr").count() == 9
    page.close()


def test_an_old_browser_is_told(browser: Any, stepwise_page: Path) -> None:
    """Where the panels cannot be started the page says so, and keeps the words and tables of all samples."""
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(stepwise_page.as_uri())
    page.locator(".unpainted").wait_for(state="visible")
    assert page.locator("article").evaluate_all("all => all.every(one => one.checkVisibility())")
    assert not page.locator(".controls").is_visible()
    page.close()


def test_paper_is_light(browser: Any, demo_page: Path) -> None:
    """On paper the colours are those of the light theme, whatever the system, or the reader's choice, says."""
    page, _, _ = opened(browser, demo_page, color_scheme="dark")
    ink = "getComputedStyle(document.body).color"
    assert page.evaluate(ink) == "rgb(236, 234, 228)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ink) == "rgb(29, 32, 36)"
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate(ink) == "rgb(29, 32, 36)"
    page.close()
