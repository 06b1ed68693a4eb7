"""`Report`: attributions become one self-contained HTML page that tells a person why.

Order: what was predicted, the reasons, how far to rely on them; then what a reader explores (`explore.py`): linked
panels of what went in, what mattered and what the network did; then tables and provenance. The words stand without any
script. A Content-Security-Policy forbids the network, and every script but the page's own two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..explainers import Attribution
from ..explainers.assemble import library_versions
from ..models import GatelensError, InvalidInputError, InvalidTypeError, LSTMModel, Predictor, Trace, memory_flow
from ..models.files import replacing_file
from ..models.recorder import lstm_modules
from ..models.state import kept_buffers, seeded
from ..models.tracing import trace_of
from . import plots
from .about import about
from .evidence import Check
from .explainer_agreement import compare_explainers
from .explore import explore
from .html import details, escape, page, share_bar, table
from .judgement import Judgement
from .judgement_page import judgement_section
from .model_card import describe, metric_check
from .narrative import Narrative, narrate
from .payload import SHOWN_UNITS, pack_sample
from .prediction import class_probabilities, explained_name, explained_words
from .reasons import token_texts
from .wording import capital, effect, method_name, number, percent, step_labels

MOST_SAMPLES = 50
LARGE_BYTES = 5 * 2**20  # of a page, which is then told
FAINT, TOLD = 0.02, 0.1  # of the strongest token: what is coloured, and what has its number written beside it
LARGEST_BYTES = 20 * 2**20  # beyond which units are left out


class Report:
    """A page about one or several predictions.

    Args:
        attributions: Name -> `Attribution` (as `explain` returns), a list of them, or one; all of the same inputs
            and target.
        model: The explained model; adds the gates, the cell state and the model card.
        trace: Its `Trace` on the same inputs, if already recorded; else it is recorded from `model`.
        title: Title of the page; None: the prediction.
        redact: Leave raw inputs, clock times and sample names out of the file, and what the gates and cells did, from
            which the model's weights would give the inputs back.
        command: The command that made the page, to be shown.
        over_time: What `explain_over_time` found on the same inputs: the reader then picks the output timestep.
        judgement: Which explainer to rely on for this model (`Judgement`), to be told in a section of its own.

    Attributes:
        notes: After `to_html` or `save`: what was left out of the page, and whether it is large.

    Raises:
        InvalidInputError: There is no attribution, or they are of different inputs or targets.
    """

    def __init__(
        self,
        attributions: Mapping[str, Attribution] | Sequence[Attribution] | Attribution,
        *,
        model: Any = None,
        trace: Trace | None = None,
        title: str | None = None,
        redact: bool = False,
        command: str | None = None,
        over_time: Any = None,
        judgement: Judgement | None = None,
    ) -> None:
        self.attributions = _as_mapping(attributions)
        self.judgement = judgement
        self.model = model
        self.title = title
        self.redact = redact
        self.command = command
        self.over_time = over_time
        self.notes: list[str] = []
        self._untraced = ""
        self._check_same_problem()
        self.trace = trace if trace is not None else self._record()

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Returns:
            The path.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise InvalidInputError(f"{path} does not end in .html; a report is a web page, e.g. report.html.")
        text = self.to_html()
        with replacing_file(path) as beside:
            beside.write_text(text, encoding="utf-8")
        return path

    def to_html(self) -> str:
        """Return the page."""
        samples = range(len(self._first))
        narratives = [narrate(self.attributions, sample, redact=self.redact) for sample in samples]
        self.notes = [self._untraced] if self._untraced else []
        packs, layers, most_units = self._packs(narratives)
        explored = explore(
            self.attributions,
            packs,
            [self._sample_name(sample) for sample in samples],
            primary=narratives[0].primary,
            layers=layers,
            most_units=most_units,
            gated=any(found.gates is not None for found in self.attributions.values()),
            over_time=self.over_time,
            redact=self.redact,
        )
        size = len(explored.data) + len(explored.script)
        if size > LARGE_BYTES:
            self.notes.append(f"This page is large: {size / 2**20:.0f} MB. Fewer samples make it smaller.")
        parts = []
        if self.title:
            parts.append(f'<p class="kicker">{escape(self.title)}</p>')
        if len(samples) > 1:
            parts.append(self._contents(narratives))
        parts += [self._article(sample, narrative) for sample, narrative in enumerate(narratives)]
        parts += [f'<p class="quiet">{escape(note)}</p>' for note in self.notes]
        parts.append(
            "<noscript><p>The panels need JavaScript; the words above and the tables below do not.</p></noscript>"
        )
        parts.append(explored.body)
        for sample in samples:
            of = f", {self._sample_name(sample)}" if len(samples) > 1 else ""
            folded = self._agreement(sample, of) + details(f"Every timestep as a table{of}", self._steps_table(sample))
            parts.append(f'<div data-number="{sample}">{folded}</div>')
        if self.judgement is not None:
            told = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.judgement.sentences())
            parts.append(f"<h2>Which explainer to rely on</h2>{told}{judgement_section(self.judgement)}")
        parts.append(about(self.attributions, self.model, command=self.command, redact=self.redact, trace=self.trace))
        return page(
            self.title or narratives[0].sentence,
            "\n".join(parts),
            library_versions()["gatelens"],
            script=explored.script,
            library=explored.library,
            data=explored.data,
        )

    def _packs(self, narratives: Sequence[Narrative]) -> tuple[list[str], list[str], int]:
        """Return each sample's numbers, the names of the layers shown, and the most units that one of them has here.

        Units are left out where it is a lot; of a redacted page all are: with the model's weights, the gates of a few
        units give the inputs back.
        """
        trace, flows = None if self.redact else self.trace, {}
        if trace is not None:
            try:
                flows = memory_flow(trace)
            except GatelensError as error:
                self.notes.append(f"Memory flow is not shown: {error}")
        for units in (None, SHOWN_UNITS, 0):
            packs, size = [], 0
            for sample, narrative in enumerate(narratives):
                pack = pack_sample(
                    self._shown(),
                    sample,
                    name=self._sample_name(sample),
                    primary=narrative.primary,
                    trace=trace,
                    flows=flows,
                    over_time=self.over_time,
                    spans=_named_spans(narrative, int(self._first.lengths[sample])),
                    units=units,
                    redact=self.redact,
                )
                packs.append(pack.text())
                size += len(packs[-1])
                if size > LARGEST_BYTES:
                    break
            else:
                break
        if units is not None:
            kept = f"only the {units} strongest units of each layer are in it" if units else "it is without its units"
            self.notes.append(f"With all units this page would have more than {LARGEST_BYTES // 2**20} MB; {kept}.")
        shown = pack.header["layers"]
        return packs, [layer["label"] for layer in shown], max((len(layer["order"]) for layer in shown), default=0)

    def _repr_html_(self) -> str:
        """Return the page's words for notebooks."""
        narrative = narrate(self.attributions, 0, redact=self.redact)
        return self._head(0, narrative) + self._reasons(0, narrative) + self._checks(narrative)

    # -- one prediction ----------------------------------------------------------------------------------------------

    @property
    def _first(self) -> Attribution:
        return next(iter(self.attributions.values()))

    def _sample_name(self, sample: int) -> str:
        return f"sample {sample + 1}" if self.redact else self._first.sample_names[sample]

    def _contents(self, narratives: list[Narrative]) -> str:
        items = "".join(
            f'<li><a href="#sample={index + 1}" data-sample-link="{index}">{escape(self._sample_name(index))}</a> '
            f"{escape(_short(narrative, self.attributions[narrative.primary], index))}</li>"
            for index, narrative in enumerate(narratives)
        )
        return f'<nav aria-label="Predictions"><ol>{items}</ol></nav>'

    def _article(self, sample: int, narrative: Narrative) -> str:
        primary = self.attributions[narrative.primary]
        parts = [
            self._head(sample, narrative),
            self._reasons(sample, narrative),
            self._checks(narrative),
        ]
        if primary.of_tokens and not self.redact:
            parts.append(self._tokens(sample, primary))
        return f'<article id="sample-{sample + 1}" data-number="{sample}">{"".join(parts)}</article>'

    def _head(self, sample: int, narrative: Narrative) -> str:
        primary = self.attributions[narrative.primary]
        length = int(primary.lengths[sample])
        before, strong, after = (escape(part) for part in narrative.headline)
        joiner = "" if after.startswith((".", ",")) else " "
        shape = f"{length} timestep{'' if length == 1 else 's'}"
        if not primary.of_tokens:
            count = len(primary.feature_names)
            shape += f" of {count} feature{'' if count == 1 else 's'}"
        kicker = (self._sample_name(sample), shape, str(primary.attrs["target_note"]))
        return (
            f'<p class="kicker">{" · ".join(escape(part) for part in kicker if part)}</p>'
            f"<h1>{before} <strong>{strong}</strong>{joiner}{after}</h1>"
            f"{self._chances(sample, primary)}<p>{escape(narrative.against)}</p>"
        )

    def _chances(self, sample: int, primary: Attribution) -> str:
        pairs = class_probabilities(primary, sample)
        if pairs is None:
            return ""
        explained = explained_name(primary, sample)
        rows = "".join(
            f"<dt{' class=explained' if name == explained else ''}>{escape(name)}</dt>"
            f"<dd>{share_bar(share)}</dd><dd>{escape(percent(share))}"
            f"{' · explained here' if name == explained else ''}</dd>"
            for name, share in pairs[:6]
        )
        return f'<dl class="chances">{rows}</dl>'

    def _reasons(self, sample: int, narrative: Narrative) -> str:
        largest = max((abs(reason.effect) for reason in narrative.reasons), default=1.0)
        rows = ""
        for reason in narrative.reasons:
            kind = "raises" if reason.effect > 0 else "lowers"
            rows += (
                f'<tr><td class="size {kind}">{escape(reason.effect_text)}</td>'
                f'<td class="drawn">{share_bar(abs(reason.effect) / largest, kind)}</td>'
                f"<td><strong>{escape(capital(reason.name))}</strong> {escape(reason.text)}</td></tr>"
            )
        table_ = f'<table class="reasons"><tbody>{rows}</tbody></table>' if rows else ""
        rest = f'<p class="quiet">{escape(narrative.rest)}</p>' if narrative.rest else ""
        subject = explained_words(self.attributions[narrative.primary], sample, redact=self.redact)
        return f'<h2>Why</h2><p class="quiet">What raised and lowered {escape(subject)}</p>{table_}{rest}'

    def _checks(self, narrative: Narrative) -> str:
        card = None if self.model is None else describe(self.model)
        assumed = () if card is None else card.assumed
        checks = [Check("assumption", passed=False, text=f"About the model: {sentence}.") for sentence in assumed]
        checks += narrative.checks
        good = None if card is None else metric_check(card)
        checks += [] if good is None or good.passed else [good]
        passed = all(check.passed for check in checks)
        texts = [check.text for check in sorted(checks, key=lambda check: check.passed)]
        texts += [*narrative.notes, good.text if good is not None and good.passed else ""]
        items = "".join(f"<li>{escape(text)}</li>" for text in texts if text)
        title, kind = ("Checks passed.", "checks") if passed else ("Read with care.", "checks care")
        return f'<section class="{kind}"><strong>{title}</strong><ul>{items}</ul></section>'

    def _tokens(self, sample: int, primary: Attribution) -> str:
        length = int(primary.lengths[sample])
        course = primary.timesteps[sample, :length]
        largest = float(np.abs(course).max()) or 1.0
        spans = ""
        for step, (text, value) in enumerate(zip(token_texts(primary, sample), course, strict=True)):
            share = abs(float(value)) / largest
            strength = int(np.ceil(4 * share)) if share > FAINT else 0
            kind = f"{'raises' if value > 0 else 'lowers'} s{strength}" if strength else ""
            words = escape(effect(float(value), primary))
            told = f"<sup>{words}</sup>" if share > TOLD else ""
            shown = escape(text) if text.strip() else "\N{OPEN BOX}"
            spans += f'<span class="{kind}" title="{words}" data-step="{step}">{shown}{told}</span> '
        return (
            '<h2>What went in</h2><p class="quiet">Underlined in orange: raises. In blue: lowers. Numbers stand beside '
            f'the strongest; the others have theirs at the cursor.</p><p class="tokens">{spans}</p>'
        )

    def _shown(self) -> dict[str, Attribution]:
        """Return the attributions, their clock times left out of a redacted page."""
        if not self.redact:
            return dict(self.attributions)
        return {
            name: Attribution(attribution.dataset.drop_vars("timestamp", errors="ignore"))
            for name, attribution in self.attributions.items()
        }

    def _agreement(self, sample: int, of: str) -> str:
        """Return where the explainers agree and where not, folded."""
        if len(self.attributions) < 2:
            return ""
        found = compare_explainers(self.attributions, sample, redact=self.redact)
        if not found.pairs:
            return ""
        head = ("Explainers", "Compared", "Rank correlation", "Largest parts in common")
        words = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.sentences)
        return details(f"Where the explainers agree{of}", table(head, found.rows(), text=True) + f"<ul>{words}</ul>")

    def _steps_table(self, sample: int) -> str:
        """Return a table of every timestep: label, inputs in their units, contribution by explainer."""
        first = self._first
        length = int(first.lengths[sample])
        labels = step_labels(first, sample, redact=self.redact)
        timed = [found for found in self.attributions.values() if found.resolves_time]
        head, columns = ["Timestep"], [labels]
        if not self.redact and first.of_tokens:
            head, columns = [*head, "Token"], [*columns, token_texts(first, sample)]
        elif not self.redact:
            for column, name in enumerate(first.feature_names):
                values, _, unit = plots.raw_series(first, sample, column)
                head.append(f"{name}{f' ({unit})' if unit else ''}")
                columns.append([number(float(value), digits=4) for value in values])
        for found in timed:
            head.append(method_name(found.method))
            columns.append([number(float(value), signed=True) for value in found.timesteps[sample, :length]])
        return table(head, list(zip(*columns, strict=True)))

    # -- checks ------------------------------------------------------------------------------------------------------

    def _check_same_problem(self) -> None:
        first = self._first
        if len(first) > MOST_SAMPLES:
            raise InvalidInputError(
                f"the attributions hold {len(first)} samples; a report shows up to {MOST_SAMPLES}. Explain fewer, or "
                "save the attributions for analysis."
            )
        for name, found in self.attributions.items():
            targets = ("target_output", "target_timestep", "target_last")
            parts = {"input": "inputs", **dict.fromkeys(targets, "targets"), "length": "lengths"}
            for part, what in parts.items():
                if not _same(found.diagnostic(part), first.diagnostic(part)):
                    raise InvalidInputError(
                        f"{name} explains other {what} than {next(iter(self.attributions))}; a report compares "
                        "explanations of the same predictions."
                    )

        for name, found in self.attributions.items():
            for attr, what in (("output", "output (logit or probability)"), ("model", "model")):
                if found.attrs[attr] != first.attrs[attr]:
                    raise InvalidInputError(
                        f"{name} explains another {what} than {next(iter(self.attributions))} "
                        f"({found.attrs[attr]}, {first.attrs[attr]}); a report compares explanations of one thing."
                    )

    @torch.no_grad()
    def _record(self) -> Trace | None:
        """Return the trace of the explained inputs, where the model holds an LSTM."""
        if self.model is None:
            return None
        predictor = self.model if isinstance(self.model, Predictor) else Predictor(self.model)
        if predictor.module is not None and predictor.model_id() != self._first.attrs["model"]:
            raise InvalidInputError(
                f"the model given (hash {predictor.model_id()}) is not the one that was explained (hash "
                f"{self._first.attrs['model']}); pass the explained model, or none."
            )
        if predictor.module is None or not lstm_modules(predictor.module):
            return None
        inputs, lengths = torch.as_tensor(self._first.inputs), torch.as_tensor(self._first.lengths)
        if self._first.of_tokens:
            inputs = inputs[..., 0]
        if isinstance(predictor.module, LSTMModel):
            return predictor.module.trace(inputs, lengths)
        checked, lengths = predictor.check(inputs, lengths)
        try:
            with seeded(0), kept_buffers(predictor.module):
                return trace_of(predictor, checked, lengths)
        except GatelensError as error:
            self._untraced = f"The gates and the cell state are not shown: {error}"
            return None


