"""gatelens beside captum, shap, lime, shapiq and time-interpret: the same model and inputs, in one run.

`python benchmarks/peers.py` trains an `nn.LSTM` with a linear head (kept in benchmarks/cache/) and explains sequences
of 20, 100 and 500 timesteps, one and 64 at a time. For each explainer: what its attributions miss of
f(x) - f(baseline), their error beside exact Shapley values over 20 timesteps, the evaluations it asked of the model,
the median seconds of runs taken in turn, and by how much it raised the memory of a process of its own. The tables go
into docs/benchmarks.md. `--quick` takes 20 timesteps alone and runs everything once; it writes where `--page` says.

A row whose seconds are expected to be more than `--limit` is not run, and says how many were expected.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import Contender, FailedError, Setting, run, shortened
from ground_truth import demoted, versions
from learning import CACHE
from numpy.typing import NDArray
from pages import Row, section
from parts import PAGE, write_part
from timesteps import BY_TITLE, CONTENDERS
from torch import Tensor, nn

from gatelens.explainers import TemporalShapley
from gatelens.models import LSTMModel, fit, from_torch

FEATURES, HIDDEN = 8, 64
STEPS, BATCHES = (20, 100, 500), (1, 64)
EXACT = 8  # sequences whose exact Shapley values the errors are means over
ROUNDS = 3
EVALUATIONS = 512  # of sampling methods, beside two for each timestep


@dataclass(frozen=True)
class Models:
    """The same model as its peers get it, and as gatelens does: by `from_torch`, as its README says."""

    plain: nn.Module
    adopted: LSTMModel

    def of(self, contender: Contender) -> nn.Module:
        """Return the one that a contender gets."""
        return self.adopted if contender.library == "gatelens" else self.plain


class Plain(nn.Module):
    """What a user brings: an `nn.LSTM` and a linear head, (b, T, D) -> (b, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answer at the end."""
        return self.head(self.lstm(inputs)[0][:, -1])  # type: ignore[no-any-return]


def trained(cache: Path, *, epochs: int = 20) -> Plain:
    """Return the model, which adds up what a switch let through, fading: trained now, or as it was kept."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Plain()
    kept = cache / f"peers-{epochs}.pt"
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model.eval()  # type: ignore[no-any-return]
    inputs = drawn(4000, 20, seed=1)
    level, total = torch.zeros(len(inputs)), torch.zeros(len(inputs))
    for step in inputs.unbind(dim=1):  # (N, D)
        level = torch.where(step[:, 3] > 1, 0.0, level + (step[:, 0] > 0) * step[:, 1])
        total = 0.95 * total + level * step[:, 2].tanh()
    fit(model, (inputs, total / 3), task="regression", epochs=epochs, learning_rate=3e-3, batch_size=64)
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), kept)
    return model.eval()  # type: ignore[no-any-return]


def both(cache: Path) -> Models:
    """Return the trained model, plain and adopted."""
    plain = trained(cache)
    return Models(plain, from_torch(plain, task="regression"))


def drawn(count: int, steps: int, seed: int) -> Tensor:
    """Return (N, T, D)."""
    return torch.randn(count, steps, FEATURES, generator=torch.Generator().manual_seed(seed))


def setting_of(steps: int) -> Setting:
    """Return what sampling methods get for sequences of so many timesteps."""
    return Setting(drawn(200, steps, seed=2).numpy(), evaluations=2 * steps + EVALUATIONS)


def evaluated(contender: Contender, models: Models, inputs: Tensor, setting: Setting) -> tuple[Any, int]:
    """Return the attributions (b, L, D), and how many sequences the model was asked for, forwards or backwards."""
    seen = [0]

    def count(_module: nn.Module, given: tuple[Any, ...], answer: Tensor) -> None:
        seen[0] += len(given[0])
        if answer.requires_grad:
            seen[0] += len(given[0])

    hook = models.plain.register_forward_hook(count)
    setting.counted.clear()
    try:
        values = run(contender, models.of(contender), inputs, setting)
    finally:
        hook.remove()
    return values, setting.counted[0] if setting.counted else seen[0]


