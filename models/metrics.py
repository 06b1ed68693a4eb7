"""How right a model is about labelled sequences, always beside a trivial answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Task
from .errors import InvalidInputError
from .labelled import CheckedExamples, Examples, known_task
from .predictor import Predictor

HEADLINE = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "roc_auc", "mse", "rmse",
            "mae", "r2")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Metrics:
    """How right a model is, beside trivial answers.

    Attributes:
        task: What the model answers.
        rows: Model or trivial answer -> metric -> value; the model first. What cannot be computed (the recall of a
            class that does not occur, the ROC AUC where all are of one class) is left out.
        confusion: Of classes (K, K), true class by predicted class; of several yes/no outputs (K, 2, 2); else None.
        classes: Names of the classes, or of the outputs.
        count: Answers that were judged.
    """

    task: Task
    rows: Mapping[str, Mapping[str, float]]
    confusion: NDArray[np.int64] | None
    classes: tuple[str, ...]
    count: int

    @property
    def model(self) -> Mapping[str, float]:
        """The model's own row."""
        return next(iter(self.rows.values()))

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics of the whole that the model has, as a table shows them."""
        return tuple(metric for metric in HEADLINE if metric in self.model)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return the rows to six digits, as `DataSpec.provenance["metrics"]` holds them."""
        return {
            name: {metric: float(f"{value:.6g}") for metric, value in row.items()} for name, row in self.rows.items()
        }

    def __str__(self) -> str:
        columns = self.columns
        wide = max(len(name) for name in self.rows)
        lines = [" ".join([" " * wide, *(metric.rjust(9) for metric in columns)])]
        for name, row in self.rows.items():
            cells = ((f"{row[metric]:.4g}" if metric in row else "").rjust(max(9, len(metric))) for metric in columns)
            lines.append(" ".join([name.ljust(wide), *cells]))
        return "\n".join([*lines, f"on {self.count:,} answers"])


def evaluate(
    model: Any, examples: Any, *, train: Any, last: Any = None, beside: Mapping[str, Any] | None = None,
    task: Task | None = None, name: str = "model",
) -> Metrics:  # fmt: skip
    """Measure a model on examples it was not trained on, beside what needs no model.

    Beside it stands the most frequent class, or the mean, of the training targets; where `last` is given also
    persistence, which says that everything stays as it was. scikit-learn computes the metrics. Of yes/no outputs a
    logit above 0 is a yes. The unit of errors is that of the targets.

    Args:
        model: `LSTMModel`, another module, or a function, as `Predictor` takes it.
        examples: `Examples`, or a tuple (inputs, targets) or (inputs, targets, lengths).
        train: What the model was trained on, in the same form.
        last: The last known value (or class) at prediction time, shaped like the targets.
        beside: Name -> answers of other forecasts (numbers, or classes), shaped like the targets.
        task: What a foreign model's scores are; gatelens's own know.
        name: What the model's row is called.

    Raises:
        InvalidInputError: The examples do not fit the model, or the task is not known.
    """
    predictor = Predictor(model, task=task)
    kind = known_task(predictor)
    data = CheckedExamples.of(predictor, examples, "examples")
    training = CheckedExamples.of(predictor, train, "train")
    scores = data.flat_scores(predictor.predict(data.inputs, data.lengths)).double().cpu().numpy()  # (N, K)
    truth, known = (part.flat_targets().cpu().numpy() for part in (data, training))
    outputs = scores.shape[1]
    names = _names(predictor, kind, outputs)
    answers: dict[str, tuple[NDArray[Any], NDArray[np.float64] | None]] = {name: (_answers(scores, kind), scores)}
    trivial, constant = _constant(known, kind, outputs, names)
    answers[trivial] = (np.broadcast_to(constant, truth.shape), np.zeros_like(scores))
    others = {**({} if last is None else {"persistence": ("last", last)}),
              **{called: (f"beside[{called!r}]", said) for called, said in (beside or {}).items()}}  # fmt: skip
    given = Examples.of(examples, "examples")
    for called, (argument, said) in others.items():
        if called in answers:
            raise InvalidInputError(f"two rows are called {called!r}; choose another name.")
        answer = CheckedExamples.of(predictor, Examples(given.inputs, said, given.lengths), argument, targets=argument)
        answers[called] = (answer.flat_targets().cpu().numpy(), None)
    if len(answers) < 2 + len(others):
        raise InvalidInputError(f"name is {name!r}, which is the name of a trivial answer; choose another.")
    measure = _regression if kind == "regression" else _classes if outputs == 1 or kind == "multiclass" else _yes_no
    rows = {row: measure(truth, answer, score, names) for row, (answer, score) in answers.items()}
    confusion = _confusion(truth, answers[name][0], kind, outputs)
    return Metrics(kind, rows, confusion, names, len(truth))


def _names(predictor: Predictor, task: Task, outputs: int) -> tuple[str, ...]:
    data = predictor.data
    several = task == "regression" or (task == "binary" and outputs > 1)
    count = outputs if several or task == "multiclass" else 2
    known = () if data is None else data.outputs if several else data.classes
    return known if len(known) == count else tuple(map(str, range(count)))


def _answers(scores: NDArray[np.float64], task: Task) -> NDArray[Any]:
    """Return what the scores (N, K) say, in the form of the targets."""
    if task == "regression":
        return scores
    found: NDArray[Any] = np.argmax(scores, axis=1) if task == "multiclass" else (scores > 0).astype(np.float64)
    return found


