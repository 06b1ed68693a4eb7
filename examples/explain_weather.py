"""Explain the weather model, and find the fault in its data: the same reasons, year after year, and other labels.

`python examples/explain_weather.py` writes weather.html (all held-out days, by period) and weather-day.html (one day)
into the current folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gatelens.examples.story import labelled, model_path, print_metrics
from gatelens.examples.train_weather import COLUMNS
from gatelens.examples.weather import NAME, PERIODS, WINDOW, dates, periods, split
from gatelens.explainers import explain
from gatelens.models import load
from gatelens.reports import GlobalReport, Report, narrate

DAY = np.datetime64("2014-02-16")  # it rained; written down was fog


def main(out: Path) -> None:
    """Print the held-out metrics by period, the words, and what stays the same; write both pages."""
    model = load(model_path(NAME))
    data = split()
    test, truth = labelled(data.test)
    assert model.data is not None
    classes = model.data.classes
    day = test.take(dates(test) == DAY)
    one = explain(
        model, day, ["deeplift", "integrated_gradients", "kernel_shap", "gate_saliency"],
        target="rain", baseline="mean", output="probability",
    )  # fmt: skip
    print(narrate(one))
    print(f"  What was written down that day: {classes[labelled(day)[1][0]]}.")
    page = Report(one, model=model).save(out.with_name(f"{out.stem}-day{out.suffix}"))
    print(f"  Its page: {page.resolve()}")

    every = explain(
        model, test, ["integrated_gradients"], target="rain", baseline="mean", output="probability"
    )["integrated_gradients"]  # fmt: skip
    where = periods(test)
    wet = test.inputs[:, -1, 0] > 0
    print("\nDays on which it rained, by period:")
    for period in PERIODS:
        rows = wet & (where == period)
        rain = every.values[rows][:, -1, 0].mean()
        told = (truth[rows] == classes.index("rain")).mean()
        print(f"  {period:16} that day's precipitation moves \"rain\" by {100 * rain:+.0f} points; "
              f"written down as rain: {told:.0%}")  # fmt: skip
    print("The model reads the weather as before; what changed is what people wrote down.")

    print("\nHeld-out days:")
    print_metrics(model.data.provenance["metrics"], COLUMNS)
    report = GlobalReport(
        every, model=model, truth=[classes[number] for number in truth],
        groups={"period": where}, together=test.rows // WINDOW,
        notes=["From April 2013 on, wet days were written down as fog: the labels changed, not the weather."],
    )  # fmt: skip
    print(f"Open {report.save(out).resolve()}")


if __name__ == "__main__":
    main(Path("weather.html"))
