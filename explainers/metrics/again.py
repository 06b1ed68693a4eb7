"""Explaining the same predictions again: with another seed, a little beside the input, or of another model."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models import GatelensError, InvalidInputError, Predictor
from ..attribution import Attribution
from ..base import Explainer, check_positive
from ..baselines import NAMED
from ..registry import get
from .base import Case, Computed, OfValues
from .predictions import stored_baseline
from .ranking import likeness
from .reference import RANDOM, random_values

SEEDS = 2**32


def explain_again(
    case: Case,
    rows: Tensor,
    *,
    inputs: Tensor | None = None,
    predictor: Predictor | None = None,
    seed: int | None = None,
) -> NDArray[np.float64]:
    """Return attributions (N, T, D), made as the explainer made its own.

    Args:
        case: The explainer.
        rows: Long (N,), samples; each may come several times.
        inputs: (N, T, D) in place of those of the samples.
        predictor: Of another model.
        seed: Another seed.
    """
    attribution, predictions = case.attribution, case.predictions
    if attribution.method == RANDOM:
        found = attribution.values if seed is None else random_values(attribution, seed)
        return np.asarray(found[rows.numpy()])
    explainer = _made_again(case, rows, predictor or predictions.predictor, seed)
    target = predictions.target.rows(rows)
    meant: Any = target.output
    if target.timestep is not None:
        window = slice(target.timestep, None if target.last is None else target.last + 1)
        meant = (target.timestep if target.last is None else window, target.output)
    given = predictions.inputs[rows] if inputs is None else inputs
    return explainer.explain(given, target=meant, lengths=predictions.lengths[rows]).values.astype(np.float64)


def _made_again(case: Case, rows: Tensor, predictor: Predictor, seed: int | None) -> Explainer:
    """Return an explainer with the options of the attribution's, or of the one that was given for it."""
    attribution, given = case.attribution, case.explainers.get(case.name)
    seed = int(attribution.attrs["seed"]) if seed is None else seed
    name = str(attribution.attrs["baseline_name"])
    baseline = name if name in NAMED else stored_baseline(attribution)[rows.numpy()]
    advice = f"pass it: explainers={{{case.name!r}: THE_EXPLAINER}}."
    if given is None and name.startswith("mean over"):
        raise InvalidInputError(
            f"{case.name} was explained with a background set, which its result does not hold; {advice}"
        )
    options = attribution.options if given is None else given.options()
    if given is not None and given.background is not None:
        options["background"] = given.background
    try:
        cls = get(attribution.method) if given is None else type(given)
        explainer = cls(predictor, baseline=baseline, seed=seed, **options)
    except (GatelensError, TypeError) as error:
        advice = advice if given is None else "its class takes other options than those it names."
        raise InvalidInputError(f"{case.name} cannot be explained again ({error}); {advice}") from None
    if given is None and json.dumps(explainer.options(), default=str) != attribution.attrs["options"]:
        raise InvalidInputError(f"the options of {case.name} cannot be read from its result; {advice}")
    return explainer


def check_explainer(name: str, explainer: Any, attribution: Attribution) -> None:
    """Refuse what is not the explainer of an attribution."""
    if not isinstance(explainer, Explainer) or explainer.name != attribution.method:
        found = explainer.name if isinstance(explainer, Explainer) else type(explainer).__name__
        raise InvalidInputError(
            f"explainers gives {found} for {name}, which was explained by {attribution.method}; give the "
            "explainer that made the attribution."
        )


class Stability(OfValues):
    """Mean rank correlation of the parts with what the same explainer says with other seeds; 1 where nothing is random.

    Source: the stability of LIME over its draws, as in Visani et al. 2022, "Statistical stability indices for LIME",
    here by ranks.

    Args:
        repeats: Other seeds, counted on from the attribution's own.
    """

    name = "stability"
    source = "after Visani et al. 2022"
    range = (-1.0, 1.0)
    direction = "higher"
    unit = "correlation"
    cannot = "A method without chance is perfectly stable, and a constant one too: it tells of draws, not of truth."

    def __init__(self, repeats: int = 3) -> None:
        check_positive("repeats", repeats)
        self.repeats = repeats

    def compute(self, case: Case) -> Computed:
        """Return the mean correlation, (B,)."""
        rows = torch.arange(len(case.predictions))
        first = int(case.attribution.attrs["seed"])
        found = [
            alike_by_parts(case, explain_again(case, rows, seed=(first + repeat) % SEEDS))
            for repeat in range(1, self.repeats + 1)
        ]
        return Computed(np.mean(found, axis=0))


class MaxSensitivity(OfValues):
    """The largest change of the attribution when the input is moved a little, as a share of its own size (2-norm).

    Computed by `captum.metrics.sensitivity_max`. The target stays the attribution's; padding is not moved.

    Source: Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", definition 2.2.

    Args:
        radius: How far each number may move, in the model's units: of features of unit variance 0.02 is little.
        draws: Inputs beside each.
    """

    name = "max_sensitivity"
    source = "Yeh et al. 2019, by captum"
    range = (0.0, math.inf)
    direction = "lower"
    unit = "share"
    cannot = (
        "An explanation that never looks at the input is as insensitive as can be; and where the model itself turns "
        "sharply, a good explanation must."
    )

    def __init__(self, radius: float = 0.02, draws: int = 10) -> None:
        if isinstance(radius, bool) or not (isinstance(radius, (int, float)) and 0 < radius < math.inf):
            raise InvalidInputError(f"radius is {radius!r}; expected a positive number, in the inputs' units.")
        check_positive("draws", draws)
        self.radius = radius
        self.draws = draws

    def compute(self, case: Case) -> Computed:
        """Return captum's max-sensitivity, (B,)."""
        from captum.metrics import sensitivity_max

        predictions = case.predictions
        if predictions.inputs.ndim == 2:
            raise InvalidInputError(
                f"{self.name} moves the input a little, and token ids cannot be moved; leave it out for token models."
            )
        batch = len(predictions)
        moves = np.zeros((batch, self.draws, *predictions.inputs.shape[1:]))
        for sample, length in enumerate(predictions.lengths.tolist()):
            shape = (self.draws, length, moves.shape[3])
            generator = predictions.generator(sample, self.name)
            moves[sample, :, :length] = generator.uniform(-self.radius, self.radius, shape)
        moved = torch.as_tensor(moves).flatten(0, 1).to(predictions.inputs)  # (B * draws, T, D)

        def explained(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows = torch.arange(batch)
            if not isinstance(inputs, Tensor):  # captum asks for the inputs' own first, as a tuple
                return (torch.as_tensor(explain_again(case, rows)),)
            return (torch.as_tensor(explain_again(case, rows.repeat_interleave(self.draws), inputs=inputs)),)

        found = sensitivity_max(
            explained, predictions.inputs, perturb_func=lambda inputs: inputs + moved, n_perturb_samples=self.draws
        )
        return Computed(found.numpy())


def alike_by_parts(case: Case, again: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank correlation (B,) of the parts with those of other values (B, T, D)."""
    found = np.zeros(len(again))
    for sample in range(len(again)):
        labels = case.predictions.players(sample, case.parts).labels
        other = np.bincount(labels.ravel(), weights=again[sample, : len(labels)].ravel())
        found[sample] = likeness(case.values(sample), other)
    return found
