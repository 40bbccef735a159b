# Everything a person or CI runs. PYTHON chooses the interpreter: make install PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := operator services tests bench
AZURITE := $(VENV)/azurite
OHIF := $(VENV)/ohif
JOBS ?= 3
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links

.PHONY: up install lock check test fuzz chaos soak test-operator test-cluster test-knative test-dicom-rs programs images azurite ohif bench bench-compare bench-growth bench-workers bench-docs docs crds clean
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

lock: install  ## write the lock files anew from pyproject.toml: requirements.lock has all, the others the images' parts of it
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(COMPILE) pyproject.toml --extra dev --output-file requirements.lock $(LOCK_OPTIONS)
	$(COMPILE) pyproject.toml --extra edge --constraint requirements.lock --output-file requirements/image.lock
	$(COMPILE) pyproject.toml --extra local --constraint requirements.lock --output-file requirements/trial.lock
	$(COMPILE) --group build --constraint requirements.lock --output-file requirements/build.lock

check: install  ## linter, formatter, types, import contracts
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install azurite ohif  ## all but what needs a Kubernetes, against real servers; TESTS=tests/unit for a part, JOBS=0 for one at a time
	$(BIN)/pytest $(PARALLEL) $(TESTS)

test-operator: install  ## the operator and the chart on a real API server, which is built when there is none; TESTS=tests/operator/test_x.py for a part
	$(BIN)/pytest $(if $(KUBECONFIG)$(TEST_CLUSTER),,$(PARALLEL)) $(or $(filter tests/operator% tests/charts%,$(TESTS)),tests/operator tests/charts)

test-cluster: install  ## the whole product on a real node; needs root, or Docker and kind; FORM=short is what CI runs
	$(BIN)/pytest $(if $(filter short,$(FORM)),-m "not long") $(or $(filter tests/cluster%,$(TESTS)),tests/cluster)

test-knative: install  ## the system on Knative, which is compiled here, on a real node; needs root, or Docker and kind; and Go
	$(BIN)/pytest $(or $(filter tests/knative%,$(TESTS)),tests/knative)

test-dicom-rs: install  ## DIMSE with dicom-rs's tools as peers, which cargo builds first: some ten minutes on two cores
	cargo install --locked --root build/dicom-rs --target-dir build/dicom-rs/target $(foreach tool,echoscu storescu storescp findscu,dicom-$(tool)@0.10.1)
	$(BIN)/pytest tests/dicom_rs

programs: install  ## build Kubernetes' programs for the three above, once: eight minutes on two cores
	PYTHONPATH=tests $(BIN)/python -m cluster programs

images: install  ## build the two images as the tests on a node do, without a registry; needs root
	PYTHONPATH=tests $(BIN)/python -m cluster images

azurite: install  ## the Azure Blob server of the tests, from npm's lock file; without npm its tests fail, and say so
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(AZURITE)/.installed; \
	else echo "npm is missing, so the tests on Azure Blob will fail: install Node.js 20 (Debian: nodejs npm)"; fi

$(AZURITE)/.installed: tests/peers/azurite/package.json tests/peers/azurite/package-lock.json
	mkdir -p $(AZURITE)
	cp $^ $(AZURITE)
	cd $(AZURITE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

ohif: install  ## the viewer of the browser test, from npm's lock file; the test needs Debian's chromium as well
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(OHIF)/.installed; \
	else echo "npm is missing, so the browser test will fail: install Node.js 20 (Debian: nodejs npm)"; fi

$(OHIF)/.installed: tests/peers/ohif/package.json tests/peers/ohif/package-lock.json
	mkdir -p $(OHIF)
	cp $^ $(OHIF)
	cd $(OHIF) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

fuzz: install  ## what strangers may send, for longer than make test does; FUZZ_EXAMPLES=100000 for longer still
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),5000) $(BIN)/pytest --timeout 7200 $(PARALLEL) tests/fuzz

chaos: install  ## every fault under load, then an audit; writes build/chaos/summary.md; CHAOS_KILLS=100, CHAOS_SEED, CHAOS_MINUTES
	CHAOS=long CHAOS_KILLS=$(CHAOS_KILLS) CHAOS_SEED=$(CHAOS_SEED) CHAOS_MINUTES=$(CHAOS_MINUTES) \
	  nice $(BIN)/pytest -m "not soak" $(or $(filter tests/chaos%,$(TESTS)),tests/chaos)

soak: install  ## a steady load for SOAK_MINUTES=30, then: is memory flat, is latency flat, has anything grown?
	CHAOS=long SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/pytest -m soak tests/chaos

bench: install  ## compare with DCMTK, pynetdicom and Orthanc; BENCH_OPTIONS='--rounds 1 --instances 100'
	PYTHONPATH=tests $(BIN)/python bench/run.py $(BENCH_OPTIONS)

bench-compare:  ## the ratios of the last make bench beside bench/record.json; fails when one got worse
	$(BIN)/python bench/compare.py $(BENCH_OPTIONS)

bench-growth: install  ## what searches and recording cost as the manifest grows; BENCH_OPTIONS='--sizes 10000 5000000'
	PYTHONPATH=tests $(BIN)/python bench/growth.py $(BENCH_OPTIONS)

bench-workers: install  ## two ingester processes on one port beside one, on an otherwise idle machine; BENCH_OPTIONS='--workers 4'
	PYTHONPATH=tests $(BIN)/python bench/workers.py $(BENCH_OPTIONS)

bench-docs:  ## write the figures of the last runs into docs/performance.md
	$(BIN)/python bench/report.py

docs: install  ## write docs/settings.md from the settings classes
	$(BIN)/python -m imaging_services.cli.settings_reference > docs/settings.md

crds: install  ## write crds/, the chart's copy and docs/custom-resources.md from the operator's models
	$(BIN)/python -m imaging_operator.specs.crd crds $(wildcard charts/imaging-ingestion/files/crds)
	$(BIN)/python -m imaging_operator.specs.reference > docs/custom-resources.md

clean:  ## remove what is built; the data of imaging up stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/out
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
