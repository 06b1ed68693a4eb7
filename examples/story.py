"""What the stories share: where data and models lie, saving, and what the scripts print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from gatelens.explainers.assemble import library_versions
from gatelens.models import DataSpec, LSTMModel, SequenceData

Rows = Mapping[str, Mapping[str, float]]


def data_path(name: str) -> Path:
    """Return where a data extract lies."""
    return Path(str(files("gatelens.examples") / "data" / f"{name}.csv.gz"))


def model_path(name: str) -> Path:
    """Return where a trained model lies."""
    return Path(str(files("gatelens.examples") / "saved" / name))


def saved_folder(name: str) -> Path:
    """Return where a training script saves its model: beside the script, in the source tree."""
    return Path(__file__).resolve().parent / "saved" / name


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch add numbers in one order, so that equal seeds give equal weights; models this small lose no time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rounded(row: Mapping[str, Any], digits: int = 4) -> dict[str, float]:
    """Return metrics as a saved model tells them."""
    return {name: round(float(value), digits) for name, value in row.items()}


def save(model: LSTMModel, spec: DataSpec, folder: Path, **provenance: Any) -> None:
    """Save a model that knows where it comes from; `provenance` adds data, split, seed, metrics and so on."""
    model.data = replace(
        spec, provenance={**spec.provenance, **provenance, "versions": library_versions("scikit-learn")}
    )
    model.save(folder)
    print(f"saved to {folder}")


def labelled(part: SequenceData | None) -> tuple[SequenceData, NDArray[Any]]:
    """Return a part of prepared data that is there, and its targets."""
    assert part is not None
    assert part.targets is not None
    return part, part.targets


def print_metrics(rows: Rows, columns: tuple[str, ...]) -> None:
    """Print a table, one line for the model and each thing it is measured beside."""
    wide = max(len(name) for name in rows)
    print(" " * wide, *(column.replace("_", " ").rjust(11) for column in columns))
    for name, row in rows.items():
        cells = ((f"{row[column]:.3f}" if column in row else "").rjust(max(11, len(column))) for column in columns)
        print(name.replace("_", " ").ljust(wide), *cells)
