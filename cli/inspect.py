"""`gatelens inspect`: what a saved model is."""

from __future__ import annotations

from dataclasses import asdict

from .common import JSON, MODEL, console, plain, print_json


def inspect(model: MODEL, json: JSON = False) -> None:
    """Show what a saved model is, and how good."""
    from ..models import load
    from ..reports import describe

    card = describe(load(model))
    if json:
        print_json(asdict(card))
        return
    from rich.markup import escape
    from rich.table import Table

    out = console()
    about = Table(box=None, show_header=False, pad_edge=False)
    about.add_column(style="bold", no_wrap=True)
    about.add_column()
    for label, text in card.rows:
        about.add_row(label, plain(text))
    out.print(about)
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
