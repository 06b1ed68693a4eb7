"""`Judgement`: which explainer to rely on for a model and its data, from what was measured, in words made by rules.

Faithfulness is the area between the insertion and the deletion curve, as a share of the change from the baseline: 1 is
an order that no other can beat by much, 0 what a random order gets. It is compared over the same samples, so that the
interval of a difference is that of the pairs (Efron & Tibshirani 1993).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution, explain
from ..explainers.base import unpacked
from ..explainers.metrics import Measured, Stability, bootstrap_interval, measure, random_reference
from ..models import InvalidInputError
from .wording import MINUS, joined, method_name, number, percent

if TYPE_CHECKING:
    import pandas as pd

RANDOM = "random"
OF_ORDER = ("insertion", "deletion", "comprehensiveness", "sufficiency", "gini")
OF_EXPLAINERS = ("completeness", "evaluations", "seconds")
REPEATS, REPEATED = 2, 8  # other seeds, and samples explained again with them
STEADY = 0.9  # rank correlation over seeds
NEGLIGIBLE = 0.03  # of the change: a difference in faithfulness that nobody would pay for
FEWEST = 5  # samples that a difference is told from
LARGE_GAP = 0.05  # of the change, that an explainer which promises to add up may leave


@dataclass(frozen=True)
class Verdict:
    """What is said of one explainer.

    Attributes:
        name: Of the result.
        label: What people call it.
        faithfulness: Mean over samples (weighted by their change), 1 at best; see the module.
        interval: Its 95 % interval; None of a single sample.
        beats_random: Whether it is more faithful than a random order beyond chance.
        level_with_best: Whether none is more faithful by over 3 % of the change, beyond chance.
        gap: Largest share of the change that the attributions leave unexplained; None where adding up is not promised.
        stability: Mean rank correlation over seeds.
        agreement: Mean rank correlation with the other explainers; None of one alone.
        seconds: A sample.
        evaluations: Of the model, forward and backward, a sample.
        remarks: What speaks against it, in words.
    """

    name: str
    label: str
    faithfulness: float
    interval: tuple[float, float] | None
    beats_random: bool
    level_with_best: bool
    gap: float | None
    stability: float
    agreement: float | None
    seconds: float
    evaluations: float
    remarks: tuple[str, ...]


class Judgement:
    """Which explainer to rely on, and why.

    Args:
        model: The explained model, or a `Predictor` of it.
        attributions: Name -> result, all of the same predictions.
        baselines: What replaces parts that are taken away; see `measure`.
        seed: For the random reference, explaining again, and the bootstrap.
        explainers: Name -> the explainer of a result that cannot be made again from it; see `measure`.

    Attributes:
        measured: What was measured.
        random: The same of a random order.
        again: How alike explanations with other seeds are, of the first samples.
        verdicts: One an explainer, the most faithful first.
        recommended: The name of the one to use; None where none beats a random order.

    Raises:
        InvalidInputError: The attributions are of different predictions or of another model.
    """

    def __init__(
        self,
        model: Any,
        attributions: Mapping[str, Attribution],
        *,
        baselines: Any = None,
        seed: int = 0,
        explainers: Mapping[str, Any] | None = None,
    ) -> None:
        attributions = dict(attributions)
        if not attributions:
            raise InvalidInputError("there is no attribution to judge; pass at least one.")
        if RANDOM in attributions:
            raise InvalidInputError(f"an attribution is called {RANDOM!r}, as the reference is; name it otherwise.")
        reference = random_reference(next(iter(attributions.values())), seed)
        self.attributions = attributions
        self.samples = len(reference)
        asked = [*OF_ORDER, *OF_EXPLAINERS, *(["agreement"] if len(attributions) > 1 else [])]
        self.measured = measure(model, attributions, asked, baselines=baselines, seed=seed)
        self.random = measure(
            model, {RANDOM: reference}, OF_ORDER, baselines=baselines or _baselines(attributions),
            parts=self.measured.dataset.attrs["parts"], seed=seed,
        )  # fmt: skip
        some = {name: Attribution(found.dataset.isel(sample=slice(REPEATED))) for name, found in attributions.items()}
        self.again = measure(model, some, [Stability(REPEATS)], seed=seed, explainers=explainers)
        self._seed = seed
        self.verdicts = self._verdicts()
        self.recommended = self._recommended()

    @classmethod
    def of(
        cls,
        model: Any,
        inputs: Any,
        methods: Sequence[str] | None = None,
        *,
        baselines: Any = None,
        seed: int = 0,
        **options: Any,
    ) -> Judgement:
        """Explain predictions by several methods and judge them.

        Each method explains one prediction before it is timed, so that what is compiled once is not counted.

        Args:
            model: See `explain`.
            inputs: Float (B, T, D), token ids (B, T), or a `SequenceData`.
            methods: Names of explainers; None: those that work on this model.
            baselines: See `Judgement`.
            seed: Of the explainers and of the judgement.
            **options: The other options of `explain`.
        """
        given = {name: options[name] for name in options if name not in ("lengths", "sample_names", "times")}
        inputs, lengths, names, times = unpacked(
            inputs, *(options.get(name) for name in ("lengths", "sample_names", "times"))
        )
        first = {"lengths": None if lengths is None else lengths[:1], "times": None if times is None else times[:1]}
        explain(model, inputs[:1], methods, seed=seed, **{**given, **first, "progress": False})
        found = explain(
            model, inputs, methods, seed=seed, lengths=lengths, sample_names=names, times=times, **given
        )  # fmt: skip
        return cls(model, found, baselines=baselines, seed=seed)

    # -- numbers -------------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> str:
        """What was ranked: "timestep", "cell" or "feature"."""
        return str(self.measured.dataset.attrs["parts"])

    @property
    def random_faithfulness(self) -> float:
        """What a random order gets."""
        return _share(*self._areas(self.random, RANDOM))

    def _areas(self, measured: Measured, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return insertion less deletion, and the change from the baseline, (B,) each, means over baselines."""
        found = measured.dataset.sel(explainer=name)
        between = (found["insertion"] - found["deletion"]).mean(dim=["baseline"]).to_numpy()
        change = abs(found["prediction"] - found["baseline_prediction"]).mean(dim=["baseline"]).to_numpy()
        return between, change

    def _verdicts(self) -> tuple[Verdict, ...]:
        names = list(self.attributions)
        areas = {name: self._areas(self.measured, name) for name in names}
        chance = self._areas(self.random, RANDOM)[0]
        order = sorted(names, key=lambda name: -_share(*areas[name]))
        best = areas[order[0]][0]
        found = []
        for name in order:
            between, change = areas[name]
            beats = _beyond_chance(between - chance, self._seed)
            level = not _beyond_chance(best - between - NEGLIGIBLE * change, self._seed)
            found.append(self._verdict(name, between, change, beats=beats, level=level))
        return tuple(found)

    def _verdict(
        self, name: str, between: NDArray[np.float64], change: NDArray[np.float64], *, beats: bool, level: bool
    ) -> Verdict:
        attribution = self.attributions[name]
        promised = attribution.attrs["completeness"] != "none"
        gap = float(self.measured.scores("completeness", name).values.max()) if promised else None
        stability = self.again.scores("stability", name).mean
        agreement = self.measured.scores("agreement", name).mean if len(self.attributions) > 1 else None
        remarks = []
        if not beats:
            remarks.append(
                "orders the parts no better than chance" if self.samples >= FEWEST
                else f"{self.samples} samples are too few to tell it from chance"
            )  # fmt: skip
        if stability < STEADY:
            remarks.append(f"is unstable: with another seed its ranks correlate by {_two(stability)}")
        if gap is not None and gap > LARGE_GAP:
            remarks.append(f"leaves up to {percent(gap)} of a change unexplained")
        if attribution.measures != "contribution":
            remarks.append("tells sensitivity, not contributions")
        elif not promised:
            remarks.append("does not add up to the change")
        return Verdict(
            name=name,
            label=method_name(attribution.method),
            faithfulness=_share(between, change),
            interval=_ratio_interval(between, change, self._seed),
            beats_random=beats,
            level_with_best=level,
            gap=gap,
            stability=stability,
            agreement=agreement,
            seconds=float(attribution.attrs["seconds"]) / self.samples,
            evaluations=self.measured.scores("evaluations", name).mean,
            remarks=tuple(remarks),
        )

    def _recommended(self) -> str | None:
        """Return, of those that are as faithful as any, one that adds up, is stable, and is cheap, in this order."""
        usable = [verdict for verdict in self.verdicts if verdict.beats_random and verdict.level_with_best]
        if not usable:
            return None
        return min(usable, key=_preference).name

    # -- words ---------------------------------------------------------------------------------------------------------

    @property
    def headline(self) -> str:
        """What to use, in one sentence."""
        if self.recommended is None:
            return "No explainer measured here can be recommended for this model."
        return f"For this model use {method_name(self.attributions[self.recommended].method)}."

    def sentences(self) -> list[str]:
        """Return the recommendation with its reasons, and what speaks against the others."""
        samples = f"{self.samples:,} prediction{'' if self.samples == 1 else 's'}"
        told = [self.headline]
        if self.recommended is None:
            few = f" {samples[0].upper()}{samples[1:]} are few: measure more." if self.samples < FEWEST else ""
            told.append(
                f"On {samples} none orders the {self.parts}s better than a random order does, beyond chance.{few}"
            )
        else:
            verdict = next(found for found in self.verdicts if found.name == self.recommended)
            told.append(self._why(verdict, samples))
        others = [verdict for verdict in self.verdicts if verdict.remarks and verdict.name != self.recommended]
        return [*told, *(f"{verdict.label} {'; it '.join(verdict.remarks)}." for verdict in others)]

    def _why(self, verdict: Verdict, samples: str) -> str:
        reasons = []
        if verdict.gap is not None:
            exact = self.attributions[verdict.name].attrs["completeness"] == "exact"
            within = f"{max(0.1, 100 * verdict.gap):.1f} % of the change"
            reasons.append("it adds up exactly" if exact else f"it adds up within {within}")
        reasons.append(f"it takes {_seconds(verdict.seconds)} a prediction")
        others = [found for found in self.verdicts if found.name != verdict.name]
        level = [found.label for found in others if found.level_with_best and found.beats_random]
        on = f"on {samples}"
        if not others:
            reasons.append(f"its order of {self.parts}s beats a random one {on}")
        elif level:
            reasons.append(f"none is clearly more faithful {on} ({joined(level)} {_are(level)} level with it)")
        else:
            reasons.append(f"it is the most faithful {on}")
        if verdict.stability < STEADY:
            reasons.append(f"but with another seed its ranks correlate by {_two(verdict.stability)} only")
        text = "; ".join(reasons)
        return f"{text[0].upper()}{text[1:]}."

    def table(self) -> pd.DataFrame:
        """Return a row an explainer, the most faithful first, and a last one for the random order."""
        import pandas as pd

        rows = [
            {
                "explainer": found.name,
                "faithfulness": found.faithfulness,
                "low": None if found.interval is None else found.interval[0],
                "high": None if found.interval is None else found.interval[1],
                "gap": found.gap,
                "stability": found.stability,
                "agreement": found.agreement,
                "seconds": found.seconds,
                "evaluations": found.evaluations,
                "remarks": "; ".join(found.remarks),
            }
            for found in self.verdicts
        ]
        rows.append({"explainer": RANDOM, "faithfulness": self.random_faithfulness})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the judgement as plain JSON values."""
        rows = [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            for row in self.table().to_dict("records")
        ]
        return {
            "recommended": self.recommended, "sentences": self.sentences(), "samples": self.samples,
            "parts": self.parts, "baselines": list(self.measured.baselines), "explainers": rows,
        }  # fmt: skip


def _baselines(attributions: Mapping[str, Attribution]) -> Sequence[str]:
    return list(dict.fromkeys(str(found.attrs["baseline_name"]) for found in attributions.values()))


def _share(between: NDArray[np.float64], change: NDArray[np.float64]) -> float:
    """Return the area between the curves as a share of the change, over all samples."""
    whole = float(change.sum())
    return float(between.sum()) / whole if whole else 0.0


def _ratio_interval(between: NDArray[np.float64], change: NDArray[np.float64], seed: int) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of `_share`; None of a single sample."""
    if len(between) < 2:
        return None
    rows = np.random.default_rng(seed).integers(len(between), size=(2000, len(between)))
    whole = change[rows].sum(axis=1)
    shares = np.divide(between[rows].sum(axis=1), whole, out=np.zeros(len(rows)), where=whole > 0)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def _beyond_chance(differences: NDArray[np.float64], seed: int) -> bool:
    """Return whether the mean of paired differences (B,) is above 0, with 95 % confidence; not of a few."""
    interval = bootstrap_interval(differences, seed=seed)
    return interval is not None and len(differences) >= FEWEST and interval[0] > 0


def _preference(verdict: Verdict) -> tuple[bool, bool, float]:
    return (verdict.gap is None or verdict.gap > LARGE_GAP, verdict.stability < STEADY, verdict.seconds)


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _seconds(seconds: float) -> str:
    return f"{number(1000 * seconds, digits=2)} ms" if seconds < 1 else f"{number(seconds, digits=2)} s"


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
