"""LRP: messages passed unit by unit, as the papers write them, are the oracle; then conservation and refusals."""

import numpy as np
import pytest
import torch

from gatelens.explainers import LRP
from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel, ModelError
from helpers.explained import LENGTHS, Foreign, ForeignWithLengths, lstm, sequences, token_ids
from helpers.unit_loop import head_of, run_passes

POOLINGS = ("last", "mean", "max", "attention", "dot_attention", "none")


class Oracle:
    """Relevance of one sequence, one message after another; `lost` counts what reaches no input."""

    def __init__(self, model, epsilon=1e-3, bias="absorbed"):
        self.model, self.epsilon, self.delta = model, epsilon, 1.0 if bias == "shared" else 0.0
        self.lost = 0.0

    def sum_rule(self, parts, bias, total, relevance):
        """Return the relevance of each part of total = sum(parts) + bias."""
        slack = self.epsilon if total >= 0 else -self.epsilon
        ratio = relevance / (total + slack)
        self.lost += (1 - self.delta) * (bias + slack) * ratio
        return [(part + self.delta * (bias + slack) / len(parts)) * ratio for part in parts]

    def explain(self, sequence, output=0, timestep=None):
        """Return the relevance of what the lowest layer reads, (L, D or E), and the score."""
        layers, top = run_passes(self.model, sequence)
        weight, bias = head_of(self.model, output)
        pooled, back = self.pool(top, timestep)
        score = float(weight @ pooled + bias)
        at_pooled = self.sum_rule([w * p for w, p in zip(weight, pooled, strict=True)], bias, score, score)
        relevance = np.zeros_like(top)  # (L, F)
        for unit, amount in enumerate(at_pooled):
            back(relevance, unit, amount)
        for layer in reversed(layers):
            below = np.zeros_like(layer[0].x)
            width = layer[0].h.shape[1]
            for position, direction in enumerate(layer):
                below += self.through(direction, relevance[:, position * width : (position + 1) * width])
            relevance = below
        return relevance, score

    def pool(self, top, timestep):
        """Return what the head reads, (F,), and a function that gives a unit's relevance to hidden states."""
        steps, kind = len(top), self.model.config.pooling
        width = self.model.config.hidden_sizes[-1]
        if kind in ("last", "none"):
            where = [steps - 1 if unit < width else 0 for unit in range(top.shape[1])]
            where = where if kind == "last" else [timestep] * top.shape[1]
        elif kind == "max":
            where = [int(top[:, unit].argmax()) for unit in range(top.shape[1])]
        if kind in ("last", "none", "max"):

            def give(relevance, unit, amount):
                relevance[where[unit], unit] += amount

            return np.array([top[t, unit] for unit, t in enumerate(where)]), give
        weights = np.full(steps, 1 / steps)
        if kind == "attention":
            pooling = self.model.pooling
            key, bias, query = (part.detach().numpy() for part in (pooling.key.weight, pooling.key.bias, pooling.query))
            energy = np.array([query @ np.tanh(key @ h + bias) for h in top])
            weights = np.exp(energy) / np.exp(energy).sum()
        elif kind == "dot_attention":
            energy = top @ np.concatenate([top[-1, :width], top[0, width:]])
            weights = np.exp(energy) / np.exp(energy).sum()
        pooled = weights @ top

        def share(relevance, unit, amount):
            relevance[:, unit] += self.sum_rule(list(weights * top[:, unit]), 0.0, pooled[unit], amount)

        return pooled, share

    def through(self, one, arriving):
        """Return the relevance of what a direction reads, (L, D), from that of its hidden states, (L, H)."""
        steps, units = one.h.shape
        at_x, at_h, at_c = np.zeros_like(one.x), arriving.copy(), np.zeros((steps, units))
        for position in reversed(range(steps)):
            t = one.order[position]
            at_before = np.zeros(units)
            for unit in range(units):
                at_c[t, unit] += at_h[t, unit]  # the gate o gets nothing
                i, f, g, _ = one.gates[t, :, unit]
                kept, written = self.sum_rule([f * one.c_before[t, unit], i * g], 0.0, one.c[t, unit], at_c[t, unit])
                if position == 0:
                    self.lost += kept
                else:
                    at_c[one.order[position - 1], unit] += kept
                parts = [*(one.w[2, unit] * one.x[t]), *(one.v[2, unit] * one.h_before[t])]
                found = self.sum_rule(parts, one.b[2, unit], one.z[t, 2, unit], written)
                at_x[t] += found[: one.x.shape[1]]
                at_before += found[one.x.shape[1] :]
            if position == 0:
                self.lost += at_before.sum()
            else:
                at_h[one.order[position - 1]] += at_before
        return at_x


