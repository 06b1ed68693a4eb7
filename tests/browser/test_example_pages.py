"""The pages that the example scripts write open clean in a real browser; models and data are reduced.

What the pages say is tested beside the scripts (test_stories.py, test_tutorials_*.py, test_group_effect.py).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from gatelens.examples import explain_language, explain_stocks, explain_weather, language, stocks, weather
from gatelens.examples.stocks import Part
from helpers.browser import opened

pytestmark = pytest.mark.browser
TUTORIALS: dict[str, dict[str, Any]] = {
    "classify_from_csv": {"epochs": 1, "stride": 72},
    "each_timestep": {"epochs": 1, "count": 100},
    "forecast": {"epochs": 1},
    "group_effect": {"epochs": 1, "count": 300},
    "redacted_report": {},
    "ten_classes": {"epochs": 1, "most": 200},
    "three_ways": {"epochs": 6, "stride": 40, "compared": 2},
}
REPORTS = [
    "stocks.html",
    "digits.html",
    "glucose_forecast.html",
    "language-names.html",
    "weather-day.html",
    "classify_from_csv/report.html",
    "each_timestep/report.html",
    "forecast/report.html",
    "redacted_report/redacted.html",
    "ten_classes/lstm.html",
    "ten_classes/cnn.html",
    "three_ways/attention.html",
    "three_ways/retain.html",
]
SUMMARIES = ["language.html", "weather.html", "group_effect/no-groups.html", "group_effect/planted.html"]
CHECKED_BY_AXE = ["group_effect/planted.html", "language-names.html"]


def fewer(split: Callable[[], Any], keep: Callable[[Any], Any]) -> Any:
    """Return prepared data whose test part is a part of it."""
    data = split()
    return replace(data, test=data.test.take(keep(data.test)))


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Return where a page lies; the script that writes it runs when the first of its pages is asked for."""
    folder = tmp_path_factory.mktemp("examples")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def written(name: str) -> Path:
        path = folder / name
        if not path.exists():
            script = re.split("[/.-]", name, maxsplit=1)[0]
            with contextlib.redirect_stdout(io.StringIO()):
                if script in TUTORIALS:
                    importlib.import_module(f"gatelens.examples.{script}").main(folder / script, **TUTORIALS[script])
                else:
                    importlib.import_module(f"gatelens.examples.explain_{script}").main(folder / f"{script}.html")
        return path

    with pytest.MonkeyPatch.context() as patch:
        first = partial(fewer, language.split, lambda part: [
            row for row, name in enumerate(language.texts(part)) if row < 150 or name in explain_language.NAMES
        ])  # fmt: skip
        third = partial(fewer, weather.split, lambda part: np.flatnonzero(
            (weather.dates(part) - explain_weather.DAY).astype(int) % 4 == 0
        ))  # fmt: skip

        def late() -> dict[str, Part]:
            whole = stocks.split()["test"]
            kept = np.array([name == explain_stocks.SAMPLE for name in whole.data.sample_names])
            kept[::9] = True
            return {"test": Part(whole.data.take(kept), whole.volatile[kept], whole.up[kept], whole.tickers[kept])}

        patch.setattr(explain_language, "split", first)
        patch.setattr(explain_weather, "split", third)
        patch.setattr(explain_stocks, "split", late)
        yield written
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [*REPORTS, *SUMMARIES])
def test_page_of_an_example_is_clean(browser: Any, page_of: Callable[[str], Path], name: str) -> None:
    """On a narrow screen: no console message, no request but the file, no sideways scroll, every picture drawn."""
    path = page_of(name)
    ready = "body" if name in SUMMARIES else "html.ready"
    page, messages, requests = opened(browser, path, ready=ready, viewport={"width": 400, "height": 900})
    assert messages == []
    assert requests == [path.as_uri()]
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(
        "[...document.images].filter(i => i.checkVisibility()).every(i => i.complete && i.naturalWidth)"
    )
    assert page.locator("h1").first.inner_text()
    page.close()


@pytest.mark.parametrize("name", CHECKED_BY_AXE)
def test_axe_finds_nothing_on_examples(browser: Any, page_of: Callable[[str], Path], name: str) -> None:
    """axe-core finds no violation with all sections open."""
    ready = "body" if name in SUMMARIES else "html.ready"
    page, _, _ = opened(browser, page_of(name), ready=ready, viewport={"width": 1280, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.wait_for_timeout(300)
    found = Axe().run(page)
    assert json.dumps([(one["id"], one["nodes"][0]["html"][:200]) for one in found.response["violations"]]) == "[]"
    page.close()
