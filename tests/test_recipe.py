"""`Recipe` and `gatelens train`: from a table, or texts, to a saved model that says how good it is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from gatelens.cli.app import app
from gatelens.models import InvalidInputError, InvalidTypeError, LSTMModel, evaluate, fit, load, prepare
from gatelens.models.recipe import Recipe
from gatelens.models.retain import RETAIN
from gatelens.models.state import seeded

CONFIG = """
[data]
input = "sensor.csv"
target = "load"
features = ["load", {name = "change", column = "load", transform = "difference"}]
window = 6
horizon = 2
time_column = "time"
missing = "hold"
units = {load = "kW"}

[model]
hidden_sizes = [5]

[training]
epochs = 2
learning_rate = 0.01
"""


def sensor(folder: Path, rows: int = 400) -> Path:
    """A CSV with a number that is about what it was, an hour a row, three of them missing."""
    rng = np.random.default_rng(0)
    values = 500 + np.cumsum(rng.normal(size=rows))
    values[[20, 21, 300]] = np.nan
    frame = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=rows, freq="h"), "load": values})
    frame["high"] = np.where(frame["load"].shift(-1) > frame["load"], "up", "down")
    path = folder / "sensor.csv"
    frame.to_csv(path, index=False)
    return path


def config(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_prepare_fit_and_evaluate(tmp_path):
    """The same weights and metrics as of the three calls by hand, and the data description tells all of it."""
    path = sensor(tmp_path)
    said = []
    found = Recipe.read(config(tmp_path)).run(told=said.append)
    features = Recipe.read(config(tmp_path)).data["features"]
    assert [entry if isinstance(entry, str) else entry["name"] for entry in features] == ["load", "change"]
    data = prepare(
        path, target="load", features=found.prepared.spec.features, window=6, horizon=2, time_column="time",
        missing="hold", units={"load": "kW"}, scaling="none",
    )  # fmt: skip
    with seeded(0):
        model = LSTMModel(data.config(hidden_sizes=(5,)))
    history = fit(model, data.train, data.validation, epochs=2, learning_rate=0.01, scale_targets=True)
    assert history.loss == pytest.approx(found.history.loss, rel=1e-5)
    expected = evaluate(found.model, found.prepared.test, train=found.prepared.train, last=found.prepared.test.last)
    assert found.metrics.model == expected.model
    assert set(found.metrics.rows) == {"lstm", "training_mean", "persistence"}
    told = found.model.data.provenance
    assert told["metrics"] == found.metrics.to_dict()
    assert (told["metrics_on"], told["data"], told["seed"]) == ("test", "sensor.csv", 0)
    assert len(told["training"]["loss"]) == 2
    assert " split of " in told["split"]
    assert found.model.data.output_unit == "kW"
    assert found.model.data.target == "load 2 hours ahead"
    assert tuple(said) == found.prepared.notes
    assert any("missing" in note or "held" in note for note in said)


def test_changes_stand_instead_of_the_file(tmp_path):
    """What is given beside the file wins, entry by entry; the rest is the file's."""
    sensor(tmp_path)
    recipe = Recipe.read(config(tmp_path), training={"epochs": 1}, model={})
    assert recipe.training == {"epochs": 1, "learning_rate": 0.01}
    assert recipe.model == {"hidden_sizes": [5]}
    assert recipe.data["input"] == str(tmp_path / "sensor.csv")


def test_retain_is_trained_from_a_recipe(tmp_path):
    """Kind = "retain" makes a RETAIN with the data's sizes and task."""
    recipe = Recipe(
        data={"input": sensor(tmp_path), "target": "high", "features": ["load"], "window": 5, "missing": "hold"},
        model={"kind": "retain", "embedding_dim": 4, "alpha_size": 3, "beta_size": 3},
        training={"epochs": 1, "class_weights": "balanced"},
    )
    found = recipe.run()
    assert isinstance(found.model, RETAIN)
    assert (found.model.config.input_size, found.model.config.task) == (1, "binary")
    assert found.model.data.classes == ("down", "up")
    assert found.metrics.confusion.sum() == found.metrics.count


def texts(folder: Path) -> Path:
    """A CSV of words that end in -a or -o, and of what language they feign to be."""
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("bcdlmnrst"), 4)) + end for end in "ao" for _ in range(60)]
    path = folder / "words.csv"
    pd.DataFrame({"word": words, "language": ["one"] * 60 + ["two"] * 60, "kind": range(120)}).to_csv(path, index=False)
    return path


def test_texts_are_learned_from_a_recipe(tmp_path):
    """With text_column each row is a text; what is predicted is called as its column."""
    recipe = Recipe(
        data={"input": str(texts(tmp_path)), "text_column": "word", "target": "language", "group_column": "kind",
              "split": "grouped", "unit": "character"},
        model={"hidden_sizes": [8], "embedding_dim": 4},
        training={"epochs": 15, "learning_rate": 0.03, "batch_size": 8},
    )  # fmt: skip
    found = recipe.run()
    assert found.model.data.target == "the language"
    assert found.model.data.token_unit == "character"
    assert found.metrics.model["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data", "is no TOML"),
        ("[date]\n", r"has the unknown table \[date\]; .*data"),
        ("data = 3", "data is 3; expected a table"),
        ("[model]\nhidden_sizes = [3]", "data.input is missing; name the file"),
        ('[data]\ninput = "sensor.csv"', "data.target is missing; name the column"),
        (CONFIG.replace("window", "windows"), "data has the unknown entry 'windows'; .*window"),
        (CONFIG.replace("hidden_sizes", "hidden"), "model has the unknown entry 'hidden'; .*hidden_sizes"),
        (CONFIG.replace("epochs", "epoch"), "training has the unknown entry 'epoch'; .*epochs"),
        (CONFIG + "checkpoint = 'run'", "training has the unknown entry 'checkpoint'"),
        (CONFIG + "[model2]", r"unknown table \[model2\]"),
        (CONFIG.replace("hidden_sizes = [5]", "kind = 'gru'"), "model.kind is 'gru'"),
        (CONFIG.replace("window = 6", "window = 'six'"), "window"),
        (CONFIG.replace("[5]", "['five']"), "hidden_sizes"),
        (CONFIG.replace("horizon = 2", "horizon = 2\nfractions = [1, 0, 0]"), "leave nothing to measure"),
        (CONFIG.replace('transform = "difference"', 'transform = "log"'), "transform 'log'"),
    ],
)  # fmt: skip
def test_bad_recipes_are_refused_in_a_sentence(tmp_path, text, message):
    """What is unknown, missing or of the wrong kind is named, with what it should be."""
    sensor(tmp_path)
    with pytest.raises((InvalidInputError, InvalidTypeError), match=message):
        Recipe.read(config(tmp_path, text)).run()


