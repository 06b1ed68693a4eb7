"""Shapley values over time beside shap: exact ones in seconds and memory, estimates in error for what they cost.

`python benchmarks/shapley.py` trains small models, then prints tables; with --draw it also draws the estimates' errors
against their seconds into docs/shapley-estimates.png. Exact: `TemporalShapley` beside
`shap.ExactExplainer` on the same model, 16 timesteps and 20; shap hands all 65,536 masked copies over at once, and the
second column of its seconds is with the model called on 4,096 at a time, which is the fastest. Estimates: relative L2
error and seconds of every estimator, the peers' with the same batched model, for 16 timesteps against exact values and
for 50 against a converged reference (least squares from 60,000 coalitions), and how long each takes to come within
10 % (between two numbers of evaluations, interpolated on logarithmic scales).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pages import Row, section
from torch import Tensor

from gatelens.explainers import TemporalShapley
from gatelens.models import LSTMConfig, LSTMModel

ROOT = Path(__file__).resolve().parents[1]
FEATURES, HIDDEN, LAYERS = 8, 64, (1, 2)
SAMPLES = 8
RUNS = 5  # of exact values, of which the fastest counts
ENOUGH_SECONDS = 0.2  # of runs of each estimate
EVALUATIONS = (64, 128, 256, 512, 1024, 2048, 4096)
REFERENCE = 60_000
GOOD = 0.10

Game = Callable[[NDArray[Any]], NDArray[Any]]
# Values (T,) of one sequence (1, T, D) from so many evaluations.
Estimator = Callable[[LSTMModel, Tensor, int], NDArray[Any]]


WHAT_EXACT = (
    f"D = {FEATURES}, H = {HIDDEN}, 1 thread, the best of {RUNS} runs. shap hands all 65,536 masked copies over at "
    "once; in the second column of its seconds the model takes 4,096 at a time, which is the fastest. Copies repeat "
    "what prefixes share: 16 timesteps of one layer ask 18 times as many multiplications of them, which bounds the "
    "ratio of two programs that both multiply as fast as the machine can."
)
WHAT_ESTIMATES = (
    f"Relative L2 error of Shapley values over {{}} timesteps, means over {SAMPLES} sequences; 1 thread, peers with "
    f"the same model in batches. Then the seconds until the error is {GOOD:.0%} (interpolated between two numbers of "
    "evaluations), and how many times those of gatelens that is."
)


def sections(picture: Path | None = None) -> list[str]:
    """Return the page's lines, and print them; draw the estimates into `picture`."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # numpy's linear algebra, too, for all alike
            warm_up()
            lines = section("Exact Shapley values", WHAT_EXACT, exact_table())
            measured = {(steps, layers): estimates(steps, layers) for steps in (16, 50) for layers in LAYERS}
    finally:
        torch.set_num_threads(before)
    for steps in (16, 50):
        title = f"Estimates of Shapley values, {steps} timesteps"
        lines += section(title, WHAT_ESTIMATES.format(steps), estimates_table(steps, measured))
    if picture is not None:
        draw(measured, picture)
        lines += [f"![Error against seconds of all estimators]({picture.name})", ""]
    return lines


def trained(steps: int, layers: int) -> LSTMModel:
    """Return a model trained on sums, products of neighbours and a maximum over time."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(HIDDEN,) * layers))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        inputs = torch.randn(128, steps, FEATURES, generator=generator)
        gated = (inputs[..., 0] * (inputs[..., 1] > 0)).sum(1) + (inputs[:, :-1, 2] * inputs[:, 1:, 2]).sum(1)
        wanted = gated / steps**0.5 + 0.5 * inputs[..., 3].amax(1)
        loss = ((model(inputs)[:, 0] - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def batched(model: LSTMModel, inputs: Tensor, rows: int = 4096) -> Game:
    """Return the game of one sequence (1, T, D) against zeros, the model called on so many rows, for shap."""

    def game(z: NDArray[Any]) -> NDArray[Any]:
        on = torch.as_tensor(np.atleast_2d(np.asarray(z, dtype=bool)))[:, :, None]  # some ask one by one
        with torch.no_grad():
            parts = [model(torch.where(part, inputs, 0.0)) for part in on.split(rows)]
        return torch.cat(parts)[:, 0].double().numpy()

    return game


def warm_up() -> None:
    """Compile kernels and import libraries outside of what is timed."""
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(HIDDEN,))).eval()
    TemporalShapley(model).explain(torch.randn(1, 5, FEATURES))
    TemporalShapley(model, evaluations=100).explain(torch.randn(1, 25, FEATURES))
    exact_by_shap(batched(model, torch.randn(1, 4, FEATURES)), 4)
    for estimator in ESTIMATORS.values():
        estimator(model, torch.randn(1, 16, FEATURES), 64)


def exact_by_shap(game: Game, steps: int) -> NDArray[Any]:
    """Return the values of shap's ExactExplainer, (T,)."""
    import shap

    explainer = shap.ExactExplainer(game, shap.maskers.Independent(np.zeros((1, steps))))
    return np.asarray(explainer(np.ones((1, steps)), max_evals=2**steps, silent=True).values[0])


