"""The model card tells the truth about a model."""

import pytest
import torch
from torch import nn

from gatelens.examples.glucose import model_path
from gatelens.models import DataSpec, LSTMConfig, LSTMModel, load
from gatelens.reports.model_card import describe, metric_sentence


def test_card_of_the_glucose_model() -> None:
    """Kind, parameters, features and metrics are those of the saved model."""
    model = load(model_path())
    card = describe(model)
    rows = dict(card.rows)
    assert rows["Kind"] == "LSTM, 1 layer of 32 units, last pooling, multiclass, 3 outputs"
    assert rows["Parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"
    assert sum(layer[4] for layer in card.layers) == sum(p.numel() for p in model.parameters())
    assert [feature[0] for feature in card.features] == list(model.data.feature_names)
    assert card.metrics == model.data.provenance["metrics"]
    own, best = (card.metrics[name]["accuracy"] for name in ("lstm", "logistic_regression"))
    sentence = f"right {own:.0%} of the time; the best simple forecast (logistic regression) {best:.0%}.".replace(
        "%", " %"
    )
    assert metric_sentence(card).endswith(sentence)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LSTMConfig(input_size=2, hidden_sizes=(8, 4), bidirectional=True), "2 layers of 8 and 4 units, bidirectional"),
        (LSTMConfig(input_size=2, activation="relu", pooling="none"), "relu activation, one output a timestep"),
        (LSTMConfig(vocab_size=5, embedding_dim=2, pooling="attention"), "attention pooling, regression, 1 output"),
    ],
)
def test_kind(config: LSTMConfig, words: str) -> None:
    """The first row says what the architecture is."""
    assert words in describe(LSTMModel(config)).rows[0][1]


def test_foreign_models() -> None:
    """Modules and functions have cards; metrics of an unknown form are left out."""
    assert describe(nn.LSTM(2, 3)).rows[0][1] == "LSTM (PyTorch module) with 1 nn.LSTM"
    assert "function" in describe(torch.sum).rows[0][1]
    strange = LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"metrics": ["accuracy", 1]}))
    card = describe(strange)
    assert card.metrics == {}
    assert metric_sentence(card) == ""
