"""`gatelens inspect`: what a saved model is, and what its gates do on data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    ID_COLUMN,
    JSON,
    MODEL,
    POOLING,
    STRIDE,
    TASK,
    console,
    plain,
    print_json,
    read_model,
    read_sequences,
    say,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..models import LayerStatistics, SequenceModel
    from ..reports.model_card import ModelCard

INPUT = Annotated[Path | None, typer.Option("--input", "-i", help="CSV; adds what the gates do on all its windows.")]


def inspect(
    model: MODEL,
    input: INPUT = None,  # noqa: A002 - the option is called --input
    stride: STRIDE = 1,
    id_column: ID_COLUMN = None,
    task: TASK = None,
    pooling: POOLING = None,
    json: JSON = False,
) -> None:
    """Show what a saved model is and how good; with a CSV, what its gates do there."""
    from ..reports import describe

    loaded = read_model(model, task=task, pooling=pooling, quiet=True)
    card = describe(loaded)
    statistics = None if input is None else _statistics(loaded, input, stride, id_column)
    if json:
        gates = None if statistics is None else {name: found.to_dict() for name, found in statistics.items()}
        print_json({**asdict(card), "gates": gates})
        return
    out = console()
    _print_card(out, card)
    if statistics is None:
        say("Add --input CSV to see what the gates do on data.")
    else:
        _print_statistics(out, loaded, statistics)


def _statistics(model: SequenceModel, path: Path, stride: int, id_column: str | None) -> dict[str, LayerStatistics]:
    from ..models import gate_statistics

    data = read_sequences(model, path, windows="all", stride=stride, id_column=id_column)
    return gate_statistics(model, data.inputs, lengths=data.lengths)


def _print_card(out: Console, card: ModelCard) -> None:
    from rich.markup import escape
    from rich.table import Table

    about = Table(box=None, show_header=False, pad_edge=False)
    about.add_column(style="bold", no_wrap=True)
    about.add_column()
    for label, text in card.rows:
        about.add_row(label, plain(text))
    out.print(about)
    told = (("Found in the file", card.found), ("Assumed", card.assumed), ("Not taken over", card.left_out))
    for title, sentences in told:
        if sentences:
            out.print(f"\n[bold]{title}[/bold]")
            for sentence in sentences:
                out.print(plain(f"- {sentence}"))
    out.print("\n[bold]Layers[/bold]")
    layers = Table("Name", "Kind", "Reads", "Gives", "Parameters", box=None, pad_edge=False)
    for name, kind, reads, gives, count in card.layers:
        layers.add_row(*(plain(cell) for cell in (name, kind, reads, gives, f"{count:,}")))
    out.print(layers)
    if card.features:
        out.print("\n[bold]Features[/bold]")
        features = Table("Name", "Unit", "Made from", "Center", "Scale", box=None, pad_edge=False)
        for name, unit, made, center, scale in card.features:
            features.add_row(*(plain(cell) for cell in (name, unit, made, f"{center:g}", f"{scale:g}")))
        out.print(features)
    if card.metrics:
        out.print("\n[bold]On held-out data[/bold]")
        names = list(dict.fromkeys(metric for row in card.metrics.values() for metric in row))
        metrics = Table("", *(escape(name.replace("_", " ")) for name in names), box=None, pad_edge=False)
        for name, row in card.metrics.items():
            metrics.add_row(
                plain(name.replace("_", " ")), *(f"{row[metric]:.3f}" if metric in row else "" for metric in names)
            )
        out.print(metrics)


def _print_statistics(out: Console, model: SequenceModel, statistics: dict[str, LayerStatistics]) -> None:
    from rich.table import Table

    from ..reports.gate_words import gate_sentences, steps_words
    from ..reports.wording import percent

    count = next(iter(statistics.values())).timesteps
    out.print(f"\n[bold]Gates on this data[/bold] ({count:,} timesteps; share of saturated gates)")
    table = Table(
        "Layer", "Input", "Forget", "Candidate", "Output", "Memory half-life", "Dead units",
        box=None, pad_edge=False,
    )  # fmt: skip
    for name, found in statistics.items():
        shares: list[Any] = [plain(percent(share)) for share in found.saturated_share.values()]
        half_life = plain(steps_words(found.mean_half_life))
        table.add_row(plain(name), *shares, half_life, f"{len(found.resting_units)} of {len(found.unit_ranges)}")
    out.print(table)
    interval = model.data.window.interval_seconds if model.data is not None else None
    for name, found in statistics.items():
        out.print(plain(f"\n{name}"), style="bold")
        for sentence in gate_sentences(found, interval=interval):
            out.print(plain(sentence))
