"""What a reader explores, in a real browser: panels, cursor, table, choices, address, theme, print, access."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import DeepLIFT, explain, explain_over_time
from gatelens.models import load, memory_flow, read_csv
from gatelens.models.trace import to_numpy
from gatelens.reports import Report
from gatelens.reports.wording import effect, number
from helpers.browser import opened

pytestmark = pytest.mark.browser

CURSOR = "document.querySelector('.cursor').getBoundingClientRect().x"
FRAMES = """Bokeh.index.roots.filter(v => v.model.renderers && v.el.offsetParent).map(v => {
  const outer = v.el.getBoundingClientRect(), box = v.frame_view.bbox;
  return [v.model.name, outer.x + box.left, outer.x + box.right];
})"""


def settled(page: Any) -> None:
    """Wait until what was chosen has been drawn, and the address written."""
    page.wait_for_timeout(350)


def press(page: Any, key: str) -> None:
    page.locator("#step").press(key)
    settled(page)


@pytest.mark.parametrize("width", [400, 1280])
def test_all_panels_have_one_frame(browser: Any, demo_page: Path, width: int) -> None:
    """Every panel's frame begins and ends at the same pixel, so that one cursor is right in all."""
    page, _, _ = opened(browser, demo_page, viewport={"width": width, "height": 900})
    page.get_by_text("The gates, unit by unit").click()
    settled(page)
    frames = page.evaluate(FRAMES)
    assert {name for name, _, _ in frames} >= {"strip-0", "steps-0", "heat", "flow", "cell_state", "forget_gate"}
    assert len({(round(left, 1), round(right, 1)) for _, left, right in frames}) == 1
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
        np.testing.assert_allclose(shown, to_numpy(getattr(layer, name))[1, :9][:, order], atol=tolerance)
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


@pytest.mark.parametrize("name", ["demo_page", "stepwise_page", "token_page"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, name: str, scheme: str, request: pytest.FixtureRequest) -> None:
    """axe-core finds no violation, and nothing but the page's controls takes the keyboard."""
    page, _, _ = opened(browser, request.getfixturevalue(name), color_scheme=scheme)
    page.get_by_text("The gates, unit by unit").click()
    settled(page)
    found = Axe().run(page)
    assert json.dumps([(one["id"], one["nodes"][0]["html"][:200]) for one in found.response["violations"]]) == "[]"
    inside = """() => { const stops = (one) => (one.tabIndex === 0 ? 1 : 0)
        + [...one.children, ...(one.shadowRoot?.children ?? [])].reduce((all, child) => all + stops(child), 0);
      return Bokeh.index.roots.reduce((all, view) => all + stops(view.el), 0); }"""
    assert page.evaluate(inside) == 0
    page.close()


def test_print_lays_everything_open(browser: Any, stepwise_page: Path) -> None:
    """Before printing all samples and sections are open and light; afterwards the page is as it was."""
    page, _, _ = opened(browser, stepwise_page, color_scheme="dark")
    state = """() => [document.documentElement.dataset.theme || '', document.querySelectorAll('details[open]').length,
      [...document.querySelectorAll('article')].filter(a => !a.hidden).length]"""
    before = page.evaluate(state)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    theme, open_, articles = page.evaluate(state)
    assert (theme, articles) == ("light", 2)
    assert open_ >= 5
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    settled(page)
    assert page.evaluate(state) == before
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
