"""`gatelens compare`: two models on one input, or one model on two inputs, and what made the difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BASELINE,
    ID_COLUMN,
    JSON,
    MODEL,
    OUTPUT,
    POOLING,
    SEED,
    TARGET,
    TASK,
    TIMESTEP,
    WINDOW,
    console,
    explain_sequences,
    hanging,
    plain,
    print_json,
    read_model,
    say,
)
from .report import REDACT, TITLE
from .sequences import read_sequences
from .summarize import METHOD, OUT, command_line, fast_method

if TYPE_CHECKING:
    from ..explainers import Attribution
    from ..models import SequenceData, SequenceModel
    from ..reports import Comparison

OTHER_MODEL = Annotated[
    Path | None, typer.Argument(metavar="MODEL_B", help="Another saved model, to compare the two on one input.")
]
INPUTS = Annotated[
    list[Path],
    typer.Option("--input", "-i", help="CSV, one row a timestep, oldest first; with one model also two of them."),
]
ENDS = Annotated[
    list[str] | None,
    typer.Option(
        "--end",
        help="Explain the window that ends at this time, e.g. 2010-10-05T18:03; with one model give two, or one to "
        "compare it with the newest.",
    ),
]
NAMES = Annotated[
    list[str] | None, typer.Option("--name", help='What the page calls the two, e.g. --name yesterday --name "today".')
]


def compare(
    model: MODEL,
    input: INPUTS,  # noqa: A002 - the option is called --input
    other: OTHER_MODEL = None,
    out: OUT = Path("comparison.html"),
    end: ENDS = None,
    name: NAMES = None,
    method: METHOD = None,
    target: TARGET = None,
    timestep: TIMESTEP = None,
    baseline: BASELINE = None,
    output: OUTPUT = None,
    window: WINDOW = None,
    id_column: ID_COLUMN = None,
    title: TITLE = None,
    redact: REDACT = False,
    task: TASK = None,
    pooling: POOLING = None,
    seed: SEED = 0,
    json: JSON = False,
) -> None:
    """Compare two models on one input, or one model on two inputs: what changed, and why."""
    from ..models import InvalidInputError
    from ..reports import Comparison

    if out.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"--out is {out}; expected a name that ends in .html, e.g. comparison.html.")
    if name is not None and len(name) != 2:
        raise InvalidInputError(f"--name is given {len(name)} times; give it twice, for the first and the second.")
    paths = [model] if other is None else [model, other]
    loaded = [read_model(path, task=task, pooling=pooling) for path in paths]
    if other is None:
        pairs = _two_inputs(loaded[0], input, end or [], window=window, id_column=id_column)
        found_names = _input_names(pairs, input)
    else:
        pairs = [_one_input(part, input, end or [], window=window, id_column=id_column) for part in loaded]
        found_names = _model_names(paths)
    models = loaded * 2 if other is None else loaded
    options = {"timestep": timestep, "baseline": baseline, "output": output, "seed": seed}
    explained = _explain(models, pairs, method, target, options)
    page = Comparison(
        *explained,
        names=name or (None if redact else found_names),
        models=loaded,
        title=title,
        redact=redact,
        command=command_line("compare", redact=redact),
        seed=seed,
    )
    path = page.save(out)
    if json:
        print_json({"report": str(path), **_as_json(page)})
        return
    _print(page)
    say(f"wrote {path}")


def _explain(
    models: list[SequenceModel], pairs: list[SequenceData], method: str | None, target: str | None, options: Any
) -> tuple[Attribution, Attribution]:
    """Explain both for the same output: of classes, where none is named, the one that the second predicts."""
    from ..reports.prediction import explained_name

    def run(place: int, what: str | None) -> Attribution:
        methods = [method or fast_method(models[place])]
        return next(iter(explain_sequences(models[place], pairs[place], methods, target=what, **options).values()))

    second = run(1, target)
    if target is None and models[1].config.task == "multiclass":
        data = models[0].data
        known = data is not None and explained_name(second, 0) in data.classes
        target = explained_name(second, 0) if known else str(int(second.dataset["target_output"][0]))
    return run(0, target), second


def _two_inputs(
    model: SequenceModel, inputs: list[Path], ends: list[str], *, window: int | None, id_column: str | None
) -> list[SequenceData]:
    """Return the two sequences that one model is compared on."""
    from ..models import InvalidInputError

    if len(inputs) not in (1, 2) or len(ends) > 2:
        raise InvalidInputError(
            f"there are {len(inputs)} --input and {len(ends)} --end; a comparison is of two inputs: one CSV and two "
            "--end, or two CSVs."
        )
    paths = inputs if len(inputs) == 2 else inputs * 2
    moments: list[str | None] = [*ends] if len(ends) == 2 else [ends[0] if ends else None] * 2
    if len(inputs) == 1 and len(ends) == 1:
        moments = [ends[0], None]  # with the newest
    if len(inputs) == 1 and not ends:
        data = read_sequences(model, inputs[0], window=window, id_column=id_column)
        if len(data) == 2:
            return _apart(data)
        raise InvalidInputError(
            f"{inputs[0]} gives {len(data)} newest window{'' if len(data) == 1 else 's'}; a comparison is of two: "
            "name the other with --end, give another CSV, another model, or an --id-column of two ids."
        )
    return [
        _only(read_sequences(model, path, window=window, end=moment, id_column=id_column), path)
        for path, moment in zip(paths, moments, strict=True)
    ]


def _one_input(
    model: SequenceModel, inputs: list[Path], ends: list[str], *, window: int | None, id_column: str | None
) -> SequenceData:
    """Return the sequence that two models are compared on, as one of them reads it."""
    from ..models import InvalidInputError

    if len(inputs) != 1 or len(ends) > 1:
        raise InvalidInputError(
            f"there are two models, {len(inputs)} --input and {len(ends)} --end; two models are compared on one input: "
            "one CSV, and one --end at most."
        )
    end = ends[0] if ends else None
    return _only(read_sequences(model, inputs[0], window=window, end=end, id_column=id_column), inputs[0])


def _only(data: SequenceData, path: Path) -> SequenceData:
    from ..models import InvalidInputError

    if len(data) != 1:
        raise InvalidInputError(
            f"{path} gives {len(data)} sequences ({', '.join(data.sample_names[:3])}, ...); a comparison takes one of "
            "each: leave only its rows in the CSV."
        )
    return data


def _apart(data: SequenceData) -> list[SequenceData]:
    """Return two sequences one by one, each without the other's padding."""
    parts = [data.take([row]) for row in range(2)]
    return [_trimmed(part) for part in parts]


