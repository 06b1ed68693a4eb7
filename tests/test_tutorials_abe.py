"""Three tutorials run whole, and with models made by Keras: classes from a CSV, a forecast, one output a timestep."""

import contextlib
import html
import io
import json
import re
import shlex
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from gatelens.cli import main as cli
from gatelens.examples import classify_from_csv, each_timestep, forecast
from gatelens.examples.story import data_path
from gatelens.explainers import DeepLIFT, explain, explain_over_time
from gatelens.models import load, open_model
from gatelens.reports.wording import method_name
from helpers.keras_made import keras, predicted, saved

TUTORIALS = {
    "classify_from_csv": SimpleNamespace(
        script=classify_from_csv, csv="readings.csv", options={"epochs": 2, "stride": 36},
        pictures=("training", "lime"), rows=("model", "always_180 or less", "persistence"),
    ),
    "forecast": SimpleNamespace(
        script=forecast, csv="weather.csv", options={"epochs": 2}, pictures=("training", "forecast", "explained"),
        rows=("lstm", "training_mean", "persistence", "ridge_regression"),
    ),
    "each_timestep": SimpleNamespace(
        script=each_timestep, csv="sensors.csv", options={"epochs": 20, "count": 500},
        pictures=("training", "step-5", "step-10", "step-20"), rows=("model", "training_mean"),
    ),
}  # fmt: skip
layers = keras.layers


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums are added in the same order on every machine that has the same instructions."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, one_thread):
    """Run a tutorial on its reduced setting, once; return where it wrote, what it printed, and itself."""
    found = {}

    def run(name):
        if name not in found:
            tutorial, folder, told = TUTORIALS[name], tmp_path_factory.mktemp(name) / "new folder", io.StringIO()
            with contextlib.redirect_stdout(told):
                tutorial.script.main(folder, **tutorial.options)
            data = tutorial.script.read(
                folder / tutorial.csv, **({"stride": 36} if "stride" in tutorial.options else {})
            )
            found[name] = SimpleNamespace(**vars(tutorial), folder=folder, told=told.getvalue(), data=data)
        return found[name]

    return run


