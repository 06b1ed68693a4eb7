"""The reference LSTM: stacked `nn.LSTM` layers of any widths, a pooling and a linear head, `lengths` throughout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .activation_lstm import ActivationLSTM, make_lstm
from .config import LSTMConfig
from .data_spec import DataSpec
from .inputs import valid_mask
from .pooling import make_pooling
from .sequence_model import SequenceModel

if TYPE_CHECKING:
    from .trace import Trace


class LSTMModel(SequenceModel):
    """The reference LSTM.

    `model(inputs, lengths)` returns scores: (B, K), or (B, T, K) with pooling "none" (0 at padding). Scores are
    the regression's values, or logits. Padding is at the end and never influences a score.

    Args:
        config: The architecture.
        data: What the numbers mean (feature names, units, classes, scaling); saved with the model.
    """

    def __init__(self, config: LSTMConfig, data: DataSpec | None = None) -> None:
        super().__init__(config, data)
        self.config: LSTMConfig = config
        if config.vocab_size is not None:
            assert config.embedding_dim is not None  # checked by LSTMConfig
            self.embedding: nn.Embedding | None = nn.Embedding(config.vocab_size, config.embedding_dim)
        else:
            self.embedding = None
        self.lstm = nn.ModuleList(
            make_lstm(width_in, width, bidirectional=config.bidirectional, activation=config.activation)
            for width_in, width in zip(config.layer_input_sizes, config.hidden_sizes, strict=True)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.pooling = make_pooling(config.pooling, config.hidden_sizes[-1], config.feature_width)
        self.head = nn.Linear(config.feature_width, config.output_size)

    def forward(self, inputs: Any, lengths: Any = None) -> Tensor:
        """Return scores (B, K), or (B, T, K) with pooling "none".

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,), valid timesteps of each sequence; None: all T.

        Raises:
            InvalidInputError: A shape, an id or a length does not fit.
        """
        values, lengths = self.prepare(inputs, lengths)
        if self.embedding is not None:
            values = self.embedding(values)  # (B, T, E)
        hidden = self.run_layers(values, lengths)
        valid = valid_mask(lengths, hidden.shape[1]).to(hidden.device)
        if self.pooling is None:
            return self.head(hidden).masked_fill(~valid[..., None], 0)  # type: ignore[no-any-return]
        return self.head(self.pooling(hidden, valid))  # type: ignore[no-any-return]

    def run_layers(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Return the top layer's hidden states (B, T, F), 0 at padding, of what the lowest reads, (B, T, D or E)."""
        padded = lengths if bool(lengths.min() < values.shape[1]) else None
        for layer in self.lstm:
            values = self.dropout(_run_layer(layer, values, padded))  # (B, T, F)
        return values

    def trace(self, inputs: Any, lengths: Any = None) -> Trace:
        """Return all six quantities of every layer, direction, timestep and unit, for the model in eval mode.

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,) or None.

        Returns:
            "lstm.0", "lstm.0.reverse", ... -> tensors (B, T, H), 0 at padding.
        """
        from .recorder import record
        from .state import evaluation_mode
        from .trace import Trace

        checked, lengths = self.prepare(inputs, lengths)
        with evaluation_mode(self), torch.no_grad(), record(self) as recording:
            self(checked, lengths)
        valid = valid_mask(lengths, checked.shape[1])
        return Trace({name: layer.masked(valid) for name, layer in recording.trace.items()}, lengths=lengths)

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder: config.json, weights.safetensors, data.json; whole or not at all."""
        from .saved import save

        return save(self, folder)


def _run_layer(layer: nn.Module, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Run one stacked layer over (B, T, D).

    A reverse direction must know where sequences end, and so must relu: its cell can grow until it overflows in the
    padding, and 0 times infinity is no gradient.
    """
    if lengths is None:
        return layer(hidden)[0]  # type: ignore[no-any-return]
    if isinstance(layer, ActivationLSTM) or (isinstance(layer, nn.LSTM) and layer.bidirectional):
        packed = pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=hidden.shape[1])[0]
    valid = valid_mask(lengths, hidden.shape[1]).to(hidden.device)
    return layer(hidden)[0].masked_fill(~valid[..., None], 0)  # type: ignore[no-any-return]
