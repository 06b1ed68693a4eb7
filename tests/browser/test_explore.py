"""What a reader explores, in a real browser: panels, cursor, table, choices, address, theme, print, access."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from axe_playwright_python.sync_playwright import Axe

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import Attribution, DeepLIFT, explain, explain_over_time
from gatelens.models import DataSpec, InvalidInputError, LSTMConfig, LSTMModel, load, memory_flow, read_csv
from gatelens.models.trace import to_numpy
from gatelens.reports import Report
from gatelens.reports.palette import DARK, LIGHT
from gatelens.reports.wording import effect, number
from helpers.browser import opened
from helpers.made import made_attribution

pytestmark = pytest.mark.browser

CURSOR = "document.querySelector('.cursor').getBoundingClientRect().x"
FRAMES = """Bokeh.index.roots.filter(v => v.model.renderers && v.el.checkVisibility()).map(v => {
  const outer = v.el.getBoundingClientRect(), box = v.frame_view.bbox;
  return [v.model.name, outer.x + box.left, outer.x + box.right];
})"""


DRAWN = """Bokeh.index.roots.filter(v => v.model.renderers).map(v => {
  const canvas = v.canvas_view.primary.el, colours = new Set();
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] == 255) colours.add(data.slice(at, at + 3).join());
  return [v.model.name, canvas.width, [...colours], v.canvas_view.overlays.el.checkVisibility()];
})"""
ROWS = "[...document.querySelectorAll('#sheet-features tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
OPEN = "document.querySelectorAll('details').forEach(one => { one.open = true; })"


def settled(page: Any) -> None:
    """Wait until what was chosen has been drawn, and the address written."""
    page.wait_for_timeout(350)


def press(page: Any, key: str) -> None:
    page.locator("#step").press(key)
    settled(page)


@pytest.mark.parametrize("name", ["demo_page", "large_page"])
@pytest.mark.parametrize("width", [400, 1280])
def test_all_panels_have_one_frame(browser: Any, name: str, width: int, request: pytest.FixtureRequest) -> None:
    """Every panel's frame begins and ends at the same pixel, however wide the numbers beside it are."""
    page, _, _ = opened(browser, request.getfixturevalue(name), viewport={"width": width, "height": 900})
    page.evaluate(OPEN)
    settled(page)
    frames = page.evaluate(FRAMES)
    expected = {"strip-0", "steps-0", "heat"} | (
        {"flow", "cell_state", "forget_gate"} if name == "demo_page" else set()
    )
    assert {name for name, _, _ in frames} >= expected
    assert len({(round(left, 1), round(right, 1)) for _, left, right in frames}) == 1
    beside = "[...document.querySelectorAll('.rows span')].map(one => one.getBoundingClientRect().right)"
    assert max(page.evaluate(beside)) < frames[0][1]
    numbers = "[...document.querySelectorAll('.line .rows span, .bars .rows span')]"
    assert (
        page.evaluate(f"{numbers}.filter(one => one.scrollWidth > one.offsetWidth).map(one => one.textContent)") == []
    )
    page.close()


