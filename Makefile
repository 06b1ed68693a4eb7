# gatelens: `make demo` shows it on real data, `make test` checks everything. Each makes its own .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A new or removed file changes its folder's time, and the install (which links file by file) is made again.
FOLDERS := $(shell find models explainers reports cli examples -type d -not -name __pycache__)

.PHONY: demo test lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/gatelens demo --out gatelens-demo/report.html

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	for name in recorder explainers growth ground_truth peers scale report; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) build dist gatelens-demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gatelens needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.dependencies: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing (torch, shap, captum, ...): one to three minutes the first time"
	$(PIP) setuptools wheel
	$(PIP) --no-build-isolation --config-settings editable_mode=strict -e .
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(FOLDERS)
	$(PIP) --no-build-isolation --no-deps --config-settings editable_mode=strict -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --no-build-isolation --config-settings editable_mode=strict -e ".[dev]"
	@touch $@
