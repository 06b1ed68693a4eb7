"""How well attributions find the true cells, a number a sequence, and what a mean of them is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

Values = NDArray[np.float64]
METRICS = ("AUROC", "AUPRC", "AUP", "AUR")
DRAWS = 2000


def scores(attribution: Values, cells: NDArray[np.bool_]) -> dict[str, float]:
    """Return the four metrics of one sequence.

    AUROC and AUPRC (average precision) read ranks alone. AUP and AUR are precision and recall averaged over thresholds
    of the values themselves, scaled to 0 .. 1, as Crabbe & van der Schaar 2021 have them: another scale of the same
    ranking gives other numbers.

    Args:
        attribution: (n,) of the cells that compete; its sizes count, not its signs.
        cells: Bool (n,), the true ones; some, but not all.
    """
    sizes = np.abs(attribution)
    low, high = sizes.min(), sizes.max()
    scaled = (sizes - low) / (high - low) if high > low else np.zeros_like(sizes)
    precision, recall, thresholds = precision_recall_curve(cells, scaled)
    spread = len(thresholds) > 1
    return {
        "AUROC": float(roc_auc_score(cells, sizes)),
        "AUPRC": float(average_precision_score(cells, sizes)),
        "AUP": float(auc(thresholds, precision[:-1])) if spread else 0.0,
        "AUR": float(auc(thresholds, recall[:-1])) if spread else 0.0,
    }


def rank_correlation(first: Values, second: Values) -> float:
    """Return Spearman's rank correlation; 0 where one of the two is constant."""
    a, b = rankdata(first), rankdata(second)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True)
class Mean:
    """A mean over sequences with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Values, seed: int = 0) -> Mean:
        """Resample the sequences (N,); the same seed and N draw the same ones, so that differences are paired."""
        draws = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
        low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
        return cls(float(values.mean()), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def compared(ours: Values, theirs: Values) -> tuple[str, Mean]:
    """Return "ahead", "level" or "behind", and the mean of the paired differences (N,).

    Level: the interval of the differences holds 0.
    """
    difference = Mean.of(ours - theirs)
    word = "ahead" if difference.low > 0 else "behind" if difference.high < 0 else "level"
    return word, difference
