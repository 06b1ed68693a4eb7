"""The reference LSTM: stacked `nn.LSTM` layers of any widths, a pooling and a linear head, `lengths` throughout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .config import LSTMConfig
from .data_spec import DataSpec
from .inputs import check_ids, check_inputs, check_lengths, clear_padding, valid_mask
from .pooling import make_pooling

if TYPE_CHECKING:
    from .trace import Trace


class ReLULSTM(nn.LSTM):
    """A single-layer, batch-first `nn.LSTM` whose candidate and cell output use relu in place of tanh.

    Some saved Keras models are built so (`LSTM(64, activation="relu")`); torch's fused kernel knows tanh only, so
    this one steps through time. Inputs and outputs are those of `nn.LSTM`, `PackedSequence` included.
    """

    activation = "relu"

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - the name is nn.LSTM's
        """Return (output, (h_n, c_n)) as `nn.LSTM` does; (B, T, H * directions) and (directions, B, H) twice."""
        packed = isinstance(input, PackedSequence)
        inputs, lengths = pad_packed_sequence(input, batch_first=True) if packed else (input, None)
        batch, steps, _ = inputs.shape
        if hx is None:
            zeros = inputs.new_zeros(2 if self.bidirectional else 1, batch, self.hidden_size)
            hx = (zeros, zeros)
        elif packed and input.sorted_indices is not None:
            raise ValueError("ReLULSTM takes no initial state with an unsorted PackedSequence; sort by length first.")
        valid = None if lengths is None else valid_mask(lengths, steps).to(inputs.device)
        outputs, last_h, last_c = [], [], []
        for direction, suffix in enumerate(("", "_reverse")[: 2 if self.bidirectional else 1]):
            output, h, c = self._run(inputs, valid, suffix, hx[0][direction], hx[1][direction])
            outputs.append(output)
            last_h.append(h)
            last_c.append(c)
        joined = torch.cat(outputs, dim=2)  # (B, T, H * directions)
        state = (torch.stack(last_h), torch.stack(last_c))
        if packed:
            assert lengths is not None
            return pack_padded_sequence(joined, lengths, batch_first=True, enforce_sorted=False), state
        return joined, state

    def _run(
        self, inputs: Tensor, valid: Tensor | None, suffix: str, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return one direction's outputs (B, T, H) and its final h and c (B, H)."""
        recurrent = getattr(self, f"weight_hh_l0{suffix}")
        drive = inputs @ getattr(self, f"weight_ih_l0{suffix}").T  # (B, T, 4H)
        if self.bias:
            drive = drive + getattr(self, f"bias_ih_l0{suffix}") + getattr(self, f"bias_hh_l0{suffix}")
        steps = inputs.shape[1]
        outputs: list[Tensor] = [h] * steps
        for t in reversed(range(steps)) if suffix else range(steps):
            i, f, g, o = (drive[:, t] + h @ recurrent.T).chunk(4, dim=1)  # (B, H) each
            new_c = f.sigmoid() * c + i.sigmoid() * g.relu()
            new_h = o.sigmoid() * new_c.relu()
            if valid is None:
                c, h = new_c, new_h
                outputs[t] = h
            else:
                keep = valid[:, t, None]
                c, h = torch.where(keep, new_c, c), torch.where(keep, new_h, h)
                outputs[t] = torch.where(keep, new_h, 0.0)
        return torch.stack(outputs, dim=1), h, c


class LSTMModel(nn.Module):
    """The reference LSTM.

    `model(inputs, lengths)` returns scores: (B, K), or (B, T, K) with pooling "none" (0 at padding). Scores are
    the regression's values, or logits. Padding is at the end and never influences a score.

    Args:
        config: The architecture.
        data: What the numbers mean (feature names, units, classes, scaling); saved with the model.
    """

    def __init__(self, config: LSTMConfig, data: DataSpec | None = None) -> None:
        super().__init__()
        self.config = config
        self.data = data
        if config.vocab_size is not None:
            assert config.embedding_dim is not None  # checked by LSTMConfig
            self.embedding: nn.Embedding | None = nn.Embedding(config.vocab_size, config.embedding_dim)
        else:
            self.embedding = None
        kind = ReLULSTM if config.activation == "relu" else nn.LSTM
        self.lstm = nn.ModuleList(
            kind(width_in, width, batch_first=True, bidirectional=config.bidirectional)
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
        grad_inputs = isinstance(inputs, Tensor) and inputs.requires_grad
        checked = self._check_inputs(inputs)
        hidden = inputs.to(self.head.weight.dtype) if grad_inputs else checked
        lengths = check_lengths(lengths, hidden.shape[0], hidden.shape[1])
        hidden = clear_padding(hidden.to(self.head.weight.device), lengths)
        if self.embedding is not None:
            check_ids(hidden, lengths, self.config.vocab_size)
            hidden = self.embedding(hidden)  # (B, T, E)
        steps = hidden.shape[1]
        valid = valid_mask(lengths, steps).to(hidden.device)
        padded = bool(lengths.min() < steps)
        for layer in self.lstm:
            hidden = self.dropout(_run_layer(layer, hidden, lengths if padded else None, valid))  # (B, T, F)
        if self.pooling is None:
            return self.head(hidden).masked_fill(~valid[..., None], 0)  # type: ignore[no-any-return]
        return self.head(self.pooling(hidden, valid))  # type: ignore[no-any-return]

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

        checked = self._check_inputs(inputs)
        lengths = check_lengths(lengths, checked.shape[0], checked.shape[1])
        with evaluation_mode(self), torch.no_grad(), record(self) as recording:
            self(checked, lengths)
        valid = valid_mask(lengths, checked.shape[1])
        return Trace({name: layer.masked(valid) for name, layer in recording.trace.items()}, lengths=lengths)

    def _check_inputs(self, inputs: Any) -> Tensor:
        return check_inputs(
            inputs, features=self.config.input_size, vocab_size=self.config.vocab_size, dtype=self.head.weight.dtype
        )

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder: config.json, weights.safetensors, data.json; whole or not at all."""
        from .saved import save

        return save(self, folder)

    def extra_repr(self) -> str:
        """Return what `print(model)` adds."""
        return f"task={self.config.task}"


def _run_layer(layer: nn.Module, hidden: Tensor, lengths: Tensor | None, valid: Tensor) -> Tensor:
    """Run one stacked layer over (B, T, D).

    A reverse direction must know where sequences end, and so must relu: its cell can grow until it overflows in the
    padding, and 0 times infinity is no gradient.
    """
    if lengths is None:
        return layer(hidden)[0]  # type: ignore[no-any-return]
    if isinstance(layer, ReLULSTM) or (isinstance(layer, nn.LSTM) and layer.bidirectional):
        packed = pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=hidden.shape[1])[0]
    return layer(hidden)[0].masked_fill(~valid[..., None], 0)  # type: ignore[no-any-return]