def assert_is_oracle(model, inputs, lengths, *, bias="absorbed", epsilon=1e-3, target=None):
    """Compare attributions and what was lost with the oracle, one sequence at a time."""
    result = LRP(model, bias=bias, epsilon=epsilon).explain(inputs, lengths=lengths, target=target)
    lost = result.dataset["absorbed_relevance" if bias == "absorbed" else "initial_state_relevance"].to_numpy()
    for row, length in enumerate(lengths):
        oracle = Oracle(model, epsilon, bias)
        timestep = None if target is None else target[0] % length
        found, score = oracle.explain(inputs[row, :length], 0 if target is None else target[1], timestep)
        expected = found.sum(axis=1, keepdims=True) if inputs.ndim == 2 else found
        scale = np.abs(expected).max()
        np.testing.assert_allclose(result.values[row, :length], expected, rtol=0, atol=1e-10 * scale)
        assert not result.values[row, length:].any()
        np.testing.assert_allclose(lost[row], oracle.lost, rtol=1e-9, atol=1e-10 * scale)
        np.testing.assert_allclose(result.prediction[row], score, rtol=1e-10)
        np.testing.assert_allclose(expected.sum() + oracle.lost, score, rtol=1e-9)  # the oracle conserves relevance


@pytest.mark.parametrize("bias", ["absorbed", "shared"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_relevance_is_that_of_messages_unit_by_unit(bias, pooling, bidirectional):
    """Two layers of different widths, every pooling, both directions and both bias rules equal the papers' loop."""
    model = lstm(hidden_sizes=(4, 3), pooling=pooling, bidirectional=bidirectional, output_size=2, double=True)
    target = (1, 1) if pooling == "none" else None
    inputs = sequences(3, 6, 3, double=True)
    if pooling == "none":
        assert_is_oracle(model, inputs, LENGTHS, bias=bias, target=target)
    else:
        result = LRP(model, bias=bias).explain(inputs, lengths=LENGTHS, target=[1, 0, 1])
        for row, (length, output) in enumerate(zip(LENGTHS, [1, 0, 1], strict=True)):
            oracle = Oracle(model, bias=bias)
            expected, score = oracle.explain(inputs[row, :length], output)
            np.testing.assert_allclose(
                result.values[row, :length], expected, rtol=0, atol=1e-10 * np.abs(expected).max()
            )
            assert not result.values[row, length:].any()
            assert score == pytest.approx(result.prediction[row], rel=1e-10)


@pytest.mark.parametrize("bias", ["absorbed", "shared"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_window_sends_back_the_score_of_each_timestep(bias, bidirectional):
    """The relevance of a sum over timesteps is the sum of the papers' loop over each, and so is what was lost."""
    model = lstm(hidden_sizes=(4, 3), pooling="none", bidirectional=bidirectional, output_size=2, double=True)
    inputs = sequences(3, 6, 3, double=True)
    result = LRP(model, bias=bias).explain(inputs, lengths=LENGTHS, target=(slice(-2, None), 1))
    lost = result.dataset["absorbed_relevance" if bias == "absorbed" else "initial_state_relevance"].to_numpy()
    for row, length in enumerate(LENGTHS):
        expected, missing, total = np.zeros((length, 3)), 0.0, 0.0
        for timestep in (length - 2, length - 1):
            oracle = Oracle(model, 1e-3, bias)
            found, score = oracle.explain(inputs[row, :length], 1, timestep)
            expected, missing, total = expected + found, missing + oracle.lost, total + score
        scale = np.abs(expected).max()
        np.testing.assert_allclose(result.values[row, :length], expected, rtol=0, atol=1e-10 * scale)
        np.testing.assert_allclose(lost[row], missing, rtol=1e-9, atol=1e-10 * scale)
        np.testing.assert_allclose(result.prediction[row], total, rtol=1e-10)
        assert not result.values[row, length:].any()


@pytest.mark.parametrize("bias", ["absorbed", "shared"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_sizes": (4, 3, 2)},
        {"bidirectional": True, "pooling": "mean"},
        {"bidirectional": True, "hidden_sizes": (3, 4), "pooling": "attention"},
        {"activation": "relu"},
    ],
    ids=str,
)
def test_relevance_is_conserved_with_what_was_lost(bias, config):
    """Relevance in = relevance out + what biases and stabilisers took (or initial states got), counted one by one."""
    assert_is_oracle(lstm(**config, double=True), sequences(3, 6, 3, double=True), LENGTHS, bias=bias)


@pytest.mark.parametrize("bias", ["absorbed", "shared"])
def test_tokens_get_the_relevance_of_their_embedding(bias):
    """A token's relevance is the sum over its embedding."""
    model = lstm(vocab_size=9, embedding_dim=4, bidirectional=True, double=True)
    assert_is_oracle(model, token_ids(3, 6), LENGTHS, bias=bias)


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.3])
def test_epsilon_is_the_stabiliser(epsilon):
    """Every epsilon is the oracle's, also 0 and one that takes much."""
    assert_is_oracle(lstm(double=True), sequences(3, 6, 3, double=True), LENGTHS, epsilon=epsilon)
    assert_is_oracle(lstm(double=True), sequences(3, 6, 3, double=True), LENGTHS, epsilon=epsilon, bias="shared")


def test_nothing_is_lost_without_bias_and_stabiliser():
    """With epsilon 0 and no bias at the candidate and the head, the attributions add up to the score."""
    model = lstm(hidden_sizes=(4, 3), pooling="attention", double=True)
    with torch.no_grad():
        model.head.bias.zero_()
        for layer in model.lstm:
            for part in (layer.bias_ih_l0, layer.bias_hh_l0):
                part[2 * layer.hidden_size : 3 * layer.hidden_size] = 0
    inputs = sequences(3, 6, 3, double=True)
    for bias in ("absorbed", "shared"):
        result = LRP(model, epsilon=0, bias=bias).explain(inputs, lengths=LENGTHS)
        np.testing.assert_allclose(result.values.sum(axis=(1, 2)), result.prediction, rtol=1e-9)


def test_float32_is_close_to_float64():
    """The compiled walk in float32 gives the float64 numbers to 1e-4 of the largest."""
    for config in ({"hidden_sizes": (5, 4)}, {"bidirectional": True, "pooling": "mean"}, {"pooling": "attention"}):
        for bias in ("absorbed", "shared"):
            inputs = sequences(3, 6, 3)
            single, double = (
                LRP(lstm(**config, double=wide), bias=bias).explain(inputs, lengths=LENGTHS).values
                for wide in (False, True)
            )
            np.testing.assert_allclose(single, double, rtol=0, atol=1e-4 * np.abs(double).max())


@pytest.mark.parametrize("bias", ["absorbed", "shared"])
def test_variable_lengths_are_trimmed_singles(bias):
    """A padded sequence in a batch, with garbage in its padding, is explained as alone and trimmed."""
    for config in ({"bidirectional": True, "hidden_sizes": (4, 3)}, {"pooling": "mean"}, {"pooling": "max"}):
        explainer = LRP(lstm(**config, double=True), bias=bias)
        inputs = sequences(3, 6, 3, double=True)
        together = explainer.explain(inputs, lengths=LENGTHS).values
        for row, length in enumerate(LENGTHS):
            alone = explainer.explain(inputs[row : row + 1, :length]).values[0]
            np.testing.assert_allclose(together[row, :length], alone, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", [Foreign, ForeignWithLengths])
def test_a_plain_torch_module_is_adopted(kind):
    """A stranger's module gives what the oracle gives on its rewritten model."""
    from gatelens.models import from_torch

    module = kind().double()
    inputs = sequences(3, 6, 3, double=True)
    result = LRP(module).explain(inputs, lengths=LENGTHS)
    adopted = from_torch(module).double()
    for row, length in enumerate(LENGTHS):
        expected = Oracle(adopted).explain(inputs[row, :length])[0]
        np.testing.assert_allclose(result.values[row, :length], expected, rtol=0, atol=1e-10)


def test_a_negative_score_keeps_its_sign():
    """Relevance starts as the score, so features of a linear-like model push the way their sum says."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(1,))).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.lstm[0].weight_ih_l0[2] = torch.tensor([0.1, -0.3], dtype=torch.float64)  # the candidate
        model.head.weight[0, 0] = 1.0
    result = LRP(model, epsilon=0).explain(torch.tensor([[[1.0, 1.0]]], dtype=torch.float64))
    assert result.prediction[0] < 0
    np.testing.assert_allclose(result.values[0, 0], result.prediction[0] * np.array([-0.5, 1.5]), rtol=1e-12)


def test_options_are_recorded_and_checked():
    """Options stand in the result; what cannot be used is refused with what can."""
    assert '"epsilon": 0.01' in LRP(lstm(), epsilon=0.01).explain(sequences(1, 4, 3)).attrs["options"]
    with pytest.raises(InvalidInputError, match=r"bias is 'share'.*Did you mean 'shared'"):
        LRP(lstm(), bias="share")
    for epsilon in (-1.0, float("nan"), float("inf"), "small", True):
        with pytest.raises(InvalidInputError, match=r"epsilon is .*0 or more"):
            LRP(lstm(), epsilon=epsilon)
    with pytest.raises(InvalidInputError, match=r"lrp takes the raw score apart.*output='logit'"):
        LRP(lstm(task="binary"), output="probability")
    with pytest.raises(InvalidInputError, match="one baseline, not with a background set"):
        LRP(lstm(), background=sequences(2, 6, 3))
    with pytest.raises(ModelError, match="lrp needs a torch module"):
        LRP(lambda inputs: inputs.sum((1, 2)))
