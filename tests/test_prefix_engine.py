"""The coalition engine: the model itself, called on every masked copy, is the oracle."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens.explainers.players import Game, Players
from gatelens.explainers.prefix_engine import PrefixEngine, shares_prefixes
from gatelens.explainers.problem import Problem
from gatelens.models import Predictor, Target
from gatelens.models.branching import Layer
from helpers.explained import Foreign, lstm, sequences, token_ids

POOLINGS = ["last", "mean", "max", "attention", "none"]
MODELS = [
    {},
    {"hidden_sizes": (6, 4)},
    {"hidden_sizes": (5, 3, 4)},
    {"activation": "relu"},
    {"output_size": 3, "task": "multiclass"},
]


def game(model, inputs, *, players="timestep", segments=10, length=None, output=0, timestep=None, last=None,
         references=None, probability=False, holds_last=False, labels=None):  # fmt: skip
    """Return the game of one sequence, against zeros or what is given; of `labels` (L, D), where they are given."""
    predictor = Predictor(model, output="probability" if probability else "logit")
    lengths = torch.tensor([inputs.shape[1] if length is None else length])
    if model.config.pooling == "none" and timestep is None:
        timestep = int(lengths[0]) - 1
    target = Target(torch.tensor([output]), *(None if t is None else torch.tensor([t]) for t in (timestep, last)))
    baseline = inputs[:, :1].expand(inputs.shape) if holds_last else torch.zeros_like(inputs)
    problem = Problem(
        predictor, inputs, lengths, target, baseline, references, np.zeros(1), np.zeros(1), 0,
        progress=False, holds_last=holds_last,
    )  # fmt: skip
    if labels is not None:
        return Game(problem, 0, Players("cell", labels, labels.max() + 1))
    return problem.game(0, players, segments=segments)


def every(count):
    """Return all coalitions, (2^n, n), player k being bit k."""
    return (np.arange(2**count)[:, None] >> np.arange(count)) % 2 == 1


def engine(played, *, reference=0, active=None, memory_bytes=2**30, rows=None):
    """Return the engine of a game, with blocks of so many rows."""
    active = list(range(played.players.count)) if active is None else active
    made = PrefixEngine(played, reference, active, memory_bytes=memory_bytes)
    made.rows = rows or made.rows
    return made


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("config", MODELS, ids=str)
def test_all_coalitions_equal_the_model(config, pooling, double):
    """Every coalition's value is the model's own number of the masked sequence, for all poolings and layers."""
    model, inputs = lstm(double=double, pooling=pooling, **config), sequences(1, 6, 3, double=double)
    played = game(model, inputs, output=config.get("output_size", 1) - 1)
    with torch.no_grad():
        expected = played(every(6))
        found = engine(played).all_values()
        blocks = engine(played, rows=8).all_values()
        some = engine(played, rows=8).values(every(6))
    for values in (found, blocks, some):
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12 if double else 2e-6 * np.abs(expected).max())
    assert np.ptp(expected) > 0.01


@pytest.mark.parametrize("players", ["timestep", "segment"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_lengths_segments_and_players_that_are_left_out(pooling, players):
    """Padding is not read; segments go on and off together; players that are left out stay off."""
    model, inputs = lstm(double=True, pooling=pooling, hidden_sizes=(4, 3)), sequences(1, 9, 3, double=True)
    played = game(model, inputs, players=players, segments=4, length=7)
    count = played.players.count
    assert count == (7 if players == "timestep" else 4)
    active = [0, 2, count - 1]
    chosen = np.zeros((8, count), dtype=bool)
    chosen[:, active] = every(3)
    for rows in (None, 2):
        made = engine(played, active=active, rows=rows)
        np.testing.assert_allclose(made.all_values(), played(chosen), rtol=0, atol=1e-12)
        np.testing.assert_allclose(made.values(every(3)[::-1]), played(chosen[::-1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("timestep", [0, 3])
def test_timesteps_after_the_explained_one_are_not_played(timestep):
    """With one output a timestep, players after the explained one are no players of the engine."""
    model, inputs = lstm(double=True, pooling="none", output_size=2), sequences(1, 6, 3, double=True)
    played = game(model, inputs, output=1, timestep=timestep)
    made = engine(played)
    assert made.active == list(range(timestep + 1))
    chosen = np.zeros((2 ** (timestep + 1), 6), dtype=bool)
    chosen[:, : timestep + 1] = every(timestep + 1)
    np.testing.assert_allclose(made.all_values(), played(chosen), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("task", "outputs"), [("binary", 2), ("multiclass", 4)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_probabilities(task, outputs, pooling):
    """With output="probability" values are probabilities, of all classes' scores."""
    model = lstm(double=True, pooling=pooling, output_size=outputs, task=task)
    played = game(model, sequences(1, 5, 3, double=True), output=1, probability=True)
    found = engine(played).all_values()
    np.testing.assert_allclose(found, played(every(5)), rtol=0, atol=1e-12)
    assert ((found > 0) & (found < 1)).all()


