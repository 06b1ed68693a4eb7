"""Train the language model, measure it on unseen names beside trivial answers and an n-gram model, and save it.

`python examples/train_language.py [FOLDER]` takes under a minute; the seed makes it repeatable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gatelens.examples.language import NAME, ngram_model, split, texts
from gatelens.examples.story import labelled, one_thread, print_metrics, rounded, save, saved_folder
from gatelens.models import History, LSTMModel, Prepared, evaluate, fit

SEED = 0
EPOCHS = 30


@one_thread()
def train(data: Prepared) -> tuple[LSTMModel, History]:
    """Return the model of the epoch with the lowest validation loss."""
    torch.manual_seed(SEED)
    model = LSTMModel(data.config(embedding_dim=24, hidden_sizes=(64,), dropout=0.2))
    model.data = data.spec
    history = fit(
        model, data.train, data.validation, epochs=EPOCHS, patience=5, batch_size=64, learning_rate=3e-3, seed=SEED,
        progress=True,
    )  # fmt: skip
    return model.eval(), history


def measure(model: LSTMModel, data: Prepared) -> dict[str, dict[str, float]]:
    """Return the held-out metrics of the model, of the most frequent language and of the n-gram model."""
    from sklearn.metrics import f1_score

    (training, known), (test, truth) = labelled(data.train), labelled(data.test)
    found = evaluate(model, test, train=training, name="lstm")
    rows = {name: dict(row) for name, row in found.rows.items()}
    said = ngram_model().fit(texts(training), known).predict(texts(test))
    rows["ngram_logistic_regression"] = {
        "accuracy": float((said == truth).mean()),
        "macro_f1": f1_score(truth, said, average="macro"),
    }
    return {name: rounded(row) for name, row in rows.items()}


def main(folder: Path) -> None:
    """Train, measure, save."""
    data = split()
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = {name: 0 if part is None else len(part) for name, part in parts.items()}
    print(", ".join(f"{name}: {count} names" for name, count in counts.items()))
    model, history = train(data)
    metrics = measure(model, data)
    print_metrics(metrics, ("accuracy", "macro_f1"))
    save(
        model, data.spec, folder,
        data="examples/data/language.csv.gz: names of territories, languages and currencies in twelve languages, "
        "Unicode CLDR (Unicode-3.0, examples/data/LICENSE.unicode), from babel 2.18.0",
        split="70 % of the CLDR codes train, 15 % validate, 15 % test, drawn at random (seed 0), each with all its "
        "translations",
        windows=counts,
        script="examples/train_language.py",
        **history.provenance(),
        metrics=metrics,
        metrics_on="test",
        intended_use="A demonstration of explanations on text. A count of character n-grams tells languages better.",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else saved_folder(NAME))
