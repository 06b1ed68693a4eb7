"""`Predictions`: what attributions explain, checked against the model, and asked again with parts taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models import InvalidInputError, InvalidTypeError, Predictor, Target
from ...models.inputs import as_tensor
from ..attribution import Attribution
from ..baselines import NAMED, resolve_baseline
from ..players import CoalitionMatrix, Game, Players
from ..problem import Problem
from ..temporal_game import TemporalGame
from .ranking import Parts, random_numbers

SAME = 1e-3  # how far a prediction made again may be from the attribution's, beside 1 or the prediction
COMPARED = (
    ("input", "input"),
    ("length", "length"),
    ("target_output", "target"),
    ("target_timestep", "target"),
    ("target_last", "target"),
)


def check_same_predictions(attributions: Mapping[str, Attribution], sample: int | None = None) -> None:
    """Refuse attributions of different inputs or targets, in one sample or (None) in any."""
    first_name, first = next(iter(attributions.items()))
    for name, other in attributions.items():
        for variable, what in COMPARED:
            one, two = (found.diagnostic(variable) for found in (first, other))
            if sample is not None:
                one, two = (None if part is None else part[sample] for part in (one, two))
            same = one is two is None or (one is not None and two is not None and np.array_equal(one, two))
            if not same:
                raise InvalidInputError(
                    f"{name} explains another {what} than {first_name}; explainers are compared on one prediction."
                )


@dataclass(frozen=True, eq=False)
class Reference:
    """What stands for "absent".

    Attributes:
        name: Of the baseline.
        problem: The predictions with this baseline.
    """

    name: str
    problem: Problem


class Predictions:
    """The predictions that attributions explain, and the model that made them.

    Args:
        model: The explained model, or a `Predictor` of it.
        attributions: Name -> result, one or more of the same predictions.
        seed: For everything random.

    Attributes:
        predictor: Calls the model, and gives the number that was explained.
        inputs: Float (B, T, D) or token ids, long (B, T); 0 at padding.
        lengths: Long (B,).
        target: The explained output of each sample.
        prediction: (B,) the explained numbers, evaluated again.

    Raises:
        InvalidInputError: The attributions are of different predictions, or of another model.
    """

    def __init__(self, model: Any, attributions: Mapping[str, Attribution], *, seed: int = 0) -> None:
        _check_attributions(attributions)
        name, first = next(iter(attributions.items()))
        self.seed = seed
        self._first = first
        self.predictor = _predictor(model, first)
        for other_name, other in attributions.items():
            _check_model(self.predictor, other, other_name)
        inputs = first.inputs[..., 0] if first.of_tokens else first.inputs
        self.inputs, self.lengths = self.predictor.check(inputs, first.lengths)
        timestep, last = (first.diagnostic(variable) for variable in ("target_timestep", "target_last"))
        self.target = Target(
            _long(first.dataset["target_output"].to_numpy()),
            None if timestep is None else _long(timestep),
            None if last is None else _long(last),
        )
        self.prediction = self._evaluate(self.inputs)
        apart = np.abs(self.prediction - first.prediction) > SAME * (1 + np.abs(first.prediction))
        if apart.any():
            sample = int(apart.argmax())
            raise InvalidInputError(
                f"the model gives {self.prediction[sample]:.4g} for sample {sample}, and {name} explains "
                f"{first.prediction[sample]:.4g}; pass the explained model, as it was when it was explained (a model "
                "that draws random numbers cannot be judged)."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def _evaluate(self, inputs: Tensor) -> NDArray[np.float64]:
        return self.predictor.evaluate(inputs, self.target, self.lengths).double().cpu().numpy()

    def players(self, sample: int, parts: Parts) -> Players:
        """Return the parts of one sample's valid cells."""
        features = 1 if self.inputs.ndim == 2 else self.inputs.shape[2]
        return Players.make(parts, int(self.lengths[sample]), features)

    def generator(self, sample: int, purpose: str) -> np.random.Generator:
        """Return random numbers for a purpose, the same for every explainer."""
        return random_numbers(self._first, sample, self.seed, purpose)

    def reference(self, name: str, baseline: Any) -> Reference:
        """Return the predictions with a baseline (see `resolve_baseline`)."""
        resolved = resolve_baseline(baseline, self.inputs, self.lengths, self.predictor)
        problem = Problem(
            predictor=self.predictor,
            inputs=self.inputs,
            lengths=self.lengths,
            target=self.target,
            baseline=resolved,
            background=None,
            prediction=self.prediction,
            baseline_prediction=self._evaluate(resolved),
            seed=self.seed,
            progress=False,
            holds_last=isinstance(baseline, str) and baseline == "hold_last",
        )
        return Reference(name, problem)