def kernel_by_shap(game: Game, steps: int, evaluations: int) -> NDArray[Any]:
    """Return the values of shap's KernelExplainer, (T,)."""
    import shap

    np.random.seed(0)  # noqa: NPY002 - what shap draws from
    explainer = shap.KernelExplainer(game, np.zeros((1, steps)))
    values = explainer.shap_values(np.ones((1, steps)), nsamples=evaluations, l1_reg=False, silent=True)
    return np.asarray(values).ravel()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and what came."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def repeated(call: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Return seconds and what came of runs, of which the fastest counts: more of quick ones, soon disturbed."""
    runs = [timed(call)]
    while sum(seconds for seconds, _ in runs) < ENOUGH_SECONDS:
        runs.append(timed(call))
    return runs


def exact_table() -> list[Row]:
    """Measure exact values."""
    table = [
        [
            "", "layers", "gatelens, s", "memory beyond the model, MB", "shap.ExactExplainer, s", "s, in batches",
            "shap / gatelens", "largest difference",
        ]
    ]  # fmt: skip
    for layers in LAYERS:
        for steps in (16, 20):
            model, inputs = trained(16, layers), torch.randn(1, steps, FEATURES)
            runs = [timed(lambda: TemporalShapley(model).explain(inputs)) for _ in range(RUNS)]  # noqa: B023
            ours = min(seconds for seconds, _ in runs)
            row = [f"{steps} timesteps", str(layers), f"{ours:.3f}", f"{memory(steps, layers):.0f}"]
            if steps == 16:
                spent = []
                for rows in (2**16, 4096):
                    theirs = [timed(lambda: exact_by_shap(batched(model, inputs, rows), steps)) for _ in range(RUNS)]  # noqa: B023
                    spent.append(min(seconds for seconds, _ in theirs))
                off = np.abs(runs[0][1].timesteps[0] - theirs[0][1]).max() / np.abs(theirs[0][1]).max()
                ratios = " / ".join(f"{seconds / ours:.0f}" for seconds in spent)
                row += [*(f"{seconds:.2f}" for seconds in spent), ratios, f"{off:.1e}"]
            table.append([*row, *[""] * (len(table[0]) - len(row))])
    return table


def by_gatelens(model: LSTMModel, inputs: Tensor, evaluations: int) -> NDArray[Any]:
    """Return the values of `TemporalShapley`."""
    return TemporalShapley(model, evaluations=evaluations).explain(inputs).timesteps[0]


def by_shap(model: LSTMModel, inputs: Tensor, evaluations: int) -> NDArray[Any]:
    """Return the values of shap's KernelExplainer."""
    return kernel_by_shap(batched(model, inputs), inputs.shape[1], evaluations)


def by_shapiq(name: str, **options: Any) -> Estimator:
    """Return an estimator of shapiq."""

    def estimate(model: LSTMModel, inputs: Tensor, evaluations: int) -> NDArray[Any]:
        import shapiq.approximator

        kind = getattr(shapiq.approximator, name)
        found = kind(inputs.shape[1], random_state=0, **options).approximate(evaluations, batched(model, inputs))
        return np.asarray(found.get_n_order_values(1))

    return estimate


ESTIMATORS: dict[str, Estimator] = {
    "gatelens TemporalShapley": by_gatelens,
    "shap KernelExplainer": by_shap,
    "shapiq KernelSHAP, paired": by_shapiq("KernelSHAP", pairing_trick=True),
    "shapiq kADD-SHAP": by_shapiq("kADDSHAP", max_order=2),
    "shapiq permutation": by_shapiq("PermutationSamplingSV"),
    "shapiq SVARM": by_shapiq("SVARM"),
}


