"""Explain the volatility model: what it learned is the size of recent moves; which way the price goes it cannot tell.

`python examples/explain_stocks.py` writes stocks.html into the current folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gatelens.examples.stocks import DIRECTION, NAME, recent_size, split
from gatelens.examples.story import model_path, print_metrics
from gatelens.explainers import explain
from gatelens.models import load
from gatelens.reports import Report, narrate

SAMPLE = "MSFT until 2011-08-10"  # a held-out window: falls and a rise of over three usual moves within a week
COLUMNS = ("accuracy", "roc_auc", "roc_auc_low", "roc_auc_high")


def main(out: Path) -> None:
    """Print the held-out metrics, the words, and what the model goes by over all windows; write the page."""
    model, direction = load(model_path(NAME)), load(model_path(DIRECTION))
    assert model.data is not None
    assert direction.data is not None
    test = split()["test"]
    chosen = test.data.take(np.array([name == SAMPLE for name in test.data.sample_names]))
    found = explain(
        model, chosen, ["deeplift", "integrated_gradients", "kernel_shap", "gate_saliency"],
        baseline="mean", output="probability",
    )  # fmt: skip
    print(narrate(found))

    every = explain(model, test.data, ["deeplift"], baseline="mean")["deeplift"]
    effects, moves = every.values[:, :, 0], test.data.inputs[:, :, 0]  # (N, 30) both
    shares = np.abs(effects).sum(axis=0) / np.abs(effects).sum()
    print(f"\nOver all {len(test):,} held-out windows:")
    print(f"  {shares[-10:].sum():.0%} of all effects come from the last 10 of the 30 days")
    print(f"  the score goes with the mean size of 20 days' moves: correlation "
          f"{np.corrcoef(every.prediction, recent_size(test))[0, 1]:.2f}")  # fmt: skip
    for name, large in (("falls", moves < -2), ("rises", moves > 2)):
        print(f"  {name} of over 2 usual moves raise it by {effects[large].mean():.3f} each, on average")

    print("\nVolatile next week? Held-out years:")
    print_metrics(model.data.provenance["metrics"], COLUMNS)
    print("The LSTM is no better than a logistic regression that is given the sizes of the moves.")
    print("\nHigher in five days? The same years:")
    print_metrics(direction.data.provenance["metrics"], COLUMNS)
    print("Nothing here can tell: a ROC AUC of 0.5 is a coin.")
    print(f"Open {Report(found, model=model).save(out).resolve()}")


if __name__ == "__main__":
    main(Path("stocks.html"))
