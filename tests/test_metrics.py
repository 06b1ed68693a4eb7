"""Metrics: equal to scikit-learn's and to hand-computed ones, beside trivial answers, and every refusal."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from gatelens.models import (
    DataSpec,
    Examples,
    InvalidInputError,
    InvalidTypeError,
    LSTMConfig,
    LSTMModel,
    Metrics,
    SequenceData,
    evaluate,
)
from gatelens.reports.model_card import describe, metric_sentence


class Says(torch.nn.Module):
    """Gives its inputs (B, T, K) back as scores: those of the last timestep, or of each."""

    def __init__(self, *, per_timestep=False):
        super().__init__()
        self.per_timestep = per_timestep
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, inputs, lengths):
        scores = inputs * self.weight
        return scores if self.per_timestep else scores[torch.arange(len(scores)), lengths - 1]


def said(scores):
    """Inputs (B, 1, K) that `Says` answers with these scores (B, K)."""
    return np.asarray(scores, dtype=np.float64)[:, None]


def drawn(seed, rows, outputs):
    return np.random.default_rng(seed).normal(size=(rows, outputs))


def measured(task, scores, truth, known=None, *, model=None, **options):
    known = truth if known is None else known
    train = (said(np.zeros((len(known), np.shape(scores)[1]))), known)
    return evaluate(model or Says(), (said(scores), truth), train=train, task=task, **options)


def test_classes_equal_scikit_learn():
    """Three classes: every number is scikit-learn's own."""
    scores, truth = drawn(0, 200, 3), np.random.default_rng(1).integers(0, 3, 200)
    scores[np.arange(200), truth] += 0.7
    found = measured("multiclass", scores, truth)
    answer, shares = scores.argmax(1), np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = {
        "accuracy": sk.accuracy_score(truth, answer),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, answer),
        "macro_precision": sk.precision_score(truth, answer, average="macro"),
        "macro_recall": sk.recall_score(truth, answer, average="macro"),
        "macro_f1": sk.f1_score(truth, answer, average="macro"),
        "roc_auc": sk.roc_auc_score(truth, shares, multi_class="ovr"),
    }
    for k in range(3):
        expected[f"precision_{k}"] = sk.precision_score(truth, answer, average=None)[k]
        expected[f"recall_{k}"] = sk.recall_score(truth, answer, average=None)[k]
        expected[f"f1_{k}"] = sk.f1_score(truth, answer, average=None)[k]
        expected[f"roc_auc_{k}"] = sk.roc_auc_score(truth == k, shares[:, k])
    assert found.model == pytest.approx(expected, abs=1e-12)
    assert all(type(value) is float for row in found.rows.values() for value in row.values())
    np.testing.assert_array_equal(found.confusion, sk.confusion_matrix(truth, answer))
    assert found.count == 200


def test_a_yes_no_answer_by_hand():
    """Four answers counted by hand: one right yes, one missed, one false alarm, one right no."""
    found = measured("binary", [[2.0], [-1.0], [0.5], [-3.0]], [1, 1, 0, 0], known=[0, 0, 1])
    assert found.confusion.tolist() == [[1, 1], [1, 1]]
    assert found.model["accuracy"] == found.model["precision_1"] == found.model["recall_0"] == 0.5
    assert found.model["roc_auc"] == 0.75  # of the four pairs only (-1, 0.5) is in the wrong order
    baseline = found.rows["always_0"]
    assert baseline["accuracy"] == 0.5
    assert baseline["roc_auc"] == 0.5
    assert baseline["recall_1"] == 0.0
    assert baseline["macro_f1"] == pytest.approx(1 / 3)


