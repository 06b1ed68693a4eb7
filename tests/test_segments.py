"""Cutting a sequence into segments: equal parts, and change points against cuts by hand and by trying all."""

import itertools

import numpy as np
import pytest

from gatelens.explainers import KernelSHAP, Occlusion
from gatelens.explainers.segments import change_point_starts, uniform_starts
from gatelens.models import InvalidInputError
from helpers.explained import Linear, lstm, sequences, token_ids


def squared_error(values, starts):
    """Return the squared error of standardised values around the means of the segments."""
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    parts = np.split(scaled, starts[1:])
    return sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_one_cut_is_the_best_of_all(seed):
    """With two segments the cut is the one, of all there are, that leaves the least squared error."""
    values = sequences(20, 3, seed=seed, double=True).numpy() * [1, 100, 0.01]
    found = change_point_starts(values, 2)
    best = min(range(1, 20), key=lambda cut: squared_error(values, [0, cut]))
    assert found.tolist() == [0, best]


def test_more_cuts_are_made_one_after_another():
    """Each further cut is the best one that the cuts before it leave."""
    values = sequences(25, 2, seed=3, double=True).numpy()
    starts = [0]
    for count in range(2, 8):
        rest = [cut for cut in range(1, 25) if cut not in starts]
        starts = sorted([*starts, min(rest, key=lambda cut: squared_error(values, sorted([*starts, cut])))])
        assert change_point_starts(values, count).tolist() == starts


@pytest.mark.parametrize("places", list(itertools.combinations([2, 5, 9, 10], 3)))
def test_steps_are_found_where_they_are(places):
    """A sequence in steps is cut at its steps and nowhere else, however many segments there might be."""
    level = np.searchsorted(places, np.arange(12), "right")
    values = np.stack([np.array([0.0, 3.0, -1.0, 7.0])[level], np.full(12, 4.0)], axis=1)  # and a constant feature
    for most in (4, 10, 12, 100):
        assert change_point_starts(values, most).tolist() == [0, *places]


def test_units_do_not_matter():
    """Features are standardised: another unit or origin gives the same cuts."""
    values = sequences(30, 3, seed=6, double=True).numpy()
    np.testing.assert_array_equal(change_point_starts(values * [1e6, 1, 1e-6] + 5, 6), change_point_starts(values, 6))


@pytest.mark.parametrize("values", [np.zeros((5, 2)), np.full((5, 2), 0.1), np.ones((1, 3))])
def test_what_never_changes_is_one_segment(values):
    """A constant sequence, and one of a single timestep, stay whole."""
    assert change_point_starts(values, 4).tolist() == [0]


@pytest.mark.parametrize(("length", "segments"), [(1, 10), (7, 3), (10, 10), (100, 7)])
def test_uniform_segments_are_about_equal(length, segments):
    """Segments of equal length differ by at most one timestep."""
    starts = uniform_starts(length, segments)
    sizes = np.diff([*starts, length])
    assert len(starts) == min(length, segments)
    assert starts[0] == 0
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= 1


def test_explainers_play_with_the_segments_found():
    """Players are the sample's own segments: a padded sequence is cut in its valid part only."""
    weight, inputs = sequences(8, 2, seed=5), sequences(2, 8, 2) * 0.01
    inputs[0, 3:] += 5
    inputs[1, 2:5] -= 5
    inputs[1, 6:] += 1000  # padding
    result = Occlusion(Linear(weight), players="segment", segments=2, segmentation="change_point").explain(
        inputs, lengths=[8, 6]
    )
    effect = (weight * inputs).sum(2).numpy()
    for row, cuts in ((0, [0, 3, 8]), (1, [0, 2, 6])):
        for begin, end in itertools.pairwise(cuts):
            expected = effect[row, begin:end].sum() / (end - begin)
            np.testing.assert_allclose(result.timesteps[row, begin:end], expected, rtol=1e-3, atol=1e-4)
    assert result.resolution == "segment"
    assert result.options["segmentation"] == "change_point"
    three = KernelSHAP(lstm(), players="segment", segments=3, segmentation="change_point")
    assert three.explain(sequences(1, 8, 3)).diagnostic("players")[0] == 3


def test_wrong_segmentations_are_refused():
    """An unknown name is refused with the nearest, and change points of token ids with a reason."""
    with pytest.raises(InvalidInputError, match=r"segmentation is 'change_points'.*Did you mean 'change_point'"):
        Occlusion(lstm(), segmentation="change_points")
    tokens = Occlusion(lstm(vocab_size=9, embedding_dim=4), players="segment", segmentation="change_point")
    with pytest.raises(InvalidInputError, match="no meaning for token ids"):
        tokens.explain(token_ids(1, 5))
