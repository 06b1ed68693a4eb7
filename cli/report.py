"""`gatelens report`: the HTML page for a CSV's sequences."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BASELINE,
    END,
    ID_COLUMN,
    JSON,
    METHOD,
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
    chosen_baseline,
    explain_sequences,
    print_json,
    read_model,
    say,
)
from .sequences import INPUT, TEXT, TEXT_COLUMN, given_sequences

if TYPE_CHECKING:
    from ..explainers import Attribution
    from ..models import SequenceData

MOST_OUTPUTS = 2000  # explained one by one, for a reader to pick from
OUT = Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")]
TITLE = Annotated[str | None, typer.Option(help="Title of the page.")]
REDACT = Annotated[bool, typer.Option("--redact", help="Leave raw inputs, clock times and sample names out.")]


def report(
    model: MODEL,
    input: INPUT = None,  # noqa: A002 - the option is called --input
    text: TEXT = None,
    text_column: TEXT_COLUMN = None,
    out: OUT = Path("report.html"),
    method: METHOD = None,
    target: TARGET = None,
    timestep: TIMESTEP = None,
    baseline: BASELINE = None,
    output: OUTPUT = None,
    end: END = None,
    window: WINDOW = None,
    windows: WINDOWS = "last",
    stride: STRIDE = 1,
    id_column: ID_COLUMN = None,
    title: TITLE = None,
    redact: REDACT = False,
    task: TASK = None,
    pooling: POOLING = None,
    seed: SEED = 0,
    json: JSON = False,
) -> None:
    """Explain the predictions for a table or for texts on one HTML page."""
    from ..models import InvalidInputError
    from ..reports import Report
    from ..reports.report import MOST_SAMPLES

    if out.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"--out is {out}; expected a name that ends in .html, e.g. report.html.")
    loaded = read_model(model, task=task, pooling=pooling)
    data = given_sequences(
        loaded, input, text, text_column=text_column, window=window, windows=windows, stride=stride, end=end,
        id_column=id_column,
    )  # fmt: skip
    if len(data) > MOST_SAMPLES:
        raise InvalidInputError(
            f"{input or '--text'} has {len(data)} sequences; a report shows up to {MOST_SAMPLES}. Choose fewer with "
            "--windows last, --stride or --end, or explain them all with `gatelens explain`."
        )
    found = explain_sequences(
        loaded, data, method, target=target, timestep=timestep, baseline=baseline, output=output, seed=seed
    )  # fmt: skip
    command = _command(redact=redact)
    over = _over_time(loaded, data, found, chosen_baseline(loaded, baseline))
    page = Report(found, model=loaded, title=title, redact=redact, command=command, over_time=over)
    path = page.save(out)
    if json:
        print_json({"report": str(path), "samples": len(data), "methods": list(found), "notes": page.notes})
        return
    for note in page.notes:
        say(note)
    say(f"wrote {path}")


def _over_time(model: Any, data: SequenceData, found: dict[str, Attribution], baseline: str | float) -> Any:
    """Return DeepLIFT's attributions for each output timestep, where the model has one and they are not too many."""
    from ..explainers import DeepLIFT, explain_over_time
    from ..reports.model_card import per_timestep

    primary = found.get("deeplift")
    if primary is None or not per_timestep(model.config) or len(data) * data.inputs.shape[1] > MOST_OUTPUTS:
        return None
    output = {int(value) for value in primary.dataset["target_output"].to_numpy()}
    if len(output) > 1:
        return None
    explainer = DeepLIFT(model, baseline=baseline, output=primary.attrs["output"])
    return explain_over_time(explainer, data, output=output.pop())


def _command(*, redact: bool) -> str:
    """Return the command for the page's own record; a redacted page names no files."""
    if redact:
        return "gatelens report MODEL --input CSV --redact"
    return shlex.join(["gatelens", *sys.argv[1:]])
