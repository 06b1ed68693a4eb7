"""What the commands share: options, reading the model and the table, and talking to a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..explainers import Attribution
    from ..models import SequenceData, SequenceModel
    from ..models.config import Pooling, Task
    from ..models.predictor import Output

MODEL = Annotated[
    Path,
    typer.Argument(help="Saved model: a gatelens folder, a Keras file (.keras, .h5), or PyTorch weights (.pt, .pth, "
                   ".safetensors)."),
]  # fmt: skip
TASK = Annotated[
    str | None,
    typer.Option(help='For PyTorch weights: "regression", "binary" or "multiclass"; else taken from the outputs.'),
]
POOLING = Annotated[
    str | None,
    typer.Option(
        help='For PyTorch weights: what the head reads, "last" (default), "mean", "max" or "none" (each step).'
    ),
]
METHOD = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Explainer to use; repeat for several. See `gatelens methods`."),
]
TARGET = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help="Class or output to explain: its name, or its number, counted from 0. Short for this and --timestep: "
        "TIMESTEP,OUTPUT.",
    ),
]
TIMESTEP = Annotated[
    str | None,
    typer.Option(
        help="For models with one output a timestep, which one to explain: 5, or -1 for the last (default). 3:8 "
        "explains the sum over the timesteps 3 to 7, -3: over the last three. Numbers count from 0.",
    ),
]
BASELINE = Annotated[
    str | None,
    typer.Option(help='What to compare with: "mean" (of the model\'s data.json), "zero", "pad", or a scaled number.'),
]
OUTPUT = Annotated[
    str | None, typer.Option(help='Explain the "probability" (default for classes) or the "logit", the raw score.')
]
END = Annotated[
    str | None, typer.Option(help="Explain the window that ends at this time, e.g. 2010-10-05T18:03; else the newest.")
]
WINDOWS = Annotated[str, typer.Option(help='"last": the newest window (of each id), or "all" of them.')]
WINDOW = Annotated[
    int | None,
    typer.Option(
        help="Rows of a window, for models that do not say; else the whole table (of each id) is one sequence."
    ),
]
STRIDE = Annotated[int, typer.Option(help="Rows from one window to the next, with --windows all.")]
ID_COLUMN = Annotated[str | None, typer.Option(help="Column that tells sequences apart.")]
SEED = Annotated[int, typer.Option(help="Seed of everything random.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]


CHANGE_ASSUMED = "change what is assumed with --pooling and --task"


def console() -> Console:
    """Return the console for tables, on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def plain(text: object) -> Any:
    """Return text for a table as it is: rich would take [brackets] for its markup."""
    from rich.text import Text

    return Text(str(text))