def test_several_yes_no_outputs_are_the_means_of_each():
    """K yes/no outputs: each has its own metrics, and the headline is their mean."""
    scores = drawn(2, 60, 2)
    truth = (scores + drawn(3, 60, 2) > 0).astype(float)
    found = measured("binary", scores, truth)
    each = [sk.f1_score(truth[:, k], scores[:, k] > 0) for k in range(2)]
    aucs = [sk.roc_auc_score(truth[:, k], scores[:, k]) for k in range(2)]
    assert [found.model["f1_0"], found.model["f1_1"]] == pytest.approx(each)
    assert found.model["roc_auc"] == pytest.approx(np.mean(aucs))
    assert found.model["accuracy"] == pytest.approx((truth == (scores > 0)).mean())
    np.testing.assert_array_equal(found.confusion, sk.multilabel_confusion_matrix(truth, scores > 0))
    assert "always_most_frequent" in found.rows


def test_regression_equals_scikit_learn():
    """Two quantities: errors over both and of each; the baseline is the mean of the training targets, not these."""
    scores, truth, known = drawn(4, 50, 2), drawn(5, 50, 2), drawn(6, 30, 2) + 3
    found = measured("regression", scores, truth, known, last=truth + 1)
    assert found.model["mse"] == pytest.approx(sk.mean_squared_error(truth, scores))
    assert found.model["rmse"] == pytest.approx(sk.root_mean_squared_error(truth.ravel(), scores.ravel()))
    assert found.model["mae_1"] == pytest.approx(np.abs(truth - scores)[:, 1].mean())
    assert found.model["r2"] == pytest.approx(sk.r2_score(truth, scores))
    assert found.rows["training_mean"]["mae"] == pytest.approx(np.abs(truth - known.mean(0)).mean())
    assert found.rows["persistence"]["mae"] == pytest.approx(1)
    assert found.confusion is None


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_padding_is_not_judged(task):
    """One answer a timestep: the metrics are those of the valid timesteps, whatever stands at padding."""
    scores, lengths = torch.from_numpy(drawn(7, 24, 3)).reshape(4, 6, 3), [6, 2, 5, 1]
    valid = np.arange(6) < np.array(lengths)[:, None]
    if task == "multiclass":
        targets = np.random.default_rng(8).integers(0, 3, (4, 6)).astype(float)
    else:
        targets = drawn(9, 24, 3).reshape(4, 6, 3)
        targets = (targets > 0).astype(float) if task == "binary" else targets
    flat = targets[valid]
    targets[~valid] = np.nan
    padded = Examples(scores, targets, lengths)
    found = evaluate(Says(per_timestep=True), padded, train=padded, task=task, last=targets)
    expected = measured(task, scores.numpy()[valid], flat, last=flat)
    assert found.rows == expected.rows
    assert found.count == sum(lengths)


def test_what_cannot_be_computed_is_left_out():
    """A class that does not occur has no recall, one class alone no ROC AUC, one number no R^2; nothing is NaN."""
    found = measured("multiclass", drawn(0, 9, 3), [0] * 5 + [2] * 4)
    assert "recall_1" not in found.model
    assert "roc_auc_2" in found.model
    alone = measured("binary", drawn(0, 4, 1), [1, 1, 1, 1], known=[0, 1, 1])
    assert not [metric for metric in alone.model if "auc" in metric]
    assert alone.rows["always_1"]["accuracy"] == 1
    assert "r2" not in measured("regression", [[1.0]], [2.0], known=[0.0, 4.0]).model
    for metrics in (found, alone):
        json.dumps(metrics.to_dict(), allow_nan=False)


def test_the_model_card_reads_them(tmp_path):
    """Names come from the data description; saved as provenance the card tells model and trivial answer."""
    torch.manual_seed(0)
    spec = DataSpec(classes=("fall", "rise"))
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,), task="binary"), spec)
    inputs, truth = np.random.default_rng(0).normal(size=(40, 5, 2)), np.arange(40) % 4 == 0
    found = evaluate(model, (inputs, truth), train=(inputs, truth), name="lstm")
    assert list(found.rows) == ["lstm", "always_fall"]
    assert {"recall_fall", "f1_rise"} <= set(found.model)
    model.data = DataSpec.from_dict({**spec.to_dict(), "provenance": {"metrics": found.to_dict()}})
    model.save(tmp_path / "model")
    card = describe(model)
    assert card.metrics == found.to_dict()
    assert "the best simple forecast (always fall) 75 %" in metric_sentence(card)
    assert str(found).splitlines()[0].split()[0] == "accuracy"
    assert str(found).splitlines()[-1] == "on 40 answers"


