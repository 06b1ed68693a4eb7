"""Gate saliency: how much each gate, at each timestep, unit and layer, matters to the explained number.

For a gate value a with gradient d score / d a (total: all later effects counted), `gate_x_gradient` is their product,
the first-order effect of shutting the gate (or of a candidate of 0), and `gradient` is the sensitivity alone. The
idea is gradient x activation (Shrikumar et al. 2017; Ancona et al. 2018), applied to the gates of
Hochreiter & Schmidhuber 1997.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch

from ..models import InvalidInputError
from ..models.errors import nearest_name
from ..models.gradients import gradients_of
from ..models.recorder import lstm_modules, record
from ..models.trace import GATES, to_numpy
from .base import Completeness, Explainer
from .problem import Contribution, Problem

Mode = Literal["gradient", "gate_x_gradient"]


class GateSaliency(Explainer):
    """Saliency of the gates of every LSTM in a module, reduced to timesteps, with the full array kept.

    A timestep's value is the sum over its gates, units and layers: of gate x gradient with its sign, or of the
    absolute gradient. Gates belong to a timestep, not to a feature, so the value is shared equally by the features
    (resolution "timestep").

    Args:
        model: A torch module that holds `nn.LSTM`, or an `nn.LSTMCell` that reads the inputs' timesteps in a loop.
        mode: "gate_x_gradient" (signed) or "gradient" (absolute).
        gates: Which of "input_gate", "forget_gate", "candidate", "output_gate" are summed into timesteps; the full
            array holds all four.
        options: `baseline` (for the completeness line only), `output`, `task`, `seed` of `Explainer`.
    """

    name = "gate_saliency"
    measures = "sensitivity"
    summary = "gates times their gradients, by gate, unit, layer and timestep"
    completeness = "none"
    dummy_player = "exact"
    needs = "lstm"
    concurrent = True
    source = "gradient x activation on the gates of Hochreiter & Schmidhuber 1997"

    def __init__(
        self, model: Any, *, mode: Mode = "gate_x_gradient", gates: tuple[str, ...] = GATES, **options: Any
    ) -> None:
        super().__init__(model, **options)
        if mode not in get_args(Mode):
            raise InvalidInputError(f"mode is {mode!r}; {nearest_name(str(mode), get_args(Mode))}")
        if not gates:
            raise InvalidInputError(f"gates is empty; name at least one of {', '.join(GATES)}.")
        for gate in gates:
            if gate not in GATES:
                raise InvalidInputError(f"gates holds {gate!r}; {nearest_name(str(gate), GATES)}")
        self.mode: Mode = mode
        self.gates = tuple(gates)
        module = self.predictor.module
        if module is not None and not lstm_modules(module):
            with record(module):  # raises the error that says which explainers still work
                pass

    @property
    def linearity(self) -> Completeness:  # type: ignore[override]
        """Sizes of gradients are not those of a sum."""
        return "none" if self.mode == "gradient" else "exact"

    def _attribute(self, problem: Problem) -> Contribution:
        batch, steps = problem.inputs.shape[:2]
        parts = torch.arange(batch).split(problem.predictor.quick_rows(problem.inputs, copies=3))
        chosen = [GATES.index(gate) for gate in self.gates]
        gates = np.empty(0, dtype=np.float32)  # (B, layer, T, gate, unit or 1), made when the layers are known
        summed = np.zeros((batch, steps))
        first = 0
        for rows in problem.track(parts, len(parts), self.name):
            own = slice(first, first + len(rows))
            first = own.stop
            target, lengths = problem.target.rows(rows), problem.lengths[rows]
            values, gradients = gradients_of(problem.predictor, problem.inputs[rows], target, lengths, aligned=True)
            layers = tuple(values)
            if gates.size == 0:
                widths = {layer.cell_state.shape[2] for layer in values.values()}
                shape = (batch, len(layers), steps, len(GATES), 1 if self.unit_sums else max(widths))
                gates = np.empty(shape, dtype=np.float32)
                if len(widths) > 1 and not self.unit_sums:
                    gates.fill(np.nan)
            for index, name in enumerate(layers):
                for position, gate in enumerate(GATES):
                    found = getattr(gradients[name], gate)  # (b, T, H)
                    if self.mode == "gate_x_gradient":
                        found = found * getattr(values[name], gate)
                    whole = found.sum(dim=2, dtype=torch.float64)  # (b, T)
                    kept = whole[..., None] if self.unit_sums else found
                    gates[own, index, :, position, : kept.shape[2]] = to_numpy(kept)
                    if position in chosen:
                        terms = found.abs().sum(dim=2, dtype=torch.float64) if self.mode == "gradient" else whole
                        summed[own] += to_numpy(terms)
        shared = np.repeat(summed[..., None] / problem.features, problem.features, axis=2)  # (B, T, D)
        return Contribution(shared, resolution="timestep", gates=gates, layers=layers)
