"""gatelens beside captum, shap, lime, shapiq and time-interpret: the same model and inputs, in one run.

`python benchmarks/peers.py` trains an `nn.LSTM` with a linear head (kept in benchmarks/cache/) and explains sequences
of 20, 100 and 500 timesteps, one and 64 at a time. For each explainer: what its attributions miss of
f(x) - f(baseline), their error beside exact Shapley values over 20 timesteps, how faithful they are, the evaluations it
asked of the model, the median seconds of runs taken in turn, and by how much it raised the memory of a process of its
own. The tables go into docs/benchmarks.md. `--quick` takes 20 timesteps alone and runs everything once; it writes where
`--page` says.

A cell whose run is expected to take more than `--limit` seconds is not run, and says how many were expected; whatever
is left when `--minutes` are over is said to be out of time. The defaults keep it within 12 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import RANDOM, Contender, FailedError, Setting, run
from ground_truth import demoted, versions
from learning import CACHE
from numpy.typing import NDArray
from pages import Row, section
from parts import PAGE, write_part
from peer_memory import memory
from peer_models import FEATURES, HIDDEN, Models, best_rows, both, drawn, setting_of
from timesteps import BY_TITLE
from torch import Tensor, nn

from gatelens.explainers import Attribution, DeepLIFT, TemporalShapley
from gatelens.explainers.metrics import measure

STEPS, BATCHES = (20, 100, 500), (1, 64)
EXACT = 20  # timesteps whose Shapley values are exact
JUDGED = {20: 8, 100: 8, 500: 4}  # timesteps -> sequences that gap, error and faithfulness are of, for everyone
ROUNDS = 3
FAITHFUL = {"comprehensiveness": "drop", "deletion": "area"}  # metric -> column
OUT_OF_TIME = "out of time"


@dataclass
class Clock:
    """What may be run yet.

    Attributes:
        limit: Most seconds that a run may be expected to take.
        until: When nothing more is begun, by `time.monotonic`.
        known: Explainer and sequences at once -> seconds, and the timesteps and evaluations a sequence they were for.
        asked: Explainer and timesteps -> evaluations a sequence.
    """

    limit: float
    until: float
    known: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    asked: dict[tuple[str, int], float] = field(default_factory=dict)

    def note(self, title: str, steps: int, batch: int, seconds: float) -> None:
        """Keep what a run took."""
        self.known[title, batch] = seconds, steps * self.asked[title, steps]

    def expected(self, title: str, steps: int, batch: int) -> float:
        """Return the seconds of a run: those of the last as many sequences at once, or one, by what it asks for."""
        batch_known = batch if (title, batch) in self.known else 1
        if (title, batch_known) not in self.known:
            return 0.0
        seconds, size = self.known[title, batch_known]
        asked = [number for (name, _), number in self.asked.items() if name == title]
        now = self.asked.get((title, steps), asked[-1])  # as for fewer timesteps, until one sequence has told
        return seconds * batch / batch_known * steps * now / size

    def refusal(self, title: str, steps: int, batch: int) -> str:
        """Return why this is not run; "" where it is."""
        if time.monotonic() > self.until:
            return OUT_OF_TIME
        seconds = self.expected(title, steps, batch)
        return f"(about {seconds:,.0f})" if seconds > self.limit else ""


def evaluated(contender: Contender, models: Models, inputs: Tensor, setting: Setting) -> tuple[Any, float]:
    """Return the attributions (b, L, D), and how many sequences the model was asked for, each way, a sequence."""
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
    return values, (setting.counted[0] if setting.counted else seen[0]) / len(inputs)


def first_looks(models: Models, steps: int, setting: Setting, clock: Clock) -> dict[str, str]:
    """Explain one sequence by everyone, to know what that asks for; return who fails, or takes too long, and how."""
    inputs, failures = drawn(1, steps, seed=3), {}
    for title, contender in BY_TITLE.items():
        refused = clock.refusal(title, steps, 1)
        if refused:
            failures[title] = f"not run: {refused.strip('()')}"
            continue
        try:  # imports and first calls are no one's timings
            run(contender, models.of(contender), drawn(1, 6, seed=4), setting_of(6, (setting.rows, setting.rows)))
            begin = time.perf_counter()
            clock.asked[title, steps] = max(1.0, evaluated(contender, models, inputs, setting)[1])
            clock.note(title, steps, 1, time.perf_counter() - begin)
        except FailedError as error:
            failures[title] = str(error)
    return failures


def timings(
    models: Models, inputs: Tensor, setting: Setting, titles: Sequence[str], clock: Clock, rounds: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Return explainer -> median seconds of runs taken in turn, and who was not run or failed, and how."""
    batch, steps = inputs.shape[:2]
    taken: dict[str, list[float]] = {title: [] for title in titles}
    failed: dict[str, str] = {}
    for number in range(rounds):
        for title, seconds in taken.items():
            if title in failed or (seconds and seconds[0] > clock.limit / 8):  # slow enough to be told by one run
                continue
            refused = clock.refusal(title, steps, batch) if number == 0 else ""
            if refused:
                failed[title] = refused
                continue
            begin = time.perf_counter()
            try:
                run(BY_TITLE[title], models.of(BY_TITLE[title]), inputs, setting)
            except FailedError as error:
                failed[title] = str(error)
                continue
            seconds.append(time.perf_counter() - begin)
            clock.note(title, steps, batch, statistics.median(seconds))
    return {title: statistics.median(taken[title]) for title in titles if title not in failed}, failed


