# Two commands for a newcomer: `make demo` and `make test`. Each builds its own environment from nothing.

PYTHON ?= python3
VENV ?= .venv
DEMO_MODEL ?= models/silero_vad_16k_op15.onnx
DEMO_SHAPES ?= --input-shape input:1,576 --input-shape state:2,1,128
PYTEST_FLAGS ?= -n 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
SOURCES := graphopt passes tests

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format passes peers reproduce clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(BASE) ## Optimize a real model, prove the result, time it
	@mkdir -p build
	@echo '$$ graphopt optimize $(DEMO_MODEL) build/demo.onnx $(DEMO_SHAPES)'
	@echo
	@$(BIN)/graphopt optimize $(DEMO_MODEL) build/demo.onnx $(DEMO_SHAPES)
	@echo
	@echo '$$ graphopt bench $(DEMO_MODEL) build/demo.onnx $(DEMO_SHAPES)'
	@echo
	@$(BIN)/graphopt bench $(DEMO_MODEL) build/demo.onnx $(DEMO_SHAPES)

test: $(DEV) ## Run the default test suite
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-all: $(DEV) ## Run everything: the long property, fuzz and size tests too
	@$(BIN)/python -m pytest $(PYTEST_FLAGS) --slow

lint: $(DEV) ## ruff, mypy --strict, and the freshness of the pass catalogue
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(SOURCES)
	@$(BIN)/graphopt passes --check passes/README.md

format: $(DEV) ## Format the code and sort the imports
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

passes: $(DEV) ## Regenerate passes/README.md
	@$(BIN)/graphopt passes --markdown > $(VENV)/passes.md && mv $(VENV)/passes.md passes/README.md

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
	$(PIP) install -qq --constraint constraints.txt --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(BASE)
