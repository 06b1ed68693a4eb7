"""The stories on real data are what they say: the data, the splits, the metrics and the scripts."""

import gzip
import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gatelens.examples import (
    digits,
    glucose,
    glucose_forecast,
    language,
    stocks,
    train_digits,
    train_glucose_forecast,
    train_language,
    train_stocks,
    train_weather,
    weather,
)
from gatelens.examples.story import data_path, model_path
from gatelens.models import load

DATA = Path(__file__).parent.parent / "examples" / "data"
SAVED = ("digits", "glucose_forecast", "language", "stocks", "stocks_direction", "weather")
TOLERANCE = 2e-3  # of shares; other machines round sums otherwise


def stored(name):
    return json.loads((model_path(name) / "data.json").read_text(encoding="utf-8"))


def assert_same(again, name, tolerance=TOLERANCE) -> None:
    told = stored(name)["provenance"]["metrics"]
    assert list(again) == list(told)
    for row, metrics in told.items():
        assert again[row] == pytest.approx(metrics, abs=tolerance, rel=tolerance), row


# -- the data ----------------------------------------------------------------------------------------------------------


def test_extracts_are_small_and_their_licences_travel_along() -> None:
    """Each extract is under 200 kB, told of in the README, and CLDR's licence lies beside them."""
    told = (DATA / "README.md").read_text(encoding="utf-8")
    for file in DATA.glob("*.csv.gz"):
        assert file.stat().st_size < 200_000, file
        assert f"## {file.name}" in told
    assert told.count("**Source**") == told.count("**Licence**") == 5
    licence = (DATA / "LICENSE.unicode").read_text(encoding="utf-8")
    assert licence.startswith("UNICODE LICENSE V3")
    assert "SPDX-License-Identifier: Unicode-3.0" in licence


def test_weather_labels_change_their_coding() -> None:
    """Rain was written down on 191 days of 2012 and 5 of 2015, fog the other way round; no day is missing."""
    frame = pd.read_csv(data_path("weather"), parse_dates=["date"])
    counts = pd.crosstab(frame["date"].dt.year, frame["weather"])
    assert counts["rain"].tolist() == [191, 60, 3, 5]
    assert counts["fog"].tolist() == [5, 82, 151, 173]
    assert (frame["date"].diff().dropna() == pd.Timedelta(days=1)).all()
    assert len(frame) == 1461
    wet = frame[frame["precipitation"] > 0].groupby(frame["date"].dt.year).size()
    assert wet.min() > 0.75 * wet.max()  # it rained as before


def test_stocks_extract_is_the_source() -> None:
    """The extract holds every day of the four long series, unchanged."""
    source = pytest.importorskip("bokeh_sampledata.stocks").data
    kept = source[source["ticker"].isin(["AAPL", "GOOG", "IBM", "MSFT"])].reset_index(drop=True)
    frame = pd.read_csv(data_path("stocks"), parse_dates=["date"])
    assert len(frame) == len(kept) == 11958
    assert (frame["ticker"] == kept["ticker"]).all()
    assert (frame["date"] == kept["date"]).all()
    np.testing.assert_array_equal(frame["adj_close"], kept["adj_close"])


def test_names_occur_in_one_language_only() -> None:
    """8,924 names in twelve languages, none of them twice, NA among the codes."""
    frame = language.table()
    assert len(frame) == 8924
    assert frame["text"].is_unique
    assert sorted(frame["language"].unique()) == sorted(language.LANGUAGES)
    assert (frame["code"] == "NA").sum() > 1
    assert frame["name"].notna().all()


@pytest.mark.parametrize(("name", "package"), [("language", "babel"), ("stocks", "bokeh_sampledata"),
                                               ("weather", "vega_datasets")])  # fmt: skip
def test_extract_is_what_its_script_makes(name, package, tmp_path, monkeypatch, capsys) -> None:
    """Where the source package is installed, the script writes the extract again, byte for byte."""
    pytest.importorskip(package)
    script = importlib.import_module(f"gatelens.examples.make_{name}_extract")
    monkeypatch.setattr(script, "TARGET", tmp_path / "again.csv.gz")
    monkeypatch.setattr(script, "LICENCE", tmp_path / "LICENSE", raising=False)
    script.main()
    assert gzip.decompress((tmp_path / "again.csv.gz").read_bytes()) == gzip.decompress(data_path(name).read_bytes())
    assert "wrote" in capsys.readouterr().out


# -- the splits --------------------------------------------------------------------------------------------------------


def test_translations_stay_together() -> None:
    """No CLDR code has names in two parts, and every name is in one part."""
    data = language.split()
    concept_of = dict(zip(language.table()["text"], language.table()["concept"], strict=True))
    parts = [language.texts(part) for part in (data.train, data.validation, data.test)]
    concepts = [{concept_of[text] for text in part} for part in parts]
    assert sum(len(part) for part in concepts) == len(set.union(*concepts))
    assert sum(len(part) for part in parts) == 8924
    assert len(parts[0]) > 4 * len(parts[1])
    tokens = set(data.spec.vocabulary[2:])
    assert tokens == {letter for text in parts[0] for letter in text}  # of the training part alone