def faithfulness(models: Models, values: dict[str, NDArray[Any]], inputs: Tensor) -> dict[str, dict[str, float]]:
    """Return explainer -> metric -> mean, as a share of the mean |f(x) - f(0)|: the same measure for everyone's arrays.

    Args:
        models: The models.
        values: Explainer -> attributions (b, L, D) of the same inputs.
        inputs: (b, L, D).
    """
    frame = DeepLIFT(models.adopted).explain(inputs, target=0)
    difference = frame.prediction - frame.baseline_prediction
    found = {}
    for title, cells in values.items():
        gap = difference - cells.sum(axis=(1, 2))
        dataset = frame.dataset.assign(
            attribution=(("sample", "time", "feature"), cells), completeness_gap=("sample", gap)
        )
        found[title] = Attribution(dataset)
    measured = measure(models.adopted, found, tuple(FAITHFUL), parts="timestep")
    scale = np.abs(difference).mean()
    return {title: {name: measured.scores(name, title).mean / scale for name in FAITHFUL} for title in found}


def qualities(
    models: Models, steps: int, setting: Setting, titles: Sequence[str], clock: Clock
) -> tuple[dict[str, Row], str]:
    """Return explainer -> completeness gap, error where exact values are known, faithfulness; and random's in words."""
    inputs = drawn(JUDGED[steps], steps, seed=3)
    exact = TemporalShapley(models.adopted).explain(inputs).timesteps if steps <= EXACT else None
    values = {"random": run(RANDOM, models.plain, inputs, setting)}
    for title in titles:
        if not clock.refusal(title, steps, JUDGED[steps]):
            try:
                values[title] = run(BY_TITLE[title], models.of(BY_TITLE[title]), inputs, setting)
            except FailedError:  # the row says it of the batches
                continue
    with torch.no_grad():
        difference = (models.plain(inputs) - models.plain(torch.zeros_like(inputs)))[:, 0].double().numpy()
    faithful = faithfulness(models, values, inputs)
    rows = {}
    for title, cells in values.items():
        gap = np.abs(difference - cells.sum(axis=(1, 2))).max() / np.abs(difference).mean()
        row = [f"{gap:.1e}"]
        if exact is not None:
            apart = np.linalg.norm(cells.sum(axis=2) - exact, axis=1) / np.linalg.norm(exact, axis=1)
            row.append(f"{apart.mean():.3f}")
        rows[title] = [*row, *(f"{faithful[title][name]:.3f}" for name in FAITHFUL)]
    return rows, random_told(faithful)


def random_told(faithful: dict[str, dict[str, float]]) -> str:
    """Return what random attributions reach, and which metric does not tell the best explainer from them."""
    chance = faithful["random"]
    told = " and ".join(f"{column} {chance[name]:.3f}" for name, column in FAITHFUL.items())
    lines = [f"A random attribution has {told}."]
    for name, column in FAITHFUL.items():
        every = {title: found[name] for title, found in faithful.items() if title != "random"}
        sign = 1 if name == "comprehensiveness" else -1
        level = [title for title, value in every.items() if sign * value <= sign * chance[name]]
        if every and len(level) == len(every):
            lines.append(f"{column} cannot tell anyone from it here.")
        elif level:
            lines.append(f"By {column} no better than it: {', '.join(level)}.")
    return " ".join(lines)


