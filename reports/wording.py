"""Numbers, times and names as people write them; every number on the page goes through here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution

METHOD_NAMES = {
    "integrated_gradients": "Integrated gradients",
    "gradient_shap": "Gradient SHAP",
    "kernel_shap": "Kernel SHAP",
    "lime": "LIME",
    "deeplift": "DeepLIFT",
    "deep_shap": "DeepSHAP",
    "lrp": "LRP",
    "temporal_shapley": "Temporal Shapley",
    "input_x_gradient": "Input times gradient",
    "smooth_grad": "SmoothGrad",
    "gate_saliency": "Gate saliency",
}

MINUS = "\N{MINUS SIGN}"


def method_name(method: str) -> str:
    """Return a method's name for people."""
    return METHOD_NAMES.get(method, method.replace("_", " ").capitalize())


def number(value: float, *, digits: int = 3, signed: bool = False) -> str:
    """Return a number with `digits` significant digits, no exponent for ordinary sizes, and a real minus sign.

    >>> number(-0.00123456), number(1234.5), number(0.0), number(2.5, signed=True)
    ('−0.00123', '1,234', '0', '+2.5')
    """
    if not math.isfinite(value):
        return "not a number"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e9:
        text = f"{size:.{digits - 1}e}".replace("-", MINUS)
    elif size >= 10 ** (digits - 1):
        text = f"{size:,.0f}"
    else:
        places = max(0, digits - 1 - math.floor(math.log10(size)))
        text = f"{size:.{places}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
    sign = MINUS if value < 0 else "+" if signed else ""
    return sign + text


def percent(share: float) -> str:
    """Return a share of 1 as whole percent, never rounding a doubt away.

    >>> percent(0.417), percent(0.9996), percent(0.0004), percent(1.0)
    ('42 %', 'over 99 %', 'under 1 %', '100 %')
    """
    if 0 < abs(share) < 0.01:
        return "under 1 %" if share > 0 else "about 0 %"
    if 0.995 <= share < 1:
        return "over 99 %"
    return f"{MINUS if share < 0 else ''}{abs(share) * 100:.0f} %"


def effect(value: float, attribution: Attribution) -> str:
    """Return a contribution with sign and unit: "+12 points" of probability, "−3.1 mg/dL", or "+0.42"."""
    if in_percent(attribution):
        points = value * 100
        if abs(points) >= 9.95:
            text = f"{points:+.0f}"
        else:
            text = f"{points:+.1f}" if abs(points) >= 0.05 else number(points, digits=1, signed=True)
        return f"{text.replace('-', MINUS)} points"
    return f"{number(value, signed=True)} {_unit(attribution)}".strip()


def level(value: float, attribution: Attribution, digits: int = 3) -> str:
    """Return a value of the explained number: a probability in percent, or a number with its unit."""
    if in_percent(attribution):
        return percent(value) if digits <= 3 else f"{number(value * 100, digits=digits)} %"
    return f"{number(value, digits=digits)} {_unit(attribution)}".strip()


def in_percent(attribution: Attribution) -> bool:
    """Whether the explained number is a share of 1; a sum of probabilities over a window is not."""
    return attribution.attrs["output"] == "probability" and attribution.diagnostic("target_last") is None


def _unit(attribution: Attribution) -> str:
    """Return the explained number's unit; a sum of probabilities has none."""
    return "" if attribution.attrs["output"] == "probability" else str(attribution.attrs["output_unit"])


def duration(seconds: float) -> str:
    """Return a time span in the unit people use.

    >>> duration(900), duration(60), duration(7200), duration(45), duration(172800)
    ('15 minutes', '1 minute', '2 hours', '45 seconds', '2 days')
    """
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and (seconds % size == 0 or seconds >= 3 * size):
            count = seconds / size
            return f"{number(count, digits=2)} {unit}{'' if count == 1 else 's'}"
    return f"{number(seconds, digits=2)} second{'' if seconds == 1 else 's'}"


def span(first: int, last: int, length: int, interval: float) -> str:
    """Return timesteps `first` to `last` (inclusive) of `length` in words; `interval` in seconds, 0 if unknown.

    >>> span(21, 23, 24, 300), span(0, 3, 24, 300), span(6, 11, 24, 300)
    ('in the last 10 minutes', 'in the first 15 minutes', '1 hour 25 minutes to 1 hour before the end')
    >>> span(23, 23, 24, 300), span(20, 20, 24, 300)
    ('at the last reading', '15 minutes before the end')
    >>> span(4, 4, 9, 0), span(6, 8, 9, 0), span(0, 8, 9, 0)
    ('at timestep 5', 'in the last 3 timesteps', 'throughout')
    """
    count = last - first + 1
    if length == 1:
        return "throughout"
    if count >= 0.8 * length and length > 1:
        return "throughout"
    if interval > 0:
        if last == length - 1:
            return f"in the last {_one(long_duration((count - 1) * interval))}" if count > 1 else "at the last reading"
        if first == 0:
            return f"in the first {_one(long_duration(last * interval))}" if count > 1 else "at the first reading"
        begin, end = (length - 1 - first) * interval, (length - 1 - last) * interval
        return f"{long_duration(begin)}{f' to {long_duration(end)}' if count > 1 else ''} before the end"
    if count == 1:
        return f"at timestep {first + 1}"
    if last == length - 1:
        return f"in the last {count} timesteps"
    if first == 0:
        return f"in the first {count} timesteps"
    return f"at timesteps {first + 1} to {last + 1}"