def test_stock_parts_share_no_day() -> None:
    """All stocks are divided by the same dates, and the five days of the label belong to the window's part."""
    parts = stocks.split()
    frame = stocks.table()
    days = {}
    for name, part in parts.items():
        last = pd.DataFrame({"ticker": part.tickers, "date": part.data.times[:, -1]}).merge(frame)["last_day"]
        days[name] = (part.data.times.min(), last.max())
    assert days["train"][1] < stocks.TRAIN_END <= days["validation"][0]
    assert days["validation"][1] < stocks.VALIDATION_END <= days["test"][0]
    assert set(parts["test"].tickers) == {"AAPL", "GOOG", "IBM", "MSFT"}


def test_stock_labels_are_what_comes() -> None:
    """Computed from prices alone: a volatile window's next five moves are larger than the median before 2009."""
    part = stocks.split()["test"]
    prices = pd.read_csv(data_path("stocks"), parse_dates=["date"])
    series = {ticker: group.set_index("date")["adj_close"] for ticker, group in prices.groupby("ticker")}
    usual = {}
    for ticker, price in series.items():
        size = np.abs(np.diff(np.log(price.to_numpy())))
        before = int((price.index < "2009-01-01").sum())
        usual[ticker] = np.median([size[start : start + 5].mean() for start in range(1, before - 5)])
    for row in range(0, len(part), 211):
        price = series[part.tickers[row]]
        at = price.index.get_loc(part.data.times[row, -1])
        ahead = np.log(price.to_numpy()[at : at + 6])
        assert part.up[row] == (ahead[-1] > ahead[0])
        size = np.abs(np.diff(ahead)).mean()
        assert part.volatile[row] == (size > usual[part.tickers[row]])


def test_stock_scaling_comes_from_the_training_years() -> None:
    """Before 2009 the mean size of a move is 1 for every stock; later ones do not matter for it."""
    frame = stocks.table()
    sizes = frame[frame["date"] < stocks.TRAIN_END].groupby("ticker")["move"].agg(lambda move: move.abs().mean())
    np.testing.assert_allclose(sizes, 1, rtol=1e-12)


def test_weather_parts_share_no_day() -> None:
    """Train ends in October 2012, validation in December, and the test begins in 2013; windows cross no border."""
    data = weather.split()
    spans = [(part.times.min(), part.times.max()) for part in (data.train, data.validation, data.test)]
    assert spans[0][1] == np.datetime64("2012-10-31")
    assert spans[0][1] < spans[1][0]
    assert spans[1][1] == np.datetime64("2012-12-31")
    assert spans[1][1] < spans[2][0]
    assert set(weather.periods(data.test)) == set(weather.PERIODS)
    days = pd.read_csv(data_path("weather"), parse_dates=["date"]).set_index("date").loc[:"2012-10-31"]
    columns = days[["temp_max", "temp_min", "wind"]]
    np.testing.assert_allclose(data.spec.center[1:], columns.mean(), rtol=1e-6)  # scaled by the training days alone
    np.testing.assert_allclose(data.spec.scale[1:], columns.std(ddof=0), rtol=1e-6)


def test_weather_labels_are_of_the_last_day() -> None:
    """A window's target is what was written down on its last day."""
    data = weather.split()
    frame = pd.read_csv(data_path("weather"), parse_dates=["date"]).set_index("date")["weather"]
    for part in (data.train, data.validation, data.test):
        told = [data.spec.classes[number] for number in part.targets]
        assert told == [frame[day] for day in part.times[:, -1]]


def test_digit_parts_share_no_image() -> None:
    """1,797 images, each in one part, scaled to 0 to 1, with every digit in each part."""
    parts = digits.split()
    numbers = np.concatenate([part.numbers for part in parts.values()])
    assert len(np.unique(numbers)) == len(numbers) == 1797
    for part in parts.values():
        assert set(part.labels) == set(range(10))
        assert part.inputs.min() == 0
        assert part.inputs.max() == 1


def test_forecast_targets_are_the_reading_in_thirty_minutes() -> None:
    """The target, looked up in the file, agrees with the trend's label."""
    parts, trend = glucose_forecast.split()[1], glucose.split()[1]
    for name, part in parts.items():
        change = part.targets - part.last
        labels = np.where(change < -20, 0, np.where(change > 20, 2, 1))
        np.testing.assert_array_equal(labels, trend[name].labels)