def tables(
    cache: Path, steps_of: Sequence[int], batches: Sequence[int], limit: float, minutes: float, rounds: int
) -> list[str]:
    """Return the page's lines, and print them."""
    begun = time.monotonic()
    models, clock = both(cache), Clock(limit, begun + 60 * minutes * 0.6)  # the rest is for the memory
    rows_of = {steps: best_rows(models.plain, steps) for steps in steps_of}
    seconds: dict[tuple[str, int, int], str] = {}
    judged: dict[int, tuple[dict[str, Row], str]] = {}
    failures: dict[int, dict[str, str]] = {}
    for steps in steps_of:
        setting = setting_of(steps, rows_of[steps])
        failures[steps] = first_looks(models, steps, setting, clock)
        titles = [title for title in BY_TITLE if title not in failures[steps]]
        for batch in batches:
            found, failed = timings(models, drawn(batch, steps, seed=3), setting, titles, clock, rounds)
            for title in titles:
                seconds[title, steps, batch] = f"{found[title]:.3f}" if title in found else failed[title]
                print(f"{title}, {batch} x {steps} timesteps: {seconds[title, steps, batch]} s", flush=True)
        judged[steps] = qualities(models, steps, setting, titles, clock)
    print(f"timed after {time.monotonic() - begun:.0f} s", flush=True)
    megabytes: dict[tuple[str, int, int], str] = {}
    for title in BY_TITLE:
        cells = [(steps, batch) for name, steps, batch in seconds if name == title]
        cells = [cell for cell in cells if seconds[title, *cell][0].isdigit()]
        left = begun + 60 * minutes - time.monotonic()
        told = memory(title, cells, rows_of, cache, left) if left > 0 else dict.fromkeys(cells, OUT_OF_TIME)
        megabytes |= {(title, *cell): said for cell, said in told.items()}
    print(f"measured after {time.monotonic() - begun:.0f} s", flush=True)
    lines = ["## gatelens beside its peers", "", f"{introduction(limit, minutes)} {where()}", ""]
    for steps in steps_of:
        head = ["explainer", "gap", *(["error"] if steps <= EXACT else []), *FAITHFUL.values(), "evaluations"]
        measures = len(head) - 2
        head += [f"{what}, batch {batch}" for batch in batches for what in ("s", "MB")]
        table: list[Row] = [head]
        for title in BY_TITLE:
            if title in failures[steps]:
                table.append([title, failures[steps][title], *[""] * (len(head) - 2)])
                continue
            row = [title, *judged[steps][0].get(title, ["-"] * measures), f"{clock.asked[title, steps]:,.0f}"]
            for batch in batches:
                row += [seconds[title, steps, batch], megabytes.get((title, steps, batch), "-")]
            table.append(row)
        forwards, backwards = rows_of[steps]
        text = (
            f"The first columns are of {JUDGED[steps]} sequences. Sampling methods take "
            f"{setting_of(steps, rows_of[steps]).evaluations} evaluations a sequence. The model takes {forwards} "
            f"sequences at once, with gradients {backwards}, where one may choose. "
            f"{judged[steps][1]}"
        )
        lines += demoted(section(f"{steps} timesteps", text, table))
    return lines


def introduction(limit: float, minutes: float) -> str:
    """Return what the columns are, and what was cut."""
    return (
        f"One `nn.LSTM` (D = {FEATURES}, H = {HIDDEN}) with a linear head, trained on 20 timesteps; the same inputs "
        "for all, baseline 0. gap, error, drop and area are of the same sequences for everyone. gap: the largest "
        "|f(x) - f(0) - sum of attributions| as a share of the mean |f(x) - f(0)|; methods that promise no sum "
        "(occlusion, FeatureAblation, lime) have one all the same. error: relative L2 error of timesteps' sums beside "
        "exact Shapley values over 20 timesteps; methods of cells (gradients, DeepLIFT, lime's) do not aim at them, "
        "and gatelens's temporal_shapley is the reference itself (tests hold it to brute force). drop: "
        "comprehensiveness, how far f(x) falls towards f(0) without the most important 1, 5, 10, 20 and 50 % of the "
        "timesteps (higher is better); area: that under the curve while timesteps are deleted, the most important "
        "first (lower is better); both as shares of the mean |f(x) - f(0)|, measured by gatelens's metrics from "
        "everyone's arrays. evaluations: sequences the model was asked for, forwards and backwards, to explain one. "
        "s: medians of up to three runs in turn, one thread, first calls not counted. MB: by how much the peak of a "
        "process of its own rises above what it holds after a small explanation. How many sequences the model takes "
        "at once is tried first on the model itself, 32 to 512, and given to all who let one choose. Cut: a cell "
        f"of which more than {limit:g} s are expected is not run; (about n) are the seconds expected, from a smaller "
        f"cell by timesteps, sequences and evaluations. The run may take {minutes:g} minutes."
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
    parser.add_argument("--limit", type=float, default=8.0, help="most seconds that a run may be expected to take")
    parser.add_argument("--minutes", type=float, default=12.0, help="most minutes of everything")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size: dict[str, Any] = {"steps_of": STEPS, "limit": given.limit, "rounds": ROUNDS}
    if given.quick:
        size = {"steps_of": STEPS[:1], "limit": min(2.0, given.limit), "rounds": 1}
    lines = tables(given.cache, batches=BATCHES, minutes=given.minutes, **size)
    page = given.page or (None if given.quick else PAGE)
    if page is not None:
        write_part(page, "python benchmarks/peers.py", lines)


if __name__ == "__main__":
    main()
