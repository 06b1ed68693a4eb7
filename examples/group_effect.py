"""A planted group effect, and how the grouped report finds it: one ward's oxygen sensors read three points too high.

Twelve hours of vital signs in two wards: will the patient get worse? The data is made, so that the truth is known: the
patients of both wards are alike, and the model is not told the ward. Over all patients nothing looks odd; by ward the
report says what is wrong. The control, the same patients with true sensors, shows that it names nothing where there is
nothing. `python examples/group_effect.py [FOLDER]` takes half a minute; the seed makes it repeatable.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gatelens.examples.story import labelled
from gatelens.explainers import DeepLIFT
from gatelens.explainers.assemble import library_versions
from gatelens.models import FeatureSpec, LSTMModel, Metrics, Prepared, SequenceModel, evaluate, fit, load, prepare
from gatelens.reports import GlobalReport

FOLDER = Path("gatelens-examples") / "group_effect"
HOURS = 12
SOUTH = 0.25  # share of the stays in the ward whose sensors are faulty
WORSE = 0.3  # share of the stays, in both wards
OFFSET = 3.0  # points of oxygen saturation that the faulty sensors read too high
VITAL_SIGNS = {  # unit, a well person's mean, spread between people, noise of a reading, change when ill
    "oxygen saturation": ("%", 95.5, 1.0, 0.8, -3.5),
    "pulse": ("per min", 80.0, 12.0, 5.0, 8.0),
    "breathing rate": ("per min", 16.0, 2.5, 1.5, 1.5),
    "temperature": ("°C", 37.0, 0.4, 0.2, 0.2),
}
SEED = 0


def write_csv(path: Path, *, offset: float = OFFSET, count: int = 3000, seed: int = SEED) -> None:
    """Write `count` stays, one row an hour: stay, ward, hour, what the sensors read, outcome. Offset 0: the control."""
    random = np.random.default_rng(seed)
    ward = np.where(random.random(count) < SOUTH, "south", "north")
    worse = random.random(count) < WORSE
    illness = np.where(worse, random.uniform(0.4, 1.4, size=count), 0)[:, None]  # how ill one is throughout
    table = pd.DataFrame({"stay": np.repeat(np.arange(count), HOURS), "ward": np.repeat(ward, HOURS)})
    table["hour"] = np.tile(np.arange(HOURS), count)
    for name, (_, mean, spread, noise, change) in VITAL_SIGNS.items():
        person = random.normal(mean, spread, size=(count, 1))
        table[name] = (person + change * illness + random.normal(0, noise, size=(count, HOURS))).ravel()
    table["oxygen saturation"] += np.where(table["ward"] == "south", offset, 0.0)
    table["outcome"] = np.repeat(np.where(worse, "worse", "stable"), HOURS)
    table.round(2).to_csv(path, index=False)


def read(path: Path) -> Prepared:
    """Return whole stays, split at random; 30 % are held out, and the ward is no feature."""
    features = [FeatureSpec(name=name, unit=unit) for name, (unit, *_) in VITAL_SIGNS.items()]
    data = prepare(
        path, target="outcome", features=features, id_column="stay", split="random", fractions=(0.55, 0.15, 0.3),
        seed=SEED,
    )  # fmt: skip
    return replace(data, spec=replace(data.spec, target="the outcome"))


def train(data: Prepared, epochs: int) -> tuple[LSTMModel, Metrics]:
    """Return a trained model that says where it comes from, and its metrics on the held-out stays."""
    torch.manual_seed(SEED)
    model = LSTMModel(data.config(hidden_sizes=(16,)), data.spec)
    history = fit(model, data.train, data.validation, epochs=epochs, patience=5, learning_rate=0.01, seed=SEED)
    metrics = evaluate(model, data.test, train=data.train, name="lstm")
    model.data = replace(data.spec, provenance={
        **data.spec.provenance,
        **history.provenance(),
        "data": "made with a seed by examples/group_effect.py",
        "split": next(note for note in data.notes if " split of " in note),
        "script": "examples/group_effect.py",
        "metrics": metrics.to_dict(),
        "metrics_on": "test",
        "versions": library_versions("scikit-learn"),
        "intended_use": "A demonstration of a planted group effect; the patients are made up.",
    })  # fmt: skip
    return model, metrics


def held_out(path: Path, data: Prepared) -> pd.DataFrame:
    """Return the rows of the table that belong to the held-out stays, stay by stay as they are explained."""
    assert data.test is not None
    stays = dict(iter(pd.read_csv(path).groupby("stay")))
    return pd.concat([stays[int(name)] for name in data.test.sample_names])


def report(model: SequenceModel, data: Prepared, table: pd.DataFrame, *, by_ward: bool = True) -> GlobalReport:
    """Return the page about the held-out stays; without groups it is what one would have looked at."""
    test, truth = labelled(data.test)
    found = DeepLIFT(model, baseline="mean", output="probability").explain(test)
    ends = table.groupby("stay", sort=False).last()
    return GlobalReport(
        found,
        model=model,
        truth=[data.spec.classes[number] for number in truth],
        groups={"ward": ends["ward"].to_numpy()} if by_ward else None,
        together=test.sample_names,  # each stay is evidence of its own
    )


def main(folder: Path = FOLDER, *, epochs: int = 25, count: int = 3000) -> None:
    """Make both tables, train on each, and report with and without groups."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, offset in (("planted", OFFSET), ("control", 0.0)):
        csv = folder / f"{name}.csv"
        write_csv(csv, offset=offset, count=count)
        data = read(csv)
        model, metrics = train(data, epochs)
        model.save(folder / f"{name}-model")
        table = held_out(csv, data)
        table.to_csv(folder / f"{name}-held-out.csv", index=False)
        if name == "planted":
            print("One ward's sensors read too high. All held-out stays, as one:", metrics, sep="\n")
            whole = report(load(folder / f"{name}-model"), data, table, by_ward=False)
            print(*whole.sentences(), sep="\n")
            whole.save(folder / "no-groups.html")
            print(f"\nThe same by ward, which the model was not told (readings: {_readings(table)}):")
        else:
            print("The control, all sensors true:", metrics, sep="\n")
        page = report(load(folder / f"{name}-model"), data, table)
        print(*(text for text in page.sentences() if text.startswith("By ward")), sep="\n", end="\n\n")
        page.save(folder / f"{name}.html")
    print("The same at the terminal:")
    words = ["gatelens", "summarize", folder / "planted-model", "--input", folder / "planted-held-out.csv",
             "--id-column", "stay", "--by", "ward", "--truth", "outcome"]  # fmt: skip
    print(f"  {shlex.join(map(str, words))}")
    print(f"The control's page: {(folder / 'control.html').resolve()}")
    print(f"Open {(folder / 'planted.html').resolve()}")


def _readings(table: pd.DataFrame) -> str:
    """Return the mean last oxygen reading of those who got worse, by ward: what the difference comes from."""
    last = table.groupby("stay", sort=False).last()
    means = last[last["outcome"] == "worse"].groupby("ward")["oxygen saturation"].mean()
    return ", ".join(f"{ward} {mean:.1f} %" for ward, mean in means.items())


if __name__ == "__main__":
    torch.set_num_threads(1)  # sums are added in one order, so that equal seeds give equal numbers
    main(*map(Path, sys.argv[1:2]))
