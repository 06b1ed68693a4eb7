"""The pages about many predictions and about two, in a real browser: clean, offline, and deaf to hostile names."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import DeepLIFT
from gatelens.models import DataSpec, FeatureSpec, LSTMConfig, LSTMModel, load, read_csv
from gatelens.reports import Comparison, GlobalReport
from helpers import browser as in_browser
from helpers.browser import HOSTILE

pytestmark = pytest.mark.browser
opened = partial(in_browser.opened, ready="body")  # these pages have no script


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both kinds of page on the real glucose data, and both with attacks for names."""
    folder = tmp_path_factory.mktemp("pages")
    model = load(model_path())
    data = read_csv(data_path(), model.data, windows="all", stride=400)
    explainer = DeepLIFT(model, baseline="mean", output="probability")
    found = explainer.explain(data, target="rise")
    labels = np.arange(len(found)) % 2
    made = {"many": GlobalReport(found, model=model, groups=labels).save(folder / "many.html")}
    made["two"] = Comparison(found[0], found[5], models=model).save(folder / "two.html")
    torch.manual_seed(0)
    spec = DataSpec(
        features=(FeatureSpec(name=HOSTILE, unit=HOSTILE), FeatureSpec(name="b" + HOSTILE)),
        classes=(HOSTILE, "b", "c"), target=HOSTILE, baseline=(0.0, 0.0), baseline_description=HOSTILE,
    )  # fmt: skip
    attacked = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(4,), output_size=3, task="multiclass"), spec)
    names = [f"{HOSTILE}{place}" for place in range(30)]
    found = DeepLIFT(attacked, baseline="mean").explain(torch.randn(30, 5, 2), target=0, sample_names=names)
    report = GlobalReport(
        found, model=attacked, groups={HOSTILE: [HOSTILE, "b"] * 15}, title=HOSTILE, command=HOSTILE, notes=[HOSTILE]
    )
    made["many attacked"] = report.save(folder / "many_attacked.html")
    comparison = Comparison(found[0], found[1], models=attacked, names=(HOSTILE, "b"), title=HOSTILE, command=HOSTILE)
    made["two attacked"] = comparison.save(folder / "two_attacked.html")
    return made


@pytest.mark.parametrize("name", ["many", "two"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_pages_are_clean_and_offline(browser, pages, name, scheme, width) -> None:
    """No console message, no request but the file itself, no sideways scrolling, all pictures drawn."""
    path = pages[name]
    page, messages, requests = opened(browser, path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert messages == []
    assert requests == [path.as_uri()]
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    drawn = page.evaluate(
        "[...document.images].filter(i => i.checkVisibility()).map(i => i.complete && i.naturalWidth)"
    )
    assert len(drawn) >= 3
    assert all(drawn)
    page.close()


@pytest.mark.parametrize("name", ["many", "two"])
def test_first_screen_tells_what_why_and_how_sure(browser, pages, name) -> None:
    """Within the first 900 pixels stand the sentence, a reason with its size, and the checks."""
    page, _, _ = opened(browser, pages[name], viewport={"width": 1200, "height": 900})
    for selector in ("h1", ".reasons .size", ".checks strong"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] < 900
    assert page.locator("h1").count() == 1
    page.close()


@pytest.mark.parametrize("name", ["many", "two"])
def test_every_picture_has_words_and_a_table(browser, pages, name) -> None:
    """Each picture says what it shows, and the numbers behind it stand in a table that opens."""
    page, _, _ = opened(browser, pages[name])
    assert page.evaluate("[...document.images].every(i => i.alt.length > 10)")
    assert page.locator("details").count() >= 3
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.locator("details table.data").count() >= 3
    page.close()


@pytest.mark.parametrize("name", ["many attacked", "two attacked"])
def test_hostile_strings_stay_text(browser, pages, name) -> None:
    """Names, labels, titles and commands that are HTML are shown as they are, and nothing runs."""
    page, messages, requests = opened(browser, pages[name])
    assert messages == []
    assert requests == [pages[name].as_uri()]
    assert page.title() == HOSTILE
    assert page.locator("script").count() == 0
    assert page.locator("img[src=x]").count() == 0
    assert HOSTILE in page.locator("main").inner_text()
    page.close()
