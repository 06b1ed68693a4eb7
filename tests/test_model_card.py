"""The model card tells the truth about a model."""

import pytest
import torch
from torch import nn

from gatelens.examples.glucose import model_path
from gatelens.explainers import explain
from gatelens.models import DataSpec, FeatureSpec, LSTMConfig, LSTMModel, Predictor, WindowSpec, from_torch, load
from gatelens.models.keras_files import from_keras
from gatelens.reports import GlobalReport, Report
from gatelens.reports.about import about
from gatelens.reports.model_card import describe, metric_check, metric_sentence
from helpers.keras_made import functional, keras, saved, sequential


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
        (LSTMConfig(input_size=2, pooling="dot_attention"), "dot-product attention pooling, regression, 1 output"),
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


def test_card_prints_as_a_summary() -> None:
    """Printed, a card is the rows and a table of the layers, with thousands set apart."""
    text = str(describe(LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(32,)))))
    lines = text.splitlines()
    assert lines[0].startswith("Kind")
    assert "LSTM, 1 layer of 32 units" in lines[0]
    assert [line.split() for line in lines[-3:]] == [
        ["layer", "kind", "reads", "gives", "parameters"], ["lstm.0", "LSTM", "2", "32", "4,608"],
        ["head", "Linear", "32", "1", "33"],
    ]  # fmt: skip
    assert len({len(line) for line in lines[-3:]}) == 1


def test_metric_sentence_of_a_forecast() -> None:
    """A regression's mean absolute error stands in its unit, beside the best of the simple forecasts."""
    metrics = {"lstm": {"mae": 13.84, "r2": 0.9}, "persistence": {"mae": 18.4}, "ridge": {"mae": 14.5}}
    spec = DataSpec(output_unit="mg/dL", provenance={"metrics": metrics})
    sentence = (
        "On held-out data the model is off by 13.8 mg/dL on average; the best simple forecast (ridge) by 14.5 mg/dL."
    )
    assert metric_sentence(describe(LSTMModel(LSTMConfig(input_size=1), spec))) == sentence
    alone = DataSpec(provenance={"metrics": {"lstm": {"mae": 2.0}}})
    assert metric_sentence(describe(LSTMModel(LSTMConfig(input_size=1), alone))).endswith("off by 2 on average.")


def test_a_model_that_loses_asks_for_care() -> None:
    """Where a simple forecast does better on held-out data, a page says so first, and its checks have not passed."""
    metrics = {"lstm": {"accuracy": 0.771}, "always_czech": {"accuracy": 0.114}, "ngrams": {"accuracy": 0.859}}
    model = LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"metrics": metrics}))
    sentence = (
        "On held-out data the model is right 77 % of the time; the best simple forecast (ngrams) does better, 86 %."
    )
    assert metric_sentence(describe(model)) == sentence
    found = explain(model, torch.randn(3, 4, 1), ["deeplift"])
    one = Report(found["deeplift"][0], model=model)._repr_html_()
    many = GlobalReport(found["deeplift"], model=model)._repr_html_()
    for page in (one, many):
        told = " ".join(page.replace("\N{NO-BREAK SPACE}", " ").split())
        assert "<strong>Read with care.</strong>" in told
        assert f"<li>{sentence}</li>" in told
    metrics["ngrams"]["accuracy"] = 0.7
    assert metric_check(describe(LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"metrics": metrics})))).passed


def test_training_is_told_and_drawn() -> None:
    """Epochs, whose weights, why it stopped; the page's card draws the curves and has their numbers."""
    history = {"epoch": [1, 2, 3], "loss": [0.9, 0.5, 0.4], "validation loss": [0.8, 0.6, 0.7], "best_epoch": 2,
               "stopped": "patience", "options": {"epochs": 30}}  # fmt: skip
    model = LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"training": history}))
    card = describe(model)
    words = "3 epochs; the weights are those of epoch 2, validation loss 0.6; stopped as it got no better"
    assert dict(card.rows)["Training"] == words
    assert card.curves["validation loss"] == (0.8, 0.6, 0.7)
    found = explain(model, torch.zeros(1, 4, 1), ["input_x_gradient"])
    page = Report(found, model=model)._repr_html_() + about(found, model, command=None, redact=False)
    assert 'alt="loss and validation loss by epoch"' in page
    assert "<td>3</td><td>0.4</td><td>0.7</td>" in page


