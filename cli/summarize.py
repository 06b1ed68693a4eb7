"""`gatelens summarize`: what a model goes by over many sequences of a CSV, on one HTML page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
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
    STRIDE,
    TARGET,
    TASK,
    TIMESTEP,
    WINDOW,
    WINDOWS,
    explain_sequences,
    print_json,
    read_model,
    say,
)
from .report import REDACT, TITLE
from .sequences import TEXT_COLUMN, given_sequences, with_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..models import SequenceData, SequenceModel
    from ..reports import GlobalReport

OUT = Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")]
METHOD = Annotated[
    str | None,
    typer.Option("--method", "-m", help="Explainer to use; else deeplift, or integrated_gradients for Keras files."),
]
BY = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        help="Column whose values are groups to compare, read in the row of each sequence's last timestep; repeat for "
        "several.",
    ),
]
TRUTH = Annotated[
    str | None,
    typer.Option(
        help="Column with what came true (a class's name or number, or the number), read in the same row; adds how "
        "right the predictions are. An empty cell is not known."
    ),
]
INPUT = Annotated[
    Path, typer.Option("--input", "-i", help="CSV or Parquet file: one row a timestep, or a text with --text-column.")
]
STRETCHES = 200  # of a long series
MOST = Annotated[int, typer.Option("--max-samples", help="Sequences to explain; of more, so many are drawn.")]


def summarize(
    model: MODEL,
    input: INPUT,  # noqa: A002 - the option is called --input
    text_column: TEXT_COLUMN = None,
    out: OUT = Path("summary.html"),
    by: BY = None,
    truth: TRUTH = None,
    max_samples: MOST = 1000,
    method: METHOD = None,
    target: TARGET = None,
    timestep: TIMESTEP = None,
    baseline: BASELINE = None,
    output: OUTPUT = None,
    window: WINDOW = None,
    windows: WINDOWS = "all",
    stride: STRIDE = 1,
    id_column: ID_COLUMN = None,
    title: TITLE = None,
    redact: REDACT = False,
    task: TASK = None,
    pooling: POOLING = None,
    seed: SEED = 0,
    json: JSON = False,
) -> None:
    """Explain many predictions on one HTML page: what mattered, groups side by side, unusual cases."""
    from ..models import InvalidInputError
    from ..models.table import read_table
    from ..reports import GlobalReport

    if out.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"--out is {out}; expected a name that ends in .html, e.g. summary.html.")
    if max_samples < 1:
        raise InvalidInputError(f"--max-samples is {max_samples}; expected 1 or more.")
    loaded = read_model(model, task=task, pooling=pooling)
    frame = read_table(input)
    columns = _known_columns(frame, by or (), truth, input)
    _leave_out(loaded, frame, columns, input, id_column)
    data = given_sequences(
        loaded, input, None, text_column=text_column, window=window, windows=windows, stride=stride, id_column=id_column
    )  # fmt: skip
    assert data.table_rows is not None  # of a table
    rows = data.table_rows
    drawn, notes = draw(len(data), max_samples, seed)
    found = explain_sequences(
        loaded, data.take(drawn), [method or fast_method(loaded)], target=target, timestep=timestep,
        baseline=baseline, output=output, seed=seed,
    )  # fmt: skip
    values = {name: frame[name].to_numpy(dtype=object)[rows[drawn]] for name in columns}
    page = GlobalReport(
        next(iter(found.values())),
        model=loaded,
        truth=None if truth is None else values[truth],
        groups={name: values[name] for name in by or ()} or None,
        together=_together(frame, loaded, data, rows, id_column, drawn),
        title=title,
        redact=redact,
        command=command_line("summarize", redact=redact),
        notes=notes,
    )
    path = page.save(out)
    if json:
        print_json({"report": str(path), "samples": len(drawn), "of": len(data), **_as_json(page)})
        return
    _print(page)
    say(f"wrote {path}")


def fast_method(model: SequenceModel) -> str:
    """Return the quickest method that adds up on a model: DeepLIFT where it can open it."""
    from ..models import LSTMModel

    return "deeplift" if isinstance(model, LSTMModel) else "integrated_gradients"


def command_line(name: str, *, redact: bool) -> str:
    """Return the command for a page's own record; a redacted page names no files and no columns."""
    if redact:
        return f"gatelens {name} MODEL --input CSV --redact"
    return shlex.join(["gatelens", *sys.argv[1:]])


def draw(count: int, most: int, seed: int) -> tuple[NDArray[np.int64], list[str]]:
    """Return which of `count` sequences are explained, in their order, and what the page says about it."""
    import numpy as np

    if count <= most:
        return np.arange(count), []
    drawn = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    return drawn, [f"Explained are {most:,} of {count:,} sequences, drawn at random (seed {seed})."]


def _known_columns(frame: pd.DataFrame, by: Sequence[str], truth: str | None, path: Path) -> list[str]:
    """Return the columns asked for; refuse those that are not in the table."""
    from ..models import InvalidInputError
    from ..models.errors import nearest_name

    columns = list(dict.fromkeys([*by, *([] if truth is None else [truth])]))
    present = [str(name) for name in frame.columns]
    for name in columns:
        if name not in present:
            option = "--by" if name in by else "--truth"
            raise InvalidInputError(f"{path} has no column {name!r} for {option}; {nearest_name(name, present)}")
    return columns


def _leave_out(
    model: SequenceModel, frame: pd.DataFrame, columns: list[str], path: Path, id_column: str | None
) -> None:
    """Tell a model that names no features that groups and truth are none."""
    from ..models import DataSpec

    spec = model.data or DataSpec()
    if columns and not spec.features and spec.vocabulary is None and not model.config.reads_tokens:
        model.data = with_columns(spec, model, frame.drop(columns=columns), path, id_column)


def _together(
    frame: pd.DataFrame,
    model: SequenceModel,
    data: SequenceData,
    rows: NDArray[np.int64],
    id_column: str | None,
    drawn: NDArray[np.int64],
) -> Any:
    """Return which sequences are no independent evidence, (n,): those of one id; of one series those of one stretch.

    Windows of a series that share rows are not independent, and neighbouring ones hardly. A stretch is as long as
    leaves `STRETCHES` of them, and at least a window.
    """
    if id_column is not None:
        return frame[id_column].astype(str).to_numpy()[rows[drawn]]
    window = (model.data.window.length if model.data is not None else None) or 1
    return data.rows[drawn] // max(window, len(frame) // STRETCHES)


def _as_json(page: GlobalReport) -> dict[str, Any]:
    from ..reports.overview_words import completeness_of_all

    overview = page.overview
    check = completeness_of_all(page.attribution)
    features = {
        overview.names[feature]: {
            "share": float(overview.shares[feature]),
            "mean_size": float(overview.sizes[:, feature].mean()),
            "mean_effect": float(overview.net[:, feature].mean()) if overview.signed else None,
        }
        for feature in overview.order
    }
    return {
        "method": page.attribution.method,
        "explained": list(overview.explained_names),
        "predicted": overview.predicted or None,
        "features": features,
        "complete": check.passed,
        "performance": None if page.performance is None else page.performance.sentences(),
        "groups": {entry.grouping.name: entry.to_dict() for entry in page.groups},
    }


def _print(page: GlobalReport) -> None:
    """Print what mattered, and what differs between groups."""
    from .common import console, plain

    out = console()
    for sentence in page.sentences():
        out.print(plain(sentence))