def hanging(rows: Iterable[tuple[str, str]], *, justify: Literal["left", "right"] = "left") -> Table:
    """Return rows of (mark, sentence) for the console; where a sentence is wrapped, it goes on below its beginning."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2 if justify == "right" else 1))
    grid.add_column(justify=justify, no_wrap=True)
    grid.add_column()
    for mark, sentence in rows:
        grid.add_row(plain(mark), plain(sentence))
    return grid


def say(text: str) -> None:
    """Write a line for the person at the terminal, on standard error."""
    sys.stderr.write(text + "\n")


def print_json(values: Any) -> None:
    """Write JSON on standard output."""
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_model(
    path: Path, *, task: str | None = None, pooling: str | None = None, quiet: bool = False
) -> SequenceModel:
    """Return the model at `path`, whatever kind of file it is; say what was assumed about it and what left out."""
    from ..models import open_model

    model = open_model(path, task=cast("Task | None", task), pooling=cast("Pooling | None", pooling))
    adopted = model.data.provenance.get("adopted", {}) if model.data is not None else {}
    if not quiet:
        for sentence in adopted.get("assumed", ()):
            say(f"note: {path.name}: {sentence}")
        if adopted.get("assumed"):
            say(f"note: {CHANGE_ASSUMED}")
        if adopted.get("left_out"):
            say(f"note: {path.name}: not taken over: {'; '.join(adopted['left_out'])}")
    return model


def explain_sequences(
    model: SequenceModel,
    data: SequenceData,
    methods: list[str] | None,
    *,
    target: str | None = None,
    timestep: str | None = None,
    baseline: str | None = None,
    output: str | None = None,
    seed: int = 0,
) -> dict[str, Attribution]:
    """Explain sequences by several methods, with a progress bar where a person watches; None: those that fit."""
    from ..explainers import explain

    return explain(
        model,
        data.inputs,
        methods,
        target=named_target(model, target, timestep),
        lengths=data.lengths,
        baseline=chosen_baseline(model, baseline),
        output=explained_output(model, output),
        seed=seed,
        progress=sys.stderr.isatty(),
        sample_names=data.sample_names,
        times=data.times,
    )


def warm_up(
    model: SequenceModel, data: SequenceData, methods: list[str] | None, **options: Any
) -> dict[str, Attribution]:
    """Explain one sequence, so that what is compiled once is not counted, then all."""
    explain_sequences(model, data.take([0]), methods, **options)
    return explain_sequences(model, data, methods, **options)


def named_target(model: SequenceModel, target: str | None, timestep: str | None) -> Any:
    """Return what --target and --timestep name together, as `explain` takes it; refuse what the model does not have."""
    from ..models import InvalidInputError
    from ..reports.model_card import per_timestep

    if target is None and model.config.task != "multiclass" and model.config.output_size > 1:
        names = ", ".join(model.data.classes or model.data.outputs) if model.data is not None else ""
        raise InvalidInputError(
            f"this {model.config.task} model has {model.config.output_size} outputs, and none is the natural one; "
            f"choose one with --target, 0 to {model.config.output_size - 1}{f' ({names})' if names else ''}."
        )
    if timestep is not None and not per_timestep(model.config):
        raise InvalidInputError(
            f"--timestep is {timestep!r}, but this model has one output a sequence, not one a timestep; leave it out."
        )
    return _target(target, timestep)


def explained_output(model: SequenceModel, output: str | None) -> Output:
    """Return what --output names; else the probability of classes, and the score of anything else."""
    classes = model.config.task in ("binary", "multiclass")
    return cast("Output", output or ("probability" if classes else "logit"))  # a wrong word: Predictor refuses it


def _target(name: str | None, timestep: str | None) -> Any:
    """Return what --target and --timestep name together, as `explain` takes it."""
    from ..models import InvalidInputError

    output: Any = name
    step, comma, rest = (name or "").partition(",")
    if comma and rest and _steps(step) is not None:
        if timestep is not None:
            raise InvalidInputError(f"--target is {name!r} and --timestep is {timestep!r}; give the timestep once.")
        timestep, output = step, rest.strip()
    if output is not None:
        output = _number_or_name(output)
    if timestep is None:
        return output
    steps = _steps(timestep)
    if steps is None:
        raise InvalidInputError(
            f"--timestep is {timestep!r}; expected a number (5, or -1 for the last), or START:STOP for a sum (3:8 is "
            "the timesteps 3 to 7, -3: the last three)."
        )
    return steps, output


def _steps(text: str) -> int | slice | None:
    """Return the timestep, or the window of timesteps, that a text names; None where it names none."""
    start, colon, stop = (part.strip() for part in text.partition(":"))
    try:
        return slice(int(start) if start else None, int(stop) if stop else None) if colon else int(start)
    except ValueError:
        return None


def _number_or_name(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def chosen_baseline(model: SequenceModel, name: str | None) -> str | float:
    """Return the baseline asked for; else the model's own mean, the pad token, or zero."""
    if name is not None:
        try:
            return float(name)
        except ValueError:
            return name
    if model.config.reads_tokens:
        return "pad"
    return "mean" if model.data is not None and model.data.baseline is not None else "zero"
