"""From a table to training, validation and test: `prepare` cleans, cuts, splits and scales, and leaks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from .answers import Answers, checked_task, classes_of, is_numeric, told_task
from .columns import number_columns, read_times
from .config import LSTMConfig, Task
from .cutting import Aim, Cut
from .data_spec import DataSpec, FeatureSpec, Missing, WindowSpec
from .describing import described, with_units
from .errors import InvalidInputError, InvalidTypeError, nearest_name
from .scaling import checked_scaler, scaled
from .sequence_data import SequenceData
from .series import require_columns
from .splitting import PARTS, Split, checked_fractions, fractions_of, split_windows
from .table import NOTES, read_header, read_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Prepared:
    """Sequences with targets, in parts that share no row.

    Attributes:
        train: What a model is fitted to.
        validation: What says when to stop; None where its share is 0.
        test: What it is measured on; None where its share is 0.
        spec: What the numbers mean, for `model.data`: a saved model then reads new tables and texts in the same way.
        task: "regression", "binary" or "multiclass".
        notes: What cleaning, cutting and splitting did, in words, with counts.
    """

    train: SequenceData
    validation: SequenceData | None
    test: SequenceData | None
    spec: DataSpec
    task: Task
    notes: tuple[str, ...] = ()

    def config(self, **options: Any) -> LSTMConfig:
        """Return the architecture of a model for these sequences; `options` are those of `LSTMConfig`."""
        targets = self.train.targets
        assert targets is not None
        classes = np.issubdtype(targets.dtype, np.integer)
        reads: dict[str, Any] = {"input_size": self.train.inputs.shape[-1]}
        if self.spec.vocabulary is not None:
            reads = {"vocab_size": len(self.spec.vocabulary), "embedding_dim": 16}
        outputs = 1 if self.task == "binary" and classes else len(self.spec.classes) if classes else targets.shape[-1]
        in_time = targets.ndim == (2 if classes else 3)
        pooling = {"pooling": "none"} if in_time else {}
        return LSTMConfig(**{**reads, "output_size": outputs, "task": self.task, **pooling, **options})


def prepare(
    source: str | Path | pd.DataFrame,
    *,
    target: str | Sequence[str],
    features: Sequence[str | FeatureSpec] | None = None,
    window: int | None = None,
    horizon: int | Sequence[int] = 0,
    each_timestep: bool = False,
    stride: int = 1,
    time_column: str | None = None,
    id_column: str | None = None,
    max_gap_seconds: float | None = None,
    min_gap_seconds: float | None = None,
    task: Task | None = None,
    missing: Missing = "refuse",
    scaling: Any = "standard",
    split: Split = "chronological",
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    borders: Any = None,
    guard: int = 0,
    seed: int = 0,
    units: Mapping[str, str] | None = None,
) -> Prepared:
    """Make training, validation and test sequences from a table, one row a timestep.

    No row, of input or target, is in two parts, and nothing but the training part decides scaling, classes and task.

    Args:
        source: CSV or Parquet file, or a DataFrame.
        target: Column with what is to be predicted; several for a regression (or yes/no answers) of several outputs.
        features: Columns the model reads, by name or as `FeatureSpec`; None: the number columns that are no target,
            time or id.
        window: Timesteps of one sequence; None: all rows of an id are one sequence.
        horizon: The target stands so many rows after the window's last; several for several outputs.
        each_timestep: One target for each timestep, `horizon` rows after it (models with `pooling="none"`).
        stride: Rows from one window to the next.
        time_column: Column with the time of each row.
        id_column: Column that tells series apart; no window holds rows of two.
        max_gap_seconds: No window, and no step from it to its target, goes over a longer pause.
        min_gap_seconds: A row that follows sooner is dropped.
        task: "regression", "binary" or "multiclass"; None: told from the targets of the training part.
        missing: What happens to a missing feature value, here and in every table that the model reads later: see
            `WindowSpec`. A window whose target is missing is left out in any case.
        scaling: "standard", "minmax", "none", or an affine scaler of scikit-learn; fitted to the rows of the training
            windows. The time of day, and a `FeatureSpec` with its own center or scale, stay as they are.
        split: "chronological" (one border in time, or of rows, for all ids), "random" (whole sequences, or windows
            that share no row), or "grouped" (by id).
        fractions: Shares of training, validation and test; 0 for a part that is not needed.
        borders: Instead of fractions, for a chronological split: the times at which validation and test begin, or one
            time at which test begins.
        guard: Distinct times (or rows) after each chronological border that are in no part.
        seed: Of the random and the grouped split.
        units: Unit of each column, e.g. {"glucose": "mg/dL"}.

    Raises:
        InvalidInputError: The table cannot be read so, or the split would leak; the message says how to mend it.
    """
    shares, task = checked_fractions(fractions), checked_task(task)
    _check_options(window, id_column, stride, guard, split, missing, each_timestep=each_timestep)
    checked_scaler(scaling)
    aim = Aim.of([target] if isinstance(target, str) else list(target), horizon, each_timestep=each_timestep)
    others = [*aim.names, *(name for name in (time_column, id_column) if name is not None)]
    features = [features] if isinstance(features, (str, FeatureSpec)) else features
    frame, called = _opened(source, None if features is None else [*_columns(_specs(features)), *others])
    notes = list(frame.attrs.get(NOTES, ()))
    require_columns(frame, others, id_column, called)
    chosen = _features(frame, features, others, called, notes)
    _refuse_leak(chosen, aim)
    spec = DataSpec(
        features=with_units(chosen, units or {}, aim.names),
        window=WindowSpec(
            length=window, max_gap_seconds=max_gap_seconds, min_gap_seconds=min_gap_seconds, time_column=time_column,
            missing=missing,
        ),
    )  # fmt: skip
    answers = Answers.of(frame, aim.names, called, task)
    order = np.arange(len(frame)) if time_column is None else np.sort(read_times(frame, time_column, called))
    if borders is not None:
        if split != "chronological" or time_column is None:
            raise InvalidInputError(
                "borders are times, and need a chronological split and a time_column; use fractions for another split."
            )
        shares = fractions_of(borders, order)
    cut = Cut.of(frame, spec, aim, answers, stride=stride, id_column=id_column, source=called, notes=notes)
    part = split_windows(
        cut.footprints(), split, shares, seed=seed, guard=guard, order=order, whole=window is None,
        apart=(window or 0) + aim.ahead, notes=notes,
    )  # fmt: skip
    said = notes[-1]
    train = cut.take(part == 0)
    asked = np.concatenate([rows.ravel() for rows in train.target_rows()])
    if task is None:
        forecast = bool(set(aim.names) & set(_columns(chosen)))
        task, reason = told_task(answers, asked, forecast=forecast, outputs=aim.outputs)
        notes.append(f"this is taken for a {task} task, because {reason}; pass task=... if it is another")
    if task == "multiclass" and aim.outputs > 1:
        raise InvalidInputError(
            f"task is 'multiclass' with {aim.outputs} targets for each sequence; expected one column and one horizon."
        )
    classes = classes_of(answers, asked, task) if task != "regression" and aim.outputs == 1 else ()
    if task == "binary" and classes:
        notes.append(f"{classes[1]!r} counts as yes (1), {classes[0]!r} as no (0)")
    spec = scaled(spec, train.training_rows(spec), scaling, notes)
    spec = described(spec, cut, task, classes, units or {}, {
        "data": Path(called).name,
        "split": said,
        "prepared": {
            "horizon": list(aim.horizons), "split": split, "fractions": list(shares), "guard": guard, "seed": seed,
            "stride": stride, "windows": {name: int((part == number).sum()) for number, name in enumerate(PARTS)},
        },
    })  # fmt: skip
    parts = [
        cut.take(part == number).data(spec, task, name) if (part == number).any() else None
        for number, name in enumerate(PARTS)
    ]
    assert parts[0] is not None
    return Prepared(parts[0], parts[1], parts[2], spec, task, tuple(notes))


def _check_options(
    window: int | None, id_column: str | None, stride: int, guard: int, split: str, missing: str, *, each_timestep: bool
) -> None:
    for name, value, least in (("stride", stride, 1), ("guard", guard, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InvalidInputError(f"{name} is {value!r}; expected a whole number of rows, {least} or more.")
    if split not in get_args(Split):
        raise InvalidInputError(f"split is {split!r}; {nearest_name(str(split), get_args(Split))}")
    if guard and split != "chronological":
        raise InvalidInputError(f"guard is {guard}, but only a chronological split has borders to guard; leave it out.")
    if split == "grouped" and id_column is None:
        raise InvalidInputError("split is 'grouped', but no id_column says what the groups are; name it.")
    if window is None and id_column is None:
        raise InvalidInputError(
            "window is missing; give the timesteps of one sequence, or an id_column whose rows are one sequence each."
        )
    if missing == "interpolate" and each_timestep:
        raise InvalidInputError(
            "missing is 'interpolate' with each_timestep=True: a timestep's input would tell of the ones after it, "
            "which it is to predict; use missing='hold' or 'drop'."
        )


def _opened(source: Any, columns: list[str] | None) -> tuple[pd.DataFrame, str]:
    """Return the table, its columns called by text and its rows by number, and what errors call it.

    Of a file only these columns are read, unless one is missing: the error then lists all that are there.
    """
    import pandas as pd

    called = str(source) if isinstance(source, (str, Path)) else "the table"
    if isinstance(source, (str, Path)):
        there = columns is not None and set(columns) <= set(read_header(source).columns)
        frame = read_table(source, columns if there else None)
    elif isinstance(source, np.ndarray) and source.ndim == 2:
        frame = pd.DataFrame(source)
    elif isinstance(source, pd.DataFrame):
        frame = source
    else:
        raise InvalidTypeError(f"source is a {type(source).__name__}; expected a path, a DataFrame or a 2-D array.")
    return frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True), called


def _features(
    frame: pd.DataFrame, features: Sequence[str | FeatureSpec] | None, others: list[str], source: str, notes: list[str]
) -> tuple[FeatureSpec, ...]:
    """Return what the model reads; `others` are the columns of target, time and id."""
    if features is None:
        rest = [name for name in frame.columns if name not in others]
        numbers = [name for name in rest if frame[name].dtype.kind == "b" or is_numeric(frame[name])]
        if not numbers:
            raise InvalidInputError(
                f"{source} has no number column beside {', '.join(others)}; name the features, e.g. "
                f"features=[{others[0]!r}] with horizon=1 for a forecast of {others[0]!r} from its own past."
            )
        unread = [name for name in rest if name not in numbers]
        if unread:
            notes.append(f"not read, because they hold no numbers: {', '.join(unread)}")
        features = numbers
    chosen = _specs(features)
    if not chosen:
        raise InvalidInputError("features is empty; name at least one column.")
    for column in _columns(chosen):
        if column not in frame.columns:
            raise InvalidInputError(f"{source} has no column {column!r}; {nearest_name(column, frame.columns)}")
    return chosen


def _specs(features: Sequence[str | FeatureSpec]) -> tuple[FeatureSpec, ...]:
    return tuple(one if isinstance(one, FeatureSpec) else FeatureSpec(name=str(one)) for one in features)


def _columns(features: Sequence[FeatureSpec]) -> tuple[str, ...]:
    return number_columns(DataSpec(features=tuple(features)))


def _refuse_leak(features: tuple[FeatureSpec, ...], aim: Aim) -> None:
    """Refuse a target that the model would read: at horizon 0 its own value is among the inputs."""
    told = [name for name in aim.names if name in _columns(features)]
    if told and min(aim.horizons) == 0:
        raise InvalidInputError(
            f"the target {told[0]!r} is also a feature, and with horizon=0 the model would read what it is to predict; "
            "leave it out of the features, or predict ahead with horizon=1 or more."
        )
