"""Text models at the command line: texts given in the command, or one a row of a table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from gatelens.cli.app import app
from gatelens.explainers import Attribution
from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel, prepare_text

WORDS = ["the film was good", "the film was bad", "good good film", "bad plot", "a plot", "was it good", "bad", "good"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of words with its vocabulary."""
    data = prepare_text(WORDS, ["yes" if "good" in text else "no" for text in WORDS], unit="word",
                        fractions=(1.0, 0.0, 0.0))  # fmt: skip
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(vocab_size=len(data.spec.vocabulary), embedding_dim=3, hidden_sizes=(4,),
                                 task="binary"), data.spec)  # fmt: skip
    return model.save(tmp_path_factory.mktemp("saved") / "words")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    frame = pd.DataFrame({"review": [*WORDS, None], "came": ["yes", "no"] * 4 + ["no"], "site": list("aabbaabba")})
    path = tmp_path / "reviews.csv"
    frame.to_csv(path, index=False)
    return path


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_texts_in_the_command(saved, tmp_path):
    """Each --text is a sample; its words are the timesteps, and one the model does not know is counted."""
    out = tmp_path / "a.nc"
    run("explain", saved, "--text", "a good film", "--text", "unheard of", "--method", "deeplift", "--out", out)
    found = Attribution.load(out)
    assert list(found.lengths) == [3, 2]
    assert list(found.dataset["token"].to_numpy()[0, :3]) == ["a", "good", "film"]
    run("report", saved, "--text", "a good film", "--out", tmp_path / "r.html")
    assert "good" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_texts_of_a_column(saved, table, tmp_path):
    """One text a row; an empty row is left out, and groups stay with their texts."""
    run("explain", saved, "--input", table, "--text-column", "review", "--out", tmp_path / "a.nc")
    assert len(Attribution.load(tmp_path / "a.nc")) == 8
    out = tmp_path / "s.html"
    told = json.loads(
        run("summarize", saved, "--input", table, "--text-column", "review", "--by", "site", "--truth", "came",
            "--out", out, "--json")
    )  # fmt: skip
    assert (told["samples"], told["of"]) == (8, 8)
    groups = told["groups"]["site"]["groups"]
    assert {name: group["samples"] for name, group in groups.items()} == {"a": 4, "b": 4}
    assert out.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report", "{model}", "--text", "a", "--input", "{table}"], "--text and --input are both given"),
        (["report", "{model}"], "--input is missing"),
        (["report", "{model}", "--input", "{table}"], "name their column with --text-column"),
        (["report", "{model}", "--input", "{table}", "--text-column", "reviews"], "no column 'reviews'; .*review"),
        (["report", "{model}", "--text", " "], "which has no word"),
        (["report", "{numbers}", "--text", "a"], "does not say how a text becomes tokens; it reads numbers"),
        (["report", "{tokens}", "--text", "a"], "it reads a table with a column 'token'"),
    ],
)
def test_refusals(saved, table, tmp_path, args, message):
    """What does not fit together is said in a sentence."""
    numbers = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(2,))).save(tmp_path / "numbers")
    tokens = LSTMModel(LSTMConfig(vocab_size=4, embedding_dim=2, hidden_sizes=(2,))).save(tmp_path / "tokens")
    names = {"{model}": saved, "{table}": table, "{numbers}": numbers, "{tokens}": tokens}
    with pytest.raises(InvalidInputError, match=message):
        CliRunner().invoke(app, [str(names.get(arg, arg)) for arg in args], catch_exceptions=False)
    assert not Path("report.html").exists()


def test_a_long_table_goes_by_in_pieces(tmp_path, monkeypatch):
    """The newest window of a long file is read without the whole file in memory."""
    from gatelens.models import DataSpec, FeatureSpec, WindowSpec, sequence_data

    spec = DataSpec(features=(FeatureSpec(name="a"),), window=WindowSpec(length=5))
    model = LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(2,)), spec).save(tmp_path / "m")
    values = np.random.default_rng(0).normal(size=50_000)
    pd.DataFrame({"a": values, "b": 1.0}).to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.setattr(sequence_data, "read_table", lambda *_args: pytest.fail("the whole file was read"))
    run("explain", model, "--input", tmp_path / "t.csv", "--out", tmp_path / "a.nc")
    np.testing.assert_allclose(Attribution.load(tmp_path / "a.nc").inputs[0, :, 0], values[-5:], rtol=1e-6)
