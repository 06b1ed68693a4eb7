"""Train the stock models, volatility and direction, measure them on later years beside trivial forecasts, save them.

`python examples/train_stocks.py [FOLDER] [FOLDER_OF_DIRECTION]` takes under a minute; the seed makes it repeatable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gatelens.examples.stocks import DIRECTION, DIRECTION_SPEC, NAME, SPEC, Part, auc_interval, recent_size, split
from gatelens.examples.story import one_thread, print_metrics, rounded, save, saved_folder
from gatelens.models import DataSpec, Examples, History, LSTMConfig, LSTMModel, evaluate, fit

SEED = 0
EPOCHS = 30

Labels = Callable[[Part], NDArray[np.int64]]


def volatile(part: Part) -> NDArray[np.int64]:
    """Return whether the next five days are more volatile than usual, (N,)."""
    return part.volatile


def up(part: Part) -> NDArray[np.int64]:
    """Return whether the price is higher in five days, (N,)."""
    return part.up


@one_thread()
def train(parts: dict[str, Part], labels: Labels, spec: DataSpec = SPEC) -> tuple[LSTMModel, History]:
    """Return the model of the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(16,), task="binary"))
    model.data = spec
    train, validation = (Examples(parts[name].data, labels(parts[name])) for name in ("train", "validation"))
    history = fit(
        model, train, validation, epochs=EPOCHS, patience=6, batch_size=64, learning_rate=3e-3, seed=SEED, progress=True
    )
    return model.eval(), history


def measure(model: LSTMModel, parts: dict[str, Part], labels: Labels) -> dict[str, dict[str, float]]:
    """Return the held-out metrics of the model and of what it is measured beside."""
    test, training = parts["test"], parts["train"]
    found = evaluate(
        model, Examples(test.data, labels(test)), train=Examples(training.data, labels(training)), name="lstm"
    )
    rows = {name: dict(row) for name, row in found.rows.items()}
    with torch.no_grad():
        scores = model(test.data.inputs)[:, 0].double().numpy()
    rows["lstm"]["roc_auc_low"], rows["lstm"]["roc_auc_high"] = auc_interval(labels(test), scores, test)
    rows["logistic_regression_on_returns"] = _logistic(parts, labels, lambda part: part.data.inputs[:, :, 0])
    rows["logistic_regression_on_sizes"] = _logistic(parts, labels, lambda part: np.abs(part.data.inputs[:, :, 0]))
    rows["mean_size_of_20_days"] = _logistic(parts, labels, lambda part: recent_size(part)[:, None])
    return {name: rounded(row) for name, row in rows.items()}


def _logistic(
    parts: dict[str, Part], labels: Labels, features: Callable[[Part], NDArray[np.float64]]
) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    test, training = parts["test"], parts["train"]
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(features(training), labels(training))
    shares = fitted.predict_proba(features(test))[:, 1]
    return {
        "accuracy": float((labels(test) == (shares > 0.5)).mean()),
        "roc_auc": float(roc_auc_score(labels(test), shares)),
    }


def main(folder: Path, direction: Path) -> None:
    """Train, measure, save both models."""
    parts = split()
    for name, part in parts.items():
        print(f"{name}: {len(part)} windows, {part.volatile.mean():.0%} volatile, {part.up.mean():.0%} up")
    for spec, labels, where in ((SPEC, volatile, folder), (DIRECTION_SPEC, up, direction)):
        model, history = train(parts, labels, spec)
        metrics = measure(model, parts, labels)
        print(f"\n{spec.target}")
        print_metrics(metrics, ("accuracy", "roc_auc", "roc_auc_low", "roc_auc_high"))
        save(
            model, spec, where,
            data="examples/data/stocks.csv.gz: adjusted closing prices of AAPL, GOOG, IBM and MSFT, 2000-03-01 to "
            "2013-03-01, public domain (Quandl WIKI), from bokeh_sampledata 2026.1",
            split="by date, all stocks alike: train before 2009-01-01, validation to 2010-07-01, test after; the 30 "
            "days of a window and the five after it lie in one part",
            windows={name: len(part) for name, part in parts.items()},
            script="examples/train_stocks.py",
            **history.provenance(),
            metrics=metrics,
            metrics_on="test",
            interval="roc_auc_low and roc_auc_high: 95 %, whole months drawn again 500 times",
            intended_use="A demonstration of explanations: four stocks, long ago. Not for any decision about money.",
        )  # fmt: skip


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:3]]
    main(*(given or [saved_folder(NAME)]), *([] if len(given) > 1 else [saved_folder(DIRECTION)]))
