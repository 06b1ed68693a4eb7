"""Interactions of timesteps: the definitions by brute force are the oracle, then shapiq, then games that are known."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import shapiq
import torch
import xarray as xr

import gatelens.explainers
from gatelens.explainers import TemporalShapley, temporal_interactions
from gatelens.explainers.interaction_indices import exact_pairs
from gatelens.explainers.interactions import ESTIMATORS
from gatelens.explainers.temporal_game import shapley_values
from gatelens.models import DataSpec, InvalidInputError, SequenceData
from helpers.explained import LENGTHS, Foreign, Linear, linear_function, lstm, sequences, token_ids

INDICES = ("k-SII", "SII", "STII", "FSII")
OFF = ~np.eye(8, dtype=bool)


def random_game(count, seed=0):
    """Return the values of all coalitions, without any structure."""
    return np.random.default_rng(seed).normal(size=2**count) + 7


def gain_together(values, one, other, without):
    """Return what two players give together beyond what each gives, after the players in the bits of `without`."""
    both = (1 << one) | (1 << other)
    return values[without | both] - values[without | 1 << one] - values[without | 1 << other] + values[without]


def sii_pair(values, count, one, other):
    """Return the Shapley interaction index of two players by its definition."""
    rest = [player for player in range(count) if player not in (one, other)]
    total = 0.0
    for size in range(len(rest) + 1):
        for coalition in itertools.combinations(rest, size):
            weight = math.factorial(size) * math.factorial(count - size - 2) / math.factorial(count - 1)
            total += weight * gain_together(values, one, other, sum(1 << player for player in coalition))
    return total


def stii_pair(values, count, one, other):
    """Return the Shapley-Taylor index: the mean over all orders of the gain after those before the first of the two."""
    total = 0.0
    for order in itertools.permutations(range(count)):
        first = min(order.index(one), order.index(other))
        total += gain_together(values, one, other, sum(1 << player for player in order[:first]))
    return total / math.factorial(count)


def faithful(values, count):
    """Return the FSII (n, n): the weighted regression on singles and pairs, one of them eliminated by the sum."""
    terms = [{player} for player in range(count)] + [set(pair) for pair in itertools.combinations(range(count), 2)]
    rows, known, weights = [], [], []
    for coalition in range(1, 2**count - 1):
        members = {player for player in range(count) if coalition >> player & 1}
        rows.append([float(term <= members) for term in terms])
        known.append(values[coalition] - values[0])
        weights.append(1 / (math.comb(count - 2, len(members) - 1)))
    rows, known, root = np.array(rows), np.array(known), np.sqrt(weights)
    change = values[-1] - values[0]
    free = rows[:, :-1] - rows[:, -1:]
    found = np.linalg.lstsq(free * root[:, None], (known - rows[:, -1] * change) * root, rcond=None)[0]
    found = [*found, change - found.sum()]
    result = np.zeros((count, count))
    for term, value in zip(terms, found, strict=True):
        result[min(term), max(term)] = result[max(term), min(term)] = value
    return result


def defined(values, count, index):
    """Return the index (n, n) by its definition."""
    if index == "FSII":
        return faithful(values, count)
    pair = stii_pair if index == "STII" else sii_pair
    result = np.zeros((count, count))
    for one, other in itertools.combinations(range(count), 2):
        result[one, other] = result[other, one] = pair(values, count, one, other)
    single = values[1 << np.arange(count)] - values[0] if index == "STII" else shapley_values(values)
    return result + np.diag(single - (result.sum(axis=1) / 2 if index == "k-SII" else 0))


def by_shapiq(found, count):
    """Return shapiq's `InteractionValues` as (n, n)."""
    return np.array([[found[(a,) if a == b else (a, b)] for b in range(count)] for a in range(count)])


def all_values(read, inputs, labels=None):
    """Return the values of all coalitions of timesteps on the model itself, zeros standing for absent."""
    labels = np.arange(inputs.shape[1]) if labels is None else labels
    count = labels.max() + 1
    on = torch.tensor((np.arange(2**count)[:, None] >> np.arange(count)) % 2 == 1)[:, labels]
    with torch.no_grad():
        return read(inputs * (on[..., None] if on.ndim == 2 else on)).reshape(2**count, -1)[:, 0].numpy()


