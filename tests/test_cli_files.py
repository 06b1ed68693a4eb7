"""Commands on other people's files: the numbers are those of the models in them, and a bad file ends in a sentence."""

import io
import json
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gatelens.cli import main
from gatelens.explainers import Attribution, GateSaliency, IntegratedGradients
from gatelens.models import LSTMConfig, LSTMModel, gate_statistics, open_model
from gatelens.models.trace import GATES
from gatelens.reports.gate_words import gate_sentences, steps_count
from gatelens.reports.wording import number, percent
from helpers.keras_made import edit_weights, functional, keras, members, names_of, predicted, saved, sequential, write

WINDOW, FEATURES = 12, 3
COLUMNS = ("temperature", "load", "wind")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process and return (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gatelens", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


class Net(nn.Module):
    """Two layers and a head; weights so large that some gates are saturated."""

    def __init__(self, outputs: int = 1, *, bidirectional: bool = False, pooling: str = "last"):
        super().__init__()
        self.pooling = pooling
        self.lstm = nn.LSTM(FEATURES, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.Linear(5 * (1 + bidirectional), outputs)
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape))

    def forward(self, inputs):
        states, (last, _) = self.lstm(inputs)  # (B, T, H), (layers, B, H)
        directions = 1 + self.lstm.bidirectional
        pooled = states.mean(1) if self.pooling == "mean" else torch.cat(list(last[-directions:]), dim=-1)
        return self.fc(pooled)


def state_dict(folder: Path, net: nn.Module) -> Path:
    path = folder / "weights.pt"
    torch.save(net.state_dict(), path)
    return path


def checkpoint(folder: Path, net: nn.Module) -> Path:
    path = folder / "checkpoint.pth"
    torch.save({"epoch": 3, "model_state_dict": net.state_dict(), "loss": 0.1}, path)
    return path


def safetensors(folder: Path, net: nn.Module) -> Path:
    path = folder / "weights.safetensors"
    save_file(net.state_dict(), path)
    return path


def recurrent(units: int = 5, **options: Any) -> Any:
    return keras.layers.LSTM(units, name="memory", **options)


def ending(outputs: int, activation: str | None) -> Any:
    return sequential(
        keras.Input((WINDOW, FEATURES)), recurrent(), keras.layers.Dense(outputs, activation=activation, name="answer")
    )


def attending() -> Any:
    """A model that is no LSTMModel in other words: both directions, attention, two Dense."""
    inputs = keras.Input((WINDOW, FEATURES))
    both = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True, name="inner"), name="both")(inputs)
    pooled = keras.layers.GlobalAveragePooling1D(name="pooled")(keras.layers.Attention(name="attention")([both, both]))
    hidden = keras.layers.Dense(6, activation="relu", name="hidden")(pooled)
    return functional(inputs, keras.layers.Dense(3, activation="softmax", name="answer")(hidden))


def each_step() -> Any:
    return sequential(
        keras.Input((WINDOW, FEATURES)),
        recurrent(return_sequences=True),
        keras.layers.TimeDistributed(keras.layers.Dense(2), name="answers"),
    )


def without_lstm() -> Any:
    return sequential(keras.Input((WINDOW, FEATURES)), keras.layers.Flatten(), keras.layers.Dense(1, name="answer"))


