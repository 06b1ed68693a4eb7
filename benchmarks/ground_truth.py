"""Which explainers find the true cells: gatelens's and its peers', on tasks whose true cells are known.

`python benchmarks/ground_truth.py` trains small models (kept in benchmarks/cache/), explains the same sequences by
everyone in `contenders.py`, and writes a table for each task of `tasks.py` into docs/benchmarks.md. `--quick` runs all
of it in small, to see that it works, and writes nothing unless `--page` says where. `--only WORD` runs the tasks with
that word in their names, and `--cache FOLDER` keeps the models elsewhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from contenders import CONTENDERS, RANDOM, Contender, FailedError, Setting, run
from learning import CACHE, WhiteBox, fitness, last_answer, trained
from numpy.typing import NDArray
from pages import Row, machine, section
from parts import PAGE, write_part
from scoring import METRICS, Values, rank_correlation, scores
from standings import Result, beside_published, not_level, summary_of, table, verdicts
from tasks import TASKS, Batch, Task, quick
from torch import Tensor, nn

CHANCES = 20  # random attributions of each sequence


@dataclass(frozen=True)
class Case:
    """Sequences of one length that one model answers once.

    Attributes:
        model: (b, L, D) -> (b, 1).
        inputs: (b, L, D).
        rows: (b,), which sequence of the batch each is, or begins.
        cells: Bool (b, L, D), the true cells.
        scored: Bool (b, L, D), the cells that compete.
        graded: (b, L, D) or None.
    """

    model: nn.Module
    inputs: Tensor
    rows: NDArray[np.int64]
    cells: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    graded: Values | None


def cases(task: Task, model: nn.Module | None, batch: Batch) -> Iterator[Case]:
    """Yield what is explained: each sequence's answer, or its beginnings up to each answer asked for.

    An answer of every timestep is explained as what the model says at the end of the sequence's beginning, which is the
    same number, for a model that reads forwards.
    """
    whole = np.ones(batch.cells.shape, dtype=bool) if batch.scored is None else batch.scored
    rows = np.arange(len(batch.inputs))
    if batch.asked is None:
        groups = [(row[None], WhiteBox(batch.cells[row])) for row in rows] if model is None else [(rows, model)]
        for some, answering in groups:
            graded = None if batch.graded is None else batch.graded[some]
            yield Case(answering, torch.as_tensor(batch.inputs[some]), some, batch.cells[some], whole[some], graded)
        return
    assert model is not None
    single, several = last_answer(task, model), batch.asked.shape[1] > 1
    for last in np.unique(batch.asked):
        some = rows[(batch.asked == last).any(axis=1)]
        scored = np.ones_like(whole[some, : last + 1])
        if several:  # an answer's own timestep competes
            scored[:, :last] = False
        inputs = torch.as_tensor(batch.inputs[some, : last + 1])
        yield Case(single, inputs, some, batch.cells[some, : last + 1], scored, None)


def judged(contender: Contender, every: Sequence[Case], setting: Setting, count: int) -> Result:
    """Return how well a contender finds the true cells of all cases."""
    found: list[list[Values]] = [[] for _ in range(count)]
    truth: list[list[NDArray[np.bool_]]] = [[] for _ in range(count)]
    signed: list[tuple[Values, Values]] = []
    begin = time.perf_counter()
    for number, case in enumerate(every):
        own = Setting(setting.train, setting.evaluations, seed=setting.seed + number)
        try:
            attribution = run(contender, case.model, case.inputs, own)
        except FailedError as error:
            return Result({}, failure=str(error))
        for place, row in enumerate(case.rows):
            scored, cells = case.scored[place], case.cells[place]
            found[row].append(attribution[place][scored])
            truth[row].append(cells[scored])
            if case.graded is not None:
                signed.append((attribution[place][cells], case.graded[place][cells]))
    seconds = time.perf_counter() - begin
    attributions, trues = [np.concatenate(parts) for parts in found], [np.concatenate(parts) for parts in truth]
    each = [scores(values, cells) for values, cells in zip(attributions, trues, strict=True)]
    correlation = None
    if signed:
        correlation = rank_correlation(*(np.concatenate(parts) for parts in zip(*signed, strict=True)))
    scaled = np.concatenate([np.abs(values) / max(np.abs(values).max(), 1e-30) for values in attributions])
    together = scores(scaled, np.concatenate(trues))
    return Result(
        {name: np.array([one[name] for one in each]) for name in METRICS},
        correlation, (together["AUROC"], together["AUPRC"]), seconds,
    )  # fmt: skip


def by_chance(every: Sequence[Case], setting: Setting, count: int) -> Result:
    """Return the mean of several random attributions of each sequence: a single one is luck."""
    drawn = [
        judged(RANDOM, every, Setting(setting.train, setting.evaluations, seed=1000 * number), count)
        for number in range(CHANCES)
    ]
    values = {name: np.mean([one.values[name] for one in drawn], axis=0) for name in METRICS}
    correlations = [one.correlation for one in drawn if one.correlation is not None]
    mean = float(np.mean(correlations)) if correlations else None
    return Result(values, mean, None, drawn[0].seconds, chance=float(np.max(np.abs(correlations), initial=0)))


def results(
    task: Task, cache: Path | None, contenders: Sequence[Contender], evaluations: int
) -> tuple[dict[str, Result], str]:
    """Return contender -> result, and what the table's text says about the run."""
    model = None if task.model == "white box" else trained(task, cache)
    batch = task.draw(task.samples, np.random.default_rng([task.seed, 3]))
    every = list(cases(task, model, batch))
    steps, features = every[-1].inputs.shape[1:]
    cells = steps * features
    train = task.draw(min(task.train, 300), np.random.default_rng([task.seed, 1])).inputs
    setting = Setting(train, evaluations=2 * cells + evaluations)
    found: dict[str, Result] = {}
    for contender in contenders:
        result = found[contender.title] = (
            by_chance(every, setting, task.samples) if contender is RANDOM
            else judged(contender, every, setting, task.samples)
        )  # fmt: skip
        print(f"  {contender.title}: {result.seconds:.1f} s {result.failure}", flush=True)
    base = np.mean([case.cells[case.scored].mean() for case in every])
    explained = sum(len(case.rows) for case in every)
    said = (
        f"{task.text} {explained} answers of {task.samples} sequences are explained; {base:.1%} of the cells that "
        f"compete are true; sampling methods take {setting.evaluations} evaluations an answer."
    )
    if model is not None:
        said += f" The model: {fitness(task, model)}."
    return found, said


