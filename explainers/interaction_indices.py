"""Shapley interactions of order 2 from the values of all coalitions.

A weight that depends on how many players are on, and on which of two are among them, is linear in "i is on", "j is on"
and "both are on"; so the sums for all pairs are one matrix product. (shapiq's ExactComputer gives the same numbers; its
loop over coalitions and pairs takes half a minute for 18 players, and its FSII 4 GB for 14.)
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .temporal_game import shapley_values

Index = Literal["k-SII", "SII", "STII", "FSII"]

SOURCES: dict[Index, str] = {
    "k-SII": "Bordt & von Luxburg 2023",
    "SII": "Grabisch & Roubens 1999",
    "STII": "Sundararajan, Dhamdhere & Agarwal 2020",
    "FSII": "Tsai, Yeh & Ravikumar 2023",
}
CHUNK = 2**14  # coalitions in one matrix product


def exact_pairs(values: NDArray[np.float64], index: Index) -> NDArray[np.float64]:
    """Return the interactions (n, n) of a game, symmetric, with main effects on the diagonal.

    Args:
        values: (2^n,), the value of every coalition; player k is bit k.
        index: "k-SII", "SII", "STII" or "FSII".
    """
    gains = values - values[0]
    count = len(values).bit_length() - 1
    if count < 2:
        return np.diag(gains[1:])
    if index == "FSII":
        return _faithful(gains)
    if index == "STII":
        result = _mean_pairs(gains, np.array([2 / (count * math.comb(count - 1, size)) for size in range(count - 1)]))
        np.fill_diagonal(result, gains[2 ** np.arange(count)])
        return result
    result = _mean_pairs(gains, np.array([1 / ((count - 1) * math.comb(count - 2, s)) for s in range(count - 1)]))
    main = shapley_values(values)
    np.fill_diagonal(result, main if index == "SII" else main - result.sum(axis=1) / 2)
    return result


def _mean_pairs(gains: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sum over S without i and j of w(|S|) [v(S + ij) - v(S + i) - v(S + j) + v(S)], (n, n), 0 on the diagonal.

    In terms of which of the two are in a coalition T of size t, its weight is w(t - 2) for both, -w(t - 1) for one and
    w(t) for none: w(t) - [w(t) + w(t - 1)] (x_i + x_j) + [w(t) + 2 w(t - 1) + w(t - 2)] x_i x_j.

    Args:
        gains: (2^n,).
        weights: w, (n - 1,).
    """
    count = len(weights) + 1
    at = np.concatenate([weights, [0, 0]])  # w(t), t = 0..n
    before, twice = np.concatenate([[0], at[:-1]]), np.concatenate([[0, 0], at[:-2]])
    none, single, both = _moments(gains, np.stack([at, -at - before, at + 2 * before + twice]))
    result = none.item(0) + np.diag(single) + np.diag(single)[:, None] + both
    result[np.diag_indices(count)] = 0
    return np.asarray((result + result.T) / 2)  # products round as they like


def _moments(gains: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[Any, Any, Any]:
    """Return sum over T of a(|T|) v(T), and (n, n) sums of b(|T|) v(T) x_i x_j and c(|T|) v(T) x_i x_j."""
    count = len(gains).bit_length() - 1
    total, single, both = np.zeros(1), np.zeros((count, count)), np.zeros((count, count))
    for first in range(0, len(gains), CHUNK):
        index = np.arange(first, min(first + CHUNK, len(gains)))
        on = ((index[:, None] >> np.arange(count)) & 1).astype(np.float64)  # (N, n)
        weighed = weights[:, on.sum(axis=1).astype(np.int64)] * gains[index]  # (3, N)
        total += weighed[0].sum()
        single += np.diag(weighed[1] @ on)
        both += on.T @ (on * weighed[2][:, None])
    return total, single, both


def _faithful(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the FSII (n, n): the singles and pairs that are nearest to the game, and exact for none and all.

    These are the normal equations of sum over T of mu(|T|) [v(T) - singles and pairs in T]^2, where Shapley's kernel is
    mu(t) = 1 / [(n - 1) C(n - 2, t - 1)], with a multiplier for the sum of all, which is v(all).
    """
    count = len(gains).bit_length() - 1
    kernel = np.zeros(count + 1)
    kernel[1:count] = [1 / ((count - 1) * math.comb(count - 2, size - 1)) for size in range(1, count)]
    _, _, known = _moments(gains, np.stack([kernel, kernel, kernel]))
    together = [
        sum(kernel[size] * math.comb(count - known_on, size - known_on) for size in range(known_on, count))
        for known_on in range(5)
    ]
    one, other = np.triu_indices(count)  # singles are pairs of one
    members = np.zeros((len(one), count), dtype=bool)
    members[np.arange(len(one)), one] = members[np.arange(len(one)), other] = True
    union = (members[:, None] | members[None]).sum(axis=2)
    system = np.ones((len(one) + 1, len(one) + 1))
    system[:-1, :-1] = np.array(together)[union]
    system[-1, -1] = 0
    found = np.linalg.solve(system, np.append(known[one, other], gains[-1]))[:-1]
    result = np.zeros((count, count))
    result[one, other] = result[other, one] = found
    return result
