"""One output a timestep: LSTM(50) on 20 steps of 10 sensors, explained at chosen steps and checked against the truth.

The data is made, so that the truth is known: the output follows sensor 1 at once, sensor 2 two steps later and sensor 3
four steps later, with a minus; the other seven sensors are noise. `python examples/each_timestep.py [FOLDER]` takes
under half a minute on two cores; the seed makes it repeatable.
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
from numpy.typing import NDArray

from gatelens.explainers import DeepLIFT, explain, explain_over_time
from gatelens.explainers.assemble import library_versions
from gatelens.models import History, LSTMModel, Metrics, Prepared, SequenceData, evaluate, fit, load, prepare
from gatelens.reports import Report, describe, narrate
from gatelens.reports.plots import plot_heatmap, plot_training

FOLDER = Path("gatelens-examples") / "each_timestep"
STEPS = 20
SENSORS = tuple(f"sensor {number}" for number in range(1, 11))
WEIGHTS = {(0, 0): 1.0, (1, 2): 0.8, (2, 4): -0.6}  # (sensor, lag in steps) -> what it gives to the output
NOISE = 0.2  # standard deviation of what nothing explains
EXPLAINED = (4, 9, 19)  # output steps counted from 0: the 5th, the 10th and the last
METHODS = ("deeplift", "integrated_gradients", "gate_saliency")
SEED = 0


def filtered(inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return what each sensor at each step gives to each output step: inputs (B, T, D) -> (B, T output, T, D)."""
    given = np.zeros((*inputs.shape[:2], *inputs.shape[1:]))
    for (sensor, lag), weight in WEIGHTS.items():
        for step in range(lag, inputs.shape[1]):
            given[:, step, step - lag, sensor] = weight * inputs[:, step - lag, sensor]
    return given


def write_csv(path: Path, count: int, seed: int = SEED) -> None:
    """Write `count` sequences, one row a step: number of the sequence, ten sensors, output."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(count, STEPS, len(SENSORS)))
    output = filtered(inputs).sum(axis=(2, 3)) + random.normal(0, NOISE, size=(count, STEPS))
    table = pd.DataFrame(inputs.reshape(-1, len(SENSORS)), columns=list(SENSORS))
    table.insert(0, "sequence", np.repeat(np.arange(count), STEPS))
    table.assign(output=output.ravel()).round(5).to_csv(path, index=False)


def read(path: Path) -> Prepared:
    """Return whole sequences with one target a step, split at random: no sequence is in two parts."""
    return prepare(
        path, target="output", features=SENSORS, id_column="sequence", each_timestep=True, split="random", seed=SEED
    )


def train(data: Prepared, epochs: int) -> tuple[LSTMModel, History]:
    """Return one LSTM layer of 50 units with an output at each step, from the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(data.config(hidden_sizes=(50,)), data.spec)  # each_timestep has chosen pooling="none"
    history = fit(
        model, data.train, data.validation, epochs=epochs, patience=10, learning_rate=3e-3, scale_targets=True,
        seed=SEED, progress=True,
    )  # fmt: skip
    return model, history


def measure(model: LSTMModel, data: Prepared) -> Metrics:
    """Measure on all steps of the held-out sequences, beside the training mean."""
    return evaluate(model, data.test, train=data.train)


def truth_of(data: Prepared, part: SequenceData) -> NDArray[np.float64]:
    """Return what explanations should say, (B, T output, T, D): the sensors' deviations from their mean, weighted."""
    return filtered((part.inputs - np.array(data.spec.baseline)) * data.spec.scale)


def main(folder: Path = FOLDER, *, epochs: int = 30, count: int = 2000) -> None:
    """Write the CSV, train, measure, save, explain, check."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, saved = folder / "sensors.csv", folder / "model"
    write_csv(csv, count)
    data = read(csv)
    test = data.test
    assert test is not None
    print(f"Read {csv}:", *data.notes, sep="\n  ")

    model, history = train(data, epochs)
    print(f"\n{describe(model)}")
    plot_training(history).savefig(folder / "training.png", dpi=150)

    metrics = measure(model, data)
    print(f"\nOn the held-out sequences:\n{metrics}")
    print(f"The noise alone has an mse of {NOISE**2:.3g}: no model can do better.")
    model.data = replace(data.spec, target="the output", provenance={
        **data.spec.provenance,
        **history.provenance(),
        "data": "made with a seed by examples/each_timestep.py",
        "split": next(note for note in data.notes if " split of " in note),
        "script": "examples/each_timestep.py",
        "metrics": metrics.to_dict(),
        "metrics_on": "test",
        "versions": library_versions("scikit-learn"),
        "intended_use": "A tutorial.",
    })  # fmt: skip
    model.save(saved)

    loaded = load(saved)
    few = test.take(range(3))
    truth = truth_of(data, few)
    over_time = explain_over_time(DeepLIFT(loaded, baseline="mean"), few, output=0)
    for step in EXPLAINED:
        found = explain(loaded, few, METHODS, target=(step, 0), baseline="mean", seed=SEED)
        print()
        print(narrate(found))
        values, wanted = found["deeplift"].values, truth[:, step]  # (3, 20, 10) each
        print(
            f"  Against the truth: correlation {np.corrcoef(values.ravel(), wanted.ravel())[0, 1]:.4f}, largest "
            f"difference {np.abs(values - wanted).max():.3f}. Steps after {step + 1} give "
            f"{np.abs(values[:, step + 1 :]).sum():g} together: the LSTM had not read them."
        )
        plot_heatmap(found["deeplift"]).savefig(folder / f"step-{step + 1}.png", dpi=150)

    newest = folder / "held-out.csv"
    whole = pd.read_csv(csv)
    whole[whole["sequence"].astype(str).isin(few.sample_names)].to_csv(newest, index=False)
    print("\nPictures:", folder / "training.png", *(folder / f"step-{step + 1}.png" for step in EXPLAINED))
    print("The same at the terminal, which counts steps from 0:")
    words = ["gatelens", "report", saved, "--input", newest, "--id-column", "sequence", "--timestep", EXPLAINED[0]]
    print(f"  {shlex.join(map(str, words))}")
    page = Report(found, model=loaded, over_time=over_time).save(folder / "report.html")
    print(f"Open {page.resolve()}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # sums are added in one order, so that equal seeds give equal numbers
    main(*map(Path, sys.argv[1:2]))
