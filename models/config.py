"""What a reference LSTM is made of: `LSTMConfig`, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from .errors import InvalidInputError, InvalidTypeError, nearest_name

Task = Literal["regression", "binary", "multiclass"]
Pooling = Literal["last", "mean", "max", "attention", "dot_attention", "none"]
Activation = Literal["tanh", "relu"]

MAX_LAYERS = 256


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """Architecture of an `LSTMModel`.

    Args:
        input_size: Features D of a float input (B, T, D). Leave it out for token ids.
        hidden_sizes: Hidden units H of each stacked layer, bottom first; widths may differ.
        output_size: Outputs K: quantities of a regression, logits of a binary task (one sigmoid each), or classes.
        task: "regression", "binary" or "multiclass"; it decides loss, probability and the default target.
        bidirectional: Whether each layer also runs from the last valid timestep to the first.
        dropout: Probability of dropping a unit between layers and before the head, in training only.
        pooling: How hidden states become the head's input: "last" (final state of each direction), "mean", "max",
            "attention" (additive attention with a learned query, Bahdanau et al. 2015), "dot_attention" (dot-product
            attention asked by the final state, Luong et al. 2015), or "none" (one output per timestep).
        activation: Nonlinearity of the candidate and of the cell's output: "tanh" or "relu".
        vocab_size: Number of token ids; makes the input long (B, T).
        embedding_dim: Width of the token embedding, with `vocab_size`.
        padding_index: Token id that stands for "no token"; the baseline of token models.

    Raises:
        InvalidInputError: A value is out of range, or the parts do not fit together.
    """

    input_size: int | None = None
    hidden_sizes: tuple[int, ...] = (64,)
    output_size: int = 1
    task: Task = "regression"
    bidirectional: bool = False
    dropout: float = 0.0
    pooling: Pooling = "last"
    activation: Activation = "tanh"
    vocab_size: int | None = None
    embedding_dim: int | None = None
    padding_index: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.hidden_sizes, (tuple, list)):
            raise InvalidTypeError(
                f"hidden_sizes is {self.hidden_sizes!r}; expected one width a layer, e.g. hidden_sizes=(64, 32)."
            )
        for name in ("input_size", "output_size", "vocab_size", "embedding_dim", "padding_index"):
            object.__setattr__(self, name, plain_integer(getattr(self, name)))
        object.__setattr__(self, "hidden_sizes", tuple(plain_integer(width) for width in self.hidden_sizes))
        if not 1 <= len(self.hidden_sizes) <= MAX_LAYERS:
            raise InvalidInputError(
                f"hidden_sizes has {len(self.hidden_sizes)} entries; expected 1 to {MAX_LAYERS}, one a layer."
            )
        for width in self.hidden_sizes:
            check_count("each of hidden_sizes", width)
        check_shared(self.task, self.output_size, self.dropout, self.padding_index)
        check_choice("pooling", self.pooling, get_args(Pooling))
        check_choice("activation", self.activation, get_args(Activation))
        if not isinstance(self.bidirectional, bool):
            raise InvalidTypeError(f"bidirectional is {self.bidirectional!r}; expected True or False.")
        self._check_input_side()

    def _check_input_side(self) -> None:
        if self.vocab_size is None:
            if self.embedding_dim is not None:
                raise InvalidInputError("embedding_dim is set without vocab_size; give both for token ids, or neither.")
            if self.input_size is None:
                raise InvalidInputError(
                    "input_size is missing; give the number of features, or vocab_size and embedding_dim for token ids."
                )
            check_count("input_size", self.input_size)
            return
        check_count("vocab_size", self.vocab_size)
        if self.embedding_dim is None:
            raise InvalidInputError("vocab_size is set without embedding_dim; give the width of the token embedding.")
        check_count("embedding_dim", self.embedding_dim)
        check_tokens(self.input_size, self.vocab_size, self.padding_index)

    @property
    def reads_tokens(self) -> bool:
        """Whether inputs are token ids, long (B, T), rather than floats (B, T, D)."""
        return self.vocab_size is not None

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def layer_input_sizes(self) -> tuple[int, ...]:
        """Width of what each layer reads, bottom first."""
        first = self.embedding_dim if self.embedding_dim is not None else self.input_size
        assert first is not None  # checked in __post_init__
        return (first, *(width * self.directions for width in self.hidden_sizes[:-1]))

    @property
    def feature_width(self) -> int:
        """Width of the top layer's hidden states, both directions together: what the head reads."""
        return self.hidden_sizes[-1] * self.directions

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "hidden_sizes": list(self.hidden_sizes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LSTMConfig:
        """Make a config from `to_dict`'s values; unknown names are refused."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise InvalidInputError(f"the LSTM config has the unknown entry {name!r}; {nearest_name(name, known)}")
        return cls(**values)


def check_shared(task: object, output_size: int, dropout: object, padding_index: object) -> None:
    """Refuse what no config of this package can be: an unknown task, no output, one class of several, ..."""
    check_count("output_size", output_size)
    check_choice("task", task, get_args(Task))
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise InvalidInputError(f"dropout is {dropout!r}; expected a probability, 0 <= dropout < 1.")
    if task == "multiclass" and output_size < 2:
        raise InvalidInputError(
            f"task is 'multiclass' with output_size={output_size}; expected one output a class, 2 or more. "
            "For a yes/no question use task='binary' with output_size=1."
        )
    if isinstance(padding_index, bool) or not isinstance(padding_index, int):
        raise InvalidTypeError(f"padding_index is {padding_index!r}; expected a token id, a whole number.")


def check_tokens(input_size: int | None, vocab_size: int, padding_index: int) -> None:
    """Refuse a token model that reads features too, or whose padding is no token."""
    if input_size is not None:
        raise InvalidInputError(
            f"input_size={input_size} stands beside vocab_size={vocab_size}; "
            "a model reads either features or token ids."
        )
    if not 0 <= padding_index < vocab_size:
        raise InvalidInputError(f"padding_index is {padding_index}; expected a token id, 0 to {vocab_size - 1}.")


def plain_integer(value: Any) -> Any:
    """Return a numpy integer as a Python one; anything else as it is."""
    return int(value) if isinstance(value, np.integer) else value


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} is {value!r}; expected a whole number, 1 or more.")
    if value < 1:
        raise InvalidInputError(f"{name} is {value}; expected a whole number, 1 or more.")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices, with the nearest one."""
    if value not in choices:
        raise InvalidInputError(f"{name} is {value!r}; {nearest_name(str(value), choices)}")