def span_before_end(first: int, last: int, length: int, interval: float, *, same_start: bool) -> str:
    """Return timesteps in words where sequences are aligned at their ends; only those of one length have a start.

    >>> span_before_end(6, 8, 9, 0, same_start=False), span_before_end(2, 4, 9, 0, same_start=False)
    ('in the last 3 timesteps', '6 to 4 timesteps before the last')
    >>> span_before_end(4, 4, 9, 0, same_start=False), span_before_end(4, 4, 9, 0, same_start=True)
    ('4 timesteps before the last', 'at timestep 5')
    """
    words = span(first, last, length, interval)
    if same_start or words == "throughout" or last == length - 1 or (interval > 0 and first > 0):
        return "at the last timestep" if first == last == length - 1 and interval == 0 else words
    begin, end = length - 1 - first, length - 1 - last
    if interval > 0:
        until = f" to {long_duration(end * interval)}" if last > first else ""
        return f"{long_duration(begin * interval)}{until} before the end"
    if last > first:
        return f"{begin} to {end} timesteps before the last"
    return f"{end} timestep{'' if end == 1 else 's'} before the last"


def ago_labels(length: int, interval: float, *, same_start: bool) -> list[str]:
    """Return a label for each timestep of sequences that are aligned at their ends.

    >>> ago_labels(3, 300, same_start=True), ago_labels(3, 0, same_start=True), ago_labels(3, 0, same_start=False)
    (['−10 minutes', '−5 minutes', 'now'], ['1', '2', '3'], ['−2', '−1', 'last'])
    """
    if interval > 0:
        ago = [(length - 1 - step) * interval for step in range(length)]
        return ["now" if seconds == 0 else f"{MINUS}{duration(seconds)}" for seconds in ago]
    if same_start:
        return [str(step + 1) for step in range(length)]
    return [f"{MINUS}{length - 1 - step}" if step < length - 1 else "last" for step in range(length)]


def _one(words: str) -> str:
    """Return "hour" for "1 hour" alone."""
    return words[2:] if words in ("1 hour", "1 minute", "1 day") else words


def long_duration(seconds: float) -> str:
    """Return a time span as hours and minutes.

    >>> long_duration(5400), long_duration(900)
    ('1 hour 30 minutes', '15 minutes')
    """
    hours, rest = divmod(round(seconds), 3600)
    if hours and rest and hours < 24 and rest % 60 == 0:
        return f"{duration(hours * 3600)} {duration(rest)}"
    return duration(seconds)


def step_labels(attribution: Attribution, sample: int, *, redact: bool = False) -> list[str]:
    """Return a label for each valid timestep: its clock time, its distance from the end, or its number from 1."""
    length = int(attribution.lengths[sample])
    stamps = attribution.diagnostic("timestamp")
    if stamps is not None and not redact:
        return clock_labels(stamps[sample][:length])
    interval = float(attribution.attrs["interval_seconds"])
    if interval > 0:
        ago = [(length - 1 - step) * interval for step in range(length)]
        return ["now" if seconds == 0 else f"{MINUS}{duration(seconds)}" for seconds in ago]
    return [str(step + 1) for step in range(length)]


def token_word(attribution: Attribution) -> str:
    """Return what a token of the explained texts is called."""
    return "character" if attribution.attrs.get("token_unit") == "character" else "word"


def clock_labels(stamps: NDArray[Any]) -> list[str]:
    """Return dates of daily data, times of day where the sequence is shorter than a day, else dates with times."""
    days = stamps.astype("datetime64[D]")
    if len(stamps) > 1 and (days == stamps).all():
        return [str(day) for day in days]
    short = stamps[-1] - stamps[0] < np.timedelta64(1, "D")
    texts = np.datetime_as_string(stamps.astype("datetime64[m]"))
    return [str(text)[11:16] if short else str(text).replace("T", " ") for text in texts]


def count_of(count: int, total: int) -> str:
    """Return a count as people say it.

    >>> count_of(3, 1200), count_of(1200, 1200), count_of(0, 5), count_of(1, 1)
    ('3 of 1,200', 'all 1,200', 'none of 5', '1 of 1')
    """
    if total == count > 1:
        return f"all {total:,}"
    return f"{'none' if count == 0 else f'{count:,}'} of {total:,}"


def capital(text: str) -> str:
    """Return text as a sentence begins."""
    return text[:1].upper() + text[1:]


def possessive(name: str) -> str:
    """Return a name's genitive.

    >>> possessive("LIME"), possessive("Integrated gradients")
    ("LIME's", "Integrated gradients'")
    """
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def joined(names: list[str]) -> str:
    """Return names as a sentence lists them.

    >>> joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
