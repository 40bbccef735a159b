# Everything a person or CI runs. PYTHON chooses the interpreter: make install PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := operator services tests bench

.PHONY: up install lock check test bench docs clean
.DEFAULT_GOAL := up

up: install  ## install, then run the whole product on this machine
	$(BIN)/imaging up

install: $(VENV)/.project  ## the environment from the lock file, and the imaging command in it

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": choose another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.requirements: requirements.lock $(VENV)/.python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	touch $@

$(VENV)/.project: pyproject.toml $(VENV)/.requirements
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	touch $@

lock: install  ## write requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --extra dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	  --output-file requirements.lock $(LOCK_OPTIONS)

check: install  ## linter, formatter, types, import contracts
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install  ## everything, against real servers; TESTS=tests/unit for a part
	$(BIN)/pytest $(TESTS)

bench: install  ## compare with DCMTK, pynetdicom and Orthanc; BENCH_OPTIONS='--rounds 1 --instances 100'
	PYTHONPATH=tests $(BIN)/python bench/run.py $(BENCH_OPTIONS)

docs: install  ## write docs/settings.md from the settings classes
	$(BIN)/python -m imaging_services.cli.settings_reference > docs/settings.md

clean:  ## remove what is built; the data of imaging up stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/out
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
