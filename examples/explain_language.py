"""Explain the language model: which letters speak for a language, and how much the end of a name says.

`python examples/explain_language.py` writes language.html (all held-out names) and language-names.html (three of them)
into the current folder.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatelens.examples.language import NAME, kinds, split, texts
from gatelens.examples.story import labelled, model_path, print_metrics
from gatelens.explainers import Attribution, explain
from gatelens.models import load
from gatelens.reports import GlobalReport, Report, narrate

NAMES = ("Ngultrum butanês", "valkovenäjä", "tunisisk dinar")  # the last is Swedish, and taken for Danish
LEAST = 10  # names with a letter, for it to be told of
TOLD = 5  # letters a language


def main(out: Path) -> None:
    """Print the held-out metrics, the words, and what the model goes by; write both pages."""
    model = load(model_path(NAME))
    test, truth = labelled(split().test)
    assert model.data is not None
    classes = model.data.classes
    known = texts(test)
    chosen = test.take(np.isin(known, NAMES))
    some = explain(
        model, chosen, ["deeplift", "integrated_gradients", "temporal_shapley", "gate_saliency"], baseline="pad"
    )
    for sample, number in enumerate(labelled(chosen)[1]):
        print(f"{some['deeplift'].sample_names[sample]!r}, which is {classes[number]}:")
        print(narrate(some, sample))
        print()
    page = Report(some, model=model).save(out.with_name(f"{out.stem}-names{out.suffix}"))
    print(f"The page of these names: {page.resolve()}")

    every = explain(model, test, ["deeplift"], target=truth, baseline="pad")["deeplift"]
    print("\nLetters that speak most for the language of a name, on average:")
    for number, name in enumerate(classes):
        print(f"  {name:11} {'  '.join(letters(every, truth == number))}")
    print("Capital letters stand for what is custom in each language's lists, which a model may well go by.")
    print(f"\nThe last three letters have {last_share(every):.0%} of all effects; they are "
          f"{(3 / every.lengths).mean():.0%} of a name, on average.")  # fmt: skip

    print("\nHeld-out names:")
    print_metrics(model.data.provenance["metrics"], ("accuracy", "macro_f1"))
    print("The LSTM loses: to count short runs of letters tells these languages better.")
    report = GlobalReport(every, model=model, truth=[classes[number] for number in truth], groups={"kind": kinds(test)})
    print(f"Open {report.save(out).resolve()}")


def letters(found: Attribution, rows: NDArray[np.bool_]) -> list[str]:
    """Return the letters with the largest mean effect in some of the names."""
    effects: dict[str, list[float]] = defaultdict(list)
    tokens, values = found.dataset["token"].to_numpy(), found.timesteps
    for row in np.flatnonzero(rows):
        for step in range(found.lengths[row]):
            effects[str(tokens[row, step])].append(float(values[row, step]))
    means = {letter: float(np.mean(each)) for letter, each in effects.items() if len(each) >= LEAST}
    best = sorted(means, key=lambda letter: -means[letter])[:TOLD]
    return [f"{letter} {means[letter]:+.1f}" for letter in best]


def last_share(found: Attribution, last: int = 3) -> float:
    """Return the share of all effects that the last letters have, the mean over the names."""
    shares = []
    for row, length in enumerate(found.lengths):
        size = np.abs(found.timesteps[row, :length])
        shares.append(size[-last:].sum() / max(size.sum(), 1e-12))
    return float(np.mean(shares))


if __name__ == "__main__":
    main(Path("language.html"))
