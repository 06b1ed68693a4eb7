"""From a CSV to an explained yes/no model: clean, scale, split, train three LSTM layers, measure, explain with LIME.

The question: from two hours of a glucose monitor, will it read above 180 mg/dL in 30 minutes?
`python examples/classify_from_csv.py [FOLDER]` takes about a minute on two cores; the seed makes it repeatable.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gatelens.examples.story import data_path
from gatelens.explainers import Attribution, explain
from gatelens.explainers.assemble import library_versions
from gatelens.models import History, LSTMModel, Metrics, Predictor, Prepared, SequenceData, evaluate, fit, load, prepare
from gatelens.reports import Report, describe, narrate
from gatelens.reports.palette import LIGHT
from gatelens.reports.plots import plot_timesteps, plot_training

FOLDER = Path("gatelens-examples") / "classify_from_csv"
TARGET = "glucose in 30 minutes"
LIMIT = 180  # mg/dL
LOW = 150  # mg/dL: a warning from here or below is explained
METHODS = ("lime", "deeplift", "temporal_shapley")
SEED = 0


def write_csv(path: Path) -> None:
    """Write time, reading and label, one row a reading; one reading in a hundred is blanked out, as sensors do."""
    table = pd.read_csv(data_path("glucose"), parse_dates=["time"])
    known = table.drop_duplicates("time").set_index("time")["glucose"]
    ahead = pd.DatetimeIndex(table["time"]) + pd.Timedelta(minutes=30)
    later = known.reindex(ahead, method="nearest", tolerance=pd.Timedelta(minutes=2)).to_numpy()
    label = np.where(later > LIMIT, f"above {LIMIT}", f"{LIMIT} or less")
    table[TARGET] = np.where(np.isnan(later), "", label)  # the monitor was off
    table["glucose"] = table["glucose"].astype(float).mask(np.random.default_rng(SEED).random(len(table)) < 0.01)
    table.to_csv(path, index=False)


def read(path: Path, stride: int = 6) -> Prepared:
    """Return windows of 24 readings: 80 % to learn from, an eighth of them to say when to stop, and 20 % held out."""
    return prepare(
        path,
        target=TARGET,
        features=["glucose"],
        window=24,
        stride=stride,
        time_column="time",
        missing="drop",
        max_gap_seconds=660,  # one dropped reading may be missing in a window, a longer pause may not
        min_gap_seconds=180,
        scaling="minmax",
        split="chronological",
        fractions=(0.7, 0.1, 0.2),
        guard=6,  # the label looks 30 minutes ahead: so much is left out at each border
        units={"glucose": "mg/dL"},
    )


def train(data: Prepared, epochs: int) -> tuple[LSTMModel, History]:
    """Return three LSTM layers of 50 units with one sigmoid output, from the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(data.config(hidden_sizes=(50, 50, 50)), data.spec)
    history = fit(
        model, data.train, data.validation, epochs=epochs, patience=4, batch_size=64, learning_rate=3e-3, seed=SEED,
        progress=True,
    )  # fmt: skip
    return model, history


def readings(data: Prepared, part: SequenceData) -> NDArray[np.float64]:
    """Return what the monitor read, (B, 24), in mg/dL: the inputs are scaled."""
    return np.asarray(part.inputs[:, :, 0] * data.spec.scale[0] + data.spec.center[0])


def measure(model: LSTMModel, data: Prepared) -> Metrics:
    """Measure on the held-out part, beside "always the same" and persistence, "it stays on its side of the limit"."""
    assert data.test is not None
    return evaluate(model, data.test, train=data.train, last=readings(data, data.test)[:, -1] > LIMIT)


def draw(found: Attribution, read: NDArray[np.float64]) -> Figure:
    """Draw the readings of one window (24,) and below them what LIME gives to each."""
    figure = Figure(figsize=(9, 5), layout="constrained", facecolor=LIGHT.paper)
    above, below = figure.subplots(2, 1)
    above.plot(range(len(read)), read, color=LIGHT.accent, marker="o", markersize=3)
    above.axhline(LIMIT, color=LIGHT.muted, linewidth=0.8)
    above.set(xlim=(-0.5, len(read) - 0.5), xticks=[], ylabel="glucose, mg/dL", facecolor=LIGHT.paper)
    above.spines[["top", "right"]].set_visible(False)
    plot_timesteps(found, ax=below)
    below.set_ylabel("LIME, probability")
    return figure


def main(folder: Path = FOLDER, *, epochs: int = 15, stride: int = 6) -> None:
    """Write the CSV, train, measure, save, explain."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, saved = folder / "readings.csv", folder / "model"
    write_csv(csv)
    data = read(csv, stride)
    test = data.test
    assert test is not None
    print(f"Read {csv}:", *data.notes, sep="\n  ")

    model, history = train(data, epochs)
    print(f"\n{describe(model)}")
    plot_training(history).savefig(folder / "training.png", dpi=150)

    metrics = measure(model, data)
    print(f"\nOn the held-out fifth:\n{metrics}")
    print("Rows: what came. Columns: what was predicted.")
    print(pd.DataFrame(metrics.confusion, metrics.classes, metrics.classes))
    now = readings(data, test)[:, -1]
    crossing = (now <= LIMIT) & (test.targets == 1)
    predictor = Predictor(model)
    scores = predictor.predict(*predictor.check(test.inputs, test.lengths))[:, 0].numpy()
    told = int((scores[crossing] > 0).sum())
    print(f"Of {crossing.sum()} windows that are about to cross {LIMIT} it says so of {told}; persistence of none.")
    model.data = replace(data.spec, provenance={
        **data.spec.provenance,
        **history.provenance(),
        "data": "one person's continuous glucose monitor, public domain (examples/data/README.md), 1 % blanked out",
        "split": next(note for note in data.notes if " split of " in note),
        "script": "examples/classify_from_csv.py",
        "metrics": metrics.to_dict(),
        "metrics_on": "test",
        "versions": library_versions("scikit-learn"),
        "intended_use": "A tutorial. One person, one sensor: not for any medical decision.",
    })  # fmt: skip
    model.save(saved)

    loaded = load(saved)
    surest = int(np.where(now <= LOW, scores, -np.inf).argmax())
    found = explain(
        loaded, test.take([surest]), METHODS, baseline="mean", output="probability", seed=SEED,
        options={"lime": {"samples": 1000}},
    )  # fmt: skip
    print(f"\nThe surest warning among the held-out windows that end at {LOW} mg/dL or less:")
    print(narrate(found))
    print(f"It was {now[surest]:.0f} mg/dL, and became {data.spec.classes[test.targets[surest]]}.")
    draw(found["lime"], readings(data, test)[surest]).savefig(folder / "lime.png", dpi=150)

    print("\nPictures:", *(folder / f"{name}.png" for name in ("training", "lime")))
    words = ["gatelens", "report", str(saved), "--input", str(csv), "--end", test.sample_names[surest]]
    print(f"The same at the terminal:\n  {shlex.join(words)}")
    print(f"Open {Report(found, model=loaded).save(folder / 'report.html').resolve()}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # sums are added in one order, so that equal seeds give equal numbers
    main(*map(Path, sys.argv[1:2]))
