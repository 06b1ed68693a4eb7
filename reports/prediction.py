"""What was predicted, in words: the headline, the classes' probabilities, and the baseline it is compared with."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from .wording import capital, effect, level, percent, step_labels

NEXT_TO_NOTHING = 1e-4  # of the change from the baseline


def class_probabilities(attribution: Attribution, sample: int) -> list[tuple[str, float]] | None:
    """Return (class, probability) of the explained timestep, most likely first; None for a regression or a window."""
    found = probabilities(attribution, slice(sample, sample + 1))
    if found is None:
        return None
    pairs = zip(found[0], (float(value) for value in found[1][0]), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def probabilities(
    attribution: Attribution, samples: slice = slice(None)
) -> tuple[tuple[str, ...], NDArray[np.float64]] | None:
    """Return the classes and their probabilities in each sample, (B, K); None for a regression or a window."""
    if "target_last" in attribution.dataset:
        return None
    task, names = attribution.attrs["task"], attribution.output_names
    if task not in ("binary", "multiclass") or (task == "binary" and len(names) > 1):
        return None
    scores = attribution.dataset["scores"][samples].to_numpy()  # (B, K)
    if task == "multiclass":
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return names, np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float64)
    probability = 1 / (1 + np.exp(-scores[:, 0]))
    classes = _classes(attribution) or [f"not {names[0]}", names[0]]
    return (classes[1], classes[0]), np.stack([probability, 1 - probability], axis=1).astype(np.float64)


def explained_name(attribution: Attribution, sample: int) -> str:
    """Return the name of the explained output: the class, or the quantity."""
    output = int(attribution.dataset["target_output"].to_numpy()[sample])
    classes = _classes(attribution)
    if attribution.attrs["task"] == "binary" and len(attribution.output_names) == 1 and classes:
        return classes[1]
    return attribution.output_names[output]


def explained_words(attribution: Attribution, sample: int, *, redact: bool = False) -> str:
    """Return what is explained, e.g. "the probability of fall", "the score of rise" or "the prediction".

    Of a window it is "the sum over timesteps 4 to 8 of the score of rise".
    """
    name = explained_name(attribution, sample)
    if attribution.attrs["task"] == "regression":
        words = "the prediction" if len(attribution.output_names) == 1 else f"the prediction of {name}"
    else:
        words = f"the {'probability' if attribution.attrs['output'] == 'probability' else 'score'} of {name}"
    if attribution.diagnostic("target_last") is None:
        return words
    return f"the sum over {_steps_words(attribution, sample, redact=redact)} of {words}"


def headline(attribution: Attribution, sample: int, *, redact: bool = False) -> tuple[str, str, str]:
    """Return "The model predicts", the prediction, and the rest of the sentence."""
    if attribution.diagnostic("target_last") is not None:
        words = explained_words(attribution, sample, redact=redact)
        target = str(attribution.attrs["target"])
        before = f"For {target}, {words} is" if target else f"{capital(words)} is"
        return before, level(float(attribution.prediction[sample]), attribution), "."
    where = where_explained(attribution, sample, redact=redact)
    pairs = class_probabilities(attribution, sample)
    if pairs is None:
        value = level(float(attribution.prediction[sample]), attribution)
        name = explained_name(attribution, sample)
        subject = str(attribution.attrs["target"]) or ("" if name.startswith("output ") else name)
        if len(attribution.output_names) > 1 and subject != name:
            subject = f"{subject}, {name}" if subject else name
        return f"The model predicts {subject}:" if subject else "The model predicts", value, f"{where}.".lstrip()
    name, probability = pairs[0]
    target = str(attribution.attrs["target"])
    before = f"For {target}, the model predicts" if target else "The model predicts"
    return before, name, f"with {percent(probability)} probability{where}."


def explained_alike(attribution: Attribution) -> NDArray[np.int64]:
    """Return a sample for each number that was explained; all where their times tell them apart."""
    names = [name for name in ("target_output", "target_timestep", "target_last") if name in attribution.dataset]
    if "timestamp" in attribution.dataset:
        return np.arange(len(attribution))
    explained = np.stack([attribution.dataset[name].to_numpy() for name in names])
    return np.sort(np.unique(explained, axis=1, return_index=True)[1])


def where_explained(attribution: Attribution, sample: int, *, redact: bool = False) -> str:
    """Return " at timestep 5", or ", summed over timesteps 4 to 8"; "" of a model with one output a sequence."""
    if attribution.diagnostic("target_timestep") is None:
        return ""
    how = " at" if attribution.diagnostic("target_last") is None else ", summed over"
    return f"{how} {_steps_words(attribution, sample, redact=redact)}"


def _steps_words(attribution: Attribution, sample: int, *, redact: bool) -> str:
    """Return the explained timesteps, counted from 1, e.g. "timesteps 4 to 8 (16:23 to 16:43)" where times are known.

    Horizons of a model's own have no times: those known are of its inputs.
    """
    dataset = attribution.dataset
    first = int(dataset["target_timestep"].to_numpy()[sample])
    last = int(dataset["target_last"].to_numpy()[sample]) if "target_last" in dataset else first
    words = f"timesteps {first + 1} to {last + 1}" if last > first else f"timestep {first + 1}"
    if "timestamp" not in dataset or attribution.attrs.get("target_time") != "inputs" or redact:
        return words
    labels = step_labels(attribution, sample)
    return f"{words} ({labels[first]}{f' to {labels[last]}' if last > first else ''})"


def _classes(attribution: Attribution) -> list[str]:
    return [str(name) for name in json.loads(attribution.attrs["classes"])]


def comparison(attribution: Attribution, sample: int, *, redact: bool = False) -> str:
    """Return the sentence that compares the prediction with the baseline's."""
    name = explained_name(attribution, sample)
    prediction, reference = float(attribution.prediction[sample]), float(attribution.baseline_prediction[sample])
    described = str(attribution.attrs["baseline_description"]) or _baseline_words(attribution)
    change = effect(prediction - reference, attribution).replace(" points", " percentage points")
    digits = 3
    while digits < 9 and level(prediction, attribution, digits) == level(reference, attribution, digits):
        digits += 1  # enough to tell the two apart
    against = level(reference, attribution, digits)
    if attribution.attrs["output"] != "probability" and abs(reference) < NEXT_TO_NOTHING * abs(prediction - reference):
        against = f"about {level(0.0, attribution)}"
    subject = {"probability": f"The probability of {name}", "logit": f"The score of {name}"}[
        attribution.attrs["output"]
    ]
    if attribution.attrs["task"] == "regression":
        subject = "The prediction"
    if attribution.diagnostic("target_last") is not None:
        subject = capital(explained_words(attribution, sample, redact=redact))
    return (
        f"{subject} is {level(prediction, attribution, digits)}; for {described} it would be "
        f"{against}. The reasons below share out the difference, {change}."
    )


def _baseline_words(attribution: Attribution) -> str:
    name = str(attribution.attrs["baseline_name"])
    if attribution.of_tokens and name in ("zero", "pad"):
        return "a text of padding only"
    if name == "zero" and "feature_center" in attribution.dataset.coords:
        centered = bool(attribution.dataset["feature_center"].to_numpy().any())  # else a scaling is not known, or none
        return f"an input with every feature at {'its center' if centered else '0'}"
    words = {
        "zero": "an input of zeros",
        "given": "the given baseline",
        "mean": "an average input",
        "hold_last": "an input whose first values go on",
        "linear": "a straight line from the first to the last values",
    }
    return words.get(name, f"the baseline ({name})")
