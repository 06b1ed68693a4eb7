"""`gatelens evaluate`: which explainer to rely on for a model and its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    BASELINE,
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
    console,
    plain,
    print_json,
    read_model,
    say,
    warm_up,
)
from .sequences import INPUT, TEXT, TEXT_COLUMN, given_sequences
from .summarize import command_line, draw

if TYPE_CHECKING:
    from ..reports.judgement import Judgement

OUT = Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")]
SAMPLES = Annotated[int, typer.Option("--samples", help="Predictions to judge by; of more, so many are drawn.")]


def evaluate(
    model: MODEL,
    input: INPUT = None,  # noqa: A002 - the option is called --input
    text: TEXT = None,
    text_column: TEXT_COLUMN = None,
    out: OUT = Path("evaluation.html"),
    samples: SAMPLES = 20,
    method: METHOD = None,
    target: TARGET = None,
    timestep: TIMESTEP = None,
    baseline: BASELINE = None,
    output: OUTPUT = None,
    window: WINDOW = None,
    stride: STRIDE = 1,
    id_column: ID_COLUMN = None,
    task: TASK = None,
    pooling: POOLING = None,
    seed: SEED = 0,
    json: JSON = False,
) -> None:
    """Judge explainers on a model and its data: how faithful, stable, alike and costly they are, and which to use."""
    from ..models import InvalidInputError
    from ..reports.judgement import Judgement
    from ..reports.judgement_page import JudgementPage

    if out.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"--out is {out}; expected a name that ends in .html, e.g. evaluation.html.")
    if samples < 1:
        raise InvalidInputError(f"--samples is {samples}; expected 1 or more.")
    loaded = read_model(model, task=task, pooling=pooling)
    data = given_sequences(
        loaded, input, text, text_column=text_column, windows="all", window=window, stride=stride, id_column=id_column
    )
    drawn, notes = draw(len(data), samples, seed)
    found = warm_up(
        loaded, data.take(drawn), method, target=target, timestep=timestep, baseline=baseline, output=output, seed=seed
    )  # fmt: skip
    judgement = Judgement(loaded, found, seed=seed)
    page = JudgementPage(judgement, model=loaded, command=command_line("evaluate", redact=False))
    path = page.save(out)
    for note in notes:
        say(note)
    if json:
        print_json({"report": str(path), **judgement.to_dict()})
        return
    _print(judgement)
    say(f"wrote {path}")


def _print(judgement: Judgement) -> None:
    from rich.table import Table

    from ..reports.wording import number, percent

    out = console()
    headline, *told = judgement.sentences()
    out.print(plain(headline), style="bold")
    for sentence in told:
        out.print(plain(sentence))
    table = Table(box=None, pad_edge=False)
    table.add_column("\nExplainer", no_wrap=True)
    for name in (
        "\nFaithfulness",
        "95 %\ninterval",
        "Largest\ngap",
        "Another\nseed",
        "The\nothers",
        "Seconds a\nprediction",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in judgement.verdicts:
        interval = "" if verdict.interval is None else f"{verdict.interval[0]:.2f} to {verdict.interval[1]:.2f}"
        chosen = "bold" if verdict.name == judgement.recommended else ""
        table.add_row(
            plain(verdict.label),
            f"{verdict.faithfulness:.2f}",
            interval,
            "" if verdict.gap is None else percent(verdict.gap),
            f"{verdict.stability:.2f}",
            "" if verdict.agreement is None else f"{verdict.agreement:.2f}",
            number(verdict.seconds, digits=2),
            style=chosen,
        )
    table.add_row("a random order", f"{judgement.random_faithfulness:.2f}")
    out.print(table)
    out.print("Faithfulness: 1 at best, of the change from the baseline. Another seed, the others: rank correlation.")
