"""What recording returns: `LayerTrace`, the six quantities of one layer and direction, and `Trace`, all layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import xarray as xr

GATES = ("input_gate", "forget_gate", "candidate", "output_gate")
QUANTITIES = (*GATES, "cell_state", "hidden_state")


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """The six recorded quantities of one layer and direction, each (B, T, H), 0 at padding.

    Activations are taken after the nonlinearity. Time runs as in the input, also for a reverse direction.
    """

    input_gate: Tensor
    forget_gate: Tensor
    candidate: Tensor
    output_gate: Tensor
    cell_state: Tensor
    hidden_state: Tensor

    def quantities(self) -> dict[str, Tensor]:
        """Return name -> tensor (B, T, H) in the order i, f, g, o, c, h."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def masked(self, valid: Tensor) -> LayerTrace:
        """Return a LayerTrace of T timesteps (a packed pass may have had fewer), 0 where `valid` (B, T) is False."""
        steps = valid.shape[1]

        def mask(value: Tensor) -> Tensor:
            value = torch.nn.functional.pad(value, (0, 0, 0, steps - value.shape[1]))  # (B, T, H)
            return value.masked_fill(~valid.to(value.device)[..., None], 0)

        return self.map(mask)

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerTrace:
        """Return a LayerTrace with `function` applied to each quantity."""
        return LayerTrace(*(function(value) for value in self.quantities().values()))


class Trace(Mapping[str, LayerTrace]):
    """Layer name -> `LayerTrace`, bottom first: "lstm.0", "lstm.0.reverse", "lstm.1", ...

    Attributes:
        lengths: Long (B,), valid timesteps of each sequence; values at padding are 0.
    """

    def __init__(self, layers: Mapping[str, LayerTrace], *, lengths: Tensor) -> None:
        self._layers = dict(layers)
        self.lengths = lengths

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
        shapes = ", ".join(f"{name}: {tuple(layer.cell_state.shape)}" for name, layer in self._layers.items())
        return f"Trace({shapes})"

    def to_xarray(self) -> xr.DataTree:
        """Return an `xarray.DataTree`, one node a layer ("lstm.0" -> "/lstm.0"), dims (sample, time, unit).

        The hidden state of an LSTM with `proj_size` has the dims (sample, time, projection).
        """
        import xarray as xr

        nodes: dict[str, xr.Dataset] = {
            "/": xr.Dataset({"length": ("sample", self.lengths.cpu().numpy())}),
        }
        for name, layer in self._layers.items():
            units = layer.cell_state.shape[2]
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