CELLS = {  # of 5 timesteps and 2 features: the players of the cells
    "cells": np.arange(10).reshape(5, 2),
    "old events, then features": np.array([[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]]),
    "old events, then cells": np.array([[4, 4], [4, 4], [4, 4], [0, 2], [1, 3]]),
    "features": np.array([[1, 0]] * 5),
    "timesteps that come back": np.array([[0, 0], [1, 1], [0, 0], [2, 2], [1, 1]]),
    "timesteps": np.repeat(np.arange(5)[:, None], 2, axis=1),
}


@pytest.mark.parametrize("holds_last", [False, True])
@pytest.mark.parametrize("players", CELLS)
@pytest.mark.parametrize("config", [{}, {"hidden_sizes": (4, 3), "pooling": "attention"}], ids=str)
def test_any_players_and_held_values(config, players, holds_last):
    """Whatever a player is, and whatever stands for "absent", every coalition's value is the model's own number."""
    model, inputs = lstm(double=True, input_size=2, **config), sequences(1, 5, 2, double=True)
    played = game(model, inputs, labels=CELLS[players], holds_last=holds_last)
    count = played.players.count
    for rows in (None, 8):
        made = engine(played, rows=rows)
        chosen = every(count)
        ordered = np.empty_like(chosen)
        ordered[:, made.active] = chosen  # the engine's order of players
        expected = played(ordered)
        np.testing.assert_allclose(made.values(chosen), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(made.all_values(), expected, rtol=0, atol=1e-12)
    assert np.ptp(expected) > 0.01


def test_players_are_ordered_by_when_they_begin():
    """`active` is in the order in which players begin, and beginnings are shared in that order."""
    played = game(lstm(input_size=2), sequences(1, 5, 2), labels=CELLS["old events, then cells"])
    made = engine(played)
    assert made.active == [4, 0, 2, 1, 3]
    made.all_values()
    assert made.cell_steps == 3 * 2 + 8 + 32


def test_tokens_that_are_held():
    """A token that is off is the last one before it that is on."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, double=True), token_ids(1, 5)
    played = game(model, ids, holds_last=True)
    np.testing.assert_allclose(engine(played).all_values(), played(every(5)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("probability", [False, True])
@pytest.mark.parametrize(("first", "last"), [(0, 3), (2, 2), (3, 5)])
def test_sums_over_a_window_of_outputs(first, last, probability):
    """The sum of an output over several timesteps is accumulated; nothing after the last one is played."""
    model = lstm(double=True, pooling="none", output_size=3, task="multiclass")
    played = game(model, sequences(1, 6, 3, double=True), output=1, timestep=first, last=last, probability=probability)
    made = engine(played)
    assert made.active == list(range(last + 1))
    chosen = np.zeros((2 ** (last + 1), 6), dtype=bool)
    chosen[:, : last + 1] = every(last + 1)
    np.testing.assert_allclose(made.all_values(), played(chosen), rtol=0, atol=1e-12)


def test_tokens_and_references():
    """Token ids are replaced by those of each reference."""
    model, ids = lstm(vocab_size=9, embedding_dim=4, double=True), token_ids(1, 5)
    references = token_ids(2, 5, seed=4)
    played = game(model, ids, references=references)
    found = np.mean([engine(played, reference=number).all_values() for number in range(2)], axis=0)
    np.testing.assert_allclose(found, played(every(5)), rtol=0, atol=1e-12)


def test_any_order_and_repetition_of_coalitions():
    """Coalitions may come in any order, and more than once; the values stay with them."""
    model, inputs = lstm(double=True, pooling="attention", hidden_sizes=(4, 3)), sequences(1, 25, 3, double=True)
    rng = np.random.default_rng(0)
    chosen = rng.random((70, 25)) < rng.random((70, 1))
    chosen[rng.integers(70, size=20)] = chosen[3]
    played = game(model, inputs)
    for rows in (1024, 16):
        np.testing.assert_allclose(engine(played, rows=rows).values(chosen), played(chosen), rtol=0, atol=1e-12)


def test_cell_steps_are_those_of_the_shared_prefixes(monkeypatch):
    """All coalitions cost 2^(n+1) - 2 steps, whatever the blocks; sorted ones as many as they have beginnings.

    Where sharing saves less than finding out costs, each goes its own way, to the same values.
    """
    played = game(lstm(), sequences(1, 10, 3))
    for rows in (8, 1024):
        made = engine(played, rows=rows)
        made.all_values()
        assert made.cell_steps == 2**11 - 2
    chosen = np.random.default_rng(0).random((40, 10)) < 0.5
    alone = engine(played)
    values = alone.values(chosen)
    assert alone.cell_steps == 40 * 10
    monkeypatch.setattr("gatelens.explainers.prefix_engine.SPARED", 0)
    made = engine(played)
    np.testing.assert_allclose(made.values(chosen), values, rtol=0, atol=1e-12)
    assert made.cell_steps == sum(len({tuple(row[: t + 1]) for row in chosen}) for t in range(10))


@pytest.mark.parametrize(("units", "rows", "features"), [(64, 40, 8), (5, 13, 3), (33, 9, 7), (1, 1, 1)])
def test_the_compiled_step_equals_torch(units, rows, features):
    """The compiled step gives the torch operations' states, for both ways, one way, and inputs of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.LSTM(features, units, batch_first=True)
    compiled, plain = Layer(module), Layer(module)
    assert compiled.compiled
    plain.compiled = False
    hidden, cell = sequences(rows, units), sequences(rows, units, seed=2)
    read, own = sequences(3, features, seed=3), sequences(2, rows, features, seed=4)
    for given in ([layer.drive(read[:2]) for layer in (compiled, plain)], [own, own]):
        found, expected = ([torch.full((2, rows, units), torch.nan) for _ in range(2)] for _ in range(2))
        compiled.both(hidden, cell, given[0], *found)
        plain.both(hidden, cell, given[1], *expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
    choice = torch.arange(rows) % 3
    for given, chosen in (([layer.drive(read) for layer in (compiled, plain)], choice), ([own[0], own[0]], None)):
        found, expected = [hidden.clone(), cell.clone()], [hidden.clone(), cell.clone()]
        compiled.one(*found, given[0], chosen)
        plain.one(*expected, given[1], chosen)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("plain", [False, True], ids=["compiled", "plain"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_chain_is_one_step_after_the_other(monkeypatch, plain, threads):
    """With inputs to choose from or of each state's own, the hidden states of all steps written or not."""
    monkeypatch.setattr("gatelens.models.branching.MUCH_WORK", 0)
    layer = Layer(torch.nn.LSTM(3, 7, batch_first=True))
    layer.compiled = layer.compiled and not plain
    steps, rows = 5, 21
    hidden, cell = sequences(rows, 7), sequences(rows, 7, seed=2)
    choice = torch.arange(steps * rows).view(steps, rows) % 3
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        options = layer.drive(sequences(steps, 3, 3, seed=3))
        for given, chosen in ((options, choice), (sequences(steps, rows, 3, seed=4), None)):
            expected, passed = [hidden.clone(), cell.clone()], []
            for step in range(steps):
                layer.one(*expected, given[step], None if chosen is None else chosen[step])
                passed.append(expected[0].clone())
            for every in (None, torch.full((steps, rows, 7), torch.nan)):
                found = [hidden.clone(), cell.clone()]
                layer.chain(*found, given, chosen, every)
                for one, other in zip(found, expected, strict=True):
                    assert torch.equal(one, other)
                assert every is None or torch.equal(every, torch.stack(passed))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("config", MODELS, ids=str)
def test_shared_or_not_values_are_the_same(monkeypatch, config, pooling):
    """Coalitions whose states go on together as long as they can, and such whose states part early."""
    played = game(lstm(pooling=pooling, **config), sequences(1, 19, 3), length=17)
    chosen = np.random.default_rng(0).random((60, 19)) < 0.5
    chosen[:10] = np.eye(19, dtype=bool)[:10]
    chosen[10:14, 5:] = False
    found = []
    for spared in (0, 8 * 20, 2**21):
        monkeypatch.setattr("gatelens.explainers.prefix_engine.SPARED", spared)
        made = engine(played, rows=32)
        found.append(made.values(chosen[:, made.active]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-4, 1.0, 30.0, 1000.0, float("nan")])
def test_the_compiled_step_where_gates_are_far_out(size):
    """Whatever the pre-activations are, states are those of float64 to float32's precision; NaN stays NaN."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = Layer(torch.nn.LSTM(1, 9, batch_first=True))
        exact = Layer(torch.nn.LSTM(1, 9, batch_first=True))
    exact.weight_hh, exact.weight_ih, exact.compiled = layer.weight_hh.double(), layer.weight_ih.double(), False
    small = size if size < 1 else 1.0
    hidden, cell, given = small * sequences(20, 9), small * sequences(20, 9, seed=2), size * sequences(2, 36, seed=3)
    found = [torch.empty(2, 20, 9) for _ in range(2)]
    expected = [torch.empty(2, 20, 9, dtype=torch.float64) for _ in range(2)]
    layer.both(hidden, cell, layer.arranged(given), *found)
    exact.both(hidden.double(), cell.double(), given.double(), *expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-6 * small, equal_nan=True)


@pytest.mark.parametrize("size", [1e-3, 1.0, 3.0, 5.0, 1000.0])
@pytest.mark.parametrize("sizes", [(20,), (7, 18, 3)], ids=str)
def test_doubling_where_gates_are_far_out(size, sizes):
    """One compiled call for all coalitions is as near to float64 as steps are; these do it where numbers are too large.

    Networks of large weights are chaotic, and no float32 is near.
    """
    model, inputs = lstm(hidden_sizes=sizes), sequences(1, 9, 3)
    with torch.no_grad():
        for module in model.lstm:
            module.weight_ih_l0 *= size
            module.weight_hh_l0 *= size
    found, stepwise = engine(game(model, inputs)), engine(game(model, inputs))
    stepwise._make_doubling = lambda: None
    values, others = found.all_values(), stepwise.all_values()
    assert (found._doubling is not None) == (size < 100)
    assert found.cell_steps == stepwise.cell_steps
    expected = engine(game(model.double(), inputs.double())).all_values()
    off, other = (np.abs(part - expected).mean() / np.abs(expected).max() for part in (values, others))
    assert off <= 2 * other + 1e-7
    assert off < {1e-3: 1e-6, 1.0: 1e-6, 3.0: 1e-5}.get(size, 1)


@pytest.mark.parametrize("at_once", [1, 2**16, 2**37])
@pytest.mark.parametrize("threads", [1, 2])
def test_doubling_in_parts(monkeypatch, at_once, threads):
    """Whether all coalitions are one call or many, of stretches of several timesteps, some of them nobody's."""
    monkeypatch.setattr("gatelens.explainers.prefix_engine.AT_ONCE", at_once)
    labels = np.repeat(np.arange(9), [2, 1, 3, 1, 2, 1, 1, 2, 3])[:, None].repeat(3, axis=1)
    played = game(lstm(hidden_sizes=(9, 5), output_size=3, task="multiclass"), sequences(1, 16, 3), labels=labels,
                  output=2, probability=True)  # fmt: skip
    active = [0, 2, 3, 4, 6, 7, 8]
    chosen = np.zeros((2**7, 9), dtype=bool)
    chosen[:, active] = every(7)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made = engine(played, active=active)
        np.testing.assert_allclose(made.all_values(), played(chosen), rtol=0, atol=1e-6)
        assert made._doubling is not None
    finally:
        torch.set_num_threads(before)


def test_threads_change_nothing(monkeypatch):
    """Shared among threads, the compiled step gives the same bits."""
    played = game(lstm(hidden_sizes=(16, 9)), sequences(1, 9, 3))
    alone = engine(played).all_values()
    monkeypatch.setattr("gatelens.models.branching.MUCH_WORK", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(engine(played).all_values(), alone)
    finally:
        torch.set_num_threads(before)


def test_which_games_share_prefixes():
    """Plain forward models with players along time do; other models and players, hooks and subclasses do not."""
    inputs = sequences(1, 4, 3)

    class Doubled(type(lstm())):
        def forward(self, inputs, lengths=None):
            return 2 * super().forward(inputs, lengths)

    assert shares_prefixes(game(lstm(), inputs))
    assert shares_prefixes(game(lstm(), inputs, players="segment"))
    assert shares_prefixes(game(lstm(activation="relu"), inputs))
    assert shares_prefixes(game(lstm(vocab_size=9, embedding_dim=2), token_ids(1, 4), players="cell"))
    assert shares_prefixes(game(lstm(input_size=1), inputs[..., :1], players="cell"))
    assert shares_prefixes(game(lstm(), inputs, players="cell"))
    assert shares_prefixes(game(lstm(), inputs, labels=np.array([[0] * 3, [0] * 3, [1, 2, 3], [1, 2, 3]])))
    assert shares_prefixes(game(lstm(), inputs, holds_last=True))
    assert not shares_prefixes(game(lstm(), inputs, players="feature"))
    assert not shares_prefixes(game(lstm(bidirectional=True), inputs))
    assert not shares_prefixes(game(lstm(pooling="dot_attention"), inputs))
    assert not shares_prefixes(game(Doubled(lstm().config), inputs))
    assert not shares_prefixes(game(lstm().bfloat16(), inputs.bfloat16()))
    hooked = lstm()
    hooked.lstm[0].register_forward_hook(lambda *_: None)
    assert not shares_prefixes(game(hooked, inputs))
    replaced = lstm()
    replaced.forward = lambda inputs, lengths=None: torch.zeros(len(inputs), 1)
    assert not shares_prefixes(game(replaced, inputs))
    foreign = Foreign()
    foreign.config = lstm().config
    assert not shares_prefixes(game(foreign, inputs))


def test_fewer_rows_where_memory_is_short():
    """The rows of a block follow the budget, and are never fewer than 8."""
    played = game(lstm(hidden_sizes=(32, 32)), sequences(1, 12, 3))
    sizes = [engine(played, memory_bytes=budget).rows for budget in (1, 2**20, 2**22, 2**30)]
    assert sizes[0] == 8
    assert sizes[-1] == 1024
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2


MEASURE = """
import json, pathlib, re, sys
import torch
torch.set_num_threads(1)
from gatelens.explainers import TemporalShapley
from gatelens.models import LSTMConfig, LSTMModel
torch.manual_seed(0)
model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(256,), pooling="max")).eval()
TemporalShapley(model).explain(torch.randn(1, 5, 3))
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
TemporalShapley(model, memory_bytes=int(sys.argv[1])).explain(torch.randn(1, 14, 3))
print(json.dumps(peak() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_the_memory_budget_is_held():
    """Going through 2^14 coalitions of 256 units takes no more memory than it may."""
    used = {}
    for budget in (2**23, 2**26):
        run = subprocess.run([sys.executable, "-c", MEASURE, str(budget)], capture_output=True, text=True, check=True)
        used[budget] = json.loads(run.stdout)
        assert used[budget] <= budget + 2**21, used  # what the interpreter itself takes beside it
    assert used[2**26] > 2**21, used  # so that it is seen that something is measured


def test_coalitions_of_no_player():
    """Without a player there is one coalition, the reference."""
    played = game(lstm(double=True), sequences(1, 4, 3, double=True))
    made = engine(played, active=[])
    for found in (made.all_values(), made.values(np.zeros((1, 0), dtype=bool))):
        np.testing.assert_allclose(found, played(np.zeros((1, 4), dtype=bool)), rtol=0, atol=1e-12)


def test_permutations_agree_with_brute_force():
    """Coalitions that stand at the beginnings of all orders of four players have the model's values."""
    played = game(lstm(double=True, pooling="mean"), sequences(1, 4, 3, double=True))
    chosen = np.array([[player in order[:size] for player in range(4)]
                       for order in itertools.permutations(range(4)) for size in range(5)])  # fmt: skip
    np.testing.assert_allclose(engine(played).values(chosen), played(chosen), rtol=0, atol=1e-12)
