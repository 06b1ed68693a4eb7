"""Train the digits model, measure it on held-out images beside trivial answers and by the rows seen, and save it.

`python examples/train_digits.py [FOLDER]` takes under a minute; the seed makes it repeatable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gatelens.examples.digits import NAME, SPEC, Part, accuracy_by_rows, split
from gatelens.examples.story import one_thread, print_metrics, rounded, save, saved_folder
from gatelens.models import History, LSTMConfig, LSTMModel, evaluate, fit

SEED = 0
EPOCHS = 100


@one_thread()
def train(parts: dict[str, Part]) -> tuple[LSTMModel, History]:
    """Return the model of the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(LSTMConfig(input_size=8, hidden_sizes=(32,), output_size=10, task="multiclass"))
    model.data = SPEC
    train, validation = ((parts[name].inputs, parts[name].labels) for name in ("train", "validation"))
    history = fit(model, train, validation, epochs=EPOCHS, patience=20, learning_rate=5e-3, seed=SEED, progress=True)
    return model.eval(), history


def measure(model: LSTMModel, parts: dict[str, Part]) -> dict[str, dict[str, float]]:
    """Return the held-out metrics of the model, of the most frequent digit and of a logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    test, training = parts["test"], parts["train"]
    found = evaluate(
        model, (test.inputs, test.labels), train=(training.inputs, training.labels), name="lstm"
    )  # fmt: skip
    flat = LogisticRegression(max_iter=2000).fit(training.inputs.reshape(len(training), -1), training.labels)
    said = flat.predict(test.inputs.reshape(len(test), -1))
    rows = {name: dict(row) for name, row in found.rows.items()}
    rows["logistic_regression"] = {
        "accuracy": float((said == test.labels).mean()), "macro_f1": f1_score(test.labels, said, average="macro"),
    }  # fmt: skip
    return {name: rounded(row) for name, row in rows.items()}


def main(folder: Path) -> None:
    """Train, measure, save."""
    parts = split()
    print(", ".join(f"{name}: {len(part)} images" for name, part in parts.items()))
    model, history = train(parts)
    metrics = measure(model, parts)
    by_rows = [round(value, 4) for value in accuracy_by_rows(model, parts["test"])]
    print_metrics(metrics, ("accuracy", "macro_f1"))
    print("accuracy after 1 to 8 rows: " + ", ".join(f"{value:.2f}" for value in by_rows))
    save(
        model, SPEC, folder,
        data="1,797 handwritten digits of 8 x 8 pixels, from scikit-learn (load_digits), which has them from the UCI "
        "repository (E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, 1998; CC BY 4.0)",
        split="70 % train, 15 % validation, 15 % test, drawn at random (seed 0) with each digit's share kept; who "
        "wrote which digit is not known, so a writer may be in several parts",
        windows={name: len(part) for name, part in parts.items()},
        script="examples/train_digits.py",
        **history.provenance(),
        metrics=metrics,
        metrics_on="test",
        accuracy_by_rows=by_rows,
        intended_use="A demonstration of explanations on small images of single digits.",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else saved_folder(NAME))
