"""Estimates by shapiq: the library itself on the table of all values is the oracle."""

import subprocess
import sys

import numpy as np
import pytest
import shapiq.approximator

from gatelens.explainers import TemporalShapley
from gatelens.explainers.checks import check_explainer
from gatelens.explainers.shapiq_estimates import ANCHORS, ESTIMATORS, Asked, estimate
from gatelens.explainers.temporal_game import TemporalGame, shapley_values
from gatelens.models import InvalidInputError, Predictor
from helpers.explained import LENGTHS, Foreign, Linear, lstm, sequences, token_ids

OF_SETS = [name for name, approximator in ESTIMATORS.items() if approximator.draws_sets]
OF_ORDERS = [name for name in ESTIMATORS if name not in OF_SETS]
CLASSES = {
    "kernel_shap": lambda n, seed: shapiq.approximator.KernelSHAP(n, pairing_trick=True, random_state=seed),
    "unbiased_kernel_shap": lambda n, seed: shapiq.approximator.UnbiasedKernelSHAP(
        n, pairing_trick=True, random_state=seed
    ),
    "kadd_shap": lambda n, seed: shapiq.approximator.kADDSHAP(n, random_state=seed),
    "svarm": lambda n, seed: shapiq.approximator.SVARM(n, random_state=seed),
    "permutation": lambda n, seed: shapiq.approximator.PermutationSamplingSV(n, random_state=seed),
    "stratified": lambda n, seed: shapiq.approximator.StratifiedSamplingSV(n, random_state=seed),
    "owen": lambda n, seed: shapiq.approximator.OwenSamplingSV(n, n_anchor_points=ANCHORS, random_state=seed),
}


class Table:
    """A game that is a table of the values of all coalitions, as estimators see it."""

    def __init__(self, values):
        self.table = np.asarray(values, dtype=float)
        self.active = list(range(len(values).bit_length() - 1))
        self.empty, self.full = self.table[0], self.table[-1]
        self.evaluated = 0
        self.calls = []

    def values(self, coalitions):
        """Return the values of coalitions (N, n)."""
        assert coalitions.dtype == bool
        assert coalitions.shape == (len(coalitions), len(self.active))
        self.calls.append(len(coalitions))
        self.evaluated += len(coalitions)
        return self.look_up(coalitions)

    def look_up(self, coalitions):
        """Return the values without counting, of one coalition too, as shapiq asks."""
        return self.table[np.atleast_2d(coalitions) @ (1 << np.arange(len(self.active)))]


def curved(count, seed=0):
    """Return the values of a game of main effects, products and a bend."""
    rng = np.random.default_rng(seed)
    on = (np.arange(2**count)[:, None] >> np.arange(count)) % 2
    weight, pairs = rng.normal(size=count), rng.normal(size=(count, count)) / count
    level = on @ weight + ((on @ pairs) * on).sum(axis=1)
    return np.tanh(level / 2) + 0.1 * level + 3


# -- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("seed", [0, 3])
def test_values_are_those_of_the_library(estimator, seed):
    """They are what shapiq's own class finds on the same values, with the gap spread equally."""
    table = curved(9)
    direct = CLASSES[estimator](9, seed).approximate(300, Table(table).look_up)
    expected = np.array([direct[player,] for player in range(9)])
    gap = table[-1] - table[0] - expected.sum()
    game = Table(table)
    values, missing, exhaustive = estimate(estimator, game, 300, seed)
    np.testing.assert_allclose(values, expected + gap / 9, rtol=0, atol=1e-12)
    np.testing.assert_allclose(missing, gap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values.sum(), table[-1] - table[0], rtol=0, atol=1e-12)
    assert not exhaustive
    assert game.evaluated <= 300
    assert len(game.calls) == 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_all_coalitions_give_exact_values(estimator, count):
    """With all coalitions, the estimators of sets are exact; the others are near it after many draws."""
    table = curved(count)
    truth = shapley_values(table)
    game = Table(table)
    values, missing, exhaustive = estimate(estimator, game, 20_000, 0)
    assert exhaustive == (estimator in OF_SETS)
    off = np.abs(values - truth).max() / np.abs(truth).max()
    assert off < (2e-6 if estimator in OF_SETS else 0.05)
    assert abs(missing) < (1e-6 if estimator in OF_SETS else 0.2)
    assert game.evaluated <= 2**count
    assert len(game.calls) == 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_more_evaluations_are_nearer(estimator):
    """Eight times as many evaluations leave less of the error, over seeds."""
    table = curved(11, seed=4)
    truth = shapley_values(table)
    errors = [
        np.mean([np.linalg.norm(estimate(estimator, Table(table), number, seed)[0] - truth) for seed in range(6)])
        for number in (230, 1840)
    ]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_additive_game_is_exact(estimator):
    """Where every gain is the same whoever came before, few draws give it; but "svarm" and its like are noisy."""
    weight = np.random.default_rng(1).normal(size=10)
    table = (np.arange(1024)[:, None] >> np.arange(10)) % 2 @ weight
    values, _, _ = estimate(estimator, Table(table), 260, 0)
    noisy = estimator in ("svarm", "unbiased_kernel_shap")
    np.testing.assert_allclose(values, weight, rtol=0, atol=1.5 if noisy else 1e-6)


