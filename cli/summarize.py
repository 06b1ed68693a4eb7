"""`gatelens summarize`: what a model goes by over many sequences of a CSV, or over a store, on one HTML page."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
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
from .stored_samples import LABELS, labels_of, refuse_beside_store, refuse_unknown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..explainers import Attribution
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
        help="Column whose values are groups to compare, read in the row of each sequence's last timestep (of a store: "
        "in --labels); repeat for several.",
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
    Path,
    typer.Option(
        "--input",
        "-i",
        help="CSV or Parquet file: one row a timestep, or a text with --text-column. Or a store of attributions "
        "(.zarr), whose samples are explained already.",
    ),
]
STRETCHES = 200  # of a long series
MOST_EXPLAINED = 1000
MOST = Annotated[
    int | None,
    typer.Option(
        "--max-samples",
        help=f"Sequences to explain; of more, so many are drawn. Default: {MOST_EXPLAINED}, and all of a store.",
    ),
]


@dataclass(frozen=True)
class _Samples:
    """What the page is made of: some of `of` samples, (n,) values of each column, and which belong together."""

    attribution: Attribution
    of: int
    columns: dict[str, Any]
    together: Any
    notes: list[str]


def summarize(
    model: MODEL,
    input: INPUT,  # noqa: A002 - the option is called --input
    text_column: TEXT_COLUMN = None,
    out: OUT = Path("summary.html"),
    by: BY = None,
    truth: TRUTH = None,
    labels: LABELS = None,
    max_samples: MOST = None,
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
    from ..reports import GlobalReport

    if out.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"--out is {out}; expected a name that ends in .html, e.g. summary.html.")
    if max_samples is not None and max_samples < 1:
        raise InvalidInputError(f"--max-samples is {max_samples}; expected 1 or more.")
    loaded = read_model(model, task=task, pooling=pooling)
    named = ({} if truth is None else {truth: "--truth"}) | dict.fromkeys(by or (), "--by")
    stored = input.suffix == ".zarr" or input.is_dir()
    if stored:
        explaining = {
            "--method": method, "--target": target, "--timestep": timestep, "--baseline": baseline, "--output": output,
            "--text-column": text_column, "--window": window, "--windows": None if windows == "all" else windows,
            "--stride": None if stride == 1 else stride,
        }  # fmt: skip
        refuse_beside_store([name for name, value in explaining.items() if value is not None], input)
        samples = _of_store(input, labels, named, id_column, max_samples, seed)
    else:
        if labels is not None:
            raise InvalidInputError(
                f"--labels goes with a store of attributions; {input} is a table, which itself holds such columns."
            )
        given = {"text_column": text_column, "window": window, "windows": windows, "stride": stride,
                 "id_column": id_column}  # fmt: skip
        explained = {"target": target, "timestep": timestep, "baseline": baseline, "output": output, "seed": seed}
        samples = _of_table(
            loaded, input, named, given, [method or fast_method(loaded)], explained, max_samples or MOST_EXPLAINED
        )
    page = GlobalReport(
        samples.attribution,
        model=loaded,
        truth=None if truth is None else samples.columns[truth],
        groups={name: samples.columns[name] for name in by or ()} or None,
        together=samples.together,
        title=title,
        redact=redact,
        command=command_line("summarize", redact=redact, given="STORE" if stored else "CSV"),
        notes=samples.notes,
    )
    path = page.save(out)
    if json:
        count = len(samples.attribution)
        print_json({"report": str(path), "samples": count, "of": samples.of, **_as_json(page)})
        return
    _print(page)
    say(f"wrote {path}")


def _of_table(
    model: SequenceModel, path: Path, columns: dict[str, str], given: dict[str, Any], methods: list[str],
    explained: dict[str, Any], most: int,
) -> _Samples:  # fmt: skip
    """Explain the sequences of a table, or so many of them."""
    from ..models.table import read_table

    frame = read_table(path)
    refuse_unknown(columns, frame, path)
    id_column = given["id_column"]
    _leave_out(model, frame, list(columns), path, id_column)
    data = given_sequences(model, path, None, **given)
    assert data.table_rows is not None  # of a table
    rows = data.table_rows
    drawn, notes = draw(len(data), most, explained["seed"])
    found = explain_sequences(model, data.take(drawn), methods, **explained)
    return _Samples(
        next(iter(found.values())),
        len(data),
        {name: frame[name].to_numpy(dtype=object)[rows[drawn]] for name in columns},
        _together(frame, model, data, rows, id_column, drawn),
        notes,
    )


def _of_store(
    path: Path, labels: Path | None, columns: dict[str, str], id_column: str | None, most: int | None, seed: int
) -> _Samples:
    """Open a store's explained samples, or so many of them; they stay on disk."""
    from ..explainers import Attribution
    from ..models import InvalidInputError
    from ..reports.overview_words import missing_notes

    found = Attribution.open(path)
    needed = ({} if id_column is None else {id_column: "--id-column"}) | columns
    values: dict[str, Any] = {}
    notes: list[str] = []
    if labels is not None:
        frame, notes = labels_of(found, path, labels)
        refuse_unknown(needed, frame, labels)
        values = {name: frame[name].to_numpy(dtype=object) for name in needed}
    elif needed:
        name, option = next(iter(needed.items()))
        raise InvalidInputError(
            f"{option} is {name!r}, and a store of attributions has no such columns; name a table with --labels: one "
            "row a sample, with the samples' names in a column 'sample', or in the store's order."
        )
    rows, drawn = draw(len(found), len(found) if most is None else most, seed)
    whole = found
    if drawn:
        shown = f"Shown are {len(rows):,} of {len(whole):,} samples, drawn at random (seed {seed})."
        notes = [*notes, *missing_notes(whole), shown]
        found = Attribution(found.dataset.isel(sample=rows).assign_attrs(samples_failed=0, samples_waiting=0))
    values = {name: column[rows] for name, column in values.items()}
    return _Samples(found, len(whole), values, None if id_column is None else values[id_column].astype(str), notes)


def fast_method(model: SequenceModel) -> str:
    """Return the quickest method that adds up on a model: DeepLIFT where it can open it."""
    from ..models import LSTMModel

    return "deeplift" if isinstance(model, LSTMModel) else "integrated_gradients"


def command_line(name: str, *, redact: bool, given: str = "CSV") -> str:
    """Return the command for a page's own record; a redacted page names no files and no columns."""
    if redact:
        return f"gatelens {name} MODEL --input {given} --redact"
    return shlex.join(["gatelens", *sys.argv[1:]])


def draw(count: int, most: int, seed: int) -> tuple[NDArray[np.int64], list[str]]:
    """Return which of `count` sequences are explained, in their order, and what the page says about it."""
    import numpy as np

    if count <= most:
        return np.arange(count), []
    drawn = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    return drawn, [f"Explained are {most:,} of {count:,} sequences, drawn at random (seed {seed})."]


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
