"""`gatelens methods`: the explainers there are."""

from __future__ import annotations

from .common import JSON, console, plain, print_json


def methods(json: JSON = False) -> None:
    """List the explainers and what each promises."""
    from ..explainers import available

    entries = available()
    if json:
        print_json(
            {
                name: {
                    "origin": entry.origin,
                    "summary": entry.summary,
                    "usable": entry.explainer is not None,
                    "error": entry.error,
                    "needs": entry.explainer.needs if entry.explainer else None,
                    "completeness": entry.explainer.completeness if entry.explainer else None,
                }
                for name, entry in entries.items()
            }
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("Name", no_wrap=True)
    for title in ("What it does", "Works on", "Adds up", "From"):
        table.add_column(title)
    works = {"function": "any function", "gradient": "torch modules", "lstm": "modules with nn.LSTM"}
    adds = {"exact": "exactly", "converges": "in the limit", "none": "no"}
    for name, entry in entries.items():
        explainer = entry.explainer
        rest = (works[explainer.needs], adds[explainer.completeness]) if explainer else ("", "")
        table.add_row(plain(name), plain(entry.summary), *rest, plain(entry.origin))
    console().print(table)