def matrix(found, sample=0):
    """Return the interactions of one sample, (n, n)."""
    return found["interaction"].to_numpy()[sample]


# -- the indices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_indices_are_those_of_the_definitions(index, count):
    """Every pair and every main effect is what the papers define, in float64."""
    values = random_game(count)
    found = exact_pairs(values, index)
    np.testing.assert_allclose(found, defined(values, count, index), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_indices_are_those_of_shapiq(index, count):
    """ExactComputer gives the same; its FSII only to 1e-8, as it weighs the ends with a large number."""
    values = random_game(count, seed=count)
    computer = shapiq.ExactComputer(lambda rows: values[rows @ (1 << np.arange(count))], n_players=count)
    expected = by_shapiq(computer(index, 2), count)
    np.testing.assert_allclose(exact_pairs(values, index), expected, rtol=0, atol=1e-7 if index == "FSII" else 1e-12)


@pytest.mark.parametrize("index", INDICES)
def test_none_and_one_player(index):
    """Without players there is nothing; one player has the whole difference."""
    assert exact_pairs(np.array([3.0]), index).shape == (0, 0)
    assert exact_pairs(np.array([3.0, 5.0]), index).tolist() == [[2.0]]


@pytest.mark.parametrize("index", INDICES)
def test_many_coalitions_are_summed_in_parts(index, monkeypatch):
    """How many coalitions go into one product changes nothing."""
    values = random_game(9)
    whole = exact_pairs(values, index)
    monkeypatch.setattr("gatelens.explainers.interaction_indices.CHUNK", 100)
    np.testing.assert_allclose(exact_pairs(values, index), whole, rtol=0, atol=1e-12)


def test_what_adds_up():
    """The main effects and pairs of all but SII add up; with k-SII half of its pairs make a player's Shapley value."""
    values = random_game(7)
    for index in INDICES:
        found = exact_pairs(values, index)
        total = (np.trace(found) + found.sum()) / 2
        assert (abs(total - (values[-1] - values[0])) < 1e-10) == (index != "SII")
    found = exact_pairs(values, "k-SII")
    halves = (np.diag(found) + found.sum(axis=1)) / 2
    np.testing.assert_allclose(halves, shapley_values(values), rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.diag(exact_pairs(values, "SII")), shapley_values(values), rtol=0, atol=1e-12)


# -- exact interactions of models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: lstm(double=True, pooling="attention"),
        lambda: lstm(double=True, bidirectional=True),
        lambda: Foreign().double(),
    ],
)
def test_timesteps_of_a_model(index, make):
    """The interactions of timesteps are the definition's, on the model itself."""
    model, inputs = make(), sequences(2, 5, 3, double=True)
    found = temporal_interactions(model, inputs, index=index)
    assert found["interaction"].dims == ("sample", "player", "other")
    for row in range(2):
        expected = defined(all_values(model, inputs[row : row + 1]), 5, index)
        np.testing.assert_allclose(matrix(found, row), expected, rtol=0, atol=1e-10)
    assert found["player"].to_numpy().tolist() == found["other"].to_numpy().tolist() == list(range(5))
    assert found["start"].to_numpy().tolist() == [list(range(5))] * 2
    assert found["stop"].to_numpy().tolist() == [list(range(1, 6))] * 2
    assert found["exact"].to_numpy().tolist() == [1, 1]
    assert found["coalitions"].to_numpy().tolist() == [32, 32]
    if index != "SII":
        np.testing.assert_allclose(found["completeness_gap"], 0, atol=1e-12)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("make", [Linear, linear_function])
def test_a_game_additive_in_time_has_no_interactions(index, make):
    """What a linear model adds up has main effects alone, its terms."""
    weight, inputs = sequences(7, 3, seed=3, double=True), sequences(1, 7, 3, double=True)
    found = matrix(temporal_interactions(make(weight), inputs, index=index))
    np.testing.assert_allclose(found, np.diag((weight * inputs[0]).sum(1)), rtol=0, atol=1e-12)


