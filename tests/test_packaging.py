"""The wheel is whole: it installs into a fresh environment and works outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "explainers", "reports", "cli", "examples")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout, so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "gatelens-demo")
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return next(folder.glob("*.whl"))


def test_wheel_holds_what_it_should(wheel: Path) -> None:
    """Every package with its py.typed, the page's files, the demo's model and data; no tests, no stray top folder."""
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        assert f"gatelens/{package}/__init__.py" in names
        assert f"gatelens/{package}/py.typed" in names
    for name in (
        "reports/page/report.html",
        "reports/page/style.css",
        "examples/data/glucose.csv.gz",
        "examples/data/README.md",
        "examples/saved/glucose/config.json",
        "examples/saved/glucose/weights.safetensors",
        "examples/saved/glucose/data.json",
    ):
        assert f"gatelens/{name}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gatelens"}
    assert "gatelens/__init__.py" not in names  # a namespace package
    for source in ROOT.glob("*/*.py"):
        if source.parent.name in PACKAGES:
            assert f"gatelens/{source.parent.name}/{source.name}" in names


@pytest.mark.slow
def test_wheel_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed with its declared dependencies alone, every package imports, the command answers, the demo runs."""
    environment = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)],
        check=True,
        capture_output=True,
        timeout=900,
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    code = "; ".join(f"import gatelens.{package}" for package in (*PACKAGES, "reports.page"))
    code += "; import gatelens.models as m; print(m.__file__)"
    where = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True, timeout=120
    )
    assert str(environment) in where.stdout
    command = environment / "bin" / "gatelens"
    usage = subprocess.run(
        [command, "--help"], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True, timeout=60
    )
    assert "report" in usage.stdout
    demo = subprocess.run(
        [command, "demo"], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True, timeout=300
    )
    assert "Open " in demo.stdout
    assert (tmp_path / "gatelens-demo" / "report.html").stat().st_size > 10_000
