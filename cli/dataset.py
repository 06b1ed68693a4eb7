"""`gatelens explain --out NAME.zarr`: all sequences of a dataset into a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import chosen_baseline, explained_output, named_target, say

if TYPE_CHECKING:
    from ..explainers.dataset import DatasetRun, Progress
    from ..models import SequenceModel

MEMORY = Annotated[
    str, typer.Option(help="With --out NAME.zarr: memory for what is held of the data, all workers together.")
]
WORKERS = Annotated[
    int | None,
    typer.Option(
        help="With --out NAME.zarr: processes to work in; else one for each core, if it takes long. 1: this one."
    ),
]
SCHEDULER = Annotated[
    str | None,
    typer.Option(help="With --out NAME.zarr: address of a dask scheduler to work on, e.g. tcp://10.0.0.1:8786."),
]
DEVICE = Annotated[str | None, typer.Option(help='With --out NAME.zarr: where the model computes, e.g. "cuda".')]
GATES = Annotated[
    str,
    typer.Option(help='With --out NAME.zarr: of a gate\'s units keep the "sum", or all "units" (much larger).'),
]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace a store that is there.")]

NAMED_FAILURES = 5


def explain_into_store(
    model: SequenceModel,
    source: Path,
    out: Path,
    methods: list[str],
    *,
    target: str | None,
    timestep: str | None,
    baseline: str | None,
    output: str | None,
    seed: int,
    json_lines: bool,
    **options: Any,
) -> None:
    """Explain all sequences of a source, a store for each method; tell of progress as it goes."""
    from ..explainers import get
    from ..explainers.dataset import explain_dataset

    for name in methods:  # the last one's mistake is told before the first one's hours
        get(name)(model, output=explained_output(model, output), seed=seed)
    for name in methods:
        path = out if len(methods) == 1 else out.with_name(f"{out.stem}.{name}{out.suffix}")
        run = explain_dataset(
            model,
            source,
            method=name,
            out=path,
            target=named_target(model, target, timestep),
            baseline=chosen_baseline(model, baseline),
            output=explained_output(model, output),
            seed=seed,
            progress=_print_line if json_lines else sys.stderr.isatty(),
            **options,
        )
        _tell(run, json_lines=json_lines)


def _print_line(state: Progress) -> None:
    from dataclasses import asdict

    _print({"event": "progress", **asdict(state)})


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _tell(run: DatasetRun, *, json_lines: bool) -> None:
    """Say what was done, and what could not be."""
    from ..explainers.dataset import failures

    failed = failures(run.path)
    if json_lines:
        _print(
            {
                "event": "done",
                "store": str(run.path),
                "samples": run.samples,
                "explained": run.explained,
                "failed": run.failed,
                "before": run.before,
                "seconds": run.seconds,
                "notes": list(run.notes),
                "failures": failed.to_dict(orient="records"),
            }
        )
        return
    for note in run.notes:
        say(f"note: {note}")
    here = run.samples - run.before
    kept = f", {run.before:,} of them by an earlier run" if run.before and here else ""
    if run.before and not here:
        say(f"nothing left to do: all {run.samples:,} samples were done before")
    else:
        say(f"explained {run.explained:,} of {run.samples:,} samples in {run.seconds:.1f} s{kept}")
    for row in failed.head(NAMED_FAILURES).itertuples():
        say(f"failed: {row.sample} (position {row.position}): {row.reason}")
    if len(failed) > NAMED_FAILURES:
        say(f"failed: {len(failed) - NAMED_FAILURES:,} more; gatelens.explainers.dataset.failures lists them")
    say(f"wrote {run.path}")
