# Tamis. `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo dashboard check test test-vertex bench bench-filter bench-gpu clean

# Python 3.11 or 3.12, whichever is there.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
# More for pip, such as an index with CPU builds of torch.
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Two workers, each with whole files (tests/conftest.py).
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/requirements.stamp

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv, unless it is current.

$(STAMP): requirements.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; install one, or make PYTHON=/path/to/it"; exit 2; }
	@echo "Installing $$(wc -l < requirements.txt) pinned packages into $(VENV): about 4 minutes, 3 GB."
	@$(PYTHON) -m venv $(VENV) || { echo "error: the venv module is missing; apt install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input $(PIP_FLAGS) -r requirements.txt
	@touch $@

demo: setup ## Train, filter, retrain on real text; print what came of it.
	@$(BIN)/python run.py demo

dashboard: setup ## Open the ZenML dashboard and the MLflow UI on what is there.
	@$(BIN)/python run.py dashboard

check: setup ## Lint, format and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: check ## Every test.
	@$(BIN)/python -m pytest $(TOGETHER)

test-vertex: setup ## The Vertex AI stack alone, against a stand-in on this machine.
	@$(BIN)/python -m pytest $(TOGETHER) tests/vertex

bench: setup ## Scoring beside transformers, sentence-transformers and fastText, on the same documents.
	@$(BIN)/python bench/scoring.py

bench-filter: setup ## Stages of the filter beside datatrove's, on the same documents.
	@$(BIN)/python bench/filter.py

bench-gpu: setup ## Packed encoder beside padded loops; says what it ran on.
	@$(BIN)/python bench/gpu.py

clean: ## Remove runs, models and output (.tamis); .venv stays.
	rm -rf .tamis
