"""`gatelens summarize` of a store of attributions: the store's numbers, labels by name or order, helpful refusals."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gatelens.cli import main
from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import Attribution
from gatelens.explainers.dataset import explain_dataset
from gatelens.models import load, read_csv
from gatelens.reports import GlobalReport
from helpers.draws import make_model

MODEL, DATA = str(model_path()), str(data_path())
COUNT, FAILED = 120, (7, 50)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in this process, in an empty folder, and return (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gatelens", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of real windows, of which two cannot be explained."""
    model = load(MODEL)
    inputs = read_csv(DATA, model.data, windows="all", stride=60).inputs[:COUNT]
    inputs = np.array(inputs)
    inputs[list(FAILED), 3, 0] = np.nan
    path = tmp_path_factory.mktemp("store") / "found.zarr"
    explain_dataset(
        model, inputs, method="deeplift", out=path, workers=1, target="rise", baseline="mean", output="probability"
    )
    return path


@pytest.fixture(scope="module")
def labels(store) -> dict[str, Path]:
    """The same labels by name, shuffled and for explained samples only, and by order, for all."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "sample": [f"sample {place}" for place in range(COUNT)],
            "site": np.where(np.arange(COUNT) % 3, "east", "west"),
            "came": rng.choice(["fall", "stay", "rise"], COUNT),
            "patient": np.arange(COUNT) // 2,
        }
    )
    paths = {name: store.parent / f"{name}.csv" for name in ("named", "ordered")}
    frame.drop(list(FAILED)).sample(frac=1, random_state=1).to_csv(paths["named"], index=False)
    frame.drop(columns="sample").to_csv(paths["ordered"], index=False)
    return paths


def test_a_store_is_told_with_its_own_numbers(run, store, tmp_path) -> None:
    """All explained samples are on the page, with the library's numbers, and those that failed are told."""
    code, out, err = run("summarize", MODEL, "--input", store, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    overview = GlobalReport(Attribution.open(store)).overview
    assert (told["samples"], told["of"], told["method"]) == (COUNT - 2, COUNT - 2, "deeplift")
    for feature, name in enumerate(overview.names):
        assert told["features"][name]["share"] == pytest.approx(float(overview.shares[feature]))
        assert told["features"][name]["mean_effect"] == pytest.approx(float(overview.net[:, feature].mean()))
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "2 of 120 samples could not be explained and are left out." in page
    assert "explain_dataset" in page


@pytest.mark.parametrize("kind", ["named", "ordered"])
def test_labels_go_with_their_samples(run, store, labels, kind) -> None:
    """Rows are joined by the samples' names, or by the store's order with those that failed; groups are the table's."""
    words = ["summarize", MODEL, "-i", store, "--labels", labels[kind], "--by", "site", "--truth", "came", "--json"]
    told = json.loads(run(*words)[1])
    kept = np.setdiff1d(np.arange(COUNT), FAILED)
    frame = pd.read_csv(labels["ordered"]).iloc[kept]
    found = Attribution.open(store)
    expected = GlobalReport(found, groups={"site": frame["site"]}, truth=frame["came"])
    assert told["groups"]["site"] == json.loads(json.dumps(expected.groups[0].to_dict()))
    assert told["performance"] == expected.performance.sentences()
    assert told["groups"]["site"]["groups"]["west"]["samples"] == int((kept % 3 == 0).sum())


def test_samples_that_belong_together_are_named_in_the_labels(run, store, labels, tmp_path) -> None:
    """--id-column names a column of the labels; its samples count as one."""
    words = ["summarize", MODEL, "-i", store, "--labels", labels["named"], "--by", "site"]
    for more, separate in ((["--id-column", "patient"], True), ([], False)):
        assert run(*words, *more)[0] == 0
        page = (tmp_path / "summary.html").read_text(encoding="utf-8")
        assert ("of them separate" in page) == separate


def test_labels_that_lack_samples_say_so(run, store, labels, tmp_path) -> None:
    """Samples without a row have nothing known, which the page says."""
    few = tmp_path / "few.csv"
    pd.read_csv(labels["named"]).head(100).to_csv(few, index=False)
    code, out, _ = run("summarize", MODEL, "-i", store, "--labels", few, "--by", "site", "--json")
    assert code == 0
    assert json.loads(out)["groups"]["site"]["groups"]["(missing)"]["samples"] == 18
    text = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "18 of 118 samples are not in the table of labels, so nothing is known of them." in text


def test_fewer_samples_are_drawn_where_asked(run, store, labels, tmp_path) -> None:
    """--max-samples draws of the store, labels stay with their samples, and all notes count the whole store."""
    code, out, _ = run(
        "summarize", MODEL, "-i", store, "--labels", labels["named"], "--by", "site", "--max-samples", 40, "--json"
    )
    told = json.loads(out)
    assert (code, told["samples"], told["of"]) == (0, 40, 118)
    rows = np.sort(np.random.default_rng(0).choice(118, 40, replace=False))
    kept = np.setdiff1d(np.arange(COUNT), FAILED)[rows]
    assert told["groups"]["site"]["groups"]["west"]["samples"] == int((kept % 3 == 0).sum())
    text = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "Shown are 40 of 118 samples, drawn at random (seed 0)." in text
    assert text.count("2 of 120 samples could not be explained") == 1
    assert text.count("could not be explained") == 1


def test_redacted_pages_name_no_file(run, store, labels, tmp_path) -> None:
    """A redacted page of a store holds neither its name nor the labels'."""
    code, _, _ = run("summarize", MODEL, "-i", store, "--labels", labels["named"], "--by", "site", "--redact")
    assert code == 0
    text = (tmp_path / "summary.html").read_text(encoding="utf-8")
    for word in ("found.zarr", "named.csv", "east", "sample 3<"):
        assert word not in text
    assert "gatelens summarize MODEL --input STORE --redact" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "lime"], r"--method is given, and \S+found.zarr holds attributions, which are explained already"),
        (["--target", "rise"], "--target is given"),
        (["--baseline", "zero"], "--baseline is given"),
        (["--stride", "5"], "--stride is given"),
        (["--by", "site"], "--by is 'site', and a store of attributions has no such columns; name a table with --lab"),
        (["--truth", "came"], "--truth is 'came'"),
        (["--id-column", "patient"], "--id-column is 'patient'"),
        (["--labels", "NAMED", "--by", "sight"], "no column 'sight' for --by; known: .* Did you mean 'site'"),
        (["--labels", "NAMED", "--id-column", "pat"], "no column 'pat' for --id-column"),
        (["--labels", "SHORT", "--by", "site"], "has 10 rows and no column 'sample', and .* has 120 samples; give one"),
        (["--labels", "TWICE", "--by", "site"], "has several rows of the sample 'sample 1'"),
        (["--labels", "OTHERS", "--by", "site"], "there they are called 'sample 0' and so on, here 'patient 0'"),
        (["--labels", "none.csv", "--by", "site"], "none.csv"),
        (["--max-samples", "0"], "--max-samples is 0"),
    ],
)
def test_refusals(run, store, labels, tmp_path, words, message) -> None:
    """What does not go with a store is refused with a sentence, and no page is written."""
    frame = pd.read_csv(labels["named"])
    tables = {
        "SHORT": frame.drop(columns="sample").head(10),
        "TWICE": frame.assign(sample="sample 1"),
        "OTHERS": frame.assign(sample=[f"patient {place}" for place in range(len(frame))]),
    }
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    given = [f"{word}.csv" if word in tables else labels["named"] if word == "NAMED" else word for word in words]
    code, out, err = run("summarize", MODEL, "--input", store, *given)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert not (tmp_path / "summary.html").exists()


def test_another_model_another_folder_or_a_table_is_refused(run, store, labels, tmp_path) -> None:
    """A model that was not explained, a folder that is no store, and labels beside a table are refused."""
    make_model(0, input_size=1).save(tmp_path / "other")
    code, _, err = run("summarize", tmp_path / "other", "-i", store)
    assert (code, "is not the one that was explained" in err) == (2, True)
    for name in ("absent.zarr", "other"):
        code, _, err = run("summarize", MODEL, "-i", tmp_path / name)
        assert (code, name in err, "unexpected" in err) == (2, True, False), err
    code, _, err = run("summarize", MODEL, "-i", DATA, "--labels", labels["named"])
    assert (code, "--labels goes with a store of attributions" in err) == (2, True)
    assert not (tmp_path / "summary.html").exists()