@pytest.mark.parametrize("training", [None, "yes", {}, {"loss": "low"}, {"loss": []}, {"loss": [True]}, {"epoch": [1]},
                                      {"loss": [0.5] * 10_001}])  # fmt: skip
def test_foreign_histories_are_left_out(training: object) -> None:
    """What is no history, or too long for one, is neither told nor drawn."""
    card = describe(LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"training": training})))
    assert card.curves == {}
    assert "Training" not in dict(card.rows)


def test_card_of_adopted_weights(tmp_path) -> None:
    """Of weights in a file: where they are from, what was found, what was assumed, what was not taken over."""
    net = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "head": nn.Linear(4, 1)})
    torch.save({"model": net.state_dict(), "epoch": 3}, tmp_path / "net.ckpt")
    model = from_torch(tmp_path / "net.ckpt")
    card = describe(model)
    rows = dict(card.rows)
    assert rows["Read from"] == "net.ckpt (PyTorch file)"
    assert rows["Kind"] == "LSTM, 1 layer of 4 units, last pooling, regression, 1 output"
    assert rows["Reads"] == "3 features a timestep"
    assert rows["Explained"] == "the predicted value"
    assert card.found == ("lstm is an LSTM of 1 layer: 3 -> 4", "a linear head, 4 -> 1")
    assert [sentence.split()[:2] for sentence in card.assumed] == [["pooling", "'last'"], ["task", "'regression'"]]
    assert card.left_out == ("beside model in the checkpoint, not needed: epoch",)
    chosen = describe(from_torch(tmp_path / "net.ckpt", task="binary", pooling="max"))
    assert chosen.assumed == ()
    assert dict(chosen.rows)["Explained"] == "the probability (sigmoid) or the score (logit)"


def test_card_of_a_model_that_was_not_adopted() -> None:
    """A model of gatelens's own was read from no other program's file: nothing is said of that."""
    card = describe(load(model_path()))
    assert "Read from" not in dict(card.rows)
    assert (card.found, card.assumed, card.left_out) == ((), (), ())
    strange = LSTMModel(LSTMConfig(input_size=1), DataSpec(provenance={"adopted": "yes"}))
    assert describe(strange).found == ()


def test_card_of_a_keras_model(tmp_path) -> None:
    """Of a Keras file: its Keras, each layer as found, what was taken off and what was left out."""
    layers = keras.layers
    model = sequential(
        keras.Input((6, 2)), layers.LSTM(4, name="memory"), layers.Dense(1, activation="sigmoid", name="answer")
    )
    model.compile(loss="mse")
    card = describe(from_keras(saved(model, tmp_path)))
    rows = dict(card.rows)
    assert rows["Read from"] == f"model.keras (keras {keras.__version__})"
    assert rows["Reads"] == "6 timesteps of 2 features"
    assert rows["Explained"] == "the probability (sigmoid) or the score (logit)"
    found = " | ".join(card.found)
    for words in ("it reads (batch, 6, 2)", "memory: LSTM, 4 units", "answer: Dense", "the sigmoid of answer"):
        assert words in found
    assert card.assumed == ()
    assert any("compile settings" in sentence for sentence in card.left_out)


