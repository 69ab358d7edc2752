# Each target installs what it needs, once. `make help` lists them.
#
# Paths may contain spaces: targets are relative, and recipes quote. Downloads come only from the package index.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash

PYTHON ?= python3
ARGS ?=
PORT ?= 5000
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

# Some systems set ENV for their shells: from the environment it counts only if it names a folder of conf/.
ifneq ($(origin ENV),command line)
ENV := $(if $(wildcard conf/$(ENV)/parameters.yml),$(ENV))
endif

# Nothing calls home, whatever command is started from here.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_NO_PROGRESS := 1
export NO_MKDOCS_2_WARNING := 1

.PHONY: help setup run test test-precision lint docs bench ui viz clean cluster-install cluster-build cluster-up cluster-down test-cluster bench-cluster

help: ## List these verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo "  Options: ENV=smoke (a folder of conf/), ARGS='--pipelines=evaluation', PORT=5000, PYTHON=python3.12"

setup: $(READY) ## Install everything that is pinned in requirements.lock into .venv

run: $(READY) ## Run all six stages; ENV=smoke for the tiny world, ARGS for more options of `kedro run`
	@$(BIN)/kedro run $(if $(ENV),--env="$(ENV)") $(ARGS)

# One process per core with one thread each: more throughput than one process with several threads.
test: $(READY) ## Run the tests, one process per core; ARGS="-n 0 PATH" for one process
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-precision: $(READY) ## Run the numeric tests as if bfloat16 were fast here, and as if it were not
	@for assumed in 1 0; do \
	  echo "FOURFOLD_ASSUME_BF16=$$assumed"; \
	  FOURFOLD_ASSUME_BF16=$$assumed OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "numeric and not slow" -n auto --dist loadfile --no-loadscope-reorder $(ARGS) || exit 1; \
	done

lint: $(READY) ## Check style, types, import contracts, spelling and prose
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@git ls-files -z '*.py' '*.md' '*.yml' '*.yaml' '*.toml' '*.jinja' Makefile | xargs -0 $(BIN)/codespell
	@$(BIN)/python .ci/check_prose.py

docs: $(READY) ## Build the documentation site into site/ (no network; warnings are errors)
	@$(BIN)/mkdocs build --strict --quiet && echo "Documentation: site/index.html"

bench: $(READY) ## Measure speed against what must be reached (ten minutes); ARGS="memory roar" for some lines
	@$(BIN)/python benchmarks/all.py $(ARGS)

# A real cluster on this machine (docs/kubernetes.md, "Test on a real cluster"); KUBECONFIG=… on the command line uses another one.
CLUSTER := PYTHONPATH=tests/cluster $(BIN)/python -m testcluster

cluster-install: $(READY) ## Install the packages that a cluster on this machine needs (Debian, root)
	@$(CLUSTER) install

cluster-build: $(READY) ## Build the programs of that cluster, once (ten minutes on two cores)
	@$(CLUSTER) build

test-cluster: $(READY) ## Test on a real Kubernetes cluster; builds its programs once (ten minutes), starts and removes it
	@$(if $(filter command line,$(origin KUBECONFIG)),,$(CLUSTER) build &&) \
	  $(if $(filter command line,$(origin KUBECONFIG)),FOURFOLD_TEST_KUBECONFIG="$(KUBECONFIG)") $(BIN)/python -m pytest tests/cluster $(ARGS)

bench-cluster: $(READY) ## Measure what the runner costs on a cluster
	@$(CLUSTER) build && PYTHONPATH=tests/cluster $(BIN)/python tests/cluster/bench.py $(ARGS)

cluster-up: $(READY) ## Start a cluster that stays, for tests and trials
	@$(CLUSTER) build && $(CLUSTER) up

cluster-down: $(READY) ## Remove it
	@$(CLUSTER) down

ui: $(READY) ## Open the record of runs and models (MLflow) at http://127.0.0.1:5000
	@echo "MLflow: http://127.0.0.1:$(PORT) (stop with Ctrl-C)"
	@$(BIN)/mlflow server --backend-store-uri sqlite:///data/mlflow.db --host 127.0.0.1 --port $(PORT)

viz: $(READY) ## Open the picture of stages and data (Kedro-Viz)
	@$(BIN)/kedro viz run $(if $(ENV),--env="$(ENV)") $(ARGS)

clean: ## Remove the installed environment (never data/)
	rm -rf .venv .cache/uv

# uv does not read pip's configuration: hand on the package index that pip is told to use, if any.
INDEX = index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$("$(PYTHON)" -m pip config get global.index-url 2>/dev/null)}}"; \
  if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi;

# The stamp is newer than what it was made from, so an unchanged set-up costs nothing.
$(READY): requirements.lock pyproject.toml .cache/uv/bin/uv
	@test -x $(BIN)/python || "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fourfold needs Python 3.11 or newer; this one is $$("$(PYTHON)" --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv --without-pip .venv
	@echo "Installing the pinned packages into .venv (about half a minute with a warm cache)"
	@$(INDEX) .cache/uv/bin/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@.cache/uv/bin/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

.cache/uv/bin/uv:
	@"$(PYTHON)" -m pip install --quiet --root-user-action=ignore --no-warn-script-location --upgrade --target .cache/uv "uv==$(UV_VERSION)"
	@touch .cache/uv/bin/uv
