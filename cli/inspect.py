"""`gatelens inspect`: what a saved model is, and what its gates do on data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    CHANGE_ASSUMED,
    ID_COLUMN,
    JSON,
    MODEL,
    POOLING,
    STRIDE,
    TASK,
    WINDOW,
    console,
    hanging,
    plain,
    print_json,
    read_model,
    say,
)
from .sequences import read_sequences

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..models import LayerStatistics, SequenceModel
    from ..reports.model_card import ModelCard

INPUT = Annotated[Path | None, typer.Option("--input", "-i", help="CSV; adds what the gates do on all its windows.")]


def inspect(
    model: MODEL,
    input: INPUT = None,  # noqa: A002 - the option is called --input
    window: WINDOW = None,
    stride: STRIDE = 1,
    id_column: ID_COLUMN = None,
    task: TASK = None,
    pooling: POOLING = None,
    json: JSON = False,
) -> None:
    """Show what a saved model is and how good; with a CSV, what its gates do there."""
    from ..models import gate_statistics
    from ..models.recorder import lstm_modules
    from ..reports import describe

    loaded = read_model(model, task=task, pooling=pooling, quiet=True)
    card = describe(loaded)
    data = None
    statistics: dict[str, LayerStatistics] = {}
    if input is not None:
        data = read_sequences(loaded, input, windows="all", window=window, stride=stride, id_column=id_column)
        if lstm_modules(loaded):
            statistics = gate_statistics(loaded, data.inputs, lengths=data.lengths)
    if json:
        gates = None if data is None else {name: found.to_dict() for name, found in statistics.items()}
        print_json({**asdict(card), "sequences": None if data is None else len(data), "gates": gates})
        return
    out = console()
    _print_card(out, card)
    if data is None:
        say("Add --input CSV to see what the gates do on data.")
    elif not statistics:
        say("The model holds no LSTM, so there are no gates to show.")
    else:
        _print_statistics(out, loaded, statistics, sequences=len(data))


def _print_card(out: Console, card: ModelCard) -> None:
    from rich.markup import escape
    from rich.table import Table

    about = Table(box=None, show_header=False, pad_edge=False)
    about.add_column(style="bold", no_wrap=True)
    about.add_column()
    for label, text in card.rows:
        about.add_row(label, plain(text))
    out.print(about)
    told = (
        ("Found in the file", card.found),
        (f"Assumed ({CHANGE_ASSUMED})", card.assumed),
        ("Not taken over", card.left_out),
    )
    for title, sentences in told:
        if sentences:
            out.print(f"\n[bold]{title}[/bold]")
            out.print(hanging([("-", sentence) for sentence in sentences]))
    out.print("\n[bold]Layers[/bold]")
    layers = _table("Name", "Kind", numbers=("Reads", "Gives", "Parameters"))
    for name, kind, reads, gives, count in card.layers:
        layers.add_row(*(plain(cell) for cell in (name, kind, reads, gives, f"{count:,}")))
    out.print(layers)
    if card.features:
        out.print("\n[bold]Features[/bold]")
        features = _table("Name", "Unit", "Made from", numbers=("Center", "Scale"))
        for name, unit, made, center, scale in card.features:
            features.add_row(*(plain(cell) for cell in (name, unit, made, f"{center:g}", f"{scale:g}")))
        out.print(features)
    if card.metrics:
        out.print("\n[bold]On held-out data[/bold]")
        names = list(dict.fromkeys(metric for row in card.metrics.values() for metric in row))
        metrics = _table("", numbers=tuple(escape(name.replace("_", " ")) for name in names))
        for name, row in card.metrics.items():
            metrics.add_row(
                plain(name.replace("_", " ")), *(f"{row[metric]:.3f}" if metric in row else "" for metric in names)
            )
        out.print(metrics)


def _table(*titles: str, numbers: tuple[str, ...]) -> Table:
    """Return an empty table: columns of words, then columns of numbers, which end below one another."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right", overflow="fold")
    return table


def _print_statistics(
    out: Console, model: SequenceModel, statistics: dict[str, LayerStatistics], *, sequences: int
) -> None:
    from ..reports.gate_words import dead_words, gate_sentences, steps_count
    from ..reports.wording import percent

    count = next(iter(statistics.values())).timesteps
    out.print("\n[bold]Gates on this data[/bold]")
    out.print(f"{sequences:,} sequence{'' if sequences == 1 else 's'}, {count:,} timestep{'' if count == 1 else 's'}; "
              "for each gate the share of saturated values")  # fmt: skip
    table = _table("Layer", numbers=("Input", "Forget", "Candidate", "Output", "Half-life\n(timesteps)", "Dead\nunits"))
    for name, found in statistics.items():
        shares: list[Any] = [plain(percent(share)) for share in found.saturated_share.values()]
        table.add_row(plain(name), *shares, plain(steps_count(found.mean_half_life)), plain(dead_words(found)))
    out.print(table)
    interval = model.data.window.interval_seconds if model.data is not None else None
    for name, found in statistics.items():
        out.print(plain(f"\n{name}"), style="bold")
        for sentence in gate_sentences(found, interval=interval):
            out.print(plain(sentence))
