"""The sections of a page about many predictions, each from an `Overview`; a section with nothing to say is empty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from . import global_pictures as pictures
from .groups import GroupComparison
from .html import details, escape, picture, share_bar, table
from .overview import MOST_CLASSES, Overview
from .overview_words import prediction_sentences
from .performance import Performance
from .plot_parts import unit_label
from .plots import raw_series
from .prediction import explained_words, headline
from .reasons import find_reasons, token_texts
from .streaming import single
from .token_effects import most_effective
from .typical import find_typical
from .wording import ago_labels, capital, count_of, effect, joined, level, number, percent, step_labels, token_word

MOST_FEATURES = 8  # told at the top, and in tables of single samples
AS_TABLE = "The same as a table"


def predictions_section(overview: Overview, performance: Performance | None) -> str:
    """Return how the predictions spread, and how right they are."""
    texts = prediction_sentences(overview) + ([] if performance is None else performance.sentences())
    if not texts:
        return ""
    parts = ["<h2>What was predicted</h2>", *(f"<p>{escape(text)}</p>" for text in texts)]
    if len(overview) == 1:
        return "".join(parts)
    if overview.predicted:
        rows = "".join(
            f"<dt>{escape(name)}</dt><dd>{share_bar(count / len(overview))}</dd>"
            f"<dd>{escape(percent(count / len(overview)))} · {count:,}</dd>"
            for name, count in list(overview.predicted.items())[:12]
        )
        parts.append(f'<dl class="chances">{rows}</dl>')
    if overview.one_output:
        parts.append(
            picture(lambda theme: pictures.plot_predictions(overview, theme=theme), f"Histogram of {overview.subject}")
        )
        attribution = overview.attribution
        tenths = np.linspace(0, 1, 11)
        ends = [(percent(share), level(float(end), attribution, 4))
                for share, end in zip(tenths, np.quantile(attribution.prediction, tenths), strict=True)]  # fmt: skip
        parts.append(details(AS_TABLE, table(("Share of samples up to", "Prediction"), ends)))
    return "".join(parts)


def where_section(overview: Overview) -> str:
    """Return how much each timestep and feature mattered."""
    if not overview.attribution.resolves_time or overview.steps == 1 or overview.sizes.sum() == 0:
        return ""
    labels = ago_labels(len(overview.reached), overview.interval, same_start=overview.equally_long)
    order = overview.order
    rows = [
        (labels[step], f"{overview.reached[step]:,}",
         *(number(float(overview.by_step[step, feature])) for feature in order))
        for step in range(overview.first_shown, len(labels))
    ]  # fmt: skip
    head = ("Timestep", "Samples", *(overview.names[feature] for feature in order))
    caption = "Mean size of contributions, whichever way they push."
    if len(order) > 1:
        caption += " Colours grow with the square root, so that small contributions show."
    if len(order) > pictures.MOST_ROWS:
        caption += f" Drawn are the {pictures.MOST_ROWS} features that matter most."
    drawn = picture(
        lambda theme: pictures.plot_where(overview, theme=theme),
        f"Mean size of contributions by timestep{' and feature' if len(order) > 1 else ''}",
        caption,
    )
    return f"<h2>Where it mattered</h2>{drawn}{details(AS_TABLE, table(head, rows))}"


def spread_section(overview: Overview, *, redact: bool) -> str:
    """Return every sample's effect of every feature; of several explained classes one picture each."""
    attribution = overview.attribution
    if attribution.of_tokens or not attribution.resolves_features or attribution.measures == "sensitivity":
        return ""
    if len(overview) == 1 or overview.sizes.sum() == 0:
        return ""
    caption = (
        "Every mark is a sample: right of the line the feature raised its prediction, left of it it lowered it "
        f"({unit_label(attribution)}). A full column holds {pictures.SWARM_HEIGHT} or more."
    )
    caption += "" if redact else " Colour: the feature's level there, low or high among these samples."
    parts = [f'<h2>From sample to sample</h2><p class="quiet">{escape(caption)}</p>']
    classes = overview.by_explained
    parts += [_class_spread(overview, name, samples, redact=redact) for name, samples in classes[:MOST_CLASSES]]
    left = len(classes) - MOST_CLASSES
    if left > 0:
        parts.append(f'<p class="quiet">{left} classes explained in fewer samples are not drawn.</p>')
    return "".join(parts)


def _class_spread(overview: Overview, name: str, samples: NDArray[np.int64], *, redact: bool) -> str:
    title = "" if overview.one_output else f"<h3>{escape(capital(name))}, explained in {len(samples):,} samples</h3>"
    drawn = picture(
        lambda theme: pictures.plot_swarm(overview, samples, redact=redact, theme=theme),
        f"Effect of each feature on {overview.subject if overview.one_output else name}, sample by sample",
    )
    return title + drawn + details(AS_TABLE, _spread_table(overview, samples))


def _spread_table(overview: Overview, samples: NDArray[np.int64]) -> str:
    rows = []
    for feature in overview.order:
        net = overview.net[samples, feature]
        ends = [effect(float(value), overview.attribution) for value in np.quantile(net, (0, 0.25, 0.5, 0.75, 1))]
        rows.append((overview.names[feature], percent(float((net > 0).mean())), *ends))
    return table(("Feature", "Raised in", "Lowest", "Quarter below", "Median", "Quarter above", "Highest"), rows)