INTRODUCTION = (
    "Each table: sequences of a task whose true cells are known, explained by everyone, the same model and the same "
    "sequences for all. The baseline is 0; lime, AugmentedOcclusion and what is called *background* draw from training "
    "sequences instead. |attribution| is scored against the true cells, a sequence at a time; means with 95 % "
    "bootstrap intervals. **AUROC and AUPRC** read ranks alone. **AUP and AUR** average over thresholds of the values "
    "themselves: squaring an attribution, which ranks all cells as before, moves both, so they are no reason to prefer "
    "a method. Spearman: signed attributions beside the graded truth, over all true cells. *Level*: the interval of "
    "the paired differences holds 0. Methods of timesteps (gate_saliency, cell_decomposition) share among features. "
    "On an `nn.LSTM` captum's DeepLift is the gradient at the input times the input, and shap's DeepExplainer the "
    "gradient at the baseline times the input (*saliency at the baseline, times input*), which does not saturate where "
    "the model is sure. Its lead on the middle box is that: half of the log-odds is reached on the first 5 % of the "
    "way from 0 to the input, and gradients find the box worse the further on the way they are taken; integrated "
    "gradients of the probability, which is decided early, come near. As the box is in the same place in every "
    "sequence, the gradient at 0 alone, one map for all of them, finds it better still: this task does not show who "
    "explains a sequence. "
    "seconds: of all explanations of a table."
)


def demoted(lines: list[str]) -> list[str]:
    """Return the lines of a section as those of a section within one."""
    return ["#" + line if line.startswith("## ") else line for line in lines]


def lines_of(tasks: Sequence[Task], cache: Path | None, contenders: Sequence[Contender], evaluations: int) -> list[str]:
    """Return the page's lines, and print them."""
    lines = ["## Ground truth", "", f"{INTRODUCTION} {machine()} {versions()}", ""]
    summary: list[Row] = [
        [
            "task",
            "AUROC of gatelens",
            "of the best peer",
            "AUPRC of gatelens",
            "of the best peer",
            "gatelens is, by AUROC / AUPRC",
        ]
    ]
    for task in tasks:
        print(task.name, flush=True)
        found, said = results(task, cache, contenders, evaluations)
        lines += demoted(section(task.name, said, table(found)))
        notes = verdicts(found)
        print("\n".join(notes) + "\n", flush=True)
        lines += [*(f"- {note}" for note in notes), ""]
        if task.model == "gru":
            text = "Over the cells of all sequences together, each sequence scaled to 0 .. 1, as published."
            lines += demoted(section("Beside the published numbers", text, beside_published(found)))
        summary.append([task.name, *summary_of(found)])
    text = f"The best of each side by task. {not_level(summary[1:])}"
    lines[4:4] = demoted(section("Where gatelens stands", text, summary))
    return lines


def versions() -> str:
    """Return the versions of all libraries, and says which are missing."""
    from importlib.metadata import PackageNotFoundError, version

    said = []
    for name in ("captum", "shap", "lime", "time-interpret"):
        try:
            said.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            said.append(f"{name} not installed")
    return ", ".join(said) + "."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="all of it in small")
    parser.add_argument("--page", type=Path, help="where to write; docs/benchmarks.md, or nowhere with --quick")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of trained models")
    parser.add_argument("--only", default="", help="a word of the tasks' names")
    given = parser.parse_args(arguments)
    tasks = [task for task in TASKS if given.only.lower() in task.name.lower()]
    if not tasks:
        parser.error(f"no task has {given.only!r} in its name; {', '.join(task.name for task in TASKS)}.")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    try:
        if given.quick:
            lines = lines_of([quick(task) for task in tasks], None, CONTENDERS, 16)
        else:
            results(quick(TASKS[0]), None, CONTENDERS, 16)  # imports and first calls are no one's seconds
            lines = lines_of(tasks, given.cache, CONTENDERS, 512)
    finally:
        torch.set_num_threads(before)
    print(f"{time.perf_counter() - begin:.0f} s")
    page = given.page or (None if given.quick or given.only else PAGE)
    if page is not None:
        write_part(page, "python benchmarks/ground_truth.py", lines)


if __name__ == "__main__":
    main()
