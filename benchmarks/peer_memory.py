"""What the explanations of `peers.py` need of memory, each explainer in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from contenders import run, shortened
from peaks import raised
from peer_models import both, drawn, setting_of
from timesteps import BY_TITLE

Cell = tuple[int, int]  # timesteps, sequences at once
SMALL = (32, 32)  # rows at once of the first, small explanation


def memory(
    title: str, cells: Sequence[Cell], rows: Mapping[int, tuple[int, int]], cache: Path, patience: float
) -> dict[Cell, str]:
    """Return by how many MiB the explanation of each cell raises the peak of a process that explains nothing else.

    Args:
        title: The explainer.
        cells: Timesteps and sequences at once, small ones first.
        rows: Timesteps -> what `best_rows` found.
        cache: Folder of the model.
        patience: Seconds that the process may take. What it has not told by then is said to be out of time.
    """
    asked = json.dumps({"title": title, "cells": [[*cell, *rows[cell[0]]] for cell in cells], "cache": str(cache)})
    said = "out of time"
    try:
        done = subprocess.run(  # noqa: S603 - this program
            [sys.executable, __file__, asked], capture_output=True, text=True, check=False, timeout=patience
        )
        told = done.stdout
        if done.returncode:
            said = shortened(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    except subprocess.TimeoutExpired as late:
        told = (late.stdout or b"").decode()
    found = [f"{float(line):.0f}" for line in told.splitlines()]
    return dict(zip(cells, [*found, *[said] * (len(cells) - len(found))], strict=True))


def main() -> None:
    """Print a cell a line: peaks beyond what the process holds after a small explanation, libraries loaded."""
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    contender, models = BY_TITLE[asked["title"]], both(Path(asked["cache"]))
    model = models.of(contender)
    run(contender, model, drawn(1, 6, seed=4), setting_of(6, SMALL))
    for steps, batch, *rows in asked["cells"]:
        inputs, setting = drawn(batch, steps, seed=3), setting_of(steps, tuple(rows))
        print(raised(lambda inputs=inputs, setting=setting: run(contender, model, inputs, setting)), flush=True)


if __name__ == "__main__":
    main()
