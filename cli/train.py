"""`gatelens train`: from a table to a saved model that knows what its numbers mean and how good it is."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import ID_COLUMN, JSON, console, plain, print_json, say

if TYPE_CHECKING:
    from ..models.recipe import Recipe, Trained

CONFIG = Annotated[
    Path | None,
    typer.Argument(
        help="TOML file with the tables [data], [model] and [training]; options stand instead of its entries."
    ),
]
OUT = Annotated[Path, typer.Option("--out", "-o", help="Folder for the model; its training curves go beside it.")]
INPUT = Annotated[Path | None, typer.Option("--input", "-i", help="CSV or Parquet file, one row a timestep.")]
TARGET = Annotated[
    list[str] | None, typer.Option("--target", "-t", help="Column to predict; repeat for several numbers at once.")
]
FEATURE = Annotated[
    list[str] | None, typer.Option("--feature", help="Column to read; repeat. Else all number columns.")
]
WINDOW = Annotated[int | None, typer.Option(help="Rows of one window; else all rows of an id are one sequence.")]
HORIZON = Annotated[list[int] | None, typer.Option(help="The target stands so many rows after the window; repeat.")]
TIME_COLUMN = Annotated[str | None, typer.Option(help="Column with the time of each row.")]
MISSING = Annotated[
    str | None, typer.Option(help='Missing numbers: "refuse" (default), "drop" rows, "hold" the last, "interpolate".')
]
SCALING = Annotated[str | None, typer.Option(help='"standard" (default), "minmax" or "none".')]
SPLIT = Annotated[str | None, typer.Option(help='"chronological" (default), "random" or "grouped" (by id).')]
STRIDE = Annotated[int | None, typer.Option(help="Rows from one window to the next.")]
TEXT_COLUMN = Annotated[str | None, typer.Option(help="Column with one text a row, to learn from texts.")]
UNIT = Annotated[str | None, typer.Option(help='What a token of a text is: "character" (default) or "word".')]
KIND = Annotated[str | None, typer.Option("--kind", help='Model: "lstm" (default) or "retain".')]
HIDDEN = Annotated[str | None, typer.Option(help="Units of each LSTM layer, e.g. 64 or 64,32.")]
POOLING = Annotated[
    str | None, typer.Option(help='What the head reads: "last" (default), "mean", "max", "attention", "dot_attention".')
]
EPOCHS = Annotated[int | None, typer.Option(help="At most so many passes over the training part.")]
BATCH = Annotated[int | None, typer.Option(help="Sequences a step.")]
RATE = Annotated[float | None, typer.Option(help="Learning rate.")]
PATIENCE = Annotated[int | None, typer.Option(help="Stop after so many epochs without a lower validation loss.")]
BALANCED = Annotated[bool, typer.Option("--balanced", help="Let rare classes weigh as much as frequent ones.")]
CHECKPOINT = Annotated[Path | None, typer.Option(help="Folder from which a killed training goes on.")]
SEED = Annotated[int | None, typer.Option(help="Seed of the split, the first weights and the training.")]


def train(
    config: CONFIG = None,
    out: OUT = Path("model"),
    input: INPUT = None,  # noqa: A002 - the option is called --input
    target: TARGET = None,
    feature: FEATURE = None,
    window: WINDOW = None,
    horizon: HORIZON = None,
    time_column: TIME_COLUMN = None,
    id_column: ID_COLUMN = None,
    missing: MISSING = None,
    scaling: SCALING = None,
    split: SPLIT = None,
    stride: STRIDE = None,
    text_column: TEXT_COLUMN = None,
    unit: UNIT = None,
    kind: KIND = None,
    hidden: HIDDEN = None,
    pooling: POOLING = None,
    epochs: EPOCHS = None,
    batch_size: BATCH = None,
    learning_rate: RATE = None,
    patience: PATIENCE = None,
    balanced: BALANCED = False,
    checkpoint: CHECKPOINT = None,
    seed: SEED = None,
    json: JSON = False,
) -> None:
    """Train a model on a table (options change what a config file says), measure it and save it."""
    from ..models.saved import check_destination

    changes = {
        "data": _given(
            input=None if input is None else str(input), target=_one(target), features=feature, window=window,
            horizon=_one(horizon), time_column=time_column, id_column=id_column, missing=missing, scaling=scaling,
            split=split, stride=stride, text_column=text_column, unit=unit, seed=seed,
        ),
        "model": _given(kind=kind, hidden_sizes=_sizes(hidden), pooling=pooling),
        "training": _given(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, patience=patience, seed=seed,
            class_weights="balanced" if balanced else None,
        ),
    }  # fmt: skip
    recipe = _recipe(config, changes)
    folder = check_destination(out)
    found = recipe.run(progress=not json, checkpoint=checkpoint, told=lambda note: say(f"note: {note}"))
    found.model.data = _with_command(found)
    found.model.save(folder)
    curves = _draw(found, folder)
    if json:
        print_json({
            "model": str(folder), "curves": str(curves), "metrics": found.metrics.to_dict(),
            "measured_on": found.measured_on, "epochs": len(found.history), "best_epoch": found.history.best_epoch,
            "stopped": found.history.stopped, "seconds": round(found.history.seconds, 2),
            "notes": list(found.prepared.notes),
        })  # fmt: skip
        return
    _print(found, folder, curves, recipe)


def _recipe(config: Path | None, changes: dict[str, dict[str, Any]]) -> Recipe:
    from ..models import InvalidInputError
    from ..models.recipe import Recipe

    if config is not None:
        return Recipe.read(config, **changes)
    for name, option in (("input", "--input"), ("target", "--target")):
        if name not in changes["data"]:
            raise InvalidInputError(
                f"{option} is missing; name a config file, or give at least --input FILE, --target COLUMN and --window "
                "ROWS (or --text-column)."
            )
    return Recipe(**changes)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _one(values: list[Any] | None) -> Any:
    """Return the one value of an option that may be repeated, or all of several."""
    return values[0] if values is not None and len(values) == 1 else values


def _sizes(text: str | None) -> list[int] | None:
    from ..models import InvalidInputError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"--hidden is {text!r}; expected numbers of units, e.g. 64 or 64,32.") from None


def _with_command(found: Trained) -> Any:
    from dataclasses import replace

    data = found.model.data
    assert data is not None  # run gives it
    return replace(data, provenance={**data.provenance, "script": shlex.join(["gatelens", *sys.argv[1:]])})


def _draw(found: Trained, folder: Path) -> Path:
    from ..models.files import replacing_file
    from ..reports.training_plots import plot_training

    path = folder.with_name(f"{folder.name}-training.svg")
    with replacing_file(path) as beside:
        plot_training(found.history).savefig(beside, format="svg")
    return path


def _print(found: Trained, folder: Path, curves: Path, recipe: Recipe) -> None:
    from rich.table import Table

    history, metrics = found.history, found.metrics
    why = {"patience": "stopped early: the validation loss got no lower", "epochs": "all epochs done"}
    held = "" if not history.validation_loss else ", the lowest validation loss"
    sys.stdout.write(
        f"{len(history)} epochs in {history.seconds:.0f} s ({why.get(history.stopped, history.stopped)}); "
        f"the model has the weights of epoch {history.best_epoch}{held}\n\n"
    )
    columns = metrics.columns
    table = Table(box=None, pad_edge=False)
    table.add_column(f"On the {found.measured_on} part", no_wrap=True)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for name, row in metrics.rows.items():
        table.add_row(plain(name.replace("_", " ")), *(f"{row[c]:.4g}" if c in row else "" for c in columns))
    console().print(table)
    source = str(recipe.data["input"])
    text = "--text 'a new text'" if found.prepared.spec.token_unit else f"--input {shlex.quote(source)}"
    following = f"gatelens report {shlex.quote(str(folder))} {text}"  # whole, to be copied: nothing wraps or cuts it
    sys.stdout.write(f"\nmodel   {folder}\ncurves  {curves}\nnext    {following}\n")
