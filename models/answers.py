"""What sequences are trained to answer: target columns as numbers or classes, and the task they tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from .columns import PLACEHOLDERS, read_numbers
from .config import Task
from .errors import InvalidInputError, nearest_name

if TYPE_CHECKING:
    import pandas as pd

MOST_CLASSES = 20  # more whole numbers than this are a quantity
MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Answers:
    """Target columns, one value for each row of the table.

    Attributes:
        columns: The C columns as they were given.
        numbers: Float64 (rows, C), NaN where there is none; None where a column holds words.
    """

    columns: tuple[pd.Series[Any], ...]
    numbers: NDArray[np.float64] | None

    @classmethod
    def of(cls, frame: pd.DataFrame, names: Sequence[str], source: str, task: Task | None) -> Answers:
        """Read the columns; a task of classes takes a text that is no number for a class."""
        columns = tuple(frame[name] for name in names)
        classes = task in ("binary", "multiclass")
        if not all(column.dtype.kind in "fiu" if classes else is_numeric(column) for column in columns):
            return cls(columns, None)
        numbers = [read_numbers(frame, name, source, refuse=False)[0] for name in names]
        return cls(columns, np.stack(numbers, axis=1))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(str(column.name) for column in self.columns)

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Object (rows, C): text of the class, or None."""
        return np.stack([_labels(column) for column in self.columns], axis=1)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Bool (rows,): whether all columns have a value."""
        if self.numbers is not None:
            return np.asarray(~np.isnan(self.numbers).any(axis=1))
        import pandas as pd

        return np.asarray(pd.notna(self.labels).all(axis=1))


def is_numeric(column: pd.Series[Any]) -> bool:
    """Whether a column holds numbers, or texts of which at least half are."""
    import pandas as pd

    if column.dtype.kind in "fiu":
        return True
    if column.dtype.kind in "bmM":
        return False
    present = column.dropna()
    numbers = pd.to_numeric(present.astype(object), errors="coerce").notna()
    words = sum(isinstance(value, (bool, np.bool_)) for value in present)
    return bool(len(present)) and not words and bool(numbers.mean() >= 0.5)


def told_task(answers: Answers, rows: NDArray[np.int64], *, forecast: bool, outputs: int) -> tuple[Task, str]:
    """Return the task that the targets of the training rows tell, and why in words.

    Args:
        answers: The target columns.
        rows: Rows of the table that are targets of the training part.
        forecast: Whether the target's past is a feature: then whole numbers are a quantity.
        outputs: Answers for each sequence.
    """
    name = answers.names[0]
    if answers.numbers is None:
        found = sorted(set(answers.labels[rows].ravel()))
        return ("binary" if len(found) == 2 else "multiclass"), f"{name!r} holds {len(found)} words"
    values = np.unique(answers.numbers[rows])
    if outputs > 1:
        return "regression", f"there are {outputs} numbers to predict"
    if set(values) <= {0.0, 1.0}:
        return "binary", f"{name!r} is 0 or 1"
    counted = (values == np.arange(len(values)) + values[0]).all() and values[0] in (0, 1)
    if counted and 3 <= len(values) <= MOST_CLASSES and not forecast:
        return "multiclass", f"{name!r} holds the whole numbers {values[0]:g} to {values[-1]:g}"
    return "regression", f"{name!r} holds numbers"


def checked_task(task: Any) -> Task | None:
    """Return a task that somebody named, or refuse it."""
    if task is not None and task not in get_args(Task):
        raise InvalidInputError(f"task is {task!r}; {nearest_name(str(task), get_args(Task))}")
    return task  # type: ignore[no-any-return]


def classes_of(answers: Answers, rows: NDArray[np.int64], task: Task) -> tuple[str, ...]:
    """Return the names of the classes of the training rows: by number where they are numbers, else by letter."""
    labels = set(answers.labels[rows].ravel())
    try:
        names = sorted(labels, key=float)
    except ValueError:
        names = sorted(labels)
    listed = ", ".join(repr(name) for name in names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
    if len(names) < 2:
        raise InvalidInputError(
            f"the training part holds only the class {listed} of {answers.names[0]!r}; expected 2 or more. Another "
            "split or other fractions may bring them in."
        )
    if task == "binary" and len(names) != 2:
        raise InvalidInputError(
            f"task is 'binary', but {answers.names[0]!r} holds {len(names)} classes ({listed}); use task='multiclass'."
        )
    return tuple(names)


def class_numbers(answers: Answers, rows: NDArray[np.int64], classes: tuple[str, ...], part: str) -> NDArray[np.int64]:
    """Return the number of the class of each of the rows, (rows,); refuse one that training does not have."""
    number = {name: place for place, name in enumerate(classes)}
    labels = answers.labels[rows, 0].tolist()
    unseen = sorted({label for label in labels if label not in number})
    if unseen:
        raise InvalidInputError(
            f"the {part} part holds the class {unseen[0]!r} of {answers.names[0]!r}, which does not occur in training "
            f"({len(unseen)} such classes); a model cannot learn it. Leave those rows out, merge rare classes, or use "
            "another split or other fractions."
        )
    return np.array([number[label] for label in labels], dtype=np.int64)


def number_targets(answers: Answers, rows: NDArray[np.int64], task: Task) -> NDArray[np.float32]:
    """Return the numbers of each row, (*rows.shape, C); of yes/no outputs 0 and 1."""
    if answers.numbers is None:
        words = next(label for label in answers.labels.ravel() if label is not None)
        raise InvalidInputError(
            f"task is {task!r} with {len(answers.names)} target columns, but they hold words such as {words!r}; "
            "expected numbers" + (" 0 and 1." if task == "binary" else ", or task='binary' or 'multiclass'.")
        )
    values = answers.numbers[rows]
    if task == "binary" and not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise InvalidInputError(f"task is 'binary', but a target is {odd:g}; expected 0 (no) and 1 (yes).")
    return values.astype(np.float32)


def _labels(column: pd.Series[Any]) -> NDArray[Any]:
    """Return the class that each row names, (rows,) of text or None; whole numbers without a decimal point."""
    import pandas as pd

    codes, values = pd.factorize(column)  # -1: missing
    texts: list[str | None] = []
    for value in values.tolist():
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
        texts.append(None if text.lower() in PLACEHOLDERS else text)
    return np.array([*texts, None], dtype=object)[codes]
