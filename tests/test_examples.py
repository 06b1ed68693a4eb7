"""The glucose story is what it says: the data, the split, the metrics, the training and the script."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens.examples import glucose, train_glucose
from gatelens.models import load

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def parts():
    return glucose.split()[1]


def test_extract_is_the_source() -> None:
    """The extract holds every row of the public-domain series, unchanged."""
    source = pytest.importorskip("bokeh_sampledata.glucose").data
    lines = gzip.decompress(glucose.data_path().read_bytes()).decode().splitlines()
    assert lines[0] == "time,glucose"
    assert len(lines) - 1 == len(source) == 52281
    assert [int(line.split(",")[1]) for line in lines[1:]] == source["glucose"].tolist()
    assert lines[1].split(",")[0] == str(source.index[0])[:16]
    assert glucose.data_path().stat().st_size < 250_000


def test_parts_do_not_touch(parts) -> None:
    """Train, validation and test follow each other with guards, the 30 minutes of the label included."""
    ends = {name: (part.times.min(), part.times.max() + np.timedelta64(30, "m")) for name, part in parts.items()}
    assert ends["train"][1] + np.timedelta64(20, "h") < ends["validation"][0]
    assert ends["validation"][1] + np.timedelta64(20, "h") < ends["test"][0]
    assert ends["train"][1] < np.datetime64("2010-08-16")
    assert ends["test"][0] > np.datetime64("2010-09-10")


def test_windows_cross_no_gap(parts) -> None:
    """No two neighbouring readings of a window are more than 6 or less than 3 minutes apart."""
    for part in parts.values():
        steps = np.diff(part.times, axis=1)
        assert steps.max() <= np.timedelta64(6, "m")
        assert steps.min() >= np.timedelta64(3, "m")


def test_scaling_comes_from_the_training_part_alone(parts) -> None:
    """The training part has mean 0 and spread 1; the others need not."""
    train = parts["train"].inputs
    assert abs(train[:, :, 0].mean()) < 0.01
    assert train[:, :, 0].std() == pytest.approx(1, abs=0.01)


def test_labels_are_the_change_in_thirty_minutes(parts) -> None:
    """The label compares the last reading with the one six rows later in the file."""
    rows = [line.split(",") for line in gzip.decompress(glucose.data_path().read_bytes()).decode().splitlines()[1:]]
    readings = {time: int(value) for time, value in rows}
    part = parts["test"]
    for index in range(0, len(part), 997):
        last = part.times[index, -1]
        later = [readings.get(str(last + np.timedelta64(m, "m"))[:16].replace("T", " ")) for m in range(28, 33)]
        found = [value for value in later if value is not None]
        assert found
        change = found[0] - part.glucose[index, -1]
        assert part.labels[index] == (0 if change < -20 else 2 if change > 20 else 1)


def test_metrics_in_the_saved_model_are_true(parts) -> None:
    """Measured again on the held-out weeks, model and trivial forecasts give the numbers in data.json."""
    model = load(glucose.model_path())
    stored = model.data.provenance["metrics"]
    again = train_glucose.evaluate(model, parts)
    for name, row in stored.items():
        assert again[name] == pytest.approx(row, abs=2e-3), name
    assert stored["lstm"]["accuracy"] >= 0.76
    assert stored["lstm"]["macro_f1"] >= 0.62
    assert stored["lstm"]["roc_auc_fall"] >= 0.89
    assert stored["lstm"]["roc_auc_rise"] >= 0.84


def test_training_is_repeatable(parts, monkeypatch) -> None:
    """The same seed gives the same weights."""
    monkeypatch.setattr(train_glucose, "EPOCHS", 1)
    small = {
        name: glucose.Part(p.inputs[::40], p.labels[::40], p.glucose[::40], p.times[::40], p.sample_names[::40])
        for name, p in parts.items()
    }
    one, two = (train_glucose.train(small).state_dict() for _ in range(2))
    for name, weight in one.items():
        assert torch.equal(weight, two[name])


def test_script_runs(tmp_path: Path) -> None:
    """The example script prints words and numbers and writes the page."""
    script = ROOT / "examples" / "explain_glucose.py"
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "the model predicts fall" in done.stdout
    assert (tmp_path / "glucose.html").exists()


def test_saved_model_is_small() -> None:
    """The saved model is under 50 kB and names its features, classes and limits."""
    folder = ROOT / "examples" / "saved" / "glucose"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 50_000
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    assert [feature["unit"] for feature in data["features"]] == ["mg/dL", "mg/dL per 5 min", "", ""]
    assert "not for any medical decision" in data["provenance"]["intended_use"]
