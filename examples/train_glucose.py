"""Train the glucose model, measure it beside trivial forecasts on the held-out weeks, and save it.

`python examples/train_glucose.py [FOLDER]` takes under a minute on two cores; the seed makes it repeatable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gatelens.examples.glucose import CLASSES, Part, always_stay, extrapolate, split
from gatelens.explainers.assemble import library_versions
from gatelens.models import LSTMConfig, LSTMModel

SEED = 7
EPOCHS = 12
BATCH = 256
FOLDER = Path(__file__).resolve().parent / "saved" / "glucose"


def train(parts: dict[str, Part]) -> LSTMModel:
    """Return the model of the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = LSTMModel(
        LSTMConfig(input_size=4, hidden_sizes=(32,), output_size=3, task="multiclass", pooling="last", dropout=0.1)
    )
    inputs, labels = torch.tensor(parts["train"].inputs), torch.tensor(parts["train"].labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    batches = -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=EPOCHS * batches)
    loss_of = nn.CrossEntropyLoss(weight=torch.tensor([1.4, 1.0, 1.4]), label_smoothing=0.02)
    best, best_loss = model.state_dict(), float("inf")
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss_of(model(inputs[rows]), labels[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            scores = model(parts["validation"].inputs)
        loss = float(loss_of(scores, torch.tensor(parts["validation"].labels)))
        print(f"epoch {epoch + 1:2d}: validation loss {loss:.4f}")
        if loss < best_loss:
            best, best_loss = {name: value.clone() for name, value in model.state_dict().items()}, loss
    model.load_state_dict(best)
    return model.eval()


def measure(part: Part, predicted: NDArray[Any], probabilities: NDArray[Any] | None = None) -> dict[str, float]:
    """Return accuracy, macro F1 and, from probabilities (N, 3), the ROC AUC of fall and of rise."""
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    result = {
        "accuracy": accuracy_score(part.labels, predicted),
        "macro_f1": f1_score(part.labels, predicted, average="macro", zero_division=0),
    }
    if probabilities is not None:
        for index in (0, 2):
            result[f"roc_auc_{CLASSES[index]}"] = roc_auc_score(part.labels == index, probabilities[:, index])
    return {name: round(float(value), 4) for name, value in result.items()}


def evaluate(model: LSTMModel, parts: dict[str, Part]) -> dict[str, dict[str, float]]:
    """Return the held-out metrics of the model and of the trivial forecasts."""
    from sklearn.linear_model import LogisticRegression

    test, training = parts["test"], parts["train"]
    with torch.no_grad():
        probabilities = model(test.inputs).softmax(dim=1).numpy()
    flat = LogisticRegression(max_iter=2000).fit(training.inputs.reshape(len(training), -1), training.labels)
    linear = flat.predict_proba(test.inputs.reshape(len(test), -1))
    return {
        "lstm": measure(test, probabilities.argmax(axis=1), probabilities),
        "always_stay": measure(test, always_stay(test)),
        "linear_extrapolation": measure(test, extrapolate(test)),
        "logistic_regression": measure(test, linear.argmax(axis=1), linear),
    }


def main(folder: Path) -> None:
    """Train, measure, save."""
    spec, parts = split()
    for name, part in parts.items():
        print(f"{name}: {len(part)} windows, {np.bincount(part.labels, minlength=3).tolist()} of {', '.join(CLASSES)}")
    model = train(parts)
    metrics = evaluate(model, parts)
    provenance = {
        "data": "examples/data/glucose.csv.gz: one person's continuous glucose monitor, 2010-03-24 to 2010-10-10, "
        "public domain, from bokeh_sampledata 2026.1",
        "split": "train before 2010-08-16, validation to 2010-09-10, test after; 12 hours of guard at each border",
        "windows": {name: len(part) for name, part in parts.items()},
        "script": "examples/train_glucose.py",
        "seed": SEED,
        "metrics": metrics,
        "metrics_on": "test",
        "versions": library_versions("scikit-learn"),
        "intended_use": "A demonstration of explanations. One person, one sensor: not for any medical decision.",
    }
    model.data = type(spec).from_dict({**spec.to_dict(), "provenance": provenance})
    model.save(folder)
    width = max(len(name) for name in metrics)
    for name, row in metrics.items():
        print(f"{name:{width}}  " + "  ".join(f"{metric} {value:.3f}" for metric, value in row.items()))
    print(f"saved to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
