"""A store of attributions beside a table of labels: which row belongs to which explained sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from ..explainers import Attribution

LABELS = Annotated[
    Path | None,
    typer.Option(
        help="For a store: CSV or Parquet file with the columns of --by, --truth and --id-column, one row a sample: "
        "found by its name in a column 'sample', or in the store's order."
    ),
]
SAMPLE = "sample"  # the column that names samples


def labels_of(found: Attribution, path: Path, labels: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the table's row of each explained sample of a store, in their order, and what is to be told of it.

    Args:
        found: The store, opened.
        path: Its folder.
        labels: The table.

    Raises:
        InvalidInputError: The table has neither the samples' names nor a row for each sample.
    """
    import numpy as np
    import pandas as pd

    from ..explainers.dataset.reading import existing
    from ..explainers.dataset.store import EXPLAINED
    from ..models import InvalidInputError
    from ..models.table import read_table

    frame = read_table(labels)
    if SAMPLE not in frame.columns:
        status = existing(path).status()
        if len(frame) != len(status):
            raise InvalidInputError(
                f"{labels} has {len(frame):,} rows and no column {SAMPLE!r}, and {path} has {len(status):,} samples; "
                f"give one row a sample in the store's order, or name the samples in a column {SAMPLE!r}."
            )
        return frame.iloc[np.flatnonzero(status == EXPLAINED)], []
    named = frame.set_index(frame[SAMPLE].astype(str))
    twice = named.index[named.index.duplicated()]
    if len(twice):
        raise InvalidInputError(f"{labels} has several rows of the sample {twice[0]!r}; give one a sample.")
    names = list(found.sample_names)
    absent = len(names) - int(pd.Index(names).isin(named.index).sum())
    if names and absent == len(names):
        raise InvalidInputError(
            f"none of the samples of {path} is in the column {SAMPLE!r} of {labels}; there they are called "
            f"{names[0]!r} and so on{f', here {named.index[0]!r}' if len(named) else ''}."
        )
    told = f"{absent:,} of {len(names):,} samples are not in the table of labels, so nothing is known of them."
    return named.reindex(names), [told] if absent else []


def refuse_unknown(columns: Mapping[str, str], frame: pd.DataFrame, path: Path) -> None:
    """Refuse columns that are not in a table.

    Args:
        columns: Name -> the option that asks for it.
        frame: The table.
        path: Its file.
    """
    from ..models import InvalidInputError
    from ..models.errors import nearest_name

    present = [str(name) for name in frame.columns]
    for name, option in columns.items():
        if name not in present:
            raise InvalidInputError(f"{path} has no column {name!r} for {option}; {nearest_name(name, present)}")


def refuse_beside_store(options: list[str], path: Path) -> None:
    """Refuse options about how to explain."""
    from ..models import InvalidInputError

    if options:
        raise InvalidInputError(
            f"{options[0]} is given, and {path} holds attributions, which are explained already; leave it out, or name "
            "with --input the table that is to be explained."
        )