def test_keyboard_moves_the_cursor_and_speaks(browser: Any, demo_page: Path) -> None:
    """Arrow keys, Home and End move the cursor to the pixel of the timestep, and the slider speaks the effect there."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = DeepLIFT(model, baseline="mean", output="probability").explain(data)
    page, messages, _ = opened(browser, demo_page)
    _, left, right = page.evaluate(FRAMES)[0]
    for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 23), ("ArrowLeft", 22)):
        press(page, key)
        assert page.evaluate(CURSOR) == pytest.approx(left + (step + 0.5) / 24 * (right - left), abs=1.5)
        spoken = page.locator("#step").get_attribute("aria-valuetext")
        words = effect(float(found.timesteps[0, step]), found)
        assert f"timestep {step + 1}: {words} (DeepLIFT)" in spoken
        assert page.locator("#readout").inner_text() in spoken
        assert page.evaluate("location.hash") == f"#t={step + 1}"
    assert messages == []
    page.close()


def test_the_sheet_holds_the_numbers_of_the_timestep(browser: Any, demo_page: Path) -> None:
    """Values, effects, gates and memory flow beside the cursor are those of the data, the trace and the attribution."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = explain(model, data, ["deeplift", "gate_saliency"], baseline="mean", output="probability")["deeplift"]
    trace = model.trace(data.inputs, data.lengths)
    page, _, _ = opened(browser, demo_page, fragment="#t=21")
    rows = page.evaluate(
        "[...document.querySelectorAll('#sheet-features tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    by_name = {row[0].split(" (")[0]: row for row in rows}
    glucose = found.feature_names.index("glucose")
    raw = float(found.inputs[0, 20, glucose]) * model.data.scale[glucose] + model.data.center[glucose]
    assert by_name["glucose"][1:] == [number(raw, digits=4), effect(float(found.values[0, 20, glucose]), found)]
    assert by_name["all"][2] == effect(float(found.timesteps[0, 20]), found)
    layer, flow = trace["lstm.0"], memory_flow(trace)["lstm.0"].flow
    units = page.evaluate(
        "[...document.querySelectorAll('#sheet-units tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert len(units) == 8
    for name, *cells in units:
        unit = int(name.removeprefix("#"))
        parts = (layer.input_gate, layer.forget_gate, layer.candidate, layer.output_gate, layer.cell_state, flow)
        assert cells == [number(float(to_numpy(part)[0, 20, unit])) for part in parts]
    page.close()


def test_pointer_zoom_and_links(browser: Any, demo_page: Path) -> None:
    """The cursor follows the pointer over any panel; zooming one zooms all, and the cursor stays on its timestep."""
    page, messages, _ = opened(browser, demo_page, viewport={"width": 1280, "height": 1000})
    page.locator('[data-panel="flow"]').scroll_into_view_if_needed()
    box = page.locator('[data-panel="flow"] .plot').bounding_box()
    _, left, right = page.evaluate(FRAMES)[0]
    page.mouse.move(left + (7 + 0.5) / 24 * (right - left), box["y"] + 40)
    settled(page)
    assert page.locator("#step").input_value() == "7"
    page.get_by_label("Zoom in").click()
    settled(page)
    ranges = page.evaluate(
        "Bokeh.index.roots.filter(v => v.model.renderers).map(v => [v.model.x_range.start, v.model.x_range.end])"
    )
    assert len({tuple(part) for part in ranges}) == 1
    start, end = ranges[0]
    assert end - start == pytest.approx(12)
    assert page.evaluate(CURSOR) == pytest.approx(left + (7 - start) / (end - start) * (right - left), abs=1.5)
    image = page.evaluate("Bokeh.documents[0].get_model_by_name('flow.data').data")
    assert image["dw"][0] <= 14
    press(page, "End")
    _, end = page.evaluate(
        "[Bokeh.documents[0].get_model_by_name('time').start, Bokeh.documents[0].get_model_by_name('time').end]"
    )
    assert end >= 23
    page.get_by_text("Whole", exact=True).click()
    settled(page)
    assert page.evaluate("Bokeh.documents[0].get_model_by_name('time').end") == 23.5
    assert messages == []
    page.close()


def test_tables_equal_the_data(browser: Any, stepwise_page: Path, stepwise: Any) -> None:
    """Opened as tables, the pictures' numbers are the attribution's, exact, and the trace's to the levels of 8 bits."""
    model, inputs, lengths = stepwise
    found = DeepLIFT(model).explain(inputs, lengths=lengths)
    trace = model.trace(inputs, lengths)
    page, messages, _ = opened(browser, stepwise_page, fragment="#sample=2&t=3")
    page.get_by_text("The gates, unit by unit").click()
    for name in ("heat", "steps", "forget_gate", "cell_state"):
        page.locator(f'[data-table="{name}"] > summary').click()
    settled(page)

    def table(name: str) -> list[list[str]]:
        return page.evaluate(
            f"[...document.querySelectorAll('[data-table=\"{name}\"] tr')].map(r => [...r.cells].map(c => c.innerText))"
        )

    heat = table("heat")
    assert heat[0] == ["Timestep", "north", "east", "up"]
    assert [row[1:] for row in heat[1:]] == [
        [number(float(v), digits=4, signed=True) for v in row] for row in found.values[1, :9]
    ]
    steps = table("steps")
    assert [row[1] for row in steps[1:]] == [number(float(v), digits=4, signed=True) for v in found.timesteps[1, :9]]
    layer = trace["lstm.1.reverse"]  # the last is shown first
    for name, tolerance in (("forget_gate", 0.003), ("cell_state", 0.005 * float(layer.cell_state[1].abs().max()))):
        head, *rows = table(name)
        order = [int(unit.removeprefix("#")) for unit in head[1:]]
        assert sorted(order) == list(range(6))
        shown = np.array([[float(cell.replace("\N{MINUS SIGN}", "-")) for cell in row[1:]] for row in rows])
        expected = to_numpy(getattr(layer, name))[1, :9][:, order]
        np.testing.assert_allclose(shown, 1 - expected if name == "forget_gate" else expected, atol=tolerance)
    assert messages == []
    page.close()


def test_layers_units_and_samples_are_chosen(browser: Any, stepwise_page: Path) -> None:
    """The reader chooses layer and direction, all units, and the sample, whose own words then stand alone."""
    page, messages, _ = opened(browser, stepwise_page)
    assert page.locator("#layer option").all_inner_texts() == ["1", "1, backwards", "2 (top)", "2 (top), backwards"]
    page.locator("#layer").select_option(label="1")
    settled(page)
    assert "The 32 strongest of 40 units of layer 1 " in page.locator("#units-told").inner_text()
    page.locator("#units").select_option("all")
    settled(page)
    assert page.locator("#units-told").inner_text().startswith("All 40 units of layer 1,")
    assert page.locator("article").evaluate_all("all => all.map(one => one.checkVisibility())") == [True, False]
    page.locator("#sample").select_option("1")
    settled(page)
    assert page.locator("article").evaluate_all("all => all.map(one => one.checkVisibility())") == [False, True]
    assert page.evaluate("location.hash").startswith("#sample=2&t=")
    assert page.locator("#step").get_attribute("max") == "8"
    page.locator("nav a").first.click()
    settled(page)
    assert page.locator("#sample").input_value() == "0"
    assert messages == []
    page.close()


def test_the_output_timestep_is_picked(browser: Any, stepwise_page: Path, stepwise: Any) -> None:
    """Moving the output's slider shows that output's attribution, in the map, the table and the readout."""
    model, inputs, lengths = stepwise
    over = explain_over_time(DeepLIFT(model), inputs, lengths=lengths)
    page, messages, _ = opened(browser, stepwise_page, fragment="#t=3")
    page.locator("#output-step").press("Home")
    for _ in range(4):
        page.locator("#output-step").press("ArrowRight")
    settled(page)
    assert page.locator("#output-step-text").inner_text() == (
        f"output at timestep 5: {number(float(over['prediction'][0, 4]), digits=4)}"
    )
    assert page.locator("#explainer").input_value() == "over_time"
    value = number(float(over["attribution"][0, 4, 2].sum()), signed=True)
    assert page.locator("#readout").inner_text() == f"timestep 3: {value}"
    assert messages == []
    page.close()


def test_tokens(browser: Any, token_page: Path) -> None:
    """Tokens stand on the page as text; choosing one moves the cursor; there are no panels of input numbers."""
    page, messages, _ = opened(browser, token_page)
    page.locator('[data-step="0"]').click()
    settled(page)
    assert "<b>very</b>" in page.locator("#readout").inner_text()
    assert page.locator('[data-panel="strip-0"]').count() == 0
    assert page.locator('[data-panel="steps-0"]').is_visible()
    assert messages == []
    page.close()


def test_the_theme_can_be_switched(browser: Any, demo_page: Path) -> None:
    """The button turns the whole page, panels included, whatever the system says."""
    page, messages, _ = opened(browser, demo_page, color_scheme="dark")
    colours = """[getComputedStyle(document.body).backgroundColor,
      Bokeh.documents[0].get_model_by_name('steps-0').renderers.find(
        r => r.name == 'fill:raises').glyph.fill_color.value]"""
    dark = page.evaluate(colours)
    page.get_by_role("button", name="Light").click()
    settled(page)
    light = page.evaluate(colours)
    assert dark == ["rgb(23, 25, 29)", "#f59b66"]
    assert light == ["rgb(251, 250, 247)", "#a8431c"]
    assert messages == []
    page.close()


@pytest.mark.parametrize("system", ["dark", "light"])
def test_pictures_turn_with_the_theme(browser: Any, tmp_path: Path, system: str) -> None:
    """The curves of the training have the ink of the theme that holds: the system's, the reader's, on paper light."""
    model = LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"training": {"loss": [0.9, 0.5, 0.4]}}))
    path = Report(explain(model, torch.zeros(1, 4, 1), ["input_x_gradient"]), model=model).save(
        tmp_path / "report.html"
    )
    page, messages, _ = opened(browser, path, color_scheme=system)
    page.evaluate(OPEN)
    shown = "atob(document.querySelector('figure picture img').currentSrc.split(',')[1]).toLowerCase()"

    def theme() -> str:
        settled(page)
        drawing = page.evaluate(shown)
        inks = [name for name, ink in (("light", LIGHT.ink), ("dark", DARK.ink)) if ink.lower() in drawing]
        assert len(inks) == 1
        return inks[0]

    other = "light" if system == "dark" else "dark"
    assert theme() == system
    page.get_by_role("button", name=other.capitalize()).click()
    assert theme() == other
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert theme() == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert theme() == other
    assert messages == []
    page.close()