def coalition_values(
    problem: Problem, sample: int, players: Players, coalitions: CoalitionMatrix, *, share: bool = True
) -> NDArray[np.float64]:
    """Return the explained number (N,) when only the parts in each coalition (N, n) keep their input.

    Coalitions that differ only in parts that change nothing are evaluated once, in the order in which they share their
    beginnings where the model reads forwards.

    Args:
        problem: The predictions and a baseline.
        sample: Which.
        players: The parts.
        coalitions: Bool (N, n).
        share: Whether beginnings may be shared (see `PrefixEngine`); else each coalition is a pass of the model.
    """
    played = TemporalGame(Game(problem, sample, players), memory_bytes=problem.predictor.memory_bytes)
    if not played.active or not len(coalitions):
        return np.full(len(coalitions), played.full)
    played.shared = played.shared and share
    some, inverse = np.unique(coalitions[:, played.active], axis=0, return_inverse=True)
    values = np.where(some.all(axis=1), played.full, played.empty)  # both are known
    inside = some.any(axis=1) & ~some.all(axis=1)
    if inside.any():
        values[inside] = played.values(some[inside])
    return np.asarray(values[inverse.ravel()])


def named_baselines(baselines: Any, attributions: Mapping[str, Attribution]) -> dict[str, Any]:
    """Return name -> baseline.

    Args:
        baselines: One, a list or tuple of several, name -> baseline, or None: those that the attributions are relative
            to, each once (of a background set its mean).
        attributions: Name -> result.
    """
    if baselines is None:
        baselines = _own_baselines(attributions)
    if isinstance(baselines, Mapping):
        named = {str(name): baseline for name, baseline in baselines.items()}
    else:
        several = list(baselines) if isinstance(baselines, (list, tuple)) else [baselines]
        given = sum(not isinstance(baseline, str) for baseline in several)
        named, number = {}, 0
        for baseline in several:
            number += not isinstance(baseline, str)
            name = baseline if isinstance(baseline, str) else "given" if given == 1 else f"given {number}"
            named[name] = baseline
    if not named:
        raise InvalidInputError("baselines is empty; name at least one, e.g. baselines=('zero', 'mean').")
    return named


def _own_baselines(attributions: Mapping[str, Attribution]) -> list[Any]:
    found: list[Any] = []
    for attribution in attributions.values():
        name = str(attribution.attrs["baseline_name"])
        if name in NAMED:
            if not any(isinstance(other, str) and other == name for other in found):
                found.append(name)
            continue
        cells = stored_baseline(attribution)
        if not any(isinstance(other, np.ndarray) and np.array_equal(other, cells) for other in found):
            found.append(cells)
    return found


def stored_baseline(attribution: Attribution) -> NDArray[Any]:
    """Return the baseline of an attribution as numbers, (B, T, D) or ids (B, T)."""
    cells = attribution.dataset["baseline"].to_numpy()
    return np.asarray(cells[..., 0] if attribution.of_tokens else cells)


def _check_attributions(attributions: Mapping[str, Attribution]) -> None:
    if not attributions:
        raise InvalidInputError("there is no attribution; pass one, or name -> attribution.")
    for name, attribution in attributions.items():
        if not isinstance(attribution, Attribution):
            raise InvalidTypeError(f"{name!r} is a {type(attribution).__name__}; expected an Attribution.")
    check_same_predictions(attributions)
    outputs = {name: attribution.attrs["output"] for name, attribution in attributions.items()}
    if len(set(outputs.values())) > 1:
        told = ", ".join(f"{name}: {output}" for name, output in outputs.items())
        raise InvalidInputError(f"the attributions explain different outputs ({told}); explain all with one output=.")


def _predictor(model: Any, attribution: Attribution) -> Predictor:
    """Return a model as it was explained: logit or probability, and its task, are the attribution's."""
    output, task = attribution.attrs["output"], attribution.attrs["task"] or None
    if not isinstance(model, Predictor):
        return Predictor(model, output=output, task=task)
    if model.output != output:
        raise InvalidInputError(
            f"the model is a Predictor with output={model.output!r}, and the attribution explains {output!r}; pass the "
            f"model itself, or Predictor(model, output={output!r})."
        )
    return model


def _check_model(predictor: Predictor, attribution: Attribution, name: str) -> None:
    found, expected = predictor.model_id(), attribution.attrs["model"]
    if predictor.module is not None and found != expected:
        raise InvalidInputError(
            f"the model given (hash {found}) is not the one that {name} explains (hash {expected}); pass the explained "
            "model."
        )


def _long(values: NDArray[Any]) -> Tensor:
    return as_tensor(values).to(torch.long)
