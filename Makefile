# Every target makes the virtual environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles each module when it is first imported; pip would compile all of them, which takes as long as the rest.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
BENCH := .venv-bench
READERS := .venv-readers
SNOWFLAKE := .venv-snowflake
BIGQUERY := .venv-bigquery
DASK := .venv-dask
DBT := .venv-dbt
RELEASE := .venv-release
VERSIONS := .venv-versions
PYTHON_OF_BIGQUERY ?= python3.13
EXTRAS ?=
EXTRAS_KNOWN := $(shell sed -n '/^\[project.optional-dependencies\]/,/^$$/s/ = .*//p' pyproject.toml)
COMMA := ,
EXTRAS_WANTED := $(sort $(subst $(COMMA), ,$(EXTRAS)))
ifneq ($(filter-out $(EXTRAS_KNOWN),$(EXTRAS_WANTED)),)
$(error There is no extra $(filter-out $(EXTRAS_KNOWN),$(EXTRAS_WANTED)): choose from $(EXTRAS_KNOWN))
endif
# One more than there are processors: tests that wait for a process or a server leave theirs idle.
PARALLEL = --numprocesses $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))) --dist worksteal
# The quick tests wait for no disk where enough memory can be a folder, and programs may run in it.
IN_MEMORY = $(shell awk '$$2 == "/dev/shm" && $$4 !~ /noexec/ {print $$2}' /proc/mounts 2>/dev/null | xargs -r df -Pm 2>/dev/null | \
	awk 'NR == 2 && $$4 >= 2048 {print "TMPDIR=/dev/shm"}')
# What was released within a week is not taken: by then, others have found what is wrong with it.
LOCK_FOR = $(BIN)/uv pip compile --quiet --universal --python-version $(1) --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --upgrade --exclude-newer '7 days'
LOCK := $(call LOCK_FOR,3.11)

# Whether a Python is new enough, and has what an environment of its own needs.
FIT := -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))'

.DEFAULT_GOAL := help
.PHONY: help install demo run test test-all test-versions check lint types format docs bench bench-quick release lock clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# $(call environment,FOLDER,PYTHON,LOCKS): what the locks name and this checkout, and nothing else.
define environment
	$(2) -m venv --clear $(1)
	$(1)/bin/python -m pip --quiet install --require-hashes $(addprefix --requirement ,$(3))
	$(1)/bin/python -m pip --quiet install --no-deps --editable .
endef

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

# Beside the locked packages, of which none changes.
$(VENV)/.extra-%: locks/%.lock $(VENV)/.runtime
	@echo "Installing the extra \"$*\" into $(VENV), once." >&2
	@$(PIP) --require-hashes --requirement requirements.lock --requirement $<
	@touch $@

$(BENCH)/.done: requirements.lock locks/dask.lock locks/fast.lock benchmarks/baselines.lock pyproject.toml
	$(need_python)
	$(call environment,$(BENCH)/plain,$(PYTHON),requirements.lock)
	$(call environment,$(BENCH)/fast,$(PYTHON),requirements.lock locks/fast.lock)
	$(call environment,$(BENCH)/dask,$(PYTHON),requirements.lock locks/dask.lock)
	$(PYTHON) -m venv $(BENCH)/baselines
	$(BENCH)/baselines/bin/python -m pip --quiet install --require-hashes --requirement benchmarks/baselines.lock
	@touch $@

$(READERS)/.done: tests/readers.lock
	$(need_python)
	$(PYTHON) -m venv $(READERS)
	$(READERS)/bin/python -m pip --quiet install --require-hashes --requirement tests/readers.lock
	@touch $@

$(DBT)/.done: tests/dbt.lock
	$(need_python)
	$(PYTHON) -m venv $(DBT)
	$(DBT)/bin/python -m pip --quiet install --require-hashes --requirement tests/dbt.lock
	@touch $@

# Emulators of warehouses, each with the versions that it needs; that of BigQuery runs on Python 3.13 alone.
$(SNOWFLAKE)/.done: tests/snowflake.lock pyproject.toml
	$(need_python)
	$(call environment,$(SNOWFLAKE),$(PYTHON),$<)
	@touch $@

$(BIGQUERY)/.done: tests/bigquery.lock tests/local-bigquery.lock pyproject.toml
	$(call environment,$(BIGQUERY),$(PYTHON_OF_BIGQUERY),$<)
	$(BIGQUERY)/bin/python -m pip --quiet install --no-deps --require-hashes --requirement tests/local-bigquery.lock
	@touch $@

# The engine on Dask, whose tests take the tools of the others with them.
OF_DASK := requirements.lock tests/tools.lock locks/bucket.lock locks/dask.lock locks/duckdb.lock locks/postgresql.lock
$(DASK)/.done: $(OF_DASK) pyproject.toml
	$(need_python)
	$(call environment,$(DASK),$(PYTHON),$(OF_DASK))
	@touch $@

