"""How each explainer's time and memory grow with timesteps, features, units and samples.

`python benchmarks/growth.py` explains with every method while one of T, D, H and B doubles twice and the others stay,
fits the exponent of the seconds (least squares in logarithms), and writes its part of `docs/benchmarks.md` and
`docs/growth.png`. Memory is the peak above what was there before, from the kernel's own count, which Linux can reset.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import machine, section
from parts import write_part

from gatelens.explainers import get
from gatelens.models import LSTMConfig, LSTMModel
from gatelens.reports.palette import LIGHT
from gatelens.reports.plot_parts import add_axes, name_lines, new_figure, titled

DOCS = Path(__file__).resolve().parents[1] / "docs"
BASE = {"T": 200, "D": 8, "H": 64, "B": 8}
STEPS = (1, 2, 4)
RUNS = 3
METHODS: dict[str, dict[str, Any]] = {
    "deeplift": {}, "lrp": {}, "cell_decomposition": {}, "contextual_decomposition": {}, "gate_saliency": {},
    "saliency": {}, "input_x_gradient": {}, "smooth_grad": {}, "integrated_gradients": {"steps": 32},
    "gradient_shap": {"samples": 50}, "occlusion": {}, "temporal_shapley": {"evaluations": 512},
    "kernel_shap": {"samples": 512}, "lime": {"samples": 512},
}  # fmt: skip
NAMES = {"T": "timesteps", "D": "features", "H": "units", "B": "samples"}
MIB = 2**20


def main(*, quick: bool = False) -> None:
    """Measure, print and write."""
    methods = dict(list(METHODS.items())[:2]) if quick else METHODS
    found = {
        (method, letter): [measured(method, options, {**BASE, letter: BASE[letter] * step}) for step in STEPS]
        for method, options in methods.items()
        for letter in BASE
    }
    rows = [["explainer", *(f"{letter}: s, MiB at {BASE[letter] * 4}, exponent" for letter in BASE)]]
    for method in methods:
        cells = []
        for letter in BASE:
            points = found[method, letter]
            cells.append(f"{points[-1][0]:.3f}, {points[-1][1]:.0f}, {exponent(points):.2f}")
        rows.append([method, *cells])
    sizes = ", ".join(f"{letter} = {size} {NAMES[letter]}" for letter, size in BASE.items())
    text = (
        f"One LSTM layer; {sizes}, of which one doubles twice. Seconds are medians of 3 runs after a first one; the "
        "exponent is that of the seconds: 1 is in proportion, 0 no growth, and small ones are mostly overhead. "
        f"{machine()}"
    )
    lines = section("How time and memory grow", text, rows)
    lines += ["![Seconds of each explainer by timesteps, features, units and samples](growth.png)", ""]
    if not quick:
        write_part(DOCS / "benchmarks.md", "growth.py", lines)
        draw(found, list(methods))


def measured(method: str, options: dict[str, Any], sizes: dict[str, int]) -> tuple[float, float]:
    """Return the median seconds and the peak MiB of one explanation."""
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=sizes["D"], hidden_sizes=(sizes["H"],))).eval()
    inputs = torch.randn(sizes["B"], sizes["T"], sizes["D"])
    explainer = get(method)(model, **options)
    explainer.explain(inputs)
    spent = []
    for _ in range(RUNS):
        start = time.perf_counter()
        explainer.explain(inputs)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent), peak(lambda: explainer.explain(inputs))


def peak(run: Callable[[], object]) -> float:
    """Return how many MiB above what it held before the process came while running."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():  # only Linux counts so
        run()
        return float("nan")
    clear.write_text("5", encoding="ascii")
    before = _memory("VmRSS")
    run()
    return max(0.0, _memory("VmHWM") - before)


def _memory(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / MIB


def exponent(points: list[tuple[float, float]]) -> float:
    """Return the slope of log seconds over log size."""
    slope, _ = np.polyfit(np.log(STEPS), np.log([seconds for seconds, _ in points]), 1)
    return float(slope)


def draw(found: dict[tuple[str, str], list[tuple[float, float]]], methods: list[str]) -> None:
    """Draw seconds over each size, one panel a size."""
    width, height, wide = 2.6, 3.2, 1.5
    figure = new_figure(0.7 + len(BASE) * (width + wide), height + 1.0, LIGHT)
    for place, letter in enumerate(BASE):
        axes = add_axes(figure, 0.6 + place * (width + wide), 0.6, width, height, LIGHT)
        sizes = [BASE[letter] * step for step in STEPS]
        for method in methods:
            seconds = [point[0] for point in found[method, letter]]
            axes.plot(sizes, seconds, linewidth=1.2, color=LIGHT.accent if method == "deeplift" else LIGHT.muted)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel(NAMES[letter])
        titled(axes, "seconds" if place == 0 else "", LIGHT)
        name_lines(axes, [(found[method, letter][-1][0], method.replace("_", " ")) for method in methods], LIGHT)
    figure.savefig(DOCS / "growth.png", dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