def test_a_recipe_file_that_is_not_there(tmp_path):
    """A missing or binary file is refused in a sentence."""
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        Recipe.read(tmp_path / "nothing.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="it is no UTF-8 text"):
        Recipe.read(tmp_path / "b.toml")


def test_nothing_to_measure_is_said_before_the_training(tmp_path, monkeypatch):
    """A split without validation and test is refused before any time is spent."""
    monkeypatch.setattr(Recipe, "_fresh", lambda *_args: pytest.fail("it was trained"))
    sensor(tmp_path)
    with pytest.raises(InvalidInputError, match="leave nothing to measure"):
        Recipe.read(config(tmp_path), data={"fractions": [1, 0, 0]}).run()


# -- gatelens train ----------------------------------------------------------------------------------------------------


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_train_saves_a_model_that_reports_read(tmp_path, monkeypatch):
    """The folder loads, its metrics are those printed, the curves are drawn, and the next command works."""
    monkeypatch.chdir(tmp_path)
    sensor(tmp_path)
    shown = run("train", config(tmp_path), "--out", "kept", "--epochs", 3)
    model = load("kept")
    assert len(model.data.provenance["training"]["loss"]) == 3
    mae = model.data.provenance["metrics"]["lstm"]["mae"]
    assert f"{mae:.4g}" in shown
    assert "training mean" in shown
    assert "persistence" in shown
    assert (tmp_path / "kept-training.svg").read_text(encoding="utf-8").startswith("<?xml")
    following = next(line for line in shown.splitlines() if line.startswith("next")).split()[1:]
    assert following[:3] == ["gatelens", "report", "kept"]
    run(*following[1:])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "load 2 hours ahead" in page
    assert "3 epochs" in page


def test_train_with_options_alone_and_json(tmp_path):
    """Without a file --input, --target and --window are enough; --json tells all on standard output."""
    path = sensor(tmp_path)
    told = json.loads(
        run("train", "--input", path, "--target", "high", "--feature", "load", "--window", 4, "--missing", "drop",
            "--hidden", "4,3", "--pooling", "mean", "--epochs", 1, "--balanced", "--out", tmp_path / "m", "--json")
    )  # fmt: skip
    model = load(tmp_path / "m")
    assert model.config.hidden_sizes == (4, 3)
    assert model.config.pooling == "mean"
    assert told["metrics"] == model.data.provenance["metrics"]
    assert told["epochs"] == 1
    assert any("drop" in note for note in told["notes"])


def test_a_killed_training_goes_on(tmp_path):
    """With --checkpoint the same command ends with the same weights as one that was never interrupted."""
    path = sensor(tmp_path)
    options = ["train", "--input", path, "--target", "load", "--feature", "load", "--window", 4, "--missing", "hold",
               "--horizon", 1, "--hidden", 3]  # fmt: skip
    run(*options, "--epochs", 4, "--out", tmp_path / "whole")
    run(*options, "--epochs", 2, "--out", tmp_path / "part", "--checkpoint", tmp_path / "run")
    run(*options, "--epochs", 4, "--out", tmp_path / "part", "--checkpoint", tmp_path / "run")
    one, two = (load(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--input is missing; name a config file, or give at least --input FILE"),
        (["--input", "{path}"], "--target is missing"),
        (["--input", "{path}", "--target", "lod", "--window", 3], "lod"),
        (["--input", "{path}", "--target", "load", "--window", 3, "--hidden", "big"], "--hidden is 'big'"),
        (["--input", "{path}", "--target", "load", "--window", 3, "--horizon", 1], "no number column"),
        (["--input", "{path}", "--target", "high", "--feature", "load", "--window", 3], "missing"),
        (["--input", "nothing.csv", "--target", "load", "--window", 3], "does not exist"),
        (["{path}"], "is no TOML"),
    ],
)
def test_train_refuses_in_a_sentence(tmp_path, options, message):
    """Nothing is written, and the sentence names what is wrong."""
    path = sensor(tmp_path)
    out = tmp_path / "out"
    args = [str(option).replace("{path}", str(path)) for option in options]
    with pytest.raises(InvalidInputError, match=message):
        CliRunner().invoke(app, ["train", *args, "--out", str(out)], catch_exceptions=False)
    assert not out.exists()


def test_a_folder_with_other_files_is_refused_before_the_training(tmp_path, monkeypatch):
    """Nobody waits for a training that cannot be saved."""
    monkeypatch.setattr(Recipe, "_fresh", lambda *_args: pytest.fail("it was trained"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    sensor(tmp_path)
    with pytest.raises(InvalidInputError, match="holds files"):
        run("train", config(tmp_path), "--out", tmp_path / "out")