def qualities(
    contender: Contender, models: Models, inputs: Tensor, setting: Setting, exact: NDArray[Any] | None
) -> dict[str, Any]:
    """Return the completeness gap, the error beside exact values where there are some, and the evaluations."""
    values, evaluations = evaluated(contender, models, inputs, setting)
    model = models.plain
    with torch.no_grad():
        difference = (model(inputs) - model(torch.zeros_like(inputs)))[:, 0].double().numpy()
    gap = np.abs(difference - values.sum(axis=(1, 2))).max() / np.abs(difference).mean()
    found: dict[str, Any] = {"gap": float(gap), "evaluations": evaluations / len(inputs)}
    if exact is not None:
        steps = values.sum(axis=2)[: len(exact)]
        found["error"] = float(np.mean(np.linalg.norm(steps - exact, axis=1) / np.linalg.norm(exact, axis=1)))
    return found


def timings(
    models: Models, inputs: Tensor, setting: Setting, expected: dict[str, float], limit: float, rounds: int
) -> dict[str, float]:
    """Return contender -> median seconds of runs taken in turn; only of those expected to keep the limit."""
    taken: dict[str, list[float]] = {title: [] for title, seconds in expected.items() if seconds <= limit}
    for number in range(rounds):
        for title, seconds in taken.items():
            if number > 0 and (not seconds or seconds[0] > limit / 4):  # failed, or slow enough to be told by one run
                continue
            begin = time.perf_counter()
            try:
                run(BY_TITLE[title], models.of(BY_TITLE[title]), inputs, setting)
            except FailedError:
                continue
            seconds.append(time.perf_counter() - begin)
    return {title: statistics.median(seconds) for title, seconds in taken.items() if seconds}


