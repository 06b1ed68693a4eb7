"""A judgement as HTML: a section of a report, or a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..explainers.assemble import library_versions
from ..explainers.metrics import METRICS
from ..models import InvalidInputError
from ..models.files import replacing_file
from .about import about
from .html import details, escape, page, picture, table
from .judgement import OF_ORDER, Judgement, Verdict
from .judgement_plot import plot_judgement
from .model_card import describe, metric_sentence
from .wording import MINUS, method_name, number, percent

HEAD = ("Explainer", "Faithfulness", "95 % interval", "Largest gap", "Alike with another seed",
        "Agrees with the others", "Seconds a prediction", "Evaluations")  # fmt: skip
MEANING = (
    "Faithfulness is how much sooner the prediction comes back when parts are put into the baseline in the explainer's "
    "order than it goes when they are taken away in that order, as a share of the change: the area between both curves."
)


def judgement_section(judgement: Judgement) -> str:
    """Return the picture, the table and what the metrics are, without the recommendation in words."""
    drawn = picture(
        lambda theme: plot_judgement(judgement, theme=theme),
        "Seconds a prediction against faithfulness of each explainer, with intervals; the numbers stand below",
    )
    rows = [_row(verdict) for verdict in judgement.verdicts]
    rows.append(("A random order", _signed(judgement.random_faithfulness), *[""] * (len(HEAD) - 2)))
    replaced = ", ".join(judgement.measured.baselines)
    how = (
        f"<p>Ranked are {escape(judgement.parts)}s; what is taken away becomes the baseline ({escape(replaced)}). "
        "Alike and agrees are rank correlations.</p>"
    )
    return (
        f'<p class="quiet">{escape(MEANING)}</p>{drawn}{table(HEAD, rows, text=True)}'
        f"{details('How this was measured', how + _metrics(judgement))}"
    )


def _row(verdict: Verdict) -> tuple[str, ...]:
    between = "" if verdict.interval is None else " to ".join(_signed(end) for end in verdict.interval)
    return (
        verdict.label,
        _signed(verdict.faithfulness),
        between,
        "not promised" if verdict.gap is None else percent(verdict.gap),
        _signed(verdict.stability),
        "" if verdict.agreement is None else _signed(verdict.agreement),
        number(verdict.seconds, digits=2),
        f"{verdict.evaluations:,.0f}",
    )


def _metrics(judgement: Judgement) -> str:
    """Return each metric's mean of each explainer and of a random order, its source, and what it cannot tell."""
    names = [verdict.name for verdict in judgement.verdicts]
    head = ("Metric", "Better", *(method_name(judgement.attributions[name].method) for name in names), "Random",
            "Source", "What it cannot tell")  # fmt: skip
    rows = []
    for metric in judgement.measured.metrics:
        chance = _plain(judgement.random.scores(metric).mean) if metric in OF_ORDER else ""
        means = [_plain(judgement.measured.scores(metric, name).mean) for name in names]
        kind = METRICS[metric]
        rows.append((metric.replace("_", " "), kind.direction, *means, chance, kind.source, kind.cannot))
    return table(head, rows, text=True)


class JudgementPage:
    """The page about a judgement.

    Args:
        judgement: What was measured.
        model: The model, for its card.
        title: Stands above the recommendation.
        command: The command that made the page.
    """

    def __init__(
        self, judgement: Judgement, *, model: Any = None, title: str | None = None, command: str | None = None
    ) -> None:
        self.judgement, self.model, self.title, self.command = judgement, model, title, command

    def to_html(self) -> str:
        """Return the whole page; it names no sample and holds no input."""
        judgement = self.judgement
        headline, *told = judgement.sentences()
        card = None if self.model is None else describe(self.model)
        told.append("" if card is None else metric_sentence(card))
        kicker = f"{self.title or 'Which explainer'} · {judgement.samples:,} predictions judged"
        parts = [
            f'<p class="kicker">{escape(kicker)}</p><h1>{escape(headline)}</h1>',
            "".join(f"<p>{escape(text)}</p>" for text in told if text),
            f"<h2>What was measured</h2>{judgement_section(judgement)}",
            about(judgement.attributions, self.model, command=self.command, redact=True, page="JudgementPage"),
        ]
        return page(headline, "\n".join(parts), library_versions()["gatelens"])

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all."""
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise InvalidInputError(f"path is {path}; expected a name that ends in .html, e.g. evaluation.html.")
        text = self.to_html()
        with replacing_file(path) as beside:
            beside.write_text(text, encoding="utf-8")
        return path


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", MINUS)


def _plain(value: float) -> str:
    return number(value, digits=3)
