"""Train the glucose forecast, measure it beside trivial forecasts on the held-out weeks, and save it.

`python examples/train_glucose_forecast.py [FOLDER]` takes under two minutes on two cores; the seed makes it repeatable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gatelens.examples.glucose_forecast import NAME, ForecastPart, extrapolate, split
from gatelens.examples.story import one_thread, print_metrics, rounded, save, saved_folder
from gatelens.models import History, LSTMConfig, LSTMModel, evaluate, fit

SEED = 7
EPOCHS = 12


@one_thread()
def train(parts: dict[str, ForecastPart]) -> tuple[LSTMModel, History]:
    """Return the model of the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(LSTMConfig(input_size=4, hidden_sizes=(32,), task="regression"))
    history = fit(
        model,
        (parts["train"].inputs, parts["train"].targets),
        (parts["validation"].inputs, parts["validation"].targets),
        epochs=EPOCHS, batch_size=256, learning_rate=4e-3, scale_targets=True, seed=SEED, progress=True,
    )  # fmt: skip
    return model.eval(), history


def measure(model: LSTMModel, parts: dict[str, ForecastPart]) -> dict[str, dict[str, float]]:
    """Return the held-out errors of the model and of the forecasts beside it, in mg/dL."""
    from sklearn.linear_model import Ridge

    test, training = parts["test"], parts["train"]
    found = evaluate(
        model, (test.inputs, test.targets), train=(training.inputs, training.targets), last=test.last, name="lstm"
    )
    flat = Ridge().fit(training.inputs.reshape(len(training), -1), training.targets)
    rows = {name: dict(row) for name, row in found.rows.items()}
    rows["linear_extrapolation"] = errors(test.targets, extrapolate(test))
    rows["ridge_regression"] = errors(test.targets, flat.predict(test.inputs.reshape(len(test), -1)))
    return {name: rounded(row, 3) for name, row in rows.items()}


def errors(truth: NDArray[np.float64], forecast: NDArray[np.float64]) -> dict[str, float]:
    """Return the errors as `evaluate` calls them."""
    off = forecast - truth
    mse = float((off**2).mean())
    return {
        "mse": mse, "rmse": mse**0.5, "mae": float(np.abs(off).mean()), "r2": 1 - mse / float(truth.var()),
    }  # fmt: skip


def main(folder: Path) -> None:
    """Train, measure, save."""
    spec, parts = split()
    print(", ".join(f"{name}: {len(part)} windows" for name, part in parts.items()))
    model, history = train(parts)
    metrics = measure(model, parts)
    print_metrics(metrics, ("mae", "rmse", "r2"))
    save(
        model, spec, folder,
        data="examples/data/glucose.csv.gz: one person's continuous glucose monitor, 2010-03-24 to 2010-10-10, public "
        "domain, from bokeh_sampledata 2026.1",
        split="train before 2010-08-16, validation to 2010-09-10, test after; 12 hours of guard at each border",
        windows={name: len(part) for name, part in parts.items()},
        script="examples/train_glucose_forecast.py",
        **history.provenance(),
        metrics=metrics,
        metrics_on="test",
        intended_use="A demonstration of explanations. One person, one sensor: not for any medical decision.",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else saved_folder(NAME))