def test_coalitions_are_evaluated_once():
    """A coalition asked for again costs nothing, none and all are known, and single ones may come as vectors."""
    game = Table(curved(4))
    asked = Asked(game)
    assert game.evaluated == 2
    first, second = [True, False, True, False], [False, False, False, True]
    found = asked(np.array([first, second, first, [True] * 4, [False] * 4]))
    np.testing.assert_array_equal(found, game.table[[5, 8, 5, 15, 0]])
    assert asked(np.array(second)) == game.table[8]
    assert asked.note(np.array([[True, True, False, False]])).tolist() == [0]
    assert game.calls == [2]
    asked.evaluate()
    asked.evaluate()
    assert game.calls == [2, 1]
    assert game.evaluated == 5


# -- in TemporalShapley ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_explanations_add_up_and_tell_no_error(estimator):
    """Values are near the exact ones and add up; there is no standard error; what was missing is told."""
    model, inputs = lstm(strength=3.0, hidden_sizes=(12,)), sequences(2, 10, 3)
    truth = TemporalShapley(model).explain(inputs)
    result = TemporalShapley(model, estimator=estimator, evaluations=400).explain(inputs)
    assert np.linalg.norm(result.timesteps - truth.timesteps) < 0.25 * np.linalg.norm(truth.timesteps)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-5)
    assert result.std_error is None
    assert (result.diagnostic("exhaustive") == 0).all()
    assert (result.diagnostic("prefix_shared") == 1).all()
    assert (result.diagnostic("coalitions") <= 400).all()
    assert result.diagnostic("missing").shape == (2,)
    assert result.options["estimator"] == estimator
    assert "library" not in result.options
    assert result.versions["shapiq"]
    assert truth.diagnostic("missing") is None
    assert "shapiq" not in truth.versions


@pytest.mark.parametrize("estimator", ["kernel_shap", "permutation"])
def test_other_models_players_and_inputs(estimator):
    """Any model, any players, tokens, lengths and pruning."""
    inputs = sequences(3, 6, 3)
    for model, options in (
        (Foreign(), {}),
        (Linear(sequences(6, 3)), {"players": "cell"}),
        (lstm(), {"players": "feature", "background": sequences(2, 6, 3, seed=5)}),
        (lstm(bidirectional=True), {"players": "segment", "segments": 3}),
        (lstm(), {"pruning": 0.3}),
        (lstm(), {"baseline": "hold_last"}),
    ):
        explainer = TemporalShapley(model, estimator=estimator, **options)
        result = explainer.explain(inputs, lengths=LENGTHS)
        np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-5)
        exact = TemporalShapley(model, **options).explain(inputs, lengths=LENGTHS)
        assert np.linalg.norm(result.values - exact.values) < 0.1 * np.linalg.norm(exact.values)
    ids = token_ids(2, 6)
    result = TemporalShapley(lstm(vocab_size=9, embedding_dim=3), estimator=estimator).explain(ids)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-5)


def test_the_default_number_of_evaluations():
    """Without `evaluations` there are 2 n + 2,048, also where 2^n is not much more; the exact path is for "pairs"."""
    model, inputs = lstm(hidden_sizes=(3,)), sequences(1, 12, 3)
    result = TemporalShapley(model, estimator="kernel_shap").explain(inputs)
    assert result.diagnostic("coalitions") == [2 * 12 + 2048]
    assert result.diagnostic("exhaustive") == [0]
    whole = TemporalShapley(model, estimator="kernel_shap", evaluations=4096).explain(inputs)
    assert whole.diagnostic("coalitions") == [4096]
    assert whole.diagnostic("exhaustive") == [1]
    exact = TemporalShapley(model).explain(inputs)
    np.testing.assert_allclose(whole.values, exact.values, rtol=0, atol=1e-5 * np.abs(exact.values).max())


