"""`LSTMConfig`: what it derives, its round trip through JSON, and every refusal."""

import json

import pytest

from gatelens.models import InvalidInputError, InvalidTypeError, LSTMConfig


def test_derived_sizes():
    """Each layer reads what the one below returns, both directions together; the head reads the top one."""
    config = LSTMConfig(input_size=7, hidden_sizes=[4, 3, 5], bidirectional=True)
    assert config.hidden_sizes == (4, 3, 5)
    assert config.layer_input_sizes == (7, 8, 6)
    assert (config.feature_width, config.directions, config.reads_tokens) == (10, 2, False)
    tokens = LSTMConfig(vocab_size=9, embedding_dim=6, hidden_sizes=(4, 3), padding_index=8)
    assert tokens.layer_input_sizes == (6, 4)
    assert (tokens.feature_width, tokens.directions, tokens.reads_tokens) == (3, 1, True)


@pytest.mark.parametrize(
    "config",
    [
        LSTMConfig(input_size=1),
        LSTMConfig(
            vocab_size=9, embedding_dim=6, hidden_sizes=(4, 3), task="multiclass", output_size=3, dropout=0.25,
            pooling="attention", activation="relu", bidirectional=True, padding_index=2,
        ),
    ],
)  # fmt: skip
def test_round_trip(config):
    """to_dict() is plain JSON, and from_dict() gives the equal config."""
    assert LSTMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, InvalidInputError, "input_size is missing; give the number of features, or vocab_size and embedding_dim"),
        ({"input_size": 0}, InvalidInputError, "input_size is 0; expected a whole number, 1 or more"),
        ({"input_size": 2.0}, InvalidTypeError, "input_size is 2.0; expected a whole number"),
        ({"input_size": True}, InvalidTypeError, "input_size is True; expected a whole number"),
        (
            {"hidden_sizes": 64},
            InvalidTypeError,
            r"hidden_sizes is 64; expected one width a layer.*\(64, 32\)",
        ),
        ({"hidden_sizes": ()}, InvalidInputError, "hidden_sizes has 0 entries; expected 1 to 256"),
        ({"hidden_sizes": (1,) * 257}, InvalidInputError, "hidden_sizes has 257 entries"),
        ({"hidden_sizes": (3, -1)}, InvalidInputError, "each of hidden_sizes is -1"),
        ({"hidden_sizes": (3, "4")}, InvalidTypeError, "each of hidden_sizes is '4'"),
        ({"output_size": 0}, InvalidInputError, "output_size is 0"),
        ({"task": "classification"}, InvalidInputError, "task is 'classification'; known: regression, binary, multic"),
        ({"task": "regresion"}, InvalidInputError, "Did you mean 'regression'"),
        (
            {"pooling": "avg"},
            InvalidInputError,
            "pooling is 'avg'; known: last, mean, max, attention, dot_attention, none",
        ),
        ({"pooling": None}, InvalidInputError, "pooling is None"),
        ({"activation": "gelu"}, InvalidInputError, "activation is 'gelu'; known: tanh, relu"),
        ({"bidirectional": "yes"}, InvalidTypeError, "bidirectional is 'yes'; expected True or False"),
        ({"dropout": 1.0}, InvalidInputError, "dropout is 1.0; expected a probability, 0 <= dropout < 1"),
        ({"dropout": -0.1}, InvalidInputError, "dropout is -0.1"),
        ({"dropout": float("nan")}, InvalidInputError, "dropout is nan"),
        ({"dropout": "0.1"}, InvalidInputError, "dropout is '0.1'"),
        ({"task": "multiclass"}, InvalidInputError, "'multiclass' with output_size=1.*use task='binary'"),
        ({"embedding_dim": 3}, InvalidInputError, "embedding_dim is set without vocab_size"),
        ({"vocab_size": 3}, InvalidInputError, "vocab_size is set without embedding_dim"),
        ({"vocab_size": 3, "embedding_dim": 2}, InvalidInputError, "input_size=4 stands beside vocab_size=3"),
        (
            {"input_size": None, "vocab_size": 3, "embedding_dim": 2, "padding_index": 3},
            InvalidInputError,
            "padding_index is 3; expected a token id, 0 to 2",
        ),
        ({"padding_index": 1.0}, InvalidTypeError, "padding_index is 1.0; expected a token id, a whole number"),
        ({"input_sise": 3}, InvalidInputError, "unknown entry 'input_sise'; .*Did you mean 'input_size'"),
    ],
)
def test_refusals(values, error, message):
    """Each value that cannot be used is refused when the config is made, and names itself."""
    given = {**({"input_size": 4} if values else {}), **values}
    with pytest.raises(error, match=message):
        LSTMConfig.from_dict(given)


def test_frozen():
    """A config cannot be changed after its check."""
    with pytest.raises(AttributeError):
        LSTMConfig(input_size=1).input_size = 2