def _constant(known: NDArray[Any], task: Task, outputs: int, names: Sequence[str]) -> tuple[str, NDArray[Any]]:
    """Return the name and the value of the best answer that looks at no input, from the training targets."""
    if task == "regression":
        return "training_mean", known.astype(np.float64).mean(axis=0)
    if task == "multiclass":
        most = int(np.bincount(known, minlength=outputs).argmax())
        return f"always_{names[most]}", np.array(most)
    yes = (known.mean(axis=0, dtype=np.float64) > 0.5).astype(np.float64)  # (K,)
    return (f"always_{names[int(yes[0])]}" if outputs == 1 else "always_most_frequent"), yes


def _classes(
    truth: NDArray[Any], answer: NDArray[Any], scores: NDArray[np.float64] | None, names: Sequence[str]
) -> dict[str, float]:
    """Return the metrics of one class out of K, or of one yes/no output; scores (N, K) or (N, 1)."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support, recall_score

    truth, answer = truth.reshape(-1).astype(np.int64), answer.reshape(-1).astype(np.int64)
    occurring = np.unique(truth)
    row = {
        "accuracy": accuracy_score(truth, answer),
        "balanced_accuracy": recall_score(truth, answer, labels=occurring, average="macro", zero_division=0),
    }
    macro = precision_recall_fscore_support(truth, answer, average="macro", zero_division=0)
    row |= dict(zip(("macro_precision", "macro_recall", "macro_f1"), macro[:3], strict=True))
    aucs = {} if scores is None else _roc_aucs(truth, scores, occurring)
    if aucs:
        row["roc_auc"] = float(np.mean(list(aucs.values())))
    each = precision_recall_fscore_support(truth, answer, labels=occurring, zero_division=0)
    for place, number in enumerate(occurring):
        for metric, values in zip(("precision", "recall", "f1"), each[:3], strict=True):
            row[f"{metric}_{names[number]}"] = values[place]
        if number in aucs and len(names) > 2:
            row[f"roc_auc_{names[number]}"] = aucs[number]
    return {metric: float(value) for metric, value in row.items()}


def _roc_aucs(truth: NDArray[np.int64], scores: NDArray[np.float64], occurring: NDArray[np.int64]) -> dict[int, float]:
    """Return the ROC AUC of each class against all others; of a yes/no output that of "yes"."""
    from scipy.special import softmax
    from sklearn.metrics import roc_auc_score

    if len(occurring) < 2:
        return {}
    if scores.shape[1] == 1:
        return {1: roc_auc_score(truth == 1, scores[:, 0])}
    shares = softmax(scores, axis=1)
    return {int(number): roc_auc_score(truth == number, shares[:, number]) for number in occurring}


def _yes_no(
    truth: NDArray[Any], answer: NDArray[Any], scores: NDArray[np.float64] | None, names: Sequence[str]
) -> dict[str, float]:
    """Return the metrics of several yes/no outputs, (N, K): each output's own and their means."""
    each = [
        _classes(truth[:, k], answer[:, k], None if scores is None else scores[:, k : k + 1], ("0", "1"))
        for k in range(truth.shape[1])
    ]
    row = {}
    for metric in ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "roc_auc"):
        values = [one[metric] for one in each if metric in one]
        if values:
            row[metric] = float(np.mean(values))
    for name, one in zip(names, each, strict=True):
        for metric in ("accuracy", "precision_1", "recall_1", "f1_1", "roc_auc"):
            if metric in one:
                row[f"{metric.removesuffix('_1')}_{name}"] = one[metric]
    return row


def _regression(
    truth: NDArray[Any], answer: NDArray[Any], _scores: NDArray[np.float64] | None, names: Sequence[str]
) -> dict[str, float]:
    """Return the errors of numbers (N, K), over all outputs and, of several, of each."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    truth, answer = truth.astype(np.float64), answer.astype(np.float64)
    mse = mean_squared_error(truth, answer)
    row = {"mse": mse, "rmse": mse**0.5, "mae": mean_absolute_error(truth, answer)}
    if len(truth) > 1:  # one number has no spread
        row["r2"] = r2_score(truth, answer)
    if len(names) > 1:
        each = mean_absolute_error(truth, answer, multioutput="raw_values")
        row |= {f"mae_{name}": value for name, value in zip(names, each, strict=True)}
        if len(truth) > 1:
            spread = r2_score(truth, answer, multioutput="raw_values")
            row |= {f"r2_{name}": value for name, value in zip(names, spread, strict=True)}
    return {metric: float(value) for metric, value in row.items()}


def _confusion(truth: NDArray[Any], answer: NDArray[Any], task: Task, outputs: int) -> NDArray[np.int64] | None:
    from sklearn.metrics import confusion_matrix

    if task == "regression":
        return None
    labels = range(outputs if task == "multiclass" else 2)
    columns = truth.reshape(len(truth), -1).astype(np.int64), answer.reshape(len(truth), -1).astype(np.int64)
    each = [confusion_matrix(*pair, labels=labels) for pair in zip(columns[0].T, columns[1].T, strict=True)]
    return np.asarray(each if len(each) > 1 else each[0], dtype=np.int64)
