"""What the commands share: options, reading the model and the table, and talking to a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
INPUT = Annotated[Path, typer.Option("--input", "-i", help="CSV, one row a timestep, oldest first.")]
METHOD = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Explainer to use; repeat for several. See `gatelens methods`."),
]
TARGET = Annotated[
    str | None,
    typer.Option("--target", "-t", help="Class or output to explain: name, number, or TIMESTEP,OUTPUT."),
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
STRIDE = Annotated[int, typer.Option(help="Rows from one window to the next, with --windows all.")]
ID_COLUMN = Annotated[str | None, typer.Option(help="Column that tells sequences apart.")]
SEED = Annotated[int, typer.Option(help="Seed of everything random.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]


def console() -> Console:
    """Return the console for tables, on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def plain(text: object) -> Any:
    """Return text for a table as it is: rich would take [brackets] for its markup."""
    from rich.text import Text

    return Text(str(text))


def say(text: str) -> None:
    """Write a line for the person at the terminal, on standard error."""
    sys.stderr.write(text + "\n")


def print_json(values: Any) -> None:
    """Write JSON on standard output."""
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_model(
    path: Path, *, task: str | None = None, pooling: str | None = None, quiet: bool = False
) -> SequenceModel:
    """Return the model at `path`, whatever kind of file it is; say what was assumed about it."""
    from ..models import open_model

    model = open_model(path, task=cast("Task | None", task), pooling=cast("Pooling | None", pooling))
    adopted = model.data.provenance.get("adopted", {}) if model.data is not None else {}
    if not quiet:
        for sentence in (*adopted.get("assumed", ()), *adopted.get("left_out", ())):
            say(f"note: {path.name}: {sentence}")
    return model


def read_sequences(
    model: SequenceModel,
    path: Path,
    *,
    windows: str = "last",
    stride: int = 1,
    end: str | None = None,
    id_column: str | None = None,
) -> SequenceData:
    """Return the sequences of a CSV as the model reads them."""
    from dataclasses import replace

    from ..models import DataSpec, InvalidInputError, SequenceData
    from ..models.table import read_table, spec_of_columns

    if windows not in ("last", "all"):
        raise InvalidInputError(f'--windows is {windows!r}; expected "last" or "all".')
    frame = read_table(path)
    spec = model.data or DataSpec()
    if not spec.features and spec.vocabulary is None:
        if model.config.input_size is None:
            raise InvalidInputError(
                "this model reads token ids, and its data.json has no vocabulary, so a CSV cannot be turned into ids; "
                "use the Python API with ids."
            )
        dropped = [] if id_column is None else [id_column]
        known = spec_of_columns(frame.drop(columns=dropped, errors="ignore"), model.config.input_size, str(path))
        spec = replace(spec, features=known.features)
        model.data = spec
        say(
            f"note: {path.name}: the columns {', '.join(known.feature_names)} are read as they stand, because the "
            "model does not say how its inputs were scaled; if it was trained on scaled numbers, give it those."
        )
    data = SequenceData.from_frame(
        frame, spec, windows="all" if windows == "all" else "last", stride=stride, end=end, id_column=id_column,
        source=str(path),
    )  # fmt: skip
    for note in data.notes:
        say(f"note: {note}")
    return data


def explain_sequences(
    model: SequenceModel,
    data: SequenceData,
    methods: list[str],
    *,
    target: str | None = None,
    baseline: str | None = None,
    output: str | None = None,
    seed: int = 0,
) -> dict[str, Attribution]:
    """Explain sequences by several methods, with a progress bar where a person watches."""
    from ..explainers import explain

    classes = model.config.task in ("binary", "multiclass")
    explained = cast("Output", output or ("probability" if classes else "logit"))  # a wrong word: Predictor refuses it
    return explain(
        model,
        data.inputs,
        methods,
        target=_target(target),
        lengths=data.lengths,
        baseline=_baseline(model, baseline),
        output=explained,
        seed=seed,
        progress=sys.stderr.isatty(),
        sample_names=data.sample_names,
        times=data.times,
    )


def _target(name: str | None) -> Any:
    """Return a number where the name is one, or (timestep, output)."""
    if name is None:
        return None
    step, _, output = name.partition(",")
    if output and step.strip().lstrip("-").isdecimal():  # TIMESTEP,OUTPUT of a per-timestep model
        return int(step), _number_or_name(output.strip())
    return _number_or_name(name)


def _number_or_name(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def _baseline(model: SequenceModel, name: str | None) -> str | float:
    """Return the baseline asked for; else the model's own mean, the pad token, or zero."""
    if name is not None:
        try:
            return float(name)
        except ValueError:
            return name
    if model.config.reads_tokens:
        return "pad"
    return "mean" if model.data is not None and model.data.baseline is not None else "zero"
