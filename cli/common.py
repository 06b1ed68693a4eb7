"""What the commands share: options, reading the model and the table, and talking to a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from ..explainers import Attribution
    from ..models import DataSpec, SequenceData, SequenceModel
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
INPUT = Annotated[Path, typer.Option("--input", "-i", help="CSV, one row a timestep, oldest first.")]
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


def read_sequences(
    model: SequenceModel,
    path: Path,
    *,
    windows: str = "last",
    window: int | None = None,
    stride: int = 1,
    end: str | None = None,
    id_column: str | None = None,
) -> SequenceData:
    """Return the sequences of a CSV as the model reads them; what the model does not say of them is added to it."""
    from ..models import DataSpec, InvalidInputError, SequenceData
    from ..models.table import read_table

    if windows not in ("last", "all"):
        raise InvalidInputError(f'--windows is {windows!r}; expected "last" or "all".')
    frame = read_table(path)
    spec = _with_window(model.data or DataSpec(), window)
    if not spec.features and spec.vocabulary is None:
        read = _with_ids if model.config.reads_tokens else _with_columns
        spec = read(spec, model, frame, path, id_column)
        if spec.window.length is None and not model.config.reads_tokens:
            say(
                f"note: {path.name}: the whole table{'' if id_column is None else ' of each id'} is one sequence, "
                "because the model does not say how many rows a window has; if it was trained on windows, give "
                "their length with --window."
            )
    model.data = spec
    data = SequenceData.from_frame(
        frame, spec, windows="all" if windows == "all" else "last", stride=stride, end=end, id_column=id_column,
        source=str(path),
    )  # fmt: skip
    for note in data.notes:
        say(f"note: {note}")
    return data


def _with_window(spec: DataSpec, length: int | None) -> DataSpec:
    """Return the spec with windows of that many rows, unless the model says its own."""
    from dataclasses import replace

    from ..models import InvalidInputError

    if length is None:
        return spec
    if length < 1:
        raise InvalidInputError(f"--window is {length}; expected a number of rows, 1 or more.")
    if spec.window.length not in (None, length):
        raise InvalidInputError(f"--window is {length}, but the model reads {spec.window.length} rows; leave it out.")
    return replace(spec, window=replace(spec.window, length=length))


def _with_columns(
    spec: DataSpec, model: SequenceModel, frame: pd.DataFrame, path: Path, id_column: str | None
) -> DataSpec:
    """Return the spec with the table's number columns for features, unscaled."""
    from dataclasses import replace

    from ..models.table import spec_of_columns

    others = frame.drop(columns=[] if id_column is None else [id_column], errors="ignore")
    known = spec_of_columns(others, model.config.input_size, str(path))
    unread = [str(name) for name in others.columns if str(name) not in known.feature_names]
    say(
        f"note: {path.name}: the columns {', '.join(known.feature_names)} are read as they stand, because the model "
        "does not say how its inputs were scaled; if it was trained on scaled numbers, give it those."
        + (f" Not read: {', '.join(unread)}." if unread else "")
    )
    return replace(spec, features=known.features)


def _with_ids(
    spec: DataSpec, model: SequenceModel, frame: pd.DataFrame, path: Path, _id_column: str | None
) -> DataSpec:
    """Return the spec of a model that knows no words: the table holds the ids themselves."""
    from dataclasses import replace

    from ..models import InvalidInputError
    from ..models.table import TOKEN_COLUMN

    size = model.config.vocab_size
    assert size is not None  # it reads tokens
    if TOKEN_COLUMN not in frame.columns or frame[TOKEN_COLUMN].dtype.kind not in "iu":
        raise InvalidInputError(
            f"{path} has no column {TOKEN_COLUMN!r} of whole numbers; the model reads token ids, 0 to {size - 1}, and "
            "does not say which word each one is, so the table must hold the ids."
        )
    say(f"note: {path.name}: {TOKEN_COLUMN!r} is read as token ids, because the model does not say its words.")
    return replace(spec, vocabulary=tuple(str(token) for token in range(size)))


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
    classes = model.config.task in ("binary", "multiclass")
    explained = cast("Output", output or ("probability" if classes else "logit"))  # a wrong word: Predictor refuses it
    return explain(
        model,
        data.inputs,
        methods,
        target=_target(target, timestep),
        lengths=data.lengths,
        baseline=chosen_baseline(model, baseline),
        output=explained,
        seed=seed,
        progress=sys.stderr.isatty(),
        sample_names=data.sample_names,
        times=data.times,
    )


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
