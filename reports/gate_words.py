"""What the gates of a model do on data, in sentences made from `LayerStatistics` by rules."""

from __future__ import annotations

import math

import numpy as np

from ..models.gate_statistics import LayerStatistics
from .wording import duration, joined, number, percent

MOSTLY, NEARLY_ALL = 0.5, 0.8
SHORTEST = 0.1
MANY_RESTING = 8  # more are counted, not named
GATE_WORDS = {"input_gate": "input", "forget_gate": "forget", "output_gate": "output"}


def gate_sentences(found: LayerStatistics, *, interval: float | None = None) -> list[str]:
    """Return what a person should know of a layer: its memory, its saturated gates, its dead units.

    Args:
        found: The numbers.
        interval: Seconds from one timestep to the next, where known.
    """
    return [_memory(found, interval), _saturation(found), _resting(found)]


def _memory(found: LayerStatistics, interval: float | None) -> str:
    low, middle, high = np.quantile(found.half_lives, (0.1, 0.5, 0.9), method="nearest")
    if not np.isfinite(found.half_lives).any():
        return "Memory: the forget gates stay at 1, so the cells forget nothing."
    quickest, slowest = steps_words(low), steps_words(high)
    units = "" if quickest == slowest else f" (quickest tenth of the units: {quickest}; slowest: {slowest})"
    what = "never" if not math.isfinite(middle) else f"after {steps_words(middle, interval)}"
    return (
        f"Memory: the middle unit has forgotten half of what its cell holds {what}{units}. "
        f"At the mean rate of all units it is {steps_words(found.mean_half_life)}."
    )


def steps_words(steps: float, interval: float | None = None) -> str:
    """Return a number of timesteps in words, with the time it takes where the seconds between them are known."""
    if not math.isfinite(steps):
        return "never"
    if steps < SHORTEST:
        return "under 0.1 timesteps"
    count = number(steps, digits=2)
    words = f"{count} timestep{'' if count == '1' else 's'}"
    if interval is not None and steps >= 1:
        words += f" ({duration(float(f'{steps * interval:.2g}'))})"
    return words


def _saturation(found: LayerStatistics) -> str:
    parts = []
    for gate, word in GATE_WORDS.items():
        above, below = found.open_share[gate], found.closed_share.get(gate, 0.0)
        parts.append(f"{word} {percent(above + below)} ({percent(above)} open, {percent(below)} closed)")
    candidate = percent(found.open_share["candidate"])
    text = f"Saturated gates (above 0.95 or below 0.05): {joined(parts)}. Candidates beyond ±0.95: {candidate}."
    stuck = [
        f"the {word} gate is {'open' if found.open_share[gate] > MOSTLY else 'closed'} most of the time"
        for gate, word in GATE_WORDS.items()
        if max(found.open_share[gate], found.closed_share.get(gate, 0.0)) > MOSTLY
    ]
    if stuck:
        text += f" So {joined(stuck)}."
    if min(found.saturated_share.values()) > NEARLY_ALL:
        text += " Nearly everything is saturated: the inputs are hardly scaled as they were in training."
    return text


def _resting(found: LayerStatistics) -> str:
    units, resting = len(found.unit_ranges), found.resting_units
    if not resting:
        return f"Dead units: none of {units}; every unit's output moves on this data."
    if len(resting) == units:
        return f"Dead units: all {units}; no unit's output moves on this data."
    names = f": {joined([str(unit) for unit in resting])}" if len(resting) <= MANY_RESTING else ""
    return (
        f"Dead units: {len(resting)} of {units}, whose output moves less than 1 % of what the liveliest unit's does"
        f"{names}."
    )