# -- the saved models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAVED)
def test_saved_model_tells_where_it_comes_from(name) -> None:
    """It is under 1 MB, and says data, split, script, seed, versions and what it is for."""
    assert sum(file.stat().st_size for file in model_path(name).iterdir()) < 1_000_000
    provenance = stored(name)["provenance"]
    for entry in ("data", "split", "windows", "script", "seed", "metrics", "metrics_on", "versions", "intended_use"):
        assert entry in provenance, entry
    assert (DATA.parent.parent / provenance["script"]).is_file()
    first, *others = provenance["metrics"]
    assert first == "lstm"
    assert len(others) > 1  # beside the trivial answers


def test_language_metrics_are_true() -> None:
    """Measured again they are as told; the LSTM is good, and counting n-grams is better."""
    again = train_language.measure(load(model_path("language")), language.split())
    assert_same(again, "language")
    assert 0.75 < again["lstm"]["accuracy"] < again["ngram_logistic_regression"]["accuracy"]


def test_stock_metrics_are_true() -> None:
    """Measured again they are as told; sizes say as much as the LSTM, and nothing tells the direction."""
    parts = stocks.split()
    again = train_stocks.measure(load(model_path("stocks")), parts, train_stocks.volatile)
    assert_same(again, "stocks")
    assert again["lstm"]["roc_auc"] == pytest.approx(0.70, abs=0.02)
    sizes = again["logistic_regression_on_sizes"]["roc_auc"]
    assert again["lstm"]["roc_auc_low"] < sizes < again["lstm"]["roc_auc_high"]
    direction = train_stocks.measure(load(model_path("stocks_direction")), parts, train_stocks.up)
    assert_same(direction, "stocks_direction")
    assert direction["lstm"]["roc_auc_low"] < 0.5 < direction["lstm"]["roc_auc_high"]


def test_weather_metrics_are_true() -> None:
    """Measured again they are as told; the model is right until the coding changes, and labels of 2014 fit 2015."""
    again = train_weather.measure(load(model_path("weather")), weather.split())
    assert_same(again, "weather")
    periods = [again["lstm"][f"accuracy_{period}"] for period in weather.PERIODS]
    assert periods[0] > 0.6
    assert max(periods[2:]) < 0.45
    assert again["logistic_regression_trained_on_2014"][f"accuracy_{weather.PERIODS[3]}"] > periods[3] + 0.25


def test_digit_metrics_are_true() -> None:
    """Measured again they are as told, also by the rows seen."""
    model, parts = load(model_path("digits")), digits.split()
    again = train_digits.measure(model, parts)
    assert_same(again, "digits")
    assert again["lstm"]["accuracy"] > 0.95
    by_rows = digits.accuracy_by_rows(model, parts["test"])
    assert by_rows == pytest.approx(stored("digits")["provenance"]["accuracy_by_rows"], abs=TOLERANCE)
    assert by_rows[-1] == pytest.approx(again["lstm"]["accuracy"], abs=1e-4)


def test_forecast_metrics_are_true() -> None:
    """Measured again they are as told; the LSTM is nearer than the line, the last reading and the ridge regression."""
    again = train_glucose_forecast.measure(load(model_path("glucose_forecast")), glucose_forecast.split()[1])
    assert_same(again, "glucose_forecast")
    errors = {name: row["mae"] for name, row in again.items()}
    assert errors["lstm"] < 14.5
    assert min(errors, key=lambda name: errors[name]) == "lstm"


# -- the scripts -------------------------------------------------------------------------------------------------------


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).state_dict()


@pytest.mark.parametrize("name", ["digits", "glucose_forecast", "language", "stocks", "weather"])
def test_training_script_runs(name, tmp_path, monkeypatch, capsys) -> None:
    """With two epochs it saves a model that tells its metrics, and a second run gives the same weights."""
    script = importlib.import_module(f"gatelens.examples.train_{name}")
    monkeypatch.setattr(script, "EPOCHS", 1)
    found = []
    for run in ("one", "two") if name in ("digits", "weather") else ("one",):
        folders = [tmp_path / run / name] + ([tmp_path / run / "direction"] if name == "stocks" else [])
        script.main(*folders)
        found.append(weights(folders[0]))
        assert f"saved to {folders[-1]}" in capsys.readouterr().out
    for one, two in zip(found[0].values(), found[-1].values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["digits", "glucose_forecast", "language", "stocks", "weather"])
def test_explaining_script_runs(name, tmp_path, capsys) -> None:
    """It prints the words and the trivial answers' metrics, and ends with the path of the page it wrote."""
    script = importlib.import_module(f"gatelens.examples.explain_{name}")
    page = tmp_path / f"{name}.html"
    script.main(page)
    told = capsys.readouterr().out
    assert "the model predicts" in told.lower()
    trivial = [row for row in stored(name)["provenance"]["metrics"] if row != "lstm"]
    for row in trivial:
        assert row.replace("_", " ") in told
    assert told.rstrip().splitlines()[-1] == f"Open {page.resolve()}"
    assert page.stat().st_size > 100_000
