"""`gatelens demo`: from a glucose monitor's last two hours to a page that tells why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import JSON, console, explain_sequences, plain, print_json, say

if TYPE_CHECKING:
    from ..explainers import Attribution
    from ..models import SequenceData

OUT = Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")]

# Three windows of the held-out weeks: a clear fall, a clear rise, and one the model is unsure of and gets wrong.
ENDS = ("2010-10-05 18:03", "2010-09-24 07:24", "2010-09-17 09:38")


def demo(out: OUT = Path("gatelens-demo/report.html"), json: JSON = False) -> None:
    """Explain three real glucose predictions and write the page."""
    say("Glucose model: from 24 readings, 5 minutes apart, will glucose fall, stay or rise within 30 minutes?")
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