def test_none_and_one_player():
    """Where nothing, or one timestep, may change something there is nothing to estimate."""
    model, inputs = lstm(), sequences(2, 4, 3)
    inputs[0] = 0
    inputs[1, :2] = inputs[1, 3] = 0
    result = TemporalShapley(model, estimator="owen").explain(inputs)
    change = result.prediction[1] - result.baseline_prediction[1]
    np.testing.assert_allclose(result.timesteps, [[0] * 4, [0, 0, change, 0]], rtol=0, atol=1e-6)
    assert (result.diagnostic("exhaustive") == 1).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_seeds_decide_and_batches_do_not(estimator):
    """The same seed gives the same numbers, whatever else is in the batch; another seed gives others."""
    model, inputs = lstm(), sequences(3, 9, 3)
    options = {"estimator": estimator, "evaluations": 200}
    result = TemporalShapley(model, seed=1, **options).explain(inputs)
    for row in range(3):
        alone = TemporalShapley(model, seed=1, **options).explain(inputs[row : row + 1])
        np.testing.assert_allclose(alone.values[0], result.values[row], rtol=0, atol=1e-6)
    other = TemporalShapley(model, seed=2, **options).explain(inputs)
    assert np.abs(other.values - result.values).max() > 1e-6


def test_what_is_drawn_in_order_is_evaluated_together(monkeypatch):
    """Also of approximators that ask for one coalition after another, all are evaluated in one call, each once."""
    calls, values = [], TemporalGame.values
    monkeypatch.setattr(TemporalGame, "values", lambda self, rows: calls.append(rows) or values(self, rows))
    for estimator in OF_ORDERS:
        calls.clear()
        predictor = Predictor(Foreign())
        before = predictor.forward_evaluations
        TemporalShapley(predictor, estimator=estimator, evaluations=200).explain(sequences(1, 6, 3))
        assert len(calls) == 1
        assert len(np.unique(calls[0], axis=0)) == len(calls[0]) <= 62
        assert predictor.forward_evaluations - before == len(calls[0]) + 2


def test_shapiq_is_imported_only_for_its_estimators():
    """Neither the package nor an explanation by pairs imports shapiq."""
    code = (
        "import sys, torch; from gatelens.explainers import TemporalShapley; from gatelens.models import *;"
        "model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,))).eval(); x = torch.ones(1, 5, 2);"
        "TemporalShapley(model, pruning=0.1).explain(x); assert 'shapiq' not in sys.modules;"
        "TemporalShapley(model, estimator='svarm').explain(x); assert 'shapiq' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_refusals():
    """What makes no sense is refused, with what to do instead."""
    with pytest.raises(InvalidInputError, match=r"estimator is 'kernelshap'; known: pairs, .*mean 'kernel_shap'"):
        TemporalShapley(lstm(), estimator="kernelshap")
    with pytest.raises(InvalidInputError, match=r"tolerance=0.1 needs standard errors, and estimator='svarm' gives"):
        TemporalShapley(lstm(), estimator="svarm", tolerance=0.1)
    for estimator, least in (("kernel_shap", 36), ("kadd_shap", 47), ("permutation", 10), ("stratified", 146)):
        explainer = TemporalShapley(lstm(), estimator=estimator, evaluations=least - 1)
        with pytest.raises(InvalidInputError, match=f"estimator='{estimator}' and 9 players; give evaluations={least}"):
            explainer.explain(sequences(1, 9, 3))
        TemporalShapley(lstm(), estimator=estimator, evaluations=least).explain(sequences(1, 9, 3))
    with pytest.raises(InvalidInputError, match="give evaluations=4902 or more, or explain fewer players"):
        TemporalShapley(lstm(), estimator="stratified").explain(sequences(1, 50, 3))


def test_very_many_players():
    """More players than shapiq can count the coalitions of are refused; orders of them can be drawn."""
    weight = sequences(1100, 2)
    with pytest.raises(InvalidInputError, match="takes 1000 players at most, and 1100 may change something"):
        TemporalShapley(Linear(weight), estimator="kernel_shap", evaluations=9000).explain(sequences(1, 1100, 2))
    result = TemporalShapley(Linear(weight), estimator="permutation", evaluations=1101).explain(sequences(1, 1100, 2))
    np.testing.assert_allclose(result.timesteps[0], (weight * sequences(1, 1100, 2)[0]).sum(1), rtol=0, atol=1e-3)


def test_an_estimator_keeps_the_contract():
    """An explainer with an estimator of shapiq keeps the contract of all."""
    check_explainer(TemporalShapley, estimator="kernel_shap")
