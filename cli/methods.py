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
    from rich.padding import Padding

    works = {
        "function": "any function",
        "gradient": "torch modules",
        "lstm": "modules with nn.LSTM",
        "attention": "LSTMModel with attention pooling",
        "retain": "RETAIN",
    }
    adds = {"exact": "adds up exactly", "converges": "adds up in the limit", "none": "does not add up"}
    terminal = console()
    for name, entry in entries.items():
        explainer = entry.explainer
        facts = [works[explainer.needs], adds[explainer.completeness]] if explainer else ["not usable"]
        if entry.origin != "gatelens":
            facts.append(f"from {entry.origin}")
        terminal.print(plain(name).append(f"  ({'; '.join(facts)})", style="dim"))
        terminal.print(Padding(plain(entry.summary), (0, 0, 0, 4)))
    terminal.print("\nAdds up: whether contributions sum to f(x) - f(baseline). --method NAME chooses.", style="dim")
