"""Cell decomposition: the paper's sum unit by unit is the oracle; then telescoping, lengths and refusals."""

import math

import numpy as np
import pytest
import torch

from gatelens.explainers import CellDecomposition
from gatelens.models import InvalidInputError, ModelError
from helpers.explained import LENGTHS, Foreign, ForeignWithLengths, lstm, sequences, token_ids
from helpers.unit_loop import head_of, phi_of, run_passes


def oracle(model, sequence, output=0, timestep=None):
    """Return what each timestep of one sequence gives to the score, (L,), by the paper's formula, a unit at a time."""
    layers, top = run_passes(model, sequence)
    weight, _ = head_of(model, output)
    phi, pooling, steps = phi_of(model), model.config.pooling, len(top)
    found = np.zeros(steps)
    for position, one in enumerate(layers[-1]):
        units = one.h.shape[1]
        own = weight[position * units : (position + 1) * units]
        ends = {"last": [one.order[-1]], "none": [timestep], "mean": list(range(steps))}[pooling]
        for end in ends:
            read = one.order[: one.order.index(end) + 1]  # timesteps that the hidden state of `end` has seen
            for unit in range(units):
                total = 0.0
                for place, t in enumerate(read):
                    kept = math.prod(one.gates[later, 1, unit] for later in read[place + 1 :])
                    before, total = total, total + kept * one.gates[t, 0, unit] * one.gates[t, 2, unit]
                    change = one.gates[end, 3, unit] * (phi(total) - phi(before))
                    found[t] += own[unit] * change / len(ends)
    return found


