"""The command line: real runs, output for people and programs, and one helpful sentence for each bad input."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gatelens.cli import main
from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import Attribution, IntegratedGradients
from gatelens.models import LSTMConfig, LSTMModel, load, read_csv

MODEL, DATA = str(model_path()), str(data_path())


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process and return (exit code, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gatelens", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last 60 rows of the real readings, as a small CSV."""
    path = tmp_path_factory.mktemp("table") / "readings.csv"
    pd.read_csv(DATA).tail(60).to_csv(path, index=False)
    return path


def test_help_does_not_import_torch() -> None:
    """`gatelens --help` answers without torch, and names every command."""
    code = (
        "import sys; sys.argv = ['gatelens', '--help']\n"
        "from gatelens.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert not {'torch', 'numpy', 'pandas', 'matplotlib', 'shap'} & set(sys.modules), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "inspect", "explain", "report", "methods"):
        assert command in done.stdout


def test_demo(run, tmp_path: Path, monkeypatch) -> None:
    """The demo prints a table, names the page it wrote, and the page explains three predictions."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run("demo")
    page = tmp_path / "gatelens-demo" / "report.html"
    assert code == 0
    assert str(page) in out
    assert "rate of change" in out
    assert "will glucose fall, stay or rise" in err
    assert page.read_text(encoding="utf-8").count("<article") == 3


@pytest.mark.parametrize("name", ["glucose-forecast", "digits"])
def test_demo_of_another_story(run, tmp_path: Path, monkeypatch, name) -> None:
    """By name another story is told: its metrics beside the simple forecasts', and the path of its page."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run("demo", name)
    page = tmp_path / "gatelens-demo" / f"{name}.html"
    assert code == 0
    assert err.startswith(f"{name}: ")
    assert "lstm" in out
    assert out.splitlines()[-1] == f"Open {page}"
    assert page.stat().st_size > 100_000


def test_demo_refuses(run, monkeypatch, tmp_path: Path) -> None:
    """An unknown story gets the known ones; nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert "there is no demo 'wether'; known: glucose, " in run("demo", "wether")[2]
    assert "expected a name that ends in .html" in run("demo", "--out", "page.pdf")[2]
    assert list(tmp_path.iterdir()) == []


def test_every_story_has_its_script() -> None:
    """Each name that `demo` offers is an example script with a saved model."""
    from gatelens.cli.demo import STORIES
    from gatelens.examples.story import model_path

    for name in STORIES:
        module = importlib.import_module(f"gatelens.examples.explain_{name.replace('-', '_')}")
        assert callable(module.main)
        assert (model_path(name.replace("-", "_")) / "data.json").is_file()


def test_inspect(run) -> None:
    """`inspect` shows layers, parameters, features and metrics; with --json the same for programs."""
    code, out, _ = run("inspect", MODEL)
    assert code == 0
    for words in ("4,963", "lstm.0", "rate of change", "mg/dL", "logistic regression", "0.771"):
        assert words in out
    code, out, _ = run("inspect", MODEL, "--json")
    assert json.loads(out)["metrics"]["lstm"]["accuracy"] == pytest.approx(0.7712)


def test_methods(run) -> None:
    """`methods` lists every explainer with its promise."""
    code, out, _ = run("methods", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["kernel_shap"]["completeness"] == "exact"
    assert set(found) >= {"integrated_gradients", "gradient_shap", "kernel_shap", "lime", "gate_saliency"}
    assert "gate_saliency" in run("methods")[1]


def test_explain_writes_what_the_api_gives(run, table: Path, tmp_path: Path) -> None:
    """`explain --out` writes the attribution that the Python call gives, and --json prints its numbers."""
    out_path = tmp_path / "a.nc"
    code, out, err = run("explain", MODEL, "--input", table, "-m", "integrated_gradients", "-o", out_path, "--json")
    assert code == 0, err
    model = load(MODEL)
    data = read_csv(table, model.data)
    expected = IntegratedGradients(model, baseline="mean", output="probability").explain(data.inputs)
    saved = Attribution.load(out_path)
    np.testing.assert_allclose(saved.values, expected.values, atol=1e-7)
    sample = json.loads(out)["integrated_gradients"]["samples"][0]
    np.testing.assert_allclose(sample["timesteps"], expected.timesteps[0], atol=1e-7)
    assert sample["explained"] == "stay"


def test_explain_several_methods_and_windows(run, table: Path, tmp_path: Path) -> None:
    """Several methods write a file each; --windows all explains every stride-th window; people get words."""
    code, out, err = run(
        "explain", MODEL, "-i", table, "-m", "gate_saliency", "-m", "lime", "-o", tmp_path / "a.nc", "--windows", "all",
        "--stride", "12", "--target", "rise",
    )  # fmt: skip
    assert code == 0, err
    assert "Gate saliency" in out
    assert "wrote" in err
    for method in ("gate_saliency", "lime"):
        saved = Attribution.load(tmp_path / f"a.{method}.nc")
        assert len(saved) == 4
        assert set(saved.dataset["target_output"].to_numpy()) == {2}


def test_report(run, table: Path, tmp_path: Path) -> None:
    """`report` writes the page; --redact leaves times out."""
    page = tmp_path / "r.html"
    code, _, err = run("report", MODEL, "-i", table, "-o", page, "-m", "integrated_gradients", "-m", "gate_saliency")
    assert code == 0
    assert f"wrote {page}" in err
    assert "23:57" in page.read_text(encoding="utf-8")
    code, out, _ = run("report", MODEL, "-i", table, "-o", page, "-m", "integrated_gradients", "--redact", "--json")
    assert json.loads(out)["report"] == str(page)
    assert "23:57" not in page.read_text(encoding="utf-8")


def test_model_without_names_reads_the_number_columns(run, tmp_path: Path) -> None:
    """A saved model that names no features explains a table that holds just its columns."""
    LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,))).save(tmp_path / "m")
    pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.1, 0.2, 0.3]}).to_csv(tmp_path / "t.csv", index=False)
    code, out, err = run("explain", tmp_path / "m", "-i", tmp_path / "t.csv", "--json")
    assert code == 0, err
    assert list(json.loads(out)["integrated_gradients"]["samples"][0]["features"]) == ["a", "b"]
    pd.DataFrame({"a": [1.0]}).to_csv(tmp_path / "t.csv", index=False)
    code, _, err = run("explain", tmp_path / "m", "-i", tmp_path / "t.csv")
    assert code == 2
    assert "1 number columns (a); the model reads 2 features" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "nowhere", "-i", DATA], "there is no saved model at nowhere"),
        (["report", MODEL, "-i", "nowhere.csv"], "nowhere.csv does not exist"),
        (["explain", MODEL, "-i", DATA, "-m", "limee"], "Did you mean 'lime'"),
        (["explain", MODEL, "-i", DATA, "-t", "sideways"], "not a class of this model; known: fall, stay, rise"),
        (["explain", MODEL, "-i", DATA, "-t", "7"], "target is 7"),
        (["explain", MODEL, "-i", DATA, "--output", "odds"], "output is 'odds'"),
        (["explain", MODEL, "-i", DATA, "--baseline", "median"], "baseline is 'median'"),
        (["explain", MODEL, "-i", DATA, "-o", "a.csv"], "ends in .nc"),
        (["report", MODEL, "-i", DATA, "-o", "a.pdf"], "ends in .html"),
        (["report", MODEL, "-i", DATA, "--windows", "all"], "a report shows up to 50"),
        (["report", MODEL, "-i", DATA, "--windows", "some"], '"last" or "all"'),
        (["report", MODEL, "-i", DATA, "--end", "tomorrow"], "end is 'tomorrow'"),
        (["report", MODEL, "-i", DATA, "--end", "1999-01-01"], "no window of 24 timesteps that ends at 1999-01-01"),
        (["report", MODEL, "-i", DATA, "--id-column", "patient"], "no column 'patient'"),
        (["report", MODEL, "-i", DATA, "--stride", "0", "--windows", "all"], "stride is 0"),
        (["report", MODEL], "--input is missing; name a CSV or Parquet file (or give --text"),
        (["bogus"], "No such command"),
    ],
)
def test_bad_input_ends_with_a_sentence(run, words: list[str], message: str) -> None:
    """Bad input: exit code 2, a sentence on standard error, nothing on standard output, no traceback."""
    code, out, err = run(*words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("time,glucose\n", "no rows below its header"),
        ("time,sugar\n2010-01-01 00:00,5\n", "no column 'glucose'"),
        ("time,glucose\nyesterday,5\n", "expected a time"),
        ("time,glucose\n2010-01-01 00:00,high\n", "'glucose' has 1 values that are missing or no finite number"),
        ("time,glucose\n2010-01-01 00:00,5\n", "1 rows; the model reads 24 timesteps"),
    ],
)
def test_bad_tables(run, tmp_path: Path, content: str, message: str) -> None:
    """A CSV that cannot be explained is refused with the reason."""
    path = tmp_path / "t.csv"
    path.write_text(content)
    code, _, err = run("explain", MODEL, "-i", path)
    assert code == 2
    assert message in err


def test_unexpected_error_has_no_traceback(run, monkeypatch) -> None:
    """A fault of gatelens itself ends with exit code 1 and a hint, not with a traceback."""
    monkeypatch.setattr("gatelens.models.open_model", lambda *_, **__: 1 / 0)
    code, _, err = run("inspect", MODEL)
    assert code == 1
    assert "GATELENS_DEBUG=1" in err
    assert "Traceback" not in err