def _trimmed(data: SequenceData) -> SequenceData:
    from dataclasses import replace

    length = int(data.lengths[0])
    times = None if data.times is None else data.times[:, :length]
    return replace(data, inputs=data.inputs[:, :length], times=times)


def _input_names(pairs: list[SequenceData], inputs: list[Path]) -> tuple[str, str]:
    """Return the sequences' own names; those of the files where these are the same."""
    first, second = (data.sample_names[0] for data in pairs)
    if first == second:
        return str(inputs[0]), str(inputs[-1])
    return first, second


def _model_names(paths: list[Path]) -> tuple[str, str]:
    """Return the models' file names; the whole paths where these are the same."""
    first, second = paths
    if first.name == second.name:
        return str(first), str(second)
    return first.name, second.name


def _as_json(page: Comparison) -> dict[str, Any]:
    from ..reports.prediction import explained_name

    change = page.change
    return {
        "compared": change.kind,
        "names": list(page.names),
        "explained": explained_name(change.second, 0),
        "predictions": [float(found.prediction[0]) for found in (change.first, change.second)],
        "difference": change.difference,
        "method": change.second.method,
        "shared_out_by": None if page.direct is None else page.direct.method,
        "reasons": [{"name": name, "effect": size, "text": text} for size, _, name, text in page.rows()],
        "features": [
            {"name": row.name, "first": row.first, "second": row.second, "difference": row.difference}
            for row in change.features()
        ],
        "checks": [{"name": check.name, "passed": check.passed, "text": check.text} for check in page.checks()],
    }


def _print(page: Comparison) -> None:
    """Print what changed, why, and what asks for care."""
    out = console()
    out.print(plain(page.headline), style="bold")
    out.print(hanging([(amount, f"{name} {text}") for _, amount, name, text in page.rows()], justify="right"))
    for check in page.checks():
        if not check.passed:
            out.print(plain(f"Read with care: {check.text}"))
