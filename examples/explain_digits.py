"""Explain one handwritten digit: which pixels made the model say so, and how sure it was after each row.

`python examples/explain_digits.py` writes digits.html into the current folder.
"""

from __future__ import annotations

from pathlib import Path

import torch

from gatelens.examples.digits import NAME, ROWS, split
from gatelens.examples.story import model_path, print_metrics
from gatelens.explainers import explain
from gatelens.models import load
from gatelens.reports import Report, narrate

INK = " .:-=+*#%@"


def main(out: Path) -> None:
    """Print the held-out metrics, the picture and the words, and write the page."""
    model = load(model_path(NAME))
    assert model.data is not None
    test = split()["test"]
    with torch.no_grad():
        wrong = (model(test.inputs).argmax(dim=1).numpy() != test.labels).nonzero()[0]
    rows = [0, int(wrong[0])]  # the first image, and the first that the model takes for another digit
    found = explain(
        model, test.inputs[rows], ["deeplift", "integrated_gradients", "kernel_shap", "gate_saliency"],
        baseline="zero", sample_names=[test.sample_names[row] for row in rows],
    )  # fmt: skip
    for sample, row in enumerate(rows):
        print(f"{test.sample_names[row]}:")
        with torch.no_grad():
            sure = [
                float(model(test.inputs[row : row + 1, :seen]).softmax(dim=1)[0, test.labels[row]])
                for seen in range(1, ROWS + 1)
            ]
        for line, share in zip(test.inputs[row], sure, strict=True):
            print(
                "  " + "".join(INK[round(9 * float(ink))] * 2 for ink in line) + f"   a {test.labels[row]}: {share:.0%}"
            )
        print(narrate(found, sample))
        print()

    print("Held-out images:")
    print_metrics(model.data.provenance["metrics"], ("accuracy", "macro_f1"))
    by_rows = model.data.provenance["accuracy_by_rows"]
    print("accuracy after 1 to 8 rows: " + ", ".join(f"{value:.2f}" for value in by_rows))
    print(f"Open {Report(found, model=model).save(out).resolve()}")


if __name__ == "__main__":
    main(Path("digits.html"))
