# Two commands for a newcomer: `make demo` and `make test`. Each builds its own environment from nothing.

PYTHON ?= python3
VENV ?= .venv
PYTEST_FLAGS ?= -n 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
SOURCES := graphopt passes tests models

# A command, as it would be typed, and what it does.
shown = printf '$$ %s\n\n' '$(1)' && $(BIN)/$(1) && echo

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format passes api peers reproduce clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(BASE) ## Compress a model of handwritten digits, prove the result, time it, show it as a page
	@mkdir -p build
	@$(call shown,graphopt compress models/digits.onnx --data digits:split=train --eval digits:split=test \
		--goal latency=0.5 --max-drop 1 --skip distill --threads 1 --report build/report.html -o build/small.onnx)
	@$(call shown,graphopt bench models/digits.onnx build/small.onnx --threads 1)

test: $(DEV) ## Run the default test suite
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-all: $(DEV) ## Run everything: the long property, fuzz and size tests too
	@$(BIN)/python -m pytest $(PYTEST_FLAGS) --slow

lint: $(DEV) ## ruff, mypy --strict, and the freshness of the pass catalogue and the API page
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(SOURCES)
	@$(BIN)/graphopt passes --check passes/README.md
	@$(BIN)/python tests/reference.py --check graphopt/API.md

format: $(DEV) ## Format the code and sort the imports
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

passes: $(DEV) ## Regenerate passes/README.md
	@$(BIN)/graphopt passes --markdown > $(VENV)/passes.md && mv $(VENV)/passes.md passes/README.md

api: $(DEV) ## Regenerate graphopt/API.md
	@$(BIN)/python tests/reference.py > $(VENV)/api.md && mv $(VENV)/api.md graphopt/API.md

peers: $(DEV) ## Measure graphopt against other optimizers
	@$(PIP) install -qq --upgrade 'pip>=25.1'
	@$(PIP) install -qq --constraint constraints.txt --group peers
	@$(BIN)/python tests/bench/peers.py

reproduce: $(DEV) ## Train the classic case of distillation at full size: hours on a CPU
	@$(BIN)/python tests/bench/distillation/classic.py --width 1 --labels all 1000 1000+

clean: ## Remove the environment and everything built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .zoo
	find graphopt passes tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'graphopt needs Python 3.11 or newer; name one with `make PYTHON=python3.12 ...`' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps make the install happen once, and again when what is to be installed changes.
$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -qq --constraint constraints.txt --editable '.[data,report]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(BASE)