def test_a_product_of_two_timesteps_is_their_interaction():
    """Beside zeros x1 x3 is the pair's, and nothing its members' own, but in SII, whose main effects have half each."""

    def product(values):
        return values[:, 1, 0] * values[:, 3, 0]

    inputs = np.ones((1, 5, 2)) * 2.0
    for index in INDICES:
        expected = np.zeros((5, 5))
        expected[1, 3] = expected[3, 1] = 4
        if index == "SII":
            expected[1, 1] = expected[3, 3] = 2
        np.testing.assert_allclose(matrix(temporal_interactions(product, inputs, index=index)), expected, atol=1e-6)


def test_a_product_of_three_timesteps():
    """Of x0 x1 x2 every pair has a half as SII and a third as STII, which shares it among the three alone."""

    def product(values):
        return values.prod(axis=(1, 2))

    for index, pair, main in (("SII", 1 / 2, 1 / 3), ("k-SII", 1 / 2, -1 / 6), ("STII", 1 / 3, 0)):
        found = matrix(temporal_interactions(product, np.ones((1, 3, 1)), index=index))
        np.testing.assert_allclose(found, np.where(np.eye(3), main, pair), atol=1e-6)


@pytest.mark.parametrize("index", INDICES)
def test_variable_lengths_and_padding(index):
    """Each sequence has the timesteps of its own length; padding has 0, and start = stop."""
    model, inputs = lstm(double=True), sequences(3, 6, 3, double=True)
    found = temporal_interactions(model, inputs, index=index, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        expected = defined(all_values(model, inputs[row : row + 1, :length]), length, index)
        np.testing.assert_allclose(matrix(found, row)[:length, :length], expected, rtol=0, atol=1e-10)
        assert (matrix(found, row)[length:] == 0).all()
        assert (matrix(found, row)[:, length:] == 0).all()
        np.testing.assert_array_equal((found["stop"] > found["start"])[row], np.arange(6) < length)
    assert found["players"].to_numpy().tolist() == found["length"].to_numpy().tolist() == LENGTHS


def test_players_that_change_nothing_have_nothing():
    """Timesteps that equal the baseline, and those after an explained timestep, have exactly 0, and cost nothing."""
    model, inputs = lstm(double=True), torch.zeros(1, 30, 3, dtype=torch.float64)
    inputs[:, [3, 11, 29]] = sequences(1, 3, 3, double=True)
    found = temporal_interactions(model, inputs)
    assert np.flatnonzero(matrix(found).any(axis=1)).tolist() == [3, 11, 29]
    assert found["coalitions"] == 8
    model, inputs = lstm(double=True, pooling="none", output_size=2), sequences(1, 9, 3, double=True)
    found = temporal_interactions(model, inputs, target=(3, 1))
    expected = defined(all_values(lambda part: model(part)[:, 3, 1], inputs[:, :4]), 4, "k-SII")
    np.testing.assert_allclose(matrix(found)[:4, :4], expected, rtol=0, atol=1e-10)
    assert (matrix(found)[4:] == 0).all()
    assert found["target_timestep"] == 3
    assert found["target_output"] == 1


@pytest.mark.parametrize(
    ("options", "labels", "names"),
    [
        ({"players": "segment", "segments": 3}, [[0] * 2, [0] * 2, [1] * 2, [1] * 2, [2] * 2], [0, 1, 2]),
        ({"players": "feature"}, [[0, 1]] * 5, ["feature 0", "feature 1"]),
        ({"players": "cell"}, np.arange(10).reshape(5, 2).tolist(), None),
    ],
)
def test_other_players(options, labels, names):
    """Segments, features and cells interact as well, and are named."""
    model, inputs = lstm(double=True, input_size=2), sequences(1, 5, 2, double=True)
    found = temporal_interactions(model, inputs, index="SII", **options)
    labels = np.array(labels)
    values = all_values(model, inputs, labels)
    np.testing.assert_allclose(matrix(found), exact_pairs(values, "SII"), rtol=0, atol=1e-12)
    time = np.arange(5)[:, None] * np.ones((1, 2), dtype=int)
    for player in range(labels.max() + 1):
        assert found["start"].to_numpy()[0, player] == time[labels == player].min()
        assert found["stop"].to_numpy()[0, player] == time[labels == player].max() + 1
    if names is None:
        assert found["player"].to_numpy()[[0, 5]].tolist() == ["feature 0 @ 0", "feature 1 @ 2"]
    else:
        assert found["player"].to_numpy().tolist() == names
    assert found.attrs["players"] == options["players"]


def test_segments_of_sequences_of_different_length():
    """A short sequence has fewer segments; those it does not have are empty."""
    found = temporal_interactions(lstm(), sequences(2, 6, 3), lengths=[6, 2], players="segment", segments=3)
    assert found["players"].to_numpy().tolist() == [3, 2]
    assert found["start"].to_numpy().tolist() == [[0, 2, 4], [0, 1, 2]]
    assert found["stop"].to_numpy().tolist() == [[2, 4, 6], [1, 2, 2]]
    assert (matrix(found, 1)[2] == 0).all()


def test_tokens_keep_their_words():
    """Token ids interact, and their words stand beside the players."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, double=True), token_ids(1, 5)
    model.data = DataSpec(vocabulary=("<pad>", *"abcdefgh"))
    for players in ("timestep", "cell"):
        found = temporal_interactions(model, ids, players=players)
        assert found["token"].dims == ("sample", "player")
        assert found["token"].to_numpy()[0].tolist() == ["-abcdefgh"[token] for token in ids[0]]
        with torch.no_grad():
            on = torch.tensor((np.arange(32)[:, None] >> np.arange(5)) % 2)
            values = model(ids * on)[:, 0].numpy()
        np.testing.assert_allclose(matrix(found), defined(values, 5, "k-SII"), rtol=0, atol=1e-10)
    with pytest.raises(InvalidInputError, match="no meaning for token ids"):
        temporal_interactions(model, ids, players="feature")


def test_the_game_is_the_explainers():
    """Baseline, background, output, class and pruning of a `TemporalShapley` are those of the interactions."""
    model, inputs = lstm(double=True, output_size=3, task="multiclass"), sequences(2, 6, 3, double=True)
    for options in (
        {"baseline": 0.4},
        {"baseline": "hold_last"},
        {"background": sequences(3, 6, 3, seed=8, double=True)},
        {"output": "probability"},
        {"players": "cell", "pruning": 0.3},
        {"players": "segment", "segments": 4, "segmentation": "change_point"},
    ):
        explainer = TemporalShapley(model, **options)
        found = temporal_interactions(explainer, inputs, target=2, index="SII")
        shapley = explainer.explain(inputs, target=2)
        for row in range(2):
            spans = zip(found["start"].to_numpy()[row], found["stop"].to_numpy()[row], strict=True)
            parts = np.diag(matrix(found, row))
            assert len(parts) == shapley.diagnostic("players").max()
            if options.get("players") == "cell":
                cut = int(shapley.diagnostic("pruned")[row])
                assert next(spans) == (0, cut or 1)
                parts = parts[:1] if cut else []
                expected = [shapley.values[row, :cut].sum()] if cut else []
            else:
                expected = [shapley.timesteps[row, start:stop].sum() for start, stop in spans]
            np.testing.assert_allclose(parts, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["prediction"], shapley.prediction)
        np.testing.assert_allclose(found["baseline_prediction"], shapley.baseline_prediction)
        together = temporal_interactions(explainer, inputs, target=2)
        np.testing.assert_allclose(together["completeness_gap"], 0, atol=1e-12)
        assert together.attrs["baseline_name"] == shapley.attrs["baseline_name"]
    assert shapley.dataset["target_output"].to_numpy().tolist() == found["target_output"].to_numpy().tolist() == [2, 2]


def test_a_batch_equals_its_samples():
    """A sample has the same interactions alone."""
    model, inputs = lstm(), sequences(3, 6, 3)
    for options in ({}, {"evaluations": 50}):
        whole = temporal_interactions(model, inputs, lengths=LENGTHS, **options)
        for row, length in enumerate(LENGTHS):
            alone = temporal_interactions(model, inputs[row : row + 1, :length], **options)
            part = matrix(whole, row)[:length, :length]
            np.testing.assert_allclose(matrix(alone), part, rtol=0, atol=2e-6)


def test_sequence_data_brings_names():
    """A `SequenceData` brings lengths and names; times stand beside the players."""
    inputs = sequences(2, 4, 3)
    times = np.arange(8).reshape(2, 4).astype("datetime64[h]").astype("datetime64[ns]")
    data = SequenceData(inputs.numpy(), np.array([4, 2]), ("a", "b"), times, np.arange(2))
    found = temporal_interactions(lstm(), data)
    assert found["sample"].to_numpy().tolist() == ["a", "b"]
    assert found["players"].to_numpy().tolist() == [4, 2]
    np.testing.assert_array_equal(found["timestamp"], times)


# -- estimates -------------------------------------------------------------------------------------------------------

SPENT = {"permutation": 900}
PAIRED = {"pairing_trick": True}
DIRECT = {
    ("SII", "kernel_shap_iq"): lambda n, seed, i: shapiq.KernelSHAPIQ(n, index=i, random_state=seed, **PAIRED),
    ("SII", "svarm_iq"): lambda n, seed, i: shapiq.SVARMIQ(n, index=i, random_state=seed, **PAIRED),
    ("SII", "shap_iq"): lambda n, seed, i: shapiq.SHAPIQ(n, index=i, random_state=seed, **PAIRED),
    ("SII", "permutation"): lambda n, seed, i: shapiq.PermutationSamplingSII(n, index=i, random_state=seed),
    ("STII", "svarm_iq"): lambda n, seed, i: shapiq.SVARMIQ(n, index=i, random_state=seed, **PAIRED),
    ("STII", "shap_iq"): lambda n, seed, i: shapiq.SHAPIQ(n, index=i, random_state=seed, **PAIRED),
    ("STII", "permutation"): lambda n, seed, _: shapiq.PermutationSamplingSTII(n, max_order=2, random_state=seed),
    ("FSII", "regression"): lambda n, seed, _: shapiq.RegressionFSII(n, random_state=seed, **PAIRED),
}  # fmt: skip
CASES = [(index, name) for index in INDICES for name in ESTIMATORS[index]]


@pytest.mark.parametrize(("index", "estimator"), CASES)
def test_estimates_are_those_of_shapiq(index, estimator):
    """They are what shapiq's own class finds with the same seed on the same values."""
    model, inputs = lstm(double=True), sequences(1, 10, 3, double=True)
    values = all_values(model, inputs)
    evaluations = SPENT.get(estimator, 300)
    found = temporal_interactions(model, inputs, index=index, estimator=estimator, evaluations=evaluations, seed=3)
    make = DIRECT["SII" if index == "k-SII" else index, estimator]
    direct = make(10, 3, index).approximate(
        evaluations, lambda rows: values[np.atleast_2d(rows) @ (1 << np.arange(10))]
    )
    np.testing.assert_allclose(matrix(found), by_shapiq(direct, 10), rtol=0, atol=1e-9)
    assert found["exact"] == 0
    assert found["coalitions"] <= evaluations
    assert found.attrs["estimator"] == estimator
    assert found.attrs["completeness"] == ("none" if index == "SII" else "converges")
    assert "shapiq" in json.loads(found.attrs["versions"])


@pytest.mark.parametrize("index", INDICES)
def test_estimates_come_near(index):
    """What is taken without being asked for is within a fifth of the exact values, and nearer with more coalitions."""
    model, inputs = lstm(strength=3.0, hidden_sizes=(12,)), sequences(1, 12, 3)
    exact = matrix(temporal_interactions(model, inputs, index=index))
    errors = []
    for evaluations in (320, 2500):
        seeds = [
            matrix(temporal_interactions(model, inputs, index=index, evaluations=evaluations, seed=seed)) - exact
            for seed in range(3)
        ]
        errors.append(np.mean([np.linalg.norm(part) for part in seeds]) / np.linalg.norm(exact))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.2


def test_many_players_need_evaluations():
    """More than 20 players are refused without `evaluations`, with what to give, and estimated with them."""
    model, inputs = lstm(hidden_sizes=(3,)), sequences(1, 24, 3)
    with pytest.raises(InvalidInputError, match=r"24 players have 2\^24 .* evaluations= \(604 or more\) .*'segment'"):
        temporal_interactions(model, inputs)
    with pytest.raises(InvalidInputError, match=r"603 evaluations are too few for estimator='kernel_shap_iq' and 24"):
        temporal_interactions(model, inputs, evaluations=603)
    found = temporal_interactions(model, inputs, evaluations=1500)
    np.testing.assert_array_equal(matrix(found), matrix(found).T)
    np.testing.assert_allclose(found["completeness_gap"], 0, atol=1e-5)
    assert found["coalitions"] == 1500


# -- the form --------------------------------------------------------------------------------------------------------


def test_what_the_result_says_of_itself():
    """It holds index, method, seed, evaluations, whether it is exact, and versions, and can be written and read."""
    model, inputs = lstm(), sequences(2, 4, 3)
    found = temporal_interactions(model, inputs, seed=5, index="STII", sample_names=("x", "y"))
    expected = {
        "method": "temporal_interactions", "index": "STII", "estimator": "exact", "players": "timestep", "exact": 1,
        "evaluations": "all", "completeness": "exact", "seed": 5, "output": "logit", "baseline_name": "zero",
    }  # fmt: skip
    assert {name: found.attrs[name] for name in expected} == expected
    assert "shapiq" not in json.loads(found.attrs["versions"])
    assert json.loads(found.attrs["options"])["index"] == "STII"
    assert found.attrs["forward_evaluations"] > 0
    assert found["sample"].to_numpy().tolist() == ["x", "y"]
    assert "temporal_interactions" in gatelens.explainers.__all__


def test_it_is_written_and_read(tmp_path):
    """A netCDF file holds the dataset."""
    found = temporal_interactions(lstm(), sequences(2, 4, 3), players="feature", evaluations=10)
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    read = xr.load_dataset(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read["interaction"], found["interaction"])
    assert read.attrs["evaluations"] == 10
    assert read["player"].to_numpy().tolist() == ["feature 0", "feature 1", "feature 2"]


def test_the_model_is_left_as_found():
    """Mode, gradient flags, gradients and random states are as before, also after an error."""
    model, inputs = lstm(dropout=0.5, hidden_sizes=(4, 4)).train(), sequences(1, 5, 3)
    model.head.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    temporal_interactions(model, inputs)
    temporal_interactions(model, sequences(1, 7, 3), evaluations=70)
    with pytest.raises(InvalidInputError):
        temporal_interactions(model, sequences(1, 24, 3))
    assert model.training
    assert [part.requires_grad for part in (model.head.weight, model.head.bias)] == [False, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_exact_interactions_do_not_import_shapiq():
    """Estimates alone import shapiq."""
    code = (
        "import sys, torch; from gatelens.explainers import temporal_interactions; from gatelens.models import *;"
        "model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,))).eval(); x = torch.ones(1, 6, 2);"
        "temporal_interactions(model, x); assert 'shapiq' not in sys.modules;"
        "temporal_interactions(model, x, evaluations=50); assert 'shapiq' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_refusals():
    """What makes no sense is refused, with what there is."""
    model, inputs = lstm(), sequences(1, 4, 3)
    for options, message in (
        ({"index": "SV"}, r"index is 'SV'; known: .*k-SII"),
        ({"estimator": "kernel_shap"}, r"estimator is 'kernel_shap'; of k-SII, known: kernel_shap_iq"),
        ({"index": "FSII", "estimator": "svarm_iq"}, r"estimator is 'svarm_iq'; of FSII, known: regression"),
        ({"tolerance": 0.1}, "no standard errors to compare with a tolerance"),
        ({"players": "event"}, "players is 'event'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            temporal_interactions(model, inputs, **options)
    with pytest.raises(InvalidInputError, match="make the TemporalShapley without tolerance and estimator"):
        temporal_interactions(TemporalShapley(model, estimator="svarm"), inputs)
    with pytest.raises(InvalidInputError, match=r"players, seed stand beside a TemporalShapley"):
        temporal_interactions(TemporalShapley(model), inputs, players="cell", seed=1)
    with pytest.raises(InvalidInputError, match="inputs has shape"):
        temporal_interactions(model, inputs[0])
