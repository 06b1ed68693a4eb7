"""What gatelens asks of a model of its own: a config that says what it reads and returns, and what its numbers mean."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .config import Task
from .data_spec import DataSpec
from .inputs import check_ids, check_inputs, check_lengths, clear_padding


class ModelConfig(Protocol):
    """The part of a config that every `SequenceModel` has."""

    @property
    def input_size(self) -> int | None:
        """Features D of a float input (B, T, D); None for token ids."""

    @property
    def vocab_size(self) -> int | None:
        """Number of token ids of a long input (B, T); None for floats."""

    @property
    def padding_index(self) -> int:
        """Token id that stands for "no token"."""

    @property
    def output_size(self) -> int:
        """Outputs K."""

    @property
    def task(self) -> Task:
        """What the scores are: values of a regression, or logits."""

    @property
    def reads_tokens(self) -> bool:
        """Whether inputs are token ids, long (B, T), rather than floats (B, T, D)."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""


class SequenceModel(nn.Module):
    """A model that gatelens knows from inside.

    `model(inputs, lengths)` returns scores: (B, K), or (B, T, K) for outputs of each timestep. Scores are the
    regression's values, or logits. Padding is at the end and never influences a score.

    Args:
        config: What it is made of.
        data: What the numbers mean (feature names, units, classes, scaling).
    """

    config: ModelConfig
    data: DataSpec | None

    def __init__(self, config: ModelConfig, data: DataSpec | None = None) -> None:
        super().__init__()
        self.config = config
        self.data = data

    def predict(self, inputs: Any, lengths: Any = None) -> NDArray[np.float64]:
        """Return what the model says, (B, K) or (B, T, K): probabilities of classes, or the values of a regression.

        In eval mode and without gradients, in batches that fit into memory; the model's own mode stays as it is.

        Args:
            inputs: Float (B, T, D), token ids (B, T), or a `SequenceData`, which brings its lengths.
            lengths: (B,) valid timesteps; None: all T.

        Raises:
            InvalidInputError: A shape, an id or a length does not fit.
        """
        from .predictor import Predictor

        predictor = Predictor(self)
        if lengths is None:
            lengths = getattr(inputs, "lengths", None)
        scores = predictor.predict(*predictor.check(getattr(inputs, "inputs", inputs), lengths))
        said = scores if predictor.task == "regression" else predictor.probabilities(scores)
        return said.double().cpu().numpy()

    def prepare(self, inputs: Any, lengths: Any) -> tuple[Tensor, Tensor]:
        """Return checked inputs (B, T, D) or ids (B, T), on the model's device and 0 at padding, and lengths (B,).

        Raises:
            InvalidInputError: A shape, an id or a length does not fit.
        """
        like = next(self.parameters(), torch.empty(0))
        config = self.config
        checked = check_inputs(inputs, features=config.input_size, vocab_size=config.vocab_size, dtype=like.dtype)
        if isinstance(inputs, Tensor) and inputs.requires_grad:
            checked = inputs.to(like.dtype)  # with its graph
        lengths = check_lengths(lengths, checked.shape[0], checked.shape[1])
        checked = clear_padding(checked.to(like.device), lengths)
        if config.reads_tokens:
            check_ids(checked, lengths, config.vocab_size)
        return checked, lengths

    def extra_repr(self) -> str:
        """Return what `print(model)` adds."""
        return f"task={self.config.task}"
