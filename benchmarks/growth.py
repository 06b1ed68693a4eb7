"""How each explainer's time and memory grow with timesteps, features, units and samples.

`python benchmarks/growth.py` explains with every method while one of T, D, H and B doubles twice and the others stay,
fits the exponent of the seconds (least squares in logarithms), sets it beside the one that docs/which-explainer.md
promises, and writes its part of `docs/benchmarks.md` and `docs/growth.png`. Memory is the peak above what was there
before, from the kernel's own count, which Linux can reset. `--quick` takes two methods and writes nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import machine, section
from parts import PAGE, write_part
from peaks import raised

from gatelens.explainers import get
from gatelens.models import LSTMConfig, LSTMModel
from gatelens.reports.palette import LIGHT
from gatelens.reports.plot_parts import add_axes, name_lines, new_figure, titled

BASE = {"T": 200, "D": 8, "H": 64, "B": 8}
STEPS = (1, 2, 4)
RUNS = 3  # at least, and for quick ones more
SPENT = 0.3  # seconds, and then no more
SMALLEST = (2, 8, 8, 1)  # T, D, H, B: what is left there is fixed
SEGMENTS = {"players": "segment", "segments": 24}  # timesteps would ask for more coalitions the more there are
METHODS: dict[str, dict[str, Any]] = {
    "deeplift": {}, "lrp": {}, "cell_decomposition": {}, "contextual_decomposition": {}, "gate_saliency": {},
    "saliency": {}, "input_x_gradient": {}, "smooth_grad": {}, "integrated_gradients": {"steps": 32},
    "gradient_shap": {"samples": 50}, "occlusion": {}, "temporal_shapley": {"evaluations": 512, **SEGMENTS},
    "kernel_shap": {"samples": 512, **SEGMENTS}, "lime": {"samples": 512, **SEGMENTS},
}  # fmt: skip
NAMES = {"T": "timesteps", "D": "features", "H": "units", "B": "samples"}
PER_TIMESTEP = ("occlusion", "contextual_decomposition")  # which ask for a pass a timestep; the others for a number
LEAST = (1e-5, 0.5)  # seconds and MiB that a drawing shows instead of less
APART = 0.3  # exponents that differ by more disagree

Point = tuple[float, float]  # seconds, MiB


def main(*, quick: bool = False) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    methods = list(METHODS)[:2] if quick else list(METHODS)
    found = {
        (method, letter): [measured(method, tuple({**BASE, letter: BASE[letter] * step}.values())) for step in STEPS]
        for method in methods
        for letter in BASE
    }
    rows = [["explainer", *(f"{letter} = {BASE[letter] * 4}" for letter in BASE)]]
    rows += [[method, *(told(method, letter, found[method, letter]) for letter in BASE)] for method in methods]
    sizes = ", ".join(f"{letter} = {size} {NAMES[letter]}" for letter, size in BASE.items())
    text = (
        f"One LSTM layer; {sizes}, of which one doubles twice. Seconds are medians of {RUNS} runs after a first one, "
        "and memory is what a further run added at its peak, both at the largest size; then the exponent of the "
        "seconds over three sizes, less those of the smallest problem (2 timesteps, 8 units, one sample), beside the "
        "one promised in [Which explainer when](which-explainer.md#what-they-cost), which counts multiplications "
        "alone. "
        f"temporal_shapley, kernel_shap and lime take 512 coalitions of {SEGMENTS['segments']} segments. "
        f"**Bold**: more than {APART} apart. {machine()}"
    )
    lines = section("How time and memory grow", text, rows)
    lines += [*disagreements(found), "", "![Seconds and memory of each explainer by size](growth.png)", ""]
    print("\n".join(disagreements(found)))
    if not quick:
        write_part(PAGE, "growth.py", lines)
        draw(found, methods, PAGE.parent / "growth.png")


def told(method: str, letter: str, points: list[Point]) -> str:
    """Return the cell of a method and a size."""
    seconds, memory = points[-1]
    promise, slope = promised(method, letter), growing(method, points)
    words = f"promised {promise:.1f}, found {slope:.2f}"
    return f"{seconds:.3f} s, {memory:.0f} MiB; " + (f"**{words}**" if abs(slope - promise) > APART else words)


def promised(method: str, letter: str) -> float:
    """Return the exponent of what the method multiplies: passes, each of B T H (D + H) for all gates of a layer."""
    work = []
    for step in STEPS:
        size = {**BASE, letter: BASE[letter] * step}
        passes = size["T"] if method in PER_TIMESTEP else 1
        work.append(float(passes * size["B"] * size["T"] * size["H"] * (size["D"] + size["H"])))
    return exponent(work)


def disagreements(found: dict[tuple[str, str], list[Point]]) -> list[str]:
    """Return a line that names what grows faster than promised, and one on what grows more slowly."""
    apart: dict[bool, list[str]] = {True: [], False: []}
    for (method, letter), points in found.items():
        excess = growing(method, points) - promised(method, letter)
        if abs(excess) > APART:
            apart[excess > 0].append(f"{method} in {letter} ({excess:+.2f})")
    lines = []
    if apart[True]:
        lines.append(f"- Faster than promised, by more than {APART}: {', '.join(apart[True])}.")
    if apart[False]:
        lines.append(
            f"- {len(apart[False])} exponents are that much lower than promised: overhead is still much of the time, "
            "passes share beginnings, or wide products run faster."
        )
    return lines or [f"All exponents are within {APART} of those promised."]


@cache
def measured(method: str, sizes: tuple[int, int, int, int]) -> Point:
    """Return the median seconds and the peak MiB of one explanation; sizes are T, D, H, B."""
    steps, features, units, batch = sizes
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=features, hidden_sizes=(units,))).eval()
    inputs = torch.randn(batch, steps, features)
    explainer = get(method)(model, **METHODS[method])
    explainer.explain(inputs)
    spent: list[float] = []
    while len(spent) < RUNS or (sum(spent) < SPENT and len(spent) < 5 * RUNS):
        start = time.perf_counter()
        explainer.explain(inputs)
        spent.append(time.perf_counter() - start)
    print(f"{method}, T, D, H, B = {sizes}: {statistics.median(spent):.3f} s", flush=True)
    return statistics.median(spent), raised(lambda: explainer.explain(inputs))


def growing(method: str, points: list[Point]) -> float:
    """Return the exponent of the seconds, without those that the smallest problem takes as well."""
    fixed = measured(method, SMALLEST)[0]
    return exponent([max(seconds - fixed, LEAST[0]) for seconds, _ in points])


def exponent(values: list[float]) -> float:
    """Return the slope of log values over log size."""
    return float(np.polyfit(np.log(STEPS), np.log(values), 1)[0])


def draw(found: dict[tuple[str, str], list[Point]], methods: list[str], path: Path) -> None:
    """Draw seconds, and memory below, over each size: a column a size."""
    width, height, wide, gap = 2.6, 3.2, 1.5, 1.3
    figure = new_figure(0.7 + len(BASE) * (width + wide), 2 * (height + gap) + 0.2, LIGHT)
    for row, what in enumerate(("seconds", "MiB")):
        for place, letter in enumerate(BASE):
            below = 0.6 + (1 - row) * (height + gap)
            axes = add_axes(figure, 0.6 + place * (width + wide), below, width, height, LIGHT)
            sizes = [BASE[letter] * step for step in STEPS]
            ends = []
            for method in methods:  # logarithms on a plain axis, where names keep their distance
                values = [np.log10(max(point[row], LEAST[row])) for point in found[method, letter]]
                axes.plot(sizes, values, linewidth=1.2, color=LIGHT.accent if method == "deeplift" else LIGHT.muted)
                ends.append((values[-1], method.replace("_", " ")))
            axes.set_xscale("log")
            low, high = axes.get_ylim()
            powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
            axes.set_yticks(list(powers), [f"{10.0**power:g}" for power in powers])
            axes.set_ylim(low, high)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set_xlabel(NAMES[letter])
            titled(axes, what if place == 0 else "", LIGHT)
            name_lines(axes, ends, LIGHT)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
