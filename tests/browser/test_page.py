"""The report in a real browser: clean, offline, readable, and deaf to hostile strings."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import explain
from gatelens.models import DataSpec, FeatureSpec, LSTMConfig, LSTMModel, load, read_csv
from gatelens.reports import Report

pytestmark = pytest.mark.browser

HOSTILE = "</style></title><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium_path() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, headless; where it is missing the tests skip, except in CI, where that is a failure."""
    path = chromium_path()
    if path is None:
        message = "NO CHROMIUM: the report was not opened in a browser. Install it: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one real glucose window."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = explain(
        model,
        data.inputs,
        ["integrated_gradients", "gate_saliency", "lime"],
        baseline="mean",
        output="probability",
        sample_names=data.sample_names,
        times=data.times,
        options={"lime": {"samples": 200}},
    )
    return Report(found, model=model).save(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every name a user controls is an attack."""
    torch.manual_seed(0)
    data = DataSpec(
        features=(FeatureSpec(name=HOSTILE, unit=HOSTILE), FeatureSpec(name="b" + HOSTILE, group=HOSTILE + "g")),
        classes=(HOSTILE, HOSTILE + "2", "third"),
        target=HOSTILE,
        baseline=(0.0, 0.0),
        baseline_description=HOSTILE,
        provenance={"data": HOSTILE, "metrics": {HOSTILE: {"accuracy": 0.5, HOSTILE: 1.0}}},
    )
    config = LSTMConfig(input_size=2, hidden_sizes=(4,), output_size=3, task="multiclass")
    model = LSTMModel(config, data)
    found = explain(
        model, torch.randn(2, 5, 2), ["integrated_gradients", "gate_saliency"], baseline="mean",
        sample_names=[HOSTILE, HOSTILE + "s"],
    )  # fmt: skip
    report = Report(found, model=model, title=HOSTILE, command=HOSTILE)
    return report.save(tmp_path_factory.mktemp("hostile") / "report.html")


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """Open a page and return it with its console messages and its requests."""
    page = browser.new_page(**options)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    return page, messages, [url for url in requests if not url.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_page_is_clean_and_offline(browser: Any, demo_page: Path, scheme: str, width: int) -> None:
    """No console message, no request but the file itself, no sideways scrolling, all pictures drawn."""
    page, messages, requests = opened(browser, demo_page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert messages == []
    assert requests == [demo_page.as_uri()]
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    drawn = page.evaluate(
        "[...document.images].filter(i => i.checkVisibility()).map(i => i.complete && i.naturalWidth)"
    )
    assert len(drawn) >= 4
    assert all(drawn)
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
    assert page.locator("script").count() == 0
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
