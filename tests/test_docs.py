"""The code in README.md and docs/ runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_code_blocks_run_in_order(page: Path, tmp_path: Path) -> None:
    """All Python blocks of a page, one after the other, run outside the checkout without a warning."""
    script = "\n".join(python_blocks(page))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::PendingDeprecationWarning", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_readme_writes_a_report(tmp_path: Path) -> None:
    """The ten lines of the README end with the page they promise."""
    ten_lines = python_blocks(ROOT / "README.md")[0]
    assert len([line for line in ten_lines.splitlines() if line.strip()]) == 9
    subprocess.run([sys.executable, "-c", ten_lines], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert "<h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link and picture of README.md and docs/ exists."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_readme_quotes_the_metrics_of_the_saved_model() -> None:
    """The numbers of the README's table are those of data.json."""
    import json

    data = json.loads((ROOT / "examples" / "saved" / "glucose" / "data.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in data["provenance"]["metrics"].values():
        for value in row.values():
            assert f"{value:.3f}".removeprefix("0") in readme


def test_readme_quotes_the_peers_as_they_were_measured() -> None:
    """Every row of the README's table of peers stands in docs/benchmarks.md, where the program wrote it."""
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = readme.partition("## Beside captum")[2].partition("\n## ")[0]
    rows = [line for line in quoted.splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    assert [row for row in rows if row not in measured] == []
