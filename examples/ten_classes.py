"""Ten classes, three networks, one explainer interface: which digit is this image of 8 x 8 pixels?

An LSTM(64, relu) and an LSTM(64) with attention read the image row by row; a convolutional network, a module of torch's
own, sees it at once. Gradient and black-box explainers take all three; those that look into an LSTM refuse the last.

`python examples/ten_classes.py` takes about a minute on two cores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from gatelens.examples.story import print_metrics
from gatelens.explainers import Attribution, explain
from gatelens.explainers.assemble import library_versions
from gatelens.models import DataSpec, FeatureSpec, GatelensError, LSTMModel, Prepared, evaluate, fit, load, prepare
from gatelens.reports import Report, describe, narrate
from gatelens.reports.palette import LIGHT
from gatelens.reports.plots import plot_training

SEED = 0
COLUMNS = [f"column {number}" for number in range(1, 9)]
ANY = ["integrated_gradients", "occlusion", "lime"]  # explainers of any model, here over single pixels
OPTIONS = {"occlusion": {"players": "cell"}, "lime": {"players": "cell"}}


def read(most: int | None = None) -> tuple[Prepared, pd.DataFrame]:
    """Return the digits as sequences of eight rows, and the table that they are made from: one line a row of pixels."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    frame = pd.DataFrame(images[:most].reshape(-1, 8), columns=COLUMNS)
    frame["image"], frame["digit"] = np.repeat(np.arange(len(images))[:most], 8), np.repeat(digits[:most], 8)
    features = [FeatureSpec(name=column, unit="ink of 16", scale=16.0) for column in COLUMNS]
    data = prepare(frame, target="digit", features=features, id_column="image", task="multiclass", split="random")
    spec = replace(data.spec, target="the digit", baseline=(0.0,) * 8, baseline_description="an empty sheet")
    return replace(data, spec=spec), frame


class ConvolutionalNetwork(nn.Sequential):
    """A small convolutional network, (B, 8, 8) -> (B, 10); `data` says what its numbers mean, for words and pages."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(
            nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
        )  # fmt: skip
        self.data = data


def train(data: Prepared, folder: Path, epochs: int) -> None:
    """Train the three networks, print their metrics on the held-out images, and save them."""
    torch.manual_seed(SEED)
    networks: dict[str, LSTMModel | ConvolutionalNetwork] = {
        "lstm": LSTMModel(data.config(hidden_sizes=(64,), activation="relu"), data.spec),
        "attention": LSTMModel(data.config(hidden_sizes=(64,), pooling="attention"), data.spec),
        "cnn": ConvolutionalNetwork(data.spec),
    }
    rows: dict[str, Mapping[str, float]] = {}
    for name, model in networks.items():
        print(f"\n{name}\n{describe(model)}")
        history = fit(
            model, data.train, data.validation, task="multiclass", epochs=epochs, patience=8, learning_rate=3e-3,
            seed=SEED, progress=True,
        )  # fmt: skip
        plot_training(history).savefig(folder / f"training-{name}.png")
        metrics = evaluate(model.eval(), data.test, train=data.train, task="multiclass", name=name)
        rows |= metrics.rows
        provenance = {
            "data": "digits of scikit-learn (load_digits)", "split": "drawn by image: 70 % train, 15 % the others each",
            "script": "examples/ten_classes.py", "metrics": metrics.to_dict(), "metrics_on": "test",
            "versions": library_versions("scikit-learn"),
            "intended_use": "A demonstration of explanations on images of single digits.",
        }  # fmt: skip
        model.data = replace(data.spec, provenance={**data.spec.provenance, **history.provenance(), **provenance})
        if isinstance(model, LSTMModel):
            print(f"saved to {model.save(folder / name)}")
            continue
        (folder / name).mkdir(exist_ok=True)  # a module of one's own is saved as torch does it
        torch.save(model.state_dict(), folder / name / "weights.pt")
        (folder / name / "data.json").write_text(json.dumps(model.data.to_dict(), indent=1), encoding="utf-8")
    print("\nOn the images held out:")
    rows = dict(sorted(rows.items(), key=lambda row: row[0] not in networks))  # the trivial answer last
    print_metrics(rows, ("accuracy", "macro_recall", "macro_f1", "roc_auc"))
    for measure in ("recall", "f1"):
        each = {name: {digit: row[f"{measure}_{digit}"] for digit in data.spec.classes} for name, row in rows.items()}
        print(f"\n{measure} of each digit\n{pd.DataFrame(each).T.round(2).to_string()}")


def draw(found: dict[str, dict[str, Attribution]], sample: int) -> Figure:
    """Draw an image beside what each network's explainers say of its pixels, each in a scale of its own."""
    figure = Figure(figsize=(8.6, 2.3 * len(found)), layout="constrained", facecolor=LIGHT.paper)
    figure.suptitle("what raises (red) and lowers (blue) the score of the digit that each network says", fontsize=9)
    bare = {"frame_on": False, "xticks": [], "yticks": []}
    grid = figure.subplots(len(found), 1 + len(ANY), subplot_kw=bare)
    for axes, (name, methods) in zip(grid, found.items(), strict=True):
        first = methods[ANY[0]]
        said = first.output_names[int(first.dataset["target_output"].to_numpy()[sample])]
        axes[0].imshow(first.inputs[sample], cmap="gray_r")
        axes[0].set_title(f"{name}: a {said}", fontsize=9)
        for panel, method in zip(axes[1:], ANY, strict=True):
            values = methods[method].values[sample]  # (8, 8): rows down, as the image
            panel.imshow(values, cmap=LIGHT.signed(), vmin=-abs(values).max(), vmax=abs(values).max())
            panel.set_title(method.replace("_", " "), fontsize=9)
    return figure


