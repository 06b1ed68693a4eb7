"""Typical and unusual samples: medoids of the attribution patterns, and the samples farthest from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .overview import Overview
from .streaming import passing
from .token_effects import word_effects
from .wording import count_of, number

MOST_COMPARED = 1500  # samples; of more, that many are drawn
MOST_BYTES = 2**28  # of what is compared: of long sequences fewer are drawn
MOST_CLUSTERS = 4
CLEAR = 0.25  # mean silhouette below which clusters are no more than weak (Kaufman & Rousseeuw 1990)
LEAST_SHARE = 0.05  # of the samples, of a cluster
FAR = 3.0  # times the median distance: an outlier
MOST_OUTLIERS = 3
FEWEST = 10  # samples, to speak of clusters and outliers


@dataclass(frozen=True)
class Prototype:
    """The sample in the middle of a cluster, and how many samples are like it."""

    sample: int
    count: int


@dataclass(frozen=True)
class Outlier:
    """A sample whose reasons lie far from all others', as a multiple of the median distance."""

    sample: int
    times: float


@dataclass(frozen=True)
class Typical:
    """What `find_typical` found.

    Attributes:
        prototypes: Largest cluster first.
        outliers: Farthest first.
        compared: How many samples were compared.
        sentences: What it means.
    """

    prototypes: tuple[Prototype, ...]
    outliers: tuple[Outlier, ...]
    compared: int
    sentences: tuple[str, ...]


def find_typical(overview: Overview, *, seed: int = 0) -> Typical:
    """Return the medoids of the clusters of attribution patterns, and the samples farthest from all.

    A pattern is the contribution of every timestep and feature, aligned at the end; of a text, of every word. Their
    distance is Euclidean. Clusters (k-medoids) are told apart only where their silhouette is clear; else there is one.
    """
    rows = np.arange(len(overview))
    most = max(FEWEST, min(MOST_COMPARED, MOST_BYTES // (8 * overview.totals.size)))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    distance = _distances(_patterns(overview, rows))
    mean = distance.sum(axis=1) / max(len(rows) - 1, 1)
    median = float(np.median(mean))
    far = mean > FAR * median if len(rows) >= FEWEST else np.zeros(len(rows), dtype=bool)
    kept = np.flatnonzero(~far)
    medoids, labels = _clusters(distance[np.ix_(kept, kept)])
    counts = np.bincount(labels)
    order = np.argsort(-counts, kind="stable")
    prototypes = tuple(Prototype(int(rows[kept[medoids[place]]]), int(counts[place])) for place in order)
    outliers = tuple(Outlier(int(rows[row]), float(mean[row] / median))
                     for row in np.argsort(-mean, kind="stable")[: min(MOST_OUTLIERS, int(far.sum()))])  # fmt: skip
    return Typical(prototypes, outliers, len(rows), tuple(_sentences(prototypes, far, mean, overview)))


def _sentences(
    prototypes: tuple[Prototype, ...], far: NDArray[np.bool_], mean: NDArray[np.float64], overview: Overview
) -> list[str]:
    texts = []
    if len(far) < len(overview):
        texts.append(f"Compared were {len(far):,} of {len(overview):,} samples, drawn at random.")
    if len(prototypes) > 1:
        texts.append(f"The reasons fall into {len(prototypes)} kinds; of each the most typical sample is shown.")
    else:
        texts.append("The reasons do not fall into clear kinds; the sample in the middle of all is shown.")
    if len(far) < FEWEST:
        return texts
    if not far.any():
        farthest = float(mean.max() / np.median(mean)) if np.median(mean) > 0 else 1.0
        texts.append(
            f"No sample's reasons lie far from all others' (the farthest {number(farthest, digits=2)} times as far as "
            "the median sample's)."
        )
        return texts
    lie = "lies" if far.sum() == 1 else "lie"
    texts.append(
        f"In {count_of(int(far.sum()), len(far))} samples the reasons {lie} more than {FAR:.0f} times as far from all "
        "others' as the median sample's."
    )
    return texts


def _patterns(overview: Overview, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what is compared of some samples, (N, P)."""
    if overview.attribution.of_tokens:
        return word_effects(overview.attribution, overview.words.strongest(), rows)
    patterns = np.zeros((len(rows), overview.totals.size))
    for places, piece in passing(overview.attribution, "attribution", samples=rows):
        patterns[places] = overview.cells_of(piece).reshape(len(piece), -1)
    return patterns


def _distances(patterns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean distances of all pairs of rows, (N, N); between equal rows exactly 0."""
    from scipy.spatial.distance import pdist, squareform

    if len(patterns) < 2:
        return np.zeros((len(patterns), len(patterns)))
    return np.asarray(squareform(pdist(patterns)))


def _clusters(distance: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the medoids and each row's cluster, of the number of clusters with the clearest silhouette."""
    medoids = _spread_medoids(distance, 1)
    best = medoids, np.zeros(len(distance), dtype=np.int64)
    clearest = CLEAR
    if len(distance) < FEWEST or distance.max() == 0:
        return best
    from sklearn.metrics import silhouette_score

    for count in range(2, MOST_CLUSTERS + 1):
        medoids, labels = _k_medoids(distance, count)
        sizes = np.bincount(labels, minlength=count)
        if sizes.min() < max(2, LEAST_SHARE * len(distance)):
            continue
        clear = float(silhouette_score(distance, labels, metric="precomputed"))
        if clear > clearest:
            best, clearest = (medoids, labels), clear
    return best


def _k_medoids(distance: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return medoids (k,) and labels (N,): assign to the nearest, take each cluster's middle, until nothing moves."""
    medoids = _spread_medoids(distance, count)
    for _ in range(100):
        labels = distance[:, medoids].argmin(axis=1)
        moved = medoids.copy()
        for place in range(count):
            members = np.flatnonzero(labels == place)
            if len(members):
                moved[place] = members[distance[np.ix_(members, members)].sum(axis=1).argmin()]
        if (moved == medoids).all():
            break
        medoids = moved
    return medoids, distance[:, medoids].argmin(axis=1)


def _spread_medoids(distance: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return first medoids: the middle of all, then each time what lowers the sum of distances most (PAM's build)."""
    chosen = [int(distance.sum(axis=1).argmin())]
    while len(chosen) < count:
        nearest = distance[:, chosen].min(axis=1)
        gain = np.maximum(nearest[:, None] - distance, 0).sum(axis=0)
        chosen.append(int(gain.argmax()))
    return np.array(chosen, dtype=np.int64)
