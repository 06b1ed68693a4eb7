"""`measure`: several metrics of several explainers side by side, on the same predictions and the same evaluations."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...models import InvalidInputError, InvalidTypeError, Predictor
from ...models.errors import nearest_name
from ...models.state import kept_buffers, seeded
from ..attribution import Attribution
from ..base import Explainer
from ..problem import Problem
from .again import MaxSensitivity, Stability, check_explainer
from .agreement import Agreement, AgreementKendall, AgreementTopK
from .base import Case, Metric, OfCoalitions, OfValues, Row
from .changes import Infidelity, Monotonicity, SensitivityN
from .masking import Comprehensiveness, Deletion, Insertion, Sufficiency
from .measured import Measured
from .plain import Completeness, EffectiveParts, Evaluations, Gini, Seconds
from .predictions import Predictions, Reference, coalition_values, named_baselines
from .randomisation import IndependentRandomisation, Randomisation
from .ranking import Parts, choose_parts

if TYPE_CHECKING:
    import xarray as xr

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        Completeness, Deletion, Insertion, Comprehensiveness, Sufficiency, Infidelity, MaxSensitivity, SensitivityN,
        Monotonicity, Randomisation, IndependentRandomisation, Agreement, AgreementKendall, AgreementTopK, Stability,
        Gini, EffectiveParts, Evaluations, Seconds,
    )
}  # fmt: skip
DEFAULT_METRICS = ("completeness", "deletion", "insertion", "comprehensiveness", "sufficiency", "infidelity",
                   "sensitivity_n", "monotonicity", "gini", "evaluations", "seconds")  # fmt: skip


def measure(
    model: Any,
    attributions: Attribution | Mapping[str, Attribution],
    metrics: Sequence[str | Metric] = DEFAULT_METRICS,
    *,
    baselines: Any = None,
    parts: Parts | None = None,
    seed: int = 0,
    explainers: Mapping[str, Explainer] | None = None,
) -> Measured:
    """Measure explanations of the same predictions, side by side.

    What the metrics ask of the model is evaluated together: a sequence with the same parts taken away once for all
    explainers and metrics, and equal beginnings once where the model reads forwards.

    Args:
        model: The explained model, or a `Predictor` of it.
        attributions: One, or name -> result.
        metrics: Names of `METRICS`, or metrics with options of their own, e.g. `Deletion(points=20)`.
        baselines: What replaces a part that is taken away: one (see `resolve_baseline`), a list of several, or name ->
            baseline; an array is one. None: those that the attributions are relative to, each once. Every explainer is
            measured with all of them.
        parts: "timestep", "cell" or "feature": what is ranked and taken away. None: timesteps, or features where an
            explainer knows these alone.
        seed: For random subsets, the order of equal parts, drawn weights and the bootstrap.
        explainers: Name -> the explainer that made the attribution, for metrics that explain again ("stability",
            "max_sensitivity", "randomisation") where it cannot be made from the result: background sets, plug-ins with
            options of their own kind.

    Returns:
        The `Measured`.

    Raises:
        InvalidInputError: The attributions are of different predictions or of another model, or do not tell `parts`
            apart; a metric is not known, or cannot be computed here.

    Example:
        >>> found = explain(model, inputs, ("deeplift", "lime"))
        >>> measure(model, found, ("deletion", "infidelity"), baselines=["zero", "mean"]).table()
    """
    started = time.perf_counter()
    results = {attributions.method: attributions} if isinstance(attributions, Attribution) else dict(attributions)
    asked = _metrics(metrics)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise InvalidInputError(f"seed is {seed!r}; expected a whole number, 0 to {2**32 - 1}.")
    module = model.module if isinstance(model, Predictor) else model if isinstance(model, nn.Module) else None
    with torch.inference_mode(False), seeded(int(seed)), kept_buffers(module):
        predictions = Predictions(model, results, seed=int(seed))
        given = dict(explainers or {})
        for name, explainer in given.items():
            if name not in results:
                raise InvalidInputError(f"explainers names {name!r}; {nearest_name(str(name), results)}")
            check_explainer(name, explainer, results[name])
        chosen = choose_parts(results, parts)
        cases = {name: Case(name, results, predictions, chosen, given) for name in results}
        dataset = _measured(cases, asked, named_baselines(baselines, results))
    dataset.attrs |= {
        "parts": chosen,
        "seed": int(seed),
        "model": results[next(iter(results))].attrs["model"],
        "seconds": time.perf_counter() - started,
    }
    return Measured(dataset)


def _metrics(metrics: Sequence[str | Metric]) -> list[Metric]:
    """Return the metrics, each once."""
    if isinstance(metrics, (str, Metric)):
        metrics = (metrics,)
    found: dict[str, Metric] = {}
    for metric in metrics:
        if isinstance(metric, str):
            if metric not in METRICS:
                raise InvalidInputError(f"there is no metric {metric!r}; {nearest_name(metric, METRICS)}")
            made = METRICS[metric]()
        else:
            made = metric
        if not isinstance(made, (OfValues, OfCoalitions)):
            raise InvalidTypeError(f"{made!r} is no metric; give a name, or a metric as Deletion(points=20).")
        if made.name in found:
            raise InvalidInputError(f"the metric {made.name!r} stands twice; measure it with one choice of options.")
        found[made.name] = made
    if not found:
        raise InvalidInputError("metrics is empty; name at least one, e.g. metrics=('deletion',).")
    return list(found.values())


def _measured(cases: Mapping[str, Case], metrics: Sequence[Metric], baselines: Mapping[str, Any]) -> xr.Dataset:
    import xarray as xr

    first = next(iter(cases.values()))
    predictions = first.predictions
    variables: dict[str, Any] = {
        "prediction": ("sample", predictions.prediction),
        "parts": ("sample", [predictions.players(sample, first.parts).count for sample in range(len(predictions))]),
    }
    coords: dict[str, Any] = {"explainer": list(cases), "sample": list(first.attribution.sample_names)}
    asking = [metric for metric in metrics if isinstance(metric, OfCoalitions)]
    taken: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    if asking:
        references = [predictions.reference(name, baseline) for name, baseline in baselines.items()]
        coords["baseline"] = list(baselines)
        variables["baseline_prediction"] = (
            ("baseline", "sample"), np.stack([reference.problem.baseline_prediction for reference in references])
        )  # fmt: skip
        taken = _asked(cases, asking, references)
    for metric in metrics:
        dims: tuple[str, ...] = ("explainer", "sample")
        details, labels = None, metric.labels()
        if isinstance(metric, OfValues):
            computed = [metric.compute(case) for case in cases.values()]
            values = np.stack([found.values for found in computed])
            parts = [found.details for found in computed if found.details is not None]
            if parts:
                details, labels = np.stack(parts), list(computed[0].labels)
        else:
            dims = ("explainer", "baseline", "sample")
            values, details = taken[metric.name]
        least, most = metric.range
        attrs = {"source": metric.source, "least": least, "most": most, "direction": metric.direction,
                 "unit": metric.unit, "cannot": metric.cannot,
                 "options": json.dumps(metric.options(), default=str)}  # fmt: skip
        variables[metric.name] = (dims, values, attrs)
        if metric.detail is not None and details is not None:
            name = f"{metric.name}_{metric.detail}"
            variables[f"{metric.name}_details"] = ((*dims, name), details)
            coords[name] = range(details.shape[-1]) if labels is None else labels
    return xr.Dataset(variables, coords)


def _asked(
    cases: Mapping[str, Case], metrics: Sequence[OfCoalitions], references: Sequence[Reference]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return each metric's values (explainer, baseline, sample) and details (explainer, baseline, sample, m)."""
    first = next(iter(cases.values()))
    predictions = first.predictions
    shape = (len(cases), len(references), len(predictions))
    values = {metric.name: np.zeros(shape) for metric in metrics}
    details: dict[str, dict[tuple[int, ...], NDArray[np.float64]]] = {metric.name: {} for metric in metrics}
    for place, sample in np.ndindex(shape[1:]):
        problem = references[place].problem
        rows = [_row(case, problem, sample) for case in cases.values()]
        wanted = [metric.coalitions(row) for row in rows for metric in metrics]
        with predictions.predictor.evaluation():
            together = np.concatenate(wanted)
            numbers = coalition_values(problem, sample, predictions.players(sample, first.parts), together)
        found = iter(np.split(numbers, np.cumsum([len(part) for part in wanted])[:-1]))
        asked = iter(wanted)
        for number, row in enumerate(rows):
            for metric in metrics:
                detail = metric.details(row, next(asked), next(found))
                details[metric.name][number, place, sample] = detail
                values[metric.name][number, place, sample] = metric.summary(row, detail)
    return {name: (values[name], _filled(details[name], shape)) for name in values}


def _row(case: Case, problem: Problem, sample: int) -> Row:
    return Row(
        values=case.values(sample),
        full=float(problem.prediction[sample]),
        empty=float(problem.baseline_prediction[sample]),
        signed=case.attribution.measures == "contribution",
        predictions=case.predictions,
        sample=sample,
    )


def _filled(parts: Mapping[tuple[int, ...], NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return one array (*shape, m), shorter parts going on with their last number."""
    longest = max(len(part) for part in parts.values())
    whole = np.empty((*shape, longest))
    for place, part in parts.items():
        whole[place] = np.pad(part, (0, longest - len(part)), mode="edge")
    return whole
