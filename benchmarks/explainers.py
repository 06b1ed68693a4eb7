"""What is measured of the explainers, in one run; `python benchmarks/explainers.py` writes it into docs/benchmarks.md.

The parts run alone, too: `quality.py` (completeness, distance to exact Shapley values, a task with known answers, cost
of the exact methods), `shapley.py` (exact values and estimates beside shap and shapiq) and `interface.py` (each
explainer beside the bare library). It takes some ten minutes.
"""

from __future__ import annotations

from pathlib import Path

import interface
import quality
import shapley
from pages import machine
from parts import PAGE, write_part

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Print all tables, write the page, and draw the estimates."""
    lines = [f"Written by `python benchmarks/explainers.py`; {machine()}", ""]
    lines += quality.sections()
    lines += shapley.sections(DOCS / "shapley-estimates.png")
    lines += interface.sections()
    write_part(PAGE, "explainers.py", lines)


if __name__ == "__main__":
    main()