def memory(title: str, steps: int, batches: Sequence[int], cache: Path) -> list[str]:
    """Return by how many MB the explanation of each batch raises the peak of a process that explains nothing else."""
    command = [sys.executable, __file__, "--cache", str(cache), "--memory", title, str(steps), *map(str, batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this program
    if done.returncode:
        said = shortened(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
        return [said] * len(batches)
    return [f"{megabytes:.0f}" for megabytes in json.loads(done.stdout.splitlines()[-1])]


def _memory_here(title: str, steps: int, batches: Sequence[int], cache: Path) -> None:
    """Print what `memory` asks for: peaks beyond what the process holds after a small explanation, libraries loaded."""
    contender, models = BY_TITLE[title], both(cache)
    run(contender, models.of(contender), drawn(1, 6, seed=4), setting_of(6))
    setting, found = setting_of(steps), []
    for batch in batches:
        inputs = drawn(batch, steps, seed=3)
        before = _anew()
        run(contender, models.of(contender), inputs, setting)
        found.append((_peak() - before) / 2**20)
    print(json.dumps(found))


def _anew() -> int:
    """Give free memory back and count the peak anew, where that can be done; return the bytes held, or their peak."""
    gc.collect()
    if sys.platform.startswith("linux"):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    """Return the most bytes that the process has held."""
    if sys.platform.startswith("linux"):  # getrusage's cannot be counted anew, and imports alone reach hundreds of MB
        return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac


def tables(cache: Path, steps_of: Sequence[int], batches: Sequence[int], limit: float, rounds: int) -> list[str]:
    """Return the page's lines, and print them."""
    models = both(cache)
    lines = ["## gatelens beside its peers", "", f"{INTRODUCTION} {where()}", ""]
    failures: dict[str, str] = {}
    known: dict[str, tuple[float, int]] = {}  # seconds, and the cells explained in them
    for steps in steps_of:
        setting = setting_of(steps)
        inputs = drawn(max(batches), steps, seed=3)
        exact = TemporalShapley(models.adopted).explain(inputs[:EXACT]).timesteps if steps <= 20 else None
        for contender in CONTENDERS:  # imports and first calls are no one's timings
            try:
                run(contender, models.of(contender), drawn(1, 6, seed=4), setting_of(6))
            except FailedError as error:
                failures[contender.title] = str(error)
        head = ["explainer", "gap", *(["error"] if exact is not None else []), "evaluations"]
        head += [f"{what}, batch {batch}" for batch in batches for what in ("s", "MB")]
        cells: dict[str, Row] = {title: [""] * (len(head) - 1) for title in BY_TITLE}
        for place, batch in enumerate(batches):
            size = steps * batch
            expected = {
                title: known[title][0] * size / known[title][1] if title in known else 0.0
                for title in BY_TITLE if title not in failures
            }  # fmt: skip
            found = timings(models, inputs[:batch], setting, expected, limit, rounds)
            for title, seconds in expected.items():
                at = len(head) - 1 - 2 * (len(batches) - place)
                if title in found:
                    known[title] = found[title], size
                    cells[title][at] = f"{found[title]:.3f}"
                else:
                    cells[title][at : at + 2] = f"(about {seconds:.0f})", "not run"
        for contender in CONTENDERS:
            title = contender.title
            if title in failures:
                cells[title][0] = failures[title]
                continue
            at = [len(head) - 1 - 2 * (len(batches) - place) for place in range(len(batches))]
            ran = [place for place in range(len(batches)) if not cells[title][at[place] + 1]]
            for place, said in zip(ran, memory(title, steps, [batches[place] for place in ran], cache), strict=True):
                cells[title][at[place] + 1] = said
            fast = known.get(title, (limit, 1))
            count = EXACT if fast[0] * steps * EXACT / fast[1] <= limit else 1
            try:
                told = qualities(contender, models, inputs[:count], setting, None if exact is None else exact[:count])
            except FailedError as error:
                cells[title][0] = str(error)
                continue
            row = [f"{told['gap']:.1e}", *([f"{told['error']:.3f}"] if exact is not None else [])]
            cells[title][: len(row) + 1] = [*row, f"{told['evaluations']:,.0f}"]
            print(f"{title}, {steps} timesteps: {cells[title]}", flush=True)
        name = f"{steps} timesteps"
        text = f"Sampling methods take {setting.evaluations} evaluations a sequence."
        written = section(name, text, [head, *([title, *row] for title, row in cells.items())])
        lines += demoted(written)
    return lines


INTRODUCTION = (
    f"One `nn.LSTM` (D = {FEATURES}, H = {HIDDEN}) with a linear head, trained on 20 timesteps; the same inputs for "
    "all, baseline 0. gap: the largest |f(x) - f(0) - sum of attributions| as a share of the mean |f(x) - f(0)|; "
    "methods that promise no sum (occlusion, FeatureAblation, lime) have one all the same. error: relative L2 error of "
    f"timesteps' sums beside exact Shapley values over 20 timesteps, mean of {EXACT} sequences; methods of cells "
    "(gradients, DeepLIFT, lime's) do not aim at them, and gatelens's temporal_shapley is the reference itself "
    "(tests hold it to brute force). evaluations: sequences the model was asked for, "
    "forwards and backwards, each explained sequence. s: medians of runs in turn, one thread, first calls not counted. "
    "MB: by how much the peak of a process of its own rises above what it holds after a small explanation."
)


def where() -> str:
    """Return machine and versions, without naming the machine."""
    from importlib.metadata import version

    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {versions()[:-1]}, "
        f"shapiq {version('shapiq')}; {platform.machine()}, {os.cpu_count()} cores, {memory_bytes / 2**30:.0f} GiB, "
        "one thread."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 timesteps alone, one round, at most 2 s a run")
    parser.add_argument("--page", type=Path, help="where to write; docs/benchmarks.md, or nowhere with --quick")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the trained model")
    parser.add_argument("--limit", type=float, default=30.0, help="most seconds of a run")
    parser.add_argument("--memory", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.memory:
        title, steps, *batches = given.memory
        _memory_here(title, int(steps), [int(batch) for batch in batches], given.cache)
        return
    quick = {"steps_of": STEPS[:1], "batches": BATCHES, "limit": 2.0, "rounds": 1}
    whole = {"steps_of": STEPS, "batches": BATCHES, "limit": given.limit, "rounds": ROUNDS}
    lines = tables(given.cache, **(quick if given.quick else whole))
    page = given.page or (None if given.quick else PAGE)
    if page is not None:
        write_part(page, "python benchmarks/peers.py", lines)


if __name__ == "__main__":
    main()