@pytest.mark.parametrize("name", ["demo_page", "stepwise_page", "token_page", "hostile_page", "untimed_page"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, name: str, scheme: str, request: pytest.FixtureRequest) -> None:
    """axe-core finds no violation with all sections open, and nothing but the page's controls takes the keyboard."""
    width = 400 if scheme == "dark" else 1280
    page, _, _ = opened(
        browser, request.getfixturevalue(name), color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    page.evaluate(OPEN)
    settled(page)
    found = Axe().run(page)
    assert json.dumps([(one["id"], one["nodes"][0]["html"][:200]) for one in found.response["violations"]]) == "[]"
    inside = """() => { const stops = (one) => (one.tabIndex === 0 ? 1 : 0)
        + [...one.children, ...(one.shadowRoot?.children ?? [])].reduce((all, child) => all + stops(child), 0);
      return Bokeh.index.roots.reduce((all, view) => all + stops(view.el), 0); }"""
    assert page.evaluate(inside) == 0
    page.close()


def test_print_lays_everything_open(browser: Any, stepwise_page: Path) -> None:
    """Before printing all samples and sections are open, light and drawn; afterwards the page is as it was."""
    page, _, _ = opened(browser, stepwise_page, color_scheme="dark")
    state = """() => [document.documentElement.dataset.theme || '', document.querySelectorAll('details[open]').length,
      [...document.querySelectorAll('article')].filter(a => !a.hidden).length]"""
    before = page.evaluate(state)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    theme, open_, articles = page.evaluate(state)
    assert (theme, articles) == ("light", 2)
    assert open_ >= 5
    assert page.locator(".printed").text_content() == "The panels show sample 0."
    drawn = {name: rest for name, *rest in page.evaluate(DRAWN)}  # at once: a printer waits for nothing
    assert {(width, overlay) for width, _, overlay in drawn.values()} == {(640, False)}
    assert {"168,67,28", "43,91,148"} <= set(drawn["steps-0"][1])
    assert any(min(map(int, colour.split(","))) > 240 for colour in drawn["heat"][1])  # paper
    assert all(not {"245,155,102", "125,180,240", "23,25,29"} & set(colours) for _, colours, _ in drawn.values())
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    settled(page)
    assert page.evaluate(state) == before
    colours = {name: rest for name, *rest in page.evaluate(DRAWN)}["steps-0"]
    assert "245,155,102" in colours[1]
    assert colours[2]
    assert page.pdf().startswith(b"%PDF")
    page.close()


def test_redacted_pages_hold_no_inputs(browser: Any, tmp_path: Path) -> None:
    """On a redacted page there is neither a panel nor a number of the inputs, also not in what the script reads."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = explain(model, data, ["deeplift"], baseline="mean", sample_names=["patient Ann"])
    path = Report(found, model=model, redact=True).save(tmp_path / "redacted.html")
    page, messages, _ = opened(browser, path)
    assert page.locator('[data-panel="strip-0"]').count() == 0
    pack = page.evaluate(
        """async () => { const sample = new gatelens.Sample(await gatelens.inflate(
             document.querySelector('[data-sample]').textContent));
             return [Object.keys(sample.arrays), JSON.stringify(sample.labels), sample.name, sample.tokens]; }"""
    )
    assert not {"inputs", "baseline"} & set(pack[0])
    assert "18:03" not in pack[1]
    assert pack[2:] == ["sample 1", None]
    assert "patient Ann" not in page.content()
    assert messages == []
    page.close()


def test_words_are_painted_before_the_panels_are_ready(browser: Any, demo_page: Path) -> None:
    """The first paint, with the words on it, comes before the library is even inflated."""
    page = browser.new_page()
    page.goto(demo_page.as_uri(), wait_until="commit")
    page.wait_for_selector("html.ready", state="attached", timeout=20_000)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < page.evaluate("performance.getEntriesByName('gatelens:library')[0].startTime")
    page.close()


def test_methods_that_do_not_tell_timesteps_apart_have_no_effect_at_one(
    browser: Any, untimed_page: Path, untimed: dict[str, Any]
) -> None:
    """What a feature did over the whole sequence is told as that, nowhere as a timestep's share of it."""
    found = untimed["temporal_shapley"]
    page, messages, _ = opened(browser, untimed_page, fragment="#t=3")
    assert page.locator("#explainer").input_value() == "0"
    assert page.locator("#readout").inner_text() == "timestep 3"
    assert page.locator("#step").get_attribute("aria-valuetext") == "timestep 3"
    assert page.locator("#sheet-features thead th").last.inner_text() == "Effect of the whole sequence"
    rows = page.evaluate(ROWS)
    totals = found.values[0].sum(axis=0, dtype=np.float64)
    assert {row[0]: row[2] for row in rows} == {
        **{name: effect(float(total), found) for name, total in zip(found.feature_names, totals, strict=True)},
        "all": effect(float(totals.sum()), found),
    }
    page.locator('[data-table="heat"] > summary').click()
    settled(page)
    assert page.locator('[data-table="heat"] tbody th').all_inner_texts() == ["whole sequence"]
    assert "over the whole sequence" in page.locator('[data-panel="heat"] .title').inner_text()
    assert page.locator('[data-panel="steps-0"]').count() == 0
    assert page.locator(".span").count() == 0
    assert not page.locator(".shaded").is_visible()
    page.locator("#explainer").select_option("1")
    settled(page)
    assert page.locator("#readout").inner_text().startswith("timestep 3: ")
    assert page.locator("#sheet-features thead th").last.inner_text() == "Effect"
    assert messages == []
    page.close()


def test_the_inputs_have_an_axis_and_a_table_of_all(browser: Any, demo_page: Path) -> None:
    """Below the last curve stands the time, and a table of every feature, also of those that are not drawn."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    page, _, _ = opened(browser, demo_page)
    drawn = page.locator('[data-panel^="strip-"]')
    assert drawn.count() == 2
    assert "time of day is not drawn" in page.locator(".panels .quiet").first.inner_text()
    assert page.evaluate("Bokeh.documents[0].get_model_by_name('strip-1.x').visible")
    drawn.last.locator("summary").click()
    settled(page)
    head = drawn.last.locator("thead th").all_inner_texts()
    assert [name.split(" (mg")[0] for name in head[1:]] == list(model.data.feature_names)
    column = drawn.last.locator("tbody tr td:nth-child(2)").all_inner_texts()
    raw = data.inputs[0, :, 0] * model.data.scale[0] + model.data.center[0]
    assert column == [number(float(value), digits=4) for value in raw]
    page.close()


def test_numbers_are_written_as_in_the_words(browser: Any, demo_page: Path) -> None:
    """The script and the words write every number alike, middles, bounds and all sizes included."""
    draws = np.random.default_rng(0)
    values = [0.0, 100.5, 101.5, 0.125, 12.25, 12.75, 2.5, 0.5, 999.5, 99.95, 9.995, 1e-4, 99999e-9, 1e9, 999_999_999.5]
    values += list((draws.normal(size=500) * 10.0 ** draws.integers(-12, 12, 500)).astype(np.float32).astype(float))
    values += list(draws.integers(0, 4000, 500) / 8)
    values += [-value for value in values]
    page, _, _ = opened(browser, demo_page)
    for digits in (1, 2, 3, 4):
        told = page.evaluate(
            "([v, digits]) => v.map(one => gatelens.number(one, { digits, signed: true }))", [values, digits]
        )
        assert told == [number(value, digits=digits, signed=True) for value in values]
    points = made_attribution([[1.0]], output="probability", task="binary")
    told = page.evaluate("v => v.map(one => gatelens.effect(one, { percent: true }))", values)
    assert told == [effect(value, points) for value in values]
    page.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_labels_of_the_time_stand_apart(browser: Any, large_page: Path, width: int) -> None:
    """Dates below the panels neither run into each other nor out of the panel."""
    page, _, _ = opened(browser, large_page, viewport={"width": width, "height": 900})
    for zoom in (0, 1, 3):
        for _ in range(zoom):
            page.get_by_label("Zoom in").click()
        settled(page)
        ticks, start, end, wide = page.evaluate(
            """() => { const pen = document.createElement('canvas').getContext('2d');
            pen.font = '12px system-ui, sans-serif';
            const found = (name) => Bokeh.documents[0].get_model_by_name(name);
            return [found('heat.x').ticker.ticks, found('time').start, found('time').end,
                    pen.measureText('2024-05-01 06:00').width]; }"""
        )
        _, left, right = page.evaluate(FRAMES)[0]
        places = [left + (tick - start) / (end - start) * (right - left) for tick in ticks]
        assert places
        assert all(two - one > wide + 4 for one, two in pairwise(places))
        assert places[-1] + wide / 2 <= right + 20 or len(places) == 1
    page.close()


def test_dots_only_where_they_stand_apart(browser: Any, large_page: Path) -> None:
    """Each reading is a dot on its line, unless there are so many that they would run into each other."""
    for width, expected in ((1280, 4), (400, 0)):
        page, _, _ = opened(browser, large_page, viewport={"width": width, "height": 900})
        settled(page)
        sizes = page.evaluate(
            """Bokeh.index.roots.flatMap(view => view.model.renderers ?? []).filter(
                 one => one.name?.endsWith(':dots')).map(one => one.glyph.size.value)"""
        )
        assert sizes == [expected] * 3
        page.close()


def test_names_that_begin_alike_are_told_apart(browser: Any, tmp_path: Path) -> None:
    """Beside a map, long names that differ at their end are shortened in the middle; the whole name is the title."""
    names = [f"heart rate of the patient, lead {number}" for number in range(4)] + ["weight in kilograms"]
    values = np.random.default_rng(0).normal(size=(10, 5))
    path = Report(made_attribution(values, features=tuple(names))).save(tmp_path / "report.html")
    page, messages, requests = opened(browser, path)
    settled(page)
    labels = page.locator('[data-panel="heat"] .rows span')
    shown = labels.all_inner_texts()
    assert len(set(shown)) == 5
    assert [text[-1] for text in shown[:4]] == list("0123")
    assert shown[4] == "weight in k\u2026"
    assert labels.evaluate_all("spans => spans.map(span => span.title)") == names
    assert (messages, requests) == ([], [path.as_uri()])
    page.close()


def test_long_and_turning_words(browser: Any, words_page: Path) -> None:
    """No token makes the page wider than the screen, turns what stands after it around, or is invisible."""
    page, messages, requests = opened(browser, words_page, viewport={"width": 400, "height": 900})
    page.evaluate(OPEN)
    settled(page)
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('.tokens span')].every(s => s.getBoundingClientRect().width > 5)"
    )
    page.locator("#step").press("Home")
    for _ in range(3):
        page.locator("#step").press("ArrowRight")
    settled(page)
    assert "\N{REPLACEMENT CHARACTER}evil" in page.locator("#readout").inner_text()
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page.content()
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page.locator("main").inner_text()
    assert page.locator(".tokens sup").count() < page.locator(".tokens span").count() / 2
    assert (messages, requests) == ([], [words_page.as_uri()])
    page.close()


def test_only_choices_are_offered(browser: Any, demo_page: Path, words_page: Path) -> None:
    """Where there is one sample, explainer, layer, or no more units than are shown, nothing is asked."""
    for path, expected in ((demo_page, ["explainer"]), (words_page, [])):
        page, messages, _ = opened(browser, path)
        assert page.evaluate("[...document.querySelectorAll('.controls select')].map(one => one.id)") == expected
        assert messages == []
        page.close()


def test_the_pointer_reads_a_map(browser: Any, demo_page: Path) -> None:
    """Over a map the readout also tells the row and its value there; the keyboard's way tells the timestep alone."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = DeepLIFT(model, baseline="mean", output="probability").explain(data)
    page, _, _ = opened(browser, demo_page, viewport={"width": 1280, "height": 1000})
    page.locator('[data-panel="heat"]').scroll_into_view_if_needed()
    box = page.locator('[data-panel="heat"] .plot').bounding_box()
    _, left, right = page.evaluate(FRAMES)[0]
    page.mouse.move(left + 20.5 / 24 * (right - left), box["y"] + 4 + 33)  # the second of four rows, 22 px each
    settled(page)
    told = page.locator("#readout").inner_text()
    assert told.endswith(f" · {found.feature_names[1]} {effect(float(found.values[0, 20, 1]), found)}")
    assert page.locator("#readout").get_attribute("aria-live") == "off"
    press(page, "ArrowLeft")
    assert found.feature_names[1] not in page.locator("#readout").inner_text()
    page.locator("#explainer").select_option("1")
    settled(page)
    assert page.locator("#readout").get_attribute("aria-live") == "polite"
    page.close()


def test_panning(browser: Any, demo_page: Path) -> None:
    """Zoomed in, buttons and a sideways wheel move along the time, and stop at its ends."""
    page, messages, _ = opened(browser, demo_page, viewport={"width": 1280, "height": 1000})
    time = "[Bokeh.documents[0].get_model_by_name('time').start, Bokeh.documents[0].get_model_by_name('time').end]"
    page.get_by_label("Zoom in").click()
    start, end = page.evaluate(time)
    page.get_by_label("Earlier").click()
    settled(page)
    assert page.evaluate(time) == [start - (end - start) / 2, end - (end - start) / 2]
    for _ in range(3):
        page.get_by_label("Earlier").click()
    settled(page)
    assert page.evaluate(time) == [-0.5, -0.5 + end - start]
    assert not page.locator(".cursor").is_visible()  # its timestep is out of sight
    page.locator('[data-panel="heat"] .plot').hover()
    page.mouse.wheel(60, 0)
    settled(page)
    assert page.evaluate(time)[0] > -0.5
    press(page, "End")
    assert page.locator(".cursor").is_visible()
    assert messages == []
    page.close()


@pytest.mark.parametrize(
    "fragment", ["#t=-1", "#sample=99&t=1000000000", "#t=1e9", "#sample=2.5", "#<script>", "#%E0%A4%A", "#sample=-5&t="]
)
def test_nonsense_in_the_address(browser: Any, stepwise_page: Path, fragment: str) -> None:
    """Whatever the address says, one sample is shown, at a timestep that it has."""
    page, messages, _ = opened(browser, stepwise_page, fragment=fragment)
    settled(page)
    assert page.locator("article").evaluate_all("all => all.filter(one => one.checkVisibility()).length") == 1
    assert page.evaluate("location.hash") == ("#sample=2&t=9" if "99" in fragment else "#sample=1&t=12")
    assert messages == []
    page.close()


def test_the_cursor_stays_true(browser: Any, stepwise_page: Path) -> None:
    """After another sample, theme, width or an opened section the cursor is at its timestep's pixel in all panels."""
    page, messages, _ = opened(browser, stepwise_page, fragment="#sample=1&t=4")
    acts = [
        lambda: page.get_by_label("Zoom in").click(),
        lambda: page.locator("#theme").click(),
        lambda: page.set_viewport_size({"width": 400, "height": 800}),
        lambda: page.get_by_text("The gates, unit by unit").click(),
        lambda: page.locator("#sample").select_option("1"),
        lambda: page.set_viewport_size({"width": 1600, "height": 800}),
    ]
    for act in acts:
        act()
        settled(page)
        start, end = page.evaluate("['start', 'end'].map(one => Bokeh.documents[0].get_model_by_name('time')[one])")
        for _, left, right in page.evaluate(FRAMES):
            assert page.evaluate(CURSOR) == pytest.approx(left + (3 - start) / (end - start) * (right - left), abs=1.5)
    assert messages == []
    page.close()


def test_the_last_line_stays_in_view_on_narrow_screens(browser: Any, demo_page: Path) -> None:
    """Scrolled down to the maps at 400 px, one line with the numbers at the cursor stays, and hides no words above."""
    page, _, _ = opened(browser, demo_page, viewport={"width": 400, "height": 800})
    page.locator('[data-panel="cell_state"]').scroll_into_view_if_needed()
    settled(page)
    box = page.locator("#readout").bounding_box()
    assert box["y"] == pytest.approx(0, abs=3)
    assert box["height"] < 40
    assert page.locator("#step").bounding_box()["y"] < 0
    page.get_by_text("How this page was made").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    settled(page)
    assert page.locator("#readout").bounding_box()["y"] < 0
    page.close()


def test_targets_are_large_enough(browser: Any, stepwise_page: Path) -> None:
    """Whatever can be pressed is at least 24 px wide and high."""
    page, _, _ = opened(browser, stepwise_page, viewport={"width": 400, "height": 800})
    sizes = page.evaluate(
        """[...document.querySelectorAll('a, button, select, input, summary')].filter(one => one.checkVisibility()).map(
             one => [one.outerHTML.slice(0, 60), one.offsetWidth, one.offsetHeight])"""
    )
    assert len(sizes) > 15
    assert [one for one in sizes if min(one[1:]) < 24] == []
    page.close()


def test_without_memory_flow_the_page_lives(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stepwise: Any
) -> None:
    """Where memory flow cannot be had, its panels are not there, the page says why, and all else is."""
    model, inputs, lengths = stepwise

    def refused(trace: Any) -> Any:
        raise InvalidInputError("no forget gate")

    monkeypatch.setattr("gatelens.reports.report.memory_flow", refused)
    path = Report(DeepLIFT(model).explain(inputs, lengths=lengths), model=model).save(tmp_path / "report.html")
    page, messages, _ = opened(browser, path)
    assert not page.locator('[data-panel="flow"]').is_visible()
    assert not page.locator('[data-panel="flow_sum"]').is_visible()
    assert page.locator('[data-panel="cell_state"]').is_visible()
    assert "Memory flow is not shown: no forget gate" in page.locator("main").inner_text()
    assert messages == []
    page.close()


def test_samples_begin_with_their_own_explainer(browser: Any, tmp_path: Path) -> None:
    """Each sample shows the explainer that gave its reasons, until the reader chooses one for all."""
    good, bad = np.ones((2, 4, 2)), np.ones((2, 4, 2))
    good[1] *= 3  # of the second sample
    bad[0] *= 3
    made = {}
    for name, values in (("deeplift", good), ("lrp", bad)):
        one = made_attribution(np.ones((4, 2)), method=name).to_xarray()
        two = xr.concat(
            [one.assign_coords(sample=["a"]), one.assign_coords(sample=["b"])], "sample", data_vars="minimal"
        )
        two["attribution"] = two["attribution"].copy(data=values)
        two["completeness_gap"] = two["prediction"] - two["attribution"].sum(("time", "feature"))
        made[name] = Attribution(two.assign_attrs(one.attrs))
    path = Report(made).save(tmp_path / "report.html")
    page, _, _ = opened(browser, path)
    chosen = []
    for sample in ("0", "1"):
        page.locator("#sample").select_option(sample)
        settled(page)
        chosen.append(page.locator("#explainer option:checked").inner_text())
    assert chosen == ["DeepLIFT", "LRP"]
    page.locator("#explainer").select_option("1")
    page.locator("#sample").select_option("0")
    settled(page)
    assert page.locator("#explainer option:checked").inner_text() == "LRP"
    page.close()
