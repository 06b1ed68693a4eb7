"""`ActivationLSTM`: an `nn.LSTM` with other nonlinearities, as some saved Keras models use them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .activations import activations_of
from .errors import InvalidInputError
from .inputs import valid_mask


class ActivationLSTM(nn.LSTM):
    """A single-layer, batch-first `nn.LSTM` whose gates, candidate and cell output use nonlinearities of your choice.

    torch's fused kernel knows sigmoid and tanh only, so this one steps through time. Inputs and outputs are those of
    `nn.LSTM`, `PackedSequence` included.

    Args:
        *args: Those of `nn.LSTM`: input_size, hidden_size.
        activation: What the candidate and the cell's output use: "tanh", "relu", "sigmoid" or "linear".
        gate_activation: What the three gates use: "sigmoid", "hard_sigmoid" or "hard_sigmoid_keras2".
        **kwargs: Those of `nn.LSTM`: bias, bidirectional, batch_first (True is needed), device, dtype.

    Raises:
        InvalidInputError: An activation is not one of these, or the form is not single-layer and batch-first.
    """

    def __init__(self, *args: Any, activation: str = "tanh", gate_activation: str = "sigmoid", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.num_layers != 1 or not self.batch_first or self.proj_size:
            raise InvalidInputError(
                f"ActivationLSTM has num_layers={self.num_layers}, batch_first={self.batch_first}, "
                f"proj_size={self.proj_size}; expected one layer, batch_first=True and no projection. Stack several."
            )
        self.activation = activation
        self.gate_activation = gate_activation
        activations_of(self)  # refuses a name it does not know

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - the name is nn.LSTM's
        """Return (output, (h_n, c_n)) as `nn.LSTM` does; (B, T, H * directions) and (directions, B, H) twice."""
        packed = isinstance(input, PackedSequence)
        inputs, lengths = pad_packed_sequence(input, batch_first=True) if packed else (input, None)
        batch, steps, _ = inputs.shape
        if hx is None:
            zeros = inputs.new_zeros(2 if self.bidirectional else 1, batch, self.hidden_size)
            hx = (zeros, zeros)
        elif packed and input.sorted_indices is not None:
            raise ValueError(
                "ActivationLSTM takes no initial state with an unsorted PackedSequence; sort by length first."
            )
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

    def extra_repr(self) -> str:
        """Return what `print(module)` adds."""
        return f"{super().extra_repr()}, activation={self.activation}, gate_activation={self.gate_activation}"

    def _run(
        self, inputs: Tensor, valid: Tensor | None, suffix: str, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return one direction's outputs (B, T, H) and its final h and c (B, H)."""
        sigma, phi = (part.function for part in activations_of(self))
        recurrent = getattr(self, f"weight_hh_l0{suffix}")
        drive = inputs @ getattr(self, f"weight_ih_l0{suffix}").T  # (B, T, 4H)
        if self.bias:
            drive = drive + getattr(self, f"bias_ih_l0{suffix}") + getattr(self, f"bias_hh_l0{suffix}")
        steps = inputs.shape[1]
        outputs: list[Tensor] = [h] * steps
        for t in reversed(range(steps)) if suffix else range(steps):
            i, f, g, o = (drive[:, t] + h @ recurrent.T).chunk(4, dim=1)  # (B, H) each
            new_c = sigma(f) * c + sigma(i) * phi(g)
            new_h = sigma(o) * phi(new_c)
            if valid is None:
                c, h = new_c, new_h
                outputs[t] = h
            else:
                keep = valid[:, t, None]
                c, h = torch.where(keep, new_c, c), torch.where(keep, new_h, h)
                outputs[t] = torch.where(keep, new_h, 0.0)
        return torch.stack(outputs, dim=1), h, c


def make_lstm(
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    bidirectional: bool = False,
    activation: str = "tanh",
    gate_activation: str = "sigmoid",
) -> nn.LSTM:
    """Return a single-layer, batch-first LSTM; torch's own, with its fused kernel, where that computes the same."""
    if (gate_activation, activation) == ("sigmoid", "tanh"):
        return nn.LSTM(input_size, hidden_size, bias=bias, batch_first=True, bidirectional=bidirectional)
    return ActivationLSTM(
        input_size,
        hidden_size,
        bias=bias,
        batch_first=True,
        bidirectional=bidirectional,
        activation=activation,
        gate_activation=gate_activation,
    )
