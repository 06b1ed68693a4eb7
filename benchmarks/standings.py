"""What `ground_truth.py` found, as rows and sentences: who stands where."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from pages import Row
from scoring import METRICS, Mean, Values, compared

# Published for a GRU of 200 units, AUROC / AUPRC of all cells together; and who does the same here.
PUBLISHED = (
    ("LIME", "0.937 / 0.912", ("gatelens lime", "captum Lime")),
    ("DeepLift", "0.938 / 0.912", ("gatelens deeplift", "captum DeepLift")),
    ("IG", "0.936 / 0.909", ("gatelens integrated_gradients", "captum IntegratedGradients")),
    ("occlusion", "0.870 / 0.817", ("gatelens occlusion", "captum FeatureAblation")),
)

# Contenders of gatelens that are a peer's formula, on an LSTM, and whose; random ones are left out.
SAME_FORMULA = {
    "gatelens saliency at the baseline, times input": "shap DeepExplainer",
    "gatelens integrated_gradients": "captum IntegratedGradients",
    "gatelens saliency": "captum Saliency",
    "gatelens occlusion": "captum FeatureAblation",
}
WORDS = {"ahead": "of ", "level": "with ", "behind": ""}


@dataclass(frozen=True)
class Result:
    """What one contender reached on one task.

    Attributes:
        values: Metric -> (N,), a number a sequence; empty where it failed.
        correlation: Of signed attributions with the graded truth, over the true cells of all sequences; or None.
        chance: The largest size of a random attribution's correlation, of several draws.
        pooled: AUROC and AUPRC over all sequences' cells together, each sequence scaled to 0 .. 1, as published.
        seconds: What all its explanations took.
        failure: Why there are no values.
    """

    values: dict[str, Values]
    correlation: float | None = None
    pooled: tuple[float, float] | None = None
    seconds: float = 0.0
    failure: str = ""
    chance: float = 0.0


def table(found: dict[str, Result]) -> list[Row]:
    """Return the rows, gatelens's first, each library's in their order."""
    graded = any(result.correlation is not None for result in found.values())
    head = ["explainer", *METRICS, *(["Spearman"] if graded else []), "seconds"]
    rows: list[Row] = [head]
    for title, result in found.items():
        if result.failure:
            rows.append([title, result.failure, *[""] * (len(head) - 2)])
            continue
        means = {name: Mean.of(values) for name, values in result.values.items()}
        row = [
            title,
            str(means["AUROC"]),
            str(means["AUPRC"]),
            f"{means['AUP'].value:.3f}",
            f"{means['AUR'].value:.3f}",
        ]
        if graded:
            row.append(f"{result.correlation:.3f}")
        rows.append([*row, f"{result.seconds:.1f}"])
    return rows


def best(found: dict[str, Result], metric: str, *, own: bool, without: Container[str] = ("random",)) -> str | None:
    """Return the title of gatelens's best, or of the peers' best."""
    titles = [
        title for title, result in found.items()
        if result.values and title not in without and title.startswith("gatelens") == own
    ]  # fmt: skip
    return max(titles, key=lambda title: found[title].values[metric].mean(), default=None)


def stands(found: dict[str, Result], metric: str, own: str, peer: str) -> tuple[str, Mean]:
    """Return how gatelens's explainer stands beside a peer's, and the mean difference.

    What is a peer's formula under gatelens's name is never ahead of the peers: it is level with its own source, which
    a rounding or a failure of that source does not change.
    """
    word, difference = compared(found[own].values[metric], found[peer].values[metric])
    return ("level" if word == "ahead" and own in SAME_FORMULA else word), difference


def verdicts(found: dict[str, Result]) -> list[str]:
    """Return the lines under a table: gatelens's best beside the best peer, and metrics that tell nothing here."""
    lines = []
    for metric in ("AUROC", "AUPRC"):
        own, peer = best(found, metric, own=True), best(found, metric, own=False)
        if own is None or peer is None:
            continue
        word, difference = stands(found, metric, own, peer)
        line = (
            f"{metric}: the best of gatelens ({own.removeprefix('gatelens ')}) is **{word}** "
            f"{WORDS[word]}the best peer ({peer}): difference {difference}."
        )
        if own in SAME_FORMULA:
            line += f" It is the formula of {SAME_FORMULA[own]}: no lead."
            other = best(found, metric, own=True, without=SAME_FORMULA)
            if other is not None:
                word, difference = stands(found, metric, other, peer)
                line += f" The next of gatelens ({other.removeprefix('gatelens ')}) is **{word}**: {difference}."
        lines.append(line)
    return lines + beside_random(found)


def beside_random(found: dict[str, Result]) -> list[str]:
    """Return the scores of the best by AUPRC beside those of random attributions, and which of them tell nothing."""
    random = found.get("random", Result({}))
    titles = [title for title, result in found.items() if result.values and title != "random"]
    if not titles or not random.values:
        return []
    good = max(titles, key=lambda title: found[title].values["AUPRC"].mean())
    names, blind = [], []
    for metric in METRICS:
        one, chance = found[good].values[metric], random.values[metric]
        names.append(f"{metric} {one.mean():.3f} ({chance.mean():.3f})")
        if compared(one, chance)[0] != "ahead":
            blind.append(metric)
    correlation = found[good].correlation
    if correlation is not None:
        names.append(f"Spearman {correlation:.3f} (at most {random.chance:.3f})")
        if correlation <= random.chance:
            blind.append("Spearman")
    lines = [f"{good}, the best by AUPRC, and (random attributions): {', '.join(names)}."]
    if blind:
        lines.append(f"{' and '.join(blind)} cannot tell {good}, the best by AUPRC, from random here.")
    return lines


def beside_published(found: dict[str, Result]) -> list[Row]:
    """Return the state task's numbers beside the published ones of the same methods."""
    rows = [["explainer", "AUROC / AUPRC here", "published as", "AUROC / AUPRC there"]]
    for name, numbers, titles in PUBLISHED:
        for title in titles:
            result = found.get(title, Result({}, failure="not run"))
            here = f"{result.pooled[0]:.3f} / {result.pooled[1]:.3f}" if result.pooled else result.failure
            rows.append([title, here, name, numbers])
    return rows


def summary_of(found: dict[str, Result]) -> Row:
    """Return the best of each side, and how they stand, by AUROC and AUPRC."""
    cells: Row = []
    words = []
    for metric in ("AUROC", "AUPRC"):
        own, peer = best(found, metric, own=True), best(found, metric, own=False)
        if own is None or peer is None:
            cells += [own or "-", peer or "-"]
            continue
        first, second = found[own].values[metric], found[peer].values[metric]
        cells += [f"{first.mean():.3f} ({own.removeprefix('gatelens ')})", f"{second.mean():.3f} ({peer})"]
        words.append(stands(found, metric, own, peer)[0] + (", same formula" if own in SAME_FORMULA else ""))
    return [*cells, " / ".join(words)]


def not_level(summary: list[Row]) -> str:
    """Return where the best of gatelens is behind the best peer, from a summary's rows without their head."""
    behind = [f"{row[0]} ({row[-1]})" for row in summary if "behind" in row[-1]]
    if not behind:
        return "Nowhere is the best of gatelens behind the best peer."
    return f"The best of gatelens is behind the best peer, by AUROC / AUPRC, on: {'; '.join(behind)}."
