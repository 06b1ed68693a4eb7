"""What recording returns: `LayerTrace`, the six quantities of one layer and direction, and `Trace`, all layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import xarray as xr

GATES = ("input_gate", "forget_gate", "candidate", "output_gate")
QUANTITIES = (*GATES, "cell_state", "hidden_state")


class LayerTrace:
    """The six recorded quantities of one layer and direction, or those that were asked for, each (B, T, H).

    Activations are taken after the nonlinearity; 0 at padding. Time runs as in the input, also for a reverse
    direction. The hidden state of an LSTM with `proj_size` is (B, T, projection).

    Args:
        input_gate: i, and so on in the order i, f, g, o, c, h; None: not recorded.
    """

    def __init__(
        self,
        input_gate: Tensor | None = None,
        forget_gate: Tensor | None = None,
        candidate: Tensor | None = None,
        output_gate: Tensor | None = None,
        cell_state: Tensor | None = None,
        hidden_state: Tensor | None = None,
    ) -> None:
        values = (input_gate, forget_gate, candidate, output_gate, cell_state, hidden_state)
        self._values = {name: value for name, value in zip(QUANTITIES, values, strict=True) if value is not None}

    @property
    def input_gate(self) -> Tensor:
        """How much of the candidate is written, (B, T, H)."""
        return self._value("input_gate")

    @property
    def forget_gate(self) -> Tensor:
        """How much of the cell state before is kept, (B, T, H)."""
        return self._value("forget_gate")

    @property
    def candidate(self) -> Tensor:
        """What may be written, (B, T, H)."""
        return self._value("candidate")

    @property
    def output_gate(self) -> Tensor:
        """How much of the cell is shown, (B, T, H)."""
        return self._value("output_gate")

    @property
    def cell_state(self) -> Tensor:
        """The memory after each timestep, (B, T, H)."""
        return self._value("cell_state")

    @property
    def hidden_state(self) -> Tensor:
        """What the layer gives, (B, T, H or projection)."""
        return self._value("hidden_state")

    def _value(self, name: str) -> Tensor:
        if name not in self._values:
            raise AttributeError(
                f"{name} was not recorded; this trace holds {', '.join(self._values)}. "
                f"Record it too: record(module, quantities=(..., {name!r}))."
            )
        return self._values[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(value.shape)}" for name, value in self._values.items())
        return f"LayerTrace({shapes})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, T, H)."""
        known = [value for name, value in self._values.items() if name != "hidden_state"]
        batch, steps, units = (known or list(self._values.values()))[0].shape
        return batch, steps, units

    def quantities(self) -> dict[str, Tensor]:
        """Return name -> tensor (B, T, H) in the order i, f, g, o, c, h; those that were recorded."""
        return dict(self._values)

    def timesteps_read(self) -> Tensor:
        """Return bool (B, T): the timesteps that were read, neither padding nor skipped by a mask; all is 0 there."""
        return torch.stack([value.ne(0).any(dim=2) for value in self._values.values()]).any(dim=0)

    def masked(self, valid: Tensor) -> LayerTrace:
        """Return a LayerTrace of T timesteps (a packed pass may have had fewer), 0 where `valid` (B, T) is False."""
        steps = valid.shape[1]
        if steps == self.shape[1] and bool(valid.all()):
            return self

        def mask(value: Tensor) -> Tensor:
            value = torch.nn.functional.pad(value, (0, 0, 0, steps - value.shape[1]))  # (B, T, H)
            return value.masked_fill(~valid.to(value.device)[..., None], 0)

        return self.map(mask)

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerTrace:
        """Return a LayerTrace with `function` applied to each quantity."""
        return LayerTrace(**{name: function(value) for name, value in self._values.items()})


class Trace(Mapping[str, LayerTrace]):
    """Layer name -> `LayerTrace`, bottom first: "lstm.0", "lstm.0.reverse", "lstm.1", ...

    Attributes:
        lengths: Long (B,), valid timesteps of each sequence; values at padding are 0.
        inputs: In a trace of gradients, d score / d inputs (B, T, D), of tokens d score / d their embedding; in one of
            values beside it, those inputs or embeddings themselves. None where there is none.
    """

    def __init__(self, layers: Mapping[str, LayerTrace], *, lengths: Tensor, inputs: Tensor | None = None) -> None:
        self._layers = dict(layers)
        self.lengths = lengths
        self.inputs = inputs

    def __getitem__(self, name: str) -> LayerTrace:
        try:
            return self._layers[name]
        except KeyError:
            raise KeyError(f"no layer {name!r} in this trace; it has {', '.join(self._layers)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {layer.shape}" for name, layer in self._layers.items())
        return f"Trace({shapes})"

    def _repr_html_(self) -> str:
        """Return layers, shapes and gates in numbers, for notebooks."""
        from .notebook import trace_html

        return str(trace_html(self))

    def to_xarray(self) -> xr.DataTree:
        """Return an `xarray.DataTree`, one node a layer ("lstm.0" -> "/lstm.0"), dims (sample, time, unit).

        The hidden state of an LSTM with `proj_size` has the dims (sample, time, projection).
        """
        import xarray as xr

        nodes: dict[str, xr.Dataset] = {
            "/": xr.Dataset({"length": ("sample", self.lengths.cpu().numpy())}),
        }
        for name, layer in self._layers.items():
            units = layer.shape[2]
            variables: dict[str, Any] = {
                quantity: (("sample", "time", "unit" if value.shape[2] == units else "projection"), to_numpy(value))
                for quantity, value in layer.quantities().items()
            }
            nodes[f"/{name}"] = xr.Dataset(variables)
        return xr.DataTree.from_dict(nodes, name="trace")


def to_numpy(tensor: Tensor) -> Any:
    """Return the tensor's values as a numpy array (bfloat16, unknown to numpy, as float32)."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
