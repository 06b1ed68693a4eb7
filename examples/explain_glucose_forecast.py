"""Explain one glucose forecast: what in two hours of readings says that it will not stay as it is.

`python examples/explain_glucose_forecast.py` writes glucose_forecast.html into the current folder.
"""

from __future__ import annotations

from pathlib import Path

from gatelens.examples.glucose import data_path
from gatelens.examples.glucose_forecast import NAME, readings_later
from gatelens.examples.story import model_path, print_metrics
from gatelens.explainers import explain
from gatelens.models import load, read_csv
from gatelens.reports import Report, narrate

END = "2010-09-21 14:53"  # the last of the 24 readings, in the held-out weeks


def main(out: Path) -> None:
    """Print the held-out errors and the words, and write the page."""
    model = load(model_path(NAME))
    assert model.data is not None
    data = read_csv(data_path(), model.data, end=END)
    found = explain(model, data, ["deeplift", "integrated_gradients", "kernel_shap", "gate_saliency"], baseline="mean")
    print(narrate(found))
    assert data.times is not None
    last = found["deeplift"].dataset["input"].to_numpy()[0, -1, 0] * model.data.scale[0] + model.data.center[0]
    print(
        f"The last reading was {last:.0f} mg/dL; half an hour later it was {readings_later()[data.times[0, -1]]:.0f}."
    )
    print("\nErrors on the held-out weeks, mg/dL:")
    print_metrics(model.data.provenance["metrics"], ("mae", "rmse", "r2"))
    print(f"Open {Report(found, model=model).save(out).resolve()}")


if __name__ == "__main__":
    main(Path("glucose_forecast.html"))
