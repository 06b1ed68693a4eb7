"""The worked example of a redacted report: what it says is gone is gone, and what it says can be worked out can."""

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest

from gatelens.examples import redacted_report
from gatelens.examples.glucose import data_path, model_path
from gatelens.models import load, read_csv


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the script once; return its folder, what it printed, and the window it is about."""
    folder, told = tmp_path_factory.mktemp("redacted") / "new", io.StringIO()
    with contextlib.redirect_stdout(told):
        redacted_report.main(folder)
    model = load(model_path())
    data = read_csv(data_path(), model.data, end=redacted_report.END)
    return SimpleNamespace(folder=folder, told=told.getvalue(), model=model, data=data)


def test_the_open_page_holds_the_inputs(ran):
    """The reader of packs finds the very inputs: so what it does not find elsewhere is not there."""
    _, arrays = redacted_report.packs(ran.folder / "open.html")[0]
    scale, center = (np.array(values)[:, None] for values in (ran.model.data.scale, ran.model.data.center))
    np.testing.assert_allclose(arrays["inputs"], ran.data.inputs[0].T * scale + center, rtol=1e-5, atol=1e-5)
    said = redacted_report.words(ran.folder / "open.html")
    for text in ("2010-10-05", "18:03", "\N{MINUS SIGN}14 mg/dL per 5 min"):
        assert text in said


def test_the_redacted_page_holds_neither_inputs_nor_times(ran):
    """No input in any array, no date or clock time in words or headers; the reasons stay."""
    page = ran.folder / "redacted.html"
    said = redacted_report.words(page)
    for text in ("2010-10-05", "18:03", "\N{MINUS SIGN}14 mg/dL per 5 min"):
        assert text not in said
    assert "Rate of change" in said
    _, arrays = redacted_report.packs(page)[0]
    assert "effect.0" in arrays
    inputs = ran.data.inputs[0].T
    for array in arrays.values():
        assert array.shape != inputs.shape or not np.allclose(array, inputs, rtol=1e-3)


def test_the_redacted_page_has_no_gates(ran):
    """Only effects and their errors are left among the numbers, so nothing can be recovered from gates."""
    page = ran.folder / "redacted.html"
    assert {name.split(".")[0] for name in redacted_report.packs(page)[0][1]} == {"effect"}
    assert redacted_report.recover(page, ran.model) is None


def test_gates_and_model_give_the_readings_away(ran):
    """What the example warns of is so: from an open page's gates the readings come back."""
    again = redacted_report.recover(ran.folder / "open.html", ran.model)
    np.testing.assert_allclose(again, ran.data.inputs[0], atol=1e-3)


def test_it_says_what_it_found(ran):
    """The printed table has a line a thing, and the last line is the path of the page to give away."""
    lines = {
        line[:36].strip(): line[36:].split() for line in ran.told.splitlines() if "there" in line or "gone" in line
    }
    assert lines["the date"] == lines["the clock time"] == lines["the newest change"] == ["there", "gone"]
    assert lines["the gates"] == ["there", "gone"]
    assert lines["the prediction"] == lines["the reasons"] == ["there"] * 2
    assert ran.told.rstrip().splitlines()[-1] == f"Open {(ran.folder / 'redacted.html').resolve()}"
