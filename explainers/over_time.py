"""`explain_over_time`: which input timesteps matter to each output timestep, for models with one output a timestep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..models import InvalidInputError
from .base import Explainer, unpacked

if TYPE_CHECKING:
    import xarray as xr


def explain_over_time(
    explainer: Explainer,
    inputs: Any,
    *,
    output: int | str = 0,
    timesteps: Sequence[int] | None = None,
    lengths: Any = None,
    progress: bool = False,
) -> xr.Dataset:
    """Explain several output timesteps, or several horizons, of each sequence at once.

    Each by itself; their sum over a window is one explanation, `explainer.explain` with a slice in its target.

    Args:
        explainer: Any explainer, made for a model whose scores are (B, T', K).
        inputs: Float (B, T, D), token ids (B, T), or a `SequenceData`.
        output: Which of the K outputs: its number or name.
        timesteps: Which output timesteps; negative ones count from the last of all. None: all T'.
        lengths: Long (B,); where outputs follow the inputs' timesteps, those at padding are not explained.
        progress: Show a progress bar.

    Returns:
        A dataset with "attribution" (sample, output_time, time, feature), and "prediction", "baseline_prediction" and
        "completeness_gap" (sample, output_time). NaN at output timesteps that are padding; 0 at input padding. A model
        that reads forwards has nothing after the output timestep.

    Raises:
        InvalidInputError: The model has one output a sequence, or no such timestep.

    Example:
        >>> found = explain_over_time(DeepLIFT(model), inputs, output=0)
        >>> found["attribution"].sum("feature")  # (sample, output_time, time)
    """
    import xarray as xr

    inputs, lengths, names, _ = unpacked(inputs, lengths, None, None)
    predictor = explainer.predictor
    checked, lengths = predictor.check(inputs, lengths)
    batch, steps = checked.shape[:2]
    scores = predictor.predict(checked, lengths)
    if scores.ndim != 3:
        raise InvalidInputError(
            f"the model returns scores of shape {tuple(scores.shape)}, one a sequence; explain_over_time needs one a "
            "timestep, (B, T, K). Use explainer.explain(inputs)."
        )
    count = scores.shape[1]
    wanted = list(range(count)) if timesteps is None else [_timestep(step, count) for step in timesteps]
    ends = lengths if count == steps else torch.full((batch,), count)
    pairs = [
        (sample, place) for sample in range(batch) for place, step in enumerate(wanted) if step < int(ends[sample])
    ]
    if not pairs:
        raise InvalidInputError(f"none of the output timesteps {wanted} is before the end of any sequence.")
    rows = torch.tensor([sample for sample, _ in pairs])
    target = (np.array([wanted[place] for _, place in pairs]), output)
    explained = explainer.explain(
        checked[rows.to(checked.device)], target=target, lengths=lengths[rows], progress=progress
    )
    found = explained.to_xarray()
    places = tuple(np.array(pairs).T)  # (samples, places)
    numbers = {}
    for name in ("prediction", "baseline_prediction", "completeness_gap"):
        numbers[name] = np.full((batch, len(wanted)), np.nan)
        numbers[name][places] = found[name].to_numpy()
    values = np.full((batch, len(wanted), steps, explained.values.shape[2]), np.nan)
    values[places] = explained.values
    coordinates = {
        "sample": [f"sample {row}" for row in range(batch)] if names is None else list(names),
        "output_time": wanted,
        "time": np.arange(steps),
        "feature": found["feature"].to_numpy(),
    }
    data: dict[str, Any] = {"attribution": (("sample", "output_time", "time", "feature"), values)}
    data |= {name: (("sample", "output_time"), number) for name, number in numbers.items()}
    kept = ("method", "options", "completeness", "resolution", "baseline_name", "output", "model", "seed", "versions")
    return xr.Dataset(data, coordinates, {name: found.attrs[name] for name in kept})


def _timestep(step: int, count: int) -> int:
    found = step + count if step < 0 else step
    if not 0 <= found < count:
        raise InvalidInputError(f"output timestep {step} is not there; the model has the timesteps 0 to {count - 1}.")
    return found
