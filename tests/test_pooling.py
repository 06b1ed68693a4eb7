"""Poolings: by hand, against the equations, and blind to padding."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatelens.models import LSTMConfig
from gatelens.models.equations import pool
from gatelens.models.pooling import (
    AttentionPooling,
    DotAttentionPooling,
    LastPooling,
    MaxPooling,
    MeanPooling,
    make_pooling,
)

HIDDEN = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [9.0, 9.0]], [[5.0, 6.0], [0.0, 0.0], [0.0, 0.0]]])
VALID = torch.tensor([[True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (LastPooling(2), [[3.0, -4.0], [5.0, 6.0]]),
        (LastPooling(1), [[3.0, -2.0], [5.0, 6.0]]),
        (MeanPooling(), [[2.0, -3.0], [5.0, 6.0]]),
        (MaxPooling(), [[3.0, -2.0], [5.0, 6.0]]),
    ],
)
def test_by_hand(pooling, expected):
    """Over two valid timesteps and over one, the numbers worked out by hand."""
    assert pooling(HIDDEN, VALID).tolist() == expected


def test_attention_weights_by_hand():
    """Weights are softmax(v . tanh(W h + b)) over valid timesteps, 0 at padding."""
    pooling = AttentionPooling(2)
    with torch.no_grad():
        pooling.key.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        pooling.key.bias.zero_()
        pooling.query.copy_(torch.tensor([2.0, 5.0]))
    weights = pooling.weights(HIDDEN, VALID)
    first, second = math.exp(2 * math.tanh(1)), math.exp(2 * math.tanh(3))
    assert weights[0].tolist() == pytest.approx([first / (first + second), second / (first + second), 0.0], abs=1e-6)
    assert weights[1].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("width", "query"), [(2, [3.0, -4.0]), (1, [3.0, -2.0])])
def test_dot_attention_weights_by_hand(width, query):
    """Weights are softmax(h . q) over valid timesteps, q the forward states' last and the reverse states' first."""
    pooling = DotAttentionPooling(width)
    weights = pooling.weights(HIDDEN / 4, VALID)
    energy = [(h[0] * query[0] + h[1] * query[1]) / 16 for h in ((1.0, -2.0), (3.0, -4.0))]
    share = 1 / (1 + math.exp(energy[1] - energy[0]))
    assert weights[0].tolist() == pytest.approx([share, 1 - share, 0.0], abs=1e-6)
    assert weights[1].tolist() == [1.0, 0.0, 0.0]
    assert pooling(HIDDEN / 4, VALID)[0].tolist() == pytest.approx([(3 - 2 * share) / 4, (2 * share - 4) / 4], abs=1e-6)


def test_dot_attention_has_no_weights():
    """It adds no parameter: the state of a model with it is that of one with pooling "last"."""
    assert list(make_pooling("dot_attention", 3, 3).state_dict()) == []


@given(
    st.sampled_from(["last", "mean", "max", "attention", "dot_attention"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 1000),
)
def test_equals_the_equations_and_ignores_padding(pooling, lengths, bidirectional, seed):
    """Each pooling is the equations' to 1e-12, whatever finite garbage stands in the padding."""
    torch.manual_seed(seed)
    config = LSTMConfig(input_size=1, hidden_sizes=(3,), bidirectional=bidirectional, pooling=pooling)
    module = make_pooling(pooling, 3, config.feature_width).double()
    hidden = torch.randn(len(lengths), 5, config.feature_width, dtype=torch.float64)
    lengths = torch.tensor(lengths)
    valid = torch.arange(5) < lengths[:, None]
    weights = {f"pooling.{name}": value for name, value in module.state_dict().items()}
    expected = pool(config, weights, hidden, lengths)
    torch.testing.assert_close(module(hidden, valid), expected, rtol=0, atol=1e-12)
    dirty = torch.where(valid[..., None], hidden, 1e6)
    torch.testing.assert_close(module(dirty, valid), expected, rtol=0, atol=1e-12)


def test_none_has_no_module():
    """Pooling "none" is no module: the head reads every timestep."""
    assert make_pooling("none", 3, 3) is None