CONFIGS = [
    {},
    {"hidden_sizes": (4, 3)},
    {"bidirectional": True},
    {"bidirectional": True, "hidden_sizes": (4, 3)},
    {"activation": "relu"},
]


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_timesteps_get_what_the_papers_formula_gives_them(pooling, config):
    """Stacked and bidirectional models with each linear pooling equal the loop, also at lengths below T."""
    model = lstm(**config, pooling=pooling, output_size=2, double=True)
    inputs = sequences(3, 6, 3, double=True)
    timestep = 1 if pooling == "none" else None
    target = 1 if timestep is None else (timestep, 1)
    result = CellDecomposition(model).explain(inputs, lengths=LENGTHS, target=target)
    for row, length in enumerate(LENGTHS):
        expected = oracle(model, inputs[row, :length], 1, timestep)
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-10)
        assert np.abs(expected).max() > 1e-2
        assert not result.values[row, length:].any()
    np.testing.assert_allclose(result.values, np.repeat(result.timesteps[..., None] / 3, 3, axis=2), atol=1e-12)
    assert result.resolution == "timestep"


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_window_is_the_sum_of_its_timesteps(config):
    """Of a sum over timesteps, parts are the formula's for each, summed; the head's bias counts once for each."""
    model = lstm(**config, pooling="none", output_size=2, double=True)
    inputs = sequences(3, 6, 3, double=True)
    result = CellDecomposition(model).explain(inputs, lengths=LENGTHS, target=(slice(0, -1), 1))
    for row, length in enumerate(LENGTHS):
        expected = np.sum([oracle(model, inputs[row, :length], 1, end) for end in range(length - 1)], axis=0)
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-10)
        assert not result.values[row, length:].any()
    bias = result.dataset["head_bias"].to_numpy()
    np.testing.assert_allclose(bias, model.head.bias[1].item() * (np.array(LENGTHS) - 1), rtol=1e-12)
    np.testing.assert_allclose(result.values.sum(axis=(1, 2)) + bias, result.prediction, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_parts_telescope_to_the_score(pooling, config):
    """The parts and the head's bias sum to the model's own score."""
    model = lstm(**config, pooling=pooling, double=True)
    inputs = sequences(3, 6, 3, double=True)
    target = (-1, 0) if pooling == "none" else None
    result = CellDecomposition(model).explain(inputs, lengths=LENGTHS, target=target)
    bias = result.dataset["head_bias"].to_numpy()
    assert np.abs(bias).min() > 1e-2
    np.testing.assert_allclose(result.values.sum(axis=(1, 2)) + bias, result.prediction, rtol=0, atol=1e-12)


def test_later_timesteps_get_nothing():
    """What is read after the explained timestep gets exactly 0, in each direction's own order."""
    inputs = sequences(2, 6, 3, double=True)
    forward = CellDecomposition(lstm(pooling="none", double=True)).explain(inputs, target=(2, 0))
    assert not forward.values[:, 3:].any()
    assert forward.values[:, :3].all()
    both = CellDecomposition(lstm(pooling="none", bidirectional=True, double=True)).explain(inputs, target=(2, 0))
    assert both.values.all()


def test_a_closed_forget_gate_lets_nothing_through():
    """Where the forget gates are shut, only the last timestep has a part; open ones let the first have one."""
    model = lstm(strength=1.0, double=True)
    for bias, alone in ((-60.0, True), (60.0, False)):
        with torch.no_grad():
            model.lstm[0].bias_ih_l0[5:10] = bias
        values = CellDecomposition(model).explain(sequences(1, 6, 3, double=True)).timesteps[0]
        assert bool(np.abs(values[:-1]).max() < 1e-12) == alone
        assert abs(values[-1]) > 1e-3


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_variable_lengths_are_trimmed_singles(config, pooling):
    """A padded sequence in a batch, with garbage in its padding, is explained as alone and trimmed."""
    explainer = CellDecomposition(lstm(**config, pooling=pooling, double=True))
    inputs = sequences(3, 6, 3, double=True)
    together = explainer.explain(inputs, lengths=LENGTHS).values
    for row, length in enumerate(LENGTHS):
        alone = explainer.explain(inputs[row : row + 1, :length]).values[0]
        np.testing.assert_allclose(together[row, :length], alone, rtol=1e-10, atol=1e-14)


def test_tokens_are_timesteps():
    """A token gets its timestep's part whole, whatever its embedding's width."""
    model = lstm(vocab_size=9, embedding_dim=4, double=True)
    ids = token_ids(3, 6)
    result = CellDecomposition(model).explain(ids, lengths=LENGTHS)
    assert result.values.shape == (3, 6, 1)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(result.values[row, :length, 0], oracle(model, ids[row, :length]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_float32_is_close_to_float64(pooling):
    """Products of forget gates in float32 give the float64 numbers to 1e-4 of the largest."""
    single, double = (
        CellDecomposition(lstm(pooling=pooling, bidirectional=True, double=wide)).explain(sequences(2, 40, 3)).values
        for wide in (False, True)
    )
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4 * np.abs(double).max())


@pytest.mark.parametrize("kind", [Foreign, ForeignWithLengths])
def test_a_plain_torch_module_is_adopted(kind):
    """A stranger's stacked module gives what the oracle gives on its rewritten model."""
    from gatelens.models import from_torch

    module = kind().double()
    inputs = sequences(3, 6, 3, double=True)
    result = CellDecomposition(module).explain(inputs, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        expected = oracle(from_torch(module).double(), inputs[row, :length])
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("pooling", "reason"),
    [
        ("max", "a timestep of its own"),
        ("attention", "every hidden state with every other"),
        ("dot_attention", "hidden states with the last one"),
    ],
)
def test_poolings_without_a_rule_are_refused(pooling, reason):
    """Maximum and attention are refused when the explainer is made, with the reason and who takes them."""
    with pytest.raises(ModelError, match=rf"'last', 'mean' or 'none'.*'{pooling}'.*{reason}.*deeplift, lrp"):
        CellDecomposition(lstm(pooling=pooling))


def test_probabilities_are_refused():
    """A probability is no sum of cells; a function has none."""
    with pytest.raises(InvalidInputError, match=r"cell_decomposition takes the raw score apart.*output='logit'"):
        CellDecomposition(lstm(task="binary"), output="probability")
    with pytest.raises(ModelError, match="cell_decomposition needs a torch module"):
        CellDecomposition(lambda inputs: inputs.sum((1, 2)))
