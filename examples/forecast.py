"""A forecast with two LSTM layers: tomorrow's highest temperature in Seattle, in °C, beside "as warm as today".

`python examples/forecast.py [FOLDER]` takes half a minute on two cores; the seed makes it repeatable.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from gatelens.examples.story import data_path
from gatelens.explainers import explain
from gatelens.explainers.assemble import library_versions
from gatelens.models import History, LSTMModel, Metrics, Predictor, Prepared, SequenceData, evaluate, fit, load, prepare
from gatelens.reports import Report, describe, narrate
from gatelens.reports.palette import LIGHT
from gatelens.reports.plots import plot_heatmap, plot_training

FOLDER = Path("gatelens-examples") / "forecast"
UNITS = {"highest temperature": "°C", "lowest temperature": "°C", "precipitation": "mm", "wind": "m/s"}
METHODS = ("deeplift", "integrated_gradients", "temporal_shapley", "gate_saliency")
SEED = 0


def write_csv(path: Path) -> None:
    """Write the weather of each day, 2012 to 2015, without the words for it."""
    names = {"temp_max": "highest temperature", "temp_min": "lowest temperature"}
    pd.read_csv(data_path("weather")).drop(columns="weather").rename(columns=names).to_csv(path, index=False)


def read(path: Path) -> Prepared:
    """Return windows of 14 days, the last year held out: shuffled, the neighbours of a test day would be learned."""
    return prepare(
        path,
        target="highest temperature",
        horizon=1,
        features=list(UNITS),
        window=14,
        time_column="date",
        scaling="minmax",
        split="chronological",
        fractions=(0.6, 0.15, 0.25),
        units=UNITS,
    )


def train(data: Prepared, epochs: int) -> tuple[LSTMModel, History]:
    """Return LSTM layers of 64 and 32 units with one output, from the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(data.config(hidden_sizes=(64, 32), dropout=0.2), data.spec)
    history = fit(
        model, data.train, data.validation, epochs=epochs, patience=15, batch_size=64, learning_rate=3e-3,
        scale_targets=True, seed=SEED, progress=True,
    )  # fmt: skip
    return model, history


def measure(model: LSTMModel, data: Prepared) -> Metrics:
    """Measure on the held-out part, beside the training mean, persistence ("as warm as today") and a linear model."""
    from sklearn.linear_model import Ridge

    assert data.test is not None
    ridge = Ridge().fit(data.train.inputs.reshape(len(data.train), -1), data.train.targets)

    def linear(inputs: Any) -> Any:
        return ridge.predict(np.asarray(inputs).reshape(len(inputs), -1)).reshape(-1, 1)

    metrics = evaluate(model, data.test, train=data.train, last=data.test.last, name="lstm")
    flat = evaluate(linear, data.test, train=data.train, task="regression", name="ridge_regression")
    return replace(metrics, rows={**metrics.rows, "ridge_regression": flat.model})


def predict(model: nn.Module, part: SequenceData) -> NDArray[Any]:
    """Return the forecast of each window, (B,), in °C; the predictor switches dropout off."""
    predictor = Predictor(model)
    return predictor.predict(*predictor.check(part.inputs, part.lengths))[:, 0].numpy()


def draw(part: SequenceData, forecast: NDArray[Any]) -> Figure:
    """Draw forecast and truth over the held-out days, and below them by how much the forecast was off."""
    assert part.times is not None
    days = part.times[:, -1] + np.timedelta64(1, "D")
    truth = part.targets[:, 0]
    figure = Figure(figsize=(9, 5), layout="constrained", facecolor=LIGHT.paper)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    above.plot(days, truth, color=LIGHT.muted, linewidth=1, label="what came")
    above.plot(days, forecast, color=LIGHT.accent, linewidth=1.4, label="forecast of the day before")
    above.set_ylabel("highest temperature, °C")
    above.legend(frameon=False)
    below.bar(days, forecast - truth, width=1.0, color=LIGHT.accent)
    below.axhline(0, color=LIGHT.muted, linewidth=0.8)
    below.set_ylabel("forecast − truth, °C")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(folder: Path = FOLDER, *, epochs: int = 80) -> None:
    """Write the CSV, train, measure, save, explain."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, saved = folder / "weather.csv", folder / "model"
    write_csv(csv)
    data = read(csv)
    test = data.test
    assert test is not None
    print(f"Read {csv}:", *data.notes, sep="\n  ")

    model, history = train(data, epochs)
    print(f"\n{describe(model)}")
    plot_training(history).savefig(folder / "training.png", dpi=150)

    metrics = measure(model, data)
    print(f"\nOn the held-out days, errors in °C:\n{metrics}")
    for name in ("persistence", "ridge_regression"):
        ratio = metrics.model["rmse"] / metrics.rows[name]["rmse"] - 1
        print(f"The LSTM's rmse is {abs(ratio):.1%} {'smaller' if ratio < 0 else 'LARGER'} than that of {name}.")
    model.data = replace(data.spec, provenance={
        **data.spec.provenance,
        **history.provenance(),
        "data": "daily weather in Seattle, 2012 to 2015, NOAA, public domain (examples/data/README.md)",
        "split": next(note for note in data.notes if " split of " in note),
        "script": "examples/forecast.py",
        "metrics": metrics.to_dict(),
        "metrics_on": "test",
        "versions": library_versions("scikit-learn"),
        "intended_use": "A tutorial. A weather service knows more than one station.",
    })  # fmt: skip
    model.save(saved)

    loaded = load(saved)
    forecast = predict(loaded, test)
    draw(test, forecast).savefig(folder / "forecast.png", dpi=150)
    assert test.last is not None
    today, truth, days = test.last[:, 0], test.targets[:, 0], test.sample_names
    boldest = int(np.abs(forecast - today).argmax())
    found = explain(loaded, test.take([boldest]), METHODS, baseline="mean", seed=SEED)
    print(f"\nThe boldest forecast, made on {days[boldest]}, a day of {today[boldest]:.1f} °C:")
    print(narrate(found))
    print(f"It became {truth[boldest]:.1f} °C.")
    plot_heatmap(found["deeplift"]).savefig(folder / "explained.png", dpi=150)

    print("\nPictures:", *(folder / f"{name}.png" for name in ("training", "forecast", "explained")))
    words = ["gatelens", "report", str(saved), "--input", str(csv), "--end", days[boldest]]
    print(f"The same at the terminal:\n  {shlex.join(words)}")
    print(f"Open {Report(found, model=loaded).save(folder / 'report.html').resolve()}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # sums are added in one order, so that equal seeds give equal numbers
    main(*map(Path, sys.argv[1:2]))
