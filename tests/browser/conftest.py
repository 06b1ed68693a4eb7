"""Chromium, and the pages that it opens."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import Attribution, DeepLIFT, explain, explain_over_time
from gatelens.models import DataSpec, FeatureSpec, LSTMConfig, LSTMModel, load, read_csv
from gatelens.reports import Report
from helpers.browser import FLAGS, HOSTILE
from helpers.made import made_attribution


def chromium_path() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, headless; where it is missing the tests skip, except in CI, where that is a failure."""
    path = chromium_path()
    if path is None:
        message = "NO CHROMIUM: the report was not opened in a browser. Install it: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def demo_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one real glucose window."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = explain(
        model,
        data.inputs,
        ["deeplift", "integrated_gradients", "gate_saliency", "lime"],
        baseline="mean",
        output="probability",
        sample_names=data.sample_names,
        times=data.times,
        options={"lime": {"samples": 200}},
    )
    return Report(found, model=model).save(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every name a user controls is an attack."""
    torch.manual_seed(0)
    data = DataSpec(
        features=(FeatureSpec(name=HOSTILE, unit=HOSTILE), FeatureSpec(name="b" + HOSTILE, group=HOSTILE + "g")),
        classes=(HOSTILE, HOSTILE + "2", "third"),
        target=HOSTILE,
        baseline=(0.0, 0.0),
        baseline_description=HOSTILE,
        provenance={"data": HOSTILE, "metrics": {HOSTILE: {"accuracy": 0.5, HOSTILE: 1.0}}},
    )
    config = LSTMConfig(input_size=2, hidden_sizes=(4,), output_size=3, task="multiclass")
    model = LSTMModel(config, data)
    found = explain(
        model, torch.randn(2, 5, 2), ["integrated_gradients", "gate_saliency"], baseline="mean",
        sample_names=[HOSTILE, HOSTILE + "s"],
    )  # fmt: skip
    report = Report(found, model=model, title=HOSTILE, command=HOSTILE)
    return report.save(tmp_path_factory.mktemp("hostile") / "report.html")


@pytest.fixture(scope="session")
def stepwise() -> tuple[LSTMModel, torch.Tensor, torch.Tensor]:
    """A bidirectional two-layer model with an output a timestep, and two sequences of different lengths."""
    torch.manual_seed(0)
    features = tuple(FeatureSpec(name=name, unit="m", center=1.0, scale=2.0) for name in ("north", "east", "up"))
    config = LSTMConfig(input_size=3, hidden_sizes=(40, 6), bidirectional=True, pooling="none", output_size=1)
    model = LSTMModel(config, DataSpec(features=features)).eval()
    return model, torch.randn(2, 12, 3), torch.tensor([12, 9])


@pytest.fixture(scope="session")
def stepwise_page(tmp_path_factory: pytest.TempPathFactory, stepwise: Any) -> Path:
    """The report of two sequences, with attributions for every output timestep."""
    model, inputs, lengths = stepwise
    found = explain(model, inputs, ["deeplift", "gate_saliency"], lengths=lengths)
    over = explain_over_time(DeepLIFT(model), inputs, lengths=lengths)
    report = Report(found, model=model, over_time=over)
    return report.save(tmp_path_factory.mktemp("stepwise") / "report.html")


@pytest.fixture(scope="session")
def token_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a text."""
    torch.manual_seed(0)
    words = ("<pad>", "good", "bad", "film", "<b>very</b>")
    config = LSTMConfig(vocab_size=5, embedding_dim=3, hidden_sizes=(4,), task="binary")
    model = LSTMModel(config, DataSpec(vocabulary=words, classes=("no", "yes"))).eval()
    found = explain(model, torch.tensor([[4, 1, 3, 2]]), ["deeplift", "temporal_shapley"])
    return Report(found, model=model).save(tmp_path_factory.mktemp("token") / "report.html")


@pytest.fixture(scope="session")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of numbers with many digits, over several days."""
    stamps = np.datetime64("2024-05-01T06:00") + np.arange(60) * np.timedelta64(1, "h")
    numbers = np.random.default_rng(0).normal(size=(60, 3)) * 1e8
    found = made_attribution(numbers, inputs=numbers, timestamp=stamps)
    return Report(found).save(tmp_path_factory.mktemp("large") / "report.html")


@pytest.fixture(scope="session")
def untimed() -> dict[str, Attribution]:
    """One explainer that tells features apart but not timesteps, and one that tells both."""
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(4,))).eval()
    options = {"temporal_shapley": {"players": "feature"}}
    return explain(model, torch.randn(1, 8, 3), ["temporal_shapley", "input_x_gradient"], options=options)


@pytest.fixture(scope="session")
def untimed_page(tmp_path_factory: pytest.TempPathFactory, untimed: dict[str, Attribution]) -> Path:
    """The report of them."""
    return Report(untimed).save(tmp_path_factory.mktemp("untimed") / "report.html")


@pytest.fixture(scope="session")
def words_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a text with words that are too long, empty, or turn the direction of writing."""
    words = ["x" * 300, "", "a\nb", "\N{RIGHT-TO-LEFT OVERRIDE}evil", HOSTILE, *(f"word{place}" for place in range(40))]
    values = np.linspace(0.1, 1, len(words))[:, None] ** 8
    found = made_attribution(values, features=("token",), token=words)
    return Report(found).save(tmp_path_factory.mktemp("words") / "report.html")
