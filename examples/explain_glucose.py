"""Explain one glucose prediction from Python: several explainers, their numbers, the gates, and the page.

`python examples/explain_glucose.py ["2010-10-05 18:03"]`: the time is that of the last of the 24 readings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import explain
from gatelens.models import load, read_csv
from gatelens.reports import Report, narrate


def main(end: str, out: Path) -> None:
    """Print the words and numbers of one window, and write its page."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end=end)
    found = explain(
        model,
        data.inputs,
        ["integrated_gradients", "kernel_shap", "lime", "gate_saliency"],
        baseline="mean",
        output="probability",
        options={"lime": {"samples": 1000}},
        sample_names=data.sample_names,
        times=data.times,
    )
    print(narrate(found))

    print("\nContribution of the last six readings:")
    for name, attribution in found.items():
        print(f"  {name:22}" + "".join(f"{value:+8.3f}" for value in attribution.timesteps[0, -6:]))

    forget = model.trace(data.inputs)["lstm.0"].forget_gate[0]  # (24, 32)
    print(f"\nThe forget gates keep {forget[-1].mean():.0%} of the memory at the last reading, on average.")
    print(f"Open {Report(found, model=model).save(out).resolve()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "2010-10-05 18:03", Path("glucose.html"))
