"""Train the weather model on 2012, measure it on the years after, period by period, and save it.

`python examples/train_weather.py [FOLDER]` takes under a minute; the seed makes it repeatable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gatelens.examples.story import labelled, one_thread, print_metrics, rounded, save, saved_folder
from gatelens.examples.weather import NAME, PERIODS, dates, periods, split
from gatelens.models import History, LSTMModel, Prepared, SequenceData, evaluate, fit

SEED = 0
EPOCHS = 100
COLUMNS = ("accuracy", *(f"accuracy_{period}" for period in PERIODS), "accuracy_sun_or_not")


@one_thread()
def train(data: Prepared) -> tuple[LSTMModel, History]:
    """Return the model of the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(data.config(hidden_sizes=(16,), dropout=0.2))
    model.data = data.spec
    history = fit(
        model, data.train, data.validation, epochs=EPOCHS, patience=20, learning_rate=5e-3, seed=SEED, progress=True
    )
    return model.eval(), history


def measure(model: LSTMModel, data: Prepared) -> dict[str, dict[str, float]]:
    """Return the held-out metrics of the model, of rules, and of a logistic regression on 2012 and on 2014."""
    from sklearn.linear_model import LogisticRegression

    classes = data.spec.classes
    sun, rain = classes.index("sun"), classes.index("rain")
    (training, known), (test, truth) = labelled(data.train), labelled(data.test)
    found = evaluate(model, test, train=training, name="lstm")
    with torch.no_grad():
        answers = model(test.inputs).argmax(dim=1).numpy()
    wet = test.inputs[:, -1, 0] > 0
    flat = test.inputs.reshape(len(test), -1)
    linear = LogisticRegression(C=0.1, max_iter=1000).fit(training.inputs.reshape(len(training), -1), known)
    rows = {
        "lstm": {**found.model, **_by_period(answers, test, sun)},
        "always_rain": _by_period(np.full(len(test), rain), test, sun),
        "always_sun": _by_period(np.full(len(test), sun), test, sun),
        "rain_where_it_is_wet_else_sun": _by_period(np.where(wet, rain, sun), test, sun),
        "logistic_regression": _by_period(linear.predict(flat), test, sun),
    }
    ends = dates(
        test
    )  # the same model with labels of the later coding, to see that the weather can be told from the week
    of_2014, of_2015 = ((ends >= np.datetime64(f"{year}-01-07")) & (ends < np.datetime64(f"{year + 1}-01-01"))
                        for year in (2014, 2015))  # fmt: skip
    later = LogisticRegression(C=0.1, max_iter=1000).fit(flat[of_2014], truth[of_2014])
    rows["logistic_regression_trained_on_2014"] = {
        f"accuracy_{PERIODS[-1]}": float((later.predict(flat[of_2015]) == truth[of_2015]).mean())
    }
    return {name: rounded(row) for name, row in rows.items()}


def _by_period(answers: NDArray[np.int64], test: SequenceData, sun: int) -> dict[str, float]:
    """Return the accuracy over all, in each period, and where only sun or no sun counts."""
    right, where = answers == labelled(test)[1], periods(test)
    return {
        "accuracy": float(right.mean()),
        **{f"accuracy_{period}": float(right[where == period].mean()) for period in PERIODS},
        "accuracy_sun_or_not": float(((answers == sun) == (labelled(test)[1] == sun)).mean()),
    }


def main(folder: Path) -> None:
    """Train, measure, save."""
    data = split()
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    for name, part in parts.items():
        counts = np.bincount(labelled(part)[1], minlength=len(data.spec.classes)).tolist()
        print(f"{name}: {sum(counts)} windows, {counts} of {', '.join(data.spec.classes)}")
    model, history = train(data)
    metrics = measure(model, data)
    print_metrics(metrics, COLUMNS)
    save(
        model, data.spec, folder,
        data="examples/data/weather.csv.gz: daily weather in Seattle, 2012 to 2015, NOAA, public domain, from "
        "vega_datasets 0.9.0",
        known_fault="the label rain was given on 191 days of 2012 and on 5 of 2015, fog on 5 and on 173: from April "
        "2013 on, wet days were written down as fog",
        split="train to 2012-10-31, validation to 2012-12-31, test 2013 to 2015; no day is in two parts",
        windows={name: 0 if part is None else len(part) for name, part in parts.items()},
        script="examples/train_weather.py",
        **history.provenance(),
        metrics=metrics,
        metrics_on="test",
        intended_use="A demonstration of a fault in data, found by explanation. Not for telling the weather.",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else saved_folder(NAME))
