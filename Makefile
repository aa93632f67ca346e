# The two commands that matter are `make demo` and `make test`. Both need Python 3.11 to 3.13, and nothing else: they
# set up a virtual environment of their own from a lock file with hashes. `make help` shows the others.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# checkov pins a boto3 that is not ours.
CHECKOV := .venv-checkov
# Tests share two servers and two cores at least; more workers than cores only wait for each other.
WORKERS ?= 2
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --annotation-style line \
	--custom-compile-command "make lock" pyproject.toml
# What only the command line uses stays out of the functions' package.
CLI_ONLY = click colorama rich markdown-it-py mdurl pygments

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench mutations chaos soak lock clean
.DELETE_ON_ERROR:

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## run the whole pipeline once on this machine, and prove the result
	$(BIN)/streamgauge demo

test: $(VENV)/dev.stamp ## run every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp $(CHECKOV)/stamp ## check style, types and the template
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint infra/template.yaml
	$(BIN)/python tests/support/checkov_exceptions.py $(CHECKOV)/bin/checkov
	$(BIN)/hadolint infra/kcl/Dockerfile

format: $(VENV)/dev.stamp ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev.stamp ## run the benchmarks
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python $$script; done

mutations: $(VENV)/dev.stamp ## remove each protection in a copy of the tree; a test must go red for every one
	PYTHONPATH=tests $(BIN)/python -m mutations

ROUNDS ?= 20
SEED ?= 1
chaos: $(VENV)/dev.stamp ## kill, stop and reshard real processes: make chaos ROUNDS=100 SEED=7
	CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(SEED) $(BIN)/python -m pytest -q -s tests/chaos

SOAK_MINUTES ?= 20
soak: $(VENV)/dev.stamp ## run schedules of the simulation with new seeds: make soak SOAK_MINUTES=60
	PYTHONPATH=tests/support:tests $(BIN)/python -m simulation.soak --minutes $(SOAK_MINUTES)

lock: ## write the lock files anew (needs what `make test` has set up)
	$(LOCK) requirements/build.in --extra dev --upgrade --output-file requirements/dev.lock
	$(LOCK) requirements/build.in --extra local --upgrade --constraint requirements/dev.lock \
		--output-file requirements/demo.lock
	$(LOCK) --extra lambda --upgrade --constraint requirements/dev.lock $(CLI_ONLY:%=--no-emit-package=%) \
		--output-file requirements/lambda.lock
	$(LOCK) --extra kcl --upgrade --constraint requirements/dev.lock --output-file requirements/kcl.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --annotation-style line --upgrade \
		--custom-compile-command "make lock" requirements/checkov.in --output-file requirements/checkov.lock

clean: ## remove the virtual environment, caches and built files
	rm -rf $(VENV) $(CHECKOV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was made from, so that a second run starts at once. dev.lock holds all of demo.lock, in
# the same versions: whoever has the one needs not the other.
$(VENV)/demo.stamp: requirements/demo.lock pyproject.toml | $(BIN)/python
	@if [ -e $(VENV)/dev.stamp ] && [ ! requirements/dev.lock -nt $(VENV)/dev.stamp ] \
		&& [ ! pyproject.toml -nt $(VENV)/dev.stamp ]; then touch $@; else $(MAKE) --no-print-directory install-demo; fi

$(VENV)/dev.stamp: requirements/dev.lock pyproject.toml | $(BIN)/python
	@$(MAKE) --no-print-directory install-dev

.PHONY: install-demo install-dev
# The lock names every package, so pip resolves nothing; `pip check` would tell if one were missing.
install-demo install-dev: install-%: requirements/%.lock
	@echo "Installing what is locked in $< (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@touch $(VENV)/$*.stamp

$(CHECKOV)/stamp: requirements/checkov.lock | $(BIN)/python
	@echo "Installing what is locked in $< (about a minute) ..."
	@$(BIN)/python -m venv --clear $(CHECKOV)
	@$(CHECKOV)/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r $<
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo >&2 \
		"There is no $(PYTHON) here. streamgauge needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12 ..."; \
		exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit( \
		"streamgauge needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Set another: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
		"$(PYTHON) cannot make virtual environments with pip in them: its modules venv and ensurepip are missing." \
		"On Debian and Ubuntu: apt install python3-venv. Or set another Python: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