def test_the_model_is_left_as_found():
    """Mode and gradient flags survive a measurement."""
    model = LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(2,), dropout=0.5)).train()
    examples = (np.ones((3, 4, 1)), np.ones(3))
    first = evaluate(model, examples, train=examples)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert evaluate(model, examples, train=examples).rows == first.rows  # dropout is off
    assert isinstance(first, Metrics)


def test_sequence_data_brings_its_lengths():
    """`Examples` of a SequenceData has its inputs and lengths."""
    data = SequenceData(np.zeros((2, 3, 1), np.float32), np.array([3, 1]), ("a", "b"), None, np.array([2, 3]))
    examples = Examples(data, [1.0, 2.0])
    assert examples.lengths.tolist() == [3, 1]
    assert examples.inputs is data.inputs
    with pytest.raises(InvalidInputError, match="lengths are given beside a SequenceData"):
        Examples(data, [1.0, 2.0], [3, 1])


MODELS = {
    "regression": {"input_size": 2, "output_size": 2},
    "binary": {"input_size": 2, "task": "binary"},
    "classes": {"input_size": 2, "output_size": 3, "task": "multiclass"},
    "steps": {"input_size": 2, "output_size": 3, "task": "multiclass", "pooling": "none"},
    "tokens": {"vocab_size": 5, "embedding_dim": 2, "task": "binary"},
}
INPUTS = np.zeros((4, 3, 2))


VALUE, KIND = InvalidInputError, InvalidTypeError
HOLED = [[0, 0], [0, np.nan], [np.inf, 0], [0, 0]]


@pytest.mark.parametrize(
    ("kind", "given", "error", "message"),
    [
        ("regression", (INPUTS, np.zeros((3, 2))), VALUE,
         r"examples: targets has shape \(3, 2\); expected \(4, 2\), 2 outputs for each sequence"),
        ("regression", (INPUTS, np.zeros(4)), VALUE, r"targets has shape \(4,\); expected \(4, 2\)"),
        ("regression", (INPUTS, HOLED), VALUE, r"targets\[1, 1\] is nan, one of 2 that are NaN or infinite; drop"),
        ("binary", (INPUTS, np.zeros((4, 2))), VALUE, r"expected \(4,\) or \(4, 1\), one for each sequence"),
        ("binary", (INPUTS, [0, 1, -1, 1]), VALUE,
         r"targets\[2\] is -1, one of 1 that are no class of this model; expected 0 \(no\) and 1 \(yes\)"),
        ("binary", (INPUTS, [0, 1, 0.5, 1]), VALUE, r"targets\[2\] is 0.5, one of 1 that are no whole numbers"),
        ("binary", (INPUTS, ["a", "b", "a", "b"]), KIND,
         "targets holds text; expected numbers: for a class its number, counted from 0"),
        ("classes", (INPUTS, [0, 1, 2, 3]), VALUE,
         r"targets\[3\] is 3, one of 1 that are no class of this model; expected 0 to 2"),
        ("classes", (INPUTS, [3, 1, 2, 1]), VALUE, "count classes from 0, e.g. targets - 1"),
        ("classes", (INPUTS, [0, 1, 2, np.nan]), VALUE, r"targets\[3\] is nan"),
        ("classes", (INPUTS, np.eye(3)[[0, 1, 2, 0]]), VALUE, r"become its number by targets.argmax\(-1\)"),
        ("classes", (INPUTS, np.zeros((4, 1))), VALUE, r"Use targets\[..., 0\]"),
        ("steps", (INPUTS, [0, 1, 2, 0]), VALUE, r"expected \(4, 3\), one for each timestep of each sequence"),
        ("tokens", (np.full((4, 3), 9), [0, 1, 0, 1]), VALUE, "examples: inputs holds the token id 9"),
        ("binary", (np.zeros((0, 3, 2)), []), VALUE, r"inputs has shape \(0, 3, 2\); expected at least one"),
        ("binary", (INPUTS * np.nan, [0, 1, 0, 1]), VALUE, r"examples: inputs\[0, 0, 0\] is nan"),
        ("binary", (INPUTS, [0, 1, 0, 1], [3, 0, 1, 1]), VALUE, r"examples: lengths\[1\] is 0"),
        ("binary", INPUTS, KIND, r"examples is a ndarray; expected \(inputs, targets\)"),
        ("binary", (INPUTS,), KIND, "examples is a tuple of 1"),
        ("binary", (INPUTS, [[0], [1, 2], [0], [1]]), VALUE, "not a rectangular array"),
    ],
)  # fmt: skip
def test_examples_that_are_refused(kind, given, error, message):
    """Each fault of inputs, targets and lengths has its sentence."""
    model = LSTMModel(LSTMConfig(hidden_sizes=(2,), **MODELS[kind]))
    good = (
        INPUTS if kind != "tokens" else np.zeros((4, 3), int),
        np.zeros({"regression": (4, 2), "steps": (4, 3)}.get(kind, 4)),
    )
    with pytest.raises(error, match=message):
        evaluate(model, given, train=good)


