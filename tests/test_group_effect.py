"""The planted group effect is found by ward and only there, and where nothing is planted nothing is claimed."""

import contextlib
import html
import io
import json
import re
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from gatelens.cli import main as cli
from gatelens.examples import group_effect
from gatelens.models import load

TOPICS = ("What is predicted", "How right it is", "How much features matter", "Which way features push")
NOTHING = [f"By ward: {topic}: no difference between groups is beyond chance." for topic in TOPICS]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the script once, as it stands; return its folder and what it printed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder, told = tmp_path_factory.mktemp("group") / "new" / "folder", io.StringIO()
    with contextlib.redirect_stdout(told):
        group_effect.main(folder)
    torch.set_num_threads(before)
    return SimpleNamespace(folder=folder, told=told.getvalue())


def again(ran, name):
    """Return the report on a saved model, its rows and the prepared data."""
    data = group_effect.read(ran.folder / f"{name}.csv")
    rows = group_effect.held_out(ran.folder / f"{name}.csv", data)
    return group_effect.report(load(ran.folder / f"{name}-model"), data, rows), rows, data


def by_ward(report):
    return [text for text in report.sentences() if text.startswith("By ward")]


def test_only_the_planted_sensor_differs(tmp_path):
    """Both tables hold the same patients; the planted one reads 3 points higher in the south and nowhere else."""
    tables = {}
    for offset in (0.0, group_effect.OFFSET):
        group_effect.write_csv(tmp_path / "table.csv", offset=offset, count=200)
        tables[offset] = pd.read_csv(tmp_path / "table.csv")
    true, planted = tables.values()
    south = planted["ward"] == "south"
    apart = planted["oxygen saturation"] - true["oxygen saturation"]
    np.testing.assert_allclose(apart, np.where(south, 3, 0), atol=0.011)  # two decimals
    others = [name for name in true if name != "oxygen saturation"]
    pd.testing.assert_frame_equal(true[others], planted[others])
    assert 0.15 < south.mean() < 0.35


def test_wards_are_alike_but_for_the_sensor(tmp_path):
    """As many get worse in both, and the ward is no feature and in no part more often."""
    group_effect.write_csv(tmp_path / "table.csv", offset=0.0, count=4000)
    ends = pd.read_csv(tmp_path / "table.csv").groupby("stay").last()
    shares = (ends["outcome"] == "worse").groupby(ends["ward"]).mean()
    assert abs(shares["north"] - shares["south"]) < 0.05
    data = group_effect.read(tmp_path / "table.csv")
    assert [feature.name for feature in data.spec.features] == list(group_effect.VITAL_SIGNS)
    parts = [set(part.sample_names) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 4000


def test_all_stays_as_one_look_well(ran):
    """Without groups the model is far better than the constant, and no sentence speaks of a ward."""
    metrics = load(ran.folder / "planted-model").data.provenance["metrics"]
    assert metrics["lstm"]["accuracy"] > metrics["always_stable"]["accuracy"] + 0.1
    page = (ran.folder / "no-groups.html").read_text(encoding="utf-8")
    assert "Checks passed." in page
    assert "Groups by" not in page
    assert "north" not in page


def test_the_planted_effect_is_named(ran):
    """By ward the words name those who got worse, unrecognised in the south, and oxygen saturation as what differs."""
    report, rows, data = again(ran, "planted")
    told = dict(zip(TOPICS, by_ward(report), strict=True))
    assert "the share of worse recognised differs most" in told["How right it is"]
    assert "oxygen saturation differs most" in told["How much features matter"]
    assert "oxygen saturation differs most" in told["Which way features push"]
    model = load(ran.folder / "planted-model")
    with torch.no_grad():
        said = model(data.test.inputs)[:, 0].numpy() > 0
    ends = rows.groupby("stay", sort=False).last()
    recalls = [
        f"{said[((ends['ward'] == ward) & (ends['outcome'] == 'worse')).to_numpy()].mean():.0%}".replace("%", " %")
        for ward in ("north", "south")
    ]
    assert f"{recalls[0]} in north against {recalls[1]} in south" in told["How right it is"]
    page = (ran.folder / "planted.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub("<[^>]*>", "", page)).replace("\N{NO-BREAK SPACE}", " ")
    for sentence in told.values():
        assert sentence in ran.told
        assert sentence.removeprefix("By ward: ") in text


def test_the_control_claims_nothing(ran):
    """With true sensors no difference is named, on the page and in what is printed."""
    report, _, _ = again(ran, "control")
    assert by_ward(report) == NOTHING
    assert all(sentence in ran.told for sentence in NOTHING)
    assert "differs most" not in (ran.folder / "control.html").read_text(encoding="utf-8")


def test_other_patients_of_the_control_claim_nothing_either(ran, tmp_path):
    """Of five other hospitals without a fault at most one page names a difference: 1 in 20 is what it promises."""
    model = load(ran.folder / "control-model")
    named = 0
    for seed in range(1, 6):
        group_effect.write_csv(tmp_path / "other.csv", offset=0.0, count=1200, seed=seed)
        data = group_effect.read(tmp_path / "other.csv")
        rows = group_effect.held_out(tmp_path / "other.csv", data)
        named += by_ward(group_effect.report(model, data, rows)) != NOTHING
    assert named <= 1


def test_the_command_it_prints_does_the_same(ran, tmp_path, monkeypatch, capsys):
    """`gatelens summarize --by ward` on the CSV that it wrote names the same differences, with the same numbers."""
    words = shlex.split(re.search(r"^  (gatelens summarize .*)$", ran.told, flags=re.MULTILINE)[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*words, "--json"])
    with pytest.raises(SystemExit) as ended:
        cli()
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)["groups"]["ward"]
    report, _, _ = again(ran, "planted")
    wanted = report.groups[0].to_dict()
    assert found["groups"] == json.loads(json.dumps(wanted["groups"]))
    assert found["differences"] == json.loads(json.dumps(wanted["differences"]))
    assert (tmp_path / "summary.html").exists()


def test_it_ends_with_the_page(ran):
    """The last line is the path of the page by ward; the trivial answer stands beside the model."""
    assert ran.told.rstrip().splitlines()[-1] == f"Open {(ran.folder / 'planted.html').resolve()}"
    assert ran.told.count("always_stable") == 2
