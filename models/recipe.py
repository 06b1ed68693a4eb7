"""`Recipe`: a whole training as plain data (a TOML file), from the table to a model that says how good it is."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from .checkpoint import History
from .config import LSTMConfig
from .data_spec import DataSpec
from .errors import InvalidInputError, InvalidTypeError, nearest_name
from .lstm import LSTMModel
from .metrics import Metrics, evaluate
from .preparation import Prepared, prepare
from .retain import RETAIN, RETAINConfig
from .state import seeded
from .table import read_table
from .text_data import prepare_text
from .training import fit

Kind = Literal["lstm", "retain"]

SECTIONS = ("data", "model", "training")
TEXT_COLUMN, GROUP_COLUMN = "text_column", "group_column"
NOT_IN_A_FILE = ("checkpoint", "progress", "task")


@dataclass(frozen=True)
class Trained:
    """What came of a recipe.

    Attributes:
        model: With its `data`: what its numbers mean, and how it was made and measured.
        history: How the training went.
        metrics: On the test part (of a recipe without one, on validation), beside trivial answers.
        measured_on: "test" or "validation".
        prepared: The sequences.
    """

    model: LSTMModel | RETAIN
    history: History
    metrics: Metrics
    measured_on: str
    prepared: Prepared


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training from a table to a measured model.

    Args:
        data: What `prepare` takes: input (the file), target, window, ...; or, with text_column, what `prepare_text`
            takes: input, text_column, target (the column of labels), group_column, unit, ...
        model: kind ("lstm" or "retain") and the options of `LSTMConfig` or `RETAINConfig`.
        training: The options of `fit`. A regression's targets are scaled unless scale_targets is false.

    Raises:
        InvalidInputError: An entry is unknown or missing; the message says which are known.
    """

    data: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in SECTIONS:
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidTypeError(f"{name} is {getattr(self, name)!r}; expected a table of names and values.")
        if self.kind not in get_args(Kind):
            raise InvalidInputError(f"model.kind is {self.kind!r}; {nearest_name(str(self.kind), get_args(Kind))}")
        for section, known in (("data", _data_names(self.data)), ("model", _model_names(self.kind)),
                               ("training", _training_names())):  # fmt: skip
            for name in getattr(self, section):
                if name not in known:
                    raise InvalidInputError(f"{section} has the unknown entry {name!r}; {nearest_name(name, known)}")
        for name, what in (("input", "the file to learn from"), ("target", "the column to predict")):
            if name not in self.data:
                raise InvalidInputError(f"data.{name} is missing; name {what}.")

    @property
    def kind(self) -> str:
        """Which model it is."""
        return self.model.get("kind", "lstm")  # type: ignore[no-any-return]

    @classmethod
    def read(cls, path: str | Path, **changes: Mapping[str, Any]) -> Recipe:
        """Read a TOML file with the tables [data], [model] and [training].

        Args:
            path: The file; a relative data.input counts from its folder.
            **changes: Entries that stand instead of the file's, by table, e.g. training={"epochs": 5}.

        Raises:
            InvalidInputError: There is no such file, it is no TOML, or an entry is unknown.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise InvalidInputError(f"{path} cannot be read: {reason}.") from None
        except tomllib.TOMLDecodeError as error:
            raise InvalidInputError(f"{path} is no TOML: {error}.") from None
        for name in values:
            if name not in SECTIONS:
                raise InvalidInputError(f"{path} has the unknown table [{name}]; {nearest_name(name, SECTIONS)}")
        data = values.get("data")
        if isinstance(data, dict) and isinstance(data.get("input"), str):
            data["input"] = str(path.parent / data["input"])
        return cls(**_merged(values, changes))

    def run(self, *, progress: bool = False, checkpoint: str | Path | None = None,
            told: Callable[[str], None] | None = None) -> Trained:  # fmt: skip
        """Prepare, train and measure.

        Args:
            progress: Show a bar while it trains, where a person watches.
            checkpoint: Folder from which a killed training goes on.
            told: Is called with each sentence about what cleaning, cutting and splitting did, before the training.
        """
        prepared = self._prepared()
        for note in prepared.notes:
            if told is not None:
                told(note)
        measured_on, part = (
            ("test", prepared.test) if prepared.test is not None else ("validation", prepared.validation)
        )
        if part is None:
            raise InvalidInputError(
                "fractions leave nothing to measure the model on; give validation or test a share, e.g. "
                "fractions = [0.7, 0.15, 0.15]."
            )
        options = dict(self.training)
        if prepared.task == "regression":
            options.setdefault("scale_targets", True)
        model = self._fresh(prepared, options.get("seed", 0))
        model.data = prepared.spec
        history = fit(model, prepared.train, prepared.validation, progress=progress, checkpoint=checkpoint, **options)
        metrics = evaluate(model, part, train=prepared.train, last=part.last, name=self.kind)
        provenance = {
            **prepared.spec.provenance,
            **history.provenance(),
            "metrics": metrics.to_dict(),
            "metrics_on": measured_on,
        }
        model.data = replace(prepared.spec, provenance=provenance)
        return Trained(model, history, metrics, measured_on, prepared)

    def _prepared(self) -> Prepared:
        options = dict(self.data)
        source = options.pop("input")
        if TEXT_COLUMN not in options:
            if isinstance(options.get("features"), (list, tuple)):
                options["features"] = [_feature(entry) for entry in options["features"]]
            return _called(prepare, "data", source, **options)  # type: ignore[no-any-return]
        frame = read_table(source) if isinstance(source, (str, Path)) else source
        columns = {"texts": options.pop(TEXT_COLUMN), "labels": options.pop("target"),
                   "groups": options.pop(GROUP_COLUMN, None)}  # fmt: skip
        for column in columns.values():
            if column is not None and column not in frame.columns:
                raise InvalidInputError(
                    f"{source} has no column {column!r}; {nearest_name(str(column), frame.columns)}"
                )
        texts = frame[columns["texts"]]
        lists = {name: frame[column].tolist() for name, column in columns.items() if column is not None}
        lists["texts"] = ["" if missing else str(text) for text, missing in zip(texts, texts.isna(), strict=True)]
        prepared: Prepared = _called(prepare_text, "data", **lists, **options)
        told = {"data": Path(source).name} if isinstance(source, (str, Path)) else {}
        spec = replace(
            prepared.spec, target=f"the {columns['labels']}", provenance={**told, **prepared.spec.provenance}
        )
        return replace(prepared, spec=spec)

    def _fresh(self, prepared: Prepared, seed: int) -> LSTMModel | RETAIN:
        options = {name: value for name, value in self.model.items() if name != "kind"}
        if isinstance(options.get("hidden_sizes"), list):
            options["hidden_sizes"] = tuple(options["hidden_sizes"])
        if self.kind == "lstm":
            with seeded(seed):
                return LSTMModel(_called(prepared.config, "model", **options))
        config = prepared.config()
        if config.pooling == "none":
            raise InvalidInputError("a RETAIN has no output at each timestep; use kind 'lstm', or no each_timestep.")
        reads = {"vocab_size": config.vocab_size} if config.reads_tokens else {"input_size": config.input_size}
        shared = {**reads, "output_size": config.output_size, "task": config.task}
        with seeded(seed):
            return RETAIN(_called(RETAINConfig, "model", **{**shared, **options}))


def _feature(entry: Any) -> Any:
    """Return a feature written as a table, {name = ..., transform = ...}, as what it is; a name as it stands."""
    return DataSpec.from_dict({"features": [entry]}).features[0] if isinstance(entry, Mapping) else entry


def _data_names(data: Mapping[str, Any]) -> list[str]:
    made = prepare_text if TEXT_COLUMN in data else prepare
    names = [name for name in inspect.signature(made).parameters if name not in ("source", "texts", "labels", "groups")]
    return ["input", "target", TEXT_COLUMN, *([GROUP_COLUMN] if made is prepare_text else []), *names]


def _model_names(kind: str) -> list[str]:
    config = LSTMConfig if kind == "lstm" else RETAINConfig
    given = ("input_size", "vocab_size", "output_size", "task")  # by the data
    return ["kind", *(entry.name for entry in fields(config) if entry.name not in given)]


def _training_names() -> list[str]:
    names = inspect.signature(fit).parameters
    return [name for name in names if name not in ("model", "train", "validation", *NOT_IN_A_FILE)]


def _merged(values: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tables of a file with the changed entries; what is no table is left for the checks to refuse."""
    merged = dict(values)
    for name, entries in changes.items():
        own = merged.get(name, {})
        merged[name] = {**own, **entries} if isinstance(own, Mapping) else own
    merged.setdefault("data", {})
    return merged


def _called(function: Callable[..., Any], section: str, *args: Any, **options: Any) -> Any:
    """Call with a recipe's entries; a value of a kind that the function cannot work with is told as the entry's."""
    try:
        return function(*args, **options)
    except (TypeError, AttributeError) as error:
        if isinstance(error, InvalidTypeError):
            raise
        raise InvalidTypeError(f"an entry of {section} has a value of the wrong kind: {error}.") from None