@pytest.mark.parametrize(
    ("recurrent", "words"),
    [
        ([(4, False)], "Keras model with an LSTM layer of 4 units, regression, 1 output"),
        ([(4, True)], "Keras model with an LSTM layer of 4 units each way, regression, 1 output"),
        ([(4, True), (3, False)], "Keras model with LSTM layers of 4 units each way and 3 units, regression, 1 output"),
        ([], "Keras model with no LSTM, regression, 1 output"),
    ],
)
def test_kind_of_a_keras_graph(tmp_path, recurrent, words) -> None:
    """The first row of a Keras graph counts its LSTMs and says which run both ways."""
    layers = keras.layers
    inputs = values = keras.Input((6, 2))
    for units, both in recurrent:
        layer = layers.LSTM(units, return_sequences=True)
        values = (layers.Bidirectional(layer) if both else layer)(values)
    outputs = layers.Dense(1)(layers.Flatten()(values))
    assert dict(describe(from_keras(saved(functional(inputs, outputs), tmp_path))).rows)["Kind"] == words


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"output_size": 1}, "the predicted value"),
        ({"output_size": 2}, "the predicted value of the output named by target"),
        ({"output_size": 1, "task": "binary"}, "the probability (sigmoid) or the score (logit)"),
        (
            {"output_size": 2, "task": "binary"},
            "the probability (sigmoid) or the score (logit) of the output named by target",
        ),
        (
            {"output_size": 2, "task": "multiclass"},
            "the probability (softmax) or the score (logit) of the predicted class",
        ),
        ({"pooling": "none"}, "the predicted value, at the last timestep unless target names another"),
    ],
)
def test_explained(config, words) -> None:
    """The row says which number an explanation is about if nothing else is asked for."""
    assert dict(describe(LSTMModel(LSTMConfig(input_size=2, **config))).rows)["Explained"] == words


def test_explained_is_what_predictor_explains() -> None:
    """The words of the row hold: the last timestep of a per-timestep model, the likeliest of several classes."""
    torch.manual_seed(0)
    inputs = torch.randn(1, 5, 2)
    model = LSTMModel(LSTMConfig(input_size=2, pooling="none"))
    lengths = torch.tensor([5])
    assert Predictor(model).resolve_target(inputs, None, lengths).timestep.tolist() == [4]
    model = LSTMModel(LSTMConfig(input_size=2, output_size=3, task="multiclass"))
    expected = model.eval()(inputs).argmax(1).tolist()
    assert Predictor(model).resolve_target(inputs, None, lengths).output.tolist() == expected


@pytest.mark.parametrize(
    ("config", "window", "words"),
    [
        ({"input_size": 1}, WindowSpec(), "1 feature a timestep"),
        ({"input_size": 2}, WindowSpec(length=1), "1 timestep of 2 features"),
        ({"input_size": 2}, WindowSpec(length=4, interval_seconds=60), "4 timesteps of 2 features, one every minute"),
        ({"vocab_size": 5000, "embedding_dim": 2}, WindowSpec(), "token ids, 0 to 4,999"),
        ({"vocab_size": 5, "embedding_dim": 2}, WindowSpec(length=9), "9 timesteps of token ids, 0 to 4"),
    ],
)
def test_reads(config, window, words) -> None:
    """The row says what one sequence is, as far as the model does."""
    model = LSTMModel(LSTMConfig(hidden_sizes=(2,), **config), DataSpec(window=window))
    assert dict(describe(model).rows)["Reads"] == words


def test_reads_of_a_function() -> None:
    """Nothing is said of what a function reads; of a module, only what its data says."""
    assert "Reads" not in dict(describe(torch.sum).rows)
    module = nn.LSTM(2, 3)
    module.data = DataSpec(features=(FeatureSpec(name="a"),), window=WindowSpec(length=3))
    assert dict(describe(module).rows)["Reads"] == "3 timesteps"


@pytest.mark.parametrize("value", ["a sentence", 7, None, {"a": 1}])
def test_provenance_of_another_form_is_left_out(value):
    """data.json is free: what stands where sentences are expected is shown only if it is a list of them."""
    adopted = {"file": "a.pt", "assumed": value, "found": ["one"]}
    card = describe(LSTMModel(LSTMConfig(input_size=2), data=DataSpec(provenance={"adopted": adopted})))
    assert card.assumed == ()
    assert card.found == ("one",)
