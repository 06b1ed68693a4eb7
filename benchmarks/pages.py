"""How benchmarks write their tables into the pages of `docs/`."""

from __future__ import annotations

import platform

import torch

Row = list[str]


def machine() -> str:
    """Return what ran this, without naming the machine."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, float32."


def section(title: str, text: str, table: list[Row]) -> list[str]:
    """Return the lines of a section with one table, head first, and print it."""
    head, *rows = table
    lines = [f"## {title}", "", text, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    print("\n".join(lines) + "\n", flush=True)
    return [*lines, ""]