def test_other_refusals():
    """A foreign model says what its scores are; `last` fits the targets; a name is not that of a trivial answer."""
    examples = (INPUTS[..., :1], np.zeros(4))
    with pytest.raises(InvalidInputError, match="task is not known for a Says; pass task='regression'"):
        evaluate(Says(), examples, train=examples)
    with pytest.raises(InvalidInputError, match=r"last: last has shape \(3,\); expected \(4,\) or \(4, 1\)"):
        evaluate(Says(), examples, train=examples, task="regression", last=np.zeros(3))
    with pytest.raises(InvalidInputError, match="name is 'training_mean', which is the name of a trivial answer"):
        evaluate(Says(), examples, train=examples, task="regression", name="training_mean")
    with pytest.raises(InvalidInputError, match="train: targets has shape"):
        evaluate(Says(), examples, train=(INPUTS[..., :1], np.zeros(3)), task="regression")
    spec = DataSpec(classes=("no", "yes"))
    model = LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(2,), task="binary"), spec)
    with pytest.raises(InvalidTypeError, match=r"for a class its number \(of no, yes\)"):
        evaluate(model, (examples[0], ["no"] * 4), train=examples)


def test_other_forecasts_stand_beside_the_model():
    """Answers that somebody else's model gave are measured like the model's, in a row of their name."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(40, 3, 2)), rng.normal(size=40)
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    train = (inputs, targets)
    found = evaluate(model, train, train=train, beside={"ridge": targets + 0.5, "copy": targets[:, None]}, last=targets)
    assert list(found.rows) == ["model", "training_mean", "persistence", "ridge", "copy"]
    assert found.rows["ridge"]["mae"] == pytest.approx(0.5)
    assert found.rows["copy"]["mse"] == 0
    with pytest.raises(InvalidInputError, match=r"beside\['ridge'\] has shape \(3,\)"):
        evaluate(model, train, train=train, beside={"ridge": targets[:3]})
    with pytest.raises(InvalidInputError, match="two rows are called 'training_mean'"):
        evaluate(model, train, train=train, beside={"training_mean": targets})
    classes = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,), output_size=3, task="multiclass"))
    answers = rng.integers(0, 3, 40)
    row = evaluate(classes, (inputs, answers), train=(inputs, answers), beside={"same": answers}).rows["same"]
    assert row["accuracy"] == 1
