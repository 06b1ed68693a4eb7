"""Importing is cheap and quiet, and every public name is there."""

import importlib
import json
import subprocess
import sys

import pytest

import gatelens.explainers

HEAVY = [
    "shap",
    "lime",
    "captum",
    "matplotlib",
    "pandas",
    "xarray",
    "bokeh",
    "sklearn",
    "scipy",
    "rich",
    "h5py",
    "dask",
]


def python(code: str) -> str:
    """Return what a fresh interpreter prints, with warnings as errors."""
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


@pytest.mark.parametrize("package", ["gatelens.explainers", "gatelens.models", "gatelens.explainers.checks"])
def test_importing_does_not_import_heavy_libraries(package):
    """The package imports torch and numpy, and no library that only some of its functions need."""
    code = f"import json, sys, {package}; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    assert json.loads(python(code)) == []


def test_the_check_sees_what_is_imported():
    """A module that does import a heavy library is seen (so the test above can fail)."""
    code = f"import json, sys, gatelens.explainers, rich; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    assert json.loads(python(code)) == ["rich"]


def test_every_public_name_resolves():
    """Every name in `__all__` is there, once, and `dir` lists it."""
    names = gatelens.explainers.__all__
    assert len(set(names)) == len(names)
    assert all(getattr(gatelens.explainers, name) is not None for name in names)
    assert set(names) <= set(dir(gatelens.explainers))


def test_every_built_in_explainer_is_public():
    """The class of each built-in explainer is in `__all__` and is the one that `get` gives."""
    for name, where in gatelens.explainers.BUILT_IN.items():
        attribute = where.split(":")[1]
        assert attribute in gatelens.explainers.__all__
        assert getattr(gatelens.explainers, attribute) is gatelens.explainers.get(name)


def test_an_unknown_name_is_an_attribute_error():
    """A name that is not there raises AttributeError, as modules do."""
    with pytest.raises(AttributeError, match="has no attribute 'LIMES'"):
        _ = gatelens.explainers.LIMES


def test_models_names_resolve():
    """Every name in `gatelens.models.__all__` is there."""
    models = importlib.import_module("gatelens.models")
    assert [name for name in models.__all__ if not hasattr(models, name)] == []