def main(folder: Path = Path("gatelens-examples/ten_classes"), epochs: int = 40, most: int | None = None) -> None:
    """Read, train, explain the same two images of all three networks, and write pictures and pages."""
    folder.mkdir(parents=True, exist_ok=True)
    data, frame = read(most)
    assert data.test is not None
    print(*data.notes, sep="\n")
    train(data, folder, epochs)
    lstm, attending = load(folder / "lstm"), load(folder / "attention")
    told = json.loads((folder / "cnn" / "data.json").read_text(encoding="utf-8"))
    cnn = ConvolutionalNetwork(DataSpec.from_dict(told)).eval()
    cnn.load_state_dict(torch.load(folder / "cnn" / "weights.pt", weights_only=True))

    # The first image that the LSTM reads rightly, and the first that it takes for another digit.
    right = lstm(data.test.inputs).argmax(dim=1).numpy() == data.test.targets
    images = data.test.take([*np.flatnonzero(right)[:1], *np.flatnonzero(~right)[:1]])
    found = {
        "lstm": explain(lstm, images, [*ANY, "deeplift", "gate_saliency"], options=OPTIONS),
        "attention": explain(attending, images, [*ANY, "attention"], options=OPTIONS),
        "cnn": explain(cnn, images, ANY, options=OPTIONS, task="multiclass"),
    }
    for sample, name in enumerate(images.sample_names):
        print(f"\nImage {name}, a {data.spec.classes[images.targets[sample]]}:")
        for network in ("lstm", "cnn"):
            print(f"{network}: ", end="")
            print(narrate(found[network], sample))
        draw(found, sample).savefig(folder / f"image-{name}.png")
    print("\nWhat looks into an LSTM refuses the convolutional network:")
    for method in ("gate_saliency", "attention"):
        try:
            explain(cnn, images, [method], task="multiclass")
        except GatelensError as error:
            print(f"  {method}: {error}")

    chosen = folder / "image.csv"
    frame[frame["image"] == int(images.sample_names[0])].to_csv(chosen, index=False)
    page = Report(found["lstm"], model=lstm).save(folder / "lstm.html")
    print(f"\nPictures: {', '.join(sorted(path.name for path in folder.glob('*.png')))} in {folder}")
    print(f"At the terminal: gatelens report {folder / 'lstm'} --input {chosen}")
    print(f"The convolutional network's page: {Report(found['cnn'], model=cnn).save(folder / 'cnn.html')}")
    print(f"Open {page.resolve()}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more add numbers in another order, and the metrics differ a little
    main()
