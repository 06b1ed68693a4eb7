"""Three ways to interpret an LSTM, and a fourth, on one question: will glucose rise within 30 minutes?

1. Attention: an LSTM(64) that weighs its own timesteps.
2. Explainers: a plain LSTM(64), asked from outside (DeepLIFT, Shapley values, LIME).
3. A surrogate: a decision tree that imitates the plain LSTM, with rules in words.
4. RETAIN: a network whose contributions can be read off.

`python examples/three_ways.py` takes under two minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gatelens.examples.story import data_path, print_metrics
from gatelens.explainers import Attribution, explain
from gatelens.explainers.assemble import library_versions
from gatelens.models import FeatureSpec, LSTMModel, Prepared, evaluate, fit, load, prepare
from gatelens.models.retain import RETAIN, RETAINConfig
from gatelens.models.surrogate import SurrogateTree
from gatelens.reports import Report, describe, narrate
from gatelens.reports.plots import plot_comparison, plot_training
from gatelens.reports.surrogate_plot import plot_surrogate

SEED = 0
MINUTES = 5  # from one reading to the next
CANNOT = {
    "attention": "sign and feature; a state has read all before it",
    "deeplift": "what another baseline would show",
    "temporal_shapley": "the feature",
    "lime": "shares that add up: its straight line holds nearby",
    "retain": "that a value moved the weights of other values",
    "retain, asked from outside": "what its own weights were",
}


def read(stride: int) -> Prepared:
    """Return windows of 90 minutes, every `stride`-th, and whether the glucose is over 20 mg/dL higher 30 later."""
    frame = pd.read_csv(data_path("glucose"), parse_dates=["time"])
    kept = frame[~(frame["time"].diff() < pd.Timedelta(minutes=3))]  # `prepare` drops the others too, and counts them
    frame.loc[kept.index, "trend"] = np.where(
        kept["glucose"].diff(6) > 20, "rise", "no rise"
    )  # of the 30 minutes before
    change = FeatureSpec(name="rate of change", unit="mg/dL per 5 min", column="glucose", transform="difference")
    data = prepare(
        frame, target="trend", features=[FeatureSpec(name="glucose", unit="mg/dL"), change], window=18, horizon=6,
        stride=stride, time_column="time", min_gap_seconds=180, max_gap_seconds=360,
    )  # fmt: skip
    return replace(data, spec=replace(data.spec, target="glucose in 30 minutes", target_note="rise: by over 20 mg/dL"))


def train(data: Prepared, folder: Path, epochs: int) -> None:
    """Train the three networks, print their metrics on the held-out weeks, and save them."""
    torch.manual_seed(SEED)
    networks: dict[str, tuple[LSTMModel | RETAIN, float]] = {
        "attention": (LSTMModel(data.config(hidden_sizes=(64,), pooling="attention"), data.spec), 1e-2),
        "lstm": (LSTMModel(data.config(hidden_sizes=(64,)), data.spec), 3e-3),
        "retain": (
            RETAIN(RETAINConfig(input_size=2, embedding_dim=32, alpha_size=32, beta_size=32, task="binary"), data.spec),
            5e-3,
        ),
    }
    rows: dict[str, Mapping[str, float]] = {}
    for name, (model, rate) in networks.items():
        print(f"\n{name}\n{describe(model)}")
        history = fit(
            model, data.train, data.validation, epochs=epochs, patience=4, batch_size=128, learning_rate=rate,
            seed=SEED, progress=True,
        )  # fmt: skip
        plot_training(history).savefig(folder / f"training-{name}.png")
        metrics = evaluate(model.eval(), data.test, train=data.train, name=name)
        rows |= metrics.rows
        provenance = {
            "data": "examples/data/glucose.csv.gz: one person's continuous glucose monitor, 2010-03-24 to 2010-10-10",
            "split": "in time order, 70 % train, 15 % validation, 15 % test", "script": "examples/three_ways.py",
            "metrics": metrics.to_dict(), "metrics_on": "test", "versions": library_versions("scikit-learn"),
            "intended_use": "A demonstration of explanations. One person, one sensor: not for any medical decision.",
        }  # fmt: skip
        model.data = replace(data.spec, provenance={**data.spec.provenance, **history.provenance(), **provenance})
        print(f"saved to {model.save(folder / name)}")
    print("\nOn the weeks held out:")
    print_metrics(dict(sorted(rows.items(), key=lambda row: row[0] not in networks)),
                  ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"))  # fmt: skip


def named(found: Attribution) -> str:
    """Return the three largest timesteps of the first window, and the features where they are told apart."""
    steps = found.timesteps[0]
    largest = sorted(abs(steps).argsort()[-3:].tolist())
    minutes = ", ".join(str(MINUTES * (step - len(steps) + 1)) for step in largest).replace("-", "\N{MINUS SIGN}")
    if not found.resolves_features:
        return f"minutes {minutes}"
    shares = abs(found.values[0]).sum(axis=0) / abs(found.values[0]).sum()
    features = ", ".join(f"{name} {share:.0%}" for name, share in zip(found.feature_names, shares, strict=True))
    return f"minutes {minutes}; {features}"


def main(
    folder: Path = Path("gatelens-examples/three_ways"), epochs: int = 10, stride: int = 4, compared: int = 20
) -> None:
    """Read, train, interpret in each way, compare, and write pictures and pages."""
    folder.mkdir(parents=True, exist_ok=True)
    data = read(stride)
    assert data.test is not None
    print(*data.notes, sep="\n")
    train(data, folder, epochs)
    attending, lstm, retain = (load(folder / name) for name in ("attention", "lstm", "retain"))

    # Of the windows before a rise the one that the plain LSTM is most sure of, and others of the held-out weeks.
    rises = np.flatnonzero(data.test.targets == 1)
    surest = rises[int(lstm(data.test.inputs[rises]).argmax())]
    windows = data.test.take([surest, *np.linspace(0, len(data.test) - 1, compared - 1).astype(int)])
    outside = explain(lstm, windows, ["deeplift", "temporal_shapley", "lime"], options={"lime": {"players": "cell"}})
    looked = explain(attending, windows, ["attention", "temporal_shapley"])
    parts = explain(retain, windows, ["retain", "integrated_gradients"])
    ways = {"attention": looked["attention"], **outside, "retain": parts["retain"]}
    ways["retain, asked from outside"] = parts["integrated_gradients"]

    print(f"\nThe plain LSTM about {windows.sample_names[0]}:")
    print(narrate(outside))
    tree = SurrogateTree.fit(lstm, data.train, held_out=data.test)
    print(f"\nThe surrogate tree {tree.fidelity}.\n{tree.rules()}\n{tree.explain(windows.inputs[0])}")

    print("\nWhat each names for that window, and what it cannot tell:")
    for name, found in ways.items():
        print(f"  {name:26} {named(found):60} {CANNOT[name]}")
    differ = f"what the LSTM thinks where they differ ({1 - tree.fidelity.value:.0%} of windows)"
    print(f"  {'surrogate tree':26} {'the rules above':60} {differ}")
    ways["attention LSTM, Shapley"] = looked["temporal_shapley"]
    sizes = [pd.DataFrame({name: abs(found.timesteps[row]) for name, found in ways.items()}) for row in range(compared)]
    alike = np.mean([one.corr(method="spearman") for one in sizes], axis=0)
    print(f"\nHow far they order timesteps alike (rank correlation of sizes, mean of {compared} windows):")
    print(pd.DataFrame(alike, index=list(ways), columns=list(ways)).round(2).to_string())

    plot_comparison(outside).savefig(folder / "explainers.png")
    looked["attention"].plot().savefig(folder / "attention.png")
    parts["retain"].plot(kind="heatmap").savefig(folder / "retain.png")
    plot_surrogate(tree).savefig(folder / "surrogate.png")
    Report({name: found[0] for name, found in looked.items()}, model=attending).save(folder / "attention.html")
    Report({name: found[0] for name, found in parts.items()}, model=retain).save(folder / "retain.html")
    page = Report({name: found[0] for name, found in outside.items()}, model=lstm).save(folder / "lstm.html")
    print(f"\nPictures: {', '.join(sorted(path.name for path in folder.glob('*.png')))} in {folder}")
    window = f"--input {data_path('glucose').resolve()} --end '{windows.sample_names[0]}'"
    print(f"At the terminal: gatelens report {folder / 'lstm'} {window}")
    print(f"Open {page.resolve()}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more add numbers in another order, and the metrics differ a little
    main()
