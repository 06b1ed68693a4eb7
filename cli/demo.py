"""`gatelens demo`: from a glucose monitor's last two hours to a page that tells why; by name, the other stories."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import JSON, console, explain_sequences, plain, print_json, say

if TYPE_CHECKING:
    from ..explainers import Attribution
    from ..models import SequenceData

FOLDER = "gatelens-demo"
STORIES = {
    "glucose": "from 24 readings, 5 minutes apart, will glucose fall, stay or rise within 30 minutes?",
    "glucose-forecast": "how high will glucose be in 30 minutes?",
    "language": "from its letters, which of twelve languages is a name in?",
    "stocks": "from 30 days of returns, will the next five days be more volatile than usual?",
    "weather": "which weather was written down, and since when does the record not mean what it did?",
    "digits": "which digit is this, read row by row?",
}
NAME = Annotated[str, typer.Argument(help=f"Story: {', '.join(STORIES)}.")]
OUT = Annotated[
    Path | None,
    typer.Option("--out", "-o", help=f"HTML file to write; else {FOLDER}/report.html, or {FOLDER}/NAME.html."),
]

# Three windows of the held-out weeks: a clear fall, a clear rise, and one the model is unsure of and gets wrong.
ENDS = ("2010-10-05 18:03", "2010-09-24 07:24", "2010-09-17 09:38")


def demo(name: NAME = "glucose", out: OUT = None, json: JSON = False) -> None:
    """Explain real predictions of a trained model, and write the page."""
    if name in STORIES:
        say(f"{name}: {STORIES[name]}")  # at once: torch takes seconds to import
    from ..models import InvalidInputError
    from ..models.errors import nearest_name

    if name not in STORIES:
        raise InvalidInputError(f"there is no demo {name!r}; {nearest_name(name, list(STORIES))}")
    path = out or Path(FOLDER) / ("report.html" if name == "glucose" else f"{name}.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"--out is {path}; expected a name that ends in .html, e.g. demo.html.")
    (_glucose if name == "glucose" else _told)(name, path, json=json)


def _told(name: str, path: Path, *, json: bool) -> None:
    """Run a story's own script, which prints what it finds and ends with its page."""
    from contextlib import redirect_stdout
    from importlib import import_module

    script = import_module(f"gatelens.examples.explain_{name.replace('-', '_')}")
    with redirect_stdout(sys.stderr if json else sys.stdout):
        script.main(path)
    if json:
        print_json({"report": str(path.resolve())})


def _glucose(_name: str, out: Path, *, json: bool) -> None:
    """Explain three glucose predictions."""
    from ..examples.glucose import data_path, model_path
    from ..explainers import DEFAULT_METHODS
    from ..models import load
    from ..reports import Report

    model = load(model_path())
    data = _joined([_window(model, data_path(), end) for end in ENDS])
    found = explain_sequences(model, data, list(DEFAULT_METHODS))
    command = "gatelens demo"
    path = Report(found, model=model, title="gatelens demo: glucose", command=command).save(out)
    rows = [_row(found, sample) for sample in range(len(data))]
    if json:
        print_json({"report": str(path.resolve()), "predictions": rows})
        return
    _print(rows)
    sys.stdout.write(f"Open {path.resolve()}\n")


def _window(model: Any, path: Path, end: str) -> SequenceData:
    """Return the window that ends at `end`, without notes on the cleaning (the data page tells them)."""
    from ..models import read_csv

    return read_csv(path, model.data, end=end)


def _joined(parts: list[SequenceData]) -> SequenceData:
    import numpy as np

    from ..models import SequenceData

    return SequenceData(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        tuple(name for part in parts for name in part.sample_names),
        np.concatenate([part.times for part in parts if part.times is not None]),
        np.concatenate([part.rows for part in parts]),
    )


def _row(found: dict[str, Attribution], sample: int) -> dict[str, Any]:
    from ..reports import narrate
    from ..reports.prediction import class_probabilities

    narrative = narrate(found, sample)
    primary = found[narrative.primary]
    probabilities = class_probabilities(primary, sample)
    assert probabilities is not None  # the demo's model knows classes
    reason = narrative.reasons[0]
    return {
        "window_until": primary.sample_names[sample],
        "predicted": probabilities[0][0],
        "probability": round(probabilities[0][1], 4),
        "main_reason": f"{reason.name} {reason.effect_text}",
        "main_reason_in_words": f"{reason.name} {reason.text}",
        "checks_passed": narrative.passed,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from ..reports.wording import percent

    table = Table(box=None, pad_edge=False)
    for title in ("Two hours until", "Predicted", "Main reason", "Checks"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        checks = "passed" if row["checks_passed"] else "read with care"
        predicted = f"{row['predicted']}, {percent(row['probability'])}"
        table.add_row(row["window_until"], plain(predicted), plain(row["main_reason"]), checks)
    console().print(table)