@pytest.mark.parametrize("name", TUTORIALS)
def test_it_writes_model_pictures_and_page(ran, name):
    """All that is named is there; it says what was cleaned, the layers and the page's path, in the last line."""
    run = ran(name)
    for picture in run.pictures:
        assert str(run.folder / f"{picture}.png") in run.told
        assert (run.folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    for note in run.data.notes:
        assert note in run.told
    for layer in load(run.folder / "model").config.hidden_sizes:
        assert re.search(rf"lstm\.\d +LSTM +\d+ +{layer} ", run.told)
    assert run.told.rstrip().splitlines()[-1] == f"Open {(run.folder / 'report.html').resolve()}"


@pytest.mark.parametrize("name", TUTORIALS)
def test_metrics_are_true_and_beside_the_trivial_answers(ran, name):
    """Measured again from the CSV and the saved model they are those of data.json, which tells split and seed."""
    run = ran(name)
    provenance = json.loads((run.folder / "model" / "data.json").read_text(encoding="utf-8"))["provenance"]
    again = run.script.measure(load(run.folder / "model"), run.data).to_dict()
    assert tuple(again) == tuple(provenance["metrics"]) == run.rows
    for row, metrics in provenance["metrics"].items():
        assert again[row] == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        assert row in run.told
    assert provenance["metrics_on"] == "test"
    assert provenance["seed"] == 0
    assert " split of " in provenance["split"]
    assert len(provenance["training"]["loss"]) == run.options["epochs"]


@pytest.mark.parametrize("name", TUTORIALS)
def test_page_holds_the_words_and_the_explainers(ran, name):
    """The page tells the printed prediction, its first reason, and every explainer that was asked for."""
    run = ran(name)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    text = " ".join(html.unescape(re.sub("<[^>]+>", "", page)).split())
    printed = run.told.splitlines()
    place = max(row for row, line in enumerate(printed) if "the model predicts" in line.lower())
    assert printed[place] in text
    assert "accounts for" in text or "account for" in text
    reason = printed[place + 1].split("  ")[-1]
    assert reason.split(" ")[0] in text
    for method in run.script.METHODS:
        assert method_name(method) in text


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_command_it_prints_does_the_same(ran, name, tmp_path, monkeypatch, capsys):
    """The hint runs as it stands, and explains the same number."""
    run = ran(name)
    words = shlex.split(next(line for line in run.told.splitlines() if line.startswith("  gatelens report")))
    monkeypatch.setattr(sys, "argv", [*words, "--method", "deeplift"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli()
    assert not ended.value.code, capsys.readouterr().err
    text = " ".join(html.unescape(re.sub("<[^>]+>", "", (tmp_path / "report.html").read_text("utf-8"))).split())
    assert next(line for line in run.told.splitlines() if "the model predicts" in line.lower()) in text


# -- each tutorial's own claims ----------------------------------------------------------------------------------------


def test_labels_are_what_the_monitor_read_later(ran):
    """Looked up in the raw file: the label says whether a reading about 30 minutes on was above 180."""
    run = ran("classify_from_csv")
    raw = pd.read_csv(data_path("glucose"), parse_dates=["time"])
    test = run.data.test
    for row in range(0, len(test), 7):
        wait = (raw["time"] - (test.times[row, -1] + np.timedelta64(30, "m"))).abs()
        nearest = raw.loc[wait.idxmin()]
        assert wait.min() <= pd.Timedelta(minutes=2)
        assert test.targets[row] == (nearest["glucose"] > classify_from_csv.LIMIT)


def test_blanked_readings_are_counted_and_gone(ran):
    """The CSV lacks about one reading in a hundred; the notes count them, and no window holds one."""
    run = ran("classify_from_csv")
    table = pd.read_csv(run.folder / run.csv, parse_dates=["time"])
    lacking = table["glucose"].isna()
    assert lacking.mean() == pytest.approx(0.01, abs=0.002)
    assert f"{lacking.sum()} of {len(table)} rows lack a value" in run.told
    assert not set(table["time"][lacking]) & set(run.data.train.times.ravel())
    assert run.data.spec.features[0].scale == pytest.approx(
        np.ptp(classify_from_csv.readings(run.data, run.data.train))
    )


def test_persistence_is_as_warm_as_today(ran):
    """Its error is that of yesterday's temperature in the file; the LSTM's is that of the forecast that is drawn."""
    run = ran("forecast")
    days = pd.read_csv(data_path("weather"), parse_dates=["date"]).set_index("date")["temp_max"]
    test = run.data.test
    tomorrow = pd.DatetimeIndex(test.times[:, -1]) + pd.Timedelta(days=1)
    off = days.loc[tomorrow].to_numpy() - days.loc[test.times[:, -1]].to_numpy()
    rows = json.loads((run.folder / "model" / "data.json").read_text("utf-8"))["provenance"]["metrics"]
    assert rows["persistence"]["mae"] == pytest.approx(np.abs(off).mean(), rel=1e-4)
    made = forecast.predict(load(run.folder / "model"), test)
    assert rows["lstm"]["mse"] == pytest.approx(((made - days.loc[tomorrow].to_numpy()) ** 2).mean(), rel=1e-4)
    for name in ("persistence", "ridge_regression"):
        word = "smaller" if rows["lstm"]["rmse"] < rows[name]["rmse"] else "LARGER"
        assert re.search(rf"% {word} than that of {name}", run.told)


def test_the_forecast_is_tested_on_days_that_come_later(ran):
    """The parts follow one another in time, and the day that is predicted belongs to its window's part."""
    data = ran("forecast").data
    for before, after in ((data.train, data.validation), (data.validation, data.test)):
        assert before.times.max() + np.timedelta64(1, "D") < after.times.min()


def test_the_truth_is_the_filter(ran):
    """The output of the file is the sum of what its sensors give, to the noise; a loop says the same of each cell."""
    run = ran("each_timestep")
    table = pd.read_csv(run.folder / run.csv)
    inputs = table[list(each_timestep.SENSORS)].to_numpy().reshape(-1, each_timestep.STEPS, 10)
    given = each_timestep.filtered(inputs)
    noise = table["output"].to_numpy().reshape(-1, each_timestep.STEPS) - given.sum(axis=(2, 3))
    assert noise.std() == pytest.approx(each_timestep.NOISE, rel=0.05)
    expected = np.zeros_like(given[0])
    for step in range(each_timestep.STEPS):
        expected[step, step, 0] = inputs[0, step, 0]
        if step >= 2:
            expected[step, step - 2, 1] = 0.8 * inputs[0, step - 2, 1]
        if step >= 4:
            expected[step, step - 4, 2] = -0.6 * inputs[0, step - 4, 2]
    np.testing.assert_allclose(given[0], expected)


def test_explanations_are_the_truth(ran):
    """DeepLIFT finds the filter's sensors, lags, signs and sizes at every step that is explained, and prints so."""
    run = ran("each_timestep")
    found = [float(value) for value in re.findall(r"Against the truth: correlation ([\d.]+)", run.told)]
    assert len(found) == len(each_timestep.EXPLAINED)
    assert min(found) > 0.95


def test_an_output_depends_on_no_later_step(ran):
    """What comes after an output step gets exactly 0, and a change of it does not move the output."""
    run = ran("each_timestep")
    model, few = load(run.folder / "model"), run.data.test.take(range(3))
    over_time = explain_over_time(DeepLIFT(model, baseline="mean"), few)["attribution"].to_numpy()
    for step in range(each_timestep.STEPS):
        assert not over_time[:, step, step + 1 :].any()
    changed = few.inputs.copy()
    changed[:, 5:] += 1
    with torch.no_grad():
        before, after = model(few.inputs), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])
    assert "Steps after 5 give 0 together" in run.told


# -- the same made with Keras ------------------------------------------------------------------------------------------


def three_layers():
    return [layers.LSTM(50, return_sequences=True), layers.LSTM(50, return_sequences=True), layers.LSTM(50),
            layers.Dense(1, activation="sigmoid")]  # fmt: skip


def two_layers():
    return [layers.LSTM(64, return_sequences=True), layers.LSTM(32), layers.Dense(1)]


def in_time():
    return [layers.LSTM(50, return_sequences=True), layers.Dense(1)]


def in_time_distributed():
    return [layers.LSTM(50, return_sequences=True), layers.TimeDistributed(layers.Dense(1))]


@pytest.mark.parametrize(("name", "stack", "loss"), [
    ("classify_from_csv", three_layers, "binary_crossentropy"), ("forecast", two_layers, "mse"),
    ("each_timestep", in_time, "mse"), ("each_timestep", in_time_distributed, "mse"),
])  # fmt: skip
def test_trained_by_keras_and_explained_from_its_file(ran, name, stack, loss, tmp_path):
    """Trained for an epoch and saved by Keras: the predictions are Keras's, and explanations account for them."""
    run = ran(name)
    train, few = run.data.train.take(range(64)), run.data.test.take(range(2))
    made = keras.Sequential([keras.Input(train.inputs.shape[1:]), *stack()])
    made.compile("adam", loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.fit(train.inputs, train.targets, epochs=1, verbose=0)
    model = open_model(saved(made, tmp_path))
    with torch.no_grad():
        scores = model(few.inputs).numpy()
    np.testing.assert_allclose(
        expit(scores) if loss == "binary_crossentropy" else scores, predicted(made, few.inputs), rtol=1e-4, atol=1e-5
    )
    target = (4, 0) if name == "each_timestep" else None
    found = explain(model, few, run.script.METHODS, target=target, options={"lime": {"samples": 200}} if "lime" in
                    run.script.METHODS else None)  # fmt: skip
    assert list(found) == list(run.script.METHODS)
    explained = scores[:, 4, 0] if target else scores[:, 0]
    for method, attribution in found.items():
        np.testing.assert_allclose(attribution.prediction, explained, rtol=1e-4, atol=1e-5)
        if attribution.attrs["completeness"] != "none":
            total = attribution.baseline_prediction + attribution.values.sum(axis=(1, 2))
            np.testing.assert_allclose(total, explained, rtol=1e-3, atol=1e-3, err_msg=method)
        if target:
            assert not attribution.values[:, 5:].any()
