"""`gatelens summarize` and `gatelens compare`: real runs, and one helpful sentence for each bad input."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gatelens.cli import main
from gatelens.cli.summarize import draw
from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import DeepLIFT
from gatelens.models import DataSpec, FeatureSpec, LSTMConfig, LSTMModel, WindowSpec, load, read_csv

MODEL, DATA = str(model_path()), str(data_path())


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in this process, in an empty folder, and return (exit code, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gatelens", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last 300 rows of the real readings with what came half an hour later, and the part of the day."""
    frame = pd.read_csv(DATA).tail(300).reset_index(drop=True)
    change = frame["glucose"].shift(-6) - frame["glucose"]
    came = np.select([change < -20, change > 20], ["fall", "rise"], "stay").astype(object)
    frame["came"] = np.where(change.isna(), "", came)
    frame["half"] = np.where(pd.to_datetime(frame["time"]).dt.hour < 12, "morning", "afternoon")
    path = tmp_path_factory.mktemp("table") / "readings.csv"
    frame.to_csv(path, index=False)
    return path


def text_of(path: Path) -> str:
    """Return the words of a page."""
    shown = re.sub(r"<style.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).replace("\N{NO-BREAK SPACE}", " ").split())


def test_help_names_both_and_imports_no_torch() -> None:
    """Both commands' help answers without torch."""
    for command in ("summarize", "compare"):
        code = (
            f"import sys; sys.argv = ['gatelens', '{command}', '--help']\n"
            "from gatelens.cli import main\n"
            "try: main()\n"
            "except SystemExit as ended: assert not ended.code\n"
            "assert not {'torch', 'numpy', 'pandas', 'matplotlib', 'shap'} & set(sys.modules), 'heavy import'\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--input" in done.stdout


# -- summarize -------------------------------------------------------------------------------------------------------


def test_summarize_writes_a_page_and_says_what_it_tells(run, table, tmp_path) -> None:
    """The page holds groups and performance, standard output the main sentences, standard error where the page is."""
    code, out, err = run("summarize", MODEL, "-i", table, "--by", "half", "--truth", "came", "--stride", 3)
    assert code == 0, err
    assert "moved these" in out
    assert "predicted class is right in" in out
    assert "By half: " in out
    assert "wrote summary.html" in err
    text = text_of(tmp_path / "summary.html")
    assert "Groups by half" in text
    assert "gatelens summarize" in text


def test_summarize_json_has_the_numbers_of_the_library(run, table) -> None:
    """Shares, counts and group means are those computed by hand from the attributions."""
    code, out, err = run(
        "summarize", MODEL, "-i", table, "--by", "half", "--target", "rise", "--json", "--max-samples", 50, "--seed", 4
    )
    assert code == 0, err
    found = json.loads(out)
    model = load(MODEL)
    data = read_csv(table, model.data, windows="all")
    drawn, _ = draw(len(data), 50, 4)
    expected = DeepLIFT(model, baseline="mean", output="probability").explain(data.inputs[drawn], target="rise")
    cells = expected.values.astype(float)
    clock = cells[:, :, 2] + cells[:, :, 3]
    sizes = np.stack([np.abs(part).sum(axis=1) for part in (cells[:, :, 0], cells[:, :, 1], clock)], axis=1)
    assert (found["samples"], found["of"], found["method"]) == (50, len(data), "deeplift")
    for place, name in enumerate(("glucose", "rate of change", "time of day")):
        assert found["features"][name]["share"] == pytest.approx(sizes[:, place].sum() / sizes.sum(), rel=1e-5)
    halves = np.array([int(name[11:13]) < 12 for name in data.sample_names])[drawn]
    for label, member in (("morning", halves), ("afternoon", ~halves)):
        group = found["groups"]["half"]["groups"][label]
        assert group["samples"] == member.sum()
        assert group["means"]["glucose, size of effects"] == pytest.approx(sizes[member, 0].mean(), rel=1e-5)


def test_draws_are_seeded_and_said(run, table, tmp_path) -> None:
    """Of more sequences than wanted some are drawn, always the same for a seed, and the page says so."""
    one, note = draw(1000, 10, 3)
    assert list(one) == sorted(set(one))
    assert list(one) == list(draw(1000, 10, 3)[0])
    assert list(one) != list(draw(1000, 10, 4)[0])
    assert note == ["Explained are 10 of 1,000 sequences, drawn at random (seed 3)."]
    assert draw(10, 10, 3)[1] == []
    assert run("summarize", MODEL, "-i", table, "--max-samples", 20)[0] == 0
    assert "Explained are 20 of" in text_of(tmp_path / "summary.html")


def test_groups_are_read_in_the_last_row_of_each_window(tmp_path) -> None:
    """Whatever cleaning drops or sorts, a sequence's group and truth stand in the row of its last timestep."""
    rng = np.random.default_rng(0)
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(3000), "min")
    frame = pd.DataFrame({"time": times.astype(str), "a": rng.normal(size=3000), "row": np.arange(3000), "id": "x"})
    frame.loc[1500:, "id"] = "y"
    frame = pd.concat([frame, frame.iloc[[5, 1600]]]).sample(frac=1, random_state=1).reset_index(drop=True)
    spec = DataSpec(
        features=(FeatureSpec(name="a"),), window=WindowSpec(length=7, time_column="time", max_gap_seconds=60)
    )
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    for options in ({"windows": "all", "stride": 5}, {"windows": "last", "stride": 1}):
        data = read_csv(path, spec, id_column="id", **options)
        rows = data.table_rows
        last = data.inputs[np.arange(len(data)), data.lengths - 1, 0]
        np.testing.assert_allclose(frame["a"].to_numpy()[rows], last, rtol=1e-5)
        expected = [str(stamp)[:16].replace("T", " ") for stamp in frame["time"].to_numpy()[rows]]
        assert [name[-16:] for name in data.sample_names] == expected


def test_a_model_without_names_does_not_read_groups_and_truth(run, tmp_path) -> None:
    """Number columns named by --by and --truth are no features; the ids are units of evidence."""
    LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,))).save(tmp_path / "m")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(240, 2)), columns=["a", "b"])
    frame["id"] = [f"p{row // 6}" for row in range(240)]
    frame["site"] = (np.arange(240) // 6) % 2
    frame["came"] = rng.normal(size=240)
    frame.to_csv(tmp_path / "t.csv", index=False)
    code, out, err = run(
        "summarize", tmp_path / "m", "-i", tmp_path / "t.csv", "--id-column", "id", "--by", "site", "--truth", "came",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert list(found["features"]) in (["a", "b"], ["b", "a"])
    assert found["samples"] == 40
    assert found["groups"]["site"]["groups"]["0"]["samples"] == 20
    assert "predictions are off by" in found["performance"][0]


def test_redacted_summary_names_no_columns_files_or_values(run, table, tmp_path) -> None:
    """A redacted page does not repeat the command, the labels or the times."""
    code, _, _ = run("summarize", MODEL, "-i", table, "--by", "half", "--redact", "--stride", 5)
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert code == 0
    assert "readings.csv" not in page
    assert "afternoon" not in page
    assert "MODEL --input CSV --redact" in page


# -- compare ---------------------------------------------------------------------------------------------------------


def times_of(table: Path) -> list[str]:
    return list(pd.read_csv(table)["time"])


def test_compare_two_windows_of_one_model(run, table, tmp_path) -> None:
    """Two windows of one CSV: the change of the prediction is shared out, and told."""
    ends = [times_of(table)[place] for place in (-40, -1)]
    code, out, err = run("compare", MODEL, "-i", table, "--end", ends[0], "--end", ends[1], "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["compared"] == "inputs"
    assert found["shared_out_by"] == "deeplift"
    assert found["names"] == ends
    assert found["difference"] == pytest.approx(found["predictions"][1] - found["predictions"][0])
    code, newest, _ = run("compare", MODEL, "-i", table, "--end", ends[0], "--json")
    assert json.loads(newest)["predictions"] == found["predictions"]
    code, out, err = run("compare", MODEL, "-i", table, "--end", ends[0], "--end", ends[1], "-o", "c.html")
    assert "The probability of" in out
    assert "wrote c.html" in err
    assert "Why it changed" in text_of(tmp_path / "c.html")


def test_compare_two_files_and_two_ids(run, table, tmp_path) -> None:
    """Two CSVs, or a CSV of two ids, are two inputs; names may be given."""
    pd.read_csv(table).head(100).to_csv(tmp_path / "one.csv", index=False)
    code, out, err = run(
        "compare", MODEL, "-i", tmp_path / "one.csv", "-i", table, "--name", "then", "--name", "now", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["names"] == ["then", "now"]
    LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(3,))).save(tmp_path / "m")
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=9), "id": ["p"] * 4 + ["q"] * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    code, out, err = run("compare", tmp_path / "m", "-i", tmp_path / "t.csv", "--id-column", "id", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["names"], found["shared_out_by"]) == (["p", "q"], None)


def test_compare_two_models(run, table, tmp_path) -> None:
    """Two models on one input, explained for the class that the second predicts, named by their folders."""
    model = load(MODEL)
    with torch.no_grad():
        model.head.bias[0] += 9
    model.save(tmp_path / "fresh")
    code, out, err = run("compare", MODEL, tmp_path / "fresh", "-i", table, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["compared"], found["names"], found["shared_out_by"]) == ("models", ["glucose", "fresh"], None)
    assert found["explained"] == "fall"
    assert found["predictions"][1] > found["predictions"][0]
    text = text_of(tmp_path / "comparison.html")
    assert "by glucose and" in text
    assert "two models on one input" in text
    code, _, _ = run("compare", MODEL, tmp_path / "fresh", "-i", table, "--redact")
    assert "fresh" not in text_of(tmp_path / "comparison.html")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["summarize", MODEL, "-i", DATA, "--by", "sex"], "no column 'sex' for --by; known: time, glucose"),
        (["summarize", MODEL, "-i", DATA, "--truth", "came"], "no column 'came' for --truth"),
        (["summarize", MODEL, "-i", DATA, "-o", "a.pdf"], "ends in .html"),
        (["summarize", MODEL, "-i", DATA, "--max-samples", "0"], "--max-samples is 0"),
        (["summarize", MODEL, "-i", DATA, "--truth", "glucose", "--max-samples", "5"], "no class of this model"),
        (["summarize", MODEL], "Missing option"),
        (["compare", MODEL, "-i", DATA], "gives 1 newest window; a comparison is of two"),
        (["compare", MODEL, MODEL, "-i", DATA], "both explain the same input by the same model"),
        (["compare", MODEL, MODEL, "-i", DATA, "-i", DATA], "two models are compared on one input"),
        (["compare", MODEL, "-i", DATA, "--end", "1999-01-01"], "no window of 24 timesteps that ends at 1999-01-01"),
        (["compare", MODEL, "-i", DATA, *["--end", "2010-09-24 07:24"] * 3], "there are 1 --input and 3 --end"),
        (["compare", MODEL, "-i", DATA, "--name", "now"], "--name is given 1 times"),
        (["compare", MODEL, "-i", DATA, "-o", "a.pdf"], "ends in .html"),
        (["compare", MODEL], "Missing option"),
        (["compare", "nowhere", "-i", DATA], "there is no saved model at nowhere"),
    ],
)
def test_bad_input_ends_with_a_sentence(run, words, message, tmp_path) -> None:
    """Bad input: exit code 2, a sentence on standard error, nothing on standard output, no traceback, no file."""
    code, out, err = run(*words)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []
