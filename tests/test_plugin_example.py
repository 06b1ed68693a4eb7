"""The example of a third-party package is installed, found by its entry point, and keeps the contract."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"

SCRIPT = """
import json, torch
from gatelens.explainers import available, explain, get
from gatelens.explainers.checks import check_explainer
from gatelens.models import LSTMConfig, LSTMModel

entry = available()["prefix_difference"]
check_explainer(get("prefix_difference"))
model = LSTMModel(LSTMConfig(input_size=2)).double()
inputs = torch.arange(12.0).reshape(1, 6, 2).double() / 10
found = explain(model, inputs, ["prefix_difference"])["prefix_difference"]
with torch.no_grad():
    prefixes = [torch.cat([inputs[:, :t], torch.zeros(1, 6 - t, 2)], dim=1) for t in range(7)]
    scores = [float(model(prefix)) for prefix in prefixes]
told = {"origin": entry.origin, "error": entry.error, "found": found.timesteps[0].tolist(), "scores": scores}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the environment of a Python that has the package installed."""
    folder = tmp_path_factory.mktemp("plugin")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    source = folder / "source"  # a build leaves files beside what it builds
    source.mkdir()
    for name in ("pyproject.toml", "gatelens_prefix_difference.py", "README.md"):
        (source / name).write_bytes((PLUGIN / name).read_bytes())
    subprocess.run([*command, "--target", str(folder / "site"), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1", "COLUMNS": "240"}


def test_the_example_works(installed, tmp_path):
    """It is listed with its origin, keeps every axiom, and gives what its docstring says."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=installed, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["origin"] == "gatelens-prefix-difference"
    assert found["error"] is None
    moves = [after - before for before, after in zip(found["scores"], found["scores"][1:], strict=False)]
    assert found["found"] == pytest.approx(moves, abs=1e-12)


def test_the_command_line_lists_it(installed, tmp_path):
    """`gatelens methods` shows it."""
    command = [sys.executable, "-c", "from gatelens.cli.app import main; main()", "methods"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prefix_difference" in done.stdout
    assert "gatelens-prefix-difference" in done.stdout