def words_section(overview: Overview, *, redact: bool) -> str:
    """Return the words that raise and lower most, where texts were explained."""
    if not overview.attribution.of_tokens or not overview.attribution.resolves_time or redact:
        return ""
    classes = overview.by_explained[:MOST_CLASSES]
    return f"<h2>{capital(token_word(overview.attribution))}s</h2>" + "".join(
        _class_words(overview, place, name, len(samples)) for place, (name, samples) in enumerate(classes)
    )


def _class_words(overview: Overview, place: int, name: str, texts: int) -> str:
    words = overview.words.told(place)
    raising, lowering, often = most_effective(words)
    drawn = [*raising, *reversed(lowering)]
    if not drawn:
        return ""
    title = "" if overview.one_output else f"<h3>{escape(capital(name))}, explained in {texts:,} texts</h3>"
    told = sum(entry.count >= often for entry in words)
    unit = token_word(overview.attribution)
    text = f"Mean effect of a {unit} where it occurs, of {len(words):,} {unit}s"
    text += f", {told:,} of which occur {often} times or more." if often > 1 else "."
    label = f"Mean effect, {unit_label(overview.attribution)}"
    bars = picture(
        lambda theme: pictures.plot_words(drawn, label, theme=theme),
        f"Mean effect of the most effective {unit}s",
        "Orange raises, blue lowers.",
    )
    rows = [
        (entry.word, effect(entry.mean, overview.attribution), f"{entry.count:,}", f"{entry.texts:,}")
        for entry in drawn
    ]
    numbers = details(AS_TABLE, table((capital(unit), "Mean effect", "Occurrences", "Texts"), rows))
    return f'{title}<p class="quiet">{escape(text)}</p>{bars}{numbers}'


def groups_section(comparison: GroupComparison) -> str:
    """Return groups side by side, and what differs beyond chance."""
    parts = [f"<h2>Groups by {escape(comparison.grouping.name)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in comparison.sentences()]
    if comparison.overview.sizes.sum() > 0:
        parts.append(
            picture(
                lambda theme: pictures.plot_groups(comparison, theme=theme),
                f"Mean size of each feature's effects by {comparison.grouping.name}",
                "Mean size of a feature's effects." + (" Pale: not compared." if comparison.small else ""),
            )
        )
    parts.append(table(*comparison.table()))
    if comparison.differences:
        parts.append(details("All differences, with their intervals", table(*comparison.differences_table())))
    return "".join(parts)


def typical_section(overview: Overview, *, redact: bool) -> str:
    """Return the most typical samples, and those whose reasons lie far from all others'."""
    if len(overview) == 1:
        return ""
    typical = find_typical(overview)
    parts = ["<h2>Typical and unusual samples</h2>", *(f"<p>{escape(text)}</p>" for text in typical.sentences)]
    shown = [(f"Typical of {count_of(entry.count, typical.compared)} samples", entry.sample)
             for entry in typical.prototypes]  # fmt: skip
    shown += [(f"Unusual, {number(entry.times, digits=2)} times as far as the median", entry.sample)
              for entry in typical.outliers]  # fmt: skip
    return "".join(parts + [_sample(overview, title, sample, redact=redact) for title, sample in shown])


def _sample(overview: Overview, title: str, sample: int, *, redact: bool) -> str:
    attribution = single(overview.attribution, sample)
    name = f"sample {sample + 1}" if redact else attribution.sample_names[0]
    reasons, rest = find_reasons(attribution, 0, redact=redact)
    told = f"{joined([f'{reason.name} {reason.effect_text}' for reason in reasons[:3]])}." if reasons else rest
    before, strong, after = headline(attribution, 0, redact=redact)
    sentence = f"{before} {strong}{'' if after.startswith(('.', ',')) else ' '}{after} "
    sentence += f"{capital(explained_words(attribution, 0, redact=redact))}: {told}" if reasons else told
    parts = [f"<h3>{escape(title)}: {escape(name)}</h3><p>{escape(sentence)}</p>"]
    if attribution.resolves_time and int(attribution.lengths[0]) > 1:
        parts.append(
            picture(
                lambda theme: pictures.plot_course(attribution, 0, redact=redact, theme=theme),
                f"Contribution of each timestep of {name}",
            )
        )
    parts.append(details(AS_TABLE, _course_table(overview, attribution, redact=redact)))
    return "".join(parts)


def _course_table(overview: Overview, attribution: Attribution, *, redact: bool) -> str:
    """Return the timesteps of an attribution of one sample: contributions, and the inputs where they may be shown."""
    length = int(attribution.lengths[0])
    cells = overview.cells_of(attribution)[0, overview.steps - length :]  # (L, G)
    head, columns = ["Timestep"], [step_labels(attribution, 0, redact=redact)]
    if attribution.of_tokens and not redact:
        head, columns = [*head, "Token"], [*columns, token_texts(attribution, 0)]
    for feature in overview.order[:MOST_FEATURES]:
        name = overview.names[feature]
        if not attribution.of_tokens and not redact and len(overview.columns[feature]) == 1:
            values, _, unit = raw_series(attribution, 0, overview.columns[feature][0])
            head.append(f"{name}{f' ({unit})' if unit else ''}")
            columns.append([number(float(value), digits=4) for value in values])
        head.append(f"{name}: contribution")
        columns.append([number(float(value), signed=True) for value in cells[:, feature]])
    return table(head, list(zip(*columns, strict=True)))