def estimates(steps: int, layers: int) -> dict[str, list[tuple[int, float, float]]]:
    """Return (evaluations, error, seconds) of each estimator, means over the samples; nothing where it fails."""
    model = trained(steps, layers)
    inputs = torch.randn(SAMPLES, steps, FEATURES, generator=torch.Generator().manual_seed(3))
    truth = reference(model, inputs)
    measured: dict[str, list[tuple[int, float, float]]] = {name: [] for name in ESTIMATORS}
    for evaluations in EVALUATIONS:
        for name, estimator in ESTIMATORS.items():
            errors, spent = [], []
            for sample, expected in enumerate(truth):
                one = inputs[sample : sample + 1]
                try:
                    runs = repeated(lambda: estimator(model, one, evaluations))  # noqa: B023
                except (ValueError, IndexError, np.linalg.LinAlgError):  # too few evaluations for so many players
                    break
                spent.append(min(seconds for seconds, _ in runs))
                errors.append(error(runs[0][1], expected))
            else:
                measured[name].append((evaluations, statistics.mean(errors), statistics.mean(spent)))
    return measured


def seconds_to(points: list[tuple[int, float, float]], good: float) -> float | None:
    """Return the seconds at which the error is `good`, between two points on logarithmic scales; None: never."""
    previous = None
    for _, wrong, seconds in points:
        if wrong <= good:
            if previous is None:
                return seconds
            share = np.log(previous[0] / good) / np.log(previous[0] / wrong)
            return float(previous[1] * (seconds / previous[1]) ** share)
        previous = (wrong, seconds)
    return None


def estimates_table(steps: int, measured: dict[tuple[int, int], Any]) -> list[Row]:
    """Lay out the estimates of so many timesteps."""
    table = [["", "layers", *(f"{number} evaluations" for number in EVALUATIONS), f"s to {GOOD:.0%}", "x gatelens"]]
    for layers in LAYERS:
        own = seconds_to(measured[steps, layers]["gatelens TemporalShapley"], GOOD)
        for name, points in measured[steps, layers].items():
            errors = {evaluations: wrong for evaluations, wrong, _ in points}
            seconds = seconds_to(points, GOOD)
            table.append([
                name, str(layers), *(f"{errors[number]:.4f}" if number in errors else "-" for number in EVALUATIONS),
                "-" if seconds is None else f"{seconds:.4f}",
                "-" if seconds is None or own is None else f"{seconds / own:.1f}",
            ])  # fmt: skip
    return table


def draw(measured: dict[tuple[int, int], Any], path: Path) -> None:
    """Draw error against seconds of all estimators."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 4.2), sharey=True, layout="constrained")
    for axis, ((steps, layers), found) in zip(axes, measured.items(), strict=True):
        for name, points in found.items():
            if points:
                _, wrong, seconds = zip(*points, strict=True)
                bold = name.startswith("gatelens")
                axis.loglog(seconds, wrong, marker="o" if bold else ".", linewidth=2.5 if bold else 1.2, label=name)
        axis.axhline(GOOD, color="0.6", linewidth=0.8, linestyle="--")
        axis.set(title=f"{steps} timesteps, {layers} layer{'s' if layers > 1 else ''}", xlabel="seconds a sequence")
        axis.grid(which="major", alpha=0.3)
    axes[0].set_ylabel("relative L2 error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def reference(model: LSTMModel, inputs: Tensor) -> NDArray[Any]:
    """Return exact values (B, T), or what least squares finds from many coalitions."""
    exact = inputs.shape[1] <= 20
    explainer = TemporalShapley(model, evaluations=None if exact else REFERENCE, seed=99)
    return explainer.explain(inputs).timesteps


def memory(steps: int, layers: int) -> float:
    """Return by how many MB exact values raise the most that a fresh process has used (on Linux)."""
    code = (
        "import sys, torch; sys.path.insert(0, 'benchmarks'); import shapley; torch.set_num_threads(1)\n"
        "used = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        f"model = shapley.LSTMModel(shapley.LSTMConfig(input_size=8, hidden_sizes=(64,) * {layers})).eval()\n"
        "shapley.TemporalShapley(model).explain(torch.randn(1, 5, 8))\n"
        "open('/proc/self/clear_refs', 'w').write('5'); before = used()\n"  # the peak is counted anew
        f"shapley.TemporalShapley(model).explain(torch.randn(1, {steps}, 8)); print((used() - before) / 1024)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return float(run.stdout)


def error(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the relative L2 error."""
    return float(np.linalg.norm(values - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    sections(ROOT / "docs" / "shapley-estimates.png" if "--draw" in sys.argv else None)
