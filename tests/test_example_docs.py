"""The pages about the examples: their numbers are those of the saved models, and the index names them all."""

import json
import re
from pathlib import Path

import pytest

from gatelens.cli.demo import STORIES
from gatelens.examples.digits import accuracy_by_rows, split
from gatelens.examples.story import model_path
from gatelens.models import load

DOCS = Path(__file__).parent.parent / "docs"
ROWS = {  # page -> saved model -> row of data.json -> columns that the page tells
    "glucose": {"glucose": {"": ("accuracy", "macro_f1")}},
    "glucose-forecast": {"glucose_forecast": {"": ("mae", "rmse", "r2")}},
    "language": {"language": {"": ("accuracy", "macro_f1")}},
    "stocks": {
        "stocks": {"": ("accuracy", "roc_auc"), "lstm": ("roc_auc_low", "roc_auc_high")},
        "stocks_direction": {
            "lstm": ("accuracy", "roc_auc", "roc_auc_low", "roc_auc_high"),
            "always_up": ("accuracy",),
        },
    },
    "weather": {"weather": {"lstm": (), "always_sun": (), "logistic_regression": (),
                            "rain_where_it_is_wet_else_sun": ()}},
}  # fmt: skip


def text_of(name):
    return (DOCS / "examples" / f"{name}.md").read_text(encoding="utf-8")


def cells_of(text):
    """Return the numbers of all tables of a page."""
    table = " ".join(line for line in text.splitlines() if line.startswith("|"))
    return set(re.findall(r"-?\d*\.\d+", table))


def shown(column, value):
    return f"{value:.1f}" if column in ("mae", "rmse") else f"{value:.3f}".replace("0.", ".", 1)


@pytest.mark.parametrize("page", ROWS)
def test_a_page_tells_the_saved_models_metrics(page) -> None:
    """Every number of the rows and columns that a page tells is in one of its tables, trivial answers included."""
    cells = cells_of(text_of(page))
    for saved, rows in ROWS[page].items():
        metrics = json.loads((model_path(saved) / "data.json").read_text(encoding="utf-8"))["provenance"]["metrics"]
        for row, columns in rows.items():
            for name in metrics if row == "" else (row,):
                periods = [column for column in metrics[name] if re.match(r"accuracy($|_20)", column)]
                for column in columns or periods:
                    if column in metrics[name]:
                        assert shown(column, metrics[name][column]) in cells, (name, column)


@pytest.mark.parametrize("page", [name for name in STORIES if name != "digits"])
def test_every_story_has_a_page(page) -> None:
    """A page links the provenance and names the command; digits are the quickstart."""
    text = text_of(page)
    assert "../../examples/data/README.md" in text
    assert ("gatelens demo" if page == "glucose" else f"gatelens demo {page}") in text
    assert "## What it cannot tell" in text


def test_the_index_names_every_example() -> None:
    """All pages of the folder, and the quickstart, are linked from its index with a line each."""
    index = text_of("README")
    linked = set(re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", index, flags=re.MULTILINE))
    assert linked == {path.name for path in (DOCS / "examples").glob("*.md")} - {"README.md"} | {"../quickstart.md"}


def test_the_quickstart_tells_when_the_model_knows() -> None:
    """The accuracies by number of rows are those of the saved model."""
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    assert str([round(share, 2) for share in accuracy_by_rows(load(model_path("digits")), split()["test"])]) in text
