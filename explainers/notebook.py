"""How an `Attribution` shows itself in a notebook: what was predicted, what adds up, and the largest parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..models.notebook import Markup, bar, course, small, table

if TYPE_CHECKING:
    from .attribution import Attribution

MOST_SAMPLES, MOST_PARTS = 5, 5
LONGEST = 60  # letters of a name


def attribution_html(attribution: Attribution) -> str:
    """Return a short, self-contained piece of HTML: samples, and the largest timesteps and features of the first."""
    batch, steps, features = attribution.dataset["attribution"].shape
    shown = attribution.take(slice(0, MOST_SAMPLES))  # of a store that was opened no more is read
    head = ["sample", "explained", "prediction", "baseline", "accounted for", "gap"]
    rows = [_sample_row(shown, sample) for sample in range(min(batch, MOST_SAMPLES))]
    if batch > MOST_SAMPLES:
        rows.append([f"... ({batch} in all)", *[""] * (len(head) - 1)])
    parts = [table(head, rows, title=f"{attribution.method}, {attribution.attrs['output']}")]
    if batch:
        parts += _largest_parts(shown)
    attrs = attribution.attrs
    told = [f"samples x timesteps x features: {batch} x {steps} x {features}"]
    if "forward_evaluations" in attrs:
        told.append(f"{attrs['forward_evaluations']} forward, {attrs['backward_evaluations']} backward evaluations")
    if "seconds" in attrs:
        told.append(f"{attrs['seconds']:.2f} s")
    return f"<div>{''.join(parts)}{small(*told)}</div>"


def _sample_row(attribution: Attribution, sample: int) -> list[str]:
    output = int(attribution.dataset["target_output"].to_numpy()[sample])
    prediction, baseline = float(attribution.prediction[sample]), float(attribution.baseline_prediction[sample])
    gap, change = float(attribution.completeness_gap[sample]), prediction - baseline
    promised = attribution.attrs["completeness"] != "none"
    share = f"{(change - gap) / change:.1%}" if change else "no change"
    return [
        _cut(attribution.sample_names[sample]),
        _cut(attribution.output_names[output]),
        f"{prediction:.4g}",
        f"{baseline:.4g}",
        share if promised else "not promised",
        f"{gap:.2g}",
    ]


def _largest_parts(attribution: Attribution) -> list[Markup]:
    """Return the first sample's course over time, its largest timesteps and its largest features."""
    length = int(attribution.lengths[0])
    name = _cut(attribution.sample_names[0])
    parts = []
    if attribution.resolves_time:
        values = attribution.timesteps[0, :length].astype(np.float64)
        places = [str(place) for place in attribution.dataset["time"].to_numpy()[:length]]
        head, texts = ["time", attribution.measures, ""], _step_texts(attribution, length)
        rows = [[places[k], *([] if texts is None else [texts[k]]), *_sized(values, k)] for k in _strongest(values)]
        if texts is not None:
            head.insert(1, "token" if attribution.of_tokens else "at")
        parts += [course(values), table(head, rows, title=f"largest timesteps of {name}")]
    if attribution.resolves_features and not attribution.of_tokens:
        values = attribution.features[0].astype(np.float64)
        rows = [[_cut(attribution.feature_names[k]), *_sized(values, k)] for k in _strongest(values)]
        parts.append(table(["feature", attribution.measures, ""], rows, title=f"largest features of {name}"))
    return parts


def _strongest(values: NDArray[np.float64]) -> list[int]:
    return [int(place) for place in np.argsort(-np.abs(values), kind="stable")[:MOST_PARTS]]


def _sized(values: NDArray[np.float64], place: int) -> list[str]:
    """Return a contribution in numbers and as a bar."""
    value = float(values[place])
    return [f"{value:+.4g}", bar(value / (float(np.abs(values).max()) or 1.0))]


def _step_texts(attribution: Attribution, length: int) -> list[str] | None:
    """Return what stood, or when it was, at each timestep of the first sample, where that is known."""
    found = attribution.diagnostic("token")
    if found is None:
        found = attribution.diagnostic("timestamp")
        if found is None:
            return None
        times = found[0, :length]
        daily = (times.astype("M8[D]") == times).all()
        return [str(time).replace("T", " ") for time in times.astype("M8[D]" if daily else "M8[s]")]
    return [_cut(str(text)) for text in found[0, :length]]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
