"""The randomisation test: an explanation of a model whose weights are drawn anew must be another one."""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...models import ModelError, Predictor
from .again import alike_by_parts, explain_again
from .base import Case, Computed, OfValues
from .predictions import Predictions

Stage = tuple[str, list[nn.Parameter]]

LAYER = re.compile(r"_l(\d+)(_reverse)?$")  # of the parameters of nn.LSTM


class Randomisation(OfValues):
    """Rank correlation with the explanation of a model whose weights are drawn anew, layer by layer from the output.

    Cascading: each stage draws one layer more, until nothing of the training is left. The value is the mean over the
    stages of the correlation's size: 1 for an explanation that does not depend on the weights. The model is copied, and
    the user's is left alone. A weight is drawn from a normal distribution with mean 0 and the root mean square of its
    tensor, so that the model keeps its scale (the paper draws as the model was initialised).

    Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.

    Its details are the correlation, with its sign, at each stage.
    """

    name = "randomisation"
    source = "Adebayo et al. 2018, cascading"
    range = (0.0, 1.0)
    direction = "lower"
    unit = "correlation"
    detail = "stage"
    order: Literal["cascading", "independent"] = "cascading"
    cannot = (
        "It finds explanations that do not depend on the weights, no others: a random one that draws anew each time "
        "passes. In sequences of few parts unrelated rankings correlate by chance; and an explanation that is relative "
        "to a baseline still depends on where input and baseline are equal, whatever the weights."
    )

    def compute(self, case: Case) -> Computed:
        """Return the mean size of the correlation over the stages, and with its sign at each."""
        predictions = case.predictions
        rows = torch.arange(len(predictions))
        names, found = [], []
        for name, predictor in self._models(predictions):
            names.append(name)
            found.append(alike_by_parts(case, explain_again(case, rows, predictor=predictor)))
        if not found:
            raise ModelError(f"{self.name} draws weights anew, and this model has none; leave it out.")
        details = np.stack(found, axis=1)  # (B, stages)
        return Computed(np.abs(details).mean(axis=1), details, names)

    def _models(self, predictions: Predictions) -> Iterator[tuple[str, Predictor]]:
        """Yield each stage's name and model, always the same copy."""
        copied = _copied(predictions.predictor)
        assert copied.module is not None
        kept = {name: value.clone() for name, value in copied.module.state_dict().items() if isinstance(value, Tensor)}
        for name, parameters in stages_of(copied, predictions.inputs, predictions.lengths):
            if self.order == "independent":
                copied.module.load_state_dict(kept, strict=False)
            _draw(parameters, predictions.seed, name)
            yield name, copied


class IndependentRandomisation(Randomisation):
    """The same, each stage drawing one layer alone, with all others as trained."""

    name = "randomisation_independent"
    source = "Adebayo et al. 2018, independent"
    order = "independent"


def stages_of(predictor: Predictor, inputs: Tensor, lengths: Tensor) -> list[Stage]:
    """Return name and parameters of each layer, from the output down.

    Layers stand in the order in which they are last called, and those that are never called (their weights are read by
    the module around them) after the one they are registered after. Each layer of an `nn.LSTM` is one.
    """
    assert predictor.module is not None
    called: dict[nn.Module, int] = {}
    parts = [
        (name, part)
        for name, part in predictor.module.named_modules()
        if any(True for _ in part.parameters(recurse=False))
    ]

    def note(part: nn.Module, _args: Any, _output: Any) -> None:
        called[part] = next(count)

    count = iter(range(1, 2**31))
    hooks = [part.register_forward_hook(note) for _, part in parts]
    try:
        predictor.predict(inputs[:1], lengths[:1])
    finally:
        for hook in hooks:
            hook.remove()
    stages: list[tuple[float, Stage]] = []
    last = 0.0
    for name, part in parts:
        last = float(called.get(part, 0)) or last + 1e-6
        layers: dict[int, list[nn.Parameter]] = {}
        for own, parameter in part.named_parameters(recurse=False):
            layer = LAYER.search(own) if isinstance(part, nn.RNNBase) else None
            layers.setdefault(int(layer[1]) if layer else 0, []).append(parameter)
        for number, parameters in sorted(layers.items()):
            title = f"{name or 'model'}" + (f" layer {number}" if len(layers) > 1 else "")
            stages.append((last + number * 1e-9, (title, parameters)))
    return [stage for _, stage in sorted(stages, key=lambda found: found[0], reverse=True)]


def _copied(predictor: Predictor) -> Predictor:
    if predictor.module is None:
        raise ModelError(
            "the randomisation test draws a torch module's weights anew, and the model is a plain function; "
            "leave it out."
        )
    try:
        module = copy.deepcopy(predictor.module)
    except Exception as error:
        raise ModelError(
            f"the randomisation test works on a copy of the model, which cannot be copied ({type(error).__name__}: "
            f"{error}); leave it out."
        ) from error
    return Predictor(
        module,
        task=predictor.task,
        output=predictor.output,
        memory_bytes=predictor.memory_bytes,
    )


@torch.no_grad()
def _draw(parameters: list[nn.Parameter], seed: int, name: str) -> None:
    """Draw parameters anew, with the root mean square that each has."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    for parameter in parameters:
        scale = float(parameter.double().square().mean().sqrt())
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_((drawn * scale).to(parameter))
