# `make demo` and `make test` need nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Half of the tests wait for other programs, so three run at a time. Where nothing may be skipped, those that kill, starve
# and outlast exporters run too, and want the machine to themselves.
THREE  := $(if $(filter-out 0,$(MODEL_HEALTH_REQUIRE_E2E)),,--numprocesses 3 --dist worksteal)

.PHONY: demo test check bench soak quarters clean

demo: $(VENV)/.run   ## a running exporter on real data, and its page
	@$(BIN)/model-health-exporter demo

test: $(VENV)/.dev   ## everything that can be tested here; what needs a missing program is skipped with the reason
	$(BIN)/python -m pytest $(THREE)

check: $(VENV)/.dev  ## style, types, floors, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m exporter.assets --check

bench: $(VENV)/.dev  ## throughput, latency, memory and rules beside their budgets, and beside other libraries
	$(BIN)/python -m tests.bench --peers

soak: $(VENV)/.dev   ## ten minutes under a steady stream from Kafka: memory, lag, losses; an exit code
	$(BIN)/python -m tests.bench.soak

quarters: $(VENV)/.dev   ## false pages of twenty quarters of healthy traffic, half an hour of all cores; an exit code
	$(BIN)/python -m tests.bench.quarters

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	@echo "making an environment in $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	@test -e $(VENV)/.dev || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:               ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
