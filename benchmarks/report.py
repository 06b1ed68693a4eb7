"""What the page costs: its size, the seconds to build it beyond the explanations, and how fast it is in a browser.

`python benchmarks/report.py` builds pages of a typical model (100 timesteps, two layers of 64 units) and a large one
(1,000 timesteps, two layers of 256), opens each several times in headless Chromium, and prints medians: the first paint
with the words on it, when all panels are ready, and how long a frame takes after the cursor was moved (95th percentile
of moves over one panel, and by key), beside a frame in which nothing happens. The last row is the global page of 1,000
samples in four groups. Without Chromium the last columns are empty.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gatelens.explainers import explain
from gatelens.models import LSTMConfig, LSTMModel
from gatelens.reports import GlobalReport, Report

ROOT = Path(__file__).resolve().parents[1]
FEATURES = 8
CASES = {"typical": (100, 64), "large": (1000, 256)}
GLOBAL = "global"
SAMPLES = 1000
METHODS = ("deeplift", "integrated_gradients", "gate_saliency", "input_x_gradient")
RUNS = 5
MOVES = 120
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

# Moves the cursor and waits until the frame is done: the time between is what a person waits for.
MOVE = """async ([moves, still]) => {
  const host = document.querySelector('[data-panel="heat"] .plot');
  host.scrollIntoView({ block: "center" });
  await new Promise((done) => setTimeout(done, 300));
  const box = host.getBoundingClientRect();
  const slider = document.querySelector("#step");
  const spent = [];
  for (let move = 0; move < moves; move++) {
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    if (still) {
      // nothing: the time of a frame itself
    } else if (move % 2) {
      slider.value = (move * 7) % Number(slider.max);
      slider.dispatchEvent(new Event("input"));
    } else {
      const clientX = box.left + 90 + ((move * 37) % (box.width - 110));
      host.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX, clientY: box.top + 10 }));
    }
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    spent.push(performance.now() - start);
  }
  return spent.sort((one, two) => one - two)[Math.floor(0.95 * spent.length)];
}"""


def main() -> None:
    """Print the table."""
    if len(sys.argv) == 3:  # in a process of its own, which has not imported Bokeh yet
        print(build(sys.argv[1], Path(sys.argv[2])))
        return
    table = Table(
        "page",
        "MB",
        "built, s",
        "first paint, s",
        "ready, s",
        "cursor p95, ms",
        "idle p95, ms",
        box=None,
        pad_edge=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        for case in (*CASES, GLOBAL):
            path = Path(folder) / f"{case}.html"
            command = [sys.executable, __file__, case, str(path)]
            runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]  # noqa: S603
            built = statistics.median(float(run.stdout) for run in runs)
            table.add_row(case, f"{path.stat().st_size / 1e6:.2f}", f"{built:.2f}", *opened(path))
    Console(width=110).print(table)
    print(f"{len(METHODS)} explainers, {FEATURES} features, 2 layers; torch {torch.__version__}, {platform.machine()}")


def build(case: str, path: Path) -> float:
    """Write the page of a case; return the seconds that took beyond the explanations."""
    torch.manual_seed(0)
    if case == GLOBAL:
        return build_global(path)
    steps, units = CASES[case]
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(units, units))).eval()
    inputs = torch.randn(1, steps, FEATURES).cumsum(dim=1) / 5  # smooth, as data are
    options = {"integrated_gradients": {"steps": 16}}
    found = explain(model, inputs, list(METHODS), options=options)
    start = time.perf_counter()
    Report(found, model=model).save(path)
    return time.perf_counter() - start


def build_global(path: Path) -> float:
    """Write the global page; return the seconds that took beyond the explanations."""
    model = LSTMModel(LSTMConfig(input_size=16, hidden_sizes=(64,))).eval()
    inputs = torch.randn(SAMPLES, 100, 16).cumsum(dim=1) / 5
    found = explain(model, inputs, ["deeplift"])["deeplift"]
    truth = found.prediction + torch.randn(SAMPLES).numpy()
    groups = [f"group {number % 4}" for number in range(SAMPLES)]
    start = time.perf_counter()
    GlobalReport(found, model=model, truth=truth, groups=groups).save(path)
    return time.perf_counter() - start


def opened(path: Path) -> list[str]:
    """Return first paint, ready, and the frame with and without a moved cursor, as text; "" for what there is not."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        return ["", "", "", ""]
    from playwright.sync_api import sync_playwright

    painted, ready, moved, idle = [], [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        for _ in range(RUNS):
            page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_load_state("load")
            if page.locator("#step").count():
                page.wait_for_selector("html.ready", state="attached", timeout=60_000)
                ready.append(page.evaluate("performance.getEntriesByName('gatelens:ready')[0].startTime"))
                moved.append(page.evaluate(MOVE, [MOVES, False]))
                idle.append(page.evaluate(MOVE, [MOVES, True]))
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
            painted.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            page.close()
        browser.close()
    seconds = [f"{statistics.median(part) / 1000:.2f}" if part else "" for part in (painted, ready)]
    return [*seconds, *(f"{statistics.median(part):.0f}" if part else "" for part in (moved, idle))]


if __name__ == "__main__":
    main()
