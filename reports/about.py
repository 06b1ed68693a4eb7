"""The page's last section: which explainers, which model, which versions, and how to make the page again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..explainers import Attribution
from ..explainers.baselines import NAMED
from ..models import Predictor, Trace
from ..models.gate_statistics import trace_statistics
from .gate_words import gate_sentences
from .html import details, escape, picture, table
from .model_card import ModelCard, describe
from .prediction import explained_alike, explained_words
from .training_plots import plot_training
from .wording import joined, method_name, number


def about(
    attributions: Mapping[str, Attribution],
    model: Any,
    *,
    command: str | None,
    redact: bool,
    page: str = "Report",
    trace: Trace | None = None,
) -> str:
    """Return the page's last section: the explainers, the model, versions and how to make it again.

    Args:
        attributions: Name -> result.
        model: The explained model, or None.
        command: The command that made the page.
        redact: Leave clock times out.
        page: The class that makes the page.
        trace: What the gates did on the explained inputs, where it is known.
    """
    parts = ["<h2>How this page was made</h2>"]
    parts.append(details("The explainers", _methods_table(attributions)))
    if model is not None:
        parts.append(details("The model", _card(model)))
    if trace is not None:
        parts.append(details("The gates, in words", _gates(attributions, model, trace)))
    again = _provenance(attributions, command, redact=redact)
    if model is not None:
        code = python_again(attributions, page)
        again += f'<p>In Python:</p><pre tabindex="0"><code>{escape(code)}</code></pre>'
    parts.append(details("Versions and how to make it again", again))
    return "".join(parts)


def python_again(attributions: Mapping[str, Attribution], page: str = "Report") -> str:
    """Return Python that explains the same inputs in the same way; what the page cannot know is in capitals."""
    first = next(iter(attributions.values()))
    if page == "GlobalReport" and "samples_failed" in first.attrs:  # of a store
        return _dataset_again(first)
    options = {found.method: {name: value for name, value in found.options.items() if value is not None}
               for found in attributions.values()}  # fmt: skip
    methods = list(options)
    baseline = str(first.attrs["baseline_name"])
    made = f"found[{first.method!r}]" if page == "GlobalReport" else "found"  # the one method that such a page has
    lines = [
        "from gatelens.explainers import explain",
        "from gatelens.models import load, read_csv",
        f"from gatelens.reports import {page}",
        "",
        'model = load("MODEL")',
        'data = read_csv("INPUT.csv", model.data)',
        "found = explain(",
        "    model,",
        "    data,",
        f"    {methods},",
        f"    target={_target(first)},",
        f"    baseline={baseline!r}," if baseline in NAMED else f"    baseline=BASELINE,  # {baseline}",
        f"    output={str(first.attrs['output'])!r},",
        f"    seed={int(first.attrs['seed'])},",
        "    options={",
        *(f"        {method!r}: {chosen}," for method, chosen in options.items() if chosen),
        "    },",
        ")",
        f'{page}({made}, model=model).save("report.html")',
    ]
    return "\n".join(lines)


def _dataset_again(found: Attribution) -> str:
    """Return Python that explains a dataset into a store again, and makes a page of it."""
    baseline = str(found.attrs["baseline_name"])
    options = {name: value for name, value in found.options.items() if value is not None}
    own = len(np.unique(found.dataset["target_output"].to_numpy())) > 1
    lines = [
        "from gatelens.explainers.dataset import explain_dataset",
        "from gatelens.models import load",
        "from gatelens.reports import GlobalReport",
        "",
        'model = load("MODEL")',
        "run = explain_dataset(",
        "    model,",
        '    "INPUT",',
        f"    method={found.method!r},",
        '    out="attributions.zarr",',
        f"    target={'None' if own else _target(found)},",
        f"    baseline={baseline!r}," if baseline in NAMED else f"    baseline=BASELINE,  # {baseline}",
        f"    output={str(found.attrs['output'])!r},",
        f"    seed={int(found.attrs['seed'])},",
        *([f"    options={options},"] if options else []),
        ")",
        'GlobalReport(run.open(), model=model).save("report.html")',
    ]
    return "\n".join(lines)


def _target(attribution: Attribution) -> str:
    """Return what was explained as `explain` takes it."""

    def listed(name: str) -> str:
        values = [int(value) for value in attribution.dataset[name].to_numpy()]
        return str(values[0] if len(set(values)) == 1 else values)

    output = listed("target_output")
    if "target_timestep" not in attribution.dataset:
        return output
    first = listed("target_timestep")
    if "target_last" not in attribution.dataset:
        return f"({first}, {output})"
    ends = {int(value) for value in attribution.dataset["target_last"].to_numpy()}
    stop = str(ends.pop() + 1) if len(ends) == 1 else str([int(v) + 1 for v in attribution.dataset["target_last"]])
    return f"(slice({first}, {stop}), {output})"


def _methods_table(attributions: Mapping[str, Attribution]) -> str:
    rows = []
    for found in attributions.values():
        attrs = found.attrs
        promise = {"exact": "adds up exactly", "converges": "adds up in the limit", "none": "does not add up"}
        gap = float(np.abs(found.completeness_gap).max())
        rows.append(
            (
                method_name(found.method),
                found.resolution,
                _options_words(found.options),
                attrs["baseline_name"],
                promise[str(attrs["completeness"])],
                number(gap, digits=2) if attrs["completeness"] != "none" else "",
                f"{attrs['forward_evaluations']:,} / {attrs['backward_evaluations']:,}",
                f"{attrs['seconds']:.2f}",
                attrs["source"],
            )
        )
    head = (
        "Explainer", "Tells apart", "Options", "Baseline", "Promise", "Largest gap",
        "Evaluations forward / backward", "Seconds", "Source",
    )  # fmt: skip
    return table(head, rows, text=True)


def _card(model: Any) -> str:
    card = describe(model)
    parts = [table((), card.rows, text=True)]
    told = (("Assumed", card.assumed), ("Found in the file", card.found), ("Not taken over", card.left_out))
    for title, sentences in told:
        if sentences:
            parts.append(f"<h3>{title}</h3>")
            parts.append(table((), [(sentence,) for sentence in sentences], text=True))
    if card.metrics:
        names = list(dict.fromkeys(metric for row in card.metrics.values() for metric in row))
        rows = [
            (name.replace("_", " "), *(f"{row[metric]:.3f}" if metric in row else "" for metric in names))
            for name, row in card.metrics.items()
        ]
        parts.append("<h3>On held-out data</h3>")
        parts.append(table(("", *(name.replace("_", " ") for name in names)), rows))
    if card.curves:
        parts.append(f"<h3>Training</h3>{_training(card)}")
    if card.layers:
        parts.append("<h3>Layers</h3>")
        parts.append(table(("Name", "Kind", "Reads", "Gives", "Parameters"), card.layers, text=True))
    if card.features:
        parts.append("<h3>Features</h3>")
        parts.append(_features_table(card))
    return "".join(parts)


def _gates(attributions: Mapping[str, Attribution], model: Any, trace: Trace) -> str:
    """Return what the gates of each layer did on the explained sequences."""
    first = next(iter(attributions.values()))
    data = None if model is None else Predictor(model).data
    interval = None if data is None else data.window.interval_seconds
    parts = ['<p class="quiet">On the sequences of this page; other inputs may show the gates otherwise.</p>']
    for name, found in trace_statistics(trace, first.lengths).items():
        sentences = gate_sentences(found, interval=interval)
        parts.append(f"<h3>{escape(name)}</h3>{table((), [(sentence,) for sentence in sentences], text=True)}")
    return "".join(parts)


def _training(card: ModelCard) -> str:
    """Return the curves of the training as a picture, and as numbers below it."""
    curves = {name: values for name, values in card.curves.items() if name != "epoch"}
    drawn = picture(lambda theme: plot_training(card.curves, theme=theme), f"{joined(list(curves))} by epoch")
    epochs = max(len(values) for values in curves.values())
    rows = [
        (epoch + 1, *(f"{values[epoch]:.4g}" if epoch < len(values) else "" for values in curves.values()))
        for epoch in range(epochs)
    ]
    return drawn + details("The numbers", table(("Epoch", *curves), rows))


def _features_table(card: ModelCard) -> str:
    """Return a row for each feature; where no center or scale is known, their defaults are not told as knowledge."""
    if all((center, scale) == (0, 1) for *_, center, scale in card.features):
        head, rows = ("Name", "Unit", "Made from"), [row[:3] for row in card.features]
        note = '<p class="quiet">The model is given these as they stand, unscaled.</p>'
        return table(head, rows, text=True) + note
    scaled = [(*row, number(center), number(scale)) for *row, center, scale in card.features]
    return table(("Name", "Unit", "Made from", "Center", "Scale"), scaled, text=True)


def _provenance(attributions: Mapping[str, Attribution], command: str | None, *, redact: bool) -> str:
    first = next(iter(attributions.values()))
    explained = {explained_words(first, int(sample), redact=redact) for sample in explained_alike(first)}
    rows = [
        (
            "Explained",
            ", ".join(sorted(explained)),
        ),
        ("Seed", str(first.attrs["seed"])),
        ("Model hash", str(first.attrs["model"])),
    ]
    versions: dict[str, str] = {}
    for found in attributions.values():
        versions |= found.versions
    rows += [(f"{name}", version) for name, version in versions.items()]
    if redact:
        rows.append(("Redacted", "raw inputs, clock times, sample names and what each unit did were left out"))
    text = table((), rows, text=True)
    if command:
        text += f"<p>Made by:</p><pre><code>{escape(command)}</code></pre>"
    return text


def _options_words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value) if isinstance(value, (list, dict)) else value}"
                     for name, value in options.items() if value is not None)  # fmt: skip