def _named_spans(narrative: Narrative, length: int) -> list[tuple[int, int]]:
    """Return first and last timestep of what the reasons name; "throughout" and "here and there" name none."""
    scattered = ("raised it, here and there", "lowered it, here and there")
    return [
        (reason.first, reason.last)
        for reason in narrative.reasons
        if reason.last - reason.first + 1 < length and not reason.text.startswith(scattered)
    ]


def _same(one: Any, two: Any) -> bool:
    if one is None or two is None:
        return one is two
    return one.shape == two.shape and bool(np.array_equal(one, two))


def _as_mapping(attributions: Any) -> dict[str, Attribution]:
    if isinstance(attributions, Attribution):
        attributions = [attributions]
    pairs = attributions.items() if isinstance(attributions, Mapping) else ((None, found) for found in attributions)
    result: dict[str, Attribution] = {}
    for name, found in pairs:
        if not isinstance(found, Attribution):
            raise InvalidTypeError(f"attributions holds a {type(found).__name__}; expected results of an explainer.")
        label = str(name) if name is not None else found.method
        while label in result:
            label += " again"
        result[label] = found
    if not result:
        raise InvalidInputError("there is no attribution to report; pass at least one.")
    return result


def _short(narrative: Narrative, attribution: Attribution, sample: int) -> str:
    """Return the prediction in a word or two, for the list of predictions."""
    pairs = class_probabilities(attribution, sample)
    return narrative.headline[1] if pairs is None else f"{pairs[0][0]}, {percent(pairs[0][1])}"