$(RELEASE)/.done: requirements-release.lock
	$(need_python)
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip --quiet install --require-hashes --requirement $<
	@touch $@

# Extras that were installed before are kept up to date.
install: $(VENV)/.runtime $(EXTRAS_WANTED:%=$(VENV)/.extra-%) $(wildcard $(VENV)/.extra-*) ## Install the locked versions into .venv; with EXTRAS=report,bucket also those extras
	@echo "Installed in $(VENV). To use it: . $(BIN)/activate"

demo: $(VENV)/.extra-duckdb $(VENV)/.extra-report ## Export a made-up world from the sandbox and look at it (no key, no network)
	@$(BIN)/metrics-etl demo

run: $(VENV)/.runtime ## Export your own organization, as config/metrics-etl.toml says
	@$(BIN)/metrics-etl run

test: $(VENV)/.dev ## Run the tests
	@$(IN_MEMORY) $(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.dev $(READERS)/.done $(DBT)/.done $(SNOWFLAKE)/.done $(BIGQUERY)/.done $(DASK)/.done ## Run the tests with their full figures, slow ones included
	@FULL_FIGURES=1 $(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow" --timeout 3600
	@$(SNOWFLAKE)/bin/python -m pytest -m slow --timeout 3600 tests/load/test_snowflake.py
	@$(BIGQUERY)/bin/python -m pytest -m slow --timeout 3600 tests/load/test_bigquery.py
	@FULL_FIGURES=1 $(DASK)/bin/python -m pytest -m slow --timeout 3600 tests/pipeline/engine/test_dask.py
	@$(BIN)/python -m tests.versions

test-versions: $(VENV)/.dev ## Run the tests of the core on the lowest versions and on each Python
	@$(BIN)/python -m tests.versions

check: lint types docs test ## Everything that CI checks

lint: $(VENV)/.dev ## Check style, spelling and the order of layers, and print how large the code is
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports
	@$(BIN)/codespell *.md .github Makefile benchmarks config docs etl tests
	@$(BIN)/python -m tests.code_lines

types: $(VENV)/.dev ## Check types, strictly
	@$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

docs: $(VENV)/.dev ## Check that the documentation and the code agree
	@$(BIN)/python -m pytest tests/test_docs.py

bench: $(BENCH)/.done $(VENV)/.dev ## Measure everything again and write benchmarks/results.md (about an hour, on a quiet machine)
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

# All extras are resolved together, so that any of them fit beside each other, and the lock of one has what the core's has not.
ALL := $(VENV)/all.txt
LOWEST := $(VENV)/lowest.txt
IN_DEV := bucket delta duckdb fast postgresql report
BEYOND_CORE = $$(sed -n 's/==.*//p' requirements.lock | sed 's/^/--no-emit-package /')
lock: $(VENV)/.dev ## Resolve the locked requirements anew
	$(LOCK) pyproject.toml --all-extras --group dev --output-file $(ALL)
	$(LOCK) pyproject.toml --constraint $(ALL) --output-file requirements.lock
	$(LOCK) pyproject.toml --group dev $(foreach each,$(IN_DEV),--extra $(each)) --constraint $(ALL) --output-file requirements-dev.lock
	for extra in $(EXTRAS_KNOWN); do \
		$(LOCK) pyproject.toml --extra $$extra --constraint $(ALL) $(BEYOND_CORE) --output-file locks/$$extra.lock || exit; done
	$(LOCK) --group build --constraint $(ALL) --output-file requirements-build.lock
	$(LOCK) --group release --constraint requirements-build.lock --output-file requirements-release.lock
	$(LOCK) pyproject.toml --group test --constraint $(ALL) $(BEYOND_CORE) --output-file tests/tools.lock
	$(LOCK) pyproject.toml --all-extras --resolution lowest-direct --output-file $(LOWEST)
	$(LOCK) $(LOWEST) --group test --output-file tests/lowest.lock
	$(LOCK) pyproject.toml tests/snowflake.in --extra bucket --group test --output-file tests/snowflake.lock
	$(call LOCK_FOR,3.13) pyproject.toml tests/bigquery.in --extra bucket --group test --output-file tests/bigquery.lock
	$(call LOCK_FOR,3.13) tests/local-bigquery.in --no-deps --output-file tests/local-bigquery.lock
	$(LOCK) tests/readers.in pyproject.toml --output-file tests/readers.lock
	$(LOCK) tests/dbt.in --output-file tests/dbt.lock
	$(LOCK) benchmarks/baselines.in --output-file benchmarks/baselines.lock

clean: ## Remove the virtual environments and caches
	rm -rf $(VENV) $(BENCH) $(READERS) $(DBT) $(SNOWFLAKE) $(BIGQUERY) $(DASK) $(VERSIONS) $(RELEASE) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* *.egg-info
