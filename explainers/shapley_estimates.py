"""Estimates of Shapley values from antipodal pairs of coalitions: a Gaussian process, and weighted least squares.

With s = +1 for a player that is on and -1 for one that is off, a game is a sum of parities, f_A prod_(j in A) s_j, and
only the odd ones matter: phi_i = sum over odd A with i of 2 f_A / |A|. An antipodal pair, a coalition and its
complement, shows them alone: y(s) = (v(s) - v(-s)) / 2. Pairs are drawn size by size, as often as Shapley's kernel
weighs a size.

A guess of the values, such as DeepLIFT's, need not be right to help: how much of it there is in the game, and how that
changes from the first player to the last, is estimated with the rest, from half of the pairs or fewer. (For least
squares a guess would change nothing.)

Source: Covert & Lee 2021, "Improving KernelSHAP" (pairs); the Gaussian process of parities is gatelens's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .players import CoalitionMatrix

Signs = NDArray[np.float64]  # (P, n), +1 or -1

SCALES = np.geomspace(0.01, 0.25, 8)  # l, of which the likelihood chooses
RELATIVE_SCALES = 0.15, 4.0  # of a player, by its prior mean
LARGEST_SCALE = 0.9
NUGGET = 1e-3  # of a pair, relative to its prior variance
EXACT_NUGGET = 1e-7  # of the pair (all, none)
PROCESS_PAIRS = 2048  # that a Gaussian process is fitted to: its time goes with their cube
SCALE_PAIRS = 256  # that its length scale is chosen by
WIDE = 100.0  # prior variance of what pairs show of a guess, in those of the pair (all, none): next to anything goes
MISFIT = 1.25  # by how much variances are larger than left-out pairs tell where reaches are guessed, seen on many games
LEAST_INFLUENCE = 0.1  # of a player that is guessed to have none, in those of the average player


@dataclass(frozen=True, eq=False)
class Pairs:
    """Evaluated antipodal pairs.

    Attributes:
        coalitions: Bool (P, n), one of each pair, none of them empty or full.
        odd: (P,) half the difference of the coalition's and its complement's value.
        full: Half of v(all) - v(none).
        weights: (P,) what each counts for in least squares: the mass of its size over how many have it.
        sampled: (P,) share of its size's coalitions that was not drawn; 0 where all were.
    """

    coalitions: CoalitionMatrix
    odd: NDArray[np.float64]
    full: float
    weights: NDArray[np.float64]
    sampled: NDArray[np.float64]

    def some(self, count: int) -> Pairs:
        """Return about so many of the pairs: all of size 1, and every k-th of the others; all if there are no more."""
        if len(self.odd) <= count:
            return self
        single = self.coalitions.sum(axis=1) == 1
        others = np.flatnonzero(~single)
        taken = np.linspace(0, len(others) - 1, max(count - int(single.sum()), 2)).astype(np.int64)
        rows = np.concatenate([np.flatnonzero(single), others[taken]])
        return Pairs(self.coalitions[rows], self.odd[rows], self.full, self.weights[rows], self.sampled[rows])

    def beside(self, guess: NDArray[np.float64]) -> Pairs:
        """Return the pairs of the game that is left when an additive one, with the values (n,), is taken off."""
        return replace(self, odd=self.odd - self.signs @ guess / 2, full=self.full - float(guess.sum()) / 2)

    @property
    def signs(self) -> Signs:
        """(P, n), +1 where a player is on."""
        return np.where(self.coalitions, 1.0, -1.0)


class PairSampler:
    """Draws coalitions, one of each antipodal pair, that differ from all before; more of what weighs more.

    Args:
        count: Players n, 3 or more.
        seed: For the draws.
        single: Whether all coalitions of one player come first, whatever they weigh: `first_and_last` needs them.
    """

    def __init__(self, count: int, seed: int, *, single: bool = True) -> None:
        self.count = count
        self._single = single
        self._generator = np.random.default_rng(seed)
        self._sizes, self._total, self._mass = _sizes(count)
        self._drawn: list[dict[bytes, NDArray[np.bool_]]] = [{} for _ in self._sizes]

    def grow(self, pairs: int) -> CoalitionMatrix:
        """Draw until there are about so many pairs (all there are, if fewer); return the new ones, bool (P, n)."""
        fresh: list[NDArray[np.bool_]] = []
        for number, quota in enumerate(self._quotas(pairs)):
            before = len(self._drawn[number])
            self._draw(number, quota)
            fresh.extend(list(self._drawn[number].values())[before:])
        return np.array(fresh, dtype=bool).reshape(len(fresh), self.count)

    def weigh(self, coalitions: CoalitionMatrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `Pairs.weights` and `Pairs.sampled` of everything drawn so far."""
        number = coalitions.sum(axis=1) - 1
        drawn = np.array([len(part) for part in self._drawn])
        left = np.array([1 - len(part) / total for part, total in zip(self._drawn, self._total, strict=True)])
        return (self._mass / np.maximum(drawn, 1))[number], left[number]

    def _quotas(self, pairs: int) -> list[int]:
        """Return how many pairs of each size, by mass, as far as there are any."""
        quotas = np.zeros(len(self._sizes), dtype=np.int64)
        quotas[0] = self._total[0] if self._single else 0
        chosen = np.arange(1 if self._single else 0, len(self._sizes))
        left = max(0, pairs - int(quotas[0]))
        while len(chosen):
            wanted = left * self._mass[chosen] / self._mass[chosen].sum()
            there = [min(self._total[number], 2**53) for number in chosen]  # huge numbers are no floats
            small = [number for number, want, total in zip(chosen, wanted, there, strict=True) if want >= total]
            if not small:
                quotas[chosen] = wanted.astype(np.int64)
                most_missed = np.argsort(np.floor(wanted) - wanted, kind="stable")
                quotas[chosen[most_missed[: left - int(quotas[chosen].sum())]]] += 1
                break
            quotas[small] = [self._total[number] for number in small]
            left -= int(quotas[small].sum())
            chosen = np.setdiff1d(chosen, small)
        return [int(quota) for quota in quotas]

    def _draw(self, number: int, quota: int) -> None:
        """Draw coalitions of one size until there are `quota`: stretches of shuffled players, so that all come."""
        size, drawn = int(self._sizes[number]), self._drawn[number]
        if quota >= self._total[number] and self._total[number] <= 1000:
            self._add_all(number)
            return
        while len(drawn) < quota:
            order = self._generator.permutation(self.count)
            for first in range(0, self.count - size + 1, size):
                if len(drawn) < quota:
                    self._add(number, order[first : first + size])

    def _add_all(self, number: int) -> None:
        from itertools import combinations

        for members in combinations(range(self.count), int(self._sizes[number])):
            self._add(number, np.array(members))

    def _add(self, number: int, members: NDArray[np.int64]) -> None:
        coalition = np.zeros(self.count, dtype=bool)
        coalition[members] = True
        if 2 * len(members) == self.count and coalition[0]:
            coalition = ~coalition  # the other of its pair would be the same
        self._drawn[number].setdefault(coalition.tobytes(), coalition)


