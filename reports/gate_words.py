"""What the gates of a model do on data, in sentences made from `LayerStatistics` by rules."""

from __future__ import annotations

import math

import numpy as np

from ..models.gate_statistics import LayerStatistics
from .wording import duration, joined, number, percent

MOSTLY, NEARLY_ALL = 0.5, 0.8
SHORTEST, LONGEST = 0.1, 1_000_000  # timesteps; beyond, the rounding of a gate near 0 or 1 would be told as a number
MANY_RESTING = 8  # more are counted, not named
TENTHS = 10  # units; of fewer, no tenth can be told
GATE_WORDS = {"input_gate": "input", "forget_gate": "forget", "output_gate": "output"}


def gate_sentences(found: LayerStatistics, *, interval: float | None = None) -> list[str]:
    """Return what a person should know of a layer: its memory, its saturated gates, its dead units.

    Args:
        found: The numbers.
        interval: Seconds from one timestep to the next, where known.
    """
    return [_memory(found, interval), _saturation(found), _resting(found)]


def _memory(found: LayerStatistics, interval: float | None) -> str:
    if not np.isfinite(found.half_lives).any():
        return "Memory: the forget gates stay at 1, so the cells forget nothing."
    few = len(found.half_lives) < TENTHS
    shares = (0, 0.5, 1) if few else (0.1, 0.5, 0.9)
    low, middle, high = np.quantile(found.half_lives, shares, method="nearest")
    quickest, slowest = steps_words(low), steps_words(high)
    which = "the quickest unit" if few else "quickest tenth of the units"
    units = "" if quickest == slowest else f" ({which}: {quickest}; {'the ' if few else ''}slowest: {slowest})"
    half = "half of what its cell holds"
    forgets = f"has forgotten {half} {_when(middle, interval)}" if math.isfinite(middle) else f"never forgets {half}"
    return (
        f"Memory: the middle unit {forgets}{units}. "
        f"At the mean rate of all units that takes {steps_words(found.mean_half_life)}."
    )


def _when(steps: float, interval: float | None) -> str:
    if steps < SHORTEST:
        return f"within {SHORTEST:g} timesteps"
    return f"after more than {LONGEST:,} timesteps" if steps > LONGEST else f"after {steps_words(steps, interval)}"


def steps_count(steps: float) -> str:
    """Return a number of timesteps without the unit: "2.1", "under 0.1", "over 1,000,000" or "never"."""
    if not math.isfinite(steps):
        return "never"
    if steps > LONGEST:
        return f"over {LONGEST:,}"
    return f"under {SHORTEST:g}" if steps < SHORTEST else number(steps, digits=2)


def steps_words(steps: float, interval: float | None = None) -> str:
    """Return a number of timesteps in words, with the time it takes where the seconds between them are known."""
    count = steps_count(steps)
    if not math.isfinite(steps):
        return count
    words = f"{count} timestep{'' if count == '1' else 's'}"
    if interval is not None and 1 <= steps <= LONGEST:
        words += f" ({duration(float(f'{steps * interval:.2g}'))})"
    return words


def _saturation(found: LayerStatistics) -> str:
    parts = []
    for gate, word in GATE_WORDS.items():
        above, below = found.open_share[gate], found.closed_share.get(gate, 0.0)
        saturated = f"{percent(above + below)} ({percent(above)} open, {percent(below)} closed)"
        parts.append(f"{word} {saturated if above + below else 'never'}")
    any_gate = any(found.saturated_share[gate] for gate in GATE_WORDS)
    candidate = percent(found.open_share["candidate"]) if found.open_share["candidate"] else "none"
    text = (
        f"Saturated gates (above 0.95 or below 0.05): {joined(parts) if any_gate else 'none'}. "
        f"Candidates beyond ±0.95: {candidate}."
    )
    shares = {"open": found.open_share, "closed": found.closed_share}
    stuck = [
        f"the {joined(words)} gate{' is' if len(words) == 1 else 's are'} {state}"
        for state, share in shares.items()
        if (words := [word for gate, word in GATE_WORDS.items() if share.get(gate, 0.0) > MOSTLY])
    ]
    if stuck:
        text += f" So {joined(stuck)} most of the time, all units together."
    if min(found.saturated_share.values()) > NEARLY_ALL:
        text += (
            " Nearly everything is saturated: either the weights are very large, or the inputs are hardly scaled as "
            "they were in training."
        )
    return text


def dead_words(found: LayerStatistics) -> str:
    """Return how many units are dead, e.g. "3 of 16"; one timestep does not tell."""
    return "not known" if found.timesteps < 2 else f"{len(found.resting_units)} of {len(found.unit_ranges)}"


def _resting(found: LayerStatistics) -> str:
    units, resting = len(found.unit_ranges), found.resting_units
    if found.timesteps < 2:
        return "Dead units: not known; a single timestep does not show what moves."
    if not resting:
        return f"Dead units: none of {units}; every unit's output moves on this data."
    if len(resting) == units:
        return f"Dead units: all {units}; no unit's output moves on this data."
    names = f": {joined([str(unit) for unit in resting])}" if len(resting) <= MANY_RESTING else ""
    return (
        f"Dead units: {dead_words(found)}, whose output moves less than 1 % of what the liveliest unit's does{names}."
    )
