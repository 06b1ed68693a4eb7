"""Estimates from antipodal pairs: brute force over all coalitions of up to 12 players is the oracle."""

import itertools
import math

import numpy as np
import pytest

from gatelens.explainers.shapley_estimates import (
    Pairs,
    PairSampler,
    _summit,
    estimate,
    first_and_last,
    gaussian_process,
    least_squares,
    odd_kernel,
    prior_variance,
    shapley_of_kernel,
)
from gatelens.explainers.temporal_game import shapley_values


def every(count):
    """Return all coalitions, (2^n, n), player k being bit k."""
    return (np.arange(2**count)[:, None] >> np.arange(count)) % 2 == 1


def evaluated(sampler, coalitions, value):
    """Return the pairs of coalitions in a game."""
    odd = (value(coalitions) - value(~coalitions)) / 2
    ends = value(np.repeat([[True], [False]], coalitions.shape[1], axis=1))
    return Pairs(coalitions, odd, (ends[0] - ends[1]) / 2, *sampler.weigh(coalitions))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10, 12])
def test_the_kernel_and_what_comes_of_it(count):
    """The kernel, its Shapley values and their prior variance are those of its parities, one by one."""
    rng = np.random.default_rng(count)
    scales = rng.uniform(0.01, 0.8, count)
    signs = np.where(every(count), 1.0, -1.0)
    others = np.where(rng.random((5, count)) < 0.5, 1.0, -1.0)
    kernel = np.zeros((len(signs), 5))
    variance = np.zeros(count)
    for size in range(1, count + 1, 2):
        for parity in itertools.combinations(range(count), size):
            members = list(parity)
            both = signs[:, members].prod(1)[:, None] * others[:, members].prod(1)
            kernel += scales[members].prod() * both
            variance[members] += 4 * scales[members].prod() / size**2
    np.testing.assert_allclose(odd_kernel(signs, others, scales), kernel, rtol=1e-12, atol=1e-12)
    expected = np.column_stack([shapley_values(column) for column in kernel.T])
    np.testing.assert_allclose(shapley_of_kernel(others, scales), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(prior_variance(scales), variance, rtol=1e-11)


@pytest.mark.parametrize("count", [3, 4, 7, 8])
def test_the_sampler_draws_every_pair_once(count):
    """Asked for more pairs than there are, it draws one of each, and all weights are the kernel's."""
    sampler = PairSampler(count, 0)
    first = sampler.grow(count)
    coalitions = np.concatenate([first, sampler.grow(10**6)])
    keys = {min(row.tobytes(), (~row).tobytes()) for row in coalitions}
    assert len(keys) == len(coalitions) == 2 ** (count - 1) - 1
    weights, left = sampler.weigh(coalitions)
    assert (left == 0).all()
    sizes = coalitions.sum(1)
    kernel = np.array([1 / (math.comb(count, size) * size * (count - size)) for size in sizes])
    np.testing.assert_allclose(weights / weights[0], kernel / kernel[0])


def test_the_sampler_keeps_its_word():
    """It draws as many as asked for, all of size 1, none twice, the same by seed, and goes on where it stopped."""
    for count in (9, 20, 51, 160):
        asked = 3 * count
        first = PairSampler(count, 1).grow(asked)
        assert len(first) == asked
        assert (first.sum(1) == 1).sum() == count
        assert first.sum(1).max() <= count // 2
        assert len(np.unique(first, axis=0)) == asked
        np.testing.assert_array_equal(first, PairSampler(count, 1).grow(asked))
        assert (first != PairSampler(count, 2).grow(asked)).any()
    sampler = PairSampler(20, 1)
    both = np.concatenate([sampler.grow(100), sampler.grow(300)])
    assert len(np.unique(both, axis=0)) == len(both)
    assert 300 <= len(both) <= 320
    assert len(sampler.grow(300)) == 0


def test_first_and_last():
    """The gains of a player as first and as last comer are averaged."""
    values = np.random.default_rng(0).normal(size=2**5)
    sampler = PairSampler(5, 0)
    pairs = evaluated(sampler, sampler.grow(5), lambda z: values[z @ 2 ** np.arange(5)])
    expected = [(values[2**i] - values[0] + values[31] - values[31 - 2**i]) / 2 for i in range(5)]
    np.testing.assert_allclose(first_and_last(pairs), expected)


def smooth(count, seed=0):
    """Return a game of interactions that fade with their size, and its value."""
    rng = np.random.default_rng(seed)
    weight, pair = rng.normal(size=count), rng.normal(size=(count, count)) / count
    return lambda z: np.tanh((z @ weight) / 3) + np.einsum("pi,ij,pj->p", z, pair, z)


def test_least_squares_on_all_pairs_is_exact():
    """From all pairs, least squares gives the Shapley values of any game, and errors of 0."""
    values = np.random.default_rng(0).normal(size=2**8)
    sampler = PairSampler(8, 0)
    found, errors = least_squares(evaluated(sampler, sampler.grow(1000), lambda z: values[z @ 2 ** np.arange(8)]))
    np.testing.assert_allclose(found, shapley_values(values), rtol=0, atol=1e-12)
    np.testing.assert_allclose(errors, 0, atol=1e-12)


@pytest.mark.parametrize("heights", [[3], [1, 2], [2, 1], [0, 1, 5, 4, 2], [*range(9)], [*range(9, 0, -1)]], ids=str)
def test_the_summit_is_found_without_asking_everywhere(heights):
    """Climbing from the middle: the highest place, and no place is asked twice or beyond the far side."""
    asked = []

    def height(place):
        asked.append(place)
        return heights[place]

    assert heights[_summit(height, len(heights))] == max(heights)
    assert len(asked) == len(set(asked)) <= len(heights) // 2 + 2


@pytest.mark.parametrize("solve", [gaussian_process, least_squares])
def test_estimates_come_closer_and_know_how_close(solve):
    """On a game of interactions, errors fall with the pairs and stay within what the standard errors say."""
    off, told = {}, {}
    for asked in (30, 300):
        runs = []
        for seed in range(8):
            value = smooth(12, seed)
            sampler = PairSampler(12, seed)
            found, errors = solve(evaluated(sampler, sampler.grow(asked), value))
            runs.append((found - shapley_values(value(every(12))), errors))
        off[asked], told[asked] = (np.array(part) for part in zip(*runs, strict=True))
        assert (np.abs(off[asked]) <= 2 * told[asked]).mean() > 0.9
        assert 0.5 < np.sqrt((off[asked] ** 2).mean() / (told[asked] ** 2).mean()) < 1.5
    assert np.sqrt((off[300] ** 2).mean()) < np.sqrt((off[30] ** 2).mean()) / 2


def test_the_better_estimate_is_taken(monkeypatch):
    """Past what a process is fitted to, the estimate is the one that promises less; all pairs are exact."""
    sampler, value = PairSampler(12, 0), smooth(12)
    pairs = evaluated(sampler, sampler.grow(300), value)
    rounding = {"rtol": 0, "atol": 1e-12}  # numpy's threads, of which an estimate takes one
    np.testing.assert_allclose(estimate(pairs), gaussian_process(pairs), **rounding)
    monkeypatch.setattr("gatelens.explainers.shapley_estimates.PROCESS_PAIRS", 280)
    part = pairs.some(280)
    assert len(part.odd) == 280
    assert (part.coalitions.sum(1) == 1).sum() == 12
    assert len(np.unique(part.coalitions, axis=0)) == 280
    np.testing.assert_allclose(estimate(pairs), gaussian_process(part), **rounding)
    monkeypatch.setattr("gatelens.explainers.shapley_estimates.PROCESS_PAIRS", 20)
    np.testing.assert_allclose(estimate(pairs), least_squares(pairs), **rounding)
    pairs = evaluated(sampler, np.concatenate([pairs.coalitions, sampler.grow(10**6)]), value)
    np.testing.assert_allclose(estimate(pairs)[0], shapley_values(value(every(12))), rtol=0, atol=1e-12)


def test_a_game_without_any_order_is_told_so():
    """Of a game whose values are noise no estimate is good, and the standard errors say it."""
    values = np.random.default_rng(0).normal(size=2**10)
    sampler = PairSampler(10, 0)
    pairs = evaluated(sampler, sampler.grow(100), lambda z: values[z @ 2 ** np.arange(10)])
    for solve in (gaussian_process, least_squares):
        found, errors = solve(pairs)
        assert (np.abs(found - shapley_values(values)) <= 3 * errors).all()


@pytest.mark.parametrize("solve", [gaussian_process, least_squares])
def test_a_game_of_nothing(solve):
    """Where nothing changes anything, values and errors are 0."""
    sampler = PairSampler(6, 0)
    pairs = evaluated(sampler, sampler.grow(12), lambda z: np.zeros(len(z)))
    for part in solve(pairs):
        np.testing.assert_allclose(part, 0, atol=1e-12)


def test_a_guess_leaves_standard_errors_honest():
    """With a guess that is half off, or wrong in its sign, the standard errors tell how far off the estimate is."""
    sizes = {}
    for kind in ("none", "half off", "wrong"):
        runs = []
        for seed in range(12):
            value = smooth(12, seed)
            truth = shapley_values(value(every(12)))
            half = truth * (1 + 0.5 * np.random.default_rng(seed).normal(size=12))
            sampler = PairSampler(12, seed, single=kind == "none")
            pairs = evaluated(sampler, sampler.grow(60), value)
            found, errors = estimate(pairs, {"none": None, "half off": half, "wrong": -half}[kind])
            runs.append((found - truth, errors))
        off, told = (np.array(part) for part in zip(*runs, strict=True))
        sizes[kind] = np.sqrt((off**2).mean())
        assert (np.abs(off) <= 2 * told).mean() > 0.92
        assert 0.6 < np.sqrt((off**2).mean() / (told**2).mean()) < 1.4
    assert sizes["wrong"] < 1.2 * sizes["half off"] < 1.5 * sizes["none"]


def test_what_is_guessed_right_needs_no_estimate():
    """Where the game is additive and the guess is right, so is the estimate, whatever was drawn."""
    guess, sampler = np.arange(1.0, 9.0), PairSampler(8, 0, single=False)
    found, errors = estimate(evaluated(sampler, sampler.grow(12), lambda z: z @ guess), guess)
    np.testing.assert_allclose(found, guess, atol=1e-9)
    assert errors.max() < 1e-6


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_how_much_of_a_guess_is_true_is_found(slope):
    """A guess times a number, or one that falls or rises over the players, is nearly as good as the right one."""
    truth = np.random.default_rng(0).normal(size=20)
    guess = truth / (3 * (1 + slope * np.linspace(-1, 1, 20)))
    sampler = PairSampler(20, 0, single=False)
    pairs = evaluated(sampler, sampler.grow(12), lambda z: z @ truth)
    found, _ = estimate(pairs, guess)
    off = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    assert off < (0.01 if slope == 0 else 0.3), off


def test_taking_a_guess_off_is_taking_an_additive_game_off():
    """`beside` gives the pairs of the game less an additive one."""
    guess, value, sampler = np.arange(8.0), smooth(8), PairSampler(8, 0)
    coalitions = sampler.grow(20)
    found = evaluated(sampler, coalitions, value).beside(guess)
    expected = evaluated(sampler, coalitions, lambda z: value(z) - z @ guess)
    np.testing.assert_allclose(found.odd, expected.odd, atol=1e-12)
    assert found.full == pytest.approx(expected.full)


def test_linear_algebra_keeps_to_one_thread():
    """While an estimate is made numpy's pool is held to one thread, and afterwards it has what it had."""
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    from gatelens.explainers.shapley_estimates import _one_thread

    before = threads()
    with _one_thread():
        assert set(threads()) == {1}
    assert threads() == before