@cache
def _sizes(count: int) -> tuple[NDArray[np.int64], list[int], NDArray[np.float64]]:
    """Return the sizes of coalitions, how many pairs each has, and the share of Shapley's kernel that falls on it."""
    sizes = np.arange(1, count // 2 + 1)
    halves = sizes * 2 == count
    total = [math.comb(count, int(size)) // (2 if half else 1) for size, half in zip(sizes, halves, strict=True)]
    mass = 1 / (sizes * (count - sizes)) * np.where(halves, 1, 2)
    return sizes, total, mass / mass.sum()


def estimate(pairs: Pairs, guess: NDArray[np.float64] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Shapley values (n,) and their standard errors (n,), by what promises the smaller errors.

    That is a Gaussian process, until there are many more pairs than one can be fitted to.

    Args:
        pairs: What was evaluated.
        guess: What the values may be, (n,), not all 0; without one all pairs of size 1 are among those evaluated.
    """
    every = 2 ** (pairs.coalitions.shape[1] - 1) - 1
    with _one_thread():
        if len(pairs.odd) == every:
            return least_squares(pairs)
        found = gaussian_process(pairs.some(PROCESS_PAIRS), guess)
        if len(pairs.odd) <= PROCESS_PAIRS:
            return found
        other = least_squares(pairs)
    return min(found, other, key=lambda part: float((part[1] ** 2).sum()))


def _one_thread() -> AbstractContextManager[Any]:
    """Keep numpy's linear algebra to one thread: its pool waits actively, and fights torch's for the cores."""
    return _pools().limit(limits=1, user_api="blas")  # type: ignore[no-any-return]


@cache
def _pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def first_and_last(pairs: Pairs) -> NDArray[np.float64]:
    """Return the mean of each player's gain as the first to come and as the last, (n,), from the pairs of size 1."""
    single = pairs.coalitions.sum(axis=1) == 1
    result = np.empty(pairs.coalitions.shape[1])
    result[pairs.coalitions[single].argmax(axis=1)] = pairs.odd[single] + pairs.full
    return result


def gaussian_process(
    pairs: Pairs, guess: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Shapley values (n,) and their standard errors (n,) by regression with a Gaussian process of odd parities.

        k(s, s') = 1/2 [prod(1 + l_j s_j s'_j) - prod(1 - l_j s_j s'_j)]
        phi_i = 2 sum_n a_n integral_0^1 l_i s_i even part of prod_(j != i)(1 + u l_j s_j) du

    A parity A has the prior variance prod_(j in A) l_j; a = (K + nugget)^-1 y; Gauss-Legendre nodes make the integral
    exact. How far a player reaches, l_j, goes with the root of its influence; their common factor is the likeliest. The
    variance of the process is that of its leave-one-out errors (Bachoc 2013), with n degrees of freedom taken off for
    the n reaches; where these come from a guess, and not from the pairs, with half of them, and times `MISFIT`.

    Args:
        pairs: What was evaluated.
        guess: What the values may be, (n,), not all 0: the process's mean. It makes two additive games, itself and
            itself times a slope from the first player to the last, of which the process holds as much more or less as
            is likely; and it is the players' influence. None: that is what each gains as first and last comer, from
            the pairs of size 1.
    """
    from scipy.linalg.lapack import dtrtri, dtrtrs  # scipy.linalg's own functions take longer than these to begin

    count = pairs.coalitions.shape[1]
    mean = np.zeros(count) if guess is None else guess
    if guess is not None:
        pairs = pairs.beside(guess)
    if not (pairs.odd.any() or pairs.full):
        return mean, np.zeros(count)
    if guess is None:
        influence, likely = np.abs(first_and_last(pairs)), np.zeros((0, count))
    else:
        influence, likely = np.abs(guess), guess * np.stack([np.ones(count), np.linspace(-1, 1, count)])
        influence = influence + LEAST_INFLUENCE * influence.mean()
    relative = np.clip(np.sqrt(influence / max(float(influence.mean()), 1e-300)), *RELATIVE_SCALES)
    some = pairs.some(SCALE_PAIRS)
    known, some_known = (np.append(part.odd, part.full) for part in (pairs, some))
    processes: dict[int, _Process] = {}

    def likelihood(place: int) -> float:
        process = processes[place] = _Process(some, np.minimum(SCALES[place] * relative, LARGEST_SCALE), likely)
        white = dtrtrs(process.factor, some_known, lower=1)[0]
        return -len(white) * math.log(white @ white / len(white)) / 2 - float(np.log(np.diag(process.factor)).sum())

    process = processes[_summit(likelihood, len(SCALES))]
    if some is not pairs:
        process = _Process(pairs, process.scales, likely)
    inverse = dtrtri(process.factor, lower=1)[0]  # (K + nugget)^-1 = inverse^T inverse
    solution = inverse.T @ (inverse @ known)
    left_out = solution**2 / (inverse**2).sum(axis=0)  # squared errors in units of their variance
    fitted, misfit = (count, 1.0) if guess is None else (count / 2, MISFIT)
    variance = misfit * float(left_out.sum()) / max(len(known) - fitted, 1)
    reach = process.shapley()  # (n, P + 1)
    explained = ((reach @ inverse.T) ** 2).sum(axis=1)
    return mean + reach @ solution, np.sqrt(np.maximum(process.prior_variance() - explained, 0) * variance)


class _Process:
    """A Gaussian process of games, and what it says of pairs.

    Args:
        pairs: P of them; (all, none) is put after them.
        scales: l (n,).
        likely: Shapley values (k, n) of additive games, of which it may hold any amount.

    Attributes:
        scales: l (n,).
        factor: The lower Cholesky factor of K + nugget, (P + 1, P + 1).
    """

    def __init__(self, pairs: Pairs, scales: NDArray[np.float64], likely: NDArray[np.float64]) -> None:
        from scipy.linalg.lapack import dpotrf

        self.scales = scales
        self._signs = np.vstack([pairs.signs, np.ones(len(scales))])
        kernel = odd_kernel(self._signs, self._signs, scales)
        size = kernel[-1, -1]
        shown = self._signs @ likely.T / 2  # (P + 1, k), what pairs show of the likely games
        spread = np.sqrt(WIDE * size / np.maximum((shown**2).mean(axis=0), 1e-300))
        self._likely, self._shown = likely * spread[:, None], shown * spread
        kernel += self._shown @ self._shown.T
        kernel.flat[:: len(kernel) + 1] += NUGGET * size
        kernel[-1, -1] += (EXACT_NUGGET - NUGGET) * size
        # the columns of its transpose, which is the same, are contiguous
        factor, failed = dpotrf(kernel.T, lower=1, overwrite_a=1)
        if failed:
            raise np.linalg.LinAlgError(f"the leading minor of order {failed} is not positive")
        self.factor = np.asarray(factor)

    def shapley(self) -> NDArray[np.float64]:
        """Return the Shapley values of the games k(., s'), (n, P + 1), for each pair s'."""
        return np.asarray(shapley_of_kernel(self._signs, self.scales) + self._likely.T @ self._shown.T)

    def prior_variance(self) -> NDArray[np.float64]:
        """Return the variance of each Shapley value (n,) before anything is evaluated."""
        return np.asarray(prior_variance(self.scales) + (self._likely**2).sum(axis=0))


def _summit(height: Callable[[int], float], count: int) -> int:
    """Return where a row of heights that rises and then falls is highest, climbing from the middle."""
    heights: dict[int, float] = {}
    here = count // 2
    while True:
        near = [place for place in (here, here - 1, here + 1) if 0 <= place < count]
        heights |= {place: height(place) for place in near if place not in heights}
        best = max(near, key=lambda place: heights[place])
        if best == here:
            return here
        here = best


def odd_kernel(signs: Signs, others: Signs, scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return k(s, s'), (P, P'): prod sqrt(1 - l^2) sinh(sum atanh(l_j) s_j s'_j)."""
    size = math.exp(np.log1p(-(scales**2)).sum() / 2)
    return np.asarray(size * np.sinh((signs * np.arctanh(scales)) @ others.T))


def shapley_of_kernel(signs: Signs, scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Shapley values of the games k(., s'), (n, P), one for each row of signs.

    With a = log(1 - u^2 l^2) / 2 and b = atanh(u l), 1 + u l s = exp(a + b s); the even part of a product is a cosh.
    """
    nodes, weights = _nodes(len(scales))
    slopes = np.arctanh(nodes[:, None] * scales)  # (Q, n)
    levels = np.log1p(-((nodes[:, None] * scales) ** 2)) / 2
    rest = np.exp(levels.sum(axis=1, keepdims=True) - levels) * weights[:, None]  # (Q, n)
    whole = slopes @ signs.T  # (Q, P)
    even = (rest * np.cosh(slopes)).T @ np.cosh(whole)  # (n, P)
    odd = (rest * np.sinh(slopes)).T @ np.sinh(whole)
    return np.asarray(2 * scales[:, None] * (signs.T * even - odd))


def prior_variance(scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of each Shapley value (n,) before anything is evaluated.

    It is the sum over odd A with i of 4 l_A / |A|^2, which is 4 l_i times the integral over u and v of the even part of
    prod_(j != i)(1 + u v l_j).
    """
    both, weights = _products_of_nodes(len(scales))
    slopes = np.arctanh(both[:, None] * scales)  # (Q (Q + 1) / 2, n)
    levels = np.log1p(-((both[:, None] * scales) ** 2)) / 2
    even = np.exp(levels.sum(axis=1, keepdims=True) - levels) * np.cosh(slopes.sum(axis=1, keepdims=True) - slopes)
    return np.asarray(4 * scales * (weights @ even))


@cache
def _products_of_nodes(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the products u v of two of `_nodes`, each pair of them once, and their weights."""
    nodes, weights = _nodes(count)
    one, other = np.triu_indices(len(nodes))
    return nodes[one] * nodes[other], weights[one] * weights[other] * np.where(one == other, 1, 2)


@cache
def _nodes(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights on 0..1 that integrate even polynomials of degree up to n - 1 exactly.

    Such a polynomial's integral is half that over -1..1, where Q nodes are exact up to degree 2 Q - 1; only those above
    0 are needed. Small scales need fewer nodes, as high powers vanish.
    """
    half = min(count // 4 + 1, 24)
    nodes, weights = np.polynomial.legendre.leggauss(2 * half)
    return nodes[half:], weights[half:]


def least_squares(pairs: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Shapley values (n,) and their standard errors (n,) by weighted least squares on the pairs.

    Minimises sum w (y - s . phi / 2)^2 subject to sum phi = v(all) - v(none) (Lundberg & Lee 2017). The errors come
    from the scatter of the residuals within each size, and vanish where all coalitions of a size are known.
    """
    rows = pairs.signs / 2
    count = rows.shape[1]
    inverse = np.linalg.pinv((rows * pairs.weights[:, None]).T @ rows)
    ones = inverse.sum(axis=1)
    free = inverse - np.outer(ones, ones) / ones.sum()  # of what the sum leaves free
    values = free @ (rows.T @ (pairs.weights * pairs.odd)) + ones * (2 * pairs.full / ones.sum())
    leverage = pairs.weights * np.einsum("pi,ij,pj->p", rows, free, rows)
    residuals = (pairs.odd - rows @ values) / np.clip(1 - leverage, 1e-3, 1)
    scores = rows * (pairs.weights * residuals)[:, None]  # (P, n)
    spread = np.zeros((count, count))
    sizes = pairs.coalitions.sum(axis=1)
    for size in np.unique(sizes):
        part = scores[sizes == size]
        left = pairs.sampled[sizes == size][0]
        if left > 0:
            off = part - part.mean(axis=0) if len(part) > 1 else part
            spread += left * len(part) / max(len(part) - 1, 1) * off.T @ off
    return values, np.sqrt(np.maximum(np.diag(free @ spread @ free), 0))