def tokens(*, mask: bool = True) -> Any:
    return sequential(
        keras.Input((None,)),
        keras.layers.Embedding(9, 4, mask_zero=mask, name="embedding"),
        recurrent(),
        keras.layers.Dense(1, activation="sigmoid", name="answer"),
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of 30 rows, which is more than a window."""
    path = tmp_path / "readings.csv"
    values = np.random.default_rng(0).normal(scale=2, size=(30, FEATURES)).round(3)
    pd.DataFrame(values, columns=list(COLUMNS)).to_csv(path, index=False)
    return path


def windows(table: Path, length: int = WINDOW) -> np.ndarray:
    """Return every window of a table, (B, length, D) float32, oldest first."""
    values = pd.read_csv(table).to_numpy(np.float32)
    return np.stack([values[start : start + length] for start in range(len(values) - length + 1)])


# -- inspect ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A file, and what is to be read about it."""

    make: Callable[[Path], Path]
    kind: str
    explained: str
    layers: tuple[tuple[str, str, str, str, int], ...]
    found: tuple[str, ...]
    module: nn.Module | None = None  # whose gates are those of the file


ONE, THREE, BOTH = Net(), Net(3), Net(2, bidirectional=True)
CASES = {
    "pt": Case(
        lambda folder: state_dict(folder, ONE),
        "LSTM, 2 layers of 5 and 5 units, last pooling, regression, 1 output",
        "the predicted value",
        (("lstm.0", "LSTM", "3", "5", 200), ("lstm.1", "LSTM", "5", "5", 240), ("head", "Linear", "5", "1", 6)),
        ("lstm is an LSTM of 2 layers: 3 -> 5", "a linear head, 5 -> 1"),
        ONE,
    ),
    "pth": Case(
        lambda folder: checkpoint(folder, THREE),
        "LSTM, 2 layers of 5 and 5 units, last pooling, multiclass, 3 outputs",
        "the probability (softmax) or the score (logit) of the predicted class",
        (("lstm.0", "LSTM", "3", "5", 200), ("lstm.1", "LSTM", "5", "5", 240), ("head", "Linear", "5", "3", 18)),
        ("lstm is an LSTM of 2 layers: 3 -> 5", "a linear head, 5 -> 3"),
        THREE,
    ),
    "safetensors": Case(
        lambda folder: safetensors(folder, BOTH),
        "LSTM, 2 layers of 5 and 5 units, bidirectional, last pooling, multiclass, 2 outputs",
        "the probability (softmax) or the score (logit) of the predicted class",
        (("lstm.0", "LSTM", "3", "10", 400), ("lstm.1", "LSTM", "10", "10", 680), ("head", "Linear", "10", "2", 22)),
        ("lstm is an LSTM of 2 layers, both directions: 3 -> 10", "a linear head, 10 -> 2"),
        BOTH,
    ),
    "keras": Case(
        lambda folder: saved(ending(1, "sigmoid"), folder),
        "LSTM, 1 layer of 5 units, last pooling, binary, 1 output",
        "the probability (sigmoid) or the score (logit)",
        (("lstm.0", "LSTM", "3", "5", 200), ("head", "Linear", "5", "1", 6)),
        ("memory: LSTM, 5 units", "the sigmoid of answer is taken off"),
    ),
    "h5": Case(
        lambda folder: saved(ending(3, "softmax"), folder, "h5"),
        "LSTM, 1 layer of 5 units, last pooling, multiclass, 3 outputs",
        "the probability (softmax) or the score (logit) of the predicted class",
        (("lstm.0", "LSTM", "3", "5", 200), ("head", "Linear", "5", "3", 18)),
        ("memory: LSTM, 5 units", "the softmax of answer is taken off"),
    ),
    "graph": Case(
        lambda folder: saved(attending(), folder),
        "Keras model with an LSTM layer of 4 units each way, multiclass, 3 outputs",
        "the probability (softmax) or the score (logit) of the predicted class",
        (("both", "LSTM", "3", "8", 288), ("hidden", "Linear", "8", "6", 54), ("answer", "Linear", "6", "3", 21)),
        ("both: Bidirectional LSTM, 4 units", "attention: Attention"),
    ),
    "steps": Case(
        lambda folder: saved(each_step(), folder, "h5"),
        "LSTM, 1 layer of 5 units, one output a timestep, regression, 2 outputs",
        "the predicted value of the output named by target, at the last timestep unless target names another",
        (("lstm.0", "LSTM", "3", "5", 200), ("head", "Linear", "5", "2", 12)),
        ("memory: LSTM, 5 units", "answers: Dense, 2 units"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inspect_tells_the_architecture(run, tmp_path: Path, name: str) -> None:
    """`inspect` names the file, each layer with its widths and its count of weights, and what will be explained."""
    case = CASES[name]
    path = case.make(tmp_path)
    code, out, err = run("inspect", path)
    assert code == 0, err
    assert "--input CSV" in err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"Kind {case.kind}" in lines
    assert f"Explained {case.explained}" in lines
    assert f"Parameters {sum(layer[-1] for layer in case.layers):,}" in lines
    assert any(line.startswith(f"Read from {path.name} (") for line in lines)
    start = lines.index("Name Kind Reads Gives Parameters")
    rows = [tuple(line.split()) for line in lines[start + 1 :] if line]
    assert rows == [tuple(map(str, layer)) for layer in case.layers]
    for words in case.found:
        assert any(line.startswith(f"- {words}") for line in lines), words


@pytest.mark.parametrize("name", CASES)
def test_inspect_measures_the_gates(run, tmp_path: Path, table: Path, name: str) -> None:
    """The gates' numbers are those of the module in the file, over every window of the table: as JSON, and in words."""
    case = CASES[name]
    path = case.make(tmp_path)
    inputs = windows(table)
    expected = gate_statistics(case.module or open_model(path), inputs)
    code, out, err = run("inspect", path, "--input", table, "--window", WINDOW, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["sequences"] == len(inputs) == 19
    assert list(told["gates"]) == list(expected)
    for layer, found in told["gates"].items():
        statistics = expected[layer].to_dict()
        assert found["timesteps"] == 19 * WINDOW
        assert found["resting_units"] == statistics["resting_units"]
        for entry in ("open_share", "closed_share"):
            assert found[entry] == pytest.approx(statistics[entry], abs=1e-3)
        for entry in ("half_life", "mean_half_life", "half_lives"):
            assert found[entry] == pytest.approx(statistics[entry], rel=1e-4)
    assert any(sum(statistics.saturated_share.values()) > 0.05 for statistics in expected.values())

    code, out, _ = run("inspect", path, "--input", table, "--window", WINDOW)
    assert code == 0
    assert "19 sequences, 228 timesteps" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    flat = " ".join(lines)
    for layer, statistics in expected.items():
        shares = " ".join(percent(statistics.saturated_share[gate]) for gate in GATES)
        dead = f"{len(statistics.resting_units)} of {len(statistics.unit_ranges)}"
        assert f"{layer} {shares} {steps_count(statistics.mean_half_life)} {dead}" in lines
        for sentence in gate_sentences(statistics):
            assert sentence in flat


def test_inspect_follows_task_and_pooling(run, tmp_path: Path) -> None:
    """--task and --pooling replace what was assumed about weights, and a Keras file refuses them: it says so itself."""
    path = state_dict(tmp_path, ONE)
    code, out, _ = run("inspect", path)
    assert code == 0
    assert "Assumed (change what is assumed with --pooling and --task)" in out
    assert "pooling 'last' is assumed" in out
    code, out, _ = run("inspect", path, "--task", "binary", "--pooling", "mean")
    assert code == 0
    assert "mean pooling, binary, 1 output" in out
    assert "Assumed" not in out
    for option, value in (("--task", "binary"), ("--pooling", "mean")):
        code, out, err = run("inspect", saved(ending(1, None), tmp_path), option, value)
        assert (code, out) == (2, "")
        assert "says so itself" in err


# -- explain and report ----------------------------------------------------------------------------------------------


def explained(run: Any, *words: object) -> tuple[dict[str, Any], str]:
    code, out, err = run("explain", *words, "--json")
    assert code == 0, err
    return json.loads(out)["integrated_gradients"], err


@pytest.mark.parametrize(
    ("net", "make", "options", "task"),
    [
        (Net(), state_dict, (), None),
        (Net(pooling="mean"), safetensors, ("--pooling", "mean", "--task", "binary"), "binary"),
        (Net(3), checkpoint, (), "multiclass"),
    ],
)
def test_explain_pytorch_weights(run, tmp_path: Path, table: Path, net, make, options, task) -> None:
    """`explain` gives what the explainer gives on the very module whose weights were saved."""
    inputs = windows(table)[-1:]
    output = "logit" if task is None else "probability"
    expected = IntegratedGradients(net.eval(), baseline="zero", output=output, task=task).explain(inputs)
    written = tmp_path / "a.nc"
    told, err = explained(run, make(tmp_path, net), "-i", table, "--window", WINDOW, "-o", written, *options)
    assert "one sequence" not in err
    (sample,) = told["samples"]
    assert sample["sample"] == "rows 19 to 30"
    assert sample["target_timestep"] is None
    assert sample["target_output"] == int(expected.dataset["target_output"][0])
    assert sample["prediction"] == pytest.approx(float(expected.prediction[0]), abs=1e-5)
    np.testing.assert_allclose(sample["timesteps"], expected.timesteps[0], atol=1e-5)
    np.testing.assert_allclose([sample["features"][name] for name in COLUMNS], expected.features[0], atol=1e-5)
    np.testing.assert_allclose(Attribution.load(written).values, expected.values, atol=1e-5)
    assert np.abs(expected.values).max() > 1e-2


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize(
    ("build", "target"),
    [
        (lambda: ending(1, None), None),
        (lambda: ending(1, "sigmoid"), None),
        (lambda: ending(3, "softmax"), None),
        (attending, 2),
        (each_step, (4, 1)),
        (without_lstm, None),
    ],
)
def test_explain_keras_models(run, tmp_path: Path, table: Path, build, form, target) -> None:
    """`explain` explains the number that Keras predicts, and gives what the explainer gives in Python."""
    model = build()
    path = saved(model, tmp_path, form)
    inputs = windows(table)[-1:]
    classes = open_model(path).config.task != "regression"
    expected = IntegratedGradients(
        open_model(path), baseline="zero", output="probability" if classes else "logit"
    ).explain(inputs, target=target)
    words = [] if target is None else ["-t", "4,1" if isinstance(target, tuple) else target]
    told, _ = explained(run, path, "-i", table, "--window", WINDOW, *words)
    (sample,) = told["samples"]
    ours = predicted(model, inputs)[0]
    chosen = ours[target] if target is not None else ours.max()
    assert sample["prediction"] == pytest.approx(float(chosen), abs=1e-5)
    assert sample["target_timestep"] == (4 if isinstance(target, tuple) else None)
    np.testing.assert_allclose(sample["timesteps"], expected.timesteps[0], atol=1e-6)
    assert np.abs(expected.values).max() > 1e-3


def test_explain_names_the_timestep(run, tmp_path: Path, table: Path) -> None:
    """Of outputs of each timestep, people read which one is explained, counted from 1 as on the page."""
    code, out, err = run("explain", saved(each_step(), tmp_path), "-i", table, "--window", WINDOW, "-t", "4,1")
    assert code == 0, err
    assert out.startswith("Integrated gradients: rows 19 to 30, output 1 at timestep 5: ")


@pytest.mark.parametrize(
    ("words", "target", "told"),
    [
        (("--timestep", "5", "-t", "1"), (5, 1), " at timestep 6"),
        (("--timestep", "-1", "-t", "1"), (-1, 1), " at timestep 12"),
        (("--timestep", "3:8", "-t", "0"), (slice(3, 8), 0), ", summed over timesteps 4 to 8"),
        (("--timestep", "-3:", "-t", "1"), (slice(-3, None), 1), ", summed over timesteps 10 to 12"),
        (("--timestep", ":", "-t", "1"), (slice(None), 1), ", summed over timesteps 1 to 12"),
        (("--timestep=:-1", "-t", "1"), (slice(None, -1), 1), ", summed over timesteps 1 to 11"),
        (("-t", "3:8,1"), (slice(3, 8), 1), ", summed over timesteps 4 to 8"),
    ],
)
def test_explain_timesteps_and_windows(run, tmp_path: Path, table: Path, words, target, told) -> None:
    """--timestep explains one output timestep, or the sum over START:STOP, as a slice does in Python."""
    path = saved(each_step(), tmp_path)
    found, _ = explained(run, path, "-i", table, "--window", WINDOW, *words)
    expected = IntegratedGradients(open_model(path), baseline="zero").explain(windows(table)[-1:], target=target)
    (sample,) = found["samples"]
    assert sample["prediction"] == pytest.approx(float(expected.prediction[0]), abs=1e-5)
    np.testing.assert_allclose(sample["timesteps"], expected.timesteps[0], atol=1e-5)
    assert sample["target_timestep"] == expected.diagnostic("target_timestep")[0]
    last = expected.diagnostic("target_last")
    assert sample["target_last"] == (None if last is None else last[0])
    code, out, err = run("explain", path, "-i", table, "--window", WINDOW, *words)
    assert code == 0, err
    assert out.startswith(f"Integrated gradients: rows 19 to 30, output {target[1]}{told}: ")


def test_report_of_a_window(run, tmp_path: Path, table: Path) -> None:
    """`report` takes --timestep too."""
    page = tmp_path / "page.html"
    words = ("-i", table, "--window", WINDOW, "-m", "deeplift", "-t", "1", "--timestep", "3:8", "-o", page)
    code, _, err = run("report", saved(each_step(), tmp_path), *words)
    assert code == 0, err
    assert "The sum over timesteps 4 to 8 of the prediction of output 1 is" in text_of_page(page)


@pytest.mark.parametrize("command", ["explain", "report"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--timestep", "half", "-t", "1"),
            "--timestep is 'half'; expected a number (5, or -1 for the last), or START",
        ),
        (("--timestep", "3:8:2", "-t", "1"), "--timestep is '3:8:2'; expected"),
        (("--timestep", "", "-t", "1"), "--timestep is ''; expected"),
        (("--timestep", "12", "-t", "1"), "target timestep is 12, but sequence 0 has the timesteps 0 to 11"),
        (("--timestep", "3:20", "-t", "1"), "reaches beyond sequence 0, with the timesteps 0 to 11"),
        (("--timestep", "8:3", "-t", "1"), "holds no timestep of sequence 0"),
        (("--timestep", "3:8"), "choose one with --target, 0 to 1"),
        (("--timestep", "3:8", "-t", "4,1"), "--target is '4,1' and --timestep is '3:8'; give the timestep once"),
    ],
)
def test_timesteps_that_are_refused(run, tmp_path: Path, table: Path, command, words, message) -> None:
    """What is no timestep or window, or leaves the sequence, is told in a sentence."""
    code, out, err = run(command, saved(each_step(), tmp_path), "-i", table, "--window", WINDOW, *words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_timesteps_need_outputs_of_each_timestep(run, tmp_path: Path, table: Path) -> None:
    """A model with one output a sequence has no timestep to choose."""
    for path in (saved(ending(1, None), tmp_path), state_dict(tmp_path, ONE)):
        code, out, err = run("explain", path, "-i", table, "--window", WINDOW, "--timestep", "3:8")
        assert (code, out) == (2, "")
        assert "--timestep is '3:8', but this model has one output a sequence" in " ".join(err.split())


@pytest.mark.parametrize("mask", [True, False])
def test_explain_token_ids(run, tmp_path: Path, mask) -> None:
    """A text model without its words explains a column of token ids, and refuses words and unknown ids."""
    model = tokens(mask=mask)
    path = saved(model, tmp_path)
    ids = np.array([[3, 1, 8, 8, 2]])
    table = tmp_path / "text.csv"
    pd.DataFrame({"token": ids[0]}).to_csv(table, index=False)
    told, err = explained(run, path, "-i", table)
    assert "read as token ids" in err
    (sample,) = told["samples"]
    expected = IntegratedGradients(open_model(path), baseline="pad", output="probability").explain(ids)
    assert sample["prediction"] == pytest.approx(float(predicted(model, ids)[0, 0]), abs=1e-5)
    np.testing.assert_allclose(sample["timesteps"], expected.timesteps[0], atol=1e-6)
    for content, message in (
        ("token\ngood\nday\n", "has no column 'token' of whole numbers; the model reads token ids, 0 to 8"),
        ("word\n1\n", "has no column 'token' of whole numbers"),
        ("token\n1\n9\n", "data row 2 has the token '9'"),
    ):
        table.write_text(content)
        code, out, err = run("explain", path, "-i", table)
        assert (code, out) == (2, "")
        assert message in err


def test_whole_table_or_windows(run, tmp_path: Path, table: Path) -> None:
    """Weights do not say how long a window is: the whole table is one sequence, aloud, or --window cuts it."""
    path = state_dict(tmp_path, ONE)
    told, err = explained(run, path, "-i", table)
    assert "the whole table is one sequence" in err
    assert "--window" in err
    (sample,) = told["samples"]
    assert sample["sample"] == "rows 1 to 30"
    assert sample["prediction"] == pytest.approx(ONE(torch.tensor(windows(table, 30))).item(), abs=1e-5)
    told, err = explained(run, path, "-i", table, "--window", 10, "--windows", "all", "--stride", 5)
    assert "one sequence" not in err
    ends = [10, 15, 20, 25, 30]
    assert [sample["sample"] for sample in told["samples"]] == [f"rows {end - 9} to {end}" for end in ends]
    expected = ONE(torch.tensor(windows(table, 10)[::5])).flatten().tolist()
    assert [sample["prediction"] for sample in told["samples"]] == pytest.approx(expected, abs=1e-5)
    for length, message in ((31, "30 rows; the model reads 31 timesteps"), (0, "--window is 0")):
        code, out, err = run("explain", path, "-i", table, "--window", length)
        assert (code, out) == (2, "")
        assert message in err


def test_window_of_a_model_that_says_its_own(run, tmp_path: Path, table: Path) -> None:
    """A Keras model made for 12 timesteps reads the newest 12 rows, and --window cannot say otherwise."""
    path = saved(ending(1, None), tmp_path)
    told, _ = explained(run, path, "-i", table)
    assert told["samples"][0]["sample"] == "rows 19 to 30"
    code, out, err = run("explain", path, "-i", table, "--window", 10)
    assert (code, out) == (2, "")
    assert "--window is 10, but the model reads 12 rows" in err


def test_columns_that_are_not_read_are_named(run, tmp_path: Path, table: Path) -> None:
    """Text columns beside the numbers are left out, aloud; too few or too many number columns are refused."""
    path = state_dict(tmp_path, ONE)
    frame = pd.read_csv(table)
    frame.assign(place="roof").to_csv(table, index=False)
    _, err = explained(run, path, "-i", table)
    assert "the columns temperature, load, wind are read as they stand" in err
    assert "Not read: place." in err
    for changed, count in ((frame.drop(columns="wind"), "2 number columns (temperature, load)"),
                           (frame.assign(rain=1.0), "4 number columns (temperature, load, wind, rain)")):  # fmt: skip
        changed.to_csv(table, index=False)
        for file in (path, saved(ending(1, "sigmoid"), tmp_path)):
            for command in ("inspect", "explain", "report"):
                code, out, err = run(command, file, "-i", table)
                assert (code, out) == (2, "")
                assert f"{count}; the model reads 3 features" in err


def test_notes_tell_what_was_assumed_and_left_out(run, tmp_path: Path, table: Path) -> None:
    """On standard error: the assumptions with the options that change them, and what was not taken over."""
    _, err = explained(run, checkpoint(tmp_path, THREE), "-i", table)
    assert "note: checkpoint.pth: pooling 'last' is assumed" in err
    assert "note: checkpoint.pth: task 'multiclass' is assumed" in err
    assert "note: change what is assumed with --pooling and --task\n" in err
    assert "note: checkpoint.pth: not taken over: beside model_state_dict in the checkpoint" in err
    _, err = explained(run, saved(ending(1, None), tmp_path), "-i", table)
    assert "assumed" not in err


@pytest.mark.parametrize("command", ["explain", "report"])
def test_several_outputs_need_a_target(run, tmp_path: Path, table: Path, command) -> None:
    """A regression of two outputs asks for --target by its name on the command line."""
    code, out, err = run(command, saved(each_step(), tmp_path), "-i", table)
    assert (code, out) == (2, "")
    assert "choose one with --target, 0 to 1" in err


def text_of_page(path: Path) -> str:
    page = path.read_text(encoding="utf-8")
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.mark.parametrize("name", ["pt", "safetensors", "keras", "graph"])
def test_report_shows_the_gates(run, tmp_path: Path, table: Path, name: str) -> None:
    """`report` writes a page with the gates, the numbers of the gate explainer, and where the model is from."""
    path = CASES[name].make(tmp_path)
    page = tmp_path / "page.html"
    code, out, err = run(
        "report", path, "-i", table, "--window", WINDOW, "-o", page, "-m", "integrated_gradients", "-m", "gate_saliency"
    )
    assert (code, out) == (0, ""), err
    assert f"wrote {page}" in err
    text = text_of_page(page)
    assert "The gates, unit by unit" in text
    assert f"Read from {path.name} (" in text
    assert CASES[name].kind in text
    model = open_model(path)
    output = "logit" if model.config.task == "regression" else "probability"
    saliency = GateSaliency(model, baseline="zero", output=output).explain(windows(table)[-1:])
    strongest = float(saliency.timesteps[0][np.abs(saliency.timesteps[0]).argmax()])
    assert number(strongest, signed=True) in text


def test_report_of_a_model_without_gates(run, tmp_path: Path, table: Path) -> None:
    """A model without LSTM gets the methods that need none; gate saliency, asked for, is refused."""
    path, page = saved(without_lstm(), tmp_path), tmp_path / "page.html"
    code, out, err = run("report", path, "-i", table, "--window", WINDOW, "-o", page, "--json")
    assert code == 0, err
    assert json.loads(out)["methods"] == ["integrated_gradients", "temporal_shapley", "lime"]
    assert "The gates, unit by unit" not in text_of_page(page)
    page.unlink()
    code, out, err = run("inspect", path, "-i", table, "--window", WINDOW)
    assert code == 0, err
    assert "Layers" in out
    assert "The model holds no LSTM, so there are no gates to show." in err
    for words in (["explain", "-m", "gate_saliency"], ["report", "-m", "gate_saliency", "-o", page]):
        code, out, err = run(*words, path, "-i", table, "--window", WINDOW)
        assert (code, out) == (2, "")
        assert "no gates to record. Explainers that need none work on it: integrated_gradients" in err
    assert not page.exists()


# -- hostile and damaged files ---------------------------------------------------------------------------------------


class RunsCode:
    """What a hostile pickle holds: unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def refused(run: Any, path: Path, table: Path, message: str) -> None:
    """Check that each command refuses the file in one sentence and leaves nothing behind."""
    before = sorted(path.parent.rglob("*"))
    page, written = path.parent / "page.html", path.parent / "a.nc"
    for words in (["inspect"], ["inspect", "-i", table, "--json"], ["explain", "-i", table, "-o", written],
                  ["report", "-i", table, "-o", page]):  # fmt: skip
        code, out, err = run(words[0], path, *words[1:])
        assert (code, out) == (2, "")
        assert err.startswith("gatelens: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert path.name in err
        assert re.search(message, err), err
        assert len(err) < 700
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_a_pickle_is_not_run(run, tmp_path: Path, table: Path, suffix, old) -> None:
    """A pickle that would run code is refused by what it asks for, and its code does not run."""
    marker, path = tmp_path / "marker", tmp_path / f"model.{suffix}"
    held = {"lstm.weight_ih_l0": RunsCode(marker)}
    if old:
        path.write_bytes(pickle.dumps(held))
        pickle.loads(path.read_bytes())
    else:
        torch.save(held, path)
        torch.load(path, weights_only=False)
    marker.rmdir()  # the attack works on who loads the file
    refused(run, path, table, r"posix\.mkdir object; loading it would run its code.*state_dict")
    assert not marker.exists()


@pytest.mark.parametrize("module", [Net(), nn.LSTM(3, 4)], ids=["net", "lstm"])
def test_a_pickled_module_is_not_loaded(run, tmp_path: Path, table: Path, module) -> None:
    """A whole pickled module is refused, with the way to save its weights."""
    path = tmp_path / "module.pt"
    torch.save(module, path)
    name = type(module).__name__
    refused(run, path, table, rf"holds a pickled \S*\b{name} object.*torch\.save\(model\.state_dict\(\)")


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors", "keras", "h5"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file(run, tmp_path: Path, table: Path, suffix, share) -> None:
    """Of a file that breaks off, or is empty, nothing is made."""
    makers = {
        "pt": lambda: state_dict(tmp_path, ONE),
        "pth": lambda: checkpoint(tmp_path, ONE),
        "safetensors": lambda: safetensors(tmp_path, ONE),
    }
    whole = makers[suffix]() if suffix in makers else saved(ending(1, None), tmp_path, suffix)
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    refused(run, whole, table, "empty|damaged|truncated|did not write|not a file")


def altered(tmp_path: Path, member: str, content: bytes) -> Path:
    """Return a `.keras` file with one member replaced."""
    path = saved(ending(1, None), tmp_path)
    write(path, {**members(path), member: content}, zipfile.ZIP_DEFLATED)
    return path


def text_as_h5(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = text
    return path


def no_model_h5(tmp_path: Path) -> Path:
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        file["readings"] = np.zeros(3)
    return path


def with_weight(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Return a `.keras` file with its first weight changed."""
    path = saved(ending(1, None), tmp_path)

    def edit(file: h5py.File) -> None:
        name = next(name for name in names_of(file) if name.startswith("layers"))
        value = change(file[name][()])
        del file[name]
        file[name] = value

    edit_weights(path, edit)
    return path


def with_tensor(tmp_path: Path, name: str, value: torch.Tensor, suffix: str = "pt") -> Path:
    state = Net().state_dict() | {name: value}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def as_file(tmp_path: Path, name: str, values: Any) -> Path:
    torch.save(values, tmp_path / name)
    return tmp_path / name


def renamed(path: Path, name: str) -> Path:
    return path.rename(path.parent / name)


def folder_of(tmp_path: Path, name: str, *files: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    for file in files:
        (path / file).touch()
    return path


DEEP = '{"a":' * 10_000 + "1" + "}" * 10_000
DEEP_LIST = '{"class_name": "Sequential", "config": ' + "[" * 10_000 + "]" * 10_000 + "}"
HUGE = torch.full((1, 5), float("inf"))

BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "bomb of weights": (
        lambda folder: altered(folder, "model.weights.h5", bytes(96 * 2**20)),
        "unpacks to 100.7 MB; expected up to",
    ),
    "bomb of config": (lambda folder: altered(folder, "config.json", b" " * 2**25), "unpacks to 33.6 MB"),
    "deep config": (lambda folder: altered(folder, "config.json", DEEP.encode()), "nested too deeply"),
    "deep list": (lambda folder: altered(folder, "config.json", DEEP_LIST.encode()), "nested too deeply"),
    "deep h5": (lambda folder: text_as_h5(folder, DEEP), "nested too deeply"),
    "config no JSON": (lambda folder: altered(folder, "config.json", b"\xff{"), "config.json is not|JSON"),
    "h5 no model": (no_model_h5, "not a model that keras.Model.save wrote"),
    "keras shape": (lambda folder: with_weight(folder, lambda value: value[:-1]), "has shape .*expects"),
    "keras NaN": (lambda folder: with_weight(folder, lambda value: value * np.nan), "NaN or infinite"),
    "pt shape": (
        lambda folder: with_tensor(folder, "lstm.weight_hh_l0", torch.zeros(19, 5)),
        r"weight_hh \(19, 5\); expected \(4H, D\) and \(4H, H\)",
    ),
    "pt bias": (lambda folder: with_tensor(folder, "fc.bias", torch.zeros(3)), r"bias \(3,\); expected \(1,\)"),
    "pt NaN": (lambda folder: with_tensor(folder, "fc.weight", HUGE * 0), "fc.weight holds NaN or infinite"),
    "safetensors infinite": (
        lambda folder: with_tensor(folder, "fc.weight", HUGE, "safetensors"),
        "fc.weight holds NaN or infinite",
    ),
    "pt whole numbers": (
        lambda folder: with_tensor(folder, "fc.weight", torch.ones(1, 5).long()),
        "fc.weight is torch.int64; expected floats",
    ),
    "no LSTM": (
        lambda folder: as_file(folder, "linear.pt", nn.Linear(3, 1).state_dict()),
        r"holds no LSTM.*explainer.*explain\(module, inputs\)",
    ),
    "GRU": (
        lambda folder: as_file(folder, "gru.pt", nn.GRU(3, 4).state_dict()),
        r"is a GRU.*explainer.*explain\(module, inputs\)",
    ),
    "a tensor": (lambda folder: as_file(folder, "tensor.pt", torch.zeros(3)), "holds a Tensor; expected a state dict"),
    "a list": (lambda folder: as_file(folder, "list.pt", [1, 2]), "holds a list; expected a state dict"),
    "wrong name": (lambda folder: renamed(state_dict(folder, ONE), "weights.onnx"), r"expected a folder.*\.keras"),
    "no suffix": (lambda folder: renamed(state_dict(folder, ONE), "weights"), r"expected a folder.*\.keras"),
    "torch as keras": (lambda folder: renamed(state_dict(folder, ONE), "model.keras"), "has no config.json"),
    "keras as torch": (lambda folder: renamed(saved(ending(1, None), folder), "model.pt"), "torch.save did not write"),
    "h5 as torch": (lambda folder: renamed(saved(ending(1, None), folder, "h5"), "model.pt"), "HDF5"),
    "safetensors as torch": (
        lambda folder: renamed(safetensors(folder, ONE), "weights.pt"),
        "looks like safetensors; rename it",
    ),
    "torch as safetensors": (
        lambda folder: renamed(state_dict(folder, ONE), "weights.safetensors"),
        "not a safetensors file",
    ),
    "a folder": (lambda folder: folder_of(folder, "models", "notes.txt"), "has no config.json"),
    "a folder named .keras": (lambda folder: folder_of(folder, "model.keras"), "has no config.json"),
    "TensorFlow's folder": (
        lambda folder: folder_of(folder, "saved", "saved_model.pb"),
        r'TensorFlow SavedModel folder; .*save\("model\.keras"\)',
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file(run, tmp_path: Path, table: Path, name: str) -> None:
    """Whatever is wrong with a file, each command says it in one sentence and writes nothing."""
    make, message = BAD_FILES[name]
    refused(run, make(tmp_path), table, message)


def test_bytes_that_are_no_weights(run, tmp_path: Path, table: Path) -> None:
    """Random bytes after a true beginning are refused under every name."""
    noise = np.random.default_rng(0).bytes(4000)
    buffer = io.BytesIO()
    torch.save({}, buffer)
    starts = {"pt": b"\x80\x02", "pth": buffer.getvalue()[:200], "keras": b"PK\x03\x04", "h5": b"\x89HDF\r\n\x1a\n",
              "safetensors": (100).to_bytes(8, "little") + b"{"}  # fmt: skip
    for suffix, start in starts.items():
        path = tmp_path / f"noise.{suffix}"
        path.write_bytes(start + noise)
        refused(run, path, table, "damaged|truncated|not a file")


def test_report_of_a_model_with_an_output_a_timestep(run, tmp_path: Path) -> None:
    """The page of such a model has every output timestep to pick from."""
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(4,), pooling="none"))
    model.save(tmp_path / "model")
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(9, FEATURES)), columns=COLUMNS)
    table.to_csv(tmp_path / "table.csv", index=False)
    page = tmp_path / "page.html"
    code, _, err = run("report", tmp_path / "model", "-i", tmp_path / "table.csv", "-o", page, "--timestep", "3")
    assert code == 0, err
    html = page.read_text(encoding="utf-8")
    assert '<option value="over_time">DeepLIFT, by output timestep</option>' in html
    assert 'id="output-step"' in html
